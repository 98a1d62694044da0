"""Every layout from an archive: what is in it is what is found in a folder."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cifar10_lib.base.errors import UserError
from cifar10_lib.data import archive as archive_module
from tests.helpers.data_sets import (
    DIGITS,
    as_pairs,
    check,
    check_digits,
    convert,
    digits_csv,
    idx_files,
    npz,
    pairs,
    picture,
    png,
    tar,
    zipped,
)
from tests.helpers.samples import tree

PACKED: dict[str, Callable[[Mapping[str, bytes]], bytes]] = {
    'x.zip': zipped,
    'x.tar': lambda contents: tar(contents, 'w'),
    'x.tar.gz': tar,
    'x.tgz': tar,
}

PICTURES = {
    f'{name}/{number}.png': png(picture(label, number))
    for label, name in enumerate(('a', 'b'))
    for number in range(5)
}


@pytest.mark.parametrize('name', PACKED)
@pytest.mark.parametrize('folder', ['', 'pictures/', 'one/two/'])
def test_folders_of_pictures(tmp_path: Path, name: str, folder: str) -> None:
    contents = {f'{folder}{path}': content for path, content in PICTURES.items()}
    (tmp_path / name).write_bytes(PACKED[name](contents))
    convert(tmp_path / name, tmp_path / 'out')
    train, train_labels, test, test_labels = check(tmp_path / 'out', ['a', 'b'])
    found = as_pairs(train, train_labels) + as_pairs(test, test_labels)
    assert sorted(found) == sorted(pairs(0, range(5)) + pairs(1, range(5)))
    assert {path.name for path in tmp_path.iterdir()} == {name, 'out'}


LAYOUTS: dict[str, Mapping[str, bytes]] = {
    'IDX': idx_files('.gz'),
    'IDX in a folder': {f'gzip/{name}': content for name, content in idx_files().items()},
    'CSV': {f'{part}.csv': digits_csv(part) for part in DIGITS},
    'npz': {
        'mnist.npz': npz(
            x_train=DIGITS['train'][0],
            y_train=DIGITS['train'][1],
            x_test=DIGITS['test'][0],
            y_test=DIGITS['test'][1],
        )
    },
}


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('name', ['x.zip', 'x.tar.gz'])
def test_digits_in_every_layout(tmp_path: Path, layout: str, name: str) -> None:
    (tmp_path / name).write_bytes(PACKED[name](LAYOUTS[layout]))
    convert(tmp_path / name, tmp_path / 'out')
    check_digits(tmp_path / 'out')


def test_what_is_skipped_is_named_within_the_archive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = {**PICTURES, 'a/half.png': PICTURES['a/1.png'][:900], 'a/notes.txt': b'x'}
    (tmp_path / 'x.zip').write_bytes(zipped({f'in/{n}': c for n, c in contents.items()}))
    with pytest.raises(UserError, match='1 of 11 files were skipped'):
        convert(tmp_path / 'x.zip', tmp_path / 'out')
    errors = capsys.readouterr().err
    assert f'Skipped: {tmp_path}/x.zip/in/a/half.png: cannot be decoded' in errors
    assert f'no pictures: {tmp_path}/x.zip/in/a/notes.txt' in errors


def symlink_zip() -> bytes:
    info = zipfile.ZipInfo('a/link')
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return zipped({info: b'../../..'})  # type: ignore[dict-item]


def symlink_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w') as archive:
        info = tarfile.TarInfo('a/link')
        info.type, info.linkname = tarfile.SYMTYPE, '../../..'
        archive.addfile(info)
    return buffer.getvalue()


def twice() -> bytes:
    with pytest.warns(UserWarning, match='Duplicate'):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, 'w') as archive:
            archive.writestr('a/1.png', b'x')
            archive.writestr('a/1.png', b'y')
        return buffer.getvalue()


def flipped() -> bytes:
    content = bytearray(zipped(PICTURES))
    content[200] ^= 1
    return bytes(content)


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    'a link in a zip': (symlink_zip, "its member 'a/link' is not a plain file or directory"),
    'a link in a tar': (symlink_tar, "its member 'a/link' is not a plain file or directory"),
    'a way out of a zip': (lambda: zipped({'a/../../x': b''}), 'leads out of the directory'),
    'a way out with backslashes': (lambda: zipped({'..\\x': b''}), 'leads out of the directory'),
    'a way out of a tar': (lambda: tar({'../x': b''}), 'leads out of the directory'),
    'an absolute name': (lambda: zipped({'/x': b''}), 'leads out of the directory'),
    'twice': (twice, "it holds 'a/1.png' twice"),
    'half a zip': (lambda: zipped(PICTURES)[:5000], 'not a complete zip archive'),
    'half a tar': (lambda: tar(PICTURES, 'w')[:5000], 'not a complete .*tar archive'),
    'half a tar.gz': (lambda: tar(PICTURES)[:5000], 'not a complete gzipped tar archive'),
    'a flipped bit': (flipped, 'not a complete zip archive: Bad CRC-32'),
    'too much in a zip': (lambda: zipped({'a/x.png': bytes(200_000)}), 'more than 100,000'),
    'too much in a tar': (lambda: tar({'a/x.png': bytes(200_000)}), 'more than 100,000'),
    'nothing': (lambda: zipped({'README': b''}), 'found no folders of pictures'),
}


@pytest.mark.parametrize('kind', REFUSED)
def test_an_archive_that_is_dangerous_or_damaged_is_refused(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, message = REFUSED[kind]
    limits = archive_module.PICTURES_LIMITS._replace(archive=100_000)
    monkeypatch.setattr(archive_module, 'PICTURES_LIMITS', limits)
    (tmp_path / 'x').write_bytes(make())
    if kind.endswith('gz'):
        (tmp_path / 'x').rename(tmp_path / 'x.tar.gz')
    before = tree(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        convert(tmp_path / before.copy().pop(), tmp_path / 'out')
    assert str(caught.value).startswith(f'{tmp_path}/x') and tree(tmp_path) == before
