"""Trials: a program under a fault, compared with what it does undisturbed."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from benchmarks.faults.programs import MAX_STEPS, SAVE_STEPS, NotRun, Program, Request, Tensors
from benchmarks.faults.runs import Mount, Process, Run, ending, ending_and_step
from benchmarks.processes import child_environment
from cifar10_lib.base.errors import UserError

# The step after which a fault comes: between two checkpoints, and in the middle of an epoch.
FAULT_STEP = 34

# Largest difference between values of weights that still count as close: the rounding of
# MAX_STEPS steps is below it, while a step alone moves some by more.
CLOSE = 1e-4

NOT_FINITE, OTHER = 'weights not finite', 'other weights'


class Baseline(NamedTuple):
    """What a program does without any fault but an end by SIGKILL."""

    final: Tensors
    """Saved at the end of a run that nothing disturbed."""
    broken_off: Path
    """Copy of the train folder of a run killed after FAULT_STEP."""
    last: int
    """The last step of that run."""
    start: int | None
    """The step from which the next run resumed."""
    final_after: Tensors
    """Saved at the end of that next run."""


class Trial:
    """One program under one fault, on data and in a train folder of its own."""

    def __init__(self, program: Program, folder: Path, data: Path, name: str) -> None:
        """
        Args:
          program: to be run.
          folder: of the program; the same paths serve all its trials, one after the other.
          data: record files, of which the trial gets a copy.
          name: of the logs.
        """
        self.program = program
        self.data_dir, self.train_dir = folder / 'data', folder / 'train'
        self.mount: Mount | None = None
        self._name, self._logs, self._num_starts = name, folder / 'logs', 0
        self._logs.mkdir(parents=True, exist_ok=True)
        for path in (self.data_dir, self.train_dir):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(data, self.data_dir)

    def start(self, diverge: bool = False, save_steps: int = SAVE_STEPS) -> Process:
        """Starts the program."""
        self._num_starts += 1
        request = Request(self.data_dir, self.train_dir, save_steps, diverge)
        prefix = self.mount.prefix if self.mount else []
        log = self._logs / f'{self._name}-{self._num_starts}.log'
        return Process([*prefix, *self.program.command(request)], child_environment('cpu'), log)

    def run(self, diverge: bool = False, save_steps: int = SAVE_STEPS) -> Run:
        """Runs the program to its end."""
        with self.start(diverge, save_steps) as process:
            return process.finish()

    @contextlib.contextmanager
    def running(self) -> Iterator[Process]:
        """The program, started in an empty folder, when it has come to FAULT_STEP.

        Raises:
          NotRun: it ended before.
        """
        with self.start() as process:
            if not any(step >= FAULT_STEP and self._has_saved() for step in process.steps()):
                run = process.finish()
                raise NotRun(f'{ending_and_step(run)}, before a checkpoint and {FAULT_STEP} steps')
            yield process

    def _has_saved(self) -> bool:
        """Whether more is saved than the first weights."""
        saved = self.program.store.saved(self.visible_train_dir)
        return saved is not None and not saved.index.stem.endswith('-0')

    @property
    def visible_train_dir(self) -> Path:
        """The train folder as this process sees it, also where it is the program's own mount."""
        return self.mount.root / self.train_dir.relative_to('/') if self.mount else self.train_dir

    def tensors(self) -> Tensors | None:
        """What was saved last; None if it can't be read."""
        try:
            return self.program.store.tensors(self.visible_train_dir)
        except (LookupError, OSError, ValueError, tf.errors.OpError):
            return None

    def started_from(self, run: Run) -> int | None:
        """The step from which a run resumed; None if it took none."""
        if not run.steps:
            return None
        return run.steps[0] - 1 - self.program.num_silent_steps


