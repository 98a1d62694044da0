"""Locks on folders. The operating system releases them when the process ends, however it ends.

Some network file systems know no locks: there, and on Windows, nobody is kept out.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shlex
import socket
import sys
from collections.abc import Callable, Iterator

from cifar10_lib.base.errors import UserError, os_errors_named

try:
    import fcntl
except ImportError:  # Windows: nobody is kept out there.
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = 'lock'


@contextlib.contextmanager
def hold(folder: str, flag: str) -> Iterator[Callable[[], None]]:
    """Keeps out other processes that want to hold the folder, until the end of `with`.

    Args:
      folder: an existing folder.
      flag: that names it, for errors.

    Yields:
      A function that raises UserError if the folder isn't there any more, or is another.

    Raises:
      UserError: another process holds it, which is named; or it cannot be written.
    """
    descriptor = _open_lock_file(folder, flag)

    def check() -> None:
        try:
            found = os.stat(os.path.join(folder, LOCK_FILE))
        except OSError:
            found = None
        if found is None or not os.path.samestat(found, os.fstat(descriptor)):
            raise UserError(
                f'{flag}={folder}: was removed or replaced while in use; nothing more is '
                'written there'
            )

    try:
        yield check
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def turn(folder: str, waiting: str = '') -> Iterator[None]:
    """Waits until no other process is in `with` for the folder, and keeps others waiting.

    Args:
      folder: an existing folder.
      waiting: is printed where there is something to wait for.
    """
    if fcntl is None:
        yield
        return
    with os_errors_named(folder):
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            if not _lock(descriptor):
                print(waiting, end='\n' if waiting else '')
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def try_hold(folder: str) -> Iterator[bool | None]:
    """Locks the folder itself until the end of `with`.

    Yields:
      False where another process has it locked; None where there are no locks.

    Raises:
      OSError: it can't be opened.
    """
    if fcntl is None:
        yield None
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        is_free = None
        with contextlib.suppress(OSError):  # A file system that knows no locks.
            is_free = _lock(descriptor)
        yield is_free
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Locks an open file or folder; False where another process has locked it.

    Raises:
      OSError: the file system knows no locks.
    """
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_lock_file(folder: str, flag: str) -> int:
    """Locks the folder's lock file and writes this process into it; its open descriptor."""
    descriptor = None
    try:
        descriptor = os.open(os.path.join(folder, LOCK_FILE), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            locked = _lock(descriptor)
        except OSError:
            locked = True
            print(f'Warning: {folder} cannot be locked: start no second run there', file=sys.stderr)
        if not locked:
            holder = os.fsdecode(os.read(descriptor, 4096)).strip()
            raise UserError(
                f'{flag}={folder}: in use by {holder or "another process"}; wait until it has '
                'ended, stop it, or name another folder'
            )
        os.ftruncate(descriptor, 0)
        os.write(descriptor, os.fsencode(_this_process()))
    except (OSError, UserError) as error:
        if descriptor is not None:
            os.close(descriptor)
        if isinstance(error, UserError):
            raise
        raise UserError(f'{flag}={folder}: cannot be written: {error.strerror}') from error
    return descriptor


def _this_process() -> str:
    started = datetime.datetime.now().isoformat(sep=' ', timespec='seconds')
    return (
        f'process {os.getpid()} on {socket.gethostname()}, started {started}: '
        f'{shlex.join(sys.argv)}\n'
    )
