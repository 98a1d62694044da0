"""How does a training run begin, report, save, stop and go on?

The part that every trainer shares. A trainer builds its graph between `begin`,
which says where the run starts, and `run`, which takes the steps.
"""

from __future__ import annotations

import dataclasses
import datetime
import glob
import os
import signal
import sys
import time
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

import cifar10
import cifar10_checkpoint
import cifar10_data
import cifar10_settings
from cifar10_input import count_examples, train_files
from cifar10_settings import UserError, setting

# What a run writes into its folder, and all that --start_over removes.
_RUN_FILES = (
    'checkpoint',
    'model.ckpt-*',
    'graph.pbtxt',
    'events.out.tfevents.*',
    cifar10_settings.SETTINGS_FILE,
)

# Steps between histogram summaries, by default. On 2 CPU cores one set of them costs
# 156 ms, as much as four steps, and the scalars less than can be measured: this keeps
# all summaries together under 1% of the training time.
_HISTOGRAM_STEPS = 500


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """What a training run is asked to do."""

    train_dir: str = setting(
        'cifar10_train', 'Folder for checkpoints, summaries and settings; resumed if it holds any.'
    )
    max_steps: int = setting(
        1_000_000, 'Train until global_step is this, earlier runs included.', at_least=1
    )
    batch_size: int = setting(
        cifar10.BATCH_SIZE, 'Number of images in a batch (of one tower).', at_least=1
    )
    data_dir: str = setting('cifar10_data', 'Folder of the data set, filled if it is empty.')
    dataset: str = setting(
        'cifar10',
        'The images: cifar10, synthetic (drawn, needs no download), or auto (cifar10 where it '
        'can be had, else synthetic).',
        choices=cifar10_data.DATASETS,
    )
    data_url: str = setting(cifar10.DATA_URL, 'Where to get CIFAR-10: an http, https or file URL.')
    log_frequency: int = setting(10, 'Steps between console lines.', at_least=1)
    log_device_placement: bool = setting(False, 'Log the device of every operation.')
    use_fp16: bool = setting(False, 'Compute in float16, with float32 master variables.')
    seed: int = setting(0, 'Decides first weights, order and distortions.', at_least=0)
    save_checkpoint_secs: int = setting(600, 'Seconds between checkpoints.', at_least=1)
    save_summaries_steps: int = setting(100, 'Steps between scalar summaries.', at_least=1)
    save_histograms_steps: int = setting(
        _HISTOGRAM_STEPS, 'Steps between histogram summaries, which cost more.', at_least=1
    )
    intra_op_threads: int = setting(
        0, 'Threads that share one operation; 0: one for each core.', at_least=0
    )
    inter_op_threads: int = setting(
        0, 'Operations that run at a time; 0: one for each core.', at_least=0
    )
    start_over: bool = setting(False, 'First remove the run that --train_dir holds.')


class Run(NamedTuple):
    """A run that is about to begin."""

    settings: Any
    """TrainSettings, with `dataset` decided."""
    data_dir: str
    """Directory that holds the record files."""
    num_examples: int
    """Size of the training set."""
    start: cifar10_checkpoint.Start
    """Where it goes on from."""


def data_note(dataset: str) -> str:
    """What every result on drawn images says of itself; nothing for CIFAR-10."""
    return ' [synthetic images, not CIFAR-10]' if dataset == 'synthetic' else ''


