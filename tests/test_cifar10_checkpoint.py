"""What a checkpoint holds, and how it becomes the graph's values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10
import cifar10_checkpoint
from cifar10_checkpoint import CheckpointFolder, Start
from cifar10_settings import UserError

# Arrays and NumPy scalars.
Values = dict[str, Any]


def build_graph(num_classes: int = 10) -> dict[str, tf.Variable]:
    """A training graph; its variables by name."""
    images = tf.placeholder(tf.float32, [None, 24, 24, 3])
    labels = tf.placeholder(tf.int32, [None])
    total_loss = cifar10.loss(cifar10.inference(images, num_classes), labels)
    cifar10.train(total_loss, cifar10.create_global_step())
    return {v.op.name: v for v in tf.global_variables()}


def write_checkpoint(
    directory: Path,
    values: Values,
    step: int = 1000,
    version: int = tf.train.SaverDef.V2,
) -> str:
    """A checkpoint of `values`, as a program that knows nothing of this one writes it."""
    with tf.Graph().as_default():
        for name, value in values.items():
            tf.get_variable(name, initializer=value, use_resource=False)
        saver = tf.train.Saver(write_version=version)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            return saver.save(session, str(directory / 'model.ckpt'), global_step=step)


def tutorial_values(averages: bool = True) -> Values:
    """Random values under the tutorial's names, loss averages included."""
    rng = np.random.default_rng(0)
    with tf.Graph().as_default():
        build_graph()
        shapes = {v.op.name: v.shape.as_list() for v in tf.trainable_variables()}
    values = {}
    for name, shape in shapes.items():
        values[name] = rng.standard_normal(shape).astype(np.float32)
        if averages:
            average = rng.standard_normal(shape).astype(np.float32)
            values[f'{name}/ExponentialMovingAverage'] = average
    return {**values, 'cross_entropy/avg': np.float32(2), 'total_loss/avg': np.float32(3)}


def restored(checkpoint: str, **kwargs: int) -> Values:
    """Values of a training graph's variables that begins from `checkpoint`."""
    with tf.Graph().as_default():
        variables = build_graph(**kwargs)
        cifar10_checkpoint.initialize_from(checkpoint)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            return session.run(variables)


def find_start(directory: Path) -> Start:
    return cifar10_checkpoint.find_start(CheckpointFolder(str(directory)))


def test_no_checkpoint_starts_at_zero(tmp_path: Path) -> None:
    assert find_start(tmp_path) == Start(None, 0, 0)
    assert find_start(tmp_path / 'missing') == Start(None, 0, 0)


def test_counters_are_read(tmp_path: Path) -> None:
    counters = {'global_step': np.int64(70), 'examples_seen': np.int64(7000)}
    checkpoint = write_checkpoint(tmp_path, counters, step=70)
    assert find_start(tmp_path) == Start(checkpoint, 70, 7000)


@pytest.mark.parametrize('version', [tf.train.SaverDef.V1, tf.train.SaverDef.V2])
@pytest.mark.parametrize(
    'counter',
    [
        {'global_step': np.int64(1000)},
        {'global_step': np.float32(1000)},
        {'Variable': np.int32(1000)},
    ],
    ids=['2017', 'multi-gpu', '2015'],
)
def test_the_tutorials_checkpoints_open_unchanged(
    tmp_path: Path, counter: Values, version: int
) -> None:
    values = tutorial_values()
    checkpoint = write_checkpoint(tmp_path, {**values, **counter}, version=version)

    assert find_start(tmp_path) == Start(checkpoint, 1000, 128_000)
    assert cifar10_checkpoint.holds_averages(checkpoint)
    state = restored(checkpoint)
    for name, value in values.items():
        if name in state:
            np.testing.assert_array_equal(state[name], value)
    assert sum(name in state for name in values) == 20


def test_missing_averages_start_from_the_weights(tmp_path: Path) -> None:
    values = tutorial_values(averages=False)
    checkpoint = write_checkpoint(tmp_path, values)
    assert not cifar10_checkpoint.holds_averages(checkpoint)
    state = restored(checkpoint)
    for name in weight_names(values):
        np.testing.assert_array_equal(state[f'{name}/ExponentialMovingAverage'], values[name])


def weight_names(values: Values) -> list[str]:
    return [name for name in values if name.endswith(('/weights', '/biases'))]


def test_another_network_is_an_error_that_lists_all_that_differs(tmp_path: Path) -> None:
    values = tutorial_values()
    del values['conv1/biases']
    checkpoint = write_checkpoint(tmp_path, values)
    with pytest.raises(UserError) as error:
        restored(checkpoint, num_classes=100)
    assert str(error.value) == (
        f'{checkpoint}: not of this network: conv1/biases: missing, expected [64]; '
        'softmax_linear/biases: found [10], expected [100]; '
        'softmax_linear/weights: found [192, 10], expected [192, 100]'
    )


def test_step_comes_from_the_name_if_need_be(tmp_path: Path) -> None:
    values = {'conv1/biases': np.zeros(64, np.float32)}
    assert cifar10_checkpoint.step_of(write_checkpoint(tmp_path, values, step=31)) == 31
    with tf.Graph().as_default():
        tf.get_variable('conv1/biases', [64])
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            unnumbered = tf.train.Saver().save(session, str(tmp_path / 'final'))
    with pytest.raises(UserError, match='final: holds no global_step'):
        cifar10_checkpoint.step_of(unnumbered)


def test_an_unreadable_checkpoint_is_an_error_that_names_it(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, {'global_step': np.int64(5)}, step=5)
    Path(f'{checkpoint}.index').write_bytes(b'no index')
    with pytest.raises(UserError, match='model.ckpt-5: not a readable checkpoint'):
        find_start(tmp_path)


def test_a_damaged_checkpoint_is_an_error_that_names_it(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, {**tutorial_values(), 'global_step': np.int64(9)})
    data = Path(f'{checkpoint}.data-00000-of-00001')
    whole = data.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for damaged in (flipped, whole[:-1000], b''):
        data.write_bytes(damaged)
        with pytest.raises(UserError, match='model.ckpt-1000: not a readable checkpoint: '):
            find_start(tmp_path)
    data.write_bytes(whole)
    assert find_start(tmp_path).step == 9
