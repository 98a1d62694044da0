"""Cost of towers: their steps, in turns with those of one device.

    python -m benchmarks.scaling.towers

Without GPUs, on virtual CPU devices that share two cores: nothing can become faster there,
so whatever a step of N towers takes more than one device's step with the same batch is the
price of splitting, copying and adding. Prints three tables: steps that took turns, graphs of
1 to 16 towers, and what a trace of a step shows.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow.compat.v1 as tf

import cifar10_multi_gpu_train
import cifar10_train
from benchmarks.graphs import TrainingGraph, build_training_graph
from benchmarks.speed.steps import Runner, take_turns
from benchmarks.tables import markdown_table, median_and_range, median_ratio
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import run_script, setting
from cifar10_lib.data.prepare import prepare
from cifar10_lib.nn.towers import FIRST, MIRRORED

NUM_CORES = 2

GRAPH_SIZES = (1, 2, 4, 8, 16)


@dataclasses.dataclass(frozen=True)
class TowersSettings:
    """What to measure."""

    data_dir: str = setting('cifar10_data', 'Folder of the data set.')
    dataset: str = setting('cifar10', 'The images.', choices=('cifar10', 'synthetic', 'auto'))
    batch_size: int = setting(192, 'Images in a step; a multiple of 12.', at_least=12)
    rounds: int = setting(12, 'Turns of each variant.', at_least=1)
    steps: int = setting(10, 'Steps in a turn.', at_least=1)


class Variant(NamedTuple):
    """One way to take a step."""

    name: str
    parts: int
    """Of the batch; of towers, one each."""
    home: str | None = None
    """Of the towers' variables; None: one device."""


VARIANTS = (
    Variant('one device', 1),
    Variant('one device, two parts', 2),
    *(Variant(f'{n} towers', n, FIRST) for n in (2, 3, 4)),
    *(Variant(f'{n} towers, mirrored', n, MIRRORED) for n in (2, 3, 4)),
)


def build(variant: Variant, data_dir: str, batch_size: int) -> TrainingGraph:
    """The trainers' own graph, each tower on a virtual device."""
    values = {'data_dir': data_dir, 'dataset': 'auto'}
    if variant.home is None:
        return build_training_graph(
            cifar10_train.train, batch_size=batch_size, batch_splits=variant.parts, **values
        )
    return build_training_graph(
        cifar10_multi_gpu_train.train,
        batch_size=batch_size // variant.parts,
        num_gpus=variant.parts,
        tower_device='cpu',
        variables=variant.home,
        **values,
    )


def make_runner(variant: Variant, data_dir: str, batch_size: int) -> Runner:
    training = build(variant, data_dir, batch_size)
    return Runner(training.train_op, training.config)


def turns_table(names: Sequence[str], times: Sequence[Sequence[float]]) -> str:
    """Step times, and their ratios to those of the first two variants in the same round."""
    lines = [
        (
            name,
            median_and_range(own, digits=1),
            *(f'{100 * median_ratio(own, reference) - 100:+.0f}%' for reference in times[:2]),
        )
        for name, own in zip(names, times, strict=True)
    ]
    header = ('variant', 'ms a step: median (min to max)', *(f'against {n}' for n in names[:2]))
    return markdown_table(header, lines)


# --------------------------------------------------------------------------- graphs


class GraphSize(NamedTuple):
    """Size of the training graph of some number of towers."""

    seconds: float
    """To build it."""
    nodes: int
    num_bytes: int
    """Of its GraphDef."""
    longest_path: int
    """Operations in the longest chain, each waiting for the one before."""


def graph_size(num_towers: int, home: str, data_dir: str) -> GraphSize:
    """Builds the training graph of `num_towers` towers of 2 images."""
    begin = time.perf_counter()
    train_op = build(Variant('', num_towers, home), data_dir, 2 * num_towers).train_op
    seconds = time.perf_counter() - begin
    definition = train_op.graph.as_graph_def()
    length = longest_path(train_op)
    return GraphSize(seconds, len(definition.node), definition.ByteSize(), length)


