"""Sources of labelled images: folders of pictures, IDX files, CIFAR-100."""

from __future__ import annotations

import gzip
import math
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO, NamedTuple, cast

import numpy as np

from cifar10_input import CIFAR10_RECORD, RecordFormat
from cifar10_lib.base.errors import UserError, os_errors_named
from cifar10_lib.base.files import read_text, regular_size
from cifar10_lib.data import download, record_files
from cifar10_lib.data.archive import FETCH_ANEW, extract
from cifar10_lib.data.download import Fingerprint
from cifar10_lib.data.photos import Reader

_CHUNK_BYTES = 1 << 20

# Kinds of source.
DIVIDED = 'a folder of train/ and test/'

UNDIVIDED = 'a folder of classes'

IDX = 'a set of IDX files'

CIFAR100 = 'CIFAR-100'

# Folders of training and of test images.
_PARTS = ('train', 'test')

# Of an IDX file, which is read into memory: 784 MB.
MAX_IDX_ITEMS = 1_000_000

IDX_SIDE = 28

IDX_NAMES = (
    ('train-images-idx3-ubyte', 'train-labels-idx1-ubyte'),
    ('t10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte'),
)

_ALL_IDX_NAMES = [name for names in IDX_NAMES for name in names]

# The type of an IDX file's items: unsigned bytes.
_IDX_BYTES = 8

_GZIP = b'\x1f\x8b'

CIFAR100_URL = 'https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz'

CIFAR100_DIRECTORY = 'cifar-100-binary'

CIFAR100_FILES = ('train.bin', 'test.bin')

CIFAR100_CLASSES = {'coarse': 20, 'fine': 100}

# The MD5 is the one that https://www.cs.toronto.edu/~kriz/cifar.html publishes. Size and
# SHA-256 are not published there: they are those that TensorFlow Datasets has for the same
# URL, the SHA-256 also that of MLDatasets.jl.
CIFAR100_FINGERPRINT = Fingerprint(
    size=168_513_733,
    md5='03b5dce01913d631647c71ecec9e9cb8',
    sha256='58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec',
)

# Files that systems put beside pictures, in lower case; like names that begin with a dot.
_IGNORED = ('thumbs.db', 'desktop.ini', '__macosx')


class Source(NamedTuple):
    """Labelled images, to be read one by one."""

    class_names: Sequence[str]
    """In the order of the labels."""
    labels: np.ndarray
    """int64 [images], 0 to classes - 1."""
    is_test: np.ndarray
    """bool [images]."""
    planes: Callable[[int], np.ndarray]
    """Gives uint8 [3, 32, 32] for the index of an image; UserError skips it. For threads."""


def find_kind(pictures: str) -> str:
    """The kind of source at a path or URL."""
    if '://' in pictures:
        return CIFAR100
    if not os.path.lexists(pictures):
        raise UserError(
            f'{pictures}: missing; expected a folder of one folder for each class, of train/ and '
            f"test/, or of MNIST's four files; or CIFAR-100's {CIFAR100_DIRECTORY}.tar.gz"
        )
    if not os.path.isdir(pictures):
        return CIFAR100
    held = _entries(pictures)
    if any(name in held for name in CIFAR100_FILES):
        return CIFAR100
    if any(name.removesuffix('.gz') in _ALL_IDX_NAMES for name in held):
        return IDX
    return DIVIDED if held.get('train') and held.get('test') else UNDIVIDED


def folders(pictures: str, divided: bool, seed: int, test_percent: int) -> Source:
    """Pictures of any size, in a folder for each class.

    Args:
      pictures: holds the folders.
      divided: it holds train/ and test/, which each hold the folders.
      seed: decides which pictures are test images, where they are not divided.
      test_percent: the share of test images in each class then; 0: a sixth.
    """
    held = _entries(pictures)
    _mention_others(pictures, [n for n in held if not held[n] or divided and n not in _PARTS])
    parts = [os.path.join(pictures, part) for part in _PARTS] if divided else [pictures]
    names = _class_folders(parts[0])
    for part in parts[1:]:
        if unlike := sorted(set(names).symmetric_difference(_class_folders(part))):
            raise UserError(
                f'{parts[0]} and {part}: expected the same classes in both, found only in one: '
                f'{", ".join(map(repr, unlike[:10]))}'
            )
    paths: list[str] = []
    labels: list[int] = []
    is_test: list[bool] = []
    for part_is_test, part in enumerate(parts):
        for label, name in enumerate(names):
            files = _files(os.path.join(part, name))
            paths += files
            labels += [label] * len(files)
            is_test += [bool(part_is_test)] * len(files)
    reader = Reader()
    all_labels = np.array(labels, np.int64)
    return Source(
        names,
        all_labels,
        np.array(is_test, bool) if divided else split(all_labels, seed, test_percent),
        lambda index: reader.read(paths[index]).pixels.transpose(2, 0, 1),
    )


