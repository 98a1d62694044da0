"""Interleaved speed benchmark of the tutorial, this project, Keras and PyTorch.

    python -m benchmarks.speed --output=benchmark.png

prints a table and draws a figure. Each variant is a process of its own; the processes
take turns of a few seconds over several rounds (`turns.py`), warmed up before the
first, and the table gives the median over the rounds, the range, and the ratio to
the first variant within the same round. The ceiling is a large float32 matrix
product, in turns like the others, divided by the network's floating-point operations
for an example (`flops.py`).

Where the processor multiplies bfloat16, training with it is one more variant, whose
share of the ceiling is still that of float32's. The peers are written for the presets
`tutorial` and `airbench94`: with another --preset this project is measured alone.

PyTorch is measured where it is installed: pip install -r benchmarks/requirements.txt,
or --torch_python for an environment of its own; compiled, where there is a C++ compiler.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.flags import parse_names
from benchmarks.processes import child_environment, last_line, module_command, script_command
from benchmarks.speed import report, turns
from benchmarks.speed.machine import cpu_line, gpu_model
from benchmarks.speed.report import EXAMPLES, IN_BF16, KERAS, PROJECT, TORCH, TUTORIAL, Row
from benchmarks.speed.worker import CONSTANT, EVALUATION, INPUT, TRAIN
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import run_script, setting

CEILING = 'ceiling'

STARTS = 'start'
ROWS = (TRAIN, CONSTANT, INPUT, EVALUATION, STARTS)

TITLES = {
    TRAIN: 'training end to end',
    CONSTANT: 'training on a constant batch',
    INPUT: 'input alone',
    EVALUATION: 'evaluation',
}

# Presets that PyTorch is written for, each with its variants and their flags. The tutorial's
# network is not compiled: that gained nothing in float32 (1,625 examples/s beside 1,604) and
# lost in bfloat16 (2,552 beside 2,763), one short run each.
TORCH_VARIANTS = {
    TUTORIAL: {
        TORCH: [],
        f'{TORCH} plain': ['--plain'],
        f'{TORCH}{IN_BF16}': ['--use_bf16'],
    },
    'airbench94': {
        TORCH: [],
        f'{TORCH} compiled': ['--compiled'],
        f'{TORCH}{IN_BF16}': ['--use_bf16'],
        f'{TORCH} compiled{IN_BF16}': ['--compiled', '--use_bf16'],
    },
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
    log_frequency: int = setting(
        0, 'Training steps in a console line; 0: those of 1,280 examples, at least 2.', at_least=0
    )
    starts: int = setting(3, 'Starts of each variant.', at_least=1)
    batch_size: int = setting(
        0, "Images in a training batch; 0: those of the preset's recipe.", at_least=0
    )
    preset: str = setting('tutorial', 'Network and recipe, as cifar10_train.py names them.')
    device: str = setting('cpu', 'Where the network runs: cpu or gpu.', choices=('cpu', 'gpu'))
    torch_python: str = setting(None, 'Interpreter that has PyTorch; by default this one.')

    @property
    def evaluation_lines(self) -> int:
        """Lines in a turn of evaluation, each of which takes as many images as 80 batches."""
        return max(1, self.lines // 5)


class Bench(NamedTuple):
    """All that measuring a row needs to know."""

    settings: BenchmarkSettings
    surroundings: dict[str, Any]
    """As `surroundings.py` prints them."""
    environment: dict[str, str]
    torch_python: str | None
    """None: PyTorch is left out."""
    compiles_torch: bool
    """Whether there is a C++ compiler for it."""
    scratch: str
    """Folder for training folders; removed at the end."""


# ------------------------------------------------------------------- surroundings


def find_surroundings(settings: BenchmarkSettings, environment: dict[str, str]) -> dict[str, Any]:
    """Data, devices and versions, as `surroundings.py` prints them.

    Raises:
      UserError: the data cannot be had, or --device=gpu finds none.
    """
    command = module_command(
        'speed.surroundings',
        data_dir=settings.data_dir,
        dataset=settings.dataset,
        preset=settings.preset,
    )
    surroundings = json.loads(last_line(command, environment))
    devices = surroundings['devices']
    if settings.device == 'gpu' and not any('GPU' in name for name in devices):
        raise UserError(
            f'--device=gpu: TensorFlow {surroundings["tensorflow"]} finds no GPU, only '
            f'{", ".join(devices)}'
        )
    return surroundings


def find_torch(python: str, environment: dict[str, str]) -> str | None:
    """Version of the PyTorch that an interpreter has, or None."""
    command = [python, '-c', 'import numpy, torch; print(torch.__version__)']
    try:
        return last_line(command, environment)
    except (UserError, OSError) as error:
        print(f'{TORCH}: left out, {python} cannot import it: {error}')
        return None


def find_compiler(preset: str, environment: dict[str, str]) -> bool:
    """Whether there is the C++ compiler that a preset's compiled variants take, if it has any."""
    variants = TORCH_VARIANTS.get(preset, {}).values()
    compiler = environment.get('CXX', 'g++')
    if not any('--compiled' in flags for flags in variants):
        return False
    if shutil.which(compiler):
        return True
    print(f'{TORCH} compiled: left out, there is no {compiler}')
    return False


