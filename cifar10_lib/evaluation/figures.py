"""What do a run's pictures look like? Figures of arrays, without a screen.

The colours are those of Okabe and Ito, which colour-blind readers can tell apart
(https://jfly.uni-koeln.de/color/), and one sequence from light to dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from cifar10_input import TUTORIAL_VIEW, View
from cifar10_lib.base.errors import UserError
from cifar10_lib.evaluation.analysis import (
    ClassScores,
    Curves,
    Distorted,
    Series,
    class_scores,
    moving_average,
)

BLUE, VERMILION, GREEN = '#0072b2', '#d55e00', '#009e73'
PALETTE = (BLUE, VERMILION, GREEN, '#cc79a7', '#e69f00', '#56b4e9', '#666666')
PALE = '#9ecae1'
GRID = '#dddddd'

# Of a line among several of one run.
STYLES = ('-', '--', ':', '-.')

# With more, a legend finds no place among them.
_MAX_LINES_BESIDE_LEGEND = 2

# Share of a run's lines that one point of its smoothed loss is the mean of.
_SMOOTHED_SHARE = 0.02

# Points of a line beyond which neighbours are drawn as their lowest and highest: more would
# not show, and would make a picture in vectors large.
_MAX_POINTS = 4000

# Standardised values are shown from this many standard deviations below the mean, black,
# to as many above, white.
_SHOWN_DEVIATIONS = 2.5

# Beyond these many classes, cells have no numbers; bars have no names of their own.
_MAX_NUMBERED, _MAX_NAMED = 20, 30

# What an axis is called, and how much of it is one of that; the first that suits is taken.
_UNITS: dict[str, list[tuple[str, float]]] = {
    'step': [('step', 1)],
    'examples': [('million examples', 1e6), ('examples', 1)],
    'time': [('hours of training', 3600), ('minutes of training', 60), ('seconds of training', 1)],
}

# Letters of a class's name, and of a run's.
_MAX_NAME, _MAX_RUN_NAME = 18, 30


def shown(name: str) -> str:
    """The name of a class as a drawing shows it: not too long, and never as a formula."""
    short = name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1] + '…'
    return short.replace('$', r'\$')


def _shown_run(name: str) -> str:
    """The name of a run; of a long one the end, which tells it from others."""
    short = name if len(name) <= _MAX_RUN_NAME else '…' + name[1 - _MAX_RUN_NAME :]
    return short.replace('$', r'\$')


def _percent(share: float) -> str:
    return '–' if math.isnan(share) else f'{share:.1%}'


# ------------------------------------------------------------------------------- files


def check_output(output: str) -> None:
    """Raises UserError where the name of a picture doesn't tell its format."""
    if not output.endswith(('.png', '.svg')):
        raise UserError(f'--output={output}: expected a name that ends in .png or .svg')


def write(figure: Figure, output: str) -> None:
    """Writes a picture in the format that its name tells.

    Raises:
      UserError: it can't be written.
    """
    try:
        figure.savefig(output, dpi=150)
    except OSError as error:
        raise UserError(
            f'--output={output}: cannot be written: {error.strerror or error}'
        ) from error


# ------------------------------------------------------------------------------ curves


def draw_curves(
    runs: Sequence[Curves],
    axis: str,
    title: str = '',
    panels: Sequence[str] = ('loss', 'precision'),
) -> Figure:
    """Loss and precision of one run or several, each in its colour.

    Args:
      runs: at most as many as `PALETTE` has colours.
      axis: what x is, a key of `cifar10_analysis.AXES`.
      title: above all.
      panels: 'loss', 'precision', or both.
    """
    size = (5 * len(panels), 3.8) if len(panels) > 1 else (4.4, 3.3)
    figure = Figure(figsize=size, layout='constrained')
    figure.suptitle(title.replace('$', r'\$'))
    draw = {'loss': _draw_loss, 'precision': _draw_precision}
    label, unit = _unit(runs, axis)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw[panel](axes, runs, unit)
        axes.set_xlabel(label)
        axes.xaxis.set_major_formatter('{x:,.10g}')
        axes.grid(color=GRID, linewidth=0.6)
        axes.spines[['top', 'right']].set_visible(False)
        axes.margins(x=0.04, y=0.1)
        axes.set_xlim(left=0)
        if panel == 'precision':
            low, high = axes.get_ylim()
            axes.set_ylim(max(low, 0), min(high, 1))
    return figure


def _unit(runs: Sequence[Curves], axis: str) -> tuple[str, float]:
    """What the x axis is called, and how much of it is one of that."""
    lines = [line for run in runs for line in (run.loss, *run.precision)]
    largest = max(line.x.max(initial=0) for line in lines)
    units = _UNITS[axis]
    return next((unit for unit in units if largest >= 3 * unit[1]), units[-1])


