"""Recipes and presets: plain data that agrees with the input and the networks."""

from __future__ import annotations

import dataclasses
import json
import re
import statistics

import pytest

import cifar10_input
from cifar10 import NETWORKS
from cifar10_lib.base.errors import UserError
from cifar10_lib.nn.presets import MODEL_NAMES, NETWORK_PRESETS, PRESETS
from cifar10_lib.nn.recipes import (
    SCALINGS,
    TUTORIAL_RECIPE,
    Recipe,
    in_steps,
    load_recipe,
    resolve_class_weights,
)
from cifar10_lib.nn.schedules import distortions
from cifar10_lib.training.settings import TrainSettings
from tests.helpers.scripts import REPOSITORY


def test_the_default_distortions_are_the_inputs() -> None:
    assert distortions(TUTORIAL_RECIPE) == cifar10_input.TUTORIAL_DISTORTIONS


def test_each_network_has_a_preset_of_its_own() -> None:
    assert set(MODEL_NAMES) == set(NETWORKS)
    assert all(PRESETS[NETWORK_PRESETS[name]].recipe.model == name for name in NETWORKS)
    assert NETWORK_PRESETS['tutorial'] == 'tutorial' and NETWORK_PRESETS['airbench'] == 'airbench94'


@pytest.mark.parametrize('name', PRESETS)
def test_a_preset_sets_flags_that_exist(name: str) -> None:
    preset = PRESETS[name]
    recipe = {field.name for field in dataclasses.fields(Recipe)}
    assert set(preset.flags) <= {field.name for field in dataclasses.fields(TrainSettings)}
    assert not set(preset.run) & recipe


@pytest.mark.parametrize('name', PRESETS)
def test_a_preset_tells_the_command_time_and_precision_of_its_kept_results(name: str) -> None:
    files = (REPOSITORY / 'docs' / 'results').glob('*.json')
    results = [json.loads(file.read_text(encoding='utf-8')) for file in files]
    results = [result for result in results if result['preset'] == name]
    about = ' '.join(PRESETS[name].about.split())
    assert ('Not measured yet.' in about) == (not results)
    if not results:
        return
    command = re.search(r'cifar10_train\.py (.*?): (.*)', about)
    assert command
    options, reached = command[1].split(), command[2]
    assert options[0] == ('--max_steps=100000' if name == 'tutorial' else f'--preset={name}')
    assert ('--data_dir=mnist_data' in options) == (results[0]['dataset'] == 'MNIST')
    assert all(('--use_bf16' in options) == result['use_bf16'] for result in results)
    minutes = statistics.median(result['seconds'] for result in results) / 60
    assert f'{minutes:.1f} minutes' in reached
    keys = ['precision', *(['precision_of_views'] if results[0]['precision_of_views'] else [])]
    means = [f'{statistics.mean(result[key] for result in results):.3f}' for key in keys]
    assert re.findall(r'\d\.\d{3}', reached) == means


def test_a_stored_recipe_is_loaded_and_other_settings_are_left_out() -> None:
    stored = {'learning_rate': 0.5, 'flip': False, 'train_dir': 'run'}
    assert load_recipe(stored) == Recipe(learning_rate=0.5, flip=False)


def test_epochs_are_steps_of_the_training_set_and_the_end_of_a_schedule() -> None:
    recipe = Recipe(epochs=2.5, schedule='cosine', decay_epochs=7.0, max_steps=9)
    found = in_steps(recipe, num_examples_per_epoch=100, batch_size=64)
    assert (found.max_steps, found.decay_epochs) == (4, 2.5)
    staircase = dataclasses.replace(recipe, schedule='staircase')
    found = in_steps(staircase, num_examples_per_epoch=100, batch_size=64)
    assert (found.max_steps, found.decay_epochs) == (4, 7.0)
    assert in_steps(Recipe(), 100, 64) == Recipe()


def test_the_scalings_are_the_inputs_and_the_networks_own() -> None:
    assert ('network', *cifar10_input.SCALINGS) == SCALINGS
    network = NETWORKS['small_cnn']
    assert network.trained_by(Recipe()).view == network.view
    assert network.trained_by(Recipe(scaling='channels')).view.scaling == 'channels'


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'gradient_scales': 'a'}, r'--gradient_scales=a: expected names and factors, as '),
        ({'gradient_scales': 'a=nan'}, '--gradient_scales=a=nan: expected names and factors'),
    ],
)
def test_texts_of_numbers_are_refused_by_the_flags_name(values: dict, message: str) -> None:
    recipe = Recipe(**values)
    with pytest.raises(UserError, match=message):
        recipe.gradient_factors()


# ---------------------------------------------------------------------- class weights

NAMES = ('cat', 'dog', 'polar bear')


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('none', 'none'),
        # 100 images of 3 classes: 100 / (3 x 60), ...
        ('balanced', '0.555556,1.11111,3.33333'),
        ('cat=2, polar bear=0.5', '2,1,0.5'),
        ('1,0,2.5', '1,0,2.5'),
    ],
)
def test_class_weights_become_a_number_for_each_class(text: str, expected: str) -> None:
    """Which stay as they are when a run is resumed."""
    found = resolve_class_weights(text, NAMES, [60, 30, 10])
    assert found == expected
    assert resolve_class_weights(found, NAMES, [60, 30, 10]) == expected


def test_balanced_weights_leave_a_class_without_images_out() -> None:
    assert resolve_class_weights('balanced', NAMES, [60, 0, 20]) == '0.666667,1,2'


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('bird=2', '--class_weights=bird=2: found no class bird; expected names of cat, dog, pol'),
        ('cat=-1', '--class_weights=cat=-1: expected names and factors'),
        ('1,2', '--class_weights=1,2: found 2 numbers; expected 3, one for each of cat, dog'),
        ('even', '--class_weights=even: expected a number of 0 or more for each class'),
        ('0,0,0', '--class_weights=0,0,0: found no class of a weight over 0'),
    ],
)
def test_wrong_class_weights_are_one_error(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_class_weights(text, NAMES, [60, 30, 10])
