"""Layers that networks are made of, and the options that a network is built with.

A network is a function of images, options, `training` and `position`, made of these layers. Its
variables go by the layer's name: conv1/weights, conv1/biases, ...
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

from cifar10_input import (
    CIFAR10_RECORD,
    NUM_CLASSES,
    TUTORIAL_VIEW,
    RecordFormat,
    View,
    get_batch_size,
    random_numbers,
)
from cifar10_lib.nn import summaries
from cifar10_lib.nn.recipes import NETWORKS_OWN, TUTORIAL_RECIPE, WEIGHT_DECAY, Recipe, Sizes

# Collection of (statistic of a batch, variable that averages it) pairs, of all towers.
BATCH_STATISTICS = 'batch_statistics'

# Collection of the flags whose sizes a network has taken.
SIZES = 'sizes'

# Collection of the variables of frozen layers.
FROZEN = 'frozen'

Activation = Callable[[tf.Tensor], tf.Tensor]

# The first values of a variable, of its shape and a seed int64 [2].
Initializer = Callable[[Sequence[int], tf.Tensor], tf.Tensor]

# Paddings of a convolution.
SAME, VALID = 'SAME', 'VALID'

# Pixels up to which an image is small: see `convolve`.
_SMALL_IMAGE = 7 * 7


@dataclasses.dataclass(frozen=True)
class Options:
    """What a network is built with; the defaults are the tutorial's."""

    num_classes: int = NUM_CLASSES
    """Size of the last layer."""
    seed: int = 0
    """The initial weights derive from it and their names, dropout from it and the position."""
    use_fp16: bool = False
    """Compute in float16; the variables and the logits stay float32."""
    use_bf16: bool = False
    """Choose formulations that are faster where a CPU's products are in bfloat16."""
    weight_decay: float = WEIGHT_DECAY
    """Of the hidden dense layers."""
    conv_weight_decay: float = 0.0
    """Of the convolutions."""
    dropout: float = 0.0
    """Dropout rate of the inputs of the hidden dense layers, besides the network's own dropout."""
    summaries: bool = True
    """Summarise the activations."""
    num_filters: Sizes = Sizes('num_filters')
    """Of the convolutions: see `sizes`."""
    hidden_size: Sizes = Sizes('hidden_size')
    """Of the hidden dense layers."""
    block_depth: int = 2
    """Convolutions in a block of `airbench`."""
    batch_norm_epsilon: float = TUTORIAL_RECIPE.batch_norm_epsilon
    """What batch normalisation adds to a variance."""
    gradient_factors: tuple[tuple[str, float], ...] = ()
    """(Pattern of a name, factor) pairs: see `Recipe.gradient_scales`."""
    frozen: tuple[str, ...] = ()
    """Patterns of layers that aren't trained: see `Recipe.freeze`."""
    first_images: Callable[[], tf.Tensor] | None = None
    """Gives training images float32 [images, size, size, depth], scaled and undistorted, for first
    values that derive from the data; None: there are none."""
    num_parts: int = 1
    """Parts of the batch that the forward pass is computed in: see `in_parts`."""

    @property
    def dtype(self) -> tf.DType:
        """Type of the computation."""
        return tf.float16 if self.use_fp16 else tf.float32


def training_options(recipe: Recipe, **options: Any) -> Options:
    """The options of a network that is trained by `recipe`; `options` are the others by name."""
    return Options(
        **{
            'weight_decay': recipe.weight_decay,
            'conv_weight_decay': recipe.conv_weight_decay,
            'dropout': recipe.dropout,
            'num_filters': Sizes('num_filters', recipe.num_filters),
            'hidden_size': Sizes('hidden_size', recipe.hidden_size),
            'block_depth': recipe.block_depth,
            'batch_norm_epsilon': recipe.batch_norm_epsilon,
            'gradient_factors': recipe.gradient_factors(),
            'frozen': recipe.frozen_layers(),
            **options,
        }
    )


