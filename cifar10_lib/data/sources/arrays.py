"""NumPy's archives of arrays (.npz), such as Keras's mnist.npz and the sets of MedMNIST."""

from __future__ import annotations

import os
import zipfile
import zlib
from typing import Any

import numpy as np

from cifar10_lib.base.errors import UserError, os_errors_named
from cifar10_lib.base.files import regular_size
from cifar10_lib.data.sources.base import (
    Examples,
    Options,
    Source,
    array_examples,
    names_in,
    numbered,
    some,
)

# Of all arrays together: they are read into memory.
MAX_BYTES = 4_000_000_000

# Names of images and labels: of training and test images, or of undivided ones.
_KEYS = {
    'train': (('x_train', 'y_train'), ('train_images', 'train_labels')),
    'test': (('x_test', 'y_test'), ('test_images', 'test_labels')),
    'all': (('images', 'labels'), ('x', 'y'), ('X', 'y'), ('data', 'labels')),
}

_EXPECTED = 'expected an .npz of x_train, y_train, x_test and y_test, or of images and labels'


def _read_arrays(path: str) -> dict[str, np.ndarray]:
    """All arrays of the archive by name; one that pickles objects is refused.

    A header may claim any shape: it is compared with the bytes that are there, before an array
    of that shape is made.
    """
    regular_size(path, _EXPECTED)
    try:
        with os_errors_named(path), zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith('.npy')]
            if sum(info.file_size for info in members) > MAX_BYTES:
                raise UserError(f'{path}: unpacks to more than {MAX_BYTES:,} bytes')
            found = {}
            for info in members:
                with archive.open(info) as file:
                    name = info.filename.removesuffix('.npy')
                    found[name] = _read_array(file, info.file_size, f'{path}: {name}')
            return found
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        ValueError,
        RuntimeError,  # An encrypted member.
        NotImplementedError,
        LookupError,
        SyntaxError,
    ) as error:
        raise UserError(f'{path}: a damaged archive: {str(error)[:200]}; {_EXPECTED}') from error


def _read_array(file: Any, num_bytes: int, name: str) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise UserError(f'{name}: has the version {version} of the format; expected 1.0 or 2.0')
    shape, is_fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise UserError(f'{name}: holds pickled objects, which are refused')
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if not 0 <= size <= num_bytes:
        raise UserError(f'{name}: claims {size:,} bytes of {num_bytes:,} that there are')
    array = np.frombuffer(file.read(size), dtype)
    return array.reshape(shape, order='F' if is_fortran else 'C')


def _pair(
    path: str, found: dict[str, np.ndarray], part: str
) -> tuple[np.ndarray, np.ndarray] | None:
    for image_name, label_name in _KEYS[part]:
        if image_name in found and label_name in found:
            images, labels = found[image_name], found[label_name]
            labels = labels.reshape(len(labels), -1) if labels.ndim else labels.reshape(0, 1)
            if images.dtype != np.uint8 or images.ndim not in (3, 4):
                raise UserError(
                    f'{path}: {image_name}: found {images.dtype} {images.shape}; expected uint8 '
                    '(images, height, width) or (images, height, width, 3)'
                )
            if labels.shape != (len(images), 1) or labels.dtype.kind not in 'iub':
                raise UserError(
                    f'{path}: {label_name}: found {labels.dtype} {labels.shape}; expected '
                    f'{len(images):,} whole numbers, one for each image'
                )
            return images, labels[:, 0].astype(np.int64)
    return None


def _read(path: str, options: Options) -> Examples:
    path = _archives(path)[0]
    found = _read_arrays(path)
    parts = [_pair(path, found, part) for part in ('train', 'test')]
    if parts[0] is None:
        parts = [_pair(path, found, 'all')]
    pairs = [part for part in parts if part is not None]
    if not pairs or not len(pairs[0][0]):
        raise UserError(f'{path}: found the arrays {some(found)}; {_EXPECTED}')
    values = np.concatenate([labels for _, labels in pairs])
    of_test = [number > 0 for number in range(len(pairs))]
    images = [images for images, _ in pairs]
    return array_examples([path] * len(pairs), images, *numbered(values), of_test, options)


def _archives(path: str) -> list[str]:
    paths = [os.path.join(path, name) for name in names_in(path)] or [path]
    return [each for each in paths if each.lower().endswith('.npz') and os.path.isfile(each)]


SOURCE = Source('a NumPy .npz of images and labels', lambda path: len(_archives(path)) == 1, _read)
