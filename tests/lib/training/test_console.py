"""Console output of a training run: log lines, and the live progress line."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import pty
import re
import struct
import sys
import termios
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import cifar10_train
from cifar10_lib.base.console import image_bar, prints_above
from cifar10_lib.training import console as console_module
from cifar10_lib.training.console import ConsoleHook, LiveLine, StepTensors, Stopwatch
from tests.helpers.runs import settings_for

# ------------------------------------------------------------------- lines of text


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(console_module.time, 'perf_counter', clock.perf_counter)
    return clock


def run_console(clock: Clock, first_step: int, num_steps: int) -> None:
    """Shows a hook `num_steps` steps of 0.5 s each, the first of them 100 s long."""
    hook = ConsoleHook(None, None, batch_size=20, log_frequency=10)
    for i in range(num_steps):
        clock.now += 100 if i == 0 else 0.5
        values = types.SimpleNamespace(results=[first_step + i, np.float32(4.123)])
        hook.after_run(None, values)


def test_console_line_is_the_tutorials(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    run_console(clock, first_step=1, num_steps=25)
    lines = capsys.readouterr().out.splitlines()
    time = r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}'
    for line, step in zip(lines, [10, 20], strict=True):
        expected = rf'{time}: step {step}, loss = 4\.12 \(40\.0 examples/sec; 0\.500 sec/batch\)'
        assert re.fullmatch(expected, line)


def test_console_of_a_resumed_run_counts_from_global_step(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    run_console(clock, first_step=1007, num_steps=14)
    lines = capsys.readouterr().out.splitlines()
    assert [re.findall(r'step (\d+),', line) for line in lines] == [['1010'], ['1020']]
    assert all('(40.0 examples/sec; 0.500 sec/batch)' in line for line in lines)


def test_console_says_once_how_long_the_run_takes(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    hook = ConsoleHook(None, None, batch_size=20, log_frequency=10, max_steps=2_000)
    for step in range(1, 101):
        clock.now += 3
        hook.after_run(None, types.SimpleNamespace(results=[step, np.float32(4.123)]))
    # At step 10, of 3 seconds each.
    (line,) = [text for text in capsys.readouterr().out.splitlines() if 'left' in text]
    assert line.endswith(': about 1 hour 40 minutes of training are left')


def test_a_paused_stopwatch_does_not_count(clock: Clock) -> None:
    stopwatch = Stopwatch(5.0)
    clock.now = 100
    with stopwatch.paused():
        clock.now += 1
    stopwatch.start()
    clock.now += 2
    stopwatch.start()
    with stopwatch.paused():
        clock.now += 30
        assert stopwatch.seconds == 7
    clock.now += 4
    assert stopwatch.seconds == 11


def test_a_pause_does_not_slow_the_console_line(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    stopwatch = Stopwatch()
    stopwatch.start()
    hook = ConsoleHook(None, None, batch_size=20, log_frequency=10, stopwatch=stopwatch)
    for step in range(1, 11):
        clock.now += 0.5
        hook.after_run(None, types.SimpleNamespace(results=[step, np.float32(4.123)]))
        with stopwatch.paused():
            clock.now += 100
    assert '(40.0 examples/sec; 0.500 sec/batch)' in capsys.readouterr().out


# ----------------------------------------------------------------- lines that live


class Terminal:
    """What a terminal shows of what is written to it."""

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self.lines = ['']
        self._column = 0
        self.shown: list[str] = []
        """Every line that was the last one when the cursor went back to its begin."""

    def write(self, text: str) -> None:
        for character in text:
            if character == '\r':
                self.shown.append(self.lines[-1].rstrip())
                self._column = 0
            elif character == '\n' or self._column == self._columns:
                self.lines.append('')
                self._column = 0
            if character not in '\r\n':
                assert character.isprintable()
                line = self.lines[-1].ljust(self._column)
                self.lines[-1] = line[: self._column] + character + line[self._column + 1 :]
                self._column += 1


@contextlib.contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> Iterator[Terminal]:
    """Has a pseudo-terminal as standard output and error; it shows all at the end of `with`."""
    shown = Terminal(columns)
    own, others = pty.openpty()
    fcntl.ioctl(others, termios.TIOCSWINSZ, struct.pack('HHHH', 24, columns, 0, 0))
    received: list[bytes] = []

    def receive() -> None:
        # A closed terminal is an error on Linux, the end of a file elsewhere.
        with contextlib.suppress(OSError):
            while piece := os.read(own, 1 << 16):
                received.append(piece)

    reader = threading.Thread(target=receive)
    reader.start()
    with monkeypatch.context() as patch, open(others, 'w', encoding='utf-8') as stream:
        patch.setattr(sys, 'stdout', stream)
        patch.setattr(sys, 'stderr', stream)
        yield shown
    reader.join()
    os.close(own)
    shown.write(b''.join(received).decode())


def values(step: int) -> StepTensors:
    return StepTensors(step, 128 * step, np.float32(1.234), np.float32(0.1), np.float32(1))


# The numbers that fit, and a bar as wide as the rest.
BEGIN = r'70003/100000 70% \|[^|]+\| \S+ left'
ALL = r', loss 1\.23, p@1 0\.812, best 0\.826, lr 0\.1, \d+ ex/s, \d\d:\d\d so far'
LINES = {
    200: BEGIN + ALL,
    120: BEGIN + ALL,
    80: BEGIN + r', loss 1\.23, p@1 0\.812, best 0\.826',
    60: BEGIN + r', loss 1\.23',
    30: r'70003/100000 70% \|[^|]+\|',
}


@pytest.mark.parametrize('columns', LINES)
def test_a_live_line_fits_the_terminal_and_is_not_torn(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    with terminal(monkeypatch, columns) as shown:
        line = LiveLine(70_000, 100_000, 128)
        times = itertools.count(line.start_t)
        monkeypatch.setattr(line, '_time', lambda: next(times))
        with prints_above(line):
            line.show(values(70_001))
            line.show(values(70_002))
            print('first', 'message')
            with line.evaluating(300) as show_scored:
                for scored in (100, 200, 300):
                    show_scored(scored)
                    print('a warning', file=sys.stderr)
            line.show_precisions([0.8257, 0.8123])
            line.show(values(70_003))
            print('no end', end='')
        print('after')
    messages = ['first message', *['a warning'] * 3, 'no end']
    *printed, last, after, empty = [text.rstrip() for text in shown.lines]
    assert [*printed, after, empty] == [*messages, 'after', '']
    assert re.fullmatch(LINES[columns], last), last
    # tqdm leaves the last column free, and before it may be a space.
    assert len(last) in (columns - 2, columns - 1)
    if columns > 30:
        assert shown.shown[1].startswith('70000/100000 70% |')
        assert '| starting, ' in shown.shown[1]
        assert any('| evaluating 200/300' in text for text in shown.shown)


def test_the_speed_of_a_live_line_is_that_of_this_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch, 120):
        line = LiveLine(70_000, 100_000, 128)
        now = line.start_t
        monkeypatch.setattr(line, '_time', lambda: now)
        with line:
            now += 50  # The first step.
            line.show(values(70_001))
            for step in range(70_002, 70_022):
                now += 0.25
                line.show(values(step))
                with line.evaluating(1000):
                    now += 7
            text = str(line)
    # 29,979 steps of a quarter of a second are left.
    assert ' 512 ex/s' in text and '2:04:54 left' in text


def test_the_loss_of_a_live_line_is_smooth(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = [4.0, 1.0, 3.0, 2.0]
    weights = [0.98**age for age in (3, 2, 1, 0)]
    expected = np.average(losses, weights=weights)
    with terminal(monkeypatch, 100), LiveLine(0, 10, 128) as line:
        for step, loss in enumerate(losses, 1):
            line.show(
                StepTensors(step, 128 * step, np.float32(loss), np.float32(0.1), np.float32(1))
            )
        assert f'loss {expected:.2f}, ' in str(line)


def test_a_live_line_follows_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch, 120), LiveLine(0, 10, 128) as line:
        line.show(values(1))
        line.show(values(2))
        wide = str(line)
        fcntl.ioctl(sys.stdout, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 50, 0, 0))
        narrow = str(line)
    assert len(wide.rstrip()) > 110 and len(narrow.rstrip()) < 50
    assert 'so far' in wide and 'so far' not in narrow and ' left' in narrow


def train(data_dir: Path, train_dir: Path, **kwargs: object) -> None:
    cifar10_train.train(settings_for(data_dir, train_dir, log_frequency=1, **kwargs))


def test_a_run_on_a_terminal_shows_one_line(
    synthetic_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(synthetic_data, tmp_path, max_steps=2)
    with terminal(monkeypatch, 80) as shown:
        train(synthetic_data, tmp_path, max_steps=6, eval_every=3)
    text = '\n'.join(line.rstrip() for line in shown.lines)
    assert 'sec/batch' not in text
    for step in (3, 6):
        assert re.search(rf'^[-\d]+ [:\d.]+: precision @ 1 = 0\.\d+ \(step {step},\s', text, re.M)
    assert re.search(
        r'^6/6 100% \|█+\| 00:00 left, loss \S+, p@1 0\.\d\d\d, best 0\.\d\d\d.*\n'
        r'Finished at step 6',
        text,
        re.M,
    )
    assert any(re.match(r'2/6 33% \|.*\| starting, ', line) for line in shown.shown)
    assert any('| evaluating 60/60' in line for line in shown.shown)


def test_without_progress_a_terminal_gets_the_lines(
    synthetic_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminal(monkeypatch, 3000) as shown:
        train(synthetic_data, tmp_path, max_steps=3, progress=False)
    # The terminal's ends of lines have one each, and nothing else goes back.
    assert len(shown.shown) == len(shown.lines) - 1
    steps = [line.split(': ')[1].split(',')[0] for line in shown.lines if 'sec/batch' in line]
    assert steps == ['step 2', 'step 3']


def test_the_bar_of_an_evaluation_is_gone_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch, 80) as shown:
        with image_bar(500, shown=True) as show_scored:
            show_scored(250)
            print('Warning: one', file=sys.stderr)
            show_scored(500)
        print('precision')
    assert [line.rstrip() for line in shown.lines] == ['Warning: one', 'precision', '']
    assert any('250/500' in line for line in shown.shown)
