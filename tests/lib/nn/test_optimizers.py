"""Optimisers, lookahead, clipping and the loss beside plain NumPy; what learns at which rate."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10
from cifar10_lib.nn import layers
from cifar10_lib.nn.layers import Options
from cifar10_lib.nn.optimizers import create_optimizer, orthogonalize, take_step
from cifar10_lib.nn.recipes import OPTIMIZERS, Recipe
from tests.helpers.networks import initialized_session

Arrays = list[np.ndarray]


def random_arrays(count: int, *shape: int) -> Arrays:
    return list(np.random.default_rng(0).standard_normal([count, *shape]).astype(np.float32))


def steps(recipe: Recipe, first: np.ndarray, gradients: Arrays, rate: float = 0.5) -> Arrays:
    """A weight after each step of the given gradients."""
    with tf.Graph().as_default():
        weight = tf.get_variable('weight', initializer=first)
        gradient = tf.placeholder(tf.float32, first.shape)
        step = create_optimizer(recipe, tf.constant(rate)).apply_gradients([(gradient, weight)])
        with initialized_session() as session:
            values = []
            for value in gradients:
                session.run(step, {gradient: value})
                values.append(session.run(weight))
            return values


def test_keras_rmsprop_adds_its_epsilon_to_the_root_and_begins_at_0() -> None:
    first, *gradients = random_arrays(5, 3, 2)
    gradients[1] *= 1e-7
    weight, mean_square, expected = first.astype(np.float64), np.zeros([3, 2]), []
    for gradient in gradients:
        mean_square = 0.9 * mean_square + 0.1 * gradient.astype(np.float64) ** 2
        weight = weight - 0.5 * gradient / (np.sqrt(mean_square) + 1e-8)
        expected.append(weight)
    found = steps(Recipe(optimizer='keras_rmsprop'), first, gradients)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(('rows', 'columns'), [(216, 64), (27, 64), (576, 256)])
def test_orthogonalize_keeps_the_singular_vectors(rows: int, columns: int) -> None:
    """And brings all singular values but the smallest near 1."""
    (matrix,) = random_arrays(1, rows, columns)
    with tf.Graph().as_default(), tf.Session() as session:
        found = session.run(orthogonalize(tf.constant(matrix)))
    left, values, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    core = left.T @ found @ right.T
    polynomial = values / np.linalg.norm(matrix)
    for _ in range(3):
        polynomial = 3.4445 * polynomial - 4.7750 * polynomial**3 + 2.0315 * polynomial**5
    np.testing.assert_allclose(core, np.diag(polynomial), atol=1e-4)
    large = values > 0.1 * np.linalg.norm(matrix)
    assert (np.abs(polynomial[large] - 1) < 0.4).all()


def test_muon_steps_along_an_orthogonal_matrix_from_filters_of_one_norm() -> None:
    first, *gradients = random_arrays(4, 3, 3, 4, 8)
    recipe = Recipe(optimizer='muon', learning_rate=2.0, muon_learning_rate=0.24)

    def plain_step(direction: np.ndarray) -> np.ndarray:
        matrix = direction.reshape(36, 8) / np.linalg.norm(direction)
        for _ in range(3):
            gram = matrix.T @ matrix
            factor = 3.4445 * np.eye(8) - 4.7750 * gram + 2.0315 * gram @ gram
            matrix = matrix @ factor
        return matrix.reshape(direction.shape)

    weight, buffer, expected = first.astype(np.float64), np.zeros(first.shape), []
    for gradient in gradients:
        buffer = 0.6 * buffer + gradient
        weight = weight * np.sqrt(8) / np.linalg.norm(weight)
        # At a quarter of the largest rate.
        weight = weight - 0.06 * plain_step(gradient + 0.6 * buffer)
        expected.append(weight)
    np.testing.assert_allclose(steps(recipe, first, gradients), expected, atol=1e-5)


def test_muon_is_nesterov_momentum_for_all_but_filters() -> None:
    first, *gradients = random_arrays(5, 6, 4)
    recipe = Recipe(optimizer='muon', momentum=0.85)
    expected = steps(dataclasses.replace(recipe, optimizer='nesterov'), first, gradients)
    np.testing.assert_allclose(steps(recipe, first, gradients), expected, rtol=1e-5)


def test_the_whitening_biases_are_trained_for_their_epochs_alone() -> None:
    recipe = Recipe(optimizer='nesterov', whitening_bias_epochs=2.0)
    with tf.Graph().as_default():
        names = ('whiten/biases', 'conv1/biases')
        variables = [tf.get_variable(name, initializer=tf.ones([3])) for name in names]
        epochs = tf.placeholder(tf.float32, [])
        global_step, _ = cifar10.create_counters()
        pairs = [(tf.ones([3]), variable) for variable in variables]
        step = take_step(recipe, pairs, tf.constant(0.1), epochs, global_step)
        with initialized_session() as session:
            states = []
            for epoch in (0.0, 1.9, 2.0, 3.0):
                session.run(step, {epochs: epoch})
                states.append(session.run(variables))
            assert session.run(global_step) == 4
    whitening, others = zip(*states, strict=True)
    assert (whitening[0] != whitening[1]).all() and (others[2] != others[3]).all()
    np.testing.assert_array_equal(whitening[2], whitening[1])
    np.testing.assert_array_equal(whitening[3], whitening[1])


# ----------------------------------------------------------------------- lookahead


def test_lookahead_is_the_formula() -> None:
    """Slow weights and moving statistics, at every second of seven steps and at the last."""
    recipe = Recipe(
        schedule='linear',
        learning_rate=0.5,
        decay_epochs=7.0,
        moving_average_decay=0.0,
        lookahead_steps=2,
        lookahead_decay=0.9,
    )
    gradients = random_arrays(7, 3)
    with tf.Graph().as_default():
        weight = tf.get_variable('weight', initializer=tf.ones([3]))
        moving = tf.get_variable('moving', initializer=tf.zeros([3]), trainable=False)
        tf.add_to_collection(layers.BATCH_STATISTICS, (tf.ones([3]), moving))
        gradient = tf.placeholder(tf.float32, [3])
        global_step, examples_seen = cifar10.create_counters()
        step = cifar10.apply_gradients(
            [(gradient, weight)],
            tf.constant(1.0),
            global_step,
            examples_seen,
            batch_size=10,
            num_examples_per_epoch=10,
            recipe=recipe,
        )
        saved = {variable.op.name for variable in tf.global_variables()}
        assert {'weight/Lookahead', 'moving/Lookahead'} <= saved
        found = []
        with initialized_session() as session:
            for value in gradients:
                session.run(step, {gradient: value})
                found.append(session.run([weight, moving]))
    fast = slow = np.stack([np.ones(3), np.zeros(3)])
    for number, (value, states) in enumerate(zip(gradients, found, strict=True), start=1):
        rate = 0.5 * (1 - (number - 1) / 7)
        fast = np.stack([fast[0] - rate * value, 0.99 * fast[1] + 0.01])
        if number % 2 == 0:
            decay = 0.9**2 * (number / 7) ** 3
            fast = slow = decay * slow + (1 - decay) * fast
        elif number == 7:
            fast = slow
        np.testing.assert_allclose(states, fast, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------- what the loss is made of


def test_scaled_gradients_are_those_of_the_cross_entropy_alone() -> None:
    """The first pattern that matches counts; the weight decay is as it was."""
    recipe = Recipe(gradient_scales='*/biases=64,conv1/*=3', total_weight_decay=0.5)
    assert recipe.gradient_factors() == (('*/biases', 64.0), ('conv1/*', 3.0))

    def gradients(scaled: bool, decay_factor: float) -> dict[str, np.ndarray]:
        options = Options(gradient_factors=recipe.gradient_factors() if scaled else ())
        images = tf.constant(np.random.default_rng(1).random([4, 24, 24, 3], np.float32))
        logits = cifar10.inference(images, dataclasses.replace(options, weight_decay=0.0))
        loss = cifar10.loss(logits, tf.constant([1, 2, 3, 4]), decay_factor, recipe)
        with initialized_session() as session:
            return session.run({v.op.name: g for g, v in cifar10.compute_gradients(loss)})

    results = []
    for scaled, decay_factor in ((False, 0.0), (True, 0.0), (True, 1.0)):
        with tf.Graph().as_default():
            results.append(gradients(scaled, decay_factor))
    with tf.Graph().as_default():
        cifar10.inference(tf.zeros([1, 24, 24, 3]))
        with initialized_session() as session:
            weights = session.run({v.op.name: v for v in tf.trainable_variables()})
    plain, of_cross_entropy, of_all = results
    for name, value in plain.items():
        factor = 64 if name.endswith('biases') else 3 if name.startswith('conv1') else 1
        np.testing.assert_allclose(of_cross_entropy[name], factor * value, rtol=1e-5, atol=1e-9)
        expected = of_cross_entropy[name] + 0.5 * weights[name]
        np.testing.assert_allclose(of_all[name], expected, rtol=1e-5, atol=1e-7)


def test_muon_leaves_the_filters_out_of_the_total_weight_decay() -> None:
    with tf.Graph().as_default():
        tf.get_variable('filters', initializer=tf.ones([3, 3, 2, 4]))
        tf.get_variable('matrix', initializer=tf.ones([5, 4]))
        for optimizer in ('nesterov', 'muon'):
            layers.decay_all(Recipe(optimizer=optimizer, total_weight_decay=0.5))
        with initialized_session() as session:
            found = session.run(tf.losses.get_regularization_losses())
    assert found == [0.25 * (72 + 20), 0.25 * 20]


def test_label_smoothing_shares_a_part_of_each_label() -> None:
    logits = 3 * np.random.default_rng(2).standard_normal([6, 10]).astype(np.float32)
    labels = np.array([0, 9, 3, 3, 5, 1])
    targets = 0.8 * np.eye(10)[labels] + 0.02
    log_probabilities = logits - np.log(np.exp(logits.astype(np.float64)).sum(1, keepdims=True))
    expected = -(targets * log_probabilities).sum(axis=1).mean()
    with tf.Graph().as_default(), tf.Session() as session:
        loss = cifar10.loss(
            tf.constant(logits), tf.constant(labels, tf.int32), recipe=Recipe(label_smoothing=0.2)
        )
        assert session.run(loss) == pytest.approx(expected, rel=1e-6)


# ------------------------------------------------------------------- rates of layers


def plain_steps(optimizer: str, first: np.ndarray, gradients: Arrays, rate: float) -> np.ndarray:
    """The weight after all steps, in float64."""
    weight = first.astype(np.float64)
    mean, square = np.zeros(first.shape), np.zeros(first.shape)
    if optimizer == 'rmsprop':
        square += 1.0
    for number, gradient in enumerate(gradients, start=1):
        if optimizer == 'sgd':
            weight = weight - rate * gradient
        elif optimizer in ('momentum', 'nesterov', 'muon'):
            mean = 0.9 * mean + gradient
            weight = weight - rate * (mean if optimizer == 'momentum' else gradient + 0.9 * mean)
        elif optimizer == 'adam':
            mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
            step = rate * np.sqrt(1 - 0.999**number) / (1 - 0.9**number)
            weight = weight - step * mean / (np.sqrt(square) + 1e-8)
        elif optimizer == 'rmsprop':
            square = 0.9 * square + 0.1 * gradient**2
            weight = weight - rate * gradient / np.sqrt(square + 1e-7)
        else:
            square = 0.9 * square + 0.1 * gradient**2
            weight = weight - rate * gradient / (np.sqrt(square) + 1e-8)
    return weight


@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_the_factor_of_a_layer_scales_its_update(optimizer: str) -> None:
    """With every optimiser; the first pattern counts, and a step is counted once."""
    first, *gradients = random_arrays(5, 3, 2)
    factors = {'conv1': 0.1, 'conv2': 0.5, 'local3': 1.0, 'softmax_linear': 10.0}
    recipe = Recipe(
        optimizer=optimizer,
        layer_learning_rates='conv1=0.1,conv*=0.5,softmax_linear=10,softmax_linear=7',
    )
    with tf.Graph().as_default():
        weights = [tf.get_variable(f'{name}/weights', initializer=first) for name in factors]
        copy = tf.Variable(first, trainable=False, name='copy')
        gradient = tf.placeholder(tf.float32, first.shape)
        global_step, _ = cifar10.create_counters()
        pairs = [(gradient, weight) for weight in weights]
        rate = tf.constant(0.01)
        step = take_step(recipe, pairs, rate, tf.constant(0.0), global_step, [(gradient, copy)])
        with initialized_session() as session:
            for value in gradients:
                session.run(step, {gradient: value})
            found, of_copy, count = session.run([weights, copy, global_step])
    assert count == 4
    for value, factor in zip(found, factors.values(), strict=True):
        expected = plain_steps(optimizer, first, gradients, 0.01 * factor)
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(of_copy, found[0])


def test_the_factor_of_a_layer_scales_the_rate_of_muons_filters() -> None:
    first, *gradients = random_arrays(4, 3, 3, 4, 8)
    recipe = Recipe(optimizer='muon', learning_rate=2.0, layer_learning_rates='conv1=0.5')
    with tf.Graph().as_default():
        weight = tf.get_variable('conv1/weights', initializer=first)
        gradient = tf.placeholder(tf.float32, first.shape)
        global_step, _ = cifar10.create_counters()
        rate, epochs = tf.constant(1.0), tf.constant(0.0)
        step = take_step(recipe, [(gradient, weight)], rate, epochs, global_step)
        with initialized_session() as session:
            for value in gradients:
                session.run(step, {gradient: value})
            found = session.run(weight)
    expected = steps(recipe, first, gradients, rate=0.5)[-1]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------- clipping, class weights


@pytest.mark.parametrize('clip_norm', [0.5, 100.0])
def test_gradients_are_scaled_down_to_their_norm_together(clip_norm: float) -> None:
    """And not up; nor are those of other steps that are not finite."""
    first, *gradients = random_arrays(3, 4, 2)
    recipe = Recipe(clip_norm=clip_norm, moving_average_decay=0.0, learning_rate=0.5)
    with tf.Graph().as_default():
        weights = [tf.get_variable(f'layer{i}/weights', initializer=first) for i in range(2)]
        placeholders = [tf.placeholder(tf.float32, first.shape) for _ in weights]
        counters = cifar10.create_counters()
        pairs = list(zip(placeholders, weights, strict=True))
        step = cifar10.apply_gradients(pairs, tf.constant(1.0), *counters, recipe=recipe)
        with initialized_session() as session:
            session.run(step, dict(zip(placeholders, gradients, strict=True)))
            found = session.run(weights)
            huge = np.full([4, 2], 1e19, np.float32)
            for bad in (huge, np.full([4, 2], np.nan, np.float32)):
                with pytest.raises(tf.errors.InvalidArgumentError, match='not finite'):
                    session.run(step, dict(zip(placeholders, [gradients[0], bad], strict=True)))
            np.testing.assert_array_equal(session.run(weights), found)
    norm = np.sqrt(sum((gradient.astype(np.float64) ** 2).sum() for gradient in gradients))
    scale = min(1.0, clip_norm / norm)
    expected = [first - 0.5 * scale * gradient for gradient in gradients]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize('is_mixed', [False, True])
@pytest.mark.parametrize('smoothing', [0.0, 0.2])
def test_class_weights_weigh_each_example_by_its_class(is_mixed: bool, smoothing: float) -> None:
    """With label smoothing, and of mixed classes by their shares."""
    rng = np.random.default_rng(2)
    logits = 3 * rng.standard_normal([6, 3]).astype(np.float32)
    labels: np.ndarray = np.array([0, 2, 1, 1, 0, 2], np.int32)
    shares = np.eye(3)[labels]
    if is_mixed:
        shares = rng.dirichlet([1, 1, 1], 6)
        labels = shares.astype(np.float32)
    weights = shares @ [2.0, 1.0, 0.25]
    targets = (1 - smoothing) * shares + smoothing / 3
    log_probabilities = logits - np.log(np.exp(logits.astype(np.float64)).sum(1, keepdims=True))
    losses = -(targets * log_probabilities).sum(axis=1)
    probabilities = np.exp(log_probabilities)
    recipe = Recipe(label_smoothing=smoothing, class_weights='2,1,0.25')
    with tf.Graph().as_default(), tf.Session() as session:
        tensor = tf.constant(logits)
        loss = cifar10.loss(tensor, tf.constant(labels), recipe=recipe)
        found, gradient = session.run([loss, tf.gradients(loss, tensor)[0]])
    assert found == pytest.approx((weights * losses).mean(), rel=1e-5)
    expected = weights[:, np.newaxis] * (probabilities - targets) / 6
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
