"""The ways to lay out a data set, one module each; `find` tells which a path is.

A module with a `SOURCE` is found by being in this folder.
"""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil

from cifar10_lib.base.errors import UserError
from cifar10_lib.data.sources import folders
from cifar10_lib.data.sources.base import Source, entries


@functools.cache
def sources() -> tuple[Source, ...]:
    """All of them, in the order in which they are tried."""
    modules = [
        importlib.import_module(f'{__name__}.{m.name}') for m in pkgutil.iter_modules(__path__)
    ]
    found = [module.SOURCE for module in modules if hasattr(module, 'SOURCE')]
    return tuple(sorted(found, key=lambda source: (source.is_last, source.name)))


def find(path: str) -> Source:
    """The source at a path.

    Raises:
      UserError: the path is missing, or looks like no source.
    """
    if not os.path.lexists(path):
        raise UserError(f'{path}: missing; expected {_expected()}')
    source = next((source for source in sources() if source.matches(path)), None)
    if source is None:
        raise UserError(f'{path}: not a data set that is known; expected {_expected()}')
    return source


def recognize(folder: str) -> str | None:
    """Name of the source that a folder is beyond doubt; None where it may be anything."""
    known = (source for source in sources() if not source.is_last and source.matches(folder))
    source = next(known, None)
    if source is None and folders.holds_classes(folder):
        source = folders.SOURCE
    return source.name if source else None


def _expected() -> str:
    names = [source.name for source in sources()]
    return f'{", ".join(names)}, or an archive of one'


def innermost(folder: str) -> str:
    """The folder, or the one within it where it holds nothing else, as archives often do."""
    held = entries(folder)
    if list(held.values()) == [True]:
        source = next((s for s in sources() if not s.is_last and s.matches(folder)), None)
        if source is None:
            return innermost(os.path.join(folder, *held))
    return folder
