"""The beginning of a training run: data, folder, settings and the other workers, together."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow
import tensorflow.compat.v1 as tf

from cifar10_input import (
    NUM_CLASSES,
    count_examples,
    distorted_inputs,
    inputs,
    test_files,
    train_files,
)
from cifar10_lib.base import files, locks
from cifar10_lib.base.errors import UserError, write_errors_named
from cifar10_lib.base.watch import Watch
from cifar10_lib.data import held_out, prepare, record_files
from cifar10_lib.data.datasets import IDX_DIRECTORIES
from cifar10_lib.data.framing import Framing
from cifar10_lib.data.prepare import data_note
from cifar10_lib.evaluation.best import BEST_DIRECTORY, REASON_FILE
from cifar10_lib.nn import summaries
from cifar10_lib.nn.layers import Network, Options, training_options
from cifar10_lib.nn.recipes import (
    BALANCED,
    NONE,
    in_steps,
    last_step,
    resolve_class_weights,
)
from cifar10_lib.nn.schedules import distortions
from cifar10_lib.runs import checkpoints, history, run_folder
from cifar10_lib.runs.checkpoints import CheckpointFolder
from cifar10_lib.runs.run_folder import RunFolder
from cifar10_lib.training import fine_tuning, mixed_precision
from cifar10_lib.training.settings import OneDeviceTrainSettings, TrainingData, TrainSettings
from cifar10_lib.training.worker import Worker

# What a run writes into its folder, and all that --start_over removes.
_RUN_FILES = (
    checkpoints.STATE_FILE,
    f'{checkpoints.PREFIX}-*',
    checkpoints.UNFINISHED,
    'graph.pbtxt',
    'events.out.tfevents.*',
    run_folder.SETTINGS_FILE,
    history.HISTORY_FILE,
    # Of its evaluations, but for the checkpoint that --keep_best keeps.
    os.path.join(run_folder.EVAL_DIRECTORY, 'events.out.tfevents.*'),
    os.path.join(run_folder.EVAL_DIRECTORY, history.HISTORY_FILE),
    # The checkpoint that its own --keep_best kept.
    *(
        os.path.join(BEST_DIRECTORY, name)
        for name in (
            checkpoints.STATE_FILE,
            f'{checkpoints.PREFIX}-*',
            checkpoints.UNFINISHED,
            run_folder.SETTINGS_FILE,
            REASON_FILE,
        )
    ),
)

# Files of other folders: where there is no run yet, none is begun beside them.
_FILES_OF_OTHERS = {
    'metadata.json': 'an exported network',
    record_files.CLASS_NAMES_FILE: 'a data set',
    record_files.RECORD_FILES[0]: 'a data set',
    history.HISTORY_FILE: 'the history of evaluations',
}

# What a resumed run must keep: names of flags, and of `RunFolder`'s attributes. Held-out images
# that were trained on would no longer be held out.
_KEPT = {
    'dataset': 'was trained on',
    'model': 'trains the network',
    'preset': 'is trained by the preset',
    'num_held_out': 'was trained with',
    'num_filters': 'trains a network of --num_filters',
    'hidden_size': 'trains a network of --hidden_size',
    'block_depth': 'trains a network of --block_depth',
}


# Of the largest class to the smallest, above which training warns.
_LARGEST_RATIO = 3

# Training images from which a network's first values may derive.
_NUM_FIRST_IMAGES = 5000


class Run(NamedTuple):
    """A run that is about to begin."""

    settings: Any
    """TrainSettings, with `dataset` decided."""
    network: Network
    data: TrainingData
    batch_size: int
    """Number of examples in a step, all towers and workers together."""
    folder: CheckpointFolder | None
    """Of its checkpoints; None on a worker that isn't the chief."""
    start: checkpoints.Start
    """Checkpoint and counters that it resumes from."""
    watch: Watch
    """Sees when the training files change."""
    labels: dict[str, str]
    """What each line of its history says of it."""
    check_folder: Callable[[], None]
    """Raises UserError if the train_dir isn't there any more."""
    worker: Worker
    """This process's part in it."""
    first_weights: Mapping[str, np.ndarray] = {}
    """By name, those that a new run begins with: see `--init_from`."""


