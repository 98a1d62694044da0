"""The part of one process in a training run, and the signals that stop it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import Any

import tensorflow.compat.v1 as tf

from cifar10_lib.runs.checkpoints import Start
from cifar10_lib.training.settings import TrainSettings

# Ctrl-C; what a system sends before it kills a process; a terminal that is closed; and what
# schedulers send some time before a job's end. Windows knows the first two.
_STOP_SIGNALS = [
    getattr(signal, name)
    for name in ('SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2')
    if hasattr(signal, name)
]


class StopSignalHook(tf.train.SessionRunHook):
    """Ends training after the step in which Ctrl-C or another signal to stop came.

    The handlers, in force inside `with`, set a flag and say so; the session then ends as it
    does after the last step, with a checkpoint. A second signal of the kind ends the
    process at once. Signals that the process was started to ignore, as by nohup, stay
    ignored; and outside of the main thread Python handles none.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[int, Any] = {}

    def _handle(self, number: int, frame: Any) -> None:
        self.received = signal.Signals(number)
        signal.signal(number, signal.SIG_DFL)
        again = 'Ctrl-C' if number == signal.SIGINT else self.received.name
        note = f'\nStopping after this step, then saving; {again} again to stop now\n'
        # Not print, which may be what the signal has interrupted.
        with contextlib.suppress(OSError):
            os.write(2, note.encode())

    def __enter__(self) -> StopSignalHook:
        if threading.current_thread() is threading.main_thread():
            for number in _STOP_SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def after_run(
        self, run_context: tf.train.SessionRunContext, run_values: tf.train.SessionRunValues
    ) -> None:
        if self.received:
            run_context.request_stop()


class Worker:
    """A process that trains: here the only one of its run.

    `cluster.ClusterWorker` is one of several, which take each step together.
    """

    index = 0
    num_workers = 1
    target = ''
    """Of the session, as tf.Session takes it."""

    @property
    def is_chief(self) -> bool:
        """Whether it is the one that finds the start, prints, saves and writes summaries."""
        return self.index == 0

    def join(self, settings: TrainSettings, facts: dict[str, Any], start: Start | None) -> Start:
        """Meets the other workers, and agrees with them where the run starts.

        Args:
          settings: with `dataset` decided.
          facts: by name, what else must be the same on all workers.
          start: the chief's; None on the others.
        """
        del settings, facts
        assert start
        return start

    def hooks(self, own: list[tf.train.SessionRunHook]) -> list[tf.train.SessionRunHook]:
        """`own`, of this worker's role, between those that the workers need before and after."""
        return own

    def stop_hook(self) -> StopSignalHook:
        """The hook that ends the run at a signal."""
        return StopSignalHook()

    def together(self) -> contextlib.AbstractContextManager[None]:
        """Context of all that needs the other workers."""
        return contextlib.nullcontext()
