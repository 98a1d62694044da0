"""Local response normalisation, made of matrix products on CPUs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow.compat.v1 as tf


def local_response_normalization(
    activation: tf.Tensor, depth_radius: int, bias: float, alpha: float, name: str
) -> tf.Tensor:
    """Local response normalisation across channels, with beta 0.75.

    Krizhevsky et al., "ImageNet classification with deep convolutional neural networks", NIPS
    2012, sec. 3.3: x / (bias + alpha * sum(x^2))^beta, the sum over the channel itself and
    `depth_radius` on either side. On a GPU, and in float16, TensorFlow's own operation computes
    it, and else `by_matrix_products`, which was chosen for CPUs.

    Args:
      activation: float16 or float32 [batch, height, width, channels].
      depth_radius: number of channels on either side in the sum.
      bias: positive.
      alpha: not negative.
      name: of the layer.

    Returns:
      Of the shape and type of `activation`.
    """
    with tf.name_scope(name):
        if activation.dtype == tf.float32 and not tf.config.list_physical_devices('GPU'):
            return by_matrix_products(activation, depth_radius, bias, alpha)
        return tf.nn.local_response_normalization(activation, depth_radius, bias, alpha, beta=0.75)


def by_matrix_products(
    activation: tf.Tensor, depth_radius: int, bias: float, alpha: float
) -> tf.Tensor:
    """`tf.nn.local_response_normalization` with beta 0.75, made of matrix products.

    With s = bias + alpha * (sum of x^2 over the channel and `depth_radius` on either
    side), the result is y = x * s^(-3/4). The sums of all channels are one product
    of x^2 with a banded matrix B of alphas, and s^(-3/4) = 1 / sqrt(s * sqrt(s))
    needs no power. By the chain rule, and as B is symmetric,

        dL/dx = dL/dy * s^(-3/4) - 2 * 3/4 * x * ((dL/dy * x * s^(-7/4)) B)
              = dL/dy * s^(-3/4) - 3/2 * x * ((dL/dy * y / s) B).

    The plain operation computes a power for each element, and its gradient one for
    each element and neighbour. Equal to it to float32 rounding, forward and gradient;
    docs/speed.md has what it buys.
    """
    num_channels = activation.shape.as_list()[-1]
    distance = np.subtract.outer(np.arange(num_channels), np.arange(num_channels))
    band = np.where(np.abs(distance) <= depth_radius, alpha, 0.0).astype(np.float32)

    @tf.custom_gradient
    def normalize(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        sums = bias + tf.matmul(x * x, band)
        scale = tf.rsqrt(sums * tf.sqrt(sums))
        y = x * scale

        def gradient(dy: tf.Tensor) -> tf.Tensor:
            return dy * scale - 1.5 * x * tf.matmul(dy * y / sums, band)

        return y, gradient

    rows = tf.reshape(activation, [-1, num_channels])
    return tf.reshape(normalize(rows), tf.shape(activation))
