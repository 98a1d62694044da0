"""Tests of cifar10_data: no network beyond 127.0.0.1."""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import hashlib
import http.server
import io
import itertools
import json
import lzma
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest

import cifar10_data
from cifar10_data import Fingerprint, Prepared, SyntheticSet, UnreachableError
from cifar10_input import TEST_FILES, TRAIN_FILES, RecordFormat
from cifar10_settings import UserError
from conftest import Script

FILES = (*TRAIN_FILES, *TEST_FILES)
RECORD_BYTES = 3073
CONTENT = bytes(range(256)) * 1000
SMALL = SyntheticSet(num_train=50, num_test=20, seed=0)


def fingerprint(content: bytes) -> Fingerprint:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return Fingerprint(len(content), md5, hashlib.sha256(content).hexdigest())


def records(count: int) -> bytes:
    return b''.join(bytes([i % 10]) + bytes([i % 256]) * 3072 for i in range(count))


def write_files(directory: Any, count: int = 10) -> None:
    os.makedirs(directory, exist_ok=True)
    for name in FILES:
        with open(os.path.join(directory, name), 'wb') as file:
            file.write(records(count))


def read(path: Any) -> bytes:
    with open(path, 'rb') as file:
        return file.read()


def write(path: Any, content: bytes) -> str:
    with open(path, 'wb') as file:
        file.write(content)
    return str(path)


def tree(directory: Any) -> set[str]:
    """Every file and directory under `directory`, relative to it."""
    return {
        os.path.relpath(os.path.join(parent, name), directory)
        for parent, directories, files in os.walk(directory)
        for name in directories + files
    }


def member(name: str, content: bytes = b'', kind: bytes = tarfile.REGTYPE, link: str = '') -> Any:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, link
    return info, content


def archive_of(*members: Any, mode: str = 'w:gz', without: str = '') -> bytes:
    """A tar archive of the six record files, but `without` one, followed by `members`."""
    whole = [member(f'cifar-10-batches-bin/{n}', records(10)) for n in FILES if n != without]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for info, content in (*whole, *members):
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """Serves one content for every path, well or badly."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), Handler)
        self.content = CONTENT
        self.honours_range = True
        self.content_range = ''
        self.announces_length = True
        self.sends_at_most = sys.maxsize
        self.hangs_up = True
        self.status = 0
        self.redirect = ''
        self.reply: Iterable[bytes] | None = None
        self.stalls = threading.Event()
        self.released = threading.Event()
        self.ranges: list[str | None] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # A client that hung up.
            super().handle_error(request, client_address)

    def url(self, path: str = 'archive.tar.gz') -> str:
        return f'http://127.0.0.1:{self.server_address[1]}/{path}'


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.ranges.append(self.headers['Range'])
        if server.stalls.is_set():
            server.released.wait(10)
        if server.reply is not None:
            for piece in server.reply:
                self.wfile.write(piece)
        elif server.status:
            self.send_error(server.status)
        elif server.redirect and self.path != '/moved':
            self.send_response(302)
            self.send_header('Location', server.redirect)
            self.end_headers()
        else:
            self.send_content(server)

    def send_content(self, server: Server) -> None:
        start, size = 0, len(server.content)
        if self.headers['Range'] and server.honours_range:
            start = int(self.headers['Range'].removeprefix('bytes=').removesuffix('-'))
            self.send_response(206 if start < size else 416)
            if start >= size:
                self.send_header('Content-Range', f'bytes */{size}')
                self.end_headers()
                return
            content_range = server.content_range or f'bytes {start}-{size - 1}/{size}'
            self.send_header('Content-Range', content_range)
        else:
            self.send_response(200)
        if server.announces_length:
            self.send_header('Content-Length', str(size - start))
        self.end_headers()
        self.wfile.write(server.content[start : start + server.sends_at_most])
        if not server.hangs_up:
            server.released.wait(10)

    def log_message(self, *args: Any) -> None:
        """Keeps the tests' output free of requests."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture(scope='module')
