"""Options and output of the programs that the speed benchmark measures."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np


def finite_losses(output: str) -> list[float]:
    """The losses of console lines; fails where one is not finite."""
    losses = [float(loss) for loss in re.findall(r'loss = (\S+) \(', output)]
    assert np.isfinite(losses).all(), output
    return losses


def task_options(task: str, synthetic_data: Path, tmp_path: Path) -> list[str]:
    return [
        f'--task={task}',
        f'--data_dir={synthetic_data / "synthetic-batches-bin"}',
        f'--train_dir={tmp_path / "train"}',
        '--batch_size=8',
        '--log_frequency=2',
        '--max_steps=4',
    ]
