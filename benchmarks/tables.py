"""Tables in Markdown, and the statistics in their cells."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table whose columns are aligned in its source too."""
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    rule = ['-' * width for width in widths]
    return '\n'.join(
        '| '
        + ' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + ' |'
        for line in (header, rule, *lines)
    )


def median_and_range(values: Sequence[float], digits: int, unit: str = '') -> str:
    """`median unit (lowest to highest)`."""
    median, low, high = (
        f'{function(values):.{digits}f}' for function in (statistics.median, min, max)
    )
    return f'{median}{unit} ({low} to {high})'


def median_ratio(values: Sequence[float], references: Sequence[float]) -> float:
    """Median over the rounds of value / reference.

    The two values of a round were measured within the same minute, so what slows the
    machine for longer than that changes both alike and their ratio little.
    """
    return statistics.median(
        value / reference for value, reference in zip(values, references, strict=True)
    )
