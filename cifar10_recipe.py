"""How is a network trained? Optimiser, learning rate, averages and distortions: the recipe.

Every value of a recipe is a flag of the trainers, the network among them, and PRESETS are the
recipes that have a name: `--preset=NAME` takes all of one, `--model=NAME` that of the
network's name, and flags beside it change single values of it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
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
_ENDING_SCHEDULES = ('linear', 'cosine', 'one_cycle')
SCHEDULES = ('staircase', 'exponential', 'inverse', *_ENDING_SCHEDULES)

# Of `cifar10_models.MODELS`; each has a preset of its name.
MODEL_NAMES = (
    'tutorial',
    'book',
    'logistic',
    'mlp',
    'small_cnn',
    'dropout_cnn',
    'deep_cnn',
    'batch_norm_cnn',
    'mnist_cnn',
    'mnist_deep',
)

# The corners of a cycle, as (part of the cycle, part of the largest rate): up, down as long,
# and then far below where it began. Smith, "A disciplined approach to neural network
# hyper-parameters", 2018, sec. 4: a tenth of the largest rate at first, and a last phase, shorter
# than the other two, down by several orders of magnitude.
_ONE_CYCLE = ((0.0, 0.1), (0.45, 1.0), (0.9, 0.1), (1.0, 0.001))

# By so much at least a precision is better than another: as Keras has it.
_LEAST_GAIN = 0.0001


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained, and which. The defaults are the tutorial's."""

    model: str = setting('tutorial', 'The network.', choices=MODEL_NAMES)
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
        '--decay_epochs; inverse, to a half, a third, ... after so many; linear or cosine, to 0 '
        'after --decay_epochs; one_cycle, up and down in --decay_epochs.',
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
    plateau_evaluations: int = setting(
        0,
        'Evaluations in the midst of training, one after the other, without a better precision '
        'after which the learning rate is multiplied by --plateau_factor; 0: any number.',
        at_least=0,
    )
    plateau_factor: float = setting(0.5, 'See --plateau_evaluations.', at_least=0.0, at_most=1.0)
    plateau_learning_rate: float = setting(
        0.0,
        'Below this, --plateau_evaluations takes no learning rate.',
        at_least=0.0,
        at_most=3e38,
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
    dropout: float = setting(
        0.0,
        'Part of what hidden dense layers take in that is dropped in training, besides what the '
        'network itself has dropped.',
        at_least=0.0,
        at_most=0.99,
    )
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
    max_rotation: float = setting(
        TUTORIAL_DISTORTIONS.max_rotation,
        'Degrees by which training images are turned at most.',
        at_least=0,
        at_most=180,
    )
    max_zoom: float = setting(
        TUTORIAL_DISTORTIONS.max_zoom,
        'Largest change of the width and of the height that training images show, as a fraction.',
        at_least=0,
        at_most=0.9,
    )
    max_translation: float = setting(
        TUTORIAL_DISTORTIONS.max_translation,
        'Part of its side by which what the network sees of a training image is moved at most.',
        at_least=0,
        at_most=1,
    )

    @property
    def distortions(self) -> Distortions:
        return Distortions(
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(Distortions)}
        )


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
    examples_per_decay = _examples_per_decay(recipe, num_examples_per_epoch)
    fraction = _FRACTIONS[recipe.schedule](examples_seen, examples_per_decay, recipe.decay_factor)
    if recipe.warmup_epochs:
        examples_of_warmup = max(int(recipe.warmup_epochs * num_examples_per_epoch), 1)
        fraction *= _part(examples_seen, examples_of_warmup)
    if recipe.plateau_evaluations:
        fraction *= plateau_variable()
    return recipe.learning_rate * fraction


