"""The network of the records: 94% of CIFAR-10 in ten epochs.

Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024 (arXiv 2404.00498), with the
sizes and constants of its published programs. The presets `airbench93` to `airbench96` train it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow.compat.v1 as tf

from cifar10_input import View
from cifar10_lib.nn import layers
from cifar10_lib.nn.layers import (
    VALID,
    Options,
    batch_normalization,
    convolve,
    gelu,
    max_pool,
    network,
    weights,
)

VIEW = View(size=32, scaling='channels')

# Side of the patches that the first layer whitens, and what is added to their variances.
_PATCH_SIDE = 2
_WHITENING_EPSILON = 5e-4

# Of the logits: small ones at first, so that the first steps don't saturate the softmax.
_LOGITS_SCALE = 1 / 9


@network
def airbench(images: tf.Tensor, options: Options, training: bool, position: Any) -> tf.Tensor:
    """Whitened patches, three blocks of convolutions, and the largest values to the logits.

    Six convolutions without biases, and the logits without them too: 1,970,200 weights. Besides
    them the normalisations have a shift for each of their channels, 1,152 in all, and no scale.

    The convolutions begin as the identity, as far as they have filters for it: what is seen at
    first is whitened patches, pooled. [batch, 32, 32, 3] -> 31 x 31 x 24 -> 15 x 15 x 64 ->
    7 x 7 x 256 -> 3 x 3 x 256 -> 256.
    """
    del position
    features = gelu('gelu0', whiten('whiten', images, options), options)
    for block, num_filters in enumerate(layers.sizes(options.num_filters, 64, 256, 256)):
        features = _block(block, features, num_filters, options, training)
    features = max_pool('largest', features, side=3, stride=3)
    with tf.variable_scope('softmax_linear'):
        num_inputs = features.shape[1:].num_elements()
        matrix = weights([num_inputs, options.num_classes], None, options, initializer=_uniform)
        product = tf.matmul(tf.reshape(features, [-1, num_inputs]), matrix)
        return tf.cast(product * _LOGITS_SCALE, tf.float32)


def whiten(name: str, images: tf.Tensor, options: Options) -> tf.Tensor:
    """Convolution by filters that whiten patches of the training images, and their negatives.

    The filters derive from the data and aren't trained; the biases are.

    Args:
      name: of the layer.
      images: [batch, height, width, depth].
      options: its `first_images` are those that the filters derive from.

    Returns:
      [batch, height - 1, width - 1, 8 * depth].
    """
    depth = images.shape.as_list()[-1]
    num_filters = 2 * _PATCH_SIDE**2 * depth

    def initialize(shape, dtype=tf.float32, partition_info=None):
        del dtype, partition_info
        return tf.reshape(whitening_filters(options.first_images, depth), shape)

    with tf.variable_scope(name):
        filters = tf.get_variable(
            'weights',
            [_PATCH_SIDE, _PATCH_SIDE, depth, num_filters],
            initializer=initialize,
            trainable=False,
            collections=[tf.GraphKeys.GLOBAL_VARIABLES, tf.GraphKeys.MODEL_VARIABLES],
        )
        biases = layers.biases(num_filters, 0.0, options)
        convolved = tf.nn.conv2d(images, tf.cast(filters, images.dtype), 1, VALID)
        return tf.nn.bias_add(convolved, biases)


def whitening_filters(images: Callable[[], tf.Tensor] | None, depth: int) -> tf.Tensor:
    """Filters whose outputs over all patches are uncorrelated, with variance 1; their negatives.

    Of the patches' second moments C = V diag(l) V^T, largest first, the filters are the
    columns v / sqrt(l + 5e-4).

    Args:
      images: gives float32 [images, height, width, depth]; None: C is the identity.
      depth: of the images.

    Returns:
      float32 [2, 2, depth, 8 * depth].
    """
    size = _PATCH_SIDE**2 * depth
    moments = tf.eye(size, dtype=tf.float64)
    if images is not None:
        sides, ones = [1, _PATCH_SIDE, _PATCH_SIDE, 1], [1, 1, 1, 1]
        # In float64, which no mixed precision rewrites: the smallest value is 6e-5 of the largest.
        pixels = tf.cast(images(), tf.float64)
        patches = tf.reshape(tf.image.extract_patches(pixels, sides, ones, ones, VALID), [-1, size])
        moments = tf.matmul(patches, patches, transpose_a=True)
        moments /= tf.cast(tf.shape(patches)[0], tf.float64)
    values, vectors = tf.linalg.eigh(moments)
    filters = tf.reverse(vectors / tf.sqrt(values + _WHITENING_EPSILON), axis=[1])
    filters = tf.concat([filters, -filters], axis=1)
    return tf.cast(tf.reshape(filters, [_PATCH_SIDE, _PATCH_SIDE, depth, 2 * size]), tf.float32)


def _block(
    block: int, features: tf.Tensor, num_filters: int, options: Options, training: bool
) -> tf.Tensor:
    """Convolutions of 3 x 3, normalised, with GELU; the first halves height and width.

    Where there are three, the last adds to what the first gave: He et al., "Deep residual
    learning for image recognition", CVPR 2016.

    Args:
      block: its number, from 0 on.
      features: [batch, height, width, depth].
      num_filters: of each convolution.
      options: of the network.
      training: normalise by the statistics of the batch.

    Returns:
      [batch, height // 2, width // 2, num_filters].
    """
    outputs: list[tf.Tensor] = []
    for place in range(options.block_depth):
        number = block * options.block_depth + place + 1
        with tf.variable_scope(f'conv{number}'):
            shape = [3, 3, features.shape.as_list()[-1], num_filters]
            kernel = weights(shape, None, options, options.conv_weight_decay, _partial_identity)
            features = convolve(features, kernel, options)
        if place == 0:
            # Before the rest, of which it leaves a quarter of the values.
            features = max_pool(f'pool{block + 1}', features)
        features = batch_normalization(f'norm{number}', features, training, options, scale=False)
        if place == 2:
            features = tf.add(features, outputs[0], name=f'sum{block + 1}')
        features = gelu(f'gelu{number}', features, options)
        layers.summarize(f'conv{number}', features, options)
        outputs.append(features)
    return features


def _uniform(shape: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """-b to b, b = 1 / sqrt(number of inputs of an output), as PyTorch has it."""
    limit = 1.0 / tf.TensorShape(shape[:-1]).num_elements() ** 0.5
    return tf.random.stateless_uniform(shape, seed, minval=-limit, maxval=limit)


def _partial_identity(shape: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """The first filters pass on a channel each, as many as there are channels; the rest random.

    Zagoruyko and Komodakis, "DiracNets", 2017.
    """
    height, width, inputs, outputs = shape
    count = min(inputs, outputs)
    passed_on = tf.pad(
        tf.eye(inputs, count)[tf.newaxis, tf.newaxis],
        [[height // 2] * 2, [width // 2] * 2, [0, 0], [0, 0]],
    )
    return tf.concat([passed_on, _uniform(shape, seed)[..., count:]], axis=-1)
