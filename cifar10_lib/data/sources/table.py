"""Pictures in one folder, and a CSV file of their labels."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cifar10_lib.base.errors import UserError, os_errors_named
from cifar10_lib.base.files import decode_text, regular_size
from cifar10_lib.data import photos
from cifar10_lib.data.sources.base import (
    Examples,
    Options,
    Source,
    entries,
    files_below,
    names_in,
    some,
    warn,
)

# Usual names of the columns, in lower case.
_FILE_COLUMNS = ('id', 'file', 'filename', 'file_name', 'image', 'image_id', 'img', 'name', 'path')
_LABEL_COLUMNS = ('label', 'class', 'category', 'target', 'breed', 'species', 'class_name')

# A million rows of a name and a label.
MAX_BYTES = 1 << 27

_EXPECTED = 'expected a CSV file of a column of file names and a column of labels'

# As of 784 numbers, or of as many longer names.
_MAX_LINE = 1 << 20

# Of which the separator is told.
_SNIFFED_CHARACTERS = 1 << 14


class _Row(NamedTuple):
    number: int
    """Of the line in the file, from 1 on."""
    file: str
    label: str


def read_rows(path: str, max_bytes: int = MAX_BYTES) -> list[list[str]]:
    """The cells of a CSV file, whatever separates them; empty lines are empty lists.

    Raises:
      UserError: the file can't be read, or isn't UTF-8.
    """
    if regular_size(path, _EXPECTED) > max_bytes:
        raise UserError(f'{path}: has more than {max_bytes:,} bytes; {_EXPECTED}')
    with os_errors_named(path), open(path, 'rb') as file:
        text = decode_text(file.read(max_bytes), path)
    try:
        dialect = csv.Sniffer().sniff(text[:_SNIFFED_CHARACTERS], ',;\t|')
    except csv.Error:  # A single column, say.
        dialect = csv.excel
    try:
        return list(csv.reader(text.splitlines(), dialect))
    except csv.Error as error:
        raise UserError(f'{path}: {error}; {_EXPECTED}') from error


def first_line(path: str) -> str:
    """The first line of a text file; nothing where there is none."""
    try:
        regular_size(path, _EXPECTED)
        with open(path, encoding='utf-8-sig', errors='replace') as file:
            return file.readline(_MAX_LINE)
    except (OSError, UserError):
        return ''


def _columns(header: Sequence[str]) -> tuple[int, int] | None:
    """Places of the file names and of the labels; None where this is no header."""
    names = [name.strip().lower() for name in header]
    labels = [i for i, name in enumerate(names) if name in _LABEL_COLUMNS]
    files = [i for i, name in enumerate(names) if name in _FILE_COLUMNS and i not in labels[:1]]
    return (files[0], labels[0]) if files and labels else None


def _table_of(path: str) -> str | None:
    """The CSV file of labels at a path: itself, or the one in the folder whose header fits."""
    paths = [path] if not os.path.isdir(path) else [os.path.join(path, n) for n in names_in(path)]
    for each in paths:
        if each.lower().endswith(('.csv', '.tsv')):
            header = first_line(each)
            if any(_columns(header.split(separator)) for separator in (',', ';', '\t', '|')):
                return each
    return None


def _read(path: str, options: Options) -> Examples:
    table = _table_of(path)
    assert table is not None, path
    rows = read_rows(table)
    header = next((row for row in rows if row), [])
    columns = _columns(header)
    if columns is None:
        raise UserError(f'{table}: found the columns {some(header)}; {_EXPECTED}')
    first = rows.index(header) + 1
    labelled = []
    for number, row in enumerate(rows[first:], first + 1):
        if row:
            if len(row) <= max(columns) or not all(row[column].strip() for column in columns):
                raise UserError(f'{table}: line {number}: found {some(row)!r}; {_EXPECTED}')
            labelled.append(_Row(number, *(row[column].strip() for column in columns)))
    paths, kept = _find_files(table, labelled)
    names = sorted({row.label for row in kept})
    numbers = {name: number for number, name in enumerate(names)}
    return Examples(
        names,
        np.array([numbers[row.label] for row in kept], np.int64),
        lambda index: photos.read(paths[index], options.framing),
        lambda index: paths[index],
        inner=options.framing.inner,
    )


def _find_files(table: str, rows: Sequence[_Row]) -> tuple[list[str], list[_Row]]:
    """Paths of the pictures, and the rows that have one.

    Pictures lie beside the table or in folders there, and are named with or without their
    ending and their folder. Of several with one name, that in a folder of training images is
    meant.
    """
    folder = os.path.dirname(os.path.abspath(table))
    known: dict[str, str] = {}
    for path in sorted(files_below(folder), key=lambda path: 'train' not in path.lower()):
        if photos.is_picture(path):
            inner = os.path.relpath(path, folder).replace(os.sep, '/')
            for name in (inner, os.path.basename(path)):
                known.setdefault(name, path)
                known.setdefault(os.path.splitext(name)[0], path)
    found = [(known.get(row.file.replace('\\', '/').removeprefix('./')), row) for row in rows]
    missing = [f'{row.file} (line {row.number})' for path, row in found if path is None]
    if len(missing) == len(rows):
        raise UserError(
            f'{table}: found none of its {len(rows):,} pictures in {folder}: {some(missing)}'
        )
    if missing:
        warn(f'{table}: {len(missing):,} rows without a picture are left out: {some(missing)}')
    return [path for path, _ in found if path], [row for path, row in found if path]


def _matches(path: str) -> bool:
    if os.path.isdir(path) and _has_class_folders(path):
        return False
    return _table_of(path) is not None


def _has_class_folders(folder: str) -> bool:
    """Whether folders beside a table hold folders themselves: then it's not the labels."""
    held = entries(folder)
    return any(any(entries(os.path.join(folder, name)).values()) for name in held if held[name])


SOURCE = Source('a folder of pictures with a CSV of their labels', _matches, _read)
