"""CIFAR-10 and CIFAR-100 in their binary versions (https://www.cs.toronto.edu/~kriz/cifar.html)."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from cifar10_input import CIFAR10_RECORD, NUM_CLASSES, TEST_FILES, TRAIN_FILES, RecordFormat
from cifar10_lib.base.errors import UserError, os_errors_named
from cifar10_lib.base.files import read_text
from cifar10_lib.data import record_files
from cifar10_lib.data.record_files import CIFAR10_CLASS_NAMES
from cifar10_lib.data.sources.base import Examples, Options, Source, array_examples, names_in

CIFAR100_FILES = ('train.bin', 'test.bin')

# Of CIFAR-100, by --labels.
CIFAR100_CLASSES = {'coarse': 20, 'fine': 100}


def choose_labels(path: str, labels: str | None) -> str:
    """Which of CIFAR-100's labels."""
    if labels not in (None, *CIFAR100_CLASSES):
        raise UserError(f'--labels={labels}: {path} is CIFAR-100; expected fine or coarse')
    return labels or 'fine'


def records_examples(
    parts: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    class_names: Sequence[str],
    files: Sequence[str],
    options: Options,
) -> Examples:
    """Images in the pixels and the order of CIFAR's files, which they keep.

    Args:
      parts: of each file, uint8 [images, 3072]: red, green, blue, each row by row.
      labels: of each file, int [images].
      class_names: in the order of the labels.
      files: paths; the last one is that of the test images.
      options: of the user.
    """
    shape = (CIFAR10_RECORD.depth, CIFAR10_RECORD.height, CIFAR10_RECORD.width)
    images = [part.reshape(-1, *shape).transpose(0, 2, 3, 1) for part in parts]
    of_test = [number == len(parts) - 1 for number in range(len(parts))]
    all_labels = np.concatenate(labels).astype(np.int64)
    examples = array_examples(files, images, class_names, all_labels, of_test, options)
    if len(parts) != len(TRAIN_FILES) + len(TEST_FILES):
        return examples
    return examples._replace(files=np.repeat(np.arange(len(parts)), list(map(len, parts))))


def _read_file(path: str, record: RecordFormat, num_classes: int) -> np.ndarray:
    """uint8 [images, bytes of a record], checked."""
    count = record_files.check_file(path, record, num_classes)
    with os_errors_named(path):
        content = np.fromfile(path, np.uint8, count * record.record_bytes)
    return content.reshape(count, record.record_bytes)


def _read_cifar10(folder: str, options: Options) -> Examples:
    files = [os.path.join(folder, name) for name in (*TRAIN_FILES, *TEST_FILES)]
    records = [_read_file(path, CIFAR10_RECORD, NUM_CLASSES) for path in files]
    return records_examples(
        [each[:, 1:] for each in records],
        [each[:, 0] for each in records],
        CIFAR10_CLASS_NAMES,
        files,
        options,
    )


def _read_cifar100(folder: str, options: Options) -> Examples:
    labels = choose_labels(folder, options.labels)
    num_classes = CIFAR100_CLASSES[labels]
    path = os.path.join(folder, f'{labels}_label_names.txt')
    expected = f'expected {num_classes} class names'
    names = [line.strip() for line in read_text(path, expected).split('\n') if line.strip()]
    if len(names) != num_classes:
        raise UserError(f'{path}: found {len(names)} class names; {expected}')
    record = RecordFormat(label_bytes=2, label_index=('coarse', 'fine').index(labels))
    files = [os.path.join(folder, name) for name in CIFAR100_FILES]
    records = [_read_file(path, record, num_classes) for path in files]
    return records_examples(
        [each[:, record.label_bytes :] for each in records],
        [each[:, record.label_index] for each in records],
        names,
        files,
        options,
    )


def _read(folder: str, options: Options) -> Examples:
    if set(CIFAR100_FILES).intersection(names_in(folder)):
        return _read_cifar100(folder, options)
    return _read_cifar10(folder, options)


def _matches(path: str) -> bool:
    return bool({TRAIN_FILES[0], *TEST_FILES, *CIFAR100_FILES}.intersection(names_in(path)))


SOURCE = Source("CIFAR-10's or CIFAR-100's binary version", _matches, _read, labels=True)
