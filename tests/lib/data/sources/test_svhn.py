"""Street view house numbers, where SciPy is installed."""

from __future__ import annotations

import builtins
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cifar10_lib.base.errors import UserError
from tests.helpers.data_sets import as_pairs, check, convert, write_all

IMAGES = np.random.default_rng(0).integers(0, 256, [12, 32, 32, 3], np.uint8)
DIGITS = np.arange(12) % 3


def files() -> dict[str, bytes]:
    savemat = pytest.importorskip('scipy.io').savemat
    contents = {}
    for part, places in (('train', slice(9)), ('test', slice(9, 12))):
        buffer = io.BytesIO()
        # The digit 0 has the label 10.
        labels = np.where(DIGITS[places] == 0, 10, DIGITS[places]).reshape(-1, 1)
        savemat(buffer, {'X': IMAGES[places].transpose(1, 2, 3, 0), 'y': labels.astype(np.uint8)})
        contents[f'{part}_32x32.mat'] = buffer.getvalue()
    return contents


def test_the_label_10_is_the_digit_0(tmp_path: Path) -> None:
    convert(write_all(tmp_path / 'in', files()), tmp_path / 'out')
    found = check(tmp_path / 'out', ['0', '1', '2'])
    assert as_pairs(*found[:2]) == as_pairs(IMAGES[:9], DIGITS[:9])
    assert as_pairs(*found[2:]) == as_pairs(IMAGES[9:], DIGITS[9:])


def test_damage_is_named(tmp_path: Path) -> None:
    contents = files()
    for content in (b'', contents['test_32x32.mat'][:5000]):
        folder = write_all(tmp_path / 'in', {**contents, 'test_32x32.mat': content})
        with pytest.raises(UserError, match='test_32x32.mat: cannot be read: .*; expected SVHN'):
            convert(folder, tmp_path / 'out')


def test_a_missing_scipy_is_named_with_its_pip_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_module = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.startswith('scipy'):
            raise ImportError(name)
        return import_module(name, *arguments)

    monkeypatch.setattr(builtins, '__import__', without)
    folder = write_all(tmp_path / 'in', {'train_32x32.mat': b'', 'test_32x32.mat': b''})
    with pytest.raises(UserError, match='is read by scipy, which is missing: pip install scipy'):
        convert(folder, tmp_path / 'out')
