"""Do pictures show the numbers they are given, for two classes and for 256?"""

from __future__ import annotations

import numpy as np

import cifar10_drawings


def test_the_classes_of_large_sets_are_drawn_in_little_space() -> None:
    counts = np.arange(256)
    figure = cifar10_drawings.draw_classes(counts, counts // 2, [str(n) for n in counts])
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.containers[0]] == counts.tolist()
    assert figure.get_size_inches().max() < 10


def test_long_names_are_cut() -> None:
    assert cifar10_drawings.shown('automobile') == 'automobile'
    assert cifar10_drawings.shown('a' * 40) == 'a' * 17 + '…'
