"""What a source of labelled images is, and how the folders of sources are read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from cifar10_lib.base.errors import UserError, os_errors_named
from cifar10_lib.base.names import printable
from cifar10_lib.data import photos
from cifar10_lib.data.framing import Framing

# Files and folders that systems put beside people's own, in lower case; besides all whose names
# begin with a dot.
_SYSTEM_NAMES = (
    'thumbs.db',
    'desktop.ini',
    '__macosx',
    '@eadir',
    '#recycle',
    '$recycle.bin',
    'lost+found',
    'system volume information',
)

# Names that a list in a message has.
_SHOWN_NAMES = 5


class Options(NamedTuple):
    """What the user asks of a source."""

    framing: Framing = Framing()
    labels: str | None = None
    """Which labels, or which of its sets, where the source has several; None: its usual ones."""


class Examples(NamedTuple):
    """Labelled images, to be read one by one."""

    class_names: Sequence[str]
    """In the order of the labels."""
    labels: np.ndarray
    """int64 [images], 0 to classes - 1."""
    pixels: Callable[[int], np.ndarray]
    """Gives uint8 [size, size, 3] for the index of an image; UserError skips it. For threads and
    processes."""
    name: Callable[[int], str]
    """Gives the name of an image by its index, for people."""
    is_test: np.ndarray | None = None
    """bool [images]; None where the source isn't divided."""
    files: np.ndarray | None = None
    """int64 [images]: the number of the record file that each is written to, in this order; None:
    any file and order."""
    inner: int = 0
    """Side of the part of a record in whose middle the images stand: see `Framing`."""


class Source(NamedTuple):
    """A way to lay out a data set. Each module of this package but this one holds one.

    `matches` looks at names and first bytes alone.
    """

    name: str
    """For people, after 'is'."""
    matches: Callable[[str], bool]
    """Whether the file or folder at a path looks like one."""
    read: Callable[[str, Options], Examples]
    """Raises UserError, which names file and place of what is wrong."""
    is_last: bool = False
    """Whether it takes what no other source takes."""
    labels: bool = False
    """Whether `Options.labels` chooses among its labels."""


# ----------------------------------------------------------------------------- folders


def entries(folder: str) -> dict[str, bool]:
    """Whether it is a folder, for the name of all that lies in `folder`, in their order.

    What systems put there is left out.
    """
    with os_errors_named(folder), os.scandir(folder) as found:
        held = {entry.name: _is_folder(entry) for entry in found if not is_system(entry.name)}
    return dict(sorted(held.items()))


def is_system(name: str) -> bool:
    return name.startswith('.') or name.lower() in _SYSTEM_NAMES


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link that leads in a circle: named when it is read.
        return False


def names_in(path: str) -> list[str]:
    """Names of the files in a folder; none for the path of a file."""
    return (
        [name for name, is_folder in entries(path).items() if not is_folder]
        if (os.path.isdir(path))
        else []
    )


def files_below(folder: str, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """Paths of all files in a folder and in the folders below it, in the order of their names."""
    seen |= {os.path.realpath(folder)}
    for name, is_folder in entries(folder).items():
        path = os.path.join(folder, name)
        if not is_folder:
            yield path
        elif os.path.realpath(path) not in seen:  # A link may lead back.
            yield from files_below(path, seen)


def count_system(folder: str) -> int:
    """How many files and folders of a system lie in a folder and below it."""
    number = 0
    for _, folders, files in os.walk(folder):
        number += sum(map(is_system, (*folders, *files)))
        folders[:] = [name for name in folders if not is_system(name)]
    return number


def divide(files: Sequence[str]) -> tuple[list[str], list[bool]]:
    """The files that are used, and whether each has test images, by the words in their names.

    Those of `validation` are test images where there is no `test`, and left out where there is.
    """
    names = [os.path.basename(file).lower() for file in files]
    of_test = ['test' in name for name in names]
    of_validation = ['valid' in name or 'val-' in name or 'val_' in name for name in names]
    if not any(of_test):
        return list(files), of_validation
    left_out = [file for file, is_left in zip(files, of_validation, strict=True) if is_left]
    if left_out:
        warn(f'left out, as there are test images: {some(left_out)}')
    used = [file for file in files if file not in left_out]
    return used, ['test' in os.path.basename(file).lower() for file in used]


# ---------------------------------------------------------------------------- messages


def warn(message: str) -> None:
    print(f'Warning: {printable(message)}', file=sys.stderr)


def some(names: Iterable[str]) -> str:
    """The first few of many names."""
    names = list(names)
    more = [f'... ({len(names):,} in all)'] if len(names) > _SHOWN_NAMES else []
    return ', '.join([*names[:_SHOWN_NAMES], *more])


def missing_extra(path: str, package: str) -> UserError:
    """The error of a source that needs a package which isn't there."""
    return UserError(f'{path}: is read by {package}, which is missing: pip install {package}')


# ------------------------------------------------------------------------ examples


def numbered(
    values: np.ndarray, names: Sequence[str] | None = None
) -> tuple[list[str], np.ndarray]:
    """Class names and labels, of the labels that a data set has.

    Args:
      values: whole numbers [images].
      names: of the labels from 0 on; None, or too few: the labels that occur are the classes,
        and are their names.

    Returns:
      The names, and int64 [images].
    """
    if names is not None and len(values) and 0 <= values.min() <= values.max() < len(names):
        return list(names), values.astype(np.int64)
    found, labels = np.unique(values, return_inverse=True)
    return [str(value) for value in found], labels.astype(np.int64)


def array_examples(
    paths: Sequence[str],
    parts: Sequence[np.ndarray],
    class_names: Sequence[str],
    labels: np.ndarray,
    of_test: Sequence[bool],
    options: Options,
) -> Examples:
    """The images of arrays.

    Args:
      paths: of the files that hold the parts, for people.
      parts: uint8 [images, height, width] or [images, height, width, 1 or 3] each; one or more.
      class_names: in the order of the labels.
      labels: int64 [images], of all parts.
      of_test: whether the images of each part are test images; all or none: not divided.
      options: of the user.
    """
    starts = np.cumsum([0, *map(len, parts)])

    def place(index: int) -> tuple[int, int]:
        number = int(np.searchsorted(starts, index, 'right')) - 1
        return number, int(index - starts[number])

    def name(index: int) -> str:
        number, inner_index = place(index)
        return f'{paths[number]}: image {inner_index:,}'

    def pixels(index: int) -> np.ndarray:
        number, inner_index = place(index)
        return photos.from_array(parts[number][inner_index], options.framing, name(index))

    return Examples(
        class_names,
        labels,
        pixels,
        name,
        np.repeat(of_test, np.diff(starts)) if len(set(of_test)) > 1 else None,
        inner=photos.inner_side(parts[0][0], options.framing),
    )
