"""Training on one device: in how many parts it works on a batch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10_train
from cifar10_lib.base.errors import UserError
from cifar10_train import OneDeviceTrainSettings


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
    assert cifar10_train.num_splits(settings) == expected


def test_a_flag_decides_the_parts_of_a_batch() -> None:
    settings = OneDeviceTrainSettings(batch_size=12, batch_splits=3)
    assert cifar10_train.num_splits(settings) == 3
    with pytest.raises(UserError, match='--batch_splits=5: expected a divisor of --batch_size=12'):
        cifar10_train.num_splits(OneDeviceTrainSettings(batch_size=12, batch_splits=5))


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
