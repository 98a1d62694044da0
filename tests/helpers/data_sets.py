"""What the tests of converted data sets share: small sets of each kind, and what they become."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from PIL import Image

from cifar10_input import TEST_FILES, TRAIN_FILES
from cifar10_lib.data import convert as convert_module
from cifar10_lib.data import record_files
from cifar10_lib.data.framing import read_framing
from cifar10_lib.data.record_files import CIFAR10_CLASS_NAMES
from cifar10_lib.evaluation import contact_sheet
from tests.helpers.samples import FILES, tree

WRITTEN = {*FILES, 'batches.meta.txt', 'framing.json', 'SHA256SUMS', 'contact_sheet.png'}


def convert(source: Any, data_dir: Any, *arguments: Any, **options: Any) -> None:
    """As `cifar10_data.py convert` calls it."""
    convert_module.convert(
        str(source),
        str(data_dir),
        *arguments,
        draw_examples=contact_sheet.write,
        batch_size=128,
        **options,
    )


def decoded(directory: Path, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [images, size, size, 3] and labels of record files."""
    size = read_framing(str(directory)).size
    data = np.concatenate([np.fromfile(directory / name, np.uint8) for name in names])
    data = data.reshape(-1, 1 + 3 * size * size)
    return data[:, 1:].reshape(-1, 3, size, size).transpose(0, 2, 3, 1), data[:, 0]


