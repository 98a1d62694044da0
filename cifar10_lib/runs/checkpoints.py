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
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from google.protobuf import text_format

from cifar10_input import NUM_CLASSES
from cifar10_lib.base.errors import UserError, error_message
from cifar10_lib.base.files import matching, replace_text, sync, utf8_name
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

# What TensorFlow's globbing takes for a pattern, and bytes that are not UTF-8.
_PATTERN = re.compile(r'[*?[\ud800-\udfff]' if os.name == 'nt' else r'[*?[\\\ud800-\udfff]')

# Of the names of a checkpoint's files, what follows its own.
_FILE_ENDING = re.compile(r'(\.index|\.meta|\.data-\d+-of-\d+)?$')


# The variables of Adam that count its steps; those of a second one end with a number.
_ADAM_POWER = re.compile(r'(beta[12]_power)_\d+$')

# Begins the names of the averages of the losses, one vector of all terms.
_LOSS_AVERAGES = 'losses/avg'


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


class Checkpoint:
    """A complete checkpoint, read into memory: whatever happens to its files then does no harm."""

    def __init__(self, path: str, values: dict[str, np.ndarray], modified: int) -> None:
        """
        Args:
          path: what the names of its files begin with.
          values: of all variables, by name.
          modified: when it was written, in nanoseconds.
        """
        self.path = path
        self.values = values
        self.modified = modified

    def __str__(self) -> str:
        return self.path

    @property
    def step(self) -> int:
        """Its global_step, or the number that its name ends with.

        Raises:
          UserError: it has neither.
        """
        if 'global_step' in self.values:
            return int(self.values['global_step'])
        step = _number(self.path)
        if step < 0:
            raise UserError(f'{self}: holds no global_step, and its name ends with no number')
        return step

    @property
    def num_classes(self) -> int:
        """Size of its last layer; ten, as in CIFAR-10, without softmax_linear/weights."""
        weights = self.weight('softmax_linear/weights')
        return NUM_CLASSES if weights is None else weights.shape[-1]

    @property
    def holds_averages(self) -> bool:
        """Whether it holds moving averages of weights."""
        return any(name.endswith(AVERAGE_SUFFIX) for name in self.values)

    def weight(self, name: str) -> np.ndarray | None:
        """The moving average of a weight; itself where it has none, and None without either."""
        return self.values.get(name + AVERAGE_SUFFIX, self.values.get(name))

    def check_shapes(self, variables: dict[str, tf.Variable]) -> None:
        """Checks that the checkpoint fits the graph.

        Args:
          variables: by their names in the checkpoint.

        Raises:
          UserError: variables are missing or of another shape; lists them all.
        """
        problems = []
        for name, variable in sorted(variables.items()):
            expected = variable.shape.as_list()
            if name not in self.values:
                problems.append(f'{name}: missing, expected {expected}')
            elif (found := list(self.values[name].shape)) != expected:
                problems.append(f'{name}: found {found}, expected {expected}')
        if problems:
            raise UserError(f'{self}: not of this network: ' + '; '.join(problems))


def open_checkpoint(path: str) -> Checkpoint:
    """A complete checkpoint.

    Raises:
      DamagedError: the checkpoint is missing, or a part of it can't be read.
    """
    if not exists(path):
        raise DamagedError(f'{path}: missing')
    try:
        modified = os.stat(_files(path)[-1]).st_mtime_ns
        with _literal_name(path) as literal:
            reader = tf.train.load_checkpoint(literal)
            # Reading is what compares lengths and checksums.
            names = reader.get_variable_to_shape_map()
            values = {name: reader.get_tensor(name) for name in names}
        return Checkpoint(path, values, modified)
    except (*_DAMAGE, OSError) as error:
        raise DamagedError(f'{path}: not a readable checkpoint: {error_message(error)}') from error


def exists(path: str) -> bool:
    """Whether a checkpoint is there: its index, or of the tutorial's oldest ones the one file."""
    return os.path.isfile(f'{path}.index') or os.path.isfile(path)


def find_named(name: str, folder: str, flag: str = '--checkpoint') -> str:
    """Path of the checkpoint that a user names.

    Args:
      name: path of a checkpoint or of one of its files; or, without a folder, in `folder`.
      folder: of the run.
      flag: names the checkpoint in the error message.

    Raises:
      UserError: there is no such checkpoint; names those that are there.
    """
    path = name if os.path.dirname(name) else os.path.join(folder, name)
    path = _FILE_ENDING.sub('', path)
    if exists(path):
        return path
    found = CheckpointFolder(os.path.dirname(path)).names()
    raise UserError(
        f'{flag}={name}: missing; {os.path.dirname(path)} holds '
        f'{", ".join(found) or "no checkpoint"}'
    )


