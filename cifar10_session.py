"""How does a training run begin, report, save, stop and go on?

The part that every trainer shares. A trainer builds its graph between `begin`,
which says where the run starts, and `run`, which takes the steps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow
import tensorflow.compat.v1 as tf

import cifar10
import cifar10_board
import cifar10_checkpoint
import cifar10_data
import cifar10_files
import cifar10_finite
import cifar10_guard
import cifar10_history
import cifar10_precision
import cifar10_settings
from cifar10_checkpoint import CheckpointFolder
from cifar10_finite import Training
from cifar10_history import Entry, History, UnwritableError
from cifar10_input import count_examples, train_files
from cifar10_interim import InterimEvaluation
from cifar10_progress import (
    ConsoleHook,
    HistoryHook,
    LiveHook,
    LiveLine,
    Stopwatch,
    Taken,
    data_note,
    on_terminal,
    prints_above,
)
from cifar10_recipe import (
    TUTORIAL_RECIPE,
    plateau_fraction,
    plateau_variable,
)
from cifar10_settings import UserError
from cifar10_train_settings import TrainingData, TrainSettings, training_batches

# What a run writes into its folder, and all that --start_over removes.
_RUN_FILES = (
    cifar10_checkpoint.STATE_FILE,
    f'{cifar10_checkpoint.PREFIX}-*',
    cifar10_checkpoint.UNFINISHED,
    'graph.pbtxt',
    'events.out.tfevents.*',
    cifar10_settings.SETTINGS_FILE,
    cifar10_history.HISTORY_FILE,
)

# What TensorFlow raises for files and folders, memory and disks.
_STORAGE_ERRORS = (
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.ResourceExhaustedError,
    tf.errors.UnknownError,
)


class Worker:
    """A process that trains: here the only one of its run.

    `cifar10_cluster.ClusterWorker` is one of several, which take each step together.
    """

    index = 0
    num_workers = 1
    target = ''
    """Of the session, as tf.Session takes it."""

    @property
    def is_chief(self) -> bool:
        """Whether it is the one that finds the start, prints, saves and writes summaries."""
        return self.index == 0

    def join(
        self, settings: TrainSettings, facts: dict[str, Any], start: cifar10_checkpoint.Start | None
    ) -> cifar10_checkpoint.Start:
        """Meets the other workers, and agrees with them where the run starts.

        Args:
          settings: as the flags gave them, with `dataset` decided.
          facts: by name, what else must be the same on all workers.
          start: what the chief has found; None on the others.
        """
        del settings, facts
        assert start
        return start

    def hooks(self, own: list[tf.train.SessionRunHook]) -> list[tf.train.SessionRunHook]:
        """`own`, of this worker's role, with what the workers do together before and after."""
        return own

    def stop_hook(self) -> StopSignalHook:
        """What ends the run at a signal."""
        return StopSignalHook()

    def own_part(self, training: Training) -> Training:
        """The part of the step that this worker can take again alone."""
        return training

    def together(self) -> contextlib.AbstractContextManager[None]:
        """Around what can't be done without the other workers."""
        return contextlib.nullcontext()


class Run(NamedTuple):
    """A run that is about to begin."""

    settings: Any
    """TrainSettings, with `dataset` decided."""
    data: TrainingData
    """What it is trained on."""
    folder: CheckpointFolder | None
    """Where its checkpoints lie; None on a worker that isn't the chief."""
    start: cifar10_checkpoint.Start
    """Where it goes on from."""
    watch: cifar10_guard.Watch
    """Sees when the training files change."""
    check_folder: Callable[[], None]
    """Raises UserError if the train_dir isn't there any more."""
    worker: Worker
    """The process's part in it."""


