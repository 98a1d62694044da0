"""Floating-point operations of a network.

Convolutions and dense layers alone: each is a product of matrices, of one
multiplication and one addition for every weight and every output that it reaches.
Biases, pooling, normalisation, loss and update are left out, so the ceiling that
follows from these numbers is one that no implementation can quite reach.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow.compat.v1 as tf

import cifar10
from cifar10_lib.nn.layers import Network


class Layer(NamedTuple):
    """A layer that multiplies matrices."""

    name: str
    outputs: int
    """Positions of the output times channels."""
    inputs_per_output: int
    """Inputs, each with a weight, that one output adds up."""
    trainable: bool = True
    """Whether its weights are trained."""

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of the forward pass for one example."""
        return self.outputs * self.inputs_per_output


def layers(network: Network = cifar10.NETWORKS['tutorial']) -> list[Layer]:
    """The network's layers that have weights, in the order of the graph."""
    with tf.Graph().as_default() as graph:
        view = network.view
        images = tf.zeros([1, view.size, view.size, view.depth])
        network.evaluate(images, cifar10.NUM_CLASSES)
        products = [op for op in graph.get_operations() if op.type in ('Conv2D', 'MatMul')]
        # Not those whose matrix is a constant: the normalisation's bands.
        return [_layer(op) for op in products if op.inputs[1].op.type == 'ReadVariableOp']


def _layer(product: tf.Operation) -> Layer:
    variable = product.inputs[1].op.inputs[0].op.name
    weights = product.inputs[1].shape
    return Layer(
        variable.rpartition('/')[0],
        product.outputs[0].shape.num_elements(),
        weights[:-1].num_elements(),
        variable in {trained.op.name for trained in tf.trainable_variables()},
    )


def forward_flops(network: Network = cifar10.NETWORKS['tutorial']) -> int:
    """Floating-point operations of the forward pass, for one example."""
    return 2 * sum(layer.multiply_adds for layer in layers(network))


def training_flops(network: Network = cifar10.NETWORKS['tutorial']) -> int:
    """Floating-point operations of a training step, for one example.

    Each layer takes three products of the same number of multiply-adds: the forward
    pass, the gradient for its weights, and the gradient for its inputs. The first
    layer's inputs are the images, whose gradient nobody needs, and its weights may not
    be trained; all other layers are taken to be.
    """
    first, *others = layers(network)
    first_products = 2 if first.trainable else 1
    return 2 * (
        first_products * first.multiply_adds + 3 * sum(layer.multiply_adds for layer in others)
    )
