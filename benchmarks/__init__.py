"""Benchmarks: speed and faults beside other programs, accuracy beside published figures."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
