r"""Exports the newest checkpoint as models that work without this code.

    python cifar10_export.py --output=cifar10_export

writes, with the moving averages as the weights,

    cifar10_export/saved_model/1            for TensorFlow, its servers, and Keras's TFSMLayer
    cifar10_export/model.tflite             for TensorFlow Lite and LiteRT
    cifar10_export/model_float16.tflite     the same in half the bytes, without class names
    cifar10_export/labels.txt               the class names, one a line
    cifar10_export/metadata.json            step, classes, preprocessing, sizes and precision
    cifar10_export/example.py, example_lite.py

with --int8 model_int8.tflite, a quarter of the size, for one image at a time, and with --onnx
model.onnx and example_onnx.py, for ONNX Runtime and what else reads ONNX. All take uint8 images
[batch, 32, 32, 3], or of the data set's own size, named `images`, and give `logits` and
`probabilities`; those with names `class_names` as well. The SavedModel's other signature,
`serving_bytes`, takes encoded pictures of any size. Each model is read back and compared with the
checkpoint; --eval does so on all test images, and measures the precision.
"""

from __future__ import annotations

from cifar10_lib.base.start import start
from cifar10_lib.export.settings import ExportSettings

# Before TensorFlow is imported, which takes seconds.
start(__name__, ExportSettings)

import json
import os

import numpy as np
import tensorflow.compat.v1 as tf
from absl import logging

import cifar10
from cifar10_input import CIFAR10_RECORD, count_examples, test_files, train_files
from cifar10_lib.base.errors import UserError, error_message
from cifar10_lib.base.files import filled_directory
from cifar10_lib.base.flags import run_script
from cifar10_lib.data.prepare import data_note
from cifar10_lib.evaluation import analysis
from cifar10_lib.evaluation.evaluator import Evaluator, Predictor
from cifar10_lib.export import description, lite, onnx, saved_model
from cifar10_lib.export.description import Measured, ModelMeasured
from cifar10_lib.export.saved_model import Exported, ServedNetwork
from cifar10_lib.nn.layers import Network
from cifar10_lib.runs.checkpoints import Checkpoint
from cifar10_lib.runs.run_folder import RunFolder

SAVED_MODEL = 'saved_model'

# What an export holds, and --force replaces.
CONTENT = (
    SAVED_MODEL,
    lite.FLOAT32,
    lite.FLOAT16,
    lite.INT8,
    onnx.MODEL,
    description.METADATA,
    description.LABELS,
    description.EXAMPLE,
    description.LITE_EXAMPLE,
    description.ONNX_EXAMPLE,
)

# Largest difference of a probability between an exported model in float32 and the checkpoint.
# Rounding alone stays below a hundredth of it on a CPU; a GPU may multiply with fewer bits.
TOLERANCE = 1e-2

# Largest mean difference of a probability of one with fewer bits: int8 has 2e-3 on CIFAR-10.
MEAN_TOLERANCE = 1e-2

# Images of noise on which the models are compared without --eval.
_NUM_NOISE = 20

_BATCH_SIZE = 250


def compare(
    model: Exported,
    images: np.ndarray,
    expected: np.ndarray,
    labels: np.ndarray | None,
    num_bytes: int,
) -> ModelMeasured:
    """A model beside the checkpoint.

    Args:
      model: an exported one.
      images: uint8 [images, size, size, 3].
      expected: the checkpoint's probabilities, float32 [images, classes].
      labels: of the images, or None where they have none.
      num_bytes: of the model.
    """
    starts = range(0, len(images), _BATCH_SIZE)
    found = np.concatenate([model(images[start : start + _BATCH_SIZE]) for start in starts])
    differences = np.abs(found - expected)
    precision = None if labels is None else float((found.argmax(axis=1) == labels).mean())
    return ModelMeasured(num_bytes, precision, float(differences.mean()), float(differences.max()))


def measure(
    settings: ExportSettings,
    run: RunFolder,
    network: Network,
    checkpoint: Checkpoint,
    directory: str,
) -> Measured:
    """Compares the exported models with the checkpoint: on the test images, or on noise.

    Raises:
      UserError: a model gives other probabilities; or the test images can't be had.
    """
    labels = precision = None
    if settings.eval or settings.int8:
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
    models = {}
    for name in (SAVED_MODEL, lite.FLOAT32, lite.FLOAT16, lite.INT8, onnx.MODEL):
        path = os.path.join(directory, name)
        if os.path.exists(path):
            model = load_model(path)
            models[name] = compare(model, images, expected, labels, count_bytes(path))
            check(name, models[name], checkpoint)
    return Measured(models, precision, len(images))


def check(name: str, model: ModelMeasured, checkpoint: Checkpoint) -> None:
    """Raises UserError where a model's probabilities are not the checkpoint's."""
    is_exact = name in (SAVED_MODEL, lite.FLOAT32, onnx.MODEL)
    difference = model.largest if is_exact else model.mean
    expected = TOLERANCE if is_exact else MEAN_TOLERANCE
    # Not >: a difference that is NaN is an error too.
    if not difference <= expected:
        kind = 'gives a probability that differs' if is_exact else 'gives probabilities that differ'
        mean = '' if is_exact else ' in the mean'
        raise UserError(
            f'{name}: {kind} by {difference:.2g}{mean} from that of {checkpoint}; expected at '
            f'most {expected}'
        )


