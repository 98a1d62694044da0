"""Towers: their gradients are those of one device with the complete batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10
from cifar10_lib.nn.summaries import HISTOGRAMS
from cifar10_lib.nn.towers import CPU, TowerGradients, tower_gradients
from tests.helpers.networks import initialized_session

Batch = tuple[np.ndarray, np.ndarray]
Results = tuple[float, dict[str, np.ndarray]]


def random_batch(size: int) -> Batch:
    """Images as the input gives them, and labels."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal([size, 24, 24, 3]).astype(np.float32)
    return images, rng.integers(0, 10, size).astype(np.int32)


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
    assert set(found) == set(gradients)
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


def test_towers_sit_on_their_devices_and_share_variables_on_the_cpu() -> None:
    with tf.Graph().as_default() as graph, tf.device('/cpu:0'):
        build_towers(random_batch(4), 2, home=CPU)
        assert len(tf.global_variables()) == 10
        assert all(v.device.endswith('CPU:0') for v in tf.global_variables())
        convolutions = [op.device for op in graph.get_operations() if op.type == 'Conv2D']
        assert sorted(convolutions) == ['/device:CPU:0'] * 2 + ['/device:CPU:1'] * 2
        tags = [t.op.name for t in tf.get_collection(HISTOGRAMS)]
        assert tags and not any('tower' in tag for tag in tags)
