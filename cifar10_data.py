"""Where do the files come from? Download, verify, unpack, check, or generate them.

    python cifar10_data.py --data_dir=cifar10_data --dataset=cifar10

puts the data set into --data_dir, unless it is there already, and prints which
data set that is, where it lies, how many images it holds and of which classes.
CIFAR-10 is a download of 170 MB and takes 184 MB unpacked. Without a network,
--dataset=synthetic draws ten classes of shapes in the same files and format.

A data directory is laid out as in the tutorial:

    data_dir/cifar-10-binary.tar.gz     the archive, as it was downloaded
    data_dir/cifar-10-batches-bin/      CIFAR-10
    data_dir/synthetic-batches-bin/     the synthetic set, marked by synthetic.json

Record files that lie directly in data_dir are used as they are. What this script
makes holds its digests in SHA256SUMS, which every later check compares.

Measured on one core of an AMD EPYC: drawing the 60,000 synthetic images takes 7.4
to 8.8 s (3 runs). On them, the tutorial's network with moving averages, batch 128,
reaches a precision @ 1 of 20 to 28% after 100 steps, 92 to 94% after 1,000 and 98%
after 2,000 (2 runs).
"""

from __future__ import annotations

import bz2
import contextlib
import dataclasses
import functools
import gzip
import hashlib
import http.client
import io
import json
import lzma
import os
import posixpath
import re
import shutil
import stat
import tarfile
import time
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from six.moves import urllib
from tqdm import tqdm

import cifar10_files
import cifar10_synthetic
from cifar10_input import (
    CIFAR10_RECORD,
    NUM_CLASSES,
    TEST_FILES,
    TRAIN_FILES,
    RecordFormat,
    count_examples,
    test_files,
    train_files,
)
from cifar10_settings import LARGEST_SEED, UserError, run_script, setting

try:
    import fcntl
except ImportError:  # Windows: two processes that prepare one directory don't wait there.
    fcntl = None  # type: ignore[assignment]

DATA_URL = 'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz'
DATASETS = ('cifar10', 'synthetic', 'auto')

CIFAR10_DIRECTORY = 'cifar-10-batches-bin'
SYNTHETIC_DIRECTORY = 'synthetic-batches-bin'
SYNTHETIC_MARKER = 'synthetic.json'
CLASS_NAMES_FILE = 'batches.meta.txt'
SUMS_FILE = 'SHA256SUMS'

RECORD_FILES = TRAIN_FILES + TEST_FILES

# For connecting, and for each wait for data.
TIMEOUT_SECONDS = 30.0

# A server that sends less than this, over this time, would never come to an end.
MIN_BYTES_PER_SECOND = 1024
RATE_WINDOW_SECONDS = 30.0

# All that a server may send, redirects included, before the archive begins.
MAX_REPLY_HEADER_BYTES = 1 << 20

# A file of the published set has 30,730,000 bytes. Ten times that leaves room for
# a larger set in the same format, and still keeps an archive from filling the disk.
MAX_MEMBER_BYTES = 10 * 30_730_000

# For an archive as it is downloaded, and for all that it unpacks to: six such files.
MAX_ARCHIVE_BYTES = 2_000_000_000

# One header of names or attributes in a tar archive, and all headers together.
MAX_TAR_HEADER_BYTES = 8 << 10
MAX_TAR_HEADERS_BYTES = 256 << 10

# xz -9 takes 65 MiB; a file may ask for 4 GiB.
MAX_XZ_MEMORY_BYTES = 256 << 20

# Of a synthetic set: 3 GB, which take two minutes to draw.
MAX_IMAGES = 1_000_000

# For class names, digests and the synthetic set's marker, which have a few hundred bytes.
MAX_TEXT_BYTES = 1 << 20

_CHUNK_BYTES = 1 << 20

_FETCH_ANEW = 'move the archive away to have it downloaded anew'

# What tarfile and the decompressors raise on damaged input; tarfile leaves it to
# int() and the like to stumble over a header.
_DAMAGE = (
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    ValueError,
    ArithmeticError,
    LookupError,
    RecursionError,
)


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """What to put where."""

    data_dir: str = setting('cifar10_data', 'Directory that holds, or gets, the data set.')
    dataset: str = setting(
        'cifar10',
        'cifar10, synthetic (drawn shapes, no network), or auto: CIFAR-10 where it can be had, '
        'else synthetic.',
        choices=DATASETS,
    )
    data_url: str = setting(DATA_URL, 'http, https or file URL of the CIFAR-10 archive.')
    num_train: int = setting(
        50000, 'Synthetic training images, a multiple of 5.', at_least=5, at_most=MAX_IMAGES
    )
    num_test: int = setting(10000, 'Synthetic test images.', at_least=1, at_most=MAX_IMAGES)
    seed: int = setting(0, 'Seed of the synthetic set.', at_least=0, at_most=LARGEST_SEED)


class Prepared(NamedTuple):
    """A directory that directly holds sound record files.

    Attributes:
      directory: holds data_batch_1.bin to data_batch_5.bin and test_batch.bin.
      dataset: 'cifar10' or 'synthetic'.
    """

    directory: str
    dataset: str


class Fingerprint(NamedTuple):
    """Size in bytes and digests, in hexadecimal, of one published file."""

    size: int
    md5: str
    sha256: str


