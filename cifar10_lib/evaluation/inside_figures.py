"""Figures of what a network computes: maps, gradients, kernels, confidences and embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

from cifar10_lib.evaluation import figures
from cifar10_lib.evaluation.figures import BLUE, GRID, PALETTE, VERMILION, shorten
from cifar10_lib.evaluation.inside import LayerOutput, Projection
from cifar10_lib.evaluation.kernels import Filtered
from cifar10_lib.evaluation.results import Calibration

# Maps of a layer in a row, and rows of a layer where the network has few or many layers.
_MAPS_IN_A_ROW = 16
_ROWS, _ROWS_OF_MANY, _MANY_LAYERS = 2, 1, 10

# Of pictures beside each other.
_IN_A_ROW = 4

# Most classes that have colours of their own in an embedding.
_MAX_COLOURED = len(PALETTE) * len(figures.MARKERS)


def heat(values: np.ndarray, name: str = 'inferno') -> np.ndarray:
    """Values as colours, from 0 to the largest: [..., 3] of 0 to 1."""
    largest = values.max(initial=0)
    scaled = values / largest if largest > 0 else np.zeros_like(values)
    return matplotlib.colormaps[name](scaled)[..., :3]


def overlaid(picture: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A picture in grey under the colours of values, float [side, side, 3] of 0 to 1.

    Args:
      picture: uint8 [side, side, 3].
      values: float32 [view, view], 0 or more; enlarged to the picture where it is smaller.
    """
    side = len(picture)
    enlarged = Image.fromarray(values).resize((side, side), Image.Resampling.BILINEAR)
    grey = picture.mean(axis=-1, keepdims=True) / 255
    return 0.45 * grey + 0.55 * heat(np.asarray(enlarged), 'turbo')


def draw_feature_maps(picture: np.ndarray, layers: Sequence[LayerOutput], title: str) -> Figure:
    """The picture, and the maps of each layer; of many those that vary most.

    Each layer is scaled from its smallest value, dark, to its largest. A layer without height and
    width is one square of its values, row by row.

    Args:
      picture: uint8 [side, side, 3], as far as the network sees it.
      layers: of the network.
    """
    rows: list[list[np.ndarray]] = [[picture]]
    names, captions = ['picture'], [['']]
    most = _MAPS_IN_A_ROW * (_ROWS_OF_MANY if len(layers) > _MANY_LAYERS else _ROWS)
    for layer in layers:
        maps, caption = _maps(layer, most)
        for start in range(0, len(maps), _MAPS_IN_A_ROW):
            rows.append(maps[start : start + _MAPS_IN_A_ROW])
            names.append('' if start else shorten(layer.name))
            captions.append([] if start else [caption])
    return figures.draw_grid(rows, title, 0.62, names, captions, gap=0.04)


def _maps(layer: LayerOutput, most: int) -> tuple[list[np.ndarray], str]:
    """At most so many pictures float [height, width, 3] of a layer, and what they are."""
    values = layer.values
    low, high = np.percentile(values, [0.5, 99.5])
    scaled = np.clip((values - low) / (high - low if high > low else 1), 0, 1)
    colours = matplotlib.colormaps['viridis']
    if values.ndim == 1:
        side = math.ceil(math.sqrt(len(values)))
        square = np.full(side * side, np.nan)
        square[: len(values)] = scaled
        # Beyond the values it is white.
        rgba = colours(square.reshape(side, side))
        rgba[np.isnan(square.reshape(side, side))] = 1
        return [rgba[..., :3]], f'{len(values)} values'
    height, width, count = values.shape
    caption = f'{height} x {width}, {count} maps'
    chosen = np.arange(count)
    if count > most:
        spread = values.std(axis=(0, 1))
        chosen = np.sort(np.argsort(-spread, kind='stable')[:most])
        caption += f', of which the {most} that vary most'
    return [colours(scaled[..., channel])[..., :3] for channel in chosen], caption


def draw_attention(
    pictures: Sequence[np.ndarray],
    values: np.ndarray,
    captions: Sequence[str],
    title: str,
    overlay: bool,
) -> Figure:
    """Each picture beside the values of its pixels as colours, from 0 to the picture's largest.

    Args:
      pictures: uint8 [side, side, 3] each, as far as the network sees them.
      values: float32 [pictures, view, view], 0 or more.
      captions: of the pictures, of up to two lines.
      overlay: whether the colours lie over the picture.
    """
    cells: list[list[np.ndarray]] = []
    for picture, of_pixels in zip(pictures, values, strict=True):
        cells.append([picture, overlaid(picture, of_pixels) if overlay else heat(of_pixels)])
    side = 3.0 if len(pictures) == 1 else 1.15
    longest = max(len(line) for caption in captions for line in caption.split('\n'))
    # A caption has the width of a pair.
    pitch = max(side + 0.06, (0.066 * longest + 0.15) / 2)
    rows, texts = [], []
    for start in range(0, len(cells), _IN_A_ROW):
        part = slice(start, start + _IN_A_ROW)
        rows.append([image for pair in cells[part] for image in pair])
        texts.append([text for caption in captions[part] for text in (caption, '')])
    return figures.draw_grid(rows, title, side, captions=texts, gap=0.06, caption_width=pitch)


