"""Search for the first tensor of a failed step that is not finite.

A step whose loss or gradients are not finite fails before it changes a weight. The weights that
it began with are still there, and its batch is a pure function of the files, the seed and the
position: so the step can be computed again, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

# Tensors fetched together: enough for few session runs, few enough to fit in memory.
_TENSORS_AT_ONCE = 20


class NotFinite(NamedTuple):
    """A tensor with values that are not finite."""

    name: str
    num_nan: int
    num_infinite: int
    size: int

    def describe(self) -> str:
        return (
            f'{self.name}: of {self.size:,} values {self.num_nan:,} are NaN and '
            f'{self.num_infinite:,} infinite'
        )


def first_not_finite(
    session: tf.Session, batch: Mapping[tf.Tensor, np.ndarray]
) -> NotFinite | None:
    """The first tensor on the way from the weights to the gradients that is not finite.

    Args:
      session: holds the weights that the step began with.
      batch: the step's images and labels.

    Returns:
      The tensor, weights first, then in the order in which the graph computes; None where all
      are finite.
    """
    return first_not_finite_variable(session) or _first(session, _computed(batch), batch)


def first_not_finite_variable(session: tf.Session) -> NotFinite | None:
    """The first floating-point variable that is not finite; None where all are finite."""
    return _first(session, [v for v in tf.global_variables() if v.dtype.is_floating], {})


def _first(
    session: tf.Session,
    tensors: Sequence[tf.Tensor | tf.Variable],
    batch: Mapping[tf.Tensor, np.ndarray],
) -> NotFinite | None:
    for begin in range(0, len(tensors), _TENSORS_AT_ONCE):
        fetched = tensors[begin : begin + _TENSORS_AT_ONCE]
        for tensor, values in zip(fetched, session.run(fetched, batch), strict=True):
            num_nan, num_infinite = np.isnan(values).sum(), np.isinf(values).sum()
            if num_nan or num_infinite:
                return NotFinite(tensor.op.name, int(num_nan), int(num_infinite), values.size)
    return None


def _computed(batch: Mapping[tf.Tensor, np.ndarray]) -> list[tf.Tensor]:
    """The floating-point tensors that a step checks, and those that they are computed from.

    In the order of computation. Sums over towers or workers are left out, and all that follows
    from them: one member's sum waits for the others.
    """
    graph = tf.get_default_graph()
    given = {tensor.op for tensor in batch}
    needed: set[tf.Operation] = set()
    waiting = [op for op in graph.get_operations() if op.type == 'CheckNumerics']
    while waiting:
        inputs = {tensor.op for tensor in waiting.pop().inputs} - needed - given
        needed |= inputs
        waiting.extend(inputs)
    computed: list[tf.Tensor] = []
    # Operations that depend on the batch or on variables: TensorFlow itself has constants of NaN.
    varying = set(given)
    left_out: set[tf.Operation] = set()
    # An operation is made after those that it needs.
    for op in graph.get_operations():
        inputs = {tensor.op for tensor in op.inputs}
        if op.type == 'VarHandleOp' or inputs & varying:
            varying.add(op)
        waits = op.type in ('CollectiveReduceV2', 'Placeholder') and op not in given
        if waits or inputs & left_out:
            left_out.add(op)
        elif op in needed and op in varying:
            computed.extend(tensor for tensor in op.outputs if tensor.dtype.is_floating)
    return computed
