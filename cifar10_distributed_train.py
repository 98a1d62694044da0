r"""Trains the CIFAR-10 network on several machines, one worker each.

    TF_CONFIG='{"cluster": {"worker": ["host0:2222", "host1:2222"]},
                "task": {"type": "worker", "index": 0}}' \
        python cifar10_distributed_train.py

and the same on host1 with index 1. Every worker computes the gradients of its own
--batch_size images; their mean updates each worker's copy of the variables. So W workers of
batch b take the steps of one device with batch W * b, unless the network normalises batches.
Worker 0, the chief, prints, saves and writes summaries, as `cifar10_train.py` does, and either
script goes on from the other's checkpoints.

`cifar10_cluster_local.py` starts all workers on one machine, for a try. What happens when a
worker or a machine fails is in docs/distributed.md.
"""

from __future__ import annotations

import dataclasses

import tensorflow.compat.v1 as tf

import cifar10
from cifar10_lib.base.flags import run_script, setting
from cifar10_lib.nn import summaries
from cifar10_lib.training import begin, session
from cifar10_lib.training.begin import Run
from cifar10_lib.training.cluster import ClusterWorker, configure, from_environment
from cifar10_lib.training.nonfinite import Training
from cifar10_lib.training.settings import (
    OneDeviceTrainSettings,
    network,
    num_splits,
    training_batches,
)


@dataclasses.dataclass(frozen=True)
class DistributedTrainSettings(OneDeviceTrainSettings):
    """What each worker of a training run is asked to do."""

    batch_size: int = setting(
        cifar10.BATCH_SIZE, 'Number of images in a batch of one worker.', at_least=1
    )
    wait_secs: int = setting(
        300,
        'Longest wait for another worker, in seconds: until it starts, and in a step, the '
        "chief's saving and evaluating included.",
        at_least=1,
        at_most=1_000_000,
    )


def build(settings: DistributedTrainSettings, run: Run, worker: ClusterWorker) -> Training:
    """Builds the worker's training graph.

    Args:
      settings: what was asked for.
      run: as `cifar10_run.begin` gave it.
      worker: whose graph it is.

    Returns:
      Its parts; images and labels are the worker's own.
    """
    global_batch_size = settings.batch_size * worker.num_workers
    global_step = cifar10.create_global_step(run.start.step)
    examples_seen = cifar10.create_examples_seen(run.start.examples)

    # The input stays on the CPU, so that a GPU has nothing to do but the network.
    with tf.device('/cpu:0'), tf.name_scope('input'):
        images, labels = training_batches(
            settings,
            run.data,
            settings.batch_size,
            run.start.examples,
            share=worker.index,
            num_shares=worker.num_workers,
        )
        summaries.images(images)
        position = examples_seen + worker.index * settings.batch_size

    total_loss, gradients = cifar10.tower_gradients(
        images,
        labels,
        [None] * num_splits(settings),
        network(settings, run.data),
        worker.mean_over_workers,
        position,
    )
    train_op = cifar10.apply_gradients(
        gradients,
        total_loss,
        global_step,
        examples_seen,
        global_batch_size,
        run.data.num_examples,
        recipe=settings,
    )
    return Training(images, labels, total_loss, gradients, examples_seen, train_op)


def train(settings: DistributedTrainSettings) -> None:
    """Trains until `settings.max_steps`, or until the user stops any worker."""
    cluster = from_environment()
    config = configure(session.session_config(settings), cluster, settings.wait_secs)
    worker = ClusterWorker(cluster, config, settings.wait_secs)
    global_batch_size = settings.batch_size * worker.num_workers
    with (
        begin.begin(settings, global_batch_size, worker) as run,
        tf.device(worker.device),
    ):
        training = build(settings, run, worker)
        session.run(run, training, global_batch_size, config)


if __name__ == '__main__':
    run_script(train, DistributedTrainSettings)
