"""What does a checkpoint hold, and how does it become the graph's values?

Every script opens every other's checkpoints, and the tutorial's own of 2015 to
2019: their weights go by the same names, their global_step may be missing, int32
or float32, and they have no examples_seen.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import tensorflow.compat.v1 as tf

import cifar10
from cifar10_settings import UserError

_AVERAGE_SUFFIX = '/ExponentialMovingAverage'


class Start(NamedTuple):
    """Where a run begins."""

    checkpoint: str | None
    """Path of the checkpoint to go on from, or None."""
    step: int
    """global_step: number of updates so far."""
    examples: int
    """examples_seen: number of training examples so far."""


def open_checkpoint(checkpoint: str) -> tf.train.NewCheckpointReader:
    """A reader of the checkpoint, which is whole.

    Raises:
      UserError: it can't be read, or a part of it is damaged.
    """
    try:
        reader = tf.train.load_checkpoint(checkpoint)
        # Reading is what compares lengths and checksums.
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except (tf.errors.OpError, ValueError, IndexError, RuntimeError) as error:
        reason = str(error).partition('\n')[0]
        raise UserError(f'{checkpoint}: not a readable checkpoint: {reason}') from error
    return reader


def step_of(checkpoint: str) -> int:
    """The checkpoint's global_step, or the number that its name ends with.

    Raises:
      UserError: it has neither.
    """
    reader = open_checkpoint(checkpoint)
    if reader.has_tensor('global_step'):
        return int(reader.get_tensor('global_step'))
    number = re.search(r'-(\d+)$', checkpoint)
    if number is None:
        raise UserError(f'{checkpoint}: holds no global_step, and its name ends with no number')
    return int(number[1])


def find_start(train_dir: str) -> Start:
    """The newest checkpoint in `train_dir` and its counters; zeros where there is none.

    A checkpoint of the tutorial counts no examples: it is taken to have been
    trained with the tutorial's batch of 128.

    Raises:
      UserError: the newest checkpoint can't be read.
    """
    checkpoint = tf.train.latest_checkpoint(train_dir)
    if checkpoint is None:
        return Start(None, 0, 0)
    step = step_of(checkpoint)
    reader = open_checkpoint(checkpoint)
    if reader.has_tensor('examples_seen'):
        return Start(checkpoint, step, int(reader.get_tensor('examples_seen')))
    return Start(checkpoint, step, step * cifar10.BATCH_SIZE)


def weights_by_name() -> dict[str, tf.Variable]:
    """The graph's trainable variables by their names in a checkpoint."""
    return {variable.op.name: variable for variable in tf.trainable_variables()}


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
            name = name.removesuffix(_AVERAGE_SUFFIX)
        if name not in counters and reader.has_tensor(name):
            tf.train.init_from_checkpoint(checkpoint, {name: variable})


def holds_averages(checkpoint: str) -> bool:
    """Whether the checkpoint holds moving averages of weights.

    Raises:
      UserError: it can't be read.
    """
    names = open_checkpoint(checkpoint).get_variable_to_shape_map()
    return any(name.endswith(_AVERAGE_SUFFIX) for name in names)


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
