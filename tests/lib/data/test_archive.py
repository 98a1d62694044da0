"""What an archive may put on the disk."""

from __future__ import annotations

import gzip
import os
import tarfile
import time
from collections.abc import Callable
from typing import Any

import pytest

from cifar10_lib.base.errors import UserError
from cifar10_lib.data import archive, record_files
from tests.helpers.samples import (
    FILES,
    flip_bit,
    full_disk,
    make_archive,
    member,
    read,
    records,
    tree,
    write,
)


def test_unpack_takes_the_expected_members_alone(tmp_path: Any) -> None:
    extra = [
        member('cifar-10-batches-bin/batches.meta.txt', b'airplane\n'),
        member('cifar-10-batches-bin/other.bin', b'other'),
        member('elsewhere/data_batch_1.bin', b'elsewhere'),
    ]
    path = write(tmp_path / 'archive', make_archive(*extra))
    directory = archive.unpack(path, str(tmp_path / 'data'))
    assert directory == str(tmp_path / 'data' / 'cifar-10-batches-bin')
    assert tree(tmp_path / 'data') == {'cifar-10-batches-bin'} | {
        os.path.join('cifar-10-batches-bin', name)
        for name in (*FILES, 'batches.meta.txt', 'SHA256SUMS')
    }
    assert all(read(os.path.join(directory, name)) == records(10) for name in FILES)


def test_unpack_takes_no_rights_from_the_archive(tmp_path: Any) -> None:
    info, content = member('cifar-10-batches-bin/batches.meta.txt', b'airplane\n')
    info.mode = 0o4777
    path = write(tmp_path / 'archive', make_archive((info, content)))
    directory = archive.unpack(path, str(tmp_path))
    mode = os.stat(os.path.join(directory, 'batches.meta.txt')).st_mode
    assert f'{mode & 0o7022:o}' == '0'


