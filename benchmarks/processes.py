"""Processes that benchmarks start: their commands, their environment and their output."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cifar10_lib.base.errors import UserError

REPOSITORY = Path(__file__).resolve().parent.parent


def as_flags(**values: Any) -> list[str]:
    return [f'--{name}={value}' for name, value in values.items()]


def script_command(script: str, **values: Any) -> list[str]:
    """The command of a script at the top of the repository, with flags of these values."""
    return [sys.executable, str(REPOSITORY / script), *as_flags(**values)]


def module_command(module: str, python: str = sys.executable, **values: Any) -> list[str]:
    """The command of a module of `benchmarks`, with flags of these values."""
    return [python, '-m', f'benchmarks.{module}', *as_flags(**values)]


def child_environment(device: str = 'cpu') -> dict[str, str]:
    """The environment of every measured process, on `cpu` or `gpu`."""
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


def last_line(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """The last line that a command prints to stdout.

    Raises:
      UserError: it fails; with the last line of its stderr.
    """
    done = subprocess.run(command, env=environment, capture_output=True)
    output = (done.stderr if done.returncode else done.stdout).decode(errors='replace')
    last = output.strip().rpartition('\n')[2]
    if done.returncode:
        raise UserError(last or f'{command[0]}: exit code {done.returncode}')
    return last


P = TypeVar('P', bound='Process')


def memory_bytes(pid: int, field: str) -> int:
    """Memory of a running process, from Linux's /proc: VmRSS now, VmHWM at its peak."""
    status = Path(f'/proc/{pid}/status').read_text(encoding='utf-8')
    return int(re.findall(rf'{field}:\s+(\d+) kB', status)[0]) * 1024


class Process:
    """A process whose standard output and error are read as one.

    At the end of `with` it is dead, also if it was stopped.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Starts it; `environment` is its complete environment."""
        self.hung = False
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
        )
        assert self._process.stdout is not None
        self.output = self._process.stdout

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, if the process has not been waited for."""
        # Not Popen.send_signal, which itself waits for a process that has ended.
        if self._process.returncode is None:
            os.kill(self.pid, number)

    def kill_after(self, seconds: float) -> threading.Timer:
        """A running timer that kills the process, which then counts as hung."""

        def give_up() -> None:
            self.hung = self._process.returncode is None
            self.send(signal.SIGKILL)

        timer = threading.Timer(seconds, give_up)
        timer.daemon = True
        timer.start()
        return timer

    def __enter__(self: P) -> P:
        return self

    def __exit__(self, *exception: object) -> None:
        self.send(signal.SIGKILL)
        self._process.wait()
        self.output.close()
