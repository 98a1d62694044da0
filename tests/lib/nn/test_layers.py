"""Layers: their initial weights, dropout, batch normalisation, and parts of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10
from cifar10_lib.nn import layers
from cifar10_lib.nn.layers import Options
from cifar10_lib.nn.summaries import HISTOGRAMS
from cifar10_lib.nn.towers import FIRST, MIRRORED, tower_gradients
from cifar10_lib.training.cluster import Cluster, ClusterWorker
from tests.helpers.networks import batch_for, initialized_session, random_batch


def test_first_weights_of_layers_of_one_shape_differ() -> None:
    def first(name: str) -> np.ndarray:
        with tf.Graph().as_default(), tf.variable_scope(name):
            values = layers.weights([3, 3, 4, 4], None, Options())
            with initialized_session() as session:
                return session.run(values)

    first_values, other, again = first('conv1'), first('conv2'), first('conv1')
    assert (first_values != other).all()
    np.testing.assert_array_equal(first_values, again)


# ------------------------------------------------------------------------- dropout


def dropped(
    position: int, size: int, seed: int = 0, name: str = 'layer', rate: float = 0.25
) -> np.ndarray:
    """Dropout of ones [size, 5, 7]."""
    with tf.Graph().as_default(), tf.Session() as session:
        first = tf.constant(position, tf.int64)
        return session.run(
            layers.dropout(name, tf.ones([size, 5, 7]), rate, Options(seed=seed), True, first)
        )


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
        assert layers.dropout('layer', values, 0.5, Options(), training=False, position=0) is values


# -------------------------------------------------------------- batch normalisation


def normalized(
    values: np.ndarray, training: bool, prepare: Callable[[], Any] | None = None
) -> np.ndarray:
    with tf.Graph().as_default():
        result = layers.batch_normalization('norm', tf.constant(values), training, Options())
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

    def tower_loss(images: tf.Tensor, labels: tf.Tensor, position: Any, tower: int) -> tf.Tensor:
        scaled = layers.batch_normalization('norm', images, True, Options())
        return cifar10.cross_entropy(layers.logits(scaled, Options(summaries=False)), labels)

    images = np.random.default_rng(4).normal(3, 2, [8, 4, 4, 2]).astype(np.float32)
    if poisoned:
        images[5] = np.nan
    with tf.Graph().as_default(), tf.device('/cpu:0'):
        devices = [f'/cpu:{i}' for i in range(num_towers)]
        towers = tower_gradients(
            tower_loss,
            tf.constant(images),
            tf.constant([0, 1, 2, 3] * 2),
            devices,
            home=MIRRORED if mirrored else FIRST,
        )
        global_step, examples_seen = cifar10.create_counters()
        step = cifar10.apply_gradients(
            towers.gradients,
            towers.total_loss,
            global_step,
            examples_seen,
            batch_size=8,
            copies=towers.copies,
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
    """The step uses what a reduction over processes returns for them."""

    class Worker(ClusterWorker):
        """One of two, whose values the other has threefold: the mean is twice its own."""

        def sum_over_workers(self, values: tf.Tensor, key: int) -> tf.Tensor:
            return 4.0 * values

    def statistics(over_workers: bool) -> dict[str, np.ndarray]:
        network = cifar10.NETWORKS['batch_norm_cnn']
        with tf.Graph().as_default():
            images, labels = map(tf.constant, batch_for(network, 2))
            loss = cifar10.loss(network.inference(images, training=True), labels)
            gradients = cifar10.compute_gradients(loss)
            tensors = {}
            if over_workers:
                worker = Worker(Cluster(('a:1', 'b:1'), 0), tf.ConfigProto(), wait_secs=1)
                _, gradients = worker.mean_over_workers(loss, gradients)
                signals = tf.get_default_graph().get_tensor_by_name('signals:0')
                tensors[signals] = np.zeros(2)
            assert [v for _, v in gradients] == tf.trainable_variables()
            found = {v.op.name: value for value, v in layers.mean_statistics()}
            with initialized_session() as session:
                return session.run(found, tensors)

    of_worker, of_all = statistics(over_workers=False), statistics(over_workers=True)
    assert len(of_worker) == 6
    for name, value in of_worker.items():
        np.testing.assert_allclose(of_all[name], 2 * value, rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------ parts of a batch


@pytest.mark.parametrize('num_parts', [2, 3, 4])
def test_the_logits_of_parts_are_those_of_the_batch(num_parts: int) -> None:
    images, _ = random_batch(12)
    with tf.Graph().as_default():
        scopes = [tf.variable_scope(tf.get_variable_scope(), reuse=i > 0) for i in range(2)]
        results = []
        for scope, parts in zip(scopes, (1, num_parts), strict=True):
            with scope:
                options = Options(num_parts=parts, summaries=False)
                results.append(cifar10.inference(tf.constant(images), options))
        with initialized_session() as session:
            expected, found = session.run(results)
    assert found.shape == (12, 10)
    # A matrix product of fewer rows may be added up in another order.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_parts_share_variables_weight_decay_and_summaries() -> None:
    found = []
    for num_parts in (1, 2):
        with tf.Graph().as_default():
            cifar10.inference(tf.zeros([4, 24, 24, 3]), Options(num_parts=num_parts))
            names = [variable.op.name for variable in tf.global_variables()]
            collections = tf.GraphKeys.SUMMARIES, HISTOGRAMS, tf.GraphKeys.REGULARIZATION_LOSSES
            found.append((names, *(len(tf.get_collection(name)) for name in collections)))
    assert found[0] == found[1] and found[0][1:] == (5, 5, 2)


# ---------------------------------------------------------------------- convolutions


@pytest.mark.parametrize(('side', 'size'), [(9, 3), (7, 3), (3, 3), (3, 5)])
def test_convolve_and_its_gradients_are_those_of_the_plain_operation(side: int, size: int) -> None:
    """Of small images, by matrix products, and of larger ones; in another order of sums."""
    rng = np.random.default_rng(side)
    images, kernel, upstream = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in ([6, side, side, 4], [size, size, 4, 8], [6, side, side, 8])
    )
    with tf.Graph().as_default() as graph, tf.Session() as session:
        inputs = [tf.constant(images), tf.constant(kernel)]
        convolved = layers.convolve(inputs[0], inputs[1], Options(use_bf16=True))
        results = []
        for result in (convolved, tf.nn.conv2d(inputs[0], inputs[1], 1, 'SAME')):
            results.append([result, *tf.gradients(result, inputs, grad_ys=tf.constant(upstream))])
        products = [op for op in graph.get_operations() if op.type == 'MatMul']
        assert len(products) == (size * size if side <= 7 else 0)
        found, expected = session.run(results)
    for value, plain in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, plain, rtol=1e-4, atol=1e-4)
