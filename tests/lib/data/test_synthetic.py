"""What the drawn images look like."""

from __future__ import annotations

import numpy as np
import pytest

from cifar10_lib.data import synthetic


def test_classes_can_be_told_apart_in_the_centre() -> None:
    """The nearest of 100 masks of each class tells the class, in the central 24 x 24."""
    labels = np.tile(np.arange(10), 120)
    masks = synthetic._shape_mask(labels, np.random.default_rng(0))[:, 0, 4:28, 4:28]
    known, asked = masks[:1000].reshape(1000, -1), masks[1000:].reshape(200, -1)
    distance = (known**2).sum(axis=1) - 2 * asked @ known.T
    assert np.mean(labels[distance.argmin(axis=1)] == labels[1000:]) > 0.9


@pytest.mark.parametrize('shape', synthetic._SHAPES)
def test_shapes_survive_a_flip(shape: str) -> None:
    y, x = np.random.default_rng(0).uniform(-1, 1, (2, 1000))
    distance = synthetic._SHAPES[shape]
    assert np.allclose(distance(x, y), distance(-x, y))
    assert np.any(distance(x, y) < 0) and np.any(distance(x, y) > 0)