@contextlib.contextmanager
def begin(
    settings: TrainSettings, network: Network, batch_size: int, worker: Worker | None = None
) -> Iterator[Run]:
    """Prepares the data and the folder, and prints what is about to happen.

    Until the end of `with`, no other run can begin in the folder.

    Args:
      settings: as the flags gave them.
      network: that `settings.model` names.
      batch_size: number of examples in a step, all towers and workers together.
      worker: this process's part in the run; None: it is the only one.

    Yields:
      The run. The current graph is a new one, for it.

    Raises:
      UserError: data, folder and settings don't go together, or another run is under way
        in the folder.
    """
    mixed_precision.check(settings.use_fp16, settings.use_bf16)
    worker = worker or Worker()
    resumes = worker.is_chief and not settings.start_over
    run_folder.refuse_checkpoint(settings.train_dir)
    earlier = RunFolder.open(settings.train_dir) if resumes else RunFolder(settings.train_dir)
    prepared = _prepare_data(settings, earlier)
    _check_train_dir(settings.train_dir, settings.data_dir, prepared.directory)
    settings = dataclasses.replace(
        settings,
        dataset=prepared.dataset,
        data_dir=os.path.abspath(settings.data_dir),
        num_held_out=_num_held_out(settings, prepared),
        held_out=0.0,
    )
    _check_kept('num_held_out', settings.num_held_out, earlier)
    _check_evaluations(settings, worker)
    _check_pairs(settings)
    network = network.of_size(prepared.framing.size)
    data = _training_data(settings, prepared, batch_size, earlier)
    files_labels = [record_files.read_labels(f, data.record) for f in train_files(data.directory)]
    classes = np.concatenate(files_labels)
    _warn_of_classes_not_held_out(data, classes)
    settings = _weigh_classes(settings, data, classes)
    settings = in_steps(settings, data.num_examples, batch_size)
    network = network.trained_by(settings)
    print(f'Data: {_describe(settings, data)}{data_note(prepared.dataset)}')
    _warn_of_steps_beyond_schedule(settings, data, batch_size)
    _warn_of_unseen_colours(settings, network)
    fine_tuning.check_layers(settings, network, data.num_classes)
    settings, first_weights = _first_weights(settings, network, data, earlier, worker)
    watch = Watch(train_files(prepared.directory))
    with contextlib.ExitStack() as held:
        folder, found, check_folder, labels = None, None, lambda: None, earlier.labels
        if worker.is_chief:
            check_folder = held.enter_context(_hold_train_dir(settings))
            # An absolute path outlives the working directory.
            folder = CheckpointFolder(os.path.abspath(settings.train_dir), settings.max_to_keep)
            found = checkpoints.find_start(folder)
            if found.step < settings.max_steps:
                labels = _store_settings(settings, earlier, watch, data, prepared.framing, found)
        facts = {
            'training images': data.num_examples,
            'training files': watch.digest(),
            'seed of the held-out images': data.held_out_seed,
        }
        start = worker.join(settings, facts, found)
        if start.checkpoint:
            name = os.path.join(settings.train_dir, os.path.basename(start.checkpoint))
            print(f'Resuming from {name} at step {start.step}')
        if settings.deterministic:
            tensorflow.config.experimental.enable_op_determinism()
        with tf.Graph().as_default():
            # What tf.data asks for before it is deterministic; no operation here draws from it.
            tf.set_random_seed(settings.seed)
            yield Run(
                settings,
                network,
                data,
                batch_size,
                folder,
                start,
                watch,
                labels,
                check_folder,
                worker,
                first_weights,
            )


def _prepare_data(settings: TrainSettings, earlier: RunFolder) -> prepare.Prepared:
    """The data set, that of the run in --train_dir if there is one.

    Raises:
      UserError: the settings change what a resumed run must keep, or the data can't be had.
    """
    prepare.refuse_unused_url(settings.dataset, settings.data_url)
    dataset = None if settings.dataset == 'auto' else settings.dataset
    _check_kept('dataset', dataset, earlier)
    _check_kept('model', settings.model, earlier)
    _check_kept('preset', settings.preset_name, earlier)
    for name in ('num_filters', 'hidden_size', 'block_depth'):
        _check_kept(name, getattr(settings, name), earlier)
    try:
        return prepare.prepare(
            settings.data_dir,
            earlier.dataset or settings.dataset,
            settings.data_url,
            # A run that is resumed would take a new set for its own.
            may_make=earlier.dataset is None,
        )
    except prepare.OtherDataError as error:
        if not earlier.dataset:
            raise
        raise UserError(
            f'{error.found}; the run in {earlier.path} was trained on {earlier.dataset}, in '
            f'{earlier.data_dir}: leave --data_dir out, or name another --train_dir'
        ) from error