def machine_line(
    settings: BenchmarkSettings, surroundings: dict[str, Any], torch: str | None
) -> str:
    """Processor, versions, date and batch, on one line."""
    parts = [
        *([gpu_model()] if settings.device == 'gpu' else []),
        cpu_line(),
        f'TensorFlow {surroundings["tensorflow"]}',
        *([f'PyTorch {torch}'] if torch else []),
        *([settings.preset] if settings.preset != TUTORIAL else []),
        f'batch {settings.batch_size}',
        *(['synthetic images'] if surroundings['dataset'] == 'synthetic' else []),
        datetime.date.today().isoformat(),
    ]
    return ' · '.join(parts)


# ----------------------------------------------------------------------- commands


def train_dir(bench: Bench) -> str:
    """A new folder for checkpoints and summaries."""
    return tempfile.mkdtemp(dir=bench.scratch)


def task_commands(bench: Bench, task: str, log_frequency: int) -> dict[str, list[str]]:
    """The command of each variant for a task."""
    settings, surroundings = bench.settings, bench.surroundings
    values: dict[str, Any] = {
        'task': task,
        'data_dir': surroundings['directory'],
        'batch_size': settings.batch_size,
        'log_frequency': log_frequency,
    }
    commands = {}
    if settings.preset == TUTORIAL:
        commands[TUTORIAL] = module_command(
            'peers.tutorial_train', **values, train_dir=train_dir(bench)
        )
    commands[PROJECT] = project_command(bench, values)
    if measures_bf16(bench, task):
        commands[f'{PROJECT}{IN_BF16}'] = [*project_command(bench, values), '--use_bf16']
    if settings.preset == TUTORIAL:
        commands[KERAS] = module_command('peers.keras_train', **values)
    return {**commands, **torch_commands(bench, values)}


def measures_bf16(bench: Bench, task: str) -> bool:
    """Whether a task is measured in bfloat16 too."""
    multiplies_bf16 = bench.settings.device == 'cpu' and bench.surroundings['multiplies_bf16']
    return task in (TRAIN, CONSTANT) and bool(multiplies_bf16)


def torch_commands(bench: Bench, values: dict[str, Any]) -> dict[str, list[str]]:
    """PyTorch's command of each of its variants for a task."""
    settings, task = bench.settings, values['task']
    if not bench.torch_python or settings.preset not in TORCH_VARIANTS:
        return {}
    command = module_command(
        'peers.torch_train',
        bench.torch_python,
        **values,
        preset=settings.preset,
        device=settings.device,
    )
    commands = {
        name: [*command, *flags]
        for name, flags in TORCH_VARIANTS[settings.preset].items()
        if ('--use_bf16' not in flags or measures_bf16(bench, task))
        and ('--compiled' not in flags or bench.compiles_torch)
    }
    # All variants read the same input.
    return {TORCH: commands[TORCH]} if task == INPUT else commands


def project_command(bench: Bench, values: dict[str, Any]) -> list[str]:
    """This project's command for a task.

    It trains end to end as a user does: by `cifar10_train.py`, with its own defaults.
    """
    settings = bench.settings
    if values['task'] != TRAIN:
        return module_command('speed.project', **values, preset=settings.preset)
    return script_command(
        'cifar10_train.py',
        data_dir=settings.data_dir,
        dataset=settings.dataset,
        train_dir=train_dir(bench),
        preset=settings.preset,
        batch_size=settings.batch_size,
        log_frequency=values['log_frequency'],
    )


# ----------------------------------------------------------------------- measuring


