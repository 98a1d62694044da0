"""Checkpoints: their content, and the folder in which a run keeps them.

Every script opens every other's checkpoints, and the tutorial's own of 2015 to 2019: their
weights have the same names, their global_step may be missing, int32 or float32, and they
have no examples_seen.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Callable
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from cifar10_input import NUM_CLASSES
from cifar10_lib.base.errors import UserError, error_message
from cifar10_lib.base.files import matching, replace_text, sync
from cifar10_lib.nn.optimizers import LOOKAHEAD_SUFFIX
from cifar10_lib.nn.recipes import BATCH_SIZE

# Begins the names of every checkpoint's files, and is followed by the step.
PREFIX = 'model.ckpt'

# Names the kept checkpoints and the newest of them, as TensorFlow's savers do.
STATE_FILE = 'checkpoint'

# Inside a folder of checkpoints: where one is written until it is complete.
UNFINISHED = 'unfinished'

# What TensorFlow raises for damaged checkpoints. It runs out of memory where a length is
# damaged.
_DAMAGE = (tf.errors.OpError, ValueError, IndexError, RuntimeError, MemoryError)

AVERAGE_SUFFIX = '/ExponentialMovingAverage'


class Start(NamedTuple):
    """Where a run begins."""

    checkpoint: str | None
    """Path of the checkpoint to resume from, or None."""
    step: int
    """global_step: number of updates so far."""
    examples: int
    """examples_seen: number of training examples so far."""


class DamagedError(UserError):
    """A checkpoint is missing, or a part of it can't be read."""


def open_checkpoint(checkpoint: str) -> tf.train.NewCheckpointReader:
    """A reader of a complete checkpoint.

    Raises:
      DamagedError: the checkpoint is missing, or a part of it can't be read.
    """
    if not tf.train.checkpoint_exists(checkpoint):
        raise DamagedError(f'{checkpoint}: missing')
    try:
        reader = tf.train.load_checkpoint(checkpoint)
        # Reading is what compares lengths and checksums.
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except _DAMAGE as error:
        raise DamagedError(
            f'{checkpoint}: not a readable checkpoint: {error_message(error)}'
        ) from error
    return reader


def is_complete(checkpoint: str) -> bool:
    """Whether the checkpoint exists and every part of it can be read."""
    try:
        open_checkpoint(checkpoint)
    except DamagedError:
        return False
    return True


def read_step(checkpoint: str) -> int:
    """The checkpoint's global_step, or the number that its name ends with.

    Raises:
      UserError: it has neither, or can't be read.
    """
    reader = open_checkpoint(checkpoint)
    if reader.has_tensor('global_step'):
        return int(reader.get_tensor('global_step'))
    step = _number(checkpoint)
    if step < 0:
        raise UserError(f'{checkpoint}: holds no global_step, and its name ends with no number')
    return step


def read_num_classes(checkpoint: str) -> int:
    """Size of the checkpoint's last layer; ten, as in CIFAR-10, without softmax_linear/weights.

    Raises:
      UserError: the checkpoint can't be read.
    """
    shapes = open_checkpoint(checkpoint).get_variable_to_shape_map()
    return (shapes.get('softmax_linear/weights') or [NUM_CLASSES])[-1]


def find_start(folder: CheckpointFolder) -> Start:
    """The newest complete checkpoint in `folder` and its counters; zeros without a checkpoint.

    A checkpoint of the tutorial counts no examples: it is taken to have been
    trained with the tutorial's batch of 128.

    Raises:
      UserError: there are checkpoints, and none is complete.
    """
    checkpoint = folder.newest_complete()
    if checkpoint is None:
        return Start(None, 0, 0)
    step, reader = read_step(checkpoint), open_checkpoint(checkpoint)
    if reader.has_tensor('examples_seen'):
        return Start(checkpoint, step, int(reader.get_tensor('examples_seen')))
    return Start(checkpoint, step, step * BATCH_SIZE)


def weights_by_name() -> dict[str, tf.Variable]:
    """The current graph's variables that decide the logits, by their names in a checkpoint.

    These are the trainable variables and the moving statistics of batch normalisation.
    """
    variables = [*tf.trainable_variables(), *tf.get_collection(tf.GraphKeys.MODEL_VARIABLES)]
    return {variable.op.name: variable for variable in variables}