def _check_train_dir(train_dir: str, data_dir: str, directory: str) -> None:
    """Raises UserError where the folder of the run is that of something else, which would suffer.

    Args:
      train_dir: of the run.
      data_dir: of the data set.
      directory: of its record files, there or below.
    """

    def holds(name: str) -> bool:
        return os.path.lexists(os.path.join(train_dir, name))

    if holds(run_folder.SETTINGS_FILE) or holds(checkpoints.STATE_FILE):
        return
    found = [kind for name, kind in _FILES_OF_OTHERS.items() if holds(name)]
    if os.path.isdir(train_dir):
        same = [folder for folder in (data_dir, directory) if os.path.samefile(train_dir, folder)]
        found += ['a data set'] if same else []
    if found:
        raise UserError(
            f'--train_dir={train_dir}: holds {found[0]}; expected the folder of a run, or a new one'
        )


def _check_kept(name: str, found: Any, earlier: RunFolder) -> None:
    """Raises UserError where a resumed run would have another value of what it must keep."""
    expected = getattr(earlier, name, getattr(earlier.recipe, name, None))
    if earlier.settings and None not in (found, expected) and found != expected:
        raise UserError(
            f'--{name}={found}: the run in {earlier.path} {_KEPT[name]} {expected}; name '
            f'another --train_dir, or give --{name}={expected} or --start_over'
        )


def _check_evaluations(settings: TrainSettings, worker: Worker) -> None:
    """Checks what follows evaluations; warns where the test images would choose.

    Raises:
      UserError: the run has no evaluations to follow.
    """
    following = {
        f'--{name}={getattr(settings, name)}': name
        for name in ('plateau_evaluations', 'patience', 'keep_best')
        if getattr(settings, name)
    }
    for flag, name in following.items():
        if settings.eval_every < 1:
            raise UserError(
                f'{flag}: nothing is evaluated during training; expected an --eval_every of 1 or '
                'more'
            )
        if worker.num_workers > 1 and name != 'keep_best':
            raise UserError(
                f'{flag}: found {worker.num_workers} workers, of which only one evaluates; '
                f'expected one, or --{name}=0'
            )
    if (settings.patience or settings.keep_best) and settings.evaluated_data == 'test':
        print(
            f'Warning: {", ".join(following)}: chosen by the test images, precision on them is too '
            'high; --held_out=0.1 keeps them for the end',
            file=sys.stderr,
        )


def _check_pairs(settings: TrainSettings) -> None:
    """Raises UserError where mixup has an image without another."""
    if settings.mixup and settings.batch_size % 2:
        raise UserError(
            f'--mixup={settings.mixup}: mixes the images of a batch in pairs; found '
            f'--batch_size={settings.batch_size}, expected an even number'
        )


def _warn_of_steps_beyond_schedule(
    settings: TrainSettings, data: TrainingData, batch_size: int
) -> None:
    last = last_step(settings, data.num_examples, batch_size)
    if last is not None and last < settings.max_steps:
        print(
            f'Warning: the learning rate is at its end after step {last:,}, by --schedule='
            f'{settings.schedule} and --decay_epochs={settings.decay_epochs}, but --max_steps is '
            f'{settings.max_steps:,}',
            file=sys.stderr,
        )


def _warn_of_unseen_colours(settings: TrainSettings, network: Network) -> None:
    if network.view.depth == 1 and settings.dataset not in ('own', *IDX_DIRECTORIES):
        print(
            f'Warning: the network {settings.model} is for grey images: of the colours in '
            f'{settings.data_dir} it sees red alone',
            file=sys.stderr,
        )


def _num_held_out(settings: TrainSettings, prepared: prepare.Prepared) -> int:
    """How many training images are held out, by the number or the share."""
    if not settings.held_out:
        return settings.num_held_out
    if settings.num_held_out:
        raise UserError(
            f'--held_out={settings.held_out}: found --num_held_out={settings.num_held_out} as '
            'well; give one of the two'
        )
    total = count_examples(train_files(prepared.directory), prepared.framing.record)
    return round(settings.held_out * total)


