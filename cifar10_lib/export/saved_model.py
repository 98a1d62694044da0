"""A network as a SavedModel: an object to call, and signatures that servers know."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf import saved_model_pb2

from cifar10_input import CIFAR10_RECORD, evaluation_crop
from cifar10_lib.base.files import utf8_name
from cifar10_lib.data.framing import Framing
from cifar10_lib.evaluation.evaluator import Restorer, picture_placeholder
from cifar10_lib.export.pictures import decode_pictures
from cifar10_lib.nn.layers import Network
from cifar10_lib.runs.checkpoints import Checkpoint

# Servers look for the versions of a model in folders whose names are numbers.
VERSION = '1'

# Probabilities float32 [batch, classes] of images uint8 [batch, size, size, 3].
Exported = Callable[[np.ndarray], np.ndarray]


# A method as a graph of TensorFlow 2, its code taken as it stands.
_graph = tensorflow.function(autograph=False)


class ServedNetwork(tensorflow.Module):
    """The network with the weights of a checkpoint, as an object of TensorFlow 2.

    Attributes:
      variables, trainable_variables: its weights; all, and those that training changes.
    """

    # A Module computes them; as attributes they are saved, and found where it is loaded.
    variables: Any = ()
    trainable_variables: Any = ()

    def __init__(
        self, checkpoint: Checkpoint, names: Sequence[str], network: Network, framing: Framing
    ) -> None:
        """
        Args:
          checkpoint: of the network.
          names: of the classes.
          network: as its settings have it.
          framing: how pictures became the images of training.

        Raises:
          UserError: the checkpoint is of another network.
        """
        super().__init__()
        self._names, self._network, self._framing = tuple(names), network, framing
        self._by_name = _restore(checkpoint, len(names), network)
        self.variables = list(self._by_name.values())
        self.trainable_variables = [each for each in self.variables if each.trainable]

    def images(self, batch: int | None = None) -> tf.TensorSpec:
        """What the network takes: uint8 [batch, size, size, 3], of any batch size for None."""
        size = self._network.size
        return tf.TensorSpec([batch, size, size, CIFAR10_RECORD.depth], tf.uint8, 'images')

    @_graph
    def score(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Logits and probabilities, float32 [batch, classes]."""

        def restored(getter: Any, name: str, *args: Any, **kwargs: Any) -> tf.Variable:
            return self._by_name[name]

        with tf.variable_scope('', custom_getter=restored):
            crops = evaluation_crop(images, self._network.view)
            logits = self._network.evaluate(crops, len(self._names))
        return {'logits': logits, 'probabilities': tf.nn.softmax(logits)}

    @_graph
    def __call__(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """As `score`, and the names of the classes, string [batch, classes].

        They are the same for each image: servers refuse an output without the batch dimension.
        """
        names = tf.tile(tf.constant([self._names]), [tf.shape(images)[0], 1])
        return {**self.score(images), 'class_names': names}

    @_graph
    def classify_pictures(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """As a call, of encoded pictures, string [batch]."""
        return self(decode_pictures(image_bytes, self._framing))

    def save(self, directory: str) -> None:
        """Writes the SavedModel, with a signature for images and one for encoded pictures.

        Raises:
          tf.errors.OpError: it can't be written.
        """
        encoded = tf.TensorSpec([None], tf.string, 'image_bytes')
        signatures = {
            'serving_default': self.__call__.get_concrete_function(self.images()),
            'serving_bytes': self.classify_pictures.get_concrete_function(encoded),
        }
        os.makedirs(os.path.dirname(directory), exist_ok=True)
        tensorflow.saved_model.save(self, utf8_name(directory), signatures)
        _remove_custom_gradients(os.path.join(directory, 'saved_model.pb'))


def _restore(checkpoint: Checkpoint, num_classes: int, network: Network) -> dict[str, tf.Variable]:
    """The variables of the network as TensorFlow 2's, by name, with a checkpoint's values."""
    with tf.Graph().as_default(), tf.Session() as session:
        network.evaluate(
            evaluation_crop(picture_placeholder(network.size), network.view), num_classes
        )
        Restorer().restore(session, checkpoint)
        trained = {variable.op.name for variable in tf.trainable_variables()}
        values = session.run({v.op.name: v for v in tf.global_variables()})
    return {
        name: tensorflow.Variable(value, trainable=name in trained, name=name)
        for name, value in values.items()
    }


def _remove_custom_gradients(path: str) -> None:
    """Gives the operations of a SavedModel TensorFlow's own gradients.

    Only the process that built the graph knows the gradients of `tf.custom_gradient`: elsewhere,
    training the model further would find none.
    """
    model = saved_model_pb2.SavedModel()
    with open(path, 'rb') as file:
        model.ParseFromString(file.read())
    for meta_graph in model.meta_graphs:
        for function in meta_graph.graph_def.library.function:
            for node in function.node_def:
                node.attr.pop('_gradient_op_type', None)
    with open(path, 'wb') as file:
        file.write(model.SerializeToString())


def load(directory: str) -> Exported:
    """The probabilities of a SavedModel, opened without this code."""
    signature = tensorflow.saved_model.load(utf8_name(directory)).signatures['serving_default']
    return lambda images: signature(images=tensorflow.constant(images))['probabilities'].numpy()
