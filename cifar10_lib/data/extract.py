"""Records become pictures: a PNG for each, in a folder for each class."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image
from tqdm import tqdm

from cifar10_input import count_examples, test_files, train_files
from cifar10_lib.base.errors import os_errors_named
from cifar10_lib.base.files import filled_directory
from cifar10_lib.data.prepare import Prepared
from cifar10_lib.data.record_files import holds_test_images


def extract(prepared: Prepared, output: str) -> int:
    """Writes train/CLASS/00000.png and so on, and test/CLASS/00000.png, numbered as the records.

    Converted, they give the same records again, in another order.

    Args:
      prepared: the data set.
      output: folder to make; missing or empty.

    Returns:
      The number of pictures.

    Raises:
      UserError: the folder is in the way or can't be written.
    """
    record = prepared.framing.record
    parts = {'train': train_files(prepared.directory)}
    if holds_test_images(prepared.directory):
        parts['test'] = test_files(prepared.directory)
    total = sum(count_examples(paths, record) for paths in parts.values())
    names = folder_names(prepared.class_names)
    with (
        filled_directory(output) as temporary,
        tqdm(total=total, desc='extracting', unit='images', disable=None) as bar,
    ):
        for part, paths in parts.items():
            folders = [os.path.join(temporary, part, name) for name in names]
            for folder in folders:
                os.makedirs(folder)
            number = 0
            for path in paths:
                with os_errors_named(path), open(path, 'rb') as file:
                    while content := file.read(record.record_bytes):
                        planes = np.frombuffer(content, np.uint8, offset=record.label_bytes)
                        pixels = planes.reshape(record.depth, record.height, record.width)
                        image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
                        image.save(os.path.join(folders[content[0]], f'{number:05}.png'))
                        number += 1
                        bar.update()
    return total


def folder_names(class_names: Sequence[str]) -> list[str]:
    """A name of a folder for each class: its own, unless it would lead elsewhere or be hidden."""
    names: list[str] = []
    for label, name in enumerate(class_names):
        for separator in ('/', '\\'):
            name = name.replace(separator, '_')
        if name.startswith('.') or name in names:
            name = f'{label} {name}'
        names.append(name)
    return names