def load_model(path: str) -> Exported:
    """An exported model, opened without this code."""
    if os.path.isdir(path):
        return saved_model.load(os.path.join(path, saved_model.VERSION))
    return onnx.load(path) if path.endswith(onnx.MODEL) else lite.load(path)


def count_bytes(path: str) -> int:
    """Size of a file, or of all files in a folder."""
    if os.path.isfile(path):
        return os.path.getsize(path)
    folders = os.walk(path)
    return sum(
        os.path.getsize(os.path.join(at, name)) for at, _, names in folders for name in names
    )


def write_models(
    settings: ExportSettings,
    run: RunFolder,
    network: Network,
    checkpoint: Checkpoint,
    names: list[str],
    directory: str,
) -> None:
    """Writes the models, without looking at them.

    Raises:
      UserError: the checkpoint is of another network, or there are no training images.
      tf.errors.OpError: a model can't be written.
    """
    served = ServedNetwork(checkpoint, names, network, run.framing)
    version = os.path.join(directory, SAVED_MODEL, saved_model.VERSION)
    served.save(version)
    converted = {
        lite.FLOAT32: lite.convert(version),
        lite.FLOAT16: lite.convert_to_float16(served),
    }
    if settings.int8:
        converted[lite.INT8] = lite.convert_to_int8(served, _read_calibration(settings, run))
    if settings.onnx:
        converted[onnx.MODEL] = onnx.convert(served)
    for name, content in converted.items():
        with open(os.path.join(directory, name), 'wb') as file:
            file.write(content)


def _read_calibration(settings: ExportSettings, run: RunFolder) -> np.ndarray:
    """Training images from everywhere in the files, uint8 [images, size, size, 3]."""
    prepared = run.prepare_data(settings.data_dir)
    files, record = train_files(prepared.directory), run.framing.record
    count = count_examples(files, record)
    places = np.linspace(0, count - 1, min(count, lite.NUM_CALIBRATION)).astype(np.int64)
    return analysis.read_images(files, places, record)


def write_descriptions(
    run: RunFolder,
    network: Network,
    checkpoint: Checkpoint,
    names: list[str],
    measured: Measured,
    directory: str,
) -> None:
    """Writes labels, metadata and examples.

    Raises:
      OSError: one can't be written.
    """
    metadata = description.metadata(run, checkpoint, names, network, measured)
    texts = {
        description.METADATA: json.dumps(metadata, indent=2) + '\n',
        description.LABELS: ''.join(f'{name}\n' for name in names),
        description.EXAMPLE: description.example(),
        description.LITE_EXAMPLE: description.lite_example(run.framing),
    }
    if onnx.MODEL in measured.models:
        texts[description.ONNX_EXAMPLE] = description.onnx_example(run.framing)
    for name, text in texts.items():
        with open(os.path.join(directory, name), 'w', encoding='utf-8', newline='\n') as file:
            file.write(text)


def export(settings: ExportSettings) -> None:
    """Makes the folder, complete or not at all, and says what it holds.

    Raises:
      UserError: there is no complete checkpoint, the folder is in the way or can't be written,
        a package is missing, or the models don't agree with the checkpoint.
    """
    # TensorFlow's loader logs through absl that it finds no fingerprint, which it doesn't need.
    logging.set_verbosity(logging.WARNING)
    if settings.onnx:
        onnx.require_packages()
    run = RunFolder.open(settings.checkpoint_dir, settings.model, settings.checkpoint)
    network = run.configure(cifar10.NETWORKS[run.model])
    checkpoint = run.require_checkpoint()
    names = run.class_names(settings.data_dir)
    try:
        with filled_directory(settings.output, CONTENT if settings.force else ()) as directory:
            write_models(settings, run, network, checkpoint, names, directory)
            measured = measure(settings, run, network, checkpoint, directory)
            write_descriptions(run, network, checkpoint, names, measured, directory)
    except tf.errors.OpError as error:
        raise UserError(
            f'--output={settings.output}: cannot be exported: {error_message(error)}'
        ) from error
    print(f'Exported {checkpoint} to {settings.output}{data_note(run.dataset)}')
    if measured.precision is not None:
        print(f'precision @ 1 = {measured.precision:.3f} ({measured.num_images} images)')
    print(table(measured))
    print(f'\n{os.path.join(settings.output, description.EXAMPLE)} PICTURE classifies one:\n')
    print(description.example(), end='')


def table(measured: Measured) -> str:
    """Size and precision of each model, and how far it is from the checkpoint."""
    images = 'images of noise' if measured.precision is None else 'test images'
    heading = ('model', 'bytes', 'precision', 'mean difference', 'largest')
    rows = [heading] + [
        (
            name,
            f'{model.num_bytes:,}',
            '-' if model.precision is None else f'{model.precision:.4f}',
            f'{model.mean:.1e}',
            f'{model.largest:.1e}',
        )
        for name, model in measured.models.items()
    ]
    lines = [f'{row[0]:20}' + ''.join(f'{cell:>17}' for cell in row[1:]) for row in rows]
    title = f"Probabilities of {measured.num_images} {images}, beside the checkpoint's:"
    return '\n'.join([title, *lines])


if __name__ == '__main__':
    run_script(export, ExportSettings)
