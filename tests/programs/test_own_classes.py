"""Any number of classes, from training to export, and training images that are held out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10
import cifar10_eval
import cifar10_export
import cifar10_multi_gpu_train
import cifar10_plot
import cifar10_predict
import cifar10_train
from cifar10_eval import EvalSettings
from cifar10_input import TEST_FILES, TRAIN_FILES
from cifar10_lib.base.errors import UserError
from cifar10_lib.runs.run_folder import RunFolder
from cifar10_lib.training.begin import begin
from cifar10_multi_gpu_train import MultiGpuTrainSettings
from cifar10_train import OneDeviceTrainSettings
from tests.helpers.data_sets import write_own_set
from tests.helpers.runs import checkpoint_values

NAMES = ('cat', 'polar bear', 'Zürich')


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """60 training and 25 test records of three classes."""
    directory = tmp_path_factory.mktemp('own')
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, [85, 3073], dtype=np.uint8)
    data[:, 0] = rng.permutation(85) % len(NAMES)
    for i, name in enumerate((*TRAIN_FILES, *TEST_FILES)):
        data[12 * i : 12 * (i + 1) if i < 5 else 85].tofile(directory / name)
    (directory / 'batches.meta.txt').write_text('\n'.join(NAMES), encoding='utf-8')
    return str(directory)


@pytest.fixture(scope='module')
def settings(data_dir: str, tmp_path_factory: pytest.TempPathFactory) -> OneDeviceTrainSettings:
    """Those of a run that was taken to step 2 with 20 images held out."""
    settings = OneDeviceTrainSettings(
        train_dir=str(tmp_path_factory.mktemp('train')),
        data_dir=data_dir,
        batch_size=8,
        max_steps=2,
        num_held_out=20,
        max_shift=2,
        flip=False,
    )
    cifar10_train.train(settings)
    return settings


def eval_settings(settings: OneDeviceTrainSettings, tmp_path: Path, **more: object) -> EvalSettings:
    values = EvalSettings(
        checkpoint_dir=settings.train_dir,
        eval_dir=str(tmp_path / 'eval'),
        run_once=True,
    )
    return dataclasses.replace(values, **more)  # type: ignore[arg-type]


def test_training_takes_the_classes_from_their_names(settings: OneDeviceTrainSettings) -> None:
    shapes = dict(tf.train.list_variables(settings.train_dir))
    assert shapes['softmax_linear/biases'] == [3]
    with open(Path(settings.train_dir) / 'settings.json', encoding='utf-8') as file:
        stored = json.load(file)
    assert (stored['dataset'], stored['num_held_out'], stored['flip']) == ('own', 20, False)


@pytest.mark.parametrize(
    ('eval_data', 'count'), [('test', '25'), ('held_out', '20 held-out training')]
)
def test_evaluation_scores_all_images_of_own_classes(
    settings: OneDeviceTrainSettings,
    tmp_path: Path,
    eval_data: str,
    count: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cifar10_eval.evaluate(eval_settings(settings, tmp_path, eval_data=eval_data))
    assert f'(step 2, {count} images)' in capsys.readouterr().out


def test_held_out_images_stay_so(settings: OneDeviceTrainSettings, tmp_path: Path) -> None:
    with pytest.raises(UserError, match='--num_held_out=10: the run in .* with 20; .*--start_over'):
        cifar10_train.train(dataclasses.replace(settings, num_held_out=10))
    with pytest.raises(UserError, match='--num_held_out=53: .* holds 60 training images; expected'):
        cifar10_train.train(
            dataclasses.replace(settings, train_dir=str(tmp_path / 'other'), num_held_out=53)
        )


def test_a_share_is_held_out_and_runs_keep_theirs(data_dir: str, tmp_path: Path) -> None:
    settings = OneDeviceTrainSettings(
        train_dir=str(tmp_path), data_dir=data_dir, batch_size=8, max_steps=1, held_out=0.25, seed=3
    )
    cifar10_train.train(settings)
    run = RunFolder.open(str(tmp_path))
    places = run.find_held_out(run.prepare_data(None))
    assert (run.num_held_out, run.held_out_seed, len(places)) == (15, 3, 15)
    # An earlier version held the last images out.
    stored = json.loads((tmp_path / 'settings.json').read_text())
    del stored['held_out_seed']
    (tmp_path / 'settings.json').write_text(json.dumps(stored))
    cifar10_train.train(dataclasses.replace(settings, max_steps=2))
    run = RunFolder.open(str(tmp_path))
    assert run.find_held_out(run.prepare_data(None)) == list(range(45, 60))
    with pytest.raises(UserError, match='--held_out=0.25: found --num_held_out=9 as well'):
        cifar10_train.train(dataclasses.replace(settings, num_held_out=9))


def test_without_held_out_images_none_are_scored(data_dir: str, tmp_path: Path) -> None:
    settings = OneDeviceTrainSettings(
        train_dir=str(tmp_path / 'train'), data_dir=data_dir, batch_size=8, max_steps=1
    )
    cifar10_train.train(settings)
    with pytest.raises(UserError, match='--eval_data=held_out: the run in .* held no training'):
        cifar10_eval.evaluate(eval_settings(settings, tmp_path, eval_data='held_out'))


def test_prediction_and_export_name_own_classes(
    settings: OneDeviceTrainSettings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    picture = tmp_path / 'a.png'
    image = np.random.default_rng(1).integers(0, 256, [40, 50, 3], dtype=np.uint8)
    with tf.Session() as session:
        picture.write_bytes(session.run(tf.image.encode_png(tf.constant(image))))
    cifar10_predict.predict(
        cifar10_predict.PredictSettings((str(picture),), checkpoint_dir=settings.train_dir)
    )
    line = capsys.readouterr().out
    assert all(name in line for name in NAMES)
    output = tmp_path / 'export'
    cifar10_export.export(
        cifar10_export.ExportSettings(
            output=str(output), checkpoint_dir=settings.train_dir, eval=True
        )
    )
    metadata = json.loads((output / 'metadata.json').read_text(encoding='utf-8'))
    assert metadata['class_names'] == list(NAMES)
    assert (metadata['dataset'], metadata['num_test_images']) == ('own', 25)


@pytest.mark.parametrize('kind', ['classes', 'distortions'])
def test_plots_name_own_classes(
    settings: OneDeviceTrainSettings, tmp_path: Path, kind: str
) -> None:
    output = tmp_path / 'plot.svg'
    cifar10_plot.plot(
        cifar10_plot.PlotSettings(
            plot=kind,
            train_dir=settings.train_dir,
            output=str(output),
        )
    )
    assert all(f'<!-- {name} -->' in output.read_text(encoding='utf-8') for name in NAMES)


def test_data_is_looked_for_where_the_run_found_it(
    settings: OneDeviceTrainSettings, tmp_path: Path
) -> None:
    run = RunFolder.open(settings.train_dir)
    assert run.find_data_dir(None) == settings.data_dir
    assert run.find_data_dir('given') == 'given'
    (tmp_path / 'settings.json').write_text('{"data_dir": "gone"}')
    with pytest.raises(UserError, match='^gone: missing; the run in .* --data_dir names where'):
        RunFolder.open(str(tmp_path)).find_data_dir(None)
    assert RunFolder.open('no run').find_data_dir(None) == 'cifar10_data'


# -------------------------------------------------- clipping, mixup and class weights


def shared(data: Path, train_dir: Path, **more: Any) -> dict[str, Any]:
    return {
        'data_dir': str(data),
        'dataset': 'own',
        'train_dir': str(train_dir),
        'max_steps': 3,
        'deterministic': True,
        'clip_norm': 0.5,
        'mixup': 0.4,
        'label_smoothing': 0.1,
        'class_weights': 'balanced',
        **more,
    }


@pytest.mark.slow
def test_clipping_mixup_and_class_weights_hold_in_pieces_and_on_towers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_own_set(tmp_path / 'data', [0, 0, 0, 1, 1, 2] * 6)
    values = {}
    for name, steps in (('whole', (3,)), ('pieces', (1, 3))):
        for max_steps in steps:
            options = shared(data, tmp_path / name, max_steps=max_steps, batch_size=8)
            cifar10_train.train(OneDeviceTrainSettings(batch_splits=2, **options))
        values[name] = checkpoint_values(tmp_path / name)
    # Numbers in place of the name: the run keeps them.
    stored = RunFolder.open(str(tmp_path / 'pieces')).settings
    assert stored['class_weights'] == '0.666667,1,2'
    assert 'class_weights was' not in capsys.readouterr().out
    for variables in ('first', 'mirrored'):
        options = shared(data, tmp_path / variables, batch_size=4, num_gpus=2, tower_device='cpu')
        cifar10_multi_gpu_train.train(MultiGpuTrainSettings(variables=variables, **options))
        values[variables] = checkpoint_values(tmp_path / variables)
    whole = values.pop('whole')
    for name, found in values.items():
        assert set(found) == set(whole)
        for variable, value in whole.items():
            if name == 'pieces':
                np.testing.assert_array_equal(found[variable], value, err_msg=variable)
            np.testing.assert_allclose(found[variable], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ('labels', 'more', 'warned'),
    [
        ([0, 1, 1, 1] * 6, {}, False),
        ([0, 1, 1, 1, 1] * 6, {}, True),
        ([0, 1, 1, 1, 1] * 6, {'class_weights': 'balanced'}, False),
        ([0, 2] * 12, {}, True),
    ],
)
def test_classes_that_are_far_from_equal_are_told(
    labels: list[int],
    more: dict[str, Any],
    warned: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = write_own_set(tmp_path / 'data', labels)
    settings = OneDeviceTrainSettings(
        data_dir=str(data), train_dir=str(tmp_path / 'run'), batch_size=8, **more
    )
    with begin(settings, cifar10.NETWORKS['tutorial'], 8):
        error = capsys.readouterr().err
    assert ('Warning: classes are far from equal: ' in error) == warned
    if warned:
        least = 'class0' if max(labels) == 1 else 'class1'
        count = labels.count(int(least[-1]))
        assert f'{count} of {least}, more than 3 to 1; --class_weights=balanced has' in error


def test_an_image_without_another_to_mix_with_is_an_error(data_dir: str, tmp_path: Path) -> None:
    settings = OneDeviceTrainSettings(
        data_dir=data_dir, train_dir=str(tmp_path / 'run'), batch_size=7, mixup=0.2
    )
    pattern = '--mixup=0.2: .* found --batch_size=7, expected an even number'
    with pytest.raises(UserError, match=pattern):
        cifar10_train.train(settings)
    assert not (tmp_path / 'run').exists()
