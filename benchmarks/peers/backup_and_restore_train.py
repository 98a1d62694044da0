"""Keras `fit` with BackupAndRestore, as Keras's documentation shows it.

    python -m benchmarks.peers.backup_and_restore_train --data_dir=DIRECTORY --train_dir=FOLDER

A peer for `benchmarks.faults`, with the network and input of `keras_train.py`. The backup lies in
`backup` in the folder, and Keras deletes it when training has ended; the final weights
are saved beside it.
"""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf
from tensorflow import keras

import cifar10_input
from benchmarks.peers import keras_train
from benchmarks.peers.monitored_session_train import SEED, peer_parser, print_step

BACKUP_FOLDER = 'backup'
FINAL_WEIGHTS = 'final.weights.h5'


class StepPrinter(keras.callbacks.Callback):
    """Prints a line after each step: the updates since training began, and the loss.

    The loss is the mean since the epoch began, as `fit` gives it.
    """

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        print_step(int(self.model.optimizer.iterations), float((logs or {})['loss']))


def build_model(batch_size: int, learning_rate: float) -> keras.Model:
    """The network of `keras_train.py`, under plain gradient descent.

    Without moving averages: Keras puts them in the place of the weights at the end, and
    after a few steps those of any two runs are nearly the same.
    """
    model = keras_train.build_model(batch_size)
    model.compile(keras.optimizers.SGD(learning_rate), loss=model.loss, jit_compile=False)
    return model


def main() -> None:
    """Trains with the options of the command line."""
    parser = peer_parser(__doc__)
    parser.add_argument(
        '--double_checkpoint', action='store_true', help='keep the last backup but one as well'
    )
    options = parser.parse_args()
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    num_examples = cifar10_input.count_examples(cifar10_input.train_files(options.data_dir))
    steps_per_epoch = num_examples // options.batch_size
    model = build_model(options.batch_size, options.learning_rate)
    backup = keras.callbacks.BackupAndRestore(
        os.path.join(options.train_dir, BACKUP_FOLDER),
        save_freq=options.save_checkpoint_steps,
        double_checkpoint=options.double_checkpoint,
    )
    # The backup holds the learning rate too, and would put its own in the place of the option.
    keep_rate = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: setattr(model.optimizer, 'learning_rate', options.learning_rate)
    )
    model.fit(
        keras_train.training_batches(options.data_dir, options.batch_size),
        steps_per_epoch=steps_per_epoch,
        epochs=options.max_steps // steps_per_epoch,
        callbacks=[backup, keep_rate, StepPrinter()],
        verbose=0,
    )
    model.save_weights(os.path.join(options.train_dir, FINAL_WEIGHTS))


if __name__ == '__main__':
    main()
