"""The best checkpoint, kept with the reason for the choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tensorflow.compat.v1 as tf

from cifar10_lib.base.errors import UserError
from cifar10_lib.evaluation.best import Best, ChosenOn
from cifar10_lib.evaluation.evaluator import Result
from cifar10_lib.runs.checkpoints import open_checkpoint
from tests.helpers.runs import save


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A folder of the checkpoints of a run."""
    directory = tmp_path / 'train'
    directory.mkdir()
    save(directory, [1, 2, 3])
    (directory / 'settings.json').write_text('{"dataset": "synthetic"}')
    return directory


def best_of(trained: Path, eval_data: str = 'test', **more: Any) -> Best:
    chosen_on = ChosenOn(eval_data, 10, '1', **more)
    return Best(str(trained.with_name('eval')), '--eval_dir', str(trained), chosen_on)


def offer(trained: Path, num_correct: dict[int, int]) -> None:
    best = best_of(trained)
    for step, correct in num_correct.items():
        best.offer(
            open_checkpoint(str(trained / f'model.ckpt-{step}')), Result(step, correct, 10, 1.0)
        )


def kept(trained: Path) -> tuple[int, dict]:
    """The step of the checkpoint that is kept, and what its JSON file says."""
    directory = trained.with_name('eval') / 'best'
    steps = {path.name.split('.')[1] for path in directory.glob('model.ckpt-*')}
    checkpoint = tf.train.latest_checkpoint(str(directory))
    assert steps == {checkpoint.rpartition('.')[2]}
    return open_checkpoint(checkpoint).step, json.loads((directory / 'best.json').read_text())


def test_the_best_is_kept_alone(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    offer(trained, {1: 5, 2: 7, 3: 7})
    step, why = kept(trained)
    assert step == 2
    chosen_on = {'eval_data': 'test', 'num_examples': 10, 'views': '1'}
    assert why == {**chosen_on, 'run': None, 'precision': 0.7, 'step': 2}
    best = trained.with_name('eval') / 'best'
    assert f'Best so far: kept as {best}/model.ckpt-2' in capsys.readouterr().out
    assert (best / 'settings.json').read_text() == '{"dataset": "synthetic"}'


def test_the_best_is_remembered(trained: Path) -> None:
    offer(trained, {2: 7})
    offer(trained, {1: 6, 3: 7})
    assert kept(trained)[0] == 2
    offer(trained, {3: 8})
    assert kept(trained)[0] == 3


def test_a_best_that_was_chosen_on_other_images_is_refused(trained: Path) -> None:
    offer(trained, {2: 7})
    with pytest.raises(UserError, match="was chosen by .*'test'.*, not by .*'train_eval'"):
        best_of(trained, eval_data='train_eval')
    with pytest.raises(UserError, match="was chosen by .*None.*, not by .*'another'"):
        best_of(trained, run='another')
    assert kept(trained)[0] == 2


@pytest.mark.parametrize('text', ['', '[]', '{"precision": 0.5}', '{"precision": "high"}'])
def test_a_damaged_record_of_the_best_is_named(trained: Path, text: str) -> None:
    offer(trained, {2: 7})
    (trained.with_name('eval') / 'best' / 'best.json').write_text(text)
    with pytest.raises(UserError, match=r'best/best\.json: not what --keep_best writes'):
        offer(trained, {3: 9})
