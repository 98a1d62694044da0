"""How do one's own pictures become records?

    python cifar10_data.py convert PICTURES --data_dir=OUT

writes OUT/data_batch_1.bin to data_batch_5.bin, test_batch.bin, batches.meta.txt and
SHA256SUMS, in CIFAR-10's format, and a contact sheet of what stands in them. PICTURES is

- a folder of one folder for each class, in which JPEG, PNG, GIF and BMP lie, of any size; or
  of a train/ and a test/ folder that each hold one folder for each class,
- a folder of the four files of MNIST or a set published like it, gzipped or not, or
- CIFAR-100's binary version: its archive, the archive's URL, or its unpacked folder.

The training images are dealt out to five files in an order that derives from the seed, so
that the files differ by one record at most. OUT is made whole or not at all.

Measured on 2 cores of an AMD EPYC with other programs at work (3 runs): 375 to 1,200 PNGs of
32 x 32 a second, 450 to 660 JPEGs of 320 x 240, 120 to 270 JPEGs of 1024 x 768; and a peak of
660 MiB of memory, for 1,500 pictures and for 45,000.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import math
import os
import shlex
import sys
import tempfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from tqdm import tqdm

from cifar10_input import CIFAR10_RECORD, TEST_FILES, TRAIN_FILES, RecordFormat
from cifar10_lib.base.errors import UserError, os_errors_named
from cifar10_lib.base.files import filled_directory, read_text, regular_size
from cifar10_lib.base.flags import interpreter
from cifar10_lib.data import download, record_files
from cifar10_lib.data.archive import FETCH_ANEW, extract
from cifar10_lib.data.download import Fingerprint
from cifar10_lib.data.photos import Reader
from cifar10_lib.data.record_files import CLASS_NAMES_FILE, MAX_CLASSES, MIN_CLASSES
from cifar10_lib.evaluation.contact_sheet import shortened
from cifar10_lib.evaluation.contact_sheet import write as write_contact_sheet
from cifar10_lib.nn.recipes import BATCH_SIZE

# What PICTURES may be, in words.
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

CONTACT_SHEET = 'contact_sheet.png'

# What systems put beside pictures, in lower case; as is what begins with a dot.
_IGNORED = ('thumbs.db', 'desktop.ini', '__macosx')

# One decoder for each core, but of the largest pictures, each takes 2 GB.
_THREADS = min(4, os.cpu_count() or 1)
_IMAGES_AT_ONCE = 32
_CHUNK_BYTES = 1 << 20


class Source(NamedTuple):
    """Labelled images that are yet to be read."""

    class_names: Sequence[str]
    """In the order of the labels."""
    labels: np.ndarray
    """int64 [images], 0 to classes - 1."""
    is_test: np.ndarray
    """bool [images]."""
    planes: Callable[[int], np.ndarray]
    """Gives uint8 [3, 32, 32] for the index of an image; UserError skips it. For threads."""


class Converted(NamedTuple):
    """What was written."""

    counts: np.ndarray
    """int64 [2, classes]: training and test images."""
    skipped: int
    """Images that could not be read."""


def convert(
    pictures: str,
    data_dir: str,
    seed: int = 0,
    test_percent: int = 0,
    labels: str = 'fine',
    contact_sheet: str | None = None,
) -> None:
    """Writes a set of records, and prints what it holds.

    Args:
      pictures: folder, archive or URL.
      data_dir: made and filled; it must be missing or empty.
      seed: at least 0; decides the order, and which pictures are test images.
      test_percent: share of each class that become test images, 1 to 99, where the
        pictures are not divided already; 0: a sixth, as in CIFAR-10.
      labels: of CIFAR-100, 'fine' or 'coarse'.
      contact_sheet: PNG to write; by default contact_sheet.png in data_dir.

    Raises:
      UserError: nothing can be written, and nothing has been; or, at the end, some
        pictures could not be read, and the set holds the others.
    """
    _check_paths(pictures, data_dir, contact_sheet)
    kind = _kind(pictures)
    _check_flags(pictures, kind, test_percent, labels)
    with filled_directory(data_dir) as temporary:
        if kind == CIFAR100:
            source = cifar100(pictures, data_dir, temporary, labels)
        elif kind == IDX:
            source = idx(pictures)
        else:
            source = folders(pictures, kind == DIVIDED, seed, test_percent)
        _check_names(pictures, source.class_names)
        _check_counts(pictures, source.class_names, _counts(source))
        print(f'Converting {len(source.labels):,} images of {len(source.class_names)} classes')
        converted = _write(source, temporary, seed)
        _check_counts(pictures, source.class_names, *converted)
        record_files.write_sums(temporary)
        folder = shortened(os.path.basename(os.path.abspath(data_dir)), 20)
        write_contact_sheet(
            contact_sheet or os.path.join(temporary, CONTACT_SHEET),
            temporary,
            source.class_names,
            _title(folder, converted.counts),
        )
    print(in_words(data_dir, source.class_names, converted.counts))
    print(f'Examples: {contact_sheet or os.path.join(data_dir, CONTACT_SHEET)}')
    print(f'To train on them: {_train_command(data_dir, int(converted.counts[0].sum()))}')
    if converted.skipped:
        raise UserError(
            f'{converted.skipped:,} of {len(source.labels):,} files were skipped, each named '
            f'above; {data_dir} holds all others'
        )


# ------------------------------------------------------------------------------
# What was asked for.


def _check_paths(pictures: str, data_dir: str, contact_sheet: str | None) -> None:
    """Raises UserError for paths that would end badly after long work."""
    if os.path.isdir(pictures) and _lies_within(data_dir, pictures):
        raise UserError(f'--data_dir={data_dir}: lies within {pictures}; expected another folder')
    if contact_sheet is None:
        return
    flag = f'--contact_sheet={contact_sheet}'
    if not contact_sheet.endswith('.png'):
        raise UserError(f'{flag}: expected a name that ends in .png')
    if _lies_within(contact_sheet, data_dir):
        raise UserError(f'{flag}: lies within --data_dir; leave the flag out to have it there')
    if not os.path.isdir(os.path.dirname(contact_sheet) or '.'):
        raise UserError(f'{flag}: its folder is missing')


def _lies_within(path: str, folder: str) -> bool:
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return path == folder or path.startswith(os.path.join(folder, ''))


def _kind(pictures: str) -> str:
    """What lies at `pictures`."""
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


def _check_flags(pictures: str, kind: str, test_percent: int, labels: str) -> None:
    if test_percent and kind != UNDIVIDED:
        raise UserError(
            f'--test_percent={test_percent}: {pictures} is {kind}, with test images of its own'
        )
    if labels != 'fine' and kind != CIFAR100:
        raise UserError(f'--labels={labels}: {pictures} is {kind}; expected {CIFAR100}')


def _check_names(pictures: str, names: Sequence[str]) -> None:
    if not MIN_CLASSES <= len(names) <= MAX_CLASSES:
        raise UserError(
            f'{pictures}: found {len(names):,} classes; expected {MIN_CLASSES} to {MAX_CLASSES}'
        )
    for name in names:
        if not name.isprintable() or name != name.strip() or not name:
            raise UserError(
                f'{pictures}: found the class name {name!r}; expected printable text that begins '
                'and ends without a space'
            )


def _check_counts(
    pictures: str, names: Sequence[str], counts: np.ndarray, skipped: int = 0
) -> None:
    """Raises UserError for a class without images, and for a file without records."""
    note = f' that can be read, with {skipped:,} files skipped' if skipped else ''
    for name, (train, test) in zip(names, counts.T, strict=True):
        if not train or not test:
            raise UserError(
                f'{pictures}: class {name!r}: found {train:,} training and {test:,} test '
                f'images{note}; expected at least one of each'
            )
    if counts[0].sum() < len(TRAIN_FILES):
        raise UserError(
            f'{pictures}: found {counts[0].sum()} training images{note}; expected at least '
            f'{len(TRAIN_FILES)}, one for each file'
        )


# ------------------------------------------------------------------------------
# A folder for each class.


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
    """Paths of all that lies in the folder of a class; what is no picture shows later."""
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


# ------------------------------------------------------------------------------
# MNIST's files.


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
      UserError: the file is of another shape or type, too short or too long, or not whole.
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
        raise UserError(f'{path}: not a whole gzip file: {error}') from error
    return bytes(content)


# ------------------------------------------------------------------------------
# CIFAR-100.


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


# ------------------------------------------------------------------------------
# Records.


def _counts(source: Source) -> np.ndarray:
    """int64 [2, classes]: training and test images."""
    return np.stack(
        [
            np.bincount(source.labels[source.is_test == is_test], minlength=len(source.class_names))
            for is_test in (False, True)
        ]
    )


def _write(source: Source, directory: str, seed: int) -> Converted:
    """Writes the six record files and the names of the classes."""
    rng = np.random.default_rng(seed)
    order = np.concatenate(
        [rng.permutation(np.flatnonzero(source.is_test == is_test)) for is_test in (False, True)]
    )
    counts = np.zeros([2, len(source.class_names)], np.int64)
    skipped = 0
    with contextlib.ExitStack() as stack:
        train, test = (
            [stack.enter_context(open(os.path.join(directory, name), 'wb')) for name in names]
            for names in (TRAIN_FILES, TEST_FILES)
        )
        # Dealt out one by one, so that what is skipped leaves the files equally long.
        files = (itertools.cycle(train), itertools.cycle(test))
        bar = stack.enter_context(
            tqdm(total=len(order), desc='converting', unit='images', disable=None)
        )
        for index, planes in _in_threads(source.planes, order.tolist()):
            bar.update()
            if isinstance(planes, UserError):
                skipped += 1
                bar.write(f'Skipped: {planes}', file=sys.stderr)
                continue
            part, label = int(source.is_test[index]), int(source.labels[index])
            next(files[part]).write(bytes([label]) + planes.tobytes())
            counts[part, label] += 1
    with open(os.path.join(directory, CLASS_NAMES_FILE), 'w', encoding='utf-8') as file:
        file.writelines(f'{name}\n' for name in source.class_names)
    return Converted(counts, skipped)


def _in_threads(
    planes: Callable[[int], np.ndarray], indices: Sequence[int]
) -> Iterator[tuple[int, np.ndarray | UserError]]:
    """Each index with its planes, or with the reason why there are none, in their order."""

    def some(chunk: Sequence[int]) -> list[tuple[int, np.ndarray | UserError]]:
        found: list[tuple[int, np.ndarray | UserError]] = []
        for index in chunk:
            try:
                found.append((index, planes(index)))
            except UserError as error:
                found.append((index, error))
        return found

    pending: deque[Future[list[tuple[int, np.ndarray | UserError]]]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for begin in range(0, len(indices), _IMAGES_AT_ONCE):
            pending.append(pool.submit(some, indices[begin : begin + _IMAGES_AT_ONCE]))
            if len(pending) > 2 * _THREADS:
                yield from pending.popleft().result()
        for future in pending:
            yield from future.result()


# ------------------------------------------------------------------------------
# What is told and shown of it.


def in_words(data_dir: str, names: Sequence[str], counts: np.ndarray) -> str:
    """How many images there are of each class: a line each."""
    width = max(map(len, names))
    lines = [_title(data_dir, counts), f'  {"class":{width}}  training      test']
    lines += [
        f'  {name:{width}}  {train:8,}  {test:8,}'
        for name, (train, test) in zip(names, counts.T, strict=True)
    ]
    return '\n'.join(lines)


def _title(data_dir: str, counts: np.ndarray) -> str:
    num_train, num_test = counts.sum(axis=1)
    return (
        f'{data_dir}: {num_train:,} training and {num_test:,} test images of {counts.shape[1]} '
        'classes'
    )


def _train_command(data_dir: str, num_train: int) -> str:
    """What trains on them; of a small set with batches that it fills."""
    script = os.path.join(os.path.dirname(sys.argv[0]), 'cifar10_train.py')
    train_dir = os.path.normpath(data_dir) + '_train'
    options = [f'--data_dir={data_dir}', f'--train_dir={train_dir}']
    if num_train < BATCH_SIZE:
        options.append(f'--batch_size={2 ** (num_train.bit_length() - 1)}')
    return shlex.join([interpreter(), script, *options])
