"""PyTorch on the same layers as this project's, as strong as its documentation makes them.

    python -m benchmarks.peers.torch_train --data_dir=cifar10_data/cifar-10-batches-bin
    python -m benchmarks.peers.torch_train --data_dir=... --preset=airbench94 --batch_size=1024

Needs PyTorch and NumPy alone; --compiled also a C++ compiler and Python's headers. No
checkpoints and no summaries are written, which is to PyTorch's advantage. --plain is what
is written first: PyTorch's own layers, in the tutorial's order, and glibc's default memory.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable

import torch
from torch import nn

from benchmarks.peers import torch_airbench, torch_tutorial
from benchmarks.peers.torch_parts import (
    TEST_FILES,
    TRAIN_FILES,
    Batch,
    Workload,
    keep_freed_memory,
    read_records,
)
from benchmarks.speed import worker
from benchmarks.speed.worker import Options, Ticker

WORKLOADS = {'tutorial': torch_tutorial.WORKLOAD, 'airbench94': torch_airbench.WORKLOAD}

# On 2 CPU cores 10% (tutorial) and 20% (airbench94) faster than PyTorch's own order, channels
# first, on a constant batch.
LAYOUT = torch.channels_last

Logits = Callable[[torch.Tensor], torch.Tensor]


def _workload(options: Options) -> Workload:
    return WORKLOADS[options.preset]


def _device(options: Options) -> str:
    return 'cuda' if options.device == 'gpu' else 'cpu'


def _build(images: torch.Tensor, options: Options) -> tuple[nn.Module, Logits]:
    """A network, and the function of images that gives its logits, in float32.

    Args:
      images: as the network sees them.
      options: device, form and precision.
    """
    device = _device(options)
    network = _workload(options).build_network(images, options.plain)
    network = network.to(device, memory_format=LAYOUT)

    def logits(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=options.use_bf16):
            return network(images).float()

    return network, torch.compile(logits) if options.compiled else logits


def _train(batches: Iterable[Batch], images: torch.Tensor, options: Options) -> None:
    """Takes a step on each batch; `images` are the first training images."""
    device = _device(options)
    cross_entropy = _workload(options).cross_entropy
    network, logits = _build(images, options)
    update = _workload(options).make_update(network, options.batch_size)
    ticker = Ticker(options.batch_size, options.log_frequency)
    for _, (images, labels) in zip(options.steps, batches, strict=False):
        images = images.to(device, memory_format=LAYOUT)
        loss = cross_entropy(logits(images), labels.to(device))
        loss.backward()
        update()
        ticker.tick(loss.item)


def train_end_to_end(options: Options) -> None:
    """Training with input."""
    workload = _workload(options)
    records = read_records(options.data_dir, TRAIN_FILES)
    batches = workload.training_batches(records, options.batch_size)
    _train(batches, workload.view(records.images[:5000]), options)


def train_on_constant_batch(options: Options) -> None:
    """Training on a constant batch."""
    arrays = worker.constant_batch(options.batch_size, _workload(options).size)
    images, labels = (torch.from_numpy(array) for array in arrays)
    device = _device(options)
    images = images.permute(0, 3, 1, 2).to(device, memory_format=LAYOUT)
    _train(itertools.repeat(Batch(images, labels.long().to(device))), images.cpu(), options)


def read_input(options: Options) -> None:
    """The training batches, computed and thrown away."""
    records = read_records(options.data_dir, TRAIN_FILES)
    batches = _workload(options).training_batches(records, options.batch_size)
    worker.repeat(lambda: next(batches), options)


@torch.inference_mode()
def evaluate(options: Options) -> None:
    """Scores the test images again and again; records are read and cropped each time."""
    device, view = _device(options), _workload(options).view
    records = read_records(options.data_dir, TEST_FILES)
    network, logits = _build(view(records.images), options)
    network.eval()
    ticker = Ticker(len(records.labels))
    for _ in options.steps:
        records = read_records(options.data_dir, TEST_FILES)
        hits = 0
        parts = (part.split(worker.EVALUATION_BATCH) for part in records)
        for images, labels in zip(*parts, strict=True):
            images = view(images).to(device, memory_format=LAYOUT)
            hits += int((logits(images).argmax(dim=1) == labels.to(device)).sum())
        ticker.tick()


RUN = {
    worker.TRAIN: train_end_to_end,
    worker.CONSTANT: train_on_constant_batch,
    worker.INPUT: read_input,
    worker.EVALUATION: evaluate,
}


def main() -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    options = worker.parse_options(__doc__, tasks=tuple(RUN), presets=tuple(WORKLOADS))
    if not options.plain:
        keep_freed_memory()
    RUN[options.task](options)


if __name__ == '__main__':
    main()
