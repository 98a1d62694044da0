"""Report of the results of recipes: their files, the table and the figure."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmarks.results import published
from benchmarks.results.published import MNIST, MNIST_DIR, ROWS
from benchmarks.tables import markdown_table
from cifar10_lib.base import files
from cifar10_lib.base.errors import UserError, os_errors_named
from cifar10_lib.base.files import read_text
from cifar10_lib.evaluation.figures import GRID, PALETTE, STYLES

HEADER = (
    'flags of `cifar10_train.py`',
    'published',
    'precision @ 1',
    'averaged over views',
    'steps',
    'batch',
    'minutes',
    'seeds',
)


@dataclasses.dataclass(frozen=True)
class Result:
    """Result of one run of a recipe."""

    preset: str
    dataset: str
    seed: int
    use_bf16: bool
    recipe: dict[str, Any]
    """Values of `cifar10_lib.nn.recipes.Recipe`."""
    seconds: float
    """Of training, without evaluations."""
    precision: float
    """On all test images, after the last step."""
    precision_of_views: float | None
    """Likewise, averaged over `num_views` of each image; None where training saw no such views."""
    num_test_images: int
    curve: list[list[float]]
    """Examples seen, seconds of training, and precision, at moments of training."""
    machine: str
    date: str
    num_views: int = 10

    @property
    def name(self) -> str:
        """Of the run."""
        return run_name(self.preset, self.seed, self.use_bf16)


# -------------------------------------------------------------------------------- files


def run_name(preset: str, seed: int, use_bf16: bool) -> str:
    """Name of a run's folder and of its result."""
    return f'{preset}-{"bf16-" if use_bf16 else ""}{seed}'


def store(result: Result, folder: str) -> None:
    """Writes a result, in place of an earlier one of the same preset and seed.

    Raises:
      UserError: it can't be written.
    """
    path = os.path.join(folder, f'{result.name}.json')
    with os_errors_named(path):
        os.makedirs(folder, exist_ok=True)
        files.replace_text(path, json.dumps(dataclasses.asdict(result)) + '\n')


def load(folder: str) -> list[Result]:
    """The results in a folder, in the order of their names.

    Raises:
      UserError: a file is no result, or one of another recipe than the preset's of today.
    """
    return [_read(path) for path in files.matching(folder, '*.json')]


def _read(path: str) -> Result:
    expected = 'expected a result as benchmarks.results writes it'
    text = read_text(path, expected)
    try:
        result = Result(**json.loads(text))
        sound = (
            result.preset in ROWS
            and os.path.basename(path) == f'{result.name}.json'
            and isinstance(result.recipe, dict)
            and {'max_steps', 'batch_size'} <= result.recipe.keys()
            and all(map(_is_number, (result.seconds, result.precision, result.seed)))
            and type(result.use_bf16) is bool
            and type(result.dataset) is type(result.machine) is str
            and (result.precision_of_views is None or _is_number(result.precision_of_views))
            and bool(result.curve)
            and all(len(point) == 3 and all(map(_is_number, point)) for point in result.curve)
        )
    except (ValueError, TypeError, OverflowError, RecursionError):
        sound = False
    if not sound:
        raise UserError(f'{path}: {expected}')
    kept = published.complete_recipe(result.recipe)
    for name, value in dataclasses.asdict(published.row_recipe(result.preset)).items():
        if kept[name] != value:
            raise UserError(
                f'{path}: has --{name}={kept[name]}; the preset {result.preset} has {value}; '
                f'to run it again, move the file and the folder {result.name} away'
            )
    return result


def _is_number(value: object) -> bool:
    # Not true and false, which are numbers to Python.
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _groups(results: Sequence[Result]) -> list[list[Result]]:
    """Runs that differ by their seeds alone: CIFAR-10 first, and the best precision first."""

    def command(result: Result) -> tuple[str, bool, str]:
        return result.preset, result.use_bf16, result.machine

    ordered = sorted(results, key=lambda result: (command(result), result.seed))
    groups = [list(group) for _, group in itertools.groupby(ordered, command)]
    return sorted(groups, key=lambda group: (group[0].dataset, -_mean_precision(group)))


