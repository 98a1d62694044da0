"""A faster formulation is the same function as the plain one, forward and gradient."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10
from cifar10_lib.nn import layers, lrn

Arrays = list[np.ndarray]


def values_and_gradients(output: tf.Tensor, x: tf.Tensor, weights: np.ndarray) -> list[tf.Tensor]:
    """The output, and the gradient for `x` of its weighted sum."""
    return [output, tf.gradients(tf.reduce_sum(output * weights), x)[0]]


@pytest.mark.parametrize('scale', [0.1, 1.0, 100.0])
@pytest.mark.parametrize(
    ('depth_radius', 'bias', 'alpha'), [(4, 1.0, 0.001 / 9), (5, 2.0, 0.001), (1, 1.0, 1.0)]
)
def test_normalization_equals_the_plain_op(
    depth_radius: int, bias: float, alpha: float, scale: float
) -> None:
    rng = np.random.default_rng()
    inputs = (scale * rng.standard_normal([8, 6, 6, 64])).astype(np.float32)
    weights = rng.standard_normal([8, 6, 6, 64]).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.constant(inputs)
        fast = lrn.by_matrix_products(x, depth_radius, bias, alpha)
        plain = tf.nn.local_response_normalization(x, depth_radius, bias, alpha, beta=0.75)
        found = session.run(values_and_gradients(fast, x, weights))
        expected = session.run(values_and_gradients(plain, x, weights))
    for fast_values, plain_values in zip(found, expected, strict=True):
        # Sums of up to 11 squares, two roots and three products in float32 come to a
        # few units of 6e-8 in the last place; the gradient is a difference of two terms.
        tolerance = 2e-6 * np.abs(plain_values).max()
        np.testing.assert_allclose(fast_values, plain_values, rtol=2e-5, atol=tolerance)


def test_normalization_takes_any_batch() -> None:
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [None, 12, 12, 64])
        y = lrn.by_matrix_products(x, 5, 1.0, 1.0)
        assert session.run(y, {x: np.ones([3, 12, 12, 64])}).shape == (3, 12, 12, 64)


def pool(images: tf.Tensor) -> tf.Tensor:
    return layers.max_pool('pool', images, side=3, padding='SAME')


def test_pooling_before_bias_and_relu_gives_the_same_values_and_gradients() -> None:
    rng = np.random.default_rng()
    inputs = rng.standard_normal([4, 24, 24, 8]).astype(np.float32)
    bias_values = rng.standard_normal(8).astype(np.float32)
    weights = rng.standard_normal([4, 12, 12, 8]).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.constant(inputs)
        biases = tf.get_variable('biases', initializer=bias_values)
        session.run(tf.global_variables_initializer())
        results = []
        for output in (
            tf.nn.relu(tf.nn.bias_add(pool(x), biases)),
            pool(tf.nn.relu(tf.nn.bias_add(x, biases))),
        ):
            gradient = tf.gradients(tf.reduce_sum(output * weights), biases)[0]
            results.append(session.run([*values_and_gradients(output, x, weights), gradient]))
    fast, plain = results
    np.testing.assert_array_equal(fast[0], plain[0])
    # Each element may be the largest of several windows, whose gradients are summed.
    np.testing.assert_allclose(fast[1], plain[1], atol=1e-6)
    np.testing.assert_allclose(fast[2], plain[2], rtol=1e-4, atol=1e-4)


def test_the_network_uses_the_plain_op_where_a_gpu_is_at_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for gpu_at_hand in (False, True):
        monkeypatch.setattr(
            tf.config, 'list_physical_devices', lambda kind, found=gpu_at_hand: [kind] * found
        )
        with tf.Graph().as_default() as graph:
            cifar10.inference(tf.zeros([1, 24, 24, 3]), cifar10.Options(summaries=False))
            kinds = [op.type for op in graph.get_operations()]
        assert kinds.count('LRN') == (2 if gpu_at_hand else 0)
