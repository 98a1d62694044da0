"""Layers by name and size, and fine-tuning: the weights of another run that a new one begins with.

Yosinski et al., "How transferable are features in deep neural networks?", NIPS 2014: the first
layers of a trained network serve other classes too, which then need fewer images.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10_lib.base.errors import UserError
from cifar10_lib.nn.layers import SIZES, Network
from cifar10_lib.nn.recipes import NETWORKS_OWN, NONE
from cifar10_lib.runs.checkpoints import (
    Checkpoint,
    CheckpointFolder,
    find_named,
    open_checkpoint,
    weights_by_name,
)
from cifar10_lib.training.settings import TrainSettings

# What the sizes of each flag are of.
_SIZES = {'num_filters': 'convolutions of such sizes', 'hidden_size': 'hidden dense layers'}


class _Layer(NamedTuple):
    """A layer that has variables."""

    shapes: dict[str, list[int]]
    """Of its variables, by their names."""
    is_trained: bool


def _find_layers(network: Network, num_classes: int) -> tuple[dict[str, _Layer], list[str]]:
    """The layers of a network that have variables, by name, in their order.

    And the flags whose sizes they have.
    """
    view = network.view
    with tf.Graph().as_default():
        network.evaluate(tf.zeros([1, view.size, view.size, view.depth]), num_classes)
        trained = {variable.op.name for variable in tf.trainable_variables()}
        shapes: dict[str, dict[str, list[int]]] = {}
        variables, taken = weights_by_name(), tf.get_collection(SIZES)
        # In the order of creation, which is that of the layers.
        for variable in tf.global_variables():
            name = variable.op.name
            if name in variables:
                layer = name.rpartition('/')[0]
                shapes.setdefault(layer, {})[name] = variable.shape.as_list()
    layers = {name: _Layer(of, not trained.isdisjoint(of)) for name, of in shapes.items()}
    return layers, taken


def check_layers(settings: TrainSettings, network: Network, num_classes: int) -> None:
    """Checks the sizes of layers, and those that --freeze and --layer_learning_rates name.

    Raises:
      UserError: the network has no layers of such sizes, a pattern matches none, or all layers
        are frozen.
    """
    frozen = settings.frozen_layers()
    factors = [pattern for pattern, _ in settings.layer_factors()]
    sizes = [name for name in _SIZES if getattr(settings, name) != NETWORKS_OWN]
    if not (frozen or factors or sizes):
        return
    layers, taken = _find_layers(network, num_classes)
    for name in sizes:
        if name not in taken:
            raise UserError(
                f'--{name}={getattr(settings, name)}: the network {settings.model} has no '
                f'{_SIZES[name]}; expected {NETWORKS_OWN}'
            )
    _refuse_unmatched('freeze', settings.freeze, frozen, layers)
    _refuse_unmatched('layer_learning_rates', settings.layer_learning_rates, factors, layers)
    if all(_matches(name, frozen) for name, layer in layers.items() if layer.is_trained):
        raise UserError(
            f'--freeze={settings.freeze}: freezes all layers of the network {settings.model}, '
            f'{", ".join(layers)}; expected one at least that is trained'
        )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _refuse_unmatched(flag: str, text: str, patterns: Sequence[str], layers: Iterable[str]) -> None:
    for pattern in patterns:
        if not any(_matches(name, [pattern]) for name in layers):
            hint = f', or {NONE}' if len(patterns) == 1 else ''
            raise UserError(
                f'--{flag}={text}: found no layer {pattern}; expected names or patterns of '
                f'{", ".join(layers)}{hint}'
            )


def read_weights(
    source: str, settings: TrainSettings, network: Network, num_classes: int
) -> dict[str, np.ndarray]:
    """The weights that a new run takes from another, and prints which.

    A layer fits where the checkpoint has all of its variables in the same shapes, the moving
    statistics of batch normalisation included. Where it has moving averages, these are taken:
    they are what its precision was measured with, and as the mean of many steps a better point
    than the last step is, whose noise no small learning rate of the new run would wear off.

    Args:
      source: --init_from.
      settings: of the new run.
      network: of the new run.
      num_classes: of the new run.

    Returns:
      float32 arrays by the names of variables.

    Raises:
      UserError: there is no such checkpoint, it is the run's own, or no layer fits.
    """
    checkpoint = _find_checkpoint(source, settings.train_dir)
    weights: dict[str, np.ndarray] = {}
    taken, anew = [], []
    for layer, (shapes, _) in _find_layers(network, num_classes)[0].items():
        found = {name: checkpoint.weight(name) for name in shapes}
        differing = [
            name
            for name, value in found.items()
            if value is None or list(value.shape) != shapes[name]
        ]
        if differing:
            anew.append(f'{layer} ({_difference(differing[0], shapes, found)})')
        else:
            taken.append(layer)
            weights.update({name: value for name, value in found.items() if value is not None})
    if not taken:
        raise UserError(
            f'--init_from={source}: no layer of {checkpoint} fits the network {settings.model}: '
            + ', '.join(anew)
        )
    print(f'Layers from {checkpoint}, step {checkpoint.step}: {", ".join(taken)}')
    print(f'Layers that begin anew: {", ".join(anew) or "none"}')
    return weights


def _find_checkpoint(source: str, train_dir: str) -> Checkpoint:
    """The checkpoint that --init_from names, or the newest of the folder."""
    is_folder = os.path.isdir(source)
    folder = source if is_folder else os.path.dirname(source)
    if os.path.isdir(train_dir) and os.path.isdir(folder) and os.path.samefile(folder, train_dir):
        raise UserError(
            f'--init_from={source}: is in the --train_dir of the new run; name another --train_dir'
        )
    if is_folder:
        return CheckpointFolder(source).require_newest('--init_from')
    return open_checkpoint(find_named(source, folder, '--init_from'))


def _difference(name: str, shapes: dict[str, list[int]], found: dict) -> str:
    """How a variable of the checkpoint differs from that of the network."""
    kind = name.rpartition('/')[2]
    if found[name] is None:
        return f'no {kind} there'
    return f'{kind} {shapes[name]}, there {list(found[name].shape)}'
