"""Speed and memory of converting pictures, beside a plain loop over the same files. Linux only.

    python -m benchmarks.convert --num_pictures=50000

writes training images of the data set as PNGs into a temporary folder, and in each round converts
them, as `cifar10_data.py convert` does, and reads them by Pillow one after another. It prints
images a second of both, and how much memory the conversion held.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from benchmarks.processes import memory_bytes
from benchmarks.tables import median_and_range, median_ratio
from cifar10_input import train_files
from cifar10_lib.base.flags import run_script, setting
from cifar10_lib.data.convert import write_records
from cifar10_lib.data.prepare import prepare
from cifar10_lib.data.sources.base import Options
from cifar10_lib.evaluation.analysis import read_images

_SECONDS_BETWEEN_SAMPLES = 0.1


@dataclasses.dataclass(frozen=True)
class ConvertSettings:
    """What to convert, and how often."""

    data_dir: str = setting('cifar10_data', 'Folder of the data set.')
    num_pictures: int = setting(50_000, 'Pictures to convert.', at_least=100, at_most=50_000)
    num_classes: int = setting(10, 'Folders that they are dealt out to.', at_least=2, at_most=256)
    rounds: int = setting(3, 'Measurements of each.', at_least=1)


def write_pictures(folder: str, directory: str, num_pictures: int, num_classes: int) -> list[str]:
    """Writes training images as PNGs, dealt out to folders of classes; returns their paths."""
    paths = []
    images = read_images(train_files(directory), np.arange(num_pictures))
    for number, image in enumerate(images):
        name = os.path.join(folder, f'class {number % num_classes:03}')
        os.makedirs(name, exist_ok=True)
        paths.append(os.path.join(name, f'{number:06}.png'))
        Image.fromarray(image).save(paths[-1])
    return paths


def read_plainly(paths: Sequence[str], output: str) -> None:
    """The loop that anyone would write: decode, scale, and write a record."""
    with open(output, 'wb') as file:
        for path in paths:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert('RGB').resize((32, 32)))
            file.write(b'\0' + pixels.transpose(2, 0, 1).tobytes())


@contextlib.contextmanager
def sampled_memory() -> Iterator[list[int]]:
    """Yields the memory of this process and its children, in bytes, from time to time."""
    samples: list[int] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(_SECONDS_BETWEEN_SAMPLES):
            samples.append(held_memory())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def held_memory() -> int:
    """Private memory of this process and its children: what they share counts once."""
    total = 0
    with open(f'/proc/self/task/{os.getpid()}/children', encoding='ascii') as file:
        for pid in (os.getpid(), *map(int, file.read().split())):
            with contextlib.suppress(OSError, IndexError):  # It has just ended.
                total += memory_bytes(pid, 'RssAnon')
    return total


def measure(settings: ConvertSettings) -> None:
    """Prints the figures."""
    directory = prepare(settings.data_dir).directory
    converted, plain, growth = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        pictures = os.path.join(folder, 'pictures')
        paths = write_pictures(pictures, directory, settings.num_pictures, settings.num_classes)
        for number in range(settings.rounds):
            output = os.path.join(folder, f'out{number}')
            os.mkdir(output)
            with sampled_memory() as samples, contextlib.redirect_stdout(io.StringIO()):
                start = time.perf_counter()
                write_records(pictures, output, 0, 0, Options())
                converted.append(len(paths) / (time.perf_counter() - start))
            # From a quarter of the way on, when all workers are at work.
            late = samples[len(samples) // 4 :] or [0]
            growth.append((max(late) - late[0]) / 1e6)
            start = time.perf_counter()
            read_plainly(paths, os.path.join(folder, 'plain'))
            plain.append(len(paths) / (time.perf_counter() - start))
    print(f'{settings.num_pictures:,} PNGs of 32 x 32 in {settings.num_classes} classes')
    print(f'converted: {median_and_range(converted, 0)} images/s')
    print(f'plain loop: {median_and_range(plain, 0)} images/s')
    print(f'ratio: {median_ratio(converted, plain):.2f}')
    print(f'growth of memory: {statistics.median(growth):.0f} MB (at most {max(growth):.0f})')


if __name__ == '__main__':
    run_script(measure, ConvertSettings)
