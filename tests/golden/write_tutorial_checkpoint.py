"""Writer of tutorial_2017.tar.xz: a checkpoint as the tutorial's trainer left it in 2017.

    python -m tests.golden.write_tutorial_checkpoint tests/golden/tutorial_2017.tar.xz

It holds what `MonitoredTrainingSession` saved then: the ten variables of the network with their
moving averages, `global_step`, and the averages of the losses, which the tutorial named after
the operations that compute them. Shapes and names are those of `cifar10.py` in the TensorFlow
models repository of 2017; nothing of this project is imported.

Most weights are zeros, so that the archive is small. The averages are other values than the
weights, so that a prediction tells which of the two it was made with.
"""

from __future__ import annotations

import io
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf

STEP = 100_000

# Of each unit: how many of its weights are not 0.
NUM_INPUTS = 32

SHAPES = {
    'conv1/weights': [5, 5, 3, 64],
    'conv1/biases': [64],
    'conv2/weights': [5, 5, 64, 64],
    'conv2/biases': [64],
    'local3/weights': [2304, 384],
    'local3/biases': [384],
    'local4/weights': [384, 192],
    'local4/biases': [192],
    'softmax_linear/weights': [192, 10],
    'softmax_linear/biases': [10],
}

# The weight losses of all five layers: convolutions and logits had a decay of 0.0.
LOSS_AVERAGES = {
    'conv1/weight_loss/avg': 0.0,
    'conv2/weight_loss/avg': 0.0,
    'local3/weight_loss/avg': 0.125,
    'local4/weight_loss/avg': 0.0625,
    'softmax_linear/weight_loss/avg': 0.0,
    'cross_entropy/avg': 0.5,
    'total_loss/avg': 0.6875,
}


def sparse(shape: list[int], seed: int) -> np.ndarray:
    """Values of low entropy that carry the signal of a ReLU network from layer to layer.

    Args:
      shape: of weights, their last dimension counting the units, or of biases.
      seed: another one gives other values.

    Returns:
      float32 of that shape. Weights: each unit has NUM_INPUTS inputs, half of them with the
      weight 1/4, half with -1/4, and zeros elsewhere. Biases: 0 to 3/32.
    """
    # A generator whose numbers no version of NumPy changes.
    rng = np.random.RandomState(seed)
    if len(shape) == 1:
        return (rng.randint(0, 4, shape) / 32).astype(np.float32)
    weights = np.zeros([int(np.prod(shape[:-1])), shape[-1]], np.float32)
    for unit in weights.T:
        inputs = rng.permutation(len(unit))[:NUM_INPUTS]
        # He et al. (ICCV 2015) ask for a standard deviation of sqrt(2 / NUM_INPUTS).
        unit[inputs] = 0.25
        unit[inputs[::2]] = -0.25
    return weights.reshape(shape)


def tutorial_values() -> dict[str, np.ndarray]:
    """Every tensor of the checkpoint by its name."""
    values: dict[str, np.ndarray] = {'global_step': np.array(STEP, np.int64)}
    for seed, (name, shape) in enumerate(SHAPES.items()):
        values[name] = sparse(shape, seed)
        values[f'{name}/ExponentialMovingAverage'] = sparse(shape, seed + 300)
    for name, value in LOSS_AVERAGES.items():
        values[name] = np.array(value, np.float32)
    return values


def save(values: dict[str, np.ndarray], directory: Path, step: int) -> None:
    """Writes a checkpoint of `values` and the state file, as a saver does."""
    with tf.Graph().as_default(), tf.Session() as session:
        variables = {name: tf.Variable(value) for name, value in values.items()}
        session.run(tf.global_variables_initializer())
        tf.train.Saver(variables, save_relative_paths=True).save(
            session, str(directory / 'model.ckpt'), global_step=step, write_meta_graph=False
        )


def pack(directory: Path, archive: Path) -> None:
    """Packs the files of a folder, without the times and owners of this machine."""
    with tarfile.open(archive, 'w:xz', preset=9) as tar:
        for path in sorted(directory.iterdir()):
            content = path.read_bytes()
            member = tarfile.TarInfo(path.name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def main(archive: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        save(tutorial_values(), Path(directory), STEP)
        pack(Path(directory), archive)


if __name__ == '__main__':
    main(Path(sys.argv[1]))
