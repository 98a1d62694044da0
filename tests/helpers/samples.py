"""What the tests of the data share: record files, archives, a local server and odd files."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import os
import socket
import sys
import tarfile
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from cifar10_input import TEST_FILES, TRAIN_FILES
from cifar10_lib.data.download import Fingerprint

FILES = (*TRAIN_FILES, *TEST_FILES)
RECORD_BYTES = 3073
CONTENT = bytes(range(256)) * 1000


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


def make_archive(*members: Any, mode: str = 'w:gz', without: str = '') -> bytes:
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


def closed_url() -> str:
    """A URL of a port where nobody listens."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return f'http://127.0.0.1:{free.getsockname()[1]}/archive.tar.gz'


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


def flip_bit(content: bytes, index: int) -> bytes:
    changed = bytearray(content)
    changed[index] ^= 1
    return bytes(changed)


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
