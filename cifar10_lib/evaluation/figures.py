"""Figures of a run and of its data, drawn from arrays without a screen.

The colours are those of Okabe and Ito, which colour-blind readers can tell apart
(https://jfly.uni-koeln.de/color/), and one sequence from light to dark. `names` are those of
the classes in the order of their labels, unless stated otherwise; long ones are cut.
"""

# ruff: noqa: E402 (imports follow a change of the environment)

from __future__ import annotations

import math
import os
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any, BinaryIO

# A notebook's commands inherit its backend, which may not be installed here: matplotlib refuses
# to be imported then. Figures need none.
_backend = os.environ.pop('MPLBACKEND', None)

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import PercentFormatter

from cifar10_input import TUTORIAL_VIEW, View
from cifar10_lib.base.errors import UserError, write_errors_named
from cifar10_lib.base.files import refuse_dangling_link, replaced
from cifar10_lib.evaluation import fonts
from cifar10_lib.evaluation.analysis import (
    Curves,
    DistortedImages,
    Series,
    class_scores,
    moving_average,
)

if _backend is not None:
    os.environ['MPLBACKEND'] = _backend

BLUE, VERMILION, GREEN = '#0072b2', '#d55e00', '#009e73'
PALETTE = (BLUE, VERMILION, GREEN, '#cc79a7', '#e69f00', '#56b4e9', '#666666')
GRID = '#dddddd'

# Styles of the lines of one run.
STYLES = ('-', '--', ':', '-.')
MARKERS = ('o', 's', '^', 'D')

# Of the values on an axis, so that noise alone doesn't fill it.
_LEAST_SPAN = {'loss': 0.5, 'cross_entropy': 0.5, 'precision': 0.1}

# A legend of more lines finds no place among them.
_MAX_LINES_BESIDE_LEGEND = 2

# Width of the window that smooths the loss, as a share of a run's lines.
_SMOOTHED_SHARE = 0.02

# Longer lines are drawn as the lowest and highest of neighbouring points: more would not show,
# and would make a vector graphic large.
_MAX_POINTS = 4000

# The brightness of standardised values runs from black, this many standard deviations below
# the mean, to white, as many above.
_SHOWN_DEVIATIONS = 2.5

# Most classes whose cells have numbers, and most names on an axis.
_MAX_NUMBERED, _MAX_NAMED = 20, 30

# Names of an axis, each with its unit; the first that suits is taken.
_UNITS: dict[str, list[tuple[str, float]]] = {
    'step': [('step', 1)],
    'examples': [('million examples', 1e6), ('examples', 1)],
    'time': [('hours of training', 3600), ('minutes of training', 60), ('seconds of training', 1)],
}

# Letters of a class's name, and of a run's.
_MAX_NAME, _MAX_RUN_NAME = 18, 30

# Width of a letter in inches, generously: of 12, 10 and 8 points.
_LETTER_12, _LETTER_10, _LETTER_8 = 0.105, 0.088, 0.066


def shorten(name: str, length: int = _MAX_NAME) -> str:
    """The name, or as much of its beginning as `length` letters hold."""
    return name if len(name) <= length else f'{name[: length - 1]}…'


def percent(share: float) -> str:
    """The share for readers; a dash for NaN."""
    return '–' if math.isnan(share) else f'{share:.1%}'


# ------------------------------------------------------------------------------- files


def check_output(
    output: str, endings: tuple[str, ...] = ('.png', '.svg'), flag: str = '--output'
) -> None:
    """Raises UserError where an output could not be written, before long work.

    Its name must end as that of a format, and lie in a folder.
    """
    if not output.endswith(endings):
        *others, last = endings
        expected = f'{", ".join(others)} or {last}' if others else last
        raise UserError(f'{flag}={output}: expected a name that ends in {expected}')
    refuse_dangling_link(output, flag)
    if not os.path.isdir(os.path.dirname(output) or os.curdir):
        raise UserError(f'{flag}={output}: its folder is missing')
    if os.path.isdir(output):
        raise UserError(f'{flag}={output}: is a folder; expected the name of a file')


