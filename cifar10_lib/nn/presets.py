"""Presets: recipes by name, each with its run flags, source, command, time and precision.

`--preset=NAME` takes all of a preset, `--model=NAME` that of the network's name, and flags
beside it change single values. Precisions are those of all 10,000 test images of CIFAR-10 (of
MNIST for the networks for digits) at the last step, times those of training on 2 CPU cores with
AVX512_BF16, for the airbench presets with AMX; docs/results.md has the seeds, and what else was
tried.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from cifar10_lib.nn.recipes import TUTORIAL_RECIPE, Recipe


@dataclasses.dataclass(frozen=True)
class Preset:
    """A recipe that has a name."""

    about: str
    """Source, command, time and precision."""
    recipe: Recipe
    run: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Other flags of its runs by name: they don't change how a network learns."""

    @property
    def flags(self) -> dict[str, Any]:
        """Values of all flags that the preset sets, by name."""
        return {**dataclasses.asdict(self.recipe), **self.run}


# Common to the recipes of Keras's tutorials: images as they are, a constant learning rate, Keras's
# batch of 32, and neither averages nor weight decay.
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

# Gulli and Pal, "Deep Learning with Keras", Packt 2017, ch. 3: RMSprop at Keras's learning rate, in
# batches of 128; a fifth of the training images is held out, or where they are augmented none.
_GULLI_PAL = dataclasses.replace(_KERAS, optimizer='rmsprop', learning_rate=0.001, batch_size=128)

# deepsense.ai, "Hands-on deep learning", 2017: Adam at its own learning rate, without a schedule.
_DEEPSENSE = dataclasses.replace(_KERAS, optimizer='adam', learning_rate=0.001)

# The tutorial's network with Nesterov momentum, a learning rate that falls to 0 at the last step,
# averages over fewer steps, half the weight decay of the hidden dense layers, and some of the
# convolutions; chosen on held-out images.
_MOMENTUM = dataclasses.replace(
    TUTORIAL_RECIPE,
    optimizer='nesterov',
    learning_rate=0.03,
    schedule='cosine',
    moving_average_decay=0.999,
    weight_decay=0.002,
    conv_weight_decay=0.001,
)

# Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024: legacy/airbench94.py, with the
# rates of its summed loss as those of a mean over the batch. Its authors chose the constants by
# precision on the test images. The steps are those of its epochs of 48 batches.
_AIRBENCH_BATCH = 1024
_AIRBENCH94 = Recipe(
    model='airbench',
    max_steps=476,
    batch_size=_AIRBENCH_BATCH,
    optimizer='nesterov',
    momentum=0.85,
    # 11.5 / (1 + 1 / (1 - 0.85)) of the sum over 1,024 examples.
    learning_rate=1.5,
    schedule='triangle',
    decay_epochs=476 * _AIRBENCH_BATCH / 50_000,
    moving_average_decay=0.0,
    weight_decay=0.0,
    total_weight_decay=0.0013304,
    gradient_scales='*/shift=64',
    label_smoothing=0.2,
    batch_norm_decay=0.6,
    batch_norm_epsilon=1e-12,
    lookahead_steps=5,
    whitening_bias_epochs=3.0,
    reflect_padding=2,
    alternating_flip=True,
    max_brightness=0.0,
    max_contrast=0.0,
)


def _airbench(max_steps: int, **changes: Any) -> Recipe:
    """The recipe of airbench94, but for its length and the changes."""
    decay_epochs = max_steps * changes.get('batch_size', _AIRBENCH_BATCH) / 50_000
    return dataclasses.replace(
        _AIRBENCH94, max_steps=max_steps, decay_epochs=decay_epochs, **changes
    )


