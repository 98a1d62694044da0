"""Shapes and numbers of weights of the networks, batches for them, and sessions to compute in."""

from __future__ import annotations

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10_lib.nn.layers import Network

# Of the tutorial's variables, by name.
TUTORIAL_SHAPES = {
    'conv1/weights': [5, 5, 3, 64],
    'conv1/biases': [64],
    'conv2/weights': [5, 5, 64, 64],
    'conv2/biases': [64],
    'local3/weights': [2304, 384],
    'local3/biases': [384],
    'local4/weights': [384, 192],
    'local4/biases': [192],
    'softmax_linear/weights': [192, 10],
    'softmax_linear/biases': [10],
}

# Of the layers in their order, biases included, without normalisations.
WEIGHTS = {
    'book': [4_864, 102_464, 885_120, 73_920, 1_930],
    'logistic': [30_730],
    'mlp': [393_344, 16_512, 1_290],
    'small_cnn': [896, 18_496, 23_050],
    'dropout_cnn': [896, 4_194_816, 5_130],
    'deep_cnn': [896, 9_248, 18_496, 36_928, 1_606_144, 5_130],
    'batch_norm_cnn': [896, 1_056, 18_496, 4_160, 73_856, 16_512, 524_544, 2_570],
    'airbench': [24, 13_824, 36_864, 147_456, 589_824, 589_824, 589_824, 2_560],
    'mnist_cnn': [280, 605_824, 1_290],
    'mnist_deep': [832, 25_632, 18_496, 36_928, 803_072, 2_570],
}

# Images and labels.
Batch = tuple[np.ndarray, np.ndarray]


def random_batch(size: int, seed: int = 0) -> Batch:
    """Images as the tutorial's input has them, and labels."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal([size, 24, 24, 3]).astype(np.float32)
    return images, rng.integers(0, 10, size).astype(np.int32)


def batch_for(network: Network, size: int) -> Batch:
    """Images as a network sees them, and labels."""
    rng = np.random.default_rng(0)
    side, depth = network.view.size, network.view.depth
    images = rng.random([size, side, side, depth], np.float32)
    return images, rng.integers(0, 10, size).astype(np.int32)


def initialized_session(num_cpu_devices: int = 2) -> tf.Session:
    """A session of the current graph, with its variables initialised."""
    config = tf.ConfigProto(device_count={'CPU': num_cpu_devices}, allow_soft_placement=True)
    session = tf.Session(config=config)
    session.run(tf.global_variables_initializer())
    session.run(tf.local_variables_initializer())
    return session