def _entries(folder: str) -> dict[str, bool]:
    """Whether it is a folder, for the name of all that lies in `folder`, in their order."""
    with os_errors_named(folder), os.scandir(folder) as entries:
        found = {entry.name: _is_folder(entry) for entry in entries if not _is_ignored(entry.name)}
    return dict(sorted(found.items()))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link that leads in a circle: named when it is read.
        return False


def _is_ignored(name: str) -> bool:
    return name.startswith('.') or name.lower() in _IGNORED


def _class_folders(part: str) -> list[str]:
    names = [name for name, is_folder in _entries(part).items() if is_folder]
    if not names:
        raise UserError(f'{part}: found no folders; expected a folder of pictures for each class')
    return names


def _files(folder: str) -> list[str]:
    """Paths of all that lies in the folder of a class; reading tells what is no picture."""
    held = _entries(folder)
    if all(held.values()):
        found = 'nothing but folders' if held else 'nothing'
        raise UserError(f'{folder}: holds {found}; expected the pictures of one class')
    return [os.path.join(folder, name) for name in held]


def _mention_others(folder: str, names: Iterable[str]) -> None:
    for name in names:
        print(f'Passed over: {os.path.join(folder, name)}: in no class', file=sys.stderr)


def split(labels: np.ndarray, seed: int, test_percent: int) -> np.ndarray:
    """Which images are test images: of each class the same share, chosen at random.

    Args:
      labels: int64 [images].
      seed: at least 0.
      test_percent: the share in percent, 1 to 99; 0: a sixth.

    Returns:
      bool [images]. A class of two or more images has at least one of either kind.
    """
    share = test_percent / 100 or 1 / 6
    is_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        images = np.random.default_rng([seed, label]).permutation(np.flatnonzero(labels == label))
        num_test = min(max(1, round(share * len(images))), len(images) - 1)
        is_test[images[:num_test]] = True
    return is_test


