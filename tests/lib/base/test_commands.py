"""The words of commands: of a script beside another, and of what is installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from cifar10_lib.base.commands import command, name_commands

TEXT = 'train first, for example with python cifar10_train.py'


def test_a_script_is_run_by_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, 'argv', ['there/cifar10_eval.py'])
    assert command('cifar10_train.py')[1:] == ['there/cifar10_train.py']
    assert name_commands(TEXT) == TEXT


@pytest.mark.parametrize('is_on_path', [True, False])
def test_an_installed_command_names_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_on_path: bool
) -> None:
    path = tmp_path / 'cifar10-multi-gpu-train'
    path.touch(0o755)
    if is_on_path:
        monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(sys, 'argv', [str(tmp_path / 'cifar10-eval')])
    expected = path.name if is_on_path else str(path)
    assert command('cifar10_multi_gpu_train.py') == [expected]
    text = 'as python cifar10_multi_gpu_train.py --num_gpus=2 does'
    assert name_commands(text) == f'as {expected} --num_gpus=2 does'
    # Not a command: a file of the user's.
    assert name_commands('my/cifar10_train.py: is missing') == 'my/cifar10_train.py: is missing'
