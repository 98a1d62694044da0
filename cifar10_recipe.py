"""How is a network trained? Optimiser, learning rate, averages and distortions: the recipe.

Every value of a recipe is a flag of the trainers, and PRESETS are the recipes that have a
name: `--preset=NAME` takes all of one, and flags beside it change single values of it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow.compat.v1 as tf

from cifar10_input import NUM_EXAMPLES_PER_EPOCH_FOR_TRAIN, TUTORIAL_DISTORTIONS, Distortions
from cifar10_settings import setting

BATCH_SIZE = 128

MOVING_AVERAGE_DECAY = 0.9999
NUM_EPOCHS_PER_DECAY = 350.0
LEARNING_RATE_DECAY_FACTOR = 0.1
INITIAL_LEARNING_RATE = 0.1

# Of the two hidden dense layers.
WEIGHT_DECAY = 0.004

OPTIMIZERS = ('sgd', 'momentum', 'nesterov', 'adam', 'rmsprop')
SCHEDULES = ('staircase', 'exponential', 'linear', 'cosine', 'one_cycle')

# The corners of a cycle, as (part of the cycle, part of the largest rate): up, down as long,
# and then far below where it began. Smith, "A disciplined approach to neural network
# hyper-parameters", 2018, sec. 4: a tenth of the largest rate at first, and a last phase, shorter
# than the other two, down by several orders of magnitude.
_ONE_CYCLE = ((0.0, 0.1), (0.45, 1.0), (0.9, 0.1), (1.0, 0.001))


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained. The defaults are the tutorial's."""

    max_steps: int = setting(
        1_000_000, 'Train until global_step is this, earlier runs included.', at_least=1
    )
    batch_size: int = setting(BATCH_SIZE, 'Number of images in a batch (of one tower).', at_least=1)
    optimizer: str = setting(
        'sgd',
        'Gradient descent: sgd, plain; with momentum or nesterov momentum; adam; or rmsprop.',
        choices=OPTIMIZERS,
    )
    momentum: float = setting(
        0.9, 'Of the optimizers momentum and nesterov.', at_least=0.0, at_most=1.0
    )
    learning_rate: float = setting(
        INITIAL_LEARNING_RATE,
        'The largest learning rate of the schedule; adam and rmsprop want one of about 0.001.',
        at_least=0.0,
        at_most=3e38,
    )
    schedule: str = setting(
        'staircase',
        'How the learning rate falls: staircase or exponential, by --decay_factor every '
        '--decay_epochs; linear or cosine, to 0 after --decay_epochs; one_cycle, up and down in '
        '--decay_epochs.',
        choices=SCHEDULES,
    )
    decay_epochs: float = setting(
        NUM_EPOCHS_PER_DECAY, 'Epochs of the schedule: see --schedule.', at_least=0.001
    )
    decay_factor: float = setting(
        LEARNING_RATE_DECAY_FACTOR, 'See --schedule.', at_least=0.0, at_most=1.0
    )
    warmup_epochs: float = setting(
        0.0,
        'Epochs at first in which the rate rises from 0 to the one of the schedule.',
        at_least=0,
    )
    moving_average_decay: float = setting(
        MOVING_AVERAGE_DECAY,
        'Of the averages of the weights that evaluation takes; 0: keep none.',
        at_least=0.0,
        at_most=1.0,
    )
    weight_decay: float = setting(
        WEIGHT_DECAY, 'L2 weight decay of the hidden dense layers.', at_least=0.0
    )
    conv_weight_decay: float = setting(0.0, 'L2 weight decay of the convolutions.', at_least=0.0)
    max_shift: int = setting(
        TUTORIAL_DISTORTIONS.max_shift,
        'Pixels that a training crop may lie from the centre; 0: the central crop.',
        at_least=0,
        at_most=TUTORIAL_DISTORTIONS.max_shift,
    )
    flip: bool = setting(
        TUTORIAL_DISTORTIONS.flip, 'Mirror half of the training images left to right.'
    )
    max_brightness: float = setting(
        TUTORIAL_DISTORTIONS.max_brightness,
        'Largest change of the brightness of training pixels of 0 to 255.',
        at_least=0,
        at_most=255,
    )
    max_contrast: float = setting(
        TUTORIAL_DISTORTIONS.max_contrast,
        'Largest change of the contrast of training images, as a fraction.',
        at_least=0,
        at_most=1,
    )

    @property
    def distortions(self) -> Distortions:
        return Distortions(self.max_shift, self.flip, self.max_brightness, self.max_contrast)


