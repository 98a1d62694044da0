"""Console output: time stamps, and progress bars that stay below the printed lines."""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO, cast

from tqdm import tqdm

from cifar10_lib.base.errors import error_message

# Shortest time between two refreshes of a progress bar.
SECONDS_BETWEEN_REFRESHES = 0.2


def timestamp() -> str:
    """The local time, as 2026-11-21 12:00:00.000000."""
    return datetime.datetime.now().isoformat(sep=' ', timespec='microseconds')


def on_terminal() -> bool:
    """Whether standard output is a terminal that has a width: some, as in containers, have none."""
    if not sys.stdout.isatty():
        return False
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns > 0
    except OSError:
        return True


class SteadyOutput:
    """Standard streams that are printed to for as long as they can be, without an error after."""

    def __init__(self) -> None:
        self.problem: str | None = None
        """Why a stream can't be printed to any more; None while it can."""

    def lose(self, stream: TextIO, error: OSError) -> None:
        """Leads a stream nowhere from now on, with what it has still buffered."""
        self.problem = self.problem or error_message(error)
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


class _Steady:
    """One stream of a `SteadyOutput`."""

    def __init__(self, stream: TextIO, output: SteadyOutput) -> None:
        self._stream = stream
        self._output = output

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._output.lose(self._stream, error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._output.lose(self._stream, error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def steady_output() -> Iterator[SteadyOutput]:
    """Inside `with`, no print fails where the terminal or the reader of a pipe has gone."""
    output = SteadyOutput()
    out, err = (cast(TextIO, _Steady(stream, output)) for stream in (sys.stdout, sys.stderr))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield output


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
