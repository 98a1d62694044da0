"""Of what are networks made? Layers that they share, and what each needs to know of a pass.

A network is a function of images and a `Pass`, made of these layers, whose variables go by
the layer's name: conv1/weights, conv1/biases, ... A `Model` is such a function with its name
and what it sees of an image.

Weights start as glorot-uniform values (Glorot and Bengio, "Understanding the difficulty of
training deep feedforward neural networks", AISTATS 2010, equation 16), which derive from the
seed and the variable's name alone, and biases as zeros, as Keras has them.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow.compat.v1 as tf

from cifar10_input import NUM_CLASSES, TUTORIAL_VIEW, View, random_numbers
from cifar10_lib.nn import lrn, summaries

# Collection of the histogram summaries, which cost far more than the scalars of
# tf.GraphKeys.SUMMARIES.
HISTOGRAMS = 'histograms'

# Collection of (statistic of a batch, variable that averages it) pairs, of all towers.
BATCH_STATISTICS = 'batch_statistics'

# Of batch normalisation: of the moving statistics, and what is added to a variance. Both are
# those of Keras.
STATISTICS_DECAY = 0.99
_EPSILON = 0.001

# (shape, dtype, ...) -> values, as tf.get_variable takes it.
Initializer = Callable[..., tf.Tensor]
Activation = Callable[[tf.Tensor], tf.Tensor]

# Paddings of a convolution.
SAME, VALID = 'SAME', 'VALID'


@dataclasses.dataclass(frozen=True)
class Pass:
    """What a forward pass is for; the defaults are those of evaluation."""

    num_classes: int = NUM_CLASSES
    """Size of the last layer."""
    seed: int = 0
    """The first weights derive from it and their names, dropout from it and the position."""
    use_fp16: bool = False
    """Compute in float16; the variables and the logits stay float32."""
    summaries: bool = False
    """Summarise the activations; of several towers, one is enough."""
    weight_decay: float = 0.0
    """Of the hidden dense layers."""
    conv_weight_decay: float = 0.0
    """Of the convolutions."""
    dropout: float = 0.0
    """Part of what hidden dense layers take in that training drops, besides what the network
    itself has dropped."""
    training: bool = False
    """Drop values, and normalise by the statistics of the batch."""
    position: Any = 0
    """int64 []: of the whole batch's first example, its place in the stream."""
    offset: Any = 0
    """Number of the batch's examples before the first one of this pass."""

    @property
    def dtype(self) -> tf.DType:
        """What is computed in."""
        return tf.float16 if self.use_fp16 else tf.float32


@dataclasses.dataclass(frozen=True)
class Model:
    """A network that scripts know by name."""

    name: str
    function: Callable[[tf.Tensor, Pass], tf.Tensor]
    """Logits float32 [batch, classes] of images [batch, size, size, depth]."""
    view: View = TUTORIAL_VIEW
    """What it sees of an image."""
    normalizes_batches: bool = False
    """Whether the parts into which a batch is split change what is computed."""

    def logits(self, images: tf.Tensor, given: Pass) -> tf.Tensor:
        """float32 [batch, classes] of images float32 [batch, size, size, depth]."""
        return self.function(tf.cast(images, given.dtype), given)


# --------------------------------------------------------------------- variables


def truncated_normal(seed: int, name: str, stddev: float) -> Initializer:
    """An initializer whose values depend on `seed` and the variable's name alone.

    So neither the order in which a graph is built nor its number of towers
    changes the first weights.
    """
    seeds = _seeds(seed, name)

    def initializer(shape, dtype=tf.float32, partition_info=None):
        del partition_info
        return tf.random.stateless_truncated_normal(shape, seed=seeds, stddev=stddev, dtype=dtype)

    return initializer


def glorot_uniform(seed: int, name: str) -> Initializer:
    """As `truncated_normal`, but uniform, as wide as the sizes of the layers want it.

    Of weights [inputs, outputs] or [height, width, inputs, outputs].
    """
    seeds = _seeds(seed, name)

    def initializer(shape, dtype=tf.float32, partition_info=None):
        del partition_info
        *field, num_inputs, num_outputs = shape
        fans = tf.TensorShape(field).num_elements() * (num_inputs + num_outputs)
        limit = (6.0 / fans) ** 0.5
        return tf.random.stateless_uniform(shape, seeds, minval=-limit, maxval=limit, dtype=dtype)

    return initializer


def _seeds(seed: int, name: str) -> tf.Tensor:
    return tf.constant([seed, zlib.crc32(name.encode())], tf.int64)


def weights(
    shape: Sequence[int], make_initializer: Callable[[str], Initializer], weight_decay: float = 0.0
) -> tf.Variable:
    """The current scope's float32 `weights`.

    A weight decay adds weight_decay * l2_loss(weights) to
    tf.GraphKeys.REGULARIZATION_LOSSES, once for however many towers share them.

    Args:
      shape: of the weights.
      make_initializer: gives their first values by their name.
      weight_decay: 0 or more.
    """
    scope = tf.get_variable_scope()
    initializer = make_initializer(f'{scope.name}/weights')
    values = tf.get_variable('weights', shape, initializer=initializer)
    if weight_decay and not scope.reuse:
        # Not as get_variable's regularizer: whoever asks for that gets another computation
        # of it, which may read the weights before or after their update.
        weight_loss = tf.multiply(tf.nn.l2_loss(values), weight_decay, name='weight_loss')
        tf.add_to_collection(tf.GraphKeys.REGULARIZATION_LOSSES, weight_loss)
    return values


