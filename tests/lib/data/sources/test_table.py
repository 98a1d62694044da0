"""Pictures in one folder with a CSV of their labels."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from cifar10_lib.base.errors import UserError
from tests.helpers.data_sets import as_pairs, check, convert, pairs, picture, png, write_all

# Two classes of four pictures each.
PICTURES = {f'{number}.png': png(picture(number % 2, number)) for number in range(8)}
EXPECTED = sorted(pairs(0, [0, 2, 4, 6]) + pairs(1, [1, 3, 5, 7]))
LABELS = [(f'{number}', ('cat', 'dog')[number % 2]) for number in range(8)]


def lines(header: str, separator: str = ',', ending: str = '') -> bytes:
    rows = [f'{file}{ending}{separator}{label}' for file, label in LABELS]
    return '\n'.join([header, *rows]).encode() + b'\n'


def in_folder(folder: str) -> dict[str, bytes]:
    return {f'{folder}/{name}': content for name, content in PICTURES.items()}


LAYOUTS: dict[str, Mapping[str, bytes]] = {
    'as Kaggle has CIFAR-10': {'trainLabels.csv': lines('id,label'), **in_folder('train')},
    'beside the pictures': {'labels.csv': lines('file,class', ending='.png'), **PICTURES},
    'semicolons': {'labels.csv': lines('filename;category', ';', '.png'), **in_folder('images')},
    'tabs': {'labels.tsv': lines('image_id\tlabel', '\t'), **PICTURES},
    'a byte order mark': {'l.csv': b'\xef\xbb\xbf' + lines('id,label'), **PICTURES},
    'Windows': {'l.csv': lines('id,label').replace(b'\n', b'\r\n'), **PICTURES},
    'paths': {
        'l.csv': lines('path,label', ending='.png').replace(b'\n', b'\nimages/', 8),
        **in_folder('images'),
    },
}


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('named', ['folder', 'file'])
def test_each_row_is_a_picture_with_its_label(tmp_path: Path, layout: str, named: str) -> None:
    folder = write_all(tmp_path / 'in', LAYOUTS[layout])
    table = next(path for path in folder.iterdir() if path.suffix in ('.csv', '.tsv'))
    convert(folder if named == 'folder' else table, tmp_path / 'out')
    train, train_labels, test, test_labels = check(tmp_path / 'out', ['cat', 'dog'])
    found = as_pairs(train, train_labels) + as_pairs(test, test_labels)
    assert sorted(found) == EXPECTED


def test_of_two_pictures_of_a_name_that_in_train_is_meant(tmp_path: Path) -> None:
    wrong = {f'test/{name}': png(picture(7, 7)) for name in PICTURES}
    contents = {'trainLabels.csv': lines('id,label'), **in_folder('train'), **wrong}
    convert(write_all(tmp_path / 'in', contents), tmp_path / 'out')
    train, train_labels, test, test_labels = check(tmp_path / 'out', ['cat', 'dog'])
    assert sorted(as_pairs(train, train_labels) + as_pairs(test, test_labels)) == EXPECTED


def test_rows_without_a_picture_are_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = {'labels.csv': lines('id,label') + b'77,cat\n78,dog\n', **PICTURES}
    convert(write_all(tmp_path / 'in', contents), tmp_path / 'out')
    assert '2 rows without a picture are left out: 77 (line 10), 78 (line 11)' in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ('table', 'message'),
    [
        (lines('id,label') + b'6\n', r"labels\.csv: line 10: found '6'; expected a CSV file of a"),
        (lines('id,label') + b'6,\n', r"labels\.csv: line 10: found '6, '; expected a CSV file"),
        (
            b'id,label\n77,cat\n',
            r'labels\.csv: found none of its 1 pictures in .*in: 77 \(line 2\)',
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_named(tmp_path: Path, table: bytes, message: str) -> None:
    folder = write_all(tmp_path / 'in', {'labels.csv': table, **PICTURES})
    with pytest.raises(UserError, match=message):
        convert(folder, tmp_path / 'out')


def test_a_table_that_is_not_utf8_is_called_that(tmp_path: Path) -> None:
    table = lines('id,label').replace(b'cat', b'c\xe4t')
    folder = write_all(tmp_path / 'in', {'labels.csv': table, **PICTURES})
    with pytest.raises(UserError, match=r'labels\.csv: byte 12 is not UTF-8'):
        convert(folder, tmp_path / 'out')


def test_pictures_differ() -> None:
    assert len({zlib.crc32(content) for content in PICTURES.values()}) == 8
