"""What the PyTorch peers share: their records, crops of a batch at once, and the memory's setting.

PyTorch and NumPy alone, so that the peers run in an environment without TensorFlow.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

TRAIN_FILES = tuple(f'data_batch_{i}.bin' for i in range(1, 6))
TEST_FILES = ('test_batch.bin',)


class Batch(NamedTuple):
    """Images with their labels."""

    images: torch.Tensor
    """uint8 [n, 3, 32, 32] of records, or float32 [n, 3, size, size] of a network."""
    labels: torch.Tensor
    """int64 [n]."""


class Workload(NamedTuple):
    """A network, and how it is trained."""

    size: int
    """Side of the images that the network sees."""
    build_network: Callable[[torch.Tensor, bool], nn.Module]
    """Of (first training images, whether in the plain form); gives logits [batch, 10]."""
    cross_entropy: nn.Module
    make_update: Callable[[nn.Module, int], Callable[[], None]]
    """Of (network, batch size); gives what follows the gradients of a step."""
    training_batches: Callable[[Batch, int], Iterator[Batch]]
    """Of (records, batch size); distorted batches without end."""
    view: Callable[[torch.Tensor], torch.Tensor]
    """Of uint8 images, as they are evaluated."""


def read_records(data_dir: str, names: tuple[str, ...]) -> Batch:
    """All records of these files."""
    data = np.concatenate([np.fromfile(Path(data_dir, name), np.uint8) for name in names])
    records = torch.from_numpy(data.reshape(-1, 3073))
    return Batch(records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].long())


def shuffled_epoch(num_examples: int, batch_size: int) -> Iterator[torch.Tensor]:
    """The places of each batch of an epoch; an incomplete last batch is left out."""
    yield from torch.randperm(num_examples)[: num_examples // batch_size * batch_size].split(
        batch_size
    )


def crop_and_flip(
    images: torch.Tensor, size: int, mirrored: torch.Tensor, padding: int = 0
) -> torch.Tensor:
    """Square crops at uniform places.

    Args:
      images: [batch, 3, side, side].
      size: side of the crops.
      mirrored: bool [batch, 1], which of them to flip.
      padding: reflected pixels at every edge, which are not repeated at the edge itself.
    """
    count, depth, side = images.shape[:3]
    pixels = torch.arange(-padding, side + padding).abs()
    pixels = side - 1 - (side - 1 - pixels).abs()
    places = torch.arange(size)
    top, left = torch.randint(0, len(pixels) - size + 1, [2, count, 1])
    rows = pixels[top + places]
    columns = pixels[left + torch.where(mirrored, size - 1 - places, places)]
    images = images.gather(2, rows[:, None, :, None].expand(-1, depth, -1, side))
    return images.gather(3, columns[:, None, None, :].expand(-1, depth, size, -1))


def keep_freed_memory() -> None:
    """Has glibc's malloc keep freed memory for the next tensors.

    By default it gives all blocks above 32 MB back to Linux at once, which clears their pages
    when it hands them out again: a step of airbench94 in batches of 512 takes 18% longer then
    in float32, and 5% in bfloat16. PyTorch's tuning guide has another allocator for it.
    """
    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    libc = ctypes.CDLL(None)
    libc.mallopt(m_trim_threshold, -1)
    libc.mallopt(m_mmap_max, 0)
