"""Which programs are put through faults, and what do they save?"""

from __future__ import annotations

import dataclasses
import functools
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import h5py  # type: ignore[import-untyped]
import numpy as np
import tensorflow.compat.v1 as tf

from benchmarks import REPOSITORY
from benchmarks.speed.__main__ import child_environment
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
    """The files that a program would go on from."""

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
        # Two files are all that there is; the second tells where to go on.
        metadata = data.with_name('training_metadata.json')
        return Saved(data, metadata, metadata) if data.exists() else None

    def _path(self, train_dir: Path) -> Path:
        saved = self.saved(train_dir)
        return saved.data if saved else train_dir / 'final.weights.h5'

    def tensors(self, train_dir: Path) -> Tensors:
        with h5py.File(self._path(train_dir)) as file:
            return {name: np.array(file[name]) for name in _dataset_names(file)}

    def rewrite(self, train_dir: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
        with h5py.File(self._path(train_dir), 'r+') as file:
            for name in _dataset_names(file):
                value = change(np.array(file[name]))
                del file[name]
                file.create_dataset(name, data=value)


def _dataset_names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(
        lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
    )
    return names


class Request(NamedTuple):
    """What one start of a program is asked to do."""

    data_dir: Path
    train_dir: Path
    save_steps: int = SAVE_STEPS
    diverge: bool = False
    """Train with a learning rate at which the loss does not stay finite."""


class Program(NamedTuple):
    """A training program, as the harness sees it."""

    title: str
    command: Callable[[Request], list[str]]
    store: Store
    num_silent_steps: int = 0
    """Steps at the beginning of a run that print no line."""


def _common_options(request: Request) -> list[str]:
    return [
        f'--data_dir={request.data_dir}',
        f'--train_dir={request.train_dir}',
        f'--max_steps={MAX_STEPS}',
        f'--batch_size={BATCH_SIZE}',
        *([f'--learning_rate={HUGE_LEARNING_RATE}'] if request.diverge else []),
    ]


@functools.cache
def project_flags() -> frozenset[str]:
    """Names of the flags that this project's trainer has."""
    command = [sys.executable, str(REPOSITORY / 'cifar10_train.py'), '--help']
    listing = subprocess.run(
        command, env=child_environment('cpu'), capture_output=True, text=True
    ).stdout
    return frozenset(re.findall(r'^ +--(?:\[no\])?(\w+)', listing, re.MULTILINE))


def _project_command(request: Request) -> list[str]:
    """This project's trainer.

    Raises:
      NotRun: checkpoints can't come as often as was asked for.
    """
    flags = project_flags()
    if 'save_checkpoint_steps' in flags:
        saving = f'--save_checkpoint_steps={request.save_steps}'
    elif request.save_steps == SAVE_STEPS:
        saving = '--save_checkpoint_secs=1'
    else:
        raise NotRun('needs --save_checkpoint_steps')
    return [
        sys.executable,
        str(REPOSITORY / 'cifar10_train.py'),
        *_common_options(request),
        '--dataset=synthetic',
        '--log_frequency=1',
        '--seed=0',
        saving,
        *(['--deterministic'] if 'deterministic' in flags else []),
    ]


def _peer_command(module: str, *options: str) -> Callable[[Request], list[str]]:
    def command(request: Request) -> list[str]:
        return [
            sys.executable,
            '-m',
            f'benchmarks.peers.{module}',
            *_common_options(request),
            f'--save_checkpoint_steps={request.save_steps}',
            *options,
        ]

    return command


PROGRAMS = {
    'project': Program('this project', _project_command, Checkpoints(), num_silent_steps=1),
    'session': Program(
        'MonitoredTrainingSession', _peer_command('monitored_session_train'), Checkpoints()
    ),
    'keras': Program(
        'Keras BackupAndRestore', _peer_command('backup_and_restore_train'), KerasBackup()
    ),
    'tutorial': Program(
        "the tutorial's trainer",
        _peer_command('monitored_session_train', '--start_over', '--stop_on_nan'),
        Checkpoints(),
    ),
    'keras_double': Program(
        'Keras BackupAndRestore(double_checkpoint=True)',
        _peer_command('backup_and_restore_train', '--double_checkpoint'),
        KerasBackup(),
    ),
}
DEFAULT_PROGRAMS = ('project', 'session', 'keras', 'tutorial')
