"""Data, versions, devices and operations of a network, as one line of JSON.

    python -m benchmarks.speed.surroundings --data_dir=cifar10_data

A process of its own: the runner that starts the others must not hold a GPU.
"""

from __future__ import annotations

import dataclasses
import json

import tensorflow.compat.v1 as tf

import cifar10
from benchmarks.speed.flops import forward_flops, training_flops
from cifar10_lib.base.flags import run_script, setting
from cifar10_lib.data import prepare
from cifar10_lib.data.datasets import DATASETS
from cifar10_lib.nn.presets import PRESETS
from cifar10_lib.training import mixed_precision


@dataclasses.dataclass(frozen=True)
class SurroundingsSettings:
    """Which data set to get ready, and which preset is measured."""

    data_dir: str = setting('cifar10_data', 'Folder of the data set, filled if it is empty.')
    dataset: str = setting('cifar10', 'The images.', choices=DATASETS)
    preset: str = setting('tutorial', 'Network and recipe.', choices=tuple(PRESETS))


def main(settings: SurroundingsSettings) -> None:
    """Gets the data ready, and prints the line."""
    prepared = prepare.prepare(settings.data_dir, settings.dataset)
    recipe = PRESETS[settings.preset].recipe
    network = cifar10.NETWORKS[recipe.model].trained_by(recipe)
    surroundings = {
        'directory': prepared.directory,
        'dataset': prepared.dataset,
        'tensorflow': tf.__version__,
        'devices': [device.name for device in tf.config.list_physical_devices()],
        'multiplies_bf16': mixed_precision.multiplies_bf16(),
        'batch_size': recipe.batch_size,
        'training_flops': training_flops(network),
        'forward_flops': forward_flops(network),
    }
    print(json.dumps(surroundings))


if __name__ == '__main__':
    run_script(main, SurroundingsSettings)
