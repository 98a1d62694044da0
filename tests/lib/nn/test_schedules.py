"""The schedules and optimisers of a recipe."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from cifar10_input import NUM_EXAMPLES_PER_EPOCH_FOR_TRAIN
from cifar10_lib.nn import schedules
from cifar10_lib.nn.optimizers import create_optimizer
from cifar10_lib.nn.presets import PRESETS
from cifar10_lib.nn.recipes import SCHEDULES, Recipe, last_step

NUM_EXAMPLES = 50_000


def rates(recipe: Recipe, epochs: list[float]) -> list[float]:
    """The learning rate after so many epochs."""
    with tf.Graph().as_default(), tf.Session() as session:
        examples = tf.placeholder(tf.int64, [])
        rate = schedules.learning_rate(examples, NUM_EXAMPLES, recipe)
        assert (rate.dtype, rate.shape.as_list()) == (tf.float32, [])
        return [session.run(rate, {examples: round(e * NUM_EXAMPLES)}) for e in epochs]


def test_the_tutorials_rate_is_a_staircase_over_examples() -> None:
    just_before = 1 / NUM_EXAMPLES
    epochs = [0, 350 - just_before, 350, 700 - just_before, 700]
    np.testing.assert_allclose(rates(Recipe(), epochs), [0.1, 0.1, 0.01, 0.01, 0.001], rtol=1e-5)


@pytest.mark.parametrize(
    ('schedule', 'expected'),
    [
        ('staircase', [0.2, 0.2, 0.2, 0.2, 0.1, 0.05]),
        ('exponential', [0.2, 0.2 * 0.5**0.25, 0.2 * 0.5**0.5, 0.2 * 0.5**0.75, 0.1, 0.05]),
        ('inverse', [0.2, 0.16, 0.4 / 3, 0.8 / 7, 0.1, 0.2 / 3]),
        ('linear', [0.2, 0.15, 0.1, 0.05, 0, 0]),
        ('cosine', [0.2, 0.1 + 0.1 / 2**0.5, 0.1, 0.1 - 0.1 / 2**0.5, 0, 0]),
        ('one_cycle', [0.02, 0.12, 0.18, 0.08, 0.0002, 0.0002]),
        ('triangle', [0.15, 0.2, 0.15, 0.1, 0.05, 0.05]),
    ],
)
def test_rates_of_a_schedule_of_twelve_epochs(schedule: str, expected: list[float]) -> None:
    recipe = Recipe(
        schedule=schedule,
        learning_rate=0.2,
        decay_epochs=12,
        decay_factor=0.5,
        triangle_start=0.75,
        triangle_peak=0.25,
        triangle_end=0.25,
    )
    found = rates(recipe, [0, 3, 6, 9, 12, 24])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_a_schedule_never_exceeds_its_rate(schedule: str) -> None:
    found = rates(Recipe(schedule=schedule, decay_epochs=2), np.linspace(0, 3, 200).tolist())
    assert max(found) == pytest.approx(0.1, rel=0.02)
    assert min(found) >= 0


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_some_schedules_come_to_an_end(schedule: str) -> None:
    recipe = Recipe(schedule=schedule, decay_epochs=12.0)
    ends = schedule in ('linear', 'cosine', 'one_cycle', 'triangle')
    last = last_step(recipe, num_examples_per_epoch=100, batch_size=7)
    # 1,200 examples are 171 batches and 3 examples.
    assert last == (172 if ends else None)


@pytest.mark.parametrize(
    'name',
    ['fast', 'best', 'airbench94', 'airbench93', 'airbench95', 'airbench96', 'airbench94_muon'],
)
def test_a_schedule_with_an_end_has_it_at_the_presets_last_step(name: str) -> None:
    recipe = PRESETS[name].recipe
    last = last_step(recipe, NUM_EXAMPLES_PER_EPOCH_FOR_TRAIN, recipe.batch_size)
    assert last == recipe.max_steps


def test_warmup_rises_to_the_schedule() -> None:
    recipe = Recipe(schedule='linear', decay_epochs=10, warmup_epochs=2)
    np.testing.assert_allclose(rates(recipe, [0, 1, 2, 5]), [0, 0.045, 0.08, 0.05], rtol=1e-5)


def descend(recipe: Recipe, gradients: list[float]) -> list[float]:
    """A weight, 1.0 at first, after steps of the given gradients at a rate of 0.5."""
    with tf.Graph().as_default(), tf.Session() as session:
        weight = tf.get_variable('weight', initializer=tf.constant(1.0))
        gradient = tf.placeholder(tf.float32, [])
        optimizer = create_optimizer(recipe, tf.constant(0.5))
        step = optimizer.apply_gradients([(gradient, weight)])
        session.run(tf.global_variables_initializer())
        values = []
        for value in gradients:
            session.run(step, {gradient: value})
            values.append(float(session.run(weight)))
        return values


@pytest.mark.parametrize(
    ('optimizer', 'expected'),
    [
        ('sgd', [0.9, 0.95]),
        # The velocity: 0.2, then 0.8 * 0.2 - 0.1.
        ('momentum', [0.9, 0.87]),
        # What is taken: gradient + 0.8 * velocity.
        ('nesterov', [0.82, 0.846]),
        # The first step is the rate, whatever the gradient.
        ('adam', [0.5]),
        # 0.5 * 0.2 / sqrt(0.9 * 1 + 0.1 * 0.04): its mean square begins at 1.
        ('rmsprop', [0.8948242]),
    ],
)
def test_steps_of_an_optimizer(optimizer: str, expected: list[float]) -> None:
    found = descend(Recipe(optimizer=optimizer, momentum=0.8), [0.2, -0.1])
    np.testing.assert_allclose(found[: len(expected)], expected, rtol=3e-6)


def test_rmsprop_adds_its_epsilon_to_the_mean_square() -> None:
    *_, before, after = descend(Recipe(optimizer='rmsprop'), [0.0] * 200 + [0.0005])
    # Of the first mean square 0.9^201 is left.
    mean_square = 0.9**201 + 0.1 * 0.0005**2
    assert before - after == pytest.approx(0.5 * 0.0005 / (mean_square + 1e-7) ** 0.5, rel=1e-4)


@pytest.mark.parametrize(
    ('precisions', 'expected'),
    [
        ([], 1),
        ([0.5, 0.5], 1),
        ([0.5, 0.5, 0.4], 0.5),
        # Not better by enough, then better: the waiting begins again.
        ([0.5, 0.50009, 0.6, 0.6], 1),
        ([0.5, 0.4, 0.4, 0.4, 0.4], 0.25),
        ([0.5, 0.4, 0.4, 0.6, 0.5, 0.5], 0.25),
        ([0.5, *[0.4] * 20], 0.1),
    ],
)
def test_a_plateau_of_two_evaluations_halves_the_rate(
    precisions: list[float], expected: float
) -> None:
    recipe = Recipe(learning_rate=0.2, plateau_evaluations=2, plateau_learning_rate=0.02)
    assert schedules.plateau_fraction(precisions, recipe) == pytest.approx(expected)


def test_the_rate_of_a_plateau_is_the_schedules_times_its_fraction() -> None:
    recipe = Recipe(schedule='linear', decay_epochs=10, plateau_evaluations=1)
    with tf.Graph().as_default(), tf.Session() as session:
        examples = tf.constant(5 * NUM_EXAMPLES, tf.int64)
        # Twice in a graph, and of one variable, that no checkpoint holds.
        rates = [schedules.learning_rate(examples, NUM_EXAMPLES, recipe) for _ in '12']
        (variable,) = tf.local_variables()
        assert not tf.global_variables()
        session.run(variable.assign(0.25))
        np.testing.assert_allclose(session.run(rates), [0.0125, 0.0125], rtol=1e-6)


@pytest.mark.parametrize(
    ('precisions', 'expected'),
    [([], 0), ([0.5], 0), ([0.5, 0.5], 1), ([0.5, 0.4, 0.6, 0.6, 0.1], 2), ([0.1, 0.2, 0.3], 0)],
)
def test_patience_waits_for_a_better_precision(precisions: list[float], expected: int) -> None:
    assert schedules.evaluations_since_best(precisions) == expected
