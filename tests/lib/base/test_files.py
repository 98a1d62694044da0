"""How files are written and read so that nothing is lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cifar10_lib.base import files


def test_replaced_text_is_whole_and_alone(tmp_path: Path) -> None:
    for text in ('first', 'second, ü'):
        files.replace_text(str(tmp_path / 'file'), text)
        assert (tmp_path / 'file').read_text(encoding='utf-8') == text
    assert os.listdir(tmp_path) == ['file']


@pytest.mark.parametrize('step', ['fsync', 'replace'])
def test_a_failed_replacement_leaves_the_old_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    (tmp_path / 'file').write_text('old')

    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match='No space left'):
        files.replace_text(str(tmp_path / 'file'), 'new')
    assert (tmp_path / 'file').read_text() == 'old'
    assert os.listdir(tmp_path) == ['file']


def test_matching_takes_the_folder_as_it_is_written(tmp_path: Path) -> None:
    folder = tmp_path / 'a[b]*'
    folder.mkdir()
    for name in ('x-2', 'x-1', 'y'):
        (folder / name).write_text('')
    found = files.matching(str(folder), 'x-*')
    assert found == [str(folder / 'x-1'), str(folder / 'x-2')]


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / 'file').write_bytes(b'abc')
    # FIPS 180-4, the example of one block.
    expected = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
    assert files.digest(str(tmp_path / 'file')) == expected
    with pytest.raises(FileNotFoundError):
        files.digest(str(tmp_path / 'missing'))