@contextlib.contextmanager
def _literal_name(path: str) -> Iterator[str]:
    """A name of a checkpoint that TensorFlow takes for this one alone, until the end of `with`.

    TensorFlow takes a checkpoint's name for a pattern wherever it reads one, so that `st*r` is
    also `star`, and `[1]` is never itself; and it knows no names that aren't UTF-8. Such a
    checkpoint is read through links of plain names.
    """
    if not _PATTERN.search(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        name = os.path.join(folder, PREFIX)
        for file in _files(path):
            os.symlink(os.path.abspath(file), name + file.removeprefix(path))
        yield name


def find_start(folder: CheckpointFolder) -> Start:
    """The newest complete checkpoint in `folder` and its counters; zeros without a checkpoint.

    A checkpoint of the tutorial counts no examples: it is taken to have been
    trained with the tutorial's batch of 128.

    Raises:
      UserError: there are checkpoints, and none is complete.
    """
    newest = folder.newest()
    if newest is None:
        return Start(None, 0, 0)
    examples = newest.values.get('examples_seen', newest.step * BATCH_SIZE)
    return Start(newest.path, newest.step, int(examples))


def weights_by_name() -> dict[str, tf.Variable]:
    """The current graph's variables that decide the logits, by their names in a checkpoint.

    These are the trainable variables and the moving statistics of batch normalisation.
    """
    variables = [*tf.trainable_variables(), *tf.get_collection(tf.GraphKeys.MODEL_VARIABLES)]
    return {variable.op.name: variable for variable in variables}


def first_values(checkpoint: Checkpoint) -> list[tuple[tf.Variable, np.ndarray]]:
    """The values from which the current graph's variables resume.

    The counters are left as they are: `find_start` has read them. Missing averages, and missing
    slow weights of lookahead, start from the weights; any other missing state, such as the loss
    averages, from its ordinary initial value.

    Raises:
      UserError: weights are missing, or a variable has another shape; names them all.
    """
    found = values_of_variables(checkpoint.values)
    checkpoint.check_shapes(weights_by_name())
    checkpoint.check_shapes({v.op.name: v for v, _ in found if v.op.name in checkpoint.values})
    return found


def values_of_variables(values: Mapping[str, np.ndarray]) -> list[tuple[tf.Variable, np.ndarray]]:
    """The current graph's variables that `values` names, the counters left out.

    Averages and slow weights without a value of their own have that of the weight. Adam's powers,
    which each of its optimisers has, are those of the first. The averages of the losses begin anew
    where there are more terms now, or fewer, as a flag of weight decay makes them.
    """
    found = []
    for variable in tf.global_variables():
        name = variable.op.name
        if name not in values:
            name = name.removesuffix(AVERAGE_SUFFIX).removesuffix(LOOKAHEAD_SUFFIX)
            name = _ADAM_POWER.sub(r'\1', name)
        if name in ('global_step', 'examples_seen') or name not in values:
            continue
        fits = list(values[name].shape) == variable.shape.as_list()
        if fits or not name.startswith(_LOSS_AVERAGES):
            found.append((variable, values[name]))
    return found


def assign(session: tf.Session, values: Iterable[tuple[tf.Variable, np.ndarray]]) -> None:
    """Gives variables their values, in a graph that may be finalized.

    Not by TensorFlow's own operation, which takes the name of a checkpoint for a pattern.
    """
    for variable, value in values:
        session.run(variable.initializer, {variable.initializer.inputs[1]: value})


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
        """Path of `newest`."""
        newest = self.newest()
        return newest.path if newest else None

    def newest(self) -> Checkpoint | None:
        """The newest complete checkpoint; None where there are no checkpoints.

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
        for path in self._newest_first(named):
            try:
                checkpoint = open_checkpoint(path)
            except DamagedError as error:
                if named and self._named()[-1:] != named[-1:]:
                    # A trainer has added a checkpoint, and removed this one, in the meantime.
                    return self.newest()
                self._damaged.add(path)
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

    def require_newest(self, flag: str) -> Checkpoint:
        """The newest complete checkpoint.

        Args:
          flag: names the folder in the error message.

        Raises:
          UserError: there is no complete checkpoint.
        """
        newest = self.newest()
        if newest is None:
            raise UserError(
                f'{flag}={self.directory}: found no checkpoint; train first, for example with '
                'python cifar10_train.py'
            )
        return newest

    def names(self) -> list[str]:
        """Names of all checkpoints, complete or not, in the order of their steps."""
        return [os.path.basename(path) for path in reversed(self._newest_first([]))]

    def _newest_first(self, named: list[str]) -> list[str]:
        """Paths of the checkpoint named as the newest, then of all that exist."""
        found = {path.removesuffix('.index') for path in matching(self.directory, '*.index')}
        # The tutorial's oldest checkpoints are one file without a suffix.
        found.update(
            path
            for path in matching(self.directory, f'{PREFIX}-*')
            if re.fullmatch(rf'{PREFIX}-\d+', os.path.basename(path))
        )
        found.update(path for path in named if exists(path))
        return [*named[-1:], *sorted(found - {*named[-1:]}, key=_number, reverse=True)]

    def _named(self) -> list[str]:
        """Paths that the state file names, the newest last.

        Raises:
          DamagedError: the state file can't be read.
        """
        path = os.path.join(self.directory, STATE_FILE)
        state = type(tf.train.generate_checkpoint_state_proto(os.sep, PREFIX))()
        try:
            with open(path, encoding='utf-8') as file:
                text_format.Parse(file.read(), state)
        except FileNotFoundError:
            return []
        except (OSError, ValueError, text_format.ParseError):
            state.Clear()
        newest = state.model_checkpoint_path
        if not newest:
            raise DamagedError(f'{path}: does not name checkpoints, as it should')
        older = [name for name in state.all_model_checkpoint_paths if name != newest]
        return [os.path.join(self.directory, name) for name in (*older, newest)]

    def save(self, saver: tf.train.Saver, session: tf.Session, step: int) -> str:
        """Adds a checkpoint of the session's variables.

        Returns:
          Its path.

        Raises:
          UserError: it can't be written; earlier checkpoints are complete.
        """
        return self._add(
            f'{PREFIX}-{step}',
            lambda unfinished: saver.save(session, utf8_name(unfinished), write_state=False),
        )

    def add_copy(self, checkpoint: Checkpoint) -> str:
        """Adds a copy of a checkpoint, whose own files may be gone.

        Returns:
          Its path.

        Raises:
          UserError: it can't be written; earlier checkpoints are complete.
        """

        def write(unfinished: str) -> None:
            with tf.Graph().as_default(), tf.Session() as session:
                names, values = zip(*checkpoint.values.items(), strict=True)
                prefix, slices = utf8_name(unfinished), [''] * len(names)
                session.run(
                    tf.raw_ops.SaveV2(
                        prefix=prefix,
                        tensor_names=list(names),
                        shape_and_slices=slices,
                        tensors=list(values),
                    )
                )

        return self._add(os.path.basename(checkpoint.path), write)

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
        # The index comes last: it makes the files a checkpoint.
        for file in files:
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
            _remove(path)

    def _write_state(self, checkpoints: list[str]) -> None:
        """Names checkpoints of this folder in the state file, the newest last."""
        names = [os.path.basename(path) for path in checkpoints]
        # Names stay as they are in an absolute folder; one of `.` asks for the working directory.
        state = tf.train.generate_checkpoint_state_proto(os.sep, names[-1], names)
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
            and exists(checkpoint)
        )


def _files(checkpoint: str) -> list[str]:
    """Paths of the files that make up a checkpoint, its index last."""
    folder, name = os.path.split(checkpoint)
    endings = [
        file.removeprefix(name)
        for file in os.listdir(folder or os.curdir)
        if file.startswith(name) and _FILE_ENDING.match(file, len(name))
    ]
    return [checkpoint + ending for ending in sorted(endings, key=lambda end: end == '.index')]


def _remove(checkpoint: str) -> None:
    """Removes a checkpoint's files; the index first, without which they are none."""
    for file in reversed(_files(checkpoint)):
        with contextlib.suppress(FileNotFoundError):
            os.remove(file)


def _number(checkpoint: str) -> int:
    """The step that the checkpoint's name ends with; -1 where it ends with none."""
    number = re.search(r'-(\d+)$', checkpoint)
    return int(number[1]) if number else -1
