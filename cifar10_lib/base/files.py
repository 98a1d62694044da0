"""Files, written and read so that nothing is lost or half done."""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import glob
import hashlib
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Container, Iterable, Iterator

from cifar10_lib.base import locks
from cifar10_lib.base.errors import UserError, os_errors_named, write_errors_named

_CHUNK_BYTES = 1 << 20

# There, a folder can't be opened, nor a file be synced that is only read.
_ON_WINDOWS = os.name == 'nt'

# Of network file systems, shared folders and FUSE, where a folder can't be synced.
_NO_SYNC_OF_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)


def sync(*paths: str) -> None:
    """Makes sure that the files and folders are on the disk, not just on their way to it.

    Raises:
      OSError: one is missing or cannot be written.
    """
    for path in paths:
        is_folder = os.path.isdir(path)
        if _ON_WINDOWS and is_folder:
            continue
        descriptor = os.open(path, os.O_RDWR if _ON_WINDOWS else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if not is_folder or error.errno not in _NO_SYNC_OF_FOLDERS:
                raise
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def replaced(path: str) -> Iterator[str]:
    """The name of a new file that takes the place of `path` at the end of `with`.

    So a failure or crash at any moment leaves the old file or the new one, complete. Of a link,
    the file that it names is replaced.

    Raises:
      OSError: it cannot be written.
    """
    path = os.path.realpath(path)
    # Of its own for each process, and with the ending that tells the format of a picture.
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f'.{os.getpid()}.{name}')
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(folder)
    finally:
        with contextlib.suppress(OSError):
            os.remove(temporary)


def replace_text(path: str, text: str) -> None:
    """Writes a file at once, as UTF-8; what that lacks as an escape. See `replaced`.

    Raises:
      OSError: it cannot be written.
    """
    with (
        replaced(path) as temporary,
        open(temporary, 'w', encoding='utf-8', errors='backslashreplace') as file,
    ):
        file.write(text)


def make_folder(folder: str, flag: str) -> None:
    """Makes a folder, and those above it, unless it is there.

    Raises:
      UserError: that can't be done; names the flag.
    """
    refuse_dangling_link(folder, flag)
    with write_errors_named(f'{flag}={folder}'):
        os.makedirs(folder, exist_ok=True)


def refuse_dangling_link(path: str, flag: str) -> None:
    """Raises UserError for a link to nowhere; what it names may be on a disk that isn't mounted."""
    if os.path.islink(path) and not os.path.exists(path):
        raise UserError(f'{flag}={path}: a link to {os.readlink(path)}, which is missing')


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


def utf8_name(path: str) -> str:
    """A name for TensorFlow, which knows none that is not UTF-8, of a folder or a file to write.

    That is its own, or one through a link that goes when the process ends: to the file's folder, or
    to a folder whose own name is none.
    """
    if _is_utf8(path):
        return path
    folder, name = os.path.split(path)
    if not _is_utf8(name):
        return _link_to(os.path.abspath(path))
    return os.path.join(_link_to(os.path.abspath(folder)), name)


def _is_utf8(path: str) -> bool:
    with contextlib.suppress(UnicodeEncodeError):
        path.encode()
        return True
    return False


@functools.cache
def _link_to(folder: str) -> str:
    links = tempfile.TemporaryDirectory()
    atexit.register(links.cleanup)
    link = os.path.join(links.name, 'folder')
    os.symlink(folder, link)
    return link


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
    """The content of a small text file in UTF-8, without a byte order mark.

    Raises:
      UserError: it isn't there, is too large, or isn't UTF-8.
    """
    size = regular_size(path, expected)
    if size > MAX_TEXT_BYTES:
        raise UserError(f'{path}: has {size:,} bytes; {expected}')
    with os_errors_named(path), open(path, 'rb') as file:
        return decode_text(file.read(MAX_TEXT_BYTES), path)


def decode_text(content: bytes, path: str) -> str:
    """Text of a file's bytes; `path` is for the error where they aren't UTF-8."""
    try:
        return io.TextIOWrapper(io.BytesIO(content), encoding='utf-8-sig').read()
    except UnicodeDecodeError as error:
        raise UserError(
            f'{path}: byte {error.start:,} is not UTF-8; save the file as UTF-8 text'
        ) from error


