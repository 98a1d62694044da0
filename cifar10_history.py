"""What were a run's numbers? One JSON object a line, in history.jsonl beside its checkpoints.

Training notes, every --log_frequency steps,

    {"step": 100, "examples": 12800, "seconds": 4.1, "loss": 4.13, "learning_rate": 0.1}

where `seconds` counts the time of training since step 0, without the pauses between runs;
an evaluation notes

    {"step": 100, "precision": 0.31, "eval_data": "test", "num_examples": 10000, "views": 1}
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import cifar10_files
from cifar10_paths import os_errors_named
from cifar10_settings import UserError

HISTORY_FILE = 'history.jsonl'

# A line of the history, by the names above.
Entry = dict[str, Any]


class History:
    """The history that a process writes to. Nothing but whole lines is ever in the file."""

    def __init__(self, folder: str, last_step: int) -> None:
        """Takes up the history of a folder, without what lies beyond the start of this run.

        Args:
          folder: that of the checkpoints.
          last_step: entries of later steps, of a run that was broken off, are removed.

        Raises:
          UserError: the file can't be read or written, or is no history.
        """
        self._path = os.path.join(folder, HISTORY_FILE)
        self.entries = [entry for entry in read(folder) if entry['step'] <= last_step]
        with os_errors_named(self._path):
            if self.entries or os.path.lexists(self._path):
                cifar10_files.replace_text(self._path, _as_text(self.entries))
        self._pending: list[Entry] = []

    def add(self, entry: Entry) -> None:
        """Notes an entry; `write` puts it into the file."""
        self.entries.append(entry)
        self._pending.append(entry)

    def write(self) -> None:
        """Puts what is new onto the disk.

        Raises:
          UserError: the file can't be written.
        """
        if not self._pending:
            return
        with os_errors_named(self._path):
            with open(self._path, 'a', encoding='utf-8') as file:
                file.write(_as_text(self._pending))
            cifar10_files.sync(self._path)
        self._pending.clear()


def replace(folder: str, entry: Entry, is_same: Callable[[Entry], bool]) -> None:
    """Adds an entry in place of those that it repeats.

    Args:
      folder: that of the history.
      entry: the new one.
      is_same: whether an entry of the file is one that it repeats.

    Raises:
      UserError: the file can't be read or written, or is no history.
    """
    path = os.path.join(folder, HISTORY_FILE)
    entries = [old for old in read(folder) if not is_same(old)]
    with os_errors_named(path):
        cifar10_files.replace_text(path, _as_text([*entries, entry]))


def read(folder: str) -> list[Entry]:
    """The entries of a folder's history, in their order; none where it has no history.

    A last line that was not written whole, as a crash leaves it, is no entry.

    Raises:
      UserError: names the file and line that is none of a history.
    """
    path = os.path.join(folder, HISTORY_FILE)
    try:
        with os_errors_named(path), open(path, encoding='utf-8', errors='replace') as file:
            lines = file.read().split('\n')[:-1]
    except UserError as error:
        if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
            return []
        raise
    return [_entry(path, number, line) for number, line in enumerate(lines, 1)]


def _entry(path: str, number: int, line: str) -> Entry:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict) or type(entry.get('step')) is not int:
        raise UserError(
            f'{path}: line {number}: found {line[:60]!r}; expected a JSON object with a step; move '
            'the file away to go on without'
        )
    return entry


def _as_text(entries: Iterable[Entry]) -> str:
    return ''.join(f'{json.dumps(entry)}\n' for entry in entries)
