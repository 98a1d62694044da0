"""Exported models, opened without the code of this project."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10
import cifar10_export
from cifar10_export import ExportSettings
from cifar10_lib.base.errors import UserError
from cifar10_lib.data.record_files import CIFAR10_CLASS_NAMES
from cifar10_lib.evaluation import analysis
from cifar10_lib.evaluation.evaluator import Evaluator
from cifar10_lib.runs.checkpoints import open_checkpoint
from tests.helpers.runs import save_network
from tests.helpers.scripts import Script, script_environment

# What a user writes who has TensorFlow and nothing else.
USER_PROGRAM = """
import json, sys
import numpy as np
import tensorflow as tf

exported = sys.argv[1]
images = np.load(sys.argv[2])
model = tf.saved_model.load(f'{exported}/saved_model')
serve = model.signatures['serving_default']
lite = tf.lite.Interpreter(f'{exported}/model.tflite').get_signature_runner()
one, all_of_them = serve(images=tf.constant(images[:1])), serve(images=tf.constant(images))
lite_one, lite_all = lite(images=images[:1]), lite(images=images)
np.testing.assert_allclose(one['probabilities'], all_of_them['probabilities'][:1], atol=1e-5)
np.testing.assert_allclose(lite_one['probabilities'], lite_all['probabilities'][:1], atol=1e-5)

with tf.GradientTape() as tape:
    total = tf.reduce_sum(serve(images=tf.constant(images))['logits'] ** 2)
gradients = tape.gradient(total, model.variables)

