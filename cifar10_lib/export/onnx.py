"""A network as an ONNX file, made by tf2onnx and read by onnxruntime, which are optional."""

from __future__ import annotations

import logging

import numpy as np
import tensorflow

from cifar10_lib.base.errors import UserError
from cifar10_lib.export.saved_model import Exported, ServedNetwork

MODEL = 'model.onnx'


def require_packages() -> None:
    """Raises UserError where the packages are not installed."""
    try:
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise UserError(
            f'--onnx: needs {error.name}, which is missing: pip install tf2onnx onnxruntime'
        ) from error


def convert(network: ServedNetwork) -> bytes:
    """The float32 file of a network, with all its outputs, for any batch size."""
    import tf2onnx

    # It logs each of its steps.
    logging.getLogger('tf2onnx').setLevel(logging.ERROR)
    images = [network.images()]
    function = tensorflow.function(network.__call__.python_function, images, autograph=False)
    model, _ = tf2onnx.convert.from_function(function, images)
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = 'batch'
    return model.SerializeToString()


def load(path: str) -> Exported:
    """The probabilities of a file, computed without TensorFlow."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])

    def probabilities(images: np.ndarray) -> np.ndarray:
        return session.run(['probabilities'], {'images': images})[0]

    return probabilities
