"""Downloads of one file: no network beyond 127.0.0.1."""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from cifar10_lib.base.errors import UserError
from cifar10_lib.data import download
from cifar10_lib.data.download import Fingerprint, UnreachableError
from tests.helpers.samples import CONTENT, Server, fingerprint, full_disk, read, tree, write


def test_download_writes_the_whole_file(server: Server, tmp_path: Any) -> None:
    path = str(tmp_path / 'file')
    download.download(server.url(), path, fingerprint(CONTENT))
    assert read(path) == CONTENT
    assert tree(tmp_path) == {'file'}
    assert server.ranges == [None]


def test_download_without_announced_length(server: Server, tmp_path: Any) -> None:
    server.announces_length = False
    path = str(tmp_path / 'file')
    download.download(server.url(), path)
    assert read(path) == CONTENT


def test_download_from_file_url(tmp_path: Any) -> None:
    source = tmp_path / 'a source'
    source.write_bytes(CONTENT)
    path = str(tmp_path / 'file')
    download.download(source.as_uri(), path)
    assert read(path) == CONTENT


def test_download_resumes_after_a_drop(server: Server, tmp_path: Any) -> None:
    path = str(tmp_path / 'file')
    server.sends_at_most = 100_000
    with pytest.raises(UnreachableError, match=r'100,000 of 256,000 bytes.*is kept.*resumes'):
        download.download(server.url(), path)
    assert read(path + '.part') == CONTENT[:100_000]
    assert not os.path.exists(path)
    server.sends_at_most = sys.maxsize
    download.download(server.url(), path, fingerprint(CONTENT))
    assert server.ranges == [None, 'bytes=100000-']
    assert read(path) == CONTENT
    assert tree(tmp_path) == {'file'}


def test_download_starts_over_where_range_is_ignored(server: Server, tmp_path: Any) -> None:
    path = str(tmp_path / 'file')
    write(path + '.part', b'x' * 500)
    server.honours_range = False
    download.download(server.url(), path)
    assert server.ranges == ['bytes=500-']
    assert read(path) == CONTENT


def test_download_starts_over_at_a_wrong_content_range(server: Server, tmp_path: Any) -> None:
    path = str(tmp_path / 'file')
    write(path + '.part', CONTENT[:500])
    server.content_range = 'bytes 400-255999/256000'
    download.download(server.url(), path)
    assert server.ranges == ['bytes=500-', None]
    assert read(path) == CONTENT


def test_download_takes_a_whole_part_as_it_is(server: Server, tmp_path: Any) -> None:
    path = str(tmp_path / 'file')
    write(path + '.part', CONTENT)
    download.download(server.url(), path, fingerprint(CONTENT))
    assert server.ranges == ['bytes=256000-']
    assert read(path) == CONTENT


def test_download_starts_over_where_the_part_is_too_long(server: Server, tmp_path: Any) -> None:
    path = str(tmp_path / 'file')
    write(path + '.part', CONTENT + b'x')
    download.download(server.url(), path)
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
        download.download(server.url(), str(tmp_path / 'file'), wrong)
    assert tree(tmp_path) == set()


def test_download_keeps_its_part_where_another_file_is_served(
    server: Server, tmp_path: Any
) -> None:
    path = str(tmp_path / 'file')
    write(path + '.part', CONTENT[:500])
    server.content, server.honours_range = b'<html>Log in first</html>', False
    with pytest.raises(UnreachableError, match='has 25 bytes; expected 256,000'):
        download.download(server.url(), path, fingerprint(CONTENT))
    assert read(path + '.part') == CONTENT[:500]


@pytest.mark.parametrize('url', ['ftp://127.0.0.1/a.tar.gz', '/tmp/a.tar.gz', 'data:,abc'])
def test_download_refuses_other_schemes(tmp_path: Any, url: str) -> None:
    with pytest.raises(UserError, match='expected a URL that starts with http'):
        download.download(url, str(tmp_path / 'file'))
    assert tree(tmp_path) == set()


def test_download_follows_redirects(server: Server, tmp_path: Any) -> None:
    server.redirect = '/moved'
    download.download(server.url(), str(tmp_path / 'file'))
    assert read(tmp_path / 'file') == CONTENT


@pytest.mark.parametrize('target', ['file:///etc/hostname', 'ftp://127.0.0.1/file'])
def test_download_refuses_redirects_to_other_schemes(
    server: Server, tmp_path: Any, target: str
) -> None:
    server.redirect = target
    with pytest.raises(UnreachableError, match=f'(?i)^{server.url()}: [^/]*redirect.*{target}'):
        download.download(server.url(), str(tmp_path / 'file'))
    assert tree(tmp_path) == set()


