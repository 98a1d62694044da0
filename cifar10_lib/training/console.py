"""What does a run show of itself? The tutorial's lines, or on a terminal one line that lives."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf
from tqdm import tqdm

from cifar10_lib.base.console import SECONDS_BETWEEN_REFRESHES, timestamp
from cifar10_lib.runs.history import Entry, History

# What a training's live line says beside its bar, the fullest first, and how many columns all
# of it takes, with seven digits of steps and five of speed: by these alone a form is chosen,
# so that a line keeps it.
_FORMS = (
    (
        103,
        ' {speed:.0f} examples/sec, loss {loss:.2f}, learning rate {rate:.3g}, '
        'precision {precision}, {left} left',
    ),
    (87, ' {speed:.0f} ex/sec, loss {loss:.2f}, lr {rate:.3g}, precision {precision}, {left} left'),
    (67, ' {left} {speed:.0f}/s loss {loss:.2f} lr {rate:.3g} p@1 {precision}'),
)
_SHORTEST_BAR, _LONGEST_BAR = 10, 30


class StepTensors(NamedTuple):
    """What a step tells once it is tensors: as tensors, or as their values."""

    step: Any
    """int64 [], the global_step."""
    examples: Any
    """int64 [], the examples_seen."""
    loss: Any
    """float32 [], the total loss of its batch."""
    learning_rate: Any
    """float32 [], which it was tensors with."""


class Stopwatch:
    """Counts the seconds of training."""

    def __init__(self, seconds: float = 0.0) -> None:
        """Shows `seconds` until it is started."""
        self._seconds = seconds
        self._began: float | None = None

    def start(self) -> None:
        """Goes on, unless it does already."""
        if self._began is None:
            self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        if self._began is None:
            return self._seconds
        return self._seconds + time.perf_counter() - self._began

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What goes by inside `with` doesn't count."""
        is_going, self._seconds, self._began = self._began is not None, self.seconds, None
        yield
        if is_going:
            self.start()


# --------------------------------------------------------------------- lines of text


class ConsoleHook(tf.train.SessionRunHook):
    """Prints step, loss and speed, in the tutorial's format.

    The time of the first step, which includes building and warming up, counts
    for no line.
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
          step: int64 [], the global_step once the update is done.
          total_loss: float32 [].
          batch_size: number of examples in a step, all towers and workers together.
          log_frequency: steps between lines; None: prints none.
          num_towers: with more than one, their speed is printed after that of all.
          stopwatch: which times the steps; None: all that goes by counts.
        """
        self._fetches = [step, total_loss]
        self._batch_size = batch_size
        self._log_frequency = log_frequency
        self._num_towers = num_towers
        if stopwatch is None:
            stopwatch = Stopwatch()
            stopwatch.start()
        self._stopwatch = stopwatch
        self._last: tuple[int, float] | None = None
        self.step = 0

    def before_run(self, run_context: tf.train.SessionRunContext) -> tf.train.SessionRunArgs:
        return tf.train.SessionRunArgs(self._fetches)

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
            print(
                f'{timestamp()}: step {self.step}, loss = {loss:.2f} '
                f'({self._batch_size / seconds:.1f} examples/sec; {seconds:.3f} sec/batch)'
                f'{self._tower_note(seconds)}',
                flush=True,
            )
            self._last = self.step, now

    def _tower_note(self, seconds: float) -> str:
        if self._num_towers == 1:
            return ''
        rate = self._batch_size / self._num_towers / seconds
        return f', {rate:.1f} examples/sec on each of {self._num_towers} towers'


class HistoryHook(tf.train.SessionRunHook):
    """Notes the numbers of every so many steps in the history."""

    def __init__(
        self, tensors: StepTensors, history: History, stopwatch: Stopwatch, log_frequency: int
    ) -> None:
        """
        Args:
          tensors: tensors of a step.
          history: where to.
          stopwatch: starts with the first step.
          log_frequency: steps between entries.
        """
        self._taken = tensors
        self._history = history
        self._stopwatch = stopwatch
        self._log_frequency = log_frequency

    def before_run(self, run_context: tf.train.SessionRunContext) -> tf.train.SessionRunArgs:
        self._stopwatch.start()
        return tf.train.SessionRunArgs(self._taken)

    def after_run(
        self, run_context: tf.train.SessionRunContext, run_values: tf.train.SessionRunValues
    ) -> None:
        tensors: StepTensors = run_values.results
        if tensors.step % self._log_frequency == 0:
            self._history.add(training_entry(tensors, self._stopwatch.seconds))