# The MD5 is the one that https://www.cs.toronto.edu/~kriz/cifar.html publishes.
# Size and SHA-256 are those of the file with that MD5.
CIFAR10_FINGERPRINT = Fingerprint(
    size=170_052_171,
    md5='c32a1d4ab5d03f1284b67883e8d87530',
    sha256='c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd',
)


class SyntheticSet(NamedTuple):
    """What makes up a synthetic set; its marker file holds these as JSON.

    Attributes:
      num_train: training images in all five files; a multiple of 5, at least 5.
      num_test: test images, at least 1.
      seed: at least 0.
      version: of the generator; goes up whenever the same seed gives other pictures.
    """

    num_train: int = 50000
    num_test: int = 10000
    seed: int = 0
    version: int = 1

    def in_words(self) -> str:
        return ' '.join(f'{name}={value}' for name, value in self._asdict().items())


class UnreachableError(UserError):
    """A URL does not give the archive that it should give."""


# ------------------------------------------------------------------------------
# Preparing a data directory.


def prepare(
    data_dir: str,
    dataset: str = 'cifar10',
    data_url: str = DATA_URL,
    synthetic: SyntheticSet | None = None,
) -> Prepared:
    """Makes sure that a data set is there and sound.

    Files that are there are used as they are: they are checked, and never
    replaced or deleted. Processes that prepare the same directory at the same
    time wait for each other.

    Args:
      data_dir: the data directory; made where it is missing.
      dataset: 'cifar10'; 'synthetic'; or 'auto', CIFAR-10 where it is there or can
        be downloaded, else the synthetic set, which is then announced.
      data_url: http, https or file URL of the CIFAR-10 archive. What DATA_URL gives
        must be the published archive, bit by bit. For another URL the user vouches:
        its archive must unpack into six sound record files, and that it is not the
        published one is only printed. An archive that lies in data_dir already under
        the URL's file name is taken in place of a download, by the same rule.
      synthetic: what a synthetic set must hold; None takes the one that is there,
        and generates the default where there is none.

    Returns:
      The directory that directly holds the six record files, and what they are.

    Raises:
      UserError: the files are damaged, are not of that data set, or cannot be had.
    """
    if dataset not in DATASETS:
        raise UserError(f'--dataset must be one of {", ".join(DATASETS)}, found {dataset!r}')
    prepared = _find(data_dir, dataset)
    if prepared is None:
        with _os_errors_named(data_dir):
            os.makedirs(data_dir, exist_ok=True)
        with _alone_in(data_dir):
            # Another process may have put the files there in the meantime.
            prepared = _find(data_dir, dataset) or _obtain(data_dir, dataset, data_url, synthetic)
    if prepared.dataset == 'synthetic':
        _check_synthetic(prepared.directory, synthetic)
        if dataset == 'auto':
            print(f'Using synthetic pictures instead of CIFAR-10, from {prepared.directory}')
    else:
        check_directory(prepared.directory)
    return prepared


def refuse_unused_url(dataset: str, data_url: str) -> None:
    """Raises UserError where a URL was asked for, and nothing will be downloaded."""
    if dataset == 'synthetic' and data_url != DATA_URL:
        raise UserError(
            f'--data_url={data_url}: --dataset=synthetic is drawn, not downloaded; give one of '
            'the two'
        )


def _find(data_dir: str, dataset: str) -> Prepared | None:
    """The data set that `data_dir` holds already, not yet checked."""
    directories = [os.path.join(data_dir, CIFAR10_DIRECTORY), data_dir]
    if dataset == 'synthetic':
        directories.append(os.path.join(data_dir, SYNTHETIC_DIRECTORY))
    for directory in directories:
        is_synthetic = os.path.lexists(os.path.join(directory, SYNTHETIC_MARKER))
        if is_synthetic and dataset == 'cifar10':
            raise UserError(
                f'{directory} holds the synthetic set, as its {SYNTHETIC_MARKER} says: expected '
                'CIFAR-10; choose --dataset=synthetic or another --data_dir'
            )
        found = Prepared(directory, 'synthetic' if is_synthetic else 'cifar10')
        if _holds_files(directory) and dataset in ('auto', found.dataset):
            return found
    return None


def _holds_files(directory: str) -> bool:
    names = (*RECORD_FILES, SYNTHETIC_MARKER)
    return any(os.path.lexists(os.path.join(directory, name)) for name in names)


def _obtain(data_dir: str, dataset: str, data_url: str, synthetic: SyntheticSet | None) -> Prepared:
    """Downloads or generates what `_find` did not find."""
    if dataset != 'synthetic':
        try:
            return Prepared(_fetch_cifar10(data_dir, data_url), 'cifar10')
        except UnreachableError as error:
            if dataset == 'cifar10':
                raise UserError(
                    f'CIFAR-10 could not be had: {error}. Ways out: put the files '
                    f'{RECORD_FILES[0]} to {RECORD_FILES[-1]} into {data_dir}; or give '
                    '--data_url the http, https or file URL of a copy of the archive; or '
                    'choose --dataset=synthetic'
                ) from error
            print(f'CIFAR-10 could not be had: {error}')
    found = _find(data_dir, 'synthetic')
    if found is None:
        found = Prepared(os.path.join(data_dir, SYNTHETIC_DIRECTORY), 'synthetic')
        wanted = synthetic or SyntheticSet()
        print(f'Generating {wanted.num_train + wanted.num_test:,} images in {found.directory}')
        generate_synthetic(found.directory, wanted.num_train, wanted.num_test, wanted.seed)
    return found


