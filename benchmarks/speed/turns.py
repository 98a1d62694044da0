"""Turns of processes, so that noise of the machine affects all of them alike.

Every variant is a process that prints console lines without end. All but one are
stopped (SIGSTOP) at any time; the one is resumed (SIGCONT) for its turn, a few lines,
and stopped again. A slow minute of the machine then slows a turn of every variant,
and the ratios of that round stay right.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from benchmarks.processes import Process, memory_bytes
from cifar10_lib.base.errors import UserError

# Seconds without a console line after which a process counts as hung.
PATIENCE = 300.0

_LINE = re.compile(
    r'(?P<time>\S+ \S+): step (?P<step>\d+).*'
    r'\((?P<rate>[\d.]+) \w+/sec; (?P<seconds>[\d.]+) sec/\w+\)'
)

T = TypeVar('T')


class Line(NamedTuple):
    """A console line, such as `...: step 20, loss = 4.5 (1000.0 examples/sec; 0.128 sec/batch)`."""

    time: datetime.datetime
    step: int
    rate: float
    """Units a second, over the steps since the line before."""
    seconds: float
    """Of one step."""


def parse_line(text: str) -> Line | None:
    """The console line that `text` is, or None if it is something else."""
    match = _LINE.match(text)
    if match is None:
        return None
    time = datetime.datetime.fromisoformat(match['time'])
    return Line(time, int(match['step']), float(match['rate']), float(match['seconds']))


class Worker(Process):
    """A process that prints console lines."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        patience: float = PATIENCE,
    ) -> None:
        """
        Args:
          name: for messages.
          command, environment: as of `Process`.
          patience: seconds to wait for a console line.
        """
        self._name = name
        self._patience = patience
        self._other_output: list[str] = []
        self.start_time = datetime.datetime.now()
        super().__init__(command, environment)

    def next_line(self) -> Line:
        """Waits for the next console line; other output is skipped.

        Raises:
          UserError: the process ended, or printed no line for too long.
        """
        timer = self.kill_after(self._patience)
        for text in self.output:
            line = parse_line(text)
            if line:
                timer.cancel()
                return line
            self._other_output.append(text)
        timer.cancel()
        if self.hung:
            raise UserError(f'{self._name}: no line in {self._patience:.0f} seconds')
        last = ''.join(self._other_output[-3:]).strip() or 'no output'
        raise UserError(f'{self._name}: ended before its last turn: {last}')

    def take_turn(self, num_lines: int) -> float:
        """Runs for a turn, and stops.

        The line in whose time the pause lies is thrown away, and so is what may have
        been printed just before the pause.

        Returns:
          Units a second over `num_lines` lines, each of the same number of steps. It
          is their harmonic mean, so work that falls into few of the lines, such as
          summaries, counts in full.
        """
        resumed = datetime.datetime.now()
        self.send(signal.SIGCONT)
        while self.next_line().time < resumed:
            pass
        rates = [self.next_line().rate for _ in range(num_lines)]
        self.pause()
        return num_lines / sum(1 / rate for rate in rates)

    def pause(self) -> None:
        """Stops the process until its next turn."""
        self.send(signal.SIGSTOP)


# Units a second of each variant in each round.
Rates = dict[str, list[float]]


def alternate(variants: Iterable[T], rounds: int) -> Iterator[T]:
    """Each variant once a round, in an order that every round reverses.

    So none always follows the same other.
    """
    order = list(variants)
    for _ in range(rounds):
        yield from order
        order.reverse()


def take_turns(
    commands: Mapping[str, Sequence[str]],
    environment: Mapping[str, str],
    rounds: int,
    num_lines: Mapping[str, int],
    warm_up_lines: int = 3,
) -> Rates:
    """Starts all processes, each of which warms up alone, and lets them take turns.

    Args:
      commands: of each variant.
      environment: of all processes.
      rounds: number of turns of each variant.
      num_lines: of each variant, lines in a turn.
      warm_up_lines: lines before the first turn.

    Raises:
      UserError: a process ended or hung.
    """
    rates: Rates = {name: [] for name in commands}
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, command in commands.items():
            workers[name] = worker = Worker(name, command, environment)
            stack.enter_context(worker)
            for _ in range(warm_up_lines):
                worker.next_line()
            worker.pause()
        for name in alternate(workers, rounds):
            rates[name].append(workers[name].take_turn(num_lines[name]))
    return rates


class Start(NamedTuple):
    """What one start of a process showed."""

    first_step_seconds: float
    """From the start of the process to the end of its first step."""
    peak_bytes: int
    """Largest resident set until the process was ended."""


def measure_start(
    name: str, command: Sequence[str], environment: Mapping[str, str], steps: int
) -> Start:
    """Starts a process that prints a line for each step from the second on, and ends it.

    The end of the first step is the time of the second step's line less the time that
    the line names for the second step.

    Args:
      name: for messages.
      command, environment: as of `Process`.
      steps: number of steps before the process is ended.

    Raises:
      UserError: the process ended or hung.
    """
    with Worker(name, command, environment) as worker:
        line = second = worker.next_line()
        while line.step < steps:
            line = worker.next_line()
        # Not ru_maxrss, towards which Linux counts the memory of the process that starts it.
        peak_bytes = memory_bytes(worker.pid, 'VmHWM')
    seconds = (second.time - worker.start_time).total_seconds() - second.seconds
    return Start(seconds, peak_bytes)
