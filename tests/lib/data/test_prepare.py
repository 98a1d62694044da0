"""Where the files come from: no network beyond 127.0.0.1."""

from __future__ import annotations

import functools
import json
import os
import shutil
import threading
import time
from typing import Any

import numpy as np
import pytest

from cifar10_input import TEST_FILES, TRAIN_FILES
from cifar10_lib.base.errors import UserError
from cifar10_lib.data import archive, download, record_files
from cifar10_lib.data import prepare as prepare_module
from cifar10_lib.data.download import UnreachableError
from cifar10_lib.data.framing import Framing
from cifar10_lib.data.prepare import Prepared
from cifar10_lib.data.record_files import CIFAR10_CLASS_NAMES
from cifar10_lib.data.sources.base import Options
from cifar10_lib.data.synthetic import SyntheticSet, generate_synthetic
from tests.helpers.data_sets import convert, idx_files, save, write_all
from tests.helpers.samples import (
    FILES,
    ODD,
    RECORD_BYTES,
    Server,
    closed_url,
    fingerprint,
    full_disk,
    make_archive,
    make_odd,
    read,
    records,
    tree,
    unix,
    write,
    write_files,
)
from tests.helpers.scripts import Script

SMALL = SyntheticSet(num_train=50, num_test=20, seed=0)


# ------------------------------------------------------------------------------
# Preparing.


def test_prepare_downloads_once(
    server: Server, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    server.content = make_archive()
    data_dir = str(tmp_path / 'new' / 'data')
    directory = os.path.join(data_dir, 'cifar-10-batches-bin')
    for _ in range(2):
        found = prepare_module.prepare(data_dir, data_url=server.url('my%20archive.tgz?x=1'))
        assert found[:2] == (directory, 'cifar10')
    assert len(server.ranges) == 1
    assert read(os.path.join(data_dir, 'my archive.tgz')) == server.content
    output = capsys.readouterr().out
    assert output.count('Downloading') == 1
    assert output.count('Not the published archive, but used because --data_url names it') == 1


def test_prepare_takes_an_archive_that_is_there(server: Server, tmp_path: Any) -> None:
    write(tmp_path / 'archive.tar.gz', make_archive())
    prepare_module.prepare(str(tmp_path), data_url=server.url())
    assert record_files.check_directory(str(tmp_path / 'cifar-10-batches-bin')) == (50, 10)
    assert server.ranges == []


@pytest.mark.parametrize('dataset', ['cifar10', 'auto'])
def test_prepare_refuses_another_archive_under_the_published_name(
    tmp_path: Any, dataset: str
) -> None:
    path = write(tmp_path / 'cifar-10-binary.tar.gz', make_archive())
    with pytest.raises(UserError, match='found .* bytes; expected 170,052,171.*move the archive'):
        prepare_module.prepare(str(tmp_path), dataset)
    assert read(path) == make_archive()


@pytest.mark.parametrize('dataset', ['cifar10', 'auto'])
@pytest.mark.parametrize('folder', ['', 'cifar-10-batches-bin'])
def test_prepare_uses_files_that_are_there(tmp_path: Any, folder: str, dataset: str) -> None:
    write_files(tmp_path / folder)
    directory, found, *_ = prepare_module.prepare(str(tmp_path), dataset, closed_url())
    assert (os.path.normpath(directory), found) == (str(tmp_path / folder), 'cifar10')


def test_prepare_takes_classes_from_their_names(tmp_path: Any) -> None:
    write_files(tmp_path)
    names = tuple(f'letter {i}' for i in range(26))
    write(tmp_path / 'batches.meta.txt', '\n'.join(names).encode())
    for dataset in (None, 'own', 'auto'):
        found = prepare_module.prepare(str(tmp_path), dataset, closed_url())
        assert found == Prepared(str(tmp_path), 'own', names)
    with pytest.raises(UserError, match='=cifar10: .* 26 classes, letter 0, .*, letter 9, ...;'):
        prepare_module.prepare(str(tmp_path), 'cifar10')
    write(tmp_path / 'batches.meta.txt', b'\n'.join([b'name'] * 9))
    message = 'record 9, byte 27,657: label 9; expected 0 to 8, as batches.meta.txt beside it names'
    with pytest.raises(UserError, match=message):
        prepare_module.prepare(str(tmp_path))


def test_pictures_that_have_cifar10s_names_are_ones_own(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label, name in enumerate(CIFAR10_CLASS_NAMES):
        save(tmp_path / 'in' / name, label, range(2))
    convert(tmp_path / 'in', tmp_path / 'out')
    assert prepare_module.prepare(str(tmp_path / 'out')).dataset == 'own'
    with pytest.raises(UserError, match='--dataset=cifar10: .* choose --dataset=own'):
        prepare_module.prepare(str(tmp_path / 'out'), 'cifar10')
    digest = record_files.content_digest(str(tmp_path / 'out' / 'test_batch.bin'))
    monkeypatch.setattr(prepare_module, 'CIFAR10_TEST_DIGEST', digest)
    assert prepare_module.prepare(str(tmp_path / 'out')).dataset == 'cifar10'


def test_the_size_of_the_images_is_read(tmp_path: Any) -> None:
    for label, name in enumerate(('a', 'b')):
        save(tmp_path / 'in' / name, label, range(6))
    convert(tmp_path / 'in', tmp_path / 'out', options=Options(Framing(48, 'pad')))
    found = prepare_module.prepare(str(tmp_path / 'out'))
    assert found.framing == Framing(48, 'pad') and found.class_names == ('a', 'b')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('[]', 'found .*; expected size, fit'),
        ('{"size": 8}', 'found the size 8'),
        ('{"fit": "zoom"}', 'found the size 32 and the fit zoom'),
        ('{"size": "64"}', "size: found '64'"),
        ('{"inner": 99}', 'found the inner side 99 of 32'),
        ('{', 'Expecting property name'),
    ],
)
def test_a_damaged_framing_is_named(tmp_path: Any, content: str, message: str) -> None:
    write_files(tmp_path)
    (tmp_path / 'framing.json').write_text(content)
    with pytest.raises(UserError, match=f'framing.json: {message}'):
        prepare_module.prepare(str(tmp_path))


