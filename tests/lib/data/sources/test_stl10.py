"""STL-10: columns before rows, labels from 1 on, 96 x 96 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cifar10_lib.base.errors import UserError
from cifar10_lib.data import photos
from cifar10_lib.data.framing import Framing
from cifar10_lib.data.sources.base import Options
from tests.helpers.data_sets import (
    STL10_IMAGES,
    STL10_LABELS,
    STL10_NAMES,
    as_pairs,
    check,
    convert,
    stl10_files,
    write_all,
)


@pytest.mark.parametrize('size', [32, 96])
def test_images_are_scaled_or_stay(tmp_path: Path, size: int) -> None:
    framing = Framing(size)
    convert(write_all(tmp_path / 'in', stl10_files()), tmp_path / 'out', options=Options(framing))
    found = check(tmp_path / 'out', STL10_NAMES)
    expected = np.stack([photos.from_array(image, framing, '') for image in STL10_IMAGES])
    assert expected.shape == (9, size, size, 3)
    if size == 96:
        np.testing.assert_array_equal(expected, STL10_IMAGES)
    assert as_pairs(*found[:2]) == as_pairs(expected[:6], STL10_LABELS[:6])
    assert as_pairs(*found[2:]) == as_pairs(expected[6:], STL10_LABELS[6:])


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('train_X.bin', bytes(27649), 'train_X.bin: has 27,649 bytes; expected a whole number'),
        ('test_y.bin', b'\1\2', 'test_y.bin: holds 2 labels; expected 3, one for each image'),
        ('test_y.bin', b'\1\4\1', 'test_y.bin: byte 1: label 4; expected 1 to 3'),
        ('test_y.bin', b'\0\1\1', 'test_y.bin: byte 0: label 0; expected 1 to 3'),
        ('class_names.txt', b'', 'class_names.txt: holds no class names'),
    ],
)
def test_damage_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    folder = write_all(tmp_path / 'in', {**stl10_files(), name: content})
    with pytest.raises(UserError, match=message):
        convert(folder, tmp_path / 'out')
