"""Pictures, IDX files and CIFAR-100 as records."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import struct
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import cifar10_data
import cifar10_input
from cifar10_data import DataSettings
from cifar10_lib.base.errors import UserError
from cifar10_lib.data import convert as convert_module
from cifar10_lib.data import record_files, sources
from cifar10_lib.evaluation import contact_sheet
from tests.helpers.samples import (
    FILES,
    Server,
    closed_url,
    full_disk,
    make_archive,
    make_odd,
    member,
    tree,
    unix,
)
from tests.helpers.scripts import Script


def convert(*arguments: Any, **options: Any) -> None:
    """As `cifar10_data.py convert` calls it."""
    convert_module.convert(*arguments, draw_examples=contact_sheet.write, batch_size=128, **options)


WRITTEN = {*FILES, 'batches.meta.txt', 'SHA256SUMS', 'contact_sheet.png'}


def decoded(directory: Path, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of record files, as training reads them."""
    records = [
        record.tobytes()
        for name in names
        for record in np.fromfile(directory / name, np.uint8).reshape(-1, 3073)
    ]
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(cifar10_input.decode_records(tf.constant(records, tf.string)))


def check(directory: Path, class_names: Sequence[str]) -> tuple[np.ndarray, ...]:
    """Training images and labels, test images and labels of a set that must be sound."""
    assert tree(directory) == WRITTEN
    record_files.check_directory(str(directory), num_classes=len(class_names))
    assert record_files.read_class_names(str(directory)) == list(class_names)
    return (
        *decoded(directory, cifar10_input.TRAIN_FILES),
        *decoded(directory, cifar10_input.TEST_FILES),
    )


def picture(label: int, number: int) -> np.ndarray:
    """A picture unlike any other: uint8 [32, 32, 3]."""
    rng = np.random.default_rng([label, number])
    return rng.integers(0, 256, [32, 32, 3], dtype=np.uint8)


