"""Training in TensorFlow's own session, as its documentation shows it.

    python -m benchmarks.peers.monitored_session_train --data_dir=DIRECTORY --train_dir=FOLDER

A peer for `benchmarks.faults`: this project's network and distortions, and around them nothing
but tf.train.MonitoredTrainingSession. `--start_over --stop_on_nan` make it the
tutorial's trainer: the folder deleted at every start, and a hook that looks at the loss.
"""

from __future__ import annotations

import argparse
import shutil

import tensorflow
import tensorflow.compat.v1 as tf

import cifar10
from benchmarks.peers import keras_train

SEED = 0


def peer_parser(description: str | None) -> argparse.ArgumentParser:
    """The options of every peer that is put through faults."""
    parser = argparse.ArgumentParser(description=(description or '').partition('\n')[0])
    add = parser.add_argument
    add('--data_dir', required=True, help='directory that holds the record files')
    add('--train_dir', required=True, help='folder for what is saved')
    add('--max_steps', type=int, default=100, help='steps to take, earlier runs included')
    add('--batch_size', type=int, default=50, help='images in a batch')
    add('--save_checkpoint_steps', type=int, default=10, help='steps between checkpoints')
    add('--learning_rate', type=float, default=0.1, help='of plain gradient descent')
    return parser


def print_step(step: int, loss: float) -> None:
    """Prints the line of a step that is done."""
    print(f'step {step} loss {loss:.4f}', flush=True)


def train(options: argparse.Namespace) -> None:
    """Trains until `options.max_steps`."""
    tf.set_random_seed(SEED)
    # The stream begins at its beginning at every start: no position is saved.
    batches = keras_train.training_batches(options.data_dir, options.batch_size)
    images, labels = tf.data.make_one_shot_iterator(batches).get_next()
    total_loss = cifar10.loss(
        cifar10.inference(images, cifar10.Options(seed=SEED, summaries=False)), labels
    )
    optimizer = tf.train.GradientDescentOptimizer(options.learning_rate)
    train_op = optimizer.minimize(total_loss, tf.train.get_or_create_global_step())
    with tf.control_dependencies([train_op]):
        step = tf.train.get_global_step().read_value()
    hooks = [tf.train.StopAtStepHook(last_step=options.max_steps)]
    if options.stop_on_nan:
        hooks.append(tf.train.NanTensorHook(total_loss))
    with tf.train.MonitoredTrainingSession(
        checkpoint_dir=options.train_dir,
        save_checkpoint_steps=options.save_checkpoint_steps,
        hooks=hooks,
    ) as session:
        while not session.should_stop():
            print_step(*session.run([step, total_loss]))


def main() -> None:
    """Trains with the options of the command line."""
    parser = peer_parser(__doc__)
    parser.add_argument('--start_over', action='store_true', help='first delete --train_dir')
    parser.add_argument('--stop_on_nan', action='store_true', help='look at the loss')
    options = parser.parse_args()
    if options.start_over:
        shutil.rmtree(options.train_dir, ignore_errors=True)
        tf.gfile.MakeDirs(options.train_dir)
    tensorflow.config.experimental.enable_op_determinism()
    with tf.Graph().as_default():
        train(options)


if __name__ == '__main__':
    main()
