"""A recipe: network, optimiser, learning rate, averages and distortions of a training run.

Every value of a recipe is a flag of the trainers. Plain data, without TensorFlow.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from cifar10_lib.base.errors import UserError
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

# Leaves a choice to the network.
NETWORKS_OWN = 'network'

# Of layers by `num_filters` and `hidden_size`.
LARGEST_SIZE = 65_536

# Of `gradient_scales`, `freeze`, `layer_learning_rates` and `class_weights`.
NONE = 'none'

# Of `class_weights`: by the number of training images of each class.
BALANCED = 'balanced'

# The network's own, or one of `cifar10_input.SCALINGS`.
SCALINGS = (NETWORKS_OWN, 'standardized', 'unit', 'channels')

OPTIMIZERS = ('sgd', 'momentum', 'nesterov', 'adam', 'rmsprop', 'keras_rmsprop', 'muon')
_ENDING_SCHEDULES = ('linear', 'cosine', 'one_cycle', 'triangle')
SCHEDULES = ('staircase', 'exponential', 'inverse', *_ENDING_SCHEDULES)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of layers of one kind, as a flag has them."""

    flag: str = 'num_filters'
    """`num_filters` or `hidden_size`."""
    text: str = NETWORKS_OWN

    def of(self, own: tuple[int, ...]) -> tuple[int, ...]:
        """The sizes of as many layers as a network has.

        Args:
          own: the network's sizes.

        Raises:
          UserError: the text is none of what the flag takes.
        """
        if self.text == NETWORKS_OWN:
            return own
        example = ','.join(map(str, own))
        expected = (
            f"a number for each layer, as '{example}', one for all, a factor, as 2x, or "
            f'{NETWORKS_OWN}; each size 1 to {LARGEST_SIZE:,}'
        )
        if self.text.endswith('x'):
            (factor,) = _split(self.text, self.flag, expected, lambda text: float(text[:-1]))
            # Not a size that is NaN, infinite or too large for an int.
            sizes = [size * factor for size in own]
            rounded = tuple(round(size) if 0 < size <= LARGEST_SIZE else 0 for size in sizes)
        else:
            numbers = _split(self.text, self.flag, expected, int)
            rounded = numbers * len(own) if len(numbers) == 1 else numbers
        if len(rounded) != len(own) or not all(1 <= size <= LARGEST_SIZE for size in rounded):
            raise UserError(f'--{self.flag}={self.text}: expected {expected}')
        return rounded


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained, and which. The defaults are the tutorial's."""

    model: str = 'tutorial'
    max_steps: int = setting(
        100_000, 'Value of global_step at which training ends, earlier runs included.', at_least=1
    )
    epochs: float = setting(
        0.0,
        'Epochs after which training ends, in place of --max_steps, and with it a schedule that '
        'has an end; 0: --max_steps says.',
        at_least=0,
    )
    num_filters: str = setting(
        NETWORKS_OWN,
        "Filters of each convolution, or block of airbench and batch_norm_cnn, as '64,128,128'; "
        "one number for all; or a factor of the network's own, as 2x; network: its own.",
    )
    hidden_size: str = setting(
        NETWORKS_OWN, 'Sizes of the hidden dense layers, in the same ways as --num_filters.'
    )
    block_depth: int = setting(
        2,
        'Convolutions in a block of the network airbench; of 3, what the last adds is residual.',
        at_least=2,
        at_most=3,
    )
    scaling: str = setting(
        NETWORKS_OWN,
        "Scaling of pixels: network, the network's own; standardized, each image to mean 0 and "
        "variance 1; unit, 0 to 1; channels, by CIFAR-10's mean and standard deviation of each.",
        choices=SCALINGS,
    )
    batch_size: int = setting(BATCH_SIZE, 'Images in a batch (of one tower).', at_least=1)
    optimizer: str = setting(
        'sgd',
        'The optimiser: sgd, gradient descent; momentum or nesterov, with (Nesterov) momentum; '
        'adam; rmsprop; keras_rmsprop, as Keras has it; or muon, nesterov but for convolutions.',
        choices=OPTIMIZERS,
    )
    momentum: float = setting(
        0.9, 'Momentum of momentum, nesterov and muon.', at_least=0.0, at_most=1.0
    )
    muon_learning_rate: float = setting(
        0.24,
        "Muon's largest learning rate for convolutions.",
        at_least=0.0,
        at_most=3e38,
    )
    muon_momentum: float = setting(
        0.6, "Muon's momentum for convolutions.", at_least=0.0, at_most=1.0
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
        'after --decay_epochs; one_cycle, up and down in --decay_epochs; triangle, the same in two '
        'straight lines.',
        choices=SCHEDULES,
    )
    triangle_start: float = setting(
        0.2, 'Where the triangle begins, as a part of the largest rate.', at_least=0, at_most=1
    )
    triangle_peak: float = setting(
        0.23, 'Where its peak is, as a part of --decay_epochs.', at_least=0.001, at_most=0.999
    )
    triangle_end: float = setting(
        0.07, 'Where it ends, as a part of the largest rate.', at_least=0, at_most=1
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
    patience: int = setting(
        0,
        'Evaluations during training without a better precision, one after the other, after '
        'which training ends; 0: it ends at --max_steps.',
        at_least=0,
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
    total_weight_decay: float = setting(
        0.0,
        'L2 weight decay of all that is trained, biases and shifts as well, besides the other two.',
        at_least=0.0,
    )
    gradient_scales: str = setting(
        NONE,
        "Factors of the cross entropy's gradient by name of a variable, as "
        "'*/shift=64,softmax_linear/*=2'; the first that matches counts.",
    )
    freeze: str = setting(
        NONE,
        "Layers that keep their values, by names or patterns, as 'conv*,local3': no gradient, no "
        'update, no weight decay, and where they normalise batches their moving statistics.',
    )
    layer_learning_rates: str = setting(
        NONE,
        "Factors of the learning rate by layer, as 'conv*=0.1,softmax_linear=10'; the first that "
        'matches counts.',
    )
    label_smoothing: float = setting(
        0.0, 'Part of each label that all classes share alike.', at_least=0.0, at_most=1.0
    )
    class_weights: str = setting(
        NONE,
        'Factors of the loss by class of an image: balanced, so that each class counts alike; '
        "by name, as 'cat=2,dog=0.5', and 1 for the others; or a number for each class in order.",
    )
    clip_norm: float = setting(
        0.0,
        'Largest norm of all gradients together, which are scaled down to it; 0: none.',
        at_least=0.0,
        at_most=3e38,
    )
    batch_norm_decay: float = setting(
        0.99,
        'Decay of the moving statistics of batch normalisation.',
        at_least=0.0,
        at_most=1.0,
    )
    batch_norm_epsilon: float = setting(
        0.001, 'What batch normalisation adds to a variance.', at_least=1e-12, at_most=1
    )
    lookahead_steps: int = setting(
        0, 'Steps between updates of the slow weights of lookahead; 0: no lookahead.', at_least=0
    )
    lookahead_decay: float = setting(
        0.95,
        'Of the slow weights, for each step between; it grows from 0 by the cube of the part of '
        '--decay_epochs that is over.',
        at_least=0.0,
        at_most=1.0,
    )
    whitening_bias_epochs: float = setting(
        0.0,
        'Epochs in which the biases of the whitening layer of airbench are trained; 0: in all.',
        at_least=0,
    )
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
    reflect_padding: int = setting(
        0,
        'Pixels by which training images are enlarged on each side, mirrored at the edge, before '
        'they are cropped.',
        at_least=0,
        at_most=31,
    )
    flip: bool = setting(True, 'Mirror half of the training images left to right.')
    alternating_flip: bool = setting(
        False, 'Mirror each training image in every other epoch, in place of --flip.'
    )
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
    cutout: int = setting(
        0,
        'Side in pixels of a square at a random place of training images that is set to 0.',
        at_least=0,
        at_most=24,
    )
    mixup: float = setting(
        0.0,
        'Alpha of mixup: each training image and its label are mixed with another of its batch, by '
        'a share that Beta(alpha, alpha) gives; 0: none.',
        at_least=0,
        at_most=100,
    )

    def gradient_factors(self) -> tuple[tuple[str, float], ...]:
        """The (pattern of a name, factor) pairs of `gradient_scales`.

        Raises:
          UserError: it has something else.
        """

        return _split_factors(self.gradient_scales, 'gradient_scales', '*/shift=64')

    def frozen_layers(self) -> tuple[str, ...]:
        """The patterns of `freeze`.

        Raises:
          UserError: it has something else.
        """

        def pattern(text: str) -> str:
            if not text:
                raise ValueError
            return text

        if self.freeze == NONE:
            return ()
        return _split(self.freeze, 'freeze', "names of layers, as 'conv1,conv2'", pattern)

    def layer_factors(self) -> tuple[tuple[str, float], ...]:
        """The (pattern of a layer, factor) pairs of `layer_learning_rates`, 0 or more.

        Raises:
          UserError: it has something else.
        """
        text = self.layer_learning_rates
        return _split_factors(text, 'layer_learning_rates', 'conv*=0.1', at_least=0.0)

    def class_factors(self) -> tuple[float, ...]:
        """The numbers of `class_weights`, one for each class; empty for none.

        Raises:
          UserError: it has something else: names and `balanced` are numbers once the data is known.
        """
        if self.class_weights == NONE:
            return ()
        return _split(
            self.class_weights,
            'class_weights',
            'a number of 0 or more for each class',
            lambda text: _finite(text, at_least=0.0),
        )


_T = TypeVar('_T')


def _split(text: str, flag: str, expected: str, parse: Callable[[str], _T]) -> tuple[_T, ...]:
    """The parts of a text that are divided by commas, parsed."""
    try:
        return tuple(parse(part.strip()) for part in text.split(','))
    except ValueError as error:
        raise UserError(f'--{flag}={text}: expected {expected}') from error


def _finite(text: str, at_least: float) -> float:
    """The number of a text; raises ValueError where it is none, or another than allowed."""
    number = float(text)
    if not (math.isfinite(number) and number >= at_least):
        raise ValueError
    return number


def resolve_class_weights(text: str, names: Sequence[str], counts: Sequence[int]) -> str:
    """A text of `class_weights` as a number for each class, in the order of the labels.

    Of `balanced`, each class has (number of images) / (number of classes x images of the class),
    whose mean over the images is 1 (King and Zeng, "Logistic regression in rare events data",
    Political Analysis 9, 2001); one without images has 1.

    Args:
      text: `none`, `balanced`, names with numbers, or numbers.
      names: of the classes.
      counts: training images of each.

    Raises:
      UserError: it is none of these, or names a class that there isn't.
    """
    if text == NONE:
        return text
    if text == BALANCED:
        num_classes = sum(count > 0 for count in counts)
        weights = [sum(counts) / (num_classes * count) if count else 1.0 for count in counts]
    elif '=' in text:
        given = dict(_split_factors(text, 'class_weights', 'cat=2,dog=0.5', at_least=0.0))
        unknown = [name for name in given if name not in names]
        if unknown:
            raise UserError(
                f'--class_weights={text}: found no class {unknown[0]}; expected names of '
                f'{", ".join(names)}'
            )
        weights = [given.get(name, 1.0) for name in names]
    else:
        weights = list(Recipe(class_weights=text).class_factors())
        if len(weights) != len(names):
            raise UserError(
                f'--class_weights={text}: found {len(weights)} numbers; expected {len(names)}, one '
                f'for each of {", ".join(names)}; or names with numbers, {BALANCED} or {NONE}'
            )
    if not any(weights):
        raise UserError(f'--class_weights={text}: found no class of a weight over 0; expected one')
    return ','.join(f'{weight:.6g}' for weight in weights)


def _split_factors(
    text: str, flag: str, example: str, at_least: float = -math.inf
) -> tuple[tuple[str, float], ...]:
    """The (pattern of a name, finite factor) pairs of a text."""

    def pair(text: str) -> tuple[str, float]:
        pattern, _, factor = text.rpartition('=')
        if not pattern:
            raise ValueError
        return pattern, _finite(factor, at_least)

    if text == NONE:
        return ()
    return _split(text, flag, f"names and factors, as '{example}'", pair)


TUTORIAL_RECIPE = Recipe()


def load_recipe(stored: Mapping[str, Any]) -> Recipe:
    """The recipe in a run's settings.json; of values that it lacks, the tutorial's."""
    known = {field.name for field in dataclasses.fields(Recipe)}
    return Recipe(**{name: value for name, value in stored.items() if name in known})


RecipeT = TypeVar('RecipeT', bound=Recipe)


def in_steps(recipe: RecipeT, num_examples_per_epoch: int, batch_size: int) -> RecipeT:
    """The recipe with its `epochs` as `max_steps`, and as the length of a schedule with an end.

    Args:
      recipe: any.
      num_examples_per_epoch: size of the training set.
      batch_size: number of examples in a step, all towers and workers together.
    """
    if not recipe.epochs:
        return recipe
    ends = recipe.schedule in _ENDING_SCHEDULES
    return dataclasses.replace(
        recipe,
        epochs=0.0,
        max_steps=max(math.ceil(recipe.epochs * num_examples_per_epoch / batch_size), 1),
        decay_epochs=recipe.epochs if ends else recipe.decay_epochs,
    )


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