def test_pictures_and_folders_above_records_are_told_from_nothing(
    server: Server, tmp_path: Any
) -> None:
    """CIFAR-10 isn't downloaded into a folder that holds another data set."""
    for label, name in enumerate(('a', 'b')):
        save(tmp_path / 'in' / name, label, range(6))
    message = 'in: is a folder of pictures for each class, not yet converted: python cifar10_data'
    with pytest.raises(UserError, match=message):
        prepare_module.prepare(str(tmp_path / 'in'), None, server.url())
    write_files(tmp_path / 'above' / 'data')
    with pytest.raises(UserError, match='above: found no record files; .*above/data holds some'):
        prepare_module.prepare(str(tmp_path / 'above'), None, server.url())
    assert server.ranges == []


@pytest.mark.parametrize('dataset', ['mnist', 'fashion_mnist'])
def test_digits_and_clothes_are_downloaded_checked_and_converted(
    tmp_path: Any, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = write_all(tmp_path / 'published', idx_files('.gz'))
    fingerprints = {name: fingerprint(content) for name, content in idx_files('.gz').items()}
    monkeypatch.setitem(download.IDX_FINGERPRINTS, dataset, fingerprints)
    monkeypatch.setitem(download.IDX_URLS, dataset, published.as_uri())
    data_dir = tmp_path / 'data'
    for _ in range(2):
        found = prepare_module.prepare(str(data_dir), dataset)
        assert found.dataset == dataset and found.framing.inner == 28
        shutil.rmtree(published, ignore_errors=True)
    assert found.class_names[-1] == ('Ankle boot' if dataset == 'fashion_mnist' else '9')
    assert record_files.check_directory(found.directory) == (23, 6)
    shutil.rmtree(found.directory)
    write(data_dir / dataset / 'train-labels-idx1-ubyte.gz', b'x')
    with pytest.raises(UserError, match='labels-idx1-ubyte.gz: not the published file: found 1 b'):
        prepare_module.prepare(str(data_dir), dataset)


def test_digits_come_from_another_place_by_its_url(tmp_path: Any) -> None:
    published = write_all(tmp_path / 'published', idx_files('.gz'))
    found = prepare_module.prepare(str(tmp_path / 'data'), 'mnist', published.as_uri())
    assert (found.dataset, found.class_names) == ('mnist', ('3', '5', '9'))
    with pytest.raises(UserError, match='mnist could not be had: .*Ways out: put train-images'):
        prepare_module.prepare(str(tmp_path / 'other'), 'mnist', closed_url())


def test_prepare_names_what_own_pictures_need(tmp_path: Any) -> None:
    with pytest.raises(UserError, match='--dataset=own: found no record files in .* convert'):
        prepare_module.prepare(str(tmp_path), 'own', closed_url())
    write_files(tmp_path)
    with pytest.raises(UserError, match='--dataset=own: .* choose --dataset=cifar10'):
        prepare_module.prepare(str(tmp_path), 'own', closed_url())


@pytest.mark.parametrize('dataset', ['cifar10', 'auto'])
def test_prepare_keeps_damaged_files(server: Server, tmp_path: Any, dataset: str) -> None:
    write_files(tmp_path)
    write(tmp_path / 'data_batch_1.bin', b'damaged')
    with pytest.raises(UserError, match='data_batch_1.bin: record 0, from byte 0 on, has 7 bytes'):
        prepare_module.prepare(str(tmp_path), dataset, server.url())
    assert read(tmp_path / 'data_batch_1.bin') == b'damaged'
    assert server.ranges == []


def test_prepare_cifar10_is_strict(tmp_path: Any) -> None:
    url = closed_url()
    with pytest.raises(UserError) as caught:
        prepare_module.prepare(str(tmp_path), 'cifar10', url)
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
        prepare_module.prepare(str(tmp_path), 'cifar10', server.url())
    assert server.ranges == []


def test_prepare_generates_the_synthetic_set_once(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = str(tmp_path / 'synthetic-batches-bin')
    prepare = functools.partial(prepare_module.prepare, str(tmp_path), 'synthetic', closed_url())
    for wanted in (SMALL, SMALL, None):
        assert prepare(synthetic=wanted)[:2] == (directory, 'synthetic')
    assert capsys.readouterr().out.count('Generating 70 images') == 1
    with pytest.raises(UserError, match='num_test=20 seed=0.*asked for .* num_test=20 seed=1'):
        prepare(synthetic=SMALL._replace(seed=1))


def test_prepare_does_not_take_cifar10_for_synthetic(tmp_path: Any) -> None:
    write_files(tmp_path)
    found = prepare_module.prepare(str(tmp_path), 'synthetic', synthetic=SMALL)
    assert found.directory == str(tmp_path / 'synthetic-batches-bin')


def test_prepare_finds_the_synthetic_set_wherever_it_lies(
    small_set: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for dataset in ('synthetic', 'auto'):
        found = prepare_module.prepare(small_set, dataset, closed_url())
        assert found[:2] == (small_set, 'synthetic')
    assert capsys.readouterr().out.count('synthetic pictures instead of CIFAR-10') == 1


def test_prepare_keeps_a_damaged_synthetic_set(tmp_path: Any) -> None:
    found = prepare_module.prepare(str(tmp_path), 'synthetic', synthetic=SMALL)
    write(os.path.join(found.directory, 'test_batch.bin'), records(19))
    with pytest.raises(UserError, match='found 50 training and 19 test .* says 50 and 20'):
        prepare_module.prepare(str(tmp_path), 'synthetic')
    write(os.path.join(found.directory, 'test_batch.bin'), records(20))
    with pytest.raises(UserError, match='test_batch.bin: found SHA-256'):
        prepare_module.prepare(str(tmp_path), 'synthetic')
    assert read(os.path.join(found.directory, 'test_batch.bin')) == records(20)


@pytest.mark.parametrize(
    'marker',
    [b'', b'[]', b'{"a": 1}', b'{"num_train": "50"}', b'{"seed": null}', b'\xff', b'[' * 100_000],
    ids=['empty', 'list', 'key', 'text', 'null', 'no text', 'deep'],
)
def test_prepare_names_a_damaged_marker(tmp_path: Any, marker: bytes) -> None:
    write_files(tmp_path)
    write(tmp_path / 'synthetic.json', marker)
    with pytest.raises(
        UserError, match='synthetic.json: (not the marker of a synthetic set|.*not UTF-8)'
    ):
        prepare_module.prepare(str(tmp_path), 'synthetic')


def test_prepare_auto_takes_cifar10_where_it_can_be_had(server: Server, tmp_path: Any) -> None:
    server.content = make_archive()
    found = prepare_module.prepare(str(tmp_path), 'auto', server.url())
    assert found[:2] == (str(tmp_path / 'cifar-10-batches-bin'), 'cifar10')


def test_prepare_auto_announces_synthetic_pictures(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    url = closed_url()
    for _ in range(2):
        found = prepare_module.prepare(str(tmp_path), 'auto', url, SMALL)
        assert found[:2] == (str(tmp_path / 'synthetic-batches-bin'), 'synthetic')
        output = capsys.readouterr().out
        assert f'CIFAR-10 could not be had: {url}: ' in output
        assert 'Using synthetic pictures instead of CIFAR-10' in output


def test_prepare_names_a_file_in_place_of_the_data_directory(tmp_path: Any) -> None:
    path = write(tmp_path / 'data', b'')
    with pytest.raises(UserError, match=f'{path}.*: (File exists|Not a directory)'):
        prepare_module.prepare(path, 'synthetic', synthetic=SMALL)


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
        prepare_module.prepare(str(tmp_path), dataset, url)
    assert tree(tmp_path) == set()


def test_prepare_waits_for_another_process(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fcntl = pytest.importorskip('fcntl')
    found: list[Prepared] = []
    prepare = functools.partial(prepare_module.prepare, str(tmp_path), 'cifar10', closed_url())
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
    assert [one[:2] for one in found] == [(str(tmp_path / 'cifar-10-batches-bin'), 'cifar10')]


@unix
@pytest.mark.parametrize('kind', ODD)
def test_other_files_may_be_odd_without_harm(tmp_path: Any, kind: str) -> None:
    for name in ('batches.meta.txt', 'synthetic.json', 'archive.tar.gz', 'archive.tar.gz.part'):
        make_odd(str(tmp_path / name), kind)
    directory = str(tmp_path)
    with pytest.raises(UserError, match=f'batches.meta.txt: {ODD[kind]}'):
        record_files.read_class_names(directory)
    with pytest.raises(UserError, match=f'synthetic.json: {ODD[kind]}'):
        prepare_module.prepare(directory, 'synthetic')
    os.rename(tmp_path / 'synthetic.json', tmp_path / 'moved away')
    with pytest.raises(UserError, match=f'archive.tar.gz: {ODD[kind]}'):
        prepare_module.prepare(directory, 'cifar10', closed_url())
    with pytest.raises(UserError, match=f'archive.tar.gz: {ODD[kind]}'):
        archive.unpack(str(tmp_path / 'archive.tar.gz'), directory)
    with pytest.raises(UserError, match=f'archive.tar.gz.part: {ODD[kind]}'):
        download.download(closed_url(), str(tmp_path / 'archive.tar.gz'))
    url = (tmp_path / 'archive.tar.gz').as_uri()
    with pytest.raises(UnreachableError, match=f'{url}: .*archive.tar.gz: {ODD[kind]}'):
        download.download(url, str(tmp_path / 'copy'))


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
    assert record_files.check_directory(small_set) == (500, 100)
    marker = json.loads(read(os.path.join(small_set, 'synthetic.json')))
    assert marker == {'num_train': 500, 'num_test': 100, 'seed': 3, 'version': 1}
    assert len(set(record_files.read_class_names(small_set))) == 10


def test_synthetic_set_derives_from_its_seed(tmp_path: Any, small_set: str) -> None:
    for seed in (3, 4):
        generate_synthetic(str(tmp_path / str(seed)), 500, 100, seed)
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
    generate_synthetic(str(tmp_path / 'odd'), 15, 1)
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
        generate_synthetic(str(tmp_path / 'set'), *numbers)
    assert tree(tmp_path) == set()


def test_a_full_disk_leaves_nothing_half_drawn(tmp_path: Any) -> None:
    with full_disk(20_000), pytest.raises(UserError, match='set.*: File too large'):
        generate_synthetic(str(tmp_path / 'set'), 50, 10)
    assert tree(tmp_path) == set()


def test_synthetic_set_overwrites_nothing(small_set: str) -> None:
    before = read(os.path.join(small_set, 'test_batch.bin'))
    with pytest.raises(UserError, match='is in the way'):
        generate_synthetic(small_set, 10, 10)
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
    assert record_files.check_directory(directory) == (50, 20)


def test_script_shows_a_mistake_without_traceback(run_script: Script, tmp_path: Any) -> None:
    done = run_script('cifar10_data.py', f'--data_dir={tmp_path}', f'--data_url={closed_url()}')
    assert done.returncode == 1
    assert 'cifar10_data.py: error: CIFAR-10 could not be had: ' in done.stderr
    assert 'Traceback' not in done.stderr


def test_real_cifar10(real_data: str) -> None:
    directory, dataset, *_ = prepare_module.prepare(real_data, 'cifar10')
    assert dataset == 'cifar10'
    assert record_files.check_directory(directory) == (50000, 10000)
    labels, images = load(directory, TRAIN_FILES)
    assert np.bincount(labels).tolist() == [5000] * 10
    # One training image, a frog (label 6), starts with this pixel. In the published
    # order it is the first; copies of the data set may hold another order.
    assert labels[(images[:, :, 0, 0] == [59, 62, 63]).all(axis=1)].tolist() == [6]
