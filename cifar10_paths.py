"""How does trouble with a file become one clear error, with nothing left half done?"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator

from cifar10_settings import UserError

# For class names, digests and the synthetic set's marker, which have a few hundred bytes.
MAX_TEXT_BYTES = 1 << 20


@contextlib.contextmanager
def os_errors_named(path: str) -> Iterator[None]:
    """Turns an OSError into a UserError that names its file, or else `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(f'{error.filename or path}: {error.strerror or error}') from error


def regular_size(path: str, expected: str) -> int:
    """Bytes in a regular file. To open a pipe or a device could take for ever.

    Raises:
      UserError: there is no regular file; `expected` says what should be there.
    """
    with os_errors_named(path):
        try:
            status = os.stat(path)
        except FileNotFoundError:
            found = 'a link to nowhere' if os.path.islink(path) else 'missing'
            raise UserError(f'{path}: {found}; {expected}') from None
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f'{path}: not a regular file; {expected}')
    return status.st_size


def read_text(path: str, expected: str) -> str:
    """A small text file; what is not UTF-8 becomes U+FFFD."""
    size = regular_size(path, expected)
    if size > MAX_TEXT_BYTES:
        raise UserError(f'{path}: has {size:,} bytes; {expected}')
    with os_errors_named(path), open(path, encoding='utf-8', errors='replace') as file:
        return file.read(MAX_TEXT_BYTES)


@contextlib.contextmanager
def filled_directory(directory: str) -> Iterator[str]:
    """A temporary directory that becomes `directory`, by one rename, when it is filled.

    So `directory` is whole or not there. On failure the temporary directory is
    removed; one that a killed process left is removed the next time.
    """
    parent, name = os.path.split(os.path.abspath(directory))
    temporary = os.path.join(parent, f'.{name}.unfinished')
    with os_errors_named(directory):
        if os.path.lexists(temporary):
            shutil.rmtree(temporary)
        if os.path.lexists(directory) and (not os.path.isdir(directory) or os.listdir(directory)):
            raise UserError(f'{directory}: is in the way, and is not overwritten: move it away')
        os.makedirs(temporary)
        try:
            yield temporary
            os.rename(temporary, directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
