"""Names of this machine's processors."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path


def cpu_line() -> str:
    """The processor's name, from Linux or else from Python, and its number of cores."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        lines = []
    names = (line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
    name = next(names, platform.processor() or platform.machine())
    return f'{name}, {os.cpu_count()} cores'


def gpu_model() -> str:
    """The first GPU's name, from its driver's tool."""
    try:
        query = ['nvidia-smi', '--query-gpu=name', '--format=csv,noheader']
        return subprocess.check_output(query, text=True).partition('\n')[0]
    except (OSError, subprocess.CalledProcessError):
        return 'GPU'
