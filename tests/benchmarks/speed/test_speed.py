"""Tests of the benchmark: its arithmetic, its turns, and its peers. None measures time."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import tensorflow.compat.v1 as tf

from benchmarks.flags import parse_names
from benchmarks.processes import child_environment
from benchmarks.speed import __main__ as speed
from benchmarks.speed import flops, report, turns
from benchmarks.speed.worker import CONSTANT, EVALUATION, INPUT, TASKS, TRAIN, Ticker
from cifar10_lib.base.errors import UserError
from cifar10_lib.nn import networks
from tests.helpers.benchmarks import finite_losses
from tests.helpers.scripts import REPOSITORY, script_environment

# ------------------------------------------------------------------------- flops


def test_flops_of_a_training_step() -> None:
    forward = {
        'conv1': 24 * 24 * 64 * 75,
        'conv2': 12 * 12 * 64 * 1600,
        'local3': 2304 * 384,
        'local4': 384 * 192,
        'softmax_linear': 1920,
    }
    assert {layer.name: layer.multiply_adds for layer in flops.layers()} == forward
    assert flops.forward_flops() == 36_941_568
    assert flops.training_flops() == 105_295_104


def test_flops_of_other_networks() -> None:
    logistic = networks.NETWORKS['logistic']
    assert flops.forward_flops(logistic) == 2 * 32 * 32 * 3 * 10
    # The forward pass and the gradient for the weights.
    assert flops.training_flops(logistic) == 2 * flops.forward_flops(logistic)

    def untrained(images: tf.Tensor, options: object) -> tf.Tensor:
        weights = tf.get_variable('logits/weights', [3072, 10], trainable=False)
        return tf.matmul(tf.reshape(images, [-1, 3072]), weights)

    untrained_logistic = logistic._replace(inference=untrained)
    assert flops.training_flops(untrained_logistic) == flops.forward_flops(logistic)
    small = networks.NETWORKS['small_cnn']
    assert {layer.name: layer.multiply_adds for layer in flops.layers(small)} == {
        'conv1': 30 * 30 * 32 * 27,
        'conv2': 13 * 13 * 64 * 288,
        'softmax_linear': 6 * 6 * 64 * 10,
    }


# ------------------------------------------------------------------------- report

ROW = report.Row(
    'training',
    'examples/s',
    {'tutorial': [100.0, 50.0, 200.0], 'this project': [300.0, 100.0, 500.0]},
    flops=10**9,
    gflops=[400.0, 200.0, 1000.0],
)


def test_ratios_are_taken_within_a_round() -> None:
    summary = report.summarize(ROW, 'this project')
    assert summary == report.Summary(
        300.0, 100.0, 500.0, ratio=2.5, torch_ratio=None, ceiling_fraction=0.5
    )
    # Not 3.0, the ratio of the medians, which come from rounds of different noise.


def test_ratios_are_to_the_first_variant_and_need_no_ceiling() -> None:
    row = report.Row('input', 'examples/s', {'this project': [2.0], 'a peer': [1.0]})
    assert report.summarize(row, 'this project')[3:] == (1.0, None, None)
    assert cells(report.table(row)) == [
        ['variant', 'median', 'lowest to highest', 'to first'],
        ['this project', '2', '2 to 2', '1.00'],
        ['a peer', '1', '1 to 1', '0.50'],
    ]


def test_ratios_to_pytorch_are_to_its_fastest_form_in_the_same_precision() -> None:
    values = {
        'this project': [300.0, 300.0],
        'this project in bfloat16': [600.0, 900.0],
        'PyTorch': [150.0, 100.0],
        'PyTorch plain': [100.0, 50.0],
        'PyTorch in bfloat16': [300.0, 300.0],
    }
    row = report.Row('training', 'examples/s', values)
    ratios = {name: report.summarize(row, name).torch_ratio for name in values}
    assert ratios == {
        'this project': 2.5,
        'this project in bfloat16': 2.5,
        'PyTorch': 1.0,
        'PyTorch plain': pytest.approx(7 / 12),
        'PyTorch in bfloat16': 1.0,
    }
    seconds = row._replace(unit='s')
    assert report.summarize(seconds, 'this project').torch_ratio is None


def test_the_ceiling_is_of_float32_in_bfloat16_too() -> None:
    values = {'this project': [300.0], 'this project in bfloat16': [500.0]}
    row = report.Row('training', 'examples/s', values, flops=2 * 10**9, gflops=[800.0])
    assert row.ceiling == [400.0]
    assert report.summarize(row, 'this project in bfloat16').ceiling_fraction == 1.25


def cells(table: str) -> list[list[str]]:
    """The cells of a table's lines, but for the rule under its header."""
    header, _, *lines = [line for line in table.splitlines() if line.startswith('|')]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in (header, *lines)]


