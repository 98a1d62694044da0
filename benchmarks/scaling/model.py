"""Model on paper of how towers scale on GPUs, printed as Markdown.

    python -m benchmarks.scaling.model

From sizes that the network has, rates that makers publish, and four assumptions, each a
constant below. Nothing here is measured on a GPU. Nothing overlaps in the model: a step
computes, then adds gradients. So it errs to the side of towers that pay less.
"""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.speed.flops import training_flops
from benchmarks.tables import markdown_table
from cifar10_lib.nn.towers import CPU, FIRST, MIRRORED

# float32 values: those of the weights, and of a standardised image.
NUM_PARAMETERS = 1_068_298
GRADIENT_BYTES = 4 * NUM_PARAMETERS
IMAGE_BYTES = 4 * 24 * 24 * 3

# Tensors that are added separately.
NUM_VARIABLES = 10

# Assumption: of the published rates, this much is reached.
COMPUTE_FRACTION = 0.3
LINK_FRACTION = 0.8

# Assumption: a step takes this long of a graph that computes nothing, seconds; so does
# starting one all-reduce.
STEP_OVERHEAD = 1e-3
COLLECTIVE_OVERHEAD = 30e-6

# Assumption: memory traffic of the host while it adds and updates, bytes a second.
HOST_MEMORY_RATE = 20e9

# Tensors of the gradients' size that the host reads and writes besides the towers'
# gradients: the sum, the update and the averages, each with its operands.
HOST_PASSES = 7

TOWERS = (2, 4, 8)


class Machine(NamedTuple):
    """Published rates of a GPU and its links."""

    name: str
    flops: float
    """float32 operations a second."""
    host_link: float
    """Bytes a second, each way, between host and GPU."""
    peer_link: float
    """Bytes a second, each way, between GPUs."""


# NVIDIA's data sheets of A100 (80 GB SXM) and H100 (SXM), and its Ada architecture white
# paper (GeForce RTX 4090). PCIe 4.0 x16 has 16 GT/s on 16 lanes, PCIe 5.0 twice that, 128
# bits of every 130 for data; NVLink of A100 and H100 600 and 900 GB/s, both ways together.
MACHINES = (
    Machine('RTX 4090, PCIe 4', 82.6e12, 31.5e9, 31.5e9),
    Machine('A100, NVLink', 19.5e12, 31.5e9, 300e9),
    Machine('H100, NVLink', 67e12, 63e9, 450e9),
)


def seconds_per_example(machine: Machine) -> float:
    """What each example adds to a step: its arithmetic, and its way to the GPU."""
    arithmetic = training_flops() / (COMPUTE_FRACTION * machine.flops)
    return arithmetic + IMAGE_BYTES / (LINK_FRACTION * machine.host_link)


def reduction_seconds(machine: Machine, variables: str, num_towers: int) -> float:
    """What towers add to a step: moving weights and gradients, and adding these.

    Args:
      machine: of the towers.
      variables: their home, as the flag names it.
      num_towers: 1 or more.

    Returns:
      Seconds beyond those of one device that holds its own variables.
    """
    host = GRADIENT_BYTES / (LINK_FRACTION * machine.host_link)
    peer = GRADIENT_BYTES / (LINK_FRACTION * machine.peer_link)
    others = num_towers - 1
    if variables == CPU:
        # Weights come and gradients go, on all links at once.
        return 2 * host + (num_towers + HOST_PASSES) * GRADIENT_BYTES / HOST_MEMORY_RATE
    if variables == FIRST:
        # All through the first tower's link.
        return 2 * others * peer
    # A ring: each of its links carries 2 (N - 1) / N of the gradients.
    return (2 * others / num_towers) * peer + (others > 0) * NUM_VARIABLES * COLLECTIVE_OVERHEAD


def step_seconds(machine: Machine, variables: str, num_towers: int, batch_size: int) -> float:
    """A step of towers that take `batch_size` examples each."""
    return (
        STEP_OVERHEAD
        + batch_size * seconds_per_example(machine)
        + reduction_seconds(machine, variables, num_towers)
    )


def efficiency(machine: Machine, variables: str, num_towers: int, batch_size: int) -> float:
    """Examples a second of N towers, over N times those of one GPU with a tower's batch."""
    return step_seconds(machine, FIRST, 1, batch_size) / step_seconds(
        machine, variables, num_towers, batch_size
    )


def smallest_batch(machine: Machine, variables: str, num_towers: int) -> float:
    """The complete batch from which on N towers are faster than one GPU with all of it."""
    saved = (1 - 1 / num_towers) * seconds_per_example(machine)
    return reduction_seconds(machine, variables, num_towers) / saved


def tables() -> str:
    """Efficiencies and smallest batches, one row for each machine and home."""
    sizes = [(n, batch_size) for batch_size in (128, 1024) for n in TOWERS]
    lines = [
        (
            machine.name,
            variables,
            *(f'{100 * efficiency(machine, variables, *size):.0f}%' for size in sizes),
            *(f'{smallest_batch(machine, variables, n):,.0f}' for n in TOWERS),
        )
        for machine in MACHINES
        for variables in (CPU, FIRST, MIRRORED)
    ]
    header = (
        'GPU and link',
        '`--variables`',
        *(f'{n} × {batch_size}' for n, batch_size in sizes),
        *(f'pays from, {n}' for n in TOWERS),
    )
    return markdown_table(header, lines)


if __name__ == '__main__':
    print(tables())
