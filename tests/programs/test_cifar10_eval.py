"""The history of evaluations; the other tests of evaluation run the script."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import cifar10_eval
from cifar10_eval import EvalSettings
from cifar10_lib.base.errors import UserError
from cifar10_lib.evaluation import analysis
from cifar10_lib.evaluation.evaluator import Result
from cifar10_lib.runs import history
from cifar10_lib.runs.run_folder import RunFolder
from tests.helpers.runs import save, train


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A folder of the checkpoints of a run."""
    directory = tmp_path / 'train'
    directory.mkdir()
    save(directory, [1, 2, 3])
    (directory / 'settings.json').write_text('{"dataset": "synthetic"}')
    return directory


def settings_for(trained: Path, **more: object) -> EvalSettings:
    values = {
        'checkpoint_dir': str(trained),
        'eval_dir': str(trained.with_name('eval')),
        'num_examples': 10,
        **more,
    }
    return EvalSettings(**values)  # type: ignore[arg-type]


# ------------------------------------------------------------------------ history


def test_the_same_evaluation_is_noted_once(trained: Path) -> None:
    (trained.with_name('eval')).mkdir()
    for correct, num_examples, more in (
        (5, 10, {}),
        (5, 10, {'views': '10'}),
        (5, 20, {}),
        (5, 10, {'eval_data': 'train_eval'}),
        (6, 10, {}),
    ):
        settings = settings_for(trained, num_examples=num_examples, **more)
        cifar10_eval._add_to_history(Result(3, correct, num_examples, 1.0), settings, {})
    names = ['step', 'precision', 'cross_entropy', 'eval_data', 'num_examples', 'views']
    assert history.read(str(trained.with_name('eval'))) == [
        dict(zip(names, values, strict=True))
        for values in (
            (3, 0.5, 1.0, 'test', 10, 10),
            (3, 0.25, 1.0, 'test', 20, 1),
            (3, 0.5, 1.0, 'train_eval', 10, 1),
            (3, 0.6, 1.0, 'test', 10, 1),
        )
    ]


@pytest.mark.parametrize('eval_dir', ['train', 'other'])
def test_an_evaluation_keeps_out_of_the_history_of_a_training(trained: Path, eval_dir: str) -> None:
    directory = trained.with_name(eval_dir)
    directory.mkdir(exist_ok=True)
    if eval_dir == 'other':
        (directory / 'history.jsonl').write_text('{"step": 1, "loss": 2.5}\n')
    before = sorted(directory.iterdir()), history.read(str(directory))
    settings = settings_for(trained, eval_dir=str(directory), run_once=True)
    with pytest.raises(UserError, match='--eval_dir=.*: (is the folder of|holds the history of)'):
        cifar10_eval.evaluate(settings)
    assert (sorted(directory.iterdir()), history.read(str(directory))) == before


def test_a_damaged_history_is_an_error_before_an_image_is_scored(trained: Path) -> None:
    directory = trained.with_name('eval')
    directory.mkdir()
    (directory / 'history.jsonl').write_text('{"step": 1}\nnothing\n')
    with pytest.raises(UserError, match=r"history\.jsonl: line 2: found 'nothing'"):
        cifar10_eval.evaluate(settings_for(trained, run_once=True))


def test_a_run_that_is_started_over_has_its_own_results_alone(
    synthetic_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the folder within that of the run, and in one that keeps those of the deleted run."""
    run_dir, other_dir = str(tmp_path / 'run'), str(tmp_path / 'evaluations')
    inside = EvalSettings(checkpoint_dir=run_dir, run_once=True, num_examples=20)
    outside = dataclasses.replace(inside, eval_dir=other_dir)
    names = []
    for seed in (1, 2):
        train(synthetic_data, Path(run_dir), max_steps=seed, seed=seed, start_over=True)
        for settings in (inside, outside):
            cifar10_eval.evaluate(settings)
        names.append(RunFolder.open(run_dir).run)
    assert len(set(names)) == 2
    assert [e['run'] for e in history.read(str(tmp_path / 'run' / 'eval'))] == names[1:]
    assert [e['run'] for e in history.read(other_dir)] == names
    capsys.readouterr()
    curves = analysis.read_curves('', RunFolder.open(run_dir), other_dir)
    assert curves.precision[0].x.tolist() == [2]
    assert f'1 lines are of another run than the one in {run_dir}' in capsys.readouterr().err
