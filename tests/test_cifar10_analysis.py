"""Numbers of a run, compared with what is computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import cifar10_analysis


def test_distortions_are_those_of_the_first_images(records: Path) -> None:
    images, labels, versions = cifar10_analysis.distorted_images(str(records), seed=0)
    assert images[:, 0, 0, 0].tolist() == list(range(6))
    assert versions.shape == (6, 8, 24, 24, 3)
    data = np.fromfile(records / 'data_batch_1.bin', np.uint8).reshape(-1, 3073)
    assert labels.tolist() == data[:6, 0].tolist()
    # Standardised, and no two versions the same.
    np.testing.assert_allclose(versions.mean(axis=(2, 3, 4)), 0, atol=1e-5)
    assert len({version.tobytes() for version in versions.reshape(48, -1)}) == 48


def test_averages_follow_steep_starts_and_end_in_the_middle_of_noise() -> None:
    falling = np.array([9.0, 5, 3, 2, 1, 3, 1, 3])
    np.testing.assert_allclose(
        cifar10_analysis.moving_average(falling, 5),
        [9, 17 / 3, 20 / 5, 14 / 5, 10 / 5, 10 / 5, 8 / 4, 7 / 3],
    )
    np.testing.assert_array_equal(cifar10_analysis.moving_average(falling, 1), falling)
    assert len(cifar10_analysis.moving_average(falling[:0], 5)) == 0