def last_step_of_schedule(
    recipe: Recipe, num_examples_per_epoch: int, global_batch_size: int
) -> int | None:
    """The step after which the learning rate is 0, or a cycle's last and least; None: never.

    Args:
      recipe: whose schedule it is.
      num_examples_per_epoch: size of the training set.
      global_batch_size: number of examples in a step.
    """
    if recipe.schedule not in _ENDING_SCHEDULES:
        return None
    return -(-_examples_per_decay(recipe, num_examples_per_epoch) // global_batch_size)


def _examples_per_decay(recipe: Recipe, num_examples_per_epoch: int) -> int:
    return max(int(recipe.decay_epochs * num_examples_per_epoch), 1)


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


def _times(examples: tf.Tensor, length: int) -> tf.Tensor:
    """float32 [], how many times `length` goes into `examples`."""
    # Divided in float64: the 24 bits of float32 are fewer than epochs of examples need.
    return tf.cast(tf.cast(examples, tf.float64) / length, tf.float32)


def _part(examples: tf.Tensor, total: int) -> tf.Tensor:
    """float32 [], `examples` as a part of `total`, at most 1."""
    return tf.minimum(_times(examples, total), 1.0)


def _staircase(examples: tf.Tensor, length: int, factor: float) -> tf.Tensor:
    # In integers: tf.train.exponential_decay divides in float32, whose 24 bits are
    # fewer than 350 epochs of examples need.
    return factor ** tf.cast(examples // length, tf.float32)


def _exponential(examples: tf.Tensor, length: int, factor: float) -> tf.Tensor:
    return factor ** _times(examples, length)


def _inverse(examples: tf.Tensor, length: int, factor: float) -> tf.Tensor:
    """As Keras's `decay` has it, which is then 1 / (number of steps in decay_epochs)."""
    del factor
    return 1.0 / (1.0 + _times(examples, length))


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
    'inverse': _inverse,
    'linear': _linear,
    'cosine': _cosine,
    'one_cycle': _one_cycle,
}


def optimizer_of(recipe: Recipe, learning_rate: tf.Tensor) -> tf.train.Optimizer:
    """The recipe's optimiser with a rate float32 [].

    Adam's further values are those of Kingma and Ba, "Adam", ICLR 2015, algorithm 1; RMSprop's
    are Keras's, a decay of 0.9 and an epsilon of 1e-7, which is added under the root.
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


# ---------------------------------------------------------------------------- presets

# What the recipes of Keras's tutorials have in common: images as they are, a constant rate,
# Keras's batch of 32, and neither averages nor weight decay.
_KERAS = Recipe(
    batch_size=32,
    decay_factor=1.0,
    moving_average_decay=0.0,
    weight_decay=0.0,
    max_shift=0,
    flip=False,
    max_brightness=0.0,
    max_contrast=0.0,
)

# Of CIFAR-10 and of MNIST, in batches of 32.
_STEPS_PER_EPOCH, _MNIST_STEPS_PER_EPOCH = 50_000 / 32, 60_000 / 32

# Gulli and Pal, "Deep Learning with Keras", Packt 2017, ch. 3: RMSprop at Keras's rate, in batches
# of 128; a fifth of the training images is held out, or where they are augmented none.
_GULLI_PAL = dataclasses.replace(_KERAS, optimizer='rmsprop', learning_rate=0.001, batch_size=128)

# The tutorial's network with Nesterov momentum, a rate that falls to 0 at the last step, averages
# over fewer steps, half the weight decay of the hidden dense layers, and some of the convolutions.
# docs/results.md has what else was tried, on held-out images.
_MOMENTUM = dataclasses.replace(
    TUTORIAL_RECIPE,
    optimizer='nesterov',
    learning_rate=0.03,
    schedule='cosine',
    moving_average_decay=0.999,
    weight_decay=0.002,
    conv_weight_decay=0.001,
)

PRESETS = {
    'tutorial': TUTORIAL_RECIPE,
    # A third of the tutorial's examples, distorted less.
    'fast': dataclasses.replace(
        _MOMENTUM,
        decay_epochs=32_000 * 128 / 50_000,
        max_brightness=0.0,
        max_contrast=0.0,
        max_steps=32_000,
    ),
    'best': dataclasses.replace(
        _MOMENTUM,
        decay_epochs=64_000 * 128 / 50_000,
        max_steps=64_000,
    ),
    # Published: about 75%; of its last training batches 80 and 84%. The rate falls every 250
    # steps of 128.
    'book': dataclasses.replace(
        TUTORIAL_RECIPE,
        model='book',
        decay_epochs=250 * 128 / 50_000,
        decay_factor=0.9,
        moving_average_decay=0.0,
        weight_decay=0.0,
        max_shift=0,
        max_steps=20_000,
    ),
    # Published: 37% of the validation images. Plain gradient descent at Keras's rate of 0.01;
    # how many epochs is this project's choice, here and where no number is given below.
    'logistic': dataclasses.replace(
        _KERAS,
        model='logistic',
        learning_rate=0.01,
        max_steps=round(20 * _STEPS_PER_EPOCH),
    ),
    # Published: 45%. As above; sigmoids learn slowly at that rate.
    'mlp': dataclasses.replace(
        _KERAS,
        model='mlp',
        learning_rate=0.01,
        max_steps=round(100 * _STEPS_PER_EPOCH),
    ),
    # Published: 70%, with Adam at its own rate.
    'small_cnn': dataclasses.replace(
        _KERAS,
        model='small_cnn',
        optimizer='adam',
        learning_rate=0.001,
        max_steps=round(10 * _STEPS_PER_EPOCH),
    ),
    # Published: 66.6% after 20 epochs.
    'dropout_cnn': dataclasses.replace(
        _GULLI_PAL,
        model='dropout_cnn',
        max_steps=20 * 40_000 // 128,
    ),
    # Published: over 80% after 20 epochs; by the book, 76.9% after 40.
    'deep_cnn': dataclasses.replace(
        _GULLI_PAL,
        model='deep_cnn',
        max_steps=20 * 40_000 // 128,
    ),
    # By the book, 78.3% after 50 epochs.
    'deep_cnn_augmented': dataclasses.replace(
        _GULLI_PAL,
        model='deep_cnn',
        max_rotation=40.0,
        max_translation=0.2,
        max_zoom=0.2,
        flip=True,
        max_steps=50 * 50_000 // 128,
    ),
    # Published: 83% in half an hour. All but the network is this project's choice.
    'batch_norm_cnn': dataclasses.replace(
        _KERAS,
        model='batch_norm_cnn',
        optimizer='adam',
        learning_rate=0.001,
        schedule='cosine',
        decay_epochs=40.0,
        batch_size=128,
        max_steps=round(40 * 50_000 / 128),
    ),
    # Published: 98.5% of MNIST's test images after 10 epochs.
    'mnist_cnn': dataclasses.replace(
        _KERAS,
        model='mnist_cnn',
        optimizer='adam',
        learning_rate=0.001,
        max_steps=round(10 * _MNIST_STEPS_PER_EPOCH),
    ),
    # Ghouzam's recipe, but 40 epochs of batches of 100, not 30 of 86: nine tenths of MNIST; after
    # each epoch the last tenth is scored, and the rate is halved where that has got no better three
    # times.
    'mnist_deep': dataclasses.replace(
        _KERAS,
        model='mnist_deep',
        optimizer='rmsprop',
        learning_rate=0.001,
        batch_size=100,
        max_rotation=10.0,
        max_zoom=0.1,
        max_translation=0.1,
        plateau_evaluations=3,
        plateau_factor=0.5,
        plateau_learning_rate=0.00001,
        max_steps=40 * 540,
    ),
}

# What else a run by a preset is asked to do: flags that say nothing of how a network learns.
PRESET_RUNS: dict[str, dict[str, Any]] = {
    'book': {'log_frequency': 50, 'eval_every': 500},
    'dropout_cnn': {'num_held_out': 10_000},
    'deep_cnn': {'num_held_out': 10_000},
    'mnist_deep': {'num_held_out': 6000, 'eval_every': 540, 'eval_data': 'held_out'},
}