def small_set(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A synthetic set of 500 training and 100 test images; not to be written to."""
    directory = str(tmp_path_factory.mktemp('synthetic') / 'set')
    cifar10_data.generate_synthetic(directory, 500, 100, seed=3)
    return directory


def closed_url() -> str:
    """A URL of a port where nobody listens."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return f'http://127.0.0.1:{free.getsockname()[1]}/archive.tar.gz'


# ------------------------------------------------------------------------------
# Downloading.


def test_download_writes_the_whole_file(server: Server, tmp_path: Any) -> None:
    path = str(tmp_path / 'file')
    cifar10_data.download(server.url(), path, fingerprint(CONTENT))
    assert read(path) == CONTENT
    assert tree(tmp_path) == {'file'}
    assert server.ranges == [None]


def test_download_without_announced_length(server: Server, tmp_path: Any) -> None:
    server.announces_length = False
    path = str(tmp_path / 'file')
    cifar10_data.download(server.url(), path)
    assert read(path) == CONTENT


def test_download_from_file_url(tmp_path: Any) -> None:
    source = tmp_path / 'a source'
    source.write_bytes(CONTENT)
    path = str(tmp_path / 'file')
    cifar10_data.download(source.as_uri(), path)
    assert read(path) == CONTENT


def test_download_goes_on_after_a_drop(server: Server, tmp_path: Any) -> None:
    path = str(tmp_path / 'file')
    server.sends_at_most = 100_000
    with pytest.raises(UnreachableError, match=r'100,000 of 256,000 bytes.*is kept.*goes on'):
        cifar10_data.download(server.url(), path)
    assert read(path + '.part') == CONTENT[:100_000]
    assert not os.path.exists(path)
    server.sends_at_most = sys.maxsize
    cifar10_data.download(server.url(), path, fingerprint(CONTENT))
    assert server.ranges == [None, 'bytes=100000-']
    assert read(path) == CONTENT
    assert tree(tmp_path) == {'file'}


def test_download_starts_over_where_range_is_ignored(server: Server, tmp_path: Any) -> None:
    path = str(tmp_path / 'file')
    write(path + '.part', b'x' * 500)
    server.honours_range = False
    cifar10_data.download(server.url(), path)
    assert server.ranges == ['bytes=500-']
    assert read(path) == CONTENT


def test_download_starts_over_at_a_wrong_content_range(server: Server, tmp_path: Any) -> None:
    path = str(tmp_path / 'file')
    write(path + '.part', CONTENT[:500])
    server.content_range = 'bytes 400-255999/256000'
    cifar10_data.download(server.url(), path)
    assert server.ranges == ['bytes=500-', None]
    assert read(path) == CONTENT


def test_download_takes_a_whole_part_as_it_is(server: Server, tmp_path: Any) -> None:
    path = str(tmp_path / 'file')
    write(path + '.part', CONTENT)
    cifar10_data.download(server.url(), path, fingerprint(CONTENT))
    assert server.ranges == ['bytes=256000-']
    assert read(path) == CONTENT


def test_download_starts_over_where_the_part_is_too_long(server: Server, tmp_path: Any) -> None:
    path = str(tmp_path / 'file')
    write(path + '.part', CONTENT + b'x')
    cifar10_data.download(server.url(), path)
    assert server.ranges == ['bytes=256001-', None]
    assert read(path) == CONTENT


@pytest.mark.parametrize(
    ('wrong', 'found'),
    [
        (fingerprint(CONTENT)._replace(md5='0123'), fingerprint(CONTENT).md5),
        (fingerprint(CONTENT)._replace(sha256='0123'), fingerprint(CONTENT).sha256),
    ],
    ids=['md5', 'sha256'],
)
def test_download_deletes_what_has_a_wrong_digest(
    server: Server, tmp_path: Any, wrong: Fingerprint, found: str
) -> None:
    with pytest.raises(UnreachableError, match=f'found .* {found}; expected 0123.*deleted'):
        cifar10_data.download(server.url(), str(tmp_path / 'file'), wrong)
    assert tree(tmp_path) == set()


def test_download_keeps_its_part_where_another_file_is_served(
    server: Server, tmp_path: Any
) -> None:
    path = str(tmp_path / 'file')
    write(path + '.part', CONTENT[:500])
    server.content, server.honours_range = b'<html>Log in first</html>', False
    with pytest.raises(UnreachableError, match='has 25 bytes; expected 256,000'):
        cifar10_data.download(server.url(), path, fingerprint(CONTENT))
    assert read(path + '.part') == CONTENT[:500]


@pytest.mark.parametrize('url', ['ftp://127.0.0.1/a.tar.gz', '/tmp/a.tar.gz', 'data:,abc'])
def test_download_refuses_other_schemes(tmp_path: Any, url: str) -> None:
    with pytest.raises(UserError, match='expected a URL that starts with http'):
        cifar10_data.download(url, str(tmp_path / 'file'))
    assert tree(tmp_path) == set()


def test_download_follows_redirects(server: Server, tmp_path: Any) -> None:
    server.redirect = '/moved'
    cifar10_data.download(server.url(), str(tmp_path / 'file'))
    assert read(tmp_path / 'file') == CONTENT


@pytest.mark.parametrize('target', ['file:///etc/hostname', 'ftp://127.0.0.1/file'])
def test_download_refuses_redirects_to_other_schemes(
    server: Server, tmp_path: Any, target: str
) -> None:
    server.redirect = target
    with pytest.raises(UnreachableError, match=f'(?i)^{server.url()}: [^/]*redirect.*{target}'):
        cifar10_data.download(server.url(), str(tmp_path / 'file'))
    assert tree(tmp_path) == set()


def test_redirect_from_https_to_http_is_refused() -> None:
    request = urllib.request.Request('https://127.0.0.1/a')
    follow = cifar10_data._SafeRedirects().redirect_request
    with pytest.raises(UnreachableError, match='redirect to http://127.0.0.1/b refused'):
        follow(request, None, 302, 'Found', {}, 'http://127.0.0.1/b')
    assert follow(request, None, 302, 'Found', {}, 'https://127.0.0.1/b') is not None


def test_download_times_out(server: Server, tmp_path: Any) -> None:
    server.stalls.set()
    start = time.monotonic()
    with pytest.raises(UnreachableError, match=r'(timed out|no answer within 0\.2 seconds)'):
        cifar10_data.download(server.url(), str(tmp_path / 'file'), timeout=0.2)
    assert time.monotonic() - start < 2


def test_download_keeps_every_byte_that_came_before_a_time_out(
    server: Server, tmp_path: Any
) -> None:
    path = str(tmp_path / 'file')
    server.sends_at_most, server.hangs_up = 100_001, False
    with pytest.raises(UnreachableError, match='timed out after 100,001 of 256,000 bytes'):
        cifar10_data.download(server.url(), path, timeout=0.2)
    assert read(path + '.part') == CONTENT[:100_001]


def test_download_names_status_and_url(server: Server, tmp_path: Any) -> None:
    server.status = 404
    with pytest.raises(UnreachableError, match='/archive.tar.gz: HTTP 404'):
        cifar10_data.download(server.url(), str(tmp_path / 'file'))


def test_download_names_the_path_that_cannot_be_written(server: Server, tmp_path: Any) -> None:
    path = str(tmp_path / 'missing' / 'file')
    with pytest.raises(UserError, match='missing/file.part: No such file') as caught:
        cifar10_data.download(server.url(), path)
    assert not isinstance(caught.value, UnreachableError)


def dripping(content: bytes, seconds: float = 0.005) -> Iterator[bytes]:
    for i in range(len(content)):
        time.sleep(seconds)
        yield content[i : i + 1]


HEADERS = b'HTTP/1.1 200 OK\r\nContent-Length: 256000\r\n\r\n'
CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'


def test_download_does_not_wait_for_a_drip(server: Server, tmp_path: Any) -> None:
    path = str(tmp_path / 'file')
    server.reply = itertools.chain([HEADERS], dripping(CONTENT))
    reason = r'only \d+ bytes came in \d+\.\d seconds after \d+ of 256,000 bytes; .*part is kept'
    with pytest.raises(UnreachableError, match=reason):
        cifar10_data.download(server.url(), path, rate_window=0.3)
    kept = read(path + '.part')
    assert 0 < len(kept) < 300 and CONTENT.startswith(kept)
    server.reply = None
    cifar10_data.download(server.url(), path, fingerprint(CONTENT), rate_window=0.3)
    assert server.ranges == [None, f'bytes={len(kept)}-']
    assert read(path) == CONTENT


def test_download_gives_a_slow_server_its_time(server: Server, tmp_path: Any) -> None:
    # Each piece after the wait of a whole window.
    pieces = [CONTENT[i : i + 2000] for i in range(0, 8000, 2000)]
    head = HEADERS.replace(b'256000', b'8000')
    server.reply = (time.sleep(0.1) or piece for piece in [head, *pieces])  # type: ignore[func-returns-value]
    cifar10_data.download(server.url(), str(tmp_path / 'file'), rate_window=0.1)
    assert read(tmp_path / 'file') == CONTENT[:8000]


@pytest.mark.parametrize(
    'start',
    [b'', b'HTTP/1.1 302 Found\r\nLocation: /b\r\nX: ', CHUNKED + b'1;x='],
    ids=['status', 'redirect', 'chunk'],
)
def test_download_does_not_wait_for_a_drip_outside_the_body(
    server: Server, tmp_path: Any, start: bytes
) -> None:
    server.reply = itertools.chain([start], dripping(b'x' * 2000))
    with pytest.raises(UnreachableError, match=r'only \d+ bytes came in \d+\.\d seconds'):
        cifar10_data.download(server.url(), str(tmp_path / 'file'), rate_window=0.3)


ENDLESS = {
    'continue': (b'', b'HTTP/1.1 100 Continue\r\n\r\n'),
    'header': (b'HTTP/1.1 200 OK\r\nX: ', b'x' * 10_000),
    'redirect': (b'HTTP/1.1 302 Found\r\nLocation: /b\r\n\r\n', b'x' * 10_000),
    'trailers': (CHUNKED + b'0\r\n', b'X: x\r\n' * 1000),
}


@pytest.mark.parametrize('where', ENDLESS)
def test_download_stops_at_an_endless_reply(
    server: Server, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(cifar10_data, 'MAX_ARCHIVE_BYTES', 1_000_000)
    start, rest = ENDLESS[where]
    server.reply = itertools.chain([start], itertools.repeat(rest))
    with pytest.raises(UnreachableError, match='far more than it should|got more than 65536'):
        cifar10_data.download(server.url(), str(tmp_path / 'file'))
    assert not os.path.exists(tmp_path / 'file')


def test_download_stops_at_its_bound_where_no_length_is_announced(
    server: Server, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar10_data, 'MAX_ARCHIVE_BYTES', 300_000)
    server.reply = itertools.chain([b'HTTP/1.0 200 OK\r\n\r\n'], itertools.repeat(b'x' * 10_000))
    with pytest.raises(UnreachableError, match='sent more than 300,000 bytes.*deleted'):
        cifar10_data.download(server.url(), str(tmp_path / 'file'))
    assert tree(tmp_path) == set()
    server.reply, server.announces_length = None, False
    server.content = bytes(300_000)
    cifar10_data.download(server.url(), str(tmp_path / 'file'))
    assert read(tmp_path / 'file') == bytes(300_000)


def test_download_reads_no_more_than_the_published_size(server: Server, tmp_path: Any) -> None:
    server.reply = itertools.chain([b'HTTP/1.0 200 OK\r\n\r\n'], itertools.repeat(b'x' * 10_000))
    found = hashlib.md5(b'x' * 256_000, usedforsecurity=False).hexdigest()
    with pytest.raises(UnreachableError, match=f'found MD5 {found}; expected'):
        cifar10_data.download(server.url(), str(tmp_path / 'file'), fingerprint(CONTENT))
    assert tree(tmp_path) == set()


@pytest.mark.parametrize('length', ['300001', '9' * 18])
def test_download_refuses_too_great_a_length(
    server: Server, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, length: str
) -> None:
    monkeypatch.setattr(cifar10_data, 'MAX_ARCHIVE_BYTES', 300_000)
    server.reply = [HEADERS.replace(b'256000', length.encode())]
    with pytest.raises(UnreachableError, match=f'has {int(length):,} bytes; expected at most 300,'):
        cifar10_data.download(server.url(), str(tmp_path / 'file'))
    assert tree(tmp_path) == set()


def test_download_survives_a_length_that_is_no_number(server: Server, tmp_path: Any) -> None:
    server.reply = [HEADERS.replace(b'256000', b'9' * 5000), CONTENT]
    cifar10_data.download(server.url(), str(tmp_path / 'file'), fingerprint(CONTENT))
    assert read(tmp_path / 'file') == CONTENT


def chunked(content: bytes) -> bytes:
    return f'{len(content):x}\r\n'.encode() + content + b'\r\n'


def test_download_takes_chunks(server: Server, tmp_path: Any) -> None:
    server.reply = [CHUNKED, chunked(CONTENT[:1000]), chunked(CONTENT[1000:]), b'0\r\n\r\n']
    cifar10_data.download(server.url(), str(tmp_path / 'file'))
    assert read(tmp_path / 'file') == CONTENT


@pytest.mark.parametrize('rest', [b'', b'ff', chunked(CONTENT[1000:])[:1000], b'no number\r\n'])
@pytest.mark.parametrize('is_known', [True, False])
def test_download_goes_on_after_broken_chunks(
    server: Server, tmp_path: Any, rest: bytes, is_known: bool
) -> None:
    path = str(tmp_path / 'file')
    expected = fingerprint(CONTENT) if is_known else None
    server.reply = [CHUNKED, chunked(CONTENT[:1000]), rest]
    with pytest.raises(UnreachableError, match=r'the connection dropped after [12],.* is kept'):
        cifar10_data.download(server.url(), path, expected)
    size = os.path.getsize(path + '.part')
    assert size in (1000, 1993) and tree(tmp_path) == {'file.part'}
    server.reply = None
    cifar10_data.download(server.url(), path, expected)
    assert server.ranges == [None, f'bytes={size}-']
    assert read(path) == CONTENT


def test_download_keeps_its_part_where_no_length_is_announced(
    server: Server, tmp_path: Any
) -> None:
    path = str(tmp_path / 'file')
    server.announces_length, server.sends_at_most = False, 100_000
    with pytest.raises(UnreachableError, match='dropped after 100,000 of 256,000 .* is kept'):
        cifar10_data.download(server.url(), path, fingerprint(CONTENT))
    server.sends_at_most = sys.maxsize
    cifar10_data.download(server.url(), path, fingerprint(CONTENT))
    assert server.ranges == [None, 'bytes=100000-']


def test_download_does_not_go_round_in_a_circle(server: Server, tmp_path: Any) -> None:
    server.redirect = server.url()
    with pytest.raises(UnreachableError, match='HTTP 302 redirects that lead in a circle') as e:
        cifar10_data.download(server.url(), str(tmp_path / 'file'))
    assert '\n' not in str(e.value)
    assert len(server.ranges) < 12


def test_download_prints_no_commands_to_the_terminal(server: Server, tmp_path: Any) -> None:
    server.reply = [b'HTTP/1.1 404 Gone\x1b[2J\x07away\r\n\r\n']
    with pytest.raises(UnreachableError, match=r'HTTP 404 Gone\?\[2J\?away$'):
        cifar10_data.download(server.url(), str(tmp_path / 'file'))


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes."""
    resource = pytest.importorskip('resource')
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_download_keeps_its_part_where_the_disk_is_full(server: Server, tmp_path: Any) -> None:
    path = str(tmp_path / 'file')
    with (
        full_disk(100_000),
        pytest.raises(UserError, match=f'{path}.part: File too large; once that .* goes on') as e,
    ):
        cifar10_data.download(server.url(), path)
    assert not isinstance(e.value, UnreachableError)
    assert read(path + '.part') == CONTENT[:100_000]
    cifar10_data.download(server.url(), path, fingerprint(CONTENT))
    assert server.ranges == [None, 'bytes=100000-']
    assert read(path) == CONTENT


# ------------------------------------------------------------------------------
# Unpacking.


@pytest.mark.parametrize('mode', ['w:gz', 'w:bz2', 'w:xz', 'w'])
def test_unpack_takes_the_expected_members_alone(tmp_path: Any, mode: str) -> None:
    extra = [
        member('cifar-10-batches-bin/batches.meta.txt', b'airplane\n'),
        member('cifar-10-batches-bin/other.bin', b'other'),
        member('elsewhere/data_batch_1.bin', b'elsewhere'),
    ]
    path = write(tmp_path / 'archive', archive_of(*extra, mode=mode))
    directory = cifar10_data.unpack(path, str(tmp_path / 'data'))
    assert directory == str(tmp_path / 'data' / 'cifar-10-batches-bin')
    assert tree(tmp_path / 'data') == {'cifar-10-batches-bin'} | {
        os.path.join('cifar-10-batches-bin', name)
        for name in (*FILES, 'batches.meta.txt', 'SHA256SUMS')
    }
    assert all(read(os.path.join(directory, name)) == records(10) for name in FILES)


def test_unpack_takes_no_rights_from_the_archive(tmp_path: Any) -> None:
    info, content = member('cifar-10-batches-bin/batches.meta.txt', b'airplane\n')
    info.mode = 0o4777
    path = write(tmp_path / 'archive', archive_of((info, content)))
    directory = cifar10_data.unpack(path, str(tmp_path))
    mode = os.stat(os.path.join(directory, 'batches.meta.txt')).st_mode
    assert f'{mode & 0o7022:o}' == '0'


def flip_bit(content: bytes, index: int) -> bytes:
    changed = bytearray(content)
    changed[index] ^= 1
    return bytes(changed)


DAMAGED: dict[str, Callable[[], bytes]] = {
    'empty': lambda: b'',
    'text': lambda: b'not an archive' * 100,
    'half': lambda: (a := archive_of())[: len(a) // 2],
    'last byte missing': lambda: archive_of()[:-1],
    'wrong checksum': lambda: flip_bit(archive_of(), -8),
    'half of a plain tar': lambda: (a := archive_of(mode='w'))[: len(a) // 2],
    'half of an xz': lambda: (a := archive_of(mode='w:xz'))[: len(a) // 2],
    'half of a bz2': lambda: (a := archive_of(mode='w:bz2'))[: len(a) // 2],
}


@pytest.mark.parametrize('damage', DAMAGED)
def test_unpack_refuses_damaged_archives(tmp_path: Any, damage: str) -> None:
    path = write(tmp_path / 'archive', DAMAGED[damage]())
    with pytest.raises(UserError, match='archive: (not a whole tar archive|.*missing)'):
        cifar10_data.unpack(path, str(tmp_path))
    assert tree(tmp_path) == {'archive'}


def test_unpack_names_a_missing_member(tmp_path: Any) -> None:
    path = write(tmp_path / 'archive', archive_of(without='data_batch_3.bin'))
    with pytest.raises(UserError, match='cifar-10-batches-bin/data_batch_3.bin: missing'):
        cifar10_data.unpack(path, str(tmp_path))
    assert tree(tmp_path) == {'archive'}


def test_unpack_names_a_wrong_label(tmp_path: Any) -> None:
    bad = member('cifar-10-batches-bin/test_batch.bin', b'\x0a' + bytes(3072))
    path = write(tmp_path / 'archive', archive_of(bad, without='test_batch.bin'))
    with pytest.raises(UserError, match='cifar-10-batches-bin/test_batch.bin: record 0.*label 10'):
        cifar10_data.unpack(path, str(tmp_path))
    assert tree(tmp_path) == {'archive'}


DANGEROUS = {
    'parent': member('../evil.bin', b'evil'),
    'hidden parent': member('cifar-10-batches-bin/../../evil.bin', b'evil'),
    'symbolic link': member('cifar-10-batches-bin/link', b'', tarfile.SYMTYPE, '../..'),
    'hard link': member('cifar-10-batches-bin/link', b'', tarfile.LNKTYPE, '../../victim'),
    'device': member('cifar-10-batches-bin/device', b'', tarfile.CHRTYPE),
    'pipe': member('cifar-10-batches-bin/pipe', b'', tarfile.FIFOTYPE),
}


@pytest.mark.parametrize('danger', [*DANGEROUS, 'absolute'])
def test_unpack_refuses_dangerous_members(tmp_path: Any, danger: str) -> None:
    bad = DANGEROUS.get(danger) or member(str(tmp_path / 'evil.bin'), b'evil')
    os.mkdir(tmp_path / 'data')
    write(tmp_path / 'victim', b'unharmed')
    path = write(tmp_path / 'archive', archive_of(bad))
    with pytest.raises(UserError, match=f'refused, because its member {bad[0].name!r}'):
        cifar10_data.unpack(path, str(tmp_path / 'data'))
    assert tree(tmp_path) == {'data', 'victim', 'archive'}
    assert read(tmp_path / 'victim') == b'unharmed'


def test_unpack_refuses_enormous_members(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / 'archive', archive_of())
    monkeypatch.setattr(cifar10_data, 'MAX_MEMBER_BYTES', 30_729)
    with pytest.raises(UserError, match="data_batch_1.bin' has 30,730 bytes, more than 30,729"):
        cifar10_data.unpack(path, str(tmp_path))
    assert tree(tmp_path) == {'archive'}


def claiming(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header that claims `size` bytes of content, which may not follow."""
    info, _ = member(name, b'', kind)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def plain(*pieces: bytes) -> bytes:
    """An uncompressed archive of `pieces`, then the six record files."""
    return b''.join(pieces) + archive_of(mode='w')


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def pax(records: dict[str, str], kind: bytes = tarfile.XHDTYPE) -> bytes:
    """A pax header of `records` about what follows."""
    content = b''.join(
        f'{len(key) + len(value) + 5 + (len(key) + len(value) > 94)} {key}={value}\n'.encode()
        for key, value in records.items()
    )
    return claiming('pax', len(content), kind) + padded(content)


FIRST = 'cifar-10-batches-bin/data_batch_1.bin'
HUGE = 10**13

# What lies before six sound record files, and what is said about it.
HARMFUL: dict[str, tuple[bytes, str]] = {
    'claims to be huge': (claiming(FIRST, HUGE), 'data_batch_1.bin. has 10,000,000,000,000 bytes'),
    'claims to be huge, passed over': (claiming('other', HUGE), 'other. has 10,000,0'),
    'claims more than there is': (claiming(FIRST, 300_000_000), 'data_batch_1.bin. breaks off'),
    'claims more, passed over': (claiming('other', 300_000_000), 'unexpected end of data'),
    'less than nothing': (claiming('other', -512), 'other. has -512 bytes'),
    'goes back': (claiming('a', 0) + claiming('b', -1024), 'b. has -1,024 bytes'),
    'sparse': (claiming('other', 512, tarfile.GNUTYPE_SPARSE) + bytes(512), 'not a plain file'),
    'long name': (claiming('n', HUGE, tarfile.GNUTYPE_LONGNAME), 'headers too long'),
    'long name of zeros': (
        claiming('n', 10**6, tarfile.GNUTYPE_LONGNAME) + bytes(10**6),
        'headers too long',
    ),
    'long names without end': (
        (claiming('n', 512, tarfile.GNUTYPE_LONGNAME) + bytes(512)) * 1000,
        'recursion|headers too long or too many',
    ),
    'name of less than nothing': (
        claiming('n', -(10**9), tarfile.GNUTYPE_LONGNAME),
        'headers too long',
    ),
    'thousands of members': (claiming('other', 0) * 3000, 'headers too long or too many'),
    'pax name': (pax({'path': '../evil'}) + claiming('good', 0), "'../evil' leads out"),
    'pax name for all': (
        pax({'path': '/evil'}, tarfile.XGLTYPE) + pax({'a': 'b'}) + claiming('good', 0),
        "'/evil' leads out",
    ),
    'pax size': (pax({'size': str(HUGE)}) + claiming('a', 0), "'a' has 10,000,0"),
    'pax size below zero': (pax({'size': '-512'}) + claiming('a', 0), "'a' has -512 bytes"),
    'pax attributes': (claiming('pax', HUGE, tarfile.XHDTYPE), 'headers too long'),
    'pax sparse 0.0': (
        pax({'GNU.sparse.size': '9', 'GNU.sparse.numblocks': '0'}) + claiming('a', 0),
        'not a plain file',
    ),
    'pax sparse 0.1': (
        pax({'GNU.sparse.map': '0,1', 'GNU.sparse.size': '9'}) + claiming('a', 0),
        'not a plain file',
    ),
    'pax sparse 1.0': (
        pax({'GNU.sparse.major': '1', 'GNU.sparse.minor': '0'}) + claiming('a', 512) + b'9' * 512,
        'not a whole tar archive',
    ),
    'no number': (claiming('a', 0)[:124] + b'no number', 'not a whole tar archive|missing'),
}


@pytest.mark.parametrize('harm', HARMFUL)
def test_unpack_refuses_harmful_headers(tmp_path: Any, harm: str) -> None:
    pieces, message = HARMFUL[harm]
    path = write(tmp_path / 'archive', plain(pieces))
    start = time.monotonic()
    with pytest.raises(UserError, match=message):
        cifar10_data.unpack(path, str(tmp_path))
    assert time.monotonic() - start < 5
    assert tree(tmp_path) == {'archive'}


def test_unpack_takes_pax_names(tmp_path: Any) -> None:
    content = records(7)
    renamed = pax({'path': FIRST, 'mtime': '1.5'}) + claiming('x', len(content)) + padded(content)
    rest = archive_of(mode='w', without='data_batch_1.bin')
    directory = cifar10_data.unpack(write(tmp_path / 'archive', renamed + rest), str(tmp_path))
    assert read(os.path.join(directory, 'data_batch_1.bin')) == content


@pytest.mark.parametrize('name', [FIRST, './' + FIRST, 'cifar-10-batches-bin//data_batch_1.bin'])
def test_unpack_refuses_a_file_that_comes_twice(tmp_path: Any, name: str) -> None:
    path = write(tmp_path / 'archive', archive_of(member(name, records(3))))
    with pytest.raises(UserError, match=f'refused, because it holds {name!r} twice'):
        cifar10_data.unpack(path, str(tmp_path))
    assert tree(tmp_path) == {'archive'}


ZEROS = bytes(1_000_000)


@pytest.mark.parametrize('compress', [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize(
    'content',
    [
        plain(claiming('zeros', len(ZEROS)), padded(ZEROS)),
        archive_of(member('zeros', ZEROS), mode='w'),
        archive_of(mode='w') + ZEROS,
    ],
    ids=['before', 'after', 'behind the end'],
)
def test_unpack_refuses_bombs(
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    compress: Callable[[bytes], bytes],
    content: bytes,
) -> None:
    path = write(tmp_path / 'archive', compress(content))
    monkeypatch.setattr(cifar10_data, 'MAX_ARCHIVE_BYTES', 500_000)
    with pytest.raises(UserError, match='refused, because it unpacks to more than 500,000 bytes'):
        cifar10_data.unpack(path, str(tmp_path))
    assert tree(tmp_path) == {'archive'}


def test_unpack_refuses_an_enormous_archive(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / 'archive', archive_of(mode='w'))
    monkeypatch.setattr(cifar10_data, 'MAX_ARCHIVE_BYTES', 100_000)
    with pytest.raises(UserError, match='refused, because it has .* bytes, more than 100,000'):
        cifar10_data.unpack(path, str(tmp_path))


def test_unpack_limits_the_memory_of_xz(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / 'archive', lzma.compress(archive_of(mode='w'), preset=6))
    monkeypatch.setattr(cifar10_data, 'MAX_XZ_MEMORY_BYTES', 1 << 20)
    with pytest.raises(UserError, match='not a whole tar archive: Memory usage limit exceeded'):
        cifar10_data.unpack(path, str(tmp_path))


def test_a_full_disk_leaves_nothing_half_unpacked(tmp_path: Any) -> None:
    path = write(tmp_path / 'archive', archive_of())
    with full_disk(20_000), pytest.raises(UserError, match='data_batch_1.bin: File too large'):
        cifar10_data.unpack(path, str(tmp_path))
    assert tree(tmp_path) == {'archive'}
    with full_disk(20_000), pytest.raises(UserError, match='set.*: File too large'):
        cifar10_data.generate_synthetic(str(tmp_path / 'set'), 50, 10)
    assert tree(tmp_path) == {'archive'}


def test_unpack_replaces_what_a_killed_process_left(tmp_path: Any) -> None:
    stale = tmp_path / '.cifar-10-batches-bin.unfinished'
    stale.mkdir()
    write(stale / 'junk', b'junk')
    directory = cifar10_data.unpack(write(tmp_path / 'archive', archive_of()), str(tmp_path))
    assert set(os.listdir(directory)) == {*FILES, 'SHA256SUMS'}
    assert set(os.listdir(tmp_path)) == {'archive', 'cifar-10-batches-bin'}


def test_unpack_interrupted_leaves_nothing(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / 'archive', archive_of())

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, 'rename', interrupt)
        cifar10_data.unpack(path, str(tmp_path))
    assert tree(tmp_path) == {'archive'}
    assert cifar10_data.check_directory(cifar10_data.unpack(path, str(tmp_path))) == (50, 10)


def test_unpack_overwrites_nothing(tmp_path: Any) -> None:
    os.mkdir(tmp_path / 'cifar-10-batches-bin')
    write(tmp_path / 'cifar-10-batches-bin' / 'precious', b'precious')
    path = write(tmp_path / 'archive', archive_of())
    with pytest.raises(UserError, match='cifar-10-batches-bin: is in the way'):
        cifar10_data.unpack(path, str(tmp_path))
    assert tree(tmp_path / 'cifar-10-batches-bin') == {'precious'}


# ------------------------------------------------------------------------------
# Checking.


def test_check_counts_images(tmp_path: Any) -> None:
    write_files(tmp_path, 3)
    assert cifar10_data.check_directory(str(tmp_path)) == (15, 3)


def test_check_names_a_missing_file(tmp_path: Any) -> None:
    write_files(tmp_path)
    os.remove(tmp_path / 'data_batch_5.bin')
    with pytest.raises(UserError, match='data_batch_5.bin: missing'):
        cifar10_data.check_directory(str(tmp_path))


def test_check_names_an_empty_file(tmp_path: Any) -> None:
    write_files(tmp_path)
    write(tmp_path / 'test_batch.bin', b'')
    with pytest.raises(UserError, match='test_batch.bin: empty'):
        cifar10_data.check_directory(str(tmp_path))


def test_check_names_a_directory_in_place_of_a_file(tmp_path: Any) -> None:
    write_files(tmp_path)
    os.remove(tmp_path / 'test_batch.bin')
    os.mkdir(tmp_path / 'test_batch.bin')
    with pytest.raises(UserError, match='test_batch.bin: not a regular file'):
        cifar10_data.check_directory(str(tmp_path))


@pytest.mark.parametrize(('size', 'rest'), [(4 * RECORD_BYTES - 1, '3,072'), (9220, '1')])
def test_check_names_a_broken_record(tmp_path: Any, size: int, rest: str) -> None:
    write_files(tmp_path)
    write(tmp_path / 'data_batch_2.bin', records(10)[:size])
    where = f'data_batch_2.bin: record 3, from byte 9,219 on, has {rest} bytes; expected 3,073'
    with pytest.raises(UserError, match=where):
        cifar10_data.check_directory(str(tmp_path))


def test_check_names_record_and_byte_of_a_wrong_label(tmp_path: Any) -> None:
    write_files(tmp_path)
    content = bytearray(records(10))
    content[4 * RECORD_BYTES] = 10
    content[6 * RECORD_BYTES] = 200
    write(tmp_path / 'data_batch_4.bin', bytes(content))
    where = 'data_batch_4.bin: record 4, byte 12,292: label 10; expected 0 to 9'
    with pytest.raises(UserError, match=where):
        cifar10_data.check_directory(str(tmp_path))
    assert cifar10_data.check_directory(str(tmp_path), num_classes=201) == (50, 10)


@pytest.mark.parametrize(('label_index', 'byte'), [(-1, 6149), (0, 6148)])
def test_check_knows_records_of_two_labels(tmp_path: Any, label_index: int, byte: int) -> None:
    record = RecordFormat(label_bytes=2, label_index=label_index)
    content = bytearray(3 * 3074)
    for name in FILES:
        write(tmp_path / name, bytes(content))
    content[byte] = 20
    write(tmp_path / 'test_batch.bin', bytes(content))
    with pytest.raises(UserError, match=f'record 2, byte {byte:,}: label 20; expected 0 to 19'):
        cifar10_data.check_directory(str(tmp_path), record, num_classes=20)
    assert cifar10_data.check_directory(str(tmp_path), record, num_classes=21) == (15, 3)


def sums_of(directory: Any, names: tuple[str, ...] = FILES) -> str:
    """What `sha256sum` prints for the files."""
    contents = [(name, read(os.path.join(directory, name))) for name in names]
    return ''.join(f'{hashlib.sha256(content).hexdigest()}  {name}\n' for name, content in contents)


def test_sums_are_those_of_sha256sum(small_set: str) -> None:
    written = read(os.path.join(small_set, 'SHA256SUMS')).decode()
    assert written == sums_of(small_set, (*FILES, 'batches.meta.txt'))
    if not shutil.which('sha256sum'):
        pytest.skip('needs sha256sum')
    command = ['sha256sum', '--check', '--strict', 'SHA256SUMS']
    done = subprocess.run(command, cwd=small_set, capture_output=True, text=True)
    assert (done.returncode, done.stdout.count(': OK\n')) == (0, 7)


@pytest.mark.parametrize('name', ['data_batch_5.bin', 'test_batch.bin', 'batches.meta.txt'])
def test_check_compares_digests(tmp_path: Any, small_set: str, name: str) -> None:
    directory = str(shutil.copytree(small_set, tmp_path / 'set'))
    whole = read(os.path.join(directory, name))
    path = write(os.path.join(directory, name), flip_bit(whole, 5))
    found = hashlib.sha256(flip_bit(whole, 5)).hexdigest()
    expected = hashlib.sha256(whole).hexdigest()
    message = (
        f'{path}: found SHA-256 {found}; expected {expected}, by SHA256SUMS .* move {directory}'
    )
    with pytest.raises(UserError, match=message):
        cifar10_data.check_directory(directory)
    os.remove(os.path.join(directory, 'SHA256SUMS'))
    assert cifar10_data.check_directory(directory) == (500, 100)


def test_check_names_a_structural_error_before_a_digest(tmp_path: Any, small_set: str) -> None:
    directory = str(shutil.copytree(small_set, tmp_path / 'set'))
    path = os.path.join(directory, 'data_batch_1.bin')
    write(path, flip_bit(read(path), 5))
    write(os.path.join(directory, 'test_batch.bin'), b'\x0a' + bytes(3072))
    with pytest.raises(UserError, match='test_batch.bin: record 0, byte 0: label 10'):
        cifar10_data.check_directory(directory)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda sums: '', 'does not list data_batch_1.bin'),
        (lambda sums: sums[:-1].rpartition('\n')[0], 'does not list test_batch.bin'),
        (lambda sums: sums[1:], 'line 1: found no digest and name'),
        (lambda sums: sums + '\n', 'line 7: found no digest and name'),
        (lambda sums: sums.replace('  ', ' ', 1), 'line 1: found no digest and name'),
        (lambda sums: sums + sums, "line 7: found 'data_batch_1.bin' a second time"),
        (lambda sums: sums + 'x' * (1 << 20), 'has 1,049,0.. bytes'),
    ],
    ids=['empty', 'unlisted', 'digit', 'blank', 'space', 'twice', 'enormous'],
)
def test_check_names_malformed_sums(
    tmp_path: Any, change: Callable[[str], str], message: str
) -> None:
    write_files(tmp_path)
    write(tmp_path / 'SHA256SUMS', change(sums_of(tmp_path)).encode())
    with pytest.raises(UserError, match=f'SHA256SUMS: {message}.*expected lines as sha256sum'):
        cifar10_data.check_directory(str(tmp_path))


