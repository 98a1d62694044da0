"""What does a checkpoint hold, and how does it become the graph's values?

Every script opens every other's checkpoints, and the tutorial's own of 2015 to
2019: their weights go by the same names, their global_step may be missing, int32
or float32, and they have no examples_seen.
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

import cifar10
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.files import matching, replace_text, sync

# Of every checkpoint's files, followed by the step.
PREFIX = 'model.ckpt'

# Names the newest checkpoint and those that are kept, as TensorFlow's savers do.
STATE_FILE = 'checkpoint'

# Inside a folder of checkpoints: where one is written until it is whole.
UNFINISHED = 'unfinished'

# What TensorFlow raises for damaged checkpoints. It runs out of memory where a length is
# damaged.
_DAMAGE = (tf.errors.OpError, ValueError, IndexError, RuntimeError, MemoryError)

AVERAGE_SUFFIX = '/ExponentialMovingAverage'


class Start(NamedTuple):
    """Where a run begins."""

    checkpoint: str | None
    """Path of the checkpoint to go on from, or None."""
    step: int
    """global_step: number of updates so far."""
    examples: int
    """examples_seen: number of training examples so far."""


def reason_of(error: Exception) -> str:
    """What went wrong, in one line, without the part of the graph in which it did."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    message = error.message if isinstance(error, tf.errors.OpError) else str(error)
    of_node = re.search(r"^Node: '.*'\n(.+)", message, re.MULTILINE)
    return of_node[1] if of_node else message.partition('\n')[0]


class DamagedError(UserError):
    """A checkpoint that can't be read, or of which a part can't."""


def open_checkpoint(checkpoint: str) -> tf.train.NewCheckpointReader:
    """A reader of the checkpoint, which is whole.

    Raises:
      DamagedError: it can't be read, or a part of it is damaged.
    """
    if not tf.train.checkpoint_exists(checkpoint):
        raise DamagedError(f'{checkpoint}: missing')
    try:
        reader = tf.train.load_checkpoint(checkpoint)
        # Reading is what compares lengths and checksums.
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except _DAMAGE as error:
        reason = reason_of(error)
        raise DamagedError(f'{checkpoint}: not a readable checkpoint: {reason}') from error
    return reader


def is_whole(checkpoint: str) -> bool:
    """Whether the checkpoint is there and can be read, every part of it."""
    try:
        open_checkpoint(checkpoint)
    except DamagedError:
        return False
    return True


def step_of(checkpoint: str) -> int:
    """The checkpoint's global_step, or the number that its name ends with.

    Raises:
      UserError: it has neither.
    """
    return _step_in(open_checkpoint(checkpoint), checkpoint)


def _step_in(reader: tf.train.NewCheckpointReader, checkpoint: str) -> int:
    if reader.has_tensor('global_step'):
        return int(reader.get_tensor('global_step'))
    step = _number(checkpoint)
    if step < 0:
        raise UserError(f'{checkpoint}: holds no global_step, and its name ends with no number')
    return step


def find_start(folder: CheckpointFolder) -> Start:
    """The newest whole checkpoint in `folder` and its counters; zeros where there is none.

    A checkpoint of the tutorial counts no examples: it is taken to have been
    trained with the tutorial's batch of 128.

    Raises:
      UserError: there are checkpoints, and none is whole.
    """
    checkpoint = folder.newest_whole()
    if checkpoint is None:
        return Start(None, 0, 0)
    reader = open_checkpoint(checkpoint)
    step = _step_in(reader, checkpoint)
    if reader.has_tensor('examples_seen'):
        return Start(checkpoint, step, int(reader.get_tensor('examples_seen')))
    return Start(checkpoint, step, step * cifar10.BATCH_SIZE)


def weights_by_name() -> dict[str, tf.Variable]:
    """By their names in a checkpoint, the graph's variables that decide the logits.

    These are the trainable ones, and moving statistics of batches.
    """
    variables = [*tf.trainable_variables(), *tf.get_collection(tf.GraphKeys.MODEL_VARIABLES)]
    return {variable.op.name: variable for variable in variables}