@contextlib.contextmanager
def begin(
    settings: TrainSettings, global_batch_size: int, worker: Worker | None = None
) -> Iterator[Run]:
    """Gets the data and the folder ready, and prints what is about to happen.

    Until the end of `with`, no other run can begin in the folder.

    Args:
      settings: as the flags gave them.
      global_batch_size: number of examples in a step, all towers and workers together.
      worker: this process's part in the run; None: it is the only one.

    Yields:
      The run. The current graph is a new one, for it.

    Raises:
      UserError: data, folder and settings don't go together, or another run is under way
        in the folder.
    """
    worker = worker or Worker()
    goes_on = worker.is_chief and not settings.start_over
    stored = cifar10_settings.load(settings.train_dir) if goes_on else {}
    prepared = _prepare_data(settings, stored.get('dataset'))
    settings = dataclasses.replace(settings, dataset=prepared.dataset)
    cifar10_precision.check(settings.use_fp16, settings.use_bf16)
    _check_plateau(settings, worker)
    _check_model(settings, stored)
    _check_held_out(settings, stored)
    data = _training_data(settings, prepared, global_batch_size)
    print(f'Settings: {cifar10_settings.describe(settings)}')
    print(f'Data: {_in_words(settings, data)}{data_note(prepared.dataset)}')
    watch = cifar10_guard.Watch(train_files(prepared.directory))
    with contextlib.ExitStack() as held:
        folder, found, check_folder = None, None, _nothing_to_check
        if worker.is_chief:
            check_folder = held.enter_context(_hold_train_dir(settings))
            _store_settings(settings, stored, watch)
            folder = CheckpointFolder(settings.train_dir, settings.max_to_keep)
            found = cifar10_checkpoint.find_start(folder)
        facts = {'training images': data.num_examples, 'training files': watch.digest()}
        start = worker.join(settings, facts, found)
        if start.checkpoint:
            print(f'Going on from {start.checkpoint} at step {start.step}')
        if settings.deterministic:
            tensorflow.config.experimental.enable_op_determinism()
        with tf.Graph().as_default():
            # What tf.data asks for before it is deterministic; no operation here draws from it.
            tf.set_random_seed(settings.seed)
            yield Run(settings, data, folder, start, watch, check_folder, worker)


def _nothing_to_check() -> None:
    """Of a folder that is not used."""


def _prepare_data(settings: TrainSettings, stored: str | None) -> cifar10_data.Prepared:
    """The data set, the one that the run in --train_dir began with."""
    dataset = settings.dataset
    cifar10_data.refuse_unused_url(dataset, settings.data_url)
    if dataset in (None, 'auto') and stored:
        dataset = stored
    if stored and dataset != stored:
        raise UserError(
            f'--dataset={dataset}: the run in {settings.train_dir} was trained on {stored}; '
            f'name another --train_dir, or give --dataset={stored} or --start_over'
        )
    return cifar10.maybe_download_and_extract(settings.data_dir, dataset, settings.data_url)


def _check_plateau(settings: TrainSettings, worker: Worker) -> None:
    """Raises UserError where evaluations that the learning rate is to follow aren't known."""
    if not settings.plateau_evaluations:
        return
    asked_for = f'--plateau_evaluations={settings.plateau_evaluations}'
    if not settings.eval_every:
        raise UserError(
            f'{asked_for}: nothing is evaluated in the midst of training; expected an '
            '--eval_every of 1 or more'
        )
    if worker.num_workers > 1:
        raise UserError(
            f'{asked_for}: found {worker.num_workers} workers, of which only one evaluates; '
            'expected one, or --plateau_evaluations=0'
        )


def _check_model(settings: TrainSettings, stored: dict[str, Any]) -> None:
    """Raises UserError where the run in --train_dir is one of another network."""
    model = stored.get('model', TUTORIAL_RECIPE.model) if stored else settings.model
    if model != settings.model:
        raise UserError(
            f'--model={settings.model}: the run in {settings.train_dir} trains the network '
            f'{model}; name another --train_dir, or give --model={model} or --start_over'
        )


def _check_held_out(settings: TrainSettings, stored: dict[str, Any]) -> None:
    """Raises UserError where images that were trained on would count as held out."""
    held_out = stored.get('num_held_out', settings.num_held_out if not stored else 0)
    if held_out != settings.num_held_out:
        raise UserError(
            f'--num_held_out={settings.num_held_out}: the run in {settings.train_dir} was trained '
            f'with {held_out}; name another --train_dir, or give --num_held_out={held_out} or '
            '--start_over'
        )