def _mean_precision(group: Sequence[Result]) -> float:
    return statistics.mean(result.precision for result in group)


# -------------------------------------------------------------------------------- table


def table(results: Sequence[Result]) -> str:
    """A Markdown table, of one line for each command, and below it the machine."""
    machines = sorted({result.machine for result in results})
    lines = [_line(group, machines) for group in _groups(results)]
    numbered = [
        f'({place}) {machine}' if len(machines) > 1 else machine
        for place, machine in enumerate(machines, 1)
    ]
    return f'{markdown_table(HEADER, lines)}\n\nMeasured on {"; ".join(numbered)}.'


def _line(group: Sequence[Result], machines: Sequence[str]) -> tuple[str, ...]:
    first, row = group[0], ROWS[group[0].preset]
    flags = [
        f'--preset={first.preset}',
        *([f'--max_steps={row.max_steps}'] if row.max_steps else []),
        *([f'--data_dir={MNIST_DIR}'] if row.dataset == MNIST else []),
        *(['--use_bf16'] if first.use_bf16 else []),
    ]
    views = [r.precision_of_views for r in group if r.precision_of_views is not None]
    minutes = f'{statistics.median(result.seconds for result in group) / 60:.1f}'
    return (
        f'`{" ".join(flags)}`',
        row.published or '–',
        _mean_and_range([result.precision for result in group]),
        f'{_mean_and_range(views)}, {first.num_views} views' if views else '–',
        f'{first.recipe["max_steps"]:,}',
        str(first.recipe['batch_size']),
        f'{minutes} ({machines.index(first.machine) + 1})' if len(machines) > 1 else minutes,
        ', '.join(str(result.seed) for result in group),
    )


def _mean_and_range(values: Sequence[float]) -> str:
    mean = f'{statistics.mean(values):.3f}'
    return mean if len(values) == 1 else f'{mean} ({min(values):.3f} to {max(values):.3f})'


# ------------------------------------------------------------------------------- figure


def draw(results: Sequence[Result]) -> Figure:
    """Precision against time: a panel for each data set, a line for each run."""
    groups = _groups(results)
    datasets = list(dict.fromkeys(group[0].dataset for group in groups))
    figure = Figure(figsize=(9, 4.6 * len(datasets)), layout='constrained')
    panels = figure.subplots(len(datasets), squeeze=False)[:, 0]
    for axes, dataset in zip(panels, datasets, strict=True):
        _draw_panel(axes, [group for group in groups if group[0].dataset == dataset])
        axes.set_title(dataset, loc='left')
    return figure


def _draw_panel(axes: Axes, groups: Sequence[Sequence[Result]]) -> None:
    looks = itertools.cycle(itertools.product(STYLES, PALETTE))
    for group, (style, color) in zip(groups, looks, strict=False):
        in_bf16 = ' in bfloat16' if group[0].use_bf16 else ''
        label = f'{group[0].preset}{in_bf16}: {_mean_precision(group):.3f}'
        for number, result in enumerate(group):
            minutes = [seconds / 60 for _, seconds, _ in result.curve]
            precisions = [precision for *_, precision in result.curve]
            # Lines whose labels begin with _ are not in the legend.
            shown = '_' if number else label
            axes.plot(minutes, precisions, style, color=color, label=shown, linewidth=1.6)
            axes.plot(minutes[-1], precisions[-1], 'o', color=color, markersize=5)
    axes.set_xscale('log')
    axes.xaxis.set_major_formatter(FuncFormatter(lambda minutes, place: f'{minutes:g}'))
    axes.set_xlabel('minutes of training')
    axes.set_ylabel('precision @ 1')
    axes.grid(color=GRID, linewidth=0.6)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False, loc='center left', bbox_to_anchor=(1.01, 0.5), fontsize=9)