def measure_baseline(program: Program, folder: Path, data: Path) -> Baseline:
    """Runs the program undisturbed, then killed, then on to the end.

    Raises:
      UserError: it doesn't train.
    """
    _, final = _run_to_end(Trial(program, folder, data, 'undisturbed'))
    trial = Trial(program, folder, data, 'broken_off')
    with trial.running() as process:
        process.send(signal.SIGKILL)
        last = process.finish().last
    broken_off = folder / 'broken_off'
    shutil.copytree(trial.train_dir, broken_off)
    start, final_after = _run_to_end(trial)
    return Baseline(final, broken_off, last, start, final_after)


def _run_to_end(trial: Trial) -> tuple[int | None, Tensors]:
    """The step from which the run resumed, and what it saved last."""
    run = trial.run()
    tensors = trial.tensors()
    if run.code or tensors is None:
        raise UserError(f'{trial.program.title}: {ending(run)}: {run.output.strip()[-300:]}')
    return trial.started_from(run), tensors


def is_finite(tensors: Tensors) -> bool:
    """Whether no value is infinite or not a number."""
    return all(np.isfinite(value).all() for value in tensors.values())


def identical(found: Tensors, expected: Tensors) -> bool:
    """Whether names, shapes and all bits are the same."""
    return found.keys() == expected.keys() and all(
        np.array_equal(found[name], expected[name]) for name in expected
    )


def compare(found: Tensors | None, expected: Tensors) -> str:
    """In a few words, how what was saved last compares with what it should be."""
    if found is None:
        return 'nothing readable saved'
    if not is_finite(found):
        return NOT_FINITE
    if identical(found, expected):
        return 'weights bit-identical'
    close = found.keys() == expected.keys() and all(
        found[name].shape == value.shape and np.allclose(found[name], value, rtol=0, atol=CLOSE)
        for name, value in expected.items()
    )
    return 'weights close' if close else OTHER


def describe_start(start: int | None, before: int) -> str:
    """Where a run began, after one that had come to step `before`."""
    if start is None:
        return 'took no step'
    if start == 0:
        return f'started again from 0 of {before}'
    return f'resumed from step {start} of {before}'


def describe_end(last: int) -> str:
    """Where a run ended; empty if at MAX_STEPS."""
    return '' if last == MAX_STEPS else f', ended at step {last} instead of {MAX_STEPS}'


def describe_weights(
    found: Tensors | None, baseline: Baseline, start: int | None, damaged: bool = False
) -> str:
    """Whether what was saved last is right.

    Args:
      found: what was saved last.
      baseline: what the program does undisturbed.
      start: the step from which the run resumed.
      damaged: the run began with damaged files. It trained on the damage where it began
        at the step at which it begins with intact ones, but ended with other weights.
    """
    words = compare(found, baseline.final)
    if damaged and found is not None and words in (OTHER, NOT_FINITE):
        if identical(found, baseline.final_after):
            return 'weights as without the damage'
        if start == baseline.start:
            return f'{words}: trained on the damage silently'
    return words


def start_again(trial: Trial, baseline: Baseline, before: int, damaged: bool = False) -> str:
    """What the program does when it is started after a fault; twice, if the first start fails."""

    def describe(run: Run) -> str:
        if run.code:
            return ending(run)
        start = trial.started_from(run)
        weights = describe_weights(trial.tensors(), baseline, start, damaged)
        return f'{describe_start(start, before)}{describe_end(run.last)}, {weights}'

    run = trial.run()
    if not run.code:
        return describe(run)
    again = trial.run()
    if ending(again) == ending(run):
        return f'{ending(run)}, at every start'
    return f'{ending(run)}; next start: {describe(again)}'


def describe_run(trial: Trial, baseline: Baseline, run: Run, repaired: str = '') -> str:
    """What a run did under a fault, and the next start where the run did not reach its end.

    Args:
      trial: of the run, which has ended.
      baseline: what the program does undisturbed.
      run: the run.
      repaired: what was put right before the next start.
    """
    if not run.code and run.last >= MAX_STEPS:
        return f'trained on to the end, {compare(trial.tensors(), baseline.final)}'
    then = start_again(trial, baseline, run.last)
    return f'{ending_and_step(run)}; then{repaired}: {then}'