def _training_data(
    settings: TrainSettings, prepared: cifar10_data.Prepared, global_batch_size: int
) -> TrainingData:
    """Raises UserError where there is less than a batch of it."""
    num_examples = count_examples(train_files(prepared.directory)) - settings.num_held_out
    if global_batch_size > num_examples:
        held_out = f' beside {settings.num_held_out} held out' if settings.num_held_out else ''
        raise UserError(
            f'--batch_size: a step takes {global_batch_size} examples, but '
            f'{prepared.directory} holds only {max(num_examples, 0)} training images{held_out}'
        )
    return TrainingData(prepared.directory, num_examples, prepared.num_classes)


def _in_words(settings: TrainSettings, data: TrainingData) -> str:
    """What is trained on, and what is not."""
    held_out = f', {settings.num_held_out} more held out' if settings.num_held_out else ''
    classes = f' of {data.num_classes} classes' if data.num_classes != cifar10.NUM_CLASSES else ''
    return f'{data.num_examples} training images{classes} in {data.directory}{held_out}'


@contextlib.contextmanager
def _hold_train_dir(settings: TrainSettings) -> Iterator[Callable[[], None]]:
    """Makes the folder, holds it, and empties it if asked to."""
    with _writing_to(settings.train_dir):
        os.makedirs(settings.train_dir, exist_ok=True)
    with cifar10_guard.hold(settings.train_dir, '--train_dir') as check_folder:
        if settings.start_over:
            with _writing_to(settings.train_dir):
                _remove_run(settings.train_dir)
        yield check_folder


@contextlib.contextmanager
def _writing_to(train_dir: str) -> Iterator[None]:
    """Makes an OSError the user's."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f'--train_dir={train_dir}: cannot be written: {error.strerror or error}'
        ) from error


def _store_settings(
    settings: TrainSettings, stored: dict[str, Any], watch: cifar10_guard.Watch
) -> None:
    """Writes the settings beside the checkpoints, and prints how they differ from `stored`."""
    digest = watch.digest()
    with _writing_to(settings.train_dir):
        cifar10_settings.store(settings, settings.train_dir, training_files_sha256=digest)
    for name, value in dataclasses.asdict(settings).items():
        if name != 'start_over' and name in stored and stored[name] != value:
            print(f'Changed since the last run: --{name} was {stored[name]}, is now {value}')
    if stored.get('training_files_sha256', digest) != digest:
        print('Warning: the training files are not those of the last run', file=sys.stderr)


def _remove_run(train_dir: str) -> None:
    """Removes the files that a run writes, and no others."""
    for pattern in _RUN_FILES:
        for path in cifar10_files.matching(train_dir, pattern):
            print(f'Removing {path}')
            if os.path.isdir(path):
                shutil.rmtree(path)
            else:
                os.remove(path)


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


class CheckpointHook(tf.train.SessionRunHook):
    """Saves a checkpoint at first, now and then, and at the end; never a bad one.

    A run that has just been restored isn't saved again, nor are steps that may have been
    trained on changed files. Where an evaluation is due, it scores what was saved.
    """

    def __init__(
        self,
        run: Run,
        folder: CheckpointFolder,
        taken: Taken,
        history: History,
        evaluation: InterimEvaluation | None = None,
    ) -> None:
        """
        Args:
          run: whose settings say when.
          folder: where to.
          taken: tensors of a step.
          history: on the disk before a checkpoint of its last step is.
          evaluation: of checkpoints, if any.
        """
        self._run = run
        self._folder = folder
        self._taken = taken
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
        return tf.train.SessionRunArgs([self._taken.step, self._taken.examples])

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
        bad = cifar10_finite.first_not_finite_variable(session)
        if bad:
            raise UserError(
                f'after step {step}: {bad.in_words()}; no checkpoint of it was written'
                f'{_newest_note(self._folder)}'
            )
        self._history.sync()
        try:
            self.unproven = self._folder.save(self._saver, session, step)
        except UserError as error:
            raise UserError(f'{error}{_newest_note(self._folder)}') from error
        self._saved_step, self._saved_time = step, time.monotonic()
        return self.unproven

    def pass_over_unproven(self) -> None:
        """Where no step could be taken from the last checkpoint, names the one before."""
        if self.unproven:
            with _writing_to(self._run.settings.train_dir):
                self._folder.pass_over(self.unproven)


def _newest_note(folder: CheckpointFolder | None) -> str:
    """For an error that ends a run: what there is to go on from."""
    if folder is None:
        return ''
    try:
        newest = folder.newest_whole()
    except UserError:
        newest = None
    return f'; the last whole checkpoint is {newest}' if newest else '; there is no checkpoint'


class PlateauHook(tf.train.SessionRunHook):
    """Has the learning rate of each step follow the evaluations before it.

    They are those in the history, so that a run in pieces has the rates of one in one go.
    """

    def __init__(self, settings: TrainSettings, history: History) -> None:
        """
        Args:
          settings: whose recipe and whose evaluations they are.
          history: has them.
        """
        self._settings = settings
        self._history = history
        self._num_seen = 0
        self._precisions: list[float] = []

    def begin(self) -> None:
        self._fraction = tf.placeholder(tf.float32, [], name='plateau_fraction_after')
        self._assign = plateau_variable().assign(self._fraction).op

    def before_run(self, run_context: tf.train.SessionRunContext) -> None:
        new = self._history.entries[self._num_seen :]
        self._num_seen += len(new)
        precisions = [e['precision'] for e in new if 'precision' in e and self._counts(e)]
        if precisions:
            self._precisions += precisions
            fraction = plateau_fraction(self._precisions, self._settings)
            run_context.session.run(self._assign, {self._fraction: fraction})

    def _counts(self, entry: Entry) -> bool:
        """Not that of a run's last step: one in one go has no evaluation there."""
        return (
            entry.get('eval_data') == self._settings.eval_data
            and entry['step'] % self._settings.eval_every == 0
        )