def idx(directory: str) -> Source:
    """Grey images of 28 x 28, each in the middle of a black square of 32 x 32.

    The classes are the labels that occur, and named by them.
    """
    images, labels = [], []
    for image_name, label_name in IDX_NAMES:
        image_path, label_path = _unzipped_or_not(directory, image_name, label_name)
        images.append(read_idx(image_path, IDX_SIDE, IDX_SIDE))
        labels.append(read_idx(label_path))
        if len(labels[-1]) != len(images[-1]):
            raise UserError(
                f'{label_path}: holds {len(labels[-1]):,} labels; expected '
                f'{len(images[-1]):,}, one for each image in {image_path}'
            )
    num_train = len(images[0])
    values, of_images = np.unique(np.concatenate(labels), return_inverse=True)

    def planes(index: int) -> np.ndarray:
        image = images[0][index] if index < num_train else images[1][index - num_train]
        return np.tile(np.pad(image, (CIFAR10_RECORD.height - IDX_SIDE) // 2), (3, 1, 1))

    is_test = np.arange(len(of_images)) >= num_train
    return Source([str(value) for value in values], of_images, is_test, planes)


def _unzipped_or_not(directory: str, *names: str) -> list[str]:
    paths = [os.path.join(directory, name) for name in names]
    return [path if os.path.lexists(path) else f'{path}.gz' for path in paths]


def read_idx(path: str, *sides: int) -> np.ndarray:
    """The bytes in an IDX file (http://yann.lecun.com/exdb/mnist/), gzipped or not.

    Args:
      path: of the file.
      sides: of each of its items.

    Returns:
      uint8 [items, *sides], at most MAX_IDX_ITEMS.

    Raises:
      UserError: the file is of another shape or type, too short or too long, or incomplete.
    """
    kind = f'{" x ".join(map(str, sides))} images' if sides else 'labels'
    expected = f'expected an IDX file of {kind}'
    regular_size(path, expected)
    with os_errors_named(path), open(path, 'rb') as file:
        is_zipped = file.read(len(_GZIP)) == _GZIP
        file.seek(0)
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if is_zipped else file
        count = _read_idx_head(stream, path, sides, expected)
        size = count * math.prod(sides)
        content = _read(stream, size + 1, path)
    if len(content) != size:
        amount = f'more than {size:,}' if len(content) > size else f'{len(content):,}'
        raise UserError(
            f'{path}: holds {amount} bytes after its head; expected {size:,}, for {count:,} {kind}'
        )
    return np.frombuffer(content, np.uint8).reshape(count, *sides)


def _read_idx_head(stream: BinaryIO, path: str, sides: Sequence[int], expected: str) -> int:
    """The number of items, 1 to MAX_IDX_ITEMS, by a head that is as it should be."""
    magic = bytes([0, 0, _IDX_BYTES, 1 + len(sides)])
    head_size = len(magic) + 4 * (1 + len(sides))
    head = _read(stream, head_size, path)
    begin, numbers = head[: len(magic)], head[len(magic) :]
    if begin != magic:
        found = begin.hex(' ') or 'nothing'
        raise UserError(f'{path}: begins with {found}; {expected}, which begins {magic.hex(" ")}')
    if len(head) != head_size:
        raise UserError(f'{path}: breaks off within its head of {head_size} bytes; {expected}')
    count, *found_sides = np.frombuffer(numbers, '>u4').tolist()
    if found_sides != list(sides) or not 1 <= count <= MAX_IDX_ITEMS:
        shape = ' x '.join(map(str, (count, *found_sides)))
        raise UserError(f'{path}: holds {shape}; {expected}, 1 to {MAX_IDX_ITEMS:,} of them')
    return count


def _read(stream: BinaryIO, size: int, path: str) -> bytes:
    """Up to `size` bytes, fewer at the end; takes no more memory than there are."""
    content = bytearray()
    try:
        while chunk := stream.read(min(_CHUNK_BYTES, size - len(content))):
            content += chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f'{path}: not a complete gzip file: {error}') from error
    return bytes(content)


def cifar100(pictures: str, data_dir: str, temporary: str, labels: str) -> Source:
    """The images of CIFAR-100's binary version.

    Args:
      pictures: its folder, its archive, or the archive's URL. What CIFAR100_URL gives must
        be the published archive; for another archive the user vouches.
      data_dir: beside it, an archive is downloaded to; one that is there is taken.
      temporary: folder to unpack into, left as it was.
      labels: 'fine' or 'coarse'.
    """
    if os.path.isdir(pictures):
        return _read_cifar100(pictures, labels)
    archive, remedy = pictures, f'expected {CIFAR100_DIRECTORY}.tar.gz as it is published'
    if '://' in pictures:
        archive, remedy = _fetch_cifar100(pictures, data_dir), FETCH_ANEW
    with os_errors_named(archive):
        mismatch = download.mismatch_with(archive, CIFAR100_FINGERPRINT)
    if mismatch and pictures == CIFAR100_URL:
        raise UserError(f'{archive}: not the published archive: {mismatch}; {remedy}')
    if mismatch:
        print(f'Not the published archive, but used because you name it: {mismatch}')
    with tempfile.TemporaryDirectory(dir=temporary) as unpacked:
        names = (*CIFAR100_FILES, _names_file(labels))
        extract(archive, unpacked, CIFAR100_DIRECTORY, names, remedy)
        try:
            return _read_cifar100(unpacked, labels)
        except UserError as error:
            reason = str(error).replace(unpacked, CIFAR100_DIRECTORY)
            raise UserError(f'{archive}: {reason}; {remedy}') from error


def _fetch_cifar100(url: str, data_dir: str) -> str:
    """The path of the archive, which is downloaded unless it is there."""
    folder = os.path.dirname(os.path.abspath(data_dir))
    archive = os.path.join(folder, download.file_name(url))
    if not os.path.lexists(archive):
        print(f'Downloading {url} to {archive}')
        fingerprint = CIFAR100_FINGERPRINT if url == CIFAR100_URL else None
        download.download(url, archive, fingerprint)
    return archive


def _names_file(labels: str) -> str:
    return f'{labels}_label_names.txt'


def _read_cifar100(directory: str, labels: str) -> Source:
    num_classes = CIFAR100_CLASSES[labels]
    path = os.path.join(directory, _names_file(labels))
    expected = f'expected {num_classes} class names'
    names = [line.strip() for line in read_text(path, expected).split('\n') if line.strip()]
    if len(names) != num_classes:
        raise UserError(f'{path}: found {len(names)} class names; {expected}')
    record = RecordFormat(label_bytes=2, label_index=('coarse', 'fine').index(labels))
    records = []
    for name in CIFAR100_FILES:
        path = os.path.join(directory, name)
        count = record_files.check_file(path, record, num_classes)
        with os_errors_named(path):
            content = np.fromfile(path, np.uint8, count * record.record_bytes)
        records.append(content.reshape(count, record.record_bytes))
    num_train = len(records[0])

    def planes(index: int) -> np.ndarray:
        data = records[0][index] if index < num_train else records[1][index - num_train]
        return data[record.label_bytes :].reshape(record.depth, record.height, record.width)

    all_labels = np.concatenate([some[:, record.label_index] for some in records])
    is_test = np.arange(len(all_labels)) >= num_train
    return Source(names, all_labels.astype(np.int64), is_test, planes)
