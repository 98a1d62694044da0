"""Programs that are put through faults, and the files that they save."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import h5py  # type: ignore[import-untyped]
import numpy as np
import tensorflow.compat.v1 as tf

from benchmarks.processes import as_flags, module_command, script_command
from cifar10_lib.base.errors import UserError

NUM_IMAGES = 500
BATCH_SIZE = 25
MAX_STEPS = 80
SAVE_STEPS = 10

# One step of it overflows float32. As text, for the command line.
HUGE_LEARNING_RATE = '1e38'

Tensors = dict[str, np.ndarray]


class NotRun(UserError):
    """A fault can't be brought about here; says why, in place of what was seen."""


@dataclasses.dataclass(frozen=True)
class Saved:
    """The files that a program would resume from."""

    data: Path
    """The weights."""
    index: Path
    """What lies where in `data`."""
    state: Path
    """Which checkpoint is the newest."""


class Store(Protocol):
    """The form in which a program saves its state."""

    def saved(self, train_dir: Path) -> Saved | None:
        """The newest saved state, or None."""

    def tensors(self, train_dir: Path) -> Tensors:
        """All tensors that were saved last, by name.

        Raises:
          LookupError: nothing is saved.
          OSError, ValueError, tf.errors.OpError: it can't be read.
        """

    def rewrite(self, train_dir: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
        """Puts each tensor of the newest saved state through `change`."""


class Checkpoints:
    """TensorFlow's checkpoints: `model.ckpt-STEP` in the folder itself."""

    def saved(self, train_dir: Path) -> Saved | None:
        by_step = {
            int(path.stem.rpartition('-')[2]): path for path in train_dir.glob('model.ckpt-*.index')
        }
        if not by_step:
            return None
        index = by_step[max(by_step)]
        return Saved(index.with_suffix('.data-00000-of-00001'), index, train_dir / 'checkpoint')

    def _prefix(self, train_dir: Path) -> str:
        saved = self.saved(train_dir)
        if saved is None:
            raise LookupError(f'no checkpoint in {train_dir}')
        return str(saved.index.with_suffix(''))

    def tensors(self, train_dir: Path) -> Tensors:
        reader = tf.train.load_checkpoint(self._prefix(train_dir))
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}

    def rewrite(self, train_dir: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
        tensors = self.tensors(train_dir)
        tf.raw_ops.SaveV2(
            prefix=self._prefix(train_dir),
            tensor_names=list(tensors),
            shape_and_slices=[''] * len(tensors),
            tensors=[change(value) for value in tensors.values()],
        )


class KerasBackup:
    """The backup of `backup_and_restore_train.py`, and its final weights once it is gone."""

    def saved(self, train_dir: Path) -> Saved | None:
        data = train_dir / 'backup' / 'latest.weights.h5'
        # There are no other files; the second one tells where to resume.
        metadata = data.with_name('training_metadata.json')
        return Saved(data, metadata, metadata) if data.exists() else None

    def _open(self, train_dir: Path, mode: str) -> h5py.File:
        saved = self.saved(train_dir)
        return h5py.File(saved.data if saved else train_dir / 'final.weights.h5', mode)

    def tensors(self, train_dir: Path) -> Tensors:
        with self._open(train_dir, 'r') as file:
            return _datasets(file)

    def rewrite(self, train_dir: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
        with self._open(train_dir, 'r+') as file:
            for name, value in _datasets(file).items():
                del file[name]
                file.create_dataset(name, data=change(value))


def _datasets(file: h5py.File) -> Tensors:
    items: dict[str, h5py.Dataset | h5py.Group] = {}
    file.visititems(items.__setitem__)
    return {name: np.array(item) for name, item in items.items() if isinstance(item, h5py.Dataset)}


class Request(NamedTuple):
    """What one start of a program is asked to do."""

    data_dir: Path
    train_dir: Path
    save_steps: int = SAVE_STEPS
    diverge: bool = False
    """Train with a learning rate at which the loss does not stay finite."""

    def flags(self) -> list[str]:
        """Flags that all programs have."""
        return as_flags(
            data_dir=self.data_dir,
            train_dir=self.train_dir,
            max_steps=MAX_STEPS,
            batch_size=BATCH_SIZE,
            save_checkpoint_steps=self.save_steps,
            **({'learning_rate': HUGE_LEARNING_RATE} if self.diverge else {}),
        )


class Program(NamedTuple):
    """A training program, as the harness sees it."""

    title: str
    base_command: list[str]
    """The flags of a request are added to it."""
    store: Store
    num_silent_steps: int = 0
    """Steps at the beginning of a run that print no line."""

    def command(self, request: Request) -> list[str]:
        return [*self.base_command, *request.flags()]


_PROJECT = script_command(
    'cifar10_train.py', dataset='synthetic', log_frequency=1, seed=0, deterministic=True
)
_SESSION = module_command('peers.monitored_session_train')
_KERAS = module_command('peers.backup_and_restore_train')

PROGRAMS = {
    'project': Program('this project', _PROJECT, Checkpoints(), num_silent_steps=1),
    'session': Program('MonitoredTrainingSession', _SESSION, Checkpoints()),
    'keras': Program('Keras BackupAndRestore', _KERAS, KerasBackup()),
    'tutorial': Program(
        "the tutorial's trainer", [*_SESSION, '--start_over', '--stop_on_nan'], Checkpoints()
    ),
    'keras_double': Program(
        'Keras BackupAndRestore(double_checkpoint=True)',
        [*_KERAS, '--double_checkpoint'],
        KerasBackup(),
    ),
}
DEFAULT_PROGRAMS = ('project', 'session', 'keras', 'tutorial')
