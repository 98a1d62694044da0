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
        return files.sha256_of(path)
    except OSError as error:
        raise UserError(f'{path}: cannot be read any more: {error.strerror}') from error


def _in_words(nanoseconds: int) -> str:
    return datetime.datetime.fromtimestamp(nanoseconds / 1e9).isoformat(sep=' ')
