"""PyTorch on the same layers, with the same distortions of a batch at once.

    python -m benchmarks.peers.torch_train --data_dir=cifar10_data/cifar-10-batches-bin

Needs PyTorch and NumPy alone. No checkpoints and no summaries are written, which is
to PyTorch's advantage. The printed loss is the cross entropy: the optimiser adds the
weight decay to the gradients.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.speed import worker
from benchmarks.speed.worker import Options, Ticker

Batch = tuple[torch.Tensor, torch.Tensor]

# 10% faster than PyTorch's own channels-first order on 2 CPU cores (1,320 examples/s on
# a constant batch, beside 1,200).
LAYOUT = torch.channels_last


def _normal(layer: nn.Module, stddev: float, bias: float) -> nn.Module:
    """The layer, its weights truncated normal and its biases constant."""
    nn.init.trunc_normal_(layer.weight, std=stddev, a=-2 * stddev, b=2 * stddev)
    nn.init.constant_(layer.bias, bias)
    return layer


def _convolution(depth: int, bias: float) -> nn.Module:
    return _normal(nn.Conv2d(depth, 64, 5, padding='same'), 0.05, bias)


def _pool() -> nn.Module:
    # On an even side TensorFlow's SAME pads one row below and one column to the right:
    # the windows that rounding up adds.
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


def _normalize() -> nn.Module:
    # PyTorch divides alpha by the size of the window.
    return nn.LocalResponseNorm(9, alpha=0.001, beta=0.75, k=1.0)


def build_network() -> nn.Sequential:
    """Images float32 [batch, 3, 24, 24] -> logits float32 [batch, 10]."""
    return nn.Sequential(
        _convolution(3, 0.0),
        nn.ReLU(),
        _pool(),
        _normalize(),
        _convolution(64, 0.1),
        nn.ReLU(),
        _normalize(),
        _pool(),
        nn.Flatten(),
        _normal(nn.Linear(64 * 6 * 6, 384), 0.04, 0.1),
        nn.ReLU(),
        _normal(nn.Linear(384, 192), 0.04, 0.1),
        nn.ReLU(),
        _normal(nn.Linear(192, 10), 1 / 192, 0.0),
    )


def _optimizer(network: nn.Module) -> torch.optim.Optimizer:
    """Gradient descent, with weight decay on the two hidden dense layers' weights."""
    parameters = dict(network.named_parameters())
    decayed = [name for name, value in parameters.items() if value.shape[0] in (384, 192)]
    hidden = [parameters[name] for name in decayed if name.endswith('.weight')]
    others = [value for value in parameters.values() if all(value is not w for w in hidden)]
    groups = [{'params': hidden, 'weight_decay': 0.004}, {'params': others}]
    return torch.optim.SGD(groups, lr=0.1)


def read_records(data_dir: str, names: list[str]) -> Batch:
    """All records: images uint8 [n, 3, 32, 32] and labels int64 [n]."""
    data = np.concatenate([np.fromfile(Path(data_dir, name), np.uint8) for name in names])
    records = torch.from_numpy(data.reshape(-1, 3073))
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].long()


def _standardize(images: torch.Tensor) -> torch.Tensor:
    """Each image to mean 0 and variance 1, as tf.image.per_image_standardization."""
    variance, mean = torch.var_mean(images, dim=(1, 2, 3), correction=0, keepdim=True)
    num_values = images[0].numel()
    return (images - mean) / variance.sqrt().clamp_min(num_values**-0.5)


def distort(images: torch.Tensor) -> torch.Tensor:
    """uint8 [batch, 3, 32, 32] -> float32 [batch, 3, 24, 24], distorted and standardised."""
    count = images.shape[0]
    steps = torch.arange(24)
    rows = torch.randint(0, 9, [count, 1]) + steps
    flip = torch.rand(count, 1) < 0.5
    columns = torch.randint(0, 9, [count, 1]) + torch.where(flip, 23 - steps, steps)
    images = images.gather(2, rows[:, None, :, None].expand(-1, 3, -1, 32))
    images = images.gather(3, columns[:, None, None, :].expand(-1, 3, 24, -1)).float()
    brightness = torch.empty(count, 1, 1, 1).uniform_(-63.0, 63.0)
    contrast = torch.empty(count, 1, 1, 1).uniform_(0.2, 1.8)
    images = images + brightness
    mean = images.mean(dim=(2, 3), keepdim=True)
    return _standardize((images - mean) * contrast + mean)


def training_batches(data_dir: str, batch_size: int) -> Iterator[Batch]:
    """Distorted batches without end, each epoch in an order of its own."""
    names = [f'data_batch_{i}.bin' for i in range(1, 6)]
    images, labels = read_records(data_dir, names)
    while True:
        for chosen in torch.randperm(len(labels)).split(batch_size):
            if len(chosen) == batch_size:
                yield distort(images[chosen]), labels[chosen]


def _train(batches: Iterator[Batch], options: Options) -> None:
    """Takes a step on each batch."""
    device = _device(options)
    network = build_network().to(device, memory_format=LAYOUT)
    averages = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9999))
    optimizer = _optimizer(network)
    rate = torch.optim.lr_scheduler.StepLR(optimizer, 350 * 50_000 // options.batch_size)
    cross_entropy = nn.CrossEntropyLoss()
    ticker = Ticker(options.batch_size, options.log_frequency)
    for _, (images, labels) in zip(options.steps, batches, strict=False):
        optimizer.zero_grad()
        loss = cross_entropy(network(images.to(device, memory_format=LAYOUT)), labels.to(device))
        loss.backward()
        optimizer.step()
        rate.step()
        averages.update_parameters(network)
        ticker.tick(loss.item)


def train_end_to_end(options: Options) -> None:
    """Training with input."""
    _train(training_batches(options.data_dir, options.batch_size), options)


def train_on_constant_batch(options: Options) -> None:
    """Training on a constant batch."""
    images, labels = (torch.from_numpy(part) for part in worker.constant_batch(options.batch_size))
    device = _device(options)
    images = images.permute(0, 3, 1, 2).to(device, memory_format=LAYOUT)
    batch = images, labels.long().to(device)
    _train(iter(lambda: batch, None), options)


def read_input(options: Options) -> None:
    """The training batches, computed and thrown away."""
    batches = training_batches(options.data_dir, options.batch_size)
    worker.repeat(lambda: next(batches), options)


@torch.inference_mode()
def evaluate(options: Options) -> None:
    """Scores the test images again and again; records are read and cropped each time."""
    device = _device(options)
    network = build_network().to(device, memory_format=LAYOUT).eval()
    for step in options.steps:
        images, labels = read_records(options.data_dir, ['test_batch.bin'])
        if step == 1:
            ticker = Ticker(len(labels))
        hits = 0
        parts = (part.split(worker.EVALUATION_BATCH) for part in (images, labels))
        for batch_images, batch_labels in zip(*parts, strict=True):
            crops = _standardize(batch_images[:, :, 4:28, 4:28].float())
            predictions = network(crops.to(device, memory_format=LAYOUT)).argmax(dim=1)
            hits += int((predictions == batch_labels.to(device)).sum())
        ticker.tick()


def _device(options: Options) -> str:
    return 'cuda' if options.device == 'gpu' else 'cpu'


RUN = {
    worker.TRAIN: train_end_to_end,
    worker.CONSTANT: train_on_constant_batch,
    worker.INPUT: read_input,
    worker.EVALUATION: evaluate,
}


def main() -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    worker.run_task(__doc__, RUN)


if __name__ == '__main__':
    main()
