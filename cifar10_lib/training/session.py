"""How does a training run take its steps, report, save and stop?

The part that every trainer shares. A trainer builds its graph between `cifar10_run.begin`,
which says where the run starts, and `run`, which takes the steps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

import cifar10
from cifar10_lib.base import flags
from cifar10_lib.base.console import on_terminal, prints_above
from cifar10_lib.base.errors import UserError
from cifar10_lib.data.prepare import data_note
from cifar10_lib.nn.recipes import last_step_of_schedule
from cifar10_lib.runs import checkpoints, tensorboard
from cifar10_lib.runs.history import History, UnwritableError
from cifar10_lib.training import mixed_precision, nonfinite
from cifar10_lib.training.begin import Run
from cifar10_lib.training.console import (
    ConsoleHook,
    HistoryHook,
    LiveHook,
    LiveLine,
    Stopwatch,
    Taken,
)
from cifar10_lib.training.hooks import CheckpointHook, PlateauHook, WatchDataHook, newest_note
from cifar10_lib.training.nonfinite import Training
from cifar10_lib.training.periodic_eval import InterimEvaluation
from cifar10_lib.training.settings import TrainSettings, training_batches
from cifar10_lib.training.worker import Worker

# What TensorFlow raises for files and folders, memory and disks.
_STORAGE_ERRORS = (
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.ResourceExhaustedError,
    tf.errors.UnknownError,
)


def _summary_hooks(
    settings: TrainSettings, start: checkpoints.Start, global_batch_size: int
) -> list[tf.train.SessionRunHook]:
    writer = tf.summary.FileWriterCache.get(settings.train_dir)
    tensorboard.add_graph(writer, tf.get_default_graph())
    tensorboard.add_settings(writer, dataclasses.asdict(settings), settings.train_dir)
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
        tensorboard.SpeedHook(writer, global_batch_size, settings.save_summaries_steps),
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
        mixed_precision.compute_in_bf16(config)
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
        checkpoints.initialize_from(start.checkpoint)
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
                        f'{newest_note(this_run.folder)}'
                    ) from None
                except tf.errors.OutOfRangeError as error:
                    # The session would take it for the end of the input, which has none: it
                    # comes from a file that grows beyond what is allowed.
                    raise _as_user_error(error, this_run) from error
    _print_end(this_run, console.step, global_batch_size, stop.received)


def _why_not_finite(
    session: tf.train.MonitoredSession, this_run: Run, training: Training
) -> str | None:
    """Takes a step that failed again, and says what of it is not finite."""
    own_part = this_run.worker.own_part(training)

    def find(step_context: Any) -> nonfinite.NotFinite | None:
        raw_session = step_context.session
        position = int(raw_session.run(training.examples_seen))
        images, labels = _batch_at(this_run, training, position)
        return nonfinite.first_not_finite(raw_session, own_part, images, labels)

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
    return UserError(f'{checkpoints.reason_of(error)}{newest_note(this_run.folder)}')


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
        raise UserError(f'{error}{newest_note(this_run.folder)}') from error
    except tf.errors.OpError as error:
        this_run.watch.check()
        this_run.check_folder()
        if not isinstance(error, _STORAGE_ERRORS):
            raise
        raise _as_user_error(error, this_run) from error
    finally:
        threading.excepthook = excepthook


def _print_end(
    this_run: Run, step: int, global_batch_size: int, received: signal.Signals | None
) -> None:
    """Says why the run ended, and the command that goes on."""
    settings, worker = this_run.settings, this_run.worker
    end = f'{"Stopped by " + received.name if received else "Finished"} at step {step}'
    if not worker.is_chief:
        print(f'{end}, saved by the chief')
        return
    print(f'{end}, saved in {settings.train_dir}{data_note(settings.dataset)}')
    print(f'To watch: {tensorboard.command_line(settings.train_dir)}')
    # The data set that the run began with is taken by itself.
    settings = dataclasses.replace(settings, start_over=False, dataset=TrainSettings.dataset)
    last_step = last_step_of_schedule(settings, this_run.data.num_examples, global_batch_size)
    if last_step is not None and step >= last_step:
        print(
            f'The learning rate is at its end, by --schedule={settings.schedule} and '
            f'--decay_epochs={settings.decay_epochs}: to train longer, begin a run of more epochs '
            'in another --train_dir',
            flush=True,
        )
        return
    if step >= settings.max_steps:
        settings = dataclasses.replace(settings, max_steps=last_step or max(100_000, 2 * step))
    where = '' if worker.num_workers == 1 else ', on each worker with its TF_CONFIG'
    print(f'To go on{where}: {flags.command_line(settings)}', flush=True)
