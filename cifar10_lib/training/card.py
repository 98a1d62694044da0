"""Summary of a training run at its start: four or five lines."""

from __future__ import annotations

import dataclasses
import math
import os

import tensorflow.compat.v1 as tf

from cifar10_lib.nn.presets import NETWORK_PRESETS, PRESETS
from cifar10_lib.training.begin import Run
from cifar10_lib.training.settings import TrainSettings

# Flags that other lines show, or that say where and not how.
_SHOWN = (
    *('train_dir', 'data_dir', 'dataset', 'data_url', 'preset', 'model'),
    *('use_fp16', 'use_bf16', 'start_over', 'progress'),
)


def card(run: Run) -> str:
    """Network, recipe, device and steps, and the flags that differ from recipe and defaults.

    Args:
      run: whose network is complete in the current graph.
    """
    settings = run.settings
    num_weights = sum(math.prod(v.shape.as_list()) for v in tf.trainable_variables())
    epochs = settings.max_steps * run.batch_size / run.data.num_examples
    steps = f'{settings.max_steps:,} of {run.batch_size:,} images'
    if epochs >= 0.1:
        steps += f', {epochs:,.1f} epochs'
    if run.start.step:
        steps += f'; {settings.max_steps - run.start.step:,} are left'
    lines = [
        f'Network: {settings.model}, {num_weights:,} weights',
        f'Recipe: {_recipe_name(settings)}: {settings.optimizer}, learning rate '
        f'{settings.learning_rate:g}, {settings.schedule} schedule',
        f'Device: {_devices()}, {_precision(settings)}',
        f'Steps: {steps}',
    ]
    if changed := _changed_flags(settings):
        lines.append(f'Changed: {changed}')
    return '\n'.join(lines)


def _recipe_name(settings: TrainSettings) -> str:
    return settings.preset or NETWORK_PRESETS.get(settings.model, settings.model)


def _precision(settings: TrainSettings) -> str:
    if settings.use_fp16:
        return 'float16'
    return 'bfloat16' if settings.use_bf16 else 'float32'


def _devices() -> str:
    """The GPUs by name, or the number of CPU cores."""
    gpus = tf.config.list_physical_devices('GPU')
    names = [tf.config.experimental.get_device_details(gpu).get('device_name') for gpu in gpus]
    if names:
        return ', '.join(str(name or 'a GPU') for name in names)
    count = os.cpu_count() or 1
    return f'{count} CPU core{"s" if count > 1 else ""}'


def _changed_flags(settings: TrainSettings) -> str:
    """The flags that differ from the recipe and, of others, from their defaults."""
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    expected = {**defaults, **PRESETS[_recipe_name(settings)].flags}
    words = []
    for name, value in dataclasses.asdict(settings).items():
        if name not in _SHOWN and value != expected[name]:
            no = 'no' if value is False else ''
            words.append(f'--{no}{name}' if isinstance(value, bool) else f'--{name}={value}')
    return ' '.join(words)