def check(
    directory: Path, class_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images and labels, test images and labels of a set that must be sound."""
    assert tree(directory) == WRITTEN
    record = read_framing(str(directory)).record
    record_files.check_directory(str(directory), record, num_classes=len(class_names))
    assert record_files.read_class_names(str(directory)) == list(class_names)
    return (*decoded(directory, TRAIN_FILES), *decoded(directory, TEST_FILES))


def as_pairs(images: np.ndarray, labels: np.ndarray) -> list[tuple[int, bytes]]:
    return sorted(
        (int(label), image.tobytes()) for image, label in zip(images, labels, strict=True)
    )


# ---------------------------------------------------------------------------- pictures


def picture(label: int, number: int) -> np.ndarray:
    """A picture unlike any other: uint8 [32, 32, 3]."""
    rng = np.random.default_rng([label, number])
    return rng.integers(0, 256, [32, 32, 3], dtype=np.uint8)


def pairs(label: int, numbers: Sequence[int]) -> list[tuple[int, bytes]]:
    return [(label, picture(label, number).tobytes()) for number in numbers]


def save(folder: Path, label: int, numbers: Sequence[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.fromarray(picture(label, number)).save(folder / f'{number}.png')


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'PNG')
    return buffer.getvalue()


# -------------------------------------------------------------------------- small sets

# 23 training and 6 test digits of the labels 3, 5 and 9.
DIGIT_NAMES = ('3', '5', '9')
_DIGITS = np.random.default_rng(0).integers(0, 256, [29, 28, 28], dtype=np.uint8)
_DIGIT_LABELS = np.array([3, 5, 9], np.uint8)[np.arange(29) % 3]
DIGITS = {'train': (_DIGITS[:23], _DIGIT_LABELS[:23]), 'test': (_DIGITS[23:], _DIGIT_LABELS[23:])}


def check_digits(directory: Path) -> None:
    """The records of `DIGITS`, each in the middle of a black square."""
    found = check(directory, DIGIT_NAMES)
    for images, labels, (expected, values) in zip(
        found[::2], found[1::2], DIGITS.values(), strict=True
    ):
        padded = np.zeros([len(expected), 32, 32, 3], np.uint8)
        padded[:, 2:30, 2:30] = expected[..., np.newaxis]
        assert as_pairs(images, labels) == as_pairs(padded, np.searchsorted([3, 5, 9], values))
    assert read_framing(str(directory)).inner == 28


def idx_bytes(items: np.ndarray) -> bytes:
    code = {'uint8': 8, 'int32': 12}[items.dtype.name]
    head = struct.pack(f'>HBB{items.ndim}I', 0, code, items.ndim, *items.shape)
    return head + items.astype(items.dtype.newbyteorder('>')).tobytes()


def write_all(folder: Path, contents: Mapping[str, bytes]) -> Path:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def idx_files(ending: str = '') -> dict[str, bytes]:
    """`DIGITS` as MNIST's four files."""
    contents = {}
    for arrays, name in zip(DIGITS.values(), ('train', 't10k'), strict=True):
        for items, what in zip(arrays, ('images-idx3', 'labels-idx1'), strict=True):
            content = idx_bytes(items)
            content = gzip.compress(content) if ending else content
            contents[f'{name}-{what}-ubyte{ending}'] = content
    return contents


def digits_csv(part: str, header: bool = True, labelled: bool = True) -> bytes:
    """`DIGITS` as Kaggle has MNIST."""
    images, labels = DIGITS[part]
    names = [*(['label'] if labelled else []), *(f'pixel{i}' for i in range(784))]
    lines = [','.join(names)] if header else []
    for image, label in zip(images, labels, strict=True):
        lines.append(','.join(map(str, [*([label] if labelled else []), *image.ravel()])))
    return '\n'.join(lines).encode() + b'\n'


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def tar(contents: Mapping[str, bytes], mode: str = 'w:gz') -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def python_files(
    records: Mapping[str, bytes], protocol: int = 2, as_bytes: bool = False
) -> dict[str, bytes]:
    """CIFAR-10's record files as its python version has them.

    Pickled by Python 2, texts may be bytes.
    """

    def text(value: str) -> Any:
        return value.encode() if as_bytes else value

    contents = {}
    for name in FILES:
        data = np.frombuffer(records[name], np.uint8).reshape(-1, 3073)
        content = {
            text('batch_label'): text('batch'),
            text('labels'): data[:, 0].tolist(),
            text('data'): data[:, 1:].copy(),
            text('filenames'): [text(f'{i}.png') for i in range(len(data))],
        }
        contents[name.removesuffix('.bin')] = pickle.dumps(content, protocol)
    names = {text('label_names'): [text(name) for name in CIFAR10_CLASS_NAMES]}
    contents['batches.meta'] = pickle.dumps(names, protocol)
    return contents


STL10_IMAGES = np.random.default_rng(0).integers(0, 256, [9, 96, 96, 3], np.uint8)
STL10_LABELS = np.arange(9, dtype=np.uint8) % 3
STL10_NAMES = ['airplane', 'bird', 'car']


def stl10_files() -> dict[str, bytes]:
    """Six training and three test images as STL-10 has them."""
    contents = {'class_names.txt': '\n'.join(STL10_NAMES).encode() + b'\n', 'fold_indices.txt': b''}
    for part, places in (('train', slice(6)), ('test', slice(6, 9))):
        contents[f'{part}_X.bin'] = STL10_IMAGES[places].transpose(0, 3, 2, 1).tobytes()
        contents[f'{part}_y.bin'] = (STL10_LABELS[places] + 1).tobytes()
    return contents


def example(**features: bytes | int) -> bytes:
    """A tf.train.Example; `__` in a name stands for `/`."""
    made = tf.train.Example()
    for name, value in features.items():
        kind = 'bytes_list' if isinstance(value, bytes) else 'int64_list'
        getattr(made.features.feature[name.replace('__', '/')], kind).value.append(value)
    return made.SerializeToString()


def tfrecord(pictures: Mapping[str, bytes]) -> bytes:
    """Pictures by `class/number`, as records whose label is the place of the class."""
    names = sorted({name.partition('/')[0] for name in pictures})
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'x')
        with tf.io.TFRecordWriter(path) as writer:
            for name, content in pictures.items():
                label = names.index(name.partition('/')[0])
                writer.write(example(image=content, label=label))
        return Path(path).read_bytes()


def zipped(contents: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return buffer.getvalue()


# ------------------------------------------------------------------------ record files


def write_own_set(directory: Path, labels: Sequence[int], num_test: int = 10) -> Path:
    """Record files of noise with these training labels, and names for the classes.

    Test labels are 0, 1, 2, ... in turn. Returns the directory.
    """
    directory.mkdir(parents=True)
    num_classes = max(labels) + 1
    tested = np.arange(num_test) % num_classes
    rng = np.random.default_rng(0)
    parts = [*np.array_split(np.array(labels), len(TRAIN_FILES)), tested]
    for name, part in zip((*TRAIN_FILES, *TEST_FILES), parts, strict=True):
        records = rng.integers(0, 256, [len(part), 3073], dtype=np.uint8)
        records[:, 0] = part
        records.tofile(directory / name)
    names = ''.join(f'class{label}\n' for label in range(num_classes))
    (directory / 'batches.meta.txt').write_text(names, encoding='utf-8')
    return directory
