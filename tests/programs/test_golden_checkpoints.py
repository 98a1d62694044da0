"""Checkpoints of the tutorial of 2017 and of this project's, opened by every script.

tests/golden holds the archives and how they were made. What the scripts predict is compared
with the network written out in NumPy, and with numbers that are written down here.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import tensorflow
from PIL import Image

import cifar10_eval
import cifar10_export
import cifar10_multi_gpu_train
import cifar10_plot
import cifar10_predict
from cifar10_eval import EvalSettings
from cifar10_export import ExportSettings
from cifar10_input import TEST_FILES, TRAIN_FILES
from cifar10_multi_gpu_train import MultiGpuTrainSettings
from cifar10_plot import PlotSettings
from cifar10_predict import PredictSettings
from tests.helpers.networks import TUTORIAL_SHAPES
from tests.helpers.runs import checkpoint_values, train
from tests.helpers.scripts import REPOSITORY, Script

GOLDEN = REPOSITORY / 'tests' / 'golden'

AVERAGE = '/ExponentialMovingAverage'

# Of a probability: float32 sums of up to 2,304 products against float64 ones.
TOLERANCE = 1e-4

Values = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Golden:
    """An archive, and what is known of the checkpoint in it."""

    archive: str
    step: int
    examples: int
    other_names: set[str]
    num_hits: int
    """Test images of 60 whose likeliest class by the averages is the true one."""
    likeliest: dict[int, float]
    """Labels and probabilities of the picture's three likeliest classes, by the averages."""


TUTORIAL = Golden(
    archive='tutorial_2017.tar.xz',
    step=100_000,
    # In steps of 128.
    examples=12_800_000,
    other_names={
        'global_step',
        'conv1/weight_loss/avg',
        'conv2/weight_loss/avg',
        'local3/weight_loss/avg',
        'local4/weight_loss/avg',
        'softmax_linear/weight_loss/avg',
        'cross_entropy/avg',
        'total_loss/avg',
    },
    num_hits=8,
    likeliest={8: 0.21163, 2: 0.19357, 9: 0.14339},
)
THIS_VERSION = Golden(
    archive='this_version.tar.xz',
    step=4,
    examples=32,
    other_names={
        'global_step',
        'examples_seen',
        'losses/avg',
        'losses/avg/biased',
        'losses/avg/local_step',
    },
    num_hits=9,
    likeliest={7: 0.34775, 9: 0.21607, 2: 0.08830},
)


@pytest.fixture(params=[TUTORIAL, THIS_VERSION], ids=lambda golden: golden.archive.split('.')[0])
def golden(request: pytest.FixtureRequest) -> Golden:
    return request.param


def unpack(golden: Golden, directory: Path) -> Path:
    with tarfile.open(GOLDEN / golden.archive) as archive:
        archive.extractall(directory, filter='data')
    return directory


@pytest.fixture
def train_dir(golden: Golden, tmp_path: Path) -> Path:
    """A folder of the run, that may be written to."""
    return unpack(golden, tmp_path / 'cifar10_train')


@pytest.fixture(scope='module')
def tutorial_data(tmp_path_factory: pytest.TempPathFactory, synthetic_data: Path) -> Path:
    """A --data_dir with files of CIFAR-10's names alone, as the tutorial unpacked them."""
    data_dir = tmp_path_factory.mktemp('tutorial_data')
    directory = data_dir / 'cifar-10-batches-bin'
    directory.mkdir()
    for name in (*TRAIN_FILES, *TEST_FILES):
        shutil.copy(synthetic_data / 'synthetic-batches-bin' / name, directory)
    (directory / 'batches.meta.txt').write_text(
        'airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n'
    )
    return data_dir


