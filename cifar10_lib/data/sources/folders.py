"""Folders of pictures: one for each class, or such folders in train/ and test/."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cifar10_lib.base.errors import UserError
from cifar10_lib.data import photos
from cifar10_lib.data.sources.base import (
    Examples,
    Options,
    Source,
    count_system,
    entries,
    files_below,
    some,
    warn,
)

# Names of the folders of a divided set, in lower case.
_TRAINING = ('train', 'training')
_VALIDATION = ('val', 'valid', 'validation')
_TEST = ('test', 'testing')

# Of the files or folders in one, where only the kind of a folder is to be told.
_LOOKED_AT = 100


class _Class(NamedTuple):
    name: str
    pictures: list[str]
    """Their paths."""


def _read(folder: str, options: Options) -> Examples:
    """Pictures of any size.

    Of training, validation and test folders, the test images are those of the last, and what is
    in a validation folder is left out; without a test folder they are those of the validation
    folder.
    """
    parts = _divided(folder)
    if number := count_system(folder):
        warn(f"passed over {number:,} of the system's files and folders in {folder}")
    others: list[str] = []
    if not parts:
        classes = [_classes(folder, others)]
        _refuse_wrong_level(folder, classes[0])
    else:
        classes = [_classes(part, others) for part in parts]
    if others:
        warn(f'passed over {len(others):,} files that are no pictures: {some(others)}')
    names = _common_names(parts or [folder], classes)
    paths: list[str] = []
    labels: list[int] = []
    is_test: list[bool] = []
    for number, part in enumerate(classes):
        by_name = {each.name: each.pictures for each in part}
        for label, name in enumerate(names):
            paths += by_name[name]
            labels += [label] * len(by_name[name])
            is_test += [number > 0] * len(by_name[name])
    return Examples(
        names,
        np.array(labels, np.int64),
        lambda index: photos.read(paths[index], options.framing),
        lambda index: paths[index],
        np.array(is_test, bool) if len(classes) > 1 else None,
        inner=options.framing.inner,
    )


def _divided(folder: str) -> list[str]:
    """The folders of training and test images, or of training images alone; none where there
    are no such folders.
    """
    held = entries(folder)
    by_name = {name.lower(): os.path.join(folder, name) for name in held if held[name]}

    def find(names: Sequence[str]) -> str | None:
        return next((by_name[name] for name in names if name in by_name), None)

    train, validation, test = map(find, (_TRAINING, _VALIDATION, _TEST))
    if train is None or not any(entries(train).values()):
        return []
    others = [name for name in held if os.path.join(folder, name) not in (train, validation, test)]
    if others:
        warn(f'passed over, as they are in neither train nor test: {some(others)}')
    labelled: list[str] = []
    for part in filter(None, (test, validation)):
        if not any(entries(part).values()):
            warn(f'{part} is left out: it holds no folders of classes')
        elif labelled:
            number = sum(1 for _ in files_below(part))
            warn(
                f'{part} is left out, with {number:,} files: the test images are those of '
                f'{labelled[0]}; to train on them, move them to {train}'
            )
        else:
            labelled.append(part)
    return [train, *labelled]


def _classes(folder: str, others: list[str]) -> list[_Class]:
    """The classes in a folder; paths of files that are no pictures are added to `others`."""
    found = []
    for name, is_folder in entries(folder).items():
        path = os.path.join(folder, name)
        if not is_folder:
            others.append(path)
            continue
        pictures: list[str] = []
        for file in files_below(path):
            (pictures if photos.is_picture(file) else others).append(file)
        found.append(_Class(_decoded(name), pictures))
    return found


def _decoded(name: str) -> str:
    """A folder's name as UTF-8, which it usually is, whatever the console's encoding is."""
    try:
        return os.fsencode(name).decode()
    except UnicodeDecodeError:
        return name


def _common_names(folders: Sequence[str], parts: Sequence[Sequence[_Class]]) -> list[str]:
    """Names of the classes, which must be the same in all parts; without the empty ones."""
    filled = [{each.name for each in part if each.pictures} for part in parts]
    in_any, in_all = filled[0].union(*filled), filled[0].intersection(*filled)
    empty = {each.name for part in parts for each in part} - in_any
    if empty:
        warn(f'left out, for they hold no pictures: {some(sorted(empty))}')
    if unlike := sorted(in_any - in_all):
        raise UserError(
            f'{" and ".join(folders)}: expected the same classes in both, found pictures only in '
            f'one: {", ".join(map(repr, unlike[:10]))}'
        )
    return sorted(filled[0])


# ------------------------------------------------------------------------- wrong levels


def _refuse_wrong_level(folder: str, classes: Sequence[_Class]) -> None:
    """Raises UserError where there are no classes, and says which folder has some."""
    if sum(bool(each.pictures) for each in classes) > 1:
        return
    fault = f'{folder}: found {"one folder" if classes else "no folders"} of pictures; expected '
    fault += 'one for each class'
    above = [os.path.dirname(os.path.abspath(folder))] if _holds_picture(folder) else []
    for candidate in (*above, *_folders_below(folder, 2)):
        if holds_classes(candidate):
            raise UserError(f'{fault}: {candidate} holds such folders')
    raise UserError(fault)


def _folders_below(folder: str, depth: int) -> list[str]:
    """Folders in a folder, and those in them, so many levels deep."""
    found = []
    for path in _held(folder, folders=True):
        found += [path, *(_folders_below(path, depth - 1) if depth > 1 else ())]
    return found


def holds_classes(folder: str) -> bool:
    """Whether two or more folders in it directly hold pictures, or it is divided."""
    folders = _held(folder, folders=True)
    names = {os.path.basename(path).lower() for path in folders}
    if names.intersection(_TRAINING) and names.intersection(_TEST + _VALIDATION):
        return True
    return sum(map(_holds_picture, folders[:_LOOKED_AT])) > 1


def _holds_picture(folder: str) -> bool:
    return any(map(photos.is_picture, _held(folder, folders=False)[:_LOOKED_AT]))


def _held(folder: str, folders: bool) -> list[str]:
    """Paths of the folders, or of the files, in a folder; none where it can't be read."""
    try:
        held = entries(folder)
    except UserError:
        return []
    return [os.path.join(folder, name) for name, is_folder in held.items() if is_folder == folders]


SOURCE = Source('a folder of pictures for each class', os.path.isdir, _read, is_last=True)
