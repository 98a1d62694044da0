"""How does a URL become a file on this disk, in bounded time and space?

No server is trusted to be quick, brief or honest: time, rate, redirects and bytes all
have limits. What came before a broken connection is kept, and the next attempt goes on
from there.
"""

from __future__ import annotations

import functools
import http.client
import io
import os
import posixpath
import re
import time
from typing import Any, BinaryIO, NamedTuple, cast

from six.moves import urllib
from tqdm import tqdm

from cifar10_lib.base.errors import UserError, os_errors_named
from cifar10_lib.base.files import digest, regular_size
from cifar10_lib.data.archive import MAX_ARCHIVE_BYTES

# For connecting, and for each wait for data.
TIMEOUT_SECONDS = 30.0

# A server that sends less than this, over this time, would never come to an end.
MIN_BYTES_PER_SECOND = 1024
RATE_WINDOW_SECONDS = 30.0

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


class UnreachableError(UserError):
    """A URL does not give the archive that it should give."""


def download(
    url: str,
    path: str,
    fingerprint: Fingerprint | None = None,
    timeout: float = TIMEOUT_SECONDS,
    rate_window: float = RATE_WINDOW_SECONDS,
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
      rate_window: seconds over which MIN_BYTES_PER_SECOND must come.

    Raises:
      UserError: the URL is of another scheme, or `path` cannot be written.
      UnreachableError: the URL cannot be had, gives another file than `fingerprint` or
        more than MAX_ARCHIVE_BYTES, or gives it too slowly.
    """
    _check_scheme(url)
    part = path + '.part'
    start = regular_size(part, 'expected what was downloaded') if os.path.lexists(part) else 0
    body, start, total = _open(url, start, timeout, rate_window)
    with body:
        _check_length(url, total, fingerprint)
        if fingerprint:
            total = fingerprint.size
        try:
            with open(part, 'ab' if start else 'wb') as file:
                _receive(body, file, url, start, total)
        except OSError as error:
            raise UserError(
                f'{part}: {error.strerror or error}; once that is put right, the next run goes '
                'on from what is there'
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


def _check_length(url: str, length: int | None, fingerprint: Fingerprint | None) -> None:
    """Raises UnreachableError where the length that a server announces can't be right."""
    if length is None:
        return
    if fingerprint and length != fingerprint.size:
        raise UnreachableError(f'{url}: has {length:,} bytes; expected {fingerprint.size:,}')
    if length > MAX_ARCHIVE_BYTES:
        raise UnreachableError(
            f'{url}: has {length:,} bytes; expected at most {MAX_ARCHIVE_BYTES:,}'
        )


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


class _Paced(io.RawIOBase):
    """The bytes of one reply, as long as they come fast enough and are not too many."""

    def __init__(self, socket: io.RawIOBase, handler: _PacedHandler) -> None:
        self._socket, self._handler = socket, handler
        self._since: float | None = None
        self._received = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        received = self._socket.readinto(buffer) or 0
        self._handler.spend(received)
        # The wait for the first byte is the server's to use, within the timeout.
        now = time.monotonic()
        self._since = self._since or now
        self._received += received
        seconds = now - self._since
        if received and seconds >= self._handler.window:
            if self._received < MIN_BYTES_PER_SECOND * seconds:
                raise OSError(f'only {self._received:,} bytes came in {seconds:.1f} seconds')
            self._since, self._received = now, 0
        return received

    def close(self) -> None:
        self._socket.close()
        super().close()


class _PacedResponse(http.client.HTTPResponse):
    """A reply whose status, headers, body and trailers are all `_Paced`.

    A limit on the body alone would not do: a server can also drip its headers, and
    send trailers or replies of '100 Continue' without end.
    """

    def __init__(self, handler: _PacedHandler, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Paced(cast(io.BufferedReader, self.fp).detach(), handler))


class _PacedHandler(urllib.request.HTTPHandler):
    """Opens http and https URLs, and limits what the servers may send.

    Attributes:
      window: seconds over which MIN_BYTES_PER_SECOND must come.
      allowance: bytes that may still come, from all servers on the way.
    """

    # Before urllib's own handler of https.
    handler_order = urllib.request.HTTPHandler.handler_order - 1

    def __init__(self, window: float) -> None:
        super().__init__()
        self.window = window
        self.allowance = MAX_REPLY_HEADER_BYTES

    def spend(self, received: int) -> None:
        self.allowance -= received
        if self.allowance < 0:
            raise OSError('the server sends far more than it should')

    def _open_paced(self, connection_class: Any, request: Any) -> Any:
        def connect(*args: Any, **kwargs: Any) -> http.client.HTTPConnection:
            connection = connection_class(*args, **kwargs)
            connection.response_class = functools.partial(_PacedResponse, self)
            return connection

        return self.do_open(connect, request)

    def http_open(self, req: Any) -> Any:
        return self._open_paced(http.client.HTTPConnection, req)

    def https_open(self, req: Any) -> Any:
        return self._open_paced(http.client.HTTPSConnection, req)

    https_request = urllib.request.HTTPHandler.http_request


def _open(url: str, start: int, timeout: float, window: float) -> tuple[Any, int, int | None]:
    """Asks for `url` from byte `start` on.

    Returns:
      The body, the byte of the file that it really starts from (0 where the
      server sends all of it), and the length of the whole file in bytes, None where
      the server does not say.
    """
    request_headers = {'Range': f'bytes={start}-'} if start else {}
    handler = _PacedHandler(window)
    opener = urllib.request.build_opener(_SafeRedirects, handler)
    try:
        request = urllib.request.Request(url, headers=request_headers)
        _check_local(url, request)
        body = opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if start and error.code == 416:
            # No byte is left to send: the part is whole, or longer than the file.
            if error.headers.get('Content-Range') == f'bytes */{start}':
                return io.BytesIO(), start, start
            return _open(url, 0, timeout, window)
        raise UnreachableError(f'{url}: HTTP {error.code} {_reason(error)}') from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnreachableError(f'{url}: {_reason(error)}') from error
    # Twice, for the lengths and line ends between the chunks of a chunked body.
    handler.allowance = 2 * MAX_ARCHIVE_BYTES
    if body.status != 206:
        length = body.headers.get('Content-Length') or ''
        return body, 0, int(length) if re.fullmatch('[0-9]{1,18}', length) else None
    content_range = body.headers.get('Content-Range') or ''
    total = _length_of_whole(content_range, start)
    if total is not None:
        return body, start, total
    body.close()
    if not start:
        raise UnreachableError(f'{url}: sent {content_range!r}, and was asked for the whole file')
    return _open(url, 0, timeout, window)


def _check_local(url: str, request: Any) -> None:
    """Raises UnreachableError for a file URL of anything but a regular file."""
    if request.type != 'file':
        return
    try:
        regular_size(urllib.request.url2pathname(request.selector), 'expected an archive')
    except UserError as error:
        raise UnreachableError(f'{url}: {error}') from error


def _length_of_whole(content_range: str, start: int) -> int | None:
    """Length of the whole file; None where the range isn't all that follows `start`."""
    match = re.fullmatch('bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})', content_range)
    if match is None:
        return None
    first, last, total = map(int, match.groups())
    return total if first == start and last + 1 == total else None


def _reason(error: Exception) -> str:
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

    Without a `total`, the end is where the body ends, or the first byte that is too many.
    """
    received = start
    end = MAX_ARCHIVE_BYTES + 1 if total is None else total

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
        while received < end:
            try:
                # read1 hands over what has come, so that a drop loses none of it.
                chunk = body.read1(min(_CHUNK_BYTES, end - received))
            except (OSError, http.client.HTTPException) as error:
                raise dropped(_reason(error)) from error
            if not chunk:
                break
            file.write(chunk)
            received += len(chunk)
            bar.update(len(chunk))
    if total is not None and received < total:
        raise dropped('the connection dropped')


def mismatch_with(path: str, fingerprint: Fingerprint) -> str:
    """In which way the file is not the one that `fingerprint` tells; '' where it is."""
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
