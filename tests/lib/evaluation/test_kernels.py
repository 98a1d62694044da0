"""Kernels equal sums of products, written out."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cifar10_lib.base.errors import UserError
from cifar10_lib.evaluation import inside_figures, kernels


@pytest.mark.parametrize('name', [*kernels.KERNELS, '1,0,-1,2,0,-2,1,0,-1'])
@pytest.mark.parametrize('size', [(2, 2), (7, 5)])
def test_a_kernel_is_a_sum_of_products(name: str, size: tuple[int, int]) -> None:
    width, height = size
    grey = np.random.default_rng(0).integers(0, 256, [height, width], np.uint8)
    kernel = kernels.parse(name)
    found = kernels.apply(Image.fromarray(grey), kernel)
    padded = np.zeros([height + 2, width + 2])
    padded[1:-1, 1:-1] = grey
    expected = np.array(
        [
            [(padded[y : y + 3, x : x + 3] * kernel).sum() for x in range(width)]
            for y in range(height)
        ]
    )
    pooled = [
        [expected[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].max() for x in range(width // 2)]
        for y in range(height // 2)
    ]
    np.testing.assert_array_equal(found.grey, grey)
    np.testing.assert_array_equal(found.padded, padded)
    np.testing.assert_allclose(found.convolved, expected, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(found.pooled, pooled, rtol=1e-5, atol=1e-3)


def test_kernels_do_what_their_names_say() -> None:
    edge = np.zeros([6, 6], np.uint8)
    edge[:, 3:] = 200
    inside = (slice(1, -1), slice(1, -1))
    results = {
        name: kernels.apply(Image.fromarray(edge), kernels.parse(name)).convolved[inside]
        for name in kernels.KERNELS
    }
    np.testing.assert_array_equal(results['identity'], edge[inside])
    assert results['sobel_x'].max() == 800 and not results['sobel_y'].any()
    for name in ('sobel_x', 'sobel_y', 'prewitt_x', 'prewitt_y', 'edge', 'laplacian'):
        assert kernels.parse(name).sum() == 0
    for name in ('blur', 'gaussian', 'sharpen', 'emboss', 'identity'):
        assert kernels.parse(name).sum() == pytest.approx(1)


@pytest.mark.parametrize('text', ['sobel', '1,2,3', '1,2,3,4,5,6,7,8,x', '1,2,3,4,5,6,7,8,nan', ''])
def test_what_is_no_kernel_is_named(text: str) -> None:
    with pytest.raises(UserError, match=f'--kernel={text}: expected identity, .*or nine numbers'):
        kernels.parse(text)


def test_a_picture_of_one_pixel_is_refused() -> None:
    with pytest.raises(UserError, match='a picture of 1 x 4 pixels: expected at least 2 x 2'):
        kernels.apply(Image.new('RGB', (1, 4)), kernels.parse('blur'))


def test_the_drawing_has_each_step_and_the_kernels_numbers() -> None:
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8))
    kernel = kernels.parse('sobel_x')
    filtered = kernels.apply(image, kernel)
    figure = inside_figures.draw_kernel(filtered, kernel, 'sobel_x', 'title')
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    for found, expected in zip(shown, (*filtered[:2], kernel, *filtered[2:]), strict=True):
        np.testing.assert_array_equal(found, expected)
    numbers = [text.get_text() for text in figure.axes[2].texts]
    assert numbers == ['-1', '0', '1', '-2', '0', '2', '-1', '0', '1']
    # 0 is in the middle.
    low, high = figure.axes[3].images[0].get_clim()
    assert low == -high < 0
