"""Evaluation of checkpoints during training, as `cifar10_eval.py` does it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import tensorflow.compat.v1 as tf

from cifar10_input import evaluation_files
from cifar10_lib.base import watch
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.files import utf8_name
from cifar10_lib.evaluation.evaluator import Evaluator, evaluation_entry, report_precision
from cifar10_lib.runs.checkpoints import open_checkpoint
from cifar10_lib.runs.history import History
from cifar10_lib.training.begin import Run
from cifar10_lib.training.console import LiveLine, Stopwatch


class _BrokenOffError(Exception):
    """A signal to stop has come in the midst of an evaluation."""


class PeriodicEvaluation:
    """Scores checkpoints during training, in a graph and a session of its own.

    So training's batches and values stay the same to the bit.
    """

    def __init__(
        self,
        run: Run,
        history: History,
        stopwatch: Stopwatch,
        line: LiveLine | None,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Prepares the graph, so that missing images are an error before training starts.

        Args:
          run: its checkpoints are scored.
          history: keeps the results.
          stopwatch: of training; paused meanwhile.
          line: shows the progress of an evaluation; None: nothing does.
          is_stopping: whether the run is to end, so that an evaluation is broken off; the
            next run makes up for it.

        Raises:
          UserError: the images can't be read, or there are none.
        """
        settings, data = run.settings, run.data
        if settings.eval_data == 'held_out' and not settings.num_held_out:
            raise UserError(
                '--eval_data=held_out: no training images are held out; expected a '
                '--num_held_out of 1 or more, or a --held_out'
            )
        self._settings = settings
        self._history = history
        self._stopwatch = stopwatch
        self._line = line
        self._is_stopping = is_stopping
        self._evaluator = Evaluator(
            data.directory,
            eval_data=settings.eval_data,
            num_classes=data.num_classes,
            held_out=data.held_out,
            network=run.network,
        )
        self._watch = watch.Watch(evaluation_files(settings.eval_data, data.directory))

    def is_due(self, step: int) -> bool:
        """Whether a step is to be saved and evaluated: every so many, and the run's last."""
        settings = self._settings
        return step > 0 and (step % settings.eval_every == 0 or step == settings.max_steps)

    def is_missing(self, step: int) -> bool:
        """Whether a step was to be evaluated, but the run was broken off before it was."""
        return self.is_due(step) and not any(
            entry['step'] == step and entry.get('eval_data') == self._settings.eval_data
            for entry in self._history.entries
        )

    def evaluate(self, checkpoint: str, examples: int) -> None:
        """Scores a checkpoint, prints the result, keeps it, and writes it as a summary.

        Args:
          checkpoint: its path.
          examples: number of training examples that it has seen.

        Raises:
          UserError: the images have changed, or the history can't be written.
        """
        settings, line = self._settings, self._line
        evaluator = self._evaluator
        shown = line.evaluating(evaluator.num_examples) if line else contextlib.nullcontext()

        def show_unless_stopping(num_scored: int) -> None:
            if self._is_stopping():
                raise _BrokenOffError
            if show_scored:
                show_scored(num_scored)

        try:
            with self._stopwatch.paused(), shown as show_scored:
                self._watch.check()
                result = evaluator.evaluate(open_checkpoint(checkpoint), show_unless_stopping)
        except _BrokenOffError:
            return
        if line:
            line.show_precision(result.precision)
        writer = tf.summary.FileWriterCache.get(utf8_name(settings.train_dir))
        report_precision(result, settings.dataset, settings.eval_data, num_views=1, writer=writer)
        self._history.add(
            {
                'step': result.step,
                'examples': examples,
                'seconds': round(self._stopwatch.seconds, 3),
                **evaluation_entry(result, settings.eval_data, num_views=1),
            }
        )