def test_table() -> None:
    table = report.table(ROW)
    assert table.startswith('training, examples/s:\n\n| variant')
    assert cells(table) == [
        ['variant', 'median', 'lowest to highest', 'to first', 'GFLOP/s', 'of ceiling'],
        ['tutorial', '100', '50 to 200', '1.00', '100', '25%'],
        ['this project', '300', '100 to 500', '2.50', '300', '50%'],
        ['ceiling', '400', '200 to 1,000', '', '400', '100%'],
    ]
    assert len({len(line) for line in table.splitlines()[2:]}) == 1


def test_rows_of_starts() -> None:
    starts = {
        'tutorial': [turns.Start(6.0, 10**9), turns.Start(8.0, 10**9)],
        'this project': [turns.Start(3.0, 5 * 10**8), turns.Start(2.0, 5 * 10**8)],
    }
    seconds, memory = (cells(report.table(row)) for row in report.start_rows(starts))
    assert seconds[2] == ['this project', '2.5', '2.0 to 3.0', '0.38']
    assert memory[2] == ['this project', '500', '500 to 500', '0.50']


def test_sweep_table() -> None:
    row = report.Row('batch 128', 'examples/s', {'float32': [12800.0], 'float16': [25600.0]})
    line = report.sweep_table({128: row}).splitlines()[2]
    assert line.split(' | ')[1:] == [
        '10.00 ms (10.00 to 10.00)',
        '5.00 ms (5.00 to 5.00)',
        '2.00     |',
    ]


def test_figure(tmp_path: Path) -> None:
    speed.write_figure(
        str(tmp_path / 'figure.svg'), [ROW._replace(title=speed.TITLES[TRAIN])], 'a machine'
    )
    assert 'figure.svg' in os.listdir(tmp_path)
    with pytest.raises(UserError, match=r'--output=.*cannot be written'):
        speed.write_figure(
            str(tmp_path / 'none' / 'figure.svg'), [ROW._replace(title=speed.TITLES[TRAIN])], ''
        )


# ------------------------------------------------------------------------- turns

# Notes in a file when it takes each of its steps.
WORKER = """
    import datetime, sys, time
    name, folder, rate, last = sys.argv[1:]
    for step in range(1, int(last) + 1):
        with open(f'{folder}/log', 'a') as log:
            log.write(f'{name}\\n')
        print(f'{datetime.datetime.now()}: step {step}, loss = 1.00 ({rate} examples/sec; '
              '0.500 sec/batch)', flush=True)
        time.sleep(0.02)
    print('out of steps', flush=True)
"""


@pytest.fixture
def command(tmp_path: Path):
    """Gives the command of a fake worker: its name, its rate, and its number of steps."""
    script = tmp_path / 'worker.py'
    script.write_text(textwrap.dedent(WORKER))

    def make(name: str, rate: float = 100.0, last: int = 10**9) -> list[str]:
        return [sys.executable, str(script), name, str(tmp_path), str(rate), str(last)]

    return make


def count_runs(names: list[str]) -> list[tuple[str, int]]:
    """The names without repetitions, each with its number of repetitions."""
    runs: list[tuple[str, int]] = []
    for name in names:
        if runs and runs[-1][0] == name:
            runs[-1] = name, runs[-1][1] + 1
        else:
            runs.append((name, 1))
    return runs


def running(folder: Path) -> list[str]:
    """Command lines of processes that mention the folder, stopped ones too."""
    found = []
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            line = path.read_text()
        except OSError:
            continue
        if str(folder / 'worker.py') in line:
            found.append(line)
    return found


def test_workers_take_turns(tmp_path: Path, command) -> None:
    commands = {'a': command('a', 100.0), 'b': command('b', 200.0)}
    rates = turns.take_turns(commands, os.environ, 3, {'a': 3, 'b': 3}, warm_up_lines=2)
    assert rates == {'a': [pytest.approx(100.0)] * 3, 'b': [pytest.approx(200.0)] * 3}
    # Warm-up of both, then the rounds: a b, b a, a b.
    order = count_runs((tmp_path / 'log').read_text().split())
    assert [name for name, _ in order] == ['a', 'b', 'a', 'b', 'a', 'b']
    # A turn has a line more than it counts; two turns on end have eight.
    assert min(steps for _, steps in order) >= 2
    assert order[2][1] >= 4
    assert order[3][1] >= 8
    assert order[4][1] >= 8
    assert running(tmp_path) == []


