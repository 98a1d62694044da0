"""The history of a run: one JSON object a line, in history.jsonl beside its checkpoints.

Training writes, every --log_frequency steps,

    {"step": 100, "examples": 12800, "seconds": 4.1, "loss": 4.13, "cross_entropy": 1.97,
     "learning_rate": 0.1}

where `loss` is the total loss of the step's batch, with the weight decay, and `seconds` is the
training time since step 0, without start-ups, pauses between runs and evaluations; each
evaluation adds

    {"step": 100, "examples": 12800, "seconds": 4.1, "precision": 0.31, "cross_entropy": 1.88,
     "eval_data": "test", "num_examples": 10000, "views": 1}

with the mean cross entropy of the evaluated images. Earlier versions wrote no cross entropies.

Everything up to a checkpoint's step is on the disk before that checkpoint is complete, and a
run that resumes from it removes later entries: so the history has each step once, whatever
interrupted a run. `cifar10_eval.py` writes its results to a history in --eval_dir, without
examples and seconds. Each line also names the run and its network, as "run" and "model", unless an
earlier version began the run.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from cifar10_lib.base import files, locks
from cifar10_lib.base.errors import UserError, error_message, os_errors_named

HISTORY_FILE = 'history.jsonl'

# A line of the history: values by the names above.
Entry = dict[str, Any]


class UnwritableError(UserError):
    """The history can't be written."""


class History:
    """The history that a run writes to, until the end of `with`.

    An entry is in the file as soon as it is added. The file is kept open: if its folder is
    replaced, nothing is written into the new one.
    """

    def __init__(
        self, folder: str, last_step: int, labels: Mapping[str, str] | None = None
    ) -> None:
        """Opens the history of a folder, and removes entries beyond the start of this run.

        Args:
          folder: of the checkpoints.
          last_step: later entries, of an interrupted run, are removed.
          labels: are added to each new entry.

        Raises:
          UserError: the file can't be read or written, or is no history.
        """
        self._path = os.path.join(folder, HISTORY_FILE)
        self._labels = labels or {}
        self.entries = [entry for entry in read(folder) if entry['step'] <= last_step]
        with os_errors_named(self._path):
            files.replace_text(self._path, _as_text(self.entries))
            self._file = open(self._path, 'a', encoding='utf-8')  # noqa: SIM115 (open until the run ends)

    def __enter__(self) -> History:
        return self

    def __exit__(self, *exception: object) -> None:
        # An entry that couldn't be written has been an error before.
        with contextlib.suppress(OSError):
            self._file.close()

    def last(self, name: str) -> float | None:
        """The newest value of that name; None where no entry has one."""
        return next((entry[name] for entry in reversed(self.entries) if name in entry), None)

    def precisions(self, eval_data: str) -> list[float]:
        """Those of images of one kind, in their order."""
        return [
            entry['precision']
            for entry in self.entries
            if 'precision' in entry and entry.get('eval_data') == eval_data
        ]

    def add(self, entry: Entry) -> None:
        """Raises UnwritableError if the entry can't be written."""
        entry = {**entry, **self._labels}
        with self._errors_named():
            self._file.write(_as_text([entry]))
            self._file.flush()
        self.entries.append(entry)

    def sync(self) -> None:
        """Flushes all entries to the disk; raises UnwritableError if that fails."""
        with self._errors_named():
            os.fsync(self._file.fileno())

    @contextlib.contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UnwritableError(
                f'{self._path}: cannot be written: {error_message(error)}'
            ) from error


def replace(folder: str, entry: Entry, is_same: Callable[[Entry], bool]) -> None:
    """Adds an entry, and removes earlier ones of the same thing.

    Processes that do so at the same time take turns.

    Args:
      folder: of the history.
      entry: the new one.
      is_same: whether an earlier entry is to be removed.

    Raises:
      UserError: the file can't be read or written, or is no history.
    """
    path = os.path.join(folder, HISTORY_FILE)
    with locks.turn(folder):
        entries = [old for old in read(folder) if not is_same(old)]
        with os_errors_named(path):
            files.replace_text(path, _as_text([*entries, entry]))


def read(folder: str) -> list[Entry]:
    """The entries of a folder's history, in their order; none where it has no history.

    An incomplete last line, as a crash leaves it, is no entry.

    Raises:
      UserError: a line is no entry; names file and line.
    """
    path = os.path.join(folder, HISTORY_FILE)
    if not os.path.lexists(path):
        return []
    files.regular_size(path, 'expected the history of a run')
    with os_errors_named(path), open(path, encoding='utf-8', errors='replace') as file:
        lines = file.read().split('\n')[:-1]
    return [_entry(path, number, line) for number, line in enumerate(lines, 1)]


def _entry(path: str, number: int, line: str) -> Entry:
    try:
        entry = json.loads(line)
        # Not isinstance: True is an int to Python.
        sound = type(entry['step']) is int and type(entry.get('seconds', 0)) in (int, float)
    except (ValueError, RecursionError, TypeError, KeyError):
        sound = False
    if not sound:
        raise UserError(
            f'{path}: line {number}: found {line[:60]!r}; expected a JSON object with a step; move '
            'the file away to continue without it'
        )
    return entry


def _as_text(entries: Iterable[Entry]) -> str:
    return ''.join(f'{json.dumps(entry)}\n' for entry in entries)
