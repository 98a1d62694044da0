"""How a training run begins, reports, saves, stops and resumes."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from cifar10_lib.base.errors import UserError
from cifar10_lib.data import prepare as prepare_module
from cifar10_lib.data.synthetic import generate_synthetic
from cifar10_lib.runs import history
from cifar10_lib.runs.run_folder import RunFolder
from cifar10_lib.training import console, hooks
from cifar10_lib.training.worker import StopSignalHook
from tests.helpers.runs import checkpoint_values, train

pytestmark = pytest.mark.slow

# ------------------------------------------------------------------- a complete run


def test_a_run_leaves_a_checkpoint_settings_and_summaries(
    synthetic_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(synthetic_data, tmp_path / 'run', max_steps=3, log_frequency=1)

    values = checkpoint_values(tmp_path / 'run')
    assert values['global_step'] == 3 and values['examples_seen'] == 24
    stored = RunFolder.open(str(tmp_path / 'run')).settings
    assert stored['dataset'] == 'synthetic' and stored['batch_size'] == 8
    (events,) = (tmp_path / 'run').glob('events.out.tfevents.*')
    tags = {v.tag for e in tf.train.summary_iterator(str(events)) for v in e.summary.value}
    assert {
        'loss/total',
        'train/learning_rate',
        'input/distorted/image',
        'conv1/activations',
    } <= tags

    lines = capsys.readouterr().out.splitlines()
    assert '200 training images' in lines[0] and 'synthetic images, not CIFAR-10' in lines[0]
    assert lines[1] == 'Network: tutorial, 1,068,298 weights'
    assert lines[2] == 'Recipe: tutorial: sgd, learning rate 0.1, staircase schedule'
    assert lines[3].startswith('Device: ') and lines[3].endswith(', float32')
    assert lines[4] == 'Steps: 3 of 8 images, 0.1 epochs'
    assert lines[5] == 'Changed: --log_frequency=1 --max_steps=3 --batch_size=8'
    assert [line.split(': ')[1].split(',')[0] for line in lines[6:8]] == ['step 2', 'step 3']
    assert lines[8].startswith('Finished at step 3') and 'synthetic' in lines[8]
    assert lines[9].endswith(f'tensorboard --logdir={tmp_path}')
    assert '--max_steps=100000' in lines[10] and '--dataset' not in lines[10]


def test_a_resumed_run_ends_where_an_unbroken_one_does(
    synthetic_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(synthetic_data, tmp_path / 'whole', max_steps=6, log_frequency=2)
    for max_steps in (2, 3, 6):
        train(synthetic_data, tmp_path / 'pieces', max_steps=max_steps, log_frequency=2)

    assert 'Resuming from' in capsys.readouterr().out
    whole, pieces = checkpoint_values(tmp_path / 'whole'), checkpoint_values(tmp_path / 'pieces')
    assert set(whole) == set(pieces)
    assert pieces['global_step'] == 6 and pieces['examples_seen'] == 48
    for name, value in whole.items():
        # Sums that several threads take in another order.
        np.testing.assert_allclose(pieces[name], value, atol=1e-5, err_msg=name)

    histories = [history.read(str(tmp_path / name)) for name in ('whole', 'pieces')]
    for i, (one, other) in enumerate(zip(*histories, strict=True), 1):
        names = ['step', 'examples', 'seconds', 'loss', 'cross_entropy']
        names += ['learning_rate', 'run', 'model']
        assert list(one) == list(other) == names
        assert one['run'] == histories[0][0]['run'] != other['run'] == histories[1][0]['run']
        assert (
            (one['step'], one['examples']) == (other['step'], other['examples']) == (2 * i, 16 * i)
        )
        assert one['loss'] == pytest.approx(other['loss'], abs=1e-5)
        assert one['learning_rate'] == other['learning_rate'] == 0.1
    seconds = [entry['seconds'] for entry in histories[1]]
    assert seconds == sorted(seconds) and seconds[0] > 0


def test_a_larger_batch_resumes_from_the_examples_seen(
    synthetic_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(synthetic_data, tmp_path, max_steps=2)
    train(synthetic_data, tmp_path, max_steps=3, batch_size=20)
    assert '--batch_size was 8, is now 20' in capsys.readouterr().out
    assert checkpoint_values(tmp_path)['examples_seen'] == 36


def test_a_finished_run_is_left_as_it_is(
    synthetic_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(synthetic_data, tmp_path)
    train(synthetic_data, tmp_path)
    assert 'Nothing to do: step 2 has reached --max_steps=2' in capsys.readouterr().out
    assert checkpoint_values(tmp_path)['global_step'] == 2


def test_starting_over_removes_the_run_and_nothing_else(
    synthetic_data: Path, tmp_path: Path
) -> None:
    train(synthetic_data, tmp_path, max_steps=3, seed=1)
    (tmp_path / 'notes.txt').write_text('mine')
    train(synthetic_data, tmp_path, max_steps=1, start_over=True)
    assert checkpoint_values(tmp_path)['global_step'] == 1
    assert not list(tmp_path.glob('model.ckpt-3*'))
    assert (tmp_path / 'notes.txt').read_text() == 'mine'


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_with_a_checkpoint(
    synthetic_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    report = console.ConsoleHook.after_run

    def report_and_send(hook: console.ConsoleHook, *args: Any) -> None:
        report(hook, *args)
        if hook.step == 3:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(console.ConsoleHook, 'after_run', report_and_send)
    before = signal.getsignal(number)
    train(synthetic_data, tmp_path, max_steps=1000)

    assert checkpoint_values(tmp_path)['global_step'] == 3
    assert signal.getsignal(number) is before
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3].startswith(f'Stopped by {number.name} at step 3, saved in {tmp_path}')
    # All else is taken from the folder.
    assert lines[-1].startswith('To resume: ')
    assert [w for w in lines[-1].split() if w.startswith('--')] == [f'--train_dir={tmp_path}']


def test_a_run_in_a_thread_trains_and_leaves_signals_alone(
    synthetic_data: Path, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=train, args=[synthetic_data, tmp_path])
    thread.start()
    thread.join()
    assert checkpoint_values(tmp_path)['global_step'] == 2
    assert signal.getsignal(signal.SIGINT) is before


def test_an_ignored_signal_stays_ignored() -> None:
    """As by nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignalHook() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.received is None
            os.kill(os.getpid(), signal.SIGUSR2)
            assert stop.received == signal.SIGUSR2
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_schedule_at_its_end_is_not_resumed(
    synthetic_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Two steps of 8 of the 200 images.
    train(synthetic_data, tmp_path / 'ended', schedule='cosine', decay_epochs=16 / 200)
    output = capsys.readouterr()
    assert 'The learning rate is at its end, by --schedule=cosine' in output.out
    assert 'To resume' not in output.out and 'Warning: the learning rate' not in output.err

    train(synthetic_data, tmp_path / 'longer', schedule='cosine', decay_epochs=1.0)
    assert '--max_steps=25 ' in capsys.readouterr().out.splitlines()[-1] + ' '

    train(synthetic_data, tmp_path / 'shorter', schedule='cosine', decay_epochs=8 / 200)
    error = capsys.readouterr().err
    assert 'the learning rate is at its end after step 1,' in error
    assert 'but --max_steps is 2' in error


def test_a_train_dir_never_mixes_presets(synthetic_data: Path, tmp_path: Path) -> None:
    train(synthetic_data, tmp_path)
    with pytest.raises(UserError, match='--preset=fast: the run in .* by the preset tutorial'):
        train(synthetic_data, tmp_path, preset='fast', max_steps=3)
    assert RunFolder.open(str(tmp_path)).settings['preset'] is None
    train(synthetic_data, tmp_path, preset='tutorial', max_steps=3)
    assert checkpoint_values(tmp_path)['global_step'] == 3


def test_a_finished_run_keeps_its_settings(synthetic_data: Path, tmp_path: Path) -> None:
    train(synthetic_data, tmp_path)
    train(synthetic_data, tmp_path, learning_rate=0.5)
    assert RunFolder.open(str(tmp_path)).settings['learning_rate'] == 0.1


def test_a_step_that_is_not_finite_is_not_taken_and_names_the_first_bad_tensor(
    synthetic_data: Path, tmp_path: Path
) -> None:
    train(synthetic_data, tmp_path, max_steps=1)
    # Step 2 throws the weights far off, so that step 3 overflows.
    with pytest.raises(UserError) as error:
        train(synthetic_data, tmp_path, max_steps=50, learning_rate=1e30)
    pattern = (
        r'step 3: part_0/norm1/\w+: of [\d,]+ values 0 are NaN and [\d,]+ infinite; the step '
        r'was not taken; the last complete checkpoint is .*/model\.ckpt-1'
    )
    assert re.fullmatch(pattern, str(error.value))
    assert checkpoint_values(tmp_path)['global_step'] == 1
    assert not list(tmp_path.glob('model.ckpt-[23]*'))


def test_a_checkpoint_from_which_no_step_can_be_taken_is_passed_over(
    synthetic_data: Path, tmp_path: Path
) -> None:
    train(synthetic_data, tmp_path, max_steps=1)
    with pytest.raises(UserError, match=r'step 3: .*last complete checkpoint is .*ckpt-1$'):
        train(synthetic_data, tmp_path, max_steps=50, save_checkpoint_steps=1, learning_rate=1e30)
    # What step 2 led to is still there, and no longer the newest.
    assert list(tmp_path.glob('model.ckpt-2.index'))
    train(synthetic_data, tmp_path, max_steps=4)
    values = checkpoint_values(tmp_path)
    assert values['global_step'] == 4 and all(np.isfinite(v).all() for v in values.values())


def test_the_only_checkpoint_is_never_passed_over(synthetic_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'step 2: .*last complete checkpoint is .*ckpt-1$'):
        train(
            synthetic_data,
            tmp_path,
            max_steps=9,
            save_checkpoint_steps=1,
            max_to_keep=1,
            learning_rate=1e30,
        )


def test_weights_that_are_not_finite_are_not_saved(synthetic_data: Path, tmp_path: Path) -> None:
    # No gradient of the first step is finite times this rate; the gradients themselves are.
    with pytest.raises(UserError) as error:
        train(
            synthetic_data,
            tmp_path,
            max_steps=50,
            save_checkpoint_steps=1,
            learning_rate=float('inf'),
        )
    pattern = (
        r'after step 1: [\w/]+: of [\d,]+ values [\d,]+ are NaN and [\d,]+ infinite; no '
        r'checkpoint of it was written; the last complete checkpoint is .*/model\.ckpt-0'
    )
    assert re.fullmatch(pattern, str(error.value))
    assert not list(tmp_path.glob('model.ckpt-1*'))


def test_checkpoints_continue_where_the_clock_is_set_back(
    synthetic_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of day goes back an hour at each look, the time since the start goes on."""
    seconds = itertools.count()
    monkeypatch.setattr(hooks.time, 'time', lambda: 2e9 - 3600 * next(seconds))
    monkeypatch.setattr(hooks.time, 'monotonic', lambda: next(seconds))
    train(synthetic_data, tmp_path, max_steps=4, save_checkpoint_secs=1, max_to_keep=0)
    saved = sorted(path.stem for path in tmp_path.glob('*.index'))
    assert saved == [f'model.ckpt-{step}' for step in range(5)]
    assert checkpoint_values(tmp_path)['global_step'] == 4


def test_checkpoints_come_every_so_many_steps_and_some_are_kept(
    synthetic_data: Path, tmp_path: Path
) -> None:
    train(synthetic_data, tmp_path, max_steps=8, save_checkpoint_steps=3, max_to_keep=2)
    saved = sorted(path.stem for path in tmp_path.glob('*.index'))
    assert saved == ['model.ckpt-6', 'model.ckpt-8']


def test_other_training_files_than_before_are_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        directory = tmp_path / 'data' / 'synthetic-batches-bin'
        generate_synthetic(str(directory), 20, 5, seed)
        train(tmp_path / 'data', tmp_path / 'run', max_steps=1 + seed)
        shutil.rmtree(directory)
        warned = 'Warning: the training files are not those of the last run'
        assert (warned in capsys.readouterr().err) == (seed == 1)


# ------------------------------------------------------------------------ refusals


def test_a_train_dir_never_mixes_data_sets(
    synthetic_data: Path, tmp_path: Path, records: Path
) -> None:
    train(synthetic_data, tmp_path)
    with pytest.raises(UserError, match='--dataset=cifar10: the run in .* trained on synthetic'):
        train(records, tmp_path, dataset='cifar10', max_steps=3)
    assert checkpoint_values(tmp_path)['global_step'] == 2


def test_auto_resumes_with_the_data_that_the_run_began_with(
    synthetic_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    prepare = prepare_module.prepare

    def remember(
        data_dir: str, dataset: str, data_url: str, may_make: bool
    ) -> prepare_module.Prepared:
        asked.append((dataset, may_make))
        return prepare(data_dir, dataset, data_url, may_make=may_make)

    monkeypatch.setattr(prepare_module, 'prepare', remember)
    train(synthetic_data, tmp_path)
    train(synthetic_data, tmp_path, dataset='auto', max_steps=3)
    assert asked == [('synthetic', True), ('synthetic', False)]
    assert checkpoint_values(tmp_path)['global_step'] == 3


def test_a_batch_larger_than_the_data_is_refused(synthetic_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match='takes 201 examples, .* holds only 200 training images'):
        train(synthetic_data, tmp_path / 'run', batch_size=201)
    assert not (tmp_path / 'run').exists()


def test_a_train_dir_that_cannot_be_made_is_refused(synthetic_data: Path, tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='--train_dir=.*file/run: cannot be written'):
        train(synthetic_data, tmp_path / 'file' / 'run')


def test_held_out_images_of_few_classes_are_pointed_out(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One image is of one of ten classes."""
    train(records, tmp_path / 'few', dataset='cifar10', num_held_out=1)
    warning = 'Warning: the 1 held-out images have 1 of 10 classes, so that precision on them'
    assert warning in capsys.readouterr().err


def test_a_run_is_not_resumed_with_another_data_set_and_told_which(
    records: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    """Not sent back and forth between two flags."""
    train(synthetic_data, tmp_path)
    with pytest.raises(UserError, match=f'--data_dir={records}: holds no data set; expected the'):
        train(records, tmp_path, dataset=None, max_steps=4)
    assert not (records / 'synthetic-batches-bin').exists()
    train(records, tmp_path / 'cifar10', dataset='cifar10')
    with pytest.raises(UserError) as error:
        train(synthetic_data / 'synthetic-batches-bin', tmp_path / 'cifar10', dataset=None)
    assert str(error.value) == (
        f'{synthetic_data}/synthetic-batches-bin holds the synthetic set, as its synthetic.json '
        f'says: expected CIFAR-10; the run in {tmp_path}/cifar10 was trained on cifar10, in '
        f'{records}: leave --data_dir out, or name another --train_dir'
    )
