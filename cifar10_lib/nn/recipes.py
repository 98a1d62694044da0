"""How is a network trained? Optimiser, learning rate, averages and distortions: the recipe.

Every value of a recipe is a flag of the trainers, the network among them, and PRESETS are the
recipes that have a name: `--preset=NAME` takes all of one, `--model=NAME` that of the
network's name, and flags beside it change single values of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from cifar10_input import TUTORIAL_DISTORTIONS, Distortions
from cifar10_lib.base.flags import setting

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


def last_step(recipe: Recipe, num_examples_per_epoch: int, global_batch_size: int) -> int | None:
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


# ---------------------------------------------------------------------------- presets
