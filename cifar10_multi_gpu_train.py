r"""Trains the CIFAR-10 network on several devices, one tower each.

    python cifar10_multi_gpu_train.py --num_gpus=2

Every tower computes the gradients of its own --batch_size images; their mean
updates the one set of variables. So N towers of batch b take the steps of one
device with batch N * b, unless the network normalises batches. Output, checkpoints and
resuming are those of `cifar10_train.py`: either script goes on from the other's checkpoints.

The variables are on the first tower by default; --variables=cpu keeps them on the CPU, and
--variables=mirrored a copy on every tower. docs/scaling.md says which pays where.

Without GPUs, --tower_device=cpu runs the towers on virtual CPU devices: two towers of
64 images train at 3,160 to 3,240 examples a second on 2 CPU cores with AVX-512 (medians
of 2 runs). Speed on GPUs has not been measured.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow.compat.v1 as tf

import cifar10
from cifar10 import GradientsAndVariables
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import run_script, setting
from cifar10_lib.nn import summaries
from cifar10_lib.runs.checkpoints import Start
from cifar10_lib.training import begin, session
from cifar10_lib.training.nonfinite import Training
from cifar10_lib.training.settings import TrainingData, TrainSettings, network, training_batches

# More than any machine has GPUs; each is a copy of the network in the graph.
MAX_TOWERS = 256

# Homes of the variables.
CPU, FIRST, MIRRORED = 'cpu', 'first', 'mirrored'


@dataclasses.dataclass(frozen=True)
class MultiGpuTrainSettings(TrainSettings):
    """What a training run on several devices is asked to do."""

    num_gpus: int = setting(1, 'Number of towers.', at_least=1, at_most=MAX_TOWERS)
    tower_device: str = setting(
        'gpu', 'Kind of device of the towers; cpu: virtual CPU devices.', choices=('gpu', 'cpu')
    )
    variables: str = setting(
        FIRST,
        'Where the variables are and the gradients are added: cpu; first, the first tower; '
        'mirrored, a copy on each tower, gradients added by all-reduce.',
        choices=(CPU, FIRST, MIRRORED),
    )


def tower_devices(tower_device: str, num_towers: int) -> list[str]:
    """Names of the towers' devices, like '/gpu:0'.

    Raises:
      UserError: there are fewer GPUs than towers.
    """
    if tower_device == 'gpu':
        gpus = tf.config.list_physical_devices('GPU')
        if len(gpus) < num_towers:
            found = ', '.join(device.name for device in tf.config.list_physical_devices())
            raise UserError(
                f'--num_gpus={num_towers}: found {len(gpus)} GPUs among the devices {found}; '
                'give a smaller --num_gpus, or --tower_device=cpu for virtual CPU devices'
            )
    return [f'/{tower_device}:{i}' for i in range(num_towers)]


def variables_on_cpu(device: str) -> Callable[[tf.Operation], str]:
    """A device function: variables on the first CPU, all else on `device`.

    There every tower reads them and none owns them.
    """
    return lambda op: '/cpu:0' if op.type == 'VarHandleOp' else device


def build(
    settings: MultiGpuTrainSettings,
    devices: Sequence[str],
    data: TrainingData,
    start: Start,
) -> Training:
    """Builds the training graph.

    Args:
      settings: what was asked for.
      devices: of each tower.
      data: what it is trained on.
      start: where the run goes on from.

    Returns:
      Its parts.
    """
    global_batch_size = settings.batch_size * len(devices)
    global_step = cifar10.create_global_step(start.step)
    examples_seen = cifar10.create_examples_seen(start.examples)
    with tf.name_scope('input'):
        images, labels = training_batches(settings, data, global_batch_size, start.examples)
        summaries.images(images)

    # What is done once for all towers is done where the variables are.
    with tf.device('/cpu:0' if settings.variables == CPU else devices[0]):
        total_loss, of_towers, reduced = tower_gradients(
            images, labels, devices, settings.variables, network(settings, data), examples_seen
        )
        train_op = cifar10.apply_gradients(
            reduced[0],
            total_loss,
            global_step,
            examples_seen,
            global_batch_size,
            data.num_examples,
            copies=list(itertools.chain(*reduced[1:])),
            recipe=settings,
        )
    return Training(images, labels, total_loss, of_towers, examples_seen, train_op)


def tower_gradients(
    images: tf.Tensor,
    labels: tf.Tensor,
    devices: Sequence[str],
    variables: str = FIRST,
    network: cifar10.Network = cifar10.TUTORIAL_NETWORK,
    position: Any = 0,
) -> tuple[tf.Tensor, GradientsAndVariables, Sequence[GradientsAndVariables]]:
    """Loss and gradients of a batch, the variables where they are wanted.

    Args:
      images: float32 [batch, size, size, depth], one batch for all towers.
      labels: int32 [batch].
      devices: of each tower.
      variables: their home: CPU, FIRST or MIRRORED.
      network: what each tower computes.
      position: int64 [], the first image's place in the stream.

    Returns:
      total_loss: float32 [].
      computed: the gradients that can be computed again by themselves, one at a time, when
        a step has failed; one tower's part of an all-reduce waits for the others.
      reduced: for each copy of the variables, the gradients of that loss for it.
    """
    if variables == MIRRORED and len(devices) > 1:
        total_loss, of_towers = cifar10.mirrored_tower_gradients(
            images, labels, devices, network, position
        )
        computed = list(itertools.chain(*of_towers))
        return total_loss, computed, cifar10.all_reduce_gradients(of_towers)
    placed: Sequence[cifar10.Device] = devices
    if variables == CPU:
        placed = [variables_on_cpu(device) for device in devices]
    total_loss, gradients = cifar10.tower_gradients(
        images, labels, placed, network, position=position
    )
    return total_loss, gradients, [gradients]


def train(settings: MultiGpuTrainSettings) -> None:
    """Trains until `settings.max_steps`, or until the user stops it."""
    devices = tower_devices(settings.tower_device, settings.num_gpus)
    global_batch_size = settings.num_gpus * settings.batch_size
    num_cpu_devices = settings.num_gpus if settings.tower_device == 'cpu' else 1
    with begin.begin(settings, global_batch_size) as run, tf.device('/cpu:0'):
        training = build(settings, devices, run.data, run.start)
        config = session.session_config(settings, num_cpu_devices)
        session.run(run, training, global_batch_size, config)


if __name__ == '__main__':
    run_script(train, MultiGpuTrainSettings)