def biases(size: int, value: float = 0.0) -> tf.Variable:
    """The current scope's float32 `biases` [size], all `value` at first."""
    return tf.get_variable('biases', [size], initializer=tf.constant_initializer(value))


def _weights(
    shape: Sequence[int], given: Pass, weight_decay: float, stddev: float | None
) -> tf.Variable:
    """Truncated normal of that standard deviation, or without one glorot-uniform."""
    if stddev is None:
        return weights(shape, lambda name: glorot_uniform(given.seed, name), weight_decay)
    return weights(shape, lambda name: truncated_normal(given.seed, name, stddev), weight_decay)


# ------------------------------------------------------------------------ layers


def convolution(
    name: str,
    images: tf.Tensor,
    num_filters: int,
    side: int,
    given: Pass,
    padding: str = SAME,
    activation: Activation = tf.nn.relu,
    stddev: float | None = None,
) -> tf.Tensor:
    """Convolution with stride 1, biases and an activation.

    Args:
      name: of the layer.
      images: [batch, height, width, depth].
      num_filters: how many.
      side: of a filter, in pixels.
      given: what the pass is for.
      padding: SAME keeps height and width; VALID takes side - 1 from each.
      activation: of each value.
      stddev: of the first weights, which are then truncated normal.

    Returns:
      [batch, height, width, num_filters].
    """
    with tf.variable_scope(name):
        depth = images.shape.as_list()[-1]
        shape = [side, side, depth, num_filters]
        filters = _weights(shape, given, given.conv_weight_decay, stddev)
        convolved = tf.nn.conv2d(images, tf.cast(filters, images.dtype), strides=1, padding=padding)
        result = activation(_add_biases(convolved))
    summarize(name, result, given)
    return result


def max_pool(name: str, images: tf.Tensor, side: int = 2, padding: str = VALID) -> tf.Tensor:
    """Largest of each square, at every second place both ways.

    VALID halves height and width, rounding down where squares have a side of 2; SAME does
    so rounding up, for any side.
    """
    return tf.nn.max_pool(images, ksize=side, strides=2, padding=padding, name=name)


def local_response_normalization(
    name: str, images: tf.Tensor, depth_radius: int, bias: float, alpha: float
) -> tf.Tensor:
    """Local response normalisation across channels, with beta 0.75.

    Krizhevsky et al., "ImageNet classification with deep convolutional neural
    networks", NIPS 2012, sec. 3.3: x / (bias + alpha * sum(x^2))^beta, the sum
    over the channel itself and `depth_radius` on either side.
    """
    with tf.name_scope(name):
        if images.dtype == tf.float32 and not _gpu_at_hand():
            return lrn.local_response_normalization(images, depth_radius, bias, alpha)
        return tf.nn.local_response_normalization(images, depth_radius, bias, alpha, beta=0.75)


def _gpu_at_hand() -> bool:
    """On GPUs TensorFlow's own normalisation stays: the products are chosen for CPUs."""
    return bool(tf.config.list_physical_devices('GPU'))


def dense(
    name: str,
    values: tf.Tensor,
    size: int,
    given: Pass,
    activation: Activation = tf.nn.relu,
    weight_decay: float = 0.0,
    stddev: float | None = None,
    bias: float = 0.0,
) -> tf.Tensor:
    """[batch, ...] -> [batch, size]: activation(all values of an example x weights + biases)."""
    with tf.variable_scope(name):
        flat = tf.reshape(values, [-1, values.shape[1:].num_elements()])
        matrix = _weights([flat.shape.as_list()[-1], size], given, weight_decay, stddev)
        result = activation(_add_biases(tf.matmul(flat, tf.cast(matrix, flat.dtype)), bias))
    summarize(name, result, given)
    return result


def hidden(
    name: str,
    values: tf.Tensor,
    size: int,
    given: Pass,
    activation: Activation = tf.nn.relu,
    stddev: float | None = None,
    bias: float = 0.0,
) -> tf.Tensor:
    """A dense layer before the last, with the pass's weight decay and dropout."""
    kept = drop_inputs(name, values, given)
    return dense(name, kept, size, given, activation, given.weight_decay, stddev, bias)


def logits(values: tf.Tensor, given: Pass, stddev: float | None = None) -> tf.Tensor:
    """The last layer, which every network has by the name softmax_linear.

    Returns:
      float32 [batch, classes].
    """
    last = dense('softmax_linear', values, given.num_classes, given, tf.identity, stddev=stddev)
    return tf.cast(last, tf.float32)


