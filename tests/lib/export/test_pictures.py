"""Pictures decoded in a graph, beside those that Pillow decodes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import tensorflow
import tensorflow.compat.v1 as tf
from PIL import Image

from cifar10_lib.data import photos
from cifar10_lib.data.framing import Framing
from cifar10_lib.export import pictures
from cifar10_lib.export.pictures import LARGEST_TOLERANCE, MEAN_TOLERANCE, decode_pictures

# Format, mode and what it is saved with.
KINDS: list[tuple[str, str, dict[str, Any]]] = [
    ('JPEG', 'RGB', {'quality': 90}),
    ('JPEG', 'L', {}),
    ('JPEG', 'CMYK', {}),
    ('PNG', 'RGB', {}),
    ('PNG', 'RGBA', {}),
    ('PNG', 'L', {}),
    ('PNG', 'LA', {}),
    ('PNG', 'P', {}),
    ('PNG', 'I;16', {}),
    ('BMP', 'RGB', {}),
    ('GIF', 'RGB', {}),
    ('WEBP', 'RGB', {'lossless': True}),
    ('WEBP', 'RGBA', {'lossless': True}),
]
READS_WEBP = tuple(map(int, tf.__version__.split('.')[:2])) >= (2, 20)

FRAMINGS = [
    Framing(),
    Framing(fit='pad'),
    Framing(fit='stretch', size=48),
    Framing(invert=True, inner=28),
]


def smooth(height: int, width: int, mode: str = 'RGB') -> Image.Image:
    """Colours that run into one another, and a hard edge."""
    rng = np.random.default_rng(height)
    coarse = Image.fromarray(rng.integers(0, 256, [7, 9, 4], dtype=np.uint8))
    pixels = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))
    pixels[:, width // 2] = 0
    image = Image.fromarray(pixels)
    if mode == 'I;16':
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
    return image.convert(mode) if mode in ('RGBA', 'LA') else image.convert('RGB').convert(mode)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize('framing', FRAMINGS, ids=str)
def test_pictures_are_decoded_and_framed_as_pillow_does(framing: Framing) -> None:
    decode = tensorflow.function(lambda encoded: decode_pictures(encoded, framing), autograph=False)
    files = [
        encode(smooth(height, width, mode), kind, **options)
        for height, width in ((40, 50), (300, 200), (20, 25), (framing.size, framing.size))
        for kind, mode, options in KINDS
        if kind != 'WEBP' or READS_WEBP
    ]
    expected = [photos.square(photos.decode(each, '', framing.size), framing) for each in files]
    found = decode(tf.constant(files)).numpy()
    assert found.shape == (len(files), framing.size, framing.size, 3) and found.dtype == np.uint8
    differences = np.abs(found.astype(int) - np.stack(expected))
    assert differences.mean(axis=(1, 2, 3)).max() < MEAN_TOLERANCE
    assert differences.max() <= LARGEST_TOLERANCE


def test_the_first_image_of_an_animated_gif_is_taken() -> None:
    first, second = smooth(32, 32), smooth(32, 32).rotate(90)
    content = encode(first, 'GIF', save_all=True, append_images=[second])
    with tf.Graph().as_default(), tf.Session() as session:
        found = session.run(decode_pictures(tf.constant([content]), Framing()))[0]
    expected = photos.square(photos.decode(content, ''), Framing())
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('kind', ['animated', 'empty', 'short', 'other', 'damaged'])
def test_what_a_decoder_would_fail_on_is_refused(kind: str) -> None:
    animated = encode(
        smooth(32, 32), 'WEBP', save_all=True, append_images=[smooth(32, 32).rotate(90)]
    )
    content = {
        'animated': animated,
        'empty': b'',
        'short': animated[:14],
        'other': b'not a picture at all',
        'damaged': encode(smooth(32, 32), 'PNG')[:100],
    }[kind]
    message = {'damaged': 'PNG', 'short': 'WebP|Unknown image'}.get(kind, pictures.EXPECTED)
    with (
        tf.Graph().as_default(),
        tf.Session() as session,
        pytest.raises(tf.errors.InvalidArgumentError, match=message),
    ):
        session.run(decode_pictures(tf.constant([content]), Framing()))
