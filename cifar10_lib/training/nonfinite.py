"""Which tensor went bad first?

A step whose loss or gradients are not finite fails before it changes a weight. The
weights that it began with are still there, and its batch is a pure function of the files,
the seed and the position: so the step can be taken again, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

import cifar10

# Tensors fetched together: enough to take few turns, few enough to fit in memory.
_TENSORS_AT_ONCE = 20


class Training(NamedTuple):
    """The parts of a training graph that a run takes hold of."""

    images: tf.Tensor
    """float32 [batch, height, width, depth]; the batch of all towers."""
    labels: tf.Tensor
    """int32 [batch]."""
    total_loss: tf.Tensor
    """float32 [], of that batch."""
    gradients: cifar10.GradientsAndVariables
    """Of that loss."""
    examples_seen: tf.Variable
    """int64 [], the batch's position in the stream, until the step is taken."""
    train_op: tf.Operation
    """Takes one step."""


class NotFinite(NamedTuple):
    """A tensor with values that are not finite."""

    name: str
    num_nan: int
    num_infinite: int
    size: int

    def in_words(self) -> str:
        return (
            f'{self.name}: of {self.size:,} values {self.num_nan:,} are NaN and '
            f'{self.num_infinite:,} infinite'
        )


def first_not_finite(
    session: tf.Session, training: Training, images: np.ndarray, labels: np.ndarray
) -> NotFinite | None:
    """The first tensor on the way from the weights to the gradients that is not finite.

    Args:
      session: holds the weights that the step began with.
      training: the graph's parts.
      images, labels: the step's batch, as `training.images` and `.labels` give it.

    Returns:
      It, weights first, then in the order in which the graph computes; None where all are
      finite.
    """
    batch = {training.images: images, training.labels: labels}
    return first_not_finite_variable(session) or _first_of(session, _computed(training), batch)


def first_not_finite_variable(session: tf.Session) -> NotFinite | None:
    """The first floating-point variable that is not finite; None where all are finite."""
    return _first_of(session, [v for v in tf.global_variables() if v.dtype.is_floating], {})


def _first_of(
    session: tf.Session, tensors: Sequence[tf.Tensor | tf.Variable], feed: dict
) -> NotFinite | None:
    for begin in range(0, len(tensors), _TENSORS_AT_ONCE):
        some = tensors[begin : begin + _TENSORS_AT_ONCE]
        for tensor, values in zip(some, session.run(some, feed), strict=True):
            num_nan, num_infinite = np.isnan(values).sum(), np.isinf(values).sum()
            if num_nan or num_infinite:
                return NotFinite(tensor.op.name, int(num_nan), int(num_infinite), values.size)
    return None


def _computed(training: Training) -> list[tf.Tensor]:
    """What a step computes of its batch, floating-point, in the order of computation."""
    seen = {training.images.op, training.labels.op}
    waiting = [training.total_loss.op, *(gradient.op for gradient, _ in training.gradients)]
    while waiting:
        op = waiting.pop()
        if op not in seen:
            seen.add(op)
            waiting.extend(tensor.op for tensor in op.inputs)
    # An operation is made after those that it needs.
    return [
        tensor
        for op in training.total_loss.graph.get_operations()
        if op in seen
        for tensor in op.outputs
        if tensor.dtype.is_floating
    ]
