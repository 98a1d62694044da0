"""Summary of a run: what is shown of network, recipe, device, steps and changed flags."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow.compat.v1 as tf

from cifar10 import NETWORKS
from cifar10_lib.base import flags
from cifar10_lib.training.begin import begin
from cifar10_lib.training.card import card
from cifar10_lib.training.settings import OneDeviceTrainSettings


def card_of(data_dir: Path, train_dir: Path, *options: str, start_step: int = 0) -> list[str]:
    given = [f'--data_dir={data_dir}', f'--train_dir={train_dir}', '--dataset=synthetic', *options]
    settings = flags.parse(OneDeviceTrainSettings, 'train', ['train', *given])
    with begin(settings, NETWORKS[settings.model], settings.batch_size) as run:
        tf.get_variable('weights', [30, 40])
        tf.get_variable('statistics', [7], trainable=False)
        run = run._replace(start=run.start._replace(step=start_step))
        return card(run).splitlines()


def test_a_preset_as_it_is_changes_nothing(synthetic_data: Path, tmp_path: Path) -> None:
    lines = card_of(synthetic_data, tmp_path / 'a', '--preset=fast')
    assert lines[0] == 'Network: tutorial, 1,200 weights'
    assert lines[1] == 'Recipe: fast: nesterov, learning rate 0.03, cosine schedule'
    assert lines[3] == 'Steps: 32,000 of 128 images, 20,480.0 epochs'
    assert len(lines) == 4


@pytest.mark.parametrize(
    ('options', 'changed'),
    [
        (['--preset=fast', '--noflip', '--batch_size=64'], '--batch_size=64 --noflip'),
        (['--model=mlp', '--learning_rate=0.5'], '--learning_rate=0.5'),
        (['--eval_every=5', '--max_steps=100000'], '--eval_every=5'),
        (['--num_held_out=20'], '--num_held_out=20'),
    ],
)
def test_what_differs_is_shown(
    synthetic_data: Path, tmp_path: Path, options: list[str], changed: str
) -> None:
    assert card_of(synthetic_data, tmp_path / 'a', *options)[4:] == [f'Changed: {changed}']


def test_a_resumed_run_says_what_is_left(synthetic_data: Path, tmp_path: Path) -> None:
    lines = card_of(synthetic_data, tmp_path / 'a', '--max_steps=9', '--batch_size=8', start_step=4)
    assert lines[3] == 'Steps: 9 of 8 images, 0.4 epochs; 5 are left'


def test_the_device_has_its_precision_and_gpus_their_names(
    synthetic_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = card_of(synthetic_data, tmp_path / 'a')
    assert lines[2].startswith('Device: ') and lines[2].endswith('float32')
    names = {'gpu 0': 'NVIDIA H100', 'gpu 1': None}
    monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind: list(names))
    monkeypatch.setattr(
        tf.config.experimental, 'get_device_details', lambda gpu: {'device_name': names[gpu]}
    )
    lines = card_of(synthetic_data, tmp_path / 'b', '--use_bf16')
    assert lines[2] == 'Device: NVIDIA H100, a GPU, bfloat16'
