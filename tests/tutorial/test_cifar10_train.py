"""Training on one device: the parts of a batch, and the path that a student reads."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10_train
from cifar10 import NETWORKS
from cifar10_lib.base.errors import UserError
from cifar10_lib.training.begin import num_parts
from cifar10_train import OneDeviceTrainSettings
from tests.helpers.scripts import REPOSITORY

TUTORIAL = NETWORKS['tutorial']


@pytest.mark.parametrize(
    ('cores', 'gpus', 'batch_size', 'expected'),
    [(2, 0, 128, 2), (16, 0, 128, 2), (1, 0, 128, 1), (2, 0, 127, 1), (2, 1, 128, 1)],
)
def test_the_machine_decides_the_parts_of_a_batch(
    monkeypatch: pytest.MonkeyPatch, cores: int, gpus: int, batch_size: int, expected: int
) -> None:
    monkeypatch.setattr(os, 'cpu_count', lambda: cores)
    monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind: ['gpu'] * gpus)
    settings = OneDeviceTrainSettings(batch_size=batch_size)
    assert num_parts(settings, TUTORIAL) == expected


def test_a_flag_decides_the_parts_of_a_batch() -> None:
    settings = OneDeviceTrainSettings(batch_size=12, batch_splits=3)
    assert num_parts(settings, TUTORIAL) == 3
    with pytest.raises(UserError, match='--batch_splits=5: expected a divisor of --batch_size=12'):
        num_parts(OneDeviceTrainSettings(batch_size=12, batch_splits=5), TUTORIAL)


def test_the_parts_of_a_batch_do_not_change_the_steps(synthetic_data: Path, tmp_path: Path) -> None:
    values = []
    for splits in (1, 2, 4):
        train_dir = tmp_path / str(splits)
        cifar10_train.train(
            OneDeviceTrainSettings(
                data_dir=str(synthetic_data),
                dataset='synthetic',
                train_dir=str(train_dir),
                batch_size=8,
                max_steps=3,
                batch_splits=splits,
            )
        )
        reader = tf.train.load_checkpoint(str(train_dir / 'model.ckpt-3'))
        names = reader.get_variable_to_shape_map()
        values.append({name: reader.get_tensor(name) for name in names})
    for other in values[1:]:
        assert set(other) == set(values[0])
        for name, value in values[0].items():
            # The same sums in another order.
            np.testing.assert_allclose(other[name], value, atol=1e-5, err_msg=name)


# ------------------------------------------------------------------ the path to read

TRAINERS = ('cifar10_train.py', 'cifar10_multi_gpu_train.py', 'cifar10_distributed_train.py')


def read_train(script: str) -> ast.FunctionDef:
    """The function `train` of a trainer."""
    tree = ast.parse((REPOSITORY / script).read_text(encoding='utf-8'))
    (train,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == 'train')
    return train


def test_train_is_one_screen() -> None:
    train = read_train('cifar10_train.py')
    assert train.end_lineno and train.end_lineno - train.lineno < 40


# What each `train` calls, in this order, and the arguments that all of them give it.
UPDATE = [
    'total_loss',
    'global_step',
    'examples_seen',
    'run.batch_size',
    'run.data.num_examples',
    'recipe=run.settings',
]
SKELETON = [
    ('begin', ['settings', 'network']),
    ('cifar10.create_counters', ['run.start.step', 'run.start.examples']),
    ('training_batches', ['run']),
    ('network.inference', ['images', 'options', 'training=True']),
    ('cifar10.loss', ['logits', 'labels']),
    ('update', UPDATE),
    ('training_session', ['run', 'images', 'labels', 'total_loss', 'train_op', 'config']),
    ('session.should_stop', []),
    ('session.run', ['train_op']),
]
# The update of one device, and the half of it that follows the sum over several.
UPDATES = ('cifar10.train', 'cifar10.apply_gradients')


@pytest.mark.parametrize('script', TRAINERS)
def test_trainers_have_one_skeleton(script: str) -> None:
    """Inputs, inference, loss, update and the loop, one after the other."""
    train = read_train(script)
    shared = dict(SKELETON)
    calls = [node for node in ast.walk(train) if isinstance(node, ast.Call)]
    calls.sort(key=lambda call: (call.lineno, call.col_offset))
    found = []
    for call in calls:
        name = ast.unparse(call.func)
        name = 'update' if name in UPDATES else name
        if name in shared:
            arguments = [ast.unparse(argument) for argument in (*call.args, *call.keywords)]
            found.append((name, [each for each in arguments if each in shared[name]]))
    assert found == SKELETON
    (loop,) = (node for node in ast.walk(train) if isinstance(node, ast.While))
    assert ast.unparse(loop) == 'while not session.should_stop():\n    session.run(train_op)'
