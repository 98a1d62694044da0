"""CIFAR-10 and CIFAR-100 in their versions for Python: pickled dictionaries of arrays."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np

from cifar10_input import CIFAR10_RECORD, TRAIN_FILES
from cifar10_lib.base.errors import UserError, os_errors_named
from cifar10_lib.base.files import regular_size
from cifar10_lib.data.sources.base import Examples, Options, Source, names_in
from cifar10_lib.data.sources.cifar_binary import choose_labels, records_examples

_CIFAR10_FILES = (*(name.removesuffix('.bin') for name in TRAIN_FILES), 'test_batch')
_CIFAR10_NAMES = 'batches.meta'
_CIFAR100_FILES, _CIFAR100_NAMES = ('train', 'test'), 'meta'

# The largest published file, CIFAR-100's train, has 155 MB.
MAX_BYTES = 1 << 29

_EXPECTED = "expected a file of CIFAR's python version"


def _reconstruct(kind: type, shape: tuple[int, ...], code: Any) -> np.ndarray:
    """An empty array, which its state then fills; never one of a size that a file only claims."""
    return np.ndarray((0,), 'b')


def _from_buffer(buffer: Any, dtype: np.dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


# All that NumPy's arrays of numbers ask for when they are unpickled, by module and name. The
# modules are those of NumPy 1 and 2; the last is how Python 3 pickles bytes for Python 2.
_ALLOWED: dict[tuple[str, str], Any] = {
    **{(f'numpy.{core}.multiarray', '_reconstruct'): _reconstruct for core in ('core', '_core')},
    **{(f'numpy.{core}.numeric', '_frombuffer'): _from_buffer for core in ('core', '_core')},
    ('numpy', 'ndarray'): np.ndarray,
    ('numpy', 'dtype'): np.dtype,
    ('_codecs', 'encode'): lambda text, encoding: text.encode(encoding),
}


class _PlainUnpickler(pickle._Unpickler):
    """Reads arrays and plain values, and nothing that a file could make run.

    The one in Python: the one in C takes memory for whatever number of objects a file claims.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f'asks for {module}.{name}, which is refused')
        return _ALLOWED[module, name]


def read_pickle(path: str) -> dict[str, Any]:
    """The dictionary in a file, with its keys as text.

    Raises:
      UserError: the file holds anything else, or asks for more than arrays and plain values.
    """
    size = regular_size(path, _EXPECTED)
    if size > MAX_BYTES:
        raise UserError(f'{path}: has {size:,} bytes; {_EXPECTED} of at most {MAX_BYTES:,}')
    with os_errors_named(path), open(path, 'rb') as file:
        content = file.read()
    try:
        found = _PlainUnpickler(io.BytesIO(content), encoding='latin1').load()
    except Exception as error:  # A damaged pickle can fail in any way.
        reason = ' '.join(str(error).split())[:200] or type(error).__name__
        raise UserError(f'{path}: not a pickle that is read: {reason}; {_EXPECTED}') from error
    if not isinstance(found, dict):
        raise UserError(f'{path}: holds a {type(found).__name__}; {_EXPECTED}, a dictionary')
    return {_text(key): value for key, value in found.items()}


def _text(value: Any) -> str:
    return value.decode('latin1') if isinstance(value, bytes) else str(value)


def _read_part(path: str, labels_key: str, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [images, 3072] and int64 [images]."""
    content = read_pickle(path)
    images, labels = content.get('data'), content.get(labels_key)
    num_bytes = CIFAR10_RECORD.image_bytes
    if not isinstance(images, np.ndarray):
        images = np.empty([0, 0])
    if images.dtype != np.uint8 or images.shape[1:] != (num_bytes,) or not len(images):
        raise UserError(
            f'{path}: data: found {images.dtype} {images.shape}; expected uint8 (images, '
            f'{num_bytes})'
        )
    try:
        numbers = np.array(labels)
    except ValueError:
        numbers = np.empty(0)
    if numbers.shape != (len(images),) or numbers.dtype.kind not in 'iu':
        raise UserError(
            f'{path}: {labels_key}: found {numbers.dtype} {numbers.shape}; expected '
            f'{len(images):,} whole numbers, one for each image'
        )
    wrong = np.flatnonzero((numbers < 0) | (numbers >= num_classes))
    if wrong.size:
        raise UserError(
            f'{path}: image {wrong[0]}: label {numbers[wrong[0]]}; expected 0 to {num_classes - 1}'
        )
    return images, numbers.astype(np.int64)


def _read_names(path: str, key: str) -> list[str]:
    names = read_pickle(path).get(key)
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise UserError(f'{path}: {key}: found {type(names).__name__}; expected a list of names')
    return list(map(_text, names))


def _read(folder: str, options: Options) -> Examples:
    files: Sequence[str] = _CIFAR10_FILES
    if _holds(folder, (*_CIFAR100_FILES, _CIFAR100_NAMES)):
        labels = choose_labels(folder, options.labels)
        files, key = _CIFAR100_FILES, f'{labels}_labels'
        names = _read_names(os.path.join(folder, _CIFAR100_NAMES), f'{labels}_label_names')
    else:
        key = 'labels'
        names = _read_names(os.path.join(folder, _CIFAR10_NAMES), 'label_names')
    paths = [os.path.join(folder, name) for name in files]
    parts = [_read_part(path, key, len(names)) for path in paths]
    images, numbers = zip(*parts, strict=True)
    return records_examples(images, numbers, names, paths, options)


def _holds(path: str, names: Sequence[str]) -> bool:
    return set(names) <= set(names_in(path))


def _matches(path: str) -> bool:
    cifar100 = (*_CIFAR100_FILES, _CIFAR100_NAMES)
    return _holds(path, (_CIFAR10_FILES[0], _CIFAR10_NAMES)) or _holds(path, cifar100)


SOURCE = Source("CIFAR-10's or CIFAR-100's python version", _matches, _read, labels=True)