def write(figure: Figure, output: str) -> None:
    """Writes a picture in the format of its name's ending.

    Raises:
      UserError: it can't be written.
    """
    with write_errors_named(f'--output={output}'), replaced(output) as temporary:
        save(figure, temporary)


def save(figure: Figure, file: str | BinaryIO, dpi: float = 150, **options: object) -> None:
    """Saves a figure with all of its text literal, in fonts that have its letters.

    `$` in a name begins no formula.

    Args:
      figure: the figure.
      file: path, or binary file.
      dpi: pixels per inch.
      options: of `Figure.savefig`.

    Raises:
      OSError: the file can't be written.
    """
    texts: list[Any] = figure.findobj(Text)
    fonts.fit(texts)
    for text in texts:
        text.set_parse_math(False)
    # Labels of ticks may be created while the figure is drawn.
    with matplotlib.rc_context({'text.parse_math': False}), warnings.catch_warnings():
        # `fonts` has said what is missing.
        warnings.filterwarnings('ignore', message='Glyph')
        figure.savefig(file, dpi=dpi, **options)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------ curves


def draw_curves(
    runs: Sequence[Curves],
    axis: str,
    title: str = '',
    panels: Sequence[str] = ('loss', 'precision'),
    legends: bool = True,
) -> Figure:
    """Loss, cross entropy and precision of one run or several, each in its colour: `line_of`.

    A grey line is what guessing gives: the precision 1 / classes, the cross entropy ln(classes).

    Args:
      runs: any number.
      axis: a key of `analysis.AXES`, for x.
      panels: some of 'loss', 'cross_entropy' and 'precision'.
      legends: whether they have legends.
    """
    # The end of a long name tells runs apart.
    names = [
        run.name if len(run.name) <= _MAX_RUN_NAME else f'…{run.name[1 - _MAX_RUN_NAME :]}'
        for run in runs
    ]
    runs = [run._replace(name=name) for run, name in zip(runs, names, strict=True)]
    size = (5 * len(panels), 3.8) if len(panels) > 1 else (4.4, 3.3)
    if legends and len(runs) > len(STYLES):
        # Legends of many lines are below.
        size = size[0], size[1] + 0.2 * (len(runs) - len(STYLES))
    figure = Figure(figsize=size, layout='constrained')
    figure.suptitle(title)
    draw = {
        'loss': _draw_loss,
        'cross_entropy': _draw_cross_entropy,
        'precision': _draw_precision,
    }
    largest = max(x.max(initial=0) for run in runs for _, x, _ in (run.loss, *run.precision))
    num_classes = {run.num_classes for run in runs}
    units = _UNITS[axis]
    label, unit = next((unit for unit in units if largest >= 3 * unit[1]), units[-1])
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw[panel](axes, runs, unit)
        if not legends and axes.get_legend():
            axes.get_legend().remove()
        if panel == 'precision':
            _draw_chance(axes, [1 / count for count in num_classes])
        elif panel == 'cross_entropy':
            _draw_chance(axes, [math.log(count) for count in num_classes])
        axes.set_xlabel(label)
        axes.xaxis.set_major_formatter('{x:,.10g}')
        axes.grid(color=GRID, linewidth=0.6)
        axes.spines[['top', 'right']].set_visible(False)
        axes.margins(x=0.04, y=0.1)
        axes.set_xlim(left=0)
        low, high = axes.get_ylim()
        more = max(_LEAST_SPAN[panel] - (high - low), 0) / 2
        low, high = max(low - more, 0), high + more
        axes.set_ylim(low, min(high, 1) if panel == 'precision' else high)
    return figure


def line_of(place: int) -> tuple[str, str]:
    """Colour and style of the line of the run at a place: 28 differ."""
    styles, place = divmod(place, len(PALETTE))
    return PALETTE[place], STYLES[styles % len(STYLES)]


