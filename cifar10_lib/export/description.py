"""What stands beside exported models: metadata, labels, and examples of their use."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

from cifar10_input import CHANNEL_MEANS, CHANNEL_STDDEVS, CIFAR10_RECORD
from cifar10_lib.data.framing import Framing
from cifar10_lib.nn.layers import Network
from cifar10_lib.runs.checkpoints import Checkpoint
from cifar10_lib.runs.run_folder import RunFolder

METADATA, LABELS = 'metadata.json', 'labels.txt'
EXAMPLE, LITE_EXAMPLE, ONNX_EXAMPLE = 'example.py', 'example_lite.py', 'example_onnx.py'


class ModelMeasured(NamedTuple):
    """One exported model beside the checkpoint."""

    num_bytes: int
    precision: float | None
    """Fraction of the test images whose most likely class is the true one; None on noise."""
    mean: float
    largest: float
    """Mean and largest difference of a probability from the checkpoint's."""


class Measured(NamedTuple):
    """The comparison of the models with the checkpoint."""

    models: dict[str, ModelMeasured]
    precision: float | None
    """Of the checkpoint; None on noise."""
    num_images: int


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
        'models': {
            name: {
                'bytes': model.num_bytes,
                'precision_at_1': model.precision,
                'mean_difference_of_a_probability': model.mean,
                'largest_difference_of_a_probability': model.largest,
            }
            for name, model in measured.models.items()
        },
        'compared_on': 'the test images' if evaluated else 'images of noise',
        'input': {'name': 'images', 'type': 'uint8', 'shape': ['batch', size, size, 3]},
        'input_of_serving_bytes': {'name': 'image_bytes', 'type': 'string', 'shape': ['batch']},
        'outputs': {
            'logits': ['batch', len(names)],
            'probabilities': ['batch', len(names)],
            'class_names': ['batch', len(names)],
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


def example() -> str:
    """A program that classifies a picture with TensorFlow alone."""
    return """\
import pathlib, sys
import tensorflow as tf
network = tf.saved_model.load(pathlib.Path(__file__).parent / 'saved_model' / '1')
found = network.signatures['serving_bytes'](image_bytes=tf.io.read_file(sys.argv[1])[tf.newaxis])
print(found['class_names'][0, found['probabilities'][0].numpy().argmax()].numpy().decode())
"""


def lite_example(framing: Framing) -> str:
    """A program that classifies a picture with LiteRT, NumPy and Pillow alone."""
    return f"""\
import pathlib, sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps
folder = pathlib.Path(__file__).parent
network = Interpreter(str(folder / 'model_float16.tflite')).get_signature_runner()
image = {_framed_picture(framing)}
found = network(images=np.asarray(image)[np.newaxis])['probabilities'][0]
print((folder / 'labels.txt').read_text(encoding='utf-8').splitlines()[found.argmax()])
"""


def onnx_example(framing: Framing) -> str:
    """A program that classifies a picture with ONNX Runtime, NumPy and Pillow alone."""
    return f"""\
import pathlib, sys
import numpy as np
from onnxruntime import InferenceSession
from PIL import Image, ImageOps
network = InferenceSession(pathlib.Path(__file__).parent / 'model.onnx')
image = {_framed_picture(framing)}
found = network.run(['class_names', 'probabilities'], {{'images': np.asarray(image)[np.newaxis]}})
print(found[0][0, found[1][0].argmax()])
"""


def _framed_picture(framing: Framing) -> str:
    """An expression of Pillow's: the picture that a program is given, as the models take it."""
    inner = framing.inner or framing.size
    function = {'crop': 'ImageOps.fit', 'pad': 'ImageOps.pad', 'stretch': 'Image.Image.resize'}
    image = f"{function[framing.fit]}(Image.open(sys.argv[1]).convert('RGB'), ({inner}, {inner}))"
    if framing.invert:
        image = f'ImageOps.invert({image})'
    if inner != framing.size:
        image = f'ImageOps.expand({image}, {(framing.size - inner) // 2})'
    return image
