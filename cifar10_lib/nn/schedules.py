"""Learning-rate schedules of a recipe, and its distortions."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import tensorflow.compat.v1 as tf

from cifar10_input import CIFAR10_RECORD, NUM_EXAMPLES_PER_EPOCH_FOR_TRAIN, Distortions
from cifar10_lib.nn.recipes import TUTORIAL_RECIPE, Recipe, examples_per_decay

# The corners of a cycle, as (part of the cycle, part of the largest rate): up, down as long,
# and then far below where it began. Smith, "A disciplined approach to neural network
# hyper-parameters", 2018, sec. 4: a tenth of the largest rate at first, and a last phase, shorter
# than the other two, down by several orders of magnitude.
_ONE_CYCLE = ((0.0, 0.1), (0.45, 1.0), (0.9, 0.1), (1.0, 0.001))


# By so much at least a precision is better than another: as Keras has it.
_LEAST_GAIN = 0.0001

# Collection of the counter of training examples.
EXAMPLES_SEEN = 'examples_seen'


def learning_rate(
    examples_seen: tf.Tensor | tf.Variable,
    num_examples_per_epoch: int = NUM_EXAMPLES_PER_EPOCH_FOR_TRAIN,
    recipe: Recipe = TUTORIAL_RECIPE,
) -> tf.Tensor:
    """The learning rate of the next step.

    Args:
      examples_seen: int64 [], number of training examples so far.
      num_examples_per_epoch: size of the training set.
      recipe: whose schedule it is.

    Returns:
      float32 [], 0 to recipe.learning_rate.
    """
    length = examples_per_decay(recipe, num_examples_per_epoch)
    fraction = _FRACTIONS[recipe.schedule](examples_seen, length, recipe)
    if recipe.warmup_epochs:
        warmup_length = max(int(recipe.warmup_epochs * num_examples_per_epoch), 1)
        fraction *= _part(examples_seen, warmup_length)
    if recipe.plateau_evaluations:
        fraction *= plateau_variable()
    return recipe.learning_rate * fraction


def create_examples_seen(value: int = 0) -> tf.Variable:
    """The graph's counter of training examples, int64 [], `value` at first."""
    return tf.get_variable(
        'examples_seen',
        initializer=tf.constant(value, tf.int64),
        trainable=False,
        collections=[tf.GraphKeys.GLOBAL_VARIABLES, EXAMPLES_SEEN],
    )


def get_examples_seen() -> tf.Variable:
    """The graph's counter of training examples."""
    (variable,) = tf.get_collection(EXAMPLES_SEEN)
    return variable


def plateau_variable() -> tf.Variable:
    """The graph's `plateau_fraction`, float32 []: see the function of that name.

    A local variable, which no checkpoint holds: the history of the run tells its value.
    """
    with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
        return tf.get_variable(
            'plateau_fraction',
            [],
            initializer=tf.ones_initializer(),
            trainable=False,
            collections=[tf.GraphKeys.LOCAL_VARIABLES],
        )


def plateau_fraction(precisions: Sequence[float], recipe: Recipe) -> float:
    """What the learning rate is multiplied by after evaluations without a better precision.

    As Keras's ReduceLROnPlateau: a precision is better that exceeds the best by more than
    0.0001, and after each reduction as many evaluations are waited for again.

    Args:
      precisions: of all evaluations so far, the earliest first.
      recipe: says after how many, and how far.

    Returns:
      0 to 1.
    """
    least = min(recipe.plateau_learning_rate / (recipe.learning_rate or 1.0), 1.0)
    best, num_waited, fraction = -1.0, 0, 1.0
    for precision in precisions:
        if precision > best + _LEAST_GAIN:
            best, num_waited = precision, 0
            continue
        num_waited += 1
        if num_waited == recipe.plateau_evaluations:
            fraction, num_waited = max(fraction * recipe.plateau_factor, least), 0
    return fraction


def evaluations_since_best(precisions: Sequence[float]) -> int:
    """The number of evaluations after the best precision, the earliest of equal ones.

    Args:
      precisions: of all evaluations so far, the earliest first.
    """
    if not precisions:
        return 0
    return len(precisions) - 1 - precisions.index(max(precisions))


def _times(examples: tf.Tensor, length: int) -> tf.Tensor:
    """float32 [], how many times `length` goes into `examples`."""
    # Divided in float64: the 24 bits of float32 are fewer than epochs of examples need.
    return tf.cast(tf.cast(examples, tf.float64) / length, tf.float32)


def _part(examples: tf.Tensor, total: int) -> tf.Tensor:
    """float32 [], `examples` as a part of `total`, at most 1."""
    return tf.minimum(_times(examples, total), 1.0)


def _staircase(examples: tf.Tensor, length: int, recipe: Recipe) -> tf.Tensor:
    # In integers: tf.train.exponential_decay divides in float32, whose 24 bits are
    # fewer than 350 epochs of examples need.
    return recipe.decay_factor ** tf.cast(examples // length, tf.float32)


def _exponential(examples: tf.Tensor, length: int, recipe: Recipe) -> tf.Tensor:
    return recipe.decay_factor ** _times(examples, length)


def _inverse(examples: tf.Tensor, length: int, recipe: Recipe) -> tf.Tensor:
    """As Keras's `decay` has it, which is then 1 / (number of steps in decay_epochs)."""
    del recipe
    return 1.0 / (1.0 + _times(examples, length))


def _linear(examples: tf.Tensor, length: int, recipe: Recipe) -> tf.Tensor:
    del recipe
    return 1.0 - _part(examples, length)


def _cosine(examples: tf.Tensor, length: int, recipe: Recipe) -> tf.Tensor:
    """Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5, without restarts."""
    del recipe
    return 0.5 * (1.0 + tf.cos(math.pi * _part(examples, length)))


def _one_cycle(examples: tf.Tensor, length: int, recipe: Recipe) -> tf.Tensor:
    del recipe
    return _in_lines(_part(examples, length), _ONE_CYCLE)


def _triangle(examples: tf.Tensor, length: int, recipe: Recipe) -> tf.Tensor:
    start, peak, end = recipe.triangle_start, recipe.triangle_peak, recipe.triangle_end
    return _in_lines(_part(examples, length), ((0.0, start), (peak, 1.0), (1.0, end)))


def _in_lines(part: tf.Tensor, corners: Sequence[tuple[float, float]]) -> tf.Tensor:
    """float32 [], the value at `part` of straight lines between (place, value) corners."""
    *pieces, value = [
        low + (high - low) * (part - start) / (end - start)
        for (start, low), (end, high) in itertools.pairwise(corners)
    ]
    for (end, _), piece in zip(corners[-2:0:-1], reversed(pieces), strict=True):
        value = tf.where_v2(part < end, piece, value)
    return value


_FRACTIONS: dict[str, Callable[[tf.Tensor, int, Recipe], tf.Tensor]] = {
    'staircase': _staircase,
    'exponential': _exponential,
    'inverse': _inverse,
    'linear': _linear,
    'cosine': _cosine,
    'one_cycle': _one_cycle,
    'triangle': _triangle,
}


def distortions(recipe: Recipe, size: int = CIFAR10_RECORD.height) -> Distortions:
    """The distortions of the training images that the recipe asks for.

    Shifts are those of images of 32 x 32; others of `size` are shifted by the same share.
    """
    ranges = Distortions(
        **{field.name: getattr(recipe, field.name) for field in dataclasses.fields(Distortions)}
    )
    max_shift = ranges.max_shift * size // CIFAR10_RECORD.height
    return dataclasses.replace(ranges, max_shift=max_shift)
