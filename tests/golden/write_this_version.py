"""Writer of this_version.tar.xz: a run of cifar10_train.py as the version of its day left it.

    python -m tests.golden.write_this_version tests/golden/this_version.tar.xz

cifar10_train.py trains for a few steps on a small synthetic set; its checkpoint, settings.json
and history.jsonl are kept. Trained weights don't compress, so those of more than a thousand
values, and their averages, get sparse values in the checkpoint. Names, shapes, types, the
counters, biases and averages of losses stay as they were trained.

Run it again only to add another archive: this one stands for the checkpoints that exist.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf

from tests.golden.write_tutorial_checkpoint import pack, save, sparse
from tests.helpers.scripts import script_command, script_environment

STEP = 4

SYNTHETIC = ('--data_dir=cifar10_data', '--dataset=synthetic')
IMAGES = ('--num_train=200', '--num_test=60')
TRAIN = ('--batch_size=8', f'--max_steps={STEP}', '--log_frequency=2')

KEPT = ('settings.json', 'history.jsonl')

LARGE = 1000


def run(directory: Path, script: str, *options: str) -> None:
    subprocess.run(
        script_command(script, *options), cwd=directory, env=script_environment(), check=True
    )


def sparse_values(checkpoint: str) -> dict[str, np.ndarray]:
    """The checkpoint's tensors by their names, the large ones replaced."""
    reader = tf.train.load_checkpoint(checkpoint)
    names = sorted(reader.get_variable_to_shape_map())
    values = {name: np.asarray(reader.get_tensor(name)) for name in names}
    for seed, name in enumerate(names, start=1000):
        if values[name].size > LARGE:
            values[name] = sparse(list(values[name].shape), seed)
    return values


def main(archive: Path) -> None:
    with tempfile.TemporaryDirectory() as parent:
        directory, kept = Path(parent), Path(parent) / 'kept'
        run(directory, 'cifar10_data.py', *SYNTHETIC, *IMAGES)
        run(directory, 'cifar10_train.py', *SYNTHETIC, *TRAIN)
        train_dir = directory / 'cifar10_train'
        kept.mkdir()
        for name in KEPT:
            shutil.copy(train_dir / name, kept)
        save(sparse_values(str(train_dir / f'model.ckpt-{STEP}')), kept, STEP)
        pack(kept, archive)


if __name__ == '__main__':
    main(Path(sys.argv[1]))