def test_check_takes_the_sums_of_others(tmp_path: Any) -> None:
    write_files(tmp_path)
    write(tmp_path / 'LICENSE', b'')
    sums = sums_of(tmp_path, (*FILES, 'LICENSE')).replace('  ', ' *').upper()
    for name in (*FILES, 'LICENSE'):
        sums = sums.replace(name.upper(), name)
    write(tmp_path / 'SHA256SUMS', sums.replace('\n', '\r\n').encode())
    os.remove(tmp_path / 'LICENSE')
    assert cifar10_data.check_directory(str(tmp_path)) == (50, 10)


def test_check_needs_a_listed_file_of_names(tmp_path: Any) -> None:
    write_files(tmp_path)
    write(tmp_path / 'batches.meta.txt', b'')
    write(tmp_path / 'SHA256SUMS', sums_of(tmp_path, (*FILES, 'batches.meta.txt')).encode())
    os.remove(tmp_path / 'batches.meta.txt')
    with pytest.raises(UserError, match='batches.meta.txt: missing'):
        cifar10_data.check_directory(str(tmp_path))


def test_sha256_of(tmp_path: Any) -> None:
    path = write(tmp_path / 'file', CONTENT * 9)
    assert cifar10_data.sha256_of(path) == hashlib.sha256(CONTENT * 9).hexdigest()
    with pytest.raises(UserError, match='nowhere: missing'):
        cifar10_data.sha256_of(str(tmp_path / 'nowhere'))