def _fetch_cifar10(data_dir: str, data_url: str) -> str:
    """Downloads the archive, where it is not there yet, and unpacks it."""
    archive = os.path.join(data_dir, _file_name(data_url))
    is_published = data_url == DATA_URL
    if not os.path.lexists(archive):
        print(f'Downloading {data_url} to {archive}')
        download(data_url, archive, CIFAR10_FINGERPRINT if is_published else None)
    with _os_errors_named(archive):
        mismatch = _mismatch(archive, CIFAR10_FINGERPRINT)
    if mismatch and is_published:
        raise UserError(f'{archive}: not the published archive: {mismatch}; {_FETCH_ANEW}')
    if mismatch:
        print(f'Not the published archive, but used because --data_url names it: {mismatch}')
    print(f'Unpacking {archive}')
    return unpack(archive, data_dir)


@contextlib.contextmanager
def _alone_in(directory: str) -> Iterator[None]:
    """Waits until no other process is preparing `directory`, and keeps others waiting.

    Training and evaluation are often started together, and must not write one file.
    """
    if fcntl is None:
        yield
        return
    with _os_errors_named(directory):
        descriptor = os.open(directory, os.O_RDONLY)
    try:
        # Some network file systems know no locks; there, nobody waits.
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f'Waiting for another process that is preparing {directory}')
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _os_errors_named(path: str) -> Iterator[None]:
    """Turns an OSError into a UserError that names its file, or else `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(f'{error.filename or path}: {error.strerror or error}') from error


def _regular_size(path: str, expected: str) -> int:
    """Bytes in a regular file. To open a pipe or a device could take for ever.

    Raises:
      UserError: there is no regular file; `expected` says what should be there.
    """
    with _os_errors_named(path):
        try:
            status = os.stat(path)
        except FileNotFoundError:
            found = 'a link to nowhere' if os.path.islink(path) else 'missing'
            raise UserError(f'{path}: {found}; {expected}') from None
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f'{path}: not a regular file; {expected}')
    return status.st_size


def _read_text(path: str, expected: str) -> str:
    """A small text file; what is not UTF-8 becomes U+FFFD."""
    size = _regular_size(path, expected)
    if size > MAX_TEXT_BYTES:
        raise UserError(f'{path}: has {size:,} bytes; {expected}')
    with _os_errors_named(path), open(path, encoding='utf-8', errors='replace') as file:
        return file.read(MAX_TEXT_BYTES)


@contextlib.contextmanager
def _filled_directory(directory: str) -> Iterator[str]:
    """A temporary directory that becomes `directory`, by one rename, when it is filled.

    So `directory` is whole or not there. On failure the temporary directory is
    removed; one that a killed process left is removed the next time.
    """
    parent, name = os.path.split(os.path.abspath(directory))
    temporary = os.path.join(parent, f'.{name}.unfinished')
    with _os_errors_named(directory):
        if os.path.lexists(temporary):
            shutil.rmtree(temporary)
        if os.path.lexists(directory) and (not os.path.isdir(directory) or os.listdir(directory)):
            raise UserError(f'{directory}: is in the way, and is not overwritten: move it away')
        os.makedirs(temporary)
        try:
            yield temporary
            os.rename(temporary, directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


# ------------------------------------------------------------------------------
# Checking.

# Read together: few enough to stay in the cache.
_RECORDS_AT_ONCE = 340

# The files that SHA256SUMS lists.
_SUMMED_FILES = (*RECORD_FILES, CLASS_NAMES_FILE)

# What is mistaken for CIFAR-10 in its binary version: other files by their first
# bytes, other data sets by the length of their records.
_FIRST_BYTES = {
    b'\x80': 'a Python pickle: the binary version of CIFAR-10 is another download',
    b'\x1f\x8b': 'a gzip archive, not yet unpacked',
    b'<': 'a web page',
}
_RECORD_BYTES = {CIFAR10_RECORD.record_bytes: 'CIFAR-10', 3074: 'CIFAR-100'}


def check_directory(
    directory: str, record: RecordFormat = CIFAR10_RECORD, num_classes: int = NUM_CLASSES
) -> tuple[int, int]:
    """Checks each record file: there, not empty, whole records, labels in range.

    Where there is a SHA256SUMS, it must list the six files, and their digests must
    be those that it lists, as must that of batches.meta.txt if it is listed.

    Args:
      directory: directly holds the five training files and the test file.
      record: the records' format.
      num_classes: labels must be 0 to num_classes - 1.

    Returns:
      The number of training images and of test images.

    Raises:
      UserError: names the file, record and byte, what was found and what was expected.
    """
    counts = _check_records(directory, record, num_classes)
    _check_sums(directory)
    return counts


def _check_records(directory: str, record: RecordFormat, num_classes: int) -> tuple[int, int]:
    """`check_directory` without the digests, which say less about what is wrong."""
    num_train, num_test = (
        sum(_check_file(os.path.join(directory, name), record, num_classes) for name in names)
        for names in (TRAIN_FILES, TEST_FILES)
    )
    return num_train, num_test


def _check_file(path: str, record: RecordFormat, num_classes: int) -> int:
    """Checks one record file, and returns its number of records."""
    expected = f'expected a file of records of {record.record_bytes:,} bytes'
    size = _regular_size(path, expected)
    if not size:
        raise UserError(f'{path}: empty; {expected}')
    num_records, rest = divmod(size, record.record_bytes)
    if rest:
        raise UserError(
            f'{path}: record {num_records}, from byte {size - rest:,} on, has {rest:,} bytes; '
            f'expected {record.record_bytes:,}, and the file a whole number of records'
            f'{_likeness(path, size, record)}'
        )
    labels = _read_labels(path, record)
    wrong = np.flatnonzero(labels >= num_classes)
    if wrong.size:
        byte = wrong[0] * record.record_bytes + record.label_index % record.label_bytes
        raise UserError(
            f'{path}: record {wrong[0]}, byte {byte:,}: label {labels[wrong[0]]}; '
            f'expected 0 to {num_classes - 1}{_likeness(path, size, record)}'
        )
    if len(labels) != num_records:
        raise UserError(f'{path}: changed while it was read; run again when it is complete')
    return num_records


def _read_labels(path: str, record: RecordFormat) -> np.ndarray:
    """Labels of the whole records in a file: uint8 [records]."""
    labels = [np.empty(0, np.uint8)]
    # Not mapped into memory, where a fault of the disk would end the process.
    with _os_errors_named(path), open(path, 'rb') as file:
        while chunk := file.read(_RECORDS_AT_ONCE * record.record_bytes):
            whole = len(chunk) // record.record_bytes
            data = np.frombuffer(chunk, np.uint8, whole * record.record_bytes)
            data = data.reshape(whole, record.record_bytes)
            labels.append(data[:, : record.label_bytes][:, record.label_index].copy())
    return np.concatenate(labels)


def _likeness(path: str, size: int, record: RecordFormat) -> str:
    """What a file without sound records of `record` looks like, as the end of a message."""
    with _os_errors_named(path), open(path, 'rb') as file:
        first_bytes = file.read(max(map(len, _FIRST_BYTES)))
    for start, kind in _FIRST_BYTES.items():
        if first_bytes.startswith(start):
            return f'; it looks like {kind}'
    for record_bytes, kind in _RECORD_BYTES.items():
        if size % record_bytes == 0 and record_bytes != record.record_bytes:
            return f'; it looks like {kind}, whose records have {record_bytes:,} bytes'
    return ''


def _check_sums(directory: str) -> None:
    """Compares the files with SHA256SUMS, where there is one."""
    path = os.path.join(directory, SUMS_FILE)
    if not os.path.lexists(path):
        return
    for name, expected in _read_sums(path).items():
        file = os.path.join(directory, name)
        found = sha256_of(file)
        if found != expected:
            raise UserError(
                f'{file}: found SHA-256 {found}; expected {expected}, by {SUMS_FILE} beside it: '
                f'the file has changed since; move {directory} away to have the data set made '
                f'anew, or remove {SUMS_FILE} if the file is meant to differ'
            )


def _read_sums(path: str) -> dict[str, str]:
    """Digests that SHA256SUMS lists for the record files and batches.meta.txt, by name."""
    remedy = f'expected lines as sha256sum writes them; to do without, remove {SUMS_FILE}'
    sums: dict[str, str] = {}
    for number, line in enumerate(_read_text(path, remedy).splitlines(), 1):
        match = re.fullmatch(r'([0-9a-fA-F]{64}) [ *](.+)', line)
        if match is None or match[2] in sums:
            fault = 'no digest and name' if match is None else f'{match[2]!r} a second time'
            raise UserError(f'{path}: line {number}: found {fault}; {remedy}')
        sums[match[2]] = match[1].lower()
    for name in RECORD_FILES:
        if name not in sums:
            raise UserError(f'{path}: does not list {name}; {remedy}')
    return {name: sums[name] for name in _SUMMED_FILES if name in sums}


def _write_sums(directory: str) -> None:
    """Writes SHA256SUMS, in the format of coreutils, for the files that are there."""
    names = [name for name in _SUMMED_FILES if os.path.exists(os.path.join(directory, name))]
    sums = [f'{sha256_of(os.path.join(directory, name))}  {name}\n' for name in names]
    with open(os.path.join(directory, SUMS_FILE), 'w', encoding='utf-8', newline='\n') as file:
        file.writelines(sums)


def sha256_of(path: str) -> str:
    """SHA-256 of a regular file, 64 hexadecimal digits.

    Raises:
      UserError: names the file that is missing, not regular or cannot be read.
    """
    _regular_size(path, 'expected a file')
    with _os_errors_named(path):
        return cifar10_files.sha256_of(path)


def _check_synthetic(directory: str, wanted: SyntheticSet | None) -> None:
    """Checks a synthetic set against its marker, and its marker against `wanted`."""
    held = _read_marker(os.path.join(directory, SYNTHETIC_MARKER))
    num_train, num_test = _check_records(directory, CIFAR10_RECORD, NUM_CLASSES)
    if (num_train, num_test) != (held.num_train, held.num_test):
        raise UserError(
            f'{directory}: found {num_train:,} training and {num_test:,} test images; '
            f'{SYNTHETIC_MARKER} says {held.num_train:,} and {held.num_test:,}'
        )
    _check_sums(directory)
    if wanted is not None and wanted != held:
        raise UserError(
            f'{directory}: holds a set of {held.in_words()}; asked for {wanted.in_words()}; choose '
            'another --data_dir, or move that directory away'
        )


def _read_marker(path: str) -> SyntheticSet:
    expected = 'expected the marker of a synthetic set'
    try:
        held = SyntheticSet(**json.loads(_read_text(path, expected)))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f'{path}: not the marker of a synthetic set: {error}') from error
    if not all(type(value) is int for value in held):
        raise UserError(f'{path}: not the marker of a synthetic set: {held.in_words()}')
    return held


def class_names(directory: str) -> list[str]:
    """Names of the ten classes, in the order of their labels.

    Args:
      directory: may hold batches.meta.txt, one name a line.

    Returns:
      Ten names; the labels '0' to '9' where there is no batches.meta.txt.

    Raises:
      UserError: batches.meta.txt does not hold ten names that can be printed.
    """
    path = os.path.join(directory, CLASS_NAMES_FILE)
    if not os.path.lexists(path):
        return [str(label) for label in range(NUM_CLASSES)]
    text = _read_text(path, f'expected {NUM_CLASSES} class names')
    names = [line.strip() for line in text.split('\n') if line.strip()]
    if len(names) != NUM_CLASSES:
        raise UserError(f'{path}: found {len(names)} class names; expected {NUM_CLASSES}')
    for name in names:
        if not name.isprintable():
            raise UserError(f'{path}: found the class name {name!r}; expected printable text')
    return names


# ------------------------------------------------------------------------------
# Downloading.


def download(
    url: str,
    path: str,
    fingerprint: Fingerprint | None = None,
    timeout: float = TIMEOUT_SECONDS,
    rate_window: float = RATE_WINDOW_SECONDS,
) -> None:
    """Downloads `url` to `path`, going on where an earlier attempt broke off.

    Bytes go to `path`.part, which is renamed when it is whole, so `path` is whole
    or not there. A progress bar goes to stderr where that is a terminal.

    If the file behind the URL has changed since the earlier attempt, the two parts
    don't fit; the fingerprint shows that, or the checksum inside the archive.

    Args:
      url: http, https or file URL.
      path: file to write.
      fingerprint: what the file must be; None checks its length alone, against
        what the server says.
      timeout: seconds to wait for the connection, and each time for data.
      rate_window: seconds over which MIN_BYTES_PER_SECOND must come.

    Raises:
      UserError: the URL is of another scheme, or `path` cannot be written.
      UnreachableError: the URL cannot be had, gives another file than `fingerprint` or
        more than MAX_ARCHIVE_BYTES, or gives it too slowly.
    """
    _check_scheme(url)
    part = path + '.part'
    start = _regular_size(part, 'expected what was downloaded') if os.path.lexists(part) else 0
    body, start, total = _open(url, start, timeout, rate_window)
    with body:
        _check_length(url, total, fingerprint)
        if fingerprint:
            total = fingerprint.size
        try:
            with open(part, 'ab' if start else 'wb') as file:
                _receive(body, file, url, start, total)
        except OSError as error:
            raise UserError(
                f'{part}: {error.strerror or error}; once that is put right, the next run goes '
                'on from what is there'
            ) from error
    with _os_errors_named(part):
        mismatch = ''
        if fingerprint:
            mismatch = _mismatch(part, fingerprint)
        elif os.path.getsize(part) > MAX_ARCHIVE_BYTES:
            mismatch = f'sent more than {MAX_ARCHIVE_BYTES:,} bytes, the most for an archive'
        if mismatch:
            os.remove(part)
            raise UnreachableError(
                f'{url}: {mismatch}; what was downloaded has been deleted, so that the next '
                'run starts afresh'
            )
        os.replace(part, path)


def _check_length(url: str, length: int | None, fingerprint: Fingerprint | None) -> None:
    """Raises UnreachableError where the length that a server announces can't be right."""
    if length is None:
        return
    if fingerprint and length != fingerprint.size:
        raise UnreachableError(f'{url}: has {length:,} bytes; expected {fingerprint.size:,}')
    if length > MAX_ARCHIVE_BYTES:
        raise UnreachableError(
            f'{url}: has {length:,} bytes; expected at most {MAX_ARCHIVE_BYTES:,}'
        )


