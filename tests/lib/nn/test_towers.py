"""Towers: their gradients are those of one device with the complete batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10
from cifar10_lib.nn import layers
from cifar10_lib.nn.layers import Options
from cifar10_lib.nn.summaries import HISTOGRAMS
from cifar10_lib.nn.towers import CPU, FIRST, MIRRORED, TowerGradients, tower_gradients
from tests.helpers.networks import Batch, initialized_session, random_batch

Results = tuple[float, dict[str, np.ndarray]]

NAMES = {
    f'{layer}/{kind}'
    for layer in ('conv1', 'conv2', 'local3', 'local4', 'softmax_linear')
    for kind in ('weights', 'biases')
}


def build_towers(batch: Batch, num_towers: int, home: str = 'first') -> TowerGradients:
    """The tutorial's network on virtual CPU devices, in the current graph."""

    def tower_loss(images: tf.Tensor, labels: tf.Tensor, position: Any, tower: int) -> tf.Tensor:
        logits = cifar10.inference(images, cifar10.Options(summaries=tower == 0))
        return cifar10.loss(logits, labels, decay_factor=0 if tower else num_towers)

    images, labels = map(tf.constant, batch)
    devices = [f'/cpu:{i}' for i in range(num_towers)]
    return tower_gradients(tower_loss, images, labels, devices, home=home)


def towers_results(batch: Batch, num_towers: int) -> Results:
    with tf.Graph().as_default(), tf.device('/cpu:0'):
        towers = build_towers(batch, num_towers)
        gradients = {variable.op.name: gradient for gradient, variable in towers.gradients}
        with initialized_session(num_towers) as session:
            return session.run([towers.total_loss, gradients])


def one_device_results(batch: Batch, num_parts: int) -> Results:
    with tf.Graph().as_default():
        images, labels = map(tf.constant, batch)
        options = cifar10.Options(num_parts=num_parts, summaries=False)
        total_loss = cifar10.loss(cifar10.inference(images, options), labels)
        gradients = {v.op.name: g for g, v in cifar10.compute_gradients(total_loss)}
        with initialized_session() as session:
            return session.run([total_loss, gradients])


def test_average_gradients_is_the_mean() -> None:
    with tf.Graph().as_default():
        variable = tf.get_variable('v', [2])
        towers = [[(tf.constant([1.0, 2.0]), variable)], [(tf.constant([3.0, 6.0]), variable)]]
        ((average, of),) = cifar10.average_gradients(towers)
        assert of is variable
        with tf.Session() as session:
            assert session.run(average).tolist() == [2.0, 4.0]


@pytest.mark.parametrize('num_towers', [2, 3, 4])
def test_gradients_of_towers_equal_those_of_one_device(num_towers: int) -> None:
    batch = random_batch(24)
    loss, gradients = one_device_results(batch, num_parts=1)
    tower_loss, found = towers_results(batch, num_towers)
    np.testing.assert_allclose(tower_loss, loss, rtol=1e-6)
    assert set(found) == set(gradients) == NAMES
    for name, gradient in gradients.items():
        # Sums over the batch in another order.
        np.testing.assert_allclose(found[name], gradient, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize('number', [2, 4])
def test_gradients_of_towers_have_the_bits_of_as_many_parts_on_one_device(number: int) -> None:
    """Where the logits of each part, of 8 images, fill complete vectors of the processor.

    Halves and quarters differ from means over a part by a power of two, and the weight decay is
    added first in both: the sums are the same. By the softmax of what fills no vector, and with
    3 parts, they would differ in their last bits.
    """
    batch = random_batch(8 * number)
    _, gradients = one_device_results(batch, num_parts=number)
    _, found = towers_results(batch, number)
    for name, gradient in gradients.items():
        assert found[name].tobytes() == gradient.tobytes(), name


@pytest.mark.parametrize(('number', 'batch_size'), [(3, 24), (2, 6)])
def test_gradients_of_any_towers_are_those_of_as_many_parts_to_rounding(
    number: int, batch_size: int
) -> None:
    """Where bits may differ: by thirds, which are not exact, or by parts that fill no vectors."""
    batch = random_batch(batch_size)
    _, gradients = one_device_results(batch, num_parts=number)
    _, found = towers_results(batch, number)
    for name, gradient in gradients.items():
        # Sums of up to 13,824 terms of either sign, in units of 6e-8 of the largest.
        tolerance = 1e-5 * np.abs(gradient).max()
        np.testing.assert_allclose(found[name], gradient, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize('home', [CPU, FIRST, MIRRORED])
def test_a_step_of_towers_decays_weights_once_and_then_averages_them(home: str) -> None:
    rng = np.random.default_rng(1)
    batch = rng.random([6, 4, 4, 2], np.float32), rng.integers(0, 10, 6).astype(np.int32)
    options = Options(summaries=False)

    def infer(images: tf.Tensor) -> tf.Tensor:
        return layers.logits(layers.dense('hidden', images, 5, options, weight_decay=0.5), options)

    def tower_loss(images: tf.Tensor, labels: tf.Tensor, position: Any, tower: int) -> tf.Tensor:
        return cifar10.loss(infer(images), labels, decay_factor=0 if tower else 3)

    with tf.Graph().as_default(), tf.device('/cpu:0'):
        images, labels = map(tf.constant, batch)
        devices = [f'/cpu:{i}' for i in range(3)]
        total_loss, gradients, copies = tower_gradients(
            tower_loss, images, labels, devices, home=home
        )
        global_step, examples_seen = cifar10.create_counters()
        step = cifar10.apply_gradients(
            gradients, total_loss, global_step, examples_seen, 6, copies=copies
        )
        with tf.variable_scope(tf.get_variable_scope(), reuse=True):
            plain_loss = cifar10.cross_entropy(infer(images), labels)
        plain = {v.op.name: g for g, v in cifar10.compute_gradients(plain_loss)}
        with initialized_session(3) as session:
            for number in range(1, 4):
                before, slopes = session.run([variables_by_name(), plain])
                session.run(step)
                after = session.run(variables_by_name())
                assert after['global_step'] == number and after['examples_seen'] == 6 * number
                decay = (1 + number) / (10 + number)
                for name, slope in slopes.items():
                    weight_decay = 0.5 if name == 'hidden/weights' else 0.0
                    expected = before[name] - 0.1 * (slope + weight_decay * before[name])
                    np.testing.assert_allclose(after[name], expected, atol=1e-6)
                    average = f'{name}/ExponentialMovingAverage'
                    expected = decay * before[average] + (1 - decay) * after[name]
                    np.testing.assert_allclose(after[average], expected, atol=1e-6)


def variables_by_name() -> dict[str, tf.Variable]:
    return {variable.op.name: variable for variable in tf.global_variables()}


def test_towers_sit_on_their_devices_and_share_variables_on_the_cpu() -> None:
    with tf.Graph().as_default() as graph, tf.device('/cpu:0'):
        build_towers(random_batch(4), 2, home=CPU)
        assert {v.op.name for v in tf.global_variables()} == NAMES
        assert all(v.device.endswith('CPU:0') for v in tf.global_variables())
        convolutions = [op.device for op in graph.get_operations() if op.type == 'Conv2D']
        assert sorted(convolutions) == ['/device:CPU:0'] * 2 + ['/device:CPU:1'] * 2
        tags = [t.op.name for t in tf.get_collection(HISTOGRAMS)]
        assert tags and not any('tower' in tag for tag in tags)