def test_a_paused_worker_does_nothing(tmp_path: Path, command) -> None:
    with turns.Worker('a', command('a'), os.environ) as worker:
        worker.next_line()
        worker.pause()
        time.sleep(0.1)
        before = (tmp_path / 'log').read_text()
        time.sleep(0.2)
        assert (tmp_path / 'log').read_text() == before
    assert running(tmp_path) == []


def test_the_rate_of_a_turn_is_examples_by_time(tmp_path: Path) -> None:
    """Two lines of as many steps, at 100 and at 300 a second, are 150 a second."""
    script = tmp_path / 'worker.py'
    script.write_text(
        textwrap.dedent(WORKER).replace('({rate} ex', '({100 + 200 * (step % 2)}.0 ex')
    )
    command = [sys.executable, str(script), 'a', str(tmp_path), '0', '1000000']
    rates = turns.take_turns({'a': command}, os.environ, 1, {'a': 2}, warm_up_lines=1)
    assert rates == {'a': [pytest.approx(150.0)]}


def test_an_error_ends_every_worker(tmp_path: Path, command) -> None:
    commands = {'a': command('a'), 'b': command('b', last=4)}
    with pytest.raises(UserError, match='b: ended before its last turn: out of steps'):
        turns.take_turns(commands, os.environ, 3, {'a': 3, 'b': 3}, warm_up_lines=1)
    assert running(tmp_path) == []


def test_an_interrupt_ends_every_worker(tmp_path: Path, command, monkeypatch) -> None:
    def interrupted(worker: turns.Worker, num_lines: int) -> float:
        assert len(running(tmp_path)) == 2
        raise KeyboardInterrupt

    monkeypatch.setattr(turns.Worker, 'take_turn', interrupted)
    with pytest.raises(KeyboardInterrupt):
        turns.take_turns({'a': command('a'), 'b': command('b')}, os.environ, 1, {'a': 1, 'b': 1}, 1)
    assert running(tmp_path) == []


def test_a_hung_worker_is_an_error(tmp_path: Path) -> None:
    command = [sys.executable, '-c', 'import time; time.sleep(60)']
    with (
        turns.Worker('a', command, os.environ, patience=0.1) as worker,
        pytest.raises(UserError, match='a: no line in 0 seconds'),
    ):
        worker.next_line()


def test_a_start_is_measured(command) -> None:
    start = turns.measure_start('a', command('a'), os.environ, steps=3)
    # From the process's start to the first line, whose step took half a second, it said.
    assert -0.5 < start.first_step_seconds < 5
    assert 10**6 < start.peak_bytes < 10**10


def test_lines_that_are_none() -> None:
    assert turns.parse_line('Data: 200 training images') is None
    line = turns.parse_line(
        '2026-11-22 02:05:22.276109: step 20 (250.1 GFLOP/sec; 0.069 sec/product)'
    )
    assert line is not None
    assert (line.step, line.rate, line.seconds) == (20, 250.1, 0.069)


def test_ticker(capsys: pytest.CaptureFixture[str]) -> None:
    ticker = Ticker(128, log_frequency=2)
    for _ in range(4):
        ticker.tick(lambda: 1.0)
    output = capsys.readouterr().out
    lines = [turns.parse_line(text) for text in output.splitlines()]
    assert [line.step for line in lines if line] == [2, 4]
    assert finite_losses(output) == [1.0, 1.0]


# -------------------------------------------------------------------------- script


def test_wrong_rows() -> None:
    assert parse_names('all', speed.ROWS, 'rows') == list(speed.ROWS)
    assert parse_names('input,train', speed.ROWS, 'rows') == ['input', 'train']
    with pytest.raises(UserError, match="--rows: found 'speed'; expected train, constant"):
        parse_names('train,speed', speed.ROWS, 'rows')


def run_benchmark(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, '-m', 'benchmarks.speed', *options],
        cwd=REPOSITORY,
        env=script_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_machine_without_gpu_is_told_so(synthetic_data: Path) -> None:
    if tf.config.list_physical_devices('GPU'):
        pytest.skip('there is a GPU')
    done = run_benchmark('--device=gpu', f'--data_dir={synthetic_data}', '--dataset=synthetic')
    assert done.returncode == 1
    assert re.search(r'--device=gpu: TensorFlow \S+ finds no GPU, only /\S+CPU:0', done.stderr)