def longest_path(target: tf.Operation) -> int:
    """Operations in the longest chain that ends with `target`; the graph has no loops."""
    lengths: dict[tf.Operation, int] = {}
    # An operation is made after those that it needs.
    for op in target.graph.get_operations():
        needed = [*(tensor.op for tensor in op.inputs), *op.control_inputs]
        lengths[op] = 1 + max((lengths[one] for one in needed), default=0)
    return lengths[target]


def graphs_table(home: str, data_dir: str) -> str:
    """Sizes of the graphs of 1 to 16 towers."""
    lines = []
    for num_towers in GRAPH_SIZES:
        seconds, nodes, num_bytes, length = graph_size(num_towers, home, data_dir)
        sizes = (f'{seconds:.2f} s', f'{nodes:,}', f'{num_bytes / 1000:,.0f} kB', f'{length}')
        lines.append((f'{num_towers}', *sizes))
    header = (f'towers, {home}', 'build', 'operations', 'GraphDef', 'longest chain')
    return markdown_table(header, lines)


# --------------------------------------------------------------------------- trace


def trace(runner: Runner) -> tf.RunMetadata:
    """Trace of one step."""
    metadata = tf.RunMetadata()
    options = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE)
    runner.session.run(runner.train_op, options=options, run_metadata=metadata)
    return metadata


def tower_spans(metadata: tf.RunMetadata) -> dict[str, tuple[int, int]]:
    """When each device's convolutions ran: start of the first and end of the last, in µs."""
    spans = {}
    for device in metadata.step_stats.dev_stats:
        times = [
            (node.all_start_micros, node.all_start_micros + node.all_end_rel_micros)
            for node in device.node_stats
            if 'Conv2D' in node.node_name
        ]
        if times:
            begins, ends = zip(*times, strict=True)
            spans[device.device] = min(begins), max(ends)
    return spans


def overlap(spans: Sequence[tuple[int, int]]) -> float:
    """Of the time in which any tower is at work, the fraction in which all are."""
    together = min(end for _, end in spans) - max(begin for begin, _ in spans)
    total = max(end for _, end in spans) - min(begin for begin, _ in spans)
    return max(0, together) / total


def overlaps_table(variants: Sequence[Variant], runners: Sequence[Runner], steps: int) -> str:
    """Median over several traces of the towers' overlap."""
    lines = []
    for variant, runner in zip(variants, runners, strict=True):
        if variant.home:
            traces = [tower_spans(trace(runner)) for _ in range(steps)]
            median = statistics.median(overlap(list(spans.values())) for spans in traces)
            lines.append((variant.name, f'{min(map(len, traces))}', f'{100 * median:.0f}%'))
    return markdown_table(('variant', 'devices at work', 'time in which all are'), lines)


# ----------------------------------------------------------------------------- main


def main(settings: TowersSettings) -> None:
    """Measures, and prints the tables.

    Raises:
      UserError: the batch can't be split evenly.
    """
    if settings.batch_size % 12:
        raise UserError(f'--batch_size={settings.batch_size}: expected a multiple of 12')
    # This process, and all threads that it will start, stay on the same cores.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:NUM_CORES])
    directory = prepare(settings.data_dir, settings.dataset).directory
    load = os.getloadavg()[0]
    for home in (FIRST, MIRRORED):
        print(graphs_table(home, directory), end='\n\n')
    runners = [make_runner(variant, directory, settings.batch_size) for variant in VARIANTS]
    times = take_turns(runners, settings.rounds, settings.steps)
    print(turns_table([variant.name for variant in VARIANTS], times), end='\n\n')
    print(overlaps_table(VARIANTS, runners, settings.steps), end='\n\n')
    print(f'Load of the machine when this began: {load:.2f}')


if __name__ == '__main__':
    run_script(main, TowersSettings)
