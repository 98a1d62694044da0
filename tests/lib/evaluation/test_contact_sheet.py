"""The contact sheet of a data set."""

import numpy as np
import pytest

from cifar10_lib.evaluation import contact_sheet
from cifar10_lib.evaluation.contact_sheet import MAX_ROWS


@pytest.mark.parametrize('num_classes', [2, 10, MAX_ROWS, MAX_ROWS + 1, 100, 256])
def test_the_sheet_shows_each_class_beside_its_name(num_classes: int) -> None:
    names = [f'class $_{i}^ ' + 'w' * (i % 40) for i in range(num_classes)]
    shown = [
        [
            np.full([32, 32, 3], (7 * label + number) % 256, np.uint8)
            for number in range(1 + label % 3)
        ]
        for label in range(num_classes)
    ]
    figure = contact_sheet.draw(shown, names, 'title')
    (axes,) = figure.axes
    drawn = iter(axes.images)
    for images, name, text in zip(shown, names, axes.texts, strict=True):
        x, y = text.get_position()
        for number, image in enumerate(images):
            seen = next(drawn)
            np.testing.assert_array_equal(seen.get_array(), image)
            left, right, bottom, top = seen.get_extent()
            assert top < y < bottom and left > x
            assert left - x < 0.1 + 0.53 * number + 0.01 and right - left == pytest.approx(0.5)
        assert name.startswith(text.get_text().removesuffix('…')) and len(text.get_text()) >= 9
    assert next(drawn, None) is None
    width, height = figure.get_size_inches()
    assert num_classes <= MAX_ROWS or 1 < width / height < 3