@pytest.fixture
def data(golden: Golden, synthetic_data: Path, tutorial_data: Path) -> dict[str, Any]:
    """The settings of the data set; its images are the same for both."""
    if golden is TUTORIAL:
        return {'data_dir': str(tutorial_data), 'dataset': 'cifar10'}
    return {'data_dir': str(synthetic_data), 'dataset': 'synthetic'}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A PNG in the size of a record."""
    Image.fromarray(picture_pixels()).save(tmp_path / 'picture.png')
    return tmp_path / 'picture.png'


def picture_pixels() -> np.ndarray:
    y, x, channel = np.ogrid[:32, :32, :3]
    waves = 60 * ((y // 6 + x // 9) % 2) + 5 * np.abs(x - 2 * y + 9 * channel)
    return (waves + 20 * channel).astype(np.uint8)


def averages(train_dir: Path) -> Values:
    values = checkpoint_values(train_dir)
    return {name: values[f'{name}{AVERAGE}'] for name in TUTORIAL_SHAPES}


# ------------------------------------------------------------------- network in NumPy


def probabilities(images: np.ndarray, weights: Values) -> np.ndarray:
    """The tutorial's network, in float64.

    Args:
      images: uint8 [images, 32, 32, 3].
      weights: by their names in a checkpoint.

    Returns:
      float64 [images, 10].
    """
    crops = images[:, 4:28, 4:28].astype(np.float64)
    crops -= crops.mean(axis=(1, 2, 3), keepdims=True)
    crops /= np.maximum(crops.std(axis=(1, 2, 3), keepdims=True), 1 / np.sqrt(24 * 24 * 3))
    x = normalize(pool(convolve(crops, weights, 'conv1')))
    x = pool(normalize(convolve(x, weights, 'conv2'))).reshape(len(images), -1)
    for name in ('local3', 'local4'):
        x = np.maximum(x @ weights[f'{name}/weights'] + weights[f'{name}/biases'], 0)
    logits = x @ weights['softmax_linear/weights'] + weights['softmax_linear/biases']
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def convolve(x: np.ndarray, weights: Values, name: str) -> np.ndarray:
    padded = np.pad(x, [(0, 0), (2, 2), (2, 2), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(1, 2))
    filters = weights[f'{name}/weights'].astype(np.float64)
    convolved = np.tensordot(windows, filters, axes=([4, 5, 3], [0, 1, 2]))
    return np.maximum(convolved + weights[f'{name}/biases'], 0)


def pool(x: np.ndarray) -> np.ndarray:
    # SAME padding of an even side with stride 2 adds one row below and one column on the right.
    padded = np.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)], constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return windows[:, ::2, ::2].max(axis=(-1, -2))


def normalize(x: np.ndarray) -> np.ndarray:
    squares = np.pad(x**2, [(0, 0), (0, 0), (0, 0), (4, 4)])
    sums = sum(squares[..., i : i + x.shape[-1]] for i in range(9))
    return x / (1 + 0.001 / 9 * sums) ** 0.75


def evaluation_images(data: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [60, 32, 32, 3] and their labels."""
    (file,) = Path(data['data_dir']).glob('*/test_batch.bin')
    records = np.fromfile(file, np.uint8).reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]


# -------------------------------------------------------------------------- the archives


def test_the_archives_hold_what_was_written(golden: Golden, train_dir: Path) -> None:
    values = checkpoint_values(train_dir)
    assert {name: list(values[name].shape) for name in TUTORIAL_SHAPES} == TUTORIAL_SHAPES
    assert {
        name: list(values[f'{name}{AVERAGE}'].shape) for name in TUTORIAL_SHAPES
    } == TUTORIAL_SHAPES
    others = set(values) - set(TUTORIAL_SHAPES) - {f'{name}{AVERAGE}' for name in TUTORIAL_SHAPES}
    assert others == golden.other_names
    assert values['global_step'] == golden.step and values['global_step'].dtype == np.int64
    assert (GOLDEN / golden.archive).stat().st_size < 300_000


def test_predictions_tell_the_averages_from_the_weights(
    golden: Golden, train_dir: Path, data: dict[str, Any]
) -> None:
    values = checkpoint_values(train_dir)
    images, labels = evaluation_images(data)
    by_averages = probabilities(images, averages(train_dir))
    by_weights = probabilities(images, values)
    hits = [int((found.argmax(axis=1) == labels).sum()) for found in (by_averages, by_weights)]
    assert hits[0] == golden.num_hits != hits[1]
    # No rounding decides a hit.
    second, first = np.sort(by_averages, axis=1)[:, -2:].T
    assert (first - second).min() > TOLERANCE


# ----------------------------------------------------------------------------- trainers


@pytest.mark.parametrize('num_towers', [1, 2])
def test_training_resumes(
    golden: Golden, train_dir: Path, data: dict[str, Any], num_towers: int
) -> None:
    before = checkpoint_values(train_dir)
    # A schedule long enough for a small set to be at its first learning rate after 100,000 steps.
    settings: dict[str, Any] = {'max_steps': golden.step + 1, 'decay_epochs': 1e6, **data}
    if num_towers == 1:
        data_dir = settings.pop('data_dir')
        train(data_dir, train_dir, **settings, batch_size=8)
    else:
        settings.update(train_dir=str(train_dir), num_gpus=2, tower_device='cpu', batch_size=4)
        cifar10_multi_gpu_train.train(MultiGpuTrainSettings(**settings))

    after = checkpoint_values(train_dir)
    assert after['global_step'] == golden.step + 1
    assert after['examples_seen'] == golden.examples + 8
    decay = min(0.9999, (1 + after['global_step']) / (10 + after['global_step']))
    for name in TUTORIAL_SHAPES:
        change = np.abs(after[name] - before[name]).max()
        assert 0 < change < 1, name
        average = before[f'{name}{AVERAGE}']
        expected = average - (1 - decay) * (average - after[name])
        np.testing.assert_allclose(after[f'{name}{AVERAGE}'], expected, atol=1e-6, err_msg=name)


