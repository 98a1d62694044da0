"""The synthetic data set: drawn images of ten classes, in CIFAR-10's files and format.

Each shows one of ten shapes in front of clutter, in CIFAR-10's size: harder than
a toy, and learned by the tutorial's network in minutes. A left-right flip changes
no class, and a crop of 24 x 24 keeps enough of every shape to tell it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from cifar10_input import CIFAR10_RECORD, NUM_CLASSES, TEST_FILES
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.files import filled_directory, read_text
from cifar10_lib.data import record_files
from cifar10_lib.data.record_files import RECORD_FILES

_SIDE = CIFAR10_RECORD.height

# In pixels. A training crop then cuts at most 5 pixels off two neighbouring sides of
# the largest shape, and the central crop of evaluation at most 1.
_RADIUS = (6.5, 9.5)
_MAX_SHIFT = 3.0

_MAX_ROTATION = math.radians(15)

# In pixel values, 0 to 255: distance of the shape's colour from the background's
# in RGB, standard deviation of the uneven light on each, and of the noise.
_COLOUR_DISTANCE = (70, 150)
_UNEVENNESS = (5, 25)
_NOISE = (4, 16)

# Side of the grid of the uneven light.
_KNOTS = 5

_STROKES_BEHIND, _STROKES_IN_FRONT = 4, 1


def _disc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - 0.85


def _ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(x, y) - 0.75) - 0.2


def _square(x: np.ndarray, y: np.ndarray, half_side: float = 0.75) -> np.ndarray:
    return np.maximum(np.abs(x), np.abs(y)) - half_side


def _frame(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(_square(x, y, 0.65)) - 0.18


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(y, math.sqrt(0.75) * np.abs(x) - y / 2) - 0.5


def _plus(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.minimum(x, y) - 0.25, np.maximum(x, y) - 0.95)


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Folded into one of its ten halves of a point, a star is one straight edge
    # from the tip at (1, 0) to the notch between two points.
    fifth = 2 * math.pi / 5
    angle = np.abs((np.arctan2(x, -y) + fifth / 2) % fifth - fifth / 2)
    notch_x, notch_y = 0.42 * math.cos(fifth / 2), 0.42 * math.sin(fifth / 2)
    normal = math.atan2(1 - notch_x, notch_y)
    return np.hypot(x, y) * np.cos(angle - normal) - math.cos(normal)


def _rows(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs((y + 0.3) % 0.6 - 0.3) - 0.15, _square(x, y, 0.8))


def _columns(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _rows(y, x)


def _checks(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    turn = math.pi / 0.55
    # Divided by their slope at the edges of the checks, the waves are about a distance.
    waves = -np.cos(turn * x) * np.cos(turn * y) / turn
    return np.maximum(waves, _square(x, y, 0.8))


# Label i is the i-th of these. Each gives about the signed distance from a shape's
# edge, negative inside, for float32 coordinates relative to its middle, where the
# shape's radius is 1, x points right and y down. Each shape, mirrored left to
# right, is itself.
_SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    'disc': _disc,
    'ring': _ring,
    'square': _square,
    'frame': _frame,
    'triangle': _triangle,
    'plus': _plus,
    'star': _star,
    'rows': _rows,
    'columns': _columns,
    'checks': _checks,
}

# The name of each label's class.
CLASS_NAMES = tuple(_SHAPES)


def draw(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws a picture for each label.

    Args:
      labels: uint8 [images], 0 to 9.
      rng: source of all that is random.

    Returns:
      uint8 [images, 3, 32, 32], 0 to 255: red, green and blue planes, as in a record.
    """
    num_images = len(labels)
    middle = rng.uniform(70, 185, (num_images, 3))
    direction = rng.standard_normal((num_images, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    offset = direction * rng.uniform(*_COLOUR_DISTANCE, (num_images, 1)) / 2
    pictures = _surface(middle - offset, rng)
    for _ in range(_STROKES_BEHIND):
        _add_stroke(pictures, rng)
    shape = _surface(middle + offset, rng)
    pictures += (shape - pictures) * _shape_mask(labels, rng)
    for _ in range(_STROKES_IN_FRONT):
        _add_stroke(pictures, rng)
    noise = rng.standard_normal(pictures.shape, dtype=np.float32)
    pictures += noise * _per_image(rng.uniform(*_NOISE, num_images))
    return np.clip(pictures, 0, 255).astype(np.uint8)


def _per_image(values: np.ndarray) -> np.ndarray:
    """Shapes [images] into float32 [images, 1, 1, 1], to go with planes of pixels."""
    return values.astype(np.float32)[:, np.newaxis, np.newaxis, np.newaxis]


def _surface(colours: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Planes of one colour each, in uneven light: float32 [images, 3, 32, 32].

    Args:
      colours: [images, 3], pixel values.
      rng: source of all that is random.
    """
    num_images = len(colours)
    # Random numbers at the knots of a coarse grid, with straight lines between.
    # Most of the unevenness is common to the three channels: light, not tint.
    knots = rng.standard_normal((num_images, 1, _KNOTS, _KNOTS), dtype=np.float32)
    knots = knots + 0.5 * rng.standard_normal((num_images, 3, _KNOTS, _KNOTS), dtype=np.float32)
    knots *= _per_image(rng.uniform(*_UNEVENNESS, num_images))
    position = np.linspace(0, _KNOTS - 1, _SIDE, dtype=np.float32)[:, np.newaxis]
    weights = np.maximum(0, 1 - np.abs(position - np.arange(_KNOTS, dtype=np.float32)))
    return weights @ knots @ weights.T + colours.astype(np.float32)[:, :, np.newaxis, np.newaxis]


def _add_stroke(pictures: np.ndarray, rng: np.random.Generator) -> None:
    """Draws one short stroke, or a dot, anywhere on each picture, in any colour."""
    num_images = len(pictures)
    x, y = _turned_grid(
        rng.uniform(0, _SIDE - 1, (2, num_images)), rng.uniform(0, math.pi, num_images)
    )
    half_length = _per_image(rng.uniform(0, 4, num_images))
    half_width = _per_image(rng.uniform(0.7, 1.6, num_images))
    beyond_end = x - np.clip(x, -half_length, half_length)
    mask = np.clip(half_width + 0.5 - np.hypot(beyond_end, y), 0, 1)
    colours = rng.uniform(0, 255, (num_images, 3, 1, 1)).astype(np.float32)
    pictures += (colours - pictures) * mask


def _shape_mask(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How much of each pixel the shape covers: float32 [images, 1, 32, 32], 0 to 1."""
    num_images = len(labels)
    shift = rng.uniform(-_MAX_SHIFT, _MAX_SHIFT, (2, num_images))
    rotation = rng.uniform(-_MAX_ROTATION, _MAX_ROTATION, num_images)
    radius = _per_image(rng.uniform(*_RADIUS, num_images))
    x, y = _turned_grid((_SIDE - 1) / 2 + shift, rotation)
    x, y = x / radius, y / radius
    distance = np.empty_like(x)
    for label, shape in enumerate(_SHAPES.values()):
        chosen = labels == label
        distance[chosen] = shape(x[chosen], y[chosen])
    return np.clip(0.5 - distance * radius, 0, 1)


def _turned_grid(middle: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of every pixel, relative to one point of each image, and turned.

    Args:
      middle: [2, images], column and row of the point, in pixels.
      angle: [images], radians.

    Returns:
      x and y in pixels, each float32 [images, 1, 32, 32].
    """
    rows, columns = np.mgrid[:_SIDE, :_SIDE].astype(np.float32)
    x, y = columns - _per_image(middle[0]), rows - _per_image(middle[1])
    cosine, sine = _per_image(np.cos(angle)), _per_image(np.sin(angle))
    return x * cosine + y * sine, y * cosine - x * sine


SYNTHETIC_MARKER = 'synthetic.json'


# Images drawn together: few enough for their arrays to stay in the cache.
_IMAGES_AT_ONCE = 250


class SyntheticSet(NamedTuple):
    """What makes up a synthetic set; its marker file holds these as JSON.

    Attributes:
      num_train: training images in all five files; a multiple of 5, at least 5.
      num_test: test images, at least 1.
      seed: at least 0.
      version: of the generator; goes up whenever the same seed gives other pictures.
    """

    num_train: int = 50000
    num_test: int = 10000
    seed: int = 0
    version: int = 1

    def describe(self) -> str:
        return ' '.join(f'{name}={value}' for name, value in self._asdict().items())


def read_marker(path: str) -> SyntheticSet:
    expected = 'expected the marker of a synthetic set'
    try:
        held = SyntheticSet(**json.loads(read_text(path, expected)))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f'{path}: not the marker of a synthetic set: {error}') from error
    if not all(type(value) is int for value in held):
        raise UserError(f'{path}: not the marker of a synthetic set: {held.describe()}')
    return held


def generate_synthetic(
    directory: str, num_train: int = 50000, num_test: int = 10000, seed: int = 0
) -> None:
    """Writes a synthetic data set in CIFAR-10's files and format.

    The classes are equally frequent, to within one image, in training and test
    images. One seed gives the same bytes on each run; another machine or version
    of NumPy may round a pixel value to its neighbour.

    Args:
      directory: made and filled: five training files, one test file,
        batches.meta.txt, SHA256SUMS and synthetic.json. It must be missing or empty.
      num_train: training images in all; a multiple of 5, at least 5.
      num_test: test images, at least 1. They come from other random streams.
      seed: at least 0.

    Raises:
      UserError: a number is out of range, or the directory cannot be written.
    """
    if num_train < 5 or num_train % 5:
        raise UserError(f'--num_train must be a multiple of 5, at least 5, found {num_train}')
    if num_test < 1 or seed < 0:
        raise UserError(
            f'--num_test must be at least 1 and --seed at least 0, found {num_test} and {seed}'
        )
    sizes = [num_train // 5] * 5 + [num_test]
    with (
        filled_directory(directory) as temporary,
        tqdm(total=sum(sizes), desc='drawing', unit='images', disable=None) as bar,
    ):
        for stream, (name, size) in enumerate(zip(RECORD_FILES, sizes, strict=True)):
            first = 0 if name in TEST_FILES else stream * size
            rng = np.random.default_rng([seed, stream])
            labels = rng.permutation((first + np.arange(size)) % NUM_CLASSES).astype(np.uint8)
            with open(os.path.join(temporary, name), 'wb') as file:
                for begin in range(0, size, _IMAGES_AT_ONCE):
                    some = labels[begin : begin + _IMAGES_AT_ONCE]
                    pixels = draw(some, rng).reshape(len(some), -1)
                    file.write(np.column_stack([some, pixels]).tobytes())
                    bar.update(len(some))
        record_files.write_class_names(CLASS_NAMES, temporary)
        with open(os.path.join(temporary, SYNTHETIC_MARKER), 'w', encoding='utf-8') as marker:
            json.dump(SyntheticSet(num_train, num_test, seed)._asdict(), marker, indent=2)
            marker.write('\n')
        record_files.write_sums(temporary)
