"""The networks: their weights, their outputs, and how they learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10
from cifar10 import NETWORKS
from cifar10_lib.nn.layers import Options
from cifar10_lib.nn.towers import tower_gradients
from tests.helpers.networks import WEIGHTS, batch_for, initialized_session


def test_every_network_has_its_counts_here() -> None:
    assert set(NETWORKS) == {'tutorial', *WEIGHTS}


@pytest.mark.parametrize('name', WEIGHTS)
def test_weights_of_the_layers(name: str) -> None:
    network = NETWORKS[name]
    with tf.Graph().as_default():
        shape = [None, network.view.size, network.view.size, network.view.depth]
        logits = network.evaluate(tf.placeholder(tf.float32, shape), 10)
        assert logits.shape.as_list() == [None, 10] and logits.dtype == tf.float32
        counts: dict[str, int] = {}
        for variable in tf.trainable_variables():
            layer, kind = variable.op.name.split('/')
            if kind in ('weights', 'biases'):
                counts[layer] = counts.get(layer, 0) + variable.shape.num_elements()
        assert list(counts.values()) == WEIGHTS[name]
        assert f'{sum(WEIGHTS[name]):,} weights.' in (network.inference.__doc__ or '')
        others = tf.global_variables()[len(tf.trainable_variables()) :]
        assert bool(others) == network.normalizes_batches
        assert list(counts)[-1] == 'softmax_linear'


@pytest.mark.parametrize('name', WEIGHTS)
def test_a_network_learns_a_batch_by_heart(name: str) -> None:
    """In a few steps its loss falls, and no layer is left out of the gradients."""
    network = NETWORKS[name]
    with tf.Graph().as_default():
        images, labels = map(tf.constant, batch_for(network, 4))
        options = Options(weight_decay=0.0)
        loss = cifar10.cross_entropy(network.inference(images, options, training=True), labels)
        gradients = cifar10.compute_gradients(loss)
        step = tf.train.AdamOptimizer(0.001).apply_gradients(gradients)
        norms = [tf.norm(gradient) for gradient, _ in gradients]
        with initialized_session() as session:
            first, found = session.run([loss, norms])
            for _ in range(10):
                session.run(step)
            last = session.run(loss)
    assert min(found) > 0
    assert last < 0.9 * first


@pytest.mark.parametrize('name', ['mlp', 'batch_norm_cnn', 'mnist_deep'])
def test_float16_computes_in_float16_with_float32_variables(name: str) -> None:
    network = NETWORKS[name]
    results = []
    for use_fp16 in (False, True):
        with tf.Graph().as_default() as graph:
            images, labels = map(tf.constant, batch_for(network, 2))
            logits = network.inference(images, Options(use_fp16=use_fp16), training=True)
            loss = cifar10.loss(logits, labels)
            gradients = cifar10.compute_gradients(loss, use_fp16)
            assert {g.dtype for g, _ in gradients} == {tf.float32}
            products = [op for op in graph.get_operations() if op.type in ('MatMul', 'Conv2D')]
            wanted = tf.float16 if use_fp16 else tf.float32
            assert {op.outputs[0].dtype for op in products} == {wanted}
            with initialized_session() as session:
                results.append(session.run([loss, *(g for g, _ in gradients)]))
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=0.02)
    for single, half in zip(*results, strict=True):
        assert np.linalg.norm(half - single) < 0.2 * np.linalg.norm(single)


def test_weight_decay_is_that_of_hidden_layers_and_of_convolutions() -> None:
    network = NETWORKS['deep_cnn']
    with tf.Graph().as_default():
        images = tf.constant(batch_for(network, 1)[0])
        network.inference(images, Options(weight_decay=0.5, conv_weight_decay=0.25))
        losses = tf.losses.get_regularization_losses()
        with initialized_session() as session:
            weights = session.run({v.op.name: v for v in tf.trainable_variables()})
            found = dict(zip((loss.op.name for loss in losses), session.run(losses), strict=True))
    rates = {'hidden1': 0.5, **{f'conv{i}': 0.25 for i in (1, 2, 3, 4)}}
    assert found == {
        f'{layer}/weight_loss': pytest.approx(
            rate * (weights[f'{layer}/weights'].astype(np.float64) ** 2).sum() / 2, rel=1e-5
        )
        for layer, rate in rates.items()
    }


def test_first_weights_are_glorot_uniform_by_seed_and_name() -> None:
    def first(seed: int) -> dict[str, np.ndarray]:
        network = NETWORKS['deep_cnn']
        with tf.Graph().as_default():
            network.inference(tf.constant(batch_for(network, 1)[0]), Options(seed=seed))
            with initialized_session() as session:
                return session.run({v.op.name: v for v in tf.trainable_variables()})

    weights, others = first(0), first(1)
    for layer, fans in {'conv2': 9 * 32 + 9 * 32, 'hidden1': 3136 + 512}.items():
        values, limit = weights[f'{layer}/weights'], (6 / fans) ** 0.5
        assert np.abs(values).max() <= limit
        assert values.std() == pytest.approx(limit / 3**0.5, rel=0.02)
        assert not np.array_equal(values, others[f'{layer}/weights'])
        assert not weights[f'{layer}/biases'].any()


@pytest.mark.parametrize(('name', 'inputs'), [('tutorial', [2304, 384]), ('mlp', [3072, 128])])
def test_the_dropout_of_a_recipe_is_of_what_hidden_dense_layers_take_in(
    name: str, inputs: list[int]
) -> None:
    network = NETWORKS[name]

    def drops(options: Options, training: bool) -> list[int]:
        """Numbers of an example's values, for each dropout."""
        with tf.Graph().as_default() as graph:
            network.inference(tf.constant(batch_for(network, 2)[0]), options, training)
            masks = [op.outputs[0] for op in graph.get_operations() if op.type == 'GreaterEqual']
        return [math.prod(mask.shape[1:]) for mask in masks]

    assert drops(Options(dropout=0.3), training=True) == inputs
    assert drops(Options(), training=True) == []
    assert drops(Options(dropout=0.3), training=False) == []


