"""The layers of a network as a table: name, output shape, weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from cifar10_lib.nn.layers import Network

_HEADINGS = ('Layer', 'Output shape', 'Weights', 'Share')


class Layer(NamedTuple):
    """One row of the table."""

    name: str
    """The outermost name scope, or the name of an operation outside any scope."""
    output_shape: tuple[int | None, ...] | None
    """Shape of its last output for one image, with None for a size that varies; None for a
    layer that lies on no path from images to logits."""
    num_weights: int
    """Number of values in its trainable variables."""


def layers(images: tf.Tensor, logits: tf.Tensor) -> list[Layer]:
    """The layers on the paths from `images` to `logits`, in the order of their outputs.

    Args:
      images: [batch, height, width, depth], the network's input.
      logits: [batch, classes], its output, in the same graph.

    Returns:
      The input, the layers, then other layers that have weights.
    """
    shapes: dict[str, tuple[int | None, ...]] = {}
    for op in between(images.op, logits.op):
        name = _outermost(op)
        # Removed first, so that a layer has the place of its last output.
        shapes.pop(name, None)
        shape = op.outputs[0].shape
        shapes[name] = tuple(shape.as_list()[1:]) if shape.rank is not None else ()
    num_weights = dict.fromkeys(shapes, 0)
    for variable in logits.graph.get_collection(tf.GraphKeys.TRAINABLE_VARIABLES):
        name = _outermost(variable.op)
        num_weights[name] = num_weights.get(name, 0) + variable.shape.num_elements()
    return [Layer(name, shapes.get(name), count) for name, count in num_weights.items()]


def outputs(images: tf.Tensor, logits: tf.Tensor) -> dict[str, tf.Tensor]:
    """The output of each layer by its name, from the first to that of the logits.

    It is the last tensor of the layer's name scope that depends on the images, also where the
    logits don't depend on it: an activation that a network computes in another order.

    Args:
      images, logits: as of `layers`, before gradients are added to their graph.

    Returns:
      Tensors [batch, height, width, channels] or [batch, values].
    """
    names: dict[str, None] = {}
    for op in between(images.op, logits.op):
        names.pop(_outermost(op), None)
        names[_outermost(op)] = None
    reached, found = {images.op}, {}
    for op in logits.graph.get_operations():
        if any(tensor.op in reached for tensor in op.inputs):
            reached.add(op)
            if _outermost(op) in names and op.outputs and op.outputs[0].shape.rank in (2, 4):
                found[_outermost(op)] = op.outputs[0]
    return {name: found[name] for name in names if name in found}


def network_layers(network: Network, num_classes: int) -> list[Layer]:
    """The layers of a network, which is built in the current graph."""
    view = network.view
    shape = [None, view.size, view.size, view.depth]
    images = tf.placeholder(tf.float32, shape, name='images')
    return layers(images, network.evaluate(images, num_classes))


def _outermost(op: tf.Operation) -> str:
    return op.name.partition('/')[0]


def between(first: tf.Operation, last: tf.Operation) -> Iterator[tf.Operation]:
    """The operations on all paths from `first` to `last`, both included, in their order."""
    needed, to_visit = {last}, [last]
    while to_visit:
        inputs = {tensor.op for tensor in to_visit.pop().inputs} - needed
        needed |= inputs
        to_visit.extend(inputs)
    reached = {first}
    # The operations of a graph are in an order in which each follows its inputs.
    for op in first.graph.get_operations():
        if any(tensor.op in reached for tensor in op.inputs):
            reached.add(op)
        if op in reached and op in needed:
            yield op


def describe_shape(shape: tuple[int | None, ...] | None) -> str:
    """A layer's output shape for readers, such as `24 x 24 x 64`."""
    if shape is None:
        return '-'
    return ' x '.join('?' if size is None else str(size) for size in shape)


def table(rows: list[Layer]) -> str:
    """The layers as lines of text, the last of which is the total."""
    total = sum(layer.num_weights for layer in rows)
    cells = [
        (name, describe_shape(shape), f'{count:,}', f'{count / max(total, 1):.1%}')
        for name, shape, count in rows
    ]
    cells = [_HEADINGS, *cells, ('Total', '', f'{total:,}', '100.0%')]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        '  '.join(
            f'{cell:{side}{width}}' for cell, side, width in zip(row, '<<>>', widths, strict=True)
        )
        for row in cells
    ]
    rule = len(lines[0])
    return '\n'.join([lines[0], '=' * rule, *lines[1:-1], '-' * rule, lines[-1]])