def training_entry(tensors: StepTensors, seconds: float) -> Entry:
    """What the history keeps of a step."""
    return {
        'step': int(tensors.step),
        'examples': int(tensors.examples),
        'seconds': round(seconds, 3),
        'loss': float(tensors.loss),
        # 0.1, not 0.10000000149011612, which is its float32.
        'learning_rate': float(f'{tensors.learning_rate:.6g}'),
    }


# ------------------------------------------------------------------- lines that live


class LiveLine(tqdm):
    """How far a training run is, in the last line of a terminal."""

    def __init__(self, start_step: int, max_steps: int, batch_size: int) -> None:
        """
        Args:
          start_step: where this run begins; its speed counts from there.
          max_steps: where it ends.
          batch_size: number of examples in a step, all towers and workers together.
        """
        self._batch_size = batch_size
        self._taken: StepTensors | None = None
        self._precision: float | None = None
        self._note = 'starting'
        super().__init__(
            initial=start_step,
            total=max_steps,
            file=sys.stdout,
            dynamic_ncols=True,
            mininterval=SECONDS_BETWEEN_REFRESHES,
            miniters=1,
        )

    def show(self, tensors: StepTensors) -> None:
        """Shows a step, unless it has shown one just now."""
        is_first, self._taken = self._taken is None, tensors
        if is_first:
            # It includes building and warming up, which no speed should count.
            self.initial = self.n = self.last_print_n = tensors.step
            self.unpause()
        else:
            self._note = ''
            self.update(tensors.step - self.n)

    def show_precision(self, precision: float | None) -> None:
        self._precision = precision

    @contextlib.contextmanager
    def evaluating(self, num_images: int) -> Iterator[Callable[[int], object]]:
        """Gives what shows how many images have been scored; the time counts for no speed."""
        before = self._note

        def show_scored(num_scored: int) -> None:
            self._note = f'evaluating: {num_scored}/{num_images}'
            self.refresh()

        show_scored(0)
        try:
            yield show_scored
        finally:
            self._note = before
            self.unpause()

    @property
    def format_dict(self) -> MutableMapping[str, Any]:
        values = super().format_dict
        values['bar_format'] = self._form(values)
        return values

    def _form(self, values: Mapping[str, Any]) -> str:
        """The line, with {bar:LENGTH} for its bar."""
        columns = values['ncols'] or sys.maxsize
        fitting = (pair for pair in _FORMS if columns >= pair[0] + _SHORTEST_BAR)
        needed, form = next(fitting, _FORMS[-1])
        text = f' {self._note}' if self._note else form.format(**self._numbers(values))
        steps = f'{values["n"]}/{values["total"]}'
        length = min(columns - needed, _LONGEST_BAR)
        if length < 1:
            return f'{steps}{text}'[:columns]
        return f'{steps} |{{bar:{length}}}|{text}'

    def _numbers(self, values: Mapping[str, Any]) -> dict[str, Any]:
        assert self._taken
        num_taken = values['n'] - values['initial']
        steps_per_second = values['rate'] or num_taken / (values['elapsed'] or 1.0)
        num_left = values['total'] - values['n']
        return {
            'speed': self._batch_size * steps_per_second,
            'loss': self._taken.loss,
            'rate': self._taken.learning_rate,
            'precision': '-' if self._precision is None else f'{self._precision:.3f}',
            'left': self.format_interval(num_left / steps_per_second) if steps_per_second else '?',
        }


class LiveHook(tf.train.SessionRunHook):
    """Keeps a live line up to date."""

    def __init__(self, tensors: StepTensors, line: LiveLine) -> None:
        """
        Args:
          tensors: tensors of a step.
          line: which shows them.
        """
        self._taken = tensors
        self._line = line

    def before_run(self, run_context: tf.train.SessionRunContext) -> tf.train.SessionRunArgs:
        return tf.train.SessionRunArgs(self._taken)

    def after_run(
        self, run_context: tf.train.SessionRunContext, run_values: tf.train.SessionRunValues
    ) -> None:
        self._line.show(run_values.results)