def begin(settings: TrainSettings, global_batch_size: int) -> Run:
    """Gets the data and the folder ready, and prints what is about to happen.

    Args:
      settings: as the flags gave them.
      global_batch_size: number of examples in a step, all towers together.

    Raises:
      UserError: data, folder and settings don't go together.
    """
    stored = cifar10_settings.load(settings.train_dir) if not settings.start_over else {}
    prepared = _prepare_data(settings, stored.get('dataset'))
    settings = dataclasses.replace(settings, dataset=prepared.dataset)
    num_examples = count_examples(train_files(prepared.directory))
    if global_batch_size > num_examples:
        raise UserError(
            f'--batch_size: a step takes {global_batch_size} examples, but '
            f'{prepared.directory} holds only {num_examples} training images'
        )
    print(f'Settings: {cifar10_settings.describe(settings)}')
    print(
        f'Data: {num_examples} training images in {prepared.directory}{data_note(prepared.dataset)}'
    )
    _prepare_train_dir(settings, stored)
    start = cifar10_checkpoint.find_start(settings.train_dir)
    if start.checkpoint:
        print(f'Going on from {start.checkpoint} at step {start.step}')
    if settings.use_fp16:
        _warn_where_fp16_is_slow()
    return Run(settings, prepared.directory, num_examples, start)


def _prepare_data(settings: TrainSettings, stored: str | None) -> cifar10_data.Prepared:
    """The data set, the one that the run in --train_dir began with."""
    dataset = settings.dataset
    if dataset == 'auto' and stored:
        dataset = stored
    if stored and dataset != stored:
        raise UserError(
            f'--dataset={dataset}: the run in {settings.train_dir} was trained on {stored}; '
            f'name another --train_dir, or give --dataset={stored} or --start_over'
        )
    return cifar10.maybe_download_and_extract(settings.data_dir, dataset, settings.data_url)


def _prepare_train_dir(settings: TrainSettings, stored: dict[str, Any]) -> None:
    """Makes the folder, empties it if asked to, and stores the settings in it."""
    try:
        os.makedirs(settings.train_dir, exist_ok=True)
        if settings.start_over:
            _remove_run(settings.train_dir)
        cifar10_settings.store(settings, settings.train_dir)
    except OSError as error:
        raise UserError(f'--train_dir={settings.train_dir}: cannot be written: {error}') from error
    for name, value in dataclasses.asdict(settings).items():
        if name != 'start_over' and name in stored and stored[name] != value:
            print(f'Changed since the last run: --{name} was {stored[name]}, is now {value}')


def _remove_run(train_dir: str) -> None:
    """Removes the files that a run writes, and no others."""
    for pattern in _RUN_FILES:
        for path in glob.glob(os.path.join(glob.escape(train_dir), pattern)):
            print(f'Removing {path}')
            os.remove(path)


def _warn_where_fp16_is_slow() -> None:
    """float16 pays only on GPUs with tensor cores: compute capability 7.0 and up."""
    gpus = tf.config.list_physical_devices('GPU')
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    if not any(gpu.get('compute_capability', (0, 0)) >= (7, 0) for gpu in details):
        print(
            'Warning: --use_fp16 will be slower than float32 here: no GPU of compute '
            f'capability 7.0 or more is at hand (found {len(gpus)} GPUs)',
            file=sys.stderr,
        )


class ConsoleHook(tf.train.SessionRunHook):
    """Prints step, loss and speed, in the tutorial's format.

    The time of the first step, which includes building and warming up, counts
    for no line.
    """

    def __init__(
        self, step: tf.Tensor, total_loss: tf.Tensor, batch_size: int, log_frequency: int
    ) -> None:
        """
        Args:
          step: int64 [], the global_step once the update is done.
          total_loss: float32 [].
          batch_size: number of examples in a step, all towers together.
          log_frequency: steps between lines.
        """
        self._fetches = [step, total_loss]
        self._batch_size = batch_size
        self._log_frequency = log_frequency
        self._last: tuple[int, float] | None = None
        self.step = 0

    def before_run(self, run_context: tf.train.SessionRunContext) -> tf.train.SessionRunArgs:
        return tf.train.SessionRunArgs(self._fetches)

    def after_run(
        self, run_context: tf.train.SessionRunContext, run_values: tf.train.SessionRunValues
    ) -> None:
        self.step, loss = run_values.results
        now = time.perf_counter()
        if self._last is None:
            self._last = self.step, now
        elif self.step % self._log_frequency == 0:
            last_step, last_time = self._last
            seconds = (now - last_time) / (self.step - last_step)
            print(
                f'{timestamp()}: step {self.step}, loss = {loss:.2f} '
                f'({self._batch_size / seconds:.1f} examples/sec; {seconds:.3f} sec/batch)',
                flush=True,
            )
            self._last = self.step, now


