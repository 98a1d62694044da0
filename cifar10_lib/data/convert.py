"""Pictures, or a data set in any known layout, become records.

    python cifar10_data.py convert SOURCE --data_dir=OUT

writes OUT/data_batch_1.bin to data_batch_5.bin, test_batch.bin, batches.meta.txt and
SHA256SUMS, in CIFAR-10's format, and a contact sheet of examples. `sources` has the layouts that
are known; an archive of one is unpacked beside OUT for the time of the conversion.

The training images are dealt out to five files in an order that derives from the seed, so
that the files differ by one record at most; CIFAR's own files keep theirs. OUT is made complete
or not at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import itertools
import multiprocessing
import os
import shlex
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, BinaryIO, NamedTuple, TextIO

import numpy as np
from tqdm import tqdm

from cifar10_input import TEST_FILES, TRAIN_FILES
from cifar10_lib.base.commands import command
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.files import filled_directory, refuse_among
from cifar10_lib.base.names import printable
from cifar10_lib.data import download, record_files, sources
from cifar10_lib.data.archive import FETCH_ANEW, extract_all, is_archive
from cifar10_lib.data.framing import write_framing
from cifar10_lib.data.record_files import MAX_CLASSES, MIN_CLASSES
from cifar10_lib.data.sources.base import Examples, Options, Source, some

CONTACT_SHEET = 'contact_sheet.png'

# Writes a picture of examples: (path, directory of the records, names of the classes, title).
DrawExamples = Callable[[str, str, Sequence[str], str], None]

# One reader for each core, but of the largest pictures, each takes 1 GB.
_WORKERS = min(4, os.cpu_count() or 1)
_IMAGES_AT_ONCE = 64

# From so many images on, processes are worth their start: Pillow spends most of its time on small
# pictures in Python, where threads wait for each other.
_MIN_FOR_PROCESSES = 2000

# Files that are named each by each where they can't be read.
_MAX_NAMED = 20


# Of the printed command. By the tutorial's recipe CIFAR-10 takes 77 epochs, 30,000 steps, to 84%.
_EPOCHS, _FEWEST_STEPS, _MOST_STEPS = 77, 1_000, 30_000


class Converted(NamedTuple):
    """The records that were written."""

    class_names: Sequence[str]
    counts: np.ndarray
    """int64 [2, classes]: training and test images."""
    skipped: int
    """Images that could not be read."""
    shared: list[str]
    """Names of the test images whose pixels are those of a training image."""


def convert(
    pictures: str,
    data_dir: str,
    seed: int = 0,
    test_percent: int = 0,
    options: Options = Options(),  # noqa: B008 (it is immutable)
    contact_sheet: str | None = None,
    *,
    draw_examples: DrawExamples,
    batch_size: int,
) -> None:
    """Writes a set of records, and prints the numbers of its images.

    Args:
      pictures: file, folder, archive, or URL of an archive.
      data_dir: made and filled; it must be missing or empty.
      seed: at least 0; decides the order, and which pictures are test images.
      test_percent: share of each class that become test images, 1 to 99, where the
        pictures are not divided already; 0: a sixth, as in CIFAR-10.
      options: which labels are taken, and how a picture becomes a square.
      contact_sheet: PNG to write; by default contact_sheet.png in data_dir.
      draw_examples: writes the contact sheet.
      batch_size: of training; the printed command has a smaller one for fewer images.

    Raises:
      UserError: nothing can be written, and nothing has been; or, at the end, some
        pictures could not be read, and the set holds the others.
    """
    _check_paths(pictures, data_dir, contact_sheet)
    with filled_directory(data_dir) as temporary:
        with _opened(pictures, data_dir, temporary) as (path, rename):
            converted = write_records(path, temporary, seed, test_percent, options)
            converted = converted._replace(shared=list(map(rename, converted.shared)))
        name = os.path.basename(os.path.abspath(data_dir))
        draw_examples(
            contact_sheet or os.path.join(temporary, CONTACT_SHEET),
            temporary,
            converted.class_names,
            _title(name if len(name) <= 20 else f'{name[:19]}…', converted.counts),
        )
    print(describe(data_dir, converted))
    print(f'Examples: {contact_sheet or os.path.join(data_dir, CONTACT_SHEET)}')
    print(
        f'To train on them: {_train_command(data_dir, int(converted.counts[0].sum()), batch_size)}'
    )
    if converted.skipped:
        named = 'each' if converted.skipped <= _MAX_NAMED else f'the first {_MAX_NAMED}'
        raise UserError(
            f'{converted.skipped:,} of {converted.skipped + int(converted.counts.sum()):,} files '
            f'were skipped, {named} named above; {data_dir} holds all others'
        )


def write_records(
    path: str, directory: str, seed: int, test_percent: int, options: Options
) -> Converted:
    """Writes all files of a set but the contact sheet into a directory.

    Args:
      path: of a file or folder, no archive.
      The others are as of `convert`.
    """
    source = sources.find(path)
    if options.labels and not source.labels:
        raise UserError(f'--labels={options.labels}: {path} is {source.name}')
    examples = source.read(path, options)
    _check_division(path, source, examples, test_percent)
    _check_names(path, examples.class_names)
    is_test = examples.is_test
    if is_test is None:
        is_test = split(examples.labels, seed, test_percent)
    _check_counts(path, examples, _counts(examples, is_test))
    print(f'Converting {len(is_test):,} images of {len(examples.class_names)} classes')
    converted = _write(examples, is_test, directory, seed, test_percent)
    _check_counts(path, examples, converted.counts, converted.skipped)
    record_files.write_class_names(examples.class_names, directory)
    write_framing(dataclasses.replace(options.framing, inner=examples.inner), directory)
    record_files.write_sums(directory)
    return converted


def _check_paths(pictures: str, data_dir: str, contact_sheet: str | None) -> None:
    """Raises UserError for paths that would end badly after long work."""
    refuse_among(data_dir, [pictures], '--data_dir')
    if contact_sheet is None:
        return
    flag = f'--contact_sheet={contact_sheet}'
    if not contact_sheet.endswith('.png'):
        raise UserError(f'{flag}: expected a name that ends in .png')
    refuse_among(contact_sheet, [pictures], '--contact_sheet')
    if os.path.realpath(contact_sheet).startswith(os.path.join(os.path.realpath(data_dir), '')):
        raise UserError(f'{flag}: lies within --data_dir; leave the flag out to have it there')
    if not os.path.isdir(os.path.dirname(contact_sheet) or '.'):
        raise UserError(f'{flag}: its folder is missing')


@contextlib.contextmanager
def _opened(
    pictures: str, data_dir: str, temporary: str
) -> Iterator[tuple[str, Callable[[str], str]]]:
    """Opens a source: an archive, or the URL of one, is unpacked.

    Errors and warnings name the archive in place of the folder that it is unpacked to.

    Args:
      pictures: path or URL.
      data_dir: beside it, an archive is downloaded to; one that is there is taken.
      temporary: folder to unpack into, left as it was.

    Yields:
      The path of its file or folder, and a function that renames that folder in other texts.
    """
    path = _fetch(pictures, data_dir) if '://' in pictures else pictures
    if not is_archive(path):
        yield path, str
        return
    with tempfile.TemporaryDirectory(dir=temporary) as unpacked:
        extract_all(path, unpacked)

        def rename(text: str) -> str:
            return text.replace(unpacked, path)

        with contextlib.redirect_stderr(_Renaming(sys.stderr, rename)):
            try:
                yield sources.innermost(unpacked), rename
            except UserError as error:
                raise UserError(rename(str(error))) from error


class _Renaming:
    """A stream whose texts are changed before they are written."""

    def __init__(self, stream: TextIO, rename: Callable[[str], str]) -> None:
        self._stream, self._rename = stream, rename

    def write(self, text: str) -> int:
        return self._stream.write(self._rename(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _fetch(url: str, data_dir: str) -> str:
    """The path of the archive behind a URL, which is downloaded unless it is there.

    What a URL in `download.PUBLISHED` gives must be the published archive.
    """
    folder = os.path.dirname(os.path.abspath(data_dir))
    archive = os.path.join(folder, download.file_name(url))
    fingerprint = download.PUBLISHED.get(url)
    if not os.path.lexists(archive):
        print(f'Downloading {url} to {archive}')
        download.download(url, archive, fingerprint)
    elif fingerprint and (mismatch := download.mismatch_with(archive, fingerprint)):
        raise UserError(f'{archive}: not the published archive: {mismatch}; {FETCH_ANEW}')
    return archive


def _check_division(path: str, source: Source, examples: Examples, test_percent: int) -> None:
    if test_percent and examples.is_test is not None:
        raise UserError(
            f'--test_percent={test_percent}: {path} is {source.name}, with test images of its own'
        )


def _check_names(path: str, names: Sequence[str]) -> None:
    if not MIN_CLASSES <= len(names) <= MAX_CLASSES:
        raise UserError(
            f'{path}: found {len(names):,} classes; expected {MIN_CLASSES} to {MAX_CLASSES}'
        )
    for name in names:
        if name != printable(name) or name != name.strip() or not name:
            raise UserError(
                f'{path}: found the class name {name!r}; expected printable text that begins '
                'and ends without a space'
            )


def _check_counts(path: str, examples: Examples, counts: np.ndarray, skipped: int = 0) -> None:
    """Raises UserError for a class without images, and for a file without records."""
    note = f' that can be read, with {skipped:,} files skipped' if skipped else ''
    for name, (train, test) in zip(examples.class_names, counts.T, strict=True):
        # What comes divided may lack a class in a part.
        if examples.is_test is None and not (train and test):
            raise UserError(
                f'{path}: class {name!r}: found {train:,} training and {test:,} test '
                f'images{note}; expected at least one of each'
            )
    num_train, num_test = counts.sum(axis=1)
    if num_train < len(TRAIN_FILES) or not num_test:
        raise UserError(
            f'{path}: found {num_train} training and {num_test} test images{note}; expected at '
            f'least {len(TRAIN_FILES)} and 1, one for each file'
        )


def _counts(examples: Examples, is_test: np.ndarray) -> np.ndarray:
    """int64 [2, classes]: training and test images."""
    num_classes = len(examples.class_names)
    return np.stack(
        [np.bincount(examples.labels[is_test == of], minlength=num_classes) for of in (False, True)]
    )


def split(labels: np.ndarray, seed: int, test_percent: int) -> np.ndarray:
    """Which images are test images: of each class the same share, chosen at random.

    Args:
      labels: int64 [images].
      seed: at least 0.
      test_percent: the share in percent, 1 to 99; 0: a sixth.

    Returns:
      bool [images]. A class of two or more images has at least one of either kind.
    """
    is_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        images = np.random.default_rng([seed, label]).permutation(np.flatnonzero(labels == label))
        is_test[images[: _num_test(len(images), test_percent)]] = True
    return is_test


def _num_test(count: int, test_percent: int) -> int:
    """How many of a class's images are test images."""
    share = test_percent / 100 or 1 / 6
    return min(max(1, round(share * count)), count - 1)


