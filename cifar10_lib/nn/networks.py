"""Which networks are there, and which one is a run's? MODELS by the names of --model.

Each is a small function of images and of what the pass is for, made of the layers in
`cifar10_layers.py`; the recipe that it was published with is the preset of its name in
`cifar10_recipe.py`. One more is one more function and one more line in MODELS, and its name
in `cifar10_recipe.MODEL_NAMES`.
"""

from __future__ import annotations

from typing import Any

import tensorflow.compat.v1 as tf

import cifar10
from cifar10_input import View
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import setting
from cifar10_lib.nn.layers import (
    SAME,
    VALID,
    Model,
    Pass,
    batch_normalization,
    convolution,
    dropout,
    hidden,
    local_response_normalization,
    logits,
    max_pool,
)
from cifar10_lib.nn.recipes import MODEL_NAMES
from cifar10_lib.runs import run_folder

# All of the image, as Keras's examples scale it.
_WHOLE = View(size=32, scaling='unit')

# One channel of MNIST's 28 x 28 pixels, which records have in the middle of 32 x 32.
_DIGIT = View(size=28, depth=1, scaling='unit')


def logistic(images: tf.Tensor, given: Pass) -> tf.Tensor:
    """Multinomial logistic regression: 30,730 weights."""
    return logits(images, given)


def mlp(images: tf.Tensor, given: Pass) -> tf.Tensor:
    """A multilayer perceptron of two hidden layers of 128 sigmoids: 411,146 weights."""
    hidden1 = hidden('hidden1', images, 128, given, tf.sigmoid)
    hidden2 = hidden('hidden2', hidden1, 128, given, tf.sigmoid)
    return logits(hidden2, given)


def small_cnn(images: tf.Tensor, given: Pass) -> tf.Tensor:
    """Two convolutions without padding, each pooled: 42,442 weights."""
    conv1 = convolution('conv1', images, 32, 3, given, VALID)
    pool1 = max_pool('pool1', conv1)
    conv2 = convolution('conv2', pool1, 64, 3, given, VALID)
    pool2 = max_pool('pool2', conv2)
    return logits(pool2, given)


def dropout_cnn(images: tf.Tensor, given: Pass) -> tf.Tensor:
    """One convolution, pooled, and a hidden layer, each with dropout: 4,200,842 weights."""
    conv1 = convolution('conv1', images, 32, 3, given)
    pool1 = max_pool('pool1', conv1)
    dropout1 = dropout('dropout1', pool1, 0.25, given)
    hidden1 = hidden('hidden1', dropout1, 512, given)
    dropout2 = dropout('dropout2', hidden1, 0.5, given)
    return logits(dropout2, given)


def deep_cnn(images: tf.Tensor, given: Pass) -> tf.Tensor:
    """Two pairs of convolutions, of 32 and of 64 filters, with dropout: 1,676,842 weights.

    The network of Keras's own example of CIFAR-10, but that the second convolution is padded.
    """
    conv1 = convolution('conv1', images, 32, 3, given)
    conv2 = convolution('conv2', conv1, 32, 3, given)
    pool1 = max_pool('pool1', conv2)
    dropout1 = dropout('dropout1', pool1, 0.25, given)
    conv3 = convolution('conv3', dropout1, 64, 3, given)
    conv4 = convolution('conv4', conv3, 64, 3, given, VALID)
    pool2 = max_pool('pool2', conv4)
    dropout2 = dropout('dropout2', pool2, 0.25, given)
    hidden1 = hidden('hidden1', dropout2, 512, given)
    dropout3 = dropout('dropout3', hidden1, 0.5, given)
    return logits(dropout3, given)


def batch_norm_cnn(images: tf.Tensor, given: Pass) -> tf.Tensor:
    """Three pairs of convolutions of 3 x 3 and 1 x 1, normalised: 642,090 weights.

    Besides them the normalisations have two for each of their channels, 448 in all. That they
    follow the pooling, and the parts that are dropped, are this project's choice.
    """
    features = images
    for block, num_filters in enumerate((32, 64, 128)):
        first, second = 2 * block + 1, 2 * block + 2
        features = convolution(f'conv{first}', features, num_filters, 3, given)
        features = convolution(f'conv{second}', features, num_filters, 1, given)
        features = max_pool(f'pool{block + 1}', features)
        features = batch_normalization(f'norm{block + 1}', features, given)
        features = dropout(f'dropout{block + 1}', features, 0.25, given)
    hidden1 = hidden('hidden1', features, 256, given)
    dropout4 = dropout('dropout4', hidden1, 0.5, given)
    return logits(dropout4, given)


