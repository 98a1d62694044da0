"""Console output: time stamps, and progress bars that stay below the printed lines."""

from __future__ import annotations

import contextlib
import datetime
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from tqdm import tqdm

# Shortest time between two refreshes of a progress bar.
SECONDS_BETWEEN_REFRESHES = 0.2


def timestamp() -> str:
    """The local time, as 2026-11-21 12:00:00.000000."""
    return datetime.datetime.now().isoformat(sep=' ', timespec='microseconds')


def on_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()


class _AboveBar:
    """A stream whose lines go above a bar, each as soon as it is complete.

    Not `tqdm.write`: with standard output redirected, that clears no bar for a line of
    standard error.
    """

    def __init__(self, stream: TextIO, bar: tqdm) -> None:
        self._stream = stream
        self._bar = bar
        self._partial = ''

    def write(self, text: str) -> int:
        lines, newline, self._partial = (self._partial + text).rpartition('\n')
        if newline:
            self._bar.clear()
            self._stream.write(lines + newline)
            self._stream.flush()
            self._bar.refresh()
        return len(text)

    def end_line(self) -> None:
        if self._partial:
            self.write('\n')

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def prints_above(bar: tqdm) -> Iterator[None]:
    """Prints what is printed inside `with` above the bar, and closes the bar at its end."""
    out, err = _AboveBar(sys.stdout, bar), _AboveBar(sys.stderr, bar)
    with bar:
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                yield
        finally:
            out.end_line()
            err.end_line()


@contextlib.contextmanager
def image_bar(num_images: int, shown: bool) -> Iterator[Callable[[int], object]]:
    """Yields a function that shows how many images have been scored, until the end of `with`.

    Args:
      num_images: how many there are.
      shown: whether there is a bar at all.
    """
    if not shown:
        yield lambda num_scored: None
        return
    bar = tqdm(
        total=num_images,
        desc='evaluating',
        unit=' images',
        file=sys.stdout,
        dynamic_ncols=True,
        mininterval=SECONDS_BETWEEN_REFRESHES,
        leave=False,
    )
    with prints_above(bar):
        yield lambda num_scored: bar.update(num_scored - bar.n)
