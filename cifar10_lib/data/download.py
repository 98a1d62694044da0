"""Downloads of one file, in bounded time and space.

No server is trusted to be quick, brief or honest: time, rate, redirects and bytes all have
limits. What came before a broken connection is kept, and the next attempt resumes there.
"""

from __future__ import annotations

import http.client
import io
import os
import posixpath
import re
import time
from typing import Any, BinaryIO, NamedTuple

from six.moves import urllib
from tqdm import tqdm

from cifar10_lib.base.errors import UserError, os_errors_named
from cifar10_lib.base.files import digest, regular_size
from cifar10_lib.data.archive import MAX_ARCHIVE_BYTES
from cifar10_lib.data.datasets import DATA_URL

# For connecting, and for each wait for data.
TIMEOUT_SECONDS = 30.0

# A server that sends less than this, over this time, would never come to an end.
MIN_BYTES_PER_SECOND = 1024
RATE_WINDOW_SECONDS = 30.0

# For one attempt: all connections, redirects and headers, and the body. CIFAR-10 then needs
# 2 kB/s, and what a slower connection has brought is kept.
MAX_SECONDS = 24 * 3600.0

# All that a server may send, redirects included, before the archive begins.
MAX_REPLY_HEADER_BYTES = 1 << 20

_CHUNK_BYTES = 1 << 20


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

CIFAR100_URL = 'https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz'

# The MD5 is the one that the same page publishes. Size and SHA-256 are not published there: they
# are those that TensorFlow Datasets has for the URL, the SHA-256 also that of MLDatasets.jl.
CIFAR100_FINGERPRINT = Fingerprint(
    size=168_513_733,
    md5='03b5dce01913d631647c71ecec9e9cb8',
    sha256='58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec',
)

# By URL: what it must give.
PUBLISHED = {DATA_URL: CIFAR10_FINGERPRINT, CIFAR100_URL: CIFAR100_FINGERPRINT}

# The files of MNIST and Fashion-MNIST, below these URLs. Sizes and SHA-256 are those of TensorFlow
# Datasets, MD5 those of torchvision, which name the same files.
IDX_URLS = {
    'mnist': 'https://storage.googleapis.com/cvdf-datasets/mnist',
    'fashion_mnist': 'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com',
}
IDX_FINGERPRINTS = {
    'mnist': {
        'train-images-idx3-ubyte.gz': Fingerprint(
            9_912_422,
            'f68b3c2dcbeaaa9fbdd348bbdeb94873',
            '440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609',
        ),
        'train-labels-idx1-ubyte.gz': Fingerprint(
            28_881,
            'd53e105ee54ea40749a09fcbcd1e9432',
            '3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c',
        ),
        't10k-images-idx3-ubyte.gz': Fingerprint(
            1_648_877,
            '9fb629c4189551a2d022fa330f9573f3',
            '8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6',
        ),
        't10k-labels-idx1-ubyte.gz': Fingerprint(
            4_542,
            'ec29112dd5afa0611ce80d1b7f02629c',
            'f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6',
        ),
    },
    'fashion_mnist': {
        'train-images-idx3-ubyte.gz': Fingerprint(
            26_421_880,
            '8d4fb7e6c68d591d4c3dfef9ec88bf0d',
            '3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84',
        ),
        'train-labels-idx1-ubyte.gz': Fingerprint(
            29_515,
            '25c81989df183df01b3e8a0aad5dffbe',
            'a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845',
        ),
        't10k-images-idx3-ubyte.gz': Fingerprint(
            4_422_102,
            'bef4ecab320f06d8554ea6380940ec79',
            '346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073',
        ),
        't10k-labels-idx1-ubyte.gz': Fingerprint(
            5_148,
            'bb300cfdad3c16e7a12a480ee83cd310',
            '67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5',
        ),
    },
}


class UnreachableError(UserError):
    """A URL does not give the archive that it should give."""


