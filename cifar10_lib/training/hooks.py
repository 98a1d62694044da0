"""Hooks of a training run: checkpoints, plateaus, patience, and a watch on the training files."""

from __future__ import annotations

import time

import tensorflow.compat.v1 as tf

from cifar10_lib.base.errors import UserError, write_errors_named
from cifar10_lib.base.watch import Watch
from cifar10_lib.nn.schedules import evaluations_since_best, plateau_fraction, plateau_variable
from cifar10_lib.runs.checkpoints import CheckpointFolder
from cifar10_lib.runs.history import Entry, History
from cifar10_lib.training import nonfinite
from cifar10_lib.training.begin import Run
from cifar10_lib.training.console import StepTensors
from cifar10_lib.training.periodic_eval import PeriodicEvaluation
from cifar10_lib.training.settings import TrainSettings


class CheckpointHook(tf.train.SessionRunHook):
    """Saves checkpoints: at first, from time to time, and at the end; never a bad one.

    A run that has just been restored isn't saved again, nor are steps that may have been
    trained on changed files. Where an evaluation is due, it scores what was saved.
    """

    def __init__(
        self,
        run: Run,
        folder: CheckpointFolder,
        tensors: StepTensors,
        history: History,
        evaluation: PeriodicEvaluation | None = None,
    ) -> None:
        """
        Args:
          run: its settings say when.
          folder: of the checkpoints.
          tensors: of a step.
          history: written to the disk before each checkpoint.
          evaluation: of checkpoints, if any.
        """
        self._run = run
        self._folder = folder
        self._tensors = tensors
        self._history = history
        self._evaluation = evaluation
        self._saved_step = -1
        self.unproven: str | None = None
        """Path of the checkpoint after which no step has been taken yet."""
        # Not the time of day, which may be set back.
        self._saved_time = time.monotonic()

    def begin(self) -> None:
        # It drops no older checkpoint: the folder does.
        self._saver = tf.train.Saver(max_to_keep=None)

    def after_create_session(self, session: tf.Session, coord: tf.train.Coordinator) -> None:
        start = self._run.start
        if start.checkpoint:
            self._saved_step = start.step
            if self._evaluation and self._evaluation.is_missing(start.step):
                self._evaluation.evaluate(start.checkpoint, start.examples)
        else:
            self._save(session, start.step)

    def before_run(self, run_context: tf.train.SessionRunContext) -> tf.train.SessionRunArgs:
        return tf.train.SessionRunArgs([self._tensors.step, self._tensors.examples])

    def after_run(
        self, run_context: tf.train.SessionRunContext, run_values: tf.train.SessionRunValues
    ) -> None:
        self.unproven = None
        self._run.watch.check_now_and_then()
        step, examples = map(int, run_values.results)
        evaluation = self._evaluation
        if self._is_due(step) or (evaluation and evaluation.is_due(step)):
            checkpoint = self._save(run_context.session, step)
            if evaluation and checkpoint and evaluation.is_due(step):
                evaluation.evaluate(checkpoint, examples)

    def _is_due(self, step: int) -> bool:
        settings = self._run.settings
        if settings.save_checkpoint_steps:
            return step % settings.save_checkpoint_steps == 0
        return time.monotonic() - self._saved_time >= settings.save_checkpoint_secs

    def end(self, session: tf.Session) -> None:
        self._save(session, int(session.run(tf.train.get_global_step())))

    def _save(self, session: tf.Session, step: int) -> str | None:
        """Saves a step that isn't saved yet.

        Returns:
          Path of its checkpoint, if it was not saved before.

        Raises:
          UserError: that would be wrong, or can't be done.
        """
        if step == self._saved_step:
            return None
        self._run.watch.check()
        self._run.check_folder()
        bad = nonfinite.first_not_finite_variable(session)
        if bad:
            raise UserError(
                f'after step {step}: {bad.describe()}; no checkpoint of it was written'
                f'{newest_note(self._folder)}'
            )
        self._history.sync()
        try:
            self.unproven = self._folder.save(self._saver, session, step)
        except UserError as error:
            raise UserError(f'{error}{newest_note(self._folder)}') from error
        self._saved_step, self._saved_time = step, time.monotonic()
        return self.unproven

    def pass_over_unproven(self) -> None:
        """Where no step could be taken from the last checkpoint, names the one before."""
        if self.unproven:
            with write_errors_named(f'--train_dir={self._run.settings.train_dir}'):
                self._folder.pass_over(self.unproven)


