"""Console output of a training run: the tutorial's log lines, or a live progress line."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf
from tqdm import tqdm

from cifar10_lib.base.console import SECONDS_BETWEEN_REFRESHES, SteadyOutput, timestamp
from cifar10_lib.runs.history import History


class StepTensors(NamedTuple):
    """Scalars that describe a step: as tensors of the graph, or as their fetched values."""

    step: Any
    """int64 [], the global_step after the update."""
    examples: Any
    """int64 [], the examples_seen after the update."""
    loss: Any
    """float32 [], the total loss of the step's batch."""
    learning_rate: Any
    """float32 [], of this update."""


class Stopwatch:
    """Counts the seconds of training."""

    def __init__(self, seconds: float = 0.0) -> None:
        """Stands at `seconds` until it is started."""
        self._seconds = seconds
        self._began: float | None = None

    def start(self) -> None:
        """Starts it, unless it runs already."""
        if self._began is None:
            self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        if self._began is None:
            return self._seconds
        return self._seconds + time.perf_counter() - self._began

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stands still inside `with`."""
        was_running, self._seconds, self._began = self._began is not None, self.seconds, None
        try:
            yield
        finally:
            if was_running:
                self.start()


class _FetchHook(tf.train.SessionRunHook):
    """Fetches the same tensors in every step."""

    def __init__(self, tensors: Any) -> None:
        self._tensors = tensors

    def before_run(self, run_context: tf.train.SessionRunContext) -> tf.train.SessionRunArgs:
        return tf.train.SessionRunArgs(self._tensors)


class ConsoleHook(_FetchHook):
    """Prints step, loss and speed, in the tutorial's format.

    No line counts the time of the first step, which includes building and warming up.
    """

    def __init__(
        self,
        step: tf.Tensor,
        total_loss: tf.Tensor,
        batch_size: int,
        log_frequency: int | None,
        num_towers: int = 1,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        """
        Args:
          step: int64 [], the global_step after the update.
          total_loss: float32 [].
          batch_size: number of examples in a step, all towers and workers together.
          log_frequency: steps between lines; None: prints none.
          num_towers: with more than one, the speed of each follows that of all.
          stopwatch: times the steps; None: a new one, running.
        """
        super().__init__([step, total_loss])
        self._batch_size = batch_size
        self._log_frequency = log_frequency
        self._num_towers = num_towers
        if stopwatch is None:
            stopwatch = Stopwatch()
            stopwatch.start()
        self._stopwatch = stopwatch
        self._last: tuple[int, float] | None = None
        self.step = 0

    def after_run(
        self, run_context: tf.train.SessionRunContext, run_values: tf.train.SessionRunValues
    ) -> None:
        self.step, loss = run_values.results
        now = self._stopwatch.seconds
        if self._last is None:
            self._last = self.step, now
        elif self._log_frequency and self.step % self._log_frequency == 0:
            last_step, last_time = self._last
            seconds = (now - last_time) / (self.step - last_step)
            speed = self._batch_size / seconds
            line = (
                f'{timestamp()}: step {self.step}, loss = {loss:.2f} '
                f'({speed:.1f} examples/sec; {seconds:.3f} sec/batch)'
            )
            if self._num_towers > 1:
                each = speed / self._num_towers
                line += f', {each:.1f} examples/sec on each of {self._num_towers} towers'
            print(line, flush=True)
            self._last = self.step, now


class HistoryHook(_FetchHook):
    """Adds every `log_frequency`-th step to the history."""

    def __init__(
        self,
        tensors: StepTensors,
        history: History,
        stopwatch: Stopwatch,
        log_frequency: int,
        output: SteadyOutput | None = None,
    ) -> None:
        """
        Args:
          tensors: of a step.
          history: to which the entries are added.
          stopwatch: is started with the first step.
          log_frequency: steps between entries.
          output: what the run prints to; the history says when it is lost.
        """
        super().__init__(tensors)
        self._history = history
        self._output = output
        self._has_told = False
        self._stopwatch = stopwatch
        self._log_frequency = log_frequency

    def before_run(self, run_context: tf.train.SessionRunContext) -> tf.train.SessionRunArgs:
        self._stopwatch.start()
        return super().before_run(run_context)

    def after_run(
        self, run_context: tf.train.SessionRunContext, run_values: tf.train.SessionRunValues
    ) -> None:
        values: StepTensors = run_values.results
        if self._output and self._output.problem and not self._has_told:
            self._has_told = True
            self._history.add({'step': int(values.step), 'console': self._output.problem})
        if values.step % self._log_frequency == 0:
            self._history.add(
                {
                    'step': int(values.step),
                    'examples': int(values.examples),
                    'seconds': round(self._stopwatch.seconds, 3),
                    'loss': float(values.loss),
                    # 0.1, not 0.10000000149011612, which is its float32.
                    'learning_rate': float(f'{values.learning_rate:.6g}'),
                }
            )


class LiveLine(tqdm):
    """Progress of a training run, in the last line of a terminal.

    tqdm cuts at the right what does not fit, so the most important comes first.
    """

    def __init__(self, start_step: int, max_steps: int, batch_size: int) -> None:
        """
        Args:
          start_step: where this run begins; its speed counts from there.
          max_steps: where it ends.
          batch_size: number of examples in a step, all towers and workers together.
        """
        self._batch_size = batch_size
        self._has_shown_a_step = False
        self._numbers = {'loss': '-', 'p@1': '-', 'lr': '-'}
        super().__init__(
            desc='starting, ',
            initial=start_step,
            total=max_steps,
            file=sys.stdout,
            dynamic_ncols=True,
            mininterval=SECONDS_BETWEEN_REFRESHES,
            miniters=1,
            bar_format='{n_fmt}/{total_fmt} {desc}{remaining} left, {speed} ex/s{postfix} |{bar}|',
        )

    @property
    def format_dict(self) -> MutableMapping[str, Any]:
        """tqdm's fields, and the speed in examples a second."""
        fields = super().format_dict
        num_steps, seconds = fields['n'] - fields['initial'], fields['elapsed']
        rate = fields['rate'] or (seconds and num_steps / seconds)
        fields['speed'] = f'{self._batch_size * rate:.0f}' if rate else '?'
        return fields

    def show(self, values: StepTensors) -> None:
        """Shows a step, unless it has shown one just now."""
        self._numbers['loss'] = f'{values.loss:.2f}'
        self._numbers['lr'] = f'{values.learning_rate:.3g}'
        self.set_postfix(self._numbers, refresh=False)
        if self._has_shown_a_step:
            self.desc = ''
            self.update(values.step - self.n)
        else:
            # The first step includes building and warming up, which no speed should count.
            self._has_shown_a_step = True
            self.initial = self.n = self.last_print_n = values.step
            self.unpause()

    def show_precision(self, precision: float | None) -> None:
        """Shows a precision @ 1 from the next refresh on; None: it is not known."""
        if precision is not None:
            self._numbers['p@1'] = f'{precision:.3f}'
            self.set_postfix(self._numbers, refresh=False)

    @contextlib.contextmanager
    def evaluating(self, num_images: int) -> Iterator[Callable[[int], object]]:
        """Yields a function that shows how many images have been scored.

        No speed counts the time inside `with`.
        """
        desc = self.desc

        def show_scored(num_scored: int) -> None:
            self.set_description_str(f'evaluating: {num_scored}/{num_images}, ')

        show_scored(0)
        try:
            yield show_scored
        finally:
            self.desc = desc
            self.unpause()


class LiveHook(_FetchHook):
    """Keeps a live line up to date."""

    def __init__(self, tensors: StepTensors, line: LiveLine) -> None:
        """
        Args:
          tensors: of a step.
          line: shows them.
        """
        super().__init__(tensors)
        self._line = line

    def after_run(
        self, run_context: tf.train.SessionRunContext, run_values: tf.train.SessionRunValues
    ) -> None:
        self._line.show(run_values.results)
