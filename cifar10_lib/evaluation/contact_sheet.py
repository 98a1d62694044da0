"""What do the images of a data set look like? A sheet of examples, a row for each class."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from cifar10_input import CIFAR10_RECORD, train_files
from cifar10_lib.base.errors import os_errors_named

# Classes that get a row of their own on the contact sheet.
MAX_ROWS = 24

# Of the contact sheet, in pixels of the records: from one image to the next, and around
# them. Each of these pixels is drawn as _SCALE by _SCALE.
_PITCH, _MARGIN, _TITLE_HEIGHT = 34, 14, 38
_SCALE, _PER_INCH = 2, 64

# In the same pixels; most letters are narrower.
_LETTER_WIDTH = 6


def write(path: str, directory: str, names: Sequence[str], title: str) -> None:
    """Draws the sheet and writes it as a PNG.

    Args:
      path: of the picture.
      directory: holds the record files.
      names: of the classes.
      title: above all.

    Raises:
      UserError: it can't be written.
    """
    layout = choose_layout(names)
    figure = draw(layout, examples(directory, len(names), layout.examples), names, title)
    with os_errors_named(path), warnings.catch_warnings():
        # Of letters that matplotlib's font lacks, and draws as boxes.
        warnings.filterwarnings('ignore', message='Glyph')
        figure.savefig(path)


def examples(directory: str, num_classes: int, count: int) -> list[list[np.ndarray]]:
    """The first training images of each class as they stand in the records.

    Returns:
      For each class up to `count` arrays uint8 [32, 32, 3].
    """
    found: list[list[np.ndarray]] = [[] for _ in range(num_classes)]
    shape = (CIFAR10_RECORD.depth, CIFAR10_RECORD.height, CIFAR10_RECORD.width)
    for path in train_files(directory):
        with open(path, 'rb') as file:
            while record := file.read(CIFAR10_RECORD.record_bytes):
                if len(found[record[0]]) < count:
                    planes = np.frombuffer(record, np.uint8, offset=1).reshape(shape)
                    found[record[0]].append(planes.transpose(1, 2, 0))
    return found


class Layout(NamedTuple):
    """Of a contact sheet, whose widths and heights are in pixels of the records."""

    columns: int
    rows: int
    examples: int
    letters: int

    @property
    def text_width(self) -> int:
        return _MARGIN + self.letters * _LETTER_WIDTH

    @property
    def column_width(self) -> int:
        return self.text_width + self.examples * _PITCH + _MARGIN

    @property
    def width(self) -> int:
        return _MARGIN + self.columns * self.column_width

    @property
    def height(self) -> int:
        return _TITLE_HEIGHT + self.rows * _PITCH + _MARGIN


def choose_layout(names: Sequence[str]) -> Layout:
    """A row for each class; of many classes, columns of rows with fewer examples."""
    num_classes, longest = len(names), max(map(len, names))
    if num_classes <= MAX_ROWS:
        return Layout(1, num_classes, examples=12, letters=min(30, longest))
    compact = Layout(1, num_classes, examples=3, letters=min(20, longest))
    # About as wide as a screen is.
    columns = round(math.sqrt(num_classes * _PITCH / compact.column_width * 16 / 9))
    return compact._replace(columns=columns, rows=-(-num_classes // columns))


def draw(
    layout: Layout, shown: Sequence[Sequence[np.ndarray]], names: Sequence[str], title: str
) -> Figure:
    """The contact sheet.

    Args:
      layout: has a place for each class.
      shown: images of each class, uint8 [32, 32, 3].
      names: of the classes.
      title: above all.
    """
    side = CIFAR10_RECORD.height
    canvas = np.full([layout.height, layout.width, 3], 255, np.uint8)
    size = (layout.width / _PER_INCH, layout.height / _PER_INCH)
    figure = Figure(figsize=size, dpi=_SCALE * _PER_INCH)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    text = functools.partial(axes.text, va='center', parse_math=False)
    text(_MARGIN, _TITLE_HEIGHT / 2, title, fontsize=11)
    for place, (images, name) in enumerate(zip(shown, names, strict=True)):
        column, row = divmod(place, layout.rows)
        left = _MARGIN + column * layout.column_width + layout.text_width
        top = _TITLE_HEIGHT + row * _PITCH
        name = shortened(name, layout.letters)
        text(left - _MARGIN / 2, top + side / 2, name, ha='right', fontsize=10)
        for number, image in enumerate(images):
            begin = left + number * _PITCH
            canvas[top : top + side, begin : begin + side] = image
    axes.imshow(canvas, extent=(0, layout.width, layout.height, 0), interpolation='nearest')
    return figure


def shortened(name: str, length: int) -> str:
    """The name, or as much of it as `length` letters hold."""
    return name if len(name) <= length else f'{name[: length - 1]}…'
