"""Report of the speed benchmark: medians, ratios, the table and the figure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.speed.turns import Rates, Start
from benchmarks.tables import markdown_table, median_and_range, median_ratio

TUTORIAL = 'tutorial'
PROJECT = 'this project'
BF16 = 'this project in bfloat16'

HEADER = ('measured', 'variant', 'median', 'lowest to highest', 'ratio to first', 'of ceiling')

_PROJECT_COLOR, _PEER_COLOR, _CEILING_COLOR = '#08519c', '#9ecae1', '#a63603'


class Row(NamedTuple):
    """What one row of the benchmark found: one value of each variant for each round."""

    title: str
    unit: str
    values: Rates
    ceiling: list[float] | None = None
    """In the same unit and the same rounds, where the row has one."""
    digits: int = 0
    """Decimal places that are shown."""


class Summary(NamedTuple):
    """What the rounds of one variant come to."""

    median: float
    lowest: float
    highest: float
    ratio: float
    """To the row's first variant: median over the rounds of the ratio within the round."""
    ceiling_fraction: float | None
    """Likewise, to the ceiling; None without one, and in bfloat16, as it is float32's."""


def summarize(row: Row, variant: str) -> Summary:
    """The summary of one variant in a row."""
    values = row.values[variant]
    ceiling = row.ceiling if variant != BF16 else None
    return Summary(
        statistics.median(values),
        min(values),
        max(values),
        median_ratio(values, next(iter(row.values.values()))),
        median_ratio(values, ceiling) if ceiling else None,
    )


def start_rows(starts: dict[str, list[Start]]) -> list[Row]:
    """Rows of the time to first step and the peak memory of each variant's starts."""
    seconds = {name: [one.first_step_seconds for one in own] for name, own in starts.items()}
    memory = {name: [one.peak_bytes / 1e6 for one in own] for name, own in starts.items()}
    return [Row('time to first step', 's', seconds, digits=1), Row('peak memory', 'MB', memory)]


def table_lines(row: Row) -> list[tuple[str, ...]]:
    """The table's lines for a row, one for each variant, and one for the ceiling."""
    lines: list[tuple[str, ...]] = []
    for variant in row.values:
        summary = summarize(row, variant)
        fraction = summary.ceiling_fraction
        percentage = '' if fraction is None else f'{100 * fraction:.0f}%'
        lines.append((variant, *_cells(row, summary), f'{summary.ratio:.2f}', percentage))
    if row.ceiling:
        summary = summarize(row._replace(values={'ceiling': row.ceiling}), 'ceiling')
        lines.append(('ceiling', *_cells(row, summary), '', '100%'))
    return [(row.title, *line) for line in lines]


def _cells(row: Row, summary: Summary) -> tuple[str, str]:
    """Median, and lowest to highest."""
    median, lowest, highest = (f'{value:,.{row.digits}f}' for value in summary[:3])
    return f'{median} {row.unit}', f'{lowest} to {highest}'


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
    colors = [_PROJECT_COLOR if name in (PROJECT, BF16) else _PEER_COLOR for name in summaries]
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
