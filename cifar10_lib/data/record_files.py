"""Record files: their lengths, labels, digests and class names.

`check_directory` checks the six files of a directory, and names file, record and byte of a
fault. Where SHA256SUMS lies beside the files, their bytes must have the digests that it lists.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence

import numpy as np

from cifar10_input import (
    CIFAR10_RECORD,
    NUM_CLASSES,
    TEST_FILES,
    TRAIN_FILES,
    RecordFormat,
    test_files,
    train_files,
)
from cifar10_lib.base import files
from cifar10_lib.base.errors import UserError, os_errors_named
from cifar10_lib.base.files import read_text, regular_size
from cifar10_lib.base.names import printable
from cifar10_lib.data.datasets import CIFAR10_DIRECTORY
from cifar10_lib.data.framing import FRAMING_FILE

RECORD_FILES = TRAIN_FILES + TEST_FILES


CLASS_NAMES_FILE = 'batches.meta.txt'

# As many as a label's byte can tell apart.
MIN_CLASSES, MAX_CLASSES = 2, 256

# By https://www.cs.toronto.edu/~kriz/cifar.html, in the order of the labels.
CIFAR10_CLASS_NAMES = (
    'airplane',
    'automobile',
    'bird',
    'cat',
    'deer',
    'dog',
    'frog',
    'horse',
    'ship',
    'truck',
)

# Of the published test images: see `content_digest`.
CIFAR10_TEST_DIGEST = '92b7113f12b349e3'

SUMS_FILE = 'SHA256SUMS'

# Read together: few enough to stay in the cache.
_RECORDS_AT_ONCE = 340

# The files that SHA256SUMS lists.
_SUMMED_FILES = (*RECORD_FILES, CLASS_NAMES_FILE, FRAMING_FILE)

# What is mistaken for CIFAR-10 in its binary version: other files by their first
# bytes, other data sets by the length of their records.
_FIRST_BYTES = {
    b'\x80': 'a Python pickle: the binary version of CIFAR-10 is another download',
    b'\x1f\x8b': 'a gzip archive, not yet unpacked',
    b'<': 'a web page',
}
_RECORD_BYTES = {CIFAR10_RECORD.record_bytes: 'CIFAR-10', 3074: 'CIFAR-100'}


def find_records(data_dir: str) -> str:
    """The folder that directly holds CIFAR-10's record files: below `data_dir`, or itself.

    Raises:
      UserError: there is none.
    """
    for directory in (os.path.join(data_dir, CIFAR10_DIRECTORY), data_dir):
        if os.path.exists(os.path.join(directory, RECORD_FILES[0])):
            return directory
    raise UserError(
        f'{data_dir}: found no {RECORD_FILES[0]}, nor {CIFAR10_DIRECTORY}{os.sep}'
        f'{RECORD_FILES[0]}; cifar10.maybe_download_and_extract() or cifar10_data.py gets CIFAR-10'
    )


def check_directory(
    directory: str, record: RecordFormat = CIFAR10_RECORD, num_classes: int = NUM_CLASSES
) -> tuple[int, int]:
    """Checks each record file: there, not empty, complete records, labels in range.

    data_batch_1.bin alone, with a test file or without, is a set too.

    Where there is a SHA256SUMS, it must list the six files, and their digests must
    be those that it lists, as must that of batches.meta.txt if it is listed.

    Args:
      directory: directly holds the training files and the test file.
      record: the records' format.
      num_classes: labels must be 0 to num_classes - 1.

    Returns:
      The number of training images and of test images.

    Raises:
      UserError: names the file, record and byte, what was found and what was expected.
    """
    counts = check_records(directory, record, num_classes)
    check_sums(directory)
    return counts


def check_records(directory: str, record: RecordFormat, num_classes: int) -> tuple[int, int]:
    """`check_directory` without the digests, which say less about what is wrong."""
    train, test = train_files(directory), test_files(directory)
    if len(train) == 1 and not holds_test_images(directory):
        test = []
    num_train, num_test = (
        sum(check_file(path, record, num_classes) for path in paths) for paths in (train, test)
    )
    return num_train, num_test


def holds_test_images(directory: str) -> bool:
    return os.path.lexists(os.path.join(directory, TEST_FILES[0]))


def check_eval_data(directory: str, eval_data: str) -> None:
    """Raises UserError where test images are asked for, and there are none."""
    if eval_data == 'test' and not holds_test_images(directory):
        raise UserError(
            f'--eval_data=test: {directory} holds no {TEST_FILES[0]}; hold training images out '
            'with --num_held_out, and choose --eval_data=held_out; or choose train_eval'
        )


def content_digest(path: str, record: RecordFormat = CIFAR10_RECORD) -> str:
    """The sum of the digests of a file's records, the same in any order; 0.1 s for 10,000.

    In 16 hexadecimal digits.
    """
    total = 0
    with os_errors_named(path), open(path, 'rb') as file:
        while content := file.read(record.record_bytes):
            total += int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), 'big')
    return f'{total % 2**64:016x}'


def check_file(path: str, record: RecordFormat, num_classes: int) -> int:
    """Checks one record file, and returns its number of records."""
    expected = f'expected a file of records of {record.record_bytes:,} bytes'
    size = regular_size(path, expected)
    if not size:
        raise UserError(f'{path}: empty; {expected}')
    num_records, rest = divmod(size, record.record_bytes)
    if rest:
        raise UserError(
            f'{path}: record {num_records}, from byte {size - rest:,} on, has {rest:,} bytes; '
            f'expected {record.record_bytes:,}, and the file a whole number of records'
            f'{_likeness(path, size, record)}'
        )
    labels = read_labels(path, record)
    wrong = np.flatnonzero(labels >= num_classes)
    if wrong.size:
        byte = wrong[0] * record.record_bytes + record.label_index % record.label_bytes
        raise UserError(
            f'{path}: record {wrong[0]}, byte {byte:,}: label {labels[wrong[0]]}; '
            f'expected 0 to {num_classes - 1}{_names_note(path)}{_likeness(path, size, record)}'
        )
    if len(labels) != num_records:
        raise UserError(f'{path}: changed while it was read; run again when it is complete')
    return num_records


def _names_note(path: str) -> str:
    """Where the number of classes comes from, for an error about a file beside the names."""
    is_named = os.path.lexists(os.path.join(os.path.dirname(path), CLASS_NAMES_FILE))
    return f', as {CLASS_NAMES_FILE} beside it names the classes' if is_named else ''


def read_labels(path: str, record: RecordFormat) -> np.ndarray:
    """Labels of the complete records in a file: uint8 [records]."""
    labels = [np.empty(0, np.uint8)]
    # Not mapped into memory, where a fault of the disk would end the process.
    with os_errors_named(path), open(path, 'rb') as file:
        while chunk := file.read(_RECORDS_AT_ONCE * record.record_bytes):
            complete = len(chunk) // record.record_bytes
            data = np.frombuffer(chunk, np.uint8, complete * record.record_bytes)
            data = data.reshape(complete, record.record_bytes)
            labels.append(data[:, : record.label_bytes][:, record.label_index].copy())
    return np.concatenate(labels)


def _likeness(path: str, size: int, record: RecordFormat) -> str:
    """What a file without sound records of `record` looks like, as the end of a message."""
    with os_errors_named(path), open(path, 'rb') as file:
        first_bytes = file.read(max(map(len, _FIRST_BYTES)))
    for start, kind in _FIRST_BYTES.items():
        if first_bytes.startswith(start):
            return f'; it looks like {kind}'
    for record_bytes, kind in _RECORD_BYTES.items():
        if size % record_bytes == 0 and record_bytes != record.record_bytes:
            return f'; it looks like {kind}, whose records have {record_bytes:,} bytes'
    return ''


def check_sums(directory: str) -> None:
    """Compares the files with SHA256SUMS, where there is one."""
    path = os.path.join(directory, SUMS_FILE)
    if not os.path.lexists(path):
        return
    for name, expected in _read_sums(path).items():
        file = os.path.join(directory, name)
        found = _sha256(file)
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
    for number, line in enumerate(read_text(path, remedy).splitlines(), 1):
        match = re.fullmatch(r'([0-9a-fA-F]{64}) [ *](.+)', line)
        if match is None or match[2] in sums:
            fault = 'no digest and name' if match is None else f'{match[2]!r} a second time'
            raise UserError(f'{path}: line {number}: found {fault}; {remedy}')
        sums[match[2]] = match[1].lower()
    for name in RECORD_FILES:
        if name not in sums:
            raise UserError(f'{path}: does not list {name}; {remedy}')
    return {name: sums[name] for name in _SUMMED_FILES if name in sums}


def write_sums(directory: str) -> None:
    """Writes SHA256SUMS, in the format of coreutils, for the files that are there."""
    names = [name for name in _SUMMED_FILES if os.path.exists(os.path.join(directory, name))]
    sums = [f'{_sha256(os.path.join(directory, name))}  {name}\n' for name in names]
    with open(os.path.join(directory, SUMS_FILE), 'w', encoding='utf-8', newline='\n') as file:
        file.writelines(sums)


def _sha256(path: str) -> str:
    """Raises UserError for a file that is missing, not regular or cannot be read."""
    regular_size(path, 'expected a file')
    with os_errors_named(path):
        return files.digest(path)


def read_class_names(directory: str) -> list[str]:
    """Names of the classes, in the order of their labels.

    Args:
      directory: may hold batches.meta.txt, one name a line.

    Returns:
      2 to 256 names; CIFAR-10's where there is no batches.meta.txt.

    Raises:
      UserError: batches.meta.txt does not hold that many names that can be printed.
    """
    path = os.path.join(directory, CLASS_NAMES_FILE)
    if not os.path.lexists(path):
        return list(CIFAR10_CLASS_NAMES)
    expected = f'expected {MIN_CLASSES} to {MAX_CLASSES} class names, one a line'
    text = read_text(path, expected)
    names = [line.strip() for line in text.split('\n') if line.strip()]
    if not MIN_CLASSES <= len(names) <= MAX_CLASSES:
        raise UserError(f'{path}: found {len(names)} class names; {expected}')
    for name in names:
        if name != printable(name):
            raise UserError(f'{path}: found the class name {name!r}; expected printable text')
    return names


def write_class_names(names: Sequence[str], directory: str) -> None:
    """Writes batches.meta.txt.

    Raises:
      OSError: it can't be written.
    """
    path = os.path.join(directory, CLASS_NAMES_FILE)
    with open(path, 'w', encoding='utf-8', newline='\n') as file:
        file.writelines(f'{name}\n' for name in names)
