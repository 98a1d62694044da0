"""Memory and speed of a long training run. Linux only.

    python -m benchmarks.speed.soak --max_steps=20000

runs `cifar10_train.py` in a temporary folder with default settings, and prints, every
1,000 steps, the memory that the process holds and its median speed since the last line.
"""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from benchmarks.processes import memory_bytes, script_command
from benchmarks.speed.turns import parse_line
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import run_script, setting
from cifar10_lib.data import prepare


@dataclasses.dataclass(frozen=True)
class SoakSettings:
    """How long to train, and on what."""

    data_dir: str = setting('cifar10_data', 'Folder of the data set.')
    dataset: str = setting('cifar10', 'The images.', choices=prepare.DATASETS)
    max_steps: int = setting(20_000, 'Steps to take.', at_least=3000)
    report_steps: int = setting(1000, 'Steps between reports.', at_least=100)


class Sample(NamedTuple):
    """The run at one of its steps."""

    step: int
    megabytes: float
    """Resident memory of the process, in 10^6 bytes."""
    examples_per_sec: float
    """Median of the console lines since the last sample."""


def sample(lines: Iterable[str], pid: int, report_steps: int) -> Iterator[Sample]:
    """A sample each time that the console comes to a multiple of `report_steps`."""
    rates = []
    for line in filter(None, map(parse_line, lines)):
        rates.append(line.rate)
        if line.step % report_steps == 0:
            megabytes = memory_bytes(pid, 'VmRSS') / 1e6
            yield Sample(line.step, megabytes, statistics.median(rates))
            rates.clear()


def summary(samples: list[Sample]) -> str:
    """How far memory and speed moved, after the first sample."""
    memory = [sample.megabytes for sample in samples]
    rates = [sample.examples_per_sec for sample in samples]
    third = max(1, len(samples) // 3)
    drift = statistics.median(rates[-third:]) / statistics.median(rates[:third]) - 1
    return (
        f'Memory after step {samples[0].step}: {memory[0]:.0f} MB, then {min(memory):.0f} to '
        f'{max(memory):.0f} MB. Speed: median {statistics.median(rates):.0f} examples/sec, '
        f'the last third {drift:+.1%} against the first.'
    )


def main(settings: SoakSettings) -> None:
    """Trains, and reports during training."""
    prepared = prepare.prepare(settings.data_dir, settings.dataset)
    samples = []
    with tempfile.TemporaryDirectory() as train_dir:
        command = script_command(
            'cifar10_train.py',
            data_dir=prepared.directory,
            dataset=prepared.dataset,
            train_dir=train_dir,
            max_steps=settings.max_steps,
        )
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for one in sample(process.stdout, process.pid, settings.report_steps):
                samples.append(one)
                print(
                    f'step {one.step}: {one.megabytes:.0f} MB, '
                    f'{one.examples_per_sec:.0f} examples/sec',
                    flush=True,
                )
        if process.returncode:
            raise UserError(f'cifar10_train.py ended with exit code {process.returncode}')
    print(summary(samples))


if __name__ == '__main__':
    run_script(main, SoakSettings)