def initialize_from(checkpoint: str) -> None:
    """Makes the checkpoint's values the initial ones of the graph's variables.

    The counters are left as they are: `find_start` has read them. An average
    that is missing starts from its weights, any other state that is missing
    (the loss averages) from its ordinary initial value.

    Raises:
      UserError: weights are missing or have another shape; names them all.
    """
    check_shapes(checkpoint, weights_by_name())
    reader = open_checkpoint(checkpoint)
    counters = ('global_step', 'examples_seen')
    for variable in tf.global_variables():
        name = variable.op.name
        if not reader.has_tensor(name):
            name = name.removesuffix(AVERAGE_SUFFIX)
        if name not in counters and reader.has_tensor(name):
            tf.train.init_from_checkpoint(checkpoint, {name: variable})


def holds_averages(checkpoint: str) -> bool:
    """Whether the checkpoint holds moving averages of weights.

    Raises:
      UserError: it can't be read.
    """
    names = open_checkpoint(checkpoint).get_variable_to_shape_map()
    return any(name.endswith(AVERAGE_SUFFIX) for name in names)


def check_shapes(checkpoint: str, variables: dict[str, tf.Variable]) -> None:
    """Makes sure that the checkpoint fits.

    Args:
      checkpoint: its path.
      variables: by the name that the checkpoint should have for each.

    Raises:
      UserError: it can't be read, or names are missing or of another shape; lists them all.
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
    """A folder of checkpoints: finds the newest whole one, adds one, drops the oldest.

    A checkpoint is written into a folder of its own and put on the disk; its files are then
    moved, the index last, and only then is it named in the state file, and only then are
    older ones dropped. So a crash at any moment leaves the one before whole and named.
    """

    def __init__(self, directory: str, max_to_keep: int = 0) -> None:
        """
        Args:
          directory: of the checkpoints.
          max_to_keep: how many of them stay when one is added; 0: all.
        """
        self.directory = directory
        self._max_to_keep = max_to_keep
        self._damaged: set[str] = set()
        self._reported: set[str] = set()

    def newest_whole(self) -> str | None:
        """Path of the newest whole checkpoint; None where there are none at all.

        That is the one that the state file names, unless it is damaged or missing: then the
        one of the highest step. Prints, once, what is wrong with each that is passed over.

        Raises:
          UserError: there are checkpoints, or there were, and none is whole.
        """
        problems = []
        try:
            named = self._named()
        except DamagedError as error:
            named = []
            problems.append(str(error))
        for checkpoint in self._newest_first(named):
            try:
                open_checkpoint(checkpoint)
            except DamagedError as error:
                if named and self._named()[-1:] != named[-1:]:
                    # A trainer has added one, and dropped this one, in the meantime.
                    return self.newest_whole()
                self._damaged.add(checkpoint)
                problems.append(str(error))
            else:
                self._report(problems, checkpoint)
                return checkpoint
        if problems:
            raise UserError(
                f'{self.directory} holds no whole checkpoint, and nothing was deleted: '
                + '; '.join(problems)
            )
        return None

    def _report(self, problems: list[str], fallback: str) -> None:
        for problem in problems:
            if problem not in self._reported:
                print(f'Warning: {problem}; falling back to {fallback}', file=sys.stderr)
                self._reported.add(problem)

    def _newest_first(self, named: list[str]) -> list[str]:
        """Paths of the checkpoint that is named as the newest, and of all that are there."""
        there = {path.removesuffix('.index') for path in matching(self.directory, '*.index')}
        # The tutorial's oldest checkpoints are one file without a suffix.
        there.update(
            path
            for path in matching(self.directory, f'{PREFIX}-*')
            if re.fullmatch(rf'{PREFIX}-\d+', os.path.basename(path))
        )
        there.update(path for path in named if tf.train.checkpoint_exists(path))
        return [*named[-1:], *sorted(there - {*named[-1:]}, key=_number, reverse=True)]

    def _named(self) -> list[str]:
        """Paths that the state file names, the newest last.

        Raises:
          DamagedError: it can't be read.
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
          UserError: it can't be written; those before are whole.
        """
        return self._add(
            f'{PREFIX}-{step}',
            lambda unfinished: saver.save(session, unfinished, write_state=False),
        )

    def add_copy(self, checkpoint: str) -> str:
        """Adds a copy of a checkpoint that lies elsewhere.

        Returns:
          Its path.

        Raises:
          UserError: it can't be written, or went away; those before are whole.
        """

        def copy(unfinished: str) -> None:
            for file in _files_of(checkpoint):
                shutil.copyfile(file, unfinished + file.removeprefix(checkpoint))
            open_checkpoint(unfinished)

        return self._add(os.path.basename(checkpoint), copy)

    def _add(self, name: str, write: Callable[[str], object]) -> str:
        folder = os.path.join(self.directory, UNFINISHED)
        try:
            self.remove_unfinished()
            # Not with its parents: where the folder has vanished, that is an error.
            os.mkdir(folder)
            write(os.path.join(folder, name))
            checkpoint = self._move(os.path.join(folder, name))
            self._record(checkpoint)
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise UserError(
                f'{os.path.join(self.directory, name)}: cannot be written: {reason_of(error)}'
            ) from error
        finally:
            with contextlib.suppress(OSError):
                self.remove_unfinished()
        return checkpoint

    def remove_unfinished(self) -> None:
        """Removes what an interrupted save has left: never a whole checkpoint.

        Raises:
          OSError: it can't be removed.
        """
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(os.path.join(self.directory, UNFINISHED))

    def _move(self, unfinished: str) -> str:
        """Moves a whole checkpoint to where it belongs; its new path."""
        checkpoint = os.path.join(self.directory, os.path.basename(unfinished))
        files = _files_of(unfinished)
        sync(*files)
        # What makes a checkpoint of these files comes last.
        for file in sorted(files, key=lambda file: file.endswith('.index')):
            os.replace(file, checkpoint + file.removeprefix(unfinished))
        sync(self.directory)
        return checkpoint

    def _record(self, newest: str) -> None:
        """Names a new checkpoint in the state file, then drops the oldest ones.

        Damaged ones are no longer named and so never dropped: they stay as they are.
        """
        try:
            named = self._named()
        except DamagedError:
            named = self._newest_first([])[::-1]
        kept = [path for path in named if path != newest and self._may_drop(path)] + [newest]
        dropped = kept[: -self._max_to_keep] if self._max_to_keep else []
        self._write_state(kept[len(dropped) :])
        for path in dropped:
            tf.train.remove_checkpoint(path)

    def _write_state(self, checkpoints: list[str]) -> None:
        """Names checkpoints of this folder in the state file, the newest last."""
        names = [os.path.basename(path) for path in checkpoints]
        state = tf.train.generate_checkpoint_state_proto('.', names[-1], names)
        replace_text(os.path.join(self.directory, STATE_FILE), str(state))

    def pass_over(self, checkpoint: str) -> None:
        """No longer names a checkpoint, which stays as it is; unless it is the only one.

        Raises:
          OSError: the state file can't be written.
        """
        others = [path for path in self._named() if path != checkpoint and self._may_drop(path)]
        if others:
            self._write_state(others)

    def _may_drop(self, checkpoint: str) -> bool:
        """Whether it is here, and whole as far as is known."""
        here = os.path.abspath(self.directory)
        return (
            os.path.dirname(os.path.abspath(checkpoint)) == here
            and checkpoint not in self._damaged
            and tf.train.checkpoint_exists(checkpoint)
        )


def _files_of(checkpoint: str) -> list[str]:
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
