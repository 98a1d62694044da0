"""Console output of a training run: the tutorial's log lines, or a live progress line."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf
from tqdm import tqdm

from cifar10_lib.base.console import SECONDS_BETWEEN_REFRESHES, SteadyOutput, timestamp
from cifar10_lib.runs.history import History

# Of training, after which its speed is taken to last.
_SECONDS_UNTIL_SPEED_IS_KNOWN = 20


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
    cross_entropy: Any
    """float32 [], the part of the total loss that is no weight decay."""


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
        max_steps: int = 0,
    ) -> None:
        """
        Args:
          step: int64 [], the global_step after the update.
          total_loss: float32 [].
          batch_size: number of examples in a step, all towers and workers together.
          log_frequency: steps between lines; None: prints none.
          num_towers: with more than one, the speed of each follows that of all.
          stopwatch: times the steps; None: a new one, running.
          max_steps: where the run ends; its speed once known, a line says how long it takes.
        """
        super().__init__([step, total_loss])
        self._batch_size = batch_size
        self._log_frequency = log_frequency
        self._num_towers = num_towers
        if stopwatch is None:
            stopwatch = Stopwatch()
            stopwatch.start()
        self._stopwatch = stopwatch
        self._max_steps = max_steps
        self._first: tuple[int, float] | None = None
        self._last: tuple[int, float] | None = None
        self.step = 0

    def after_run(
        self, run_context: tf.train.SessionRunContext, run_values: tf.train.SessionRunValues
    ) -> None:
        self.step, loss = run_values.results
        now = self._stopwatch.seconds
        if self._last is None:
            self._first = self._last = self.step, now
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
            self._tell_time_left(now)

    def _tell_time_left(self, now: float) -> None:
        """Says once how long the run takes: less than a minute is seen without it."""
        if self._first is None or now - self._first[1] < _SECONDS_UNTIL_SPEED_IS_KNOWN:
            return
        step, began = self._first
        left = (self._max_steps - self.step) * (now - began) / (self.step - step)
        if left >= 60:
            print(f'{timestamp()}: about {_in_minutes(left)} of training are left', flush=True)
        self._first = None


def _in_minutes(seconds: float) -> str:
    """A time as '12 minutes' or '3 hours 5 minutes'."""
    hours, minutes = divmod(round(seconds / 60), 60)
    if not hours:
        return f'{minutes} minute{"s" * (minutes != 1)}'
    return f'{hours} hour{"s" * (hours != 1)} {minutes} minute{"s" * (minutes != 1)}'


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
                    'cross_entropy': float(values.cross_entropy),
                    # 0.1, not 0.10000000149011612, which is its float32.
                    'learning_rate': float(f'{values.learning_rate:.6g}'),
                }
            )


# Of a live line's loss, in each step: it averages over about the last 50.
_LOSS_DECAY = 0.98

# Columns that a live line leaves to its bar, if it can.
_BAR_COLUMNS = 10


class LiveLine(tqdm):
    """Progress of a training run, in the last line of a terminal.

    It shows as many numbers as the terminal has columns for, and gives the bar the rest.
    """

    def __init__(self, start_step: int, max_steps: int, batch_size: int) -> None:
        """
        Args:
          start_step: where this run begins; its speed counts from there.
          max_steps: where it ends.
          batch_size: number of examples in a step, all towers and workers together.
        """
        self._batch_size = batch_size
        self._num_shown = 0
        self._loss = 0.0
        self._numbers: dict[str, str] = {}
        super().__init__(
            desc='starting',
            initial=start_step,
            total=max_steps,
            file=sys.stdout,
            dynamic_ncols=True,
            mininterval=SECONDS_BETWEEN_REFRESHES,
            miniters=1,
            bar_format='{n_fmt}/{total_fmt} {percentage:.0f}% |{bar}|{numbers}',
        )

    @property
    def format_dict(self) -> MutableMapping[str, Any]:
        """tqdm's fields, and the numbers that fit beside the bar."""
        fields = super().format_dict
        num_steps, seconds = fields['n'] - fields['initial'], fields['elapsed']
        rate = fields['rate'] or (seconds and num_steps / seconds)
        speed = left = '?'
        if rate:
            speed = f'{self._batch_size * rate:.0f}'
            left = self.format_interval((fields['total'] - fields['n']) / rate)
        # The most important first.
        parts = [
            *([self.desc] if self.desc else []),
            f'{left} left',
            *(f'{name} {value}' for name, value in self._numbers.items()),
            f'{speed} ex/s',
            f'{self.format_interval(seconds)} so far',
        ]
        columns = (fields['ncols'] or 80) - len(f'{fields["n"]}/{fields["total"]} 100% ||')
        columns -= min(_BAR_COLUMNS, columns // 4)
        numbers = ''
        for part in parts:
            longer = f'{numbers}, {part}' if numbers else f' {part}'
            if len(longer) > columns:
                break
            numbers = longer
        fields['numbers'] = numbers
        return fields

    def show(self, values: StepTensors) -> None:
        """Shows a step, unless it has shown one just now."""
        self._num_shown += 1
        self._loss = _LOSS_DECAY * self._loss + (1 - _LOSS_DECAY) * float(values.loss)
        # The mean of fewer steps at first: Kingma and Ba, "Adam", ICLR 2015, sec. 3.
        loss = self._loss / (1 - _LOSS_DECAY**self._num_shown)
        self._numbers = {
            'loss': f'{loss:.2f}',
            **{name: self._numbers[name] for name in ('p@1', 'best') if name in self._numbers},
            'lr': f'{values.learning_rate:.3g}',
        }
        if self._num_shown > 1:
            self.desc = ''
            self.update(values.step - self.n)
        else:
            # The first step includes building and warming up, which no speed should count.
            self.initial = self.n = self.last_print_n = values.step
            self.unpause()

    def show_precisions(self, precisions: Sequence[float]) -> None:
        """Shows the last and the best precision @ 1 from the next refresh on, if there are any."""
        if precisions:
            self._numbers['p@1'] = f'{precisions[-1]:.3f}'
            self._numbers['best'] = f'{max(precisions):.3f}'

    @contextlib.contextmanager
    def evaluating(self, num_images: int) -> Iterator[Callable[[int], object]]:
        """Yields a function that shows how many images have been scored.

        No speed counts the time inside `with`.
        """
        desc = self.desc

        def show_scored(num_scored: int) -> None:
            self.set_description_str(f'evaluating {num_scored}/{num_images}')

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
