"""Numbers of an evaluation, compared with those counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cifar10_input import Distortions, train_files
from cifar10_lib.evaluation import analysis
from cifar10_lib.evaluation.analysis import ClassScores

# Six images of three classes; for the last, class 0 is as probable as its own, 2.
PROBABILITIES = np.array(
    [
        [0.8, 0.1, 0.1],
        [0.6, 0.3, 0.1],
        [0.2, 0.5, 0.3],
        [0.9, 0.1, 0],
        [0, 0.7, 0.3],
        [0.4, 0.2, 0.4],
    ],
    np.float32,
)
LABELS = np.array([0, 1, 1, 1, 2, 2], np.int32)
CONFUSION = [[1, 0, 0], [2, 1, 0], [0, 1, 1]]


def test_confusions_are_counted_as_evaluation_counts_hits() -> None:
    assert analysis.predicted_classes(PROBABILITIES, LABELS).tolist() == [0, 0, 1, 0, 1, 2]
    assert analysis.confusion_matrix(PROBABILITIES, LABELS).tolist() == CONFUSION


def test_scores_of_classes() -> None:
    expected = ClassScores(
        *map(np.array, ([1 / 3, 1 / 2, 1], [1, 1 / 3, 1 / 2], [0.5, 0.4, 2 / 3]))
    )
    for found, by_hand in zip(analysis.class_scores(np.array(CONFUSION)), expected, strict=True):
        np.testing.assert_allclose(found, by_hand)


def test_scores_of_classes_without_images_or_predictions_are_not_numbers() -> None:
    precision, recall, f1 = analysis.class_scores(np.array([[2, 0, 1], [0, 0, 0], [1, 0, 0]]))
    np.testing.assert_array_equal(precision, [2 / 3, np.nan, 0])
    np.testing.assert_array_equal(recall, [2 / 3, np.nan, 0])
    np.testing.assert_array_equal(f1, [2 / 3, np.nan, 0])


def test_the_most_frequent_confusions() -> None:
    pairs = analysis.most_frequent_confusions(np.array(CONFUSION), 2)
    assert pairs == [(1, 0, 2), (2, 1, 1)]
    assert analysis.most_frequent_confusions(np.array(CONFUSION), 9) == pairs
    assert analysis.most_frequent_confusions(np.eye(3, dtype=int), 9) == []


def test_the_most_confident_mistakes() -> None:
    places = analysis.most_confident_mistakes(PROBABILITIES, LABELS, 2)
    assert places.tolist() == [3, 4]
    everything = analysis.most_confident_mistakes(PROBABILITIES, LABELS, 9)
    assert everything.tolist() == [3, 4, 1]


@pytest.mark.parametrize(('num_correct', 'num_examples'), [(8650, 10_000), (1, 2), (3, 7)])
def test_ends_of_intervals_are_1_96_standard_errors_away(
    num_correct: int, num_examples: int
) -> None:
    """By the interval's definition: standard errors are those of the ends, not of the middle."""
    share = num_correct / num_examples
    low, high = analysis.wilson_interval(num_correct, num_examples)
    for end, sign in ((low, 1), (high, -1)):
        standard_error = (end * (1 - end) / num_examples) ** 0.5
        assert (share - end) / standard_error == pytest.approx(sign * 1.959964)


def test_intervals_stay_within_shares() -> None:
    z2 = 1.959964**2
    assert analysis.wilson_interval(0, 10) == pytest.approx((0, z2 / (10 + z2)))
    assert analysis.wilson_interval(10, 10) == pytest.approx((10 / (10 + z2), 1))


def test_images_are_read_from_their_places_in_all_files(records: Path) -> None:
    places = np.array([59, 0, 12, 11, 30])
    images = analysis.read_images(train_files(str(records)), places)
    assert images.shape == (5, 32, 32, 3)
    assert images[:, 0, 0, 0].tolist() == places.tolist()
    record = np.fromfile(records / 'data_batch_5.bin', np.uint8)[-3072:]
    np.testing.assert_array_equal(images[0], record.reshape(3, 32, 32).transpose(1, 2, 0))


def test_distortions_are_those_of_the_first_images(records: Path) -> None:
    central = Distortions(max_shift=0, flip=False, max_brightness=0.0, max_contrast=0.0)
    images, labels, versions = analysis.distorted_images(str(records), 0, central)
    assert np.abs(versions - versions[:, :1]).max() < 1e-5
    images, labels, versions = analysis.distorted_images(str(records), 0, Distortions())
    assert np.abs(versions - versions[:, :1]).max() > 0.1
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
        analysis.moving_average(falling, 5),
        [9, 17 / 3, 20 / 5, 14 / 5, 10 / 5, 10 / 5, 8 / 4, 7 / 3],
    )
    np.testing.assert_array_equal(analysis.moving_average(falling, 1), falling)
    assert len(analysis.moving_average(falling[:0], 5)) == 0