def test_the_tutorials_run_resumes_by_the_commands_of_a_user(
    tutorial_data: Path, tmp_path: Path, run_script: Script
) -> None:
    unpack(TUTORIAL, tmp_path / 'cifar10_train')
    shutil.copytree(tutorial_data, tmp_path / 'cifar10_data')

    trained = run_script('cifar10_train.py', '--max_steps=100002', '--batch_size=8')
    assert trained.returncode == 0, trained.stderr
    assert 'Traceback' not in trained.stderr and 'Warning' not in trained.stderr
    assert checkpoint_values(tmp_path / 'cifar10_train')['examples_seen'] == 12_800_016

    evaluated = run_script('cifar10_eval.py', '--run_once')
    assert evaluated.returncode == 0, evaluated.stderr
    assert 'Traceback' not in evaluated.stderr and 'Warning' not in evaluated.stderr
    assert '(step 100002, 60 images)' in evaluated.stdout


# ------------------------------------------------------------------------- other scripts


def test_evaluation_scores_the_averages(
    golden: Golden,
    train_dir: Path,
    data: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    eval_dir = tmp_path / 'cifar10_eval'
    cifar10_eval.evaluate(
        EvalSettings(checkpoint_dir=str(train_dir), eval_dir=str(eval_dir), run_once=True, **data)
    )
    output = capsys.readouterr()
    found = re.search(r'precision @ 1 = (\S+) \(step (\d+), (\d+) images\)', output.out)
    assert found and found.groups() == (f'{golden.num_hits / 60:.3f}', str(golden.step), '60')
    assert not output.err


def predict_picture(picture: Path, train_dir: Path, data_dir: Path) -> None:
    cifar10_predict.predict(
        PredictSettings(
            (str(picture),),
            checkpoint_dir=str(train_dir),
            data_dir=str(data_dir),
            format='json',
        )
    )


def test_pictures_are_classified_by_the_averages(
    golden: Golden,
    train_dir: Path,
    data: dict[str, Any],
    picture: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    predict_picture(picture, train_dir, Path(data['data_dir']))
    top = json.loads(capsys.readouterr().out)['top']
    found = {answer['label']: answer['probability'] for answer in top}
    assert list(found) == list(golden.likeliest)
    assert found == pytest.approx(golden.likeliest, abs=TOLERANCE)
    (expected,) = probabilities(picture_pixels()[np.newaxis], averages(train_dir))
    assert found == pytest.approx({label: expected[label] for label in found}, abs=TOLERANCE)


def test_a_tutorials_folder_that_was_moved_opens(
    tutorial_data: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The state file names checkpoints by their paths where --train_dir was an absolute one."""
    train_dir = unpack(TUTORIAL, tmp_path / 'moved')
    state = train_dir / 'checkpoint'
    state.write_text(state.read_text().replace('"model', '"/no_such_folder/cifar10_train/model'))
    predict_picture(picture, train_dir, tutorial_data)
    output = capsys.readouterr()
    assert [answer['label'] for answer in json.loads(output.out)['top']] == [8, 2, 9]
    assert '/no_such_folder/cifar10_train/model.ckpt-100000' in output.err


def test_exported_models_hold_the_averages(
    golden: Golden, train_dir: Path, data: dict[str, Any], tmp_path: Path
) -> None:
    output = tmp_path / 'exported'
    cifar10_export.export(
        ExportSettings(str(output), checkpoint_dir=str(train_dir), data_dir=data['data_dir'])
    )
    metadata = json.loads((output / 'metadata.json').read_text())
    assert metadata['step'] == golden.step
    assert metadata['weights'] == 'moving averages'

    images = picture_pixels()[np.newaxis]
    signature = tensorflow.saved_model.load(output / 'saved_model/1').signatures['serving_default']
    found = signature(images=tensorflow.constant(images))['probabilities'].numpy()
    np.testing.assert_allclose(
        found, probabilities(images, averages(train_dir)), atol=TOLERANCE, rtol=0
    )


def test_filters_are_drawn(golden: Golden, train_dir: Path, tmp_path: Path) -> None:
    output = tmp_path / 'filters.svg'
    with matplotlib.rc_context({'svg.fonttype': 'none'}):
        cifar10_plot.plot(PlotSettings((str(train_dir),), plot='filters', output=str(output)))
    assert f'step {golden.step:,}' in output.read_text()
