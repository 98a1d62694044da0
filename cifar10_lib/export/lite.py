"""A network as TensorFlow Lite files, of built-in operations alone, and their interpreter."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow
import tensorflow.compat.v1 as tf

from cifar10_lib.base.files import utf8_name
from cifar10_lib.export.saved_model import Exported, ServedNetwork

FLOAT32, FLOAT16, INT8 = 'model.tflite', 'model_float16.tflite', 'model_int8.tflite'

# How many training images show the ranges of values that int8 shall cover.
NUM_CALIBRATION = 200

# What stays in float32 beside int8: standardisation divides by a deviation, and local response
# normalisation by a power. Eight bits round small divisors to 0.
_IN_FLOAT = ('MEAN', 'SQUARED_DIFFERENCE', 'SQRT', 'MAXIMUM', 'SUB', 'DIV', 'RSQRT')


def convert(saved_model: str) -> bytes:
    """The float32 file of a SavedModel, with all its outputs, for any batch size."""
    return tensorflow.lite.TFLiteConverter.from_saved_model(
        utf8_name(saved_model), signature_keys=['serving_default']
    ).convert()


def convert_to_float16(network: ServedNetwork) -> bytes:
    """The file with weights in half the bytes and without texts, for any batch size."""
    converter = _converter(network, None)
    converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def convert_to_int8(network: ServedNetwork, images: np.ndarray) -> bytes:
    """The file with products in int8 and without texts, for one image at a time.

    Args:
      images: of training, uint8 [images, size, size, 3]; the ranges of values are theirs.
    """

    def calibration() -> Iterator[list[np.ndarray]]:
        for image in images:
            yield [image[np.newaxis]]

    converter = _converter(network, 1)
    converter.representative_dataset = calibration
    experimental = tensorflow.lite.experimental
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # As in `_interpreter`.
        # The one way to keep some operations in float32.
        debugger = experimental.QuantizationDebugger(
            converter=converter,
            debug_dataset=calibration,
            debug_options=experimental.QuantizationDebugOptions(denylisted_ops=list(_IN_FLOAT)),
        )
        return debugger.get_nondebug_quantized_model()


def _converter(network: ServedNetwork, batch: int | None) -> Any:
    """Makes small files of the network's numbers."""
    # Of its own: one that takes any batch size would stand for that of one image.
    score = tensorflow.function(network.score.python_function, autograph=False)
    function = score.get_concrete_function(network.images(batch))
    converter = tensorflow.lite.TFLiteConverter.from_concrete_functions([function], network)
    converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
    return converter


def load(path: str) -> Exported:
    """The probabilities of a file, whatever batch size it takes."""
    runner = _interpreter(path).get_signature_runner()
    (details,) = runner.get_input_details().values()
    is_single = details['shape_signature'][0] == 1

    def probabilities(images: np.ndarray) -> np.ndarray:
        batches = images[:, np.newaxis] if is_single else [images]
        return np.concatenate([runner(images=batch)['probabilities'] for batch in batches])

    return probabilities


def _interpreter(path: str) -> Any:
    """LiteRT's interpreter where it is installed, or else TensorFlow's, which it replaces."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        Interpreter = tensorflow.lite.Interpreter
    with warnings.catch_warnings():
        # Of TensorFlow's, that it will be removed.
        warnings.simplefilter('ignore', UserWarning)
        return Interpreter(utf8_name(path))
