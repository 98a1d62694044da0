"""Behaviour of training programs under faults. Linux only.

    python -m benchmarks.faults

puts this project's trainer and its peers through the same faults and prints, as
Markdown lists, what each was seen to do. Every run is on a few drawn images, with a
fixed seed and TensorFlow's deterministic operations, so the weights at the end can be
compared, bit by bit, with those of a run that nothing disturbed. All of it takes about
15 minutes on 2 cores; --faults and --programs choose a part, --keep keeps the logs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow import keras

from benchmarks.faults.programs import (
    BATCH_SIZE,
    DEFAULT_PROGRAMS,
    MAX_STEPS,
    NUM_IMAGES,
    PROGRAMS,
    SAVE_STEPS,
    NotRun,
)
from benchmarks.faults.runs import Run, ending_and_step, kept_full, small_disk
from benchmarks.faults.trials import (
    FAULT_STEP,
    Baseline,
    Trial,
    compare,
    describe_run,
    is_finite,
    measure_baseline,
    start_again,
)
from benchmarks.flags import parse_names
from cifar10_input import CIFAR10_RECORD, NUM_CLASSES, train_files
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import run_script, setting
from cifar10_lib.data.synthetic import generate_synthetic

# Steps that the second of two trainers takes while the first is held up.
STEPS_AHEAD = 5

WRONG_LABEL = 200

Change = Callable[[Path], None]
Fault = Callable[[Trial, Baseline], str]


@dataclasses.dataclass(frozen=True)
class FaultSettings:
    """What to put through what."""

    faults: str = setting('all', 'Faults, separated by commas, or all; a wrong name lists them.')
    programs: str = setting(
        ','.join(DEFAULT_PROGRAMS), f'Programs, separated by commas: {", ".join(PROGRAMS)}.'
    )
    keep: str = setting(None, 'Folder that keeps the logs and what was saved; new or empty.')


# ---------------------------------------------------------------- changes to files


def cut_in_half(path: Path) -> None:
    """Leaves about the first half; of a training file, a part of the last record."""
    os.truncate(path, path.stat().st_size // 2 + 1)


def flip_byte(path: Path) -> None:
    """Inverts one byte of a weight, a quarter into the file.

    It is the one with sign and exponent, where float32 begin at multiples of four.
    """
    # Not in the middle, where Keras's file, all but a thousandth of it weights, happens
    # to have its bookkeeping.
    position = path.stat().st_size // 4 | 3
    with open(path, 'r+b') as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 0xFF]))


def empty(path: Path) -> None:
    """Leaves nothing in the file."""
    os.truncate(path, 0)


def fill_with_noise(path: Path) -> None:
    """Random bytes, as many as there were."""
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def set_wrong_label(path: Path) -> None:
    """Gives the record in the middle of a training file a label that is out of range."""
    with open(path, 'r+b') as file:
        num_records = path.stat().st_size // CIFAR10_RECORD.record_bytes
        file.seek(num_records // 2 * CIFAR10_RECORD.record_bytes)
        file.write(bytes([WRONG_LABEL]))


def double_classes(value: np.ndarray) -> np.ndarray:
    """Of the tensors of the last layer, those of twice as many classes; others as they are."""
    if value.shape[-1:] != (NUM_CLASSES,):
        return value
    return np.concatenate([value, value], axis=-1)


# ------------------------------------------------------------------------- faults


def signal_in_training(number: signal.Signals, trial: Trial, baseline: Baseline) -> str:
    """A signal during training."""
    with trial.running() as process:
        process.send(number)
        run = process.finish()
    return describe_run(trial, baseline, run)


def change_in_training(trial: Trial, change: Callable[[], object]) -> Run:
    """Runs the program; something changes at FAULT_STEP, while it is held up."""
    with trial.running() as process:
        with process.frozen():
            change()
        return process.finish()


def saved_file_changed(part: str, change: Change, trial: Trial, baseline: Baseline) -> str:
    """A file of the newest checkpoint, `part` as in `Saved`, changed before the next start."""
    shutil.copytree(baseline.broken_off, trial.train_dir)
    saved = trial.program.store.saved(trial.train_dir)
    assert saved is not None
    change(getattr(saved, part))
    return start_again(trial, baseline, baseline.last, damaged=True)


def other_classes(trial: Trial, baseline: Baseline) -> str:
    """The newest checkpoint is of a network of twice as many classes."""
    shutil.copytree(baseline.broken_off, trial.train_dir)
    trial.program.store.rewrite(trial.train_dir, double_classes)
    return start_again(trial, baseline, baseline.last, damaged=True)


def two_trainers(trial: Trial, baseline: Baseline) -> str:
    """The program started a second time on the folder in which it is running.

    They take turns: the second trainer begins while the first is held up, and is held up
    until the first has ended. So it ends last, as the one that was started last would.
    """
    with trial.running() as first, contextlib.ExitStack() as stack:
        with first.frozen():
            second = stack.enter_context(trial.start())
            began = next(second.steps(), None)
            if began is not None:
                second.read_to(began + STEPS_AHEAD)
        with second.frozen():
            first_run = first.finish()
        second_run = second.finish()

    def describe(run: Run) -> str:
        start = trial.started_from(run)
        return ending_and_step(run) + (f', from {start}' if start is not None else '')

    weights = compare(trial.tensors(), baseline.final)
    return f'first: {describe(first_run)}; second: {describe(second_run)}; {weights}'


def bad_data(change: Change, trial: Trial, baseline: Baseline) -> str:
    """A training file is damaged before the first start."""
    change(first_training_file(trial))
    run = trial.run()
    if not run.code:
        return f'trained on it silently to step {run.last}'
    return ending_and_step(run)


def first_training_file(trial: Trial) -> Path:
    """The training file that faults change."""
    return Path(train_files(str(trial.data_dir))[0])


def data_cut_in_training(trial: Trial, baseline: Baseline) -> str:
    """A training file is cut while the program runs, and put back before the next start."""
    path = first_training_file(trial)
    complete = path.read_bytes()
    run = change_in_training(trial, lambda: cut_in_half(path))
    path.write_bytes(complete)
    return describe_run(trial, baseline, run, ', with the file put back')


def diverging(save_steps: int, trial: Trial, baseline: Baseline) -> str:
    """A run is resumed with a huge learning rate; the next start has the ordinary one."""
    shutil.copytree(baseline.broken_off, trial.train_dir)
    run = trial.run(diverge=True, save_steps=save_steps)
    saved = trial.tensors()
    newest = 'finite' if saved and is_finite(saved) else 'not finite'
    if not run.code and run.last >= MAX_STEPS:
        return f'trained on to the end, newest weights {newest}'
    then = start_again(trial, baseline, max(run.last, baseline.last))
    return f'{ending_and_step(run)}, newest weights {newest}; then: {then}'


def full_disk(trial: Trial, baseline: Baseline) -> str:
    """The disk of the train folder becomes full, and has room again before the next start."""
    trial.train_dir.mkdir()
    with small_disk(trial.train_dir) as trial.mount:
        with contextlib.ExitStack() as filling:
            full = kept_full(trial.visible_train_dir)
            run = change_in_training(trial, lambda: filling.enter_context(full))
        return describe_run(trial, baseline, run, ', with room again')


def read_only(trial: Trial, baseline: Baseline) -> str:
    """The train folder becomes read-only, and writable again before the next start."""
    trial.train_dir.mkdir()
    folder = str(trial.train_dir)
    with small_disk(trial.train_dir) as mount:

        def protect() -> None:
            # A second mount on top of the first, which can't be changed while files in it
            # are open for writing.
            mount.call('mount', '--bind', folder, folder)
            mount.call('mount', '-o', 'remount,bind,ro', folder)

        trial.mount = mount
        run = change_in_training(trial, protect)
        mount.call('umount', folder)
        return describe_run(trial, baseline, run, ', writable again')


def folder_removed(trial: Trial, baseline: Baseline) -> str:
    """The train folder is removed while the program runs."""
    run = change_in_training(trial, lambda: shutil.rmtree(trial.train_dir))
    return describe_run(trial, baseline, run)


def _checkpoint(part: str, change: Change) -> Fault:
    return partial(saved_file_changed, part, change)


# Title in the report, and function that brings the fault about, by the name for --faults.
FAULTS: Mapping[str, tuple[str, Fault]] = {
    'sigkill': ('SIGKILL', partial(signal_in_training, signal.SIGKILL)),
    'sigterm': ('SIGTERM', partial(signal_in_training, signal.SIGTERM)),
    'sigint': ('Ctrl-C', partial(signal_in_training, signal.SIGINT)),
    'data_cut': ('Newest checkpoint: data cut to half', _checkpoint('data', cut_in_half)),
    'index_cut': ('Newest checkpoint: index cut to half', _checkpoint('index', cut_in_half)),
    'data_flipped': (
        'Newest checkpoint: one byte of the data flipped',
        _checkpoint('data', flip_byte),
    ),
    'data_deleted': ('Newest checkpoint: data deleted', _checkpoint('data', os.remove)),
    'state_emptied': ('State file emptied', _checkpoint('state', empty)),
    'state_noise': ('State file replaced by random bytes', _checkpoint('state', fill_with_noise)),
    'other_classes': ('Newest checkpoint of another number of classes', other_classes),
    'two_trainers': ('Two trainers on one folder', two_trainers),
    'record_cut': ('Training file cut within a record', partial(bad_data, cut_in_half)),
    'wrong_label': (f'Label {WRONG_LABEL} in one record', partial(bad_data, set_wrong_label)),
    'data_noise': ('Training file replaced by random bytes', partial(bad_data, fill_with_noise)),
    'data_cut_in_training': ('Training file cut while training', data_cut_in_training),
    'diverging': ('Loss not finite', partial(diverging, SAVE_STEPS)),
    'diverging_saved': ('Loss not finite, a checkpoint at every step', partial(diverging, 1)),
    'full_disk': ('Disk full while training', full_disk),
    'read_only': ('Train folder read-only while training', read_only),
    'folder_removed': ('Train folder removed while training', folder_removed),
}


# ------------------------------------------------------------------------- report


def cell(name: str, trial: Trial, baseline: Baseline) -> str:
    """What the program was seen to do under the fault of that name."""
    try:
        return FAULTS[name][1](trial, baseline)
    except NotRun as reason:
        return f'not run: {reason}'


def column(program: str, faults: list[str], folder: Path, data: Path) -> dict[str, str]:
    """The cells of one program, by the names of the faults; progress goes to stderr."""
    _report(f'{program}: undisturbed runs')
    baseline = measure_baseline(PROGRAMS[program], folder, data)
    cells = {}
    for name in faults:
        began = time.monotonic()
        trial = Trial(PROGRAMS[program], folder, data, name)
        cells[name] = cell(name, trial, baseline)
        _report(f'{program}, {name}: {cells[name]} ({time.monotonic() - began:.0f} s)')
    return cells


def _report(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def report(columns: Mapping[str, Mapping[str, str]]) -> str:
    """Markdown lists of what the programs did, by the names of their program and fault."""
    return '\n\n'.join(
        f'### {FAULTS[name][0]}\n\n'
        + '\n'.join(f'- {PROGRAMS[program].title}: {columns[program][name]}' for program in columns)
        for name in next(iter(columns.values()))
    )


def circumstances() -> str:
    """Versions, and what every program was put through."""
    return (
        f'TensorFlow {tf.__version__}, Keras {keras.__version__}. {NUM_IMAGES} drawn images, '
        f'batch {BATCH_SIZE}, {MAX_STEPS} steps, a checkpoint every {SAVE_STEPS}, the fault at '
        f'the first step seen from {FAULT_STEP} on. Seeds are fixed, and every program ran '
        'with deterministic operations. Weights, with all else that is saved, are compared '
        'with those of the same program undisturbed. For Keras, index and state file are its '
        'training_metadata.json. A full disk is kept full by another program until the run '
        'ends. Of two trainers, the second ends last.'
    )


@contextlib.contextmanager
def _working_folder(keep: str | None) -> Iterator[Path]:
    """A new folder; temporary, unless `keep` names it."""
    if keep is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    path = Path(keep).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise UserError(f'--keep={keep}: is not empty')
    except OSError as error:
        raise UserError(f'--keep={keep}: cannot be written: {error}') from error
    yield path


def main(settings: FaultSettings) -> None:
    """Puts programs through faults, and prints what they did."""
    faults = parse_names(settings.faults, FAULTS, 'faults')
    programs = parse_names(settings.programs, PROGRAMS, 'programs')
    with _working_folder(settings.keep) as folder:
        data = folder / 'data'
        generate_synthetic(str(data), NUM_IMAGES, num_test=50)
        columns = {name: column(name, faults, folder / name, data) for name in programs}
    print(f'{report(columns)}\n\n{circumstances()}')


if __name__ == '__main__':
    run_script(main, FaultSettings)