def mnist_cnn(images: tf.Tensor, given: Pass) -> tf.Tensor:
    """One linear convolution of 28 filters and a hidden layer: 607,394 weights.

    As Yalçın, "Image classification in 10 minutes with MNIST dataset", 2018, has it.
    """
    conv1 = convolution('conv1', images, 28, 3, given, VALID, tf.identity)
    pool1 = max_pool('pool1', conv1)
    hidden1 = hidden('hidden1', pool1, 128, given)
    dropout1 = dropout('dropout1', hidden1, 0.2, given)
    return logits(dropout1, given)


def mnist_deep(images: tf.Tensor, given: Pass) -> tf.Tensor:
    """Pairs of convolutions, of 5 x 5 and of 3 x 3, with dropout: 887,530 weights.

    As Ghouzam, "Introduction to CNN Keras", Kaggle 2017, has it.
    """
    conv1 = convolution('conv1', images, 32, 5, given)
    conv2 = convolution('conv2', conv1, 32, 5, given)
    pool1 = max_pool('pool1', conv2)
    dropout1 = dropout('dropout1', pool1, 0.25, given)
    conv3 = convolution('conv3', dropout1, 64, 3, given)
    conv4 = convolution('conv4', conv3, 64, 3, given)
    pool2 = max_pool('pool2', conv4)
    dropout2 = dropout('dropout2', pool2, 0.25, given)
    hidden1 = hidden('hidden1', dropout2, 256, given)
    dropout3 = dropout('dropout3', hidden1, 0.5, given)
    return logits(dropout3, given)


def book(images: tf.Tensor, given: Pass) -> tf.Tensor:
    """The tutorial's network as a book has it: 1,068,298 weights.

    McClure, "TensorFlow machine learning cookbook", 2017, ch. 8: normalisation after pooling
    in both places, over 11 channels with other constants, one standard deviation everywhere,
    and no bias at first.
    """
    features = images
    for number in (1, 2):
        features = convolution(f'conv{number}', features, 64, 5, given, stddev=0.05)
        features = max_pool(f'pool{number}', features, side=3, padding=SAME)
        features = local_response_normalization(
            f'norm{number}', features, depth_radius=5, bias=2.0, alpha=0.001
        )
    local3 = hidden('local3', features, 384, given, stddev=0.05)
    local4 = hidden('local4', local3, 192, given, stddev=0.05)
    return logits(local4, given, stddev=0.05)


MODELS = {
    model.name: model
    for model in (
        cifar10.TUTORIAL_MODEL,
        Model('book', book),
        Model('logistic', logistic, _WHOLE),
        Model('mlp', mlp, _WHOLE),
        Model('small_cnn', small_cnn, _WHOLE),
        Model('dropout_cnn', dropout_cnn, _WHOLE),
        Model('deep_cnn', deep_cnn, _WHOLE),
        Model('batch_norm_cnn', batch_norm_cnn, _WHOLE, normalizes_batches=True),
        Model('mnist_cnn', mnist_cnn, _DIGIT),
        Model('mnist_deep', mnist_deep, _DIGIT),
    )
}


def model_setting() -> Any:
    """The flag --model of a script that opens checkpoints."""
    return setting(
        None,
        'The network of the checkpoints; by default the one that the settings beside them name, '
        'else tutorial.',
        choices=MODEL_NAMES,
    )


def of_run(directory: str, asked_for: str | None = None) -> Model:
    """The network of the checkpoints in a folder.

    Args:
      directory: of the checkpoints.
      asked_for: its name, for a folder without settings; None: the tutorial's there.

    Raises:
      UserError: the settings can't be read, name a network that isn't there, or another one
        than is asked for.
    """
    stored = run_folder.load(directory)
    named = run_folder.stored_choice(stored, directory, 'model', MODEL_NAMES)
    name = named or (None if stored else asked_for) or cifar10.TUTORIAL_MODEL.name
    if asked_for not in (None, name):
        raise UserError(
            f'--model={asked_for}: the checkpoints in {directory} are of the network {name}'
        )
    return MODELS[name]