def timestamp() -> str:
    """The local time, as 2026-11-21 12:00:00.000000."""
    return datetime.datetime.now().isoformat(sep=' ', timespec='microseconds')


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


def _saver(train_dir: str) -> tf.train.Saver:
    """Saves all variables, and knows which older checkpoints to drop."""
    saver = tf.train.Saver(max_to_keep=5, save_relative_paths=True)
    state = tf.train.get_checkpoint_state(train_dir)
    if state:
        saver.recover_last_checkpoints(state.all_model_checkpoint_paths)
    return saver


def _saving_hooks(settings: TrainSettings, saver: tf.train.Saver) -> list[tf.train.SessionRunHook]:
    writer = tf.summary.FileWriterCache.get(settings.train_dir)
    return [
        tf.train.CheckpointSaverHook(
            settings.train_dir, save_secs=settings.save_checkpoint_secs, saver=saver
        ),
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
    ]


def session_config(settings: TrainSettings, num_cpu_devices: int = 1) -> tf.ConfigProto:
    """The session's configuration: threads, and virtual CPU devices."""
    return tf.ConfigProto(
        allow_soft_placement=True,
        log_device_placement=settings.log_device_placement,
        intra_op_parallelism_threads=settings.intra_op_threads,
        inter_op_parallelism_threads=settings.inter_op_threads,
        device_count={'CPU': num_cpu_devices},
    )


def run(
    this_run: Run,
    train_op: tf.Operation,
    total_loss: tf.Tensor,
    global_batch_size: int,
    config: tf.ConfigProto,
) -> None:
    """Takes steps until the last one or a signal, and prints how to go on.

    Args:
      this_run: as `begin` gave it.
      train_op: one step.
      total_loss: float32 [], the loss of that step.
      global_batch_size: number of examples in a step, all towers together.
      config: of the session.

    Raises:
      UserError: the loss is not finite.
    """
    settings, start = this_run.settings, this_run.start
    if start.step >= settings.max_steps:
        print(f'Nothing to do: step {start.step} has reached --max_steps={settings.max_steps}')
        return
    if start.checkpoint:
        cifar10_checkpoint.initialize_from(start.checkpoint)
    with tf.control_dependencies([train_op]):
        step = tf.train.get_global_step().read_value()
    console = ConsoleHook(step, total_loss, global_batch_size, settings.log_frequency)
    saver = _saver(settings.train_dir)
    with StopSignalHook() as stop:
        hooks = [
            tf.train.NanTensorHook(total_loss),
            tf.train.StopAtStepHook(last_step=settings.max_steps),
            console,
            stop,
            *_saving_hooks(settings, saver),
        ]
        try:
            with tf.train.MonitoredTrainingSession(
                hooks=hooks,
                scaffold=tf.train.Scaffold(saver=saver),
                config=config,
                log_step_count_steps=None,
            ) as session:
                while not session.should_stop():
                    session.run(train_op)
        except tf.train.NanLossDuringTrainingError as error:
            raise UserError(
                f'the loss of step {console.step + 1} is not finite; the last checkpoint is '
                f'{tf.train.latest_checkpoint(settings.train_dir)}'
            ) from error
    _print_end(settings, console.step, stop.received)


def _print_end(settings: TrainSettings, step: int, received: signal.Signals | None) -> None:
    """Says why the run ended, and the command that goes on."""
    print(
        f'{"Stopped by " + received.name if received else "Finished"} at step {step}, '
        f'saved in {settings.train_dir}{data_note(settings.dataset)}'
    )
    settings = dataclasses.replace(settings, start_over=False)
    if step >= settings.max_steps:
        settings = dataclasses.replace(settings, max_steps=max(100_000, 2 * step))
    print(f'To go on: {cifar10_settings.command_line(settings)}', flush=True)
