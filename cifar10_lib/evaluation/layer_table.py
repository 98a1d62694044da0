"""The layers of a network as a table: name, output shape, weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from cifar10_lib.nn.layers import Network, evaluation_options

_HEADINGS = ('Layer', 'Output shape', 'Weights', 'Share')


class Layer(NamedTuple):
    """One row of the table."""

    name: str
    """The layer's outermost name scope, or of an operation outside of any its name."""
    output_shape: tuple[int | None, ...] | None
    """Of its last output, for one image; None inside where it varies, None where the layer
    lies beside the way from images to logits."""
    num_weights: int
    """Values in its trainable variables."""


def layers(images: tf.Tensor, logits: tf.Tensor) -> list[Layer]:
    """The layers on the way from `images` to `logits`, in the order of their outputs.

    Args:
      images: [batch, height, width, depth], the network's input.
      logits: [batch, classes], its output, in the same graph.

    Returns:
      The input, the layers, then those that hold weights and lie beside the way.
    """
    shapes: dict[str, tuple[int | None, ...]] = {}
    for op in _between(images.op, logits.op):
        name = _outermost(op)
        # Moved to the end: a layer stands where its last output does.
        shapes.pop(name, None)
        shape = op.outputs[0].shape
        shapes[name] = tuple(shape.as_list()[1:]) if shape.rank is not None else ()
    num_weights = dict.fromkeys(shapes, 0)
    for variable in logits.graph.get_collection(tf.GraphKeys.TRAINABLE_VARIABLES):
        name = _outermost(variable.op)
        num_weights[name] = num_weights.get(name, 0) + variable.shape.num_elements()
    return [Layer(name, shapes.get(name), count) for name, count in num_weights.items()]


def layers_of(network: Network, num_classes: int) -> list[Layer]:
    """The layers of a network that scripts know by name, in the current graph."""
    view = network.view
    shape = [None, view.size, view.size, view.depth]
    images = tf.placeholder(tf.float32, shape, name='images')
    return layers(images, network.inference(images, evaluation_options(num_classes)))


def _outermost(op: tf.Operation) -> str:
    return op.name.partition('/')[0]


def _between(first: tf.Operation, last: tf.Operation) -> Iterator[tf.Operation]:
    """The operations on all ways from `first` to `last`, both included, in their order."""
    needed, to_visit = {last}, [last]
    while to_visit:
        inputs = {tensor.op for tensor in to_visit.pop().inputs} - needed
        needed |= inputs
        to_visit.extend(inputs)
    reached = {first}
    # An operation is made after those that it reads.
    for op in first.graph.get_operations():
        if any(tensor.op in reached for tensor in op.inputs):
            reached.add(op)
        if op in reached and op in needed:
            yield op


def table(rows: list[Layer]) -> str:
    """The layers as text, one a line, with the total in the last one."""
    total = sum(layer.num_weights for layer in rows)
    cells = [
        (
            layer.name,
            _shape_in_words(layer.output_shape),
            f'{layer.num_weights:,}',
            f'{layer.num_weights / max(total, 1):.1%}',
        )
        for layer in rows
    ]
    last = ('Total', '', f'{total:,}', '100.0%')
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *cells, last, strict=True)]
    width = sum(widths) + 2 * (len(widths) - 1)
    lines = [_aligned(row, widths) for row in (_HEADINGS, *cells, last)]
    return '\n'.join([lines[0], '=' * width, *lines[1:-1], '-' * width, lines[-1]])


def _shape_in_words(shape: tuple[int | None, ...] | None) -> str:
    if shape is None:
        return '-'
    return ' x '.join('?' if size is None else str(size) for size in shape)


def _aligned(row: tuple[str, ...], widths: list[int]) -> str:
    """Words to the left, numbers to the right."""
    words = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
    numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
    return '  '.join([*words, *numbers])
