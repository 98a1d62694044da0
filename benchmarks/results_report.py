"""What do the results of recipes say? Their files, the table and the figure."""

from __future__ import annotations

import dataclasses
import glob
import itertools
import json
import os
import statistics
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

import cifar10_files
from benchmarks.report import markdown_table
from cifar10_drawings import GRID, PALETTE
from cifar10_paths import os_errors_named
from cifar10_settings import UserError

HEADER = (
    'command',
    'published',
    'precision @ 1',
    'of ten views',
    'steps',
    'minutes',
    'seeds',
)

# Beyond as many lines as there are colours, with another style of line.
_STYLES = ('-', '--')


@dataclasses.dataclass(frozen=True)
class Result:
    """What one run of a recipe came to."""

    preset: str
    dataset: str
    seed: int
    steps: int
    batch_size: int
    use_bf16: bool
    seconds: float
    """Of training, without evaluations."""
    precision: float
    """On all test images, after the last step."""
    precision_of_views: float | None
    """Likewise, of probabilities averaged over ten views; None where that makes no sense."""
    num_test_images: int
    curve: list[list[float]]
    """Examples seen, seconds of training, and precision, in the midst of training."""
    machine: str
    date: str


# -------------------------------------------------------------------------------- files


def run_name(preset: str, seed: int, use_bf16: bool) -> str:
    """What a run's folder and its result are called."""
    return f'{preset}-{"bf16-" if use_bf16 else ""}{seed}'


def store(result: Result, folder: str) -> None:
    """Writes a result, in place of an earlier one of the same recipe and seed.

    Raises:
      UserError: it can't be written.
    """
    path = os.path.join(folder, run_name(result.preset, result.seed, result.use_bf16) + '.json')
    with os_errors_named(path):
        os.makedirs(folder, exist_ok=True)
        cifar10_files.replace_text(path, json.dumps(dataclasses.asdict(result)) + '\n')


def load(folder: str) -> list[Result]:
    """All results in a folder, those of a preset together.

    Raises:
      UserError: names the file that is no result.
    """
    return [_read(path) for path in sorted(glob.glob(os.path.join(folder, '*.json')))]


def _read(path: str) -> Result:
    with os_errors_named(path), open(path, encoding='utf-8') as file:
        text = file.read()
    try:
        return Result(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise UserError(f'{path}: expected a result as benchmarks.results writes it') from error


def _groups(results: Sequence[Result], order: Sequence[str]) -> list[list[Result]]:
    """The runs of one command but for the seed, in the order of their presets in `order`."""
    places = {preset: place for place, preset in enumerate(order)}

    def command(result: Result) -> tuple[int, bool]:
        return places[result.preset], result.use_bf16

    ordered = sorted(results, key=lambda result: (*command(result), result.seed))
    return [list(group) for _, group in itertools.groupby(ordered, command)]


# -------------------------------------------------------------------------------- table


def table(results: Sequence[Result], published: Mapping[str, str]) -> str:
    """A Markdown table, of one line for each preset.

    Args:
      results: of the presets.
      published: what was published of each preset there is, in the order of the lines.
    """
    groups = _groups(results, tuple(published))
    return markdown_table(HEADER, [_line(group, published[group[0].preset]) for group in groups])


def _line(group: Sequence[Result], published: str) -> tuple[str, ...]:
    first = group[0]
    views = [r.precision_of_views for r in group if r.precision_of_views is not None]
    return (
        f'`cifar10_train.py --preset={_title(first)}`',
        published or '–',
        _spread([result.precision for result in group]),
        _spread(views) if views else '–',
        f'{first.steps:,} of {first.batch_size}',
        f'{statistics.median(result.seconds for result in group) / 60:.1f}',
        ', '.join(str(result.seed) for result in group),
    )


def _title(result: Result) -> str:
    return result.preset + (' --use_bf16' if result.use_bf16 else '')


def _spread(values: Sequence[float]) -> str:
    mean = f'{statistics.mean(values):.3f}'
    return mean if len(values) == 1 else f'{mean} ({min(values):.3f} to {max(values):.3f})'


# ------------------------------------------------------------------------------- figure


def draw(results: Sequence[Result], order: Sequence[str]) -> Figure:
    """Precision against time: a panel for each data set, a line for each run.

    Args:
      results: of the presets.
      order: the names of all presets.
    """
    groups = _groups(results, order)
    datasets = list(dict.fromkeys(group[0].dataset for group in groups))
    figure = Figure(figsize=(9, 5.4 * len(datasets)), layout='constrained')
    for axes, dataset in zip(
        figure.subplots(len(datasets), squeeze=False)[:, 0], datasets, strict=True
    ):
        _draw_panel(axes, [group for group in groups if group[0].dataset == dataset])
        axes.set_title(dataset, loc='left')
    return figure


def _draw_panel(axes: Axes, groups: Sequence[Sequence[Result]]) -> None:
    looks = itertools.product(_STYLES, PALETTE)
    for group, (style, color) in zip(groups, looks, strict=False):
        mean = statistics.mean(result.precision for result in group)
        label = f'{_title(group[0])}: {mean:.3f}'
        for result in group:
            minutes = [seconds / 60 for _, seconds, _ in result.curve]
            precisions = [precision for *_, precision in result.curve]
            axes.plot(minutes, precisions, style, color=color, label=label, linewidth=1.6)
            axes.plot(minutes[-1], precisions[-1], 'o', color=color, markersize=5)
            label = '_'  # One line of a group in the legend.
    axes.set_xscale('log')
    axes.xaxis.set_major_formatter(FuncFormatter(lambda minutes, place: f'{minutes:g}'))
    axes.set_xlabel('minutes of training')
    axes.set_ylabel('precision @ 1')
    axes.grid(color=GRID, linewidth=0.6)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False, loc='center left', bbox_to_anchor=(1.01, 0.5), fontsize=9)