class Network(NamedTuple):
    """A network that --model names."""

    inference: Callable[..., tf.Tensor]
    """Of (images, options, training=False, position=0): see `cifar10.inference`."""
    view: View = TUTORIAL_VIEW
    """The part of an image that it sees."""
    normalizes_batches: bool = False
    """Whether splitting a batch into parts changes the result."""
    recipe: Recipe = TUTORIAL_RECIPE
    """That it is trained by."""
    size: int = CIFAR10_RECORD.height
    """Side of the images, in pixels, of which the view is a part."""

    @property
    def record(self) -> RecordFormat:
        """The format of records of such images."""
        return RecordFormat(height=self.size, width=self.size)

    def of_size(self, size: int) -> Network:
        """The network for images of another size, of which it sees the same share."""
        seen = self.view.size * size // self.size
        return self._replace(view=dataclasses.replace(self.view, size=seen), size=size)

    def trained_by(self, recipe: Recipe) -> Network:
        """The network as a recipe has it."""
        view = self.view
        if recipe.scaling != NETWORKS_OWN:
            view = dataclasses.replace(view, scaling=recipe.scaling)
        return self._replace(view=view, recipe=recipe)

    def evaluate(self, images: tf.Tensor, num_classes: int) -> tf.Tensor:
        """The logits float32 [batch, num_classes] of a network that isn't trained."""
        options = training_options(
            self.recipe,
            num_classes=num_classes,
            weight_decay=0.0,
            conv_weight_decay=0.0,
            frozen=(),
            summaries=False,
        )
        return self.inference(images, options)


