r"""Computes precision @ 1 of the newest checkpoint.

    python cifar10_eval.py --run_once

Restores the moving averages of the weights, scores every test image exactly once,
and prints a line like

    2026-11-21 12:00:00.000000: precision @ 1 = 0.866 (step 100000, 10000 images)

which is also added to history.jsonl in --eval_dir. Without --run_once it runs beside
training and evaluates each new checkpoint once. --report writes a page with the results.
On 2 CPU cores with AVX-512 the 10,000 test images take 1.2 seconds (median of 5 runs),
after a start-up of about 3.
"""

from __future__ import annotations

from cifar10_lib.base.start import start
from cifar10_lib.evaluation.settings import EvalSettings

# Before TensorFlow is imported, which takes seconds.
start(__name__, EvalSettings)

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Mapping

import tensorflow.compat.v1 as tf

import cifar10
from cifar10_input import evaluation_files
from cifar10_lib.base import files, watch
from cifar10_lib.base.console import image_bar, on_terminal, timestamp
from cifar10_lib.base.errors import UserError, error_message
from cifar10_lib.base.files import utf8_name
from cifar10_lib.base.flags import run_script
from cifar10_lib.evaluation import report, results
from cifar10_lib.evaluation.analysis import wilson_interval
from cifar10_lib.evaluation.best import Best, ChosenOn
from cifar10_lib.evaluation.evaluator import (
    Evaluator,
    Result,
    evaluation_entry,
    report_precision,
)
from cifar10_lib.runs import history, tensorboard
from cifar10_lib.runs.checkpoints import (
    Checkpoint,
    CheckpointFolder,
    find_named,
    open_checkpoint,
)
from cifar10_lib.runs.run_folder import (
    EVAL_DIRECTORY,
    RunFolder,
)

# Values of an evaluation's entry that are no part of the question.
_RESULTS = ('precision', 'cross_entropy')


def _check_eval_dir(settings: EvalSettings) -> None:
    """Keeps the history of evaluation apart from that of training.

    Raises:
      UserError: --eval_dir is a trainer's folder, or its history can't be read.
    """
    with contextlib.suppress(OSError):
        if os.path.samefile(settings.eval_dir, settings.checkpoint_dir):
            raise UserError(
                f'--eval_dir={settings.eval_dir}: is the folder of the checkpoints, where training '
                'keeps its own history; name another folder'
            )
    if any('loss' in entry for entry in history.read(settings.eval_dir)):
        raise UserError(
            f'--eval_dir={settings.eval_dir}: holds the history of a training; name another folder'
        )


def _add_to_history(result: Result, settings: EvalSettings, labels: Mapping[str, str]) -> None:
    """Adds a result to the history, in place of an earlier one of the same evaluation.

    Raises:
      UserError: the history can't be written.
    """
    entry = {**evaluation_entry(result, settings.eval_data, settings.num_views), **labels}
    history.replace(
        settings.eval_dir,
        entry,
        lambda old: all(old.get(name) == entry[name] for name in entry if name not in _RESULTS),
    )


