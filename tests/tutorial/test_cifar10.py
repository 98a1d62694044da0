"""A batch becomes logits, a loss and an update."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10
from cifar10_input import TEST_FILES, TRAIN_FILES
from cifar10_lib.base.errors import UserError
from cifar10_lib.nn.schedules import learning_rate
from cifar10_lib.nn.summaries import HISTOGRAMS
from tests.helpers.networks import TUTORIAL_SHAPES, Batch, random_batch


def initial_weights(seed: int) -> dict[str, np.ndarray]:
    with tf.Graph().as_default():
        cifar10.inference(tf.constant(random_batch(1)[0]), cifar10.Options(seed=seed))
        weights = {variable.op.name: variable for variable in tf.trainable_variables()}
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            return session.run(weights)


# ------------------------------------------------------------------------- network


def test_names_shapes_and_number_of_parameters() -> None:
    with tf.Graph().as_default():
        cifar10.inference(tf.placeholder(tf.float32, [None, 24, 24, 3]))
        variables = tf.trainable_variables()
        assert {v.op.name: v.shape.as_list() for v in variables} == TUTORIAL_SHAPES
        assert sum(v.shape.num_elements() for v in variables) == 1_068_298
        assert all(v.dtype.base_dtype == tf.float32 for v in variables)


def test_initial_weights_follow_the_recipe() -> None:
    weights = initial_weights(seed=0)
    # A normal distribution cut at two standard deviations has 0.8796 of its own.
    for name, stddev in {
        'conv1/weights': 0.05,
        'conv2/weights': 0.05,
        'local3/weights': 0.04,
        'local4/weights': 0.04,
        'softmax_linear/weights': 1 / 192,
    }.items():
        assert np.abs(weights[name]).max() <= 2 * stddev
        np.testing.assert_allclose(weights[name].std(), 0.8796 * stddev, rtol=0.05)
    biases = {name: set(value) for name, value in weights.items() if name.endswith('biases')}
    tenth = {np.float32(0.1)}
    assert biases == {
        'conv1/biases': {0.0},
        'conv2/biases': tenth,
        'local3/biases': tenth,
        'local4/biases': tenth,
        'softmax_linear/biases': {0.0},
    }


def test_initial_weights_depend_on_the_seed_alone() -> None:
    first, again, other = initial_weights(1), initial_weights(1), initial_weights(2)
    for name in TUTORIAL_SHAPES:
        np.testing.assert_array_equal(first[name], again[name])
        if name.endswith('weights'):
            assert not np.array_equal(first[name], other[name])


@pytest.mark.parametrize('batch_size', [1, 3])
def test_the_batch_dimension_is_free(batch_size: int) -> None:
    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, [None, 24, 24, 3])
        logits = cifar10.inference(images)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            result = session.run(logits, {images: random_batch(batch_size)[0]})
    assert result.shape == (batch_size, 10) and result.dtype == np.float32


def test_network_equals_the_recipe_written_out_in_numpy_and_plain_ops() -> None:
    """Against an independent formulation, normalisation and dense layers in NumPy."""
    images, _ = random_batch(4)
    weights = initial_weights(seed=0)

    def normalize(x: np.ndarray) -> np.ndarray:
        padded = np.pad(x**2, [(0, 0)] * 3 + [(4, 4)])
        sums = sum(padded[..., i : i + x.shape[-1]] for i in range(9))
        return x / (1.0 + 0.001 / 9.0 * sums) ** 0.75

    def convolve(x: np.ndarray, name: str) -> np.ndarray:
        padded = np.pad(x, [(0, 0), (2, 2), (2, 2), (0, 0)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(1, 2))
        convolved = np.einsum('nyxcij,ijco->nyxo', windows, weights[f'{name}/weights'])
        return np.maximum(convolved + weights[f'{name}/biases'], 0)

    def pool(x: np.ndarray) -> np.ndarray:
        padded = np.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)], constant_values=-np.inf)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        return windows[:, ::2, ::2].max(axis=(-1, -2))

    x = normalize(pool(convolve(images.astype(np.float64), 'conv1')))
    x = pool(normalize(convolve(x, 'conv2'))).reshape(4, -1)
    x = np.maximum(x @ weights['local3/weights'] + weights['local3/biases'], 0)
    x = np.maximum(x @ weights['local4/weights'] + weights['local4/biases'], 0)
    expected = x @ weights['softmax_linear/weights'] + weights['softmax_linear/biases']

    with tf.Graph().as_default():
        logits = cifar10.inference(tf.constant(images))
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            found = session.run(logits)
    # float32 sums of up to 2,304 products against float64 ones.
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_loss_is_cross_entropy_plus_decay_of_the_two_hidden_dense_layers() -> None:
    images, labels = random_batch(16)
    with tf.Graph().as_default():
        logits = cifar10.inference(tf.constant(images))
        total_loss = cifar10.loss(logits, tf.constant(labels))
        weights = {v.op.name: v for v in tf.trainable_variables()}
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            found, values, scores = session.run([total_loss, weights, logits])
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    cross_entropy = -np.log(probabilities[np.arange(16), labels]).mean()
    decayed = [values['local3/weights'], values['local4/weights']]
    decay = sum(0.004 * (w.astype(np.float64) ** 2).sum() / 2 for w in decayed)
    np.testing.assert_allclose(found, cross_entropy + decay, rtol=1e-5)


# -------------------------------------------------------------------------- update


def test_learning_rate_is_a_staircase_over_examples() -> None:
    edge = 350 * 50_000
    with tf.Graph().as_default():
        examples = tf.placeholder(tf.int64, [])
        rate = learning_rate(examples)
        with tf.Session() as session:
            rates = [
                session.run(rate, {examples: e})
                for e in (0, edge - 1, edge, 2 * edge - 1, 2 * edge)
            ]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.01, 0.001], rtol=1e-5)


def take_steps(batches: list[Batch]) -> list[dict[str, np.ndarray]]:
    """All variables before the first step and after each step of `train`."""
    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, [None, 24, 24, 3])
        labels = tf.placeholder(tf.int32, [None])
        total_loss = cifar10.loss(cifar10.inference(images), labels)
        train_op = cifar10.train(total_loss, tf.train.get_or_create_global_step(), batch_size=8)
        variables = {v.op.name: v for v in tf.global_variables()}
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            states = [session.run(variables)]
            for batch in batches:
                session.run(train_op, dict(zip((images, labels), batch, strict=True)))
                states.append(session.run(variables))
    return states


def test_names_of_all_variables() -> None:
    (state,) = take_steps([])
    averages = {f'{name}/ExponentialMovingAverage' for name in TUTORIAL_SHAPES}
    losses = {'losses/avg', 'losses/avg/biased', 'losses/avg/local_step'}
    assert set(state) == {*TUTORIAL_SHAPES, *averages, *losses, 'global_step', 'examples_seen'}


def test_a_step_counts_one_update_and_its_examples() -> None:
    states = take_steps([random_batch(8, seed) for seed in range(3)])
    assert [state['global_step'] for state in states] == [0, 1, 2, 3]
    assert [state['examples_seen'] for state in states] == [0, 8, 16, 24]


def test_averages_are_updated_after_the_weights_with_the_ramp() -> None:
    states = take_steps([random_batch(8, seed) for seed in range(4)])
    for step in range(1, 5):
        decay = min(0.9999, (1 + step) / (10 + step))
        before, after = states[step - 1], states[step]
        for name in TUTORIAL_SHAPES:
            average = f'{name}/ExponentialMovingAverage'
            expected = decay * before[average] + (1 - decay) * after[name]
            np.testing.assert_allclose(after[average], expected, atol=1e-6)
            assert not np.array_equal(before[name], after[name])


def test_a_step_is_plain_gradient_descent() -> None:
    images, labels = random_batch(8)
    before, after = take_steps([(images, labels)])
    with tf.Graph().as_default():
        total_loss = cifar10.loss(cifar10.inference(tf.constant(images)), tf.constant(labels))
        variables = tf.trainable_variables()
        gradients = tf.gradients(total_loss, variables)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            found = session.run(gradients)
    for variable, gradient in zip(variables, found, strict=True):
        name = variable.op.name
        # The learning rate of 0.1, on gradients that agree to float32 rounding.
        np.testing.assert_allclose(after[name], before[name] - 0.1 * gradient, atol=1e-6)


def first_summaries(collection: str) -> dict[str, float]:
    """A collection's summaries of the first step: simple values by tag."""
    images, labels = random_batch(2)
    with tf.Graph().as_default():
        total_loss = cifar10.loss(cifar10.inference(tf.constant(images)), tf.constant(labels))
        train_op = cifar10.train(total_loss, tf.train.get_or_create_global_step())
        merged = tf.summary.merge_all(collection)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            summary = tf.Summary.FromString(session.run([train_op, merged])[1])
    return {value.tag: value.simple_value for value in summary.value}


