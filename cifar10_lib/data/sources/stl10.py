"""STL-10's binary files (https://cs.stanford.edu/~acoates/stl10/)."""

from __future__ import annotations

import os

import numpy as np

from cifar10_lib.base.errors import UserError, os_errors_named
from cifar10_lib.base.files import read_text, regular_size
from cifar10_lib.data.sources.base import Examples, Options, Source, array_examples, names_in

_PARTS = ('train', 'test')
_NAMES = 'class_names.txt'

# Planes of red, green and blue, each column by column.
_SHAPE = (3, 96, 96)
_IMAGE_BYTES = 3 * 96 * 96


def _read(folder: str, options: Options) -> Examples:
    names = _class_names(folder)
    paths, images, labels = [], [], []
    for part in _PARTS:
        path = os.path.join(folder, f'{part}_X.bin')
        size = regular_size(path, "expected STL-10's images")
        if not size or size % _IMAGE_BYTES:
            raise UserError(
                f'{path}: has {size:,} bytes; expected a whole number of images of '
                f'{_IMAGE_BYTES:,} bytes'
            )
        with os_errors_named(path):
            planes = np.memmap(path, np.uint8, 'r').reshape(-1, *_SHAPE)
        images.append(planes.transpose(0, 3, 2, 1))
        paths.append(path)
        labels.append(_read_labels(os.path.join(folder, f'{part}_y.bin'), len(images[-1]), names))
    all_labels = np.concatenate(labels)
    return array_examples(paths, images, names, all_labels, [False, True], options)


def _class_names(folder: str) -> list[str]:
    path = os.path.join(folder, _NAMES)
    names = read_text(path, "expected STL-10's class names, one a line").split()
    if not names:
        raise UserError(f'{path}: holds no class names')
    return names


def _read_labels(path: str, count: int, names: list[str]) -> np.ndarray:
    """int64 [images], from 0 on; the file has them from 1 on."""
    size = regular_size(path, "expected STL-10's labels")
    if size != count:
        raise UserError(f'{path}: holds {size:,} labels; expected {count:,}, one for each image')
    with os_errors_named(path):
        labels = np.fromfile(path, np.uint8).astype(np.int64) - 1
    wrong = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if wrong.size:
        raise UserError(
            f'{path}: byte {wrong[0]}: label {labels[wrong[0]] + 1}; expected 1 to {len(names)}'
        )
    return labels


SOURCE = Source("STL-10's binary files", lambda path: 'train_X.bin' in names_in(path), _read)
