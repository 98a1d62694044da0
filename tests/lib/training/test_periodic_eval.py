"""What a run tells of itself while it trains: its history, and its evaluations."""

from __future__ import annotations

import itertools
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow.compat.v1 as tf

import cifar10
import cifar10_eval
from cifar10_eval import EvalSettings
from cifar10_lib.base.errors import UserError
from cifar10_lib.evaluation.evaluator import Evaluator, Result
from cifar10_lib.runs import history as history_module
from cifar10_lib.runs.checkpoints import Checkpoint, CheckpointFolder
from cifar10_lib.runs.history import Entry, History
from cifar10_lib.runs.run_folder import RunFolder
from cifar10_lib.training import console, periodic_eval
from cifar10_lib.training.begin import begin
from cifar10_lib.training.worker import Worker
from tests.helpers.runs import checkpoint_values, settings_for, train
from tests.helpers.samples import full_disk, unix

pytestmark = pytest.mark.slow

LINE = r': precision @ 1 = (\d\.\d{3}) \(step (\d+), 60 images\) \[synthetic images, not CIFAR-10\]'


def history(folder: Path) -> list[Entry]:
    return history_module.read(str(folder))


def steps(entries: list[Entry], kind: str) -> list[int]:
    return [entry['step'] for entry in entries if kind in entry]


def without_seconds(entries: list[Entry]) -> list[Entry]:
    return [{name: value for name, value in e.items() if name != 'seconds'} for e in entries]


# ------------------------------------------------------------------------- history


def test_a_run_that_goes_back_to_an_older_checkpoint_repeats_no_step(
    synthetic_data: Path, tmp_path: Path
) -> None:
    """As after a kill: what was noted after the checkpoint is taken again."""
    train(synthetic_data, tmp_path, max_steps=4, log_frequency=1, save_checkpoint_steps=2)
    for path in tmp_path.glob('model.ckpt-4*'):
        path.unlink()
    before = history(tmp_path)
    train(synthetic_data, tmp_path, max_steps=5, log_frequency=1)
    after = history(tmp_path)
    assert [entry['step'] for entry in after] == [1, 2, 3, 4, 5]
    assert after[:2] == before[:2] and after[2]['seconds'] != before[2]['seconds']
    assert after[2]['loss'] == pytest.approx(before[2]['loss'], abs=1e-4)