LOSSES = ('total', 'cross_entropy', 'weight_decay_local3', 'weight_decay_local4')


def test_scalar_summaries() -> None:
    layers = ['conv1', 'conv2', 'local3', 'local4', 'softmax_linear']
    assert set(first_summaries(tf.GraphKeys.SUMMARIES)) == {
        'train/learning_rate',
        *(f'{kind}/{loss}' for loss in LOSSES for kind in ('loss', 'loss_average')),
        *(f'sparsity/{layer}' for layer in layers),
    }


def test_the_averaged_losses_begin_with_the_first_loss() -> None:
    summaries = first_summaries(tf.GraphKeys.SUMMARIES)
    for loss in LOSSES:
        assert summaries[f'loss/{loss}'] > 0.1
        np.testing.assert_allclose(
            summaries[f'loss_average/{loss}'], summaries[f'loss/{loss}'], rtol=1e-5
        )


def test_histogram_summaries() -> None:
    layers = ['conv1', 'conv2', 'local3', 'local4', 'softmax_linear']
    assert set(first_summaries(HISTOGRAMS)) == {
        *(f'{layer}/activations' for layer in layers),
        *(f'{name}/{kind}' for name in TUTORIAL_SHAPES for kind in ('values', 'gradients')),
    }


# -------------------------------------------------------------------------- float16


