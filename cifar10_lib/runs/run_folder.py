"""The folder of a training run."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any

from cifar10_lib.base import files
from cifar10_lib.base.errors import UserError

SETTINGS_FILE = 'settings.json'


def store(settings: Any, directory: str, **more: str) -> None:
    """Writes `settings`, and `more`, to settings.json in `directory`.

    A crash leaves the old file whole.

    Raises:
      OSError: it cannot be written.
    """
    values = {**dataclasses.asdict(settings), **more}
    path = os.path.join(directory, SETTINGS_FILE)
    files.replace_text(path, json.dumps(values, indent=2) + '\n')


def load(directory: str) -> dict[str, Any]:
    """The settings stored in `directory`; empty where none are stored.

    Raises:
      UserError: settings.json is there and is not a JSON object.
    """
    path = os.path.join(directory, SETTINGS_FILE)
    try:
        with open(path, encoding='utf-8') as file:
            stored = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise UserError(
            f'{path}: cannot be read as settings: {error}; move it away to go on without'
        ) from error
    if not isinstance(stored, dict):
        raise UserError(f'{path}: expected a JSON object, found {type(stored).__name__}')
    return stored


def stored_choice(
    stored: dict[str, Any], directory: str, name: str, known: Sequence[str]
) -> str | None:
    """One value of what `load` gave, one of those known; None where it has none.

    Raises:
      UserError: it has another.
    """
    value = stored.get(name)
    if value is not None and value not in known:
        raise UserError(
            f'{os.path.join(directory, SETTINGS_FILE)}: found the {name} {value!r}; expected one '
            f'of {", ".join(known)}'
        )
    return value
