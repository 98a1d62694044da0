"""Numbers of an evaluation for other programs: evaluation.json and a table of probabilities."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cifar10_lib.base import files
from cifar10_lib.base.errors import write_errors_named
from cifar10_lib.evaluation import analysis, figures
from cifar10_lib.evaluation.evaluator import Scored

RESULTS_FILE = 'evaluation.json'

# Bins of the calibration error: as many as Guo et al. have, sec. 5.
NUM_BINS = 15

_TOP = 5


class Calibration(NamedTuple):
    """How far confidences, the probabilities of the predicted classes, are from accuracies.

    Guo et al., "On calibration of modern neural networks", ICML 2017, sec. 2. Bin m of M has the
    images of confidences in ((m - 1) / M, m / M]; each array has its M values.
    """

    counts: np.ndarray
    """int64 [bins], images."""
    confidence: np.ndarray
    """float64 [bins], the mean; NaN in an empty bin."""
    accuracy: np.ndarray
    """float64 [bins], the share of right predictions; NaN in an empty bin."""

    @property
    def error(self) -> float:
        """The expected calibration error, 0 to 1.

        ECE = sum over bins of |B| / n * |accuracy(B) - confidence(B)|: equation 3.
        """
        gaps = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        return float(self.counts @ gaps / self.counts.sum())


def calibrate(
    probabilities: np.ndarray, labels: np.ndarray, num_bins: int = NUM_BINS
) -> Calibration:
    """The calibration of the probabilities float32 [images, classes] of int32 [images] labels."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = analysis.predicted_classes(probabilities, labels) == labels
    # A probability may be a rounding above 1.
    bins = np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    sums = (np.bincount(bins, values, num_bins) for values in (confidence, right))
    with np.errstate(invalid='ignore'):
        return Calibration(counts, *(values / counts for values in sums))


def top_k_accuracy(probabilities: np.ndarray, labels: np.ndarray, k: int = _TOP) -> float:
    """Share of images with fewer than k classes likelier than the true one."""
    of_true_class = probabilities[np.arange(len(labels)), labels]
    likelier = (probabilities > of_true_class[:, np.newaxis]).sum(axis=1)
    return float((likelier < k).mean())


def numbers(
    scored: Scored, names: Sequence[str], eval_data: str, num_views: int, **labels: Any
) -> dict[str, Any]:
    """All numbers of an evaluation, as JSON has them.

    Args:
      scored: the evaluation.
      names: of the classes.
      eval_data: which images: see `cifar10_input.EVAL_DATA`.
      num_views: of each image.
      labels: what else tells the evaluation, such as its run.

    Returns:
      Values by name; what is 0 divided by 0 is None.
    """
    result, probabilities, true_classes = scored
    matrix = analysis.confusion_matrix(probabilities, true_classes)
    scores = analysis.class_scores(matrix)
    calibration = calibrate(probabilities, true_classes)
    bins = enumerate(zip(*calibration, strict=True))
    return {
        **labels,
        'step': result.step,
        'eval_data': eval_data,
        'num_examples': result.num_examples,
        'views': num_views,
        'accuracy': result.precision,
        'accuracy_interval_95': analysis.wilson_interval(result.num_correct, result.num_examples),
        'top_5_accuracy': top_k_accuracy(probabilities, true_classes),
        'loss': result.cross_entropy,
        'calibration_error': calibration.error,
        'calibration': [
            {
                'above': number / NUM_BINS,
                'up_to': (number + 1) / NUM_BINS,
                'num_examples': int(count),
                'confidence': _or_none(confidence),
                'accuracy': _or_none(accuracy),
            }
            for number, (count, confidence, accuracy) in bins
        ],
        'classes': [
            {
                'name': name,
                'num_examples': int(count),
                **{
                    field: _or_none(float(getattr(scores, field)[label]))
                    for field in scores._fields
                },
            }
            for label, (name, count) in enumerate(zip(names, matrix.sum(axis=1), strict=True))
        ],
        'confusion_matrix': matrix.tolist(),
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def write(folder: str, values: dict[str, Any]) -> str:
    """Writes evaluation.json into a folder that is there, and returns its path.

    Raises:
      OSError: it can't be written.
    """
    path = os.path.join(folder, RESULTS_FILE)
    files.replace_text(path, json.dumps(values, indent=1, ensure_ascii=False) + '\n')
    return path


def check_predictions(path: str) -> None:
    """Raises UserError where predictions.csv could not be written, before long work."""
    figures.check_output(path, ('.csv',), '--predictions')


def write_predictions(path: str, scored: Scored, names: Sequence[str]) -> None:
    """Writes a line for each image: its place, its classes, and the probabilities of all classes.

    Raises:
      UserError: it can't be written.
    """
    _, probabilities, labels = scored
    predicted = analysis.predicted_classes(probabilities, labels)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['image', 'true class', 'predicted class', *names])
    for place, (true, guess, values) in enumerate(
        zip(labels, predicted, probabilities, strict=True)
    ):
        writer.writerow([place, names[true], names[guess], *map(str, values)])
    with write_errors_named(f'--predictions={path}'):
        files.replace_text(path, text.getvalue())