def loss_and_gradients(use_fp16: bool, batch: Batch) -> tuple[float, dict[str, np.ndarray]]:
    images, labels = map(tf.constant, batch)
    total_loss = cifar10.loss(cifar10.inference(images, cifar10.Options(use_fp16=use_fp16)), labels)
    pairs = cifar10.compute_gradients(total_loss, use_fp16)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        return session.run([total_loss, {v.op.name: g for g, v in pairs}])


def test_float16_computes_in_float16_with_float32_variables() -> None:
    with tf.Graph().as_default() as graph:
        loss_and_gradients(True, random_batch(2))
        kinds = {op.type: op for op in graph.get_operations()}
        for kind in ('Conv2D', 'MatMul', 'MaxPool', 'LRN', 'BiasAdd'):
            assert kinds[kind].outputs[0].dtype == tf.float16
        assert all(v.dtype.base_dtype == tf.float32 for v in tf.global_variables())


def test_float16_gradients_come_close_to_those_of_float32() -> None:
    batch = random_batch(8)
    with tf.Graph().as_default():
        loss16, gradients16 = loss_and_gradients(True, batch)
    with tf.Graph().as_default():
        loss32, gradients32 = loss_and_gradients(False, batch)
    np.testing.assert_allclose(loss16, loss32, rtol=1e-3)
    for name, gradient in gradients32.items():
        assert gradients16[name].dtype == np.float32
        # Eleven bits of mantissa; and where two values nearly tie, the other of them
        # may win a pool, and its gradient then takes another way.
        difference = np.linalg.norm(gradients16[name] - gradient) / np.linalg.norm(gradient)
        assert difference < 0.1, name


# ---------------------------------------------------------------------- the facade


def test_inputs_are_endless_and_take_what_the_tutorial_took(records: Path) -> None:
    found = {}
    for eval_data in (True, 'test', False, 'train_eval'):
        with tf.Graph().as_default(), tf.Session() as session:
            images, labels = cifar10.inputs(eval_data, str(records), batch_size=16)
            # Of one size, which the graph knows.
            assert images.shape == (16, 24, 24, 3) and labels.shape == (16,)
            batches = [session.run([images, labels]) for _ in range(5)]
        assert {batch[0].shape for batch in batches} == {(16, 24, 24, 3)}
        found[eval_data] = np.concatenate([batch[1] for batch in batches])
    assert found[True].tolist() == found['test'].tolist()
    assert found[False].tolist() == found['train_eval'].tolist()
    # 25 test images, and 60 for training: the next is the first again.
    for eval_data, files in (('test', TEST_FILES), ('train_eval', TRAIN_FILES)):
        stored = [np.fromfile(records / name, np.uint8).reshape(-1, 3073)[:, 0] for name in files]
        expected = np.resize(np.concatenate(stored), 80)
        np.testing.assert_array_equal(found[eval_data], expected)


def test_data_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='found no data_batch_1.bin'), tf.Graph().as_default():
        cifar10.distorted_inputs(str(tmp_path))


def test_the_terms_of_the_loss_are_collected_in_their_name_scope() -> None:
    images, labels = random_batch(4)
    with tf.Graph().as_default():
        logits = cifar10.inference(tf.constant(images))
        with tf.name_scope('tower_1'):
            total_loss = cifar10.loss(logits, tf.constant(labels))
        with tf.name_scope('tower_2'):
            without_decay = cifar10.loss(logits, tf.constant(labels), decay_factor=0)
        terms = tf.get_collection('losses', 'tower_1/')
        assert len(terms) == 3 and len(tf.get_collection('losses')) == 4
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            total, values, cross_entropy = session.run([total_loss, terms, without_decay])
    assert total == pytest.approx(sum(values), rel=1e-6)
    assert cross_entropy == pytest.approx(values[0], rel=1e-6) and total > cross_entropy
