"""How files are written and read so that nothing is lost."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

import pytest

from cifar10_lib.base import files
from cifar10_lib.base.errors import UserError


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


def test_a_folder_that_cannot_be_synced_is_passed_over_and_a_file_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on SMB and FUSE."""
    failing: list[bool] = []

    def fail(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) in failing:
            raise OSError(errno.EINVAL, 'Invalid argument')

    monkeypatch.setattr(os, 'fsync', fail)
    failing = [True]
    files.replace_text(str(tmp_path / 'file'), 'new')
    assert (tmp_path / 'file').read_text() == 'new'
    failing = [False]
    with pytest.raises(OSError, match='Invalid argument'):
        files.replace_text(str(tmp_path / 'file'), 'newer')
    assert (tmp_path / 'file').read_text() == 'new'


def test_of_a_link_the_file_that_it_names_is_replaced(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('old')
    (tmp_path / 'link').symlink_to('file')
    files.replace_text(str(tmp_path / 'link'), 'new')
    assert (tmp_path / 'link').is_symlink() and (tmp_path / 'file').read_text() == 'new'


def test_a_link_to_nowhere_is_called_one(tmp_path: Path) -> None:
    link = tmp_path / 'link'
    link.symlink_to(tmp_path / 'unmounted' / 'run')
    message = re.escape(f'--output={link}: a link to {tmp_path}/unmounted/run, which is missing')
    with pytest.raises(UserError, match=message):
        files.make_folder(str(link), '--output')
    assert not (tmp_path / 'unmounted').exists()


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


@pytest.mark.parametrize(
    ('content', 'found'),
    [(b'\xef\xbb\xbfa\r\nb', 'a\nb'), ('ü\n'.encode(), 'ü\n'), (b'', '')],
)
def test_text_is_read_without_its_mark_and_in_any_line_ends(
    tmp_path: Path, content: bytes, found: str
) -> None:
    (tmp_path / 'file').write_bytes(content)
    assert files.read_text(str(tmp_path / 'file'), 'expected text') == found


def test_what_is_not_utf8_is_called_that(tmp_path: Path) -> None:
    (tmp_path / 'file').write_bytes(b'ab\xff')
    with pytest.raises(UserError, match='file: byte 2 is not UTF-8'):
        files.read_text(str(tmp_path / 'file'), 'expected text')


# ------------------------------------------------------------------------------
# Filled directories.


def fill(directory: Path, name: str = 'file') -> None:
    with files.filled_directory(str(directory)) as temporary:
        Path(temporary, name).write_text(name)


def test_a_filled_directory_appears_whole_with_the_usual_rights(tmp_path: Path) -> None:
    (tmp_path / 'plain').mkdir()
    fill(tmp_path / 'new' / 'out')
    assert os.listdir(tmp_path / 'new') == ['out'] and os.listdir(tmp_path / 'new/out') == ['file']
    assert (tmp_path / 'new/out').stat().st_mode == (tmp_path / 'plain').stat().st_mode
    fill(tmp_path / 'plain')
    assert os.listdir(tmp_path / 'plain') == ['file']


def test_a_link_is_filled_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / 'real').mkdir()
    (tmp_path / 'link').symlink_to('real')
    fill(tmp_path / 'link')
    assert (tmp_path / 'link').is_symlink() and os.listdir(tmp_path / 'real') == ['file']


def test_a_second_process_is_refused_before_it_works(tmp_path: Path) -> None:
    with files.filled_directory(str(tmp_path / 'out')) as temporary:
        Path(temporary, 'first').write_text('')
        with pytest.raises(UserError, match='out: another process is filling it'):
            fill(tmp_path / 'out')
    assert os.listdir(tmp_path / 'out') == ['first'] and os.listdir(tmp_path) == ['out']


def test_a_mount_point_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, 'ismount', lambda path: path.endswith('out'))
    with pytest.raises(UserError, match=r'out: is a mount point.*, as .*out/data'):
        fill(tmp_path / 'out')
    assert os.listdir(tmp_path) == []


def test_what_was_made_is_kept_where_the_directory_was_filled_meanwhile(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match='Directory not empty when all was done; the complete') as it,
        files.filled_directory(str(tmp_path / 'out')) as temporary,
    ):
        Path(temporary, 'file').write_text('')
        (tmp_path / 'out').mkdir()
        (tmp_path / 'out' / 'precious').write_text('')
    assert os.listdir(tmp_path / 'out') == ['precious']
    assert os.listdir(str(it.value).rpartition(' ')[2]) == ['file']


def test_a_directory_is_replaced_once_the_new_one_is_complete(tmp_path: Path) -> None:
    out = tmp_path / 'out'
    fill(out, 'old')
    with files.filled_directory(str(out), ['old', 'file']) as temporary:
        Path(temporary, 'file').write_text('')
        assert os.listdir(out) == ['old']
    assert os.listdir(out) == ['file'] and os.listdir(tmp_path) == ['out']
    with (
        pytest.raises(RuntimeError),
        files.filled_directory(str(out), ['file']) as temporary,
    ):
        raise RuntimeError
    assert os.listdir(out) == ['file'] and os.listdir(tmp_path) == ['out']


def test_a_directory_that_holds_something_else_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / 'out'
    fill(out, 'precious')
    with (
        pytest.raises(UserError, match='out: is in the way'),
        files.filled_directory(str(out), ['file']),
    ):
        pytest.fail('it began')
    (out / 'precious').unlink()
    with (
        pytest.raises(UserError, match='Directory not empty when all was done'),
        files.filled_directory(str(out), ['file']),
    ):
        (out / 'precious').write_text('')
    assert os.listdir(out) == ['precious']


def test_the_old_directory_is_back_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, rename = tmp_path / 'out', os.rename
    fill(out)

    def fail_to_finish(source: str, target: str) -> None:
        if '.unfinished' in source and target == str(out):
            raise PermissionError(13, 'Permission denied')
        rename(source, target)

    monkeypatch.setattr(os, 'rename', fail_to_finish)
    with (
        pytest.raises(UserError, match='Permission denied when all was done'),
        files.filled_directory(str(out), ['file']),
    ):
        pass
    assert os.listdir(out) == ['file']


def test_an_output_among_the_inputs_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'in').mkdir()
    for name in ('in/me.png', 'other.png'):
        (tmp_path / name).write_text('')
    (tmp_path / 'link').symlink_to('in')
    (tmp_path / 'hard.png').hardlink_to(tmp_path / 'other.png')
    inputs = [str(tmp_path / 'in'), str(tmp_path / 'other.png')]
    for output in ('in/new.png', 'link/new.png', 'other.png', 'hard.png', 'in'):
        with pytest.raises(UserError, match=f'--output={tmp_path / output}: (lies|is also)'):
            files.refuse_among(str(tmp_path / output), inputs, '--output')
    files.refuse_among(str(tmp_path / 'into.png'), inputs, '--output')