@pytest.mark.parametrize(
    ('name', 'dropout'),
    [('deep_cnn', 0.0), ('batch_norm_cnn', 0.0), ('mnist_cnn', 0.0), ('tutorial', 0.2)],
)
def test_towers_and_parts_drop_what_one_device_does(name: str, dropout: float) -> None:
    """Bit by bit the same masks: without batch normalisation the gradients are then the same."""
    network = NETWORKS[name]

    def masks(num_towers: int, num_parts: int) -> list[np.ndarray]:
        def tower_loss(
            images: tf.Tensor, labels: tf.Tensor, position: Any, tower: int
        ) -> tf.Tensor:
            options = Options(dropout=dropout, summaries=False, num_parts=num_parts)
            return cifar10.cross_entropy(network.inference(images, options, True, position), labels)

        with tf.Graph().as_default() as graph:
            images, labels = map(tf.constant, batch_for(network, 6))
            devices = ['/cpu:0'] * num_towers
            position = tf.constant(7, tf.int64)
            loss, gradients, _ = tower_gradients(tower_loss, images, labels, devices, position)
            found: dict[str, list[tf.Tensor]] = {}
            for op in graph.get_operations():
                if op.type == 'GreaterEqual':
                    found.setdefault(op.name.split('/')[-2], []).append(op.outputs[0])
            joined = [tf.concat(parts, axis=0) for parts in found.values()]
            values = [] if network.normalizes_batches else [loss, *(g for g, _ in gradients)]
            with initialized_session() as session:
                return session.run([*joined, *values])

    one = masks(1, 1)
    assert one[0].dtype == bool
    for num_towers, num_parts in ((3, 1), (1, 3)):
        for expected, found in zip(one, masks(num_towers, num_parts), strict=True):
            if expected.dtype == bool:
                np.testing.assert_array_equal(found, expected)
            else:
                np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_book_has_its_own_constants() -> None:
    """Its normalisation, with TensorFlow's operation, stands after each pooling."""
    images, _ = batch_for(NETWORKS['book'], 3)
    with tf.Graph().as_default():
        logits = NETWORKS['book'].inference(tf.constant(images), Options(seed=4))
        variables = {variable.op.name: variable for variable in tf.trainable_variables()}

        def plain(features: tf.Tensor, number: int) -> tf.Tensor:
            weights, biases = (variables[f'conv{number}/{kind}'] for kind in ('weights', 'biases'))
            convolved = tf.nn.relu(tf.nn.conv2d(features, weights, 1, 'SAME') + biases)
            pooled = tf.nn.max_pool(convolved, 3, 2, 'SAME')
            return tf.nn.lrn(pooled, depth_radius=5, bias=2.0, alpha=1e-3, beta=0.75)

        values = tf.reshape(plain(plain(tf.constant(images), 1), 2), [3, -1])
        for name in ('local3', 'local4', 'softmax_linear'):
            values = values @ variables[f'{name}/weights'] + variables[f'{name}/biases']
            values = values if name == 'softmax_linear' else tf.nn.relu(values)
        with initialized_session() as session:
            found, expected, first = session.run([logits, values, variables])
    # The normalisation is made of other sums.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    for name, value in first.items():
        if name.endswith('biases'):
            assert not value.any()
        else:
            # Truncated at two standard deviations, which leaves 0.88 of one.
            assert value.std() == pytest.approx(0.05 * 0.88, rel=0.05)
