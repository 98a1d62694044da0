"""How fast? Measures the tutorial, this project, Keras and PyTorch side by side.

    python -m benchmarks.speed --output=benchmark.png

prints a table and draws a figure. Each variant is a process of its own; the processes
take turns of a few seconds over several rounds (`turns.py`), warmed up before the
first, and the table gives the median over the rounds, the spread, and the ratio to
the first variant within the same round. The ceiling is a large float32 matrix
product, in turns like the others, divided by the network's floating-point operations
for an example (`flops.py`).

Where the processor multiplies bfloat16, training with --use_bf16 is one more variant;
float32's ceiling is none for it. The peers are written for the tutorial's network:
with another --model this project is measured alone.

PyTorch is measured where it is installed: pip install -r benchmarks/requirements.txt,
or --torch_python for an environment of its own.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import REPOSITORY
from benchmarks.speed import report, turns
from benchmarks.speed.machine import cpu_line, gpu_model
from benchmarks.speed.report import BF16, PROJECT, TUTORIAL, Row
from benchmarks.speed.worker import CONSTANT, EVALUATION, INPUT, TRAIN
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import run_script, setting

KERAS, TORCH, CEILING = 'Keras fit', 'PyTorch', 'ceiling'

STARTS, SWEEP = 'start', 'sweep'
ROWS = (TRAIN, CONSTANT, INPUT, EVALUATION, STARTS)

TITLES = {
    TRAIN: 'training end to end',
    CONSTANT: 'training on a constant batch',
    INPUT: 'input alone',
    EVALUATION: 'evaluation',
}

SWEEP_BATCH_SIZES = (128, 256, 512, 1024, 2048)

# Steps of a started process until it is ended: the first checkpoint and summaries,
# which come at the first step, are part of the peak memory.
START_STEPS = 20

# A turn of the ceiling lasts about as long as the others' do on 2 CPU cores.
CEILING_LINES = 5


@dataclasses.dataclass(frozen=True)
class BenchmarkSettings:
    """What to measure, and how long."""

    data_dir: str = setting('cifar10_data', 'Folder of the data set, filled if it is empty.')
    dataset: str = setting('cifar10', 'The images: cifar10, synthetic, or auto.')
    output: str = setting('benchmark.png', 'The figure to write: .png or .svg.')
    rows: str = setting('all', f'What to measure, separated by commas: {", ".join(ROWS)}; or all.')
    rounds: int = setting(5, 'Turns of each variant.', at_least=1)
    lines: int = setting(10, 'Console lines in a turn; of evaluation, a fifth.', at_least=1)
    log_frequency: int = setting(10, 'Training steps in a console line.', at_least=2)
    starts: int = setting(3, 'Starts of each variant.', at_least=1)
    batch_size: int = setting(
        0, "Images in a training batch; 0: those of the network's own recipe.", at_least=0
    )
    model: str = setting('tutorial', 'The network, as cifar10_train.py names it.')
    device: str = setting('cpu', 'Where the network runs: cpu or gpu.', choices=('cpu', 'gpu'))
    torch_python: str = setting(None, 'Interpreter that has PyTorch; by default this one.')


class Bench(NamedTuple):
    """All that measuring a row needs to know."""

    settings: BenchmarkSettings
    found: dict[str, Any]
    """As `surroundings.py` prints it."""
    environment: dict[str, str]
    torch_python: str | None
    """None: PyTorch is left out."""
    scratch: str
    """Folder for training folders; removed at the end."""


# ------------------------------------------------------------------- surroundings


def child_environment(device: str) -> dict[str, str]:
    """The environment of every measured process."""
    environment = {
        **os.environ,
        'PYTHONPATH': os.pathsep.join(filter(None, [str(REPOSITORY), os.getenv('PYTHONPATH')])),
        'PYTHONUNBUFFERED': '1',
        'TF_CPP_MIN_LOG_LEVEL': '3',
        # By default TensorFlow takes all of a GPU's memory, and there are several processes.
        'TF_FORCE_GPU_ALLOW_GROWTH': 'true',
    }
    if device == 'cpu':
        environment['CUDA_VISIBLE_DEVICES'] = '-1'
    return environment


def find_surroundings(settings: BenchmarkSettings, environment: dict[str, str]) -> dict[str, Any]:
    """Data, devices and versions, as `surroundings.py` finds them.

    Raises:
      UserError: the data cannot be had, or --device=gpu finds none.
    """
    command = _module(
        'speed.surroundings',
        data_dir=settings.data_dir,
        dataset=settings.dataset,
        model=settings.model,
    )
    found = json.loads(turns.run_to_end(command, environment, Path.cwd()))
    if settings.device == 'gpu' and not any('GPU' in name for name in found['devices']):
        raise UserError(
            f'--device=gpu: TensorFlow {found["tensorflow"]} finds no GPU, only '
            f'{", ".join(found["devices"])}'
        )
    return found


def find_torch(python: str, environment: dict[str, str]) -> str | None:
    """Version of the PyTorch that an interpreter has, or None."""
    try:
        return turns.run_to_end(
            [python, '-c', 'import numpy, torch; print(torch.__version__)'], environment, Path.cwd()
        )
    except (UserError, OSError) as error:
        print(f'{TORCH}: left out, {python} cannot import it: {error}')
        return None


def machine_line(settings: BenchmarkSettings, found: dict[str, Any], torch: str | None) -> str:
    """Processor, versions, date and batch, on one line."""
    parts = [
        *([gpu_model()] if settings.device == 'gpu' else []),
        cpu_line(),
        f'TensorFlow {found["tensorflow"]}',
        *([f'PyTorch {torch}'] if torch else []),
        *([settings.model] if settings.model != TUTORIAL else []),
        f'batch {settings.batch_size}',
        *(['synthetic images'] if found['dataset'] == 'synthetic' else []),
        datetime.date.today().isoformat(),
    ]
    return ' · '.join(parts)


# ----------------------------------------------------------------------- commands


def _options(**values: Any) -> list[str]:
    return [f'--{name}={value}' for name, value in values.items()]


def _module(name: str, python: str = sys.executable, **values: Any) -> list[str]:
    return [python, '-m', f'benchmarks.{name}', *_options(**values)]


def _train_dir(bench: Bench) -> str:
    """A new folder for checkpoints and summaries."""
    return tempfile.mkdtemp(dir=bench.scratch)


def commands_of(bench: Bench, task: str, log_frequency: int) -> dict[str, list[str]]:
    """The command of each variant for a task."""
    settings = bench.settings
    values: dict[str, Any] = {
        'task': task,
        'data_dir': bench.found['directory'],
        'batch_size': settings.batch_size,
        'log_frequency': log_frequency,
    }
    has_peers = settings.model == TUTORIAL
    commands = {}
    if has_peers:
        commands[TUTORIAL] = _module('peers.tutorial_train', **values, train_dir=_train_dir(bench))
    commands[PROJECT] = project_command(bench, values)
    if task in (TRAIN, CONSTANT) and _multiplies_bf16(bench):
        commands[BF16] = [*project_command(bench, values), '--use_bf16']
    if has_peers:
        commands[KERAS] = _module('peers.keras_train', **values)
    if has_peers and bench.torch_python:
        commands[TORCH] = _module(
            'peers.torch_train', bench.torch_python, **values, device=settings.device
        )
    return commands


def _multiplies_bf16(bench: Bench) -> bool:
    return bench.settings.device == 'cpu' and bool(bench.found['multiplies_bf16'])


def project_command(bench: Bench, values: dict[str, Any]) -> list[str]:
    """This project's command for a task; it trains end to end as a user does."""
    if values['task'] == TRAIN:
        return project_train_command(bench, values['log_frequency'])
    return _module('speed.project', **values, model=bench.settings.model)


