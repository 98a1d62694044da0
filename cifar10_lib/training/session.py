"""The session of a training run: its configuration, its hooks, and its failures explained."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10_lib.base import flags
from cifar10_lib.base.console import SteadyOutput, on_terminal, prints_above, steady_output
from cifar10_lib.base.errors import UserError, error_message
from cifar10_lib.base.files import utf8_name
from cifar10_lib.data.prepare import data_note
from cifar10_lib.evaluation.best import BEST_DIRECTORY, read_reason
from cifar10_lib.nn.recipes import last_step
from cifar10_lib.nn.schedules import get_examples_seen, learning_rate
from cifar10_lib.nn.summaries import HISTOGRAMS
from cifar10_lib.runs import checkpoints, tensorboard
from cifar10_lib.runs.history import History, UnwritableError
from cifar10_lib.training import mixed_precision, nonfinite
from cifar10_lib.training.begin import Run, training_batches
from cifar10_lib.training.card import card
from cifar10_lib.training.console import (
    ConsoleHook,
    HistoryHook,
    LiveHook,
    LiveLine,
    StepTensors,
    Stopwatch,
)
from cifar10_lib.training.hooks import (
    CheckpointHook,
    PatienceHook,
    PlateauHook,
    WatchDataHook,
    newest_note,
)
from cifar10_lib.training.periodic_eval import PeriodicEvaluation, make_plan
from cifar10_lib.training.settings import TrainSettings

# What TensorFlow raises for files and folders, memory and disks.
_STORAGE_ERRORS = (
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.ResourceExhaustedError,
    tf.errors.UnknownError,
)


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


class _FinishedSession:
    """The session of a run that has no step left to take."""

    def should_stop(self) -> bool:
        return True


@contextlib.contextmanager
def training_session(
    run: Run,
    images: tf.Tensor,
    labels: tf.Tensor,
    total_loss: tf.Tensor,
    train_op: tf.Operation,
    config: tf.ConfigProto,
) -> Iterator[Any]:
    """A session that resumes the run, reports, saves, evaluates and stops as its settings ask.

    At the end of `with` it saves, and prints how to resume. Its `should_stop` is true after the
    last step, and after a signal.

    Args:
      run: as `begin` gave it.
      images, labels: this process's batch, as `training_batches` gave it.
      total_loss: float32 [], over the complete batch.
      train_op: takes one step.
      config: of the session.

    Raises:
      UserError: a tensor is not finite, the training files have changed, or the folder
        can't be written any more; the message says which, and names the checkpoint to resume
        from.
    """
    settings, start, worker = run.settings, run.start, run.worker
    if start.step >= settings.max_steps:
        _evaluate_if_missing(run)
        print(f'Nothing to do: step {start.step} has reached --max_steps={settings.max_steps}')
        yield _FinishedSession()
        return
    tensors = _step_tensors(run, total_loss, train_op)
    print(card(run), flush=True)
    with (
        steady_output() as output,
        worker.stop_hook() as stop,
        _files_explained(run),
        _role(run, tensors, output, lambda: stop.received is not None) as role,
    ):
        console = ConsoleHook(
            tensors.step,
            tensors.loss,
            run.batch_size,
            log_frequency=settings.log_frequency if role.prints_lines else None,
            num_towers=run.batch_size // (settings.batch_size * worker.num_workers),
            stopwatch=role.stopwatch,
            max_steps=settings.max_steps,
        )
        console.step = start.step
        hooks = [
            tf.train.StopAtStepHook(last_step=settings.max_steps),
            console,
            *worker.hooks(role.hooks),
            # After those that take time, in which a signal may come.
            stop,
        ]
        with _open_session(run, hooks, config) as session:
            try:
                with worker.together():
                    yield session
            except tf.errors.InvalidArgumentError:
                reason = _why_not_finite(session, run, images, labels)
                if reason is None:
                    raise
                if role.checkpoints:
                    role.checkpoints.pass_over_unproven()
                raise UserError(
                    f'step {console.step + 1}: {reason}; the step was not taken'
                    f'{newest_note(run.folder)}'
                ) from None
            except tf.errors.OutOfRangeError as error:
                # The session would take it for the end of the input, which has none: it
                # comes from a file that grows beyond what is allowed.
                raise _user_error(error, run) from error
    out_of_patience = role.patience.reason if role.patience else None
    _print_end(run, console.step, stop.received, out_of_patience)


def _step_tensors(run: Run, total_loss: tf.Tensor, train_op: tf.Operation) -> StepTensors:
    """Tensors of a step, once it is taken."""
    with tf.name_scope('progress'):
        with tf.control_dependencies([train_op]):
            step = tf.train.get_global_step().read_value()
            examples = get_examples_seen().read_value()
        rate = learning_rate(examples - run.batch_size, run.data.num_examples, run.settings)
        cross_entropy = total_loss - tf.add_n(
            [tf.zeros([]), *tf.losses.get_regularization_losses()]
        )
    return StepTensors(step, examples, total_loss, rate, cross_entropy)


def _open_session(
    run: Run, hooks: list[tf.train.SessionRunHook], config: tf.ConfigProto
) -> tf.train.MonitoredSession:
    scaffold = None
    values = checkpoints.values_of_variables(run.first_weights)
    if run.start.checkpoint:
        values = checkpoints.first_values(checkpoints.open_checkpoint(run.start.checkpoint))
    if values:
        scaffold = tf.train.Scaffold(init_fn=lambda _, session: checkpoints.assign(session, values))
    if run.worker.target:
        # One that doesn't resume what other workers have broken off: it can't.
        return tf.train.SingularMonitoredSession(
            hooks=hooks, scaffold=scaffold, config=config, master=run.worker.target
        )
    return tf.train.MonitoredTrainingSession(
        hooks=hooks, scaffold=scaffold, config=config, log_step_count_steps=None
    )


# --------------------------------------------------------------------------- roles


class _Role(NamedTuple):
    """The part of a process beside training."""

    hooks: list[tf.train.SessionRunHook]
    stopwatch: Stopwatch
    checkpoints: CheckpointHook | None = None
    """Of the chief."""
    patience: PatienceHook | None = None
    """Where the run ends by --patience."""
    prints_lines: bool = False


@contextlib.contextmanager
def _role(
    run: Run, tensors: StepTensors, output: SteadyOutput, is_stopping: Callable[[], bool]
) -> Iterator[_Role]:
    """The chief's role, or that of the others, until the end of `with`.

    Args:
      run: the run.
      tensors: of a step.
      output: what the run prints to.
      is_stopping: whether a signal has come, which breaks evaluations off.
    """
    settings = run.settings
    if run.folder is None:
        yield _Role([WatchDataHook(run.watch)], Stopwatch())
        return
    with (
        History(settings.train_dir, run.start.step, run.labels) as history,
        _live_line(run, history) as line,
    ):
        stopwatch = Stopwatch(history.last('seconds') or 0.0)
        plan = make_plan(run)
        evaluation = None
        if plan:
            evaluation = PeriodicEvaluation(run, plan, history, stopwatch, line, is_stopping)
        saver = CheckpointHook(run, run.folder, tensors, history, evaluation)
        patience = PatienceHook(settings, history) if settings.patience else None
        hooks = [
            HistoryHook(tensors, history, stopwatch, settings.log_frequency, output),
            *([LiveHook(tensors, line)] if line else []),
            saver,
            *([PlateauHook(settings, history)] if settings.plateau_evaluations else []),
            *([patience] if patience else []),
            *_summary_hooks(run),
        ]
        yield _Role(hooks, stopwatch, saver, patience, prints_lines=line is None)


@contextlib.contextmanager
def _live_line(run: Run, history: History) -> Iterator[LiveLine | None]:
    """The progress line of the run; None where none is wanted."""
    if not (run.settings.progress and on_terminal()):
        yield None
        return
    line = LiveLine(run.start.step, run.settings.max_steps, run.batch_size)
    line.show_precisions(history.precisions(run.settings.evaluated_data))
    with prints_above(line):
        yield line


def _summary_hooks(run: Run) -> list[tf.train.SessionRunHook]:
    settings, start = run.settings, run.start
    writer = tf.summary.FileWriterCache.get(utf8_name(settings.train_dir))
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
            summary_op=tf.summary.merge_all(HISTOGRAMS),
        ),
        tensorboard.SpeedHook(writer, run.batch_size, settings.save_summaries_steps),
    ]


def _evaluate_if_missing(run: Run) -> None:
    """Makes up for an evaluation of a finished run's last step that was broken off."""
    start, plan = run.start, make_plan(run)
    if not (run.folder and start.checkpoint and plan):
        return
    with History(run.settings.train_dir, start.step, run.labels) as history:
        stopwatch = Stopwatch(history.last('seconds') or 0.0)
        evaluation = PeriodicEvaluation(run, plan, history, stopwatch)
        if evaluation.is_missing(start.step):
            evaluation.evaluate(start.checkpoint, start.examples)


