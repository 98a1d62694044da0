"""Networks beside the tutorial's, from flags to checkpoints and to all that reads them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10_eval
import cifar10_export
import cifar10_multi_gpu_train
import cifar10_plot
import cifar10_train
from cifar10 import NETWORKS, Options
from cifar10_eval import EvalSettings
from cifar10_export import ExportSettings
from cifar10_lib.base import flags
from cifar10_lib.base.errors import UserError
from cifar10_lib.data.framing import Framing
from cifar10_lib.evaluation import layer_table
from cifar10_lib.evaluation.evaluator import Predictor
from cifar10_lib.export import lite, onnx
from cifar10_lib.export.saved_model import ServedNetwork
from cifar10_lib.nn.presets import MODEL_NAMES, NETWORK_PRESETS, PRESETS
from cifar10_lib.nn.towers import FIRST, MIRRORED
from cifar10_lib.runs import history, run_folder
from cifar10_lib.runs.checkpoints import open_checkpoint
from cifar10_lib.runs.run_folder import RunFolder
from cifar10_lib.training.begin import begin, num_parts
from cifar10_multi_gpu_train import MultiGpuTrainSettings
from cifar10_plot import PlotSettings
from cifar10_train import OneDeviceTrainSettings
from tests.helpers.networks import WEIGHTS
from tests.helpers.runs import checkpoint_values
from tests.helpers.scripts import REPOSITORY

DOCS = REPOSITORY / 'docs' / 'training.md'

Values = dict[str, np.ndarray]


def preset_settings(
    preset: str, data_dir: Path, train_dir: Path, **more: Any
) -> OneDeviceTrainSettings:
    """Those that --preset and the flags of `more` make."""
    values = {
        **dataclasses.asdict(PRESETS[preset].recipe),
        'preset': preset,
        'data_dir': str(data_dir),
        'dataset': 'synthetic',
        'train_dir': str(train_dir),
        'batch_size': 6,
        'max_steps': 2,
        'save_summaries_steps': 1000,
        'save_histograms_steps': 1000,
        'eval_every': 2 if PRESETS[preset].recipe.plateau_evaluations else 0,
        **more,
    }
    return OneDeviceTrainSettings(**values)


def parsed(options: list[str]) -> OneDeviceTrainSettings:
    """What the script makes of its flags."""
    return flags.parse(OneDeviceTrainSettings, 'train.py', ['train.py', *options])


# ---------------------------------------------------------------------- flags, presets


def test_every_network_has_its_flag_and_its_preset() -> None:
    assert set(NETWORKS) == set(MODEL_NAMES)
    assert all(PRESETS[NETWORK_PRESETS[name]].recipe.model == name for name in NETWORKS)


@pytest.mark.parametrize(
    ('given', 'model', 'recipe'),
    [
        ({}, 'tutorial', 'tutorial'),
        ({'model': 'mlp'}, 'mlp', 'mlp'),
        ({'preset': 'deep_cnn_augmented'}, 'deep_cnn', 'deep_cnn_augmented'),
        ({'preset': 'tutorial', 'model': 'deep_cnn'}, 'deep_cnn', 'tutorial'),
        ({'model': 'deep_cnn', 'batch_size': 7}, 'deep_cnn', 'deep_cnn'),
        ({'model': 'mnist_deep', 'learning_rate': 0.5}, 'mnist_deep', 'mnist_deep'),
    ],
)
def test_flags_choose_network_and_recipe(
    given: dict[str, Any],
    model: str,
    recipe: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """And the command that resumes chooses the same, as does the folder alone."""
    monkeypatch.chdir(tmp_path)
    settings = parsed([f'--{name}={value}' for name, value in given.items()])
    expected = {**dataclasses.asdict(PRESETS[recipe].recipe), **given, 'model': model}
    if recipe == 'mnist_deep':
        expected |= {'num_held_out': 6000, 'eval_data': 'held_out', 'eval_every': 540}
    assert {name: getattr(settings, name) for name in expected} == expected
    options = flags.command_line(settings).split()[2:]
    assert len(options) == len(given)
    assert parsed(options) == settings

    os.mkdir(settings.train_dir)
    run_folder.store(settings, settings.train_dir)
    resumed = parsed([])
    assert (resumed.preset, resumed.model) == (settings.preset, settings.model)
    assert resumed.max_rotation == settings.max_rotation
    assert resumed.max_brightness == settings.max_brightness
    assert parsed(['--start_over']).model == 'tutorial'
    assert parsed(['--batch_size=9']) == dataclasses.replace(resumed, batch_size=9)


@pytest.mark.parametrize('stored', [{'preset': 'other'}, {'model': ['mlp']}])
def test_a_folder_of_an_unknown_network_is_one_error(
    stored: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'settings.json').write_text(json.dumps(stored))
    with pytest.raises(UserError, match=r'settings\.json: found the (preset|model) .*; expected'):
        parsed([f'--train_dir={tmp_path}'])
    if 'model' in stored:
        with pytest.raises(UserError, match='found the model'):
            RunFolder.open(str(tmp_path))


def test_batches_that_are_normalized_are_not_split_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind: [])
    monkeypatch.setattr('os.cpu_count', lambda: 8)
    assert num_parts(OneDeviceTrainSettings(), NETWORKS['batch_norm_cnn']) == 1
    assert num_parts(OneDeviceTrainSettings(batch_splits=2), NETWORKS['batch_norm_cnn']) == 2
    assert num_parts(OneDeviceTrainSettings(), NETWORKS['deep_cnn']) == 2


# -------------------------------------------------------------------------- training


# One without a convolution, one with all kinds of layers, and one that sees one channel of
# warped images.
TRAINED = ('logistic', 'batch_norm_cnn', 'mnist_deep')


@pytest.fixture(scope='module', params=TRAINED)
def trained(
    request: pytest.FixtureRequest, synthetic_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> OneDeviceTrainSettings:
    """The settings of a run of two steps; its folder is not to be written to."""
    train_dir = tmp_path_factory.mktemp(f'{request.param}_train')
    settings = preset_settings(request.param, synthetic_data, train_dir, learning_rate=1e-4)
    cifar10_train.train(settings)
    return settings


def test_a_run_of_any_network_leaves_a_checkpoint_and_its_name(
    trained: OneDeviceTrainSettings,
) -> None:
    values = checkpoint_values(Path(trained.train_dir))
    assert values['global_step'] == 2 and values['examples_seen'] == 12
    assert 'softmax_linear/weights' in values
    assert not any(name.endswith('ExponentialMovingAverage') for name in values)
    stored = RunFolder.open(trained.train_dir).settings
    assert stored['preset'] == stored['model'] == trained.model
    assert RunFolder.open(trained.train_dir).model == trained.model


@pytest.mark.parametrize('trained', ['batch_norm_cnn'], indirect=True)
def test_a_resumed_run_ends_where_an_unbroken_one_does(
    trained: OneDeviceTrainSettings, tmp_path: Path
) -> None:
    """With dropout, moving statistics and what the optimiser remembers."""
    for max_steps in (1, 2):
        cifar10_train.train(
            dataclasses.replace(trained, train_dir=str(tmp_path), max_steps=max_steps)
        )
    whole, pieces = checkpoint_values(Path(trained.train_dir)), checkpoint_values(tmp_path)
    assert set(whole) == set(pieces)
    assert whole['norm2/moving_mean'].any() and 'conv1/weights/Adam' in whole
    for name, value in whole.items():
        np.testing.assert_allclose(pieces[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ('preset', 'variables'), [('batch_norm_cnn', MIRRORED), ('mnist_deep', FIRST)]
)
def test_towers_take_the_steps_of_one_device_in_as_many_parts(
    preset: str, variables: str, synthetic_data: Path, tmp_path: Path
) -> None:
    one = preset_settings(preset, synthetic_data, tmp_path / 'one', batch_splits=2, optimizer='sgd')
    cifar10_train.train(one)
    values = {
        field.name: getattr(one, field.name)
        for field in dataclasses.fields(MultiGpuTrainSettings)
        if hasattr(one, field.name)
    }
    values.update(
        train_dir=str(tmp_path / 'towers'),
        batch_size=3,
        num_gpus=2,
        tower_device='cpu',
        variables=variables,
    )
    cifar10_multi_gpu_train.train(MultiGpuTrainSettings(**values))
    expected, found = checkpoint_values(tmp_path / 'one'), checkpoint_values(tmp_path / 'towers')
    assert set(expected) == set(found)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_workers_drop_what_one_device_does(synthetic_data: Path) -> None:
    """Each in its own share of the batch."""
    network = NETWORKS['mnist_cnn']
    images = np.random.default_rng(0).random([6, 28, 28, 1], dtype=np.float32)

    def kept(parts: int, share: slice = slice(None)) -> np.ndarray:
        """Whether dropout keeps the values of a layer, float32 [images, 128]."""
        with tf.Graph().as_default() as graph, tf.Session() as session:
            options = Options(num_parts=parts, summaries=False)
            first = 42 + (share.start or 0)
            network.inference(tf.constant(images[share]), options, True, tf.constant(first))
            masks = [op.outputs[0] for op in graph.get_operations() if op.type == 'GreaterEqual']
            session.run(tf.global_variables_initializer())
            return session.run(tf.concat(masks, axis=0))

    complete = kept(parts=2)
    assert complete.shape == (6, 128) and 0 < complete.mean() < 1
    shares = [kept(1, slice(0, 3)), kept(1, slice(3, 6))]
    np.testing.assert_array_equal(np.concatenate(shares), complete)


@pytest.mark.parametrize(('name', 'warned'), [('mnist_cnn', True), ('logistic', False)])
def test_who_trains_a_network_for_digits_on_colours_is_warned(
    name: str,
    warned: bool,
    synthetic_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with begin(preset_settings(name, synthetic_data, tmp_path), NETWORKS[name], 6):
        assert ('is for grey images' in capsys.readouterr().err) == warned


def test_a_run_resumed_with_its_own_network_alone(
    synthetic_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cifar10_train.train(preset_settings('logistic', synthetic_data, tmp_path, max_steps=1))
    # The folder has the preset.
    assert f'--train_dir={tmp_path} --max_steps=' in capsys.readouterr().out
    before = sorted(path.name for path in tmp_path.iterdir())
    pattern = (
        '--model=mlp: the run in .* trains the network logistic; name another --train_dir, or '
        'give --model=logistic or --start_over'
    )
    with pytest.raises(UserError, match=pattern):
        cifar10_train.train(preset_settings('mlp', synthetic_data, tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    cifar10_train.train(preset_settings('mlp', synthetic_data, tmp_path, start_over=True))
    assert RunFolder.open(str(tmp_path)).settings['model'] == 'mlp'


def test_a_checkpoint_of_another_network_is_one_error(synthetic_data: Path, tmp_path: Path) -> None:
    """Where the settings beside it are gone."""
    cifar10_train.train(preset_settings('logistic', synthetic_data, tmp_path, max_steps=1))
    (tmp_path / 'settings.json').unlink()
    with pytest.raises(UserError, match=r'model\.ckpt-1: not of this network: hidden1/biases: mis'):
        cifar10_train.train(preset_settings('mlp', synthetic_data, tmp_path))


def test_settings_of_an_unknown_network_are_one_error(tmp_path: Path) -> None:
    (tmp_path / 'settings.json').write_text('{"model": "other"}')
    pattern = r"settings\.json: found the model 'other'; expected one of tutorial, airbench"
    with pytest.raises(UserError, match=pattern):
        RunFolder.open(str(tmp_path))


# ------------------------------------------------------------- what reads checkpoints


@pytest.fixture(scope='module')
def evaluated(
    trained: OneDeviceTrainSettings, tmp_path_factory: pytest.TempPathFactory
) -> tuple[EvalSettings, str]:
    """The evaluation of the run, and its report."""
    tmp_path = tmp_path_factory.mktemp('evaluated')
    settings = EvalSettings(
        checkpoint_dir=trained.train_dir,
        eval_dir=str(tmp_path / 'eval'),
        data_dir=trained.data_dir,
        report=str(tmp_path / 'report'),
        run_once=True,
    )
    cifar10_eval.evaluate(settings)
    return settings, (tmp_path / 'report' / 'index.html').read_text(encoding='utf-8')


def by_hand(trained: OneDeviceTrainSettings, images: np.ndarray) -> np.ndarray:
    """Probabilities of images, by the checkpoint's own values and the network's function."""
    model, values = NETWORKS[trained.model], checkpoint_values(Path(trained.train_dir))
    margin = (32 - model.view.size) // 2
    side = slice(margin, 32 - margin)
    seen = images[:, side, side, : model.view.depth].astype(np.float32) / 255
    with tf.Graph().as_default(), tf.Session() as session:
        probabilities = tf.nn.softmax(model.evaluate(tf.constant(seen), 10))
        session.run([v.assign(values[v.op.name]) for v in tf.global_variables()])
        return session.run(probabilities)


def test_evaluation_prediction_and_export_are_of_the_runs_network(
    trained: OneDeviceTrainSettings,
    evaluated: tuple[EvalSettings, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = f'{trained.data_dir}/synthetic-batches-bin'
    records = np.fromfile(f'{directory}/test_batch.bin', np.uint8).reshape(60, 3073)
    images = records[:, 1:].reshape(60, 3, 32, 32).transpose(0, 2, 3, 1)
    expected = by_hand(trained, images)
    assert np.ptp(expected, axis=0).max() > 1e-3

    hits = (expected.argmax(axis=1) == records[:, 0]).sum()
    (entry,) = history.read(evaluated[0].eval_dir)
    # Two probabilities may all but tie.
    assert entry['precision'] == pytest.approx(hits / 60, abs=1.5 / 60)

    checkpoint = tf.train.latest_checkpoint(trained.train_dir)
    predictor = Predictor(open_checkpoint(checkpoint), NETWORKS[trained.model])
    np.testing.assert_allclose(predictor.probabilities(images), expected, atol=1e-5)

    output = tmp_path / 'export'
    cifar10_export.export(ExportSettings(str(output), trained.train_dir, eval=True))
    metadata = json.loads((output / 'metadata.json').read_text(encoding='utf-8'))
    view = NETWORKS[trained.model].view
    assert metadata['model'] == trained.model and metadata['weights'] == 'as trained'
    assert metadata['preprocessing']['crop']['height'] == view.size
    largest = {
        name: model['largest_difference_of_a_probability']
        for name, model in metadata['models'].items()
    }
    assert largest['saved_model'] < 1e-5 and largest['model.tflite'] < 1e-4
    inside = metadata['preprocessing']['inside_the_model']
    assert inside.endswith('divided by 255.') and ('first channel' in inside) == (view.depth == 1)
    # That there are no averages is what the recipe says.
    assert 'Warning' not in capsys.readouterr().err


def test_the_report_shows_filters_where_there_are_any(
    trained: OneDeviceTrainSettings, evaluated: tuple[EvalSettings, str]
) -> None:
    page = evaluated[1]
    shapes = {'batch_norm_cnn': '32 filters of 3 by 3', 'mnist_deep': '32 filters of 5 by 5'}
    assert ('id="filters"' in page) == (trained.model in shapes)
    assert shapes.get(trained.model, '') in page
    rows = re.findall(
        r'<th scope="row">(\w+)</th><td class="text">[^<]*</td><td>([\d,]+)</td>', page
    )
    counts = {name: int(count.replace(',', '')) for name, count in rows}
    assert counts['softmax_linear'] == WEIGHTS[trained.model][-1]


@pytest.mark.parametrize('kind', ['filters', 'distortions'])
def test_plots_are_of_the_runs_network(
    trained: OneDeviceTrainSettings, tmp_path: Path, kind: str
) -> None:
    output = tmp_path / 'plot.png'
    settings = PlotSettings(
        plot=kind, train_dir=trained.train_dir, data_dir=trained.data_dir, output=str(output)
    )
    if (kind, trained.model) == ('filters', 'logistic'):
        with pytest.raises(UserError, match='holds no .* or conv1/weights; expected a network'):
            cifar10_plot.plot(settings)
        assert not output.exists()
    else:
        cifar10_plot.plot(settings)
        assert output.stat().st_size > 5000


@pytest.mark.parametrize('name', NETWORKS)
def test_every_network_becomes_a_lite_and_an_onnx_model(name: str, tmp_path: Path) -> None:
    """Of TensorFlow Lite's own operations, with the probabilities of the graph."""
    model = NETWORKS[name]
    with tf.Graph().as_default(), tf.Session() as session:
        view = model.view
        model.evaluate(tf.zeros([1, view.size, view.size, view.depth]), 10)
        session.run(tf.global_variables_initializer())
        checkpoint = tf.train.Saver().save(session, str(tmp_path / 'model.ckpt'), global_step=1)
    (tmp_path / 'settings.json').write_text(
        json.dumps({'model': name, 'moving_average_decay': 0.0})
    )
    labels = [str(label) for label in range(10)]
    served = ServedNetwork(open_checkpoint(checkpoint), labels, model, Framing())
    served.save(str(tmp_path / 'saved'))
    images = np.random.default_rng(2).integers(0, 256, [3, 32, 32, 3], dtype=np.uint8)
    expected = Predictor(open_checkpoint(checkpoint), model).probabilities(images)
    converted = [
        (lite.convert(str(tmp_path / 'saved')), 1e-5),
        (lite.convert_to_float16(served), 1e-3),
    ]
    # Calibrating takes seconds: one normalises the image, and one normalises batches.
    if name in ('tutorial', 'batch_norm_cnn'):
        converted.append((lite.convert_to_int8(served, images), 0.03))
    for content, tolerance in converted:
        (tmp_path / 'lite').write_bytes(content)
        found = lite.load(str(tmp_path / 'lite'))(images)
        np.testing.assert_allclose(found, expected, atol=tolerance)
    pytest.importorskip('tf2onnx')
    pytest.importorskip('onnxruntime')
    (tmp_path / onnx.MODEL).write_bytes(onnx.convert(served))
    found = onnx.load(str(tmp_path / onnx.MODEL))(images)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_network_can_be_named_where_no_settings_are(tmp_path: Path) -> None:
    assert RunFolder.open(str(tmp_path)).model == 'tutorial'
    assert RunFolder.open(str(tmp_path), 'mlp').model == 'mlp'
    (tmp_path / 'settings.json').write_text('{"model": "logistic"}')
    assert RunFolder.open(str(tmp_path), 'logistic').model == 'logistic'
    with pytest.raises(UserError, match='--model=mlp: the checkpoints in .* network logistic'):
        RunFolder.open(str(tmp_path), 'mlp')


def test_the_table_of_layers_is_that_of_the_network() -> None:
    with tf.Graph().as_default():
        table = layer_table.table(layer_table.network_layers(NETWORKS['deep_cnn'], 10))
    lines = [line.split() for line in table.splitlines()]
    assert ['images', '32', 'x', '32', 'x', '3', '0', '0.0%'] in lines
    assert ['pool2', '7', 'x', '7', 'x', '64', '0', '0.0%'] in lines
    assert lines[-1] == ['Total', '1,676,842', '100.0%']


@pytest.mark.parametrize('name', NETWORKS)
def test_the_docs_have_the_weights_of_the_network(name: str) -> None:
    (row,) = re.findall(rf'^\| `{name}` \|.*', DOCS.read_text(encoding='utf-8'), re.MULTILINE)
    with tf.Graph().as_default():
        total = sum(layer.num_weights for layer in layer_table.network_layers(NETWORKS[name], 10))
    assert row.split(' | ')[2] == f'{total:,}'
