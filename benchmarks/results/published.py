"""Recipes to measure: the presets, beside what was published of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from cifar10_lib.nn.presets import PRESETS
from cifar10_lib.nn.recipes import Recipe, load_recipe

CIFAR10, MNIST = 'CIFAR-10', 'MNIST'
MNIST_DIR = 'mnist_data'


class Row(NamedTuple):
    """What was published of a preset, and what to run it on."""

    published: str
    """Accuracy on images that were not trained on, in the words of the source; empty: none."""
    dataset: str = CIFAR10
    max_steps: int = 0
    """0: those of the preset."""


# By the names of the presets.
ROWS = {
    'tutorial': Row('about 86%', max_steps=100_000),
    'fast': Row(''),
    'best': Row(''),
    'airbench94': Row('94.01%, six views'),
    'airbench94_muon': Row('94.01%, six views'),
    'airbench93': Row('93.00%, six views'),
    'airbench95': Row('95.01%, six views'),
    'airbench96': Row('96.03%, six views'),
    'book': Row('about 75%'),
    'logistic': Row('37%'),
    'mlp': Row('45%'),
    'small_cnn': Row('70%'),
    'dropout_cnn': Row('66.6%'),
    'deep_cnn': Row('over 80%'),
    'deep_cnn_augmented': Row('78.3%'),
    'batch_norm_cnn': Row('83%'),
    'mnist_cnn': Row('98.5%', MNIST),
    'mnist_deep': Row('', MNIST),
}


def row_recipe(preset: str) -> Recipe:
    """The preset's recipe, with the steps of its row."""
    recipe = PRESETS[preset].recipe
    return dataclasses.replace(recipe, max_steps=ROWS[preset].max_steps or recipe.max_steps)


def run_options(preset: str) -> Mapping[str, Any]:
    """Settings of a run that the preset makes besides its recipe."""
    return PRESETS[preset].run


def complete_recipe(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a kept recipe; where an earlier version had no such value, the default."""
    return dataclasses.asdict(load_recipe(values))


def num_views(recipe: Recipe) -> int:
    """How many views of a test image to average, of those that training saw the like of."""
    if recipe.reflect_padding:
        return 6
    return 10 if recipe.flip and recipe.max_shift > 0 else 1
