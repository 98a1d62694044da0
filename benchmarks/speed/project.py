"""This project's parts that its own scripts don't run by themselves.

    python -m benchmarks.speed.project --task=constant --data_dir=cifar10_data/cifar-10-batches-bin

Training end to end is `cifar10_train.py` itself. Here are its training step on a
constant batch, its input without the network, and its evaluation.
"""

from __future__ import annotations

import os
import tempfile
from unittest import mock

import tensorflow.compat.v1 as tf

import cifar10
import cifar10_train
from benchmarks.graphs import TrainingGraph, build_training_graph
from benchmarks.speed import worker
from benchmarks.speed.worker import Options, Ticker
from cifar10_input import TUTORIAL_VIEW, View
from cifar10_lib.evaluation.evaluator import Evaluator
from cifar10_lib.nn.layers import Network
from cifar10_lib.nn.presets import PRESETS
from cifar10_lib.runs.checkpoints import open_checkpoint


def constant_batch(batch_size: int, view: View = TUTORIAL_VIEW) -> tuple[tf.Tensor, tf.Tensor]:
    """The constant batch, from variables, which no optimiser of graphs computes with ahead."""
    images, labels = worker.constant_batch(batch_size, view.size, view.depth)
    return (
        tf.get_variable('images', initializer=images, trainable=False).read_value(),
        tf.get_variable('labels', initializer=labels, trainable=False).read_value(),
    )


def build(options: Options) -> TrainingGraph:
    """The graph of `cifar10_train.py` by a preset, but for the options."""
    values = {
        **PRESETS[options.preset].flags,
        'data_dir': options.data_dir,
        'dataset': 'auto',
        'num_held_out': 0,
        'batch_size': options.batch_size,
        'use_fp16': options.use_fp16,
        'use_bf16': options.use_bf16,
    }
    return build_training_graph(cifar10_train.train, **values)


def train_on_constant_batch(options: Options) -> None:
    """The step of `cifar10_train.py`, its input replaced by a constant batch."""
    with mock.patch.object(
        cifar10_train,
        'training_batches',
        lambda run, batch_size: constant_batch(batch_size, run.network.view),
    ):
        training = build(options)
    with training.train_op.graph.as_default():
        run_steps(training.train_op, training.total_loss, options, training.config)


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
    training = build(options)
    with tf.Session(graph=training.train_op.graph) as session:
        # The batch stays in TensorFlow, as in training: fetching would copy it.
        batch = [training.images.op, training.labels.op]
        worker.repeat(lambda: session.run(batch), options)


def evaluate(options: Options) -> None:
    """Scores the test images again and again, each time restoring the checkpoint."""
    recipe = PRESETS[options.preset].recipe
    network = cifar10.NETWORKS[recipe.model].trained_by(recipe)
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = save_initial_weights(directory, network)
        evaluator = Evaluator(options.data_dir, network)
        ticker = Ticker(evaluator.num_examples)
        worker.repeat(lambda: evaluator.evaluate(open_checkpoint(checkpoint)), options, ticker)


def save_initial_weights(directory: str, network: Network = cifar10.NETWORKS['tutorial']) -> str:
    """Saves an untrained network with its moving averages; returns the checkpoint's path."""
    view = network.view
    with tf.Graph().as_default(), tf.Session() as session:
        cifar10.create_counters()
        network.evaluate(tf.zeros([1, view.size, view.size, view.depth]), cifar10.NUM_CLASSES)
        tf.train.ExponentialMovingAverage(0.0).apply(tf.trainable_variables())
        session.run(tf.global_variables_initializer())
        return tf.train.Saver().save(session, os.path.join(directory, 'model.ckpt'), global_step=0)


RUN = {
    worker.CONSTANT: train_on_constant_batch,
    worker.INPUT: read_input,
    worker.EVALUATION: evaluate,
}


def main() -> None:
    worker.run_task(__doc__, RUN, presets=tuple(PRESETS))


if __name__ == '__main__':
    main()
