"""Folders of pictures: which are classes, which are test images, and what is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from cifar10_lib.base.errors import UserError
from tests.helpers.data_sets import as_pairs, check, convert, pairs, save
from tests.helpers.samples import unix


def fill(folder: Path, *numbers: int) -> None:
    """Two classes with the pictures of these numbers."""
    for label, name in enumerate(('a', 'b')):
        save(folder / name, label, numbers)


def both(numbers: list[int]) -> list[tuple[int, bytes]]:
    return sorted(pairs(0, numbers) + pairs(1, numbers))


@pytest.mark.parametrize(
    ('train', 'test'),
    [
        ('train', 'test'),
        ('Train', 'TEST'),
        ('training', 'testing'),
        ('train', 'val'),
        ('train', 'valid'),
        ('TRAIN', 'Validation'),
    ],
)
def test_divided_pictures_stay_divided(tmp_path: Path, train: str, test: str) -> None:
    fill(tmp_path / 'in' / train, 1, 2, 3)
    fill(tmp_path / 'in' / test, 4)
    convert(tmp_path / 'in', tmp_path / 'out')
    found = check(tmp_path / 'out', ['a', 'b'])
    assert as_pairs(*found[:2]) == both([1, 2, 3]) and as_pairs(*found[2:]) == both([4])


def test_of_three_parts_the_validation_images_are_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part, number in (('train', 1), ('val', 4), ('test', 5)):
        fill(tmp_path / 'in' / part, number, number + 10, number + 20)
    convert(tmp_path / 'in', tmp_path / 'out')
    found = check(tmp_path / 'out', ['a', 'b'])
    assert as_pairs(*found[:2]) == both([1, 11, 21]) and as_pairs(*found[2:]) == both([5, 15, 25])
    assert (
        f'{tmp_path}/in/val is left out, with 6 files: the test images' in capsys.readouterr().err
    )


def test_a_test_folder_without_classes_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Kaggle has the pictures that are to be classified."""
    fill(tmp_path / 'in' / 'train', *range(6))
    save(tmp_path / 'in' / 'test', 0, [9])
    convert(tmp_path / 'in', tmp_path / 'out')
    found = check(tmp_path / 'out', ['a', 'b'])
    assert (len(found[1]), len(found[3])) == (10, 2)
    assert 'test is left out: it holds no folders of classes' in capsys.readouterr().err


def test_train_can_be_a_class(tmp_path: Path) -> None:
    for label, name in enumerate(('bus', 'train')):
        save(tmp_path / 'in' / name, label, range(4))
    convert(tmp_path / 'in', tmp_path / 'out')
    check(tmp_path / 'out', ['bus', 'train'])


def test_pictures_in_folders_of_a_class_belong_to_it(tmp_path: Path) -> None:
    for label, name in enumerate(('a', 'b')):
        save(tmp_path / 'in' / name / '2019' / 'summer', label, [1, 2])
        save(tmp_path / 'in' / name / '2020', label, [3, 4])
    convert(tmp_path / 'in', tmp_path / 'out')
    train, train_labels, test, test_labels = check(tmp_path / 'out', ['a', 'b'])
    found = as_pairs(train, train_labels) + as_pairs(test, test_labels)
    assert sorted(found) == both([1, 2, 3, 4])


def test_system_files_are_counted_and_others_named_in_one_line_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / 'in', *range(4))
    for name in (
        '@eaDir/SYNO.jpg',
        'a/@eaDir/1.png@SYNO.png',
        'a/.DS_Store',
        'a/Thumbs.db',
        '#recycle/old.png',
        'lost+found/x',
        'System Volume Information/x',
        '__MACOSX/a/._1.png',
    ):
        (tmp_path / 'in' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'in' / name).touch()
    for name in ('README.md', 'a/notes.txt', *(f'b/{i}.csv' for i in range(5000))):
        (tmp_path / 'in' / name).touch()
    convert(tmp_path / 'in', tmp_path / 'out')
    check(tmp_path / 'out', ['a', 'b'])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert f"passed over 8 of the system's files and folders in {tmp_path}/in" in lines[0]
    assert 'passed over 5,002 files that are no pictures: ' in lines[1] and len(lines[1]) < 800


def test_an_empty_class_is_left_out_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / 'in', *range(4))
    (tmp_path / 'in' / 'c').mkdir()
    convert(tmp_path / 'in', tmp_path / 'out')
    check(tmp_path / 'out', ['a', 'b'])
    assert 'Warning: left out, for they hold no pictures: c\n' in capsys.readouterr().err


def test_parts_of_other_classes_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / 'in' / 'train', 1, 2, 3)
    fill(tmp_path / 'in' / 'test', 4)
    save(tmp_path / 'in' / 'test' / 'c', 2, [1])
    with pytest.raises(UserError, match="same classes in both, found pictures only in one: 'c'"):
        convert(tmp_path / 'in', tmp_path / 'out')


@pytest.mark.parametrize(('wrong', 'right'), [('', 'x/y'), ('x', 'x/y'), ('x/y/a', 'x/y')])
def test_the_wrong_level_is_told_the_right_one(tmp_path: Path, wrong: str, right: str) -> None:
    fill(tmp_path / 'in' / 'x' / 'y', 1, 2)
    with pytest.raises(
        UserError, match=rf'found (no|one) folders? .*: {tmp_path}/in/{right} holds'
    ):
        convert(tmp_path / 'in' / wrong, tmp_path / 'out')


def test_a_level_above_divided_pictures_is_told_so(tmp_path: Path) -> None:
    fill(tmp_path / 'in' / 'x' / 'train', 1, 2)
    fill(tmp_path / 'in' / 'x' / 'test', 3)
    with pytest.raises(UserError, match=rf'{tmp_path}/in/x holds such folders'):
        convert(tmp_path / 'in', tmp_path / 'out')


@unix
def test_links_are_followed_and_never_in_a_circle(tmp_path: Path) -> None:
    fill(tmp_path / 'elsewhere', *range(4))
    (tmp_path / 'in').mkdir()
    for name in ('a', 'b'):
        (tmp_path / 'in' / name).symlink_to(tmp_path / 'elsewhere' / name)
    (tmp_path / 'elsewhere' / 'a' / 'back').symlink_to(tmp_path / 'elsewhere' / 'a')
    convert(tmp_path / 'in', tmp_path / 'out')
    train, _, test, _ = check(tmp_path / 'out', ['a', 'b'])
    assert len(train) + len(test) == 8


def test_names_in_any_script_and_of_any_bytes(tmp_path: Path) -> None:
    names = ['क्‍ष', '猫 $x$', '👩‍🚀']
    for label, name in enumerate(sorted(names)):
        save(tmp_path / 'in' / name, label, range(3))
    (tmp_path / 'in' / names[0] / '0.png').rename(tmp_path / 'in' / names[0] / 'caf\udce9.png')
    convert(tmp_path / 'in', tmp_path / 'out')
    check(tmp_path / 'out', sorted(names))
