"""What is seen inside of networks equals plain computations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10
from cifar10_input import evaluation_crop
from cifar10_lib.base.errors import UserError
from cifar10_lib.evaluation import inside, inside_figures, results
from cifar10_lib.nn.layers import Network
from cifar10_lib.runs.checkpoints import Checkpoint, open_checkpoint

PICTURES = np.random.default_rng(3).integers(0, 256, [3, 32, 32, 3], np.uint8)
CLASSES = np.array([0, 9, 4], np.int32)


def checkpoint_of(network: Network, folder: Path) -> Checkpoint:
    """A checkpoint of random weights, without averages."""
    view = network.view
    with tf.Graph().as_default(), tf.Session() as session:
        shape = [None, view.size, view.size, view.depth]
        network.evaluate(tf.placeholder(tf.float32, shape), 10)
        session.run(tf.global_variables_initializer())
        rng = np.random.default_rng(0)
        for variable in tf.trainable_variables():
            shape = variable.shape.as_list()
            scale = 1.5 * np.prod(shape[:-1]) ** -0.5
            session.run(tf.assign(variable, rng.normal(0.01, scale, shape)))
        path = tf.train.Saver().save(session, str(folder / 'model.ckpt'), global_step=1)
    (folder / 'settings.json').write_text('{"moving_average_decay": 0}')
    return open_checkpoint(path)


def seen(network: Network) -> np.ndarray:
    """The pictures as the network sees them, float32."""
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(evaluation_crop(tf.constant(PICTURES), network.view))


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_the_saliency_of_a_linear_network_is_its_weights(tmp_path: Path) -> None:
    network = cifar10.NETWORKS['logistic']
    checkpoint = checkpoint_of(network, tmp_path)
    inspector = inside.Inspector(checkpoint, network)
    matrix = checkpoint.values['softmax_linear/weights']
    found = inspector.saliency(PICTURES, CLASSES)
    for values, class_ in zip(found, CLASSES, strict=True):
        expected = np.abs(matrix[:, class_].reshape(32, 32, 3)).max(axis=-1)
        np.testing.assert_array_equal(values, expected)
    inputs = seen(network).reshape(3, -1)
    # TensorFlow rounds constants in another way.
    np.testing.assert_allclose(inspector.hidden(PICTURES), inputs, rtol=1e-6)
    logits = inputs @ matrix + checkpoint.values['softmax_linear/biases']
    np.testing.assert_allclose(inspector.probabilities(PICTURES), softmax(logits), rtol=1e-4)
    assert inspector.layer_outputs(PICTURES[0]) == []
    with pytest.raises(UserError, match='Grad-CAM: the network has no convolution'):
        inspector.grad_cam(PICTURES, CLASSES)


def test_maps_and_gradients_are_those_of_plain_operations(tmp_path: Path) -> None:
    """Of `small_cnn`, written out."""
    network = cifar10.NETWORKS['small_cnn']
    checkpoint = checkpoint_of(network, tmp_path)
    inspector = inside.Inspector(checkpoint, network)
    weights, images = checkpoint.values, seen(network)
    for n in range(3):
        with tf.Graph().as_default(), tf.Session() as session:
            image = tf.constant(images[n : n + 1])
            layers = {}
            outputs = image
            for number in (1, 2):
                outputs = tf.nn.conv2d(outputs, weights[f'conv{number}/weights'], 1, 'VALID')
                outputs = tf.nn.relu(outputs + weights[f'conv{number}/biases'])
                layers[f'conv{number}'] = outputs
                outputs = tf.nn.max_pool(outputs, 2, 2, 'VALID')
                layers[f'pool{number}'] = outputs
            hidden = tf.reshape(outputs, [1, -1])
            logits = tf.matmul(hidden, weights['softmax_linear/weights'])
            logits += weights['softmax_linear/biases']
            score = logits[0, CLASSES[n]]
            of_image, of_maps = tf.gradients(score, [image, layers['conv2']])
            plain = session.run([layers, hidden, of_image, of_maps])
        expected, vector, of_image, of_maps = plain
        found = inspector.layer_outputs(PICTURES[n])
        assert [layer.name for layer in found] == ['conv1', 'pool1', 'conv2', 'pool2']
        for layer in found:
            np.testing.assert_allclose(layer.values, expected[layer.name][0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(inspector.hidden(PICTURES)[n], vector[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            inspector.saliency(PICTURES, CLASSES)[n],
            np.abs(of_image[0]).max(axis=-1),
            rtol=1e-3,
            atol=1e-5,
        )
        alphas = of_maps[0].mean(axis=(0, 1))
        maps = np.maximum((expected['conv2'][0] * alphas).sum(axis=-1), 0)
        with tf.Session(graph=tf.Graph()) as session, session.graph.as_default():
            enlarged = tf.image.resize(maps[np.newaxis, ..., np.newaxis], [32, 32])
            maps = session.run(enlarged)[0, ..., 0]
        found_maps = inspector.grad_cam(PICTURES, CLASSES)[n]
        np.testing.assert_allclose(found_maps, maps, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('name', cifar10.NETWORKS)
def test_every_network_can_be_looked_into(name: str, tmp_path: Path) -> None:
    network = cifar10.NETWORKS[name]
    inspector = inside.Inspector(checkpoint_of(network, tmp_path), network)
    side = network.view.size
    outputs = inspector.layer_outputs(PICTURES[0])
    assert all(np.isfinite(layer.values).all() for layer in outputs)
    assert len(outputs) >= {'logistic': 0, 'mlp': 2}.get(name, 3)
    hidden = inspector.hidden(PICTURES)
    matrix = [
        v
        for n, v in open_checkpoint(str(tmp_path / 'model.ckpt-1')).values.items()
        if n == 'softmax_linear/weights'
    ][0]
    assert hidden.shape == (3, len(matrix))
    attention = [inspector.saliency(PICTURES, CLASSES)]
    if name not in ('logistic', 'mlp'):
        attention.append(inspector.grad_cam(PICTURES, CLASSES))
    for values in attention:
        assert values.shape == (3, side, side) and (values >= 0).all()
    # Of random weights, Grad-CAM may have nothing that speaks for a class.
    assert attention[0].any()
    figure = inside_figures.draw_feature_maps(PICTURES[0], outputs, name)
    assert len(figure.axes[0].images) >= 1 + len(outputs)


def test_the_tutorials_first_layer_is_shown_as_it_is_published(tmp_path: Path) -> None:
    """With bias and ReLU, which the network applies behind its pooling."""
    network = cifar10.NETWORKS['tutorial']
    checkpoint = checkpoint_of(network, tmp_path)
    found = inside.Inspector(checkpoint, network).layer_outputs(PICTURES[0])
    assert [layer.name for layer in found] == [
        *('conv1', 'pool1', 'norm1', 'conv2', 'norm2', 'pool2', 'local3', 'local4'),
    ]
    with tf.Graph().as_default(), tf.Session() as session:
        convolved = tf.nn.conv2d(seen(network)[:1], checkpoint.values['conv1/weights'], 1, 'SAME')
        conv1 = session.run(tf.nn.relu(convolved + checkpoint.values['conv1/biases']))[0]
    np.testing.assert_allclose(found[0].values, conv1, rtol=1e-4, atol=1e-4)


def test_a_projection_has_the_principal_components() -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(size=[200, 8]) * [9, 5, 1, 1, 1, 1, 1, 1] + 30).astype(np.float32)
    found = inside.project(values)
    variances, directions = np.linalg.eigh(np.cov(values.T.astype(np.float64)))
    np.testing.assert_allclose(found.shares, variances[:-3:-1] / variances.sum(), rtol=1e-6)
    for number in (0, 1):
        expected = (values - values.mean(axis=0)) @ directions[:, -1 - number]
        points = found.points[:, number]
        sign = np.sign(points @ expected)
        np.testing.assert_allclose(points, sign * expected, rtol=1e-3, atol=1e-3)
    # Values without any difference are no error.
    assert not inside.project(np.ones([4, 3], np.float32)).points.any()


def test_the_reliability_figure_has_accuracy_confidence_and_error() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(10, 0.3), 500).astype(np.float32)
    labels = rng.integers(0, 10, 500).astype(np.int32)
    calibration = results.calibrate(probabilities, labels)
    figure = inside_figures.draw_reliability(calibration, 'title')
    accuracy, gap, *_ = figure.axes[0].containers
    heights = np.array([bar.get_height() for bar in accuracy])
    np.testing.assert_allclose(heights, np.nan_to_num(calibration.accuracy))
    tops = heights + [bar.get_height() for bar in gap]
    np.testing.assert_allclose(tops, np.nan_to_num(calibration.confidence))
    assert [text.get_text() for text in figure.axes[0].texts] == [f'ECE = {calibration.error:.3f}']
    shares = [bar.get_height() for bar in figure.axes[1].containers[0]]
    np.testing.assert_allclose(shares, calibration.counts / 500)


@pytest.mark.parametrize('num_classes', [2, 10, 100])
def test_an_embedding_has_a_point_for_each_image(num_classes: int) -> None:
    labels = np.arange(200, dtype=np.int32) % num_classes
    projection = inside.project(np.random.default_rng(0).normal(size=[200, 5]))
    names = [f'class {label}' for label in range(num_classes)]
    (axes,) = inside_figures.draw_embedding(projection, labels, names, 'title').axes
    for label, line in enumerate(axes.lines):
        np.testing.assert_array_equal(line.get_xydata(), projection.points[labels == label])
    assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == min(
        num_classes, 28
    )
    assert (axes.get_legend() is None) == (num_classes > 28)
