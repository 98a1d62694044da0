"""Encoded pictures become the squares of records within a graph, as `data.photos` makes them.

TensorFlow decodes JPEG, PNG, BMP, GIF (of an animation the first frame) and, in 2.21, WebP.
Two things are not done here: a picture stays as its camera stored it, without the turn that its
metadata asks for, and animated WebP is refused.
"""

from __future__ import annotations

from typing import Any

import tensorflow.compat.v1 as tf

from cifar10_lib.data.framing import Framing

# Mean and largest difference of a value of a square, 0 to 255, from `photos.read`: Pillow scales
# with weights of 22 bits, rounds grey of 16 bits that TensorFlow cuts, and decodes large JPEGs at
# a fraction of their size.
MEAN_TOLERANCE, LARGEST_TOLERANCE = 0.5, 4

EXPECTED = 'expected a JPEG, PNG, GIF, BMP or a WebP without animation'

# What a file of each format begins with. Others are not handed to a decoder.
_BEGINNINGS = (b'\xff\xd8\xff', b'\x89PNG\r\n', b'GIF8', b'BM')

# Of a WebP file: RIFF, the length, WEBP; then VP8X, another length, and flags where it has any.
_WEBP_FLAGS = 20
_ANIMATION_FLAG = 0x02


def decode_pictures(encoded: tf.Tensor, framing: Framing) -> tf.Tensor:
    """The squares of encoded pictures.

    Args:
      encoded: string [batch], files of any size and shape.
      framing: how a picture becomes a square.

    Returns:
      uint8 [batch, size, size, 3]. Where a picture can't be decoded it fails with
      tf.errors.InvalidArgumentError.
    """
    return tf.map_fn(
        lambda content: _square(_decode(content), framing),
        encoded,
        fn_output_signature=tf.TensorSpec([framing.size, framing.size, 3], tf.uint8),
    )


def _decode(content: tf.Tensor) -> tf.Tensor:
    """A picture on white, float32 [height, width, 3], of its file, string []."""
    with tf.control_dependencies([tf.debugging.Assert(_is_decodable(content), [EXPECTED])]):
        content = tf.identity(content)
    pixels = tf.cond(
        tf.io.is_jpeg(content),
        # Pillow's way; the default is faster, and up to 5 levels off.
        lambda: tf.io.decode_jpeg(content, dct_method='INTEGER_ACCURATE'),
        lambda: tf.io.decode_image(content, expand_animations=False),
    )
    # Grey, grey and opacity, RGB, or RGB and opacity.
    depth = tf.shape(pixels)[2]
    values = tf.cast(pixels, tf.float32)
    colours = tf.cond(
        depth >= 3, lambda: values[..., :3], lambda: tf.tile(values[..., :1], [1, 1, 3])
    )
    opacity = tf.cond(
        tf.equal(depth % 2, 0),
        lambda: values[..., -1:] / 255,
        lambda: tf.ones_like(values[..., :1]),
    )
    return tf.round(colours * opacity + 255 * (1 - opacity))


def _is_decodable(content: tf.Tensor) -> tf.Tensor:
    """Whether a decoder may be given the file, bool [].

    That of TensorFlow 2.21 ends its process, the server, where a WebP picture is animated.
    """
    # Zeros behind, so that a shorter file has these bytes as well.
    start = tf.strings.substr(content + bytes(_WEBP_FLAGS + 1), 0, _WEBP_FLAGS + 1)
    flags = tf.io.decode_raw(start, tf.uint8)[_WEBP_FLAGS]
    is_animated = tf.equal(tf.strings.substr(start, 12, 4), b'VP8X') & tf.not_equal(
        tf.bitwise.bitwise_and(flags, _ANIMATION_FLAG), 0
    )
    is_webp = tf.equal(tf.strings.substr(start, 8, 4), b'WEBP')
    known = [tf.equal(tf.strings.substr(start, 0, len(each)), each) for each in _BEGINNINGS]
    return tf.reduce_any(known) | (is_webp & ~is_animated)


def _square(picture: tf.Tensor, framing: Framing) -> tf.Tensor:
    """As `photos.square`: uint8 [size, size, 3] of float32 [height, width, 3]."""
    inner, size = framing.inner or framing.size, framing.size
    shape = tf.shape(picture)[:2]
    box, corner, scaled = shape, tf.constant([0, 0]), tf.constant([inner, inner])
    if framing.fit == 'crop':
        box = tf.fill([2], tf.reduce_min(shape))
        corner = (shape - box) // 2
    elif framing.fit == 'pad':
        lengths = tf.cast(shape, tf.float64)
        scaled = tf.cast(tf.round(lengths * (inner / tf.reduce_max(lengths))), tf.int32)
        scaled = tf.maximum(scaled, 1)
    scale = tf.cast(scaled / box, tf.float32)
    shift = -tf.cast(corner, tf.float32) * scale
    # As Pillow: one direction after the other, each rounded.
    picture = _resample(picture, [shape[0], scaled[1]], [1.0, scale[1]], [0.0, shift[1]])
    picture = _resample(picture, scaled, [scale[0], 1.0], [shift[0], 0.0])
    if framing.invert:
        picture = 255 - picture
    return tf.cast(tf.image.resize_image_with_crop_or_pad(picture, size, size), tf.uint8)


def _resample(picture: tf.Tensor, shape: Any, scale: Any, shift: Any) -> tf.Tensor:
    """A picture scaled bicubically, free of aliasing, then moved by `shift`, cut to `shape`.

    Beyond tf.image.resize it has the shift: what lies around a box counts at its edges.
    """
    (resampled,) = tf.unstack(
        tf.raw_ops.ScaleAndTranslate(
            images=picture[tf.newaxis],
            size=shape,
            scale=scale,
            translation=shift,
            kernel_type='keyscubic',
        )
    )
    return tf.clip_by_value(tf.round(resampled), 0, 255)
