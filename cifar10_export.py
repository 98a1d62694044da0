r"""Exports the newest checkpoint as models that work without this code.

    python cifar10_export.py --output=cifar10_export

writes, with the moving averages as the weights,

    cifar10_export/saved_model      for tf.saved_model.load
    cifar10_export/model.tflite     for TensorFlow Lite, with built-in operations alone
    cifar10_export/metadata.json    step, classes, preprocessing and versions

Both models take uint8 images [batch, 32, 32, 3], or of the data set's own size, of any batch
size, named `images`, and give `logits`, `probabilities` and `class_names`. Both are read back and
compared with the checkpoint; --eval does so on all test images, and measures the precision.
"""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow
import tensorflow.compat.v1 as tf
from absl import logging
from tensorflow.core.protobuf import saved_model_pb2

import cifar10
from cifar10_input import (
    CHANNEL_MEANS,
    CHANNEL_STDDEVS,
    CIFAR10_RECORD,
    evaluation_crop,
    test_files,
)
from cifar10_lib.base.errors import UserError, error_message
from cifar10_lib.base.files import filled_directory
from cifar10_lib.base.flags import path_setting, run_script, setting
from cifar10_lib.data.framing import Framing
from cifar10_lib.data.prepare import data_note
from cifar10_lib.evaluation import analysis
from cifar10_lib.evaluation.evaluator import Evaluator, Predictor, Restorer, picture_placeholder
from cifar10_lib.nn.layers import Network
from cifar10_lib.runs.checkpoints import Checkpoint
from cifar10_lib.runs.run_folder import RunFolder, checkpoint_setting, model_setting

SAVED_MODEL, LITE_MODEL, METADATA = 'saved_model', 'model.tflite', 'metadata.json'

# Largest difference of a probability between an exported model and the checkpoint. Rounding
# alone stays below a hundredth of it on a CPU; a GPU may multiply with fewer bits.
TOLERANCE = 1e-2

# Images of noise on which the models are compared without --eval.
_NUM_NOISE = 20

_BATCH_SIZE = 250

# Probabilities float32 [batch, classes] of images uint8 [batch, size, size, 3].
Exported = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class ExportSettings:
    """What to export, and where to."""

    output: str = path_setting('cifar10_export', 'Folder to make; it must be missing or empty.')
    checkpoint_dir: str = path_setting('cifar10_train', 'Folder of the checkpoints.')
    checkpoint: str = checkpoint_setting()
    model: str = model_setting()
    eval: bool = setting(
        False, 'Measure the precision on the test images, and compare the models on all of them.'
    )
    data_dir: str = path_setting(
        None,
        'Folder of the data set, for the names of its classes and --eval; by default the one that '
        'training used.',
    )


class Measured(NamedTuple):
    """The comparison of the models with the checkpoint."""

    differences: dict[str, float]
    """Largest difference of a probability from the checkpoint's, by model."""
    precision: float | None
    """Fraction of the test images whose most likely class is the true one; None on noise."""
    num_images: int


def save_model(
    checkpoint: Checkpoint, names: Sequence[str], network: Network, directory: str
) -> None:
    """Writes the checkpoint's network as a SavedModel.

    Args:
      checkpoint: of the network.
      names: of the classes.
      network: as its settings have it.
      directory: is made.

    Raises:
      UserError: the checkpoint is of another network.
      tf.errors.OpError: the model can't be written.
    """
    with tf.Graph().as_default(), tf.Session() as session:
        images = picture_placeholder(network.size)
        crops = evaluation_crop(images, network.view)
        logits = network.evaluate(crops, len(names))
        outputs = {
            'logits': logits,
            'probabilities': tf.nn.softmax(logits),
            'class_names': tf.constant(list(names)),
        }
        Restorer().restore(session, checkpoint)
        tf.saved_model.simple_save(session, directory, {'images': images}, outputs)
    _remove_custom_gradients(os.path.join(directory, 'saved_model.pb'))