@pytest.mark.parametrize(
    ('content', 'likeness'),
    [
        (bytes(3 * 3074), 'looks like CIFAR-100, whose records have 3,074 bytes'),
        (bytes(3072 * 3073 + 1) + bytes(3073), ''),
        (b'\x80\x02}q\x01(' + bytes(5000), 'looks like a Python pickle'),
        (b'\x80\x02}q\x01(' + bytes(3067), 'looks like a Python pickle'),
        (b'\x1f\x8b\x08' + bytes(5000), 'looks like a gzip archive'),
        (b'<!DOCTYPE html>', 'looks like a web page'),
    ],
    ids=['CIFAR-100', 'nothing', 'pickle', 'pickle of whole length', 'gzip', 'page'],
)
def test_check_says_what_a_file_looks_like(tmp_path: Any, content: bytes, likeness: str) -> None:
    write_files(tmp_path)
    write(tmp_path / 'data_batch_2.bin', content)
    with pytest.raises(UserError, match=f'data_batch_2.bin: record.*; expected .*{likeness}') as e:
        cifar10_data.check_directory(str(tmp_path))
    assert bool(likeness) == ('looks like' in str(e.value))


def test_check_says_that_records_look_like_cifar10(tmp_path: Any) -> None:
    write_files(tmp_path)
    with pytest.raises(UserError, match='has 3,064 bytes.* looks like CIFAR-10, .* 3,073 bytes'):
        cifar10_data.check_directory(str(tmp_path), RecordFormat(label_bytes=2), 100)


