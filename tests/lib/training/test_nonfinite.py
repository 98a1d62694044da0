"""Which tensor went bad first."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10
from cifar10_lib.training import nonfinite
from cifar10_lib.training.nonfinite import NotFinite, Training

IMAGES = np.ones([2, 3], np.float32)
LABELS = np.zeros([2], np.int32)


@pytest.fixture
def session() -> Iterator[tf.Session]:
    with tf.Graph().as_default(), tf.Session() as session:
        yield session


def build(session: tf.Session, weights: list[float]) -> Training:
    """log(images * weights + 1), and its gradient."""
    images = tf.constant(IMAGES, name='images')
    labels = tf.constant(LABELS)
    variable = tf.get_variable('weights', initializer=tf.constant(weights))
    aside = tf.constant(np.nan, name='not_on_the_way')
    total_loss = tf.reduce_sum(tf.log(tf.add(images * variable, 1, name='sum'), name='log'))
    gradients = list(zip(tf.gradients(total_loss, [variable]), [variable], strict=True))
    examples_seen = cifar10.create_examples_seen()
    session.run(tf.global_variables_initializer())
    return Training(images, labels, total_loss, gradients, examples_seen, tf.group(aside))


def find(session: tf.Session, training: Training, images: np.ndarray) -> NotFinite | None:
    return nonfinite.first_not_finite(session, training, images, LABELS)


def test_nothing_is_found_where_all_is_finite(session: tf.Session) -> None:
    assert find(session, build(session, [1.0, 2.0, 3.0]), IMAGES) is None


def test_the_first_is_found_not_what_follows_from_it(session: tf.Session) -> None:
    training = build(session, [1.0, -1.0, -2.0])
    found = find(session, training, IMAGES)
    # The logarithm of 0 is infinite, of -1 NaN, in both rows; the sum before it is finite.
    assert found == NotFinite('log', num_nan=2, num_infinite=2, size=6)
    assert found.in_words() == 'log: of 6 values 2 are NaN and 2 infinite'


def test_the_batch_is_the_one_that_is_given(session: tf.Session) -> None:
    training = build(session, [1.0, 2.0, 3.0])
    found = find(session, training, np.full([2, 3], 3e38, np.float32))
    assert found and (found.num_nan, found.num_infinite) == (0, 4)


def test_a_gradient_can_be_the_first(session: tf.Session) -> None:
    # log(x + 1) is finite there, and its derivative's square would not be.
    training = build(session, [-1 + 2.0**-24, 0.0, 0.0])
    assert find(session, training, IMAGES) is None
    (gradient, variable), *_ = training.gradients
    training = training._replace(gradients=[(gradient * 1e35, variable)])
    found = find(session, training, IMAGES)
    assert found and found.name.startswith('mul') and found.num_infinite == 1


def test_variables_come_first(session: tf.Session) -> None:
    training = build(session, [1.0, float('inf'), 3.0])
    expected = NotFinite('weights', num_nan=0, num_infinite=1, size=3)
    assert nonfinite.first_not_finite_variable(session) == expected
    assert find(session, training, IMAGES) == expected
