"""Street view house numbers (http://ufldl.stanford.edu/housenumbers/, format 2), by SciPy."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from cifar10_lib.base.errors import UserError
from cifar10_lib.base.files import regular_size
from cifar10_lib.data.sources.base import (
    Examples,
    Options,
    Source,
    array_examples,
    missing_extra,
    names_in,
    numbered,
)

_FILES = ('train_32x32.mat', 'test_32x32.mat')

_EXPECTED = "expected SVHN's cropped digits: X, uint8 (32, 32, 3, images), and y, their labels"


def _read_mat(path: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [images, 32, 32, 3] and int64 [images]; a file's 10 is the digit 0."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise missing_extra(path, 'scipy') from None
    regular_size(path, _EXPECTED)
    try:
        found: dict[str, Any] = loadmat(path, variable_names=['X', 'y'])
    except Exception as error:  # A damaged file can fail in any way.
        reason = ' '.join(str(error).split())[:200]
        raise UserError(f'{path}: cannot be read: {reason}; {_EXPECTED}') from error
    images, labels = found.get('X'), found.get('y')
    if not isinstance(images, np.ndarray) or not isinstance(labels, np.ndarray):
        raise UserError(f'{path}: lacks X or y; {_EXPECTED}')
    is_sound = images.dtype == np.uint8 and images.ndim == 4 and images.shape[2] == 3
    if not is_sound or labels.size != images.shape[3] or labels.dtype.kind not in 'iuf':
        raise UserError(f'{path}: X is {images.shape}, y {labels.shape}; {_EXPECTED}')
    return images.transpose(3, 0, 1, 2), labels.ravel().astype(np.int64) % 10


def _read(folder: str, options: Options) -> Examples:
    paths = [os.path.join(folder, name) for name in _FILES]
    parts = [_read_mat(path) for path in paths]
    values = np.concatenate([labels for _, labels in parts])
    images = [images for images, _ in parts]
    return array_examples(paths, images, *numbered(values), [False, True], options)


SOURCE = Source("SVHN's .mat files", lambda path: _FILES[0] in names_in(path), _read)
