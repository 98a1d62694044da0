"""IDX files: MNIST, and the sets that are published like it.

The format: http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import string
import zlib
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple, cast

import numpy as np

from cifar10_lib.base.errors import UserError, os_errors_named
from cifar10_lib.base.files import digest, read_text, regular_size
from cifar10_lib.data.sources.base import (
    Examples,
    Options,
    Source,
    array_examples,
    entries,
    files_below,
    numbered,
)

# Of a file, which is read into memory: EMNIST's largest has 697,932 images, of 547 MB.
MAX_ITEMS = 1_000_000

# Largest side of an image.
MAX_SIDE = 256

# Sizes of the items' types, by the third byte of a file: unsigned bytes, and 32-bit integers.
_TYPES = {8: '>u1', 12: '>i4'}

_GZIP = b'\x1f\x8b'
_CHUNK_BYTES = 1 << 20

# As train-images-idx3-ubyte, t10k-labels.idx1-ubyte.gz, emnist-letters-test-images-idx3-ubyte or
# qmnist-train-labels-idx2-int.gz: the set's name, the part, what it holds.
_NAME = re.compile(
    r'(?P<set>.*?)[-_.]?(?P<part>train|t10k|test)[-_.](?P<what>images|labels)[-_.]'
    r'(?:idx3[-_.]ubyte|idx[12][-_.](?:ubyte|int))(?:\.gz)?'
)

FASHION_MNIST_CLASSES = (
    'T-shirt/top',
    'Trouser',
    'Pullover',
    'Dress',
    'Coat',
    'Sandal',
    'Shirt',
    'Sneaker',
    'Bag',
    'Ankle boot',
)

# The first hiragana of each row (http://codh.rois.ac.jp/kmnist/).
KMNIST_CLASSES = ('お', 'き', 'す', 'つ', 'な', 'は', 'ま', 'や', 'れ', 'を')

# EMNIST's digits and letters, by Cohen et al., "EMNIST", 2017: of the lower-case letters, the
# balanced and merged sets tell only these from the capitals.
_DISTINCT = 'abdefghnqrt'
_DIGITS_AND_LETTERS = string.digits + string.ascii_uppercase
_EMNIST_CLASSES = {
    'byclass': tuple(_DIGITS_AND_LETTERS + string.ascii_lowercase),
    'bymerge': tuple(_DIGITS_AND_LETTERS + _DISTINCT),
    'balanced': tuple(_DIGITS_AND_LETTERS + _DISTINCT),
    'letters': tuple(string.ascii_uppercase),
    'digits': tuple(string.digits),
    'mnist': tuple(string.digits),
}

# MD5 of train-labels-idx1-ubyte.gz as its authors list it, for sets whose files go by MNIST's
# names.
_CLASSES_BY_DIGEST = {
    '25c81989df183df01b3e8a0aad5dffbe': FASHION_MNIST_CLASSES,
    'e144d726b3acfaa3e44228e80efcd344': KMNIST_CLASSES,
}
_CLASSES_BY_NAME = {
    'fashion': FASHION_MNIST_CLASSES,
    'kmnist': KMNIST_CLASSES,
    'kuzushiji': KMNIST_CLASSES,
}


class _Part(NamedTuple):
    """The paths of images and labels."""

    images: str
    labels: str


def _find(folder: str) -> dict[str, dict[str, dict[str, str]]]:
    """Paths by the set's name, 'train' or 'test', and 'images' or 'labels'.

    Some unpackers put each file into a folder of its name.
    """
    found: dict[str, dict[str, dict[str, str]]] = {}
    for path in _files(folder):
        if match := _NAME.fullmatch(os.path.basename(path).lower()):
            part = 'train' if match['part'] == 'train' else 'test'
            files = found.setdefault(match['set'], {}).setdefault(part, {})
            # Of a file and its zipped form, the file.
            if not path.endswith('.gz') or match['what'] not in files:
                files[match['what']] = path
    return found


def _files(folder: str) -> list[str]:
    if not os.path.isdir(folder):
        return []
    held = entries(folder)
    return [
        path
        for name, is_folder in held.items()
        for path in (
            files_below(os.path.join(folder, name))
            if is_folder and (_NAME.fullmatch(name.lower()) or name.lower() in ('gzip', 'raw'))
            else [os.path.join(folder, name)]
        )
    ]


def _choose(folder: str, labels: str | None) -> tuple[str, dict[str, dict[str, str]]]:
    """The one set of a folder, or the one of several that --labels names."""
    sets = _find(folder)
    chosen = [name for name in sets if labels in (None, name, name.rpartition('-')[2])]
    if len(chosen) != 1:
        names = ', '.join(sorted(name.rpartition('-')[2] or name for name in sets))
        found = f'--labels={labels}: {folder}' if labels else folder
        raise UserError(f'{found}: holds the sets {names}; choose one with --labels')
    return chosen[0], sets[chosen[0]]


def _part(folder: str, part: str, files: dict[str, str]) -> _Part:
    for what in ('images', 'labels'):
        if what not in files:
            raise UserError(f'{folder}: found no {what} of {part} images; expected an IDX file')
    return _Part(files['images'], files['labels'])


def _read(folder: str, options: Options) -> Examples:
    name, files = _choose(folder, options.labels)
    if 'train' not in files:
        raise UserError(f'{folder}: found no training images; expected IDX files of them')
    parts = [_part(folder, part, files[part]) for part in ('train', 'test') if part in files]
    images, labels = [], []
    for part in parts:
        images.append(read_idx(part.images, 3))
        labels.append(_read_labels(part))
    if 'emnist' in f'{folder}-{name}'.lower() and 'qmnist' not in name:
        # Its images are stored with rows and columns exchanged.
        images = [each.transpose(0, 2, 1) for each in images]
    values = np.concatenate(labels)
    class_names = _class_names(folder, name, parts[0])
    if class_names and values.min() == 1 and values.max() == len(class_names):
        values = values - 1  # EMNIST's letters begin with 1.
    of_test = [number > 0 for number in range(len(parts))]
    paths = [part.images for part in parts]
    return array_examples(paths, images, *numbered(values, class_names), of_test, options)


def _read_labels(part: _Part) -> np.ndarray:
    """int64 [images]: the labels, as many as there are images."""
    with os_errors_named(part.images):
        num_images = _head(part.images).shape[0]
    # QMNIST has eight numbers for each image, of which the first is the class.
    head = _head(part.labels)
    labels = read_idx(part.labels, len(head.shape))
    if len(labels) != num_images:
        raise UserError(
            f'{part.labels}: holds {len(labels):,} labels; expected {num_images:,}, one for each '
            f'image in {part.images}'
        )
    return labels.reshape(len(labels), -1)[:, 0].astype(np.int64)


def _class_names(folder: str, name: str, part: _Part) -> Sequence[str] | None:
    """Names of the labels, where the set is known; None: the labels that occur."""
    text = f'{os.path.basename(os.path.abspath(folder))}-{name}'.lower()
    if 'emnist' in text and 'qmnist' not in name:
        mapping = os.path.join(folder, f'{name}-mapping.txt')
        if os.path.exists(mapping):
            return _read_mapping(mapping)
        kind = next((kind for kind in _EMNIST_CLASSES if kind in text), None)
        return _EMNIST_CLASSES[kind] if kind else None
    for word, names in _CLASSES_BY_NAME.items():
        if word in text:
            return names
    if part.labels.endswith('.gz'):
        with os_errors_named(part.labels):
            return _CLASSES_BY_DIGEST.get(digest(part.labels, 'md5'))
    return None


def _read_mapping(path: str) -> list[str]:
    """EMNIST's table of a label and the code of its letter, or letters, in each line."""
    expected = 'expected lines of a label and the codes of its letters'
    names = []
    for number, line in enumerate(read_text(path, expected).splitlines(), 1):
        try:
            _, first, *_ = map(int, line.split())
            names.append(chr(first))
        except (ValueError, OverflowError):
            raise UserError(f'{path}: line {number}: found {line[:40]!r}; {expected}') from None
    return names


