"""A recipe: network, optimiser, learning rate, averages and distortions of a training run.

Every value of a recipe is a flag of the trainers. Plain data, without TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from cifar10_lib.base.flags import setting

# The tutorial's constants.
BATCH_SIZE = 128
MOVING_AVERAGE_DECAY = 0.9999
NUM_EPOCHS_PER_DECAY = 350.0
LEARNING_RATE_DECAY_FACTOR = 0.1
INITIAL_LEARNING_RATE = 0.1
WEIGHT_DECAY = 0.004

# As far as a 24 x 24 crop of 32 x 32 can lie from the centre.
_LARGEST_SHIFT = 4

OPTIMIZERS = ('sgd', 'momentum', 'nesterov', 'adam', 'rmsprop')
_ENDING_SCHEDULES = ('linear', 'cosine', 'one_cycle')
SCHEDULES = ('staircase', 'exponential', 'inverse', *_ENDING_SCHEDULES)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained, and which. The defaults are the tutorial's."""

    model: str = 'tutorial'
    max_steps: int = setting(
        1_000_000, 'Value of global_step at which training ends, earlier runs included.', at_least=1
    )
    batch_size: int = setting(BATCH_SIZE, 'Images in a batch (of one tower).', at_least=1)
    optimizer: str = setting(
        'sgd',
        'The optimiser: sgd, gradient descent; momentum or nesterov, with (Nesterov) momentum; '
        'adam; or rmsprop.',
        choices=OPTIMIZERS,
    )
    momentum: float = setting(
        0.9, 'Momentum of the optimisers momentum and nesterov.', at_least=0.0, at_most=1.0
    )
    learning_rate: float = setting(
        INITIAL_LEARNING_RATE,
        'Largest learning rate of the schedule; about 0.001 suits adam and rmsprop.',
        at_least=0.0,
        at_most=3e38,
    )
    schedule: str = setting(
        'staircase',
        'Schedule of the learning rate: staircase or exponential, by --decay_factor every '
        '--decay_epochs; inverse, to a half, a third, ... after so many; linear or cosine, to 0 '
        'after --decay_epochs; one_cycle, up and down in --decay_epochs.',
        choices=SCHEDULES,
    )
    decay_epochs: float = setting(
        NUM_EPOCHS_PER_DECAY, 'Epochs of the schedule: see --schedule.', at_least=0.001
    )
    decay_factor: float = setting(
        LEARNING_RATE_DECAY_FACTOR,
        'Factor of the schedule: see --schedule.',
        at_least=0.0,
        at_most=1.0,
    )
    warmup_epochs: float = setting(
        0.0,
        "Epochs at the beginning in which the learning rate rises from 0 to the schedule's.",
        at_least=0,
    )
    plateau_evaluations: int = setting(
        0,
        'Evaluations during training without a better precision, one after the other, after '
        'which the learning rate is multiplied by --plateau_factor; 0: it never is.',
        at_least=0,
    )
    plateau_factor: float = setting(
        0.5,
        'Factor of the learning rate: see --plateau_evaluations.',
        at_least=0.0,
        at_most=1.0,
    )
    plateau_learning_rate: float = setting(
        0.0,
        'Lower bound of the learning rate for --plateau_evaluations.',
        at_least=0.0,
        at_most=3e38,
    )
    moving_average_decay: float = setting(
        MOVING_AVERAGE_DECAY,
        'Decay of the moving averages of the weights, which evaluation uses; 0: no averages.',
        at_least=0.0,
        at_most=1.0,
    )
    weight_decay: float = setting(
        WEIGHT_DECAY, 'L2 weight decay of the hidden dense layers.', at_least=0.0
    )
    conv_weight_decay: float = setting(0.0, 'L2 weight decay of the convolutions.', at_least=0.0)
    dropout: float = setting(
        0.0,
        'Dropout rate of the inputs of the hidden dense layers, besides the dropout of the '
        'network itself.',
        at_least=0.0,
        at_most=0.99,
    )
    max_shift: int = setting(
        _LARGEST_SHIFT,
        'Largest distance of a training crop from the centre, in pixels; 0: the central crop.',
        at_least=0,
        at_most=_LARGEST_SHIFT,
    )
    flip: bool = setting(True, 'Mirror half of the training images left to right.')
    max_brightness: float = setting(
        63.0,
        'Largest change of the brightness of training images, whose pixels are 0 to 255.',
        at_least=0,
        at_most=255,
    )
    max_contrast: float = setting(
        0.8,
        'Largest change of the contrast of training images, as a fraction.',
        at_least=0,
        at_most=1,
    )
    max_rotation: float = setting(
        0.0, 'Largest rotation of training images, in degrees.', at_least=0, at_most=180
    )
    max_zoom: float = setting(
        0.0,
        'Largest zoom of training images, in width and in height, as a fraction.',
        at_least=0,
        at_most=0.9,
    )
    max_translation: float = setting(
        0.0,
        'Largest translation of training images, as a fraction of the side that the network sees.',
        at_least=0,
        at_most=1,
    )


TUTORIAL_RECIPE = Recipe()


def load_recipe(stored: Mapping[str, Any]) -> Recipe:
    """The recipe in a run's settings.json; of values that it lacks, the tutorial's."""
    known = {field.name for field in dataclasses.fields(Recipe)}
    return Recipe(**{name: value for name, value in stored.items() if name in known})


def examples_per_decay(recipe: Recipe, num_examples_per_epoch: int) -> int:
    """The length of the schedule in training examples."""
    return max(int(recipe.decay_epochs * num_examples_per_epoch), 1)


def last_step(recipe: Recipe, num_examples_per_epoch: int, batch_size: int) -> int | None:
    """The step after which the learning rate is 0, or least of a cycle; None: there is none.

    Args:
      recipe: has the schedule.
      num_examples_per_epoch: size of the training set.
      batch_size: number of examples in a step, all towers and workers together.
    """
    if recipe.schedule not in _ENDING_SCHEDULES:
        return None
    return -(-examples_per_decay(recipe, num_examples_per_epoch) // batch_size)
