"""Archives, unpacked within bounds: a few files by their names, and only so many bytes.

An archive is read once, from its first byte to its last. The sizes that it states are not
believed: the limits hold for its bytes, and for those that it unpacks to.
"""

from __future__ import annotations

import gzip
import os
import posixpath
import tarfile
import zlib
from collections.abc import Sequence
from typing import Any, BinaryIO, cast

from cifar10_lib.base.errors import UserError, os_errors_named
from cifar10_lib.base.files import filled_directory, regular_size
from cifar10_lib.data.datasets import CIFAR10_DIRECTORY
from cifar10_lib.data.record_files import (
    CLASS_NAMES_FILE,
    RECORD_FILES,
    check_directory,
    write_sums,
)

# A file of the published set has 30,730,000 bytes. Ten times that leaves room for
# a larger set in the same format, and still keeps an archive from filling the disk.
MAX_MEMBER_BYTES = 10 * 30_730_000

# For an archive as it is downloaded, and for all that it unpacks to: six such files.
MAX_ARCHIVE_BYTES = 2_000_000_000

# For the headers of one member, names and attributes among them, and for all together.
MAX_TAR_HEADER_BYTES = 8 << 10
MAX_TAR_HEADERS_BYTES = 256 << 10

_EXPECTED = 'expected a gzipped tar archive'

FETCH_ANEW = 'move the archive away to have it downloaded anew'

_CHUNK_BYTES = 1 << 20

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
)


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
        extract(archive_path, temporary, CIFAR10_DIRECTORY, names, FETCH_ANEW)
        try:
            check_directory(temporary)
        except UserError as error:
            # The temporary directory is about to go: name the archive's member instead.
            reason = str(error).replace(temporary, CIFAR10_DIRECTORY)
            raise UserError(f'{archive_path}: {reason}; {FETCH_ANEW}') from error
        write_sums(temporary)
    return directory


def extract(
    archive_path: str, directory: str, folder: str, names: Sequence[str], remedy: str
) -> None:
    """Extracts the expected members, and reads the archive to its end.

    Args:
      archive_path: a gzipped tar archive.
      directory: gets the files; there, and empty.
      folder: the archive's folder that holds them; all else is passed over.
      names: of the files. One that the archive lacks is no error here.
      remedy: for a damaged archive, as the end of a message.

    Raises:
      UserError: as `unpack` does, but for the content of the files.
    """
    wanted = {posixpath.join(folder, name): name for name in names}
    size = regular_size(archive_path, _EXPECTED)
    if size > MAX_ARCHIVE_BYTES:
        raise _refused(archive_path, f'it has {size:,} bytes, more than {MAX_ARCHIVE_BYTES:,}')
    try:
        with os_errors_named(archive_path), open(archive_path, 'rb') as file:
            stream = _CountingReader(archive_path, cast(BinaryIO, gzip.GzipFile(fileobj=file)))
            # In blocks of a header's size: so no header is read with the content before it.
            with tarfile.open(
                fileobj=cast(Any, stream), mode='r|', bufsize=tarfile.BLOCKSIZE
            ) as archive:
                for member in archive:
                    _refuse_danger(archive_path, member)
                    name = wanted.get(posixpath.normpath(member.name))
                    path = os.path.join(directory, name) if name and member.isreg() else None
                    _copy_member(archive_path, archive, stream, member, path)
            # The checksum comes last, and is compared when the end is read.
            stream.begin_content()
            while stream.read(_CHUNK_BYTES):
                pass
    except _DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(':')
        raise UserError(
            f'{archive_path}: not a complete gzipped tar archive: {reason}; {remedy}'
        ) from error


def _refuse_danger(archive_path: str, member: tarfile.TarInfo) -> None:
    """Raises UserError for a member that no archive of record files needs."""
    parts = member.name.replace('\\', '/').split('/')
    if not (member.isreg() or member.isdir()) or member.issparse():
        danger = 'is not a plain file or directory'
    elif '..' in parts or not parts[0] or os.path.isabs(member.name):
        danger = 'leads out of the directory'
    elif not 0 <= member.size <= MAX_MEMBER_BYTES:
        danger = f'has {member.size:,} bytes, more than {MAX_MEMBER_BYTES:,} or less than none'
    else:
        return
    raise _refused(archive_path, f'its member {member.name[:100]!r} {danger}')


def _refused(archive_path: str, reason: str) -> UserError:
    return UserError(f'{archive_path}: refused, because {reason}')


def _copy_member(
    archive_path: str,
    archive: tarfile.TarFile,
    stream: _CountingReader,
    member: tarfile.TarInfo,
    path: str | None,
) -> None:
    """Writes a new file `path` with the content of `member`; without a path passes over it.

    Unlike TarFile.extract, this takes neither rights nor times from the archive.
    """
    if path and os.path.lexists(path):
        raise _refused(archive_path, f'it holds {member.name!r} twice')
    content = archive.extractfile(member) if member.isreg() else None
    stream.begin_content()
    with os_errors_named(path or archive_path), open(path or os.devnull, 'wb') as file:
        copied = 0
        while content and (chunk := content.read(_CHUNK_BYTES)):
            file.write(chunk)
            copied += len(chunk)
    if copied != member.size:
        raise EOFError(f'{member.name!r} breaks off')
    stream.begin_header()


class _CountingReader:
    """The unpacked bytes of an archive, counted.

    tarfile believes the sizes in its headers: it reads a header of names or attributes at once,
    however long it says it is.
    """

    def __init__(self, archive_path: str, stream: BinaryIO) -> None:
        self._archive_path = archive_path
        self._stream = stream
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
        if self._count > MAX_ARCHIVE_BYTES:
            reason = f'it unpacks to more than {MAX_ARCHIVE_BYTES:,} bytes'
            raise _refused(self._archive_path, reason)
        if self._in_header:
            self._header_bytes += len(chunk)
            self._all_header_bytes += len(chunk)
            if (
                self._header_bytes > MAX_TAR_HEADER_BYTES
                or self._all_header_bytes > MAX_TAR_HEADERS_BYTES
            ):
                raise _refused(self._archive_path, 'it has headers too long or too many')
        return chunk
