"""CIFAR's versions for Python, read without running what a pickle asks for."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cifar10_lib.base.errors import UserError
from cifar10_lib.data.record_files import CIFAR10_CLASS_NAMES
from cifar10_lib.data.sources import cifar_python
from cifar10_lib.data.sources.base import Options
from tests.helpers.data_sets import check, convert, python_files, tar, write_all
from tests.helpers.samples import FILES


def contents_of(records: Path) -> dict[str, bytes]:
    return {name: (records / name).read_bytes() for name in FILES}


@pytest.mark.parametrize(('protocol', 'as_bytes'), [(0, False), (2, False), (2, True), (5, False)])
def test_the_python_version_gives_the_records_of_the_binary_one(
    tmp_path: Path, records: Path, protocol: int, as_bytes: bool
) -> None:
    contents = python_files(contents_of(records), protocol, as_bytes)
    folder = write_all(tmp_path / 'cifar-10-batches-py', contents)
    convert(folder, tmp_path / 'out')
    check(tmp_path / 'out', CIFAR10_CLASS_NAMES)
    for name in FILES:
        assert (tmp_path / 'out' / name).read_bytes() == (records / name).read_bytes()


def test_it_is_taken_from_its_archive(tmp_path: Path, records: Path) -> None:
    contents = python_files(contents_of(records))
    archive = tar({f'cifar-10-batches-py/{name}': content for name, content in contents.items()})
    (tmp_path / 'cifar-10-python.tar.gz').write_bytes(archive)
    convert(tmp_path / 'cifar-10-python.tar.gz', tmp_path / 'out')
    for name in FILES:
        assert (tmp_path / 'out' / name).read_bytes() == (records / name).read_bytes()


def cifar100_files() -> dict[str, bytes]:
    contents = {
        'meta': pickle.dumps(
            {
                'fine_label_names': [f'fine {i}' for i in range(100)],
                'coarse_label_names': [f'coarse {i}' for i in range(20)],
            }
        )
    }
    for name in ('train', 'test'):
        content = {
            'data': np.random.default_rng(0).integers(0, 256, [100, 3072], np.uint8),
            'fine_labels': list(range(100)),
            'coarse_labels': [i // 5 for i in range(100)],
        }
        contents[name] = pickle.dumps(content)
    return contents


@pytest.mark.parametrize('labels', [None, 'fine', 'coarse'])
def test_cifar100_has_two_kinds_of_labels(tmp_path: Path, labels: str | None) -> None:
    folder = write_all(tmp_path / 'in', cifar100_files())
    convert(folder, tmp_path / 'out', options=Options(labels=labels))
    kind, count = ('coarse', 20) if labels == 'coarse' else ('fine', 100)
    _, train_labels, _, test_labels = check(tmp_path / 'out', [f'{kind} {i}' for i in range(count)])
    for found in (train_labels, test_labels):
        assert np.bincount(found).tolist() == [100 // count] * count


class Runs:
    """Unpickled, it would run a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def dumped(**changed: Any) -> bytes:
    """A file of three images, with something changed."""
    return pickle.dumps({'data': np.zeros([3, 3072], np.uint8), 'labels': [1, 2, 3], **changed})


FAULTS = {
    'a class': (dumped(x=Runs('true')), 'asks for posix.system, which is refused'),
    'a function': (dumped(x=print), 'asks for builtins.print, which is refused'),
    'cut': (dumped()[:-9], ''),
    'text': (b'labels', ''),
    'nothing': (b'', ''),
    'a list': (pickle.dumps([1]), 'holds a list; expected a file of CIFAR'),
    'no data': (dumped(data=None), 'data: found float64 .*; expected uint8'),
    'floats': (
        dumped(data=np.zeros([3, 3072])),
        r'data: found float64 \(3, 3072\); expected uint8',
    ),
    'other shape': (dumped(data=np.zeros([3, 5], np.uint8)), r'data: found uint8 \(3, 5\)'),
    'fewer labels': (dumped(labels=[1]), 'labels: found int64 .*; expected 3 whole numbers'),
    'ragged labels': (dumped(labels=[1, [2, 3], 4]), 'labels: found .*; expected 3 whole numbers'),
    'wrong label': (dumped(labels=[1, 10, 3]), 'image 1: label 10; expected 0 to 9'),
    'a huge memo': (b'\x80\x02]r\xff\xff\xff\x7f.', 'holds a list'),
    'a huge claim': (b'\x80\x04\x8e' + b'\xff' * 7 + b'\x0f', ''),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_another_pickle_is_refused_by_name(tmp_path: Path, records: Path, fault: str) -> None:
    content, message = FAULTS[fault]
    folder = write_all(
        tmp_path / 'in', {**python_files(contents_of(records)), 'data_batch_2': content}
    )
    with pytest.raises(
        UserError, match=f'in/data_batch_2: (not a pickle that is read: )?{message}'
    ):
        convert(folder, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_what_a_pickle_asks_for_is_not_run(tmp_path: Path) -> None:
    content = pickle.dumps(Runs(f'touch {tmp_path / "ran"}'))
    (tmp_path / 'x').write_bytes(content)
    with pytest.raises(UserError, match='asks for posix.system'):
        cifar_python.read_pickle(str(tmp_path / 'x'))
    assert not (tmp_path / 'ran').exists()
    pickle.loads(content)
    assert (tmp_path / 'ran').exists()
