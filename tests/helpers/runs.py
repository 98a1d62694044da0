"""Small training runs and checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf

import cifar10
import cifar10_train
from cifar10_lib.runs.checkpoints import CheckpointFolder
from cifar10_train import OneDeviceTrainSettings


def settings_for(data_dir: Path, train_dir: Path, **kwargs: object) -> OneDeviceTrainSettings:
    values = {
        'data_dir': str(data_dir),
        'train_dir': str(train_dir),
        'dataset': 'synthetic',
        'batch_size': 8,
        'max_steps': 2,
        **kwargs,
    }
    return OneDeviceTrainSettings(**values)  # type: ignore[arg-type]


def train(data_dir: Path, train_dir: Path, **kwargs: object) -> None:
    cifar10_train.train(settings_for(data_dir, train_dir, **kwargs))


def checkpoint_values(path: Path) -> dict[str, np.ndarray]:
    """What a checkpoint holds, or the newest one of a folder."""
    reader = tf.train.load_checkpoint(str(path))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def save(directory: Path, steps: list[int], max_to_keep: int = 0) -> CheckpointFolder:
    """A folder of checkpoints, each of a few values that tell its step."""
    folder = CheckpointFolder(str(directory), max_to_keep)
    with tf.Graph().as_default():
        step = tf.get_variable('global_step', initializer=np.int64(0))
        weights = tf.get_variable('weights', [1000], initializer=tf.zeros_initializer())
        saver = tf.train.Saver(max_to_keep=None)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            for number in steps:
                session.run([tf.assign(step, number), tf.assign(weights, np.full(1000, number))])
                folder.save(saver, session, number)
    return folder


def save_network(
    directory: Path, num_classes: int = 10, averages: bool = True, step: int = 7, **stored: object
) -> str:
    """A checkpoint whose averages tell images apart, and whose weights are zeros.

    `stored` goes into settings.json. Returns the checkpoint's path.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / 'settings.json').write_text(json.dumps(stored))
    with tf.Graph().as_default(), tf.Session() as session:
        cifar10.inference(tf.zeros([1, 24, 24, 3]), cifar10.Options(num_classes))
        rng = np.random.default_rng(0)
        for variable in tf.trainable_variables():
            shape = variable.shape.as_list()
            # Large enough for probabilities far from equal, small enough to stay off 1.
            value = rng.normal(0, 1.4 * np.prod(shape[:-1]) ** -0.5, shape).astype(np.float32)
            name = f'{variable.op.name}/ExponentialMovingAverage'
            if averages:
                tf.get_variable(name, initializer=value, trainable=False)
        session.run(tf.global_variables_initializer())
        if averages:
            session.run([tf.assign(v, tf.zeros_like(v)) for v in tf.trainable_variables()])
        return tf.train.Saver().save(session, str(directory / 'model.ckpt'), global_step=step)
