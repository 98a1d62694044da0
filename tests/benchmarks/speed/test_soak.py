"""Memory and speed of a long run."""

from __future__ import annotations

import os

from benchmarks.speed import soak
from benchmarks.speed.soak import Sample


def test_samples_come_at_multiples_with_the_median_since_the_last() -> None:
    lines = [
        'Settings: batch_size=8',
        '2026-11-22 02:05:22.276109: step 50, loss = 4.60 (10.0 examples/sec; 0.800 sec/batch)',
        '2026-11-22 02:05:22.276109: step 100, loss = 4.50 (30.0 examples/sec; 0.267 sec/batch)',
        '2026-11-22 02:05:22.276109: step 150, loss = 4.40 (50.0 examples/sec; 0.160 sec/batch)',
        '2026-11-22 02:05:22.276109: step 200, loss = 4.30 (70.0 examples/sec; 0.114 sec/batch)',
    ]
    samples = list(soak.sample(lines, os.getpid(), report_steps=100))
    assert [(sample.step, sample.examples_per_sec) for sample in samples] == [(100, 20), (200, 60)]
    assert all(10 < sample.megabytes < 100_000 for sample in samples)


def test_summary() -> None:
    samples = [Sample(1000 * i, 900 + i, 100 - i) for i in range(1, 7)]
    assert soak.summary(samples) == (
        'Memory after step 1000: 901 MB, then 901 to 906 MB. Speed: median 96 examples/sec, '
        'the last third -4.1% against the first.'
    )
