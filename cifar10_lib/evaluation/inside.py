"""What a network computes of pictures, and what its classes depend on.

An `Inspector` is the network with the weights of a checkpoint, as evaluation sees pictures: one
view of each, undistorted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10_input import evaluation_crop
from cifar10_lib.base.errors import UserError
from cifar10_lib.evaluation import layer_table
from cifar10_lib.evaluation.evaluator import BATCH_SIZE, Restorer, picture_placeholder
from cifar10_lib.nn.layers import Network
from cifar10_lib.runs.checkpoints import Checkpoint


class LayerOutput(NamedTuple):
    """What a layer computes of one picture."""

    name: str
    values: np.ndarray
    """float32 [height, width, channels] or [values]."""


class Projection(NamedTuple):
    """Points, projected onto the two directions in which they differ most."""

    points: np.ndarray
    """float64 [points, 2]."""
    shares: np.ndarray
    """float64 [2], of the variance, that each direction has."""


class Inspector:
    """The network with the weights of one checkpoint, ready for pictures."""

    def __init__(self, checkpoint: Checkpoint, network: Network) -> None:
        """
        Args:
          checkpoint: of the network.
          network: for pictures of its size.

        Raises:
          UserError: the checkpoint is of another network.
        """
        self._network = network
        with tf.Graph().as_default():
            self._pictures = picture_placeholder(network.size)
            images = evaluation_crop(self._pictures, network.view)
            logits = network.evaluate(images, checkpoint.num_classes)
            # Before gradients, which would be taken for layers.
            self._layers = layer_table.outputs(images, logits)
            path = list(layer_table.between(images.op, logits.op))
            self._hidden = _last_hidden(path)
            self._features = _last_features(path)
            self._probabilities = tf.nn.softmax(logits)
            self._classes = tf.placeholder(tf.int32, [None], name='classes')
            score = tf.gather(logits, self._classes, batch_dims=1)
            (gradient,) = tf.gradients(score, images)
            self._saliency = tf.reduce_max(tf.abs(gradient), axis=-1)
            if self._features is not None:
                self._grad_cam = _grad_cam(score, self._features, network.view.size)
            self._session = tf.Session()
            Restorer().restore(self._session, checkpoint)

    def probabilities(self, pictures: np.ndarray) -> np.ndarray:
        """float32 [pictures, classes] of uint8 [pictures, size, size, 3]."""
        return self._run(self._probabilities, pictures)

    def layer_outputs(self, picture: np.ndarray) -> list[LayerOutput]:
        """The output of each layer but the logits, in their order.

        Args:
          picture: uint8 [size, size, 3].
        """
        *names, _ = self._layers
        tensors = [self._layers[name] for name in names]
        values = self._session.run(tensors, {self._pictures: picture[np.newaxis]})
        return [LayerOutput(*each) for each in zip(names, (v[0] for v in values), strict=True)]

    def hidden(self, pictures: np.ndarray) -> np.ndarray:
        """The last hidden layer, of which the logits are made; of a network without one, its input.

        Args:
          pictures: uint8 [pictures, size, size, 3].

        Returns:
          float32 [pictures, values].
        """
        return self._run(self._hidden, pictures)

    def saliency(self, pictures: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """How much the score of a class, its logit, changes with each pixel.

        The largest absolute gradient among a pixel's channels: Simonyan et al., "Deep inside
        convolutional networks", ICLR workshop 2014, sec. 3.1.

        Args:
          pictures: uint8 [pictures, size, size, 3].
          classes: int [pictures], one for each.

        Returns:
          float32 [pictures, view, view], 0 or more, of the part that the network sees.
        """
        return self._run(self._saliency, pictures, classes)

    def grad_cam(self, pictures: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Where the last convolution sees a class.

        relu(sum over k of alpha_k A^k), alpha_k the mean over A^k's pixels of the gradient of the
        class's logit: Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1 and 2. A^k are the maps
        behind the last convolution, before they are pooled. The result is scaled bilinearly to the
        picture.

        Args:
          pictures, classes: as of `saliency`.

        Returns:
          float32 [pictures, view, view], 0 or more.

        Raises:
          UserError: the network has no convolution.
        """
        if self._features is None:
            raise UserError('Grad-CAM: the network has no convolution')
        return self._run(self._grad_cam, pictures, classes)

    def _run(
        self, tensor: tf.Tensor, pictures: np.ndarray, classes: np.ndarray | None = None
    ) -> np.ndarray:
        parts = []
        for start in range(0, len(pictures), BATCH_SIZE):
            part = slice(start, start + BATCH_SIZE)
            feed = {self._pictures: pictures[part]}
            if classes is not None:
                feed[self._classes] = classes[part]
            parts.append(self._session.run(tensor, feed))
        return np.concatenate(parts)


def _last_hidden(path: list[tf.Operation]) -> tf.Tensor:
    """The input of the last matrix product, [batch, values]."""
    return next(op.inputs[0] for op in reversed(path) if op.type == 'MatMul')


def _last_features(path: list[tf.Operation]) -> tf.Tensor | None:
    """The last maps [batch, height, width, channels] of the last convolution's size, or None."""
    places = [place for place, op in enumerate(path) if op.type == 'Conv2D']
    if not places:
        return None
    size = path[places[-1]].outputs[0].shape[1:3].as_list()
    outputs = [op.outputs[0] for op in path[places[-1] :]]
    return [o for o in outputs if o.shape.rank == 4 and o.shape[1:3].as_list() == size][-1]


def _grad_cam(score: tf.Tensor, features: tf.Tensor, size: int) -> tf.Tensor:
    (gradient,) = tf.gradients(score, features)
    weights = tf.reduce_mean(gradient, axis=[1, 2], keepdims=True)
    maps = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1, keepdims=True))
    return tf.image.resize(maps, [size, size], method='bilinear')[..., 0]


def project(values: np.ndarray) -> Projection:
    """The principal components of points, by singular value decomposition.

    Args:
      values: [points, values].

    Returns:
      The first two; the signs are those that make the largest weight of each positive.
    """
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:2]
    largest = np.abs(directions).argmax(axis=1)
    directions *= np.sign(directions[np.arange(len(directions)), largest])[:, np.newaxis]
    total = (lengths**2).sum()
    shares = lengths[:2] ** 2 / total if total else np.zeros(2)
    return Projection(centred @ directions.T, shares)