def download(
    url: str,
    path: str,
    fingerprint: Fingerprint | None = None,
    timeout: float = TIMEOUT_SECONDS,
    rate_window: float = RATE_WINDOW_SECONDS,
    max_seconds: float = MAX_SECONDS,
) -> None:
    """Downloads `url` to `path`, and resumes an earlier attempt.

    Bytes go to `path`.part, which is renamed when it is complete, so `path` is complete
    or missing. A progress bar goes to stderr where that is a terminal.

    If the file behind the URL has changed since the earlier attempt, the two parts
    don't fit; the fingerprint shows that, or the checksum inside the archive.

    Args:
      url: http, https or file URL.
      path: file to write.
      fingerprint: of the expected file; None checks its length alone, against what the
        server says.
      timeout: seconds to wait for the connection, and each time for data.
      rate_window: seconds over which MIN_BYTES_PER_SECOND must come.
      max_seconds: for everything together.

    Raises:
      UserError: the URL is of another scheme, or `path` cannot be written.
      UnreachableError: the URL cannot be reached, gives another file than `fingerprint` or
        more than MAX_ARCHIVE_BYTES, or gives it too slowly.
    """
    _check_scheme(url)
    part = path + '.part'
    start = regular_size(part, 'expected what was downloaded') if os.path.lexists(part) else 0
    handler = _BoundedHandler(rate_window, max_seconds)
    body, start, total = _open(url, start, min(timeout, max_seconds), handler)
    with body:
        if fingerprint and total is not None and total != fingerprint.size:
            raise UnreachableError(f'{url}: has {total:,} bytes; expected {fingerprint.size:,}')
        if total is not None and total > MAX_ARCHIVE_BYTES:
            raise UnreachableError(
                f'{url}: has {total:,} bytes; expected at most {MAX_ARCHIVE_BYTES:,}'
            )
        if fingerprint:
            total = fingerprint.size
        try:
            with open(part, 'ab' if start else 'wb') as file:
                _receive(body, file, url, start, total)
        except OSError as error:
            raise UserError(
                f'{part}: {error.strerror or error}; once that is put right, the next run '
                'resumes the download'
            ) from error
    with os_errors_named(part):
        mismatch = ''
        if fingerprint:
            mismatch = mismatch_with(part, fingerprint)
        elif os.path.getsize(part) > MAX_ARCHIVE_BYTES:
            mismatch = f'sent more than {MAX_ARCHIVE_BYTES:,} bytes, the most for an archive'
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


