"""Sources as records: what is written, what is refused, and what is said."""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cifar10_data
import cifar10_input
from cifar10_data import DataSettings
from cifar10_lib.base.errors import UserError
from cifar10_lib.data import convert as convert_module
from cifar10_lib.data import photos, record_files
from cifar10_lib.data.sources.base import Examples
from tests.helpers.data_sets import WRITTEN, as_pairs, check, convert, pairs, save
from tests.helpers.samples import (
    FILES,
    full_disk,
    make_odd,
    tree,
    unix,
)
from tests.helpers.scripts import Script


@pytest.fixture
def two(tmp_path: Path) -> str:
    """A folder of two classes, of 12 and 6 pictures."""
    save(tmp_path / 'pictures' / 'no cat', 1, range(6))
    save(tmp_path / 'pictures' / 'cat', 0, range(12))
    return str(tmp_path / 'pictures')


# ------------------------------------------------------------------------------
# Folders of pictures.


def test_each_picture_becomes_one_record_of_its_class(
    two: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(two, str(tmp_path / 'out'))
    train, train_labels, test, test_labels = check(tmp_path / 'out', ['cat', 'no cat'])
    assert np.bincount(train_labels).tolist() == [10, 5]
    assert np.bincount(test_labels).tolist() == [2, 1]
    found = as_pairs(np.concatenate([train, test]), np.concatenate([train_labels, test_labels]))
    assert found == sorted(pairs(0, range(12)) + pairs(1, range(6)))
    sizes = [os.path.getsize(tmp_path / 'out' / name) for name in cifar10_input.TRAIN_FILES]
    assert sizes == [3 * 3073] * 5
    output = capsys.readouterr().out
    assert '15 training and 3 test images of 2 classes' in output
    assert '  cat           10         2\n  no cat         5         1\n' in output
    command = f'cifar10_train.py --data_dir={tmp_path}/out --train_dir={tmp_path}/out_train'
    # 15 images fill no batch of 128.
    assert f'{command} --batch_size=8 --max_steps=1000\n' in output
    assert tree(tmp_path) == {'out', 'pictures'} | {
        os.path.join(folder, name)
        for folder in ('out', 'pictures')
        for name in tree(tmp_path / folder)
    }


def test_the_set_derives_from_the_seed(
    two: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seed, threads, images in (('a', 1, 4, 2), ('b', 1, 1, 5), ('c', 2, 4, 2)):
        monkeypatch.setattr(convert_module, '_WORKERS', threads)
        monkeypatch.setattr(convert_module, '_IMAGES_AT_ONCE', images)
        convert(two, str(tmp_path / name), seed=seed)
    a, b, c = (
        [(tmp_path / name / file).read_bytes() for file in (*FILES, 'SHA256SUMS')] for name in 'abc'
    )
    assert a == b
    assert all(first != third for first, third in zip(a, c, strict=True))


def test_train_and_test_folders_stay_divided(tmp_path: Path) -> None:
    for label, name in enumerate(('a', 'b')):
        save(tmp_path / 'in' / 'train' / name, label, range(7))
        save(tmp_path / 'in' / 'test' / name, label, range(7, 9))
    convert(str(tmp_path / 'in'), str(tmp_path / 'out'))
    train, train_labels, test, test_labels = check(tmp_path / 'out', ['a', 'b'])
    assert as_pairs(train, train_labels) == sorted(pairs(0, range(7)) + pairs(1, range(7)))
    assert as_pairs(test, test_labels) == sorted(pairs(0, range(7, 9)) + pairs(1, range(7, 9)))
    sizes = [os.path.getsize(tmp_path / 'out' / name) // 3073 for name in FILES]
    assert sizes == [3, 3, 3, 3, 2, 4]

    convert(str(tmp_path / 'in'), str(tmp_path / 'other'), seed=1)
    for name in FILES:
        content, other = ((tmp_path / folder / name).read_bytes() for folder in ('out', 'other'))
        assert content != other

    with pytest.raises(UserError, match='--test_percent=20: .* with test images of its own'):
        convert(str(tmp_path / 'in'), str(tmp_path / 'again'), test_percent=20)


@given(
    sizes=st.lists(st.integers(2, 60), min_size=1, max_size=5),
    percent=st.integers(0, 99),
    seed=st.integers(0, 2**63 - 1),
)
@settings(max_examples=50, derandomize=True, database=None, deadline=None)
def test_split_takes_the_same_share_of_each_class(
    sizes: list[int], percent: int, seed: int
) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    is_test = convert_module.split(labels, seed, percent)
    for label, size in enumerate(sizes):
        count = is_test[labels == label].sum()
        assert 1 <= count <= size - 1
        assert abs(count - size * (percent / 100 or 1 / 6)) <= 1
    assert np.array_equal(is_test, convert_module.split(labels, seed, percent))


def test_what_cannot_be_read_is_named_and_the_rest_written(
    two: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cat = Path(two, 'cat')
    (cat / 'half.png').write_bytes((cat / '0.png').read_bytes()[:900])
    (cat / 'none.png').touch()
    with pytest.raises(UserError, match=r'2 of 20 files were skipped, each named .*out holds all'):
        convert(two, str(tmp_path / 'out'))
    train, train_labels, test, test_labels = check(tmp_path / 'out', ['cat', 'no cat'])
    found = as_pairs(np.concatenate([train, test]), np.concatenate([train_labels, test_labels]))
    assert found == sorted(pairs(0, range(12)) + pairs(1, range(6)))
    errors = capsys.readouterr().err
    assert errors.count('Skipped: ') == 2
    for name in ('half.png: cannot be decoded', 'none.png: has 0 bytes; expected a JPEG'):
        assert f'Skipped: {cat / name}' in errors
    sizes = [os.path.getsize(tmp_path / 'out' / name) for name in cifar10_input.TRAIN_FILES]
    assert max(sizes) - min(sizes) <= 3073


def test_of_many_skipped_files_only_the_first_are_named(
    two: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(200):
        Path(two, 'cat', f'x{number}.png').write_text('x')
    with pytest.raises(UserError, match='200 of 218 files were skipped, the first 20 named above'):
        convert(two, tmp_path / 'out')
    assert len(capsys.readouterr().err.splitlines()) == 21


@pytest.mark.parametrize('seed', range(5))
def test_pictures_that_cannot_be_read_leave_every_class_its_test_images(
    tmp_path: Path, seed: int
) -> None:
    for label, name in enumerate(('a', 'b')):
        save(tmp_path / 'in' / name, label, range(4))
        for number in range(4, 8):
            (tmp_path / 'in' / name / f'{number}.png').write_text('x')
    with pytest.raises(UserError, match='8 of 16 files were skipped'):
        convert(tmp_path / 'in', tmp_path / 'out', seed)
    _, train_labels, _, test_labels = check(tmp_path / 'out', ['a', 'b'])
    assert np.bincount(test_labels).tolist() == [1, 1]
    assert np.bincount(train_labels).tolist() == [3, 3]


def test_a_file_that_is_no_picture_changes_no_record(two: str, tmp_path: Path) -> None:
    convert(two, tmp_path / 'before')
    for name in ('README.txt', 'aaa', '.hidden', 'Thumbs.db', '@eaDir/1.png', 'more/notes.md'):
        Path(two, 'cat', name).parent.mkdir(exist_ok=True)
        Path(two, 'cat', name).write_text('no picture')
    convert(two, tmp_path / 'after')
    for name in (*FILES, 'SHA256SUMS'):
        before, after = ((tmp_path / folder / name).read_bytes() for folder in ('before', 'after'))
        assert before == after


def test_pictures_in_training_and_test_images_are_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label, name in enumerate(('a', 'b')):
        save(tmp_path / 'in' / 'train' / name, label, range(5))
        save(tmp_path / 'in' / 'test' / name, label, range(4, 7))
    convert(tmp_path / 'in', tmp_path / 'out')
    same = ', '.join(str(tmp_path / 'in' / 'test' / name / '4.png') for name in 'ab')
    assert f'2 test images are also training images: {same}\n' in capsys.readouterr().out


def test_processes_read_what_threads_read(
    two: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(two, 'cat', 'half.png').write_bytes(Path(two, 'cat', '0.png').read_bytes()[:900])
    for name, least in (('threads', 1000), ('processes', 1)):
        monkeypatch.setattr(convert_module, '_MIN_FOR_PROCESSES', least)
        with pytest.raises(UserError, match='1 of 19 files were skipped'):
            convert(two, tmp_path / name)
    for name in (*FILES, 'SHA256SUMS'):
        threads, processes = (
            (tmp_path / folder / name).read_bytes() for folder in ('threads', 'processes')
        )
        assert threads == processes


@pytest.mark.skipif(sys.platform != 'linux', reason='threads read elsewhere')
def test_a_process_that_ends_is_an_error_and_leaves_nothing(
    two: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert_module, '_MIN_FOR_PROCESSES', 1)
    monkeypatch.setattr(convert_module, '_WORKERS', 2)
    monkeypatch.setattr(photos, 'read', lambda path, framing: os._exit(134))
    with pytest.raises(UserError, match='a process that reads images ended'):
        convert(two, tmp_path / 'out')
    assert set(os.listdir(tmp_path)) == {'pictures'}


@unix
@pytest.mark.parametrize('kind', ['pipe', 'device', 'link', 'circle'])
def test_an_odd_file_is_skipped(two: str, tmp_path: Path, kind: str) -> None:
    make_odd(os.path.join(two, 'cat', 'odd.png'), kind)
    with pytest.raises(UserError, match='1 of 19 files were skipped'):
        convert(two, str(tmp_path / 'out'))
    assert record_files.check_directory(str(tmp_path / 'out')) in {(15, 3), (16, 2)}


def test_too_little_is_refused_and_nothing_written(two: str, tmp_path: Path) -> None:
    out = str(tmp_path / 'out')

    def refused(match: str, pictures: str = two) -> None:
        with pytest.raises(UserError, match=match):
            convert(pictures, out)
        assert set(os.listdir(tmp_path)) == {'pictures'}

    for number in range(5):
        os.remove(Path(two, 'no cat', f'{number}.png'))
    refused("class 'no cat': found 1 training and 0 test images; expected at least one of each")
    Path(two, 'no cat', 'broken.png').write_text('broken')
    refused("class 'no cat': found [01] training and [01] test images that can be read, with 1")
    shutil.rmtree(Path(two, 'no cat'))
    refused('found one folder of pictures; expected one for each class')
    refused('none: missing; expected .*, a folder of pictures for each class, or', f'{two}/none')
    shutil.rmtree(two)
    save(Path(two, 'a'), 0, range(2))
    save(Path(two, 'b'), 1, range(4))
    refused('found 4 training and 2 test images; expected at least 5 and 1, one for each file')


def test_classes_beyond_a_byte_and_odd_names_are_refused(tmp_path: Path) -> None:
    for label in range(257):
        (tmp_path / 'in' / f'{label:03}').mkdir(parents=True)
        (tmp_path / 'in' / f'{label:03}' / 'x.png').touch()
    with pytest.raises(UserError, match='found 257 classes; expected 2 to 256'):
        convert(str(tmp_path / 'in'), str(tmp_path / 'out'))
    shutil.rmtree(tmp_path / 'in' / '256')
    before = tmp_path / 'in' / '255'
    for name in ('new\nline', 'space '):
        before = before.rename(tmp_path / 'in' / name)
        with pytest.raises(UserError, match=f'the class name {re.escape(repr(name))}; expected'):
            convert(str(tmp_path / 'in'), str(tmp_path / 'out'))


def test_nothing_is_overwritten_and_nothing_half_written(two: str, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    with full_disk(5000), pytest.raises(UserError, match='out: File too large'):
        convert(two, str(out))
    assert set(os.listdir(tmp_path)) == {'pictures'}
    out.mkdir()
    (out / 'precious').write_text('precious')
    with pytest.raises(UserError, match='out: is in the way'):
        convert(two, str(out))
    assert tree(out) == {'precious'}
    with pytest.raises(UserError, match='--data_dir=.*: lies within .*pictures'):
        convert(two, os.path.join(two, 'out'))


def test_pictures_are_read_in_threads_a_few_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    began: set[int] = set()
    together = threading.Barrier(2)

    def pixels(index: int) -> np.ndarray:
        began.add(index)
        if index in (0, 64):
            together.wait(10)
        return np.full([1, 1, 3], index % 256, np.uint8)

    monkeypatch.setattr(convert_module, '_WORKERS', 2)
    examples = Examples(['a', 'b'], np.zeros(1000, np.int64), pixels, str)
    with convert_module._reader(examples) as read:
        some = read(range(1000))
        first = next(some)
        time.sleep(0.05)
        assert len(began) <= 6 * 64
        assert [index for index, _ in (first, *some)] == list(range(1000))


# ------------------------------------------------------------------------------
# The contact sheet.


def test_the_sheet_goes_where_it_is_asked_for(two: str, tmp_path: Path) -> None:
    sheet = tmp_path / 'sheet.png'
    convert(two, str(tmp_path / 'out'), contact_sheet=str(sheet))
    assert sheet.read_bytes().startswith(b'\x89PNG')
    assert tree(tmp_path / 'out') == WRITTEN - {'contact_sheet.png'}
    again = str(tmp_path / 'again')
    for path, message in (
        (tmp_path / 'sheet.jpg', 'expected a name that ends in .png'),
        (tmp_path / 'none' / 'sheet.png', 'its folder is missing'),
        (tmp_path / 'again' / 'sheet.png', 'lies within --data_dir'),
    ):
        with pytest.raises(UserError, match=f'--contact_sheet={path}: {message}'):
            convert(two, again, contact_sheet=str(path))
    assert not os.path.exists(again)


# ------------------------------------------------------------------------------
# The command.


def test_the_command_converts(run_script: Script, two: str, tmp_path: Path) -> None:
    Path(two, 'cat', 'notes.png').write_text('no picture')
    options = ('--data_dir=my set', '--seed=3', '--test_percent=50')
    done = run_script('cifar10_data.py', 'convert', two, *options)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith(
        'cifar10_data.py: error: 1 of 19 files were skipped, each named above; my set holds all '
        'others'
    )
    assert "cifar10_train.py '--data_dir=my set' '--train_dir=my set_train' --" in done.stdout
    _, _, _, test_labels = check(tmp_path / 'my set', ['cat', 'no cat'])
    assert np.bincount(test_labels)[1] == 3


@pytest.mark.parametrize(
    ('settings_', 'message'),
    [
        (DataSettings(('convrt', 'x'), 'out'), "found 'convrt'; expected: convert SOURCE"),
        (DataSettings(('convert',), 'out'), 'found 0 paths after convert; expected: convert'),
        (DataSettings(('convert', 'x', 'y'), 'out'), 'found 2 paths after convert; expected'),
        (DataSettings(('convert', 'x')), '--data_dir=cifar10_data: is for CIFAR-10; expected'),
        (DataSettings(('convert', 'x'), 'out', num_test=5), '--num_test=5: convert has no use'),
        (DataSettings(('convert', 'x'), 'out', dataset='auto'), '--dataset=auto: convert has no'),
        (DataSettings(labels='coarse'), '--labels=coarse: is a flag of convert alone'),
        (DataSettings(test_percent=9), '--test_percent=9: is a flag of convert alone'),
        (DataSettings(contact_sheet='x'), '--contact_sheet=x: is a flag of convert alone'),
    ],
)
def test_flags_out_of_place_are_named(
    settings_: DataSettings, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        cifar10_data.main(settings_)
    assert tree(tmp_path) == set()


@pytest.mark.parametrize(
    ('num_train', 'expected'),
    [
        (12, '--batch_size=8 --max_steps=1000'),
        (500, '--max_steps=1000'),
        # 77 epochs of 39 batches.
        (5_000, '--max_steps=3000'),
        (50_000, '--max_steps=30000'),
        (1_000_000, '--max_steps=30000'),
    ],
)
def test_the_printed_steps_fit_the_number_of_images(num_train: int, expected: str) -> None:
    command = convert_module._train_command('set', num_train, 128)
    assert command.endswith(f'cifar10_train.py --data_dir=set --train_dir=set_train {expected}')
