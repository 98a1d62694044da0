"""What may an archive put on this disk? A few files by their names, and only so many bytes.

An archive is read once, from its first byte to its last, and what it says of itself is
not believed: the limits hold for what it is, and for what it unpacks to.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import posixpath
import tarfile
import zlib
from collections.abc import Iterator, Sequence
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

# One header of names or attributes in a tar archive, and all headers together.
MAX_TAR_HEADER_BYTES = 8 << 10
MAX_TAR_HEADERS_BYTES = 256 << 10

# xz -9 takes 65 MiB; a file may ask for 4 GiB.
MAX_XZ_MEMORY_BYTES = 256 << 20

FETCH_ANEW = 'move the archive away to have it downloaded anew'

_CHUNK_BYTES = 1 << 20

# What tarfile and the decompressors raise on damaged input; tarfile leaves it to
# int() and the like to stumble over a header.
_DAMAGE = (
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
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
      archive_path: a tar archive: gzip, bzip2, xz or plain.
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
      archive_path: a tar archive: gzip, bzip2, xz or plain.
      directory: gets the files; there, and empty.
      folder: the archive's folder that holds them; all else is passed over.
      names: of the files. One that the archive lacks is not missed here.
      remedy: what to do about a damaged archive, as the end of a message.

    Raises:
      UserError: as `unpack` does, but for what the files hold.
    """
    wanted = {posixpath.join(folder, name): name for name in names}
    size = regular_size(archive_path, 'expected a tar archive')
    if size > MAX_ARCHIVE_BYTES:
        raise _refused(archive_path, f'it has {size:,} bytes, more than {MAX_ARCHIVE_BYTES:,}')
    try:
        with os_errors_named(archive_path), open(archive_path, 'rb') as file:
            stream = _TarStream(archive_path, _decompressed(file))
            with tarfile.open(fileobj=cast(Any, stream), mode='r:') as archive:
                for member in archive:
                    _refuse_danger(archive_path, member)
                    name = wanted.get(posixpath.normpath(member.name))
                    if name and member.isreg():
                        _copy_member(stream, member, os.path.join(directory, name))
            # The checksum comes last, and is compared when the end is read.
            stream.skip(MAX_ARCHIVE_BYTES)
    except _DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(':')
        raise UserError(f'{archive_path}: not a whole tar archive: {reason}; {remedy}') from error


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


def _copy_member(stream: _TarStream, member: tarfile.TarInfo, path: str) -> None:
    """Writes a new file `path` with the content of `member`, which is next in `stream`.

    Unlike TarFile.extract, this takes neither rights nor times from the archive.
    """
    if os.path.lexists(path):
        raise _refused(stream.archive_path, f'it holds {member.name!r} twice')
    with os_errors_named(path), open(path, 'wb') as file:
        for chunk in stream.chunks(member.size):
            file.write(chunk)
        if file.tell() != member.size:
            raise EOFError(f'{member.name!r} breaks off')


class _TarStream:
    """What tarfile reads an archive from: forward only, and within bounds.

    tarfile believes its headers. It reads a header of names or attributes at once,
    however long it says it is, goes back where a size is negative, and keeps every
    member in memory. What it reads itself are headers, and limited as such; the
    members' content is read by `chunks`.
    """

    def __init__(self, archive_path: str, stream: BinaryIO) -> None:
        self.archive_path = archive_path
        self._stream = stream
        self._position = 0
        self._header_bytes = 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        if position < self._position:
            raise tarfile.ReadError('a member begins within the one before')
        self.skip(position - self._position)

    def read(self, size: int) -> bytes:
        self._header_bytes += size
        if not 0 <= size <= MAX_TAR_HEADER_BYTES or self._header_bytes > MAX_TAR_HEADERS_BYTES:
            raise _refused(self.archive_path, 'it has headers too long or too many')
        return b''.join(self.chunks(size))

    def skip(self, size: int) -> None:
        for _ in self.chunks(size):
            pass

    def chunks(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes; fewer where the stream ends.

        Raises:
          UserError: the archive cannot be read, or unpacks to too much.
          One of _DAMAGE: the archive is damaged.
        """
        end = self._position + size
        while self._position < end:
            try:
                chunk = self._stream.read(min(_CHUNK_BYTES, end - self._position))
            except OSError as error:
                # Decompressors raise one without a number; one with a number is the disk's.
                if error.errno is None:
                    raise tarfile.ReadError(str(error)) from error
                raise UserError(f'{self.archive_path}: {error.strerror}') from error
            if not chunk:
                return
            self._position += len(chunk)
            if self._position > MAX_ARCHIVE_BYTES:
                reason = f'it unpacks to more than {MAX_ARCHIVE_BYTES:,} bytes'
                raise _refused(self.archive_path, reason)
            yield chunk


def _decompressed(file: BinaryIO) -> BinaryIO:
    """What `file` holds, by its first bytes: gzip, bzip2, xz, or as it is."""
    start = file.read(6)
    file.seek(0)
    if start.startswith(b'\x1f\x8b'):
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if start.startswith(b'BZh'):
        return cast(BinaryIO, bz2.BZ2File(file))
    if start == b'\xfd7zXZ\0':
        return io.BufferedReader(_XzStream(file))
    return file


class _XzStream(io.RawIOBase):
    """Reads an xz stream as lzma.open does, which can't limit the memory that it takes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_XZ_MEMORY_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._decoder.eof:
            compressed = b''
            if self._decoder.needs_input:
                compressed = self._file.read(_CHUNK_BYTES)
                if not compressed:
                    raise EOFError('the xz stream breaks off')
            data = self._decoder.decompress(compressed, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
        return 0