def make_odd(path: str, kind: str) -> None:
    if kind == 'pipe':
        os.mkfifo(path)
    elif kind == 'directory':
        os.mkdir(path)
    else:
        os.symlink({'device': '/dev/zero', 'circle': path}.get(kind, '/nowhere'), path)


ODD = {
    'pipe': 'not a regular file',
    'directory': 'not a regular file',
    'device': 'not a regular file',
    'link': 'a link to nowhere',
    'circle': 'Too many levels of symbolic links',
}
unix = pytest.mark.skipif(os.name != 'posix', reason='needs the files of a Unix')


@unix
@pytest.mark.parametrize('kind', ODD)
@pytest.mark.parametrize('name', ['data_batch_3.bin', 'SHA256SUMS'])
def test_check_names_an_odd_file(tmp_path: Any, name: str, kind: str) -> None:
    write_files(tmp_path)
    with contextlib.suppress(FileNotFoundError):
        os.remove(tmp_path / name)
    make_odd(str(tmp_path / name), kind)
    with pytest.raises(UserError, match=f'{name}: {ODD[kind]}'):
        cifar10_data.check_directory(str(tmp_path))


@unix
@pytest.mark.parametrize('kind', ODD)
def test_other_files_may_be_odd_without_harm(tmp_path: Any, kind: str) -> None:
    for name in ('batches.meta.txt', 'synthetic.json', 'archive.tar.gz', 'archive.tar.gz.part'):
        make_odd(str(tmp_path / name), kind)
    directory = str(tmp_path)
    with pytest.raises(UserError, match=f'batches.meta.txt: {ODD[kind]}'):
        cifar10_data.class_names(directory)
    with pytest.raises(UserError, match=f'synthetic.json: {ODD[kind]}'):
        cifar10_data.prepare(directory, 'synthetic')
    os.rename(tmp_path / 'synthetic.json', tmp_path / 'moved away')
    with pytest.raises(UserError, match=f'archive.tar.gz: {ODD[kind]}'):
        cifar10_data.prepare(directory, 'cifar10', closed_url())
    with pytest.raises(UserError, match=f'archive.tar.gz: {ODD[kind]}'):
        cifar10_data.unpack(str(tmp_path / 'archive.tar.gz'), directory)
    with pytest.raises(UserError, match=f'archive.tar.gz.part: {ODD[kind]}'):
        cifar10_data.download(closed_url(), str(tmp_path / 'archive.tar.gz'))
    url = (tmp_path / 'archive.tar.gz').as_uri()
    with pytest.raises(UnreachableError, match=f'{url}: .*archive.tar.gz: {ODD[kind]}'):
        cifar10_data.download(url, str(tmp_path / 'copy'))


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() == 0, reason='root may read all')
def test_check_names_a_file_that_may_not_be_read(tmp_path: Any) -> None:
    write_files(tmp_path)
    os.chmod(tmp_path / 'data_batch_2.bin', 0)
    with pytest.raises(UserError, match='data_batch_2.bin: Permission denied'):
        cifar10_data.check_directory(str(tmp_path))
    os.mkdir(tmp_path / 'closed', 0o600)
    with pytest.raises(UserError, match='closed/data_batch_1.bin: Permission denied'):
        cifar10_data.check_directory(str(tmp_path / 'closed'))


