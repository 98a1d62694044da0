"""This project, in the parts that its own scripts don't run by themselves.

    python -m benchmarks.project --task=constant --data_dir=cifar10_data/cifar-10-batches-bin

Training end to end is `cifar10_train.py` itself. Here are its training step on a
constant batch, its input without the network, and its evaluation.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from unittest import mock

import tensorflow.compat.v1 as tf

import cifar10
import cifar10_train
from benchmarks.worker import (
    CONSTANT,
    EVALUATION,
    INPUT,
    Options,
    Ticker,
    constant_batch,
    parse_options,
)
from cifar10_input import NUM_EXAMPLES_PER_EPOCH_FOR_TRAIN, TUTORIAL_VIEW, View
from cifar10_lib.evaluation.evaluator import Evaluator
from cifar10_lib.nn import networks
from cifar10_lib.nn.layers import Model, Pass
from cifar10_lib.nn.presets import PRESETS
from cifar10_lib.runs.checkpoints import Start
from cifar10_lib.training import session
from cifar10_lib.training.settings import OneDeviceTrainSettings, TrainingData, training_batches


def held_batch(batch_size: int, view: View = TUTORIAL_VIEW) -> tuple[tf.Variable, tf.Variable]:
    """The constant batch, in variables, which no optimiser of graphs computes with ahead."""
    images, labels = constant_batch(batch_size, view.size, view.depth)
    return (
        tf.get_variable('images', initializer=images, trainable=False),
        tf.get_variable('labels', initializer=labels, trainable=False),
    )


def train_settings(options: Options) -> OneDeviceTrainSettings:
    """Those of the network's own preset, but for what the options say."""
    values = {
        **dataclasses.asdict(PRESETS[options.model]),
        'batch_size': options.batch_size,
        'use_fp16': options.use_fp16,
        'use_bf16': options.use_bf16,
    }
    return OneDeviceTrainSettings(**values)


def train_on_constant_batch(options: Options) -> None:
    """The step of `cifar10_train.py`, its input replaced by a constant batch."""
    settings = train_settings(options)
    view = networks.MODELS[options.model].view
    with tf.Graph().as_default():
        images, labels = (part.read_value() for part in held_batch(options.batch_size, view))
        with mock.patch.object(cifar10, 'distorted_inputs', return_value=(images, labels)):
            training = cifar10_train.build(settings, data_of(options), Start(None, 0, 0))
        run_steps(
            training.train_op,
            training.total_loss,
            options,
            session.session_config(settings),
        )


def data_of(options: Options) -> TrainingData:
    """The images, as many as CIFAR-10 has, of which schedules make epochs."""
    return TrainingData(options.data_dir, NUM_EXAMPLES_PER_EPOCH_FOR_TRAIN, cifar10.NUM_CLASSES)


def run_steps(
    train_op: tf.Operation, total_loss: tf.Tensor, options: Options, config: tf.ConfigProto
) -> None:
    """Takes steps and prints console lines, without checkpoints and summaries."""
    ticker = Ticker(options.batch_size, options.log_frequency)
    with tf.train.MonitoredSession(tf.train.ChiefSessionCreator(config=config)) as session:
        for _ in options.steps:
            _, loss = session.run([train_op, total_loss])
            ticker.tick(loss.item)


def read_input(options: Options) -> None:
    """The training batches, computed and thrown away."""
    settings = train_settings(options)
    with tf.Graph().as_default(), tf.Session() as session:
        # The batch stays in TensorFlow, as in training: fetching would copy it.
        batch = tf.group(
            *training_batches(settings, data_of(options), options.batch_size, start_example=0)
        )
        ticker = Ticker(options.batch_size, options.log_frequency)
        for _ in options.steps:
            session.run(batch)
            ticker.tick()


def evaluate(options: Options) -> None:
    """Scores the test images again and again, each time restoring the checkpoint."""
    model = networks.MODELS[options.model]
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = save_first_weights(directory, model)
        evaluator = Evaluator(options.data_dir, model=model)
        ticker = Ticker(evaluator.num_examples)
        for _ in options.steps:
            evaluator.evaluate(checkpoint)
            ticker.tick()


def save_first_weights(directory: str, model: Model = cifar10.TUTORIAL_MODEL) -> str:
    """Saves an untrained network with its moving averages; returns the checkpoint's path."""
    with tf.Graph().as_default(), tf.Session() as session:
        cifar10.create_global_step()
        model.logits(tf.zeros([1, model.view.size, model.view.size, model.view.depth]), Pass())
        cifar10.variable_averages().apply(tf.trainable_variables())
        session.run(tf.global_variables_initializer())
        return tf.train.Saver().save(session, os.path.join(directory, 'model.ckpt'), global_step=0)


RUN = {CONSTANT: train_on_constant_batch, INPUT: read_input, EVALUATION: evaluate}


def main() -> None:
    """Runs the task that the command line names."""
    options = parse_options(__doc__, tasks=tuple(RUN), models=tuple(networks.MODELS))
    RUN[options.task](options)


if __name__ == '__main__':
    main()