def network(forward: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Gives a network the arguments, defaults and result of `cifar10.inference`."""

    @functools.wraps(forward)
    def inference(
        images: tf.Tensor,
        options: Options = Options(),  # noqa: B008 (it is frozen)
        training: bool = False,
        position: Any = 0,
    ) -> tf.Tensor:
        if options.num_parts > 1:
            return in_parts(inference, images, options, training, position)
        return forward(tf.cast(images, options.dtype), options, training, position)

    return inference


def in_parts(
    inference: Callable[..., tf.Tensor],
    images: tf.Tensor,
    options: Options,
    training: bool,
    position: Any,
) -> tf.Tensor:
    """The logits of a batch, computed in `options.num_parts` parts that share all variables.

    On a CPU, operations of one part fill the cores while those of another wait for each other.
    The parts' gradients are added up by `tf.gradients`. Where their number is a power of two,
    the gradients have the bits of as many towers: the two differ by a factor of that number,
    which changes no bit of the sums.

    Args:
      inference: a network.
      images: [batch, height, width, depth]; the number of parts divides the batch.
      options: of the network; activations are summarised for the first part alone.
      training, position: as of `inference`.

    Returns:
      float32 [batch, classes].
    """
    part_size = get_batch_size(images) // options.num_parts
    logits = []
    for i, part in enumerate(tf.split(images, options.num_parts)):
        part_options = dataclasses.replace(
            options, num_parts=1, summaries=options.summaries and i == 0
        )
        scope = tf.variable_scope(tf.get_variable_scope(), reuse=i > 0, auxiliary_name_scope=False)
        with scope, tf.name_scope(f'part_{i}'):
            logits.append(inference(part, part_options, training, position + i * part_size))
    return tf.concat(logits, axis=0, name='logits')


def sizes(chosen: Sizes, *own: int) -> tuple[int, ...]:
    """The sizes of a network's layers of one kind: its own, unless the options have others.

    Raises:
      UserError: they have another number of them.
    """
    tf.add_to_collection(SIZES, chosen.flag)
    return chosen.of(own)


# --------------------------------------------------------------------- variables


def weights(
    shape: Sequence[int],
    stddev: float | None,
    options: Options,
    weight_decay: float = 0.0,
    initializer: Initializer | None = None,
) -> tf.Tensor:
    """The current scope's float32 variable `weights`, in the type of the computation.

    The initial values depend on the seed and the variable's name alone, so neither the order in
    which a graph is built nor its number of towers changes them.

    Args:
      shape: [inputs, outputs] or [height, width, inputs, outputs].
      stddev: of the truncated normal distribution of the initial values; None: uniform, as wide
        as Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
        networks", AISTATS 2010, equation 16, has it.
      options: of the network.
      weight_decay: weight_decay * l2_loss(weights) is added to
        tf.GraphKeys.REGULARIZATION_LOSSES, once for all parts and towers that share them.
      initializer: of the initial values, in place of those of `stddev`.
    """
    scope = tf.get_variable_scope()
    seed = tf.constant([options.seed, zlib.crc32(f'{scope.name}/weights'.encode())], tf.int64)

    def initialize(shape, dtype=tf.float32, partition_info=None):
        del partition_info
        if initializer is not None:
            return initializer(shape, seed)
        if stddev is not None:
            return tf.random.stateless_truncated_normal(shape, seed, stddev=stddev, dtype=dtype)
        *field, num_inputs, num_outputs = shape
        fans = tf.TensorShape(field).num_elements() * (num_inputs + num_outputs)
        limit = (6.0 / fans) ** 0.5
        return tf.random.stateless_uniform(shape, seed, minval=-limit, maxval=limit, dtype=dtype)

    variable = _get_variable('weights', shape, initialize, options)
    if weight_decay and variable.trainable and not scope.reuse:
        # Not as get_variable's regularizer: each reader of that gets another computation of it,
        # which may read the weights before or after their update.
        weight_loss = tf.multiply(tf.nn.l2_loss(variable), weight_decay, name='weight_loss')
        tf.add_to_collection(tf.GraphKeys.REGULARIZATION_LOSSES, weight_loss)
    return tf.cast(_with_scaled_gradient(variable, 'weights', options), options.dtype)


def biases(size: int, value: float, options: Options) -> tf.Tensor:
    """The current scope's float32 variable `biases` [size], all `value` at first.

    In the type of the computation.
    """
    variable = _get_variable('biases', [size], tf.constant_initializer(value), options)
    return tf.cast(_with_scaled_gradient(variable, 'biases', options), options.dtype)


def _get_variable(name: str, shape: Sequence[int], initializer: Any, options: Options) -> Any:
    """The current scope's variable of that name, trained unless its layer is frozen."""
    if not _is_frozen(options):
        return tf.get_variable(name, shape, initializer=initializer)
    keys = tf.GraphKeys
    return tf.get_variable(
        name,
        shape,
        initializer=initializer,
        trainable=False,
        collections=[keys.GLOBAL_VARIABLES, keys.MODEL_VARIABLES, FROZEN],
    )


def _is_frozen(options: Options) -> bool:
    layer = tf.get_variable_scope().name
    return any(fnmatch.fnmatchcase(layer, pattern) for pattern in options.frozen)


def _with_scaled_gradient(variable: tf.Variable, kind: str, options: Options) -> tf.Tensor:
    """The variable, whose gradient takes the factor that the options have for its name."""
    name = f'{tf.get_variable_scope().name}/{kind}'
    for pattern, factor in options.gradient_factors:
        if fnmatch.fnmatchcase(name, pattern):
            return scale_gradient(variable, factor)
    return variable


def scale_gradient(values: tf.Tensor, factor: float) -> tf.Tensor:
    """`values` as they are; their gradient is multiplied by `factor`."""

    @tf.custom_gradient
    def scaled(values: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return tf.identity(values), lambda gradient: gradient * factor

    return scaled(tf.convert_to_tensor(values))


# ------------------------------------------------------------------------ layers


def convolution(
    name: str,
    images: tf.Tensor,
    num_filters: int,
    side: int,
    options: Options,
    padding: str = SAME,
    activation: Activation = tf.nn.relu,
    stddev: float | None = None,
) -> tf.Tensor:
    """Convolution with stride 1, biases and an activation.

    Args:
      name: of the layer.
      images: [batch, height, width, depth].
      num_filters: number of filters.
      side: of a filter, in pixels.
      options: of the network.
      padding: SAME keeps height and width; VALID takes side - 1 from each.
      activation: of each value.
      stddev: of the initial weights: see `weights`.

    Returns:
      [batch, height, width, num_filters].
    """
    with tf.variable_scope(name):
        shape = [side, side, images.shape.as_list()[-1], num_filters]
        kernel = weights(shape, stddev, options, options.conv_weight_decay)
        convolved = tf.nn.conv2d(images, kernel, strides=1, padding=padding)
        result = activation(tf.nn.bias_add(convolved, biases(num_filters, 0.0, options)))
    summarize(name, result, options)
    return result


def convolve(images: tf.Tensor, kernel: tf.Tensor, options: Options) -> tf.Tensor:
    """Convolution with stride 1 that keeps height and width, without biases.

    Where products are in bfloat16, its gradients are computed in another way than TensorFlow's,
    which takes a tenth off a training step of `airbench` on 2 cores. TensorFlow computes the two
    side by side, where each has half of the cores and of their cache: here they follow each
    other. And of images of at most 7 x 7 the filters' gradient is a matrix product for each pixel
    of a filter, which takes 0.5 to 0.7 times as long as TensorFlow's own operation.

    Args:
      images: [batch, height, width, depth].
      kernel: [odd height, odd width, depth, filters].
      options: of the network.

    Returns:
      [batch, height, width, filters].
    """
    if not options.use_bf16:
        return tf.nn.conv2d(images, kernel, strides=1, padding=SAME)
    sizes = kernel.shape.as_list()

    @tf.custom_gradient
    def function(
        images: tf.Tensor, kernel: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            if images.shape[1:3].num_elements() <= _SMALL_IMAGE:
                of_kernel = _filter_gradient(images, upstream, sizes)
            else:
                of_kernel = tf.nn.conv2d_backprop_filter(
                    images, sizes, upstream, strides=[1, 1, 1, 1], padding=SAME
                )
            with tf.control_dependencies([of_kernel]):
                of_images = tf.nn.conv2d_backprop_input(
                    tf.shape(images), kernel, upstream, strides=[1, 1, 1, 1], padding=SAME
                )
            return of_images, of_kernel

        return tf.nn.conv2d(images, kernel, strides=1, padding=SAME), gradient

    return function(images, kernel)


def _filter_gradient(images: tf.Tensor, upstream: tf.Tensor, sizes: Sequence[int]) -> tf.Tensor:
    """The gradient [height, width, depth, filters] of filters, from that of what they give.

    For each of their pixels: the images, moved by its place, times the upstream gradient.
    """
    height, width, depth, num_filters = sizes
    _, rows, columns, _ = images.shape.as_list()
    # Channels first and images last, so that what a product adds up lies side by side.
    padding = [[0, 0], [height // 2] * 2, [width // 2] * 2, [0, 0]]
    padded = tf.pad(tf.transpose(images, [3, 1, 2, 0]), padding)
    upstream = tf.reshape(tf.transpose(upstream, [1, 2, 0, 3]), [-1, num_filters])
    products = [
        tf.matmul(
            tf.reshape(padded[:, top : top + rows, left : left + columns], [depth, -1]), upstream
        )
        for top in range(height)
        for left in range(width)
    ]
    return tf.reshape(tf.stack(products), sizes)


def max_pool(
    name: str, images: tf.Tensor, side: int = 2, padding: str = VALID, stride: int = 2
) -> tf.Tensor:
    """Maximum over squares.

    With the stride of 2, VALID halves height and width, rounding down where squares have a side
    of 2; SAME does so rounding up, for any side.
    """
    return tf.nn.max_pool(images, ksize=side, strides=stride, padding=padding, name=name)


def gelu(name: str, values: tf.Tensor, options: Options) -> tf.Tensor:
    """x Phi(x), with Phi the standard normal distribution's cumulative function.

    Hendrycks and Gimpel, "Gaussian error linear units", 2016. The gradient Phi(x) + x phi(x) is
    written out, in half the operations that differentiating the error function takes. Where
    products are in bfloat16, XLA compiles each of the two to one pass over memory: the ten passes
    of TensorFlow's operations would take a fifth of a training step.
    """
    function = _compiled_gelu if options.use_bf16 else _gelu
    with tf.name_scope(name):
        return function(values)


@tf.custom_gradient
def _gelu(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    # In the order of these operations TensorFlow Lite finds its own GELU.
    twice_below = _twice_below(x)
    return 0.5 * x * twice_below, lambda upstream: _gelu_gradient(x, upstream, twice_below)


@tf.custom_gradient
def _compiled_gelu(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    @tf.function(jit_compile=True)
    def forward(x: tf.Tensor) -> tf.Tensor:
        return 0.5 * x * _twice_below(x)

    @tf.function(jit_compile=True)
    def backward(x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
        return _gelu_gradient(x, upstream, _twice_below(x))

    return forward(x), lambda upstream: backward(x, upstream)


def _twice_below(x: tf.Tensor) -> tf.Tensor:
    """2 Phi(x)."""
    return tf.math.erf(x * (1 / math.sqrt(2))) + 1.0


def _gelu_gradient(x: tf.Tensor, upstream: tf.Tensor, twice_below: tf.Tensor) -> tf.Tensor:
    density = tf.exp(-0.5 * tf.square(x)) * (1 / math.sqrt(2 * math.pi))
    return upstream * (0.5 * twice_below + x * density)


def dense(
    name: str,
    values: tf.Tensor,
    size: int,
    options: Options,
    activation: Activation = tf.nn.relu,
    stddev: float | None = None,
    bias: float = 0.0,
    weight_decay: float = 0.0,
) -> tf.Tensor:
    """[batch, ...] -> [batch, size]: activation(values of an example x weights + biases).

    Args:
      name: of the layer.
      values: [batch, ...], flattened.
      size: number of outputs.
      options: of the network.
      activation: of each value.
      stddev: of the initial weights: see `weights`.
      bias: initial value of the biases.
      weight_decay: of the weights.
    """
    with tf.variable_scope(name):
        num_inputs = values.shape[1:].num_elements()
        matrix = weights([num_inputs, size], stddev, options, weight_decay)
        product = tf.matmul(tf.reshape(values, [-1, num_inputs]), matrix)
        result = activation(tf.nn.bias_add(product, biases(size, bias, options)))
    summarize(name, result, options)
    return result


def logits(values: tf.Tensor, options: Options, stddev: float | None = None) -> tf.Tensor:
    """The last layer, `softmax_linear` in every network: float32 [batch, classes]."""
    last = dense('softmax_linear', values, options.num_classes, options, tf.identity, stddev)
    return tf.cast(last, tf.float32)


def labelled(values: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The value of each example's class, float32 [batch]; of mixed classes, the mean of theirs.

    Args:
      values: float32 [batch, classes].
      labels: int32 [batch], or float32 [batch, classes], the share of each class.
    """
    if labels.dtype.is_integer:
        return tf.gather(values, labels, batch_dims=1)
    return tf.reduce_sum(values * labels, axis=1)


def decay_all(recipe: Recipe) -> None:
    """Adds the recipe's total weight decay to tf.GraphKeys.REGULARIZATION_LOSSES.

    Muon, which scales the convolutions' filters to a norm of its own, leaves them out.
    """
    variables = [
        variable
        for variable in tf.trainable_variables()
        if recipe.optimizer != 'muon' or variable.shape.rank != 4
    ]
    with tf.name_scope('total'):
        squares = tf.add_n([tf.nn.l2_loss(variable) for variable in variables])
        weight_loss = tf.multiply(squares, recipe.total_weight_decay, name='weight_loss')
    tf.add_to_collection(tf.GraphKeys.REGULARIZATION_LOSSES, weight_loss)


def dropout(
    name: str, values: tf.Tensor, rate: float, options: Options, training: bool, position: Any
) -> tf.Tensor:
    """Sets a share of the values to 0 in training, and scales up the others.

    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
    JMLR 15, 2014, inverted: the values that stay are divided by 1 - rate, so that evaluation
    takes all as they are. Which stay is a pure function of the seed, the layer's name and
    the example's position in the stream: the same in one run and in pieces, on one device
    and on towers.

    Args:
      name: of the layer.
      values: [batch, ...].
      rate: share of the values, 0 to 1.
      options: of the network.
      training: False leaves the values as they are.
      position: int64 [], position of the first example in the stream.

    Returns:
      Of the shape and type of `values`.
    """
    if not training or not rate:
        return values
    with tf.name_scope(name):
        numbers = random_numbers(
            options.seed,
            tf.cast(position, tf.int64),
            tf.shape(values)[0],
            values.shape[1:].num_elements(),
            stream=zlib.crc32(name.encode()),
        )
        kept = tf.cast(tf.reshape(numbers, tf.shape(values)) >= rate, values.dtype)
        return values * kept * (1.0 / (1.0 - rate))


def batch_normalization(
    name: str, images: tf.Tensor, training: bool, options: Options, scale: bool = True
) -> tf.Tensor:
    """Normalises each channel, then scales it, if asked to, and shifts it.

    Ioffe and Szegedy, "Batch normalization", ICML 2015: in training by mean and variance over
    the batch, of which each tower has its own; in evaluation, and where the layer is frozen, by
    the moving averages of both, which the checkpoint holds. The training step updates those by
    what each layer adds to the collection BATCH_STATISTICS: see `mean_statistics`.

    Args:
      name: of the layer.
      images: [batch, height, width, depth].
      training: normalise by the statistics of the batch.
      options: of the network.
      scale: have a trained scale for each channel.

    Returns:
      Of the shape and type of `images`.
    """
    with tf.variable_scope(name):
        training = training and not _is_frozen(options)
        shape = [images.shape.as_list()[-1]]
        scales = tf.ones(shape)
        if scale:
            scales = _get_variable('scale', shape, tf.ones_initializer(), options)
        shift = _get_variable('shift', shape, tf.zeros_initializer(), options)
        shift = _with_scaled_gradient(shift, 'shift', options)
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
        statistics = {} if training else dict(zip(('mean', 'variance'), moving, strict=True))
        normalized, *batch_statistics = tf.nn.fused_batch_norm(
            images,
            scales,
            shift,
            epsilon=options.batch_norm_epsilon,
            is_training=training,
            **statistics,
        )
    if training:
        for value, variable in zip(batch_statistics, moving, strict=True):
            tf.add_to_collection(BATCH_STATISTICS, (value, variable))
    return normalized


def mean_statistics() -> list[tuple[tf.Tensor, tf.Variable]]:
    """The entries of BATCH_STATISTICS, averaged over the towers.

    Returns:
      (mean over the towers float32 [channels], variable that averages it) for each variable
      of moving statistics; none in a graph without batch normalisation.
    """
    pairs_by_variable: dict[str, list[tuple[tf.Tensor, tf.Variable]]] = {}
    for pair in tf.get_collection(BATCH_STATISTICS):
        pairs_by_variable.setdefault(pair[1].op.name, []).append(pair)
    with tf.name_scope('mean_statistics'):
        return [
            (tf.add_n([value for value, _ in pairs]) / len(pairs), pairs[0][1])
            for pairs in pairs_by_variable.values()
        ]


def set_mean_statistics(statistics: Sequence[tuple[tf.Tensor, tf.Variable]]) -> None:
    """Replaces the entries of BATCH_STATISTICS."""
    tf.get_collection_ref(BATCH_STATISTICS)[:] = list(statistics)


def update_statistics(
    statistics: Sequence[tuple[tf.Tensor, tf.Variable]], decay: float
) -> list[tf.Operation]:
    """Operations that move the moving statistics towards those of the batch."""
    return [
        variable.assign_sub((1.0 - decay) * (variable.read_value() - value)).op
        for value, variable in statistics
    ]


def summarize(name: str, activation: tf.Tensor, options: Options) -> None:
    """Summaries of a layer's histogram and of its fraction of zeros, where the options ask."""
    if not options.summaries:
        return
    summaries.histogram(f'{name}/activations', activation)
    with summaries.summary_scope():
        sparsity = tf.nn.zero_fraction(activation)
    summaries.scalar(f'sparsity/{name}', sparsity)
