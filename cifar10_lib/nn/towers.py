"""Gradients of a batch that several devices compute, one tower each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

from cifar10_input import get_batch_size

# Name scope of a tower, followed by its number.
TOWER_NAME = 'tower'

# Homes of the variables.
CPU, FIRST, MIRRORED = 'cpu', 'first', 'mirrored'

# float16 gradients below 6e-8 vanish. The loss is scaled by this before the
# backward pass and the float32 gradients of the master variables by its inverse
# after it (Micikevicius et al., "Mixed precision training", ICLR 2018, sec. 3.2).
# A power of two changes no bit of a float32 gradient.
LOSS_SCALE = 128.0

GradientsAndVariables = Sequence[tuple[tf.Tensor, tf.Variable]]


class TowerGradients(NamedTuple):
    """Loss and gradients of a batch, over all towers."""

    total_loss: tf.Tensor
    """float32 []."""
    gradients: GradientsAndVariables
    """(mean gradient float32, variable) for each trainable variable."""
    copies: GradientsAndVariables
    """The same for the other towers' copies of the variables, where they have any."""


def compute_gradients(
    total_loss: tf.Tensor, use_fp16: bool = False, variables: Sequence[tf.Variable] | None = None
) -> GradientsAndVariables:
    """Gradients of the loss for every trainable variable.

    Args:
      total_loss: float32 [].
      use_fp16: the network computes in float16: keep small gradients from vanishing.
      variables: for these instead.

    Returns:
      (gradient float32, variable) for each variable.
    """
    variables = variables or tf.trainable_variables()
    scale = LOSS_SCALE if use_fp16 else 1.0
    gradients = tf.gradients(total_loss * scale if use_fp16 else total_loss, variables)
    return [
        (gradient * (1.0 / scale) if use_fp16 else gradient, variable)
        for gradient, variable in zip(gradients, variables, strict=True)
    ]


def average_gradients(
    tower_gradients: Sequence[GradientsAndVariables],
) -> list[tuple[tf.Tensor, tf.Variable]]:
    """Mean of each variable's gradient over the towers.

    Args:
      tower_gradients: of each tower, for the same variables in the same order.

    Returns:
      (mean gradient float32, variable) for each variable.
    """
    scale = 1.0 / len(tower_gradients)
    averages = []
    with tf.name_scope('mean_over_towers'):
        for pairs in zip(*tower_gradients, strict=True):
            gradients = [gradient for gradient, _ in pairs]
            averages.append((tf.add_n(gradients) * scale, pairs[0][1]))
    return averages


def tower_gradients(
    loss: Callable[[tf.Tensor, tf.Tensor, Any, int], tf.Tensor],
    images: tf.Tensor,
    labels: tf.Tensor,
    devices: Sequence[str],
    position: Any = 0,
    home: str = FIRST,
    use_fp16: bool = False,
) -> TowerGradients:
    """Loss and gradients of a batch, computed by one tower for each device.

    Each tower takes an equal share of the batch. The result is that of one device with the
    complete batch, to rounding, unless the network normalises batches.

    Args:
      loss: the loss of a tower, float32 [], of its (images, labels, position of its first image
        in the stream, number). The weight decay belongs to the first tower, times the number of
        towers: so it counts once in their mean, and is added to the gradients in the order in
        which one device adds it to those of the parts of a batch.
      images: [batch, size, size, depth], one batch for all towers.
      labels: int32 [batch].
      devices: of each tower, like '/gpu:0'; their number divides the batch.
      position: int64 [], position of the first image in the stream.
      home: of the variables: CPU; FIRST, the first tower; or MIRRORED, a copy on each tower.
        The copies are local variables: they start from the first tower's variables, once those
        have their values, and no checkpoint holds them.
      use_fp16: see `compute_gradients`.
    """
    mirrored = home == MIRRORED and len(devices) > 1
    part_size = get_batch_size(images) // len(devices)
    losses, gradients = [], []
    # Where the batch is, so that a tower is sent its share and nothing else.
    with tf.device(images.device), tf.name_scope('split'):
        parts = zip(tf.split(images, len(devices)), tf.split(labels, len(devices)), strict=True)
    for i, (device, (tower_images, tower_labels)) in enumerate(zip(devices, parts, strict=True)):
        copies: list[tf.Variable] = []
        getter = _copying_getter(copies) if mirrored and i > 0 else None
        with (
            tf.device(_variables_on_cpu(device) if home == CPU else device),
            tf.variable_scope(tf.get_variable_scope(), reuse=i > 0, custom_getter=getter),
            tf.name_scope(f'{TOWER_NAME}_{i}'),
        ):
            losses.append(loss(tower_images, tower_labels, position + i * part_size, i))
            gradients.append(compute_gradients(losses[-1], use_fp16, copies))
    with tf.name_scope('loss/'):
        total_loss = tf.reduce_mean(tf.stack(losses), name='total_loss')
    if not mirrored:
        return TowerGradients(total_loss, average_gradients(gradients), ())
    first, *others = _sum_on_every_device(_shares(gradients, devices))
    return TowerGradients(total_loss, first, list(itertools.chain(*others)))