def measure_row(bench: Bench, task: str) -> Row:
    """Examples per second of each variant at a task, in turns.

    Raises:
      UserError: a process failed.
    """
    settings = bench.settings
    flops = {
        TRAIN: bench.surroundings['training_flops'],
        CONSTANT: bench.surroundings['training_flops'],
        EVALUATION: bench.surroundings['forward_flops'],
    }.get(task)
    num_lines = settings.evaluation_lines if task == EVALUATION else settings.lines
    commands = task_commands(bench, task, settings.log_frequency)
    lines = dict.fromkeys(commands, num_lines)
    if flops:
        commands[CEILING], lines[CEILING] = module_command('speed.matrix_product'), CEILING_LINES
    warm_up = 1 if task == EVALUATION else 3
    rates = turns.take_turns(commands, bench.environment, settings.rounds, lines, warm_up)
    gflops = rates.pop(CEILING, None)
    return Row(TITLES[task], EXAMPLES, rates, flops, gflops)


def measure_starts(bench: Bench) -> list[Row]:
    """Time to first step and peak memory of training end to end.

    Raises:
      UserError: a process failed.
    """
    starts: dict[str, list[turns.Start]] = {}
    for name in turns.alternate(task_commands(bench, TRAIN, 1), bench.settings.starts):
        # A new command, for a new training folder: a started run is not to be resumed.
        command = task_commands(bench, TRAIN, log_frequency=1)[name]
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
        values = {
            'task': CONSTANT,
            'data_dir': bench.surroundings['directory'],
            'batch_size': batch_size,
            'log_frequency': settings.log_frequency,
        }
        command = project_command(bench, values)
        commands = {'float32': command, 'float16': [*command, '--use_fp16']}
        lines = dict.fromkeys(commands, settings.lines)
        rates = turns.take_turns(commands, bench.environment, settings.rounds, lines)
        rows[batch_size] = Row(f'batch {batch_size}', EXAMPLES, rates)
    return rows


# -------------------------------------------------------------------------- script


def main(settings: BenchmarkSettings) -> None:
    """Measures, prints the table, and writes the figure.

    Raises:
      UserError: a flag is wrong, the data or the GPU cannot be had, or a process failed.
    """
    names = parse_names(settings.rows, ROWS, 'rows')
    # Not by cifar10_lib.evaluation.figures, which imports TensorFlow: see surroundings.py.
    if not settings.output.endswith(('.png', '.svg')):
        raise UserError(f'--output={settings.output}: expected a name that ends in .png or .svg')
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    environment = child_environment(settings.device)
    surroundings = find_surroundings(settings, environment)
    batch_size = settings.batch_size or surroundings['batch_size']
    log_frequency = settings.log_frequency or max(2, 1280 // batch_size)
    settings = dataclasses.replace(settings, batch_size=batch_size, log_frequency=log_frequency)
    torch_python = settings.torch_python or sys.executable
    torch = find_torch(torch_python, environment)
    machine = machine_line(settings, surroundings, torch)
    with tempfile.TemporaryDirectory() as scratch:
        # What the processes leave behind when they are killed goes with the rest.
        environment['TMPDIR'] = scratch
        bench = Bench(
            settings,
            surroundings,
            environment,
            torch_python if torch else None,
            bool(torch) and find_compiler(settings.preset, environment),
            scratch,
        )
        rows: list[Row] = []
        for name in names:
            print(f'Measuring: {TITLES.get(name, STARTS)} ...', file=sys.stderr, flush=True)
            rows += measure_starts(bench) if name == STARTS else [measure_row(bench, name)]
        sweep = measure_sweep(bench) if settings.device == 'gpu' else {}
    print_tables(machine, settings, rows, sweep)
    write_figure(settings.output, rows, machine)


def print_tables(
    machine: str, settings: BenchmarkSettings, rows: Sequence[Row], sweep: dict[int, Row]
) -> None:
    """Prints the machine, how it was measured, and the tables."""
    print(
        f'{machine}\n\nMedians of {settings.rounds} turns of {settings.lines} lines of '
        f'{settings.log_frequency} steps (evaluation: of {settings.evaluation_lines} passes over '
        f'the test images), and of {settings.starts} starts.\n'
    )
    print('\n\n'.join(map(report.table, rows)))
    if sweep:
        print(f'\nStep time of {PROJECT} on a constant batch:\n\n{report.sweep_table(sweep)}')


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
    run_script(main, BenchmarkSettings)