def project_train_command(bench: Bench, log_frequency: int) -> list[str]:
    """`cifar10_train.py` as a user runs it, its other defaults left as they are."""
    options = _options(
        data_dir=bench.settings.data_dir,
        dataset=bench.settings.dataset,
        train_dir=_train_dir(bench),
        model=bench.settings.model,
        batch_size=bench.settings.batch_size,
        log_frequency=log_frequency,
    )
    return [sys.executable, str(REPOSITORY / 'cifar10_train.py'), *options]


# ----------------------------------------------------------------------- measuring


def measure_row(bench: Bench, task: str) -> Row:
    """Examples per second of each variant at a task, in turns.

    Raises:
      UserError: a process failed.
    """
    settings = bench.settings
    flops = {
        TRAIN: bench.found['training_flops'],
        CONSTANT: bench.found['training_flops'],
        EVALUATION: bench.found['forward_flops'],
    }.get(task)
    num_lines = evaluation_lines(settings) if task == EVALUATION else settings.lines
    commands = commands_of(bench, task, settings.log_frequency)
    lines = dict.fromkeys(commands, num_lines)
    if flops:
        commands[CEILING], lines[CEILING] = _module('speed.matrix_product'), CEILING_LINES
    warm_up = 1 if task == EVALUATION else 3
    rates = turns.take_turns(commands, bench.environment, settings.rounds, lines, warm_up)
    gflops = rates.pop(CEILING, [])
    ceiling = [rate * 1e9 / flops for rate in gflops] if flops else None
    return Row(TITLES[task], 'examples/s', rates, ceiling)