class WatchDataHook(tf.train.SessionRunHook):
    """Ends the run, with UserError, where the training files change."""

    def __init__(self, run: Run) -> None:
        self._watch = run.watch

    def after_run(
        self, run_context: tf.train.SessionRunContext, run_values: tf.train.SessionRunValues
    ) -> None:
        self._watch.check_now_and_then()


def _summary_hooks(
    settings: TrainSettings, start: cifar10_checkpoint.Start, global_batch_size: int
) -> list[tf.train.SessionRunHook]:
    writer = tf.summary.FileWriterCache.get(settings.train_dir)
    cifar10_board.add_graph(writer, tf.get_default_graph())
    cifar10_board.add_settings(writer, dataclasses.asdict(settings), settings.train_dir)
    if start.checkpoint:
        # TensorBoard drops what a killed run has written of later steps.
        writer.add_session_log(tf.SessionLog(status=tf.SessionLog.START), start.step + 1)
    return [
        tf.train.SummarySaverHook(
            save_steps=settings.save_summaries_steps,
            summary_writer=writer,
            summary_op=tf.summary.merge_all(),
        ),
        tf.train.SummarySaverHook(
            save_steps=settings.save_histograms_steps,
            summary_writer=writer,
            summary_op=tf.summary.merge_all(cifar10.HISTOGRAMS),
        ),
        cifar10_board.SpeedHook(writer, global_batch_size, settings.save_summaries_steps),
    ]


def session_config(settings: TrainSettings, num_cpu_devices: int = 1) -> tf.ConfigProto:
    """The session's configuration: threads, virtual CPU devices, and precision."""
    config = tf.ConfigProto(
        allow_soft_placement=True,
        log_device_placement=settings.log_device_placement,
        intra_op_parallelism_threads=settings.intra_op_threads,
        inter_op_parallelism_threads=settings.inter_op_threads,
        device_count={'CPU': num_cpu_devices},
    )
    if settings.use_bf16:
        cifar10_precision.compute_in_bf16(config)
    return config


def _taken(this_run: Run, training: Training, global_batch_size: int) -> Taken:
    """Tensors of a step, once it is taken."""
    with tf.name_scope('progress'):
        with tf.control_dependencies([training.train_op]):
            step = tf.train.get_global_step().read_value()
            examples = training.examples_seen.read_value()
        rate = cifar10.learning_rate_after(
            examples - global_batch_size, this_run.data.num_examples, this_run.settings
        )
    return Taken(step, examples, training.total_loss, rate)


