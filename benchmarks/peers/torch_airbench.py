"""airbench94 in PyTorch: the network and the training of K. Jordan, arXiv 2404.00498.

The loss is a mean over the batch, the source's a sum: the rates here are 1,024 times the source's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from benchmarks.peers.torch_parts import Batch, Workload, crop_and_flip, shuffled_epoch

WIDTHS = (64, 256, 256)
EPOCHS = 9.9

# Of the pixels of each channel in the training images.
MEAN, STDDEV = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

# Of a mean loss; batch normalisation's shifts take SHIFT_FACTOR times the rate, and decay at
# the rate of all others.
RATE, DECAY, SHIFT_FACTOR = 1.5, 0.0013304, 64

# Epochs until the whitening's biases are kept as they are.
WHITENING_EPOCHS = 3

# Steps between those at which lookahead's slow weights and the others meet.
LOOKAHEAD_STEPS = 5


def _whitening(images: torch.Tensor) -> nn.Module:
    """A convolution whose filters are the scaled eigenvectors of 2x2 patches and their negatives.

    Args:
      images: float32 [n, 3, size, size] to take the patches from.
    """
    patches = nn.functional.unfold(images[:5000], 2).transpose(1, 2).reshape(-1, 12)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / (values + 5e-4).sqrt()).T.flip(0).reshape(12, 3, 2, 2)
    layer = nn.Conv2d(3, 24, 2)
    layer.weight = nn.Parameter(torch.cat([filters, -filters]), requires_grad=False)
    nn.init.zeros_(layer.bias)
    return layer


def _convolution(inputs: int, outputs: int) -> nn.Module:
    """3x3; the first filters hand their inputs on, the others have PyTorch's random weights."""
    layer = nn.Conv2d(inputs, outputs, 3, padding='same', bias=False)
    nn.init.dirac_(layer.weight.data[:inputs])
    return layer


def _batch_norm(depth: int) -> nn.Module:
    layer = nn.BatchNorm2d(depth, eps=1e-12, momentum=0.4)
    layer.weight.requires_grad_(False)
    return layer


def _block(inputs: int, outputs: int) -> Iterator[nn.Module]:
    yield from (_convolution(inputs, outputs), nn.MaxPool2d(2), _batch_norm(outputs), nn.GELU())
    yield from (_convolution(outputs, outputs), _batch_norm(outputs), nn.GELU())


class Scale(nn.Module):
    """The product with a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * self._factor


def build_network(images: torch.Tensor, plain: bool = False) -> nn.Sequential:
    """Images float32 [batch, 3, 32, 32] -> logits float32 [batch, 10].

    Args:
      images: to whiten.
      plain: changes nothing.
    """
    depths = itertools.pairwise((24, *WIDTHS))
    return nn.Sequential(
        _whitening(images),
        nn.GELU(),
        *(layer for inputs, outputs in depths for layer in _block(inputs, outputs)),
        nn.MaxPool2d(3),
        nn.Flatten(),
        nn.Linear(WIDTHS[-1], 10, bias=False),
        Scale(1 / 9),
    )


def make_update(network: nn.Module, batch_size: int) -> Callable[[], None]:
    """Nesterov momentum, its rate a triangle, and lookahead."""
    epoch_steps = 50_000 // batch_size
    num_steps = math.ceil(EPOCHS * epoch_steps)
    corners = [0, int(0.23 * num_steps), num_steps]
    shifts = [layer.bias for layer in network if isinstance(layer, nn.BatchNorm2d)]
    others = [layer.weight for layer in network if isinstance(layer, nn.Conv2d | nn.Linear)]
    whitening = network[0]
    others = [*others[1:], whitening.bias]
    optimizer = torch.optim.SGD(
        [
            {'params': others, 'weight_decay': DECAY},
            {'params': shifts, 'lr': RATE * SHIFT_FACTOR, 'weight_decay': DECAY / SHIFT_FACTOR},
        ],
        lr=RATE,
        momentum=0.85,
        nesterov=True,
    )
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: float(np.interp(step, corners, [0.2, 1.0, 0.07]))
    )
    state = [value for value in network.state_dict().values() if value.is_floating_point()]
    slow = [value.clone() for value in state]

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
        step = rate.last_epoch
        if step == WHITENING_EPOCHS * epoch_steps:
            whitening.bias.requires_grad_(False)
        if step % LOOKAHEAD_STEPS == 0:
            decay = 0.95**LOOKAHEAD_STEPS * min(1.0, step / num_steps) ** 3
            for old, new in zip(slow, state, strict=True):
                new.copy_(old.lerp_(new, 1 - decay))

    return update


def view(images: torch.Tensor) -> torch.Tensor:
    """uint8 [batch, 3, 32, 32] -> float32, each channel with mean 0 and variance 1."""
    mean, stddev = (255 * torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STDDEV))
    return (images - mean) / stddev


def training_batches(records: Batch, batch_size: int) -> Iterator[Batch]:
    """Batches without end, shifted by at most 2 pixels and mirrored in every other epoch."""
    images, labels = records
    mirrored = torch.rand(len(labels), 1) < 0.5
    while True:
        for chosen in shuffled_epoch(len(labels), batch_size):
            crops = crop_and_flip(images[chosen], 32, mirrored[chosen], padding=2)
            yield Batch(view(crops), labels[chosen])
        mirrored = ~mirrored


WORKLOAD = Workload(
    32,
    build_network,
    nn.CrossEntropyLoss(label_smoothing=0.2),
    make_update,
    training_batches,
    view,
)
