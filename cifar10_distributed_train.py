r"""Trains the CIFAR-10 network on several machines, one worker each.

    TF_CONFIG='{"cluster": {"worker": ["host0:2222", "host1:2222"]},
                "task": {"type": "worker", "index": 0}}' \
        python cifar10_distributed_train.py

and the same on host1 with index 1. Every worker computes the gradients of its own
--batch_size images; their mean updates each worker's copy of the variables. So W workers of
batch b take the steps of one device with batch W * b, unless the network normalises batches.
Worker 0, the chief, prints, saves and writes summaries, as `cifar10_train.py` does, and either
script resumes from the other's checkpoints.

Without TF_CONFIG, the tasks of a SLURM step (`srun --ntasks=2 python ...`) are the workers;
without either, this process is the only one. The task `evaluator` of a TF_CONFIG runs
`cifar10_eval.py` on --train_dir.
`--local_workers=2` starts two workers on this machine, for a try. What happens when a worker or
a machine fails is in docs/distributed.md.
"""

from __future__ import annotations

from cifar10_lib.base.start import start
from cifar10_lib.training.settings import CommandSettings, DistributedTrainSettings

# Before TensorFlow is imported, which takes seconds.
start(__name__, CommandSettings)

import dataclasses

import tensorflow.compat.v1 as tf

import cifar10
from cifar10_lib.base.flags import run_script
from cifar10_lib.training import local_cluster
from cifar10_lib.training.begin import begin, network_options, num_parts, training_batches
from cifar10_lib.training.cluster import (
    ClusterWorker,
    become_evaluator,
    configure,
    from_environment,
    is_evaluator,
)
from cifar10_lib.training.session import session_config, training_session


def train(settings: DistributedTrainSettings) -> None:
    """Trains until `settings.max_steps`, or until the user stops any worker."""
    # cifar10.inference, unless --model names another network.
    network = cifar10.NETWORKS[settings.model]
    cluster = from_environment()
    config = configure(session_config(settings), cluster, settings.wait_secs)
    worker = ClusterWorker(cluster, config, settings.wait_secs)
    batch_size = settings.batch_size * worker.num_workers
    with begin(settings, network, batch_size, worker) as run, tf.device(worker.device):
        global_step, examples_seen = cifar10.create_counters(run.start.step, run.start.examples)
        images, labels = training_batches(run, settings.batch_size)

        # Of the first image of this worker, in the stream of all.
        position = examples_seen + worker.index * settings.batch_size
        options = network_options(run, num_parts(settings, network))
        logits = network.inference(images, options, training=True, position=position)
        # The weight decay counts once for all workers.
        decay_factor = worker.num_workers if worker.is_chief else 0
        own_loss = cifar10.loss(logits, labels, decay_factor, run.settings)
        own_gradients = cifar10.compute_gradients(own_loss, settings.use_fp16)
        total_loss, gradients = worker.mean_over_workers(own_loss, own_gradients)
        train_op = cifar10.apply_gradients(
            gradients,
            total_loss,
            global_step,
            examples_seen,
            run.batch_size,
            run.data.num_examples,
            recipe=run.settings,
        )

        # Restores the newest checkpoint, saves and reports, and explains what fails.
        with training_session(run, images, labels, total_loss, train_op, config) as session:
            while not session.should_stop():
                session.run(train_op)


def main(settings: CommandSettings) -> None:
    """Trains as one worker, or starts workers that do."""
    if settings.local_workers:
        local_cluster.run(settings.local_workers, settings.max_restarts)
    elif is_evaluator():
        become_evaluator(settings)
    else:
        names = [field.name for field in dataclasses.fields(DistributedTrainSettings)]
        train(DistributedTrainSettings(**{name: getattr(settings, name) for name in names}))


if __name__ == '__main__':
    run_script(main, CommandSettings)
