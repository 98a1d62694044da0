"""A cluster on one machine: worker processes on free ports of the loopback interface.

Each worker is this process's own command once more, with a TF_CONFIG of its own, and each line
that it prints is printed with its name. A worker that is killed is started again. Ctrl-C and
SIGTERM stop all workers after a common step, with a checkpoint; a second one kills them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO, Any

from cifar10_lib.base.errors import UserError

_SECONDS_BETWEEN_POLLS = 0.1

# Time that workers have to stop before they are killed.
_SECONDS_TO_STOP = 60.0


class _Output:
    """Standard output of all workers.

    It keeps its first error, so that workers can stop well where nobody reads any more.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.error: OSError | None = None

    def print(self, name: str, line: str) -> None:
        with self._lock:
            if not self.error:
                try:
                    print(f'[{name}] {line}', flush=True)
                except OSError as error:
                    self.error = error


def free_addresses(count: int) -> list[str]:
    """Different addresses on the loopback interface that nobody uses right now."""
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(('127.0.0.1', 0))
        return [f'127.0.0.1:{each.getsockname()[1]}' for each in sockets]


class _WorkerProcess:
    """A worker that can be started again."""

    def __init__(
        self, index: int, addresses: Sequence[str], command: Sequence[str], output: _Output
    ) -> None:
        self.name = f'worker {index}'
        self._output = output
        self._command = list(command)
        config = {
            'cluster': {'worker': list(addresses)},
            'task': {'type': 'worker', 'index': index},
        }
        self._environment = {**os.environ, 'TF_CONFIG': json.dumps(config)}
        self._start()

    def _start(self) -> None:
        self.process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
            # Ctrl-C reaches it through this process alone, once.
            start_new_session=True,
        )
        self._output.print('cluster', f'{self.name} is process {self.process.pid}')
        self._printer = threading.Thread(
            target=self._print_lines, args=[self.process.stdout], daemon=True
        )
        self._printer.start()

    def restart(self) -> None:
        # It resumes: of a flag that is given twice the last counts.
        self._command.append('--nostart_over')
        self._start()

    def _print_lines(self, lines: IO[str]) -> None:
        for line in lines:
            self._output.print(self.name, line.rstrip('\n'))

    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that killed it."""
        code = self.process.poll()
        if code is not None:
            self._printer.join()
        return code


class _LocalCluster:
    """Workers on this machine, watched until all have ended."""

    def __init__(self, max_restarts: int) -> None:
        self._restarts_left = max_restarts
        self._output = _Output()
        self._running: list[_WorkerProcess] = []
        self._exit_code = 0
        self._first_signal: signal.Signals | None = None
        self._deadline: float | None = None
        """When workers that were asked to stop are killed."""

    def run(self, num_workers: int, command: Sequence[str]) -> int:
        """Starts the workers and returns, when all have ended, the exit code of the cluster.

        Raises:
          OSError: the output can't be written; the workers have been stopped.
        """
        addresses = free_addresses(num_workers)
        for index in range(num_workers):
            if not self._first_signal:
                self._running.append(_WorkerProcess(index, addresses, command, self._output))
        while self._running:
            for worker in list(self._running):
                code = worker.exit_code()
                if code is not None:
                    self._handle_end(worker, code)
            if self._output.error and not self._deadline:
                self._stop(signal.SIGTERM)
            if self._deadline and time.monotonic() > self._deadline:
                self._send_all(signal.SIGKILL)
            time.sleep(_SECONDS_BETWEEN_POLLS)
        if self._output.error:
            raise self._output.error
        return self._exit_code

    def handle_signal(self, number: int, frame: Any) -> None:
        """Stops all workers; at the second signal, kills them."""
        del frame
        if self._first_signal:
            self._send_all(signal.SIGKILL)
        else:
            self._first_signal = signal.Signals(number)
            self._stop(self._first_signal)

    def _stop(self, number: signal.Signals) -> None:
        self._send_all(number)
        self._deadline = time.monotonic() + _SECONDS_TO_STOP

    def _send_all(self, number: signal.Signals) -> None:
        for worker in self._running:
            worker.process.send_signal(number)

    def _handle_end(self, worker: _WorkerProcess, code: int) -> None:
        if code < 0 and not self._deadline and self._restarts_left:
            self._restarts_left -= 1
            killer = signal.Signals(-code).name
            self._output.print('cluster', f'{worker.name} was killed by {killer}: started again')
            worker.restart()
            return
        self._running.remove(worker)
        if code and not self._exit_code:
            # As a shell gives it, where a signal was the cause.
            self._exit_code = code if code > 0 else 128 - code
        if code and not self._deadline:
            self._output.print(
                'cluster', f'{worker.name} failed with exit code {code}: stopping the others'
            )
            self._stop(signal.SIGTERM)


def run(num_workers: int, max_restarts: int) -> None:
    """Runs this process's command as `num_workers` workers, and exits as they do.

    Args:
      num_workers: 1 to MAX_WORKERS.
      max_restarts: how often workers that were killed are started again, all together.

    Raises:
      UserError: TF_CONFIG is set, so that this process is a worker itself.
      SystemExit: with 0, or the exit code of the first worker that did not end well.
    """
    if os.environ.get('TF_CONFIG'):
        raise UserError(
            f'--local_workers={num_workers}: expected no TF_CONFIG, as it would make this process '
            f'a worker itself; found {os.environ["TF_CONFIG"]!r}'
        )
    cluster = _LocalCluster(max_restarts)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, cluster.handle_signal)
    # Of a flag that is given twice the last counts.
    options = [*sys.argv[1:], '--local_workers=0']
    command = [sys.executable, '-u', os.path.realpath(sys.argv[0]), *options]
    sys.exit(cluster.run(num_workers, command))