def test_redirect_from_https_to_http_is_refused() -> None:
    request = urllib.request.Request('https://127.0.0.1/a')
    follow = download._SafeRedirects().redirect_request
    with pytest.raises(UnreachableError, match='redirect to http://127.0.0.1/b refused'):
        follow(request, None, 302, 'Found', {}, 'http://127.0.0.1/b')
    assert follow(request, None, 302, 'Found', {}, 'https://127.0.0.1/b') is not None


def test_download_times_out(server: Server, tmp_path: Any) -> None:
    server.stalls.set()
    start = time.monotonic()
    with pytest.raises(UnreachableError, match=r'(timed out|no answer within 0\.2 seconds)'):
        download.download(server.url(), str(tmp_path / 'file'), timeout=0.2)
    assert time.monotonic() - start < 10


def test_download_keeps_every_byte_that_came_before_a_time_out(
    server: Server, tmp_path: Any
) -> None:
    path = str(tmp_path / 'file')
    server.sends_at_most, server.hangs_up = 100_001, False
    with pytest.raises(UnreachableError, match='timed out after 100,001 of 256,000 bytes'):
        download.download(server.url(), path, timeout=0.2)
    assert read(path + '.part') == CONTENT[:100_001]


def test_download_names_status_and_url(server: Server, tmp_path: Any) -> None:
    server.status = 404
    with pytest.raises(UnreachableError, match='/archive.tar.gz: HTTP 404'):
        download.download(server.url(), str(tmp_path / 'file'))


def test_download_names_the_path_that_cannot_be_written(server: Server, tmp_path: Any) -> None:
    path = str(tmp_path / 'missing' / 'file')
    with pytest.raises(UserError, match='missing/file.part: No such file') as caught:
        download.download(server.url(), path)
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
        download.download(server.url(), path, rate_window=0.3)
    kept = read(path + '.part')
    assert 0 < len(kept) < 300 and CONTENT.startswith(kept)
    server.reply = None
    download.download(server.url(), path, fingerprint(CONTENT), rate_window=0.3)
    assert server.ranges == [None, f'bytes={len(kept)}-']
    assert read(path) == CONTENT


def test_download_gives_a_slow_server_its_time(server: Server, tmp_path: Any) -> None:
    # Each piece after the wait of a whole window.
    pieces = [CONTENT[i : i + 2000] for i in range(0, 8000, 2000)]
    head = HEADERS.replace(b'256000', b'8000')
    server.reply = (time.sleep(0.1) or piece for piece in [head, *pieces])  # type: ignore[func-returns-value]
    download.download(server.url(), str(tmp_path / 'file'), rate_window=0.1)
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
        download.download(server.url(), str(tmp_path / 'file'), rate_window=0.3)


@pytest.mark.parametrize('start', [b'', HEADERS], ids=['headers', 'body'])
def test_download_ends_at_its_time_limit(server: Server, tmp_path: Any, start: bytes) -> None:
    # Fast enough, and too long.
    server.reply = itertools.chain([start], dripping(b'x' * 1000))
    begin = time.monotonic()
    with pytest.raises(UnreachableError, match=r'not complete within 0\.3 seconds'):
        download.download(server.url(), str(tmp_path / 'file'), max_seconds=0.3)
    assert time.monotonic() - begin < 2
    assert os.path.exists(tmp_path / 'file.part') == bool(start)


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
    monkeypatch.setattr(download, 'MAX_ARCHIVE_BYTES', 1_000_000)
    start, rest = ENDLESS[where]
    server.reply = itertools.chain([start], itertools.repeat(rest))
    with pytest.raises(UnreachableError, match='far more than it should|got more than 65536'):
        download.download(server.url(), str(tmp_path / 'file'))
    assert not os.path.exists(tmp_path / 'file')


def test_download_stops_at_its_bound_where_no_length_is_announced(
    server: Server, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, 'MAX_ARCHIVE_BYTES', 300_000)
    server.reply = itertools.chain([b'HTTP/1.0 200 OK\r\n\r\n'], itertools.repeat(b'x' * 10_000))
    with pytest.raises(UnreachableError, match='sent more than 300,000 bytes.*deleted'):
        download.download(server.url(), str(tmp_path / 'file'))
    assert tree(tmp_path) == set()
    server.reply, server.announces_length = None, False
    server.content = bytes(300_000)
    download.download(server.url(), str(tmp_path / 'file'))
    assert read(tmp_path / 'file') == bytes(300_000)