# ------------------------------------------------------------------------------- files


class _Head(NamedTuple):
    """What the head of a file says."""

    dtype: np.dtype
    shape: tuple[int, ...]
    """Items first."""

    @property
    def num_bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)


def read_idx(path: str, dimensions: int) -> np.ndarray:
    """The content of an IDX file, gzipped or not.

    Args:
      path: of the file.
      dimensions: of its array.

    Returns:
      uint8 or int32 [items, ...], at most MAX_ITEMS.

    Raises:
      UserError: the file is of another shape or type, too short or too long, or incomplete.
    """
    with _Stream(path) as stream:
        head = _read_head(stream, path)
        if len(head.shape) != dimensions:
            raise UserError(
                f'{path}: holds {_describe(head.shape)}; expected {dimensions} numbers: '
                f'{"images" if dimensions == 3 else "labels"}'
            )
        content = stream.read(head.num_bytes + 1)
    if len(content) != head.num_bytes:
        is_more = len(content) > head.num_bytes
        amount = f'more than {head.num_bytes:,}' if is_more else f'{len(content):,}'
        raise UserError(
            f'{path}: holds {amount} bytes after its head; expected {head.num_bytes:,}, for '
            f'{_describe(head.shape)}'
        )
    return np.frombuffer(content, head.dtype).reshape(head.shape)