def _draw_loss(axes: Axes, runs: Sequence[Curves], unit: float) -> None:
    dark = []
    for run, color in zip(runs, PALETTE, strict=False):
        # Odd, so that each mean is of the lines around its point.
        window = 2 * int(_SMOOTHED_SHARE * len(run.loss.x) / 2) + 1
        if window > 1:
            x, y = _thinned(run.loss)
            axes.plot(x / unit, y, color=color, alpha=0.35, linewidth=0.8, label='one batch')
        x, y = _thinned(run.loss._replace(y=moving_average(run.loss.y, window)))
        label = f'mean of {window} batches' if window > 1 else 'one batch'
        label = label if len(runs) == 1 else _shown_run(run.name)
        dark += axes.plot(x / unit, y, color=color, linewidth=1.8, label=label)
    axes.set_ylabel('total loss')
    _legend(axes, list(axes.lines) if len(runs) == 1 else dark)


def _thinned(line: Series) -> tuple[np.ndarray, np.ndarray]:
    """x and y; of many points the lowest and the highest of each few neighbours."""
    if len(line.x) <= _MAX_POINTS:
        return line.x, line.y
    places = np.array_split(np.arange(len(line.x)), _MAX_POINTS // 2)
    ends = [sorted((p[line.y[p].argmin()], p[line.y[p].argmax()])) for p in places]
    kept = np.unique(ends)
    return line.x[kept], line.y[kept]


def _draw_precision(axes: Axes, runs: Sequence[Curves], unit: float) -> None:
    lines = []
    for run, color in zip(runs, PALETTE, strict=False):
        for number, series in enumerate(run.precision):
            label = _shown_run(run.name) if len(runs) > 1 else series.label
            if len(runs) > 1 and len(run.precision) > 1:
                label += f', {series.label}'
            lines += axes.plot(
                series.x / unit,
                series.y,
                STYLES[number % len(STYLES)],
                color=color,
                marker='o',
                markersize=4,
                # A whole dot at a precision of 0 or 1 too.
                clip_on=False,
                label=f'{label}: {series.y[-1]:.3f}',
            )
    axes.set_ylabel('precision @ 1')
    _legend(axes, lines)


def _legend(axes: Axes, lines: Sequence[Line2D]) -> None:
    """Among the lines, or where there are many of them, below."""
    labels = [str(line.get_label()) for line in lines]
    if len(lines) > _MAX_LINES_BESIDE_LEGEND:
        axes.legend(lines, labels, frameon=False, loc='upper left', bbox_to_anchor=(0, -0.16))
    elif lines:
        axes.legend(lines, labels, frameon=False)


# ------------------------------------------------------------- confusion and mistakes


def draw_confusion(confusion: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """How often each class is taken for each, with recall and precision beside it.

    The colour tells the share of the true class's images; its scale is a square root's, so
    that rare mistakes show.

    Args:
      confusion: int64 [true class, guessed class], counts of images.
      names: of the classes.
      title: above all.
    """
    scores = class_scores(confusion)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    if len(names) <= _MAX_NUMBERED:
        return _draw_numbered(confusion, shares, scores, [shown(n) for n in names], title)
    return _draw_many(shares, scores, [shown(n) for n in names], title)


def _draw_numbered(
    confusion: np.ndarray,
    shares: np.ndarray,
    scores: ClassScores,
    names: Sequence[str],
    title: str,
) -> Figure:
    count = len(names)
    side = (0.55 if count <= 12 else 0.42) * max(count, 4)
    figure = Figure(figsize=(max(side + 2.4, 6), side + 2.2), layout='constrained')
    figure.suptitle(title)
    axes = figure.subplots()
    axes.pcolormesh(
        shares, cmap='Blues', norm=PowerNorm(0.5, 0, 1), edgecolors='white', linewidth=1.5
    )
    for (true, guess), number in np.ndenumerate(confusion):
        color = 'white' if shares[true, guess] > 0.3 else '#08306b' if number else '#6a819b'
        _number(axes, guess, true, f'{number:,}', color=color, fontsize=8.5)
    for label, (recall, precision) in enumerate(zip(scores.recall, scores.precision, strict=True)):
        _number(axes, count + 0.15, label, _percent(recall), fontsize=8.5)
        _number(axes, label, count + 0.15, _percent(precision), fontsize=8.5)
    middles = [*(np.arange(count) + 0.5), count + 0.65]
    axes.set_xticks(middles, [*names, 'recall'], rotation=45, ha='left', rotation_mode='anchor')
    axes.set_yticks(middles, [*names, 'precision'])
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position('top')
    axes.set_xlabel('taken for')
    axes.set_ylabel('true class')
    axes.set_xlim(0, count + 1.15)
    axes.set_ylim(count + 1.15, 0)
    axes.set_aspect('equal')
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _number(axes: Axes, column: float, row: float, text: str, **how: object) -> None:
    axes.text(column + 0.5, row + 0.5, text, ha='center', va='center', **how)  # type: ignore[arg-type]


def _draw_many(shares: np.ndarray, scores: ClassScores, names: Sequence[str], title: str) -> Figure:
    figure = Figure(figsize=(9, 8.6), layout='constrained')
    figure.suptitle(title)
    (matrix, right), (below, corner) = figure.subplots(
        2, 2, width_ratios=[6, 1], height_ratios=[6, 1]
    )
    corner.set_axis_off()
    picture = matrix.imshow(
        shares, cmap='Blues', norm=PowerNorm(0.5, 0, 1), interpolation='none', aspect='auto'
    )
    places = np.arange(len(names))
    some = places[:: -(-len(names) // _MAX_NAMED)]
    few = [names[place] for place in some]
    matrix.set_yticks(some, few, fontsize=8)
    matrix.set_xticks([])
    matrix.set_ylabel('true class')
    right.barh(places, np.nan_to_num(scores.recall), 1, color=BLUE)
    right.set(ylim=matrix.get_ylim(), xlim=(0, 1), yticks=[], title='recall')
    right.xaxis.set_major_formatter(PercentFormatter(1))
    below.bar(places, np.nan_to_num(scores.precision), 1, color=BLUE)
    below.set(xlim=matrix.get_xlim(), ylim=(0, 1), xlabel='taken for', ylabel='precision')
    below.set_xticks(some, few, rotation=90, fontsize=8)
    below.yaxis.set_major_formatter(PercentFormatter(1))
    for axes in (right, below):
        axes.spines[['top', 'right']].set_visible(False)
    bar = figure.colorbar(picture, ax=[right, corner], aspect=40, ticks=[0, 0.01, 0.1, 0.5, 1])
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1))
    bar.set_label("share of the true class's images")
    return figure


def draw_mistakes(
    images: np.ndarray,
    truths: Sequence[str],
    wrong_guesses: Sequence[str],
    probabilities: Sequence[float],
    title: str,
) -> Figure:
    """Images that were taken for something else, with truth, guess and its probability.

    Args:
      images: uint8 [images, height, width, 3].
      truths, wrong_guesses: names of each image's classes.
      probabilities: of each guess.
      title: above all.
    """
    columns = min(len(images), 6)
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(max(1.7 * columns, 4.6), 2.1 * rows + 0.6), layout='constrained')
    figure.suptitle(title, wrap=True)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    each = zip(grid, images, truths, wrong_guesses, probabilities, strict=False)
    for axes, image, truth, guess, probability in each:
        axes.imshow(image)
        text = f'truth: {shown(truth)}\nguess: {shown(guess)} {probability:.1%}'
        axes.set_title(text, fontsize=8, loc='left')
    return figure


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
      title: above all.
      seen: side of the central square that the network sees, as a fraction of the picture's;
        below 1 it is framed.
    """
    num_columns = min(len(pictures), 1 + len(pictures) // 6, 3)
    num_rows = -(-len(pictures) // num_columns)
    figure = Figure(figsize=(5 * num_columns, 1.7 * num_rows + 0.5), layout='constrained')
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
        right.set_xlim(0, 1.25)
        right.set_ylim(len(classes) - 0.4, -0.6)
        right.tick_params(left=False, labelsize=9)
        right.spines[:].set_visible(False)
        right.set_title(name, fontsize=9, loc='left')
    return figure


# --------------------------------------------------------------------- filters, data


def filter_pictures(weights: np.ndarray) -> np.ndarray:
    """A picture of each filter: its largest weight in size at full strength, 0 as grey.

    Args:
      weights: float32 [height, width, 3 or 1, filters].

    Returns:
      float32 [filters, height, width, 3], 0 to 1; of one channel, grey.
    """
    largest = np.abs(weights).max(axis=(0, 1, 2))
    pictures = np.moveaxis(0.5 + 0.5 * weights / np.where(largest > 0, largest, 1), -1, 0)
    return _coloured(pictures)


def distorted_pictures(versions: np.ndarray, view: View = TUTORIAL_VIEW) -> np.ndarray:
    """What a network sees as brightness, 0 to 1; of standardised values the mean is in the middle.

    Args:
      versions: float32 [..., 3 or 1].
      view: which they are.

    Returns:
      float32 [..., 3]; of one channel, grey.
    """
    if view.scaling == 'standardized':
        versions = 0.5 + versions / (2 * _SHOWN_DEVIATIONS)
    return _coloured(np.clip(versions, 0, 1))


def _coloured(pictures: np.ndarray) -> np.ndarray:
    """[..., 3] of [..., 3 or 1]."""
    return np.broadcast_to(pictures, [*pictures.shape[:-1], 3])


def draw_filters(weights: np.ndarray, title: str) -> Figure:
    """A grid of the first layer's filters, float32 [height, width, 3 or 1, filters]."""
    pictures = filter_pictures(weights)
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(0.75 * columns, 0.75 * rows + 0.5), layout='constrained')
    figure.suptitle(title)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, picture in zip(grid, pictures, strict=False):
        axes.imshow(picture)
    return figure


