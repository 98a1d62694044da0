"""Archives, unpacked within bounds: only plain files within one folder, and only so many bytes.

A tar archive is read once, from its first byte to its last. The sizes that an archive states are
not believed: the limits hold for its bytes, and for those that it unpacks to.
"""

from __future__ import annotations

import gzip
import os
import posixpath
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple, cast

from cifar10_input import CIFAR10_RECORD, NUM_CLASSES
from cifar10_lib.base.errors import UserError, os_errors_named
from cifar10_lib.base.files import filled_directory, regular_size
from cifar10_lib.data.datasets import CIFAR10_DIRECTORY
from cifar10_lib.data.record_files import (
    CLASS_NAMES_FILE,
    RECORD_FILES,
    check_file,
    write_sums,
)

# A file of the published set has 30,730,000 bytes. Ten times that leaves room for
# a larger set in the same format, and still keeps an archive from filling the disk.
MAX_MEMBER_BYTES = 10 * 30_730_000

# For an archive as it is downloaded, and for all that it unpacks to: six such files.
MAX_ARCHIVE_BYTES = 2_000_000_000

# For the headers of one member, names and attributes among them.
MAX_TAR_HEADER_BYTES = 8 << 10

_EXPECTED = 'expected a gzipped tar archive'

FETCH_ANEW = 'move the archive away to have it downloaded anew'

_CHUNK_BYTES = 1 << 20

_GZIP, _ZIP = b'\x1f\x8b', b'PK\x03\x04'

# The name of the format stands there in a tar archive.
_TAR, _TAR_PLACE = b'ustar', 257

# What tarfile and the decompressors raise on damaged input; tarfile leaves it to
# int() and the like to stumble over a header.
_DAMAGE = (
    tarfile.TarError,
    EOFError,
    zlib.error,
    ValueError,
    ArithmeticError,
    LookupError,
    RecursionError,
    zipfile.BadZipFile,
    NotImplementedError,  # A method of compression that Python doesn't have.
    RuntimeError,  # A password.
)


class Limits(NamedTuple):
    """Of an archive, in bytes."""

    archive: int
    """Of it, and of all that it unpacks to."""
    member: int
    """Of each file that is taken from it."""
    headers: int
    """Of all headers of a tar archive together."""


CIFAR10_LIMITS = Limits(MAX_ARCHIVE_BYTES, MAX_MEMBER_BYTES, 256 << 10)

# Of archives of pictures: 100,000 files have headers of 51 to 154 MB. STL-10 unpacks to 3 GB.
PICTURES_LIMITS = Limits(8_000_000_000, 3_000_000_000, 512 << 20)

# Gives the path within the folder that a member is unpacked to, by its name; None passes it over.
Choose = Callable[[str], str | None]


def unpack(archive_path: str, data_dir: str) -> str:
    """Unpacks the record files of an archive into data_dir/cifar-10-batches-bin.

    Only the six record files, batches.meta.txt and readme.html are taken from the
    archive's cifar-10-batches-bin/, other files are passed over. They are checked
    before the directory is put in place, by one rename.

    Args:
      archive_path: a gzipped tar archive.
      data_dir: the data directory.

    Returns:
      data_dir/cifar-10-batches-bin.

    Raises:
      UserError: the archive is damaged, lacks a record file, holds one twice, holds a
        damaged one or one larger than MAX_MEMBER_BYTES; or holds a link, a device, a
        sparse file, an absolute name or '..', or more than MAX_ARCHIVE_BYTES in all;
        or the directory cannot be written.
    """
    directory = os.path.join(data_dir, CIFAR10_DIRECTORY)
    with filled_directory(directory) as temporary:
        names = (*RECORD_FILES, CLASS_NAMES_FILE, 'readme.html')
        wanted = {posixpath.join(CIFAR10_DIRECTORY, name): name for name in names}
        extract_tar(archive_path, temporary, wanted.get, FETCH_ANEW, CIFAR10_LIMITS)
        try:
            # All six: one training file alone will do in a folder of one's own.
            for name in RECORD_FILES:
                check_file(os.path.join(temporary, name), CIFAR10_RECORD, NUM_CLASSES)
        except UserError as error:
            # The temporary directory is about to go: name the archive's member instead.
            reason = str(error).replace(temporary, CIFAR10_DIRECTORY)
            raise UserError(f'{archive_path}: {reason}; {FETCH_ANEW}') from error
        write_sums(temporary)
    return directory


