"""Runs that begin with the layers of another, and layers that are frozen or at other rates."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cifar10_eval
import cifar10_multi_gpu_train
import cifar10_train
from cifar10_eval import EvalSettings
from cifar10_lib.base.errors import UserError
from cifar10_lib.nn.recipes import OPTIMIZERS
from cifar10_lib.nn.towers import FIRST, MIRRORED
from cifar10_lib.runs.run_folder import RunFolder
from cifar10_multi_gpu_train import MultiGpuTrainSettings
from cifar10_train import OneDeviceTrainSettings
from tests.helpers.data_sets import write_own_set
from tests.helpers.runs import checkpoint_values, settings_for, train

# More than one run each.
slow = pytest.mark.slow

AVERAGE = '/ExponentialMovingAverage'

Values = dict[str, np.ndarray]


@pytest.fixture(scope='module')
def source(synthetic_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps with ten classes; not to be written to."""
    train_dir = tmp_path_factory.mktemp('source')
    train(synthetic_data, train_dir, max_steps=3)
    return train_dir


@pytest.fixture(scope='module')
def own_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes."""
    return write_own_set(tmp_path_factory.mktemp('own') / 'data', [0, 1, 2] * 10)


def fine_tune(own_data: Path, train_dir: Path, source: Path | str | None, **more: Any) -> Values:
    """The last checkpoint of a run with three classes."""
    more = {'dataset': 'own', 'init_from': source and str(source), **more}
    train(own_data, train_dir, **more)
    return checkpoint_values(train_dir)


# ---------------------------------------------------------------------- first weights


@pytest.mark.parametrize(
    'name',
    ['', 'model.ckpt-3', 'model.ckpt-3.index', 'model.ckpt-3.data-00000-of-00001'],
)
def test_a_run_begins_with_the_averages_of_the_layers_that_fit(
    name: str, source: Path, own_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fine_tune(own_data, tmp_path / 'run', source / name, max_steps=1)
    first, expected = (
        checkpoint_values(tmp_path / 'run' / 'model.ckpt-0'),
        checkpoint_values(source),
    )
    for layer in ('conv1', 'conv2', 'local3', 'local4'):
        for kind in ('weights', 'biases'):
            average = expected[f'{layer}/{kind}{AVERAGE}']
            assert (average != expected[f'{layer}/{kind}']).any()
            np.testing.assert_array_equal(first[f'{layer}/{kind}'], average)
            np.testing.assert_array_equal(first[f'{layer}/{kind}{AVERAGE}'], average)
    assert first['softmax_linear/weights'].shape == (192, 3)
    assert (first['global_step'], first['examples_seen']) == (0, 0)
    output = capsys.readouterr().out
    assert f'Layers from {source}/model.ckpt-3, step 3: conv1, conv2, local3, local4\n' in output
    anew = 'softmax_linear (weights [192, 3], there [192, 10])'
    assert f'Layers that begin anew: {anew}\n' in output
    assert RunFolder.open(str(tmp_path / 'run')).settings['init_from'] == str(source / name).rstrip(
        '/'
    )


def test_all_layers_fit_where_the_classes_are_as_many(
    source: Path, synthetic_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(synthetic_data, tmp_path, max_steps=1, init_from=str(source))
    assert 'local4, softmax_linear\nLayers that begin anew: none\n' in capsys.readouterr().out


@slow
def test_weights_are_taken_where_there_are_no_averages(
    synthetic_data: Path, own_data: Path, tmp_path: Path
) -> None:
    """And the moving statistics of batch normalisation come along."""
    more: dict[str, Any] = {
        'model': 'batch_norm_cnn',
        'moving_average_decay': 0.0,
        'optimizer': 'adam',
        'learning_rate': 1e-3,
    }
    train(synthetic_data, tmp_path / 'source', **more)
    fine_tune(own_data, tmp_path / 'run', tmp_path / 'source', max_steps=1, **more)
    expected = checkpoint_values(tmp_path / 'source')
    first = checkpoint_values(tmp_path / 'run' / 'model.ckpt-0')
    for name in ('conv3/weights', 'norm2/scale', 'norm2/moving_mean', 'norm3/moving_variance'):
        assert expected[name].any()
        np.testing.assert_array_equal(first[name], expected[name])
    # What the optimiser remembers is of the old run.
    assert not first['conv3/weights/Adam'].any()


@slow
def test_a_resumed_run_takes_its_own_checkpoint(
    source: Path, own_data: Path, tmp_path: Path
) -> None:
    """Also where the source is gone, and to the bits of an unbroken run."""
    copy = tmp_path / 'source'
    shutil.copytree(source, copy)
    fine_tune(own_data, tmp_path / 'pieces', copy, max_steps=1, deterministic=True)
    shutil.rmtree(copy)
    pieces = fine_tune(own_data, tmp_path / 'pieces', copy, max_steps=2, deterministic=True)
    whole = fine_tune(own_data, tmp_path / 'whole', source, max_steps=2, deterministic=True)
    assert set(whole) == set(pieces)
    for name, value in whole.items():
        np.testing.assert_array_equal(pieces[name], value, err_msg=name)
    # A flag that is left out is that of the run.
    fine_tune(own_data, tmp_path / 'pieces', None, max_steps=3)
    assert RunFolder.open(str(tmp_path / 'pieces')).settings['init_from'] == str(copy)


@pytest.mark.parametrize(
    ('name', 'more', 'message'),
    [
        ('nowhere', {}, r'--init_from=.*nowhere: missing; .* holds model\.ckpt-0, model\.ckpt-3'),
        ('model.ckpt-9', {}, r'--init_from=.*model\.ckpt-9: missing; '),
        ('empty', {}, r'--init_from=.*empty: found no checkpoint'),
        (
            '',
            {'model': 'logistic'},
            r'no layer of .*model\.ckpt-3 fits the network logistic: softmax_linear '
            r'\(weights \[3072, 3\], there \[192, 10\]\)',
        ),
        ('', {'model': 'airbench'}, r'fits the network airbench: whiten \(no weights there\), '),
    ],
)
def test_what_cannot_be_begun_with_is_one_error_before_anything_is_written(
    name: str,
    more: dict[str, Any],
    message: str,
    source: Path,
    own_data: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / 'empty').mkdir()
    place = tmp_path if name == 'empty' else source
    with pytest.raises(UserError, match=message):
        fine_tune(own_data, tmp_path / 'run', place / name, **more)
    assert not (tmp_path / 'run').exists()


def test_a_damaged_checkpoint_is_one_error(source: Path, own_data: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / 'source')
    data = tmp_path / 'source' / 'model.ckpt-3.data-00000-of-00001'
    data.write_bytes(data.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r'model\.ckpt-3: not a readable checkpoint'):
        fine_tune(own_data, tmp_path / 'run', tmp_path / 'source' / 'model.ckpt-3')


@slow
def test_a_run_that_has_begun_takes_no_other_weights(
    source: Path, own_data: Path, tmp_path: Path
) -> None:
    fine_tune(own_data, tmp_path, None)
    with pytest.raises(UserError, match='has begun already, without it; name another --train_dir'):
        fine_tune(own_data, tmp_path, source)
    with pytest.raises(UserError, match='is in the --train_dir of the new run'):
        fine_tune(own_data, tmp_path, tmp_path / 'model.ckpt-2', start_over=True)
    assert checkpoint_values(tmp_path)['global_step'] == 2
    fine_tune(own_data, tmp_path, source, start_over=True)


# ------------------------------------------------------------- frozen layers and rates


def recipe(optimizer: str) -> dict[str, Any]:
    return {
        'optimizer': optimizer,
        'learning_rate': 0.01,
        'muon_learning_rate': 0.01,
        'total_weight_decay': 0.01,
        'conv_weight_decay': 0.01,
    }


@slow
@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_frozen_layers_keep_their_bits(
    optimizer: str, source: Path, own_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {'freeze': 'conv*,local3', 'lookahead_steps': 2, **recipe(optimizer)}
    found = fine_tune(own_data, tmp_path, source, max_steps=3, **more)
    expected = checkpoint_values(source)
    for name in ('conv1/weights', 'conv2/biases', 'local3/weights'):
        np.testing.assert_array_equal(found[name], expected[name + AVERAGE], err_msg=name)
        np.testing.assert_array_equal(found[name + AVERAGE], expected[name + AVERAGE])
    assert (found['local4/weights'] != expected['local4/weights' + AVERAGE]).any()
    assert not any(name.startswith('conv1/weights/') for name in set(found) - set(expected))
    assert 'weights, 992,448 of them frozen\n' in capsys.readouterr().out
    # The checkpoint has what every other has.
    settings = EvalSettings(checkpoint_dir=str(tmp_path), data_dir=str(own_data), run_once=True)
    cifar10_eval.evaluate(settings)


@slow
def test_frozen_normalisations_keep_their_statistics(synthetic_data: Path, tmp_path: Path) -> None:
    """And training, which takes them, does as evaluation does in those layers."""
    more: dict[str, Any] = {'model': 'batch_norm_cnn', 'learning_rate': 1e-3}
    train(synthetic_data, tmp_path, max_steps=2, **more)
    before = checkpoint_values(tmp_path)
    train(synthetic_data, tmp_path, max_steps=4, freeze='norm1,norm2,conv1', **more)
    after = checkpoint_values(tmp_path)
    for name in before:
        is_frozen = name.startswith(('norm1/', 'norm2/', 'conv1/')) and AVERAGE not in name
        changes = (before[name] != after[name]).any()
        assert changes != is_frozen, name


@slow
@pytest.mark.parametrize('variables', [FIRST, MIRRORED])
@pytest.mark.parametrize('optimizer', ['sgd', 'adam'])
def test_towers_freeze_and_scale_as_one_device(
    optimizer: str, variables: str, source: Path, own_data: Path, tmp_path: Path
) -> None:
    more: dict[str, Any] = {
        **recipe(optimizer),
        'init_from': str(source),
        'freeze': 'conv1',
        'layer_learning_rates': 'local*=0.1,softmax_linear=3',
        'max_steps': 3,
    }
    one = settings_for(own_data, tmp_path / 'one', dataset='own', batch_splits=2, **more)
    cifar10_train.train(one)
    cifar10_multi_gpu_train.train(
        MultiGpuTrainSettings(
            train_dir=str(tmp_path / 'towers'),
            data_dir=str(own_data),
            dataset='own',
            batch_size=4,
            num_gpus=2,
            tower_device='cpu',
            variables=variables,
            **more,
        )
    )
    expected, found = checkpoint_values(tmp_path / 'one'), checkpoint_values(tmp_path / 'towers')
    assert set(expected) == set(found)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


@slow
def test_a_run_in_pieces_freezes_and_scales_as_an_unbroken_one(
    source: Path, own_data: Path, tmp_path: Path
) -> None:
    """With Adam, whose powers are those of two optimisers."""
    more = {
        **recipe('adam'),
        'freeze': 'conv1',
        'layer_learning_rates': 'local*=0.1',
        'lookahead_steps': 2,
        'deterministic': True,
    }
    whole = fine_tune(own_data, tmp_path / 'whole', source, max_steps=4, **more)
    fine_tune(own_data, tmp_path / 'pieces', source, max_steps=3, **more)
    pieces = fine_tune(own_data, tmp_path / 'pieces', source, max_steps=4, **more)
    assert set(whole) == set(pieces) and 'train/beta1_power_1' in whole
    for name, value in whole.items():
        np.testing.assert_array_equal(pieces[name], value, err_msg=name)


@slow
def test_layers_can_be_thawed_on_the_way(source: Path, own_data: Path, tmp_path: Path) -> None:
    """And those of another rate then have Adam's powers of the run."""
    fine_tune(own_data, tmp_path, source, max_steps=2, freeze='conv*', **recipe('adam'))
    more = {'layer_learning_rates': 'conv*=0.5', **recipe('adam')}
    found = fine_tune(own_data, tmp_path, source, max_steps=3, **more)
    assert (found['conv1/weights'] != checkpoint_values(source)['conv1/weights' + AVERAGE]).any()
    powers = [found['train/beta1_power'], found['train/beta1_power_1']]
    np.testing.assert_allclose(powers, 0.9**4, rtol=1e-6)


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (
            {'freeze': 'conv3'},
            '--freeze=conv3: found no layer conv3; expected names or patterns of conv1, conv2, '
            'local3, local4, softmax_linear, or none',
        ),
        ({'freeze': 'conv1,'}, "--freeze=conv1,: expected names of layers, as 'conv1,conv2'"),
        ({'freeze': '*'}, r'--freeze=\*: freezes all layers of the network tutorial, conv1, '),
        (
            {'layer_learning_rates': 'conv*=0.1,fc=2'},
            r'--layer_learning_rates=conv\*=0.1,fc=2: found no layer fc; expected names',
        ),
        ({'layer_learning_rates': 'conv1'}, 'expected names and factors'),
        ({'layer_learning_rates': 'conv1=-1'}, 'expected names and factors'),
    ],
)
def test_wrong_names_of_layers_are_one_error(
    given: dict[str, Any], message: str, own_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        fine_tune(own_data, tmp_path / 'run', None, **given)
    assert not (tmp_path / 'run').exists()


def test_all_flags_of_fine_tuning_are_resumed(source: Path, own_data: Path, tmp_path: Path) -> None:
    given = {'freeze': 'conv1', 'layer_learning_rates': 'conv2=0.5'}
    fine_tune(own_data, tmp_path, source, **given)
    defaults = OneDeviceTrainSettings(train_dir=str(tmp_path)).defaults()
    assert {name: defaults[name] for name in given} == given
    assert defaults['init_from'] == str(source)
