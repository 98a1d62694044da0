"""Files, written and read so that nothing is lost or half done."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator

from cifar10_lib.base.errors import UserError, os_errors_named

_CHUNK_BYTES = 1 << 20

# There, a folder can't be opened, nor a file be synced that is only read.
_ON_WINDOWS = os.name == 'nt'


def sync(*paths: str) -> None:
    """Makes sure that the files and folders are on the disk, not just on their way to it.

    Raises:
      OSError: one is missing or cannot be written.
    """
    for path in paths:
        if _ON_WINDOWS and os.path.isdir(path):
            continue
        descriptor = os.open(path, os.O_RDWR if _ON_WINDOWS else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace_text(path: str, text: str) -> None:
    """Writes a file at once: a crash at any moment leaves the old one or the new one, complete.

    Raises:
      OSError: it cannot be written.
    """
    temporary = f'{path}.tmp'
    try:
        with open(temporary, 'w', encoding='utf-8') as file:
            file.write(text)
        sync(temporary)
        os.replace(temporary, path)
        sync(os.path.dirname(path) or '.')
    except OSError:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def matching(folder: str, pattern: str) -> list[str]:
    """Paths of the files in `folder` whose names match `pattern`, in the order of names."""
    return sorted(glob.glob(os.path.join(glob.escape(folder), pattern)))


def digest(path: str, algorithm: str = 'sha256') -> str:
    """The file's digest in hexadecimal; 184 MB take 0.1 s by SHA-256.

    Raises:
      OSError: it cannot be read.
    """
    hashed = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, 'rb') as file:
        while chunk := file.read(_CHUNK_BYTES):
            hashed.update(chunk)
    return hashed.hexdigest()


# For class names, digests and the synthetic set's marker, which have a few hundred bytes.
MAX_TEXT_BYTES = 1 << 20


def regular_size(path: str, expected: str) -> int:
    """Size of a regular file in bytes. To open a pipe or a device could take for ever.

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
    """The content of a small text file; bytes that are not UTF-8 become U+FFFD."""
    size = regular_size(path, expected)
    if size > MAX_TEXT_BYTES:
        raise UserError(f'{path}: has {size:,} bytes; {expected}')
    with os_errors_named(path), open(path, encoding='utf-8', errors='replace') as file:
        return file.read(MAX_TEXT_BYTES)


@contextlib.contextmanager
def filled_directory(directory: str) -> Iterator[str]:
    """A temporary directory that becomes `directory` by one rename at the end of `with`.

    So `directory` is complete or not there. On failure the temporary directory is
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
