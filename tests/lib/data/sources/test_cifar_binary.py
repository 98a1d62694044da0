"""CIFAR-10 and CIFAR-100 in their binary versions, from folders, archives and URLs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cifar10_lib.base.errors import UserError
from cifar10_lib.data import download
from cifar10_lib.data.record_files import CIFAR10_CLASS_NAMES
from cifar10_lib.data.sources.base import Options
from tests.helpers.data_sets import as_pairs, check, convert, tar
from tests.helpers.samples import FILES, Server, closed_url, make_archive, tree, write_files


def test_cifar10_keeps_its_files_byte_for_byte(tmp_path: Path, records: Path) -> None:
    convert(records, tmp_path / 'out')
    check(tmp_path / 'out', CIFAR10_CLASS_NAMES)
    for name in FILES:
        assert (tmp_path / 'out' / name).read_bytes() == (records / name).read_bytes()


def test_cifar10_is_taken_from_its_archive(tmp_path: Path) -> None:
    (tmp_path / 'a.tar.gz').write_bytes(make_archive())
    write_files(tmp_path / 'in')
    convert(tmp_path / 'a.tar.gz', tmp_path / 'out')
    for name in FILES:
        assert (tmp_path / 'out' / name).read_bytes() == (tmp_path / 'in' / name).read_bytes()


FINE = [f'fine {i}' for i in range(100)]
COARSE = [f'coarse {i}' for i in range(20)]


def cifar100_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, [n, 3074], dtype=np.uint8) for n in (200, 100))
    for records in (train, test):
        records[:, 1] = np.arange(len(records)) % 100
        records[:, 0] = records[:, 1] // 5
    return {
        'train.bin': train.tobytes(),
        'test.bin': test.tobytes(),
        'fine_label_names.txt': ''.join(f'{name}\n' for name in FINE).encode(),
        'coarse_label_names.txt': ''.join(f'{name}\n' for name in COARSE).encode() + b'\n',
    }


def cifar100_archive(**changed: bytes) -> bytes:
    files = {**cifar100_files(), **{name.replace('_bin', '.bin'): c for name, c in changed.items()}}
    return tar({f'cifar-100-binary/{name}': content for name, content in files.items()})


@pytest.mark.parametrize('labels', ['fine', 'coarse'])
def test_cifar100_keeps_its_images_and_the_labels_asked_for(tmp_path: Path, labels: str) -> None:
    (tmp_path / 'archive').write_bytes(cifar100_archive())
    convert(tmp_path / 'archive', tmp_path / 'out', options=Options(labels=labels))
    found = check(tmp_path / 'out', FINE if labels == 'fine' else COARSE)
    for name, images, of_images in zip(('train', 'test'), found[::2], found[1::2], strict=True):
        records = np.frombuffer(cifar100_files()[f'{name}.bin'], np.uint8).reshape(-1, 3074)
        expected = records[:, 2:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        values = records[:, 1 if labels == 'fine' else 0]
        assert as_pairs(images, of_images) == as_pairs(expected, values)


def test_cifar100_is_taken_from_its_folder_and_its_url(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / 'cifar-100-binary'
    folder.mkdir()
    for name, content in cifar100_files().items():
        (folder / name).write_bytes(content)
    convert(str(folder), str(tmp_path / 'a'))
    server.content = cifar100_archive()
    for name in ('b', 'c'):
        convert(server.url('cifar-100-binary.tar.gz'), str(tmp_path / name))
    assert len(server.ranges) == 1
    a, b, c = ((tmp_path / name / 'SHA256SUMS').read_bytes() for name in 'abc')
    assert a == b == c
    assert (tmp_path / 'cifar-100-binary.tar.gz').read_bytes() == server.content


def test_the_published_url_gives_the_published_archive(tmp_path: Path) -> None:
    (tmp_path / 'cifar-100-binary.tar.gz').write_bytes(cifar100_archive())
    with pytest.raises(
        UserError, match=r'not the published archive: found .*; expected 168,513,733'
    ):
        convert(download.CIFAR100_URL, str(tmp_path / 'out'))
    assert tree(tmp_path) == {'cifar-100-binary.tar.gz'}


BAD_CIFAR100 = {
    'no archive': (lambda: b'photo', 'archive: not a data set that is known; expected CIFAR-10'),
    'half an archive': (
        lambda: cifar100_archive()[:5000],
        'archive: not a complete gzipped tar archive: .*; get the archive anew',
    ),
    'names alone': (
        lambda: tar({'cifar-100-binary/train.bin': b''}),
        r'archive/cifar-100-binary/fine_label_names\.txt: missing',
    ),
    'half a record': (
        lambda: cifar100_archive(train_bin=bytes(3073)),
        r'archive/cifar-100-binary/train\.bin: record 0, from byte 0 on, has 3,073 bytes',
    ),
    'wrong label': (
        lambda: cifar100_archive(test_bin=bytes([19, 100]) + bytes(3072)),
        r'test\.bin: record 0, byte 1: label 100; expected 0 to 99',
    ),
}


@pytest.mark.parametrize('fault', BAD_CIFAR100)
def test_a_bad_archive_of_cifar100_is_refused(tmp_path: Path, fault: str) -> None:
    content, message = BAD_CIFAR100[fault]
    (tmp_path / 'archive').write_bytes(content())
    with pytest.raises(UserError, match=message) as caught:
        convert(str(tmp_path / 'archive'), str(tmp_path / 'out'))
    assert 'unfinished' not in str(caught.value)
    assert tree(tmp_path) == {'archive'}


def test_cifar100_that_cannot_be_had_leaves_nothing(tmp_path: Path) -> None:
    url = closed_url()
    with pytest.raises(UserError, match=url):
        convert(url, str(tmp_path / 'out'))
    assert tree(tmp_path) == set()