class _Role(NamedTuple):
    """What a process does beside training."""

    hooks: list[tf.train.SessionRunHook]
    stopwatch: Stopwatch
    checkpoints: CheckpointHook | None = None
    """Of the chief."""
    prints_lines: bool = False


@contextlib.contextmanager
def _role_of(this_run: Run, taken: Taken, global_batch_size: int) -> Iterator[_Role]:
    """The chief's role, or that of the others, until the end of `with`."""
    settings, start, folder = this_run.settings, this_run.start, this_run.folder
    if folder is None:
        yield _Role([WatchDataHook(this_run)], Stopwatch())
        return
    with (
        History(settings.train_dir, start.step) as history,
        _live_line(this_run, history, global_batch_size) as line,
    ):
        stopwatch = Stopwatch(history.last('seconds') or 0.0)
        evaluation = None
        if settings.eval_every:
            evaluation = InterimEvaluation(settings, this_run.data, history, stopwatch, line)
        checkpoints = CheckpointHook(this_run, folder, taken, history, evaluation)
        hooks = [
            HistoryHook(taken, history, stopwatch, settings.log_frequency),
            *([LiveHook(taken, line)] if line else []),
            checkpoints,
            *([PlateauHook(settings, history)] if settings.plateau_evaluations else []),
            *_summary_hooks(settings, start, global_batch_size),
        ]
        yield _Role(hooks, stopwatch, checkpoints, prints_lines=line is None)


def _evaluate_if_missing(this_run: Run) -> None:
    """Makes up for the evaluation of a finished run's last step, in which it was broken off."""
    settings, start = this_run.settings, this_run.start
    if not (this_run.folder and start.checkpoint and settings.eval_every):
        return
    with History(settings.train_dir, start.step) as history:
        stopwatch = Stopwatch(history.last('seconds') or 0.0)
        evaluation = InterimEvaluation(settings, this_run.data, history, stopwatch, None)
        if evaluation.is_missing(start.step):
            evaluation.evaluate(start.checkpoint, start.examples)


@contextlib.contextmanager
def _live_line(
    this_run: Run, history: History, global_batch_size: int
) -> Iterator[LiveLine | None]:
    """The line that shows how far the run is; None where none is wanted."""
    if not (this_run.settings.progress and on_terminal()):
        yield None
        return
    line = LiveLine(this_run.start.step, this_run.settings.max_steps, global_batch_size)
    line.show_precision(history.last('precision'))
    with prints_above(line):
        yield line


def _open_session(
    worker: Worker, hooks: list[tf.train.SessionRunHook], config: tf.ConfigProto
) -> tf.train.MonitoredSession:
    if worker.target:
        # One that doesn't take up again what other workers have broken off: it can't.
        return tf.train.SingularMonitoredSession(hooks=hooks, config=config, master=worker.target)
    return tf.train.MonitoredTrainingSession(hooks=hooks, config=config, log_step_count_steps=None)


