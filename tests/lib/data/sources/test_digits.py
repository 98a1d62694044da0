"""Kaggle's digits: a CSV of a label and 784 pixels in each row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cifar10_lib.base.errors import UserError
from cifar10_lib.data.sources import digits
from tests.helpers.data_sets import (
    DIGIT_NAMES,
    DIGITS,
    as_pairs,
    check,
    check_digits,
    convert,
    digits_csv,
    write_all,
)


def test_two_tables_are_training_and_test_images(tmp_path: Path) -> None:
    contents = {f'mnist_{part}.csv': digits_csv(part) for part in DIGITS}
    convert(write_all(tmp_path / 'in', contents), tmp_path / 'out')
    check_digits(tmp_path / 'out')


@pytest.mark.parametrize('header', [True, False])
@pytest.mark.parametrize('named', ['folder', 'file'])
def test_a_table_is_divided_and_one_without_labels_left_out(
    tmp_path: Path, header: bool, named: str
) -> None:
    contents = {
        'train.csv': digits_csv('train', header),
        'test.csv': digits_csv('test', header, labelled=False),
    }
    folder = write_all(tmp_path / 'in', contents)
    convert(folder if named == 'folder' else folder / 'train.csv', tmp_path / 'out')
    train, train_labels, test, test_labels = check(tmp_path / 'out', DIGIT_NAMES)
    images, labels = DIGITS['train']
    padded = np.repeat(np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., np.newaxis], 3, axis=3)
    found = as_pairs(train, train_labels) + as_pairs(test, test_labels)
    assert sorted(found) == as_pairs(padded, np.searchsorted([3, 5, 9], labels))


def test_rows_without_labels_are_read_in_their_order(tmp_path: Path) -> None:
    (tmp_path / 'test.csv').write_bytes(digits_csv('test', labelled=False))
    rows = digits.read_rows(str(tmp_path / 'test.csv'))
    assert rows.labels is None
    np.testing.assert_array_equal(rows.images, DIGITS['test'][0])


def changed(line: int, column: int, cell: str) -> bytes:
    rows = [row.split(',') for row in digits_csv('train').decode().split('\n')]
    rows[line - 1][column - 1] = cell
    return '\n'.join(map(','.join, rows)).encode()


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (changed(3, 5, ''), 'line 3, column 5: empty; expected a pixel, 0 to 255'),
        (changed(4, 785, 'NaN'), "line 4, column 785: found 'NaN'; expected a pixel, 0 to 255"),
        (changed(2, 2, '256'), "line 2, column 2: found '256'; expected a pixel, 0 to 255"),
        (changed(2, 2, '-1'), "line 2, column 2: found '-1'; expected a pixel"),
        (changed(2, 2, '1.5'), "line 2, column 2: found '1.5'; expected a pixel"),
        (changed(9, 1, 'seven'), "line 9, column 1: found 'seven'; expected a label"),
        (changed(9, 1, ''), 'line 9, column 1: empty; expected a label'),
        (changed(9, 1, '1,2'), 'line 9: found 786 columns; expected 785, as in the first line'),
        (digits_csv('train')[:7000], 'line 2: found .* columns; expected 785|line 2, column'),
        (digits_csv('train').split(b'\n')[0] + b'\n', 'holds no images; expected a CSV file'),
        (digits_csv('train') + b'\xff', 'not UTF-8 text'),
    ],
)
def test_what_is_no_pixel_or_label_is_named_by_line_and_column(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / 'train.csv').write_bytes(content)
    with pytest.raises(UserError, match=f'train.csv: ({message})'):
        convert(tmp_path / 'train.csv', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
