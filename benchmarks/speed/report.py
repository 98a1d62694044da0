"""Report of the speed benchmark: medians, ratios, the table and the figure."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.speed.turns import Rates, Start
from benchmarks.tables import markdown_table, median_and_range, median_ratio

# A variant's name is that of its program, then of its form if it has several, then IN_BF16
# unless it multiplies in float32.
TUTORIAL, PROJECT, KERAS, TORCH = 'tutorial', 'this project', 'Keras fit', 'PyTorch'
IN_BF16 = ' in bfloat16'

EXAMPLES = 'examples/s'

HEADER = (
    'variant',
    'median',
    'lowest to highest',
    'to first',
    'to PyTorch',
    'GFLOP/s',
    'of ceiling',
)

_PROJECT_COLOR, _PEER_COLOR, _CEILING_COLOR = '#08519c', '#9ecae1', '#a63603'


class Row(NamedTuple):
    """What one row of the benchmark found: one value of each variant for each round."""

    title: str
    unit: str
    values: Rates
    flops: int | None = None
    """Floating-point operations for an example, where the row has a ceiling."""
    gflops: list[float] | None = None
    """The ceiling: GFLOP/s of a float32 matrix product in the same rounds."""
    digits: int = 0
    """Decimal places that are shown."""

    @property
    def ceiling(self) -> list[float] | None:
        """In the row's unit."""
        if not self.flops or not self.gflops:
            return None
        return [rate * 1e9 / self.flops for rate in self.gflops]


class Summary(NamedTuple):
    """What the rounds of one variant come to."""

    median: float
    lowest: float
    highest: float
    ratio: float | None
    """To the row's first variant: median over the rounds of the ratio within the round;
    None for the ceiling."""
    torch_ratio: float | None
    """Likewise, to the fastest form of PyTorch in the same precision; None without one."""
    ceiling_fraction: float | None
    """Likewise, to the ceiling, which is float32's in bfloat16 too; None without one."""


def summarize(row: Row, variant: str) -> Summary:
    """The summary of one variant in a row."""
    values = row.values[variant]
    torch = best_torch(row, variant.endswith(IN_BF16))
    return Summary(
        statistics.median(values),
        min(values),
        max(values),
        median_ratio(values, next(iter(row.values.values()))),
        median_ratio(values, row.values[torch]) if torch else None,
        median_ratio(values, row.ceiling) if row.ceiling else None,
    )


def best_torch(row: Row, in_bf16: bool) -> str | None:
    """The fastest variant of PyTorch in a precision, by its median; None if there is none."""
    if row.unit != EXAMPLES:
        return None
    forms = [
        name for name in row.values if name.startswith(TORCH) and name.endswith(IN_BF16) == in_bf16
    ]
    return max(forms, key=lambda name: statistics.median(row.values[name]), default=None)


def start_rows(starts: dict[str, list[Start]]) -> list[Row]:
    """Rows of the time to first step and the peak memory of each variant's starts."""
    seconds = {name: [one.first_step_seconds for one in own] for name, own in starts.items()}
    memory = {name: [one.peak_bytes / 1e6 for one in own] for name, own in starts.items()}
    return [Row('time to first step', 's', seconds, digits=1), Row('peak memory', 'MB', memory)]


def table(row: Row) -> str:
    """A row's table: a line for each variant, and one for the ceiling.

    Columns that have no value are left out.
    """
    lines = [_cells(row, variant, summarize(row, variant)) for variant in row.values]
    if row.ceiling:
        ceiling = summarize(row._replace(values={'ceiling': row.ceiling}), 'ceiling')
        lines.append(_cells(row, 'ceiling', ceiling._replace(ratio=None)))
    filled = [any(column) for column in zip(*lines, strict=True)]
    header, *cells = (list(itertools.compress(line, filled)) for line in (HEADER, *lines))
    return f'{row.title}, {row.unit}:\n\n{markdown_table(header, cells)}'