def _training_data(
    settings: TrainSettings, prepared: prepare.Prepared, batch_size: int, earlier: RunFolder
) -> TrainingData:
    """Raises UserError where there is less than a batch of it."""
    total = count_examples(train_files(prepared.directory), prepared.framing.record)
    num_examples = total - settings.num_held_out
    if batch_size > total:
        raise UserError(
            f'--batch_size: a step takes {batch_size} examples, but {prepared.directory} '
            f'holds only {total} training images'
        )
    if batch_size > num_examples:
        raise UserError(
            f'--num_held_out={settings.num_held_out}: {prepared.directory} holds {total} training '
            f'images; expected at most {total - batch_size}, so that a batch of '
            f'{batch_size} is left'
        )
    record, count = prepared.framing.record, settings.num_held_out
    # A run keeps the images that it held out, by whatever rule.
    seed = earlier.held_out_seed if earlier.settings else settings.seed
    places = held_out.find(prepared.directory, record, count, seed)
    return TrainingData(
        prepared.directory, num_examples, prepared.num_classes, record, places, seed
    )


def _warn_of_classes_not_held_out(data: TrainingData, labels: np.ndarray) -> None:
    """Precision on images of one class alone is 1 for a network that always names that class.

    Args:
      data: says which images are held out.
      labels: uint8 [images], of all training images, held out or not.
    """
    num_classes = len(np.unique(labels[list(data.held_out)]))
    if data.held_out and num_classes < data.num_classes:
        print(
            f'Warning: the {len(data.held_out)} held-out images have {num_classes} of '
            f'{data.num_classes} classes, so that precision on them says little of the network',
            file=sys.stderr,
        )


def _first_weights(
    settings: TrainSettings,
    network: Network,
    data: TrainingData,
    earlier: RunFolder,
    worker: Worker,
) -> tuple[TrainSettings, Mapping[str, np.ndarray]]:
    """The settings with the --init_from of the run, and the weights of a new run from there.

    Only the chief reads them: the other workers take its first values.

    Raises:
      UserError: they can't be had, or the run has begun otherwise.
    """
    source = settings.init_from and os.path.abspath(settings.init_from)
    if not worker.is_chief:
        return settings, {}
    if not settings.start_over and earlier.checkpoints.names():
        begun_from: Any = earlier.settings.get('init_from')
        if source not in (None, begun_from):
            raise UserError(
                f'--init_from={settings.init_from}: the run in {earlier.path} has begun already, '
                f'{f"from {begun_from}" if begun_from else "without it"}; name another '
                '--train_dir, or give --start_over'
            )
        return dataclasses.replace(settings, init_from=begun_from), {}
    if source is None:
        return settings, {}
    weights = fine_tuning.read_weights(source, settings, network, data.num_classes)
    return dataclasses.replace(settings, init_from=source), weights


def _weigh_classes(
    settings: TrainSettings, data: TrainingData, labels: np.ndarray
) -> TrainSettings:
    """The settings with their class weights as numbers; warns where classes are far from equal.

    Args:
      settings: of the run.
      data, labels: as of `_warn_of_classes_not_held_out`.

    Raises:
      UserError: the weights are not those of the classes.
    """
    names = record_files.read_class_names(data.directory)
    trained = np.delete(labels, list(data.held_out))
    counts = np.bincount(trained, minlength=data.num_classes).tolist()
    weights = resolve_class_weights(settings.class_weights, names, counts)
    least, most = min(counts), max(counts)
    if weights == NONE and most > _LARGEST_RATIO * least:
        print(
            f'Warning: classes are far from equal: {most:,} training images of '
            f'{names[counts.index(most)]}, {least:,} of {names[counts.index(least)]}, more than '
            f'{_LARGEST_RATIO} to 1; --class_weights={BALANCED} has each class count alike',
            file=sys.stderr,
        )
    return dataclasses.replace(settings, class_weights=weights)


def _describe(settings: TrainSettings, data: TrainingData) -> str:
    """The training images, and those held out."""
    more = f', {settings.num_held_out:,} more held out' if settings.num_held_out else ''
    if not record_files.holds_test_images(data.directory):
        more += ', no test images: evaluation needs --eval_data=held_out or train_eval'
    classes = f' of {data.num_classes} classes' if data.num_classes != NUM_CLASSES else ''
    return f'{data.num_examples:,} training images{classes} in {data.directory}{more}'


@contextlib.contextmanager
def _hold_train_dir(settings: TrainSettings) -> Iterator[Callable[[], None]]:
    """Makes the folder, holds it, and empties it if asked to."""
    files.make_folder(settings.train_dir, '--train_dir')
    with locks.hold(settings.train_dir, '--train_dir') as check_folder:
        if settings.start_over:
            with write_errors_named(f'--train_dir={settings.train_dir}'):
                _remove_run(settings.train_dir)
        yield check_folder