def newest_note(folder: CheckpointFolder | None) -> str:
    """The end of an error message: the checkpoint to resume from."""
    if folder is None:
        return ''
    try:
        newest = folder.newest_complete()
    except UserError:
        newest = None
    return f'; the last complete checkpoint is {newest}' if newest else '; there is no checkpoint'


class _Precisions:
    """The precisions of a run's evaluations, from its history, the earliest first.

    So a run in pieces has those of one in one go.
    """

    def __init__(self, settings: TrainSettings, history: History) -> None:
        self._settings = settings
        self._history = history
        self._num_seen = 0
        self.values: list[float] = []
        self.steps: list[int] = []

    def update(self) -> bool:
        """Reads what is new in the history; whether there was an evaluation."""
        new = self._history.entries[self._num_seen :]
        self._num_seen += len(new)
        evaluations = [entry for entry in new if 'precision' in entry and self._counts(entry)]
        self.values += [entry['precision'] for entry in evaluations]
        self.steps += [entry['step'] for entry in evaluations]
        return bool(evaluations)

    def _counts(self, entry: Entry) -> bool:
        """Whether it is no evaluation of an earlier run's last step, which one go doesn't have."""
        return (
            entry.get('eval_data') == self._settings.evaluated_data
            and entry['step'] % self._settings.eval_every == 0
        )


class PlateauHook(tf.train.SessionRunHook):
    """Makes the learning rate of each step follow the evaluations before it."""

    def __init__(self, settings: TrainSettings, history: History) -> None:
        """
        Args:
          settings: of the run.
          history: of its evaluations.
        """
        self._settings = settings
        self._precisions = _Precisions(settings, history)

    def begin(self) -> None:
        self._fraction = tf.placeholder(tf.float32, [], name='plateau_fraction_after')
        self._assign = plateau_variable().assign(self._fraction).op

    def before_run(self, run_context: tf.train.SessionRunContext) -> None:
        if self._precisions.update():
            fraction = plateau_fraction(self._precisions.values, self._settings)
            run_context.session.run(self._assign, {self._fraction: fraction})


class PatienceHook(tf.train.SessionRunHook):
    """Ends the run after as many evaluations without a better precision as --patience says."""

    def __init__(self, settings: TrainSettings, history: History) -> None:
        """
        Args:
          settings: of the run.
          history: of its evaluations.
        """
        self._patience = settings.patience
        self._precisions = _Precisions(settings, history)
        self.reason: str | None = None
        """Why the run ended, once it has."""

    def after_create_session(self, session: tf.Session, coord: tf.train.Coordinator) -> None:
        # Of a run that has ended so already, or was broken off in its last evaluation.
        if self._is_over():
            coord.request_stop()

    def after_run(
        self, run_context: tf.train.SessionRunContext, run_values: tf.train.SessionRunValues
    ) -> None:
        if self._is_over():
            run_context.request_stop()

    def _is_over(self) -> bool:
        """Whether the patience is at its end, where there is a new evaluation."""
        if not self._precisions.update():
            return False
        precisions = self._precisions.values
        since = evaluations_since_best(precisions)
        if since < self._patience:
            return False
        best = len(precisions) - 1 - since
        self.reason = (
            f'{since} evaluations without a better precision than {precisions[best]:.3f} at step '
            f'{self._precisions.steps[best]}'
        )
        return True


class WatchDataHook(tf.train.SessionRunHook):
    """Ends the run, with UserError, where the training files change."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def after_run(
        self, run_context: tf.train.SessionRunContext, run_values: tf.train.SessionRunValues
    ) -> None:
        self._watch.check_now_and_then()