print(json.dumps({
    'saved_model': all_of_them['probabilities'].numpy().tolist(),
    'of_logits': tf.nn.softmax(all_of_them['logits']).numpy().tolist(),
    'lite': lite_all['probabilities'].tolist(),
    'names': [name.decode() for name in serve(images=tf.constant(images))['class_names'].numpy()],
    'lite_names': [name.decode() for name in lite_all['class_names']],
    'gradients': [float(tf.norm(gradient)) for gradient in gradients],
    'modules': [name for name in sys.modules if name.startswith('cifar10')],
}))
"""


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory, records: Path) -> ExportSettings:
    """Settings that export a network whose data set is `records`."""
    directory = tmp_path_factory.mktemp('trained')
    save_network(directory, dataset='cifar10', data_dir=str(records))
    return ExportSettings(checkpoint_dir=str(directory))


@pytest.fixture(scope='module')
def exported(trained: ExportSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp('exported') / 'new'
    cifar10_export.export(dataclasses.replace(trained, output=str(directory), eval=True))
    return directory


def expected_probabilities(trained: ExportSettings, records: Path) -> np.ndarray:
    evaluator = Evaluator(str(records), cifar10.NETWORKS['tutorial'], 25)
    probabilities, _ = evaluator.probabilities(
        open_checkpoint(f'{trained.checkpoint_dir}/model.ckpt-7')
    )
    return probabilities


def test_plain_tensorflow_opens_both_models(
    trained: ExportSettings, exported: Path, records: Path, tmp_path: Path
) -> None:
    np.save(
        tmp_path / 'images.npy',
        analysis.read_images([str(records / 'test_batch.bin')], np.arange(25)),
    )
    result = subprocess.run(
        # Isolated: neither the current folder nor PYTHONPATH is searched.
        [sys.executable, '-I', '-c', USER_PROGRAM, str(exported), str(tmp_path / 'images.npy')],
        cwd=tmp_path,
        env=script_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    expected = expected_probabilities(trained, records)
    assert np.ptp(expected, axis=0).max() > 0.1
    for name in ('saved_model', 'of_logits', 'lite'):
        np.testing.assert_allclose(found[name], expected, atol=1e-5, err_msg=name)
    assert found['names'] == found['lite_names'] == list(CIFAR10_CLASS_NAMES)
    assert len(found['gradients']) == 10 and min(found['gradients']) > 0
    assert found['modules'] == []


@pytest.mark.filterwarnings('ignore:.*tf.lite.Interpreter is deprecated')
def test_the_lite_model_needs_no_other_operations(exported: Path) -> None:
    interpreter = tf.lite.Interpreter(str(exported / 'model.tflite'))
    names = {details['op_name'] for details in interpreter._get_ops_details()}
    assert 'CONV_2D' in names
    assert not any(name.startswith(('Flex', 'CUSTOM')) for name in names), names


def test_metadata_says_what_the_models_are(
    trained: ExportSettings, exported: Path, records: Path
) -> None:
    found = json.loads((exported / 'metadata.json').read_text())
    labels = np.fromfile(records / 'test_batch.bin', np.uint8).reshape(-1, 3073)[:, 0]
    hits = expected_probabilities(trained, records).argmax(axis=1) == labels
    assert found['precision_at_1'] == pytest.approx(hits.mean())
    assert found['num_test_images'] == 25
    assert found['step'] == 7 and found['checkpoint'] == 'model.ckpt-7'
    assert found['weights'] == 'moving averages' and found['dataset'] == 'cifar10'
    assert found['class_names'] == list(CIFAR10_CLASS_NAMES)
    assert found['preprocessing']['crop'] == {'top': 4, 'left': 4, 'height': 24, 'width': 24}
    assert found['tensorflow'] == tf.__version__
    differences = found['largest_difference_of_a_probability']
    assert differences['measured_on'] == 'the test images'
    assert 0 <= differences['saved_model'] < 1e-5 and 0 <= differences['model.tflite'] < 1e-5


def test_the_preprocessing_is_what_metadata_says(records: Path) -> None:
    """The words, followed by hand."""
    images = analysis.read_images([str(records / 'test_batch.bin')], np.arange(25))
    # One image without contrast, where the standard deviation is replaced.
    images[0] = 128
    images[0, 16, 16] = 129
    crops = images[:, 4:28, 4:28].astype(np.float64)
    mean = crops.mean(axis=(1, 2, 3), keepdims=True)
    deviation = crops.std(axis=(1, 2, 3), keepdims=True)
    by_hand = (crops - mean) / np.maximum(deviation, 1 / np.sqrt(24 * 24 * 3))
    with tf.Graph().as_default(), tf.Session() as session:
        found = session.run(cifar10_export.evaluation_crop(tf.constant(images)))
    np.testing.assert_allclose(found, by_hand, atol=1e-4)


def test_the_script_exports_without_data(run_script: Script, tmp_path: Path) -> None:
    save_network(tmp_path / 'cifar10_train', averages=False)
    result = run_script('cifar10_export.py', '--output=new')
    assert result.returncode == 0, result.stderr
    assert '/cifar10_train/model.ckpt-7 to new\n' in result.stdout
    assert 'hold no moving averages' in result.stderr
    found = json.loads((tmp_path / 'new' / 'metadata.json').read_text())
    assert found['precision_at_1'] is None and found['weights'] == 'as trained'

    again = run_script('cifar10_export.py', '--output=new')
    assert again.returncode == 1 and 'Traceback' not in again.stderr
    assert 'new: is in the way, and is not overwritten' in again.stderr
    assert json.loads((tmp_path / 'new' / 'metadata.json').read_text()) == found


@pytest.mark.parametrize('wrong', [0.02, float('nan')])
def test_a_model_that_disagrees_is_not_left_behind(
    trained: ExportSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    load_lite = cifar10_export.load_lite

    def load_another(path: str) -> cifar10_export.Exported:
        model = load_lite(path)
        return lambda images: model(images) + wrong

    monkeypatch.setattr(cifar10_export, 'load_lite', load_another)
    settings = dataclasses.replace(trained, output=str(tmp_path / 'new'))
    with pytest.raises(UserError, match=r'model\.tflite: gives a probability that differs by'):
        cifar10_export.export(settings)
    assert list(tmp_path.iterdir()) == []


def test_trouble_of_tensorflow_is_named(
    trained: ExportSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*args: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, 'No space left on device')

    monkeypatch.setattr(cifar10_export, 'convert_to_lite', full_disk)
    settings = dataclasses.replace(trained, output=str(tmp_path / 'new'))
    with pytest.raises(UserError, match=r'--output=.*new: cannot be exported: No space left'):
        cifar10_export.export(settings)
    assert list(tmp_path.iterdir()) == []


def test_without_a_checkpoint_nothing_is_made(tmp_path: Path) -> None:
    settings = ExportSettings(str(tmp_path / 'new'), str(tmp_path / 'nowhere'))
    with pytest.raises(UserError, match='--checkpoint_dir=.*: found no checkpoint'):
        cifar10_export.export(settings)
    assert list(tmp_path.iterdir()) == []