# ------------------------------------------------------------------------ failures


def _why_not_finite(
    session: tf.train.MonitoredSession, run: Run, images: tf.Tensor, labels: tf.Tensor
) -> str | None:
    """Computes a step that failed again, and says what of it is not finite."""

    def find(step_context: Any) -> nonfinite.NotFinite | None:
        raw_session = step_context.session
        position = int(raw_session.run(get_examples_seen()))
        values = _batch_at(run, images.shape.as_list()[0], position)
        batch: Mapping[tf.Tensor, np.ndarray] = dict(zip((images, labels), values, strict=True))
        return nonfinite.first_not_finite(raw_session, batch)

    bad = session.run_step_fn(find)
    if bad:
        return bad.describe()
    if run.worker.num_workers > 1:
        return 'what another worker has computed is not finite, as it says itself'
    return None


def _batch_at(run: Run, batch_size: int, position: int) -> tuple[np.ndarray, np.ndarray]:
    """This process's batch at a position of the stream."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(run.settings.seed)
        start = run.start._replace(examples=position)
        return session.run(training_batches(run._replace(start=start), batch_size))


def _user_error(error: Exception, run: Run) -> UserError:
    return UserError(f'{error_message(error)}{newest_note(run.folder)}')


@contextlib.contextmanager
def _files_explained(run: Run) -> Iterator[None]:
    """Turns what TensorFlow says of files into the user's own error."""
    excepthook = threading.excepthook
    # TensorFlow's event writer raises in its own thread, and then again in this one.
    threading.excepthook = lambda arguments: None
    try:
        yield
    except UnwritableError as error:
        run.check_folder()
        raise UserError(f'{error}{newest_note(run.folder)}') from error
    except tf.errors.OpError as error:
        run.watch.check()
        run.check_folder()
        if not isinstance(error, _STORAGE_ERRORS):
            raise
        raise _user_error(error, run) from error
    finally:
        threading.excepthook = excepthook