def test_the_history_is_on_the_disk_before_a_checkpoint_is(
    synthetic_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    sync, save = History.sync, CheckpointFolder.save

    def remember(self: History) -> None:
        sync(self)
        synced[:] = steps(history(tmp_path), 'loss')

    def check(self: CheckpointFolder, saver: tf.train.Saver, session: tf.Session, step: int) -> str:
        assert synced == list(range(1, step + 1))
        return save(self, saver, session, step)

    monkeypatch.setattr(History, 'sync', remember)
    monkeypatch.setattr(CheckpointFolder, 'save', check)
    train(synthetic_data, tmp_path, max_steps=3, log_frequency=1, save_checkpoint_steps=2)


def test_a_damaged_history_is_an_error_before_training(
    synthetic_data: Path, tmp_path: Path
) -> None:
    train(synthetic_data, tmp_path, max_steps=1)
    (tmp_path / 'history.jsonl').write_text('{"step": 1}\nnothing\n')
    with pytest.raises(UserError, match=r"history\.jsonl: line 2: found 'nothing'"):
        train(synthetic_data, tmp_path, max_steps=2)
    assert checkpoint_values(tmp_path)['global_step'] == 1
    train(synthetic_data, tmp_path, max_steps=1, start_over=True, log_frequency=1)
    assert steps(history(tmp_path), 'loss') == [1]


@unix
def test_a_disk_too_full_for_the_history_ends_the_run(synthetic_data: Path, tmp_path: Path) -> None:
    train(synthetic_data, tmp_path, max_steps=1)
    # Larger than any checkpoint, and all but as large as files may be.
    line = f'{{"step": 0, "note": "{"x" * 20_000_000}"}}\n'
    (tmp_path / 'history.jsonl').write_text(line)
    pattern = (
        r'history\.jsonl: cannot be written: File too large; the last complete checkpoint is '
        r'.*/model\.ckpt-1$'
    )
    with full_disk(len(line) + 150), pytest.raises(UserError, match=pattern):
        train(synthetic_data, tmp_path, max_steps=9, log_frequency=1)
    assert checkpoint_values(tmp_path)['global_step'] == 1


# ---------------------------------------------------------------- evaluation in between


def test_evaluation_in_between_tells_what_the_script_does(
    synthetic_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(synthetic_data, tmp_path / 'run', max_steps=5, log_frequency=5, eval_every=2)
    printed = re.findall(LINE, capsys.readouterr().out)
    assert [int(step) for _, step in printed] == [2, 4, 5]
    entries = history(tmp_path / 'run')
    assert [entry['step'] for entry in entries] == [2, 4, 5, 5]
    in_between = [entry for entry in entries if 'precision' in entry]
    assert [f'{entry["precision"]:.3f}' for entry in in_between] == [value for value, _ in printed]

    (events,) = (tmp_path / 'run').glob('events.out.tfevents.*')
    written = {
        event.step: value.simple_value
        for event in tf.train.summary_iterator(str(events))
        for value in event.summary.value
        if value.tag == 'precision/test'
    }
    assert written == {e['step']: pytest.approx(e['precision']) for e in in_between}

    settings = EvalSettings(
        checkpoint_dir=str(tmp_path / 'run'),
        eval_dir=str(tmp_path / 'eval'),
        data_dir=str(synthetic_data),
        num_examples=60,
        run_once=True,
    )
    for _ in range(2):
        cifar10_eval.evaluate(settings)
    assert re.findall(LINE, capsys.readouterr().out) == [printed[-1]] * 2
    # The same evaluation is there once.
    last = {name: v for name, v in in_between[-1].items() if name not in ('examples', 'seconds')}
    assert history(tmp_path / 'eval') == [last]
    assert last == {
        'step': 5,
        'precision': last['precision'],
        'cross_entropy': last['cross_entropy'],
        'eval_data': 'test',
        'num_examples': 60,
        'views': 1,
        'run': RunFolder.open(str(tmp_path / 'run')).run,
        'model': 'tutorial',
    }
    assert in_between[-1]['examples'] == 40


def plan_of(data_dir: Path, train_dir: Path, **options: Any) -> periodic_eval.Plan | None:
    settings = settings_for(data_dir, train_dir, **options)
    with begin(settings, cifar10.NETWORKS[settings.model], settings.batch_size) as run:
        return periodic_eval.make_plan(run)


def test_evaluations_come_by_themselves_as_often_as_the_run_has_time_for(
    synthetic_data: Path, tmp_path: Path
) -> None:
    """The set has 200 training and 60 test images; a twentieth of the examples are scored."""
    plans = {
        # 16,000 examples: time for 800 images, too few for one evaluation.
        2_000: None,
        # Twice 2,000 images, of which there are not as many.
        10_000: (5_000, 60, 200),
        100_000: (6_667, 60, 200),
    }
    for max_steps, expected in plans.items():
        assert plan_of(synthetic_data, tmp_path, max_steps=max_steps) == expected
    held_out = plan_of(synthetic_data, tmp_path / 'held_out', max_steps=10_000, num_held_out=20)
    assert held_out == (5_000, 20, 180)
    assert plan_of(synthetic_data, tmp_path, max_steps=2_000, eval_every=0) is None
    assert plan_of(synthetic_data, tmp_path, max_steps=2_000, eval_every=7) == (7, 0, 0)


def test_an_automatic_evaluation_scores_training_images_too(
    synthetic_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(periodic_eval, '_SHARE_OF_EXAMPLES', 1.1)
    monkeypatch.setattr(periodic_eval, '_FEWEST_IMAGES', 25)
    train(synthetic_data, tmp_path, max_steps=6, num_held_out=40)
    evaluated = [entry for entry in history(tmp_path) if 'precision' in entry]
    kinds = [(entry['step'], entry['eval_data'], entry['num_examples']) for entry in evaluated]
    assert kinds == [
        (step, *kind) for step in (3, 6) for kind in (('train_eval', 5), ('held_out', 20))
    ]
    assert all(0 < entry['cross_entropy'] < 10 for entry in evaluated)
    printed = capsys.readouterr().out
    assert '(step 3, 5 training images)' in printed
    assert '(step 6, 20 held-out training images)' in printed


def test_a_signal_breaks_an_evaluation_off(
    synthetic_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    score, num_batches = Evaluator._score_all, []

    def send_signal(self: Evaluator, session: tf.Session, show: Callable[[int], object]) -> Any:
        def show_and_send(num_scored: int) -> None:
            num_batches.append(num_scored)
            os.kill(os.getpid(), signal.SIGUSR1)
            show(num_scored)

        return score(self, session, show_and_send)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, '_score_all', send_signal)
        train(synthetic_data, tmp_path, max_steps=9, eval_every=2)
    output = capfd.readouterr()
    assert 'Stopped by SIGUSR1 at step 2' in output.out
    assert 'Stopping after this step, then saving; SIGUSR1 again to stop now' in output.err
    assert len(num_batches) == 1 and not [e for e in history(tmp_path) if 'precision' in e]
    train(synthetic_data, tmp_path, max_steps=2, eval_every=2)
    assert [e['step'] for e in history(tmp_path) if 'precision' in e] == [2]


def test_an_evaluation_that_was_broken_off_is_made_up_for(
    synthetic_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(*arguments: object) -> Result:
        raise KeyboardInterrupt

    def train_until_it_is_broken_off(max_steps: int) -> None:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Evaluator, 'evaluate', break_off)
            train(synthetic_data, tmp_path, max_steps=max_steps, eval_every=2)

    def evaluated() -> list[tuple[int, int]]:
        return [(e['step'], e['examples']) for e in history(tmp_path) if 'precision' in e]

    train_until_it_is_broken_off(max_steps=2)
    assert checkpoint_values(tmp_path)['global_step'] == 2 and evaluated() == []
    for _ in range(2):
        train(synthetic_data, tmp_path, max_steps=2, eval_every=2)
        assert evaluated() == [(2, 16)]
    train_until_it_is_broken_off(max_steps=9)
    assert checkpoint_values(tmp_path)['global_step'] == 4 and evaluated() == [(2, 16)]
    train(synthetic_data, tmp_path, max_steps=5, eval_every=2)
    assert evaluated() == [(2, 16), (4, 32), (5, 40)]


def test_the_time_of_an_evaluation_is_not_that_of_training(
    synthetic_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = itertools.count()
    evaluate = Evaluator.evaluate

    def take_long(*arguments: object) -> Result:
        for _ in range(10_000):
            next(now)
        return evaluate(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(console.time, 'perf_counter', lambda: next(now))
    monkeypatch.setattr(Evaluator, 'evaluate', take_long)
    train(synthetic_data, tmp_path, max_steps=5, log_frequency=1, eval_every=2)
    seconds = [entry['seconds'] for entry in history(tmp_path)]
    assert len(seconds) == 8 and seconds == sorted(seconds) and seconds[-1] < 100


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda path: path.write_bytes(b'\x0b' + bytes(3072)), 'changed while it was read'),
        (lambda path: path.unlink(), 'cannot be read any more'),
    ],
)
def test_test_images_that_change_end_the_run(
    synthetic_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], object],
    message: str,
) -> None:
    directory = synthetic_data / 'synthetic-batches-bin'
    copy = tmp_path / 'data' / directory.name
    copy.mkdir(parents=True)
    for path in directory.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    evaluate = periodic_eval.PeriodicEvaluation.evaluate

    def damage_and_evaluate(*arguments: object) -> None:
        damage(copy / 'test_batch.bin')
        evaluate(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(periodic_eval.PeriodicEvaluation, 'evaluate', damage_and_evaluate)
    with pytest.raises(UserError, match=rf'test_batch\.bin: {message}'):
        train(tmp_path / 'data', tmp_path / 'run', max_steps=9, eval_every=1)
    assert checkpoint_values(tmp_path / 'run')['global_step'] == 1


# ----------------------------------------------------------------------- the learning rate


def test_the_learning_rate_follows_the_evaluations_in_one_go_and_in_pieces(
    synthetic_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # At 5 and 9, where a run ends, it is evaluated too, but no rate follows from that.
    precisions = {2: 30, 4: 20, 5: 60, 6: 40, 8: 40, 9: 0}

    def evaluate(self: Evaluator, checkpoint: Checkpoint, *_: object) -> Result:
        step = checkpoint.step
        return Result(step, precisions[step], 100, 1.0)

    monkeypatch.setattr(Evaluator, 'evaluate', evaluate)
    options = {
        'log_frequency': 1,
        'eval_every': 2,
        'learning_rate': 0.08,
        'plateau_evaluations': 1,
        'plateau_learning_rate': 0.03,
    }
    train(synthetic_data, tmp_path / 'whole', max_steps=9, **options)
    for max_steps in (4, 5, 9):
        train(synthetic_data, tmp_path / 'pieces', max_steps=max_steps, **options)
    for name in ('whole', 'pieces'):
        rates = [e['learning_rate'] for e in history(tmp_path / name) if 'loss' in e]
        assert rates == pytest.approx([0.08] * 4 + [0.04] * 4 + [0.03])
    assert 'plateau_fraction' not in checkpoint_values(tmp_path / 'whole')


def test_a_learning_rate_that_is_to_follow_no_evaluation_is_an_error(
    synthetic_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match='--plateau_evaluations=3: .* expected an --eval_every of'):
        train(synthetic_data, tmp_path / 'run', plateau_evaluations=3)
    assert not (tmp_path / 'run').exists()
    worker = Worker()
    worker.num_workers = 2
    settings = settings_for(synthetic_data, tmp_path / 'run', plateau_evaluations=3, eval_every=1)
    pattern = '--plateau_evaluations=3: found 2 workers, of which only one evaluates'
    with (
        pytest.raises(UserError, match=pattern),
        begin(settings, cifar10.NETWORKS[settings.model], 8, worker),
    ):
        pass
    assert not (tmp_path / 'run').exists()


# ------------------------------------------------------------------ the best, patience


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """Precisions in percent, by step, that evaluations find."""
    precisions = {2: 30, 4: 60, 5: 90, 6: 60, 7: 70, 8: 50, 10: 99, 12: 10, 14: 10, 16: 10}
    monkeypatch.setattr(
        Evaluator,
        'evaluate',
        lambda self, checkpoint, *_: Result(checkpoint.step, precisions[checkpoint.step], 100, 1.0),
    )
    return precisions


def test_a_run_ends_when_its_patience_does(
    scored: dict[int, int],
    synthetic_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """At the same step in pieces, one of which ends at step 5, and with the same bits."""
    options: dict[str, Any] = {
        'eval_every': 2,
        'patience': 2,
        'deterministic': True,
        'eval_data': 'held_out',
        'num_held_out': 20,
    }
    train(synthetic_data, tmp_path / 'whole', max_steps=16, **options)
    output = capsys.readouterr().out
    reason = '2 evaluations without a better precision than 0.600 at step 4'
    assert f'Finished at step 8, after {reason}, saved in' in output
    assert output.rstrip().endswith('--patience=4')
    for max_steps in (5, 7, 16):
        train(synthetic_data, tmp_path / 'pieces', max_steps=max_steps, **options)
    whole, pieces = (checkpoint_values(tmp_path / name) for name in ('whole', 'pieces'))
    assert whole['global_step'] == 8
    assert all((whole[name] == pieces[name]).all() for name in whole)

    # Again it takes no step; with more patience it does.
    capsys.readouterr()
    train(synthetic_data, tmp_path / 'whole', max_steps=16, **options)
    assert f'Finished at step 8, after {reason}' in capsys.readouterr().out
    assert checkpoint_values(tmp_path / 'whole')['global_step'] == 8
    train(synthetic_data, tmp_path / 'whole', max_steps=16, **{**options, 'patience': 3})
    assert 'than 0.990 at step 10' in capsys.readouterr().out
    assert checkpoint_values(tmp_path / 'whole')['global_step'] == 16


def test_a_run_that_was_broken_off_in_its_last_evaluation_takes_no_step_more(
    scored: dict[int, int], synthetic_data: Path, tmp_path: Path
) -> None:
    options = {'eval_every': 2, 'patience': 2}
    train(synthetic_data, tmp_path, max_steps=16, **options)
    path = tmp_path / 'history.jsonl'
    lines = [line for line in path.read_text().splitlines(True) if '"step": 8, ' not in line]
    path.write_text(''.join(lines))
    train(synthetic_data, tmp_path, max_steps=16, **options)
    assert checkpoint_values(tmp_path)['global_step'] == 8
    assert steps(history(tmp_path), 'precision') == [2, 4, 6, 8]


def test_the_best_checkpoint_of_a_run_is_kept(
    scored: dict[int, int],
    synthetic_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Beside the last ones, until the run is started over."""
    run = tmp_path / 'run'
    options = {'eval_every': 2, 'keep_best': True, 'max_to_keep': 1}
    train(synthetic_data, run, max_steps=6, **options)
    train(synthetic_data, run, max_steps=8, **options)
    output = capsys.readouterr()
    assert f'Best: precision @ 1 = 0.600 at step 4, kept in {run}/best\n' in output.out
    assert 'chosen by the test images, precision on them is too high' in output.err
    assert checkpoint_values(run / 'best')['global_step'] == 4
    assert checkpoint_values(run)['global_step'] == 8
    assert RunFolder.open(str(run / 'best')).run == RunFolder.open(str(run)).run

    train(synthetic_data, run, max_steps=2, start_over=True, **options)
    assert checkpoint_values(run / 'best')['global_step'] == 2


@pytest.mark.parametrize('flag', ['patience', 'keep_best'])
def test_what_is_to_follow_no_evaluation_is_an_error(
    flag: str, synthetic_data: Path, tmp_path: Path
) -> None:
    pattern = f'--{flag}=.*: nothing is evaluated during training; expected an --eval_every'
    with pytest.raises(UserError, match=pattern):
        train(synthetic_data, tmp_path / 'run', **{flag: 2 if flag == 'patience' else True})
    assert not (tmp_path / 'run').exists()
