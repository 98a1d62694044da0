"""Parquet files as Hugging Face has them, where PyArrow is installed."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cifar10_lib.base.errors import UserError
from tests.helpers.data_sets import (
    DIGITS,
    as_pairs,
    check,
    check_digits,
    convert,
    pairs,
    picture,
    png,
    write_all,
)


def table(columns: dict[str, Any], names: dict[str, list[str]] | None = None) -> bytes:
    pyarrow = pytest.importorskip('pyarrow')
    parquet = pytest.importorskip('pyarrow.parquet')
    made = pyarrow.table(columns)
    if names:
        features = {column: {'names': each} for column, each in names.items()}
        info = json.dumps({'info': {'features': features}})
        made = made.replace_schema_metadata({'huggingface': info})
    buffer = io.BytesIO()
    parquet.write_table(made, buffer, row_group_size=2)
    return buffer.getvalue()


def cell(label: int, number: int) -> dict[str, Any]:
    return {'bytes': png(picture(label, number)), 'path': None}


def test_cifar10_as_hugging_face_has_it(tmp_path: Path) -> None:
    contents = {}
    for part, numbers in (('train', range(10)), ('test', range(10, 14))):
        labels = [number % 2 for number in numbers]
        columns = {'img': [cell(number % 2, number) for number in numbers], 'label': labels}
        content = table(columns, {'label': ['airplane', 'bird']})
        contents[f'plain_text/{part}-00000-of-00001.parquet'] = content
    folder = write_all(tmp_path / 'in', contents) / 'plain_text'
    convert(folder, tmp_path / 'out')
    found = check(tmp_path / 'out', ['airplane', 'bird'])
    assert as_pairs(*found[:2]) == sorted(pairs(0, range(0, 10, 2)) + pairs(1, range(1, 10, 2)))
    assert as_pairs(*found[2:]) == sorted(pairs(0, [10, 12]) + pairs(1, [11, 13]))


def test_grey_digits_stand_in_the_middle(tmp_path: Path) -> None:
    contents = {}
    for part, (images, labels) in DIGITS.items():
        cells = [{'bytes': png(image), 'path': None} for image in images]
        columns = {'image': cells, 'label': labels.tolist()}
        contents[f'data/{part}-00000-of-00001.parquet'] = table(columns)
    convert(write_all(tmp_path / 'in', contents), tmp_path / 'out')
    check_digits(tmp_path / 'out')


@pytest.mark.parametrize(
    ('columns', 'message'),
    [
        ({'image': [b'x'], 'x': [1]}, 'found the columns image, x; expected the columns image'),
        ({'image': [b'x'], 'label': ['a']}, 'label: found <U1 values; expected the columns'),
        ({'image': [1], 'label': [1]}, 'row 0: holds no picture'),
    ],
)
def test_other_tables_are_named(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    (tmp_path / 'x.parquet').write_bytes(table(columns))
    with pytest.raises(UserError, match=rf'x\.parquet: {message}'):
        convert(tmp_path / 'x.parquet', tmp_path / 'out')


def test_damage_is_named(tmp_path: Path) -> None:
    content = table({'image': [b'x'], 'label': [1]})
    (tmp_path / 'x.parquet').write_bytes(content[:-20])
    with pytest.raises(UserError, match=r'x\.parquet: cannot be read: '):
        convert(tmp_path / 'x.parquet', tmp_path / 'out')


def test_a_missing_pyarrow_is_named_with_its_pip_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    (tmp_path / 'x.parquet').touch()
    with pytest.raises(UserError, match='by pyarrow, which is missing: pip install pyarrow'):
        convert(tmp_path / 'x.parquet', tmp_path / 'out')


def test_pixels_are_those_of_the_picture() -> None:
    assert np.ptp(picture(0, 0)) > 100