def draw_kernel(filtered: Filtered, kernel: np.ndarray, name: str, title: str) -> Figure:
    """The picture in grey, padded, convolved and pooled, with the kernel's numbers.

    Where a kernel has negative numbers, the middle grey is 0; else black is, and white what the
    kernel makes of white.
    """
    height, width = filtered.grey.shape
    signed = bool((kernel < 0).any())
    # A few pixels beyond it would leave the others without contrast.
    largest = max(float(np.percentile(np.abs(filtered.convolved), 99.5)), 1e-6)
    bounds = (-largest, largest) if signed else (0, 255 * float(kernel.sum()) or 1)
    panels = [
        ('picture, in grey', filtered.grey, (0, 255)),
        ('padded with zeros', filtered.padded, (0, 255)),
        (name, filtered.convolved, bounds),
        ('the largest of each 2 x 2', filtered.pooled, bounds),
    ]
    shape = min(max(height / width, 0.4), 2.5)
    figure = Figure(figsize=(13, 2.55 * shape + 1.3), layout='constrained')
    figure.suptitle(title)
    grid = figure.subplots(1, 5, width_ratios=[1, 1, 0.62, 1, 1])
    for axes, (label, values, (low, high)) in zip(grid[[0, 1, 3, 4]], panels, strict=True):
        axes.imshow(values, cmap='gray', vmin=low, vmax=high, interpolation='nearest')
        axes.set_title(f'{label}\n{values.shape[1]} x {values.shape[0]}', fontsize=10)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color(VERMILION if label.startswith('padded') else '#888888')
    axes = grid[2]
    axes.set_title('kernel', fontsize=10)
    limit = float(np.abs(kernel).max()) or 1.0
    axes.imshow(kernel, cmap='RdBu_r', vmin=-limit, vmax=limit)
    for (row, column), value in np.ndenumerate(kernel):
        color = 'white' if abs(value) > 0.6 * limit else 'black'
        axes.text(column, row, f'{value:.3g}', ha='center', va='center', size=9, color=color)
    axes.set(xticks=[], yticks=[])
    return figure


def draw_reliability(calibration: Calibration, title: str) -> Figure:
    """The accuracy of each bin of confidences against its mean confidence, and their numbers.

    A bar as high as the diagonal is calibrated: Guo et al., 2017, figure 1.
    """
    count = len(calibration.counts)
    edges = np.linspace(0, 1, count + 1)
    figure = Figure(figsize=(4.6, 5.4), layout='constrained')
    figure.suptitle(title)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    middle, width = (edges[:-1] + edges[1:]) / 2, 1 / count
    accuracy = np.nan_to_num(calibration.accuracy)
    gap = np.nan_to_num(calibration.confidence - calibration.accuracy)
    above.bar(middle, accuracy, width, color=BLUE, edgecolor='white', lw=0.7, label='accuracy')
    above.bar(
        middle,
        gap,
        width * 0.8,
        bottom=accuracy,
        facecolor='none',
        edgecolor=VERMILION,
        hatch='////',
        linewidth=1,
        label='from accuracy to confidence',
    )
    above.plot([0, 1], [0, 1], '--', color='black', linewidth=1, label='calibrated')
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel='accuracy')
    above.legend(frameon=False, loc='upper left', fontsize=9)
    above.text(
        0.97,
        0.05,
        f'ECE = {calibration.error:.3f}',
        ha='right',
        size=12,
        transform=above.transAxes,
        bbox={'facecolor': 'white', 'edgecolor': GRID, 'boxstyle': 'round'},
    )
    below.bar(middle, calibration.counts / calibration.counts.sum(), width * 0.9, color='#888888')
    below.set(xlabel='confidence', ylabel='images')
    for axes in (above, below):
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.spines[['top', 'right']].set_visible(False)
    return figure


def draw_embedding(
    projection: Projection, labels: np.ndarray, names: Sequence[str], title: str
) -> Figure:
    """Each image as a point in the colour and shape of its class."""
    figure = Figure(figsize=(7.8, 5.6), layout='constrained')
    figure.suptitle(title)
    axes = figure.subplots()
    x, y = projection.points.T
    for label in np.unique(labels):
        here = labels == label
        place = int(label) % _MAX_COLOURED
        markers, color = divmod(place, len(PALETTE))
        axes.plot(
            x[here],
            y[here],
            figures.MARKERS[markers],
            color=PALETTE[color],
            markersize=4,
            alpha=0.65,
            markeredgewidth=0,
            label=shorten(names[label]),
        )
    if len(names) <= _MAX_COLOURED:
        axes.legend(frameon=False, loc='center left', bbox_to_anchor=(1, 0.5), markerscale=1.6)
    for axis, number in ((axes.xaxis, 0), (axes.yaxis, 1)):
        axis.set_label_text(
            f'component {number + 1}, {projection.shares[number]:.0%} of the variance'
        )
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
    return figure
