"""Whether record files are complete."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from cifar10_input import RecordFormat, train_files
from cifar10_lib.base.errors import UserError
from cifar10_lib.data import record_files
from tests.helpers.samples import (
    CONTENT,
    FILES,
    ODD,
    RECORD_BYTES,
    flip_bit,
    make_odd,
    read,
    records,
    unix,
    write,
    write_files,
)


def test_check_counts_images(tmp_path: Any) -> None:
    write_files(tmp_path, 3)
    assert record_files.check_directory(str(tmp_path)) == (15, 3)


def test_check_names_a_missing_file(tmp_path: Any) -> None:
    write_files(tmp_path)
    os.remove(tmp_path / 'data_batch_5.bin')
    with pytest.raises(UserError, match='data_batch_5.bin: missing'):
        record_files.check_directory(str(tmp_path))


def test_check_names_an_empty_file(tmp_path: Any) -> None:
    write_files(tmp_path)
    write(tmp_path / 'test_batch.bin', b'')
    with pytest.raises(UserError, match='test_batch.bin: empty'):
        record_files.check_directory(str(tmp_path))


def test_check_names_a_directory_in_place_of_a_file(tmp_path: Any) -> None:
    write_files(tmp_path)
    os.remove(tmp_path / 'test_batch.bin')
    os.mkdir(tmp_path / 'test_batch.bin')
    with pytest.raises(UserError, match='test_batch.bin: not a regular file'):
        record_files.check_directory(str(tmp_path))


@pytest.mark.parametrize(('size', 'rest'), [(4 * RECORD_BYTES - 1, '3,072'), (9220, '1')])
def test_check_names_a_broken_record(tmp_path: Any, size: int, rest: str) -> None:
    write_files(tmp_path)
    write(tmp_path / 'data_batch_2.bin', records(10)[:size])
    where = f'data_batch_2.bin: record 3, from byte 9,219 on, has {rest} bytes; expected 3,073'
    with pytest.raises(UserError, match=where):
        record_files.check_directory(str(tmp_path))


def test_check_names_record_and_byte_of_a_wrong_label(tmp_path: Any) -> None:
    write_files(tmp_path)
    content = bytearray(records(10))
    content[4 * RECORD_BYTES] = 10
    content[6 * RECORD_BYTES] = 200
    write(tmp_path / 'data_batch_4.bin', bytes(content))
    where = 'data_batch_4.bin: record 4, byte 12,292: label 10; expected 0 to 9'
    with pytest.raises(UserError, match=where):
        record_files.check_directory(str(tmp_path))
    assert record_files.check_directory(str(tmp_path), num_classes=201) == (50, 10)


@pytest.mark.parametrize(('label_index', 'byte'), [(-1, 6149), (0, 6148)])
def test_check_knows_records_of_two_labels(tmp_path: Any, label_index: int, byte: int) -> None:
    record = RecordFormat(label_bytes=2, label_index=label_index)
    content = bytearray(3 * 3074)
    for name in FILES:
        write(tmp_path / name, bytes(content))
    content[byte] = 20
    write(tmp_path / 'test_batch.bin', bytes(content))
    with pytest.raises(UserError, match=f'record 2, byte {byte:,}: label 20; expected 0 to 19'):
        record_files.check_directory(str(tmp_path), record, num_classes=20)
    assert record_files.check_directory(str(tmp_path), record, num_classes=21) == (15, 3)


def make_sums(directory: Any, names: tuple[str, ...] = FILES) -> str:
    """What `sha256sum` prints for the files."""
    contents = [(name, read(os.path.join(directory, name))) for name in names]
    return ''.join(f'{hashlib.sha256(content).hexdigest()}  {name}\n' for name, content in contents)


def test_sums_are_those_of_sha256sum(small_set: str) -> None:
    written = read(os.path.join(small_set, 'SHA256SUMS')).decode()
    assert written == make_sums(small_set, (*FILES, 'batches.meta.txt'))
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
        record_files.check_directory(directory)
    os.remove(os.path.join(directory, 'SHA256SUMS'))
    assert record_files.check_directory(directory) == (500, 100)


def test_check_names_a_structural_error_before_a_digest(tmp_path: Any, small_set: str) -> None:
    directory = str(shutil.copytree(small_set, tmp_path / 'set'))
    path = os.path.join(directory, 'data_batch_1.bin')
    write(path, flip_bit(read(path), 5))
    write(os.path.join(directory, 'test_batch.bin'), b'\x0a' + bytes(3072))
    with pytest.raises(UserError, match='test_batch.bin: record 0, byte 0: label 10'):
        record_files.check_directory(directory)


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
    write(tmp_path / 'SHA256SUMS', change(make_sums(tmp_path)).encode())
    with pytest.raises(UserError, match=f'SHA256SUMS: {message}.*expected lines as sha256sum'):
        record_files.check_directory(str(tmp_path))


def test_check_takes_the_sums_of_others(tmp_path: Any) -> None:
    write_files(tmp_path)
    write(tmp_path / 'LICENSE', b'')
    sums = make_sums(tmp_path, (*FILES, 'LICENSE')).replace('  ', ' *').upper()
    for name in (*FILES, 'LICENSE'):
        sums = sums.replace(name.upper(), name)
    write(tmp_path / 'SHA256SUMS', sums.replace('\n', '\r\n').encode())
    os.remove(tmp_path / 'LICENSE')
    assert record_files.check_directory(str(tmp_path)) == (50, 10)


def test_check_needs_a_listed_file_of_names(tmp_path: Any) -> None:
    write_files(tmp_path)
    write(tmp_path / 'batches.meta.txt', b'')
    write(tmp_path / 'SHA256SUMS', make_sums(tmp_path, (*FILES, 'batches.meta.txt')).encode())
    os.remove(tmp_path / 'batches.meta.txt')
    with pytest.raises(UserError, match='batches.meta.txt: missing'):
        record_files.check_directory(str(tmp_path))


def test_sha256(tmp_path: Any) -> None:
    path = write(tmp_path / 'file', CONTENT * 9)
    assert record_files._sha256(path) == hashlib.sha256(CONTENT * 9).hexdigest()
    with pytest.raises(UserError, match='nowhere: missing'):
        record_files._sha256(str(tmp_path / 'nowhere'))


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
        record_files.check_directory(str(tmp_path))
    assert bool(likeness) == ('looks like' in str(e.value))


def test_check_says_that_records_look_like_cifar10(tmp_path: Any) -> None:
    write_files(tmp_path)
    with pytest.raises(UserError, match='has 3,064 bytes.* looks like CIFAR-10, .* 3,073 bytes'):
        record_files.check_directory(str(tmp_path), RecordFormat(label_bytes=2), 100)


@unix
@pytest.mark.parametrize('kind', ODD)
@pytest.mark.parametrize('name', ['data_batch_3.bin', 'SHA256SUMS'])
def test_check_names_an_odd_file(tmp_path: Any, name: str, kind: str) -> None:
    write_files(tmp_path)
    with contextlib.suppress(FileNotFoundError):
        os.remove(tmp_path / name)
    make_odd(str(tmp_path / name), kind)
    with pytest.raises(UserError, match=f'{name}: {ODD[kind]}'):
        record_files.check_directory(str(tmp_path))


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() == 0, reason='root may read all')
def test_check_names_a_file_that_may_not_be_read(tmp_path: Any) -> None:
    write_files(tmp_path)
    os.chmod(tmp_path / 'data_batch_2.bin', 0)
    with pytest.raises(UserError, match='data_batch_2.bin: Permission denied'):
        record_files.check_directory(str(tmp_path))
    os.mkdir(tmp_path / 'closed', 0o600)
    with pytest.raises(UserError, match='closed/data_batch_1.bin: Permission denied'):
        record_files.check_directory(str(tmp_path / 'closed'))


def test_class_names(tmp_path: Any, small_set: str) -> None:
    assert record_files.read_class_names(str(tmp_path)) == list(record_files.CIFAR10_CLASS_NAMES)
    assert record_files.read_class_names(small_set)[:3] == ['disc', 'ring', 'square']
    write(tmp_path / 'batches.meta.txt', b'cat\n  polar bear \n\n')
    assert record_files.read_class_names(str(tmp_path)) == ['cat', 'polar bear']
    for num_names in (0, 1, 257):
        write(tmp_path / 'batches.meta.txt', b'cat\n' * num_names)
        message = f'batches.meta.txt: found {num_names} class names; expected 2 to 256'
        with pytest.raises(UserError, match=message):
            record_files.read_class_names(str(tmp_path))
    write(tmp_path / 'batches.meta.txt', b'\n'.join([b'air\x1b[2Jplane'] * 10))
    with pytest.raises(UserError, match=r"found the class name 'air\\x1b\[2Jplane'"):
        record_files.read_class_names(str(tmp_path))


def test_the_first_training_file_alone_is_a_set(tmp_path: Any) -> None:
    write_files(tmp_path)
    for number in range(2, 6):
        os.remove(tmp_path / f'data_batch_{number}.bin')
    assert train_files(str(tmp_path)) == [str(tmp_path / 'data_batch_1.bin')]
    assert record_files.check_directory(str(tmp_path)) == (10, 10)
    os.remove(tmp_path / 'test_batch.bin')
    assert record_files.check_directory(str(tmp_path)) == (10, 0)
    with pytest.raises(UserError, match='--eval_data=test: .* holds no test_batch.bin; hold train'):
        record_files.check_eval_data(str(tmp_path), 'test')
    record_files.check_eval_data(str(tmp_path), 'held_out')
    os.rename(tmp_path / 'data_batch_1.bin', tmp_path / 'data_batch_2.bin')
    with pytest.raises(UserError, match='data_batch_1.bin: missing'):
        record_files.check_directory(str(tmp_path))


def test_some_training_files_are_no_set(tmp_path: Any) -> None:
    write_files(tmp_path)
    os.remove(tmp_path / 'data_batch_4.bin')
    with pytest.raises(UserError, match='data_batch_4.bin: missing'):
        record_files.check_directory(str(tmp_path))


def test_the_content_has_one_digest_in_any_order(tmp_path: Any) -> None:
    content = records(10)
    shuffled = content[RECORD_BYTES:] + content[:RECORD_BYTES]
    changed = flip_bit(content, 5000)
    first, second, third = (
        record_files.content_digest(write(tmp_path / 'x', each))
        for each in (content, shuffled, changed)
    )
    assert first == second != third and len(first) == 16


def test_the_published_test_images_are_known(real_data: str) -> None:
    digest = record_files.content_digest(os.path.join(real_data, 'test_batch.bin'))
    assert digest == record_files.CIFAR10_TEST_DIGEST
