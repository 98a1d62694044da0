"""IDX files: MNIST, and the sets published like it."""

from __future__ import annotations

import gzip
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar10_lib.base.errors import UserError
from cifar10_lib.data.sources import find, idx
from cifar10_lib.data.sources.base import Options
from tests.helpers.data_sets import (
    DIGITS,
    check_digits,
    convert,
    idx_bytes,
    idx_files,
    write_all,
)
from tests.helpers.samples import tree

# How the names of the four files are found.
NAMES = {
    'plain': lambda name: name,
    'with a dot': lambda name: name.replace('-idx', '.idx'),
    'in folders': lambda name: f'{name}/{name}',
    'in raw': lambda name: f'raw/{name}',
    'test': lambda name: name.replace('t10k', 'test'),
}


@pytest.mark.parametrize('names', NAMES)
@pytest.mark.parametrize('ending', ['', '.gz'])
def test_images_stand_in_the_middle_of_a_black_square(
    tmp_path: Path, names: str, ending: str
) -> None:
    contents = {NAMES[names](name): content for name, content in idx_files(ending).items()}
    convert(write_all(tmp_path / 'in', contents), tmp_path / 'out')
    check_digits(tmp_path / 'out')


def read(folder: Path, labels: str | None = None) -> tuple[list[str], list[int], np.ndarray]:
    """Class names, labels, and the first image's pixels in the middle."""
    examples = find(str(folder)).read(str(folder), Options(labels=labels))
    first = examples.pixels(0)[2:30, 2:30, 0]
    return list(examples.class_names), examples.labels.tolist(), first


def small_set(prefix: str, values: list[int], part: str = 'train') -> dict[str, bytes]:
    images = DIGITS['train'][0][: len(values)]
    return {
        f'{prefix}{part}-images-idx3-ubyte': idx_bytes(images),
        f'{prefix}{part}-labels-idx1-ubyte': idx_bytes(np.array(values, np.uint8)),
    }


def test_emnist_is_turned_and_its_letters_are_named(tmp_path: Path) -> None:
    """Rows and columns are exchanged in its files, and its letters count from 1."""
    contents = {**small_set('emnist-letters-', [1, 26, 3]), **small_set('emnist-digits-', [0, 9])}
    folder = write_all(tmp_path / 'in', contents)
    names, labels, first = read(folder, 'letters')
    assert (len(names), names[0], names[25], labels) == (26, 'A', 'Z', [0, 25, 2])
    np.testing.assert_array_equal(first, DIGITS['train'][0][0].T)
    names, labels, _ = read(folder, 'digits')
    assert (names, labels) == (list('0123456789'), [0, 9])
    with pytest.raises(UserError, match='in: holds the sets digits, letters; choose one with --la'):
        read(folder)


def test_emnist_takes_its_own_table_of_letters(tmp_path: Path) -> None:
    contents = small_set('emnist-balanced-', [0, 1])
    contents['emnist-balanced-mapping.txt'] = b'0 48\n1 97 65\n'
    assert read(write_all(tmp_path / 'in', contents))[:2] == (['0', 'a'], [0, 1])
    (tmp_path / 'in' / 'emnist-balanced-mapping.txt').write_text('0 48\nx')
    with pytest.raises(UserError, match="mapping.txt: line 2: found 'x'; expected lines of"):
        read(tmp_path / 'in')


def test_the_balanced_set_has_47_classes(tmp_path: Path) -> None:
    names, _, _ = read(write_all(tmp_path / 'in', small_set('emnist-balanced-', [0, 46])))
    assert len(names) == 47 and ''.join(names).endswith('Zabdefghnqrt')


def test_qmnist_has_its_class_in_the_first_of_eight_numbers(tmp_path: Path) -> None:
    numbers = np.array([[7, 0, 0, 0, 0, 0, 0, 0], [2, 1, 1, 1, 1, 1, 1, 1]], np.int32)
    contents = {
        'qmnist-train-images-idx3-ubyte': idx_bytes(DIGITS['train'][0][:2]),
        'qmnist-train-labels-idx2-int': idx_bytes(numbers),
    }
    names, labels, first = read(write_all(tmp_path / 'in', contents))
    assert (names, labels) == (['2', '7'], [1, 0])
    np.testing.assert_array_equal(first, DIGITS['train'][0][0])


@pytest.mark.parametrize(('folder', 'name'), [('fashion_mnist', 'Trouser'), ('KMNIST', 'き')])
def test_sets_that_go_by_mnists_names_are_told_by_their_folder(
    tmp_path: Path, folder: str, name: str
) -> None:
    names, labels, _ = read(write_all(tmp_path / folder, small_set('', [1, 9])))
    assert (len(names), names[1], labels) == (10, name, [1, 9])


def test_sets_that_go_by_mnists_names_are_told_by_their_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {f'{n}.gz': gzip.compress(c) for n, c in small_set('', [1, 9]).items()}
    folder = write_all(tmp_path / 'in', contents)
    assert read(folder)[0] == ['1', '9']
    monkeypatch.setattr(idx, 'digest', lambda path, kind: '25c81989df183df01b3e8a0aad5dffbe')
    assert read(folder)[0][9] == 'Ankle boot'


def test_sets_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    folder, out = write_all(tmp_path / 'in', idx_files()), tmp_path / 'out'
    labels = folder / 'train-labels-idx1-ubyte'
    labels.write_bytes(idx_bytes(np.zeros(8, np.uint8)))
    with pytest.raises(UserError, match=r'train-labels.*: holds 8 labels; expected 23, one for'):
        convert(folder, out)
    labels.unlink()
    with pytest.raises(UserError, match=r'in: found no labels of train images; expected an IDX'):
        convert(folder, out)
    for name in list(folder.iterdir()):
        if name.name.startswith('train'):
            name.unlink()
    with pytest.raises(UserError, match='in: found no training images; expected IDX files'):
        convert(folder, out)
    assert tree(tmp_path) == {'in'} | {f'in/{name}' for name in tree(folder)}


SMALL_IDX = idx_bytes(np.arange(3 * 28 * 28).reshape(3, 28, 28).astype(np.uint8))

# Content of a file of images, and what is said of it.
DAMAGED_IDX = {
    'nothing': (b'', 'begins with nothing; expected an IDX file, which begins 00 00 08'),
    'labels': (idx_bytes(np.zeros(3, np.uint8)), 'holds 3; expected 3 numbers: images'),
    'head alone': (
        SMALL_IDX[:15],
        'breaks off within its head of 16 bytes',
    ),
    'large': (struct.pack('>HBB3I', 0, 8, 3, 1, 28, 300), 'holds 1 x 28 x 300; .* up to 256'),
    'no image': (
        idx_bytes(np.zeros([0, 28, 28], np.uint8)),
        'holds 0 x 28 x 28; .* 1 to 1,000,000',
    ),
    'huge': (struct.pack('>HBB3I', 0, 8, 3, 2**32 - 1, 28, 28), 'holds 4294967295 x 28 x 28; exp'),
    'short': (SMALL_IDX[:-1], 'holds 2,351 bytes after its head; expected 2,352, for 3 x 28 x 28'),
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
        idx.read_idx(str(path), 3)
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
        idx.read_idx(str(path), 3)
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
            found = idx.read_idx(file.name, len(shape))
        except UserError as error:
            assert not sound and str(error).startswith(f'{file.name}: ')
        else:
            assert found.shape[1:] == shape[1:] and found.tobytes() == bytes(content[head:])
            assert len(found) == shape[0] or not sound