PRESETS = {
    'tutorial': Preset(
        """The tutorial's recipe. Published: about 84% at 30,000 steps, 86% at 60,000 to 100,000.

        cifar10_train.py --max_steps=100000: 62.6 minutes, 0.865; over ten views 0.882.
        """,
        TUTORIAL_RECIPE,
    ),
    'fast': Preset(
        """A third of the tutorial's examples, distorted less.

        cifar10_train.py --preset=fast --use_bf16: 15.4 minutes, 0.862; over ten views 0.885.
        """,
        dataclasses.replace(
            _MOMENTUM,
            decay_epochs=32_000 * 128 / 50_000,
            max_brightness=0.0,
            max_contrast=0.0,
            max_steps=32_000,
        ),
    ),
    'best': Preset(
        """Two thirds of the tutorial's examples, with all its distortions.

        cifar10_train.py --preset=best --use_bf16: 31.4 minutes, 0.869; over ten views 0.895.
        """,
        dataclasses.replace(_MOMENTUM, decay_epochs=64_000 * 128 / 50_000, max_steps=64_000),
    ),
    'airbench94': Preset(
        """Published: 94.01% over six views, 93.2% over one (1,000 seeds).

        cifar10_train.py --preset=airbench94 --use_bf16: 14.2 minutes, 0.932; over six views
        0.940.
        """,
        _AIRBENCH94,
    ),
    'airbench93': Preset(
        """Two thirds of the filters. Published: 93.00% over six views (50 seeds).

        cifar10_train.py --preset=airbench93 --use_bf16: 7.1 minutes, 0.921; over six views 0.929.
        """,
        _airbench(528, num_filters='64,128,128'),
    ),
    'airbench95': Preset(
        """Half as many filters again, for 15 epochs. Published: 95.01% over six views (200 seeds).

        Not measured yet.
        """,
        _airbench(
            720, num_filters='128,384,384', learning_rate=1.30435, total_weight_decay=0.00153
        ),
    ),
    'airbench96': Preset(
        """Residual blocks and cutout, for 37 epochs. Published: 96.03% over six views (400 seeds).

        legacy/airbench96.py, whose images are all trained on. Not measured yet.
        """,
        _airbench(
            1776,
            num_filters='128,384,512',
            block_depth=3,
            learning_rate=1.17391,
            total_weight_decay=0.0013333,
            batch_norm_decay=0.9,
            triangle_peak=0.1,
            triangle_end=0.0,
            reflect_padding=4,
            cutout=12,
        ),
    ),
    'airbench94_muon': Preset(
        """airbench94_muon.py, in 8 epochs. Published: 94.01% over six views (200 seeds).

        Its logits, of weights with variance 1, are divided by 256, which is airbench94's network
        with another scale of the gradient; its whitening biases begin at 0 here, not at random,
        and their rate stays that of the schedule for 3 epochs, where it falls to 0 by then.
        Not measured yet.
        """,
        _airbench(
            200,
            batch_size=2000,
            optimizer='muon',
            learning_rate=1.0,
            total_weight_decay=0.004,
            gradient_scales='*/shift=106,whiten/biases=106,softmax_linear/*=1.656',
            triangle_start=1.0,
            triangle_peak=0.001,
            triangle_end=0.0,
            lookahead_steps=0,
        ),
    ),
    'book': Preset(
        """McClure, "TensorFlow machine learning cookbook", Packt 2017, ch. 8. Published: about 75%.

        The learning rate falls every 250 steps of 128. cifar10_train.py --preset=book: 13.7
        minutes, 0.741.
        """,
        dataclasses.replace(
            TUTORIAL_RECIPE,
            model='book',
            decay_epochs=250 * 128 / 50_000,
            decay_factor=0.9,
            moving_average_decay=0.0,
            weight_decay=0.0,
            max_shift=0,
            max_steps=20_000,
        ),
        run={'log_frequency': 50, 'eval_every': 500},
    ),
    'logistic': Preset(
        """deepsense.ai's, 20 epochs of batches of 128. Published: 37% of the validation images.

        cifar10_train.py --preset=logistic: 0.6 minutes beside other work, 0.383.
        """,
        dataclasses.replace(
            _DEEPSENSE, model='logistic', batch_size=128, max_steps=round(20 * 50_000 / 128)
        ),
    ),
    'mlp': Preset(
        """deepsense.ai's, 20 epochs. Published: 45%.

        cifar10_train.py --preset=mlp: 2.0 minutes beside other work, 0.456.
        """,
        dataclasses.replace(_DEEPSENSE, model='mlp', max_steps=round(20 * _STEPS_PER_EPOCH)),
    ),
    'small_cnn': Preset(
        """deepsense.ai's, 20 epochs. Published: 70%.

        cifar10_train.py --preset=small_cnn: 10.5 minutes beside other work, 0.695.
        """,
        dataclasses.replace(_DEEPSENSE, model='small_cnn', max_steps=round(20 * _STEPS_PER_EPOCH)),
    ),
    'dropout_cnn': Preset(
        """Gulli and Pal. Published: 66.6% after 20 epochs.

        cifar10_train.py --preset=dropout_cnn: 3.0 minutes, 0.686.
        """,
        dataclasses.replace(_GULLI_PAL, model='dropout_cnn', max_steps=20 * 40_000 // 128),
        run={'num_held_out': 10_000},
    ),
    'deep_cnn': Preset(
        """Gulli and Pal. Published: over 80% after 20 epochs; by the book, 76.9% after 40.

        cifar10_train.py --preset=deep_cnn: 7.2 minutes, 0.794.
        """,
        dataclasses.replace(_GULLI_PAL, model='deep_cnn', max_steps=20 * 40_000 // 128),
        run={'num_held_out': 10_000},
    ),
    'deep_cnn_augmented': Preset(
        """Gulli and Pal. Published: 78.3% after 50 epochs.

        cifar10_train.py --preset=deep_cnn_augmented --use_bf16: 13.8 minutes, 0.730.
        """,
        dataclasses.replace(
            _GULLI_PAL,
            model='deep_cnn',
            max_rotation=40.0,
            max_translation=0.2,
            max_zoom=0.2,
            flip=True,
            max_steps=50 * 50_000 // 128,
        ),
    ),
    'batch_norm_cnn': Preset(
        """Published: 83% in half an hour. All but the network is this project's choice.

        cifar10_train.py --preset=batch_norm_cnn --use_bf16: 8.1 minutes, 0.827.
        """,
        dataclasses.replace(
            _KERAS,
            model='batch_norm_cnn',
            optimizer='adam',
            learning_rate=0.001,
            schedule='cosine',
            decay_epochs=40.0,
            batch_size=128,
            max_steps=round(40 * 50_000 / 128),
        ),
    ),
    'mnist_cnn': Preset(
        """Yalçın, 2018. Published: 98.5% of MNIST's test images after 10 epochs.

        cifar10_train.py --preset=mnist_cnn --data_dir=mnist_data: 1.1 minutes, 0.986.
        """,
        dataclasses.replace(
            _KERAS,
            model='mnist_cnn',
            optimizer='adam',
            learning_rate=0.001,
            max_steps=round(10 * _MNIST_STEPS_PER_EPOCH),
        ),
    ),
    'mnist_deep': Preset(
        """Ghouzam's recipe, but 40 epochs of batches of 100, not 30 of 86.

        Nine tenths of MNIST are trained on. After each epoch the last tenth is scored, and the
        learning rate is halved where its precision is no better three times.
        cifar10_train.py --preset=mnist_deep --data_dir=mnist_data --use_bf16: 12.2 minutes, 0.997.
        """,
        dataclasses.replace(
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
        run={'num_held_out': 6000, 'eval_every': 540, 'eval_data': 'held_out'},
    ),
}

# The preset that a network is trained by where none is named: its first.
NETWORK_PRESETS = {preset.recipe.model: name for name, preset in reversed(PRESETS.items())}

# The networks, in the order of their presets.
MODEL_NAMES = tuple(reversed(NETWORK_PRESETS))
