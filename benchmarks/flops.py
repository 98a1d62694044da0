"""How many floating-point operations does the network take?

Convolutions and dense layers alone: each is a product of matrices, of one
multiplication and one addition for every weight and every output that it reaches.
Biases, pooling, normalisation, loss and update are left out, so the ceiling that
follows from these numbers is one that no implementation can quite reach.
"""

from __future__ import annotations

from typing import NamedTuple


class Layer(NamedTuple):
    """A layer that multiplies matrices."""

    name: str
    outputs: int
    """Positions of the output times channels."""
    inputs_of_output: int
    """Inputs, each with a weight, that one output adds up."""

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of the forward pass for one example."""
        return self.outputs * self.inputs_of_output


def _convolution(name: str, side: int, depth: int, filters: int) -> Layer:
    """5 x 5 with stride 1 and SAME: `side` x `side` positions in, as many out."""
    return Layer(name, side * side * filters, 5 * 5 * depth)


# The poolings halve 24 to 12 after conv1, and 12 to 6 after conv2.
LAYERS = (
    _convolution('conv1', side=24, depth=3, filters=64),
    _convolution('conv2', side=12, depth=64, filters=64),
    Layer('local3', 384, 6 * 6 * 64),
    Layer('local4', 192, 384),
    Layer('softmax_linear', 10, 192),
)


def forward_flops() -> int:
    """Floating-point operations of the forward pass, for one example."""
    return 2 * sum(layer.multiply_adds for layer in LAYERS)


def training_flops() -> int:
    """Floating-point operations of a training step, for one example.

    Each layer takes three products of the same number of multiply-adds: the forward
    pass, the gradient for its weights, and the gradient for its inputs. The first
    layer's inputs are the images, whose gradient nobody needs.
    """
    return 3 * forward_flops() - 2 * LAYERS[0].multiply_adds
