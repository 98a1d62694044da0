"""Evaluation of checkpoints during training, as `cifar10_eval.py` does it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from cifar10_input import count_examples, evaluation_files
from cifar10_lib.base import watch
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.files import utf8_name
from cifar10_lib.data.record_files import holds_test_images
from cifar10_lib.evaluation.best import Best, ChosenOn
from cifar10_lib.evaluation.evaluator import Evaluator, Result, evaluation_entry, report_precision
from cifar10_lib.runs.checkpoints import Checkpoint, open_checkpoint
from cifar10_lib.runs.history import History
from cifar10_lib.training.begin import Run
from cifar10_lib.training.console import LiveLine, Stopwatch
from cifar10_lib.training.settings import AUTOMATIC


class _BrokenOffError(Exception):
    """A signal to stop has come in the midst of an evaluation."""


class Plan(NamedTuple):
    """When a run is evaluated, and on how many images."""

    every: int
    """Steps between evaluations."""
    num_examples: int = 0
    """Images of --eval_data; 0: all."""
    num_training_examples: int = 0
    """Training images that are scored as well."""


# An automatic plan: at most so many evaluations, each with time for so many images, a fifth of
# them training images. To score an image takes about half the time of training on it, so that the
# share keeps all of them within 3% of the run's time.
_MOST_EVALUATIONS = 15
_FEWEST_IMAGES = 2000
_SHARE_OF_EXAMPLES = 0.05


def make_plan(run: Run) -> Plan | None:
    """The evaluations that a run's settings ask for; None: there are to be none."""
    settings, data = run.settings, run.data
    if settings.eval_every != AUTOMATIC:
        return Plan(settings.eval_every) if settings.eval_every else None
    available = settings.num_held_out
    if settings.evaluated_data == 'test':
        if not holds_test_images(data.directory):
            return None
        available = count_examples(evaluation_files('test', data.directory), data.record)
    budget = int(_SHARE_OF_EXAMPLES * settings.max_steps * run.batch_size)
    count = min(budget // _FEWEST_IMAGES, _MOST_EVALUATIONS)
    if not count:
        return None
    share = budget // count // 5
    return Plan(
        -(-settings.max_steps // count),
        num_examples=min(4 * share, available),
        num_training_examples=min(share, data.num_examples),
    )


class PeriodicEvaluation:
    """Scores checkpoints during training, in a graph and a session of its own.

    So training's batches and values stay the same to the bit.
    """

    def __init__(
        self,
        run: Run,
        plan: Plan,
        history: History,
        stopwatch: Stopwatch,
        line: LiveLine | None = None,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Prepares the graph, so that missing images are an error before training starts.

        Args:
          run: its checkpoints are scored.
          plan: says when, and on how many images.
          history: keeps the results.
          stopwatch: of training; paused meanwhile.
          line: shows the progress of an evaluation; None: nothing does.
          is_stopping: whether the run is to end, so that an evaluation is broken off; the
            next run makes up for it.

        Raises:
          UserError: the images can't be read, or there are none.
        """
        settings = run.settings
        if settings.evaluated_data == 'held_out' and not settings.num_held_out:
            raise UserError(
                '--eval_data=held_out: no training images are held out; expected a '
                '--num_held_out of 1 or more, or a --held_out'
            )
        self._settings = settings
        self._plan = plan
        self._history = history
        self._stopwatch = stopwatch
        self._line = line
        self._is_stopping = is_stopping
        # The result that the run is known by comes last.
        numbers = {'train_eval': plan.num_training_examples} if plan.num_training_examples else {}
        numbers[settings.evaluated_data] = plan.num_examples
        self._evaluators = {name: _evaluator(run, name, number) for name, number in numbers.items()}
        self._best = None
        if settings.keep_best:
            num_examples = self._evaluators[settings.evaluated_data].num_examples
            chosen_on = ChosenOn(settings.evaluated_data, num_examples, '1', run.labels.get('run'))
            self._best = Best(settings.train_dir, '--train_dir', settings.train_dir, chosen_on)
        self._watch = watch.Watch(evaluation_files(settings.evaluated_data, run.data.directory))

    def is_due(self, step: int) -> bool:
        """Whether a step is to be saved and evaluated: every so many, and the run's last."""
        return step > 0 and (step % self._plan.every == 0 or step == self._settings.max_steps)

    def is_missing(self, step: int) -> bool:
        """Whether a step was to be evaluated, but the run was broken off before it was."""
        return self.is_due(step) and not any(
            entry['step'] == step and entry.get('eval_data') == self._settings.evaluated_data
            for entry in self._history.entries
        )

    def evaluate(self, checkpoint: str, examples: int) -> None:
        """Scores a checkpoint, prints the results, keeps them, and writes them as summaries.

        Args:
          checkpoint: its path.
          examples: number of training examples that it has seen.

        Raises:
          UserError: the images have changed, or the history can't be written.
        """
        try:
            with self._stopwatch.paused():
                self._watch.check()
                opened = open_checkpoint(checkpoint)
                results = {name: self._score(name, opened) for name in self._evaluators}
        except _BrokenOffError:
            return
        # Before the history says that this evaluation is done.
        if self._best:
            self._best.offer(opened, results[self._settings.evaluated_data])
        writer = tf.summary.FileWriterCache.get(utf8_name(self._settings.train_dir))
        for eval_data, result in results.items():
            report_precision(result, self._settings.dataset, eval_data, 1, writer)
            self._history.add(
                {
                    'step': result.step,
                    'examples': examples,
                    'seconds': round(self._stopwatch.seconds, 3),
                    **evaluation_entry(result, eval_data, num_views=1),
                }
            )
        if self._line:
            self._line.show_precisions(self._history.precisions(self._settings.evaluated_data))

    def _score(self, name: str, checkpoint: Checkpoint) -> Result:
        """The result of the images of one kind; raises _BrokenOffError where the run is to end."""
        evaluator, line = self._evaluators[name], self._line
        shown = line.evaluating(evaluator.num_examples) if line else contextlib.nullcontext()
        with shown as show_scored:

            def show_unless_stopping(num_scored: int) -> None:
                if self._is_stopping():
                    raise _BrokenOffError
                if show_scored:
                    show_scored(num_scored)

            return evaluator.evaluate(checkpoint, show_unless_stopping)


def _evaluator(run: Run, eval_data: str, num_examples: int) -> Evaluator:
    data = run.data
    return Evaluator(
        data.directory,
        num_examples=num_examples,
        eval_data=eval_data,
        num_classes=data.num_classes,
        held_out=data.held_out,
        network=run.network,
    )