def _draw_chance(axes: Axes, values: Sequence[float]) -> None:
    """Lines of what guessing gives."""
    across = axes.get_yaxis_transform()
    for value in values:
        axes.hlines(
            value, 0, 1, color='#888888', linestyle=(0, (1, 2)), linewidth=1, transform=across
        )
        axes.text(1.01, value, 'chance', transform=across, va='center', size=8, color='#666666')
        # Lines in the units of a window don't count for the limits of its axis.
        axes.update_datalim([(0, value)], updatex=False)
    axes.autoscale_view()


def _draw_loss(axes: Axes, runs: Sequence[Curves], unit: float) -> None:
    _draw_batches(axes, [run.loss for run in runs], [run.name for run in runs], unit)
    axes.set_ylabel('total loss')


def _draw_batches(
    axes: Axes, lines: Sequence[Series | None], names: Sequence[str], unit: float
) -> None:
    """A value of each batch, and its moving average."""
    dark = []
    for place, (line, name) in enumerate(zip(lines, names, strict=True)):
        if line is None or not len(line.x):
            continue
        color, style = line_of(place)
        # Odd, so that each mean is centred on its point.
        window = 2 * int(_SMOOTHED_SHARE * len(line.x) / 2) + 1
        if window > 1:
            x, y = _thinned(line)
            axes.plot(x / unit, y, color=color, alpha=0.35, linewidth=0.8, label='one batch')
        x, y = _thinned(line._replace(y=moving_average(line.y, window)))
        label = f'mean of {window} batches' if window > 1 else 'one batch'
        label = label if len(lines) == 1 else name
        dark += axes.plot(x / unit, y, style, color=color, linewidth=1.8, label=label)
    _add_legend(axes, list(axes.lines) if len(lines) == 1 else dark)


def _draw_cross_entropy(axes: Axes, runs: Sequence[Curves], unit: float) -> None:
    """That of the batches of training as lines, and that of evaluations as marks."""
    _draw_batches(axes, [run.training_cross_entropy for run in runs], [r.name for r in runs], unit)
    for place, run in enumerate(runs):
        for number, series in enumerate(run.cross_entropy):
            axes.plot(
                series.x / unit,
                series.y,
                MARKERS[number % len(MARKERS)],
                color=line_of(place)[0],
                markersize=4,
            )
    axes.set_ylabel('cross entropy')


