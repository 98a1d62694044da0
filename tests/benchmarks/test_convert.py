"""The benchmark of conversion, on few pictures."""

from __future__ import annotations

import re
import sys

import pytest

from benchmarks import convert


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_it_prints_speed_ratio_and_memory(
    small_set: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(convert, 'prepare', lambda data_dir: Prepared(small_set))
    convert.measure(convert.ConvertSettings(small_set, 100, 4, 2))
    output = capsys.readouterr().out
    for line in (
        r'100 PNGs of 32 x 32 in 4 classes',
        r'converted: \d+ \(\d+ to \d+\) images/s',
        r'plain loop: \d+ \(\d+ to \d+\) images/s',
        r'ratio: \d+\.\d\d',
        r'growth of memory: -?\d+ MB \(at most -?\d+\)',
    ):
        assert re.search(f'^{line}$', output, re.MULTILINE), line


class Prepared:
    def __init__(self, directory: str) -> None:
        self.directory = directory