def _variables_on_cpu(device: str) -> Callable[[tf.Operation], str]:
    """A device function: variables on the first CPU, all else on `device`."""
    return lambda op: '/cpu:0' if op.type == 'VarHandleOp' else device


def _copying_getter(copies: list[tf.Variable]) -> Callable[..., tf.Variable]:
    """Has tf.get_variable return a copy of each variable, which is added to `copies`.

    Variables that aren't trained, as moving statistics are, the towers share.
    """

    def get(getter: Callable[..., tf.Variable], name: str, *args: Any, **kwargs: Any):
        variable = getter(name, *args, **kwargs)
        if not variable.trainable:
            return variable
        copy = tf.Variable(
            variable.read_value(),
            trainable=False,
            collections=[tf.GraphKeys.LOCAL_VARIABLES],
            name=f'{variable.op.name}/copy',
        )
        copies.append(copy)
        return copy

    return get


def _shares(
    tower_gradients: Sequence[GradientsAndVariables], devices: Sequence[str]
) -> list[GradientsAndVariables]:
    """Each tower's part of the mean over the towers."""
    scale = 1.0 / len(devices)
    shares: list[GradientsAndVariables] = []
    for i, (device, gradients) in enumerate(zip(devices, tower_gradients, strict=True)):
        with tf.device(device), tf.name_scope(f'share_of_{TOWER_NAME}_{i}'):
            shares.append([(gradient * scale, variable) for gradient, variable in gradients])
    return shares


def _sum_on_every_device(
    tower_gradients: Sequence[GradientsAndVariables],
) -> list[GradientsAndVariables]:
    """Sum over the towers of each variable's gradient, on every tower's device.

    Each variable's sum begins when the towers have its gradient, while they still compute
    those of earlier layers. On GPUs NCCL adds, on CPUs a ring of copies; either leaves the
    same bits on all devices.
    """
    with tf.name_scope('all_reduce'):
        sums: list[GradientsAndVariables] = []
        for gradients in tower_gradients:
            pairs = []
            for key, (gradient, variable) in enumerate(gradients):
                with tf.device(gradient.device):
                    pairs.append((all_reduce(gradient, key, len(tower_gradients)), variable))
            sums.append(pairs)
        return sums


def all_reduce(tensor: tf.Tensor, key: int, group_size: int) -> tf.Tensor:
    """The sum of the tensors of a group's members, with the same bits for each.

    Each sum waits for all members, so a fetch of one member's must have the others' computed
    at the same time, as a training step does.

    Args:
      tensor: this member's, on its device; of one shape and type for all.
      key: of this sum; the members take part in those of a key in the same order.
      group_size: number of members, towers of a process or processes.

    Returns:
      The sum, of the shape and type of `tensor`.
    """
    return tf.raw_ops.CollectiveReduceV2(
        input=tensor,
        group_size=group_size,
        group_key=1,
        instance_key=key,
        ordering_token=[],
        merge_op='Add',
        final_op='Id',
    )
