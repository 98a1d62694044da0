"""The table of layers, from graphs."""

from __future__ import annotations

import tensorflow.compat.v1 as tf

import cifar10
from cifar10_lib.evaluation import layer_table
from cifar10_lib.evaluation.layer_table import Layer
from tests.helpers.scripts import Script


def test_the_tutorials_network() -> None:
    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, [None, 24, 24, 3], name='images')
        # With summaries, whose operations lie on no path to the logits.
        rows = layer_table.layers(images, cifar10.inference(images))
    assert rows == [
        Layer('images', (24, 24, 3), 0),
        Layer('conv1', (24, 24, 64), 4_864),
        Layer('pool1', (12, 12, 64), 0),
        Layer('norm1', (12, 12, 64), 0),
        Layer('conv2', (12, 12, 64), 102_464),
        Layer('norm2', (12, 12, 64), 0),
        Layer('pool2', (6, 6, 64), 0),
        Layer('local3', (384,), 885_120),
        Layer('local4', (192,), 73_920),
        Layer('softmax_linear', (10,), 1_930),
    ]


def weights_times(tensor: tf.Tensor, scope: str, size: int) -> tf.Tensor:
    with tf.variable_scope(scope):
        weights = tf.get_variable('weights', [tensor.shape.as_list()[-1], size])
        return tf.matmul(tensor, weights)


def test_any_other_network() -> None:
    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, [8, None, 5, 1], name='input')
        flat = tf.reshape(tf.reduce_mean(images, axis=1), [8, 5], name='flat')
        left = weights_times(flat, 'left', 2)
        right = weights_times(flat, 'right', 2)
        logits = tf.add(left, right, name='sum')
        with tf.variable_scope('aside'):
            tf.get_variable('weights', [7])
            tf.get_variable('counter', [100], trainable=False)
        tf.nn.relu(logits, name='not_asked_for')
        rows = layer_table.layers(images, logits)
    assert rows == [
        Layer('input', (None, 5, 1), 0),
        Layer('Mean', (5, 1), 0),
        Layer('flat', (5,), 0),
        Layer('left', (2,), 10),
        Layer('right', (2,), 10),
        Layer('sum', (2,), 0),
        Layer('aside', None, 7),
    ]
    lines = layer_table.table(rows).splitlines()
    assert lines[2].split() == ['input', '?', 'x', '5', 'x', '1', '0', '0.0%']
    assert lines[5].split() == ['left', '2', '10', '37.0%']
    assert lines[8].split() == ['aside', '-', '7', '25.9%']
    assert lines[-1].split() == ['Total', '27', '100.0%']
    assert len({len(line) for line in lines}) == 1


def test_the_script_prints_the_table(run_script: Script) -> None:
    result = run_script('cifar10_plot.py', '--plot=layers')
    assert result.returncode == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ['Layer', 'Output', 'shape', 'Weights', 'Share']
    assert ['local3', '384', '885,120', '82.9%'] in lines
    assert ['softmax_linear', '10', '1,930', '0.2%'] in lines
    assert lines[-1] == ['Total', '1,068,298', '100.0%']