def _head(path: str) -> _Head:
    with _Stream(path) as stream:
        return _read_head(stream, path)


def _read_head(stream: _Stream, path: str) -> _Head:
    """The type and shape, by a head that is as it should be."""
    expected = 'expected an IDX file, which begins 00 00 08 with its number of dimensions, 1 to 3'
    begin = stream.read(4)
    is_idx = len(begin) == 4 and begin[:2] == b'\0\0' and begin[2] in _TYPES and 0 < begin[3] < 4
    if not is_idx:
        raise UserError(f'{path}: begins with {begin.hex(" ") or "nothing"}; {expected}')
    numbers = stream.read(4 * begin[3])
    if len(numbers) != 4 * begin[3]:
        raise UserError(f'{path}: breaks off within its head of {4 + 4 * begin[3]} bytes')
    count, *sides = np.frombuffer(numbers, '>u4').tolist()
    if not 1 <= count <= MAX_ITEMS or any(not 1 <= side <= MAX_SIDE for side in sides):
        raise UserError(
            f'{path}: holds {_describe((count, *sides))}; expected 1 to {MAX_ITEMS:,} items, of '
            f'sides up to {MAX_SIDE}'
        )
    return _Head(np.dtype(_TYPES[begin[2]]), (count, *sides))


def _describe(shape: Sequence[int]) -> str:
    return ' x '.join(map(str, shape))


class _Stream:
    """The bytes of a file, unzipped where it is gzipped."""

    def __init__(self, path: str) -> None:
        regular_size(path, 'expected an IDX file')
        self._path = path

    def __enter__(self) -> _Stream:
        with os_errors_named(self._path):
            self._file = open(self._path, 'rb')  # noqa: SIM115 - closed by __exit__
            is_zipped = self._file.read(len(_GZIP)) == _GZIP
            self._file.seek(0)
        stream = gzip.GzipFile(fileobj=self._file) if is_zipped else self._file
        self._stream = cast(BinaryIO, stream)
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, fewer at the end; takes no more memory than there are."""
        content = bytearray()
        try:
            while chunk := self._stream.read(min(_CHUNK_BYTES, size - len(content))):
                content += chunk
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f'{self._path}: not a complete gzip file: {error}') from error
        except OSError as error:
            raise UserError(f'{self._path}: {error.strerror}') from error
        return bytes(content)


SOURCE = Source('a folder of IDX files', lambda path: bool(_find(path)), _read, labels=True)