def _thinned(line: Series) -> tuple[np.ndarray, np.ndarray]:
    """x and y; of many points the lowest and the highest among neighbours."""
    if len(line.x) <= _MAX_POINTS:
        return line.x, line.y
    places = np.array_split(np.arange(len(line.x)), _MAX_POINTS // 2)
    ends = [sorted((p[line.y[p].argmin()], p[line.y[p].argmax()])) for p in places]
    kept = np.unique(ends)
    return line.x[kept], line.y[kept]


def _draw_precision(axes: Axes, runs: Sequence[Curves], unit: float) -> None:
    for place, run in enumerate(runs):
        color, style = line_of(place)
        # Many runs have styles for themselves.
        styles = STYLES if len(runs) <= len(PALETTE) else (style,)
        for number, series in enumerate(run.precision):
            label = run.name if len(runs) > 1 else series.label
            if len(runs) > 1 and len(run.precision) > 1:
                label += f', {series.label}'
            axes.plot(
                series.x / unit,
                series.y,
                styles[number % len(styles)],
                color=color,
                marker=MARKERS[number % len(MARKERS)],
                markersize=4,
                # Dots at a precision of 0 or 1 are not cut.
                clip_on=False,
                label=f'{label}: {series.y[-1]:.3f}',
            )
    axes.set_ylabel('precision @ 1')
    _add_legend(axes, list(axes.lines))


def _add_legend(axes: Axes, lines: Sequence[Line2D]) -> None:
    """Puts the legend among the lines, or below where there are many of them."""
    labels = [str(line.get_label()) for line in lines]
    if len(lines) > _MAX_LINES_BESIDE_LEGEND:
        axes.legend(lines, labels, frameon=False, loc='upper left', bbox_to_anchor=(0, -0.16))
    elif lines:
        axes.legend(lines, labels, frameon=False)


# ----------------------------------------------------------------------------- classes


def draw_confusion(confusion: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """The confusion matrix, with the recall of each class beside it and the precision below.

    The colour of a cell is the share of the true class's images, on the scale of the square
    root, so that rare mistakes show. Up to 20 classes have numbers as well.

    Args:
      confusion: int64 [true class, predicted class], counts of images.
    """
    count, numbered = len(names), len(names) <= _MAX_NUMBERED
    scores = class_scores(confusion)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = max(2.0, count * (0.55 if count <= 12 else 0.47)) if numbered else 5.5
    margin = _LETTER_10 * max(len(shorten(name)) for name in names)
    size = (side + margin + (1.6 if numbered else 2.6), side + margin + 1.9)
    figure = Figure(figsize=size, layout='constrained')
    figure.suptitle(title)
    matrix, recall, precision = figure.subplot_mosaic(
        [['matrix', 'recall'], ['precision', '.']],
        width_ratios=[side, 0.8],
        height_ratios=[side, 0.8],
    ).values()
    picture = matrix.imshow(
        shares, cmap='Blues', norm=PowerNorm(0.5, 0, 1), interpolation='none', aspect='auto'
    )
    _name_ticks(matrix.yaxis, names)
    matrix.set(xticks=[], ylabel='true class')
    # The percentages of few classes need room behind the bars, which replaces an axis.
    thickness, end, ticks = (0.4, 1.25, []) if numbered else (1, 1, [0, 1])
    recall.set(ylim=matrix.get_ylim(), xlim=(0, end), yticks=[], xticks=ticks, title='recall')
    precision.set(xlim=matrix.get_xlim(), ylim=(end, 0), yticks=ticks, ylabel='precision')
    for bar, share, axis in (
        (recall.barh, scores.recall, recall.xaxis),
        (precision.bar, scores.precision, precision.yaxis),
    ):
        bars = bar(np.arange(count), np.nan_to_num(share), thickness, color=BLUE)
        axis.set_major_formatter(PercentFormatter(1))
        if numbered:
            axis.axes.bar_label(bars, [percent(one) for one in share], padding=2, size=8)
    precision.set_xlabel('predicted class')
    _name_ticks(precision.xaxis, names, rotation=45, ha='right', rotation_mode='anchor')
    for axes in (matrix, recall, precision):
        axes.tick_params(length=0)
        axes.spines[:].set_visible(axes is matrix and not numbered)
    if not numbered:
        scale = figure.colorbar(picture, ax=recall, aspect=40, ticks=[0, 0.01, 0.1, 0.5, 1])
        scale.ax.yaxis.set_major_formatter(PercentFormatter(1))
        scale.set_label("share of the true class's images")
        return figure
    for (true, predicted), number in np.ndenumerate(confusion):
        color = 'white' if shares[true, predicted] > 0.3 else '#08306b' if number else '#6a819b'
        matrix.text(predicted, true, f'{number:,}', ha='center', va='center', color=color, size=8)
    return figure


def draw_classes(
    train: np.ndarray, test: np.ndarray, names: Sequence[str], title: str = ''
) -> Figure:
    """Bars of the numbers of training and test images of each class, int [classes] each."""
    count = len(names)
    figure = Figure(figsize=(8, 0.25 * min(count, _MAX_NAMED) + 1.3), layout='constrained')
    figure.suptitle(title)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, counts, label in zip(panels, (train, test), ('training', 'test'), strict=True):
        # Gaps of less than a pixel would show as stripes.
        bars = axes.barh(np.arange(count), counts, 0.8 if count <= _MAX_NAMED else 1, color=BLUE)
        if count <= _MAX_NAMED:
            axes.bar_label(bars, fmt='{:,.0f}', padding=3, fontsize=8)
            axes.margins(x=0.15)
        axes.set_xlabel(f'{label} images')
        axes.xaxis.set_major_formatter('{x:,.0f}')
        axes.locator_params(axis='x', nbins=5, integer=True)
        axes.spines[['top', 'right']].set_visible(False)
    _name_ticks(panels[0].yaxis, names)
    panels[0].set_ylim(count - 0.4, -0.6)
    return figure


def _name_ticks(axis: Axis, names: Sequence[str], **options: Any) -> None:
    """Puts the names on an axis; of many as many as there is room for, evenly."""
    places = range(0, len(names), -(-len(names) // _MAX_NAMED))
    labels = [shorten(names[place]) for place in places]
    axis.set_ticks(places, labels, fontsize=10 if len(names) <= _MAX_NUMBERED else 8, **options)


# ------------------------------------------------------------------------------ images


def draw_grid(
    rows: Sequence[Sequence[np.ndarray]],
    title: str,
    side: float,
    names: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    gap: float = 0.1,
    caption_width: float = 0.0,
    columns: int = 1,
) -> Figure:
    """Rows of images, with the name of each row at its left and captions above the images.

    Args:
      rows: images, uint8 or float32 of 0 to 1 [side, side, 3].
      side: of an image, in inches.
      names: of the rows.
      captions: of each row's first images; of all rows or of the first ones.
      gap: between images, in inches.
      caption_width: least distance from one image's left edge to the next one's, in inches.
      columns: side by side, into which the rows are distributed one below the other.
    """
    pitch = max(side + gap, caption_width)
    name_width = _LETTER_10 * max(map(len, names), default=0) + 0.1
    column_width = name_width + max(map(len, rows)) * pitch
    width = max(columns * column_width + 0.1, 4.6)
    lines = [
        line for part in title.split('\n') for line in textwrap.wrap(part, int(width / _LETTER_12))
    ]
    figure = Figure()
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    rows_per_column = -(-len(rows) // columns)
    bottom = 0.0
    for number, images in enumerate(rows):
        column, row = divmod(number, rows_per_column)
        if row == 0:
            top = 0.1 + 0.2 * len(lines) + 0.1
        texts = captions[number] if number < len(captions) else ()
        top += 0.14 * max((text.count('\n') + 1 for text in texts), default=0)
        left = column * column_width + name_width
        if names:
            middle = top + side / 2
            axes.text(left - 0.08, middle, names[number], ha='right', va='center', fontsize=10)
        for place, image in enumerate(images):
            x = left + place * pitch
            axes.imshow(image, extent=(x, x + side, top + side, top), interpolation='none')
        for place, text in enumerate(texts):
            axes.text(left + place * pitch, top - 0.04, text, va='bottom', fontsize=8)
        top += side + gap
        bottom = max(bottom, top)
    axes.set(xlim=(0, width), ylim=(bottom, 0))
    figure.set_size_inches(width, bottom)
    figure.suptitle('\n'.join(lines), y=1 - 0.1 / bottom)
    return figure


def draw_mistakes(
    images: np.ndarray,
    true_classes: Sequence[str],
    predicted_classes: Sequence[str],
    probabilities: Sequence[float],
    title: str,
) -> Figure:
    """Wrongly classified images with their true class, and the predicted with its probability.

    Args:
      images: uint8 [images, height, width, 3].
      true_classes, predicted_classes: a name for each image.
      probabilities: of the predicted classes.
    """
    captions = [
        f'true: {shorten(true)}\npredicted: {shorten(predicted)} {probability:.1%}'
        for true, predicted, probability in zip(
            true_classes, predicted_classes, probabilities, strict=True
        )
    ]
    longest = max(len(line) for caption in captions for line in caption.split('\n'))
    rows, row_captions = _rows(images, 6), _rows(captions, 6)
    return draw_grid(
        rows, title, 1.5, captions=row_captions, caption_width=_LETTER_8 * longest + 0.1
    )


def _rows(items: Any, columns: int) -> list[Any]:
    """A sequence or array in parts of up to `columns` items."""
    return [items[start : start + columns] for start in range(0, len(items), columns)]


def draw_filters(weights: np.ndarray, title: str) -> Figure:
    """A grid of the first layer's filters.

    Each is scaled by its own largest weight; grey is a weight of 0. `weights` are float32
    [height, width, 3 or 1, filters].
    """
    largest = np.abs(weights).max(axis=(0, 1, 2))
    pictures = np.moveaxis(0.5 + 0.5 * weights / np.where(largest > 0, largest, 1), -1, 0)
    columns = math.ceil(math.sqrt(len(pictures)))
    return draw_grid(_rows(_rgb(pictures), columns), title, side=0.65)


def draw_distortions(
    distorted: DistortedImages, names: Sequence[str], title: str, view: View = TUTORIAL_VIEW
) -> Figure:
    """A row for each image: the image, and then distorted versions as the network sees them.

    Values with a mean of 0 are shown as brightness, with it in the middle. `view` is that of
    the network.
    """
    versions = distorted.versions
    if view.scaling != 'unit':
        versions = 0.5 + versions / (2 * _SHOWN_DEVIATIONS)
    versions = _rgb(np.clip(versions, 0, 1))
    rows = [[image, *row] for image, row in zip(distorted.images, versions, strict=True)]
    labels = [shorten(names[label]) for label in distorted.labels]
    return draw_grid(rows, title, 0.9, labels, [['image', 'as the network sees it']])


def _rgb(pictures: np.ndarray) -> np.ndarray:
    """[..., 3] of [..., 3 or 1]."""
    return np.broadcast_to(pictures, [*pictures.shape[:-1], 3])


def draw_predictions(
    pictures: Sequence[np.ndarray],
    names: Sequence[str],
    likeliest: Sequence[Sequence[tuple[str, float]]],
    title: str,
    seen: float = 1.0,
) -> Figure:
    """Each picture beside bars of its likeliest classes.

    Args:
      pictures: uint8 [side, side, 3] each; one or more.
      names: of the pictures.
      likeliest: classes of each picture with their probabilities, the likeliest first.
      seen: side of the central square that the network sees, as a fraction of the picture's;
        below 1 it is framed.
    """
    num_columns = min(len(pictures), 1 + len(pictures) // 6, 3)
    num_rows = -(-len(pictures) // num_columns)
    row_height = max(1.7, 0.25 * max(map(len, likeliest)) + 0.4)
    figure = Figure(figsize=(5 * num_columns, row_height * num_rows + 0.5), layout='constrained')
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(
        num_rows, 2 * num_columns, squeeze=False, width_ratios=[1, 2] * num_columns
    )
    for axes in grid.flat:
        axes.set_xticks([])
    panels = grid.reshape(-1, 2)
    for axes in panels[len(pictures) :].flat:
        axes.set_axis_off()
    for (left, right), picture, name, classes in zip(
        panels, pictures, names, likeliest, strict=False
    ):
        left.imshow(picture)
        left.set_yticks([])
        left.spines[:].set_color('#cccccc')
        side = len(picture) * seen
        corner = ((len(picture) - side) / 2,) * 2
        # White in black, to be seen on any picture.
        for color, width in (('black', 2), ('white', 1)) if seen < 1 else ():
            frame = Rectangle(corner, side, side, fill=False, edgecolor=color, linewidth=width)
            left.add_patch(frame)
        values = [probability for _, probability in classes]
        bars = right.barh([label for label, _ in classes], values, color='#08519c', height=0.6)
        right.bar_label(bars, [f'{value:.1%}' for value in values], padding=3, fontsize=8)
        right.set(xlim=(0, 1.25), ylim=(len(classes) - 0.4, -0.6))
        right.tick_params(left=False, labelsize=9)
        right.spines[:].set_visible(False)
        right.set_title(name, fontsize=9, loc='left')
    return figure


def draw_text(text: str) -> Figure:
    """Lines of text, such as a table of aligned columns."""
    lines = text.split('\n')
    size = (0.09 * max(map(len, lines)) + 0.4, 0.2 * len(lines) + 0.4)
    figure = Figure(figsize=size)
    figure.text(0.2 / size[0], 0.5, text, family='monospace', fontsize=10, va='center')
    return figure