# ----------------------------------------------------------------------------- writing


def _write(
    examples: Examples, is_test: np.ndarray, directory: str, seed: int, test_percent: int
) -> Converted:
    """Writes the six record files; arguments as of `convert`."""
    rng = np.random.default_rng(seed)
    train, test = (rng.permutation(np.flatnonzero(is_test == of)).tolist() for of in (False, True))
    with _Records(examples, directory) as records, _reader(examples) as read:
        if examples.files is not None:
            for number, name in enumerate((*TRAIN_FILES, *TEST_FILES)):
                indices = np.flatnonzero(examples.files == number).tolist()
                records.write(read(indices), itertools.repeat(name), name in TEST_FILES)
            return records.converted()
        test_names = itertools.cycle(TEST_FILES)
        failed = records.write(read(test), test_names, True)
        if examples.is_test is None:
            # Files that can't be read decide nothing: others of their classes are test images.
            counts = np.bincount(examples.labels)
            while failed:
                counts -= np.bincount(examples.labels[failed], minlength=len(counts))
                wanted = [_num_test(count, test_percent) for count in counts.tolist()]
                test = _take(train, examples.labels, wanted - records.num_test)
                failed = records.write(read(test), test_names, True)
        # Dealt out one by one, so that what is skipped leaves the files equally long.
        records.write(read(train), itertools.cycle(TRAIN_FILES), False)
        return records.converted()