def _check_scheme(url: str) -> None:
    scheme = url.partition(':')[0].lower()
    if scheme not in ('http', 'https', 'file'):
        raise UserError(
            f'{url!r}: expected a URL that starts with http://, https:// or file:// '
            f'(a local file is file://{os.path.abspath(os.sep)}path/to/file)'
        )


def _file_name(url: str) -> str:
    """The last part of the URL's path: the name that the archive gets."""
    _check_scheme(url)
    try:
        name = posixpath.basename(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
    except ValueError as error:
        raise UserError(f'{url!r}: not a URL: {error}') from error
    if name in ('', '.', '..') or '\0' in name:
        raise UserError(f'{url!r}: expected a URL that ends in the name of an archive')
    return name


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https, and from https to https alone.

    urllib itself refuses file:// and follows ftp://.
    """

    inf_msg = 'redirects that lead in a circle, the last one: '

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        allowed = ('https:',) if req.type == 'https' else ('http:', 'https:')
        if not newurl.lower().startswith(allowed):
            raise UnreachableError(f'{req.full_url}: redirect to {newurl} refused')
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Paced(io.RawIOBase):
    """The bytes of one reply, as long as they come fast enough and are not too many."""

    def __init__(self, socket: io.RawIOBase, handler: _PacedHandler) -> None:
        self._socket, self._handler = socket, handler
        self._since: float | None = None
        self._received = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        received = self._socket.readinto(buffer) or 0
        self._handler.spend(received)
        # The wait for the first byte is the server's to use, within the timeout.
        now = time.monotonic()
        self._since = self._since or now
        self._received += received
        seconds = now - self._since
        if received and seconds >= self._handler.window:
            if self._received < MIN_BYTES_PER_SECOND * seconds:
                raise OSError(f'only {self._received:,} bytes came in {seconds:.1f} seconds')
            self._since, self._received = now, 0
        return received

    def close(self) -> None:
        self._socket.close()
        super().close()


class _PacedResponse(http.client.HTTPResponse):
    """A reply whose status, headers, body and trailers are all `_Paced`.

    A limit on the body alone would not do: a server can also drip its headers, and
    send trailers or replies of '100 Continue' without end.
    """

    def __init__(self, handler: _PacedHandler, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Paced(cast(io.BufferedReader, self.fp).detach(), handler))


class _PacedHandler(urllib.request.HTTPHandler):
    """Opens http and https URLs, and limits what the servers may send.

    Attributes:
      window: seconds over which MIN_BYTES_PER_SECOND must come.
      allowance: bytes that may still come, from all servers on the way.
    """

    # Before urllib's own handler of https.
    handler_order = urllib.request.HTTPHandler.handler_order - 1

    def __init__(self, window: float) -> None:
        super().__init__()
        self.window = window
        self.allowance = MAX_REPLY_HEADER_BYTES

    def spend(self, received: int) -> None:
        self.allowance -= received
        if self.allowance < 0:
            raise OSError('the server sends far more than it should')

    def _open_paced(self, connection_class: Any, request: Any) -> Any:
        def connect(*args: Any, **kwargs: Any) -> http.client.HTTPConnection:
            connection = connection_class(*args, **kwargs)
            connection.response_class = functools.partial(_PacedResponse, self)
            return connection

        return self.do_open(connect, request)

    def http_open(self, req: Any) -> Any:
        return self._open_paced(http.client.HTTPConnection, req)

    def https_open(self, req: Any) -> Any:
        return self._open_paced(http.client.HTTPSConnection, req)

    https_request = urllib.request.HTTPHandler.http_request


def _open(url: str, start: int, timeout: float, window: float) -> tuple[Any, int, int | None]:
    """Asks for `url` from byte `start` on.

    Returns:
      The body, the byte of the file that it really starts from (0 where the
      server sends all of it), and the length of the whole file in bytes, None where
      the server does not say.
    """
    request_headers = {'Range': f'bytes={start}-'} if start else {}
    handler = _PacedHandler(window)
    opener = urllib.request.build_opener(_SafeRedirects, handler)
    try:
        request = urllib.request.Request(url, headers=request_headers)
        _check_local(url, request)
        body = opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if start and error.code == 416:
            # No byte is left to send: the part is whole, or longer than the file.
            if error.headers.get('Content-Range') == f'bytes */{start}':
                return io.BytesIO(), start, start
            return _open(url, 0, timeout, window)
        raise UnreachableError(f'{url}: HTTP {error.code} {_reason(error)}') from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnreachableError(f'{url}: {_reason(error)}') from error
    # Twice, for the lengths and line ends between the chunks of a chunked body.
    handler.allowance = 2 * MAX_ARCHIVE_BYTES
    if body.status != 206:
        length = body.headers.get('Content-Length') or ''
        return body, 0, int(length) if re.fullmatch('[0-9]{1,18}', length) else None
    content_range = body.headers.get('Content-Range') or ''
    total = _length_of_whole(content_range, start)
    if total is not None:
        return body, start, total
    body.close()
    if not start:
        raise UnreachableError(f'{url}: sent {content_range!r}, and was asked for the whole file')
    return _open(url, 0, timeout, window)


def _check_local(url: str, request: Any) -> None:
    """Raises UnreachableError for a file URL of anything but a regular file."""
    if request.type != 'file':
        return
    try:
        _regular_size(urllib.request.url2pathname(request.selector), 'expected an archive')
    except UserError as error:
        raise UnreachableError(f'{url}: {error}') from error


def _length_of_whole(content_range: str, start: int) -> int | None:
    """Length of the whole file; None where the range isn't all that follows `start`."""
    match = re.fullmatch('bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})', content_range)
    if match is None:
        return None
    first, last, total = map(int, match.groups())
    return total if first == start and last + 1 == total else None


def _reason(error: Exception) -> str:
    """What went wrong, on one line; much of it may be the server's own words."""
    cause = getattr(error, 'reason', error)
    if isinstance(cause, TimeoutError):
        return 'timed out'
    if isinstance(cause, http.client.IncompleteRead):
        return 'the connection dropped'
    words = ' '.join(str(cause).split()) or type(error).__name__
    return ''.join(letter if letter.isprintable() else '?' for letter in words[:200])


def _receive(body: Any, file: BinaryIO, url: str, start: int, total: int | None) -> None:
    """Appends the body to `file`, which holds `start` bytes, until it holds `total`.

    Without a `total`, the end is where the body ends, or the first byte that is too many.
    """
    received = start
    end = MAX_ARCHIVE_BYTES + 1 if total is None else total

    def dropped(reason: str) -> UnreachableError:
        of_total = '' if total is None else f' of {total:,}'
        return UnreachableError(
            f'{url}: {reason} after {received:,}{of_total} bytes; {file.name} is kept, and the '
            'next run goes on from there'
        )

    name = posixpath.basename(url)
    with tqdm(
        total=total, initial=start, desc=name, unit='B', unit_scale=True, disable=None
    ) as bar:
        while received < end:
            try:
                # read1 hands over what has come, so that a drop loses none of it.
                chunk = body.read1(min(_CHUNK_BYTES, end - received))
            except (OSError, http.client.HTTPException) as error:
                raise dropped(_reason(error)) from error
            if not chunk:
                break
            file.write(chunk)
            received += len(chunk)
            bar.update(len(chunk))
    if total is not None and received < total:
        raise dropped('the connection dropped')


def _mismatch(path: str, fingerprint: Fingerprint) -> str:
    """In which way the file is not the one that `fingerprint` tells; '' where it is."""
    size = _regular_size(path, 'expected an archive')
    if size != fingerprint.size:
        return f'found {size:,} bytes; expected {fingerprint.size:,}'
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(_CHUNK_BYTES):
            md5.update(chunk)
            sha256.update(chunk)
    if md5.hexdigest() != fingerprint.md5:
        return f'found MD5 {md5.hexdigest()}; expected {fingerprint.md5}'
    if sha256.hexdigest() != fingerprint.sha256:
        return f'found SHA-256 {sha256.hexdigest()}; expected {fingerprint.sha256}'
    return ''


# ------------------------------------------------------------------------------
# Unpacking.


def unpack(archive_path: str, data_dir: str) -> str:
    """Unpacks the record files of an archive into data_dir/cifar-10-batches-bin.

    Only the six record files, batches.meta.txt and readme.html are taken from the
    archive's cifar-10-batches-bin/, other files are passed over. They are checked
    before the directory is put in place, by one rename.

    Args:
      archive_path: a tar archive: gzip, bzip2, xz or plain.
      data_dir: the data directory.

    Returns:
      data_dir/cifar-10-batches-bin.

    Raises:
      UserError: the archive is damaged, lacks a record file, holds one twice, holds a
        damaged one or one larger than MAX_MEMBER_BYTES; or holds a link, a device, a
        sparse file, an absolute name or '..', or more than MAX_ARCHIVE_BYTES in all;
        or the directory cannot be written.
    """
    directory = os.path.join(data_dir, CIFAR10_DIRECTORY)
    with _filled_directory(directory) as temporary:
        _extract(archive_path, temporary)
        try:
            check_directory(temporary)
        except UserError as error:
            # The temporary directory is about to go: name the archive's member instead.
            reason = str(error).replace(temporary, CIFAR10_DIRECTORY)
            raise UserError(f'{archive_path}: {reason}; {_FETCH_ANEW}') from error
        _write_sums(temporary)
    return directory


def _extract(archive_path: str, directory: str) -> None:
    """Extracts the expected members into `directory`, and reads the archive to its end."""
    names = (*RECORD_FILES, CLASS_NAMES_FILE, 'readme.html')
    wanted = {posixpath.join(CIFAR10_DIRECTORY, name): name for name in names}
    size = _regular_size(archive_path, 'expected a tar archive')
    if size > MAX_ARCHIVE_BYTES:
        raise _refused(archive_path, f'it has {size:,} bytes, more than {MAX_ARCHIVE_BYTES:,}')
    try:
        with _os_errors_named(archive_path), open(archive_path, 'rb') as file:
            stream = _TarStream(archive_path, _decompressed(file))
            with tarfile.open(fileobj=cast(Any, stream), mode='r:') as archive:
                for member in archive:
                    _refuse_danger(archive_path, member)
                    name = wanted.get(posixpath.normpath(member.name))
                    if name and member.isreg():
                        _copy_member(stream, member, os.path.join(directory, name))
            # The checksum comes last, and is compared when the end is read.
            stream.skip(MAX_ARCHIVE_BYTES)
    except _DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(':')
        raise UserError(
            f'{archive_path}: not a whole tar archive: {reason}; {_FETCH_ANEW}'
        ) from error


def _refuse_danger(archive_path: str, member: tarfile.TarInfo) -> None:
    """Raises UserError for a member that no archive of record files needs."""
    parts = member.name.replace('\\', '/').split('/')
    if not (member.isreg() or member.isdir()) or member.issparse():
        danger = 'is not a plain file or directory'
    elif '..' in parts or not parts[0] or os.path.isabs(member.name):
        danger = 'leads out of the directory'
    elif not 0 <= member.size <= MAX_MEMBER_BYTES:
        danger = f'has {member.size:,} bytes, more than {MAX_MEMBER_BYTES:,} or less than none'
    else:
        return
    raise _refused(archive_path, f'its member {member.name[:100]!r} {danger}')


def _refused(archive_path: str, reason: str) -> UserError:
    return UserError(f'{archive_path}: refused, because {reason}')


def _copy_member(stream: _TarStream, member: tarfile.TarInfo, path: str) -> None:
    """Writes a new file `path` with the content of `member`, which is next in `stream`.

    Unlike TarFile.extract, this takes neither rights nor times from the archive.
    """
    if os.path.lexists(path):
        raise _refused(stream.archive_path, f'it holds {member.name!r} twice')
    with _os_errors_named(path), open(path, 'wb') as file:
        for chunk in stream.chunks(member.size):
            file.write(chunk)
        if file.tell() != member.size:
            raise EOFError(f'{member.name!r} breaks off')


class _TarStream:
    """What tarfile reads an archive from: forward only, and within bounds.

    tarfile believes its headers. It reads a header of names or attributes at once,
    however long it says it is, goes back where a size is negative, and keeps every
    member in memory. What it reads itself are headers, and limited as such; the
    members' content is read by `chunks`.
    """

    def __init__(self, archive_path: str, stream: BinaryIO) -> None:
        self.archive_path = archive_path
        self._stream = stream
        self._position = 0
        self._header_bytes = 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        if position < self._position:
            raise tarfile.ReadError('a member begins within the one before')
        self.skip(position - self._position)

    def read(self, size: int) -> bytes:
        self._header_bytes += size
        if not 0 <= size <= MAX_TAR_HEADER_BYTES or self._header_bytes > MAX_TAR_HEADERS_BYTES:
            raise _refused(self.archive_path, 'it has headers too long or too many')
        return b''.join(self.chunks(size))

    def skip(self, size: int) -> None:
        for _ in self.chunks(size):
            pass

    def chunks(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes; fewer where the stream ends.

        Raises:
          UserError: the archive cannot be read, or unpacks to too much.
          One of _DAMAGE: the archive is damaged.
        """
        end = self._position + size
        while self._position < end:
            try:
                chunk = self._stream.read(min(_CHUNK_BYTES, end - self._position))
            except OSError as error:
                # Decompressors raise one without a number; one with a number is the disk's.
                if error.errno is None:
                    raise tarfile.ReadError(str(error)) from error
                raise UserError(f'{self.archive_path}: {error.strerror}') from error
            if not chunk:
                return
            self._position += len(chunk)
            if self._position > MAX_ARCHIVE_BYTES:
                reason = f'it unpacks to more than {MAX_ARCHIVE_BYTES:,} bytes'
                raise _refused(self.archive_path, reason)
            yield chunk


def _decompressed(file: BinaryIO) -> BinaryIO:
    """What `file` holds, by its first bytes: gzip, bzip2, xz, or as it is."""
    start = file.read(6)
    file.seek(0)
    if start.startswith(b'\x1f\x8b'):
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if start.startswith(b'BZh'):
        return cast(BinaryIO, bz2.BZ2File(file))
    if start == b'\xfd7zXZ\0':
        return io.BufferedReader(_XzStream(file))
    return file


class _XzStream(io.RawIOBase):
    """Reads an xz stream as lzma.open does, which can't limit the memory that it takes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_XZ_MEMORY_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._decoder.eof:
            compressed = b''
            if self._decoder.needs_input:
                compressed = self._file.read(_CHUNK_BYTES)
                if not compressed:
                    raise EOFError('the xz stream breaks off')
            data = self._decoder.decompress(compressed, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
        return 0


# ------------------------------------------------------------------------------
# Generating.

# Images drawn together: few enough for their arrays to stay in the cache.
_IMAGES_AT_ONCE = 250


def generate_synthetic(
    directory: str, num_train: int = 50000, num_test: int = 10000, seed: int = 0
) -> None:
    """Writes a synthetic data set in CIFAR-10's files and format.

    The classes are equally frequent, to within one image, in training and test
    images. One seed gives the same bytes on each run; another machine or version
    of NumPy may round a pixel value to its neighbour.

    Args:
      directory: made and filled: five training files, one test file,
        batches.meta.txt, SHA256SUMS and synthetic.json. It must be missing or empty.
      num_train: training images in all; a multiple of 5, at least 5.
      num_test: test images, at least 1. They come from other random streams.
      seed: at least 0.

    Raises:
      UserError: a number is out of range, or the directory cannot be written.
    """
    if num_train < 5 or num_train % 5:
        raise UserError(f'--num_train must be a multiple of 5, at least 5, found {num_train}')
    if num_test < 1 or seed < 0:
        raise UserError(
            f'--num_test must be at least 1 and --seed at least 0, found {num_test} and {seed}'
        )
    sizes = [num_train // 5] * 5 + [num_test]
    with (
        _filled_directory(directory) as temporary,
        tqdm(total=sum(sizes), desc='drawing', unit='images', disable=None) as bar,
    ):
        for stream, (name, size) in enumerate(zip(RECORD_FILES, sizes, strict=True)):
            first = 0 if name in TEST_FILES else stream * size
            rng = np.random.default_rng([seed, stream])
            labels = rng.permutation((first + np.arange(size)) % NUM_CLASSES).astype(np.uint8)
            with open(os.path.join(temporary, name), 'wb') as file:
                for begin in range(0, size, _IMAGES_AT_ONCE):
                    some = labels[begin : begin + _IMAGES_AT_ONCE]
                    pixels = cifar10_synthetic.draw(some, rng).reshape(len(some), -1)
                    file.write(np.column_stack([some, pixels]).tobytes())
                    bar.update(len(some))
        with open(os.path.join(temporary, CLASS_NAMES_FILE), 'w', encoding='utf-8') as names:
            names.writelines(f'{name}\n' for name in cifar10_synthetic.CLASS_NAMES)
        with open(os.path.join(temporary, SYNTHETIC_MARKER), 'w', encoding='utf-8') as marker:
            json.dump(SyntheticSet(num_train, num_test, seed)._asdict(), marker, indent=2)
            marker.write('\n')
        _write_sums(temporary)


def main(settings: DataSettings) -> None:
    refuse_unused_url(settings.dataset, settings.data_url)
    wanted = SyntheticSet(settings.num_train, settings.num_test, settings.seed)
    directory, dataset = prepare(settings.data_dir, settings.dataset, settings.data_url, wanted)
    num_train = count_examples(train_files(directory))
    num_test = count_examples(test_files(directory))
    names = class_names(directory)
    print(f'{dataset}: {num_train:,} training and {num_test:,} test images in {directory}')
    print(f'{len(names)} classes: {", ".join(names)}')


if __name__ == '__main__':
    run_script(main, DataSettings)
