"""The variants that the benchmark of changes compares are one network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10
from benchmarks.speed import changes
from benchmarks.speed.steps import Runner, take_turns


@pytest.mark.parametrize('variant', changes.VARIANTS, ids=lambda variant: variant.name)
def test_each_variant_is_the_production_network(variant: changes.Variant) -> None:
    # One set of images: where two values nearly tie, rounding decides which of them wins a
    # pool, and one in some hundred sets has such a pair.
    rng = np.random.default_rng(0)
    images = rng.standard_normal([4, 24, 24, 3]).astype(np.float32)
    labels = rng.integers(0, 10, 4)
    results = []
    for network in (cifar10.inference, lambda images: changes.network(images, variant)):
        with tf.Graph().as_default(), tf.Session() as session:
            logits = network(tf.constant(images))
            gradients = cifar10.compute_gradients(cifar10.loss(logits, tf.constant(labels)))
            session.run(tf.global_variables_initializer())
            results.append(session.run([logits, {v.op.name: g for g, v in gradients}]))
    (logits, gradients), (expected_logits, expected) = results
    # float32 sums in another order.
    np.testing.assert_allclose(logits, expected_logits, atol=1e-5)
    assert set(gradients) == set(expected)
    for name, gradient in expected.items():
        np.testing.assert_allclose(gradients[name], gradient, rtol=1e-3, atol=1e-5, err_msg=name)


def test_variants_take_turns_and_their_ratios_are_those_of_a_round(synthetic_data: Path) -> None:
    directory = str(synthetic_data / 'synthetic-batches-bin')
    runners = [
        Runner(changes.training_step(variant, directory, 4)) for variant in changes.VARIANTS[:2]
    ]
    times = take_turns(runners, rounds=3, steps=1)
    assert [len(own) for own in times] == [3, 3]
    assert all(time > 0 for own in times for time in own)


def test_table() -> None:
    table = changes.table(['plain', 'fast'], [[200.0, 100.0, 400.0], [100.0, 100.0, 100.0]])
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in table.splitlines()]
    assert cells[2:] == [
        ['plain', '200.0 (100.0 to 400.0)', '1.00'],
        ['fast', '100.0 (100.0 to 100.0)', '2.00'],
    ]
