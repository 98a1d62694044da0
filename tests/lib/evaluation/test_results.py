"""The numbers of an evaluation equal plain computations, in memory and in files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from cifar10_lib.base.errors import UserError
from cifar10_lib.evaluation import results
from cifar10_lib.evaluation.evaluator import Result, Scored

NAMES = ['ant', 'a, b', 'cow', 'dog', 'elk', 'fox', 'gnu']


@pytest.fixture(scope='module')
def scored() -> Scored:
    """Of 400 images and seven classes, of which one has no image."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 6, 400).astype(np.int32)
    logits = rng.normal(0, 2, [400, 7]) + 2 * np.eye(7)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    losses = -np.log(probabilities[np.arange(400), labels])
    hits = int((probabilities.argmax(axis=1) == labels).sum())
    result = Result(30, hits, 400, float(losses.mean()))
    return Scored(result, probabilities.astype(np.float32), labels)


def test_the_calibration_error_is_that_of_the_paper(scored: Scored) -> None:
    """Image by image, as Guo et al. define it."""
    _, probabilities, labels = scored
    error, total = 0.0, 0
    for bin_ in range(1, 16):
        inside = [
            (float(row.max()), row.argmax() == label)
            for row, label in zip(probabilities, labels, strict=True)
            if (bin_ - 1) / 15 < float(row.max()) <= bin_ / 15
        ]
        total += len(inside)
        if inside:
            confidence, accuracy = np.mean(inside, axis=0)
            error += len(inside) / 400 * abs(accuracy - confidence)
    assert total == 400
    calibration = results.calibrate(probabilities, labels)
    assert calibration.error == pytest.approx(error, abs=1e-9) and error > 0.01
    assert calibration.counts.sum() == 400


def test_a_network_that_knows_all_is_calibrated() -> None:
    labels = np.arange(10, dtype=np.int32)
    calibration = results.calibrate(np.eye(10, dtype=np.float32), labels)
    assert calibration.error == 0 and calibration.counts.tolist() == [0] * 14 + [10]
    # Rounding may put a probability a little above 1.
    above = np.array([[1.0000001, 0]], np.float32)
    assert results.calibrate(above, np.array([0], np.int32)).counts[-1] == 1


@pytest.mark.parametrize('k', [1, 3, 5])
def test_top_k_is_the_share_of_labels_among_the_first_k(scored: Scored, k: int) -> None:
    _, probabilities, labels = scored
    order = np.argsort(-probabilities, axis=1)[:, :k]
    expected = np.mean([label in row for label, row in zip(labels, order, strict=True)])
    assert results.top_k_accuracy(probabilities, labels, k) == pytest.approx(expected)


def test_the_file_has_the_numbers(scored: Scored, tmp_path: Path) -> None:
    values = results.numbers(scored, NAMES, 'test', 6, run='a run', network='small_cnn')
    path = results.write(str(tmp_path), values)
    found = json.loads(Path(path).read_text(encoding='utf-8'))
    _, probabilities, labels = scored
    losses = -np.log(probabilities[np.arange(400), labels])
    guesses = probabilities.argmax(axis=1)
    assert path == str(tmp_path / 'evaluation.json')
    fixed = {'run': 'a run', 'network': 'small_cnn', 'step': 30, 'views': 6, 'num_examples': 400}
    assert found.items() >= fixed.items()
    assert found['accuracy'] == np.mean(guesses == labels)
    low, high = found['accuracy_interval_95']
    assert low < found['accuracy'] < high
    assert found['loss'] == pytest.approx(losses.mean())
    matrix = np.array(found['confusion_matrix'])
    for true in range(7):
        for guess in range(7):
            assert matrix[true, guess] == np.sum((labels == true) & (guesses == guess))
    for label, of_class in enumerate(found['classes']):
        hits, taken = matrix[label, label], matrix[:, label].sum()
        assert of_class['name'] == NAMES[label] and of_class['num_examples'] == sum(matrix[label])
        assert of_class['precision'] == pytest.approx(hits / taken)
    assert found['classes'][6]['recall'] is None and found['classes'][0]['recall'] > 0
    assert len(found['calibration']) == 15
    assert sum(one['num_examples'] for one in found['calibration']) == 400


def test_the_probabilities_are_read_back_as_they_are(scored: Scored, tmp_path: Path) -> None:
    path = tmp_path / 'predictions.csv'
    results.write_predictions(str(path), scored, NAMES)
    with open(path, newline='', encoding='utf-8') as file:
        heading, *rows = csv.reader(file)
    assert heading == ['image', 'true class', 'predicted class', *NAMES]
    assert [int(row[0]) for row in rows] == list(range(400))
    assert [row[1] for row in rows] == [NAMES[label] for label in scored.labels]
    probabilities = np.array([row[3:] for row in rows], np.float32)
    np.testing.assert_array_equal(probabilities, scored.probabilities)
    assert [row[2] for row in rows] == [NAMES[label] for label in probabilities.argmax(axis=1)]


def test_predictions_that_could_not_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / 'folder.csv').mkdir()
    for name, found in (
        ('a.txt', 'expected a name that ends in .csv'),
        ('none/a.csv', 'its folder is missing'),
        ('folder.csv', 'is a folder'),
    ):
        with pytest.raises(UserError, match=f'--predictions=.*{name}: {found}'):
            results.check_predictions(str(tmp_path / name))