def draw_text(text: str) -> Figure:
    """Lines of text, such as a table of aligned columns."""
    lines = text.split('\n')
    size = (0.09 * max(map(len, lines)) + 0.4, 0.2 * len(lines) + 0.4)
    figure = Figure(figsize=size)
    figure.text(
        0.2 / size[0], 0.5, text, family='monospace', fontsize=10, va='center', parse_math=False
    )
    return figure


def draw_distortions(
    distorted: Distorted, names: Sequence[str], title: str, view: View = TUTORIAL_VIEW
) -> Figure:
    """A row for each image: as it is, and then some distorted versions of it.

    Args:
      distorted: the images.
      names: of the classes.
      title: above all.
      view: what the network sees of them.
    """
    rows, columns = len(distorted.images), 1 + distorted.versions.shape[1]
    figure = Figure(figsize=(columns + 1.3, rows + 0.8), layout='constrained')
    figure.suptitle(title)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
    versions = distorted_pictures(distorted.versions, view)
    for row, image, label, of_image in zip(
        grid, distorted.images, distorted.labels, versions, strict=True
    ):
        row[0].imshow(image)
        row[0].set_ylabel(shown(names[label]), rotation=0, ha='right', va='center')
        for axes, version in zip(row[1:], of_image, strict=True):
            axes.imshow(version)
    grid[0, 0].set_title('image')
    # Wider than its column, which is to be as narrow as the others.
    grid[0, 1].set_title('as the network sees it', loc='left').set_in_layout(False)
    return figure


