r"""Trains the CIFAR-10 network on one device.

    python cifar10_train.py

Prints, every ten steps, a line like

    2026-11-21 12:00:00.000000: step 100, loss = 4.12 (1050.3 examples/sec; 0.122 sec/batch)

and keeps checkpoints and summaries in --train_dir, from which the same command
goes on after an interruption. `cifar10_eval.py` says how good they are.
"""

from __future__ import annotations

import tensorflow.compat.v1 as tf

import cifar10
import cifar10_session
from cifar10_session import TrainSettings
from cifar10_settings import run_script


def train(settings: TrainSettings) -> None:
    """Trains until `settings.max_steps`, or until the user stops it."""
    run = cifar10_session.begin(settings, settings.batch_size)

    with tf.Graph().as_default():
        global_step = cifar10.create_global_step(run.start.step)
        examples_seen = cifar10.create_examples_seen(run.start.examples)

        # The input stays on the CPU, so that a GPU has nothing to do but the network.
        with tf.device('/cpu:0'):
            images, labels = cifar10.distorted_inputs(
                run.data_dir, settings.batch_size, settings.seed, run.start.examples
            )
            tf.summary.image('images', images)

        logits = cifar10.inference(images, seed=settings.seed, use_fp16=settings.use_fp16)
        total_loss = cifar10.loss(logits, labels)
        train_op = cifar10.train(
            total_loss,
            global_step,
            examples_seen,
            settings.batch_size,
            run.num_examples,
            settings.use_fp16,
        )

        config = tf.ConfigProto(
            allow_soft_placement=True, log_device_placement=settings.log_device_placement
        )
        cifar10_session.run(run, train_op, total_loss, settings.batch_size, config)


if __name__ == '__main__':
    run_script(train, TrainSettings)
