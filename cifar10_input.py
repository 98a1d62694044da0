"""Bytes on disk become a batch.

files -> FixedLengthRecordDataset -> order of the epoch -> batch of raw records
-> one vectorised step that decodes and distorts a batch -> prefetch.

The batch at a position of the stream is a pure function of (files, seed,
position): the order of epoch e derives from (seed, e), and the distortions of
the example at position p from (seed, p). No state of the input needs
saving, a resumed run continues with the very next example, and the batch size changes only
where the stream is cut.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence

import tensorflow.compat.v1 as tf

# The side of the square that the network sees, cut from the 32 x 32 of a record.
IMAGE_SIZE = 24

NUM_CLASSES = 10
NUM_EXAMPLES_PER_EPOCH_FOR_TRAIN = 50000
NUM_EXAMPLES_PER_EPOCH_FOR_EVAL = 10000

TRAIN_FILES = tuple(f'data_batch_{i}.bin' for i in range(1, 6))
TEST_FILES = ('test_batch.bin',)

# Sets of images to evaluate on: the test images; the training images, without those held out; and
# the held-out ones.
EVAL_DATA = ('test', 'train_eval', 'held_out')

# Numbers of views of an image that `evaluation_views` gives.
NUM_VIEWS = (1, 6, 10)

# Of CIFAR-10's training images, channel by channel, with pixels of 0 to 1.
CHANNEL_MEANS = (0.4914, 0.4822, 0.4465)
CHANNEL_STDDEVS = (0.2470, 0.2435, 0.2616)

# Records held while an epoch is shuffled: at 3,073 bytes each, all of CIFAR-10
# takes 154 MB. A larger data set is shuffled within a window of this many.
SHUFFLE_WINDOW = 50000

# Philox gives four 32-bit numbers for each value of its counter.
_PHILOX = 1
_NUMBERS_PER_COUNTER = 4

# Random numbers kept for each example's distortions: as many as two values of the counter give.
# In this order: crop's row and column, flip, brightness, contrast, cutout's row and column.
_NUMBERS_PER_EXAMPLE = 8

# Streams of the random numbers of `warp` and `mix_up`; the other distortions take stream 0.
_WARP_STREAM = 1
_MIXUP_STREAM = 2

# Halvings of an interval that find a share to 6e-8, the precision of float32.
_NUM_HALVINGS = 24


@dataclasses.dataclass(frozen=True)
class RecordFormat:
    """A binary record: label bytes, then the image, one channel after the other.

    The default is CIFAR-10's (https://www.cs.toronto.edu/~kriz/cifar.html). A
    record of CIFAR-100 has a coarse and a fine label byte: RecordFormat(label_bytes=2)
    reads the fine one, RecordFormat(label_bytes=2, label_index=0) the coarse.
    """

    label_bytes: int = 1
    height: int = 32
    width: int = 32
    depth: int = 3
    label_index: int = -1

    @property
    def image_bytes(self) -> int:
        return self.height * self.width * self.depth

    @property
    def record_bytes(self) -> int:
        return self.label_bytes + self.image_bytes


CIFAR10_RECORD = RecordFormat()


@dataclasses.dataclass(frozen=True)
class Distortions:
    """Ranges of the distortions of training images; the defaults are the tutorial's.

    Attributes:
      max_shift: pixels that the crop may lie from the centre, both ways, as far as the image
        goes; 0: the central crop. 4 is all of a 32 x 32 image.
      reflect_padding: pixels by which the image is first enlarged on each side, mirrored at its
        edge; they take part in the crop.
      flip: whether half of the images are mirrored left to right.
      alternating_flip: mirror each image in every other epoch, half of them first in the first:
        Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024, sec. 3.6.
      max_brightness: largest value added to pixels of 0 to 255, or taken from them.
      max_contrast: the distance from the channel's mean is multiplied by 1 - max_contrast to
        1 + max_contrast; 0 to 1.
      max_rotation: degrees about the centre, both ways.
      max_zoom: height and width, each by itself, show 1 - max_zoom to 1 + max_zoom of what
        they would; 0 to less than 1.
      max_translation: part of its side by which what the network sees is moved, both ways
        and in both directions.
      cutout: side in pixels of a square at a random place in the crop that is set to 0 once
        scaled: DeVries and Taylor, "Improved regularization of convolutional neural networks
        with cutout", 2017.
      mixup: alpha of `mix_up`; 0: images aren't mixed.
    """

    max_shift: int = 4
    reflect_padding: int = 0
    flip: bool = True
    alternating_flip: bool = False
    max_brightness: float = 63.0
    max_contrast: float = 0.8
    max_rotation: float = 0.0
    max_zoom: float = 0.0
    max_translation: float = 0.0
    cutout: int = 0
    mixup: float = 0.0

    @property
    def warps(self) -> bool:
        """Whether images are rotated, zoomed or translated."""
        return any((self.max_rotation, self.max_zoom, self.max_translation))


TUTORIAL_DISTORTIONS = Distortions()


SCALINGS = ('standardized', 'unit', 'channels')


@dataclasses.dataclass(frozen=True)
class View:
    """The part of an image that a network sees; the defaults are the tutorial's.

    Attributes:
      size: side of the square that is cut from the image, in pixels.
      depth: how many of the image's channels, the first ones.
      scaling: one of SCALINGS. 'standardized', each image to mean 0 and variance 1; 'unit', 0 to
        255 as 0 to 1; 'channels', each channel by CIFAR-10's mean and standard deviation of it.
    """

    size: int = IMAGE_SIZE
    depth: int = CIFAR10_RECORD.depth
    scaling: str = 'standardized'


TUTORIAL_VIEW = View()


def train_files(data_dir: str) -> list[str]:
    """Paths of the five training files in `data_dir`, or of the first where it is alone."""
    first, *others = (os.path.join(data_dir, name) for name in TRAIN_FILES)
    is_alone = os.path.exists(first) and not any(map(os.path.lexists, others))
    return [first] if is_alone else [first, *others]


def test_files(data_dir: str) -> list[str]:
    """Path of the one test file in `data_dir`."""
    return [os.path.join(data_dir, name) for name in TEST_FILES]


def count_examples(files: Sequence[str], record: RecordFormat = CIFAR10_RECORD) -> int:
    """Number of complete records in `files`.

    Raises:
      OSError: a file is missing.
    """
    return sum(os.path.getsize(file) // record.record_bytes for file in files)


def decode_records(
    records: tf.Tensor, record: RecordFormat = CIFAR10_RECORD
) -> tuple[tf.Tensor, tf.Tensor]:
    """Turns raw records into labels and images.

    Args:
      records: string [batch], each of `record.record_bytes` bytes.
      record: the records' format.

    Returns:
      images: uint8 [batch, height, width, depth], 0 to 255.
      labels: int32 [batch], 0 to 255.
    """
    data = tf.ensure_shape(tf.io.decode_raw(records, tf.uint8), [None, record.record_bytes])
    labels = tf.cast(data[:, : record.label_bytes][:, record.label_index], tf.int32)
    planes = tf.reshape(
        data[:, record.label_bytes :], [-1, record.depth, record.height, record.width]
    )
    # Not tf.transpose: oneDNN declines it for uint8 and logs an error each time.
    return tf.stack(tf.unstack(planes, axis=1), axis=-1), labels


def random_numbers(
    seed: int,
    position: tf.Tensor,
    count: int | tf.Tensor,
    numbers_per_example: int = _NUMBERS_PER_EXAMPLE,
    stream: int = 0,
) -> tf.Tensor:
    """Uniform random numbers for `count` examples from `position` on.

    The row of an example depends on `seed` and its own position alone, however
    the stream is cut into batches: Philox is a counter-based generator (Salmon
    et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) and the
    counter is derived from the position.

    Args:
      seed: 0 to 2**63 - 1.
      position: int64 [], the first example's place in the stream.
      count: number of examples.
      numbers_per_example: number of random numbers for each.
      stream: 0 to 2**63 - 1; the numbers of different streams are independent.

    Returns:
      float32 [count, numbers_per_example], in [0, 1).
    """
    counters_per_example = -(-numbers_per_example // _NUMBERS_PER_COUNTER)
    counter = tf.cast(position * counters_per_example, tf.uint64)
    numbers = tf.raw_ops.StatelessRandomUniformV2(
        shape=[count, counters_per_example * _NUMBERS_PER_COUNTER],
        key=tf.constant([seed], tf.uint64),
        counter=tf.stack([counter, tf.constant(stream, tf.uint64)]),
        alg=_PHILOX,
    )
    return numbers[:, :numbers_per_example]


def crop_and_flip(
    images: tf.Tensor, top: tf.Tensor, left: tf.Tensor, flip: tf.Tensor, size: int = IMAGE_SIZE
) -> tf.Tensor:
    """Cuts one square from each image, and mirrors some left to right.

    Args:
      images: [batch, height, width, depth], any type.
      top, left: int32 [batch], the square's first row and column; 0 to
        height - size and 0 to width - size.
      flip: bool [batch], which squares to mirror.
      size: side of the square in pixels.

    Returns:
      [batch, size, size, depth], of the type of `images`.
    """
    steps = tf.range(size)
    rows = top[:, tf.newaxis] + steps
    columns = left[:, tf.newaxis] + tf.where_v2(
        flip[:, tf.newaxis], tf.reverse(steps, [0])[tf.newaxis], steps[tf.newaxis]
    )
    images = tf.gather(images, rows, batch_dims=1)
    columns = tf.broadcast_to(columns[:, tf.newaxis], [tf.shape(images)[0], size, size])
    return tf.gather(images, columns, batch_dims=2)


def adjust_brightness(images: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
    """Adds `delta` float32 [batch] to `images` float32 [batch, height, width, depth].

    As in the tutorial, the result is not clipped to 0 to 255.
    """
    return images + delta[:, tf.newaxis, tf.newaxis, tf.newaxis]


def adjust_contrast(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Scales each channel's distance from its mean, one factor for each image.

    As `tf.image.adjust_contrast`: (x - mean) * factor + mean, with the mean over
    the image's pixels, channel by channel.

    Args:
      images: float32 [batch, height, width, depth].
      factor: float32 [batch].

    Returns:
      float32 [batch, height, width, depth].
    """
    mean = tf.reduce_mean(images, axis=[1, 2], keepdims=True)
    return (images - mean) * factor[:, tf.newaxis, tf.newaxis, tf.newaxis] + mean


