"""Damaged sources of images: a clear error that names the file, or the records; nothing else."""

from __future__ import annotations

import io
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cifar10_input import TEST_FILES, TRAIN_FILES
from cifar10_lib.base.errors import UserError
from cifar10_lib.data import convert as convert_module
from cifar10_lib.data import record_files
from cifar10_lib.data.framing import Framing
from cifar10_lib.data.photos import decode, square
from cifar10_lib.data.sources.base import Options
from tests.fuzz.test_fuzz_data import EXAMPLES, corrupted, corruptions
from tests.helpers.data_sets import (
    DIGITS,
    digits_csv,
    idx_files,
    npz,
    picture,
    png,
    python_files,
    stl10_files,
    tar,
    tfrecord,
    write_all,
    zipped,
)

# A conversion takes 10 ms and more, so there are fewer of them than of other tests' examples.
fuzzed = settings(
    max_examples=int(EXAMPLES or 1200) // 20,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

PICTURES = {
    f'{name}/{number}.png': png(picture(label, number))
    for label, name in enumerate(('a', 'b'))
    for number in range(4)
}
CSV = 'id,label\n' + ''.join(f'{i},{"cat" if i % 2 else "dog"}\n' for i in range(8))


def small_records() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, [12, 3073], np.uint8)
    data[:, 0] = np.arange(12) % 10
    return {
        name: data[2 * number : 2 * number + 2].tobytes()
        for number, name in enumerate((*TRAIN_FILES, *TEST_FILES))
    }


# Each source: the files that make it, and the one that is named to convert, '' for their folder.
SOURCES: dict[str, tuple[Callable[[], Mapping[str, bytes]], str]] = {
    'folders': (lambda: PICTURES, ''),
    'zip': (lambda: {'x.zip': zipped(PICTURES)}, 'x.zip'),
    'tar': (lambda: {'x.tar': tar(PICTURES, 'w')}, 'x.tar'),
    'tar.gz': (lambda: {'x.tar.gz': tar(PICTURES)}, 'x.tar.gz'),
    'CSV and folder': (
        lambda: {
            'labels.csv': CSV.encode(),
            **{f'{i}.png': png(picture(i % 2, i)) for i in range(8)},
        },
        '',
    ),
    'digits': (lambda: {'train.csv': digits_csv('train')}, 'train.csv'),
    'IDX': (idx_files, ''),
    'IDX, gzipped': (lambda: idx_files('.gz'), ''),
    'npz': (
        lambda: {'x.npz': npz(images=DIGITS['train'][0], labels=DIGITS['train'][1])},
        'x.npz',
    ),
    'binary': (small_records, ''),
    'python': (lambda: python_files(small_records()), ''),
    'STL-10': (stl10_files, ''),
    'TFRecord': (lambda: {'x.tfrecord': tfrecord(PICTURES)}, 'x.tfrecord'),
}


@pytest.mark.parametrize('kind', SOURCES)
def test_a_damaged_source_is_an_error_or_its_records(kind: str) -> None:
    make, name = SOURCES[kind]
    contents = dict(make())
    outcomes: Counter[str] = Counter()

    @fuzzed
    @given(st.sampled_from(sorted(contents)), st.lists(corruptions, min_size=0, max_size=2))
    def check(damaged: str, steps: list) -> None:
        content = contents[damaged]
        for step in steps:
            content = corrupted(content, step)
        with tempfile.TemporaryDirectory() as base:
            folder = write_all(Path(base, 'in'), {**contents, damaged: content})
            outcomes[convert_quietly(str(folder / name), base)] += 1
            assert set(os.listdir(base)) <= {'in', 'out'}

    check()
    assert outcomes['converted'] and (outcomes['refused'] or outcomes['skipped'])


def convert_quietly(source: str, base: str) -> str:
    """What became of a source; asserts that it is one of three things."""
    out = os.path.join(base, 'out')
    try:
        convert_module.convert(source, out, draw_examples=lambda *arguments: None, batch_size=8)
    except UserError as error:
        message = str(error)
        assert '\n' not in message and 'unfinished' not in message, message
        if 'were skipped' not in message:
            assert message.startswith(base), message
            assert not os.path.exists(out)
            return 'refused'
        outcome = 'skipped'
    else:
        outcome = 'converted'
    names = record_files.read_class_names(out)
    assert min(record_files.check_directory(out, num_classes=len(names))) > 0
    return outcome


PICTURE = Image.fromarray(np.arange(48 * 40 * 3, dtype=np.uint8).reshape(40, 48, 3))


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    frames = [PICTURE.rotate(90)] if kind in ('GIF', 'WEBP', 'PNG', 'TIFF') else []
    PICTURE.save(buffer, kind, **({'save_all': True, 'append_images': frames} if frames else {}))
    return buffer.getvalue()


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'GIF', 'BMP', 'WEBP', 'TIFF', 'PPM', 'JPEG2000'])
def test_a_damaged_picture_is_an_error_or_a_square(kind: str) -> None:
    content = encoded(kind)
    framing = Options(Framing(16)).framing

    @fuzzed
    @given(st.lists(corruptions, min_size=1, max_size=3))
    def check(steps: list) -> None:
        damaged = content
        for step in steps:
            damaged = corrupted(damaged, step)
        try:
            found = square(decode(damaged, 'name', 16), framing)
        except UserError as error:
            assert str(error).startswith('name: ') and '\n' not in str(error)
        else:
            assert found.shape == (16, 16, 3) and found.dtype == np.uint8

    check()
