"""The network of the records: whitening, the identity at first, and the layers one by one."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10
from cifar10 import NETWORKS
from cifar10_lib.nn import layers
from cifar10_lib.nn.airbench import whitening_filters
from cifar10_lib.nn.layers import Options, training_options
from cifar10_lib.nn.presets import PRESETS
from cifar10_lib.nn.recipes import Sizes
from tests.helpers.networks import batch_for, initialized_session

NETWORK = NETWORKS['airbench']

# As published, with the 288 filters of the first layer that aren't trained.
PUBLISHED_WEIGHTS = {
    'airbench93': 569_016,
    'airbench94': 1_971_640,
    'airbench95': 4_604_728,
    'airbench96': 9_915_704,
}


@pytest.mark.parametrize(('name', 'expected'), PUBLISHED_WEIGHTS.items())
def test_the_presets_have_the_published_numbers_of_weights(name: str, expected: int) -> None:
    with tf.Graph().as_default():
        network = NETWORK.trained_by(PRESETS[name].recipe)
        network.evaluate(tf.zeros([1, 32, 32, 3]), 10)
        found = sum(v.shape.num_elements() for v in tf.trainable_variables())
    assert found == expected - 288


def test_filters_whiten_patches() -> None:
    """Their outputs are uncorrelated, with variance 1, as NumPy finds them."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal([40, 9, 9, 3]) @ rng.standard_normal([3, 3])
    images = (images + np.roll(images, 1, axis=2)).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        filters = whitening_filters(lambda: tf.constant(images), 3)
        convolved = tf.nn.conv2d(tf.constant(images), filters, 1, 'VALID')
        filters, outputs = session.run([filters, convolved])
    assert filters.shape == (2, 2, 3, 24)
    np.testing.assert_array_equal(filters[..., 12:], -filters[..., :12])
    patches = np.stack(
        [images[:, i : i + 8, j : j + 8] for i in (0, 1) for j in (0, 1)], axis=3
    ).reshape(-1, 12)
    values = np.linalg.eigvalsh(patches.T.astype(np.float64) @ patches / len(patches))[::-1]
    moments = outputs[..., :12].reshape(-1, 12)
    moments = moments.T.astype(np.float64) @ moments / len(moments)
    np.testing.assert_allclose(moments, np.diag(values / (values + 5e-4)), atol=1e-3)


def test_convolutions_begin_as_the_identity_as_far_as_they_have_filters() -> None:
    with tf.Graph().as_default():
        NETWORK.inference(tf.zeros([1, 32, 32, 3]), Options(num_filters=Sizes(text='30,40,40')))
        kernels = {v.op.name: v for v in tf.trainable_variables() if 'conv' in v.op.name}
        with initialized_session() as session:
            kernels = session.run(kernels)
    identity = np.random.default_rng(1).random([2, 5, 5, 24]).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        convolved = tf.nn.conv2d(identity, kernels['conv1/weights'], 1, 'SAME')
        np.testing.assert_array_equal(session.run(convolved)[..., :24], identity)
    random = kernels['conv3/weights'][..., 30:]
    limit = 1 / math.sqrt(9 * 30)
    assert np.abs(random).max() <= limit
    assert random.std() == pytest.approx(limit / 3**0.5, rel=0.05)


