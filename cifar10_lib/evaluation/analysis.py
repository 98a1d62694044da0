"""What do a run's files say about it? Numbers and arrays for pictures and reports."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

import cifar10_input
from cifar10_input import CIFAR10_RECORD, TUTORIAL_VIEW, Distortions, View
from cifar10_lib.base.errors import UserError, os_errors_named
from cifar10_lib.data import record_files
from cifar10_lib.runs import checkpoints, history
from cifar10_lib.runs.history import HISTORY_FILE, Entry

# What a curve can be drawn over, and the entries' name of it.
AXES = {'step': 'step', 'examples': 'examples', 'time': 'seconds'}

# Training images whose distortions are shown, and distorted versions of each.
NUM_DISTORTED, NUM_VERSIONS = 6, 8

# By the names of `cifar10_input.EVAL_DATA`.
IMAGES_IN_WORDS = {
    'test': 'test images',
    'train_eval': 'training images',
    'held_out': 'held-out training images',
}

# Of the numbers in a history; NaN and infinity are beyond it, as is what no float holds.
_LARGEST = 1e300

# Of a standard normal, from the middle to the end of the central 95%.
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
    """How one run went."""

    name: str
    loss: Series
    """Total loss, of one batch a point; may have no point."""
    precision: list[Series]
    """One for each kind of evaluation: images, their number, and views."""

    def panels(self) -> list[str]:
        """What there is to draw: 'loss', 'precision', both or none."""
        return ['loss'] * bool(len(self.loss.x)) + ['precision'] * bool(self.precision)


def read_curves(name: str, train_dir: str, eval_dir: str | None, axis: str = 'step') -> Curves:
    """The curves of a run, from its history and that of its evaluation.

    Args:
      name: what the run is called.
      train_dir: the run's folder.
      eval_dir: the folder of its evaluations; None where there is none.
      axis: a key of `AXES`. An evaluation that doesn't note its examples or seconds gets
        them by interpolation between the lines of training.

    Raises:
      UserError: a history can't be read, or has no number where one should be.
    """
    training = [entry for entry in history.read(train_dir) if 'loss' in entry]
    place = _Place(AXES[axis], train_dir, training)
    loss = _series('', train_dir, training, 'loss', place)
    kinds: dict[tuple[str, ...], dict[int, tuple[float, float]]] = {}
    for folder in (train_dir, eval_dir or train_dir):
        for entry in history.read(folder):
            if 'precision' in entry:
                point = (place.of(folder, entry), _number(folder, entry, 'precision'))
                kinds.setdefault(_kind(entry), {})[entry['step']] = point
    labels = _labels(list(kinds))
    precision = [
        _sorted(label, list(points.values()))
        for label, points in zip(labels, kinds.values(), strict=True)
    ]
    return Curves(name, loss, precision)


class _Place:
    """Where entries lie on an axis."""

    def __init__(self, key: str, folder: str, training: list[Entry]) -> None:
        self._key = key
        known = {e['step']: _number(folder, e, key) for e in training if key in e}
        self._steps, self._values = sorted(known), [known[step] for step in sorted(known)]

    def of(self, folder: str, entry: Entry) -> float:
        if self._key in entry:
            return _number(folder, entry, self._key)
        if not self._steps:
            raise UserError(
                f'{os.path.join(folder, HISTORY_FILE)}: step {entry["step"]}: found no '
                f'{self._key}, nor lines of training to tell them from'
            )
        return float(np.interp(entry['step'], self._steps, self._values))


def _series(label: str, folder: str, entries: list[Entry], key: str, place: _Place) -> Series:
    return _sorted(label, [(place.of(folder, e), _number(folder, e, key)) for e in entries])


def _sorted(label: str, points: list[tuple[float, float]]) -> Series:
    x, y = np.array(sorted(points), np.float64).reshape(-1, 2).T
    return Series(label, x, y)


def _number(folder: str, entry: Entry, key: str) -> float:
    value = entry[key]
    if type(value) not in (int, float) or not abs(value) <= _LARGEST:
        raise UserError(
            f'{os.path.join(folder, HISTORY_FILE)}: step {entry["step"]}: found {key} '
            f'{str(value)[:60]!r}; expected a number'
        )
    return float(value)


def _kind(entry: Entry) -> tuple[str, ...]:
    """What an evaluation is comparable by: the images, the views, the number of images."""
    return (
        str(entry.get('eval_data', 'test')),
        str(entry.get('views', 1)),
        str(entry.get('num_examples', '')),
    )


def _labels(kinds: list[tuple[str, ...]]) -> list[str]:
    numbers_differ = len({number for _, _, number in kinds}) > 1
    return [
        IMAGES_IN_WORDS.get(images, images)
        + (f', {views} views' if views != '1' else '')
        + (f', {number} of them' if numbers_differ and number else '')
        for images, views, number in kinds
    ]


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Means of each value and its neighbours.

    Of up to `window` values with the point in their middle; near the start, where losses
    fall steeply, of as many as lie before it on both sides, and at the end of those that
    are there.

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
    """float64 [classes] each; NaN where it is 0 divided by 0."""

    precision: np.ndarray
    """Of the images taken for the class, the share that belongs to it."""
    recall: np.ndarray
    """Of the images of the class, the share that is taken for it."""
    f1: np.ndarray
    """Harmonic mean of the two."""


def guesses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The likeliest class of each image; of equally likely ones the true one, as evaluation has it.

    Args:
      probabilities: float32 [images, classes].
      labels: int32 [images].

    Returns:
      int64 [images].
    """
    of_truth = probabilities[np.arange(len(labels)), labels]
    return np.where(
        of_truth >= probabilities.max(axis=1), labels, probabilities.argmax(axis=1)
    ).astype(np.int64)


