"""Exported models, opened without the code of this project."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow
import tensorflow.compat.v1 as tf
from PIL import Image

import cifar10
import cifar10_export
from cifar10_export import ExportSettings
from cifar10_input import evaluation_crop
from cifar10_lib.base.errors import UserError
from cifar10_lib.data.record_files import CIFAR10_CLASS_NAMES
from cifar10_lib.evaluation import analysis
from cifar10_lib.evaluation.evaluator import Evaluator
from cifar10_lib.export import lite
from cifar10_lib.export.saved_model import Exported
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
model = tf.saved_model.load(f'{exported}/saved_model/1')
serve = model.signatures['serving_default']
lite = tf.lite.Interpreter(f'{exported}/model.tflite').get_signature_runner()
one, all_of_them = serve(images=tf.constant(images[:1])), serve(images=tf.constant(images))
lite_one, lite_all = lite(images=images[:1]), lite(images=images)
np.testing.assert_allclose(one['probabilities'], all_of_them['probabilities'][:1], atol=1e-5)
np.testing.assert_allclose(lite_one['probabilities'], lite_all['probabilities'][:1], atol=1e-5)

with tf.GradientTape() as tape:
    total = tf.reduce_sum(model(images)['logits'] ** 2)
gradients = tape.gradient(total, model.trainable_variables)

print(json.dumps({
    'saved_model': all_of_them['probabilities'].numpy().tolist(),
    'of_logits': tf.nn.softmax(all_of_them['logits']).numpy().tolist(),
    'lite': lite_all['probabilities'].tolist(),
    'called': model(images)['probabilities'].numpy().tolist(),
    'names': [name.decode() for name in all_of_them['class_names'][24].numpy()],
    'lite_names': [name.decode() for name in lite_all['class_names'][24]],
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
    cifar10_export.export(dataclasses.replace(trained, output=str(directory), int8=True))
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
    for name in ('saved_model', 'of_logits', 'called', 'lite'):
        np.testing.assert_allclose(found[name], expected, atol=1e-5, err_msg=name)
    assert found['names'] == found['lite_names'] == list(CIFAR10_CLASS_NAMES)
    assert len(found['gradients']) == 10 and min(found['gradients']) > 0
    assert found['modules'] == []


def lite_files(exported: Path) -> list[str]:
    return [path.name for path in exported.glob('*.tflite')]


@pytest.mark.filterwarnings('ignore:.*tf.lite.Interpreter is deprecated')
def test_the_lite_models_need_no_other_operations(exported: Path) -> None:
    for name in lite_files(exported):
        interpreter = tf.lite.Interpreter(str(exported / name))
        operations = {details['op_name'] for details in interpreter._get_ops_details()}
        assert 'CONV_2D' in operations
        assert not any(each.startswith(('Flex', 'CUSTOM')) for each in operations), operations
        types = {details['dtype'] for details in interpreter.get_output_details()}
        assert (np.bytes_ in types) == (name == 'model.tflite')
    # That in int8 is for one image.
    shape = tf.lite.Interpreter(str(exported / 'model_int8.tflite')).get_input_details()[0]
    assert shape['shape_signature'].tolist() == [1, 32, 32, 3]


@pytest.mark.parametrize('count', [1, 3])
def test_servers_find_the_batch_in_each_tensor(
    trained: ExportSettings, exported: Path, records: Path, count: int
) -> None:
    """As row requests and batching need it: a row is answered alone as it is among others."""
    loaded = tensorflow.saved_model.load(str(exported / 'saved_model' / '1'))
    images = analysis.read_images([str(records / 'test_batch.bin')], np.arange(count))
    encoded = [tf.io.encode_png(image).numpy() for image in images]
    inputs: dict[str, dict[str, Any]] = {
        'serving_default': {'images': images},
        'serving_bytes': {'image_bytes': encoded},
    }
    assert set(loaded.signatures) == set(inputs)
    expected = expected_probabilities(trained, records)[:count]
    for name, values in inputs.items():
        signature = loaded.signatures[name]
        specs = [*signature.structured_input_signature[1].values()]
        specs += signature.structured_outputs.values()
        assert {spec.shape.as_list()[0] for spec in specs} == {None}
        found = signature(**{key: tf.constant(value) for key, value in values.items()})
        assert {key: value.shape[0] for key, value in found.items()} == {
            'logits': count,
            'probabilities': count,
            'class_names': count,
        }
        # A PNG of the records' size is decoded to the same pixels.
        np.testing.assert_allclose(found['probabilities'], expected, atol=1e-5)
        for row in range(count):
            alone = signature(
                **{key: tf.constant(value[row : row + 1]) for key, value in values.items()}
            )
            assert (alone['class_names'][0] == found['class_names'][row]).numpy().all()
            np.testing.assert_allclose(alone['logits'][0], found['logits'][row], atol=1e-4)


def test_keras_takes_the_saved_model_as_a_layer(
    trained: ExportSettings, exported: Path, records: Path
) -> None:
    layer = pytest.importorskip('keras').layers.TFSMLayer(
        str(exported / 'saved_model' / '1'), call_endpoint='serving_default'
    )
    images = analysis.read_images([str(records / 'test_batch.bin')], np.arange(25))
    np.testing.assert_allclose(
        layer(images)['probabilities'], expected_probabilities(trained, records), atol=1e-5
    )


def printed_by_example(arguments: list[str], folder: Path) -> str:
    """What Python prints for these arguments in a folder, without the modules of this project."""
    result = subprocess.run(
        [sys.executable, '-I', *arguments],
        cwd=folder,
        env=script_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_the_example_is_printed_and_classifies_a_picture(
    trained: ExportSettings, exported: Path, records: Path, tmp_path: Path
) -> None:
    images = analysis.read_images([str(records / 'test_batch.bin')], np.arange(1))
    Image.fromarray(images[0]).save(tmp_path / 'picture.png')
    examples = ['example.py']
    if importlib.util.find_spec('ai_edge_litert'):
        examples.append('example_lite.py')
    for example in examples:
        label = expected_probabilities(trained, records)[0].argmax()
        found = printed_by_example([str(exported / example), 'picture.png'], tmp_path)
        assert found == CIFAR10_CLASS_NAMES[label]


@pytest.fixture(scope='module')
def with_onnx(trained: ExportSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip('tf2onnx')
    pytest.importorskip('onnxruntime')
    directory = tmp_path_factory.mktemp('with_onnx') / 'new'
    cifar10_export.export(dataclasses.replace(trained, output=str(directory), onnx=True, eval=True))
    return directory


@pytest.mark.parametrize('count', [1, 25])
def test_onnx_runtime_opens_the_onnx_model(
    trained: ExportSettings, with_onnx: Path, records: Path, count: int
) -> None:
    session = pytest.importorskip('onnxruntime').InferenceSession(with_onnx / 'model.onnx')
    (images,) = session.get_inputs()
    assert (images.name, images.type) == ('images', 'tensor(uint8)')
    assert images.shape == ['batch', 32, 32, 3]
    assert {output.name: output.shape for output in session.get_outputs()} == {
        name: ['batch', 10] for name in ('logits', 'probabilities', 'class_names')
    }
    values = analysis.read_images([str(records / 'test_batch.bin')], np.arange(count))
    names = ['probabilities', 'class_names']
    probabilities, class_names = session.run(names, {'images': values})
    expected = expected_probabilities(trained, records)[:count]
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert class_names.tolist() == [list(CIFAR10_CLASS_NAMES)] * count


def test_the_onnx_example_needs_no_tensorflow(
    trained: ExportSettings, with_onnx: Path, records: Path, tmp_path: Path
) -> None:
    images = analysis.read_images([str(records / 'test_batch.bin')], np.arange(1))
    Image.fromarray(images[0]).save(tmp_path / 'picture.png')
    program = (
        'import runpy, sys; sys.modules["tensorflow"] = None; sys.argv.pop(0); '
        'runpy.run_path(sys.argv[0])'
    )
    label = expected_probabilities(trained, records)[0].argmax()
    arguments = ['-c', program, str(with_onnx / 'example_onnx.py'), 'picture.png']
    assert printed_by_example(arguments, tmp_path) == CIFAR10_CLASS_NAMES[label]


def test_the_onnx_model_gives_the_evaluators_precision_on_cifar10(
    trained: ExportSettings, real_data: str, tmp_path: Path
) -> None:
    pytest.importorskip('tf2onnx')
    pytest.importorskip('onnxruntime')
    settings = dataclasses.replace(
        trained, output=str(tmp_path / 'new'), onnx=True, eval=True, data_dir=real_data
    )
    cifar10_export.export(settings)
    found = json.loads((tmp_path / 'new' / 'metadata.json').read_text())
    assert found['num_test_images'] == 10_000
    model = found['models']['model.onnx']
    assert 0 <= model['largest_difference_of_a_probability'] < 1e-4
    assert model['precision_at_1'] == pytest.approx(found['precision_at_1'], abs=2e-4)


def test_a_missing_package_is_named_before_anything_is_written(
    trained: ExportSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    settings = dataclasses.replace(trained, output=str(tmp_path / 'new'), onnx=True)
    message = '--onnx: needs onnxruntime, which is missing: pip install tf2onnx onnxruntime'
    with pytest.raises(UserError, match=message):
        cifar10_export.export(settings)
    assert list(tmp_path.iterdir()) == []


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
    assert found['compared_on'] == 'the test images'
    models = found['models']
    assert list(models) == ['saved_model', *sorted(lite_files(exported))]
    for name in ('saved_model', 'model.tflite'):
        assert 0 <= models[name]['largest_difference_of_a_probability'] < 1e-5
        assert models[name]['precision_at_1'] == pytest.approx(hits.mean())
    bytes_of = {name: (exported / name).stat().st_size for name in lite_files(exported)}
    assert {name: models[name]['bytes'] for name in bytes_of} == bytes_of
    assert bytes_of['model_float16.tflite'] < 0.51 * bytes_of['model.tflite']
    assert bytes_of['model_int8.tflite'] < 0.27 * bytes_of['model.tflite']
    assert (exported / 'labels.txt').read_text().splitlines() == list(CIFAR10_CLASS_NAMES)


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
        found = session.run(evaluation_crop(tf.constant(images)))
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
    assert (tmp_path / 'new' / 'example.py').read_text() in result.stdout


def test_force_replaces_an_export_and_nothing_else(trained: ExportSettings, tmp_path: Path) -> None:
    output = tmp_path / 'new'
    output.mkdir()
    (output / 'model_int8.tflite').write_text('old')
    settings = dataclasses.replace(trained, output=str(output), force=True)
    cifar10_export.export(settings)
    assert 'example.py' in {path.name for path in output.iterdir()}
    assert not (output / 'model_int8.tflite').exists()
    (output / 'thesis.tex').write_text('mine')
    with pytest.raises(UserError, match='new: is in the way'):
        cifar10_export.export(settings)
    assert (output / 'thesis.tex').exists() and list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize('wrong', [0.02, float('nan')])
def test_a_model_that_disagrees_is_not_left_behind(
    trained: ExportSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    load = lite.load

    def load_another(path: str) -> Exported:
        model = load(path)
        return lambda images: model(images) + wrong

    monkeypatch.setattr(lite, 'load', load_another)
    settings = dataclasses.replace(trained, output=str(tmp_path / 'new'))
    with pytest.raises(UserError, match=r'model\.tflite: gives a probability that differs by'):
        cifar10_export.export(settings)
    assert list(tmp_path.iterdir()) == []


def test_trouble_of_tensorflow_is_named(
    trained: ExportSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*args: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, 'No space left on device')

    monkeypatch.setattr(lite, 'convert', full_disk)
    settings = dataclasses.replace(trained, output=str(tmp_path / 'new'))
    with pytest.raises(UserError, match=r'--output=.*new: cannot be exported: No space left'):
        cifar10_export.export(settings)
    assert list(tmp_path.iterdir()) == []


def test_without_a_checkpoint_nothing_is_made(tmp_path: Path) -> None:
    settings = ExportSettings(str(tmp_path / 'new'), str(tmp_path / 'nowhere'))
    with pytest.raises(UserError, match='--checkpoint_dir=.*: found no checkpoint'):
        cifar10_export.export(settings)
    assert list(tmp_path.iterdir()) == []
