"""What a run survives: signals, damage, full disks, and more than one at a time."""

from __future__ import annotations

import os
import pty
import random
import re
import select
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from cifar10_lib.runs import history
from cifar10_lib.runs.checkpoints import CheckpointFolder
from tests.helpers import faults
from tests.helpers.faults import (
    ONE_DEVICE,
    TWO_TOWERS,
    evaluate_command,
    finish,
    newest_step,
    started,
    train_command,
)
from tests.helpers.scripts import script_command, script_environment

# How often a trainer is killed; `make faults` takes 50.
NUM_KILLS = int(os.environ.get('CIFAR10_FAULT_KILLS', '4'))


# -------------------------------------------------------------------- exact resume


@pytest.fixture(scope='module')
def unbroken(synthetic_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 60 steps on one device, in one go, evaluated in between."""
    train_dir = tmp_path_factory.mktemp('unbroken') / 'run'
    options = ['--max_steps=60', '--eval_every=25']
    output = finish(train_command(synthetic_data, train_dir, *ONE_DEVICE, *options))
    assert re.findall(r'precision @ 1 = .* \(step (\d+), 60 images\)', output) == ['25', '50', '60']
    return train_dir


def assert_same_history(first: Path, second: Path, loss_tolerance: float = 0.0) -> None:
    """Each step once, with the same bits, whatever evaluations were in between.

    The losses of towers and of one device are equal to rounding: see `faults.LOSS_AVERAGES`.
    """
    one, other = (
        [
            {name: entry[name] for name in ('step', 'examples', 'loss', 'learning_rate')}
            for entry in history.read(str(train_dir))
            if 'loss' in entry
        ]
        for train_dir in (first, second)
    )
    assert [entry['step'] for entry in one] == list(range(1, len(one) + 1))
    losses = [[entry.pop('loss') for entry in entries] for entries in (one, other)]
    assert one == other
    np.testing.assert_allclose(losses[0], losses[1], rtol=loss_tolerance)


def test_towers_take_the_same_steps_bit_by_bit(
    synthetic_data: Path, tmp_path: Path, unbroken: Path
) -> None:
    finish(train_command(synthetic_data, tmp_path / 'run', *TWO_TOWERS, '--max_steps=60'))
    faults.assert_bit_identical(tmp_path / 'run', unbroken, but=faults.LOSS_AVERAGES)
    assert_same_history(tmp_path / 'run', unbroken, loss_tolerance=1e-6)


def test_a_run_in_pieces_ends_bit_identical(
    synthetic_data: Path, tmp_path: Path, unbroken: Path
) -> None:
    """Stopped by steps and by each signal, with towers and one device taking turns."""
    train_dir = tmp_path / 'run'

    def command(trainer: tuple[str, ...], max_steps: int) -> list[str]:
        return train_command(synthetic_data, train_dir, *trainer, f'--max_steps={max_steps}')

    finish(command(ONE_DEVICE, 5))
    stops = [
        (TWO_TOWERS, signal.SIGINT, 10),
        (ONE_DEVICE, signal.SIGTERM, 20),
        (TWO_TOWERS, signal.SIGKILL, 35),
        (ONE_DEVICE, signal.SIGKILL, 45),
    ]
    for trainer, number, step in stops:
        with started(command(trainer, 1000)) as process:
            process.wait_for(f': step {step},')
            process.send(number)
            code = process.end()
            output = process.output()
        if number == signal.SIGKILL:
            assert code == -signal.SIGKILL
            assert newest_step(train_dir) % faults.STEPS_BETWEEN_CHECKPOINTS == 0
        else:
            # No finished step is lost.
            stopped = re.search(rf'Stopped by {number.name} at step (\d+)', output)
            assert code == 0 and stopped, output
            last_printed = int(re.findall(r': step (\d+),', output)[-1])
            assert newest_step(train_dir) == int(stopped[1]) == last_printed >= step
        assert newest_step(train_dir) < 60, 'the signal came too late for this test'
    finish(command(TWO_TOWERS, 60))
    faults.assert_bit_identical(train_dir, unbroken, but=faults.LOSS_AVERAGES)
    assert_same_history(train_dir, unbroken, loss_tolerance=1e-6)


def test_in_bfloat16_too_a_run_in_pieces_ends_bit_identical(
    synthetic_data: Path, tmp_path: Path
) -> None:
    for folder, max_steps in (('pieces', 5), ('pieces', 12), ('whole', 12)):
        options = ['--use_bf16', f'--max_steps={max_steps}']
        finish(train_command(synthetic_data, tmp_path / folder, *ONE_DEVICE, *options))
    faults.assert_bit_identical(tmp_path / 'pieces', tmp_path / 'whole')


@pytest.mark.parametrize('kind', ['terminal', 'pipe'])
def test_a_console_that_goes_away_does_not_end_training(
    synthetic_data: Path, tmp_path: Path, kind: str
) -> None:
    """A terminal that is closed, under nohup, and a pipe that nobody reads any more."""
    command = train_command(synthetic_data, tmp_path / 'run', *ONE_DEVICE, '--max_steps=300')
    ours, theirs = pty.openpty() if kind == 'terminal' else os.pipe()
    process = subprocess.Popen(
        command,
        stdout=theirs,
        stderr=theirs,
        env=script_environment(),
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    os.close(theirs)
    with process:
        while newest_step(tmp_path / 'run') < 7:
            if select.select([ours], [], [], 0.01)[0]:
                os.read(ours, 1000)
        os.close(ours)
    assert process.returncode == 0
    assert newest_step(tmp_path / 'run') == 300
    (lost,) = [e for e in history.read(str(tmp_path / 'run')) if 'console' in e]
    assert lost['step'] >= 7
    reason = 'Input/output error' if kind == 'terminal' else 'Broken pipe'
    assert lost['console'] == reason


def test_a_second_ctrl_c_ends_at_once(synthetic_data: Path, tmp_path: Path) -> None:
    # A step of this batch takes longer than the time between the two signals.
    command = train_command(
        synthetic_data, tmp_path / 'run', 'cifar10_train.py', '--batch_size=200', '--max_steps=1000'
    )
    with started(command) as process:
        process.wait_for(': step 2,')
        process.send(signal.SIGINT)
        process.send(signal.SIGINT)
        code = process.end()
        output = process.output()
    # Both may reach the handler as one.
    assert code == -signal.SIGINT or 'Stopped by SIGINT' in output


def test_killed_at_random_moments_it_always_resumes(synthetic_data: Path, tmp_path: Path) -> None:
    """With an evaluator beside it, which never fails."""
    seed = int(os.environ.get('CIFAR10_FAULT_SEED', '0'))
    moments = random.Random(seed)
    train_dir, killed = tmp_path / 'run', []
    command = train_command(synthetic_data, train_dir, *ONE_DEVICE)
    evaluate = evaluate_command(
        synthetic_data, train_dir, tmp_path / 'eval', '--eval_interval_secs=1'
    )
    with started(evaluate) as evaluator:
        for _ in range(NUM_KILLS):
            before = newest_step(train_dir)
            with started(command) as process:
                killed.append(faults.kill_at_a_random_moment(process, train_dir, moments))
                gone_on_from = faults.step_gone_on_from(process.output())
            assert gone_on_from is None or gone_on_from >= before
            assert newest_step(train_dir) >= before
        last = newest_step(train_dir) + 20
        output = finish([*command, f'--max_steps={last}'])
        assert faults.step_gone_on_from(output) == last - 20
        evaluator.wait_for(f'(step {last},')
        assert evaluator.is_running()
        scored = evaluator.output()
    print(f'killed at seed {seed}: {", ".join(killed)}; {last} steps')
    assert 'Traceback' not in scored and 'eval.py: error' not in scored, scored

    finish(train_command(synthetic_data, tmp_path / 'unbroken', *ONE_DEVICE, f'--max_steps={last}'))
    faults.assert_bit_identical(train_dir, tmp_path / 'unbroken')
    assert_same_history(train_dir, tmp_path / 'unbroken')


# ------------------------------------------------------------------------- damage


def damage(train_dir: Path, step: int) -> None:
    data = train_dir / f'model.ckpt-{step}.data-00000-of-00001'
    os.truncate(data, data.stat().st_size // 2)


def test_training_and_evaluation_fall_back_from_a_damaged_checkpoint(
    synthetic_data: Path, tmp_path: Path, unbroken: Path
) -> None:
    train_dir = tmp_path / 'run'
    shutil.copytree(unbroken, train_dir)
    damage(train_dir, 60)
    evaluate = evaluate_command(synthetic_data, train_dir, tmp_path / 'eval', '--run_once')
    warning = (
        rf'Warning: {train_dir}/model\.ckpt-60: not a readable checkpoint: .*; '
        rf'falling back to {train_dir}/model\.ckpt-56'
    )
    output = finish(evaluate)
    assert re.search(warning, output) and '(step 56, 60 images)' in output
    output = finish(train_command(synthetic_data, train_dir, *ONE_DEVICE, '--max_steps=60'))
    assert re.search(warning, output) and faults.step_gone_on_from(output) == 56
    faults.assert_bit_identical(train_dir, unbroken)
    assert_same_history(train_dir, unbroken)


def test_without_a_whole_checkpoint_nothing_is_done(
    synthetic_data: Path, tmp_path: Path, unbroken: Path
) -> None:
    train_dir = tmp_path / 'run'
    shutil.copytree(unbroken, train_dir)
    steps = [int(path.stem.rpartition('-')[2]) for path in train_dir.glob('*.index')]
    assert len(steps) == 5
    for step in steps:
        damage(train_dir, step)
    before = sorted(path.name for path in train_dir.iterdir())
    with started(train_command(synthetic_data, train_dir, *ONE_DEVICE)) as process:
        assert process.end() == 1
        output = process.output()
    assert 'Traceback' not in output
    (error,) = [line for line in output.splitlines() if 'error:' in line]
    assert 'holds no complete checkpoint, and nothing was deleted' in error
    assert all(f'model.ckpt-{step}: not a readable checkpoint' in error for step in steps)
    assert sorted(path.name for path in train_dir.iterdir()) == before


# ---------------------------------------------------- folders, disks and other runs


def test_a_second_trainer_refuses_and_names_the_first(synthetic_data: Path, tmp_path: Path) -> None:
    command = train_command(synthetic_data, tmp_path / 'run', *ONE_DEVICE)
    with started(command) as first:
        first.wait_for(': step 3,')
        towers = train_command(synthetic_data, tmp_path / 'run', *TWO_TOWERS, '--start_over')
        with started(towers) as second:
            assert second.end() == 1
            output = second.output()
        pid = first._process.pid
        assert f'--train_dir={tmp_path}/run: in use by process {pid} on ' in output
        assert 'cifar10_train.py' in output and 'Traceback' not in output
        first.send(signal.SIGTERM)
        assert first.end() == 0, first.output()


def describe_failure(process: faults.Process) -> str:
    """The one error of a process that fails as it should."""
    assert process.end() == 1, process.output()
    assert 'Traceback' not in process.output()
    (error,) = [line for line in process.output().splitlines() if 'error:' in line]
    return error


@pytest.mark.parametrize('replaced', [False, True])
def test_a_train_dir_that_vanishes_ends_the_run(
    synthetic_data: Path, tmp_path: Path, replaced: bool
) -> None:
    train_dir = tmp_path / 'run'
    with started(train_command(synthetic_data, train_dir, *ONE_DEVICE)) as process:
        process.wait_for(': step 3,')
        train_dir.rename(tmp_path / 'away')
        if replaced:
            train_dir.mkdir()
            (train_dir / 'mine').write_text('mine')
        error = describe_failure(process)
    assert f'--train_dir={train_dir}: was removed or replaced while in use' in error
    if replaced:
        assert [path.name for path in train_dir.iterdir()] == ['mine']
    else:
        assert not train_dir.exists()
    assert CheckpointFolder(str(tmp_path / 'away')).newest_complete()


CHANGES = {
    'truncated': lambda path: os.truncate(path, 3073),
    'cut in a record': lambda path: os.truncate(path, 5000),
    'removed': lambda path: path.unlink(),
    'overwritten': lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@pytest.mark.parametrize('change', CHANGES)
def test_training_files_that_change_end_the_run(
    synthetic_data: Path, tmp_path: Path, change: str
) -> None:
    shutil.copytree(synthetic_data, tmp_path / 'data')
    path = tmp_path / 'data' / 'synthetic-batches-bin' / 'data_batch_3.bin'
    with started(train_command(tmp_path / 'data', tmp_path / 'run', *ONE_DEVICE)) as process:
        process.wait_for(': step 3,')
        CHANGES[change](path)
        newest = newest_step(tmp_path / 'run')
        error = describe_failure(process)
    assert f'error: {path}: ' in error
    assert 'changed while it was read' in error or 'cannot be read any more' in error
    # Nothing was saved of what may have been trained on the changed file, but the one
    # checkpoint that was being written as it changed.
    assert newest_step(tmp_path / 'run') <= newest + faults.STEPS_BETWEEN_CHECKPOINTS


def test_a_checkpoint_too_large_for_the_disk_leaves_none(
    synthetic_data: Path, tmp_path: Path
) -> None:
    """A limit on the size of files acts as a disk that is full in the middle of one."""
    command = train_command(synthetic_data, tmp_path / 'run', *ONE_DEVICE)
    limited = ['bash', '-c', 'ulimit -f 5000; exec "$@"', 'bash', *command]
    with started(limited) as process:
        error = describe_failure(process)
    assert 'model.ckpt-0: cannot be written: ' in error and 'File too large' in error
    assert error.endswith('; there is no checkpoint')
    assert not list((tmp_path / 'run').glob('model.ckpt*'))
    assert not (tmp_path / 'run' / 'unfinished').exists()


def in_new_mounts(commands: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a shell script that may mount file systems, which are gone when it ends."""
    unshare = ['unshare', '--map-root-user', '--mount']
    if not shutil.which('unshare') or subprocess.run([*unshare, 'true']).returncode:
        pytest.skip('this machine lets nobody mount file systems in a name space of their own')
    return subprocess.run(
        [*unshare, 'bash', '-c', commands, 'bash', *arguments],
        env=script_environment(),
        capture_output=True,
        text=True,
        timeout=faults.TIMEOUT_SECONDS,
    )


def test_a_full_disk_leaves_the_checkpoint_before(synthetic_data: Path, tmp_path: Path) -> None:
    (tmp_path / 'disk').mkdir()
    train_dir = tmp_path / 'disk' / 'run'
    result = in_new_mounts(
        'mount -t tmpfs -o size=24m tmpfs "$1" || exit 99; shift; "${@:2}"; code=$?;'
        'cp -r "$DISK/run" "$1"; exit $code'.replace('$DISK', str(tmp_path / 'disk')),
        str(tmp_path / 'disk'),
        str(tmp_path / 'copy'),
        *train_command(synthetic_data, train_dir, *ONE_DEVICE),
    )
    assert result.returncode == 1 and 'Traceback' not in result.stderr, result.stderr
    assert f'{train_dir}/model.ckpt-14: cannot be written: ' in result.stderr
    assert 'No space left on device' in result.stderr
    assert f'; the last complete checkpoint is {train_dir}/model.ckpt-7' in result.stderr
    assert not (tmp_path / 'copy' / 'unfinished').exists()
    output = finish(train_command(synthetic_data, tmp_path / 'copy', *ONE_DEVICE, '--max_steps=20'))
    assert faults.step_gone_on_from(output) == 7 and 'Warning' not in output


@pytest.mark.parametrize(
    ('script', 'options', 'message'),
    [
        ('cifar10_eval.py', ['--run_once', '--eval_dir=DISK/eval'], 'summaries: cannot be written'),
        ('cifar10_eval.py', ['--run_once', '--report=DISK/report'], 'report/index.html: No space'),
        ('cifar10_export.py', ['--output=DISK/export'], '--output=DISK/export: cannot be'),
        ('cifar10_plot.py', ['RUN', '--output=DISK/plot.png'], '--output=DISK/plot.png: cannot'),
        ('cifar10_predict.py', ['--index=0', '--output=DISK/p.png'], '--output=DISK/p.png: cannot'),
        ('cifar10_data.py', ['--dataset=synthetic', '--data_dir=DISK/data'], 'synthetic-batches'),
    ],
)
def test_a_full_disk_is_one_error_and_leaves_nothing_half_written(
    unbroken: Path, tmp_path: Path, script: str, options: list[str], message: str
) -> None:
    disk = tmp_path / 'disk'
    disk.mkdir()
    run = shutil.copytree(unbroken, tmp_path / 'run')
    options = [option.replace('DISK', str(disk)).replace('RUN', str(run)) for option in options]
    if script not in ('cifar10_data.py', 'cifar10_plot.py'):
        options.append(f'--checkpoint_dir={run}')
    result = in_new_mounts(
        'mount -t tmpfs -o size=64k tmpfs "$1" && head -c 56k /dev/zero > "$1/full" || exit 99;'
        'disk=$1; shift; "$@"; code=$?; echo; find "$disk" -type f -size +0; exit $code',
        str(disk),
        *script_command(script, *options),
    )
    assert result.returncode == 1 and 'Traceback' not in result.stderr, result.stderr
    assert message.replace('DISK', str(disk)) in result.stderr
    assert 'No space left on device' in result.stderr and 'function_node' not in result.stderr
    left = [Path(line).name for line in result.stdout.rpartition('\n\n')[2].split()]
    # TensorFlow's file of summaries is written as it goes.
    assert [name for name in left if not name.startswith('events.')] == ['full']


def test_a_read_only_folder_is_refused(synthetic_data: Path, tmp_path: Path) -> None:
    result = in_new_mounts(
        'mount -t tmpfs -o ro tmpfs "$1" || exit 99; shift; exec "$@"',
        str(tmp_path),
        *train_command(synthetic_data, tmp_path, *ONE_DEVICE),
    )
    assert result.returncode == 1 and 'Traceback' not in result.stderr, result.stderr
    assert f'--train_dir={tmp_path}: cannot be written: Read-only file system' in result.stderr


def test_an_evaluator_outlives_the_checkpoints_it_reads(
    synthetic_data: Path, tmp_path: Path, unbroken: Path
) -> None:
    """Each checkpoint is there for a moment only."""
    train_dir = tmp_path / 'run'
    evaluate = evaluate_command(
        synthetic_data, train_dir, tmp_path / 'eval', '--eval_interval_secs=1'
    )
    with started(evaluate) as evaluator:
        for _ in range(4):
            shutil.copytree(unbroken, tmp_path / 'next')
            (tmp_path / 'next').rename(train_dir)
            evaluator.wait_until(lambda: 'precision' in evaluator.output())
            shutil.rmtree(train_dir)
        shutil.copytree(unbroken, tmp_path / 'next')
        (tmp_path / 'next' / 'checkpoint').write_text('model_checkpoint_path: "model.ckpt-56"\n')
        (tmp_path / 'next').rename(train_dir)
        evaluator.wait_for('(step 56,')
        assert evaluator.is_running() and 'Traceback' not in evaluator.output()
