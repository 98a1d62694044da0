"""Operations that write summaries for TensorBoard."""

from __future__ import annotations

import tensorflow.compat.v1 as tf

# Collection of the histogram summaries, which cost far more than the scalars of
# tf.GraphKeys.SUMMARIES.
HISTOGRAMS = 'histograms'

# Images of a batch that its picture shows, at most; how many of them in a row; side of one of
# their pixels, as most of the 24 x 24 would otherwise fill no more of a screen than a letter.
_NUM_IMAGES = 8
_IMAGES_IN_A_ROW = 4
_MAGNIFICATION = 5


def summary_scope() -> tf.name_scope:
    """The name scope of all that is computed for summaries alone."""
    # Ending in a slash it is the same one wherever it is opened.
    return tf.name_scope('summaries/')


def scalar(tag: str, value: tf.Tensor) -> None:
    """Adds a scalar to the summaries.

    tf.summary.scalar would make a name scope of the tag.
    """
    with summary_scope():
        summary = tf.raw_ops.ScalarSummary(tags=tag, values=value, name=tag)
    tf.add_to_collection(tf.GraphKeys.SUMMARIES, summary)


def histogram(tag: str, values: tf.Tensor) -> None:
    """Adds the histogram of floating-point values to the collection HISTOGRAMS."""
    with summary_scope():
        summary = tf.raw_ops.HistogramSummary(tag=tag, values=values, name=tag)
    tf.add_to_collection(HISTOGRAMS, summary)


def images(batch: tf.Tensor) -> None:
    """Adds a picture of the first images of a batch to the summaries.

    Args:
      batch: float32 [batch, height, width, channels]; each image is shown from its
        smallest value, black, to its largest.
    """
    with summary_scope():
        summary = tf.raw_ops.ImageSummary(
            tag='input/distorted', tensor=_contact_sheet(batch)[tf.newaxis], max_images=1
        )
    tf.add_to_collection(tf.GraphKeys.SUMMARIES, summary)


def _contact_sheet(batch: tf.Tensor) -> tf.Tensor:
    """uint8 [rows, columns, channels]: the first images of a batch, in full rows, magnified."""
    num_images = min(_NUM_IMAGES, batch.shape.as_list()[0])
    in_a_row = min(_IMAGES_IN_A_ROW, num_images)
    num_rows = num_images // in_a_row
    some = batch[: num_rows * in_a_row]
    low = tf.reduce_min(some, axis=[1, 2, 3], keepdims=True)
    high = tf.reduce_max(some, axis=[1, 2, 3], keepdims=True)
    some = tf.cast(tf.math.divide_no_nan(some - low, high - low) * 255, tf.uint8)
    some = tf.repeat(tf.repeat(some, _MAGNIFICATION, axis=1), _MAGNIFICATION, axis=2)
    gap = _MAGNIFICATION // 2
    some = tf.pad(some, [[0, 0], [gap, gap], [gap, gap], [0, 0]], constant_values=255)
    _, height, width, channels = some.shape.as_list()
    rows = tf.reshape(some, [num_rows, in_a_row, height, width, channels])
    rows = tf.transpose(rows, [0, 2, 1, 3, 4])
    return tf.reshape(rows, [num_rows * height, in_a_row * width, channels])