DAMAGED: dict[str, Callable[[], bytes]] = {
    'empty': lambda: b'',
    'text': lambda: b'not an archive' * 100,
    'half': lambda: (a := make_archive())[: len(a) // 2],
    'last byte missing': lambda: make_archive()[:-1],
    'wrong checksum': lambda: flip_bit(make_archive(), -8),
    'half of the tar': lambda: gzip.compress((a := make_archive(mode='w'))[: len(a) // 2]),
    'an xz': lambda: make_archive(mode='w:xz'),
    'a bz2': lambda: make_archive(mode='w:bz2'),
}


@pytest.mark.parametrize('damage', DAMAGED)
def test_unpack_refuses_damaged_archives(tmp_path: Any, damage: str) -> None:
    path = write(tmp_path / 'archive', DAMAGED[damage]())
    with pytest.raises(UserError, match='archive: (not a complete gzipped tar archive|.*missing)'):
        archive.unpack(path, str(tmp_path))
    assert tree(tmp_path) == {'archive'}


def test_unpack_names_a_missing_member(tmp_path: Any) -> None:
    path = write(tmp_path / 'archive', make_archive(without='data_batch_3.bin'))
    with pytest.raises(UserError, match='cifar-10-batches-bin/data_batch_3.bin: missing'):
        archive.unpack(path, str(tmp_path))
    assert tree(tmp_path) == {'archive'}


def test_unpack_names_a_wrong_label(tmp_path: Any) -> None:
    bad = member('cifar-10-batches-bin/test_batch.bin', b'\x0a' + bytes(3072))
    path = write(tmp_path / 'archive', make_archive(bad, without='test_batch.bin'))
    with pytest.raises(UserError, match='cifar-10-batches-bin/test_batch.bin: record 0.*label 10'):
        archive.unpack(path, str(tmp_path))
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
    path = write(tmp_path / 'archive', make_archive(bad))
    with pytest.raises(UserError, match=f'refused, because its member {bad[0].name!r}'):
        archive.unpack(path, str(tmp_path / 'data'))
    assert tree(tmp_path) == {'data', 'victim', 'archive'}
    assert read(tmp_path / 'victim') == b'unharmed'


def test_unpack_refuses_enormous_members(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / 'archive', make_archive())
    limits = archive.CIFAR10_LIMITS._replace(member=30_729)
    monkeypatch.setattr(archive, 'CIFAR10_LIMITS', limits)
    with pytest.raises(UserError, match="data_batch_1.bin' has 30,730 bytes, more than 30,729"):
        archive.unpack(path, str(tmp_path))
    assert tree(tmp_path) == {'archive'}


def claiming(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header that claims `size` bytes of content, which may not follow."""
    info, _ = member(name, b'', kind)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def plain(*pieces: bytes) -> bytes:
    """An uncompressed archive of `pieces`, then the six record files."""
    return b''.join(pieces) + make_archive(mode='w')


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
    'claims more than there is': (claiming(FIRST, 300_000_000), 'unexpected end of data'),
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
        "its member '' leads out of the directory",
    ),
    'thousands of members': (claiming('other', 0) * 3000, 'headers too long or too many'),
    'pax name': (pax({'path': '../evil'}) + claiming('good', 0), "'../evil' leads out"),
    'pax name for all': (
        pax({'path': '/evil'}, tarfile.XGLTYPE) + pax({'a': 'b'}) + claiming('good', 0),
        # Some Pythons, 3.11.2 and 3.13.0 among them, can't read two such headers on end.
        "'/evil' leads out|not a complete gzipped tar archive",
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
        'not a complete gzipped tar archive',
    ),
    'no number': (
        claiming('a', 0)[:124] + b'no number',
        'not a complete gzipped tar archive|missing',
    ),
}


@pytest.mark.parametrize('harm', HARMFUL)
def test_unpack_refuses_harmful_headers(tmp_path: Any, harm: str) -> None:
    pieces, message = HARMFUL[harm]
    path = write(tmp_path / 'archive', gzip.compress(plain(pieces)))
    start = time.monotonic()
    with pytest.raises(UserError, match=message):
        archive.unpack(path, str(tmp_path))
    assert time.monotonic() - start < 5
    assert tree(tmp_path) == {'archive'}


def test_unpack_takes_pax_names(tmp_path: Any) -> None:
    content = records(7)
    renamed = pax({'path': FIRST, 'mtime': '1.5'}) + claiming('x', len(content)) + padded(content)
    rest = make_archive(mode='w', without='data_batch_1.bin')
    directory = archive.unpack(
        write(tmp_path / 'archive', gzip.compress(renamed + rest)), str(tmp_path)
    )
    assert read(os.path.join(directory, 'data_batch_1.bin')) == content


@pytest.mark.parametrize('name', [FIRST, './' + FIRST, 'cifar-10-batches-bin//data_batch_1.bin'])
def test_unpack_refuses_a_file_that_comes_twice(tmp_path: Any, name: str) -> None:
    path = write(tmp_path / 'archive', make_archive(member(name, records(3))))
    with pytest.raises(UserError, match=f'refused, because it holds {name!r} twice'):
        archive.unpack(path, str(tmp_path))
    assert tree(tmp_path) == {'archive'}


ZEROS = bytes(1_000_000)


@pytest.mark.parametrize(
    'content',
    [
        plain(claiming('zeros', len(ZEROS)), padded(ZEROS)),
        make_archive(member('zeros', ZEROS), mode='w'),
        make_archive(mode='w') + ZEROS,
    ],
    ids=['before', 'after', 'behind the end'],
)
def test_unpack_refuses_bombs(
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
) -> None:
    path = write(tmp_path / 'archive', gzip.compress(content))
    limits = archive.CIFAR10_LIMITS._replace(archive=500_000)
    monkeypatch.setattr(archive, 'CIFAR10_LIMITS', limits)
    with pytest.raises(UserError, match='refused, because it unpacks to more than 500,000 bytes'):
        archive.unpack(path, str(tmp_path))
    assert tree(tmp_path) == {'archive'}


def test_unpack_refuses_an_enormous_archive(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / 'archive', make_archive())
    limits = archive.CIFAR10_LIMITS._replace(archive=100)
    monkeypatch.setattr(archive, 'CIFAR10_LIMITS', limits)
    with pytest.raises(UserError, match='refused, because it has .* bytes, more than 100'):
        archive.unpack(path, str(tmp_path))


def test_a_full_disk_leaves_nothing_half_unpacked(tmp_path: Any) -> None:
    path = write(tmp_path / 'archive', make_archive())
    with full_disk(20_000), pytest.raises(UserError, match='data_batch_1.bin: File too large'):
        archive.unpack(path, str(tmp_path))
    assert tree(tmp_path) == {'archive'}


@pytest.mark.parametrize('mode', ['w', 'w:gz'])
def test_unpack_takes_a_tar_zipped_or_not(tmp_path: Any, mode: str) -> None:
    path = write(tmp_path / 'archive', make_archive(mode=mode))
    assert record_files.check_directory(archive.unpack(path, str(tmp_path))) == (50, 10)


def test_unpack_replaces_what_a_killed_process_left(tmp_path: Any) -> None:
    stale = tmp_path / '.cifar-10-batches-bin.unfinished-x'
    stale.mkdir()
    write(stale / 'junk', b'junk')
    directory = archive.unpack(write(tmp_path / 'archive', make_archive()), str(tmp_path))
    assert set(os.listdir(directory)) == {*FILES, 'SHA256SUMS'}
    assert set(os.listdir(tmp_path)) == {'archive', 'cifar-10-batches-bin'}


def test_unpack_interrupted_leaves_nothing(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / 'archive', make_archive())

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, 'rename', interrupt)
        archive.unpack(path, str(tmp_path))
    assert tree(tmp_path) == {'archive'}
    assert record_files.check_directory(archive.unpack(path, str(tmp_path))) == (50, 10)


def test_unpack_overwrites_nothing(tmp_path: Any) -> None:
    os.mkdir(tmp_path / 'cifar-10-batches-bin')
    write(tmp_path / 'cifar-10-batches-bin' / 'precious', b'precious')
    path = write(tmp_path / 'archive', make_archive())
    with pytest.raises(UserError, match='cifar-10-batches-bin: is in the way'):
        archive.unpack(path, str(tmp_path))
    assert tree(tmp_path / 'cifar-10-batches-bin') == {'precious'}
