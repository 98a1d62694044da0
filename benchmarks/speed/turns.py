"""How do processes take turns, so that noise of the machine falls on all of them alike?

Every variant is a process that prints console lines without end. All but one are
stopped (SIGSTOP) at any time; the one goes on (SIGCONT) for its turn, a few lines, and
is stopped again. A slow minute of the machine then slows a turn of every variant,
and the ratios of that round stay right.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import queue
import re
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cifar10_lib.base.errors import UserError

# Seconds without a line after which a process counts as hung.
PATIENCE = 300.0

_LINE = re.compile(
    r'(?P<time>\S+ \S+): step (?P<step>\d+).*'
    r'\((?P<rate>[\d.]+) \w+/sec; (?P<seconds>[\d.]+) sec/\w+\)'
)


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


class Usage(NamedTuple):
    """What a process took from start to end."""

    peak_bytes: int
    """Largest resident set."""


class Worker:
    """A process that prints console lines. Left by `with`, it is dead, stopped or not."""

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
          command: the program and its arguments.
          environment: of the process, whole.
          patience: seconds to wait for a line.
        """
        self._name = name
        self._patience = patience
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._output: list[str] = []
        self.started = datetime.datetime.now()
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # A thread reads, because a pipe cannot be read with a limit of time.
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for text in output:
                self._lines.put(text)
        self._lines.put(None)

    @property
    def pid(self) -> int:
        return self._process.pid

    def next_line(self) -> Line:
        """Waits for the next console line; other output is passed over.

        Raises:
          UserError: the process ended, or printed nothing for too long.
        """
        while True:
            try:
                text = self._lines.get(timeout=self._patience)
            except queue.Empty:
                raise UserError(f'{self._name}: no line in {self._patience:.0f} seconds') from None
            if text is None:
                last = ''.join(self._output[-3:]).strip() or 'no output'
                raise UserError(f'{self._name}: ended before its last turn: {last}')
            line = parse_line(text)
            if line:
                return line
            self._output.append(text)

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
        self._signal(signal.SIGCONT)
        while self.next_line().time < resumed:
            pass
        rates = [self.next_line().rate for _ in range(num_lines)]
        self.pause()
        return num_lines / sum(1 / rate for rate in rates)

    def pause(self) -> None:
        """Stops the process until its next turn."""
        self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        # A process that ended by itself is found by next_line.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def end(self) -> Usage:
        """Kills the process, and says what it took. To be called once."""
        self._signal(signal.SIGKILL)
        # Not Popen.wait, which gives no usage.
        _, status, usage = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        # Linux counts in units of 1024 bytes.
        return Usage(usage.ru_maxrss * 1024)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.returncode is None:
            self.end()


# Of each variant, units a second in each round.
Rates = dict[str, list[float]]


def take_turns(
    commands: Mapping[str, Sequence[str]],
    environment: Mapping[str, str],
    rounds: int,
    num_lines: Mapping[str, int],
    warm_up_lines: int = 3,
) -> Rates:
    """Starts all processes, and lets them take turns.

    Each warms up alone. The order is turned round after every round, so none always
    follows the same other.

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
            workers[name] = stack.enter_context(Worker(name, command, environment))
            for _ in range(warm_up_lines):
                workers[name].next_line()
            workers[name].pause()
        order = list(workers)
        for _ in range(rounds):
            for name in order:
                rates[name].append(workers[name].take_turn(num_lines[name]))
            order.reverse()
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
      command: the program and its arguments.
      environment: of the process, whole.
      steps: number of steps before the process is ended.

    Raises:
      UserError: the process ended or hung.
    """
    with Worker(name, command, environment) as worker:
        line = second = worker.next_line()
        while line.step < steps:
            line = worker.next_line()
        usage = worker.end()
    seconds = (second.time - worker.started).total_seconds() - second.seconds
    return Start(seconds, usage.peak_bytes)


def run_to_end(command: Sequence[str], environment: Mapping[str, str], cwd: Path) -> str:
    """The last line that a command prints to stdout.

    Raises:
      UserError: it fails; with the last line of its stderr.
    """
    done = subprocess.run(command, env=dict(environment), cwd=cwd, capture_output=True)
    output = (done.stderr if done.returncode else done.stdout).decode(errors='replace')
    last = output.strip().rpartition('\n')[2]
    if done.returncode:
        raise UserError(last or f'{command[0]}: exit code {done.returncode}')
    return last
