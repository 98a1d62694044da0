"""The classic exercise: what a kernel of 3 x 3 makes of a picture, and its pooling."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from PIL import Image

from cifar10_lib.base.errors import UserError

_NINTH, _SIXTEENTH = 1 / 9, 1 / 16

# Kernels by name, row by row.
KERNELS = {
    'identity': (0, 0, 0, 0, 1, 0, 0, 0, 0),
    'blur': (_NINTH,) * 9,
    'gaussian': tuple(_SIXTEENTH * value for value in (1, 2, 1, 2, 4, 2, 1, 2, 1)),
    'sharpen': (0, -1, 0, -1, 5, -1, 0, -1, 0),
    'edge': (-1, -1, -1, -1, 8, -1, -1, -1, -1),
    'laplacian': (0, 1, 0, 1, -4, 1, 0, 1, 0),
    'sobel_x': (-1, 0, 1, -2, 0, 2, -1, 0, 1),
    'sobel_y': (-1, -2, -1, 0, 0, 0, 1, 2, 1),
    'prewitt_x': (-1, 0, 1, -1, 0, 1, -1, 0, 1),
    'prewitt_y': (-1, -1, -1, 0, 0, 0, 1, 1, 1),
    'emboss': (-2, -1, 0, -1, 1, 1, 0, 1, 2),
}

# Of a kernel; beyond, float32 sums would say nothing.
_LARGEST = 1e6


class Filtered(NamedTuple):
    """A picture on its way through a kernel, float32, in units of its grey values 0 to 255."""

    grey: np.ndarray
    """[height, width]."""
    padded: np.ndarray
    """[height + 2, width + 2], with a border of zeros."""
    convolved: np.ndarray
    """[height, width]."""
    pooled: np.ndarray
    """[height // 2, width // 2], the largest value of each 2 x 2."""


def parse(text: str) -> np.ndarray:
    """A kernel, float32 [3, 3]: a name of `KERNELS`, or nine numbers, row by row.

    Raises:
      UserError: it is something else.
    """
    values = KERNELS.get(text)
    if values is None:
        try:
            values = tuple(float(part) for part in text.split(','))
        except ValueError:
            values = ()
    if len(values) != 9 or not all(math.isfinite(v) and abs(v) <= _LARGEST for v in values):
        raise UserError(
            f'--kernel={text}: expected {", ".join(KERNELS)}, or nine numbers, row by row, such as '
            '1,0,-1,2,0,-2,1,0,-1'
        )
    return np.array(values, np.float32).reshape(3, 3)


def apply(image: Image.Image, kernel: np.ndarray) -> Filtered:
    """Takes a picture through a kernel, as a convolution with one filter does, and pools it.

    As in networks, the kernel is not turned round: each value is the sum of its products with the
    pixels that it lies on.

    Args:
      image: of any size, of at least 2 x 2 pixels.
      kernel: float32 [3, 3].

    Raises:
      UserError: the picture is smaller.
    """
    if min(image.size) < 2:
        width, height = image.size
        raise UserError(f'a picture of {width} x {height} pixels: expected at least 2 x 2')
    grey = np.asarray(image.convert('L'), np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        pixels = tf.constant(grey)[tf.newaxis, :, :, tf.newaxis]
        padded = tf.pad(pixels, [[0, 0], [1, 1], [1, 1], [0, 0]])
        filters = tf.constant(kernel)[:, :, tf.newaxis, tf.newaxis]
        convolved = tf.nn.conv2d(padded, filters, strides=1, padding='VALID')
        pooled = tf.nn.max_pool(convolved, ksize=2, strides=2, padding='VALID')
        results = session.run([pixels, padded, convolved, pooled])
    return Filtered(*(values[0, :, :, 0] for values in results))