def _take(indices: list[int], labels: np.ndarray, wanted: np.ndarray) -> list[int]:
    """Takes so many indices of each label from a list, the first ones."""
    taken = []
    left = wanted.copy()
    for index in indices:
        if left[labels[index]] > 0:
            left[labels[index]] -= 1
            taken.append(index)
    rest = set(indices).difference(taken)
    indices[:] = [index for index in indices if index in rest]
    return taken


class _Records:
    """The record files while they are written, with a progress bar."""

    def __init__(self, examples: Examples, directory: str) -> None:
        self._examples = examples
        self._counts = np.zeros([2, len(examples.class_names)], np.int64)
        self._skipped = 0
        self._labels: list[int] = examples.labels.tolist()
        # Of all training images, and of the test images with their indices. Of 64 bits: among a
        # million images, two different ones have the same with a chance of 3e-8.
        self._train_hashes: set[int] = set()
        self._test_hashes: dict[int, int] = {}
        self._directory = directory
        self._files: dict[str, BinaryIO] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> _Records:
        for name in (*TRAIN_FILES, *TEST_FILES):
            file = open(os.path.join(self._directory, name), 'wb')  # noqa: SIM115 - on the stack
            self._files[name] = self._stack.enter_context(file)
        self._bar = self._stack.enter_context(
            tqdm(total=len(self._examples.labels), desc='converting', unit='images', disable=None)
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def write(self, images: Iterator[_Read], names: Iterator[str], is_test: bool) -> list[int]:
        """Writes images to the files of these names; returns the indices of those skipped."""
        failed = []
        counts = self._counts[int(is_test)]
        for index, planes in images:
            self._bar.update()
            if isinstance(planes, str):
                failed.append(index)
                self._skip(planes)
                continue
            label = self._labels[index]
            self._files[next(names)].write(bytes([label]) + planes)
            counts[label] += 1
            if is_test:
                self._test_hashes.setdefault(hash(planes), index)
            else:
                self._train_hashes.add(hash(planes))
        return failed

    @property
    def num_test(self) -> np.ndarray:
        """int64 [classes]: test images so far."""
        return self._counts[1]

    def _skip(self, reason: str) -> None:
        self._skipped += 1
        if self._skipped <= _MAX_NAMED:
            self._bar.write(f'Skipped: {printable(reason)}', file=sys.stderr)
        if self._skipped == _MAX_NAMED + 1:
            self._bar.write('Skipped: more, which are counted', file=sys.stderr)

    def converted(self) -> Converted:
        shared = self._train_hashes.intersection(self._test_hashes)
        indices = sorted(self._test_hashes[each] for each in shared)
        names = [self._examples.name(index) for index in indices]
        return Converted(self._examples.class_names, self._counts, self._skipped, names)


# ----------------------------------------------------------------------------- reading

# An image's index with the bytes of its planes, or with the reason why there are none.
_Read = tuple[int, bytes | str]


@contextlib.contextmanager
def _reader(examples: Examples) -> Iterator[Callable[[Sequence[int]], Iterator[_Read]]]:
    """Yields a function that reads images, by their indices and in their order, side by side."""
    is_forking = sys.platform == 'linux' and _WORKERS > 1
    executor: Executor
    if is_forking and len(examples.labels) >= _MIN_FOR_PROCESSES:
        # Forked, they have the examples, and needn't import what this process has.
        context = multiprocessing.get_context('fork')
        executor = ProcessPoolExecutor(_WORKERS, context, _begin_worker, (examples,))
        read_some = _read_in_worker
    else:
        executor = ThreadPoolExecutor(_WORKERS)

        def read_some(indices: Sequence[int]) -> list[_Read]:
            return _read_some(examples, indices)

    def read(indices: Sequence[int]) -> Iterator[_Read]:
        pending: deque[Future[list[_Read]]] = deque()
        for begin in range(0, len(indices), _IMAGES_AT_ONCE):
            pending.append(executor.submit(read_some, indices[begin : begin + _IMAGES_AT_ONCE]))
            if len(pending) > 2 * _WORKERS:
                yield from _result(pending.popleft(), examples)
        for future in pending:
            yield from _result(future, examples)

    try:
        yield read
    finally:
        executor.shutdown(cancel_futures=True)


def _read_some(examples: Examples, indices: Sequence[int]) -> list[_Read]:
    found: list[_Read] = []
    for index in indices:
        try:
            found.append((index, examples.pixels(index).transpose(2, 0, 1).tobytes()))
        except UserError as error:
            found.append((index, str(error)))
    return found


# Of a worker process.
_worker_examples: Examples | None = None


def _begin_worker(examples: Examples) -> None:
    global _worker_examples
    _worker_examples = examples
    # What the parent holds is no garbage here, and to look at it would copy its memory.
    gc.freeze()
    # The parent ends on Ctrl-C, and its workers with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _read_in_worker(indices: Sequence[int]) -> list[_Read]:
    assert _worker_examples is not None
    return _read_some(_worker_examples, indices)


def _result(future: Future[list[_Read]], examples: Examples) -> list[_Read]:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise UserError(
            'a process that reads images ended; memory may have run out, or a decoder failed'
        ) from error


# ----------------------------------------------------------------------------- results


def describe(data_dir: str, converted: Converted) -> str:
    """The numbers of images of each class, a line each, and what to know of them."""
    names, counts = converted.class_names, converted.counts
    width = max(map(len, names))
    lines = [_title(data_dir, counts), f'  {"class":{width}}  training      test']
    lines += [
        f'  {name:{width}}  {train:8,}  {test:8,}'
        for name, (train, test) in zip(names, counts.T, strict=True)
    ]
    if converted.shared:
        lines.append(
            f'{len(converted.shared):,} test images are also training images: '
            f'{printable(some(converted.shared))}'
        )
    return '\n'.join(lines)


def _title(data_dir: str, counts: np.ndarray) -> str:
    num_train, num_test = counts.sum(axis=1)
    return (
        f'{data_dir}: {num_train:,} training and {num_test:,} test images of {counts.shape[1]} '
        'classes'
    )


def _train_command(data_dir: str, num_train: int, batch_size: int) -> str:
    """The command that trains on them, with a batch size and steps that fit their number."""
    train_dir = os.path.normpath(data_dir) + '_train'
    options = [f'--data_dir={data_dir}', f'--train_dir={train_dir}']
    if num_train < batch_size:
        batch_size = 2 ** (num_train.bit_length() - 1)
        options.append(f'--batch_size={batch_size}')
    steps = min(max(_EPOCHS * num_train // batch_size, _FEWEST_STEPS), _MOST_STEPS)
    options.append(f'--max_steps={round(steps, -2)}')
    return shlex.join([*command('cifar10_train.py'), *options])
