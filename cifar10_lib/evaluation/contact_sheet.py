"""A sheet of examples of a data set, a row for each class."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cifar10_input import train_files
from cifar10_lib.base.errors import os_errors_named
from cifar10_lib.base.files import replaced
from cifar10_lib.data.framing import read_framing
from cifar10_lib.evaluation import figures

# Most classes that are one below the other, with more examples and longer names than those of
# several columns.
MAX_ROWS = 24

# At this many pixels an inch, an image is drawn with twice its width.
_SIDE, _GAP, _DPI = 0.5, 0.03, 128


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
    figure = draw(examples(directory, len(names), _num_examples(len(names))), names, title)
    with os_errors_named(path), replaced(path) as temporary:
        figures.save(figure, temporary, _DPI, format='png')


def _num_examples(num_classes: int) -> int:
    return 12 if num_classes <= MAX_ROWS else 3


def examples(directory: str, num_classes: int, count: int) -> list[list[np.ndarray]]:
    """The first training images of each class as they stand in the records.

    Returns:
      For each class up to `count` arrays uint8 [size, size, 3].
    """
    found: list[list[np.ndarray]] = [[] for _ in range(num_classes)]
    record_format = read_framing(directory).record
    shape = (record_format.depth, record_format.height, record_format.width)
    for path in train_files(directory):
        with open(path, 'rb') as file:
            while record := file.read(record_format.record_bytes):
                if len(found[record[0]]) < count:
                    planes = np.frombuffer(record, np.uint8, offset=1).reshape(shape)
                    found[record[0]].append(planes.transpose(1, 2, 0))
    return found


def draw(shown: Sequence[Sequence[np.ndarray]], names: Sequence[str], title: str) -> figures.Figure:
    """The contact sheet.

    Args:
      shown: images of each class, uint8 [size, size, 3].
      names: of the classes.
      title: above all.
    """
    # With so many columns, a sheet of three examples a class is about as wide as a screen is.
    columns = 1 if len(names) <= MAX_ROWS else round(math.sqrt(len(names) / 3))
    letters = 30 if columns == 1 else 20
    shortened = [figures.shorten(name, letters) for name in names]
    return figures.draw_grid(shown, title, _SIDE, shortened, gap=_GAP, columns=columns)
