"""TFRecord files of tf.train.Examples with an image and a label, as TensorFlow Datasets has."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cifar10_lib.base.errors import UserError, error_message, os_errors_named
from cifar10_lib.base.files import read_text, regular_size
from cifar10_lib.data import photos
from cifar10_lib.data.sources.base import (
    Examples,
    Options,
    Source,
    divide,
    names_in,
    numbered,
    some,
)

_IMAGE_FEATURES = ('image', 'image/encoded', 'image_raw', 'img')
_LABEL_FEATURES = ('label', 'image/class/label', 'labels')
_SHAPE_FEATURES = (('height', 'width'), ('image/height', 'image/width'))

# As cifar10-train.tfrecord-00000-of-00001 or images.tfrecords.
_NAME = re.compile(r'.*\.tfrecords?(-\d+-of-\d+)?', re.IGNORECASE)

# What TensorFlow Datasets puts beside the files.
_CLASS_NAMES = 'label.labels.txt'

# Of a record: its length and that length's checksum before it, its own checksum behind it.
_HEAD, _TAIL = 12, 4

_EXPECTED = 'expected TFRecords of tf.train.Examples with the features image and label'


def _files(path: str) -> list[str]:
    paths = [os.path.join(path, name) for name in names_in(path)] or [path]
    return [p for p in paths if _NAME.fullmatch(os.path.basename(p)) and os.path.isfile(p)]


def _places(path: str) -> list[tuple[int, int]]:
    """Start and length of each record's content, all within the file.

    TensorFlow takes as much memory as a record says that it is long.
    """
    size, start = regular_size(path, _EXPECTED), 0
    found: list[tuple[int, int]] = []
    with os_errors_named(path), open(path, 'rb') as file:
        while start < size:
            file.seek(start)
            head = file.read(_HEAD)
            length = struct.unpack('<Q', head[:8])[0] if len(head) == _HEAD else size
            if start + _HEAD + length + _TAIL > size:
                raise UserError(
                    f'{path}: record {len(found)}, from byte {start:,} on, breaks off; {_EXPECTED}'
                )
            found.append((start + _HEAD, length))
            start += _HEAD + length + _TAIL
    return found


def _records(path: str) -> Iterator[bytes]:
    """The content of all records, each compared with its checksum."""
    import tensorflow.compat.v1 as tf

    try:
        yield from tf.io.tf_record_iterator(path)
    except tf.errors.OpError as error:
        raise UserError(f'{path}: {error_message(error)}; {_EXPECTED}') from error


def _features(content: bytes, name: str) -> Any:
    import tensorflow.compat.v1 as tf

    try:
        return tf.train.Example.FromString(content).features.feature
    except Exception as error:  # Of protobuf, which has several.
        raise UserError(f'{name}: not a tf.train.Example; {_EXPECTED}') from error


def _first(features: Any, names: Sequence[str]) -> Any:
    return next((features[name] for name in names if name in features), None)


def _label(features: Any, name: str) -> int:
    feature = _first(features, _LABEL_FEATURES)
    if feature is None or len(feature.int64_list.value) != 1:
        raise UserError(f'{name}: found the features {some(sorted(features))}; {_EXPECTED}')
    return feature.int64_list.value[0]


def _image(features: Any, name: str, size: int) -> np.ndarray:
    """Its pixels, which are those of a picture's file, or of a feature without one."""
    feature = _first(features, _IMAGE_FEATURES)
    values = feature.bytes_list.value if feature is not None else []
    if len(values) != 1:
        raise UserError(f'{name}: found the features {some(sorted(features))}; {_EXPECTED}')
    content = values[0]
    for sides in _SHAPE_FEATURES:
        if all(side in features for side in sides):
            height, width = (sum(features[side].int64_list.value) for side in sides)
            if len(content) in (height * width, height * width * 3) and height > 0:
                return np.frombuffer(content, np.uint8).reshape(height, width, -1)
    return photos.to_array(content, name, size)


def _read(path: str, options: Options) -> Examples:
    places: list[tuple[str, int, int]] = []
    labels: list[int] = []
    is_test: list[bool] = []
    for file, of_test in zip(*divide(_files(path)), strict=True):
        found = _places(file)
        for number, content in enumerate(_records(file)):
            record = f'{file}: record {number}'
            labels.append(_label(_features(content, record), record))
            places.append((file, *found[number]))
        is_test += [of_test] * len(found)
    if not labels:
        raise UserError(f'{path}: holds no records; {_EXPECTED}')
    names, numbers = numbered(np.array(labels), _class_names(path))

    def name(index: int) -> str:
        file, start, _ = places[index]
        return f'{file}: record at byte {start - _HEAD:,}'

    def array(index: int) -> np.ndarray:
        file, start, length = places[index]
        with os_errors_named(file), open(file, 'rb') as opened:
            opened.seek(start)
            content = opened.read(length)
        return _image(_features(content, name(index)), name(index), options.framing.size)

    return Examples(
        names,
        numbers,
        lambda index: photos.from_array(array(index), options.framing, name(index)),
        name,
        np.array(is_test) if len(set(is_test)) > 1 else None,
        inner=photos.inner_side(array(0), options.framing),
    )


def _class_names(path: str) -> list[str] | None:
    names = os.path.join(path if os.path.isdir(path) else os.path.dirname(path), _CLASS_NAMES)
    if not os.path.exists(names):
        return None
    return read_text(names, 'expected class names, one a line').split('\n')[:-1]


SOURCE = Source('TFRecord files', lambda path: bool(_files(path)), _read)