def refuse_among(output: str, inputs: Iterable[str], flag: str) -> None:
    """Raises UserError where a file to write is one of the inputs, or lies in one of them."""
    written = os.path.realpath(output)
    for path in inputs:
        read = os.path.realpath(path)
        is_same = os.path.exists(written) and os.path.exists(read)
        if written.startswith(os.path.join(read, '')):
            raise UserError(f'{flag}={output}: lies within {path}, which is read; name another')
        if written == read or (is_same and os.path.samefile(written, read)):
            raise UserError(f'{flag}={output}: is also read; name another file')


@contextlib.contextmanager
def filled_directory(directory: str, replaceable: Container[str] = ()) -> Iterator[str]:
    """A temporary directory that becomes `directory` by one rename at the end of `with`.

    So `directory` is complete or not there. The temporary directory has a name that no other
    process has, and is locked as long as it is filled: of two processes that would fill one
    directory, the second is refused. On failure it is removed; one that a killed process left
    is removed the next time. Where `directory` is filled meanwhile in another way, what was
    made is kept beside it, and the error names it.

    Args:
      directory: is made; one that is there must be empty.
      replaceable: names of what the directory may hold even so; it is removed, after the
        temporary directory has taken its place.

    Raises:
      UserError: the directory is in the way, is a mount point, is being filled by another
        process, or can't be written.
    """
    # A rename would replace a link, not the folder that it leads to.
    target = os.path.realpath(directory)
    with os_errors_named(directory), contextlib.ExitStack() as stack:
        _check_replaceable(directory, target, replaceable)
        parent, name = os.path.split(target)
        os.makedirs(parent, exist_ok=True)
        prefix = f'.{name}.unfinished'
        for left in matching(parent, f'{glob.escape(prefix)}*'):
            _remove_unfinished(left, directory)
        temporary = tempfile.mkdtemp(prefix=f'{prefix}-', dir=parent)
        stack.callback(shutil.rmtree, temporary, ignore_errors=True)
        # Readable by whom a folder usually is: mkdtemp's is its owner's alone.
        os.chmod(temporary, 0o777 & ~_umask())
        stack.enter_context(locks.try_hold(temporary))
        yield temporary
        try:
            _replace(temporary, target, replaceable)
        except OSError as error:
            kept = tempfile.mkdtemp(prefix=f'{name}-', dir=parent)
            os.rename(temporary, kept)
            raise UserError(
                f'{directory}: {error.strerror} when all was done; the complete folder is {kept}'
            ) from error


def _check_replaceable(directory: str, target: str, replaceable: Container[str]) -> None:
    """Raises UserError where `_replace` would fail."""
    is_folder = os.path.isdir(target)
    if os.path.lexists(target) and not (is_folder and _holds_only(target, replaceable)):
        raise UserError(f'{directory}: is in the way, and is not overwritten: move it away')
    if os.path.ismount(target):
        raise UserError(
            f'{directory}: is a mount point, which can only be filled bit by bit; name a folder '
            f'in it, as {os.path.join(directory, "data")}'
        )


def _replace(temporary: str, target: str, replaceable: Container[str]) -> None:
    """Renames a folder; one that is there is removed after that.

    Raises:
      OSError: what is there has other names than the replaceable, and stays.
    """
    if not os.path.isdir(target) or not os.listdir(target) or not _holds_only(target, replaceable):
        os.rename(temporary, target)
        return
    parent, name = os.path.split(target)
    old = tempfile.mkdtemp(prefix=f'.{name}.replaced-', dir=parent)
    os.rename(target, old)
    try:
        os.rename(temporary, target)
    except OSError:
        os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _holds_only(folder: str, names: Container[str]) -> bool:
    return all(name in names for name in os.listdir(folder))


def _remove_unfinished(path: str, directory: str) -> None:
    """Removes what a killed process left; UserError where a living one is at work."""
    with locks.try_hold(path) as is_free:
        if is_free is False:
            raise UserError(f'{directory}: another process is filling it; wait until it has ended')
        if is_free:
            shutil.rmtree(path)


def _umask() -> int:
    """The process's mask of rights, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