def _cells(row: Row, name: str, summary: Summary) -> tuple[str, ...]:
    """The cells of a variant, in the order of `HEADER`."""
    median, lowest, highest = (f'{value:,.{row.digits}f}' for value in summary[:3])
    return (
        name,
        median,
        f'{lowest} to {highest}',
        _format(summary.ratio, '.2f'),
        _format(summary.torch_ratio, '.2f'),
        _format(row.flops and summary.median * row.flops / 1e9, '.0f'),
        _format(summary.ceiling_fraction, '.0%'),
    )


def _format(value: float | None, how: str) -> str:
    """A number, or nothing."""
    return '' if value is None else format(value, how)


def sweep_table(rows: dict[int, Row]) -> str:
    """Step time by batch size, in float32 and float16.

    Args:
      rows: for each batch size, examples/s of the variants float32 and float16.
    """
    lines = []
    for batch_size, row in rows.items():
        cells = [f'{batch_size:,}']
        for rates in row.values.values():
            times = [1000 * batch_size / rate for rate in rates]
            cells.append(median_and_range(times, digits=2, unit=' ms'))
        speedup = median_ratio(row.values['float16'], row.values['float32'])
        lines.append((*cells, f'{speedup:.2f}'))
    return markdown_table(('batch', 'step in float32', 'step in float16', 'speed-up'), lines)


def draw(rows: Sequence[Row], title: str) -> Figure:
    """A figure with one panel for each row: a bar for each variant, and the ceiling.

    Args:
      rows: of examples/s.
      title: what the machine is.
    """
    num_bars = max(len(row.values) for row in rows)
    figure = Figure(figsize=(1 + 4.5 * len(rows), 1.7 + 0.55 * num_bars), layout='constrained')
    figure.suptitle(title, fontsize=10, color='#444444')
    panels = figure.subplots(1, len(rows), sharex=True, sharey=True, squeeze=False)[0]
    for axes, row in zip(panels, rows, strict=True):
        _draw_bars(axes, row)
        if row.ceiling:
            _draw_ceiling(axes, row.ceiling)
        axes.set_title(row.title, loc='left', fontsize=11, pad=16)
        axes.set_xlabel(row.unit)
        axes.margins(x=0.22)
        axes.spines[['top', 'right', 'left']].set_visible(False)
        axes.tick_params(left=False)
        axes.xaxis.set_major_formatter('{x:,.0f}')
    panels[0].invert_yaxis()
    return figure


def _draw_bars(axes: Axes, row: Row) -> None:
    """A bar to each median, with the range of the rounds."""
    summaries = {variant: summarize(row, variant) for variant in row.values}
    medians = [summary.median for summary in summaries.values()]
    ranges = [
        [summary.median - summary.lowest for summary in summaries.values()],
        [summary.highest - summary.median for summary in summaries.values()],
    ]
    colors = [_PROJECT_COLOR if name.startswith(PROJECT) else _PEER_COLOR for name in summaries]
    error = {'ecolor': '#444444', 'elinewidth': 1, 'capsize': 3}
    axes.barh(list(summaries), medians, 0.62, color=colors, xerr=ranges, error_kw=error)
    for place, summary in enumerate(summaries.values()):
        axes.annotate(
            f'{summary.median:,.0f}   {summary.ratio:.2f} ×',
            (summary.highest, place),
            xytext=(7, 0),
            textcoords='offset points',
            va='center',
            # The line of the ceiling may pass behind.
            bbox={'facecolor': 'white', 'edgecolor': 'none', 'pad': 1.5},
        )


def _draw_ceiling(axes: Axes, values: Sequence[float]) -> None:
    """A line at the median of the ceiling, over a band of its range."""
    ceiling = statistics.median(values)
    axes.axvspan(min(values), max(values), color=_CEILING_COLOR, alpha=0.12, linewidth=0)
    axes.axvline(ceiling, color=_CEILING_COLOR, linewidth=1.2, linestyle='--')
    axes.annotate(
        f'ceiling {ceiling:,.0f}',
        (ceiling, 1),
        xycoords=('data', 'axes fraction'),
        xytext=(0, 3),
        textcoords='offset points',
        ha='center',
        color=_CEILING_COLOR,
        fontsize=9,
    )
