"""TFRecords of images and labels, as TensorFlow Datasets has them."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
import tensorflow.compat.v1 as tf

from cifar10_lib.base.errors import UserError
from tests.helpers.data_sets import (
    DIGITS,
    as_pairs,
    check,
    check_digits,
    convert,
    example,
    pairs,
    picture,
    png,
    write_all,
)


def records(tmp_path: Path, *contents: bytes) -> bytes:
    path = str(tmp_path / 'written')
    with tf.io.TFRecordWriter(path) as writer:
        for content in contents:
            writer.write(content)
    return Path(path).read_bytes()


def numbered(tmp_path: Path, numbers: range) -> bytes:
    contents = [example(image=png(picture(n % 2, n)), label=n % 2) for n in numbers]
    return records(tmp_path, *contents)


def test_cifar10_as_tensorflow_datasets_has_it(tmp_path: Path) -> None:
    contents = {
        'cifar10-train.tfrecord-00000-of-00002': numbered(tmp_path, range(6)),
        'cifar10-train.tfrecord-00001-of-00002': numbered(tmp_path, range(6, 10)),
        'cifar10-test.tfrecord-00000-of-00001': numbered(tmp_path, range(10, 14)),
        'label.labels.txt': b'airplane\nbird\n',
        'features.json': b'{}',
    }
    convert(write_all(tmp_path / 'in', contents), tmp_path / 'out')
    found = check(tmp_path / 'out', ['airplane', 'bird'])
    assert as_pairs(*found[:2]) == sorted(pairs(0, range(0, 10, 2)) + pairs(1, range(1, 10, 2)))
    assert as_pairs(*found[2:]) == sorted(pairs(0, [10, 12]) + pairs(1, [11, 13]))


@pytest.mark.parametrize('raw', [False, True])
def test_digits_as_pictures_or_raw_pixels(tmp_path: Path, raw: bool) -> None:
    contents = {}
    for part, (images, labels) in DIGITS.items():
        made = [
            example(image_raw=image.tobytes(), height=28, width=28, label=int(label))
            if raw
            else example(image__encoded=png(image), image__class__label=int(label))
            for image, label in zip(images, labels, strict=True)
        ]
        contents[f'{part}.tfrecords'] = records(tmp_path, *made)
    convert(write_all(tmp_path / 'in', contents), tmp_path / 'out')
    check_digits(tmp_path / 'out')


def huge() -> bytes:
    """A record that claims 2**60 bytes."""
    buffer = io.BytesIO()
    buffer.write(struct.pack('<QI', 2**60, 0))
    return buffer.getvalue()


@pytest.mark.parametrize('fault', ['cut', 'flipped', 'huge', 'no label', 'no example', 'empty'])
def test_damage_is_named_with_its_record(tmp_path: Path, fault: str) -> None:
    sound = numbered(tmp_path, range(8))
    flipped = bytearray(sound)
    flipped[100] ^= 1
    content, message = {
        'cut': (sound[:-9], 'record 7, from byte .* on, breaks off'),
        'flipped': (bytes(flipped), 'corrupted record at '),
        'huge': (sound + huge(), 'record 8, from byte .* on, breaks off'),
        'no label': (
            records(tmp_path, example(image=b'', x=1)),
            'record 0: found the features image, x; expected TFRecords of',
        ),
        'no example': (records(tmp_path, b'\xff\xff'), 'record 0: not a tf.train.Example'),
        'empty': (b'', 'holds no records'),
    }[fault]
    (tmp_path / 'x.tfrecord').write_bytes(content)
    with pytest.raises(UserError, match=rf'x\.tfrecord: {message}'):
        convert(tmp_path / 'x.tfrecord', tmp_path / 'out')
