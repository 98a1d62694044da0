"""Pictures of any size and format become the square of a record.

TensorFlow decodes it; of its middle the largest square is kept, turned upright, and
scaled to 32 x 32.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import tensorflow
import tensorflow.compat.v1 as tf
from PIL import Image

from cifar10_input import CIFAR10_RECORD
from cifar10_lib.base.errors import UserError, error_message, os_errors_named
from cifar10_lib.base.files import regular_size

# Bounds of one picture: the largest that take about 2 GB while they are scaled.
MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 1 << 28

_EXPECTED = 'expected a JPEG, PNG, GIF or BMP'

# Side in pixels of what is drawn of a picture.
DRAWN_SIZE = 192

_ORIENTATION_TAG = 0x0112

# By the orientation of EXIF: how many quarter turns to the left, then whether to mirror.
_TURNS = {
    1: (0, False),
    2: (0, True),
    3: (2, False),
    4: (2, True),
    5: (3, True),
    6: (3, False),
    7: (1, True),
    8: (1, False),
}


class Picture(NamedTuple):
    """One picture, as the network and as people see it."""

    pixels: np.ndarray
    """uint8 [32, 32, 3], as in a record."""
    drawn: np.ndarray
    """uint8 [192, 192, 3], the same square."""


class Reader:
    """Reads pictures of any size and shape."""

    def __init__(self) -> None:
        with tf.Graph().as_default():
            self._content = tf.placeholder(tf.string, [])
            square = without_alpha(central_square(decode(self._content)))
            self._squares = [scaled(square, size) for size in (CIFAR10_RECORD.height, DRAWN_SIZE)]
            self._session = tf.Session()

    def read(self, path: str) -> Picture:
        """
        Args:
          path: of a JPEG, PNG, GIF or BMP.

        Raises:
          UserError: names the file that can't be read as one of these.
        """
        size = regular_size(path, _EXPECTED)
        if not size or size > MAX_FILE_BYTES:
            raise UserError(f'{path}: has {size:,} bytes; {_EXPECTED}')
        orientation = _orientation(path)
        with os_errors_named(path), open(path, 'rb') as file:
            content = file.read()
        try:
            squares = self._session.run(self._squares, {self._content: content})
        except tf.errors.OpError as error:
            raise UserError(f'{path}: {error_message(error)}; {_EXPECTED}') from error
        return Picture(*(upright(square, orientation) for square in squares))


def _orientation(path: str) -> int:
    """How the camera was held, 1 to 8 by EXIF; TensorFlow's decoding doesn't tell.

    Pillow reads the head of the file alone, and so finds what is too large before it
    takes any memory.

    Raises:
      UserError: it is no picture, or too large a one, or of a kind that TensorFlow
        takes for another.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            with Image.open(path) as image:
                orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Image.DecompressionBombError as error:
        raise UserError(f'{path}: too large: {error}') from error
    except Exception as error:  # Damaged heads make Pillow's readers raise almost anything.
        raise UserError(f'{path}: not a picture that can be read; {_EXPECTED}') from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UserError(
            f'{path}: has {width} x {height} pixels; expected at most {MAX_PIXELS:,} in all'
        )
    if image.format == 'BMP' and image.mode == 'P':
        raise UserError(f'{path}: a BMP with a palette, which TensorFlow takes for grey')
    return orientation


def decode(content: tf.Tensor) -> tf.Tensor:
    """The image in a file's bytes, of a GIF the first frame.

    Returns:
      uint8 [height, width, channels]: grey, grey and alpha, colour, or colour and alpha.
    """
    is_jpeg = tf.equal(tf.strings.substr(content, 0, 3), b'\xff\xd8\xff')
    # A JPEG has no alpha, and only TensorFlow knows what the fourth channel of some means.
    return tf.cond(
        is_jpeg,
        lambda: tf.io.decode_image(content, channels=3, expand_animations=False),
        lambda: tf.io.decode_image(content, channels=0, expand_animations=False),
    )


def without_alpha(image: tf.Tensor) -> tf.Tensor:
    """float32 [height, width, 3], 0 to 255, in colour and on white, of what `decode` gives."""
    num_channels = tf.shape(image)[-1]
    image = tf.cast(image, tf.float32)

    def colours() -> tf.Tensor:
        return tf.cond(
            num_channels > 2,
            lambda: image[..., :3],
            lambda: tf.repeat(image[..., :1], 3, axis=-1),
        )

    def on_white() -> tf.Tensor:
        alpha = image[..., -1:] / 255.0
        return colours() * alpha + 255.0 * (1.0 - alpha)

    return tf.ensure_shape(tf.cond(num_channels % 2 > 0, colours, on_white), [None, None, 3])


def central_square(image: tf.Tensor) -> tf.Tensor:
    """The largest square in the middle of an image [height, width, depth]."""
    shape = tf.shape(image)
    side = tf.minimum(shape[0], shape[1])
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    return image[top : top + side, left : left + side]


def scaled(square: tf.Tensor, size: int) -> tf.Tensor:
    """A square [side, side, depth] scaled to uint8 [size, size, depth], free of aliasing.

    Bicubic. A square of that size stays as it is.
    """
    resized = tensorflow.image.resize(square, [size, size], 'bicubic', antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)


def upright(square: np.ndarray, orientation: int) -> np.ndarray:
    """An image [side, side, depth] as it was seen, by the orientation of EXIF, 1 to 8."""
    turns, mirror = _TURNS.get(orientation, _TURNS[1])
    turned = np.rot90(square, turns)
    return turned[:, ::-1] if mirror else turned
