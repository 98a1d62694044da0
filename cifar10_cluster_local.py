"""How is a whole cluster tried out on one machine? Starts its workers on free ports.

    python cifar10_cluster_local.py --num_workers=2 -- --max_steps=100 --dataset=synthetic

starts cifar10_distributed_train.py twice, with the flags after `--`, on free ports of the
loopback interface. Each line that a worker prints begins with its name. A worker that is killed
is started again. Ctrl-C and SIGTERM stop all workers after a common step, with a checkpoint; a
second one kills them.
"""

from __future__ import annotations

import contextlib
import dataclasses
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

from cifar10_lib.base.flags import run_script, setting

TRAINER = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'cifar10_distributed_train.py')

# Each is a process with all of TensorFlow.
MAX_WORKERS = 64

# Between two looks at the workers.
_SECONDS_BETWEEN_LOOKS = 0.1

# For workers that were asked to stop; then they are killed.
_SECONDS_TO_STOP = 60.0

_print_lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class LocalClusterSettings:
    """What cluster is to be started."""

    num_workers: int = setting(2, 'Number of workers.', at_least=1, at_most=MAX_WORKERS)
    max_restarts: int = setting(
        10, 'How often workers that were killed are started again, all together.', at_least=0
    )


def say(name: str, line: str) -> None:
    """Prints a whole line, with the name of whom it comes from."""
    with _print_lock:
        print(f'[{name}] {line}', flush=True)


def free_addresses(count: int) -> list[str]:
    """Addresses on the loopback interface that nobody uses right now."""
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(('127.0.0.1', 0))
        return [f'127.0.0.1:{each.getsockname()[1]}' for each in sockets]


class WorkerProcess:
    """A worker that can be started again."""

    def __init__(self, index: int, addresses: Sequence[str], options: Sequence[str]) -> None:
        self.name = f'worker {index}'
        config = {
            'cluster': {'worker': list(addresses)},
            'task': {'type': 'worker', 'index': index},
        }
        self._environment = {**os.environ, 'TF_CONFIG': json.dumps(config)}
        self._options = list(options)
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, '-u', TRAINER, *self._options],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
            # Ctrl-C reaches it through this process alone, once.
            start_new_session=True,
        )
        say('cluster', f'{self.name} is process {self._process.pid}')
        assert self._process.stdout
        self._reader = threading.Thread(
            target=self._print_all, args=[self._process.stdout], daemon=True
        )
        self._reader.start()

    def start_again(self) -> None:
        # What has begun isn't begun again: of a flag that is given twice the last counts.
        self._options.append('--nostart_over')
        self.start()

    def _print_all(self, lines: IO[str]) -> None:
        for line in lines:
            say(self.name, line.rstrip('\n'))

    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that killed it."""
        code = self._process.poll()
        if code is not None:
            self._reader.join()
        return code

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)


class LocalCluster:
    """Workers on this machine, watched until all have ended."""

    def __init__(self, settings: LocalClusterSettings, options: Sequence[str]) -> None:
        self._restarts_left = settings.max_restarts
        self._exit_code = 0
        self._asked: list[signal.Signals] = []
        self._deadline: float | None = None
        addresses = free_addresses(settings.num_workers)
        self._running = [WorkerProcess(i, addresses, options) for i in range(len(addresses))]

    def handle(self, number: int, frame: Any) -> None:
        """A signal: stops all workers; the second kills them."""
        del frame
        self._asked.append(signal.Signals(number))
        self._send_all(self._asked[0] if len(self._asked) == 1 else signal.SIGKILL)
        self._deadline = time.monotonic() + _SECONDS_TO_STOP

    def _send_all(self, number: signal.Signals) -> None:
        for worker in self._running:
            worker.send(number)

    def wait(self) -> int:
        """Returns when all workers have ended; the exit code of the whole."""
        while self._running:
            for worker in list(self._running):
                code = worker.exit_code()
                if code is not None:
                    self._ended(worker, code)
            if self._deadline and time.monotonic() > self._deadline:
                self._send_all(signal.SIGKILL)
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        return self._exit_code

    def _ended(self, worker: WorkerProcess, code: int) -> None:
        if code < 0 and not self._deadline and self._restarts_left:
            self._restarts_left -= 1
            say(
                'cluster',
                f'{worker.name} was killed by {signal.Signals(-code).name}: started again',
            )
            worker.start_again()
            return
        self._running.remove(worker)
        if code == 0:
            return
        # As a shell gives it, where a signal was the cause.
        self._exit_code = self._exit_code or (code if code > 0 else 128 - code)
        if not self._deadline:
            say('cluster', f'{worker.name} failed with exit code {code}: stopping the others')
            self._send_all(signal.SIGTERM)
            self._deadline = time.monotonic() + _SECONDS_TO_STOP


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """This command's own arguments, and the trainer's, which follow `--`."""
    own = list(arguments)
    if '--' not in own:
        return own, []
    place = own.index('--')
    return own[:place], own[place + 1 :]


def run(settings: LocalClusterSettings, options: Sequence[str]) -> None:
    """Starts the workers, waits for their end, and exits as they did."""
    cluster = LocalCluster(settings, options)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, cluster.handle)
    sys.exit(cluster.wait())


if __name__ == '__main__':
    own_arguments, trainer_options = split_arguments(sys.argv)
    sys.argv[:] = own_arguments
    run_script(lambda settings: run(settings, trainer_options), LocalClusterSettings)
