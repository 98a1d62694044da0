"""The folder of a run, as its settings and checkpoints describe it."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from cifar10_lib.base import flags
from cifar10_lib.base.errors import UserError
from cifar10_lib.nn.presets import PRESETS
from cifar10_lib.nn.recipes import TUTORIAL_RECIPE
from cifar10_lib.runs import run_folder
from cifar10_lib.runs.run_folder import RunFolder
from cifar10_lib.training.settings import OneDeviceTrainSettings, TrainSettings
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
        data_dir=str(tmp_path / 'mine'),
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


def test_a_checkpoint_is_no_folder_of_a_run(tmp_path: Path) -> None:
    checkpoint = save_network(tmp_path)
    for path in (checkpoint, f'{checkpoint}.index'):
        message = f'{path}: is a checkpoint, or a file of one; expected the folder of a run, here '
        with pytest.raises(UserError, match=re.escape(message + str(tmp_path))):
            RunFolder.open(path)


# ------------------------------------------------------------------------- its data


def trained_on(train_dir: Path, data_dir: str, **more: str) -> RunFolder:
    """A run that stored where its data set is."""
    train_dir.mkdir(parents=True)
    run_folder.store(TrainSettings(data_dir=data_dir), str(train_dir), **more)
    return RunFolder.open(str(train_dir))


def test_a_data_set_is_found_from_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'data').mkdir()
    monkeypatch.chdir(tmp_path)
    trained_on(Path('run'), 'data')
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    run = RunFolder.open('../run')
    assert run.find_data_dir(None) == str(tmp_path / 'data')
    assert run.find_data_dir('given') == 'given'


def test_a_data_set_that_was_moved_with_its_run_is_found(tmp_path: Path) -> None:
    (tmp_path / 'project' / 'data').mkdir(parents=True)
    trained_on(tmp_path / 'project' / 'runs' / 'run', str(tmp_path / 'project' / 'data'))
    (tmp_path / 'project').rename(tmp_path / 'moved')
    run = RunFolder.open(str(tmp_path / 'moved' / 'runs' / 'run'))
    assert run.find_data_dir(None) == str(tmp_path / 'moved' / 'data')


def test_a_data_set_that_is_gone_is_named_and_none_is_made(tmp_path: Path) -> None:
    run = trained_on(tmp_path / 'run', str(tmp_path / 'data'))
    with pytest.raises(UserError, match=f'{tmp_path}/data: missing; the run in .*--data_dir names'):
        run.prepare_data(None)
    with pytest.raises(UserError, match=f'--data_dir={tmp_path}/data: holds no data set'):
        run.prepare_data(str(tmp_path / 'data'), 'synthetic')
    assert not (tmp_path / 'data').exists()


def test_other_images_than_those_of_training_are_refused(tmp_path: Path) -> None:
    (tmp_path / 'data').mkdir()
    run = trained_on(tmp_path / 'run', str(tmp_path / 'data'), test_files_sha256='a' * 64)
    paths = [str(tmp_path / 'data' / 'test_batch.bin')]
    run.check_files(paths, 'a' * 64, 'test')
    # Of a run of an earlier version nothing is known.
    run.check_files(paths, 'b' * 64, 'training')
    with pytest.raises(UserError, match='data: these are not the test files of .*bbbb, expected a'):
        run.check_files(paths, 'b' * 64, 'test')


# ------------------------------------------------------------------ its results, resuming


def test_lines_of_another_run_are_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained_on(tmp_path / 'run', 'data', run='mine')
    lines = [{'step': 1, 'run': 'mine'}, {'step': 2, 'run': 'deleted'}, {'step': 3}]
    (tmp_path / 'history.jsonl').write_text(''.join(f'{json.dumps(line)}\n' for line in lines))
    assert run.own_entries(str(tmp_path)) == lines[:1]
    assert (
        f'{tmp_path}/history.jsonl: 2 lines are of another run than the one in {tmp_path}/run, and '
        'left out: of deleted, one without a name\n'
    ) in capsys.readouterr().err
    # A folder of an earlier version has no names at all.
    assert RunFolder('old').own_entries(str(tmp_path)) == lines[2:]


def parse(*options: str) -> OneDeviceTrainSettings:
    return flags.parse(OneDeviceTrainSettings, 'train.py', ['train.py', *options])


def test_a_run_is_resumed_with_all_that_it_was_begun_with(tmp_path: Path) -> None:
    begun = OneDeviceTrainSettings(
        train_dir=str(tmp_path / 'run'),
        data_dir=str(tmp_path / 'data'),
        dataset='own',
        optimizer='adam',
        learning_rate=0.001,
        batch_size=32,
        flip=False,
        use_bf16=True,
        num_held_out=50,
        max_steps=77,
        seed=5,
    )
    (tmp_path / 'run').mkdir()
    (tmp_path / 'data').mkdir()
    run_folder.store(begun, begun.train_dir)
    folder = f'--train_dir={begun.train_dir}'
    assert parse(folder) == begun
    changed = parse(folder, '--learning_rate=0.01', '--flip')
    assert changed == dataclasses.replace(begun, learning_rate=0.01, flip=True)
    over = parse(folder, '--start_over')
    assert over == OneDeviceTrainSettings(train_dir=begun.train_dir, start_over=True)


def test_a_stored_value_of_another_type_is_not_taken(tmp_path: Path) -> None:
    write(tmp_path, model='mlp', log_frequency='often', max_to_keep=True, later=[1])
    settings = parse(f'--train_dir={tmp_path}')
    assert (settings.model, settings.log_frequency, settings.max_to_keep) == ('mlp', 10, 5)