def evaluation_lines(settings: BenchmarkSettings) -> int:
    """Lines in a turn of evaluation, each of which takes as many images as 80 batches."""
    return max(1, settings.lines // 5)


def measure_starts(bench: Bench) -> list[Row]:
    """Time to first step and peak memory of training end to end.

    Raises:
      UserError: a process failed.
    """
    starts: dict[str, list[turns.Start]] = {}
    for number in range(bench.settings.starts):
        # New commands, for new training folders: a started run is not to be resumed.
        commands = list(commands_of(bench, TRAIN, log_frequency=1).items())
        for name, command in commands if number % 2 == 0 else reversed(commands):
            start = turns.measure_start(name, command, bench.environment, START_STEPS)
            starts.setdefault(name, []).append(start)
    return report.start_rows(starts)


def measure_sweep(bench: Bench, batch_sizes: Sequence[int] = SWEEP_BATCH_SIZES) -> dict[int, Row]:
    """This project's training step on a constant batch, by batch size and precision.

    Raises:
      UserError: a process failed.
    """
    settings = bench.settings
    rows = {}
    for batch_size in batch_sizes:
        command = _module(
            'project',
            task=CONSTANT,
            data_dir=bench.found['directory'],
            model=settings.model,
            batch_size=batch_size,
            log_frequency=settings.log_frequency,
        )
        commands = {'float32': command, 'float16': [*command, '--use_fp16']}
        lines = dict.fromkeys(commands, settings.lines)
        rates = turns.take_turns(commands, bench.environment, settings.rounds, lines)
        rows[batch_size] = Row(f'batch {batch_size}', 'examples/s', rates)
    return rows


# -------------------------------------------------------------------------- script


def chosen_rows(rows: str) -> tuple[str, ...]:
    """The names that --rows gives.

    Raises:
      UserError: there is no such row.
    """
    if rows == 'all':
        return ROWS
    names = tuple(rows.split(','))
    for name in names:
        if name not in ROWS:
            raise UserError(f'--rows: expected names of {", ".join(ROWS)}, found {name!r}')
    return names


def measure(bench: Bench, names: Sequence[str]) -> list[Row]:
    """The rows that are asked for, each announced as it begins."""
    rows = []
    for name in names:
        print(f'Measuring: {TITLES.get(name, "start")} ...', file=sys.stderr, flush=True)
        rows += measure_starts(bench) if name == STARTS else [measure_row(bench, name)]
    return rows


def benchmark(settings: BenchmarkSettings) -> None:
    """Measures, prints the table, and writes the figure.

    Raises:
      UserError: a flag is wrong, the data or the GPU cannot be had, or a process failed.
    """
    names = chosen_rows(settings.rows)
    if not settings.output.endswith(('.png', '.svg')):
        raise UserError(f'--output={settings.output}: expected a name that ends in .png or .svg')
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    environment = child_environment(settings.device)
    found = find_surroundings(settings, environment)
    batch_size = settings.batch_size or found['batch_size']
    settings = dataclasses.replace(settings, batch_size=batch_size)
    torch_python = settings.torch_python or sys.executable
    torch = find_torch(torch_python, environment)
    machine = machine_line(settings, found, torch)
    with tempfile.TemporaryDirectory() as scratch:
        # What the processes leave behind when they are killed goes with the rest.
        environment['TMPDIR'] = scratch
        bench = Bench(settings, found, environment, torch_python if torch else None, scratch)
        rows = measure(bench, names)
        sweep = measure_sweep(bench) if settings.device == 'gpu' else {}
    print_tables(machine, settings, rows, sweep)
    write_figure(settings.output, rows, machine)


def print_tables(
    machine: str, settings: BenchmarkSettings, rows: Sequence[Row], sweep: dict[int, Row]
) -> None:
    """Prints the machine, how it was measured, and the tables."""
    print(f'{machine}\n')
    print(
        f'Medians of {settings.rounds} turns of {settings.lines} lines of '
        f'{settings.log_frequency} steps (evaluation: of {evaluation_lines(settings)} passes over '
        f'the test images), and of {settings.starts} starts.\n'
    )
    lines = [line for row in rows for line in report.table_lines(row)]
    print(report.markdown_table(report.HEADER, lines))
    if sweep:
        print(f'\nStep time of {PROJECT} on a constant batch:\n')
        print(report.sweep_table(sweep))


def write_figure(path: str, rows: Sequence[Row], machine: str) -> None:
    """Draws the training rows, if any was measured.

    Raises:
      UserError: the file cannot be written.
    """
    drawn = [row for row in rows if row.title in (TITLES[TRAIN], TITLES[CONSTANT])]
    if not drawn:
        return
    try:
        report.draw(drawn, machine).savefig(path, dpi=150)
    except OSError as error:
        raise UserError(f'--output={path}: cannot be written: {error}') from error
    print(f'\nWrote {path}')


if __name__ == '__main__':
    run_script(benchmark, BenchmarkSettings)