def initialize_from(checkpoint: str) -> None:
    """Makes the checkpoint's values the initial values of the current graph's variables.

    The counters are left as they are: `find_start` has read them. Missing averages, and missing
    slow weights of lookahead, start from the weights; any other missing state, such as the loss
    averages, from its ordinary initial value.

    Raises:
      UserError: weights are missing or have another shape; names them all.
    """
    check_shapes(checkpoint, weights_by_name())
    reader = open_checkpoint(checkpoint)
    counters = ('global_step', 'examples_seen')
    for variable in tf.global_variables():
        name = variable.op.name
        if not reader.has_tensor(name):
            name = name.removesuffix(AVERAGE_SUFFIX).removesuffix(LOOKAHEAD_SUFFIX)
        if name not in counters and reader.has_tensor(name):
            tf.train.init_from_checkpoint(checkpoint, {name: variable})


def holds_averages(checkpoint: str) -> bool:
    """Whether the checkpoint holds moving averages of weights.

    Raises:
      UserError: the checkpoint can't be read.
    """
    names = open_checkpoint(checkpoint).get_variable_to_shape_map()
    return any(name.endswith(AVERAGE_SUFFIX) for name in names)


def check_shapes(checkpoint: str, variables: dict[str, tf.Variable]) -> None:
    """Checks that the checkpoint fits the graph.

    Args:
      checkpoint: its path.
      variables: by their names in the checkpoint.

    Raises:
      UserError: the checkpoint can't be read, or variables are missing or of another shape;
        lists them all.
    """
    found = open_checkpoint(checkpoint).get_variable_to_shape_map()
    problems = []
    for name, variable in sorted(variables.items()):
        expected = variable.shape.as_list()
        if name not in found:
            problems.append(f'{name}: missing, expected {expected}')
        elif found[name] != expected:
            problems.append(f'{name}: found {found[name]}, expected {expected}')
    if problems:
        raise UserError(f'{checkpoint}: not of this network: ' + '; '.join(problems))


