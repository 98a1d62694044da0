"""What the benchmark of towers counts, and that it takes the trainers' own graphs."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow.compat.v1 as tf

from benchmarks.scaling import towers
from benchmarks.scaling.towers import Variant
from benchmarks.speed.steps import take_turns
from cifar10_lib.base.errors import UserError
from cifar10_lib.nn.towers import FIRST, MIRRORED


def test_the_longest_path_counts_operations_and_waits() -> None:
    with tf.Graph().as_default():
        one = tf.constant(1.0)
        long = tf.sqrt(tf.sqrt(tf.sqrt(one)))
        with tf.control_dependencies([long]):
            after = tf.constant(2.0)
        assert towers.longest_path(long.op) == 4
        assert towers.longest_path((one + one).op) == 2
        assert towers.longest_path((one + after).op) == 6


@pytest.mark.parametrize('home', [FIRST, MIRRORED])
def test_no_chain_runs_through_the_towers_and_graphs_grow_linearly(
    records: Path, home: str
) -> None:
    two, four, eight = (towers.graph_size(n, home, str(records)) for n in (2, 4, 8))
    assert two.longest_path == four.longest_path == eight.longest_path
    assert eight.nodes - four.nodes == 2 * (four.nodes - two.nodes)
    growth = (eight.num_bytes - four.num_bytes) / (four.num_bytes - two.num_bytes)
    assert growth == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize(
    ('spans', 'expected'),
    [([(0, 10), (0, 10)], 1.0), ([(0, 6), (4, 10)], 0.2), ([(0, 4), (6, 10)], 0.0)],
)
def test_overlap(spans: list[tuple[int, int]], expected: float) -> None:
    assert towers.overlap(spans) == pytest.approx(expected)


def test_variants_take_turns_and_each_tower_is_in_the_trace(records: Path) -> None:
    variants = [Variant('one', 1), Variant('three', 3, FIRST), Variant('copies', 2, MIRRORED)]
    runners = [towers.make_runner(variant, str(records), batch_size=12) for variant in variants]
    times = take_turns(runners, rounds=2, steps=1)
    assert [len(own) for own in times] == [2, 2, 2]
    devices = [
        [name[-5:] for name in towers.tower_spans(towers.trace(runner))] for runner in runners
    ]
    assert [sorted(names) for names in devices] == [
        ['CPU:0'],
        ['CPU:0', 'CPU:1', 'CPU:2'],
        ['CPU:0', 'CPU:1'],
    ]


def test_turns_table_compares_within_a_round() -> None:
    times = [[100.0, 200.0], [200.0, 100.0], [120.0, 220.0]]
    last = towers.turns_table(['one', 'parts', 'towers'], times).splitlines()[-1]
    cells = [cell.strip() for cell in last.strip('|').split('|')]
    # 120% and 110%; 60% and 220%.
    assert cells == ['towers', '170.0 (120.0 to 220.0)', '+15%', '+40%']


def test_an_uneven_batch_is_refused() -> None:
    with pytest.raises(UserError, match='--batch_size=128: expected a multiple of 12'):
        towers.main(towers.TowersSettings(batch_size=128))
