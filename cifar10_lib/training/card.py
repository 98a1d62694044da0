"""Summary of a training run at its start: four or five lines."""

from __future__ import annotations

import dataclasses
import math
import os

import tensorflow.compat.v1 as tf

from cifar10_lib.base import flags
from cifar10_lib.nn.layers import FROZEN
from cifar10_lib.nn.presets import PRESETS
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
    num_trained, num_frozen = (
        sum(math.prod(v.shape.as_list()) for v in variables)
        for variables in (tf.trainable_variables(), tf.get_collection(FROZEN))
    )
    frozen = f', {num_frozen:,} of them frozen' if num_frozen else ''
    epochs = settings.max_steps * run.batch_size / run.data.num_examples
    steps = f'{settings.max_steps:,} of {run.batch_size:,} images'
    if epochs >= 0.1:
        steps += f', {epochs:,.1f} epochs'
    if run.start.step:
        steps += f'; {settings.max_steps - run.start.step:,} are left'
    lines = [
        f'Network: {settings.model}, {num_trained + num_frozen:,} weights{frozen}',
        f'Recipe: {settings.preset_name}: {settings.optimizer}, learning rate '
        f'{settings.learning_rate:g}, {settings.schedule} schedule',
        f'Device: {_devices()}, {_precision(settings)}',
        f'Steps: {steps}',
    ]
    if changed := _changed_flags(settings):
        lines.append(f'Changed: {changed}')
    return '\n'.join(lines)


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
    shown = {name: getattr(settings, name) for name in _SHOWN}
    expected = {**defaults, **PRESETS[settings.preset_name].flags, **shown}
    return ' '.join(flags.changed_flags(settings, expected))
