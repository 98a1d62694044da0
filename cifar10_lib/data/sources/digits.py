"""A CSV file of a label and the pixels of a square in each row, as Kaggle has MNIST."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from cifar10_lib.base.errors import UserError, os_errors_named
from cifar10_lib.base.files import regular_size
from cifar10_lib.data.sources.base import (
    Examples,
    Options,
    Source,
    array_examples,
    divide,
    names_in,
    numbered,
)
from cifar10_lib.data.sources.table import first_line

# A square of so many pixels at least; below, a table is one of other numbers.
_LEAST_PIXELS = 64

_EXPECTED = 'expected a CSV file of a label and the pixels of a grey square in each row'

# Of a row of 784 numbers of three digits, 3 kB.
_MAX_LINE = 1 << 20


class Rows(NamedTuple):
    """The images of a CSV file."""

    path: str
    labels: np.ndarray | None
    """int64 [images]; None where there is no column of them."""
    images: np.ndarray
    """uint8 [images, side, side]."""


def read_rows(path: str) -> Rows:
    """Reads a file with or without labels and with or without a line of column names.

    Raises:
      UserError: names line and column of what is missing, is no whole number, or not 0 to 255.
    """
    regular_size(path, _EXPECTED)
    pixels = bytearray()
    labels: list[int] = []
    layout: tuple[int, int] | None = None
    for number, row in _lines(path):
        if layout is None:
            layout = _layout(row)
            if layout is None:
                raise UserError(f'{path}: line {number}: found {len(row)} columns; {_EXPECTED}')
            if not row[-1].strip().isdigit():
                continue  # The names of the columns.
        has_label, side = layout
        if len(row) != has_label + side * side:
            raise UserError(
                f'{path}: line {number}: found {len(row)} columns; expected '
                f'{has_label + side * side}, as in the first line'
            )
        try:
            values = list(map(int, row))
            pixels += bytes(values[has_label:])
            labels += values[:has_label]
        except ValueError:
            _refuse_row(path, number, row, has_label)
    if layout is None or not pixels:
        raise UserError(f'{path}: holds no images; {_EXPECTED}')
    has_label, side = layout
    images = np.frombuffer(pixels, np.uint8).reshape(-1, side, side)
    return Rows(path, np.array(labels, np.int64) if has_label else None, images)


def _lines(path: str) -> Iterator[tuple[int, list[str]]]:
    """Each line's number and cells; empty lines are left out."""
    with os_errors_named(path), open(path, encoding='utf-8-sig', newline='') as file:
        try:
            for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE), ''), 1):
                if line.strip():
                    yield number, next(csv.reader([line]))
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f'{path}: not UTF-8 text of lines and commas; {_EXPECTED}') from error


def _layout(row: Sequence[str]) -> tuple[int, int] | None:
    """How many columns are labels, 0 or 1, and the side of the square; None for another table."""
    for has_label in (1, 0):
        side = math.isqrt(len(row) - has_label)
        if side * side == len(row) - has_label >= _LEAST_PIXELS:
            return has_label, side
    return None


def _refuse_row(path: str, number: int, row: Sequence[str], has_label: int) -> None:
    """Raises UserError for the first cell that isn't a pixel or label."""
    for column, cell in enumerate(row, 1):
        is_label = column <= has_label
        expected = 'a label, a whole number' if is_label else 'a pixel, 0 to 255'
        if not cell.strip():
            raise UserError(f'{path}: line {number}, column {column}: empty; expected {expected}')
        try:
            value = int(cell)
        except ValueError:
            value = -1
        if value < 0 or (not is_label and value > 255):
            raise UserError(
                f'{path}: line {number}, column {column}: found {cell.strip()[:20]!r}; '
                f'expected {expected}'
            )


def is_table(path: str) -> bool:
    """Whether a file looks like such a table."""
    if not path.lower().endswith('.csv') or not os.path.isfile(path):
        return False
    return _layout(first_line(path).split(',')) is not None


def _tables(path: str) -> list[str]:
    paths = [os.path.join(path, name) for name in names_in(path)] or [path]
    return [each for each in paths if is_table(each)]


def _read(path: str, options: Options) -> Examples:
    """The labelled tables of a folder are training images, but one named test test images."""
    tables = [table for table in map(read_rows, _tables(path)) if table.labels is not None]
    if not tables:
        raise UserError(f'{path}: found images without labels alone; {_EXPECTED}')
    paths, of_test = divide([table.path for table in tables])
    tables = [table for table in tables if table.path in paths]
    if len({table.images.shape[1] for table in tables}) > 1:
        raise UserError(f'{path}: found tables of images of different sizes')
    values = np.concatenate([table.labels for table in tables if table.labels is not None])
    images = [table.images for table in tables]
    return array_examples(paths, images, *numbered(values), of_test, options)


SOURCE = Source('a CSV of labels and pixels', lambda path: bool(_tables(path)), _read)
