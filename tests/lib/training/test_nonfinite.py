"""The search for the first tensor that is not finite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from cifar10_lib.training import nonfinite
from cifar10_lib.training.nonfinite import NotFinite

IMAGES = np.ones([2, 3], np.float32)
LABELS = np.zeros([2], np.int32)


@pytest.fixture
def session() -> Iterator[tf.Session]:
    with tf.Graph().as_default(), tf.Session() as session:
        yield session


class Step(NamedTuple):
    """A step in the current graph."""

    images: tf.Tensor
    labels: tf.Tensor


def build(session: tf.Session, weights: list[float], gradient_factor: float = 1.0) -> Step:
    """log(images * weights + 1), its gradient, and the check of both."""
    images = tf.constant(IMAGES, name='images')
    labels = tf.constant(LABELS)
    variable = tf.get_variable('weights', initializer=tf.constant(weights))
    tf.constant(np.nan, name='not_on_the_way')
    # As TensorFlow has such constants for labels out of range.
    kept = tf.where_v2(labels >= 0, 1.0, tf.fill([2], np.nan, name='constant'))
    total_loss = tf.reduce_sum(tf.log(tf.add(images * variable, 1, name='sum'), name='log'))
    (gradient,) = tf.gradients(total_loss, [variable])
    checked = [total_loss * kept[0], gradient * gradient_factor]
    for tensor in checked:
        tf.debugging.check_numerics(tensor, 'not finite')
    session.run(tf.global_variables_initializer())
    return Step(images, labels)


def find(session: tf.Session, step: Step, images: np.ndarray) -> NotFinite | None:
    return nonfinite.first_not_finite(session, {step.images: images, step.labels: LABELS})


def test_nothing_is_found_where_all_is_finite(session: tf.Session) -> None:
    assert find(session, build(session, [1.0, 2.0, 3.0]), IMAGES) is None


def test_the_first_is_found_not_what_follows_from_it(session: tf.Session) -> None:
    step = build(session, [1.0, -1.0, -2.0])
    found = find(session, step, IMAGES)
    # The logarithm of 0 is infinite, of -1 NaN, in both rows; the sum before it is finite.
    assert found == NotFinite('log', num_nan=2, num_infinite=2, size=6)
    assert found.describe() == 'log: of 6 values 2 are NaN and 2 infinite'


def test_the_batch_is_the_one_that_is_given(session: tf.Session) -> None:
    step = build(session, [1.0, 2.0, 3.0])
    found = find(session, step, np.full([2, 3], 3e38, np.float32))
    assert found and (found.num_nan, found.num_infinite) == (0, 4)


def test_a_large_gradient_is_finite(session: tf.Session) -> None:
    # log(x + 1) is finite there, and its derivative's square would not be.
    step = build(session, [-1 + 2.0**-24, 0.0, 0.0])
    assert find(session, step, IMAGES) is None


def test_a_gradient_can_be_the_first(session: tf.Session) -> None:
    step = build(session, [-1 + 2.0**-24, 0.0, 0.0], gradient_factor=1e35)
    found = find(session, step, IMAGES)
    assert found and found.name.startswith('mul') and found.num_infinite == 1


def test_variables_come_first(session: tf.Session) -> None:
    step = build(session, [1.0, float('inf'), 3.0])
    expected = NotFinite('weights', num_nan=0, num_infinite=1, size=3)
    assert nonfinite.first_not_finite_variable(session) == expected
    assert find(session, step, IMAGES) == expected
