"""The networks: their weights, what they give, and how they learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10
import cifar10_multi_gpu_train
from cifar10 import Network
from cifar10_lib.nn import layers
from cifar10_lib.nn.layers import Model, Pass
from cifar10_lib.nn.networks import MODELS
from cifar10_multi_gpu_train import FIRST, MIRRORED
from tests.helpers.networks import WEIGHTS

Batch = tuple[np.ndarray, np.ndarray]


def batch_for(model: Model, size: int) -> Batch:
    """Images as a model sees them, and labels."""
    rng = np.random.default_rng(0)
    side, depth = model.view.size, model.view.depth
    images = rng.random([size, side, side, depth], np.float32)
    return images, rng.integers(0, 10, size).astype(np.int32)


def initialized_session() -> tf.Session:
    session = tf.Session(config=tf.ConfigProto(device_count={'CPU': 2}))
    session.run(tf.global_variables_initializer())
    session.run(tf.local_variables_initializer())
    return session


def test_every_network_has_its_counts_here() -> None:
    assert set(MODELS) == {'tutorial', *WEIGHTS}
    assert all(name == model.name for name, model in MODELS.items())


@pytest.mark.parametrize('name', WEIGHTS)
def test_weights_of_the_layers(name: str) -> None:
    model = MODELS[name]
    with tf.Graph().as_default():
        shape = [None, model.view.size, model.view.size, model.view.depth]
        logits = model.logits(tf.placeholder(tf.float32, shape), Pass())
        assert logits.shape.as_list() == [None, 10] and logits.dtype == tf.float32
        counts: dict[str, int] = {}
        for variable in tf.trainable_variables():
            layer, kind = variable.op.name.split('/')
            if kind in ('weights', 'biases'):
                counts[layer] = counts.get(layer, 0) + variable.shape.num_elements()
        assert list(counts.values()) == WEIGHTS[name]
        assert f'{sum(WEIGHTS[name]):,} weights.' in (model.function.__doc__ or '')
        others = tf.global_variables()[len(tf.trainable_variables()) :]
        assert bool(others) == (name == 'batch_norm_cnn')
        assert list(counts)[-1] == 'softmax_linear'


@pytest.mark.parametrize('name', WEIGHTS)
def test_a_network_learns_a_batch_by_heart(name: str) -> None:
    """In a few steps its loss falls, and no layer is left out of the gradients."""
    model = MODELS[name]
    with tf.Graph().as_default():
        images, labels = map(tf.constant, batch_for(model, 4))
        loss, gradients = cifar10.tower_gradients(
            images, labels, [None], Network(model=model, weight_decay=0.0)
        )
        step = tf.train.AdamOptimizer(0.001).apply_gradients(gradients)
        norms = [tf.norm(gradient) for gradient, _ in gradients]
        with initialized_session() as session:
            first, found = session.run([loss, norms])
            for _ in range(10):
                session.run(step)
            last = session.run(loss)
    num_layers, num_normalisations = len(WEIGHTS[name]), 3 if model.normalizes_batches else 0
    assert len(found) == 2 * (num_layers + num_normalisations) and min(found) > 0
    assert last < 0.9 * first


@pytest.mark.parametrize('name', ['mlp', 'batch_norm_cnn', 'mnist_deep'])
def test_float16_computes_in_float16_with_float32_variables(name: str) -> None:
    model = MODELS[name]
    results = []
    for use_fp16 in (False, True):
        with tf.Graph().as_default() as graph:
            images, labels = map(tf.constant, batch_for(model, 2))
            network = Network(use_fp16=use_fp16, model=model)
            loss, gradients = cifar10.tower_gradients(images, labels, [None], network)
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
    model = MODELS['deep_cnn']
    with tf.Graph().as_default():
        images = tf.constant(batch_for(model, 1)[0])
        Network(weight_decay=0.5, conv_weight_decay=0.25, model=model).logits(images)
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


# ------------------------------------------------------------------------- weights


def test_first_weights_are_glorot_uniform_by_seed_and_name() -> None:
    def first(seed: int) -> dict[str, np.ndarray]:
        model = MODELS['deep_cnn']
        with tf.Graph().as_default():
            model.logits(tf.constant(batch_for(model, 1)[0]), Pass(seed=seed))
            with initialized_session() as session:
                return session.run({v.op.name: v for v in tf.trainable_variables()})

    weights, others = first(0), first(1)
    for layer, fans in {'conv2': 9 * 32 + 9 * 32, 'hidden1': 3136 + 512}.items():
        values, limit = weights[f'{layer}/weights'], (6 / fans) ** 0.5
        assert np.abs(values).max() <= limit
        assert values.std() == pytest.approx(limit / 3**0.5, rel=0.02)
        assert not np.array_equal(values, others[f'{layer}/weights'])
        assert not weights[f'{layer}/biases'].any()


def test_first_weights_of_layers_of_one_shape_differ() -> None:
    with tf.Graph().as_default(), initialized_session() as session:
        names = ['conv1/weights', 'conv2/weights', 'conv1/weights']
        first, other, again = session.run(
            [layers.glorot_uniform(0, name)([3, 3, 4, 4]) for name in names]
        )
    assert (first != other).all()
    np.testing.assert_array_equal(first, again)


# ------------------------------------------------------------------------- dropout


def dropped(
    position: int, size: int, seed: int = 0, name: str = 'layer', rate: float = 0.25
) -> np.ndarray:
    """What dropout makes of ones [size, 5, 7]."""
    with tf.Graph().as_default(), tf.Session() as session:
        given = Pass(seed=seed, training=True, position=tf.constant(position, tf.int64))
        return session.run(layers.dropout(name, tf.ones([size, 5, 7]), rate, given))


def test_dropout_drops_its_part_and_keeps_the_mean() -> None:
    values = dropped(0, 2000)
    assert set(np.unique(values)) == {np.float32(0), np.float32(1 / 0.75)}
    # 70,000 values: a standard deviation of 0.0016.
    assert (values == 0).mean() == pytest.approx(0.25, abs=0.008)
    of_example = (values == 0).mean(axis=(1, 2))
    assert of_example.std() == pytest.approx((0.25 * 0.75 / 35) ** 0.5, rel=0.1)


def test_dropout_is_a_function_of_seed_name_and_place_in_the_stream() -> None:
    values = dropped(10, 6)
    np.testing.assert_array_equal(dropped(13, 3), values[3:])
    for others in (dropped(16, 6), dropped(10, 6, seed=1), dropped(10, 6, name='other')):
        assert 0.2 < (others != values).mean() < 0.55


def test_evaluation_drops_nothing() -> None:
    with tf.Graph().as_default():
        values = tf.ones([2, 3])
        assert layers.dropout('layer', values, 0.5, Pass()) is values


@pytest.mark.parametrize(('name', 'inputs'), [('tutorial', [2304, 384]), ('mlp', [3072, 128])])
def test_the_dropout_of_a_recipe_is_of_what_hidden_dense_layers_take_in(
    name: str, inputs: list[int]
) -> None:
    model = MODELS[name]

    def drops(network: Network) -> list[int]:
        """How many values of an example each dropout is of."""
        with tf.Graph().as_default() as graph:
            network.logits(tf.constant(batch_for(model, 2)[0]))
            masks = [op.outputs[0] for op in graph.get_operations() if op.type == 'GreaterEqual']
        return [math.prod(mask.shape[1:]) for mask in masks]

    assert drops(Network(dropout=0.3, model=model)) == inputs
    assert drops(Network(model=model)) == []
    assert drops(Network(dropout=0.3, training=False, model=model)) == []


@pytest.mark.parametrize(
    ('name', 'dropout'),
    [('deep_cnn', 0.0), ('batch_norm_cnn', 0.0), ('mnist_cnn', 0.0), ('tutorial', 0.2)],
)
def test_towers_drop_what_one_device_does(name: str, dropout: float) -> None:
    """Bit by bit the same masks: without batch normalisation the gradients are then the same."""
    model = MODELS[name]

    def masks(num_towers: int) -> list[np.ndarray]:
        with tf.Graph().as_default() as graph:
            images, labels = map(tf.constant, batch_for(model, 6))
            devices = [None] * num_towers
            position = tf.constant(7, tf.int64)
            loss, gradients = cifar10.tower_gradients(
                images, labels, devices, Network(dropout=dropout, model=model), position=position
            )
            found: dict[str, list[tf.Tensor]] = {}
            for op in graph.get_operations():
                if op.type == 'GreaterEqual':
                    found.setdefault(op.name.split('/')[1], []).append(op.outputs[0])
            joined = [tf.concat(parts, axis=0) for parts in found.values()]
            values = [] if model.normalizes_batches else [loss, *(g for g, _ in gradients)]
            with initialized_session() as session:
                return session.run([*joined, *values])

    one = masks(1)
    assert one[0].dtype == bool
    for expected, found in zip(one, masks(3), strict=True):
        if expected.dtype == bool:
            np.testing.assert_array_equal(found, expected)
        else:
            np.testing.assert_allclose(found, expected, atol=1e-5)


# -------------------------------------------------------------- batch normalisation


def normalized(
    values: np.ndarray, training: bool, prepare: Callable[[], Any] | None = None
) -> np.ndarray:
    with tf.Graph().as_default():
        result = layers.batch_normalization('norm', tf.constant(values), Pass(training=training))
        with initialized_session() as session:
            if prepare:
                session.run(prepare())
            return session.run(result)


VALUES = np.random.default_rng(3).normal([1.0, -2.0], [2.0, 0.5], [4, 5, 6, 2]).astype(np.float32)


def test_training_normalizes_by_the_batch() -> None:
    mean, variance = VALUES.mean(axis=(0, 1, 2)), VALUES.var(axis=(0, 1, 2))
    expected = (VALUES - mean) / np.sqrt(variance + 0.001)
    np.testing.assert_allclose(normalized(VALUES, training=True), expected, atol=1e-5)


def test_evaluation_normalizes_by_the_moving_statistics() -> None:
    def prepare() -> list[tf.Tensor]:
        values = {'mean': [1.0, 2.0], 'variance': [4.0, 9.0]}
        return [
            v.assign(values[v.op.name.removeprefix('norm/moving_')])
            for v in tf.get_collection(tf.GraphKeys.MODEL_VARIABLES)
        ]

    expected = (VALUES - [1.0, 2.0]) / np.sqrt([4.001, 9.001])
    found = normalized(VALUES, training=False, prepare=prepare)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def steps_of_normalisation(
    num_towers: int, mirrored: bool, poisoned: bool = False
) -> tuple[list[dict[str, np.ndarray]], np.ndarray]:
    """Moving statistics before and after a step, and the batch that it was taken with."""

    def network(images: tf.Tensor, given: Pass) -> tf.Tensor:
        scaled = layers.batch_normalization('norm', images, given)
        return layers.logits(scaled, given)

    images = np.random.default_rng(4).normal(3, 2, [8, 4, 4, 2]).astype(np.float32)
    if poisoned:
        images[5] = np.nan
    with tf.Graph().as_default(), tf.device('/cpu:0'):
        devices = [f'/cpu:{i}' for i in range(num_towers)]
        loss, _, reduced = cifar10_multi_gpu_train.tower_gradients(
            tf.constant(images),
            tf.constant([0, 1, 2, 3] * 2),
            devices,
            MIRRORED if mirrored else FIRST,
            Network(model=Model('norm', network)),
        )
        copies = [pair for of_tower in reduced[1:] for pair in of_tower]
        step = cifar10.apply_gradients(
            reduced[0],
            loss,
            cifar10.create_global_step(),
            cifar10.create_examples_seen(),
            8,
            copies=copies,
        )
        moving = {v.op.name: v for v in tf.get_collection(tf.GraphKeys.MODEL_VARIABLES)}
        assert set(moving) == {'norm/moving_mean', 'norm/moving_variance'}
        assert set(moving.values()) <= set(tf.global_variables())
        assert not any('moving' in v.op.name for v in tf.local_variables())
        with initialized_session() as session:
            states = [session.run(moving)]
            if poisoned:
                with pytest.raises(tf.errors.InvalidArgumentError):
                    session.run(step)
            else:
                session.run(step)
            states.append(session.run(moving))
    return states, images


@pytest.mark.parametrize(('num_towers', 'mirrored'), [(1, False), (2, False), (2, True)])
def test_moving_statistics_follow_the_mean_over_the_towers(num_towers: int, mirrored: bool) -> None:
    (before, after), images = steps_of_normalisation(num_towers, mirrored)
    parts = np.split(images, num_towers)
    expected = {
        'norm/moving_mean': np.mean([part.mean(axis=(0, 1, 2)) for part in parts], axis=0),
        'norm/moving_variance': np.mean(
            [part.var(axis=(0, 1, 2), ddof=1) for part in parts], axis=0
        ),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(after[name], 0.99 * before[name] + 0.01 * value, rtol=1e-5)


def test_a_batch_that_is_not_finite_leaves_the_moving_statistics() -> None:
    (before, after), _ = steps_of_normalisation(2, mirrored=False, poisoned=True)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


def test_workers_share_the_mean_statistics() -> None:
    """What a reduction over processes gives of them is what the step takes."""
    model = MODELS['batch_norm_cnn']

    def twice(loss: tf.Tensor, pairs: Any) -> tuple[tf.Tensor, Any]:
        return loss, [(2.0 * tensor, variable) for tensor, variable in pairs]

    def statistics(reduction: Any) -> dict[str, np.ndarray]:
        with tf.Graph().as_default():
            images, labels = map(tf.constant, batch_for(model, 2))
            network = Network(model=model)
            _, gradients = cifar10.tower_gradients(images, labels, [None], network, reduction)
            assert [v for _, v in gradients] == tf.trainable_variables()
            found = {v.op.name: value for value, v in layers.mean_statistics()}
            with initialized_session() as session:
                return session.run(found)

    of_worker, of_all = statistics(None), statistics(twice)
    assert len(of_worker) == 6
    for name, value in of_worker.items():
        np.testing.assert_allclose(of_all[name], 2 * value, rtol=1e-4, atol=1e-6)


def test_the_book_has_its_own_constants() -> None:
    """Its normalisation, with TensorFlow's operation, stands after each pooling."""
    images, _ = batch_for(MODELS['book'], 3)
    with tf.Graph().as_default():
        logits = MODELS['book'].logits(tf.constant(images), Pass(seed=4))
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
