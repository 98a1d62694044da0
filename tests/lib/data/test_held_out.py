"""Which training images are held out."""

from __future__ import annotations

import numpy as np
import pytest

from cifar10_input import CIFAR10_RECORD
from cifar10_lib.data import held_out

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [600, 300, 101]))


@pytest.mark.parametrize('count', [0, 1, 2, 100, 500, 1001])
def test_each_class_gives_the_same_share(count: int) -> None:
    places = held_out.draw(LABELS, count, 7)
    assert len(places) == len(set(places)) == count and places == sorted(places)
    numbers = np.bincount(LABELS[places], minlength=3)
    assert np.abs(numbers - np.array([600, 300, 101]) * count / 1001).max() < 1


def test_they_are_drawn_by_the_seed() -> None:
    first, again, other = (held_out.draw(LABELS, 200, seed) for seed in (1, 1, 2))
    assert first == again != other
    # Evenly from everywhere: 200 of 1001 places have a mean of 500 and a deviation of 18.
    assert abs(np.mean(first) - 500) < 75


def test_old_runs_keep_the_last_images(records: object) -> None:
    assert held_out.find(str(records), CIFAR10_RECORD, 13, None) == list(range(47, 60))
    drawn = held_out.find(str(records), CIFAR10_RECORD, 13, 0)
    assert len(drawn) == 13 and drawn != list(range(47, 60))
    assert held_out.find('missing', CIFAR10_RECORD, 0, 0) == []
