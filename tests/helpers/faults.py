"""Real processes, real signals and real files, for the tests of what a run survives."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf

from tests.helpers.scripts import script_command, script_environment

# A step takes 10 milliseconds, a checkpoint 30. The logits of half a batch, 8 images of 10 classes,
# fill complete vectors of the processor: so one device in two parts has the bits of two towers.
BATCH_SIZE = 16
STEPS_BETWEEN_CHECKPOINTS = 7

ONE_DEVICE = ('cifar10_train.py', f'--batch_size={BATCH_SIZE}', '--batch_splits=2')
TWO_TOWERS = (
    'cifar10_multi_gpu_train.py',
    f'--batch_size={BATCH_SIZE // 2}',
    '--num_gpus=2',
    '--tower_device=cpu',
)

TIMEOUT_SECONDS = 300


def train_command(data_dir: Path, train_dir: Path, *options: str) -> list[str]:
    """A deterministic run; `options` begins with one of the trainers above."""
    return script_command(
        *options,
        f'--data_dir={data_dir}',
        '--dataset=synthetic',
        f'--train_dir={train_dir}',
        f'--save_checkpoint_steps={STEPS_BETWEEN_CHECKPOINTS}',
        '--log_frequency=1',
        '--deterministic',
    )


def evaluate_command(
    data_dir: Path, checkpoint_dir: Path, eval_dir: Path, *options: str
) -> list[str]:
    """An evaluation on all test images of the small synthetic set."""
    return script_command(
        'cifar10_eval.py',
        f'--data_dir={data_dir}',
        '--dataset=synthetic',
        f'--checkpoint_dir={checkpoint_dir}',
        f'--eval_dir={eval_dir}',
        '--num_examples=60',
        *options,
    )


class Process:
    """A running script, its output in files."""

    def __init__(self, command: list[str]) -> None:
        with tempfile.NamedTemporaryFile(delete=False) as self._stdout:
            self._process = subprocess.Popen(
                command,
                stdout=self._stdout,
                stderr=subprocess.STDOUT,
                env=script_environment(),
                # Python ignores SIGINT where the shell that started the tests did.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )

    def output(self) -> str:
        return Path(self._stdout.name).read_text(errors='replace')

    def wait_until(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not happened() and self.is_running():
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.001)

    def wait_for(self, words: str) -> None:
        self.wait_until(lambda: words in self.output())

    def is_running(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> int:
        """Waits until it has ended; its exit code."""
        return self._process.wait(TIMEOUT_SECONDS)


@contextlib.contextmanager
def started(command: list[str]) -> Iterator[Process]:
    """Starts a script, and makes sure that it is gone at the end of `with`."""
    process = Process(command)
    try:
        yield process
    finally:
        if process.is_running():
            process.send(signal.SIGKILL)
        process.end()
        os.remove(process._stdout.name)


def finish(command: list[str]) -> str:
    """Runs a script to its end, which must be a good one; its output."""
    with started(command) as process:
        assert process.end() == 0, process.output()
        return process.output()


def newest_step(train_dir: Path) -> int:
    """The step of the checkpoint that the state file names; -1 where there is none."""
    checkpoint = tf.train.latest_checkpoint(str(train_dir))
    return int(checkpoint.rpartition('-')[2]) if checkpoint else -1


def values(train_dir: Path) -> dict[str, np.ndarray]:
    """Every variable of the newest checkpoint."""
    reader = tf.train.load_checkpoint(str(train_dir))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


# Averages of the losses for the summaries. The mean of a batch and that of its parts' means are
# equal to rounding.
LOSS_AVERAGES = ('losses/avg',)


def assert_bit_identical(first: Path, second: Path, but: tuple[str, ...] = ()) -> None:
    """All variables, `but` those whose names begin so."""
    one, other = values(first), values(second)
    assert set(one) == set(other)
    different = [
        name
        for name in one
        if one[name].tobytes() != other[name].tobytes() and not name.startswith(but)
    ]
    assert not different, f'{different} differ at step {one["global_step"]}'


def kill_at_a_random_moment(process: Process, train_dir: Path, moments: random.Random) -> str:
    """Kills a trainer as it starts, as it trains or as it saves; which of them."""
    kind = moments.choice(['start-up', 'training', 'checkpointing'])
    if kind == 'start-up':
        time.sleep(moments.uniform(0, 4))
    elif kind == 'training':
        process.wait_for(': step ')
        time.sleep(moments.uniform(0, 0.5))
    else:
        process.wait_for(': step ')
        process.wait_until((train_dir / 'unfinished').exists)
        time.sleep(moments.uniform(0, 0.05))
    process.send(signal.SIGKILL)
    process.end()
    return kind


def step_gone_on_from(output: str) -> int | None:
    """The step that a trainer says it resumes from."""
    step = re.search(r'Resuming from .* at step (\d+)', output)
    return int(step[1]) if step else None