def _remove_custom_gradients(path: str) -> None:
    """Gives the operations of a SavedModel TensorFlow's own gradients.

    Only the process that built the graph knows the gradients of `tf.custom_gradient`: elsewhere,
    training the model further would find none.
    """
    model = saved_model_pb2.SavedModel()
    with open(path, 'rb') as file:
        model.ParseFromString(file.read())
    for meta_graph in model.meta_graphs:
        for node in meta_graph.graph_def.node:
            node.attr.pop('_gradient_op_type', None)
    with open(path, 'wb') as file:
        file.write(model.SerializeToString())


def convert_to_lite(saved_model: str, path: str) -> None:
    """Writes a SavedModel as a TensorFlow Lite file, which computes in float32 too."""
    model = tensorflow.lite.TFLiteConverter.from_saved_model(saved_model).convert()
    with open(path, 'wb') as file:
        file.write(model)


def load_saved_model(directory: str) -> Exported:
    """The SavedModel, opened without this code."""
    signature = tensorflow.saved_model.load(directory).signatures['serving_default']
    return lambda images: signature(images=tensorflow.constant(images))['probabilities'].numpy()


def load_lite(path: str) -> Exported:
    """The TensorFlow Lite file, in TensorFlow's own interpreter."""
    with warnings.catch_warnings():
        # The interpreter moves to a package of its own.
        warnings.simplefilter('ignore', UserWarning)
        runner = tensorflow.lite.Interpreter(path).get_signature_runner()
    return lambda images: runner(images=images)['probabilities']


