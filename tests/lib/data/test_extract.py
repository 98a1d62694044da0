"""Records as pictures, and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cifar10_data
from cifar10_data import DataSettings
from cifar10_lib.base.errors import UserError
from cifar10_lib.data.extract import folder_names
from cifar10_lib.data.framing import Framing
from cifar10_lib.data.sources.base import Options
from tests.helpers.data_sets import as_pairs, check, convert, save
from tests.helpers.samples import tree


@pytest.mark.parametrize('size', [32, 48])
def test_what_is_extracted_and_converted_is_the_same_set(tmp_path: Path, size: int) -> None:
    options = Options(Framing(size))
    for label, name in enumerate(('cat', 'dog $x$')):
        save(tmp_path / 'in' / name, label, range(6))
    convert(tmp_path / 'in', tmp_path / 'first', options=options)
    cifar10_data.main(
        DataSettings(('extract', str(tmp_path / 'pictures')), str(tmp_path / 'first'))
    )
    convert(tmp_path / 'pictures', tmp_path / 'second', options=options)
    first, second = (check(tmp_path / name, ['cat', 'dog $x$']) for name in ('first', 'second'))
    assert as_pairs(*first[:2]) == as_pairs(*second[:2])
    assert as_pairs(*first[2:]) == as_pairs(*second[2:])


def test_pictures_are_numbered_as_their_records(tmp_path: Path, records: Path) -> None:
    output = tmp_path / 'out'
    cifar10_data.main(DataSettings(('extract', str(output)), str(records), 'cifar10'))
    assert sum(name.endswith('.png') for name in tree(output)) == 85
    # The training record at place i begins its image with byte i.
    for path in (output / 'train').rglob('*.png'):
        assert np.asarray(Image.open(path))[0, 0, 0] == int(path.stem)
    assert len(list((output / 'test').iterdir())) == 10


def test_no_name_leads_out_of_the_folder() -> None:
    names = folder_names(['a/b', 'a_b', '..', '.x', 'c\\d', 'plain'])
    assert names == ['a_b', '1 a_b', '2 ..', '3 .x', 'c_d', 'plain']


def test_an_output_that_is_there_is_kept(tmp_path: Path, records: Path) -> None:
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'precious').touch()
    with pytest.raises(UserError, match='out: is in the way'):
        cifar10_data.main(DataSettings(('extract', str(tmp_path / 'out')), str(records)))
    with pytest.raises(UserError, match='found 0 paths after extract; expected: extract FOLDER'):
        cifar10_data.main(DataSettings(('extract',), str(records)))