def reflect_pad(images: tf.Tensor, size: int) -> tf.Tensor:
    """Adds `size` pixels to each side of `images`, mirrored at the edge, which isn't repeated."""
    return tf.pad(images, [[0, 0], [size, size], [size, size], [0, 0]], mode='REFLECT')


def alternating_flips(records: tf.Tensor, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Which images alternating flip mirrors: in each epoch those that the last one didn't.

    Args:
      records: string [batch], raw records; a hash of each decides about the first epoch.
      seed: 0 to 2**63 - 1, of the hash.
      epoch: int64 [batch], the epoch of each, from 0 on.

    Returns:
      bool [batch].
    """
    first = tf.strings.to_hash_bucket_strong(records, 2, key=[seed, 0])
    return tf.equal((first + epoch) % 2, 1)


def cut_out(images: tf.Tensor, top: tf.Tensor, left: tf.Tensor, side: int) -> tf.Tensor:
    """Sets a square of each image to 0.

    Args:
      images: float32 [batch, size, size, depth].
      top, left: float32 [batch] in [0, 1), the square's place among those that lie in the image.
      side: of the square in pixels.
    """
    size = images.shape.as_list()[1]
    rows, columns = (
        tf.cast(place * (size - side + 1), tf.int32)[:, tf.newaxis] for place in (top, left)
    )
    steps = tf.range(size)
    in_rows = (steps >= rows) & (steps < rows + side)
    in_columns = (steps >= columns) & (steps < columns + side)
    inside = in_rows[:, :, tf.newaxis] & in_columns[:, tf.newaxis]
    return tf.where_v2(inside[..., tf.newaxis], 0.0, images)


def warp(images: tf.Tensor, numbers: tf.Tensor, distortions: Distortions, side: int) -> tf.Tensor:
    """Rotates, zooms and translates each image about its centre.

    Each pixel of the result is interpolated between the four of the image that lie about
    the place that it shows; beyond the edge, the nearest pixel is taken.

    Args:
      images: [batch, height, width, depth], 0 to 255.
      numbers: float32 [batch, 8] in [0, 1), as `random_numbers` gives them.
      distortions: ranges of rotation, zoom and translation.
      side: of the square that the network sees, in pixels.

    Returns:
      float32 [batch, height, width, depth].
    """
    turn, zoom_x, zoom_y, move_x, move_y = (
        2 * number - 1 for number in tf.unstack(numbers[:, :5], axis=1)
    )
    angle = turn * (distortions.max_rotation * math.pi / 180)
    width_shown = 1 + zoom_x * distortions.max_zoom
    height_shown = 1 + zoom_y * distortions.max_zoom
    # Of the image's x and y, by the result's x and y from the centre.
    from_x = tf.cos(angle) * width_shown, tf.sin(angle) * width_shown
    from_y = -tf.sin(angle) * height_shown, tf.cos(angle) * height_shown
    _, height, width, _ = images.shape.as_list()
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    moved = distortions.max_translation * side
    at_x, at_y = (
        centre + move * moved - from_x[i] * centre_x - from_y[i] * centre_y
        for i, (centre, move) in enumerate([(centre_x, move_x), (centre_y, move_y)])
    )
    none = tf.zeros_like(angle)
    rows = [from_x[0], from_y[0], at_x, from_x[1], from_y[1], at_y, none, none]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=tf.stack(rows, axis=1),
        output_shape=[height, width],
        fill_value=0.0,
        interpolation='BILINEAR',
        fill_mode='NEAREST',
    )


def distort(
    images: tf.Tensor,
    numbers: tf.Tensor,
    distortions: Distortions = TUTORIAL_DISTORTIONS,
    view: View = TUTORIAL_VIEW,
    flips: tf.Tensor | None = None,
) -> tf.Tensor:
    """Random crop, flip, brightness and contrast, then scaling and cutout.

    Args:
      images: [batch, height, width, depth], 0 to 255.
      numbers: float32 [batch, 8] in [0, 1), as `random_numbers` gives them.
      distortions: ranges.
      view: size of the crop, channels and scaling.
      flips: bool [batch], which images to mirror, in place of what `distortions` asks for.

    Returns:
      float32 [batch, size, size, depth], scaled as the view has it.
    """
    top, left, flip, brightness, contrast, cut_top, cut_left = tf.unstack(numbers[:, :7], axis=1)
    images = _first_channels(images, view.depth)
    if distortions.reflect_padding:
        images = reflect_pad(images, distortions.reflect_padding)
    _, height, width, _ = images.shape.as_list()
    images = crop_and_flip(
        images,
        _crop_start(top, height - view.size, distortions.max_shift),
        _crop_start(left, width - view.size, distortions.max_shift),
        flip < (0.5 if distortions.flip else 0.0) if flips is None else flips,
        view.size,
    )
    images = tf.cast(images, tf.float32)
    if distortions.max_brightness:
        images = adjust_brightness(images, (2 * brightness - 1) * distortions.max_brightness)
    max_contrast = distortions.max_contrast
    if max_contrast:
        images = adjust_contrast(images, 1 - max_contrast + contrast * (2 * max_contrast))
    images = _scale(images, view)
    if distortions.cutout:
        images = cut_out(images, cut_top, cut_left, distortions.cutout)
    return images


def distort_at(
    images: tf.Tensor,
    seed: int,
    position: tf.Tensor,
    distortions: Distortions = TUTORIAL_DISTORTIONS,
    view: View = TUTORIAL_VIEW,
    flips: tf.Tensor | None = None,
) -> tf.Tensor:
    """Warps and distorts the images from a position of the stream on, by the seed.

    Args:
      images: uint8 [batch, height, width, depth], 0 to 255.
      seed: 0 to 2**63 - 1.
      position: int64 [], the first image's place in the stream.
      distortions, view, flips: as of `distort`.

    Returns:
      float32 [batch, size, size, depth], scaled as the view has it.
    """
    count = get_batch_size(images)
    if distortions.warps:
        numbers = random_numbers(seed, position, count, stream=_WARP_STREAM)
        images = warp(images, numbers, distortions, view.size)
    return distort(images, random_numbers(seed, position, count), distortions, view, flips)


def mix_up(
    images: tf.Tensor,
    labels: tf.Tensor,
    alpha: float,
    seed: int,
    position: tf.Tensor,
    num_classes: int = NUM_CLASSES,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixes the images of each pair, and their labels: s x own + (1 - s) x other.

    Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018, where each image of a
    batch is mixed with one at random. Here it is the neighbour in the stream, whose order is
    random: so a pair is the same one however the stream is cut into even batches. Each image has
    a share s of its own from Beta(alpha, alpha), by the seed and its position.

    Args:
      images: float32 [batch, size, size, depth]; an even number.
      labels: int32 [batch], 0 to num_classes - 1.
      alpha: more than 0; small ones leave most images all but unmixed.
      seed: 0 to 2**63 - 1.
      position: int64 [], the first image's place in the stream.
      num_classes: number of classes.

    Returns:
      images: as they came.
      labels: float32 [batch, num_classes], the share of each class.
    """
    count = get_batch_size(images)
    numbers = random_numbers(seed, position, count, numbers_per_example=1, stream=_MIXUP_STREAM)
    share = beta_quantile(alpha, numbers)
    neighbours = tf.reshape(tf.reverse(tf.reshape(tf.range(count), [-1, 2]), [1]), [-1])
    labels = tf.one_hot(labels, num_classes)
    labels = share * labels + (1 - share) * tf.gather(labels, neighbours)
    share = share[:, :, tf.newaxis, tf.newaxis]
    return share * images + (1 - share) * tf.gather(images, neighbours), labels


def beta_quantile(alpha: float, probability: tf.Tensor) -> tf.Tensor:
    """The values below which Beta(alpha, alpha) has these probabilities, float32 0 to 1.

    The interval is halved by the distribution's function, the regularised incomplete beta
    function.
    """
    low, high = tf.zeros_like(probability), tf.ones_like(probability)
    exponents = tf.fill(tf.shape(probability), tf.constant(alpha, probability.dtype))
    for _ in range(_NUM_HALVINGS):
        middle = (low + high) / 2
        is_below = tf.math.betainc(exponents, exponents, middle) < probability
        low, high = tf.where_v2(is_below, middle, low), tf.where_v2(is_below, high, middle)
    return (low + high) / 2


def get_batch_size(images: tf.Tensor) -> int | tf.Tensor:
    """Number of images: an int, or int64 [] where the graph doesn't know it."""
    size = images.shape.as_list()[0]
    return tf.shape(images, tf.int64)[0] if size is None else size


def _first_channels(images: tf.Tensor, depth: int) -> tf.Tensor:
    return images if images.shape.as_list()[-1] == depth else images[..., :depth]


def _scale(images: tf.Tensor, view: View) -> tf.Tensor:
    """Scales pixels, float32 of 0 to 255, as the view has it."""
    if view.scaling == 'unit':
        return images / 255.0
    if view.scaling == 'channels':
        means, stddevs = CHANNEL_MEANS[: view.depth], CHANNEL_STDDEVS[: view.depth]
        return (images / 255.0 - means) / stddevs
    return tf.image.per_image_standardization(images)


def _crop_start(number: tf.Tensor, margin: int, max_shift: int) -> tf.Tensor:
    """First row or column of a crop, int32, from a random number in [0, 1).

    `margin` is how much larger than the crop the image is.
    """
    first = max(margin // 2 - max_shift, 0)
    last = min(margin // 2 + max_shift, margin)
    return first + tf.cast(number * (last - first + 1), tf.int32)


def evaluation_crop(images: tf.Tensor, view: View = TUTORIAL_VIEW) -> tf.Tensor:
    """The central square of each image, scaled.

    Args:
      images: uint8 [batch, height, width, depth], 0 to 255.
      view: size of the crop, channels and scaling.

    Returns:
      float32 [batch, size, size, depth], scaled as the view has it.
    """
    _, height, width, _ = images.shape.as_list()
    size = view.size
    top, left = (height - size) // 2, (width - size) // 2
    images = _first_channels(images, view.depth)[:, top : top + size, left : left + size]
    return _scale(tf.cast(images, tf.float32), view)


def evaluation_views(
    images: tf.Tensor, view: View = TUTORIAL_VIEW, num_views: int = 10
) -> tf.Tensor:
    """Several crops of each image, scaled, half of them mirrored.

    Ten are the centre and the four corners: Krizhevsky et al., "ImageNet classification with
    deep convolutional neural networks", NIPS 2012, sec. 4.1. Where the network sees all of an
    image, the five are one. Six are the centre and those moved by a pixel, up and to the left,
    and down and to the right, of the image enlarged as by `reflect_pad`: Jordan, "94% on CIFAR-10
    in 3.29 seconds on a single GPU", 2024, sec. 3.5.

    Args:
      images: uint8 [batch, height, width, depth], 0 to 255.
      view: size of the crop, channels and scaling.
      num_views: one of NUM_VIEWS; 1 is `evaluation_crop`.

    Returns:
      float32 [batch * num_views, size, size, depth], the views of an image side by side, the
      mirrored ones last, scaled as the view has it.
    """
    if num_views == 1:
        return evaluation_crop(images, view)
    images = _first_channels(images, view.depth)
    if num_views == 6:
        images = reflect_pad(images, 1)
    _, height, width, _ = images.shape.as_list()
    size = view.size
    down, right = height - size, width - size
    top, left = down // 2, right // 2
    if num_views == 6:
        corners = [(top, left), (top - 1, left - 1), (top + 1, left + 1)]
    else:
        corners = [(top, left), (0, 0), (0, right), (down, 0), (down, right)]
    crops = [images[:, top : top + size, left : left + size] for top, left in corners]
    views = tf.stack([*crops, *(tf.reverse(crop, [2]) for crop in crops)], axis=1)
    views = tf.reshape(views, [-1, size, size, view.depth])
    return _scale(tf.cast(views, tf.float32), view)


def record_stream(
    files: Sequence[str],
    seed: int,
    start: int = 0,
    record: RecordFormat = CIFAR10_RECORD,
    held_out: Sequence[int] = (),
) -> tf.data.Dataset:
    """The endless stream of training records, from position `start` on.

    Args:
      files: record files; together one epoch.
      seed: the order of epoch e derives from (seed, e).
      start: position of the first record to give; number of records before it.
      record: the records' format.
      held_out: places of the records that are left out, in the files one after another.

    Returns:
      A dataset of string [], raw records.

    Raises:
      ValueError: the files hold no record.
      OSError: a file is missing.
    """
    num_records = count_examples(files, record)
    num_examples = num_records - len(held_out)
    if num_examples <= 0:
        raise ValueError(f'no record of {record.record_bytes} bytes in {", ".join(files)}')
    first_epoch, offset = divmod(start, num_examples)
    names = _as_bytes(files)

    def records_of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        # A shuffle mixes the graph-level seed into its own; here that is the seed of
        # this function's graph alone.
        tf.set_random_seed(0)
        order_seed = tf.random.stateless_uniform(
            [], seed=[seed, epoch], minval=None, maxval=None, dtype=tf.int64
        )
        records = tf.data.FixedLengthRecordDataset(names, record.record_bytes)
        if len(held_out):
            records = _at_places(records, _without(num_records, held_out))
        window = min(num_examples, SHUFFLE_WINDOW)
        records = records.shuffle(window, seed=order_seed, reshuffle_each_iteration=False)
        return records.skip(offset * tf.cast(tf.equal(epoch, first_epoch), tf.int64))

    return tf.data.Dataset.counter(start=first_epoch).flat_map(records_of_epoch)


def distorted_inputs(
    data_dir: str,
    batch_size: int,
    seed: int = 0,
    start_example: int = 0,
    record: RecordFormat = CIFAR10_RECORD,
    share: int = 0,
    num_shares: int = 1,
    distortions: Distortions = TUTORIAL_DISTORTIONS,
    held_out: Sequence[int] = (),
    view: View = TUTORIAL_VIEW,
    num_classes: int = NUM_CLASSES,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Training batches, distorted, without end.

    Several readers can share the stream: of every `num_shares` batches each takes the one at
    its own place, and the records of the others are read but not decoded.

    Args:
      data_dir: directory that holds the five training files.
      batch_size: number of images in a batch.
      seed: 0 to 2**63 - 1; decides order and distortions.
      start_example: position in the stream of the first example, of all readers together.
      record: the records' format.
      share: this reader's place, 0 to num_shares - 1.
      num_shares: number of readers.
      distortions: ranges of the changes to the images.
      held_out: places of the training images that are left out.
      view: the part of them that the network sees.
      num_classes: number of classes; for mixup alone.

    Returns:
      images: float32 [batch_size, size, size, depth], scaled as the view has it.
      labels: int32 [batch_size], 0 to 255; with mixup float32 [batch_size, num_classes].
    """

    files = train_files(data_dir)
    num_examples = count_examples(files, record) - len(held_out)

    def decode_and_distort(index: tf.Tensor, records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = decode_records(records, record)
        position = start_example + index * batch_size
        flips = None
        if distortions.alternating_flip:
            epochs = (position + tf.range(batch_size, dtype=tf.int64)) // num_examples
            flips = alternating_flips(records, seed, epochs)
        images = distort_at(images, seed, position, distortions, view, flips)
        if distortions.mixup:
            return mix_up(images, labels, distortions.mixup, seed, position, num_classes)
        return images, labels

    stream = record_stream(files, seed, start_example, record, held_out)
    batches = stream.batch(batch_size, drop_remainder=True).enumerate()
    return _next_batch(batches.shard(num_shares, share).map(decode_and_distort))


def inputs(
    eval_data: str,
    data_dir: str,
    batch_size: int,
    num_examples: int = -1,
    record: RecordFormat = CIFAR10_RECORD,
    num_views: int = 1,
    held_out: Sequence[int] = (),
    view: View = TUTORIAL_VIEW,
    repeat: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Evaluation batches: each image once, in the order of the files, undistorted.

    The last batch is smaller where `batch_size` does not divide the number of
    examples; after it, reading the tensors raises tf.errors.OutOfRangeError.

    Args:
      eval_data: 'test' for the test file, 'train_eval' for the training images, 'held_out' for
        those held out of them.
      data_dir: directory that holds the record files.
      batch_size: largest number of images in a batch.
      num_examples: number of images; -1 for all.
      record: the records' format.
      num_views: of each image, one of NUM_VIEWS: see `evaluation_views`.
      held_out: places of the training images that were held out of training.
      view: the part of them that the network sees.
      repeat: start again after the last image, without end, in batches of one size.

    Returns:
      images: float32 [batch * num_views, size, size, depth], scaled as the view has it.
      labels: int32 [batch], 0 to 255.

    Raises:
      ValueError: `eval_data` is none of these.
    """
    files = evaluation_files(eval_data, data_dir)
    records = tf.data.FixedLengthRecordDataset(_as_bytes(files), record.record_bytes)
    if eval_data != 'test' and (len(held_out) or eval_data == 'held_out'):
        records = _at_places(records, evaluation_places(eval_data, data_dir, held_out, record))
    records = records.take(num_examples)
    if repeat:
        records = records.repeat()

    def decode_and_crop(records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = decode_records(records, record)
        return evaluation_views(images, view, num_views), labels

    return _next_batch(records.batch(batch_size, drop_remainder=repeat).map(decode_and_crop))


def evaluation_files(eval_data: str, data_dir: str) -> list[str]:
    """The files that hold the images of `eval_data`, one of EVAL_DATA.

    Raises:
      ValueError: `eval_data` is none of these.
    """
    if eval_data not in EVAL_DATA:
        raise ValueError(f'eval_data must be one of {", ".join(EVAL_DATA)}, found {eval_data!r}')
    return test_files(data_dir) if eval_data == 'test' else train_files(data_dir)


def evaluation_places(
    eval_data: str,
    data_dir: str,
    held_out: Sequence[int] = (),
    record: RecordFormat = CIFAR10_RECORD,
) -> list[int]:
    """Places of the images of `eval_data` in its files, ascending.

    Raises:
      ValueError: `eval_data` is none of EVAL_DATA.
      OSError: a file is missing.
    """
    num_records = count_examples(evaluation_files(eval_data, data_dir), record)
    if eval_data == 'held_out':
        return sorted(held_out)
    return _without(num_records, held_out if eval_data == 'train_eval' else ())


def _as_bytes(files: Sequence[str]) -> list[bytes]:
    """Names of files for TensorFlow, which takes text only where it is UTF-8."""
    return [os.fsencode(file) for file in files]


def _without(num_records: int, left_out: Sequence[int]) -> list[int]:
    """The places of records without some of them."""
    return sorted(set(range(num_records)).difference(left_out))


def _at_places(records: tf.data.Dataset, places: Sequence[int]) -> tf.data.Dataset:
    """The records at these places alone."""
    chosen = tf.constant(list(places), tf.int64)
    is_chosen = tf.scatter_nd(
        chosen[:, tf.newaxis], tf.ones_like(chosen), [1 + max(places, default=0)]
    )
    records = records.take(1 + max(places, default=0)).enumerate()
    return records.filter(lambda place, _: is_chosen[place] > 0).map(lambda _, record: record)


def _next_batch(batches: tf.data.Dataset) -> tuple[tf.Tensor, tf.Tensor]:
    options = tf.data.Options()
    # There is nothing to tune, and the tuning thread, asleep for up to a minute
    # between two looks, would keep a finished process waiting for it.
    options.autotune.enabled = False
    # Two batches ahead: one being used, one ready.
    batches = batches.prefetch(2).with_options(options)
    return tf.data.make_one_shot_iterator(batches).get_next()
