r"""How does a checkpoint become a model that others use without this code? Exports it.

    python cifar10_export.py --output=cifar10_export

writes the newest checkpoint, its moving averages as the weights, as

    cifar10_export/saved_model      tf.saved_model.load opens it
    cifar10_export/model.tflite     for TensorFlow Lite, of its built-in operations alone
    cifar10_export/metadata.json    step, classes, preprocessing and versions

Both take uint8 images [batch, 32, 32, 3] of any batch size by the name `images`, and
give `logits`, `probabilities` and `class_names`. Both are read back and compared with
the checkpoint; --eval does so on all test images, and notes the precision.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow
import tensorflow.compat.v1 as tf
from absl import logging
from tensorflow.core.protobuf import saved_model_pb2

import cifar10
from cifar10_input import (
    CIFAR10_RECORD,
    View,
    evaluation_crop,
    test_files,
)
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.files import filled_directory
from cifar10_lib.base.flags import run_script, setting
from cifar10_lib.data import prepare
from cifar10_lib.data.prepare import data_note
from cifar10_lib.evaluation import analysis
from cifar10_lib.evaluation.evaluator import (
    Evaluator,
    Predictor,
    Restorer,
    class_names,
    data_dir_of,
    model_setting,
    network_name,
    newest_checkpoint,
    num_classes_of,
    picture_placeholder,
)
from cifar10_lib.nn.layers import Network, evaluation_options
from cifar10_lib.runs import checkpoints, run_folder
from cifar10_lib.runs.checkpoints import CheckpointFolder, reason_of

SAVED_MODEL, LITE_MODEL, METADATA = 'saved_model', 'model.tflite', 'metadata.json'

# Of a probability, between an exported model and the checkpoint. Rounding alone stays
# below a hundredth of it on a CPU; a GPU may multiply with fewer bits.
TOLERANCE = 1e-2

# Images of noise on which the models are compared without --eval.
_NUM_NOISE = 20

_BATCH_SIZE = 250

# Probabilities float32 [batch, classes] of images uint8 [batch, 32, 32, 3].
Exported = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class ExportSettings:
    """What to export, and where to."""

    output: str = setting('cifar10_export', 'Folder to make; it must be missing or empty.')
    checkpoint_dir: str = setting('cifar10_train', 'Folder of the checkpoints.')
    model: str = model_setting()
    eval: bool = setting(
        False, 'Measure the precision on the test images, and compare the models on all of them.'
    )
    data_dir: str = setting(
        None,
        'Folder of the data set, for the names of its classes and --eval; by default the one that '
        'training used.',
    )


class Measured(NamedTuple):
    """What was found on the images that the models were compared on."""

    differences: dict[str, float]
    """Of each model the largest difference of a probability from the checkpoint's."""
    precision: float | None
    """Fraction of the test images whose most likely class is the true one; None of noise."""
    num_images: int


def save_model(checkpoint: str, names: Sequence[str], model: Network, directory: str) -> None:
    """Writes the checkpoint's network as a SavedModel.

    Args:
      checkpoint: its path.
      names: of the classes.
      model: the network.
      directory: is made.

    Raises:
      UserError: the checkpoint can't be read, or is of another network.
      tf.errors.OpError: the checkpoint went away, or the model can't be written.
    """
    with tf.Graph().as_default(), tf.Session() as session:
        images = picture_placeholder()
        logits = model.inference(
            evaluation_crop(images, model.view), evaluation_options(len(names))
        )
        outputs = {
            'logits': logits,
            'probabilities': tf.nn.softmax(logits),
            'class_names': tf.constant(list(names)),
        }
        Restorer().restore(session, checkpoint)
        tf.saved_model.simple_save(session, directory, {'images': images}, outputs)
    _forget_own_gradients(os.path.join(directory, 'saved_model.pb'))


def _forget_own_gradients(path: str) -> None:
    """Has the operations of a SavedModel go by TensorFlow's gradients.

    Those that `tf.custom_gradient` gave them are known to the process that built the graph
    alone: elsewhere, whoever trained the model on would find none.
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
    """The SavedModel, as a program without this code opens it."""
    signature = tensorflow.saved_model.load(directory).signatures['serving_default']
    return lambda images: signature(images=tensorflow.constant(images))['probabilities'].numpy()


def load_lite(path: str) -> Exported:
    """The TensorFlow Lite file, by TensorFlow's own interpreter."""
    with warnings.catch_warnings():
        # It moves to a package of its own.
        warnings.simplefilter('ignore', UserWarning)
        runner = tensorflow.lite.Interpreter(path).get_signature_runner()
    return lambda images: runner(images=images)['probabilities']


def largest_difference(model: Exported, images: np.ndarray, expected: np.ndarray) -> float:
    """Of a probability that the model gives.

    Args:
      model: gives probabilities.
      images: uint8 [images, 32, 32, 3].
      expected: float32 [images, classes].
    """
    starts = range(0, len(images), _BATCH_SIZE)
    found = np.concatenate([model(images[start : start + _BATCH_SIZE]) for start in starts])
    return float(np.abs(found - expected).max())


def measure(settings: ExportSettings, checkpoint: str, models: dict[str, Exported]) -> Measured:
    """Compares the models with the checkpoint: on the test images by --eval, else on noise.

    Raises:
      UserError: one gives other probabilities; or the test images are not to be had.
    """
    labels = None
    if settings.eval:
        images, expected, labels = _test_images(settings, checkpoint)
    else:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, [_NUM_NOISE, *_image_shape()], dtype=np.uint8)
        expected = Predictor(
            checkpoint, cifar10.NETWORKS[network_name(settings.checkpoint_dir, settings.model)]
        ).probabilities(images)
    differences = {
        name: largest_difference(model, images, expected) for name, model in models.items()
    }
    for name, difference in differences.items():
        # Written so that a difference that is no number fails too.
        if not difference <= TOLERANCE:
            raise UserError(
                f'{name}: gives a probability that differs by {difference:.2g} from that of '
                f'{checkpoint}; expected at most {TOLERANCE}'
            )
    precision = None if labels is None else float((expected.argmax(axis=1) == labels).mean())
    return Measured(differences, precision, len(images))


