"""Do memory and speed stay where they are through a long training run? Linux only.

    python -m benchmarks.speed.soak --max_steps=20000

runs `cifar10_train.py` in a temporary folder with default settings, and prints, every
1,000 steps, the memory that the process holds and its median speed since the last line.
"""

from __future__ import annotations

import dataclasses
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import REPOSITORY
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import run_script, setting
from cifar10_lib.data import prepare
from cifar10_lib.data.datasets import DATASETS

_CONSOLE_LINE = re.compile(r': step (\d+), loss = \S+ \((\S+) examples/sec;')


@dataclasses.dataclass(frozen=True)
class SoakSettings:
    """How long to train, and on what."""

    data_dir: str = setting('cifar10_data', 'Folder of the data set.')
    dataset: str = setting('cifar10', 'The images.', choices=DATASETS)
    max_steps: int = setting(20_000, 'Steps to take.', at_least=3000)
    report_steps: int = setting(1000, 'Steps between reports.', at_least=100)


class Sample(NamedTuple):
    """The run at one of its steps."""

    step: int
    megabytes: float
    """Resident memory of the process, in 10^6 bytes."""
    examples_per_sec: float
    """Median of the console lines since the last sample."""


def resident_megabytes(pid: int) -> float:
    """Resident memory of a running process, in 10^6 bytes, from /proc."""
    status = Path(f'/proc/{pid}/status').read_text(encoding='utf-8')
    return int(re.findall(r'VmRSS:\s+(\d+) kB', status)[0]) * 1024 / 1e6


def samples(lines: Iterable[str], pid: int, report_steps: int) -> Iterator[Sample]:
    """A sample each time that the console comes to a multiple of `report_steps`."""
    rates = []
    for line in lines:
        found = _CONSOLE_LINE.search(line)
        if found is None:
            continue
        step = int(found[1])
        rates.append(float(found[2]))
        if step % report_steps == 0:
            yield Sample(step, resident_megabytes(pid), statistics.median(rates))
            rates.clear()


def summary(taken: list[Sample]) -> str:
    """How far memory and speed moved, after the first sample."""
    memory = [sample.megabytes for sample in taken]
    rates = [sample.examples_per_sec for sample in taken]
    third = max(1, len(taken) // 3)
    drift = statistics.median(rates[-third:]) / statistics.median(rates[:third]) - 1
    return (
        f'Memory after step {taken[0].step}: {memory[0]:.0f} MB, then {min(memory):.0f} to '
        f'{max(memory):.0f} MB. Speed: median {statistics.median(rates):.0f} examples/sec, '
        f'the last third {drift:+.1%} against the first.'
    )


def main(settings: SoakSettings) -> None:
    """Trains, and reports as training goes on."""
    prepared = prepare.prepare(settings.data_dir, settings.dataset)
    with tempfile.TemporaryDirectory() as train_dir:
        command = [
            sys.executable,
            str(REPOSITORY / 'cifar10_train.py'),
            f'--data_dir={prepared.directory}',
            f'--dataset={prepared.dataset}',
            f'--train_dir={train_dir}',
            f'--max_steps={settings.max_steps}',
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            taken = []
            for sample in samples(process.stdout, process.pid, settings.report_steps):
                taken.append(sample)
                print(
                    f'step {sample.step}: {sample.megabytes:.0f} MB, '
                    f'{sample.examples_per_sec:.0f} examples/sec',
                    flush=True,
                )
        if process.returncode:
            raise UserError(f'cifar10_train.py ended with exit code {process.returncode}')
    print(summary(taken))


if __name__ == '__main__':
    run_script(main, SoakSettings)
