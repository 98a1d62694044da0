"""The part of one process in a training run, and the signals that stop it."""

from __future__ import annotations

import contextlib
import signal
from typing import Any

import tensorflow.compat.v1 as tf

from cifar10_lib.runs.checkpoints import Start
from cifar10_lib.training.settings import TrainSettings


class StopSignalHook(tf.train.SessionRunHook):
    """Ends training after the step in which Ctrl-C or SIGTERM came.

    The handlers, in force inside `with`, only set a flag; the session then ends as it
    does after the last step, with a checkpoint. A second signal of the kind ends the
    process at once.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[int, Any] = {}

    def _handle(self, number: int, frame: Any) -> None:
        self.received = signal.Signals(number)
        signal.signal(number, signal.SIG_DFL)

    def __enter__(self) -> StopSignalHook:
        for number in (signal.SIGINT, signal.SIGTERM):
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
