"""Runs of training programs that faults disturb, and disks that are small or full."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import processes
from benchmarks.faults.programs import NotRun

# Seconds after which a process counts as hung. A complete run takes about seven.
LIMIT = 90.0

_STEP_LINE = re.compile(r'\bstep (\d+),? loss\b')


def parse_step(line: str) -> int | None:
    """The step in a line such as `step 20 loss 4.5` or `...: step 20, loss = 4.5 (...`."""
    found = _STEP_LINE.search(line)
    return int(found[1]) if found else None


class Run(NamedTuple):
    """A process that has ended."""

    code: int
    """Exit code; of a process that a signal killed, minus the signal's number."""
    output: str
    """Standard output and standard error, in one."""
    hung: bool = False

    @property
    def steps(self) -> list[int]:
        """The steps in the output, in its order."""
        steps = map(parse_step, self.output.splitlines())
        return [step for step in steps if step is not None]

    @property
    def last(self) -> int:
        """The last step; 0 if there was none."""
        return self.steps[-1] if self.steps else 0


def ending(run: Run) -> str:
    """How the process ended, in a few words."""
    if run.hung:
        return 'hung'
    code = f'killed by {signal.Signals(-run.code).name}' if run.code < 0 else f'exit {run.code}'
    if 'Traceback (most recent call last)' in run.output:
        return f'traceback, {code}'
    if run.code > 0 and re.search(r'^\S+: error: ', run.output, re.MULTILINE):
        return f'one-line error, {code}'
    return code


def ending_and_step(run: Run) -> str:
    """How and where the process ended."""
    return f'{ending(run)} ' + (f'after step {run.last}' if run.steps else 'at once')


class Process(processes.Process):
    """A process that prints the steps that it takes."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        limit: float = LIMIT,
    ) -> None:
        """
        Args:
          command, environment: as of the base class.
          log: file for the output; the command is its first line.
          limit: seconds until the process is killed.
        """
        # A shell starts background jobs with Ctrl-C ignored, and children inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        super().__init__(command, environment)
        self._log, self._title = log, ' '.join(command)
        self._lines: list[str] = []
        self.kill_after(limit)

    def _read(self) -> Iterator[str]:
        for line in self.output:
            self._lines.append(line)
            yield line

    def steps(self) -> Iterator[int]:
        """Each step as the process prints it, until it ends."""
        return (step for line in self._read() if (step := parse_step(line)) is not None)

    def read_to(self, step: int) -> bool:
        """Waits for that step or a later one; False if the process ended before."""
        return any(seen >= step for seen in self.steps())

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Inside `with`, the process does nothing."""
        self.send(signal.SIGSTOP)
        # A process that has been waited for can't be waited for again.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        try:
            yield
        finally:
            self.send(signal.SIGCONT)

    def finish(self) -> Run:
        """Waits for the end of the process."""
        for _ in self._read():
            pass
        run = Run(self._process.wait(), ''.join(self._lines), self.hung)
        self._log.write_text(f'{self._title}\n{run.output}{ending(run)}\n', encoding='utf-8')
        return run


class Mount(NamedTuple):
    """A file system of its own on a folder, which only processes inside it see."""

    prefix: list[str]
    """Goes before a command, which then runs inside."""
    root: Path
    """Where the processes inside have their `/`, seen from outside."""

    def call(self, *command: str) -> None:
        """Runs a short command inside.

        Raises:
          NotRun: it failed.
        """
        done = subprocess.run([*self.prefix, *command], capture_output=True, text=True)
        if done.returncode:
            raise NotRun(f'{command[0]}: {done.stderr.strip()}')


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int = 200) -> Iterator[Mount]:
    """A small disk in memory, mounted on `folder`.

    Raises:
      NotRun: that is not permitted here.
    """
    script = f'mount -t tmpfs -o size={megabytes}m none "$0" && echo ready && exec sleep 3600'
    try:
        holder = subprocess.Popen(
            ['unshare', '-rm', 'sh', '-c', script, str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    except FileNotFoundError:
        raise NotRun('there is no unshare here') from None
    with holder:
        try:
            assert holder.stdout is not None
            if holder.stdout.readline() != 'ready\n':
                raise NotRun('unshare -rm is not permitted here')
            enter = ['nsenter', f'--target={holder.pid}', '--user', '--mount']
            yield Mount([*enter, '--preserve-credentials'], Path(f'/proc/{holder.pid}/root'))
        finally:
            holder.kill()


@contextlib.contextmanager
def kept_full(folder: Path) -> Iterator[None]:
    """Inside `with`, every free byte of the disk is taken at once, also one that is freed."""
    full, done = threading.Event(), threading.Event()
    path = folder / 'another_program'

    def fill() -> None:
        with open(path, 'ab', buffering=0) as file:
            while not done.is_set():
                try:
                    file.write(bytes(1 << 20))
                except OSError:
                    full.set()
                    done.wait(0.0005)

    filler = threading.Thread(target=fill)
    filler.start()
    full.wait()
    try:
        yield
    finally:
        done.set()
        filler.join()
        path.unlink()