def test_missing_torch_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.find_torch('/no/python', child_environment('cpu')) is None
    assert 'PyTorch: left out, /no/python' in capsys.readouterr().out


@pytest.fixture
def bench(synthetic_data: Path, tmp_path: Path) -> speed.Bench:
    """The shortest benchmark on synthetic images, without PyTorch."""
    settings = speed.BenchmarkSettings(
        data_dir=str(synthetic_data),
        dataset='synthetic',
        batch_size=8,
        rounds=1,
        lines=1,
        log_frequency=2,
    )
    directory = str(synthetic_data / 'synthetic-batches-bin')
    found = {
        'directory': directory,
        'multiplies_bf16': True,
        'training_flops': 10**8,
        'forward_flops': 10**7,
    }
    return speed.Bench(settings, found, child_environment('cpu'), None, False, str(tmp_path))


def test_a_row_of_all_variants(bench: speed.Bench) -> None:
    row = speed.measure_row(bench, TRAIN)
    assert list(row.values) == ['tutorial', 'this project', 'this project in bfloat16', 'Keras fit']
    assert all(rate > 0 for rates in row.values.values() for rate in rates)
    assert row.ceiling is not None
    assert row.ceiling[0] > 0


def variants(bench: speed.Bench, task: str, preset: str) -> dict[str, list[str]]:
    settings = dataclasses.replace(bench.settings, preset=preset)
    return speed.task_commands(bench._replace(settings=settings), task, log_frequency=2)


@pytest.mark.parametrize('multiplies_bf16', [True, False, None])
def test_a_preset_without_peers(bench: speed.Bench, multiplies_bf16: bool | None) -> None:
    bench.surroundings['multiplies_bf16'] = multiplies_bf16
    for task in TASKS:
        commands = variants(bench._replace(torch_python='python'), task, 'small_cnn')
        has_bf16 = bool(multiplies_bf16) and task in (TRAIN, CONSTANT)
        assert list(commands) == ['this project', *(['this project in bfloat16'] * has_bf16)]
        assert all('--preset=small_cnn' in command for command in commands.values())
        train_dirs = [o for c in commands.values() for o in c if o.startswith('--train_dir')]
        assert len(set(train_dirs)) == len(train_dirs)


def test_forms_and_precisions_of_pytorch(bench: speed.Bench) -> None:
    bench = bench._replace(torch_python='python', compiles_torch=True)
    tutorial = ['PyTorch', 'PyTorch plain', 'PyTorch in bfloat16']
    airbench = ['PyTorch', 'PyTorch compiled']
    airbench += [f'{name} in bfloat16' for name in airbench]
    commands = variants(bench, TRAIN, 'tutorial')
    assert [name for name in commands if name.startswith('PyTorch')] == tutorial
    commands = variants(bench, TRAIN, 'airbench94')
    assert list(commands) == ['this project', 'this project in bfloat16', *airbench]
    assert commands['PyTorch compiled in bfloat16'][-2:] == ['--compiled', '--use_bf16']
    assert '--preset=airbench94' in commands['PyTorch']
    assert list(variants(bench, EVALUATION, 'airbench94')) == ['this project', *airbench[:2]]
    assert list(variants(bench, INPUT, 'airbench94')) == ['this project', 'PyTorch']
    commands = variants(bench._replace(compiles_torch=False), CONSTANT, 'airbench94')
    assert not any('compiled' in name for name in commands)


def test_a_missing_compiler_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    environment = {'CXX': '/no/compiler'}
    assert not speed.find_compiler('tutorial', environment)
    assert capsys.readouterr().out == ''
    assert not speed.find_compiler('airbench94', environment)
    assert 'PyTorch compiled: left out, there is no /no/compiler' in capsys.readouterr().out


def test_a_preset_that_there_is_none_of_is_named(synthetic_data: Path) -> None:
    done = run_benchmark('--preset=large', f'--data_dir={synthetic_data}', '--dataset=synthetic')
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert '--preset=large' in done.stderr and 'small_cnn' in done.stderr


def test_a_sweep(bench: speed.Bench) -> None:
    rows = speed.measure_sweep(bench, batch_sizes=[4])
    assert list(rows) == [4]
    assert 'float16' in report.sweep_table(rows)


def test_a_wrong_flag_is_one_clear_error() -> None:
    done = run_benchmark('--rows=none')
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "speed: error: --rows: found 'none'; expected train, constant, input, evaluation, start; "
        'or all'
    )
