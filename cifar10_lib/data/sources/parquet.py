"""Parquet files of images and labels, as Hugging Face publishes data sets, by PyArrow."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from cifar10_lib.base.errors import UserError
from cifar10_lib.base.files import regular_size
from cifar10_lib.data import photos
from cifar10_lib.data.sources.base import (
    Examples,
    Options,
    Source,
    divide,
    files_below,
    missing_extra,
    names_in,
    numbered,
    some,
)

_IMAGE_COLUMNS = ('image', 'img')
_LABEL_COLUMNS = ('label', 'labels', 'fine_label', 'coarse_label')

_EXPECTED = 'expected the columns image, of bytes of pictures, and label, of whole numbers'


def _files(path: str) -> list[str]:
    """The Parquet files at a path: itself, or those in the folder or its folder data/."""
    if not os.path.isdir(path):
        return [path] if path.lower().endswith('.parquet') else []
    folders = [path, os.path.join(path, 'data')]
    if not any(name.endswith('.parquet') for folder in folders for name in names_in(folder)):
        return []
    return [file for file in files_below(path) if file.lower().endswith('.parquet')]


def _read_file(path: str, labels: str | None) -> tuple[Any, np.ndarray, list[str] | None]:
    """PyArrow's column of pictures, int64 [images], and the names of the classes if known."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise missing_extra(path, 'pyarrow') from None
    regular_size(path, _EXPECTED)
    try:
        table = pyarrow.parquet.ParquetFile(path).read()
        columns = table.column_names
        image = next((name for name in _IMAGE_COLUMNS if name in columns), None)
        wanted = [f'{labels}_label', labels] if labels else _LABEL_COLUMNS
        label = next((name for name in wanted if name in columns), None)
        if image is None or label is None:
            raise UserError(f'{path}: found the columns {some(columns)}; {_EXPECTED}')
        pictures = table.column(image).combine_chunks()
        if pyarrow.types.is_struct(pictures.type):
            pictures = pictures.field('bytes')
        numbers = np.array(table.column(label).to_pylist())
        metadata = (table.schema.metadata or {}).get(b'huggingface', b'{}')
        names = _class_names(metadata, label)
    except UserError:
        raise
    except Exception as error:  # A damaged file can fail in any way.
        reason = ' '.join(str(error).split())[:200]
        raise UserError(f'{path}: cannot be read: {reason}; {_EXPECTED}') from error
    if numbers.ndim != 1 or numbers.dtype.kind not in 'iu':
        raise UserError(f'{path}: {label}: found {numbers.dtype} values; {_EXPECTED}')
    return pictures, numbers.astype(np.int64), names


def _class_names(metadata: bytes, label: str) -> list[str] | None:
    """The names that Hugging Face's own metadata has for a column; None where it has none."""
    try:
        names = json.loads(metadata)['info']['features'][label]['names']
        return [str(name) for name in names]
    except (ValueError, LookupError, TypeError):
        return None


def _read(path: str, options: Options) -> Examples:
    files, of_test = divide(_files(path))
    parts = [_read_file(file, options.labels) for file in files]
    starts = np.cumsum([0, *(len(labels) for _, labels, _ in parts)])
    is_test = np.repeat(of_test, np.diff(starts))
    if not len(is_test):
        raise UserError(f'{path}: holds no rows; {_EXPECTED}')
    names, labels = numbered(np.concatenate([labels for _, labels, _ in parts]), parts[0][2])

    def name(index: int) -> str:
        number = int(np.searchsorted(starts, index, 'right')) - 1
        return f'{files[number]}: row {index - starts[number]}'

    def array(index: int) -> np.ndarray:
        number = int(np.searchsorted(starts, index, 'right')) - 1
        content = parts[number][0][int(index - starts[number])].as_py()
        if not isinstance(content, bytes):
            raise UserError(f'{name(index)}: holds no picture; {_EXPECTED}')
        return photos.to_array(content, name(index), options.framing.size)

    return Examples(
        names,
        labels,
        lambda index: photos.from_array(array(index), options.framing, name(index)),
        name,
        is_test if len(set(of_test)) > 1 else None,
        inner=photos.inner_side(array(0), options.framing),
    )


SOURCE = Source('Parquet files of images', lambda path: bool(_files(path)), _read, labels=True)
