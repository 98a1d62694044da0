"""Do pictures show the numbers they are given, for two classes and for 256?"""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.figure import Figure

from cifar10_lib.evaluation import figures
from cifar10_lib.evaluation.analysis import Curves, Series


def texts(figure: Figure) -> list[str]:
    """Every text that the figure shows, after it was drawn."""
    figure.savefig(io.BytesIO(), format='svg')
    found = [text for axes in figure.axes for text in axes.texts]
    ticks = [
        tick for axes in figure.axes for tick in (*axes.get_xticklabels(), *axes.get_yticklabels())
    ]
    return [text.get_text() for text in (*found, *ticks)]


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts inside of the axes that lie on each other."""
    figure.savefig(io.BytesIO(), format='png', dpi=100)
    inside = [text for axes in figure.axes for text in axes.texts]
    boxes = [(text.get_text(), text.get_window_extent()) for text in inside]
    return [
        (first, second)
        for i, (first, box) in enumerate(boxes)
        for second, other in boxes[:i]
        if box.overlaps(other)
    ]


def test_cells_and_margins_have_their_numbers() -> None:
    confusion = np.array([[1234, 0, 6], [0, 0, 0], [7, 0, 13]])
    shown = texts(figures.draw_confusion(confusion, ['ant', 'b$1$', 'cow'], 'title'))
    assert shown[:9] == ['1,234', '0', '6', '0', '0', '0', '7', '0', '13']
    assert sorted(shown[9:15]) == sorted(['99.5%', '99.4%', '–', '–', '65.0%', '68.4%'])
    assert shown[15:] == ['ant', r'b\$1\$', 'cow', 'recall', 'ant', r'b\$1\$', 'cow', 'precision']


@pytest.mark.parametrize('num_classes', [2, 10, 20])
def test_numbers_do_not_lie_on_each_other(num_classes: int) -> None:
    confusion = np.full([num_classes, num_classes], 5000)
    names = [f'class {label} of a long name' for label in range(num_classes)]
    figure = figures.draw_confusion(confusion, names, 'title')
    assert overlapping(figure) == []


@pytest.mark.parametrize('num_classes', [21, 100, 256])
def test_many_classes_are_a_picture_with_bars(num_classes: int) -> None:
    confusion = np.diag(np.arange(num_classes)) + np.eye(num_classes, k=1, dtype=int)
    names = [str(label) for label in range(num_classes)]
    figure = figures.draw_confusion(confusion, names, 'title')
    matrix, right, below, *_ = figure.axes
    picture = np.array(matrix.images[0].get_array())
    np.testing.assert_allclose(picture.sum(axis=1), [1] * num_classes)
    recalls = [bar.get_width() for bar in right.containers[0]]
    np.testing.assert_allclose(recalls[:-1], np.arange(num_classes - 1) / np.arange(1, num_classes))
    precisions = [bar.get_height() for bar in below.containers[0]]
    np.testing.assert_allclose(
        precisions[1:], np.arange(1, num_classes) / np.arange(2, num_classes + 1)
    )
    assert 10 < len(matrix.get_yticks()) <= 30


def test_mistakes_are_shown_with_truth_and_guess() -> None:
    images = np.stack([np.full([32, 32, 3], value, np.uint8) for value in range(7)])
    figure = figures.draw_mistakes(images, ['ant'] * 7, ['b$1$'] * 7, [0.987] * 7, 'title')
    shown = [axes for axes in figure.axes if axes.images]
    assert [np.array(axes.images[0].get_array()).min() for axes in shown] == list(range(7))
    assert shown[0].get_title(loc='left') == 'truth: ant\nguess: b\\$1\\$ 98.7%'
    assert len(figure.axes) == 12


@pytest.mark.parametrize('count', [1, 2, 7])
def test_the_title_of_few_mistakes_is_not_cut(count: int) -> None:
    images = np.zeros([count, 32, 32, 3], np.uint8)
    title = 'Most confident mistakes on training images at step 100000, drawn images'
    names = ['ant'] * count
    figure = figures.draw_mistakes(images, names, names, [0.9] * count, title)
    figure.savefig(io.BytesIO())
    (heading,) = figure.texts
    box = heading.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height


@pytest.mark.parametrize('precision', [0.0, 1.0])
def test_no_precision_lies_beyond_0_and_1(precision: float) -> None:
    series = Series('test images', np.array([60.0]), np.array([precision]))
    loss = Series('loss', np.array([10.0, 60.0]), np.array([2.0, 1.0]))
    figure = figures.draw_curves([Curves('run', loss, [series])], 'step')
    low, high = figure.axes[1].get_ylim()
    assert 0 <= low <= precision <= high <= 1


def test_the_classes_of_large_sets_are_drawn_in_little_space() -> None:
    counts = np.arange(256)
    figure = figures.draw_classes(counts, counts // 2, [str(n) for n in counts])
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.containers[0]] == counts.tolist()
    assert figure.get_size_inches().max() < 10


def test_long_names_are_cut() -> None:
    assert figures.shown('automobile') == 'automobile'
    assert figures.shown('a' * 40) == 'a' * 17 + '…'