def test_download_reads_no_more_than_the_published_size(server: Server, tmp_path: Any) -> None:
    server.reply = itertools.chain([b'HTTP/1.0 200 OK\r\n\r\n'], itertools.repeat(b'x' * 10_000))
    found = hashlib.md5(b'x' * 256_000, usedforsecurity=False).hexdigest()
    with pytest.raises(UnreachableError, match=f'found MD5 {found}; expected'):
        download.download(server.url(), str(tmp_path / 'file'), fingerprint(CONTENT))
    assert tree(tmp_path) == set()


@pytest.mark.parametrize('length', ['300001', '9' * 18])
def test_download_refuses_too_great_a_length(
    server: Server, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, length: str
) -> None:
    monkeypatch.setattr(download, 'MAX_ARCHIVE_BYTES', 300_000)
    server.reply = [HEADERS.replace(b'256000', length.encode())]
    with pytest.raises(UnreachableError, match=f'has {int(length):,} bytes; expected at most 300,'):
        download.download(server.url(), str(tmp_path / 'file'))
    assert tree(tmp_path) == set()


def test_download_survives_a_length_that_is_no_number(server: Server, tmp_path: Any) -> None:
    server.reply = [HEADERS.replace(b'256000', b'9' * 5000), CONTENT]
    download.download(server.url(), str(tmp_path / 'file'), fingerprint(CONTENT))
    assert read(tmp_path / 'file') == CONTENT


def chunked(content: bytes) -> bytes:
    return f'{len(content):x}\r\n'.encode() + content + b'\r\n'


def test_download_takes_chunks(server: Server, tmp_path: Any) -> None:
    server.reply = [CHUNKED, chunked(CONTENT[:1000]), chunked(CONTENT[1000:]), b'0\r\n\r\n']
    download.download(server.url(), str(tmp_path / 'file'))
    assert read(tmp_path / 'file') == CONTENT


@pytest.mark.parametrize('rest', [b'', b'ff', chunked(CONTENT[1000:])[:1000], b'no number\r\n'])
@pytest.mark.parametrize('is_known', [True, False])
def test_download_resumes_after_broken_chunks(
    server: Server, tmp_path: Any, rest: bytes, is_known: bool
) -> None:
    path = str(tmp_path / 'file')
    expected = fingerprint(CONTENT) if is_known else None
    server.reply = [CHUNKED, chunked(CONTENT[:1000]), rest]
    with pytest.raises(UnreachableError, match=r'the connection dropped after [12],.* is kept'):
        download.download(server.url(), path, expected)
    size = os.path.getsize(path + '.part')
    assert size in (1000, 1993) and tree(tmp_path) == {'file.part'}
    server.reply = None
    download.download(server.url(), path, expected)
    assert server.ranges == [None, f'bytes={size}-']
    assert read(path) == CONTENT


def test_download_keeps_its_part_where_no_length_is_announced(
    server: Server, tmp_path: Any
) -> None:
    path = str(tmp_path / 'file')
    server.announces_length, server.sends_at_most = False, 100_000
    with pytest.raises(UnreachableError, match='dropped after 100,000 of 256,000 .* is kept'):
        download.download(server.url(), path, fingerprint(CONTENT))
    server.sends_at_most = sys.maxsize
    download.download(server.url(), path, fingerprint(CONTENT))
    assert server.ranges == [None, 'bytes=100000-']


def test_download_does_not_go_round_in_a_circle(server: Server, tmp_path: Any) -> None:
    server.redirect = server.url()
    with pytest.raises(UnreachableError, match='HTTP 302 redirects that lead in a circle') as e:
        download.download(server.url(), str(tmp_path / 'file'))
    assert '\n' not in str(e.value)
    assert len(server.ranges) < 12


def test_download_prints_no_commands_to_the_terminal(server: Server, tmp_path: Any) -> None:
    server.reply = [b'HTTP/1.1 404 Gone\x1b[2J\x07away\r\n\r\n']
    with pytest.raises(UnreachableError, match=r'HTTP 404 Gone\?\[2J\?away$'):
        download.download(server.url(), str(tmp_path / 'file'))


def test_download_keeps_its_part_where_the_disk_is_full(server: Server, tmp_path: Any) -> None:
    path = str(tmp_path / 'file')
    with (
        full_disk(100_000),
        pytest.raises(UserError, match=f'{path}.part: File too large; once that .* resumes') as e,
    ):
        download.download(server.url(), path)
    assert not isinstance(e.value, UnreachableError)
    assert read(path + '.part') == CONTENT[:100_000]
    download.download(server.url(), path, fingerprint(CONTENT))
    assert server.ranges == [None, 'bytes=100000-']
    assert read(path) == CONTENT
