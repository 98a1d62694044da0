"""The tutorial's network in PyTorch, with the same distortions of a batch at once.

The optimiser adds the weight decay to the gradients, so the loss is the cross entropy alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.peers.torch_parts import Batch, Workload, crop_and_flip, shuffled_epoch

DEPTH = 64

# Of the local response normalisation: channels on either side, and the factor of their squares.
RADIUS, ALPHA = 4, 0.001 / 9


class Normalize(nn.Module):
    """x / (1 + alpha · sum of the squares of 9 channels)^(3/4), the sums as a matrix product."""

    band: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        channels = torch.arange(DEPTH)
        near = (channels[:, None] - channels).abs() <= RADIUS
        self.register_buffer('band', ALPHA * near.float())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # In channels_last both permutations only rename the axes.
        channels_last = images.permute(0, 2, 3, 1)
        sums = 1 + (channels_last * channels_last) @ self.band
        return (channels_last * torch.rsqrt(sums * sums.sqrt())).permute(0, 3, 1, 2)


def plain_normalize() -> nn.Module:
    """The same as PyTorch's own layer, which divides alpha by the size of the window."""
    window = 2 * RADIUS + 1
    return nn.LocalResponseNorm(window, alpha=window * ALPHA, beta=0.75, k=1.0)


def _normal(layer: nn.Module, stddev: float, bias: float) -> nn.Module:
    """The layer, its weights truncated normal and its biases constant."""
    nn.init.trunc_normal_(layer.weight, std=stddev, a=-2 * stddev, b=2 * stddev)
    nn.init.constant_(layer.bias, bias)
    return layer


def _convolution(depth: int, bias: float) -> nn.Module:
    return _normal(nn.Conv2d(depth, DEPTH, 5, padding='same'), 0.05, bias)


def _pool() -> nn.Module:
    # On an even side TensorFlow's SAME pads one row below and one column to the right:
    # the windows that rounding up adds.
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


def build_network(images: torch.Tensor, plain: bool = False) -> nn.Sequential:
    """Images float32 [batch, 3, 24, 24] -> logits float32 [batch, 10].

    In the plain form the layers are PyTorch's own, in the tutorial's order; else the first
    pooling comes before its ReLU, which gives the same values.
    """
    normalize = plain_normalize if plain else Normalize
    return nn.Sequential(
        _convolution(3, 0.0),
        *([nn.ReLU(), _pool()] if plain else [_pool(), nn.ReLU()]),
        normalize(),
        _convolution(DEPTH, 0.1),
        nn.ReLU(),
        normalize(),
        _pool(),
        nn.Flatten(),
        _normal(nn.Linear(DEPTH * 6 * 6, 384), 0.04, 0.1),
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


def make_update(network: nn.Module, batch_size: int) -> Callable[[], None]:
    """Descent, a rate that falls every 350 epochs, and moving averages."""
    averages = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9999))
    optimizer = _optimizer(network)
    rate = torch.optim.lr_scheduler.StepLR(optimizer, 350 * 50_000 // batch_size)

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
        averages.update_parameters(network)

    return update


def _standardize(images: torch.Tensor) -> torch.Tensor:
    """Each image to mean 0 and variance 1, as tf.image.per_image_standardization."""
    variance, mean = torch.var_mean(images, dim=(1, 2, 3), correction=0, keepdim=True)
    num_values = images[0].numel()
    return (images - mean) / variance.sqrt().clamp_min(num_values**-0.5)


def distort(images: torch.Tensor) -> torch.Tensor:
    """uint8 [batch, 3, 32, 32] -> float32 [batch, 3, 24, 24], distorted and standardised."""
    count = images.shape[0]
    images = crop_and_flip(images, 24, torch.rand(count, 1) < 0.5).float()
    brightness = torch.empty(count, 1, 1, 1).uniform_(-63.0, 63.0)
    contrast = torch.empty(count, 1, 1, 1).uniform_(0.2, 1.8)
    images = images + brightness
    mean = images.mean(dim=(2, 3), keepdim=True)
    return _standardize((images - mean) * contrast + mean)


def training_batches(records: Batch, batch_size: int) -> Iterator[Batch]:
    """Distorted batches without end, each epoch in an order of its own."""
    images, labels = records
    while True:
        for chosen in shuffled_epoch(len(labels), batch_size):
            yield Batch(distort(images[chosen]), labels[chosen])


def view(images: torch.Tensor) -> torch.Tensor:
    """The central crops, standardised."""
    return _standardize(images[:, :, 4:28, 4:28].float())


WORKLOAD = Workload(24, build_network, nn.CrossEntropyLoss(), make_update, training_batches, view)
