"""Keras `fit` on the same layers, with this project's input.

    python -m benchmarks.peers.keras_train --data_dir=cifar10_data/cifar-10-batches-bin

The input is made of the functions of `cifar10_input`, in a tf.data pipeline as Keras
takes it. No checkpoints and no summaries are written, which is to Keras's advantage.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow import keras

import cifar10_input
from benchmarks.speed import worker
from benchmarks.speed.worker import Options, Ticker


class LocalResponseNormalization(keras.layers.Layer):
    """TensorFlow's own operation, in the tutorial's setting."""

    def call(self, images: tf.Tensor) -> tf.Tensor:
        return tf.nn.local_response_normalization(
            images, depth_radius=4, bias=1.0, alpha=0.001 / 9.0, beta=0.75
        )


class ConsoleCallback(keras.callbacks.Callback):
    """Prints the console line; the loss is the mean since `fit` began."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._ticker = Ticker(options.batch_size, options.log_frequency)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._ticker.tick(lambda: float((logs or {})['loss']))


def _normal(stddev: float) -> keras.initializers.Initializer:
    return keras.initializers.TruncatedNormal(stddev=stddev, seed=0)


def _convolution(bias: float) -> keras.layers.Layer:
    return keras.layers.Conv2D(
        64,
        5,
        padding='same',
        activation='relu',
        kernel_initializer=_normal(0.05),
        bias_initializer=keras.initializers.Constant(bias),
    )


def _pool() -> keras.layers.Layer:
    return keras.layers.MaxPooling2D(3, strides=2, padding='same')


def _dense(size: int) -> keras.layers.Layer:
    return keras.layers.Dense(
        size,
        activation='relu',
        kernel_initializer=_normal(0.04),
        bias_initializer=keras.initializers.Constant(0.1),
        # Keras leaves out the half that tf.nn.l2_loss has.
        kernel_regularizer=keras.regularizers.L2(0.004 / 2),
    )


def build_model(batch_size: int = 128) -> keras.Model:
    """The network, compiled: images float32 [batch, 24, 24, 3] -> logits [batch, 10]."""
    model = keras.Sequential(
        [
            keras.Input([24, 24, 3]),
            _convolution(bias=0.0),
            _pool(),
            LocalResponseNormalization(),
            _convolution(bias=0.1),
            LocalResponseNormalization(),
            _pool(),
            keras.layers.Flatten(),
            _dense(384),
            _dense(192),
            keras.layers.Dense(10, kernel_initializer=_normal(1 / 192)),
        ]
    )
    rate = keras.optimizers.schedules.ExponentialDecay(
        0.1, decay_steps=350 * 50_000 // batch_size, decay_rate=0.1, staircase=True
    )
    model.compile(
        optimizer=keras.optimizers.SGD(rate, use_ema=True, ema_momentum=0.9999),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    return model


def training_batches(data_dir: str, batch_size: int) -> tf.data.Dataset:
    """Batches like those of `cifar10_input.distorted_inputs`, as a dataset."""

    def decode_and_distort(index: tf.Tensor, records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = cifar10_input.decode_records(records)
        numbers = cifar10_input.random_numbers(0, index * batch_size, batch_size)
        return cifar10_input.distort(images, numbers), labels

    files = cifar10_input.train_files(data_dir)
    # Not cifar10_input.record_stream, which needs graph mode to derive each epoch's order.
    stream = _records(files).shuffle(cifar10_input.SHUFFLE_WINDOW, seed=0).repeat()
    batches = stream.batch(batch_size, drop_remainder=True).enumerate()
    return _ahead(batches.map(decode_and_distort))


def _records(files: list[str]) -> tf.data.Dataset:
    return tf.data.FixedLengthRecordDataset(files, cifar10_input.CIFAR10_RECORD.record_bytes)


def _ahead(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Two batches ahead and without autotuning, as in `cifar10_input`."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(2).with_options(options)


def evaluation_batches(data_dir: str) -> tf.data.Dataset:
    """The batches of `cifar10_input.inputs`, as a dataset."""

    def decode_and_crop(records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = cifar10_input.decode_records(records)
        return cifar10_input.evaluation_crop(images), labels

    records = _records(cifar10_input.test_files(data_dir))
    return _ahead(records.batch(worker.EVALUATION_BATCH).map(decode_and_crop))


def _fit(batches: tf.data.Dataset, options: Options) -> None:
    build_model(options.batch_size).fit(
        batches,
        # One epoch without end: Keras does more at the end of an epoch than of a step.
        steps_per_epoch=options.max_steps or 10**9,
        callbacks=[ConsoleCallback(options)],
        verbose=0,
    )


def train_end_to_end(options: Options) -> None:
    """Training with input."""
    _fit(training_batches(options.data_dir, options.batch_size), options)


def train_on_constant_batch(options: Options) -> None:
    """Training on a constant batch."""
    batch = worker.constant_batch(options.batch_size)
    _fit(tf.data.Dataset.from_tensors(batch).cache().repeat(), options)


def read_input(options: Options) -> None:
    """The training batches, computed and thrown away."""
    batches = iter(training_batches(options.data_dir, options.batch_size))
    worker.repeat(lambda: next(batches), options)


def evaluate(options: Options) -> None:
    """Scores the test images again and again."""
    model = build_model()
    model.compile(metrics=['sparse_categorical_accuracy'], jit_compile=False)
    batches = evaluation_batches(options.data_dir)
    ticker = Ticker(cifar10_input.count_examples(cifar10_input.test_files(options.data_dir)))
    worker.repeat(lambda: model.evaluate(batches, verbose=0), options, ticker)


RUN = {
    worker.TRAIN: train_end_to_end,
    worker.CONSTANT: train_on_constant_batch,
    worker.INPUT: read_input,
    worker.EVALUATION: evaluate,
}


def main() -> None:
    worker.run_task(__doc__, RUN)


if __name__ == '__main__':
    main()
