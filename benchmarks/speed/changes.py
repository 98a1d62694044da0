"""Speed of the training step with one more of the project's changes at a time.

    python -m benchmarks.speed.changes

Builds the training graph as the tutorial computes it, then with one change more
at a time, and times their steps in turn. All variants share the production input,
loss and update; each prints its step time, and its speed as a ratio to the first
of the same round.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow.compat.v1 as tf

import cifar10
from benchmarks.speed.steps import Runner, take_turns
from benchmarks.tables import markdown_table, median_and_range, median_ratio
from cifar10_lib.base.flags import run_script, setting
from cifar10_lib.data.prepare import prepare
from cifar10_lib.nn import layers
from cifar10_lib.nn.lrn import by_matrix_products

HEADER = ('variant', 'ms a step: median (min to max)', 'times as fast as the first')


@dataclasses.dataclass(frozen=True)
class ChangesSettings:
    """What to measure."""

    data_dir: str = setting('cifar10_data', 'Folder of the data set.')
    dataset: str = setting('cifar10', 'The images.', choices=('cifar10', 'synthetic', 'auto'))
    batch_size: int = setting(cifar10.BATCH_SIZE, 'Number of images in a batch.', at_least=2)
    rounds: int = setting(12, 'Turns of each variant.', at_least=1)
    steps: int = setting(15, 'Steps in a turn.', at_least=1)


class Variant(NamedTuple):
    """One way to compute a training step."""

    name: str
    normalize: Callable[[tf.Tensor], tf.Tensor]
    pool_first: bool
    splits: int
    turned_gradient: bool = False


def plain_normalization(activation: tf.Tensor) -> tf.Tensor:
    return tf.nn.local_response_normalization(
        activation, depth_radius=4, bias=1.0, alpha=0.001 / 9.0, beta=0.75
    )


def fast_normalization(activation: tf.Tensor) -> tf.Tensor:
    return by_matrix_products(activation, depth_radius=4, bias=1.0, alpha=0.001 / 9.0)


VARIANTS = (
    Variant('as the tutorial computes it', plain_normalization, False, 1),
    Variant('+ normalisation by matrix products', fast_normalization, False, 1),
    Variant('+ pooling before bias and ReLU', fast_normalization, True, 1),
    Variant('+ two halves of the batch', fast_normalization, True, 2),
    Variant('(tried: four quarters)', fast_normalization, True, 4),
    Variant('(tried: input gradient as a convolution)', fast_normalization, True, 2, True),
)


@tf.custom_gradient
def turned_convolution(activation: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """A convolution whose input gradient is a forward convolution with the turned kernel."""

    def convolve(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(x, kernel, strides=[1, 1, 1, 1], padding='SAME')

    def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        turned = tf.transpose(tf.reverse(weights, [0, 1]), [0, 1, 3, 2])
        filter_gradient = tf.nn.conv2d_backprop_filter(
            activation, weights.shape.as_list(), dy, strides=[1, 1, 1, 1], padding='SAME'
        )
        return convolve(dy, turned), filter_gradient

    return convolve(activation, weights), gradient


def network(images: tf.Tensor, variant: Variant) -> tf.Tensor:
    """The production network's layers, put together in the variant's way.

    Args:
      images: float32 [batch, 24, 24, 3].
      variant: how to compute it.

    Returns:
      logits: float32 [batch, 10].
    """
    options = layers.Options()

    def convolve(inputs: tf.Tensor, depth: int, turned: bool = False) -> tf.Tensor:
        kernel = layers.weights([5, 5, depth, 64], 0.05, options)
        if turned:
            return turned_convolution(inputs, kernel)
        return tf.nn.conv2d(inputs, kernel, strides=1, padding='SAME')

    def bias_and_relu(convolved: tf.Tensor, value: float) -> tf.Tensor:
        return tf.nn.relu(tf.nn.bias_add(convolved, layers.biases(64, value, options)))

    def pool(inputs: tf.Tensor, name: str) -> tf.Tensor:
        return layers.max_pool(name, inputs, side=3, padding=layers.SAME)

    with tf.variable_scope('conv1'):
        convolved = convolve(images, 3)
        if variant.pool_first:
            pool1 = bias_and_relu(pool(convolved, 'pool1'), 0.0)
        else:
            pool1 = pool(bias_and_relu(convolved, 0.0), 'pool1')
    norm1 = variant.normalize(pool1)
    with tf.variable_scope('conv2'):
        conv2 = bias_and_relu(convolve(norm1, 64, variant.turned_gradient), 0.1)
    hidden = pool(variant.normalize(conv2), 'pool2')
    for name, size in (('local3', 384), ('local4', 192)):
        hidden = layers.dense(
            name, hidden, size, options, stddev=0.04, bias=0.1, weight_decay=options.weight_decay
        )
    return layers.logits(hidden, options, stddev=1 / 192.0)


def training_step(variant: Variant, data_dir: str, batch_size: int) -> tf.Operation:
    """Builds the variant's training graph."""
    with tf.Graph().as_default():
        images, labels = cifar10.distorted_inputs(data_dir, batch_size)
        logits = []
        for i, part in enumerate(tf.split(images, variant.splits)):
            with tf.variable_scope(tf.get_variable_scope(), reuse=i > 0):
                logits.append(network(part, variant))
        total_loss = cifar10.loss(tf.concat(logits, axis=0), labels)
        global_step, examples_seen = cifar10.create_counters()
        return cifar10.train(total_loss, global_step, examples_seen, batch_size)


def table(names: Sequence[str], times: Sequence[Sequence[float]]) -> str:
    """Step times in milliseconds, and ratios of speed to the first of the round, in Markdown."""
    lines = [
        (name, median_and_range(own, digits=1), f'{median_ratio(times[0], own):.2f}')
        for name, own in zip(names, times, strict=True)
    ]
    return markdown_table(HEADER, lines)


def main(settings: ChangesSettings) -> None:
    """Measures, and prints the table."""
    directory = prepare(settings.data_dir, settings.dataset).directory
    runners = [
        Runner(training_step(variant, directory, settings.batch_size)) for variant in VARIANTS
    ]
    times = take_turns(runners, settings.rounds, settings.steps)
    print(table([variant.name for variant in VARIANTS], times))


if __name__ == '__main__':
    run_script(main, ChangesSettings)
