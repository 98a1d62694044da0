"""What were a run's numbers? One JSON object a line, in history.jsonl beside its checkpoints.

Training notes, every --log_frequency steps,

    {"step": 100, "examples": 12800, "seconds": 4.1, "loss": 4.13, "learning_rate": 0.1}

where `seconds` counts the time of training since step 0, without start-ups, pauses between
runs and evaluations; --eval_every adds

    {"step": 100, "examples": 12800, "seconds": 4.1, "precision": 0.31, "eval_data": "test",
     "num_examples": 10000, "views": 1}

Everything up to a checkpoint's step is on the disk before that checkpoint is whole, and a run
that goes on from it drops what is later: so the history has each step once, whatever broke a
run off. `cifar10_eval.py` notes its results in --eval_dir, without examples and seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cifar10_lib.base import files
from cifar10_lib.base.errors import UserError, os_errors_named
from cifar10_lib.base.files import regular_size

HISTORY_FILE = 'history.jsonl'

# A line of the history, by the names above.
Entry = dict[str, Any]


class UnwritableError(UserError):
    """What a run has to tell can't be written."""


class History:
    """The history that a run writes to, until the end of `with`.

    A line is in the file as soon as it is noted. The file is kept open: where its folder is
    replaced, nothing is written into the other one.
    """

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
            files.replace_text(self._path, _as_text(self.entries))
            self._file = open(self._path, 'a', encoding='utf-8')  # noqa: SIM115 (for the whole run)

    def __enter__(self) -> History:
        return self

    def __exit__(self, *exception: object) -> None:
        # What couldn't be written has been an error before.
        with contextlib.suppress(OSError):
            self._file.close()

    def last(self, name: str) -> float | None:
        """The last entry's value of that name; None where no entry has any."""
        return next((entry[name] for entry in reversed(self.entries) if name in entry), None)

    def add(self, entry: Entry) -> None:
        """Writes an entry.

        Raises:
          UnwritableError: it can't be written.
        """
        with self._errors_named():
            self._file.write(_as_text([entry]))
            self._file.flush()
        self.entries.append(entry)

    def sync(self) -> None:
        """Has all entries on the disk, not just on their way to it.

        Raises:
          UnwritableError: they can't be written.
        """
        with self._errors_named():
            os.fsync(self._file.fileno())

    @contextlib.contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UnwritableError(f'{self._path}: cannot be written: {error.strerror}') from error


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
        files.replace_text(path, _as_text([*entries, entry]))


def read(folder: str) -> list[Entry]:
    """The entries of a folder's history, in their order; none where it has no history.

    A last line that was not written whole, as a crash leaves it, is no entry.

    Raises:
      UserError: names the file and line that is none of a history.
    """
    path = os.path.join(folder, HISTORY_FILE)
    if not os.path.lexists(path):
        return []
    regular_size(path, 'expected the history of a run')
    with os_errors_named(path), open(path, encoding='utf-8', errors='replace') as file:
        lines = file.read().split('\n')[:-1]
    return [_entry(path, number, line) for number, line in enumerate(lines, 1)]


def _entry(path: str, number: int, line: str) -> Entry:
    try:
        entry = json.loads(line)
        # Not true and false, which are numbers to Python.
        sound = type(entry['step']) is int and type(entry.get('seconds', 0)) in (int, float)
    except (ValueError, RecursionError, TypeError, KeyError):
        sound = False
    if not sound:
        raise UserError(
            f'{path}: line {number}: found {line[:60]!r}; expected a JSON object with a step; move '
            'the file away to go on without'
        )
    return entry


def _as_text(entries: Iterable[Entry]) -> str:
    return ''.join(f'{json.dumps(entry)}\n' for entry in entries)
