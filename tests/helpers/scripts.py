"""Scripts, run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent

Script = Callable[..., 'subprocess.CompletedProcess[str]']


def script_command(script: str, *options: str) -> list[str]:
    return [sys.executable, '-u', str(REPOSITORY / script), *options]


def script_environment() -> dict[str, str]:
    return {**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3'}