def save(folder: Path, label: int, numbers: Sequence[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.fromarray(picture(label, number)).save(folder / f'{number}.png')


def as_pairs(images: np.ndarray, labels: np.ndarray) -> list[tuple[int, bytes]]:
    return sorted(
        (int(label), image.tobytes()) for image, label in zip(images, labels, strict=True)
    )


def pairs(label: int, numbers: Sequence[int]) -> list[tuple[int, bytes]]:
    return [(label, picture(label, number).tobytes()) for number in numbers]


@pytest.fixture
def two(tmp_path: Path) -> str:
    """A folder of two classes, of 12 and 6 pictures."""
    save(tmp_path / 'pictures' / 'no cat', 1, range(6))
    save(tmp_path / 'pictures' / 'cat', 0, range(12))
    return str(tmp_path / 'pictures')


# ------------------------------------------------------------------------------
# Folders of pictures.


def test_each_picture_becomes_one_record_of_its_class(
    two: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(two, str(tmp_path / 'out'))
    train, train_labels, test, test_labels = check(tmp_path / 'out', ['cat', 'no cat'])
    assert np.bincount(train_labels).tolist() == [10, 5]
    assert np.bincount(test_labels).tolist() == [2, 1]
    found = as_pairs(np.concatenate([train, test]), np.concatenate([train_labels, test_labels]))
    assert found == sorted(pairs(0, range(12)) + pairs(1, range(6)))
    sizes = [os.path.getsize(tmp_path / 'out' / name) for name in cifar10_input.TRAIN_FILES]
    assert sizes == [3 * 3073] * 5
    output = capsys.readouterr().out
    assert '15 training and 3 test images of 2 classes' in output
    assert '  cat           10         2\n  no cat         5         1\n' in output
    command = f'cifar10_train.py --data_dir={tmp_path}/out --train_dir={tmp_path}/out_train'
    # 15 images fill no batch of 128.
    assert f'{command} --batch_size=8\n' in output
    assert tree(tmp_path) == {'out', 'pictures'} | {
        os.path.join(folder, name)
        for folder in ('out', 'pictures')
        for name in tree(tmp_path / folder)
    }


def test_the_set_derives_from_the_seed(
    two: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seed, threads, images in (('a', 1, 4, 2), ('b', 1, 1, 5), ('c', 2, 4, 2)):
        monkeypatch.setattr(convert_module, '_THREADS', threads)
        monkeypatch.setattr(convert_module, '_IMAGES_AT_ONCE', images)
        convert(two, str(tmp_path / name), seed=seed)
    a, b, c = (
        [(tmp_path / name / file).read_bytes() for file in (*FILES, 'SHA256SUMS')] for name in 'abc'
    )
    assert a == b
    assert all(first != third for first, third in zip(a, c, strict=True))


def test_train_and_test_folders_stay_divided(tmp_path: Path) -> None:
    for label, name in enumerate(('a', 'b')):
        save(tmp_path / 'in' / 'train' / name, label, range(7))
        save(tmp_path / 'in' / 'test' / name, label, range(7, 9))
    convert(str(tmp_path / 'in'), str(tmp_path / 'out'))
    train, train_labels, test, test_labels = check(tmp_path / 'out', ['a', 'b'])
    assert as_pairs(train, train_labels) == sorted(pairs(0, range(7)) + pairs(1, range(7)))
    assert as_pairs(test, test_labels) == sorted(pairs(0, range(7, 9)) + pairs(1, range(7, 9)))
    sizes = [os.path.getsize(tmp_path / 'out' / name) // 3073 for name in FILES]
    assert sizes == [3, 3, 3, 3, 2, 4]

    convert(str(tmp_path / 'in'), str(tmp_path / 'other'), seed=1)
    for name in FILES:
        content, other = ((tmp_path / folder / name).read_bytes() for folder in ('out', 'other'))
        assert content != other

    save(tmp_path / 'in' / 'test' / 'c', 2, range(2))
    with pytest.raises(UserError, match="same classes in both, found only in one: 'c'"):
        convert(str(tmp_path / 'in'), str(tmp_path / 'again'))
    with pytest.raises(UserError, match='--test_percent=20: .* is a folder of train/ and test/'):
        convert(str(tmp_path / 'in'), str(tmp_path / 'again'), test_percent=20)


@given(
    sizes=st.lists(st.integers(2, 60), min_size=1, max_size=5),
    percent=st.integers(0, 99),
    seed=st.integers(0, 2**63 - 1),
)
@settings(max_examples=50, derandomize=True, database=None, deadline=None)
def test_split_takes_the_same_share_of_each_class(
    sizes: list[int], percent: int, seed: int
) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    is_test = sources.split(labels, seed, percent)
    for label, size in enumerate(sizes):
        count = is_test[labels == label].sum()
        assert 1 <= count <= size - 1
        assert abs(count - size * (percent / 100 or 1 / 6)) <= 1
    assert np.array_equal(is_test, sources.split(labels, seed, percent))


def test_what_cannot_be_read_is_named_and_the_rest_written(
    two: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cat = Path(two, 'cat')
    (cat / 'notes.txt').write_text('no picture')
    (cat / 'half.png').write_bytes((cat / '0.png').read_bytes()[:900])
    (cat / 'more').mkdir()
    for ignored in ('cat/.DS_Store', 'cat/Thumbs.db', 'cat/desktop.ini', '.git'):
        Path(two, ignored).write_text('ignored')
    Path(two, '.ipynb_checkpoints').mkdir()
    Path(two, 'README').write_text('passed over')
    with pytest.raises(UserError, match=r'3 of 21 files were skipped, .*out holds all others'):
        convert(two, str(tmp_path / 'out'))
    train, train_labels, test, test_labels = check(tmp_path / 'out', ['cat', 'no cat'])
    found = as_pairs(np.concatenate([train, test]), np.concatenate([train_labels, test_labels]))
    assert found == sorted(pairs(0, range(12)) + pairs(1, range(6)))
    errors = capsys.readouterr().err
    assert errors.count('Skipped: ') == 3 and errors.count('Passed over: ') == 1
    for name in ('notes.txt', 'half.png', 'more'):
        assert f'Skipped: {cat / name}: ' in errors
    assert f'Passed over: {two}/README: in no class' in errors
    sizes = [os.path.getsize(tmp_path / 'out' / name) for name in cifar10_input.TRAIN_FILES]
    assert max(sizes) - min(sizes) <= 3073


@unix
@pytest.mark.parametrize('kind', ['pipe', 'device', 'link', 'circle'])
def test_an_odd_file_is_skipped(two: str, tmp_path: Path, kind: str) -> None:
    make_odd(os.path.join(two, 'cat', 'odd.png'), kind)
    with pytest.raises(UserError, match='1 of 19 files were skipped'):
        convert(two, str(tmp_path / 'out'))
    assert record_files.check_directory(str(tmp_path / 'out')) in {(15, 3), (16, 2)}


def test_too_little_is_refused_and_nothing_written(two: str, tmp_path: Path) -> None:
    out = str(tmp_path / 'out')

    def refused(match: str, pictures: str = two) -> None:
        with pytest.raises(UserError, match=match):
            convert(pictures, out)
        assert set(os.listdir(tmp_path)) == {'pictures'}

    for number in range(5):
        os.remove(Path(two, 'no cat', f'{number}.png'))
    refused("class 'no cat': found 1 training and 0 test images; expected at least one of each")
    Path(two, 'no cat', 'broken.png').write_text('broken')
    refused("class 'no cat': found [01] training and [01] test images that can be read, with 1")
    shutil.rmtree(Path(two, 'no cat'))
    refused('found 1 classes; expected 2 to 256')
    Path(two, 'no cat').mkdir()
    refused('no cat: holds nothing; expected the pictures of one class')
    Path(two, 'no cat', 'deeper').mkdir()
    refused('no cat: holds nothing but folders; expected the pictures of one class')
    refused('cat: found no folders; expected a folder of pictures for each class', f'{two}/cat')
    refused('none: missing; expected a folder of one folder for each class', f'{two}/none')
    shutil.rmtree(two)
    save(Path(two, 'a'), 0, range(2))
    save(Path(two, 'b'), 1, range(4))
    refused('found 4 training images; expected at least 5, one for each file')


def test_classes_beyond_a_byte_and_odd_names_are_refused(tmp_path: Path) -> None:
    for label in range(257):
        (tmp_path / 'in' / f'{label:03}').mkdir(parents=True)
        (tmp_path / 'in' / f'{label:03}' / 'x.png').touch()
    with pytest.raises(UserError, match='found 257 classes; expected 2 to 256'):
        convert(str(tmp_path / 'in'), str(tmp_path / 'out'))
    shutil.rmtree(tmp_path / 'in' / '256')
    before = tmp_path / 'in' / '255'
    for name in ('new\nline', 'space '):
        before = before.rename(tmp_path / 'in' / name)
        with pytest.raises(UserError, match=f'the class name {re.escape(repr(name))}; expected'):
            convert(str(tmp_path / 'in'), str(tmp_path / 'out'))


def test_nothing_is_overwritten_and_nothing_half_written(two: str, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    with full_disk(5000), pytest.raises(UserError, match='out: File too large'):
        convert(two, str(out))
    assert set(os.listdir(tmp_path)) == {'pictures'}
    out.mkdir()
    (out / 'precious').write_text('precious')
    with pytest.raises(UserError, match='out: is in the way'):
        convert(two, str(out))
    assert tree(out) == {'precious'}
    with pytest.raises(UserError, match='--data_dir=.*: lies within .*pictures'):
        convert(two, os.path.join(two, 'out'))


def test_pictures_are_read_in_threads_a_few_ahead() -> None:
    began: set[int] = set()
    together = threading.Barrier(2)

    def planes(index: int) -> np.ndarray:
        began.add(index)
        if index in (0, 32):
            together.wait(10)
        return np.full(1, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert_module, '_THREADS', 2)
        some = convert_module._in_threads(planes, range(1000))
        first = next(some)
        time.sleep(0.05)
        assert len(began) <= 6 * 32
        assert [index for index, _ in (first, *some)] == list(range(1000))


# ------------------------------------------------------------------------------
# IDX files.


def idx_bytes(items: np.ndarray) -> bytes:
    return struct.pack(f'>HBB{items.ndim}I', 0, 8, items.ndim, *items.shape) + items.tobytes()


def write_idx(folder: Path, train: int, test: int, ending: str = '') -> list[np.ndarray]:
    """The four files of a set of the labels 3, 5 and 9; their arrays, in the order of names."""
    rng = np.random.default_rng(0)
    arrays = []
    folder.mkdir()
    for (image_name, label_name), count in zip(sources.IDX_NAMES, (train, test), strict=True):
        images = rng.integers(0, 256, [count, 28, 28], dtype=np.uint8)
        labels = np.array([3, 5, 9], np.uint8)[np.arange(count) % 3]
        for name, array in ((image_name, images), (label_name, labels)):
            content = idx_bytes(array)
            (folder / (name + ending)).write_bytes(gzip.compress(content) if ending else content)
            arrays.append(array)
    return arrays


@pytest.mark.parametrize('ending', ['', '.gz'])
def test_idx_images_stand_in_the_middle_of_a_black_square(tmp_path: Path, ending: str) -> None:
    arrays = write_idx(tmp_path / 'in', 23, 6, ending)
    convert(str(tmp_path / 'in'), str(tmp_path / 'out'))
    found = check(tmp_path / 'out', ['3', '5', '9'])
    for images, labels, expected, values in ((*found[:2], *arrays[:2]), (*found[2:], *arrays[2:])):
        padded = np.zeros([len(expected), 32, 32, 3], np.uint8)
        padded[:, 2:30, 2:30] = expected[..., np.newaxis]
        assert as_pairs(images, labels) == as_pairs(padded, np.searchsorted([3, 5, 9], values))


def test_idx_sets_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    folder, out = tmp_path / 'in', str(tmp_path / 'out')
    write_idx(folder, 9, 6)
    labels = folder / 'train-labels-idx1-ubyte'
    labels.write_bytes(idx_bytes(np.zeros(8, np.uint8)))
    with pytest.raises(
        UserError, match=r'train-labels.*: holds 8 labels; expected 9, one for each'
    ):
        convert(str(folder), out)
    labels.unlink()
    with pytest.raises(UserError, match=r'train-labels-idx1-ubyte\.gz: missing; expected an IDX'):
        convert(str(folder), out)
    with pytest.raises(UserError, match='--labels=coarse: .* is a set of IDX files'):
        convert(str(folder), out, labels='coarse')
    assert tree(tmp_path) == {'in'} | {os.path.join('in', name) for name in tree(folder)}


SMALL_IDX = idx_bytes(np.arange(3 * 28 * 28).reshape(3, 28, 28).astype(np.uint8))

# Content of a file of images, and what is said of it.
DAMAGED_IDX = {
    'nothing': (b'', 'begins with nothing; expected .* 28 x 28 images, which begins 00 00 08 03'),
    'labels': (idx_bytes(np.zeros(3, np.uint8)), 'begins with 00 00 08 01; expected'),
    'head alone': (
        SMALL_IDX[:15],
        'breaks off within its head of 16 bytes; expected an IDX file of 28 x 28 images',
    ),
    'other side': (idx_bytes(np.zeros([3, 28, 32], np.uint8)), 'holds 3 x 28 x 32; expected'),
    'no image': (
        idx_bytes(np.zeros([0, 28, 28], np.uint8)),
        'holds 0 x 28 x 28; .* 1 to 1,000,000',
    ),
    'huge': (struct.pack('>HBB3I', 0, 8, 3, 2**32 - 1, 28, 28), 'holds 4294967295 x 28 x 28; exp'),
    'short': (SMALL_IDX[:-1], 'holds 2,351 bytes after its head; expected 2,352, for 3 28 x 28'),
    'long': (SMALL_IDX + b'x', 'holds more than 2,352 bytes after its head; expected 2,352'),
    'half zipped': (gzip.compress(SMALL_IDX)[:-20], 'not a complete gzip file: '),
    'no deflate stream': (
        gzip.compress(SMALL_IDX)[:10] + b'\xff' * 99,
        'not a complete gzip file: ',
    ),
    'wrong checksum': (gzip.compress(SMALL_IDX)[:-8] + bytes(8), 'not a complete gzip file: CRC'),
    'zipped twice': (gzip.compress(gzip.compress(SMALL_IDX)), 'begins with 1f 8b 08 00; expected'),
}


@pytest.mark.parametrize('damage', DAMAGED_IDX)
def test_a_damaged_idx_file_is_named(tmp_path: Path, damage: str) -> None:
    content, message = DAMAGED_IDX[damage]
    path = tmp_path / 'images.gz'
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        sources.read_idx(str(path), 28, 28)
    assert str(caught.value).startswith(f'{path}: ') and '\n' not in str(caught.value)


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'images.gz'
    path.write_bytes(gzip.compress(SMALL_IDX + bytes(1 << 24)))
    unpacked = []
    read = gzip.GzipFile.read

    def counted(file: gzip.GzipFile, size: int | None = -1) -> bytes:
        unpacked.append(read(file, size))
        return unpacked[-1]

    monkeypatch.setattr(gzip.GzipFile, 'read', counted)
    with pytest.raises(UserError, match='holds more than 2,352 bytes'):
        sources.read_idx(str(path), 28, 28)
    assert sum(map(len, unpacked)) == len(SMALL_IDX) + 1


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    cut=st.integers(0, 100),
    more=st.binary(max_size=3),
    flipped=st.one_of(st.none(), st.integers(0, 99)),
    zipped=st.booleans(),
)
@settings(max_examples=200, derandomize=True, database=None, deadline=None)
def test_an_idx_file_gives_its_bytes_or_an_error(
    shape: tuple[int, ...], cut: int, more: bytes, flipped: int | None, zipped: bool
) -> None:
    items = np.random.default_rng(shape).integers(0, 256, shape, dtype=np.uint8)
    content = bytearray(idx_bytes(items))
    del content[len(content) - min(cut // 4, len(content)) :]
    content += more
    if flipped is not None and content:
        content[flipped % len(content)] ^= 1
    head = 4 + 4 * len(shape)
    sound = bytes(content[:head]) == idx_bytes(items)[:head] and len(content) == head + items.size
    with tempfile.NamedTemporaryFile() as file:
        file.write(gzip.compress(bytes(content)) if zipped else bytes(content))
        file.flush()
        try:
            found = sources.read_idx(file.name, *shape[1:])
        except UserError as error:
            assert not sound and str(error).startswith(f'{file.name}: ')
        else:
            assert found.shape[1:] == shape[1:] and found.tobytes() == bytes(content[head:])
            assert len(found) == shape[0] or not sound


# ------------------------------------------------------------------------------
# CIFAR-100.


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


def cifar100_archive(*more: Any, **changed: bytes) -> bytes:
    files = {**cifar100_files(), **{name.replace('_bin', '.bin'): c for name, c in changed.items()}}
    members = [member(f'cifar-100-binary/{name}', content) for name, content in files.items()]
    return make_archive(*members, *more)


@pytest.mark.parametrize('labels', ['fine', 'coarse'])
def test_cifar100_keeps_its_images_and_the_labels_asked_for(tmp_path: Path, labels: str) -> None:
    (tmp_path / 'archive').write_bytes(cifar100_archive())
    convert(str(tmp_path / 'archive'), str(tmp_path / 'out'), labels=labels)
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
        convert(sources.CIFAR100_URL, str(tmp_path / 'out'))
    assert tree(tmp_path) == {'cifar-100-binary.tar.gz'}


LINK = member('cifar-100-binary/link', b'', b'2', '../..')
WRONG_LABEL = bytes([19, 100]) + bytes(3072)
BAD_CIFAR100 = {
    'no archive': (
        lambda: b'photo',
        'archive: not a complete gzipped tar archive: .*; expected cifar-100-bin',
    ),
    'link': (lambda: cifar100_archive(LINK), 'refused, because its member .*link'),
    'twice': (
        lambda: cifar100_archive(member('cifar-100-binary/test.bin', b'')),
        "refused, because it holds 'cifar-100-binary/test.bin' twice",
    ),
    'CIFAR-10': (make_archive, r'archive: cifar-100-binary/fine_label_names\.txt: missing'),
    'half a record': (
        lambda: cifar100_archive(train_bin=bytes(3073)),
        r'archive: cifar-100-binary/train\.bin: record 0, from byte 0 on, has 3,073 bytes',
    ),
    'wrong label': (
        lambda: cifar100_archive(test_bin=WRONG_LABEL),
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


# ------------------------------------------------------------------------------
# The contact sheet.


def test_the_sheet_goes_where_it_is_asked_for(two: str, tmp_path: Path) -> None:
    sheet = tmp_path / 'sheet.png'
    convert(two, str(tmp_path / 'out'), contact_sheet=str(sheet))
    assert sheet.read_bytes().startswith(b'\x89PNG')
    assert tree(tmp_path / 'out') == WRITTEN - {'contact_sheet.png'}
    again = str(tmp_path / 'again')
    for path, message in (
        (tmp_path / 'sheet.jpg', 'expected a name that ends in .png'),
        (tmp_path / 'none' / 'sheet.png', 'its folder is missing'),
        (tmp_path / 'again' / 'sheet.png', 'lies within --data_dir'),
    ):
        with pytest.raises(UserError, match=f'--contact_sheet={path}: {message}'):
            convert(two, again, contact_sheet=str(path))
    assert not os.path.exists(again)


# ------------------------------------------------------------------------------
# The command.


def test_the_command_converts(run_script: Script, two: str, tmp_path: Path) -> None:
    Path(two, 'cat', 'notes.txt').write_text('no picture')
    options = ('--data_dir=my set', '--seed=3', '--test_percent=50')
    done = run_script('cifar10_data.py', 'convert', two, *options)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith(
        'cifar10_data.py: error: 1 of 19 files were skipped, each named above; my set holds all '
        'others'
    )
    assert "cifar10_train.py '--data_dir=my set' '--train_dir=my set_train'" in done.stdout
    _, _, _, test_labels = check(tmp_path / 'my set', ['cat', 'no cat'])
    assert np.bincount(test_labels)[1] == 3


@pytest.mark.parametrize(
    ('settings_', 'message'),
    [
        (DataSettings(('convrt', 'x'), 'out'), "found 'convrt'; expected: convert PICTURES"),
        (DataSettings(('convert',), 'out'), 'found 0 paths after convert; expected: convert'),
        (DataSettings(('convert', 'x', 'y'), 'out'), 'found 2 paths after convert; expected'),
        (DataSettings(('convert', 'x')), '--data_dir=cifar10_data: is for CIFAR-10; expected'),
        (DataSettings(('convert', 'x'), 'out', num_test=5), '--num_test=5: convert has no use'),
        (DataSettings(('convert', 'x'), 'out', dataset='auto'), '--dataset=auto: convert has no'),
        (DataSettings(labels='coarse'), '--labels=coarse: is a flag of convert alone'),
        (DataSettings(test_percent=9), '--test_percent=9: is a flag of convert alone'),
        (DataSettings(contact_sheet='x'), '--contact_sheet=x: is a flag of convert alone'),
    ],
)
def test_flags_out_of_place_are_named(
    settings_: DataSettings, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        cifar10_data.main(settings_)
    assert tree(tmp_path) == set()