def draw_classes(
    train: np.ndarray, test: np.ndarray, names: Sequence[str], title: str = ''
) -> Figure:
    """Bars of how many training and test images each class has.

    Args:
      train, test: int [classes], counts.
      names: of the classes.
      title: above all.
    """
    many = len(names) > _MAX_NAMED
    figure = Figure(figsize=(9, 3.6) if many else (8, 0.35 * len(names) + 1.2))
    figure.set_layout_engine('constrained')
    figure.suptitle(title)
    axes = figure.subplots()
    (_draw_many_bars if many else _draw_named_bars)(axes, train, test, [shown(n) for n in names])
    axes.spines[['top', 'right']].set_visible(False)
    return figure


def _draw_named_bars(axes: Axes, train: np.ndarray, test: np.ndarray, names: Sequence[str]) -> None:
    places = np.arange(len(names))
    for counts, offset, color, label in (
        (train, -0.2, BLUE, 'training'),
        (test, 0.2, PALE, 'test'),
    ):
        bars = axes.barh(places + offset, counts, 0.4, color=color, label=label)
        axes.bar_label(bars, fmt='{:,.0f}', padding=3, fontsize=8)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlabel('images')
    axes.xaxis.set_major_formatter('{x:,.0f}')
    axes.margins(x=0.12, y=0.02)
    axes.legend(frameon=False, loc='upper left', bbox_to_anchor=(1, 1))


def _draw_many_bars(axes: Axes, train: np.ndarray, test: np.ndarray, names: Sequence[str]) -> None:
    places = np.arange(len(names))
    # Gaps of less than a pixel would show as stripes.
    axes.bar(places, train, 1, color=BLUE, label='training')
    axes.bar(places, test, 1, color=PALE, label='test')
    some = places[:: -(-len(names) // _MAX_NAMED)]
    axes.set_xticks(some, [names[place] for place in some], rotation=90, fontsize=8)
    axes.set_ylabel('images')
    axes.yaxis.set_major_formatter('{x:,.0f}')
    axes.margins(x=0.01)
    axes.legend(frameon=False, loc='upper left', bbox_to_anchor=(1, 1))
