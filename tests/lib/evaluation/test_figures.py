"""Figures show the numbers that they are made of, for two classes and for 256."""

from __future__ import annotations

import io
import math
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from cifar10_lib.base.errors import UserError
from cifar10_lib.evaluation import figures
from cifar10_lib.evaluation.analysis import Curves, Series
from tests.helpers.scripts import REPOSITORY, script_environment


def texts(figure: Figure) -> list[str]:
    """Every text in the axes of a figure, once it is drawn."""
    figures.save(figure, io.BytesIO(), format='svg')
    found = [text for axes in figure.axes for text in axes.texts]
    ticks = [
        tick for axes in figure.axes for tick in (*axes.get_xticklabels(), *axes.get_yticklabels())
    ]
    return [text.get_text() for text in (*found, *ticks)]


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts in the axes that overlap."""
    figures.save(figure, io.BytesIO(), dpi=100)
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
    figure = figures.draw_confusion(confusion, ['ant', 'b$1$', 'cow'], 'title')
    shown = texts(figure)
    assert shown[:9] == ['1,234', '0', '6', '0', '0', '0', '7', '0', '13']
    assert sorted(shown[9:15]) == sorted(['99.5%', '99.4%', '–', '–', '65.0%', '68.4%'])
    assert shown[15:] == ['ant', 'b$1$', 'cow', 'ant', 'b$1$', 'cow']
    _, right, below = figure.axes
    assert (right.get_title(), below.get_ylabel()) == ('recall', 'precision')


@pytest.mark.parametrize('ending', ['png', 'svg'])
def test_no_text_is_a_formula(tmp_path: Path, ending: str) -> None:
    """Saving a formula with an error in it would fail."""
    name = r'$\no_formula{$'
    series = Series('', np.array([1.0]), np.array([0.5]))
    images = np.zeros([1, 32, 32, 3], np.uint8)
    counts, output = np.eye(2, dtype=int), str(tmp_path / f'figure.{ending}')
    for figure in (
        figures.draw_curves([Curves(name, series, [series])] * 2, 'step', name),
        figures.draw_confusion(counts, [name, name], name),
        figures.draw_classes(counts[0], counts[1], [name, name], name),
        figures.draw_mistakes(images, [name], [name], [0.5], name),
        figures.draw_grid([[*images]], name, side=1, names=[name], captions=[[name]]),
        figures.draw_predictions([*images], [name], [[(name, 0.5)]], name),
        figures.draw_text(name),
    ):
        figures.write(figure, output)
        assert not any(text.get_parse_math() for text in figure.findobj(Text))


@pytest.mark.parametrize('num_classes', [2, 10, 20])
def test_numbers_do_not_lie_on_each_other(num_classes: int) -> None:
    confusion = np.full([num_classes, num_classes], 5000)
    names = [f'class {label} of a long name' for label in range(num_classes)]
    for matrix in (confusion, np.diag(np.diag(confusion))):
        assert overlapping(figures.draw_confusion(matrix, names, 'title')) == []


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


def test_mistakes_are_shown_with_true_and_predicted_class() -> None:
    images = np.stack([np.full([32, 32, 3], value, np.uint8) for value in range(7)])
    figure = figures.draw_mistakes(images, ['ant'] * 7, ['b$1$'] * 7, [0.987] * 7, 'title')
    (axes,) = figure.axes
    assert [np.array(image.get_array()).min() for image in axes.images] == list(range(7))
    assert [text.get_text() for text in axes.texts] == ['true: ant\npredicted: b$1$ 98.7%'] * 7
    assert overlapping(figure) == []


def test_images_of_a_grid_lie_where_their_names_and_captions_are() -> None:
    images = [
        [np.full([4, 4, 3], 10 * row + place, np.uint8) for place in range(2)] for row in range(5)
    ]
    names, captions = list('abcde'), [['first', 'second']]
    figure = figures.draw_grid(images, 'title', 0.5, names, captions, gap=0.25, columns=2)
    (axes,) = figure.axes
    first, second, *labels = sorted(axes.texts, key=lambda text: text.get_text() in names)
    extents = [image.get_extent() for image in axes.images]
    assert [np.array(image.get_array()).max() for image in axes.images] == [
        0,
        1,
        10,
        11,
        20,
        21,
        30,
        31,
        40,
        41,
    ]
    for (left, right, bottom, top), label in zip(extents[::2], labels, strict=True):
        x, y = label.get_position()
        assert x < left and y == pytest.approx((top + bottom) / 2)
        assert (right - left, bottom - top) == pytest.approx((0.5, 0.5))
    # Rows a to c, and d and e beside them.
    lefts, tops = [extent[0] for extent in extents[::2]], [extent[3] for extent in extents[::2]]
    assert lefts == [lefts[0]] * 3 + [lefts[3]] * 2 and lefts[3] > extents[1][1]
    assert np.diff(tops[:3]) == pytest.approx([0.75, 0.75]) and np.diff(tops[3:]) == pytest.approx(
        0.75
    )
    assert extents[1][0] - extents[0][0] == pytest.approx(0.75)
    for caption, extent in ((first, extents[0]), (second, extents[1])):
        assert caption.get_position()[0] == extent[0] and caption.get_position()[1] < extent[3]


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


@pytest.mark.parametrize('num_classes', [2, 100])
def test_axes_of_curves_have_a_least_span_and_the_line_of_chance(num_classes: int) -> None:
    x, flat = np.array([1.0, 60.0]), np.array([1 / num_classes, 1 / num_classes + 1e-6])
    loss = Series('', x, math.log(num_classes) + flat)
    accuracy = Series('test images', x, flat)
    curves = Curves('run', loss, [accuracy], loss, [loss], num_classes)
    panels = ['loss', 'cross_entropy', 'precision']
    figure = figures.draw_curves([curves], 'step', panels=panels)
    for axes, span, chance in zip(
        figure.axes, (0.5, 0.5, 0.1), (None, math.log(num_classes), 1 / num_classes), strict=True
    ):
        low, high = axes.get_ylim()
        # As far as 0 allows.
        assert high - low > 0.9 * span / 2
        heights = [
            y for lines in axes.findobj(LineCollection) for ((_, y), _) in lines.get_segments()
        ]
        assert heights == ([chance] if chance else [])
        assert all(low < height < high for height in heights)


def test_the_lines_of_28_runs_differ() -> None:
    assert len({figures.line_of(place) for place in range(28)}) == 28
    series = Series('test images', np.array([1.0]), np.array([0.5]))
    figure = figures.draw_curves([Curves(f'run {i}', series, [series]) for i in range(30)], 'step')
    figures.save(figure, io.BytesIO(), dpi=50)
    assert figure.axes[1].get_window_extent().height > 80


@pytest.mark.parametrize('num_classes', [2, 10, 100, 256])
def test_bars_are_the_counts_and_take_little_space(num_classes: int) -> None:
    counts = np.arange(num_classes)
    figure = figures.draw_classes(counts, counts // 2, [str(n) for n in counts])
    train, test = ([bar.get_width() for bar in axes.containers[0]] for axes in figure.axes)
    assert train == counts.tolist() and test == (counts // 2).tolist()
    assert figure.get_size_inches().max() < 10
    assert overlapping(figure) == []


def test_long_names_are_cut() -> None:
    assert figures.shorten('automobile') == 'automobile'
    assert figures.shorten('a' * 40) == 'a' * 17 + '…'


def test_a_backend_that_is_not_installed_is_not_needed() -> None:
    program = (
        'import os\n'
        'from cifar10_lib.evaluation.figures import Figure, save\n'
        'save(Figure(), os.devnull, format="png")\n'
        'print(os.environ["MPLBACKEND"])'
    )
    result = subprocess.run(
        [sys.executable, '-c', program],
        cwd=REPOSITORY,
        env={**script_environment(), 'MPLBACKEND': 'module://not_installed'},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stdout == 'module://not_installed\n', result.stderr


def test_a_picture_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    """A limit on the size of files acts as a disk that is full in the middle of one."""
    output = str(tmp_path / 'picture.png')
    figures.write(Figure(), output)
    before = Path(output).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match=r'picture\.png: cannot be written: File too'):
            figures.write(figures.draw_text('more' * 99), output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Path(output).read_bytes() == before and os.listdir(tmp_path) == ['picture.png']


@pytest.mark.parametrize(
    ('output', 'message'),
    [
        ('picture.jpg', 'ends in .png or .svg'),
        ('missing/a.png', 'its folder is missing'),
        ('folder.png', 'is a folder'),
        ('link.png', 'a link to nowhere.png, which is missing'),
    ],
)
def test_a_picture_that_could_not_be_written_is_refused_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'folder.png').mkdir()
    (tmp_path / 'link.png').symlink_to('nowhere.png')
    with pytest.raises(UserError, match=f'--output={output}: .*{message}'):
        figures.check_output(output)
