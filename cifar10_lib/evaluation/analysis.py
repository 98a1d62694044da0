"""Numbers of a run for figures and reports, from its files: curves, mistakes, filters, data."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

import cifar10_input
from cifar10_input import (
    CIFAR10_RECORD,
    NUM_CLASSES,
    TUTORIAL_VIEW,
    Distortions,
    RecordFormat,
    View,
)
from cifar10_lib.base.errors import UserError, os_errors_named
from cifar10_lib.data import record_files
from cifar10_lib.evaluation.settings import AXES, EVAL_DATA_NAMES
from cifar10_lib.runs import history
from cifar10_lib.runs.checkpoints import Checkpoint
from cifar10_lib.runs.history import HISTORY_FILE, Entry
from cifar10_lib.runs.run_folder import RunFolder

# Training images that are distorted, and versions of each.
NUM_DISTORTED, NUM_VERSIONS = 6, 8

# Limit of the numbers in a history; it excludes NaN, infinity, and integers beyond any float.
_LARGEST = 1e300

# The central 95% of a standard normal distribution end this far from its middle.
_Z95 = 1.959964


# ------------------------------------------------------------------------------ curves


class Series(NamedTuple):
    """Points of one line."""

    label: str
    x: np.ndarray
    """float64 [points]: steps, examples, or seconds of training; ascending."""
    y: np.ndarray
    """float64 [points]."""


class Curves(NamedTuple):
    """Loss, cross entropy and precision of one run."""

    name: str
    loss: Series
    """Total loss, one batch per point; may be empty."""
    precision: list[Series]
    """One for each kind of evaluation: images, their number, and views."""
    training_cross_entropy: Series | None = None
    """One batch per point; None in histories of earlier versions."""
    cross_entropy: Sequence[Series] = ()
    """One for each kind of evaluation."""
    num_classes: int = NUM_CLASSES

    def panels(self) -> list[str]:
        """The panels that have points, of 'loss', 'cross_entropy' and 'precision'."""
        has_points = {
            'loss': len(self.loss.x) > 0,
            'cross_entropy': bool(self.training_cross_entropy or self.cross_entropy),
            'precision': bool(self.precision),
        }
        return [panel for panel, has in has_points.items() if has]


def read_curves(name: str, run: RunFolder, eval_dir: str | None, axis: str = 'step') -> Curves:
    """The curves of a run, from its history and that of its evaluation.

    Lines of other runs are left out, with a warning.

    Args:
      name: of the run.
      run: its folder.
      eval_dir: the folder of its evaluations; None where there is none.
      axis: a key of `AXES`. Examples or seconds that an evaluation lacks are interpolated
        between the lines of training.

    Raises:
      UserError: a history can't be read, or has no number where one should be.
    """
    key, train_dir = AXES[axis], run.path
    trained = history.read(train_dir)
    training = [entry for entry in trained if 'loss' in entry]
    known = {e['step']: number(train_dir, e, key) for e in training if key in e}
    steps, values = np.array(sorted(known.items()), np.float64).reshape(-1, 2).T

    def point(folder: str, entry: Entry, value: str) -> tuple[float, float]:
        if key in entry:
            x = number(folder, entry, key)
        elif known:
            x = float(np.interp(entry['step'], steps, values))
        else:
            raise UserError(
                f'{os.path.join(folder, HISTORY_FILE)}: step {entry["step"]}: found no '
                f'{key}, nor lines of training to interpolate it from'
            )
        return x, number(folder, entry, value)

    loss = _series('', (point(train_dir, entry, 'loss') for entry in training))
    with_entropy = [entry for entry in training if 'cross_entropy' in entry]
    training_cross_entropy = _series(
        '', (point(train_dir, entry, 'cross_entropy') for entry in with_entropy)
    )
    # By images, views and number of images, within which precisions can be compared.
    precisions: dict[tuple[str, ...], dict[int, tuple[float, float]]] = {}
    entropies: dict[tuple[str, ...], dict[int, tuple[float, float]]] = {}
    evaluated = [(eval_dir, run.own_entries(eval_dir))] if eval_dir else []
    for folder, entries in ((train_dir, trained), *evaluated):
        for entry in entries:
            if 'precision' in entry:
                defaults = {'eval_data': 'test', 'views': 1, 'num_examples': ''}
                kind = tuple(str(entry.get(name, value)) for name, value in defaults.items())
                for value, found in (('precision', precisions), ('cross_entropy', entropies)):
                    if value in entry:
                        found.setdefault(kind, {})[entry['step']] = point(folder, entry, value)
    counts_differ = len({count for _, _, count in precisions}) > 1
    return Curves(
        name,
        loss,
        _by_kind(precisions, counts_differ),
        training_cross_entropy if with_entropy else None,
        _by_kind(entropies, counts_differ),
        _num_classes(run),
    )


def _by_kind(
    kinds: Mapping[tuple[str, ...], Mapping[int, tuple[float, float]]], counts_differ: bool
) -> list[Series]:
    """A line for each kind of evaluation, from its points by their steps."""
    lines = []
    for (images, views, count), points in kinds.items():
        label = EVAL_DATA_NAMES.get(images, images)
        label += f', {views} views' if views != '1' else ''
        label += f', {count} of them' if counts_differ and count else ''
        lines.append(_series(label, points.values()))
    return lines


def _num_classes(run: RunFolder) -> int:
    """Number of classes; ten where no checkpoint can be read."""
    try:
        return run.num_classes
    except UserError:
        return NUM_CLASSES


def _series(label: str, points: Iterable[tuple[float, float]]) -> Series:
    x, y = np.array(sorted(points), np.float64).reshape(-1, 2).T
    return Series(label, x, y)


def number(folder: str, entry: Entry, key: str) -> float:
    """A number of an entry of the history in a folder; UserError where it is none."""
    value = entry[key]
    if type(value) not in (int, float) or not abs(value) <= _LARGEST:
        raise UserError(
            f'{os.path.join(folder, HISTORY_FILE)}: step {entry["step"]}: found {key} '
            f'{str(value)[:60]!r}; expected a number'
        )
    return float(value)


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of each value and its neighbours.

    A window is centred on its value. Near the start, where losses fall steeply, it is narrower
    and stays centred; near the end it is cut off.

    Args:
      values: float64 [points].
      window: an odd number.

    Returns:
      float64 [points].
    """
    places = np.arange(len(values))
    before = np.minimum(places, window // 2)
    after = np.minimum(before, places[::-1])
    sums = np.concatenate([[0], np.cumsum(values)])
    return (sums[places + after + 1] - sums[places - before]) / (before + after + 1)


# --------------------------------------------------------------------------- mistakes


class ClassScores(NamedTuple):
    """float64 [classes] each; NaN for 0 divided by 0."""

    precision: np.ndarray
    """Share of the images predicted as the class that belong to it."""
    recall: np.ndarray
    """Share of the images of the class that are predicted as it."""
    f1: np.ndarray
    """Harmonic mean of the two."""


def predicted_classes(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The most probable class of each image; in a tie the true one, as evaluation counts it.

    Args:
      probabilities: float32 [images, classes].
      labels: int32 [images].

    Returns:
      int64 [images].
    """
    of_true_class = probabilities[np.arange(len(labels)), labels]
    return np.where(
        of_true_class >= probabilities.max(axis=1), labels, probabilities.argmax(axis=1)
    ).astype(np.int64)


def confusion_matrix(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts of images, int64 [true class, predicted class]; arguments: see `predicted_classes`."""
    num_classes = probabilities.shape[1]
    cells = labels.astype(np.int64) * num_classes + predicted_classes(probabilities, labels)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_scores(confusion: np.ndarray) -> ClassScores:
    """Precision, recall and F1 of each class, from a confusion matrix."""
    hits, of_class, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    with np.errstate(invalid='ignore'):
        return ClassScores(hits / predicted, hits / of_class, 2 * hits / (of_class + predicted))


def most_frequent_confusions(confusion: np.ndarray, count: int) -> list[tuple[int, int, int]]:
    """At most `count` of (true class, predicted class, images), the most images first."""
    wrong = confusion * (1 - np.eye(len(confusion), dtype=np.int64))
    cells = np.argsort(-wrong, axis=None, kind='stable')[:count]
    pairs = [divmod(int(cell), len(confusion)) for cell in cells]
    return [(*pair, int(wrong[pair])) for pair in pairs if wrong[pair]]


def most_confident_mistakes(
    probabilities: np.ndarray, labels: np.ndarray, count: int
) -> np.ndarray:
    """Positions of at most `count` images, the most probable wrong prediction first."""
    wrong = np.flatnonzero(predicted_classes(probabilities, labels) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind='stable')][:count]


def wilson_interval(num_correct: int, num_examples: int) -> tuple[float, float]:
    """The 95% interval of a share (Wilson, JASA 22, 1927)."""
    share, z2 = num_correct / num_examples, _Z95**2 / num_examples
    middle = share + z2 / 2
    half = _Z95 * math.sqrt(share * (1 - share) / num_examples + z2 / (4 * num_examples))
    return max((middle - half) / (1 + z2), 0.0), min((middle + half) / (1 + z2), 1.0)


def evaluated_images(
    eval_data: str,
    directory: str,
    held_out: Sequence[int],
    positions: np.ndarray,
    record: RecordFormat = CIFAR10_RECORD,
) -> np.ndarray:
    """Images of an evaluation by their positions in it: see `read_images`."""
    places = cifar10_input.evaluation_places(eval_data, directory, held_out, record)
    files = cifar10_input.evaluation_files(eval_data, directory)
    return read_images(files, np.array(places, np.int64)[positions], record)


def read_images(
    files: Sequence[str], positions: np.ndarray, record: RecordFormat = CIFAR10_RECORD
) -> np.ndarray:
    """Images of records.

    Args:
      files: record files.
      positions: int64 [images], of the records in the files one after another.
      record: the records' format.

    Returns:
      uint8 [images, height, width, depth].

    Raises:
      UserError: a file can't be read.
    """
    shape = (record.depth, record.height, record.width)
    images = np.empty([len(positions), *shape], np.uint8)
    first = 0
    for file in files:
        with os_errors_named(file):
            records = np.memmap(file, np.uint8, 'r').reshape(-1, record.record_bytes)
        here = (positions >= first) & (positions < first + len(records))
        pixels = records[positions[here] - first, record.label_bytes :]
        images[here] = pixels.reshape(-1, *shape)
        first += len(records)
    return images.transpose(0, 2, 3, 1)


# ------------------------------------------------------------------- network and data


# Weights of the first layer in every network that begins with a convolution: the first of these
# that it has.
_FIRST_FILTERS = ('whiten/weights', 'conv1/weights')


def has_filters(checkpoint: Checkpoint) -> bool:
    """Whether the network of a checkpoint begins with a convolution."""
    return any(checkpoint.weight(name) is not None for name in _FIRST_FILTERS)


def first_filters(checkpoint: Checkpoint) -> np.ndarray:
    """The first layer's filters, as moving averages where the checkpoint has them.

    Returns:
      float32 [height, width, depth, filters].

    Raises:
      UserError: the checkpoint has no such layer.
    """
    for name in _FIRST_FILTERS:
        filters = checkpoint.weight(name)
        if filters is not None:
            return filters
    names = ' or '.join(_FIRST_FILTERS)
    raise UserError(
        f'{checkpoint}: holds no {names}; expected a network that begins with a convolution'
    )


class DistortedImages(NamedTuple):
    """The first training images, with distorted versions of each."""

    images: np.ndarray
    """uint8 [images, height, width, depth]."""
    labels: np.ndarray
    """int32 [images]."""
    versions: np.ndarray
    """float32 [images, versions, size, size, depth], the network's input."""


def distorted_images(
    directory: str,
    seed: int,
    distortions: Distortions,
    view: View = TUTORIAL_VIEW,
    record: RecordFormat = CIFAR10_RECORD,
) -> DistortedImages:
    """The first training images of a directory, distorted with the random numbers of a seed."""
    file = cifar10_input.train_files(directory)[0]
    with os_errors_named(file):
        records = np.fromfile(file, np.uint8, NUM_DISTORTED * record.record_bytes)
    records = records.reshape(-1, record.record_bytes)
    with tf.Graph().as_default(), tf.Session() as session:
        contents = tf.constant([content.tobytes() for content in records])
        images, labels = cifar10_input.decode_records(contents, record)
        repeated = tf.repeat(images, NUM_VERSIONS, axis=0)
        first = tf.constant(0, tf.int64)
        distorted = cifar10_input.distort_at(repeated, seed, first, distortions, view)
        images, labels, distorted = session.run([images, labels, distorted])
    shape = (len(records), NUM_VERSIONS, view.size, view.size, view.depth)
    return DistortedImages(images, labels, distorted.reshape(shape))


def class_counts(
    directory: str, num_classes: int, record: RecordFormat = CIFAR10_RECORD
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of training and of test images of each class: int64 [classes] each."""
    test_files = cifar10_input.test_files(directory)
    train, test = (
        np.concatenate(
            [np.empty(0, np.uint8), *(record_files.read_labels(file, record) for file in files)]
        )
        for files in (
            cifar10_input.train_files(directory),
            test_files if record_files.holds_test_images(directory) else [],
        )
    )
    return np.bincount(train, minlength=num_classes), np.bincount(test, minlength=num_classes)
