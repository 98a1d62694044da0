"""What must stay as it is while a run is under way: its folder, and the files it reads."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cifar10_lib.base import locks
from cifar10_lib.base import watch as watch_module
from cifar10_lib.base.errors import UserError
from tests.helpers.scripts import REPOSITORY

HOLDER = """
import sys, time
from cifar10_lib.base import locks
from cifar10_lib.base import watch as watch_module
with locks.hold(sys.argv[1], '--train_dir'):
    print('held', flush=True)
    time.sleep(60)
"""

pytest.importorskip('fcntl')


def test_a_second_process_is_kept_out_and_told_of_the_first(tmp_path: Path) -> None:
    command = [sys.executable, '-c', HOLDER, str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as first:
        assert first.stdout and first.stdout.readline() == b'held\n'
        with (
            pytest.raises(UserError) as error,
            locks.hold(str(tmp_path), '--train_dir'),
        ):
            pass
        message = str(error.value)
        assert f'--train_dir={tmp_path}: in use by process {first.pid} on ' in message
        # However it ends.
        first.send_signal(signal.SIGKILL)
    with locks.hold(str(tmp_path), '--train_dir') as check:
        check()


def test_a_folder_can_be_held_again(tmp_path: Path) -> None:
    for _ in range(2):
        with locks.hold(str(tmp_path), '--train_dir') as check:
            check()


@pytest.mark.parametrize('replaced', [False, True])
def test_a_folder_that_vanishes_is_noticed(tmp_path: Path, replaced: bool) -> None:
    folder = tmp_path / 'run'
    folder.mkdir()
    with locks.hold(str(folder), '--train_dir') as check:
        shutil.rmtree(folder)
        if replaced:
            folder.mkdir()
            (folder / locks.LOCK_FILE).write_text('')
        with pytest.raises(UserError, match=f'--train_dir={folder}: was removed or replaced'):
            check()


def test_a_missing_folder_cannot_be_held(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match='--train_dir=.*missing: cannot be written: No such file'),
        locks.hold(str(tmp_path / 'missing'), '--train_dir'),
    ):
        pass


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    path = tmp_path / 'data_batch_1.bin'
    path.write_bytes(bytes(1000))
    return path


def test_unchanged_files_pass(watched: Path) -> None:
    watch = watch_module.Watch([str(watched)])
    digest = watch.digest()
    os.utime(watched, (1, 1))
    watched.chmod(0o600)
    watch.check()
    # A copy in its place is as good.
    copy = watched.with_name('copy')
    copy.write_bytes(bytes(1000))
    copy.replace(watched)
    watch.check()
    assert watch_module.Watch([str(watched)]).digest() == digest


@pytest.mark.parametrize('content', [bytes(999), bytes(999) + b'x', b''])
def test_a_changed_file_is_named(watched: Path, content: bytes) -> None:
    watch = watch_module.Watch([str(watched)])
    times = watched.stat()
    watched.write_bytes(content)
    # Not even where its time says otherwise.
    os.utime(watched, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(UserError) as error:
        watch.check()
    assert f'{watched}: changed while it was read: found {len(content):,} bytes' in str(error.value)
    assert watch_module.Watch([str(watched)]).digest() != watch.digest()


def test_a_file_that_goes_away_is_named(watched: Path) -> None:
    watch = watch_module.Watch([str(watched)])
    watched.unlink()
    with pytest.raises(UserError, match=f'{watched}: cannot be read any more: No such file'):
        watch.check()


def test_looks_are_seldom(watched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watch_module.Watch([str(watched)])
    watched.write_bytes(b'')
    watch.check_now_and_then()
    later = watch_module.time.monotonic() + 1
    monkeypatch.setattr(watch_module.time, 'monotonic', lambda: later)
    with pytest.raises(UserError):
        watch.check_now_and_then()
