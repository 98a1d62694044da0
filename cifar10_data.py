"""Where do the files come from? Download, verify, unpack, check, or generate them.

    python cifar10_data.py --data_dir=cifar10_data --dataset=cifar10

puts the data set into --data_dir, unless it is there already, and prints which
data set that is, where it lies, how many images it holds and of which classes.
CIFAR-10 is a download of 170 MB and takes 184 MB unpacked. Without a network,
--dataset=synthetic draws ten classes of shapes in the same files and format.

A data directory is laid out as in the tutorial:

    data_dir/cifar-10-binary.tar.gz     the archive, as it was downloaded
    data_dir/cifar-10-batches-bin/      CIFAR-10
    data_dir/synthetic-batches-bin/     the synthetic set, marked by synthetic.json

Record files that lie directly in data_dir are used as they are.

Measured on one core of an AMD EPYC: drawing the 60,000 synthetic images takes 7.4
to 8.8 s (3 runs). On them, the tutorial's network with moving averages, batch 128,
reaches a precision @ 1 of 20 to 28% after 100 steps, 92 to 94% after 1,000 and 98%
after 2,000 (2 runs).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import io
import json
import lzma
import os
import posixpath
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from six.moves import urllib
from tqdm import tqdm

import cifar10_synthetic
from cifar10_input import CIFAR10_RECORD, NUM_CLASSES, TEST_FILES, TRAIN_FILES, RecordFormat
from cifar10_settings import UserError, run_script, setting

try:
    import fcntl
except ImportError:  # Windows: two processes that prepare one directory don't wait there.
    fcntl = None  # type: ignore[assignment]

DATA_URL = 'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz'
DATASETS = ('cifar10', 'synthetic', 'auto')

CIFAR10_DIRECTORY = 'cifar-10-batches-bin'
SYNTHETIC_DIRECTORY = 'synthetic-batches-bin'
SYNTHETIC_MARKER = 'synthetic.json'
CLASS_NAMES_FILE = 'batches.meta.txt'

RECORD_FILES = TRAIN_FILES + TEST_FILES

# For connecting, and for each wait for data.
TIMEOUT_SECONDS = 30.0

# A file of the published set has 30,730,000 bytes. Ten times that leaves room for
# a larger set in the same format, and still keeps an archive from filling the disk.
MAX_MEMBER_BYTES = 10 * 30_730_000

_CHUNK_BYTES = 1 << 20

_FETCH_ANEW = 'move the archive away to have it downloaded anew'

# What tarfile and the decompressors raise on damaged input, next to OSError.
_DAMAGE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """What to put where."""

    data_dir: str = setting('cifar10_data', 'Directory that holds, or gets, the data set.')
    dataset: str = setting(
        'cifar10',
        'cifar10, synthetic (drawn shapes, no network), or auto: CIFAR-10 where it can be had, '
        'else synthetic.',
        choices=DATASETS,
    )
    data_url: str = setting(DATA_URL, 'http, https or file URL of the CIFAR-10 archive.')
    num_train: int = setting(50000, 'Synthetic training images, a multiple of 5.', at_least=5)
    num_test: int = setting(10000, 'Synthetic test images.', at_least=1)
    seed: int = setting(0, 'Seed of the synthetic set.', at_least=0)


class Prepared(NamedTuple):
    """A directory that directly holds sound record files.

    Attributes:
      directory: holds data_batch_1.bin to data_batch_5.bin and test_batch.bin.
      dataset: 'cifar10' or 'synthetic'.
    """

    directory: str
    dataset: str


class Fingerprint(NamedTuple):
    """Size in bytes and digests, in hexadecimal, of one published file."""

    size: int
    md5: str
    sha256: str


# The MD5 is the one that https://www.cs.toronto.edu/~kriz/cifar.html publishes.
# Size and SHA-256 are those of the file with that MD5.
CIFAR10_FINGERPRINT = Fingerprint(
    size=170_052_171,
    md5='c32a1d4ab5d03f1284b67883e8d87530',
    sha256='c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd',
)


class SyntheticSet(NamedTuple):
    """What makes up a synthetic set; its marker file holds these as JSON.

    Attributes:
      num_train: training images in all five files; a multiple of 5, at least 5.
      num_test: test images, at least 1.
      seed: at least 0.
      version: of the generator; goes up whenever the same seed gives other pictures.
    """

    num_train: int = 50000
    num_test: int = 10000
    seed: int = 0
    version: int = 1

    def in_words(self) -> str:
        return ' '.join(f'{name}={value}' for name, value in self._asdict().items())


class UnreachableError(UserError):
    """A URL does not give the archive that it should give."""


# ------------------------------------------------------------------------------
# Preparing a data directory.


def prepare(
    data_dir: str,
    dataset: str = 'cifar10',
    data_url: str = DATA_URL,
    synthetic: SyntheticSet | None = None,
) -> Prepared:
    """Makes sure that a data set is there and sound.

    Files that are there are used as they are: they are checked, and never
    replaced or deleted. Processes that prepare the same directory at the same
    time wait for each other.

    Args:
      data_dir: the data directory; made where it is missing.
      dataset: 'cifar10'; 'synthetic'; or 'auto', CIFAR-10 where it is there or can
        be downloaded, else the synthetic set, which is then announced.
      data_url: http, https or file URL of the CIFAR-10 archive. What DATA_URL gives
        must be the published archive, bit by bit. For another URL the user vouches:
        its archive must unpack into six sound record files, and that it is not the
        published one is only printed. An archive that lies in data_dir already under
        the URL's file name is taken in place of a download, by the same rule.
      synthetic: what a synthetic set must hold; None takes the one that is there,
        and generates the default where there is none.

    Returns:
      The directory that directly holds the six record files, and what they are.

    Raises:
      UserError: the files are damaged, are not of that data set, or cannot be had.
    """
    if dataset not in DATASETS:
        raise UserError(f'--dataset must be one of {", ".join(DATASETS)}, found {dataset!r}')
    prepared = _find(data_dir, dataset)
    if prepared is None:
        with _os_errors_named(data_dir):
            os.makedirs(data_dir, exist_ok=True)
        with _alone_in(data_dir):
            # Another process may have put the files there in the meantime.
            prepared = _find(data_dir, dataset) or _obtain(data_dir, dataset, data_url, synthetic)
    if prepared.dataset == 'synthetic':
        _check_synthetic(prepared.directory, synthetic)
        if dataset == 'auto':
            print(f'Using synthetic pictures instead of CIFAR-10, from {prepared.directory}')
    else:
        check_directory(prepared.directory)
    return prepared


def _find(data_dir: str, dataset: str) -> Prepared | None:
    """The data set that `data_dir` holds already, not yet checked."""
    directories = [os.path.join(data_dir, CIFAR10_DIRECTORY), data_dir]
    if dataset == 'synthetic':
        directories.append(os.path.join(data_dir, SYNTHETIC_DIRECTORY))
    for directory in directories:
        is_synthetic = os.path.lexists(os.path.join(directory, SYNTHETIC_MARKER))
        if is_synthetic and dataset == 'cifar10':
            raise UserError(
                f'{directory} holds the synthetic set, as its {SYNTHETIC_MARKER} says: expected '
                'CIFAR-10; choose --dataset=synthetic or another --data_dir'
            )
        found = Prepared(directory, 'synthetic' if is_synthetic else 'cifar10')
        if _holds_files(directory) and dataset in ('auto', found.dataset):
            return found
    return None


def _holds_files(directory: str) -> bool:
    names = (*RECORD_FILES, SYNTHETIC_MARKER)
    return any(os.path.lexists(os.path.join(directory, name)) for name in names)


def _obtain(data_dir: str, dataset: str, data_url: str, synthetic: SyntheticSet | None) -> Prepared:
    """Downloads or generates what `_find` did not find."""
    if dataset != 'synthetic':
        try:
            return Prepared(_fetch_cifar10(data_dir, data_url), 'cifar10')
        except UnreachableError as error:
            if dataset == 'cifar10':
                raise UserError(
                    f'CIFAR-10 could not be had: {error}. Ways out: put the files '
                    f'{RECORD_FILES[0]} to {RECORD_FILES[-1]} into {data_dir}; or give '
                    '--data_url the http, https or file URL of a copy of the archive; or '
                    'choose --dataset=synthetic'
                ) from error
            print(f'CIFAR-10 could not be had: {error}')
    found = _find(data_dir, 'synthetic')
    if found is None:
        found = Prepared(os.path.join(data_dir, SYNTHETIC_DIRECTORY), 'synthetic')
        wanted = synthetic or SyntheticSet()
        print(f'Generating {wanted.num_train + wanted.num_test:,} images in {found.directory}')
        generate_synthetic(found.directory, wanted.num_train, wanted.num_test, wanted.seed)
    return found


def _fetch_cifar10(data_dir: str, data_url: str) -> str:
    """Downloads the archive, where it is not there yet, and unpacks it."""
    archive = os.path.join(data_dir, _file_name(data_url))
    is_published = data_url == DATA_URL
    if not os.path.lexists(archive):
        print(f'Downloading {data_url} to {archive}')
        download(data_url, archive, CIFAR10_FINGERPRINT if is_published else None)
    with _os_errors_named(archive):
        mismatch = _mismatch(archive, CIFAR10_FINGERPRINT)
    if mismatch and is_published:
        raise UserError(f'{archive}: not the published archive: {mismatch}; {_FETCH_ANEW}')
    if mismatch:
        print(f'Not the published archive, but used because --data_url names it: {mismatch}')
    print(f'Unpacking {archive}')
    return unpack(archive, data_dir)


@contextlib.contextmanager
def _alone_in(directory: str) -> Iterator[None]:
    """Waits until no other process is preparing `directory`, and keeps others waiting.

    Training and evaluation are often started together, and must not write one file.
    """
    if fcntl is None:
        yield
        return
    with _os_errors_named(directory):
        descriptor = os.open(directory, os.O_RDONLY)
    try:
        # Some network file systems know no locks; there, nobody waits.
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f'Waiting for another process that is preparing {directory}')
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _os_errors_named(path: str) -> Iterator[None]:
    """Turns an OSError into a UserError that names its file, or else `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(f'{error.filename or path}: {error.strerror or error}') from error


@contextlib.contextmanager
def _filled_directory(directory: str) -> Iterator[str]:
    """A temporary directory that becomes `directory`, by one rename, when it is filled.

    So `directory` is whole or not there. On failure the temporary directory is
    removed; one that a killed process left is removed the next time.
    """
    parent, name = os.path.split(os.path.abspath(directory))
    temporary = os.path.join(parent, f'.{name}.unfinished')
    with _os_errors_named(directory):
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


# ------------------------------------------------------------------------------
# Checking.


def check_directory(
    directory: str, record: RecordFormat = CIFAR10_RECORD, num_classes: int = NUM_CLASSES
) -> tuple[int, int]:
    """Checks each record file: there, not empty, whole records, labels in range.

    Args:
      directory: directly holds the five training files and the test file.
      record: the records' format.
      num_classes: labels must be 0 to num_classes - 1.

    Returns:
      The number of training images and of test images.

    Raises:
      UserError: names the file, record and byte, what was found and what was expected.
    """
    num_train, num_test = (
        sum(_check_file(os.path.join(directory, name), record, num_classes) for name in names)
        for names in (TRAIN_FILES, TEST_FILES)
    )
    return num_train, num_test


def _check_file(path: str, record: RecordFormat, num_classes: int) -> int:
    """Checks one record file, and returns its number of records."""
    expected = f'expected a file of records of {record.record_bytes:,} bytes'
    if not os.path.exists(path):
        raise UserError(f'{path}: missing; {expected}')
    if not os.path.isfile(path):
        raise UserError(f'{path}: not a regular file; {expected}')
    with _os_errors_named(path):
        size = os.path.getsize(path)
        if not size:
            raise UserError(f'{path}: empty; {expected}')
        num_records, rest = divmod(size, record.record_bytes)
        if rest:
            raise UserError(
                f'{path}: record {num_records}, from byte {size - rest:,} on, has {rest:,} bytes; '
                f'expected {record.record_bytes:,}, and the file a whole number of records'
            )
        data = np.memmap(path, np.uint8, 'r', shape=(num_records, record.record_bytes))
        labels = np.array(data[:, : record.label_bytes][:, record.label_index])
    wrong = np.flatnonzero(labels >= num_classes)
    if wrong.size:
        byte = wrong[0] * record.record_bytes + record.label_index % record.label_bytes
        raise UserError(
            f'{path}: record {wrong[0]}, byte {byte:,}: label {labels[wrong[0]]}; '
            f'expected 0 to {num_classes - 1}'
        )
    return num_records


def _check_synthetic(directory: str, wanted: SyntheticSet | None) -> None:
    """Checks a synthetic set against its marker, and its marker against `wanted`."""
    marker = os.path.join(directory, SYNTHETIC_MARKER)
    try:
        with open(marker, encoding='utf-8') as file:
            held = SyntheticSet(**json.load(file))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f'{marker}: not the marker of a synthetic set: {error}') from error
    num_train, num_test = check_directory(directory)
    if (num_train, num_test) != (held.num_train, held.num_test):
        raise UserError(
            f'{directory}: found {num_train:,} training and {num_test:,} test images; '
            f'{SYNTHETIC_MARKER} says {held.num_train:,} and {held.num_test:,}'
        )
    if wanted is not None and wanted != held:
        raise UserError(
            f'{directory}: holds a set of {held.in_words()}; asked for {wanted.in_words()}; choose '
            'another --data_dir, or move that directory away'
        )


def class_names(directory: str) -> list[str]:
    """Names of the ten classes, in the order of their labels.

    Args:
      directory: may hold batches.meta.txt, one name a line.

    Returns:
      Ten names; the labels '0' to '9' where there is no batches.meta.txt.

    Raises:
      UserError: batches.meta.txt does not hold ten names.
    """
    path = os.path.join(directory, CLASS_NAMES_FILE)
    if not os.path.exists(path):
        return [str(label) for label in range(NUM_CLASSES)]
    with _os_errors_named(path), open(path, encoding='utf-8', errors='replace') as file:
        names = [line.strip() for line in file if line.strip()]
    if len(names) != NUM_CLASSES:
        raise UserError(f'{path}: found {len(names)} class names; expected {NUM_CLASSES}')
    return names


# ------------------------------------------------------------------------------
# Downloading.


def download(
    url: str,
    path: str,
    fingerprint: Fingerprint | None = None,
    timeout: float = TIMEOUT_SECONDS,
) -> None:
    """Downloads `url` to `path`, going on where an earlier attempt broke off.

    Bytes go to `path`.part, which is renamed when it is whole, so `path` is whole
    or not there. A progress bar goes to stderr where that is a terminal.

    If the file behind the URL has changed since the earlier attempt, the two parts
    don't fit; the fingerprint shows that, or the checksum inside the archive.

    Args:
      url: http, https or file URL.
      path: file to write.
      fingerprint: what the file must be; None checks its length alone, against
        what the server says.
      timeout: seconds to wait for the connection, and each time for data.

    Raises:
      UserError: the URL is of another scheme, or `path` cannot be written.
      UnreachableError: the URL cannot be had, or gives another file than `fingerprint`.
    """
    _check_scheme(url)
    part = path + '.part'
    with _os_errors_named(part):
        start = os.path.getsize(part) if os.path.exists(part) else 0
        body, start, total = _open(url, start, timeout)
        with body:
            if fingerprint and total not in (None, fingerprint.size):
                raise UnreachableError(f'{url}: has {total:,} bytes; expected {fingerprint.size:,}')
            with open(part, 'ab' if start else 'wb') as file:
                _receive(body, file, url, start, total)
        mismatch = _mismatch(part, fingerprint) if fingerprint else ''
        if mismatch:
            os.remove(part)
            raise UnreachableError(
                f'{url}: {mismatch}; what was downloaded has been deleted, so that the next '
                'run starts afresh'
            )
        os.replace(part, path)


def _check_scheme(url: str) -> None:
    scheme = url.partition(':')[0].lower()
    if scheme not in ('http', 'https', 'file'):
        raise UserError(
            f'{url!r}: expected a URL that starts with http://, https:// or file:// '
            f'(a local file is file://{os.path.abspath(os.sep)}path/to/file)'
        )


def _file_name(url: str) -> str:
    """The last part of the URL's path: the name that the archive gets."""
    _check_scheme(url)
    try:
        name = posixpath.basename(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
    except ValueError as error:
        raise UserError(f'{url!r}: not a URL: {error}') from error
    if name in ('', '.', '..') or '\0' in name:
        raise UserError(f'{url!r}: expected a URL that ends in the name of an archive')
    return name


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https, and from https to https alone.

    urllib itself refuses file:// and follows ftp://.
    """

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        allowed = ('https:',) if req.type == 'https' else ('http:', 'https:')
        if not newurl.lower().startswith(allowed):
            raise UnreachableError(f'{req.full_url}: redirect to {newurl} refused')
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, start: int, timeout: float) -> tuple[Any, int, int | None]:
    """Asks for `url` from byte `start` on.

    Returns:
      The body, the byte of the file that it really starts from (0 where the
      server sends all of it), and the length of the whole file in bytes, None where
      the server does not say.
    """
    request_headers = {'Range': f'bytes={start}-'} if start else {}
    opener = urllib.request.build_opener(_SafeRedirects)
    try:
        request = urllib.request.Request(url, headers=request_headers)
        body = opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if start and error.code == 416:
            # No byte is left to send: the part is whole, or longer than the file.
            if error.headers.get('Content-Range') == f'bytes */{start}':
                return io.BytesIO(), start, start
            return _open(url, 0, timeout)
        raise UnreachableError(f'{url}: HTTP {error.code} {error.reason}') from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnreachableError(f'{url}: {_reason(error, timeout)}') from error
    if body.status != 206:
        length = body.headers.get('Content-Length') or ''
        return body, 0, int(length) if length.isdecimal() else None
    content_range = body.headers.get('Content-Range') or ''
    total = _length_of_whole(content_range, start)
    if total is not None:
        return body, start, total
    body.close()
    if not start:
        raise UnreachableError(f'{url}: sent {content_range!r}, and was asked for the whole file')
    return _open(url, 0, timeout)


def _length_of_whole(content_range: str, start: int) -> int | None:
    """Length of the whole file; None where the range isn't all that follows `start`."""
    match = re.fullmatch(r'bytes (\d+)-(\d+)/(\d+)', content_range)
    if match is None:
        return None
    first, last, total = map(int, match.groups())
    return total if first == start and last + 1 == total else None


def _reason(error: Exception, timeout: float) -> str:
    cause = getattr(error, 'reason', error)
    if isinstance(cause, TimeoutError):
        return f'no answer within {timeout:g} seconds'
    return str(cause) or type(cause).__name__


def _receive(body: Any, file: BinaryIO, url: str, start: int, total: int | None) -> None:
    """Appends the body to `file`, which holds `start` bytes, until it holds `total`."""
    received = start

    def dropped(reason: str) -> UnreachableError:
        of_total = '' if total is None else f' of {total:,}'
        return UnreachableError(
            f'{url}: {reason} after {received:,}{of_total} bytes; {file.name} is kept, and the '
            'next run goes on from there'
        )

    name = posixpath.basename(url)
    with tqdm(
        total=total, initial=start, desc=name, unit='B', unit_scale=True, disable=None
    ) as bar:
        while received != total:
            missing = _CHUNK_BYTES if total is None else total - received
            try:
                # read1 hands over what has come, so that a drop loses none of it.
                chunk = body.read1(min(_CHUNK_BYTES, missing))
            except (OSError, http.client.HTTPException) as error:
                raise dropped(str(error) or type(error).__name__) from error
            if not chunk:
                break
            file.write(chunk)
            received += len(chunk)
            bar.update(len(chunk))
    if total is not None and received < total:
        raise dropped('the connection dropped')


def _mismatch(path: str, fingerprint: Fingerprint) -> str:
    """In which way the file is not the one that `fingerprint` tells; '' where it is."""
    size = os.path.getsize(path)
    if size != fingerprint.size:
        return f'found {size:,} bytes; expected {fingerprint.size:,}'
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(_CHUNK_BYTES):
            md5.update(chunk)
            sha256.update(chunk)
    if md5.hexdigest() != fingerprint.md5:
        return f'found MD5 {md5.hexdigest()}; expected {fingerprint.md5}'
    if sha256.hexdigest() != fingerprint.sha256:
        return f'found SHA-256 {sha256.hexdigest()}; expected {fingerprint.sha256}'
    return ''


# ------------------------------------------------------------------------------
# Unpacking.


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
      UserError: the archive is damaged, lacks a record file, holds a damaged one or
        one larger than MAX_MEMBER_BYTES, or holds a link, a device, an absolute name
        or '..'; or the directory cannot be written.
    """
    if not hasattr(tarfile, 'data_filter'):
        raise UserError('unpacking needs Python 3.10.12, 3.11.4 or newer, for its safe tarfile')
    directory = os.path.join(data_dir, CIFAR10_DIRECTORY)
    with _filled_directory(directory) as temporary:
        _extract(archive_path, temporary)
        try:
            check_directory(temporary)
        except UserError as error:
            # The temporary directory is about to go: name the archive's member instead.
            reason = str(error).replace(temporary, CIFAR10_DIRECTORY)
            raise UserError(f'{archive_path}: {reason}; {_FETCH_ANEW}') from error
    return directory


def _extract(archive_path: str, directory: str) -> None:
    """Extracts the expected members into `directory`, and reads the archive to its end."""
    names = (*RECORD_FILES, CLASS_NAMES_FILE, 'readme.html')
    wanted = {posixpath.join(CIFAR10_DIRECTORY, name): name for name in names}
    try:
        with tarfile.open(archive_path, 'r:*') as archive:
            for member in archive:
                _refuse_danger(archive_path, member)
                name = wanted.get(posixpath.normpath(member.name))
                if name and member.isreg():
                    archive.extract(member.replace(name=name, deep=False), directory, filter='data')
            # The checksum comes last, and is compared when the end is read.
            while archive.fileobj and archive.fileobj.read(_CHUNK_BYTES):
                pass
    except (*_DAMAGE, OSError) as error:
        # Decompressors raise an OSError without a number; one with a number is the disk's.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(':')
        raise UserError(
            f'{archive_path}: not a whole tar archive: {reason}; {_FETCH_ANEW}'
        ) from error


def _refuse_danger(archive_path: str, member: tarfile.TarInfo) -> None:
    """Raises UserError for a member that no archive of record files needs."""
    parts = member.name.replace('\\', '/').split('/')
    if not (member.isreg() or member.isdir()):
        danger = 'is a link or a device'
    elif '..' in parts or not parts[0] or os.path.isabs(member.name):
        danger = 'leads out of the directory'
    elif member.size > MAX_MEMBER_BYTES:
        danger = f'has {member.size:,} bytes, more than {MAX_MEMBER_BYTES:,}'
    else:
        return
    raise UserError(f'{archive_path}: refused, because its member {member.name!r} {danger}')


# ------------------------------------------------------------------------------
# Generating.

# Images drawn together: few enough for their arrays to stay in the cache.
_IMAGES_AT_ONCE = 250


def generate_synthetic(
    directory: str, num_train: int = 50000, num_test: int = 10000, seed: int = 0
) -> None:
    """Writes a synthetic data set in CIFAR-10's files and format.

    The classes are equally frequent, to within one image, in training and test
    images. One seed gives the same bytes on each run; another machine or version
    of NumPy may round a pixel value to its neighbour.

    Args:
      directory: made and filled: five training files, one test file,
        batches.meta.txt and synthetic.json. It must be missing or empty.
      num_train: training images in all; a multiple of 5, at least 5.
      num_test: test images, at least 1. They come from other random streams.
      seed: at least 0.

    Raises:
      UserError: a number is out of range, or the directory cannot be written.
    """
    if num_train < 5 or num_train % 5:
        raise UserError(f'--num_train must be a multiple of 5, at least 5, found {num_train}')
    if num_test < 1 or seed < 0:
        raise UserError(
            f'--num_test must be at least 1 and --seed at least 0, found {num_test} and {seed}'
        )
    sizes = [num_train // 5] * 5 + [num_test]
    with (
        _filled_directory(directory) as temporary,
        tqdm(total=sum(sizes), desc='drawing', unit='images', disable=None) as bar,
    ):
        for stream, (name, size) in enumerate(zip(RECORD_FILES, sizes, strict=True)):
            first = 0 if name in TEST_FILES else stream * size
            rng = np.random.default_rng([seed, stream])
            labels = rng.permutation((first + np.arange(size)) % NUM_CLASSES).astype(np.uint8)
            with open(os.path.join(temporary, name), 'wb') as file:
                for begin in range(0, size, _IMAGES_AT_ONCE):
                    some = labels[begin : begin + _IMAGES_AT_ONCE]
                    pixels = cifar10_synthetic.draw(some, rng).reshape(len(some), -1)
                    file.write(np.column_stack([some, pixels]).tobytes())
                    bar.update(len(some))
        with open(os.path.join(temporary, CLASS_NAMES_FILE), 'w', encoding='utf-8') as names:
            names.writelines(f'{name}\n' for name in cifar10_synthetic.CLASS_NAMES)
        with open(os.path.join(temporary, SYNTHETIC_MARKER), 'w', encoding='utf-8') as marker:
            json.dump(SyntheticSet(num_train, num_test, seed)._asdict(), marker, indent=2)
            marker.write('\n')


def main(settings: DataSettings) -> None:
    wanted = SyntheticSet(settings.num_train, settings.num_test, settings.seed)
    directory, dataset = prepare(settings.data_dir, settings.dataset, settings.data_url, wanted)
    num_train, num_test = check_directory(directory)
    names = class_names(directory)
    print(f'{dataset}: {num_train:,} training and {num_test:,} test images in {directory}')
    print(f'{len(names)} classes: {", ".join(names)}')


if __name__ == '__main__':
    run_script(main, DataSettings)
