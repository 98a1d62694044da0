"""Pictures become records.

    python cifar10_data.py convert PICTURES --data_dir=OUT

writes OUT/data_batch_1.bin to data_batch_5.bin, test_batch.bin, batches.meta.txt and
SHA256SUMS, in CIFAR-10's format, and a contact sheet of examples. PICTURES is

- a folder of one folder for each class, in which JPEG, PNG, GIF and BMP lie, of any size; or
  of a train/ and a test/ folder that each hold one folder for each class,
- a folder of the four files of MNIST or a set published like it, gzipped or not, or
- CIFAR-100's binary version: its archive, the archive's URL, or its unpacked folder.

The training images are dealt out to five files in an order that derives from the seed, so
that the files differ by one record at most. OUT is made complete or not at all.

Measured on 2 cores of an AMD EPYC with other programs at work (3 runs): 375 to 1,200 PNGs of
32 x 32 a second, 450 to 660 JPEGs of 320 x 240, 120 to 270 JPEGs of 1024 x 768; and a peak of
660 MiB of memory, for 1,500 pictures and for 45,000.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from cifar10_input import TEST_FILES, TRAIN_FILES
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.files import filled_directory
from cifar10_lib.base.flags import interpreter
from cifar10_lib.data import record_files
from cifar10_lib.data.record_files import CLASS_NAMES_FILE, MAX_CLASSES, MIN_CLASSES
from cifar10_lib.data.sources import (
    CIFAR100,
    DIVIDED,
    IDX,
    UNDIVIDED,
    Source,
    cifar100,
    find_kind,
    folders,
    idx,
)

CONTACT_SHEET = 'contact_sheet.png'

# Writes a picture of examples: (path, directory of the records, names of the classes, title).
DrawExamples = Callable[[str, str, Sequence[str], str], None]


# One decoder for each core, but of the largest pictures, each takes 2 GB.
_THREADS = min(4, os.cpu_count() or 1)
_IMAGES_AT_ONCE = 32
_CHUNK_BYTES = 1 << 20


class Converted(NamedTuple):
    """The records that were written."""

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
    *,
    draw_examples: DrawExamples,
    batch_size: int,
) -> None:
    """Writes a set of records, and prints the numbers of its images.

    Args:
      pictures: folder, archive or URL.
      data_dir: made and filled; it must be missing or empty.
      seed: at least 0; decides the order, and which pictures are test images.
      test_percent: share of each class that become test images, 1 to 99, where the
        pictures are not divided already; 0: a sixth, as in CIFAR-10.
      labels: of CIFAR-100, 'fine' or 'coarse'.
      contact_sheet: PNG to write; by default contact_sheet.png in data_dir.
      draw_examples: writes the contact sheet.
      batch_size: of training; the printed command has a smaller one for fewer images.

    Raises:
      UserError: nothing can be written, and nothing has been; or, at the end, some
        pictures could not be read, and the set holds the others.
    """
    _check_paths(pictures, data_dir, contact_sheet)
    kind = find_kind(pictures)
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
        folder = os.path.basename(os.path.abspath(data_dir))
        draw_examples(
            contact_sheet or os.path.join(temporary, CONTACT_SHEET),
            temporary,
            source.class_names,
            _title(folder if len(folder) <= 20 else f'{folder[:19]}…', converted.counts),
        )
    print(describe(data_dir, source.class_names, converted.counts))
    print(f'Examples: {contact_sheet or os.path.join(data_dir, CONTACT_SHEET)}')
    print(
        f'To train on them: {_train_command(data_dir, int(converted.counts[0].sum()), batch_size)}'
    )
    if converted.skipped:
        raise UserError(
            f'{converted.skipped:,} of {len(source.labels):,} files were skipped, each named '
            f'above; {data_dir} holds all others'
        )


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


def describe(data_dir: str, names: Sequence[str], counts: np.ndarray) -> str:
    """The numbers of images of each class, a line each."""
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


def _train_command(data_dir: str, num_train: int, batch_size: int) -> str:
    """The command that trains on them; on a small set with batches that it fills."""
    script = os.path.join(os.path.dirname(sys.argv[0]), 'cifar10_train.py')
    train_dir = os.path.normpath(data_dir) + '_train'
    options = [f'--data_dir={data_dir}', f'--train_dir={train_dir}']
    if num_train < batch_size:
        options.append(f'--batch_size={2 ** (num_train.bit_length() - 1)}')
    return shlex.join([interpreter(), script, *options])