def run(this_run: Run, training: Training, global_batch_size: int, config: tf.ConfigProto) -> None:
    """Takes steps until the last one or a signal, and prints how to go on.

    Args:
      this_run: as `begin` gave it.
      training: the graph's parts.
      global_batch_size: number of examples in a step, all towers and workers together.
      config: of the session.

    Raises:
      UserError: a tensor is not finite, the training files have changed, or the folder
        can't be written any more; the message says which, and what there is to go on from.
    """
    settings, start, worker = this_run.settings, this_run.start, this_run.worker
    if start.step >= settings.max_steps:
        _evaluate_if_missing(this_run)
        print(f'Nothing to do: step {start.step} has reached --max_steps={settings.max_steps}')
        return
    if start.checkpoint:
        cifar10_checkpoint.initialize_from(start.checkpoint)
    taken = _taken(this_run, training, global_batch_size)
    with (
        worker.stop_hook() as stop,
        _explained(this_run),
        _role_of(this_run, taken, global_batch_size) as role,
    ):
        console = ConsoleHook(
            taken.step,
            taken.loss,
            global_batch_size,
            log_frequency=settings.log_frequency if role.prints_lines else None,
            num_towers=global_batch_size // (settings.batch_size * worker.num_workers),
            stopwatch=role.stopwatch,
        )
        console.step = start.step
        hooks = [
            tf.train.StopAtStepHook(last_step=settings.max_steps),
            console,
            stop,
            *worker.hooks(role.hooks),
        ]
        with _open_session(worker, hooks, config) as session:
            while not session.should_stop():
                try:
                    with worker.together():
                        session.run(training.train_op)
                except tf.errors.InvalidArgumentError:
                    reason = _why_not_finite(session, this_run, training)
                    if reason is None:
                        raise
                    if role.checkpoints:
                        role.checkpoints.pass_over_unproven()
                    raise UserError(
                        f'step {console.step + 1}: {reason}; the step was not taken'
                        f'{_newest_note(this_run.folder)}'
                    ) from None
                except tf.errors.OutOfRangeError as error:
                    # The session would take it for the end of the input, which has none: it
                    # comes from a file that grows beyond what is allowed.
                    raise _as_user_error(error, this_run) from error
    _print_end(settings, console.step, stop.received, worker)


def _why_not_finite(
    session: tf.train.MonitoredSession, this_run: Run, training: Training
) -> str | None:
    """Takes a step that failed again, and says what of it is not finite."""
    own_part = this_run.worker.own_part(training)

    def find(step_context: Any) -> cifar10_finite.NotFinite | None:
        raw_session = step_context.session
        position = int(raw_session.run(training.examples_seen))
        images, labels = _batch_at(this_run, training, position)
        return cifar10_finite.first_not_finite(raw_session, own_part, images, labels)

    bad = session.run_step_fn(find)
    if bad:
        return bad.in_words()
    if this_run.worker.num_workers > 1:
        return 'what another worker has computed is not finite, as it says itself'
    return None


def _batch_at(this_run: Run, training: Training, position: int) -> tuple[np.ndarray, np.ndarray]:
    """The batch of the training graph that begins at a position of the stream."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(this_run.settings.seed)
        batch = training_batches(
            this_run.settings,
            this_run.data,
            training.images.shape.as_list()[0],
            position,
            share=this_run.worker.index,
            num_shares=this_run.worker.num_workers,
        )
        return session.run(batch)


def _as_user_error(error: Exception, this_run: Run) -> UserError:
    return UserError(f'{cifar10_checkpoint.reason_of(error)}{_newest_note(this_run.folder)}')


@contextlib.contextmanager
def _explained(this_run: Run) -> Iterator[None]:
    """Makes what TensorFlow says of files the user's own error."""
    excepthook = threading.excepthook
    # TensorFlow's event writer raises in its own thread, and then again in this one.
    threading.excepthook = lambda arguments: None
    try:
        yield
    except UnwritableError as error:
        this_run.check_folder()
        raise UserError(f'{error}{_newest_note(this_run.folder)}') from error
    except tf.errors.OpError as error:
        this_run.watch.check()
        this_run.check_folder()
        if not isinstance(error, _STORAGE_ERRORS):
            raise
        raise _as_user_error(error, this_run) from error
    finally:
        threading.excepthook = excepthook


def _print_end(
    settings: TrainSettings, step: int, received: signal.Signals | None, worker: Worker
) -> None:
    """Says why the run ended, and the command that goes on."""
    end = f'{"Stopped by " + received.name if received else "Finished"} at step {step}'
    if not worker.is_chief:
        print(f'{end}, saved by the chief')
        return
    print(f'{end}, saved in {settings.train_dir}{data_note(settings.dataset)}')
    print(f'To watch: {cifar10_board.command_line(settings.train_dir)}')
    # The data set that the run began with is taken by itself.
    settings = dataclasses.replace(settings, start_over=False, dataset=TrainSettings.dataset)
    if step >= settings.max_steps:
        settings = dataclasses.replace(settings, max_steps=max(100_000, 2 * step))
    where = '' if worker.num_workers == 1 else ', on each worker with its TF_CONFIG'
    print(f'To go on{where}: {cifar10_settings.command_line(settings)}', flush=True)
