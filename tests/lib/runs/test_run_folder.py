"""The folder of a run, as its settings and checkpoints describe it."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from cifar10_lib.base.errors import UserError
from cifar10_lib.nn.presets import PRESETS
from cifar10_lib.nn.recipes import TUTORIAL_RECIPE
from cifar10_lib.runs import run_folder
from cifar10_lib.runs.run_folder import RunFolder
from cifar10_lib.training.settings import TrainSettings
from tests.helpers.runs import save_network


def write(folder: Path, **settings: Any) -> str:
    (folder / 'settings.json').write_text(json.dumps(settings))
    return str(folder)


def test_what_training_stores_comes_back(tmp_path: Path) -> None:
    recipe = dataclasses.asdict(PRESETS['deep_cnn_augmented'].recipe)
    settings = TrainSettings(
        **recipe,
        train_dir=str(tmp_path),
        preset='deep_cnn_augmented',
        dataset='own',
        data_dir='mine',
        num_held_out=7,
        use_bf16=True,
        seed=3,
    )
    run_folder.store(settings, str(tmp_path), training_files_sha256='0')
    run = RunFolder.open(str(tmp_path))
    assert run.recipe == PRESETS['deep_cnn_augmented'].recipe
    for name in ('model', 'preset', 'dataset', 'data_dir', 'num_held_out', 'use_fp16', 'use_bf16'):
        assert getattr(run, name) == getattr(settings, name)
    assert (run.path, run.seed, run.settings['training_files_sha256']) == (str(tmp_path), 3, '0')


@pytest.mark.parametrize('settings', [None, {}, {'preset': None, 'momentum': None, 'later': []}])
def test_what_is_missing_is_as_the_tutorial_has_it(tmp_path: Path, settings: Any) -> None:
    if settings is not None:
        write(tmp_path, **settings)
    run = RunFolder.open(str(tmp_path))
    assert run == RunFolder(str(tmp_path), settings or {})
    assert (run.model, run.preset, run.recipe) == ('tutorial', 'tutorial', TUTORIAL_RECIPE)
    assert (run.dataset, run.data_dir, run.num_held_out, run.num_classes) == (None, None, 0, 10)


def test_a_run_without_a_preset_is_one_of_its_networks(tmp_path: Path) -> None:
    run = RunFolder.open(write(tmp_path, model='mlp', learning_rate=1))
    assert (run.model, run.preset, run.recipe.learning_rate) == ('mlp', 'mlp', 1)


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('model', 'other', "'other'; expected one of tutorial, airbench"),
        ('preset', 5, '5; expected one of tutorial, fast'),
        ('dataset', 'cifar100', "'cifar100'; expected one of cifar10, synthetic, own"),
        ('optimizer', ['sgd'], "['sgd']; expected one of sgd, momentum"),
        ('data_dir', 5, '5; expected a text'),
        ('num_held_out', '20', "'20'; expected a whole number, 0 or more"),
        ('num_held_out', -1, '-1; expected a whole number, 0 or more'),
        ('seed', 1.5, '1.5; expected a whole number, 0 or more'),
        ('batch_size', True, 'True; expected a whole number, 0 or more'),
        ('moving_average_decay', 'x' * 999, f"'{'x' * 59}; expected a number, 0 or more"),
        ('max_contrast', float('nan'), 'nan; expected a number, 0 or more'),
        ('flip', 1, '1; expected true or false'),
        ('use_fp16', 'no', "'no'; expected true or false"),
    ],
)
def test_a_wrong_setting_is_one_error_that_names_it(
    tmp_path: Path, name: str, value: Any, message: str
) -> None:
    write(tmp_path, **{name: value})
    pattern = re.escape(f'{tmp_path}/settings.json: found the {name} {message}')
    with pytest.raises(UserError, match=pattern):
        RunFolder.open(str(tmp_path))


@pytest.mark.parametrize('text', ['{"seed": ', '[1]', '', '[' * 100_000, '\0'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / 'settings.json').write_text(text)
    with pytest.raises(UserError, match=r'settings\.json: (cannot be read|expected a JSON object)'):
        RunFolder.open(str(tmp_path))


def test_a_network_is_named_where_there_are_no_settings_alone(tmp_path: Path) -> None:
    assert RunFolder.open(str(tmp_path), 'mlp').model == 'mlp'
    write(tmp_path, model='logistic')
    assert RunFolder.open(str(tmp_path), 'logistic').model == 'logistic'
    with pytest.raises(UserError, match='--model=mlp: the checkpoints in .* network logistic'):
        RunFolder.open(str(tmp_path), 'mlp')


def test_checkpoints_tell_the_number_of_classes(tmp_path: Path) -> None:
    checkpoint = save_network(tmp_path / 'run', num_classes=3)
    run = RunFolder.open(str(tmp_path / 'run'))
    assert (run.require_checkpoint().path, run.num_classes) == (checkpoint, 3)
    with pytest.raises(UserError, match=f'--train_dir={tmp_path}: found no checkpoint; train'):
        RunFolder(str(tmp_path)).require_checkpoint('--train_dir')


def test_another_data_set_or_none_held_out_is_refused(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path), dataset='own')
    with pytest.raises(UserError, match='--dataset=cifar10: the checkpoints in .* trained on own'):
        run.prepare_data(None, 'cifar10')
    with pytest.raises(UserError, match='--eval_data=held_out: the run in .* held no training'):
        run.check_eval_data('held_out')
    RunFolder(str(tmp_path), num_held_out=1).check_eval_data('held_out')
