"""Numbers of weights of the networks, and sessions to compute them in."""

from __future__ import annotations

import tensorflow.compat.v1 as tf

# Of the layers with biases, in their order.
WEIGHTS = {
    'book': [4_864, 102_464, 885_120, 73_920, 1_930],
    'logistic': [30_730],
    'mlp': [393_344, 16_512, 1_290],
    'small_cnn': [896, 18_496, 23_050],
    'dropout_cnn': [896, 4_194_816, 5_130],
    'deep_cnn': [896, 9_248, 18_496, 36_928, 1_606_144, 5_130],
    'batch_norm_cnn': [896, 1_056, 18_496, 4_160, 73_856, 16_512, 524_544, 2_570],
    'mnist_cnn': [280, 605_824, 1_290],
    'mnist_deep': [832, 25_632, 18_496, 36_928, 803_072, 2_570],
}


def initialized_session(num_cpu_devices: int = 2) -> tf.Session:
    """A session of the current graph, with its variables initialised."""
    config = tf.ConfigProto(device_count={'CPU': num_cpu_devices}, allow_soft_placement=True)
    session = tf.Session(config=config)
    session.run(tf.global_variables_initializer())
    session.run(tf.local_variables_initializer())
    return session
