"""Recipes and presets: plain data that agrees with the input and the networks."""

from __future__ import annotations

import dataclasses

import pytest

import cifar10_input
from cifar10 import NETWORKS
from cifar10_lib.nn.presets import MODEL_NAMES, PRESETS
from cifar10_lib.nn.recipes import TUTORIAL_RECIPE, Recipe, load_recipe
from cifar10_lib.nn.schedules import distortions
from cifar10_lib.training.settings import TrainSettings


def test_the_default_distortions_are_the_inputs() -> None:
    assert distortions(TUTORIAL_RECIPE) == cifar10_input.TUTORIAL_DISTORTIONS


def test_each_network_has_a_preset_of_its_name() -> None:
    assert set(MODEL_NAMES) == set(NETWORKS)
    assert all(PRESETS[name].recipe.model == name for name in NETWORKS)


@pytest.mark.parametrize('name', PRESETS)
def test_a_preset_tells_its_command_and_sets_flags_that_exist(name: str) -> None:
    preset = PRESETS[name]
    command = '--max_steps=100000' if name == 'tutorial' else f'--preset={name}'
    assert f'cifar10_train.py {command}' in ' '.join(preset.about.split())
    assert set(preset.flags) <= {field.name for field in dataclasses.fields(TrainSettings)}


def test_a_stored_recipe_is_loaded_and_other_settings_are_left_out() -> None:
    stored = {'learning_rate': 0.5, 'flip': False, 'train_dir': 'run'}
    assert load_recipe(stored) == Recipe(learning_rate=0.5, flip=False)
