"""The model of scaling on GPUs: sizes are the network's, and limits are what they must be."""

from __future__ import annotations

import pytest
import tensorflow.compat.v1 as tf

import cifar10
from benchmarks.scaling import model
from cifar10_lib.nn.towers import CPU, FIRST, MIRRORED
from tests.helpers.scripts import REPOSITORY

HOMES = (CPU, FIRST, MIRRORED)


def test_sizes_are_the_networks() -> None:
    with tf.Graph().as_default():
        cifar10.inference(tf.zeros([1, cifar10.IMAGE_SIZE, cifar10.IMAGE_SIZE, 3]))
        sizes = [v.shape.num_elements() for v in tf.trainable_variables()]
    assert sum(sizes) == model.NUM_PARAMETERS and len(sizes) == model.NUM_VARIABLES
    assert pytest.approx(4.27e6, rel=1e-3) == model.GRADIENT_BYTES


@pytest.mark.parametrize('machine', model.MACHINES, ids=lambda machine: machine.name)
def test_limits(machine: model.Machine) -> None:
    for home in (FIRST, MIRRORED):
        assert model.efficiency(machine, home, 1, 128) == 1
    for home in HOMES:
        found = [model.efficiency(machine, home, 4, batch) for batch in (1, 128, 10**4, 10**9)]
        assert found == sorted(found) and found[-1] == pytest.approx(1, abs=1e-4)
    # Traffic through one link grows with the towers, on a ring it stays below twice the size.
    link = model.GRADIENT_BYTES / (model.LINK_FRACTION * machine.peer_link)
    assert model.reduction_seconds(machine, FIRST, 8) == pytest.approx(14 * link)
    starts = model.NUM_VARIABLES * model.COLLECTIVE_OVERHEAD
    assert model.reduction_seconds(machine, MIRRORED, 8) == pytest.approx(1.75 * link + starts)


@pytest.mark.parametrize('home', HOMES)
def test_at_the_smallest_batch_towers_take_as_long_as_one_gpu(home: str) -> None:
    machine = model.MACHINES[0]
    batch = model.smallest_batch(machine, home, 4)
    one = model.step_seconds(machine, FIRST, 1, 1) + (batch - 1) * model.seconds_per_example(
        machine
    )
    towers = (
        model.STEP_OVERHEAD
        + batch / 4 * model.seconds_per_example(machine)
        + model.reduction_seconds(machine, home, 4)
    )
    assert one == pytest.approx(towers)


def test_the_table_is_the_one_in_the_docs() -> None:
    assert model.tables() in (REPOSITORY / 'docs' / 'scaling.md').read_text(encoding='utf-8')