class _Evaluation:
    """The evaluation of one checkpoint after another."""

    def __init__(self, settings: EvalSettings) -> None:
        _check_eval_dir(settings)
        if settings.report:
            report.check_folder(settings.report)
        if settings.predictions:
            results.check_predictions(settings.predictions)
        files.make_folder(settings.eval_dir, '--eval_dir')
        self.run = run = RunFolder.open(settings.checkpoint_dir, settings.model)
        self._network = run.configure(cifar10.NETWORKS[run.model])
        self._settings = settings
        self._data = run.prepare_data(settings.data_dir, settings.dataset)
        scored_files = evaluation_files(settings.eval_data, self._data.directory)
        self._watch = watch.Watch(scored_files)
        if not settings.data_dir:
            kind = 'test' if settings.eval_data == 'test' else 'training'
            run.check_files(scored_files, self._watch.digest(), kind)
        run.check_eval_data(settings.eval_data)
        self._evaluator = Evaluator(
            self._data.directory,
            self._network,
            settings.num_examples,
            settings.eval_data,
            settings.num_views,
            self._data.num_classes,
            run.find_held_out(self._data),
        )
        self._best = None
        if settings.keep_best:
            num_examples = self._evaluator.num_examples
            chosen_on = ChosenOn(settings.eval_data, num_examples, settings.views, run.run)
            self._best = Best(settings.eval_dir, '--eval_dir', settings.checkpoint_dir, chosen_on)
        try:
            with self._evaluator.graph.as_default():
                self._writer = tf.summary.FileWriter(
                    utf8_name(settings.eval_dir), self._evaluator.graph
                )
        except tf.errors.OpError as error:
            raise UserError(
                f'--eval_dir={settings.eval_dir}: cannot be written: {error_message(error)}'
            ) from error
        tensorboard.add_settings(self._writer, run.settings, run.path)

    def score(self, checkpoint: Checkpoint) -> None:
        """Scores a checkpoint, reports the result, and keeps the checkpoint if it is the best."""
        settings, data = self._settings, self._data
        self._watch.check()
        show_bar = settings.progress and on_terminal()
        with image_bar(self._evaluator.num_examples, show_bar) as show_scored:
            scored = self._evaluator.score(checkpoint, show_scored)
        report_precision(
            scored.result, data.dataset, settings.eval_data, settings.num_views, self._writer
        )
        _add_to_history(scored.result, settings, self.run.labels)
        if self._best:
            self._best.offer(checkpoint, scored.result)
        if settings.predictions:
            results.write_predictions(settings.predictions, scored, data.class_names)
            print(f'Predictions: {settings.predictions}', flush=True)
        if settings.report:
            evaluation = report.Evaluation(
                checkpoint,
                scored,
                data,
                settings.eval_data,
                settings.num_views,
                # Read anew: training may have resumed with other settings.
                RunFolder.open(settings.checkpoint_dir, settings.model),
                settings.eval_dir,
                self._network,
            )
            path = report.write(settings.report, evaluation)
            result = scored.result
            low, high = wilson_interval(result.num_correct, result.num_examples)
            print(
                f'Accuracy (precision @ 1): {result.precision:.3f}, 95% interval {low:.3f} to '
                f'{high:.3f}\nReport: {path}',
                flush=True,
            )


def _next(folder: CheckpointFolder, settings: EvalSettings) -> Checkpoint | None:
    """The named checkpoint, or the newest; training may yet add one to a damaged folder."""
    if settings.checkpoint:
        return open_checkpoint(settings.checkpoint)
    if settings.run_once:
        return folder.require_newest('--checkpoint_dir')
    try:
        return folder.newest()
    except UserError as error:
        print(f'Warning: {error}', file=sys.stderr)
        return None


def evaluate(settings: EvalSettings) -> None:
    """Evaluates a checkpoint that is named, or the newest, once or whenever there is a new one.

    Raises:
      UserError: with `run_once`, there is no complete checkpoint; or a checkpoint is of another
        network, or the data is damaged.
    """
    if settings.checkpoint:
        named = find_named(settings.checkpoint, settings.checkpoint_dir)
        settings = dataclasses.replace(
            settings, checkpoint=named, checkpoint_dir=os.path.dirname(named), run_once=True
        )
    if not settings.eval_dir:
        eval_dir = os.path.join(settings.checkpoint_dir, EVAL_DIRECTORY)
        settings = dataclasses.replace(settings, eval_dir=eval_dir)
    folder = CheckpointFolder(settings.checkpoint_dir)
    evaluation = None
    scored: list[tuple[str, int]] = []
    while not (settings.run_once and scored):
        run = RunFolder.open(settings.checkpoint_dir, settings.model).run
        checkpoint = _next(folder, settings)
        if checkpoint and RunFolder.open(settings.checkpoint_dir, settings.model).run != run:
            # A run was started over as its last checkpoint was read.
            continue
        if checkpoint and evaluation and evaluation.run.run != run:
            print(f'{settings.checkpoint_dir} holds a new run: {run or "one without a name"}')
            evaluation = None
        # Checkpoints of one name differ where a run was started over.
        if checkpoint and (identity := (checkpoint.path, checkpoint.modified)) not in scored:
            # Not earlier: training writes its settings before its first checkpoint.
            evaluation = evaluation or _Evaluation(settings)
            evaluation.score(checkpoint)
            scored.append(identity)
            continue
        last = os.path.basename(scored[-1][0]) if scored else 'none'
        print(
            f'{timestamp()}: waiting for a checkpoint in {settings.checkpoint_dir} after '
            f'{last}, looking every {settings.eval_interval_secs} seconds',
            flush=True,
        )
        time.sleep(settings.eval_interval_secs)


if __name__ == '__main__':
    run_script(evaluate, EvalSettings)