def confusion_matrix(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts of images, int64 [true class, guessed class]; arguments as of `guesses`."""
    num_classes = probabilities.shape[1]
    cells = labels.astype(np.int64) * num_classes + guesses(probabilities, labels)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_scores(confusion: np.ndarray) -> ClassScores:
    """Precision, recall and F1 of each class, of a confusion matrix [true, guessed]."""
    hits, of_class, taken_for = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    with np.errstate(invalid='ignore'):
        return ClassScores(hits / taken_for, hits / of_class, 2 * hits / (of_class + taken_for))


def most_frequent_confusions(confusion: np.ndarray, count: int) -> list[tuple[int, int, int]]:
    """At most `count` of (true class, guessed class, images), the most images first."""
    wrong = confusion * (1 - np.eye(len(confusion), dtype=np.int64))
    cells = np.argsort(-wrong, axis=None, kind='stable')[:count]
    pairs = [divmod(int(cell), len(confusion)) for cell in cells]
    return [(true, guess, int(wrong[true, guess])) for true, guess in pairs if wrong[true, guess]]


def most_confident_mistakes(
    probabilities: np.ndarray, labels: np.ndarray, count: int
) -> np.ndarray:
    """Places of at most `count` images, the likeliest wrong guess first; as of `guesses`."""
    wrong = np.flatnonzero(guesses(probabilities, labels) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind='stable')][:count]


def wilson_interval(num_correct: int, num_examples: int) -> tuple[float, float]:
    """The 95% interval of a share (Wilson, JASA 22, 1927)."""
    share, z2 = num_correct / num_examples, _Z95**2 / num_examples
    middle = share + z2 / 2
    half = _Z95 * math.sqrt(share * (1 - share) / num_examples + z2 / (4 * num_examples))
    return max((middle - half) / (1 + z2), 0.0), min((middle + half) / (1 + z2), 1.0)


def evaluated_images(
    eval_data: str, directory: str, num_held_out: int, places: np.ndarray
) -> np.ndarray:
    """Images that an evaluation scored, by their places in it: see `read_images`."""
    first, _ = cifar10_input.evaluation_range(eval_data, directory, num_held_out)
    return read_images(cifar10_input.evaluation_files(eval_data, directory), places + first)


def read_images(files: Sequence[str], places: np.ndarray) -> np.ndarray:
    """Images of records.

    Args:
      files: record files, one after the other.
      places: int64 [images], places of the records in all files together.

    Returns:
      uint8 [images, height, width, depth].

    Raises:
      UserError: a file can't be read.
    """
    record = CIFAR10_RECORD
    shape = (record.depth, record.height, record.width)
    images = np.empty([len(places), *shape], np.uint8)
    first = 0
    for file in files:
        with os_errors_named(file):
            records = np.memmap(file, np.uint8, 'r').reshape(-1, record.record_bytes)
        here = (places >= first) & (places < first + len(records))
        pixels = records[places[here] - first, record.label_bytes :]
        images[here] = pixels.reshape(-1, *shape)
        first += len(records)
    return images.transpose(0, 2, 3, 1)


# ------------------------------------------------------------------- network and data


# Of the layer that comes first in every network that begins with a convolution.
_FIRST_FILTERS = 'conv1/weights'


def has_filters(checkpoint: str) -> bool:
    """Whether the checkpoint is of a network that begins with a convolution.

    Raises:
      UserError: it can't be read.
    """
    return checkpoints.open_checkpoint(checkpoint).has_tensor(_FIRST_FILTERS)


def first_filters(checkpoint: str) -> np.ndarray:
    """The first layer's filters, their averages where the checkpoint holds any.

    Returns:
      float32 [height, width, depth, filters].

    Raises:
      UserError: it can't be read, or has no such layer.
    """
    if not has_filters(checkpoint):
        raise UserError(
            f'{checkpoint}: holds no {_FIRST_FILTERS}; expected a network that begins with a '
            'convolution'
        )
    reader = checkpoints.open_checkpoint(checkpoint)
    name, average = _FIRST_FILTERS, _FIRST_FILTERS + checkpoints.AVERAGE_SUFFIX
    return reader.get_tensor(average if reader.has_tensor(average) else name)


class Distorted(NamedTuple):
    """The first training images, and what distortion makes of them."""

    images: np.ndarray
    """uint8 [images, height, width, depth]."""
    labels: np.ndarray
    """int32 [images]."""
    versions: np.ndarray
    """float32 [images, versions, size, size, depth], as the network sees them."""


def distorted_images(
    directory: str, seed: int, distortions: Distortions, view: View = TUTORIAL_VIEW
) -> Distorted:
    """Distorts the first images of a directory of record files, with a seed's numbers."""
    file = cifar10_input.train_files(directory)[0]
    with os_errors_named(file):
        records = np.fromfile(file, np.uint8, NUM_DISTORTED * CIFAR10_RECORD.record_bytes)
    records = records.reshape(-1, CIFAR10_RECORD.record_bytes)
    with tf.Graph().as_default(), tf.Session() as session:
        images, labels = cifar10_input.decode_records(tf.constant([r.tobytes() for r in records]))
        repeated = tf.repeat(images, NUM_VERSIONS, axis=0)
        first = tf.constant(0, tf.int64)
        distorted = cifar10_input.distort_at(repeated, seed, first, distortions, view)
        images, labels, distorted = session.run([images, labels, distorted])
    shape = (len(records), NUM_VERSIONS, view.size, view.size, view.depth)
    return Distorted(images, labels, distorted.reshape(shape))


def class_counts(directory: str, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and test images of each class: int64 [classes] each."""
    train, test = (
        np.concatenate([record_files.read_labels(file, CIFAR10_RECORD) for file in files])
        for files in (cifar10_input.train_files(directory), cifar10_input.test_files(directory))
    )
    return np.bincount(train, minlength=num_classes), np.bincount(test, minlength=num_classes)
