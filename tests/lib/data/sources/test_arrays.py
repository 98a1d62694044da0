"""NumPy archives: Keras's mnist.npz, and images with labels by other names."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cifar10_lib.base.errors import UserError
from tests.helpers.data_sets import (
    DIGITS,
    as_pairs,
    check,
    check_digits,
    convert,
    npz,
    pairs,
    picture,
)

(X_TRAIN, Y_TRAIN), (X_TEST, Y_TEST) = DIGITS.values()


@pytest.mark.parametrize('names', [('x_train', 'y_train'), ('train_images', 'train_labels')])
def test_mnist_npz_and_medmnist(tmp_path: Path, names: tuple[str, str]) -> None:
    x, y = names
    content = npz(
        **{x: X_TRAIN, y: Y_TRAIN.reshape(-1, 1)},
        **{x.replace('train', 'test'): X_TEST, y.replace('train', 'test'): Y_TEST},
    )
    (tmp_path / 'mnist.npz').write_bytes(content)
    convert(tmp_path / 'mnist.npz', tmp_path / 'out')
    check_digits(tmp_path / 'out')


def test_undivided_colours(tmp_path: Path) -> None:
    images = np.stack([picture(number % 2, number) for number in range(10)])
    (tmp_path / 'x.npz').write_bytes(npz(images=images, labels=np.arange(10) % 2))
    convert(tmp_path / 'x.npz', tmp_path / 'out')
    train, train_labels, test, test_labels = check(tmp_path / 'out', ['0', '1'])
    found = as_pairs(train, train_labels) + as_pairs(test, test_labels)
    assert sorted(found) == sorted(pairs(0, range(0, 10, 2)) + pairs(1, range(1, 10, 2)))


def with_header(shape: tuple[int, ...]) -> bytes:
    """An archive whose images claim a shape that they don't have."""
    array, buffer = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(
        array, {'descr': '|u1', 'fortran_order': False, 'shape': shape}
    )
    with zipfile.ZipFile(buffer, 'w') as archive:
        archive.writestr('images.npy', array.getvalue() + bytes(100))
        archive.writestr('labels.npy', npz(x=np.zeros(1))[:0])
    return buffer.getvalue()


SOUND = npz(images=X_TRAIN, labels=Y_TRAIN)
FAULTS = {
    'no zip': (b'x', 'x.npz: a damaged archive'),
    'cut': (SOUND[:-50], 'x.npz: a damaged archive'),
    'objects': (
        npz(images=np.array([{}, {}]), labels=Y_TRAIN),
        'x.npz: images: holds pickled objects, which are refused',
    ),
    'a claim': (
        with_header((10**9, 10**9)),
        'images: claims 1,000,000,000,000,000,000 bytes',
    ),
    'other names': (npz(a=X_TRAIN), 'x.npz: found the arrays a; expected an .npz of x_train'),
    'floats': (
        npz(images=X_TRAIN / 255, labels=Y_TRAIN),
        'images: found float64 .*; expected uint8',
    ),
    'fewer labels': (
        npz(images=X_TRAIN, labels=Y_TRAIN[1:]),
        'labels: found .*; expected 23 ',
    ),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_another_archive_is_refused(tmp_path: Path, fault: str) -> None:
    content, message = FAULTS[fault]
    (tmp_path / 'x.npz').write_bytes(content)
    with pytest.raises(UserError, match=message):
        convert(tmp_path / 'x.npz', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