class CheckpointFolder:
    """A folder of checkpoints: finds the newest complete one, adds one, removes the oldest.

    A checkpoint is written into a folder of its own and flushed to disk. Its files are then
    moved, the index last; then the state file names it; then older checkpoints are removed.
    So a crash at any moment leaves the previous checkpoint complete and named.
    """

    def __init__(self, directory: str, max_to_keep: int = 0) -> None:
        """
        Args:
          directory: holds the checkpoints.
          max_to_keep: how many checkpoints stay when one is added; 0: all.
        """
        self.directory = directory
        self._max_to_keep = max_to_keep
        self._damaged: set[str] = set()
        self._reported: set[str] = set()

    def newest_complete(self) -> str | None:
        """Path of the newest complete checkpoint; None where there are no checkpoints.

        That is the checkpoint that the state file names, unless it is damaged or missing:
        then that of the highest step. Prints, once, what is wrong with each skipped one.

        Raises:
          UserError: there are or were checkpoints, and none is complete.
        """
        named: list[str] = []
        problems = []
        try:
            named = self._named()
        except DamagedError as error:
            problems.append(str(error))
        for checkpoint in self._newest_first(named):
            try:
                open_checkpoint(checkpoint)
            except DamagedError as error:
                if named and self._named()[-1:] != named[-1:]:
                    # A trainer has added a checkpoint, and removed this one, in the meantime.
                    return self.newest_complete()
                self._damaged.add(checkpoint)
                problems.append(str(error))
                continue
            for problem in problems:
                if problem not in self._reported:
                    print(f'Warning: {problem}; falling back to {checkpoint}', file=sys.stderr)
            self._reported.update(problems)
            return checkpoint
        if problems:
            raise UserError(
                f'{self.directory} holds no complete checkpoint, and nothing was deleted: '
                + '; '.join(problems)
            )
        return None

    def require_newest(self, flag: str) -> str:
        """Path of the newest complete checkpoint.

        Args:
          flag: names the folder in the error message.

        Raises:
          UserError: there is no complete checkpoint.
        """
        newest = self.newest_complete()
        if newest is None:
            raise UserError(
                f'{flag}={self.directory}: found no checkpoint; train first, for example with '
                'python cifar10_train.py'
            )
        return newest

    def _newest_first(self, named: list[str]) -> list[str]:
        """Paths of the checkpoint named as the newest, then of all that exist."""
        found = {path.removesuffix('.index') for path in matching(self.directory, '*.index')}
        # The tutorial's oldest checkpoints are one file without a suffix.
        found.update(
            path
            for path in matching(self.directory, f'{PREFIX}-*')
            if re.fullmatch(rf'{PREFIX}-\d+', os.path.basename(path))
        )
        found.update(path for path in named if tf.train.checkpoint_exists(path))
        return [*named[-1:], *sorted(found - {*named[-1:]}, key=_number, reverse=True)]

    def _named(self) -> list[str]:
        """Paths that the state file names, the newest last.

        Raises:
          DamagedError: the state file can't be read.
        """
        path = os.path.join(self.directory, STATE_FILE)
        if not os.path.lexists(path):
            return []
        try:
            state = tf.train.get_checkpoint_state(self.directory)
        except (ValueError, tf.errors.OpError):  # It is empty, or not UTF-8.
            state = None
        if state is None:
            raise DamagedError(f'{path}: does not name checkpoints, as it should')
        older = [p for p in state.all_model_checkpoint_paths if p != state.model_checkpoint_path]
        return [*older, state.model_checkpoint_path]

    def save(self, saver: tf.train.Saver, session: tf.Session, step: int) -> str:
        """Adds a checkpoint of the session's variables.

        Returns:
          Its path.

        Raises:
          UserError: it can't be written; earlier checkpoints are complete.
        """
        return self._add(
            f'{PREFIX}-{step}',
            lambda unfinished: saver.save(session, unfinished, write_state=False),
        )

    def add_copy(self, checkpoint: str) -> str:
        """Adds a copy of a checkpoint of another folder.

        Returns:
          Its path.

        Raises:
          UserError: it can't be written, or the original was removed; earlier checkpoints are
            complete.
        """

        def copy(unfinished: str) -> None:
            for file in _files(checkpoint):
                shutil.copyfile(file, unfinished + file.removeprefix(checkpoint))
            open_checkpoint(unfinished)

        return self._add(os.path.basename(checkpoint), copy)

    def _add(self, name: str, write: Callable[[str], object]) -> str:
        folder = os.path.join(self.directory, UNFINISHED)
        try:
            self.remove_unfinished()
            # Without its parents: where the folder has vanished, that is an error.
            os.mkdir(folder)
            write(os.path.join(folder, name))
            checkpoint = self._move(os.path.join(folder, name))
            self._record(checkpoint)
        except (OSError, ValueError, tf.errors.OpError) as error:
            path = os.path.join(self.directory, name)
            raise UserError(f'{path}: cannot be written: {error_message(error)}') from error
        finally:
            with contextlib.suppress(OSError):
                self.remove_unfinished()
        return checkpoint

    def remove_unfinished(self) -> None:
        """Removes what an interrupted save has left, never a complete checkpoint.

        Raises:
          OSError: it can't be removed.
        """
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(os.path.join(self.directory, UNFINISHED))

    def _move(self, unfinished: str) -> str:
        """Moves a written checkpoint into the folder; its new path."""
        checkpoint = os.path.join(self.directory, os.path.basename(unfinished))
        files = _files(unfinished)
        sync(*files)
        # The index last: it makes the files a checkpoint.
        for file in sorted(files, key=lambda file: file.endswith('.index')):
            os.replace(file, checkpoint + file.removeprefix(unfinished))
        sync(self.directory)
        return checkpoint

    def _record(self, newest: str) -> None:
        """Names a new checkpoint in the state file, then removes the oldest ones.

        Damaged checkpoints are no longer named and so never removed.
        """
        try:
            named = self._named()
        except DamagedError:
            named = self._newest_first([])[::-1]
        kept = [path for path in named if path != newest and self._may_remove(path)] + [newest]
        removed = kept[: -self._max_to_keep] if self._max_to_keep else []
        self._write_state(kept[len(removed) :])
        for path in removed:
            tf.train.remove_checkpoint(path)

    def _write_state(self, checkpoints: list[str]) -> None:
        """Names checkpoints of this folder in the state file, the newest last."""
        names = [os.path.basename(path) for path in checkpoints]
        state = tf.train.generate_checkpoint_state_proto('.', names[-1], names)
        replace_text(os.path.join(self.directory, STATE_FILE), str(state))

    def pass_over(self, checkpoint: str) -> None:
        """Removes a checkpoint from the state file, unless it is the only one; its files stay.

        Raises:
          OSError: the state file can't be written.
        """
        others = [path for path in self._named() if path != checkpoint and self._may_remove(path)]
        if others:
            self._write_state(others)

    def _may_remove(self, checkpoint: str) -> bool:
        """Whether the checkpoint is in this folder, and complete as far as is known."""
        here = os.path.abspath(self.directory)
        return (
            os.path.dirname(os.path.abspath(checkpoint)) == here
            and checkpoint not in self._damaged
            and tf.train.checkpoint_exists(checkpoint)
        )


def _files(checkpoint: str) -> list[str]:
    """Paths of the files that make up a checkpoint."""
    folder, name = os.path.split(checkpoint)
    return [
        path
        for path in matching(folder, f'{name}*')
        if path == checkpoint or path.startswith(f'{checkpoint}.')
    ]


def _number(checkpoint: str) -> int:
    """The step that the checkpoint's name ends with; -1 where it ends with none."""
    number = re.search(r'-(\d+)$', checkpoint)
    return int(number[1]) if number else -1