def _store_settings(
    settings: TrainSettings,
    earlier: RunFolder,
    watch: Watch,
    data: TrainingData,
    framing: Framing,
    start: checkpoints.Start,
) -> dict[str, str]:
    """Writes the settings beside the checkpoints, and prints what has changed since `earlier`.

    Returns:
      The labels of the run's history.
    """
    digest, stored = watch.digest(), earlier.settings
    # A run that an earlier version began stays without a name, as its results have none.
    run = earlier.run if stored or start.checkpoint else run_folder.new_run()
    with write_errors_named(f'--train_dir={settings.train_dir}'):
        run_folder.store(
            settings,
            settings.train_dir,
            run=run,
            training_files_sha256=digest,
            test_files_sha256=Watch(test_files(data.directory)).digest(),
            framing=dataclasses.asdict(framing),
            held_out_seed=data.held_out_seed,
        )
    for name, value in dataclasses.asdict(settings).items():
        if name != 'start_over' and name in stored and stored[name] != value:
            print(f'Changed since the last run: --{name} was {stored[name]}, is now {value}')
    if stored.get('training_files_sha256', digest) != digest:
        print('Warning: the training files are not those of the last run', file=sys.stderr)
    return dataclasses.replace(earlier, recipe=settings, run=run).labels


def _remove_run(train_dir: str) -> None:
    """Removes the files that a run writes, and no others."""
    for pattern in _RUN_FILES:
        for path in files.matching(train_dir, pattern):
            print(f'Removing {path}')
            if os.path.isdir(path):
                shutil.rmtree(path)
            else:
                os.remove(path)


# ------------------------------------------------------------------------ the graph


def training_batches(run: Run, batch_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """This worker's batches from the run's start on: see `cifar10_input.distorted_inputs`.

    The input stays on the CPU, so that a GPU computes the network alone.

    Args:
      run: its settings say how the images are distorted.
      batch_size: number of images in a batch of this worker.

    Returns:
      images: float32 [batch_size, size, size, depth], as the network's view has them.
      labels: int32 [batch_size]; with mixup float32 [batch_size, classes].
    """
    with tf.device('/cpu:0'), tf.name_scope('input'):
        images, labels = distorted_inputs(
            run.data.directory,
            batch_size,
            run.settings.seed,
            run.start.examples,
            run.data.record,
            share=run.worker.index,
            num_shares=run.worker.num_workers,
            distortions=distortions(run.settings, run.network.size),
            held_out=run.data.held_out,
            view=run.network.view,
            num_classes=run.data.num_classes,
        )
        summaries.images(images)
    return images, labels


def network_options(run: Run, num_parts: int = 1, summaries: bool = True) -> Options:
    """The options of the run's network, as its settings have them."""
    return training_options(
        run.settings,
        num_classes=run.data.num_classes,
        first_images=functools.partial(_first_images, run),
        seed=run.settings.seed,
        use_fp16=run.settings.use_fp16,
        use_bf16=run.settings.use_bf16 and not tf.config.list_physical_devices('GPU'),
        num_parts=num_parts,
        summaries=summaries,
    )


def _first_images(run: Run) -> tf.Tensor:
    """The first training images, float32 [images, size, size, depth], undistorted."""
    count = min(_NUM_FIRST_IMAGES, run.data.num_examples)
    data = run.data
    images, _ = inputs(
        'train_eval',
        data.directory,
        count,
        record=data.record,
        held_out=data.held_out,
        view=run.network.view,
    )
    return tf.ensure_shape(images, [count, *images.shape.as_list()[1:]])


def num_parts(settings: OneDeviceTrainSettings, network: Network) -> int:
    """Number of parts of a batch that the device computes side by side.

    On a CPU, operations of one half fill the cores while those of the other wait
    for each other. A GPU is better filled by one large batch. A network that normalises
    batches would compute another result of their parts.

    Raises:
      UserError: the number that was asked for doesn't divide the batch.
    """
    if not settings.batch_splits:
        on_gpu = bool(tf.config.list_physical_devices('GPU'))
        halves = not on_gpu and (os.cpu_count() or 1) > 1 and settings.batch_size % 2 == 0
        return 2 if halves and not network.normalizes_batches else 1
    if settings.batch_size % settings.batch_splits:
        raise UserError(
            f'--batch_splits={settings.batch_splits}: expected a divisor of '
            f'--batch_size={settings.batch_size}'
        )
    return settings.batch_splits