TUTORIAL_RECIPE = Recipe()


def recipe_of(stored: Mapping[str, Any]) -> Recipe:
    """The recipe of a run, by what its settings.json holds; the tutorial's, of what it doesn't."""
    known = {field.name for field in dataclasses.fields(Recipe)}
    return Recipe(**{name: value for name, value in stored.items() if name in known})


def learning_rate_after(
    examples_seen: tf.Variable,
    num_examples_per_epoch: int = NUM_EXAMPLES_PER_EPOCH_FOR_TRAIN,
    recipe: Recipe = TUTORIAL_RECIPE,
) -> tf.Tensor:
    """The rate of the step that follows.

    Args:
      examples_seen: int64 [], number of training examples so far.
      num_examples_per_epoch: size of the training set.
      recipe: whose schedule it is.

    Returns:
      float32 [], 0 to recipe.learning_rate.
    """
    examples_per_decay = max(int(recipe.decay_epochs * num_examples_per_epoch), 1)
    fraction = _FRACTIONS[recipe.schedule](examples_seen, examples_per_decay, recipe.decay_factor)
    if recipe.warmup_epochs:
        examples_of_warmup = max(int(recipe.warmup_epochs * num_examples_per_epoch), 1)
        fraction *= _part(examples_seen, examples_of_warmup)
    return recipe.learning_rate * fraction


def _part(examples: tf.Tensor, total: int) -> tf.Tensor:
    """float32 [], `examples` as a part of `total`, at most 1."""
    # In integers as far as it goes: 24 bits are fewer than epochs of examples need.
    return tf.cast(tf.minimum(tf.cast(examples, tf.float64) / total, 1.0), tf.float32)


def _staircase(examples: tf.Tensor, length: int, factor: float) -> tf.Tensor:
    # In integers: tf.train.exponential_decay divides in float32, whose 24 bits are
    # fewer than 350 epochs of examples need.
    return factor ** tf.cast(examples // length, tf.float32)


def _exponential(examples: tf.Tensor, length: int, factor: float) -> tf.Tensor:
    return factor ** tf.cast(tf.cast(examples, tf.float64) / length, tf.float32)


def _linear(examples: tf.Tensor, length: int, factor: float) -> tf.Tensor:
    del factor
    return 1.0 - _part(examples, length)


def _cosine(examples: tf.Tensor, length: int, factor: float) -> tf.Tensor:
    """Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5, without restarts."""
    del factor
    return 0.5 * (1.0 + tf.cos(math.pi * _part(examples, length)))


def _one_cycle(examples: tf.Tensor, length: int, factor: float) -> tf.Tensor:
    del factor
    part = _part(examples, length)
    pieces = []
    for (start, low), (end, high) in itertools.pairwise(_ONE_CYCLE):
        pieces.append(low + (high - low) * (part - start) / (end - start))
    up, down, last = pieces
    return tf.where_v2(
        part < _ONE_CYCLE[1][0], up, tf.where_v2(part < _ONE_CYCLE[2][0], down, last)
    )


_FRACTIONS: dict[str, Callable[[tf.Tensor, int, float], tf.Tensor]] = {
    'staircase': _staircase,
    'exponential': _exponential,
    'linear': _linear,
    'cosine': _cosine,
    'one_cycle': _one_cycle,
}


def optimizer_of(recipe: Recipe, learning_rate: tf.Tensor) -> tf.train.Optimizer:
    """The recipe's optimiser with a rate float32 [].

    Adam's and RMSprop's further values are those of the tutorials that use them: Kingma and
    Ba, "Adam", ICLR 2015, algorithm 1; and for RMSprop a decay of 0.9 and an epsilon of 1e-7.
    """
    if recipe.optimizer == 'sgd':
        return tf.train.GradientDescentOptimizer(learning_rate)
    if recipe.optimizer == 'adam':
        return tf.train.AdamOptimizer(learning_rate)
    if recipe.optimizer == 'rmsprop':
        return tf.train.RMSPropOptimizer(learning_rate, decay=0.9, epsilon=1e-7)
    return tf.train.MomentumOptimizer(
        learning_rate, recipe.momentum, use_nesterov=recipe.optimizer == 'nesterov'
    )


PRESETS = {'tutorial': TUTORIAL_RECIPE}