def is_archive(path: str) -> bool:
    """Whether a file is a zip or tar archive, or a gzipped tar, by its first bytes and name."""
    if not os.path.isfile(path):
        return False
    with os_errors_named(path), open(path, 'rb') as file:
        head = file.read(_TAR_PLACE + len(_TAR))
    name = path.lower()
    if head.startswith(_GZIP):
        return name.endswith(('.tar.gz', '.tgz')) or _unzipped_head(path)[_TAR_PLACE:] == _TAR
    is_npz = name.endswith('.npz')  # A zip of arrays.
    return (head.startswith(_ZIP) and not is_npz) or head[_TAR_PLACE:] == _TAR


def _unzipped_head(path: str) -> bytes:
    """The first bytes of a gzipped file, unzipped; nothing where that fails."""
    try:
        with gzip.open(path) as file:
            return file.read(_TAR_PLACE + len(_TAR))
    except (OSError, EOFError, zlib.error):
        return b''


def extract_all(archive_path: str, directory: str) -> None:
    """Unpacks all files of an archive of pictures.

    Raises:
      UserError: as `extract_tar` does.
    """
    with os_errors_named(archive_path), open(archive_path, 'rb') as file:
        is_zip = file.read(len(_ZIP)) == _ZIP
    extract = _extract_zip if is_zip else extract_tar
    extract(archive_path, directory, _inner_path, 'get the archive anew', PICTURES_LIMITS)


def _inner_path(name: str) -> str:
    """The path of a member as its name has it, with the separators of any system."""
    return posixpath.normpath(name.replace('\\', '/'))


def extract_tar(
    archive_path: str, directory: str, choose: Choose, remedy: str, limits: Limits
) -> None:
    """Extracts members of a tar archive, gzipped or not, and reads it to its end.

    Args:
      archive_path: the archive.
      directory: gets the files; there, and empty.
      choose: tells which.
      remedy: for a damaged archive, as the end of a message.
      limits: of the archive.

    Raises:
      UserError: the archive is damaged, or holds a file twice, a link, a device, a sparse
        file, an absolute name or '..', or more than the limits; or the files can't be written.
    """
    _check_size(archive_path, limits)
    try:
        with os_errors_named(archive_path), open(archive_path, 'rb') as file:
            is_zipped = file.read(len(_GZIP)) == _GZIP
            file.seek(0)
            content = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if is_zipped else file
            stream = _CountingReader(archive_path, content, limits)
            # In blocks of a header's size: so no header is read with the content before it.
            with tarfile.open(
                fileobj=cast(Any, stream), mode='r|', bufsize=tarfile.BLOCKSIZE
            ) as archive:
                for member in archive:
                    is_plain = (member.isreg() or member.isdir()) and not member.issparse()
                    name = choose(posixpath.normpath(member.name))
                    _refuse_danger(archive_path, member.name, is_plain, member.size, limits)
                    path = os.path.join(directory, name) if name and member.isreg() else None
                    opened = archive.extractfile(member) if member.isreg() else None
                    stream.begin_content()
                    copied = _copy_member(archive_path, opened, member.name, path)
                    if copied != member.size:
                        raise EOFError(f'{member.name!r} breaks off')
                    stream.begin_header()
                    # tarfile keeps all that it has read.
                    archive.members = []  # type: ignore[attr-defined]
            # The checksum comes last, and is compared when the end is read.
            stream.begin_content()
            while stream.read(_CHUNK_BYTES):
                pass
    except _DAMAGE as error:
        raise _damaged(archive_path, 'gzipped tar archive', error, remedy) from error