def _image_shape() -> list[int]:
    return [CIFAR10_RECORD.height, CIFAR10_RECORD.width, CIFAR10_RECORD.depth]


def _test_images(
    settings: ExportSettings, checkpoint: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The test images, their probabilities by evaluation, and their labels."""
    stored = run_folder.load(settings.checkpoint_dir)
    data_dir = data_dir_of(settings.checkpoint_dir, settings.data_dir)
    prepared = prepare.prepare(data_dir, stored.get('dataset'))
    evaluator = Evaluator(
        prepared.directory,
        num_classes=prepared.num_classes,
        network=cifar10.NETWORKS[network_name(settings.checkpoint_dir, settings.model)],
    )
    places = np.arange(evaluator.num_examples)
    images = analysis.read_images(test_files(prepared.directory), places)
    return images, *evaluator.probabilities(checkpoint)


def metadata(
    settings: ExportSettings,
    checkpoint: str,
    names: Sequence[str],
    model: Network,
    measured: Measured,
) -> dict[str, Any]:
    """What a user of the models wants to know of them; it can be written as JSON."""
    size = model.view.size
    margins = [(side - size) // 2 for side in _image_shape()[:2]]
    averages = checkpoints.holds_averages(checkpoint)
    return {
        'checkpoint': os.path.basename(checkpoint),
        'step': checkpoints.step_of(checkpoint),
        'model': network_name(settings.checkpoint_dir, settings.model),
        'weights': 'moving averages' if averages else 'as trained',
        'dataset': run_folder.load(settings.checkpoint_dir).get('dataset', 'cifar10'),
        'class_names': list(names),
        'precision_at_1': measured.precision,
        'num_test_images': measured.num_images if settings.eval else 0,
        'largest_difference_of_a_probability': {
            **measured.differences,
            'measured_on': 'the test images' if settings.eval else 'images of noise',
        },
        'input': {'name': 'images', 'type': 'uint8', 'shape': ['batch', *_image_shape()]},
        'outputs': {
            'logits': ['batch', len(names)],
            'probabilities': ['batch', len(names)],
            'class_names': [len(names)],
        },
        'preprocessing': {
            'outside_the_model': (
                'Cut the central square of the picture, scale it with antialiasing to '
                f'{CIFAR10_RECORD.height} x {CIFAR10_RECORD.width}, as red, green and blue '
                'of 0 to 255.'
            ),
            'inside_the_model': _preprocessing_in_words(model.view),
            'crop': {
                'top': margins[0],
                'left': margins[1],
                'height': size,
                'width': size,
            },
        },
        'tensorflow': tf.__version__,
    }


def _preprocessing_in_words(view: View) -> str:
    named = {1: ' of the first channel', CIFAR10_RECORD.depth: ''}
    channels = named.get(view.depth, f' of the first {view.depth} channels')
    scaling = {
        'standardized': (
            ', minus their mean, divided by the larger of their standard deviation and '
            '1 / sqrt(number of values).'
        ),
        'unit': ', divided by 255.',
    }
    return f'The central {view.size} x {view.size} pixels{channels}{scaling[view.scaling]}'


@contextlib.contextmanager
def _tensorflow_errors_named(output: str) -> Iterator[None]:
    try:
        yield
    except tf.errors.OpError as error:
        raise UserError(f'--output={output}: cannot be exported: {reason_of(error)}') from error


def export(settings: ExportSettings) -> None:
    """Makes the folder, whole or not at all, and says what it holds.

    Raises:
      UserError: there is no whole checkpoint, the folder is in the way or can't be written,
        or the models don't agree with the checkpoint.
    """
    # TensorFlow's loader notes through absl that it finds no fingerprint, and goes on.
    logging.set_verbosity(logging.WARNING)
    checkpoint = newest_checkpoint(CheckpointFolder(settings.checkpoint_dir))
    model = cifar10.NETWORKS[network_name(settings.checkpoint_dir, settings.model)]
    num_classes = num_classes_of(checkpoint)
    names = class_names(settings.checkpoint_dir, settings.data_dir, num_classes)
    with (
        _tensorflow_errors_named(settings.output),
        filled_directory(settings.output) as directory,
    ):
        saved_model, lite_model, json_file = (
            os.path.join(directory, name) for name in (SAVED_MODEL, LITE_MODEL, METADATA)
        )
        save_model(checkpoint, names, model, saved_model)
        convert_to_lite(saved_model, lite_model)
        models = {SAVED_MODEL: load_saved_model(saved_model), LITE_MODEL: load_lite(lite_model)}
        measured = measure(settings, checkpoint, models)
        content = metadata(settings, checkpoint, names, model, measured)
        with open(json_file, 'w', encoding='utf-8') as file:
            file.write(json.dumps(content, indent=2) + '\n')
    print(f'Exported {checkpoint} to {settings.output}{data_note(content["dataset"])}')
    _report(measured)


def _report(measured: Measured) -> None:
    where = 'images of noise'
    if measured.precision is not None:
        print(f'precision @ 1 = {measured.precision:.3f} ({measured.num_images} images)')
        where = 'test images'
    for name, difference in measured.differences.items():
        print(
            f'{name}: probabilities within {difference:.1e} of evaluation on '
            f'{measured.num_images} {where}'
        )


if __name__ == '__main__':
    run_script(export, ExportSettings)
