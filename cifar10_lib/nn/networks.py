"""The networks beside the tutorial's own, by the names of --model.

Each is a small function made of the layers in `layers.py`; the recipe that it was published with
is the preset of its name. To add one, write its function, and add a line to NETWORKS and a preset.
"""

from __future__ import annotations

from typing import Any

import tensorflow.compat.v1 as tf

from cifar10_input import View
from cifar10_lib.nn.airbench import VIEW as AIRBENCH_VIEW
from cifar10_lib.nn.airbench import airbench
from cifar10_lib.nn.layers import (
    SAME,
    VALID,
    Activation,
    Network,
    Options,
    batch_normalization,
    convolution,
    dense,
    dropout,
    logits,
    max_pool,
    network,
    sizes,
)
from cifar10_lib.nn.lrn import local_response_normalization

# The complete image, scaled as in Keras's examples.
_WHOLE = View(size=32, scaling='unit')

# One channel of MNIST's 28 x 28 pixels, which records have in the middle of 32 x 32.
_DIGIT = View(size=28, depth=1, scaling='unit')


def _hidden(
    name: str,
    values: tf.Tensor,
    size: int,
    options: Options,
    training: bool,
    position: Any,
    activation: Activation = tf.nn.relu,
    stddev: float | None = None,
) -> tf.Tensor:
    """A dense layer before the last, with the options' dropout and weight decay."""
    kept = dropout(f'{name}_inputs', values, options.dropout, options, training, position)
    return dense(name, kept, size, options, activation, stddev, weight_decay=options.weight_decay)


@network
def logistic(images: tf.Tensor, options: Options, training: bool, position: Any) -> tf.Tensor:
    """Multinomial logistic regression: 30,730 weights."""
    return logits(images, options)


@network
def mlp(images: tf.Tensor, options: Options, training: bool, position: Any) -> tf.Tensor:
    """A multilayer perceptron of two hidden layers of 128 sigmoids: 411,146 weights."""
    size1, size2 = sizes(options.hidden_size, 128, 128)
    hidden1 = _hidden('hidden1', images, size1, options, training, position, tf.sigmoid)
    hidden2 = _hidden('hidden2', hidden1, size2, options, training, position, tf.sigmoid)
    return logits(hidden2, options)


@network
def small_cnn(images: tf.Tensor, options: Options, training: bool, position: Any) -> tf.Tensor:
    """Two convolutions without padding, each pooled: 42,442 weights."""
    filters1, filters2 = sizes(options.num_filters, 32, 64)
    conv1 = convolution('conv1', images, filters1, 3, options, VALID)
    pool1 = max_pool('pool1', conv1)
    conv2 = convolution('conv2', pool1, filters2, 3, options, VALID)
    pool2 = max_pool('pool2', conv2)
    return logits(pool2, options)


@network
def dropout_cnn(images: tf.Tensor, options: Options, training: bool, position: Any) -> tf.Tensor:
    """One convolution, pooled, and a hidden layer, each with dropout: 4,200,842 weights."""
    (filters1,) = sizes(options.num_filters, 32)
    (size1,) = sizes(options.hidden_size, 512)
    conv1 = convolution('conv1', images, filters1, 3, options)
    pool1 = max_pool('pool1', conv1)
    dropout1 = dropout('dropout1', pool1, 0.25, options, training, position)
    hidden1 = _hidden('hidden1', dropout1, size1, options, training, position)
    dropout2 = dropout('dropout2', hidden1, 0.5, options, training, position)
    return logits(dropout2, options)


@network
def deep_cnn(images: tf.Tensor, options: Options, training: bool, position: Any) -> tf.Tensor:
    """Two pairs of convolutions, of 32 and of 64 filters, with dropout: 1,676,842 weights.

    The network of Keras's own example of CIFAR-10, but that the second convolution is padded.
    """
    filters1, filters2, filters3, filters4 = sizes(options.num_filters, 32, 32, 64, 64)
    (size1,) = sizes(options.hidden_size, 512)
    conv1 = convolution('conv1', images, filters1, 3, options)
    conv2 = convolution('conv2', conv1, filters2, 3, options)
    pool1 = max_pool('pool1', conv2)
    dropout1 = dropout('dropout1', pool1, 0.25, options, training, position)
    conv3 = convolution('conv3', dropout1, filters3, 3, options)
    conv4 = convolution('conv4', conv3, filters4, 3, options, VALID)
    pool2 = max_pool('pool2', conv4)
    dropout2 = dropout('dropout2', pool2, 0.25, options, training, position)
    hidden1 = _hidden('hidden1', dropout2, size1, options, training, position)
    dropout3 = dropout('dropout3', hidden1, 0.5, options, training, position)
    return logits(dropout3, options)


