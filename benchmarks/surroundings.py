r"""Where are the data, what is this machine, and what does a network take? One line of JSON.

    python -m benchmarks.surroundings --data_dir=cifar10_data

A process of its own: the runner must stay small, because Linux counts the memory of
the process that starts another towards the other's peak, and it must not hold a GPU.
"""

from __future__ import annotations

import dataclasses
import json

import tensorflow.compat.v1 as tf

import cifar10_data
import cifar10_models
import cifar10_precision
from benchmarks.flops import forward_flops, training_flops
from cifar10_recipe import MODEL_NAMES, PRESETS
from cifar10_settings import run_script, setting


@dataclasses.dataclass(frozen=True)
class SurroundingsSettings:
    """Which data set to get ready, and which network is measured."""

    data_dir: str = setting('cifar10_data', 'Folder of the data set, filled if it is empty.')
    dataset: str = setting('cifar10', 'The images.', choices=cifar10_data.DATASETS)
    model: str = setting('tutorial', 'The network.', choices=MODEL_NAMES)


def main(settings: SurroundingsSettings) -> None:
    """Gets the data ready, and prints where they are, what TensorFlow found, and the operations."""
    prepared = cifar10_data.prepare(settings.data_dir, settings.dataset)
    model = cifar10_models.MODELS[settings.model]
    devices = [device.name for device in tf.config.list_physical_devices()]
    found = {
        'directory': prepared.directory,
        'dataset': prepared.dataset,
        'tensorflow': tf.__version__,
        'devices': devices,
        'multiplies_bf16': cifar10_precision.multiplies_bf16(),
        'batch_size': PRESETS[settings.model].batch_size,
        'training_flops': training_flops(model),
        'forward_flops': forward_flops(model),
    }
    print(json.dumps(found))


if __name__ == '__main__':
    run_script(main, SurroundingsSettings)