def _add_biases(values: tf.Tensor, first: float = 0.0) -> tf.Tensor:
    num_values = values.shape.as_list()[-1]
    return tf.nn.bias_add(values, tf.cast(biases(num_values, first), values.dtype))


def dropout(name: str, values: tf.Tensor, rate: float, given: Pass) -> tf.Tensor:
    """In training sets a part of the values to 0, and makes up for it with the others.

    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
    JMLR 15, 2014, inverted: those that stay are divided by 1 - rate, so that evaluation
    takes all as they are. Which stay is a pure function of the seed, the layer's name and
    the example's position in the stream: the same in one run and in pieces, on one device
    and on towers.

    Args:
      name: of the layer.
      values: [batch, ...].
      rate: part that is dropped, 0 to 1.
      given: what the pass is for.

    Returns:
      Of the shape and type of `values`.
    """
    if not given.training:
        return values
    with tf.name_scope(name):
        position = tf.cast(given.position, tf.int64) + given.offset
        numbers = random_numbers(
            given.seed,
            position,
            tf.shape(values)[0],
            values.shape[1:].num_elements(),
            stream=zlib.crc32(name.encode()),
        )
        kept = tf.cast(tf.reshape(numbers, tf.shape(values)) >= rate, values.dtype)
        return values * kept * (1.0 / (1.0 - rate))


def drop_inputs(name: str, values: tf.Tensor, given: Pass) -> tf.Tensor:
    """Dropout by the pass's own rate, of what the hidden dense layer of that name takes in."""
    return dropout(f'{name}_inputs', values, given.dropout, given) if given.dropout else values


def batch_normalization(name: str, images: tf.Tensor, given: Pass) -> tf.Tensor:
    """Normalises each channel, then scales and shifts it.

    Ioffe and Szegedy, "Batch normalization", ICML 2015: in training by mean and variance over
    the pass's examples and places, which the towers of a batch don't share; in evaluation by
    the moving averages of both, which the checkpoint holds. The training step updates those,
    by what each layer adds to the collection BATCH_STATISTICS: see `mean_statistics`.

    Args:
      name: of the layer.
      images: [batch, height, width, depth].
      given: what the pass is for.

    Returns:
      Of the shape and type of `images`.
    """
    with tf.variable_scope(name):
        shape = [images.shape.as_list()[-1]]
        scale = tf.get_variable('scale', shape, initializer=tf.ones_initializer())
        shift = tf.get_variable('shift', shape, initializer=tf.zeros_initializer())
        moving = [
            tf.get_variable(
                f'moving_{kind}',
                shape,
                initializer=initializer,
                trainable=False,
                collections=[tf.GraphKeys.GLOBAL_VARIABLES, tf.GraphKeys.MODEL_VARIABLES],
            )
            for kind, initializer in (
                ('mean', tf.zeros_initializer()),
                ('variance', tf.ones_initializer()),
            )
        ]
        statistics = {} if given.training else dict(zip(('mean', 'variance'), moving, strict=True))
        normalized, *of_batch = tf.nn.fused_batch_norm(
            images, scale, shift, epsilon=_EPSILON, is_training=given.training, **statistics
        )
    if given.training:
        for value, variable in zip(of_batch, moving, strict=True):
            tf.add_to_collection(BATCH_STATISTICS, (value, variable))
    return normalized


def mean_statistics() -> list[tuple[tf.Tensor, tf.Variable]]:
    """What the towers have added to BATCH_STATISTICS, as one pair for each variable.

    Returns:
      (mean over the towers float32 [channels], variable that averages it) for each variable
      of moving statistics; none in a graph without batch normalisation.
    """
    of_variable: dict[str, list[tuple[tf.Tensor, tf.Variable]]] = {}
    for pair in tf.get_collection(BATCH_STATISTICS):
        of_variable.setdefault(pair[1].op.name, []).append(pair)
    with tf.name_scope('mean_statistics'):
        return [
            (tf.add_n([value for value, _ in pairs]) / len(pairs), pairs[0][1])
            for pairs in of_variable.values()
        ]


def set_mean_statistics(statistics: Sequence[tuple[tf.Tensor, tf.Variable]]) -> None:
    """Puts these in place of what the towers have added."""
    tf.get_collection_ref(BATCH_STATISTICS)[:] = list(statistics)


def update_statistics(statistics: Sequence[tuple[tf.Tensor, tf.Variable]]) -> list[tf.Operation]:
    """Operations that take the moving statistics a step towards those of the batch."""
    return [
        variable.assign_sub((1.0 - STATISTICS_DECAY) * (variable.read_value() - value)).op
        for value, variable in statistics
    ]


# --------------------------------------------------------------------- summaries


def summarize(name: str, activation: tf.Tensor, given: Pass) -> None:
    """Summaries of a layer's histogram and of its fraction of zeros, where the pass has such."""
    if not given.summaries:
        return
    summaries.histogram(f'{name}/activations', activation, HISTOGRAMS)
    with summaries.summary_scope():
        sparsity = tf.nn.zero_fraction(activation)
    summaries.scalar(f'sparsity/{name}', sparsity)