# ----------------------------------------------------------------------------- end


def _print_end(
    run: Run, step: int, received: signal.Signals | None, out_of_patience: str | None
) -> None:
    """Says why the run ended, and the command that resumes it."""
    settings, worker = run.settings, run.worker
    end = f'{"Stopped by " + received.name if received else "Finished"} at step {step}'
    if out_of_patience:
        end += f', after {out_of_patience}'
    if not worker.is_chief:
        print(f'{end}, saved by the chief')
        return
    print(f'{end}, saved in {settings.train_dir}{data_note(settings.dataset)}')
    if settings.keep_best:
        _print_best(run)
    print(f'To watch: {tensorboard.command_line(settings.train_dir)}')
    settings = dataclasses.replace(settings, start_over=False)
    last = last_step(settings, run.data.num_examples, run.batch_size)
    if last is not None and step >= last:
        print(
            f'The learning rate is at its end, by --schedule={settings.schedule} and '
            f'--decay_epochs={settings.decay_epochs}: to train longer, begin a run of more epochs '
            'in another --train_dir',
            flush=True,
        )
        return
    if out_of_patience:
        settings = dataclasses.replace(settings, patience=2 * settings.patience)
    if step >= settings.max_steps:
        settings = dataclasses.replace(settings, max_steps=last or max(100_000, 2 * step))
    where = '' if worker.num_workers == 1 else ', on each worker with its TF_CONFIG'
    print(f'To resume{where}: {flags.command_line(settings)}', flush=True)


def _print_best(run: Run) -> None:
    """Says which checkpoint --keep_best kept."""
    folder = os.path.join(run.settings.train_dir, BEST_DIRECTORY)
    best = read_reason(folder)
    if best:
        precision, step = best['precision'], best['step']
        print(f'Best: precision @ 1 = {precision:.3f} at step {step}, kept in {folder}')