def file_name(url: str) -> str:
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

    inf_msg = 'redirects that lead in a circle, the last one: '

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        allowed = ('https:',) if req.type == 'https' else ('http:', 'https:')
        if not newurl.lower().startswith(allowed):
            raise UnreachableError(f'{req.full_url}: redirect to {newurl} refused')
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _BoundedHandler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Opens http and https URLs, and limits what the servers of one download may send.

    Attributes:
      window: seconds over which MIN_BYTES_PER_SECOND must come.
      max_seconds: from now until the end of the body.
      allowance: bytes that may still come, from all servers on the way.
    """

    def __init__(self, window: float, max_seconds: float) -> None:
        super().__init__()
        self.window = window
        self.max_seconds = max_seconds
        self.deadline = time.monotonic() + max_seconds
        self.allowance = MAX_REPLY_HEADER_BYTES

    def do_open(self, http_class: Any, req: Any, **http_conn_args: Any) -> Any:
        def respond(*args: Any, **kwargs: Any) -> http.client.HTTPResponse:
            response: Any = http.client.HTTPResponse(*args, **kwargs)
            response.fp = io.BufferedReader(_BoundedReader(response.fp.detach(), self))
            return response

        def connect(*args: Any, **kwargs: Any) -> http.client.HTTPConnection:
            connection = http_class(*args, **kwargs)
            connection.response_class = respond
            return connection

        return super().do_open(connect, req, **http_conn_args)


class _BoundedReader(io.RawIOBase):
    """All bytes of one reply, within the limits of its download.

    A limit on the body alone would not do: a server can also drip its headers, and send
    trailers or replies of '100 Continue' without end.
    """

    def __init__(self, socket: io.RawIOBase, limits: _BoundedHandler) -> None:
        self._socket, self._limits = socket, limits
        self._window_start: float | None = None
        self._received = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        received = self._socket.readinto(buffer) or 0
        now, limits = time.monotonic(), self._limits
        limits.allowance -= received
        if limits.allowance < 0:
            raise OSError('the server sends far more than it should')
        if now > limits.deadline:
            raise OSError(f'not complete within {limits.max_seconds:,} seconds')
        # The wait for the first byte is the server's to use, within the timeout.
        self._window_start = self._window_start or now
        self._received += received
        seconds = now - self._window_start
        if received and seconds >= limits.window:
            if self._received < MIN_BYTES_PER_SECOND * seconds:
                raise OSError(f'only {self._received:,} bytes came in {seconds:.1f} seconds')
            self._window_start, self._received = now, 0
        return received

    def close(self) -> None:
        self._socket.close()
        super().close()


def _open(
    url: str, start: int, timeout: float, handler: _BoundedHandler
) -> tuple[Any, int, int | None]:
    """Asks for `url` from byte `start` on.

    Returns:
      The body, the byte of the file that it really starts from (0 where the server sends
      all of it), and the length of the complete file in bytes, None where the server does
      not say.
    """
    handler.allowance = MAX_REPLY_HEADER_BYTES
    opener = urllib.request.build_opener(_SafeRedirects, handler)
    try:
        request = urllib.request.Request(url, headers={'Range': f'bytes={start}-'} if start else {})
        if request.type == 'file':
            regular_size(urllib.request.url2pathname(request.selector), 'expected an archive')
        body = opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if start and error.code == 416:
            # No byte is left to send: the part is complete, or longer than the file.
            if error.headers.get('Content-Range') == f'bytes */{start}':
                return io.BytesIO(), start, start
            return _open(url, 0, timeout, handler)
        raise UnreachableError(f'{url}: HTTP {error.code} {_describe(error)}') from error
    except UnreachableError:
        raise
    except UserError as error:
        raise UnreachableError(f'{url}: {error}') from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnreachableError(f'{url}: {_describe(error)}') from error
    # Twice, for the lengths and line ends between the chunks of a chunked body.
    handler.allowance = 2 * MAX_ARCHIVE_BYTES
    if body.status != 206:
        length = body.headers.get('Content-Length') or ''
        return body, 0, int(length) if re.fullmatch('[0-9]{1,18}', length) else None
    content_range = body.headers.get('Content-Range') or ''
    match = re.fullmatch('bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})', content_range)
    first, last, total = map(int, match.groups()) if match else (0, 0, 0)
    # All that follows `start`, and nothing else.
    if match and first == start and last + 1 == total:
        return body, start, total
    body.close()
    if not start:
        raise UnreachableError(f'{url}: sent {content_range!r}; asked for the complete file')
    return _open(url, 0, timeout, handler)


def _describe(error: Exception) -> str:
    """What went wrong, on one line; much of it may be the server's own words."""
    cause = getattr(error, 'reason', error)
    if isinstance(cause, TimeoutError):
        return 'timed out'
    if isinstance(cause, http.client.IncompleteRead):
        return 'the connection dropped'
    words = ' '.join(str(cause).split()) or type(error).__name__
    return ''.join(letter if letter.isprintable() else '?' for letter in words[:200])


def _receive(body: Any, file: BinaryIO, url: str, start: int, total: int | None) -> None:
    """Appends the body to `file`, which holds `start` bytes, until it holds `total`.

    Without a `total`, it stops where the body ends, or at the first byte that is too many.
    """
    received = start
    end = MAX_ARCHIVE_BYTES + 1 if total is None else total

    def dropped(reason: str) -> UnreachableError:
        of_total = '' if total is None else f' of {total:,}'
        return UnreachableError(
            f'{url}: {reason} after {received:,}{of_total} bytes; {file.name} is kept, and the '
            'next run resumes there'
        )

    name = posixpath.basename(url)
    with tqdm(
        total=total, initial=start, desc=name, unit='B', unit_scale=True, disable=None
    ) as bar:
        while received < end:
            try:
                # read1 hands over what has come, so that a drop loses none of it.
                chunk = body.read1(min(_CHUNK_BYTES, end - received))
            except (OSError, http.client.HTTPException) as error:
                raise dropped(_describe(error)) from error
            if not chunk:
                break
            file.write(chunk)
            received += len(chunk)
            bar.update(len(chunk))
    if total is not None and received < total:
        raise dropped('the connection dropped')


def mismatch_with(path: str, fingerprint: Fingerprint) -> str:
    """How the file differs from the one of the fingerprint; '' where it doesn't."""
    size = regular_size(path, 'expected an archive')
    if size != fingerprint.size:
        return f'found {size:,} bytes; expected {fingerprint.size:,}'
    for name, algorithm, expected in (
        ('MD5', 'md5', fingerprint.md5),
        ('SHA-256', 'sha256', fingerprint.sha256),
    ):
        found = digest(path, algorithm)
        if found != expected:
            return f'found {name} {found}; expected {expected}'
    return ''
