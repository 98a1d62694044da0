"""Training images that are held out for evaluation, drawn by class and seed."""

from __future__ import annotations

import numpy as np

from cifar10_input import RecordFormat, train_files
from cifar10_lib.data import record_files


def draw(labels: np.ndarray, count: int, seed: int) -> list[int]:
    """Places of images that are held out: of each class the same share, chosen at random.

    Args:
      labels: of all training images, int [images].
      count: how many to hold out, at most all of them.
      seed: at least 0.

    Returns:
      `count` places, ascending.
    """
    names, counts = np.unique(labels, return_counts=True)
    # The largest remainders are rounded up, so that the numbers add up to `count`.
    shares = counts * count / max(len(labels), 1)
    numbers = np.floor(shares).astype(int)
    order = np.argsort(numbers - shares, kind='stable')
    numbers[order[: count - numbers.sum()]] += 1
    places: list[int] = []
    for name, number in zip(names.tolist(), numbers.tolist(), strict=True):
        rng = np.random.default_rng([seed, name])
        places += rng.permutation(np.flatnonzero(labels == name))[:number].tolist()
    return sorted(places)


def find(directory: str, record: RecordFormat, count: int, seed: int | None) -> list[int]:
    """Places of the held-out images of a data set.

    Args:
      directory: of its record files.
      record: their format.
      count: how many.
      seed: they are drawn by it; None: they are the last ones, as runs once held them out.
    """
    if not count:
        return []
    files = train_files(directory)
    labels = np.concatenate([record_files.read_labels(file, record) for file in files])
    if seed is None:
        return list(range(len(labels) - count, len(labels)))
    return draw(labels, count, seed)
