"""The checkpoint of the best precision so far, kept apart."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any, NamedTuple

from cifar10_lib.base import files
from cifar10_lib.base.errors import UserError, write_errors_named
from cifar10_lib.evaluation.evaluator import Result
from cifar10_lib.runs.checkpoints import Checkpoint, CheckpointFolder
from cifar10_lib.runs.run_folder import SETTINGS_FILE

# Inside the folder of a run, or of its evaluations.
BEST_DIRECTORY = 'best'

# In that folder: why its checkpoint was chosen.
REASON_FILE = 'best.json'


class ChosenOn(NamedTuple):
    """What precisions must have in common to be compared."""

    eval_data: str
    num_examples: int
    views: str
    run: str | None = None
    """Name of the run."""


def read_reason(directory: str) -> dict[str, Any] | None:
    """Why the checkpoint in a folder was chosen: the fields of `ChosenOn`, precision and step.

    Returns:
      None where there is none.

    Raises:
      UserError: it can't be read.
    """
    path = os.path.join(directory, REASON_FILE)
    try:
        with open(path, encoding='utf-8') as file:
            kept = json.load(file)
        # Earlier versions averaged ten views, or none.
        views = '10' if kept.get('average_views') else '1'
        return {
            'views': views,
            'run': None,
            **kept,
            **{name: kept[name] for name in ('eval_data', 'num_examples')},
            'precision': float(kept['precision']),
            'step': int(kept['step']),
        }
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f'{path}: not what --keep_best writes: {error!r}') from error


class Best:
    """A copy of the checkpoint of the best precision so far, with the reason for the choice."""

    def __init__(self, folder: str, flag: str, checkpoint_dir: str, chosen_on: ChosenOn) -> None:
        """
        Args:
          folder: holds the folder of the copy.
          flag: names `folder` in error messages.
          checkpoint_dir: folder of the run.
          chosen_on: of the precisions.

        Raises:
          UserError: the present copy was chosen on other images, or can't be read.
        """
        self.directory = os.path.join(folder, BEST_DIRECTORY)
        self._checkpoint_dir = checkpoint_dir
        self._file = os.path.join(self.directory, REASON_FILE)
        self._chosen_on = chosen_on
        self._precision = -1.0
        reason = read_reason(self.directory)
        if reason is None:
            return
        self._precision = reason['precision']
        kept_on = ChosenOn(*(reason[name] for name in ChosenOn._fields))
        if kept_on != chosen_on:
            raise UserError(
                f'--keep_best: {self.directory} was chosen by {kept_on._asdict()}, not by '
                f'{chosen_on._asdict()}; name another {flag}'
            )

    def offer(self, checkpoint: Checkpoint, result: Result) -> None:
        """Copies the checkpoint if it is better than the present copy.

        Raises:
          UserError: it can't be copied.
        """
        if result.precision <= self._precision:
            return
        reason = {**self._chosen_on._asdict(), 'precision': result.precision, 'step': result.step}
        with write_errors_named(self.directory):
            os.makedirs(self.directory, exist_ok=True)
            # So that the folder of the copy names the data set of training.
            settings_file = os.path.join(self._checkpoint_dir, SETTINGS_FILE)
            if os.path.exists(settings_file):
                shutil.copy(settings_file, self.directory)
            copy = CheckpointFolder(self.directory, max_to_keep=1).add_copy(checkpoint)
            files.replace_text(self._file, json.dumps(reason, indent=2) + '\n')
        self._precision = result.precision
        print(f'Best so far: kept as {copy}', flush=True)
