"""Files that must stay as they are while they are read."""

from __future__ import annotations

import datetime
import hashlib
import os
import time
from collections.abc import Sequence
from typing import NamedTuple

from cifar10_lib.base import files
from cifar10_lib.base.errors import UserError

# Between two looks at watched files. A look costs 2 microseconds a file.
_SECONDS_BETWEEN_LOOKS = 1.0


class _State(NamedTuple):
    """Size, inode and times of a file: they change when it is written to or replaced."""

    size: int
    inode: int
    modified: int
    changed: int


class Watch:
    """A watch on files: notices when their content changes under their reader.

    A look compares sizes and times. Only where they differ are the contents compared, so
    that a copy or a change of rights goes unmentioned.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        """Raises UserError if one of the files cannot be read."""
        self._states = {path: _read_state(path) for path in paths}
        self._digests = {path: _digest(path) for path in paths}
        self._last_look = time.monotonic()

    def digest(self) -> str:
        """One SHA-256 of the files' contents, in their order; in hexadecimal."""
        return hashlib.sha256('\n'.join(self._digests.values()).encode()).hexdigest()

    def check(self) -> None:
        """Raises UserError if a file has changed; names it."""
        self._last_look = time.monotonic()
        for path, before in self._states.items():
            now = _read_state(path)
            if now != before and _digest(path) != self._digests[path]:
                raise UserError(
                    f'{path}: changed while it was read: found {now.size:,} bytes, written '
                    f'{_format_time(now.modified)}; expected the {before.size:,} bytes that were '
                    f'written {_format_time(before.modified)}'
                )
            self._states[path] = now

    def check_now_and_then(self) -> None:
        """As `check`, at most once a second."""
        if time.monotonic() - self._last_look >= _SECONDS_BETWEEN_LOOKS:
            self.check()


def _read_state(path: str) -> _State:
    try:
        found = os.stat(path)
    except OSError as error:
        raise UserError(f'{path}: cannot be read any more: {error.strerror}') from error
    return _State(found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)


def _digest(path: str) -> str:
    try:
        return files.digest(path)
    except OSError as error:
        raise UserError(f'{path}: cannot be read any more: {error.strerror}') from error


def _format_time(nanoseconds: int) -> str:
    return datetime.datetime.fromtimestamp(nanoseconds / 1e9).isoformat(sep=' ')
