"""What must stay as it is while a run is under way? Its folder, and the files it reads."""

from __future__ import annotations

import contextlib
import datetime
import os
import shlex
import socket
import sys
from collections.abc import Callable, Iterator

from cifar10_lib.base.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: nobody is kept out there.
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = 'lock'


@contextlib.contextmanager
def hold(folder: str, flag: str) -> Iterator[Callable[[], None]]:
    """Keeps other processes that want to hold the folder out, until the end of `with`.

    The operating system lets go when the process ends, however it ends. Some network
    file systems know no locks: there, and on Windows, nobody is kept out.

    Args:
      folder: it must be there.
      flag: what the user named it by, for errors.

    Yields:
      A function that raises UserError if the folder isn't there any more, or is another.

    Raises:
      UserError: another process holds it, which is named; or it cannot be written.
    """
    descriptor = _lock(folder, flag)

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


def _lock(folder: str, flag: str) -> int:
    """Locks the folder's lock file and writes this process into it; its open descriptor."""
    try:
        descriptor = os.open(os.path.join(folder, LOCK_FILE), os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f'{flag}={folder}: cannot be written: {error.strerror}') from error
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 4096).decode(errors='replace').strip()
        os.close(descriptor)
        raise UserError(
            f'{flag}={folder}: in use by {holder or "another process"}; wait until it has '
            'ended, stop it, or name another folder'
        ) from None
    except OSError:
        print(f'Warning: {folder} cannot be locked: start no second run there', file=sys.stderr)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, _this_process().encode())
    except OSError as error:
        os.close(descriptor)
        raise UserError(f'{flag}={folder}: cannot be written: {error.strerror}') from error
    return descriptor


def _this_process() -> str:
    started = datetime.datetime.now().isoformat(sep=' ', timespec='seconds')
    return (
        f'process {os.getpid()} on {socket.gethostname()}, started {started}: '
        f'{shlex.join(sys.argv)}\n'
    )