def largest_difference(model: Exported, images: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference between the model's probabilities and the expected ones.

    Args:
      model: an exported one.
      images: uint8 [images, size, size, 3].
      expected: float32 [images, classes].
    """
    starts = range(0, len(images), _BATCH_SIZE)
    found = np.concatenate([model(images[start : start + _BATCH_SIZE]) for start in starts])
    return float(np.abs(found - expected).max())


def measure(
    settings: ExportSettings,
    run: RunFolder,
    network: Network,
    checkpoint: Checkpoint,
    models: dict[str, Exported],
) -> Measured:
    """Compares the models with the checkpoint: on the test images by --eval, else on noise.

    Raises:
      UserError: a model gives other probabilities; or the test images can't be had.
    """
    precision = None
    if settings.eval:
        prepared = run.prepare_data(settings.data_dir)
        evaluator = Evaluator(prepared.directory, network, num_classes=prepared.num_classes)
        places = np.arange(evaluator.num_examples)
        images = analysis.read_images(test_files(prepared.directory), places, network.record)
        expected, labels = evaluator.probabilities(checkpoint)
        precision = float((expected.argmax(axis=1) == labels).mean())
    else:
        rng = np.random.default_rng(0)
        shape = (_NUM_NOISE, network.size, network.size, CIFAR10_RECORD.depth)
        images = rng.integers(0, 256, shape, dtype=np.uint8)
        expected = Predictor(checkpoint, network).probabilities(images)
    differences = {
        name: largest_difference(model, images, expected) for name, model in models.items()
    }
    for name, difference in differences.items():
        # Not >: a difference that is NaN is an error too.
        if not difference <= TOLERANCE:
            raise UserError(
                f'{name}: gives a probability that differs by {difference:.2g} from that of '
                f'{checkpoint}; expected at most {TOLERANCE}'
            )
    return Measured(differences, precision, len(images))


def metadata(
    run: RunFolder,
    checkpoint: Checkpoint,
    names: Sequence[str],
    network: Network,
    measured: Measured,
) -> dict[str, Any]:
    """What a user of the models needs to know, as JSON.

    Args:
      run: whose checkpoint it is.
      checkpoint: that was exported.
      names: of the classes.
      network: of the checkpoint.
      measured: by `measure`.
    """
    view, size = network.view, network.size
    margin = (size - view.size) // 2
    averages = checkpoint.holds_averages
    evaluated = measured.precision is not None
    channels = {1: ' of the first channel', CIFAR10_RECORD.depth: ''}.get(
        view.depth, f' of the first {view.depth} channels'
    )
    scaling = {
        'standardized': (
            ', minus their mean, divided by the larger of their standard deviation and '
            '1 / sqrt(number of values).'
        ),
        'unit': ', divided by 255.',
        'channels': (
            f', divided by 255, minus {CHANNEL_MEANS} and divided by {CHANNEL_STDDEVS}, channel by '
            'channel.'
        ),
    }[view.scaling]
    return {
        'checkpoint': os.path.basename(checkpoint.path),
        'step': checkpoint.step,
        'model': run.model,
        'weights': 'moving averages' if averages else 'as trained',
        'dataset': run.dataset or 'cifar10',
        'class_names': list(names),
        'precision_at_1': measured.precision,
        'num_test_images': measured.num_images if evaluated else 0,
        'largest_difference_of_a_probability': {
            **measured.differences,
            'measured_on': 'the test images' if evaluated else 'images of noise',
        },
        'input': {'name': 'images', 'type': 'uint8', 'shape': ['batch', size, size, 3]},
        'outputs': {
            'logits': ['batch', len(names)],
            'probabilities': ['batch', len(names)],
            'class_names': [len(names)],
        },
        'preprocessing': {
            'outside_the_model': _describe_framing(run.framing),
            'framing': dataclasses.asdict(run.framing),
            'inside_the_model': (
                f'The central {view.size} x {view.size} pixels{channels}{scaling}'
            ),
            'crop': {'top': margin, 'left': margin, 'height': view.size, 'width': view.size},
        },
        'tensorflow': tf.__version__,
    }


def _describe_framing(framing: Framing) -> str:
    """How a picture becomes the input of the models, in words."""
    inner = framing.inner or framing.size
    fit = {
        'crop': f'Cut the central square of the picture, scale it with antialiasing to {inner} x '
        f'{inner}',
        'pad': f'Scale the picture with antialiasing so that its longer side has {inner} pixels, '
        'put it into the middle of a black square',
        'stretch': f'Scale the picture with antialiasing to {inner} x {inner}',
    }[framing.fit]
    invert = ', exchange black and white' if framing.invert else ''
    black = ''
    if inner != framing.size:
        black = f', put it into the middle of {framing.size} x {framing.size} black pixels'
    return f'{fit}{invert}{black}, as red, green and blue of 0 to 255.'


def export(settings: ExportSettings) -> None:
    """Makes the folder, complete or not at all, and says what it holds.

    Raises:
      UserError: there is no complete checkpoint, the folder is in the way or can't be written,
        or the models don't agree with the checkpoint.
    """
    # TensorFlow's loader logs through absl that it finds no fingerprint, which it doesn't need.
    logging.set_verbosity(logging.WARNING)
    run = RunFolder.open(settings.checkpoint_dir, settings.model, settings.checkpoint)
    network = cifar10.NETWORKS[run.model].trained_by(run.recipe).of_size(run.framing.size)
    checkpoint = run.require_checkpoint()
    names = run.class_names(settings.data_dir)
    try:
        with filled_directory(settings.output) as directory:
            saved_model, lite_model, json_file = (
                os.path.join(directory, name) for name in (SAVED_MODEL, LITE_MODEL, METADATA)
            )
            save_model(checkpoint, names, network, saved_model)
            convert_to_lite(saved_model, lite_model)
            models = {SAVED_MODEL: load_saved_model(saved_model), LITE_MODEL: load_lite(lite_model)}
            measured = measure(settings, run, network, checkpoint, models)
            content = metadata(run, checkpoint, names, network, measured)
            with open(json_file, 'w', encoding='utf-8') as file:
                file.write(json.dumps(content, indent=2) + '\n')
    except tf.errors.OpError as error:
        raise UserError(
            f'--output={settings.output}: cannot be exported: {error_message(error)}'
        ) from error
    print(f'Exported {checkpoint} to {settings.output}{data_note(run.dataset)}')
    images = 'images of noise'
    if measured.precision is not None:
        print(f'precision @ 1 = {measured.precision:.3f} ({measured.num_images} images)')
        images = 'test images'
    for name, difference in measured.differences.items():
        print(
            f'{name}: probabilities within {difference:.1e} of evaluation on '
            f'{measured.num_images} {images}'
        )


if __name__ == '__main__':
    run_script(export, ExportSettings)
