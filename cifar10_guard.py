"""What must stay as it is while a run is under way? Its folder, and the files it reads."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import cifar10_files
from cifar10_settings import UserError

try:
    import fcntl
except ImportError:  # Windows: nobody is kept out there.
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = 'lock'

# Between two looks at watched files. A look costs 2 microseconds a file.
_SECONDS_BETWEEN_LOOKS = 1.0


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


class _State(NamedTuple):
    """What changes when a file is written to, or another takes its place."""

    size: int
    inode: int
    modified: int
    changed: int


class Watch:
    """Sees when the content of files changes under their reader.

    A look compares sizes and times. Only where they differ are the contents compared, so
    that a copy or a change of rights goes unmentioned.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        """Raises UserError if one of the files cannot be read."""
        self._states = {path: _state_of(path) for path in paths}
        self._digests = {path: _sha256_of(path) for path in paths}
        self._last_look = time.monotonic()

    def digest(self) -> str:
        """One SHA-256 of the files' contents, in their order; in hexadecimal."""
        return hashlib.sha256('\n'.join(self._digests.values()).encode()).hexdigest()

    def check(self) -> None:
        """Raises UserError if a file has changed; names it."""
        self._last_look = time.monotonic()
        for path, before in self._states.items():
            now = _state_of(path)
            if now != before and _sha256_of(path) != self._digests[path]:
                raise UserError(
                    f'{path}: changed while it was read: found {now.size:,} bytes, written '
                    f'{_in_words(now.modified)}; expected the {before.size:,} bytes that were '
                    f'written {_in_words(before.modified)}'
                )
            self._states[path] = now

    def check_now_and_then(self) -> None:
        """As `check`, at most once a second."""
        if time.monotonic() - self._last_look >= _SECONDS_BETWEEN_LOOKS:
            self.check()


def _state_of(path: str) -> _State:
    try:
        found = os.stat(path)
    except OSError as error:
        raise UserError(f'{path}: cannot be read any more: {error.strerror}') from error
    return _State(found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)


def _sha256_of(path: str) -> str:
    try:
        return cifar10_files.sha256_of(path)
    except OSError as error:
        raise UserError(f'{path}: cannot be read any more: {error.strerror}') from error


def _in_words(nanoseconds: int) -> str:
    return datetime.datetime.fromtimestamp(nanoseconds / 1e9).isoformat(sep=' ')
