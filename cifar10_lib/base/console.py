"""Console output: time stamps, and progress bars below the lines."""

from __future__ import annotations

import contextlib
import datetime
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from tqdm import tqdm

# Between two looks of a live line, in seconds.
SECONDS_BETWEEN_REFRESHES = 0.2


def timestamp() -> str:
    """The local time, as 2026-11-21 12:00:00.000000."""
    return datetime.datetime.now().isoformat(sep=' ', timespec='microseconds')


def on_terminal() -> bool:
    """Whether what is printed goes to a terminal."""
    return sys.stdout.isatty()


class _Above:
    """A stream whose lines go above a bar, each as soon as it is whole."""

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

    def end(self) -> None:
        """Makes what was left a line."""
        if self._partial:
            self.write('\n')

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def prints_above(bar: tqdm) -> Iterator[None]:
    """Closes the bar at the end of `with`; what is printed until then goes above it."""
    out, err = _Above(sys.stdout, bar), _Above(sys.stderr, bar)
    with bar:
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                yield
        finally:
            out.end()
            err.end()


@contextlib.contextmanager
def image_bar(num_images: int, shown: bool) -> Iterator[Callable[[int], object]]:
    """Gives what shows how many images have been scored; the bar is gone at the end of `with`.

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