@network
def batch_norm_cnn(images: tf.Tensor, options: Options, training: bool, position: Any) -> tf.Tensor:
    """Three pairs of convolutions of 3 x 3 and 1 x 1, normalised: 642,090 weights.

    Besides them the normalisations have two for each of their channels, 448 in all. That they
    follow the pooling, and the parts that are dropped are this project's choice.
    """
    features = images
    for block, num_filters in enumerate(sizes(options.num_filters, 32, 64, 128)):
        first, second = 2 * block + 1, 2 * block + 2
        features = convolution(f'conv{first}', features, num_filters, 3, options)
        features = convolution(f'conv{second}', features, num_filters, 1, options)
        features = max_pool(f'pool{block + 1}', features)
        features = batch_normalization(f'norm{block + 1}', features, training, options)
        features = dropout(f'dropout{block + 1}', features, 0.25, options, training, position)
    (size1,) = sizes(options.hidden_size, 256)
    hidden1 = _hidden('hidden1', features, size1, options, training, position)
    dropout4 = dropout('dropout4', hidden1, 0.5, options, training, position)
    return logits(dropout4, options)


@network
def mnist_cnn(images: tf.Tensor, options: Options, training: bool, position: Any) -> tf.Tensor:
    """One linear convolution of 28 filters and a hidden layer: 607,394 weights.

    As Yalçın, "Image classification in 10 minutes with MNIST dataset", 2018, has it.
    """
    (filters1,) = sizes(options.num_filters, 28)
    (size1,) = sizes(options.hidden_size, 128)
    conv1 = convolution('conv1', images, filters1, 3, options, VALID, tf.identity)
    pool1 = max_pool('pool1', conv1)
    hidden1 = _hidden('hidden1', pool1, size1, options, training, position)
    dropout1 = dropout('dropout1', hidden1, 0.2, options, training, position)
    return logits(dropout1, options)


@network
def mnist_deep(images: tf.Tensor, options: Options, training: bool, position: Any) -> tf.Tensor:
    """Pairs of convolutions, of 5 x 5 and of 3 x 3, with dropout: 887,530 weights.

    As Ghouzam, "Introduction to CNN Keras", Kaggle 2017, has it.
    """
    filters1, filters2, filters3, filters4 = sizes(options.num_filters, 32, 32, 64, 64)
    (size1,) = sizes(options.hidden_size, 256)
    conv1 = convolution('conv1', images, filters1, 5, options)
    conv2 = convolution('conv2', conv1, filters2, 5, options)
    pool1 = max_pool('pool1', conv2)
    dropout1 = dropout('dropout1', pool1, 0.25, options, training, position)
    conv3 = convolution('conv3', dropout1, filters3, 3, options)
    conv4 = convolution('conv4', conv3, filters4, 3, options)
    pool2 = max_pool('pool2', conv4)
    dropout2 = dropout('dropout2', pool2, 0.25, options, training, position)
    hidden1 = _hidden('hidden1', dropout2, size1, options, training, position)
    dropout3 = dropout('dropout3', hidden1, 0.5, options, training, position)
    return logits(dropout3, options)


@network
def book(images: tf.Tensor, options: Options, training: bool, position: Any) -> tf.Tensor:
    """The tutorial's network as a book has it: 1,068,298 weights.

    McClure, "TensorFlow machine learning cookbook", 2017, ch. 8: normalisation after pooling
    in both places, over 11 channels with other constants, one standard deviation everywhere,
    and no bias at first.
    """
    features = images
    for number, num_filters in enumerate(sizes(options.num_filters, 64, 64), start=1):
        features = convolution(f'conv{number}', features, num_filters, 5, options, stddev=0.05)
        features = max_pool(f'pool{number}', features, side=3, padding=SAME)
        features = local_response_normalization(
            features, depth_radius=5, bias=2.0, alpha=0.001, name=f'norm{number}'
        )
    size3, size4 = sizes(options.hidden_size, 384, 192)
    local3 = _hidden('local3', features, size3, options, training, position, stddev=0.05)
    local4 = _hidden('local4', local3, size4, options, training, position, stddev=0.05)
    return logits(local4, options, stddev=0.05)


NETWORKS = {
    'book': Network(book),
    'logistic': Network(logistic, _WHOLE),
    'mlp': Network(mlp, _WHOLE),
    'small_cnn': Network(small_cnn, _WHOLE),
    'dropout_cnn': Network(dropout_cnn, _WHOLE),
    'deep_cnn': Network(deep_cnn, _WHOLE),
    'batch_norm_cnn': Network(batch_norm_cnn, _WHOLE, normalizes_batches=True),
    'airbench': Network(airbench, AIRBENCH_VIEW, normalizes_batches=True),
    'mnist_cnn': Network(mnist_cnn, _DIGIT),
    'mnist_deep': Network(mnist_deep, _DIGIT),
}