def _extract_zip(
    archive_path: str, directory: str, choose: Choose, remedy: str, limits: Limits
) -> None:
    """As `extract_tar`, of a zip archive."""
    _check_size(archive_path, limits)
    total = 0
    try:
        with os_errors_named(archive_path), zipfile.ZipFile(archive_path) as archive:
            for member in archive.infolist():
                kind = stat.S_IFMT(member.external_attr >> 16)
                is_plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
                _refuse_danger(archive_path, member.filename, is_plain, member.file_size, limits)
                total += member.file_size
                if total > limits.archive:
                    raise _too_much(archive_path, limits)
                name = choose(member.filename)
                if name and not member.is_dir():
                    # zipfile gives no more bytes than the size that was checked, and compares
                    # their checksum.
                    with archive.open(member) as opened:
                        path = os.path.join(directory, name)
                        _copy_member(archive_path, opened, member.filename, path)
    except _DAMAGE as error:
        raise _damaged(archive_path, 'zip archive', error, remedy) from error


def _check_size(archive_path: str, limits: Limits) -> None:
    size = regular_size(archive_path, _EXPECTED)
    if size > limits.archive:
        raise _refused(archive_path, f'it has {size:,} bytes, more than {limits.archive:,}')


def _damaged(archive_path: str, kind: str, error: Exception, remedy: str) -> UserError:
    reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(':')
    return UserError(f'{archive_path}: not a complete {kind}: {reason}; {remedy}')


def _refuse_danger(archive_path: str, name: str, is_plain: bool, size: int, limits: Limits) -> None:
    """Raises UserError for a member that no archive of a data set needs."""
    parts = name.replace('\\', '/').split('/')
    if not is_plain:
        danger = 'is not a plain file or directory'
    elif '..' in parts or not parts[0] or os.path.isabs(name) or '\0' in name:
        danger = 'leads out of the directory'
    elif not 0 <= size <= limits.member:
        danger = f'has {size:,} bytes, more than {limits.member:,} or less than none'
    else:
        return
    raise _refused(archive_path, f'its member {name[:100]!r} {danger}')


def _refused(archive_path: str, reason: str) -> UserError:
    return UserError(f'{archive_path}: refused, because {reason}')


def _too_much(archive_path: str, limits: Limits) -> UserError:
    return _refused(archive_path, f'it unpacks to more than {limits.archive:,} bytes')


def _copy_member(archive_path: str, content: Any, name: str, path: str | None) -> int:
    """Writes a new file `path` with a member's content; without a path passes over it.

    Unlike TarFile.extract, this takes neither rights nor times from the archive. Returns the
    number of bytes.
    """
    if path and os.path.lexists(path):
        raise _refused(archive_path, f'it holds {name!r} twice')
    with os_errors_named(path or archive_path):
        if path:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path or os.devnull, 'wb') as file:
            copied = 0
            while content and (chunk := content.read(_CHUNK_BYTES)):
                file.write(chunk)
                copied += len(chunk)
    return copied


class _CountingReader:
    """The unpacked bytes of an archive, counted.

    tarfile believes the sizes in its headers: it reads a header of names or attributes at once,
    however long it says it is.
    """

    def __init__(self, archive_path: str, stream: BinaryIO, limits: Limits) -> None:
        self._archive_path = archive_path
        self._stream = stream
        self._limits = limits
        self._count = 0
        self._in_header = True
        self._header_bytes = self._all_header_bytes = 0

    def begin_header(self) -> None:
        """Says that tarfile reads the headers of another member now."""
        self._in_header, self._header_bytes = True, 0

    def begin_content(self) -> None:
        """Says that the content of a member is read now."""
        self._in_header = False

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`; none at the end.

        Raises:
          UserError: the archive cannot be read, or unpacks to too much.
          One of _DAMAGE: the archive is damaged.
        """
        try:
            chunk = self._stream.read(size)
        except OSError as error:
            # gzip raises one without a number; one with a number is the disk's.
            if error.errno is None:
                raise tarfile.ReadError(str(error)) from error
            raise UserError(f'{self._archive_path}: {error.strerror}') from error
        self._count += len(chunk)
        if self._count > self._limits.archive:
            raise _too_much(self._archive_path, self._limits)
        if self._in_header:
            self._header_bytes += len(chunk)
            self._all_header_bytes += len(chunk)
            if (
                self._header_bytes > MAX_TAR_HEADER_BYTES
                or self._all_header_bytes > self._limits.headers
            ):
                raise _refused(self._archive_path, 'it has headers too long or too many')
        return chunk