def test_class_names(tmp_path: Any, small_set: str) -> None:
    assert cifar10_data.class_names(str(tmp_path)) == list('0123456789')
    assert cifar10_data.class_names(small_set)[:3] == ['disc', 'ring', 'square']
    write(tmp_path / 'batches.meta.txt', b'airplane\nautomobile\n\n')
    with pytest.raises(UserError, match='batches.meta.txt: found 2 class names; expected 10'):
        cifar10_data.class_names(str(tmp_path))
    write(tmp_path / 'batches.meta.txt', b'\n'.join([b'air\x1b[2Jplane'] * 10))
    with pytest.raises(UserError, match=r"found the class name 'air\\x1b\[2Jplane'"):
        cifar10_data.class_names(str(tmp_path))


# ------------------------------------------------------------------------------
# Preparing.


def test_prepare_downloads_once(
    server: Server, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    server.content = archive_of()
    data_dir = str(tmp_path / 'new' / 'data')
    directory = os.path.join(data_dir, 'cifar-10-batches-bin')
    for _ in range(2):
        found = cifar10_data.prepare(data_dir, data_url=server.url('my%20archive.tgz?x=1'))
        assert found == Prepared(directory, 'cifar10')
    assert len(server.ranges) == 1
    assert read(os.path.join(data_dir, 'my archive.tgz')) == server.content
    output = capsys.readouterr().out
    assert output.count('Downloading') == 1
    assert output.count('Not the published archive, but used because --data_url names it') == 1


def test_prepare_takes_an_archive_that_is_there(server: Server, tmp_path: Any) -> None:
    write(tmp_path / 'archive.tar.gz', archive_of())
    cifar10_data.prepare(str(tmp_path), data_url=server.url())
    assert cifar10_data.check_directory(str(tmp_path / 'cifar-10-batches-bin')) == (50, 10)
    assert server.ranges == []


@pytest.mark.parametrize('dataset', ['cifar10', 'auto'])
def test_prepare_refuses_another_archive_under_the_published_name(
    tmp_path: Any, dataset: str
) -> None:
    path = write(tmp_path / 'cifar-10-binary.tar.gz', archive_of())
    with pytest.raises(UserError, match='found .* bytes; expected 170,052,171.*move the archive'):
        cifar10_data.prepare(str(tmp_path), dataset)
    assert read(path) == archive_of()


@pytest.mark.parametrize('dataset', ['cifar10', 'auto'])
@pytest.mark.parametrize('folder', ['', 'cifar-10-batches-bin'])
def test_prepare_uses_files_that_are_there(tmp_path: Any, folder: str, dataset: str) -> None:
    write_files(tmp_path / folder)
    directory, found = cifar10_data.prepare(str(tmp_path), dataset, closed_url())
    assert (os.path.normpath(directory), found) == (str(tmp_path / folder), 'cifar10')


@pytest.mark.parametrize('dataset', ['cifar10', 'auto'])
def test_prepare_keeps_damaged_files(server: Server, tmp_path: Any, dataset: str) -> None:
    write_files(tmp_path)
    write(tmp_path / 'data_batch_1.bin', b'damaged')
    with pytest.raises(UserError, match='data_batch_1.bin: record 0, from byte 0 on, has 7 bytes'):
        cifar10_data.prepare(str(tmp_path), dataset, server.url())
    assert read(tmp_path / 'data_batch_1.bin') == b'damaged'
    assert server.ranges == []


def test_prepare_cifar10_is_strict(tmp_path: Any) -> None:
    url = closed_url()
    with pytest.raises(UserError) as caught:
        cifar10_data.prepare(str(tmp_path), 'cifar10', url)
    for words in (url, str(tmp_path), '--data_url', 'file', '--dataset=synthetic'):
        assert words in str(caught.value)
    assert '\n' not in str(caught.value)
    assert tree(tmp_path) == set()


@pytest.mark.parametrize('folder', ['', 'cifar-10-batches-bin'])
def test_prepare_refuses_the_synthetic_set_for_cifar10(
    server: Server, tmp_path: Any, folder: str
) -> None:
    write_files(tmp_path / folder)
    write(tmp_path / folder / 'synthetic.json', b'{}')
    with pytest.raises(UserError, match='holds the synthetic set.*expected CIFAR-10'):
        cifar10_data.prepare(str(tmp_path), 'cifar10', server.url())
    assert server.ranges == []


def test_prepare_generates_the_synthetic_set_once(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = str(tmp_path / 'synthetic-batches-bin')
    prepare = functools.partial(cifar10_data.prepare, str(tmp_path), 'synthetic', closed_url())
    for wanted in (SMALL, SMALL, None):
        assert prepare(synthetic=wanted) == Prepared(directory, 'synthetic')
    assert capsys.readouterr().out.count('Generating 70 images') == 1
    with pytest.raises(UserError, match='num_test=20 seed=0.*asked for .* num_test=20 seed=1'):
        prepare(synthetic=SMALL._replace(seed=1))


def test_prepare_does_not_take_cifar10_for_synthetic(tmp_path: Any) -> None:
    write_files(tmp_path)
    found = cifar10_data.prepare(str(tmp_path), 'synthetic', synthetic=SMALL)
    assert found.directory == str(tmp_path / 'synthetic-batches-bin')


def test_prepare_finds_the_synthetic_set_wherever_it_lies(
    small_set: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for dataset in ('synthetic', 'auto'):
        found = cifar10_data.prepare(small_set, dataset, closed_url())
        assert found == Prepared(small_set, 'synthetic')
    assert capsys.readouterr().out.count('synthetic pictures instead of CIFAR-10') == 1


def test_prepare_keeps_a_damaged_synthetic_set(tmp_path: Any) -> None:
    found = cifar10_data.prepare(str(tmp_path), 'synthetic', synthetic=SMALL)
    write(os.path.join(found.directory, 'test_batch.bin'), records(19))
    with pytest.raises(UserError, match='found 50 training and 19 test .* says 50 and 20'):
        cifar10_data.prepare(str(tmp_path), 'synthetic')
    write(os.path.join(found.directory, 'test_batch.bin'), records(20))
    with pytest.raises(UserError, match='test_batch.bin: found SHA-256'):
        cifar10_data.prepare(str(tmp_path), 'synthetic')
    assert read(os.path.join(found.directory, 'test_batch.bin')) == records(20)


@pytest.mark.parametrize(
    'marker',
    [b'', b'[]', b'{"a": 1}', b'{"num_train": "50"}', b'{"seed": null}', b'\xff', b'[' * 100_000],
    ids=['empty', 'list', 'key', 'text', 'null', 'no text', 'deep'],
)
def test_prepare_names_a_damaged_marker(tmp_path: Any, marker: bytes) -> None:
    write_files(tmp_path)
    write(tmp_path / 'synthetic.json', marker)
    with pytest.raises(UserError, match='synthetic.json: not the marker of a synthetic set'):
        cifar10_data.prepare(str(tmp_path), 'synthetic')


def test_prepare_auto_takes_cifar10_where_it_can_be_had(server: Server, tmp_path: Any) -> None:
    server.content = archive_of()
    found = cifar10_data.prepare(str(tmp_path), 'auto', server.url())
    assert found == Prepared(str(tmp_path / 'cifar-10-batches-bin'), 'cifar10')


def test_prepare_auto_announces_synthetic_pictures(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    url = closed_url()
    for _ in range(2):
        found = cifar10_data.prepare(str(tmp_path), 'auto', url, SMALL)
        assert found == Prepared(str(tmp_path / 'synthetic-batches-bin'), 'synthetic')
        output = capsys.readouterr().out
        assert f'CIFAR-10 could not be had: {url}: ' in output
        assert 'Using synthetic pictures instead of CIFAR-10' in output


def test_prepare_names_a_file_in_place_of_the_data_directory(tmp_path: Any) -> None:
    path = write(tmp_path / 'data', b'')
    with pytest.raises(UserError, match=f'{path}.*: (File exists|Not a directory)'):
        cifar10_data.prepare(path, 'synthetic', synthetic=SMALL)


@pytest.mark.parametrize(
    ('dataset', 'url', 'message'),
    [
        ('cifar100', 'http://127.0.0.1/a', "--dataset must be one of .*, found 'cifar100'"),
        ('auto', 'gopher://127.0.0.1/a.tar.gz', 'expected a URL that starts with http'),
        ('cifar10', 'http://127.0.0.1/', 'ends in the name of an archive'),
        ('cifar10', 'http://127.0.0.1/%2e%2e', 'ends in the name of an archive'),
        ('cifar10', 'http://[127.0.0.1/a', 'not a URL'),
    ],
)
def test_prepare_names_a_wrong_setting(tmp_path: Any, dataset: str, url: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cifar10_data.prepare(str(tmp_path), dataset, url)
    assert tree(tmp_path) == set()


def test_prepare_waits_for_another_process(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fcntl = pytest.importorskip('fcntl')
    found: list[Prepared] = []
    prepare = functools.partial(cifar10_data.prepare, str(tmp_path), 'cifar10', closed_url())
    waiting = threading.Thread(target=lambda: found.append(prepare()))
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    waiting.start()
    deadline = time.monotonic() + 5
    output = ''
    while 'Waiting for another process' not in output and time.monotonic() < deadline:
        output += capsys.readouterr().out
        time.sleep(0.01)
    write_files(tmp_path / 'cifar-10-batches-bin')
    os.close(descriptor)
    waiting.join(5)
    assert 'Waiting for another process' in output
    assert found == [Prepared(str(tmp_path / 'cifar-10-batches-bin'), 'cifar10')]


# ------------------------------------------------------------------------------
# The synthetic set.


def load(directory: str, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    content = b''.join(read(os.path.join(directory, name)) for name in names)
    data = np.frombuffer(content, np.uint8).reshape(-1, RECORD_BYTES)
    return data[:, 0], data[:, 1:].reshape(-1, 3, 32, 32)


def test_synthetic_format(small_set: str) -> None:
    expected = {*FILES, 'batches.meta.txt', 'synthetic.json', 'SHA256SUMS'}
    assert set(os.listdir(small_set)) == expected
    for name in FILES:
        assert os.path.getsize(os.path.join(small_set, name)) == 100 * RECORD_BYTES
    assert cifar10_data.check_directory(small_set) == (500, 100)
    marker = json.loads(read(os.path.join(small_set, 'synthetic.json')))
    assert marker == {'num_train': 500, 'num_test': 100, 'seed': 3, 'version': 1}
    assert len(set(cifar10_data.class_names(small_set))) == 10


def test_synthetic_set_derives_from_its_seed(tmp_path: Any, small_set: str) -> None:
    for seed in (3, 4):
        cifar10_data.generate_synthetic(str(tmp_path / str(seed)), 500, 100, seed)
    for name in FILES:
        content = read(os.path.join(small_set, name))
        assert read(tmp_path / '3' / name) == content
        assert read(tmp_path / '4' / name) != content


def test_synthetic_classes_are_balanced_and_shuffled(tmp_path: Any, small_set: str) -> None:
    for names, expected in ((TRAIN_FILES, 50), (TEST_FILES, 10)):
        labels, _ = load(small_set, names)
        assert np.bincount(labels, minlength=10).tolist() == [expected] * 10
        assert not np.array_equal(labels, np.arange(len(labels)) % 10)
    # Files of 3 images: no file is balanced, and the five together are.
    cifar10_data.generate_synthetic(str(tmp_path / 'odd'), 15, 1)
    labels, _ = load(str(tmp_path / 'odd'), TRAIN_FILES)
    assert sorted(np.bincount(labels, minlength=10)) == [1] * 5 + [2] * 5


def test_synthetic_images_are_all_different(small_set: str) -> None:
    _, train = load(small_set, TRAIN_FILES)
    _, test = load(small_set, TEST_FILES)
    pictures = {image.tobytes() for image in np.concatenate([train, test])}
    assert len(pictures) == 600


@pytest.mark.parametrize(
    ('numbers', 'flag'),
    [((12, 5, 0), '--num_train'), ((0, 5, 0), '--num_train'), ((10, 0, 0), '--num_test')],
)
def test_synthetic_set_names_a_wrong_number(
    tmp_path: Any, numbers: tuple[int, int, int], flag: str
) -> None:
    with pytest.raises(UserError, match=flag):
        cifar10_data.generate_synthetic(str(tmp_path / 'set'), *numbers)
    assert tree(tmp_path) == set()


def test_synthetic_set_overwrites_nothing(small_set: str) -> None:
    before = read(os.path.join(small_set, 'test_batch.bin'))
    with pytest.raises(UserError, match='is in the way'):
        cifar10_data.generate_synthetic(small_set, 10, 10)
    assert read(os.path.join(small_set, 'test_batch.bin')) == before


# ------------------------------------------------------------------------------
# The script, and the real data.


def test_script_prints_what_is_where(run_script: Script, tmp_path: Any) -> None:
    data_dir = str(tmp_path / 'data')
    counts = ('--num_train=50', '--num_test=20')
    done = run_script('cifar10_data.py', f'--data_dir={data_dir}', '--dataset=synthetic', *counts)
    assert done.returncode == 0, done.stderr
    directory = os.path.join(data_dir, 'synthetic-batches-bin')
    assert f'synthetic: 50 training and 20 test images in {directory}' in done.stdout
    assert '10 classes: disc, ring, ' in done.stdout
    assert cifar10_data.check_directory(directory) == (50, 20)


def test_script_shows_a_mistake_without_traceback(run_script: Script, tmp_path: Any) -> None:
    done = run_script('cifar10_data.py', f'--data_dir={tmp_path}', f'--data_url={closed_url()}')
    assert done.returncode == 1
    assert 'cifar10_data.py: error: CIFAR-10 could not be had: ' in done.stderr
    assert 'Traceback' not in done.stderr


def test_real_cifar10(real_data: str) -> None:
    directory, dataset = cifar10_data.prepare(real_data, 'cifar10')
    assert dataset == 'cifar10'
    assert cifar10_data.check_directory(directory) == (50000, 10000)
    labels, images = load(directory, TRAIN_FILES)
    assert np.bincount(labels).tolist() == [5000] * 10
    # One training image, a frog (label 6), starts with this pixel. In the published
    # order it is the first; copies of the data set may hold another order.
    assert labels[(images[:, :, 0, 0] == [59, 62, 63]).all(axis=1)].tolist() == [6]