@pytest.mark.parametrize('name', ['airbench93', 'airbench96'])
def test_the_network_is_its_layers_one_by_one(name: str) -> None:
    """In evaluation, with statistics and shifts of all kinds."""
    images, _ = batch_for(NETWORK, 2)
    network = NETWORK.trained_by(PRESETS[name].recipe)
    depth = PRESETS[name].recipe.block_depth
    with tf.Graph().as_default():
        logits = network.evaluate(tf.constant(images), 10)
        variables = {variable.op.name: variable for variable in tf.global_variables()}
        rng = np.random.default_rng(2)
        values = {
            key: rng.uniform(0.3, 1.2, variable.shape) / math.sqrt(variable.shape.as_list()[-2])
            if key.endswith('weights')
            else rng.uniform(0.5, 1.0, variable.shape)
            for key, variable in variables.items()
        }

        def normal(features: tf.Tensor, number: int) -> tf.Tensor:
            mean, variance, shift = (
                variables[f'norm{number}/{kind}']
                for kind in ('moving_mean', 'moving_variance', 'shift')
            )
            return (features - mean) / tf.sqrt(variance) + shift

        def gelu(features: tf.Tensor) -> tf.Tensor:
            return 0.5 * features * tf.math.erfc(-features / math.sqrt(2))

        features = tf.nn.conv2d(tf.constant(images), variables['whiten/weights'], 1, 'VALID')
        features = gelu(features + variables['whiten/biases'])
        for block in range(3):
            first: Any = None
            for place in range(depth):
                number = block * depth + place + 1
                features = tf.nn.conv2d(features, variables[f'conv{number}/weights'], 1, 'SAME')
                if place == 0:
                    features = tf.nn.max_pool(features, 2, 2, 'VALID')
                features = normal(features, number) + (first if place == 2 else 0)
                features = gelu(features)
                first = features if place == 0 else first
        largest = tf.reduce_max(features, axis=[1, 2])
        expected = largest @ variables['softmax_linear/weights'] / 9
        with initialized_session() as session:
            session.run([variables[key].assign(value) for key, value in values.items()])
            found, plain = session.run([logits, expected])
    np.testing.assert_allclose(found, plain, rtol=1e-4)


@pytest.mark.parametrize('use_bf16', [False, True])
def test_gelu_and_its_gradient_are_those_of_the_error_function(use_bf16: bool) -> None:
    x = np.linspace(-6, 6, 2001).astype(np.float32)
    below = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in x.astype(float)])
    density = np.exp(-(x.astype(float) ** 2) / 2) / math.sqrt(2 * math.pi)
    with tf.Graph().as_default(), tf.Session() as session:
        values = tf.constant(x)
        result = layers.gelu('gelu', values, Options(use_bf16=use_bf16))
        (gradient,) = tf.gradients(result, values, grad_ys=tf.constant(2 * np.ones_like(x)))
        found = session.run([result, gradient])
    # 1 + erf loses what lies below 1e-7.
    np.testing.assert_allclose(found, [x * below, 2 * (below + x * density)], atol=2e-6)


@pytest.mark.parametrize('use_bf16', [False, True])
def test_eight_steps_of_the_recipe_have_their_golden_losses(use_bf16: bool) -> None:
    """Whitening, shifts at 64 times the rate, lookahead, smoothing, decay and schedule at once.

    Also in the formulations for bfloat16, which compute in float32 unless a session rewrites them.
    """
    recipe = dataclasses.replace(PRESETS['airbench94'].recipe, decay_epochs=4.0)
    coarse = np.random.default_rng(0).random([16, 8, 8, 3])
    pixels = 2 * coarse.repeat(4, axis=1).repeat(4, axis=2).astype(np.float32) - 1
    with tf.Graph().as_default():
        images, labels = tf.constant(pixels), tf.constant(np.arange(16) % 10, tf.int32)
        options = training_options(
            recipe,
            first_images=lambda: images,
            num_filters=Sizes(text='30,40,48'),
            use_bf16=use_bf16,
            summaries=False,
        )
        global_step, examples_seen = cifar10.create_counters()
        logits = NETWORK.inference(images, options, training=True)
        loss = cifar10.loss(logits, labels, recipe=recipe)
        step = cifar10.train(loss, global_step, examples_seen, 16, 64, recipe)
        with initialized_session() as session:
            losses = [session.run([loss, step])[0] for _ in range(8)]
    golden = [2.452771, 2.276469, 2.067852, 1.820913, 1.541685, 1.335098, 1.254375, 1.282010]
    # Sums in another order move the last by 1e-6.
    np.testing.assert_allclose(losses, golden, rtol=1e-4)
