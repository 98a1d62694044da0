"""Parts that all measured programs share: options, a constant batch, the console line.

Standard library and NumPy alone, so that the PyTorch variant can run in an
environment without TensorFlow.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

TRAIN, CONSTANT, INPUT, EVALUATION = 'train', 'constant', 'input', 'evaluation'
TASKS = (TRAIN, CONSTANT, INPUT, EVALUATION)

# Images in an evaluation batch, of every variant but the tutorial, which took 128.
EVALUATION_BATCH = 250


class Options(argparse.Namespace):
    """What a process is asked to do."""

    task: str
    data_dir: str
    train_dir: str
    batch_size: int
    log_frequency: int
    max_steps: int
    device: str
    use_fp16: bool
    use_bf16: bool
    compiled: bool
    plain: bool
    preset: str

    @property
    def steps(self) -> Iterable[int]:
        """Step numbers from 1 to max_steps, or without end."""
        return range(1, self.max_steps + 1) if self.max_steps else itertools.count(1)


def parse_options(
    description: str | None,
    arguments: list[str] | None = None,
    tasks: Sequence[str] = TASKS,
    presets: Sequence[str] = ('tutorial',),
) -> Options:
    """The options on the command line, or in `arguments`.

    Args:
      description: what the program is; its first line goes into the help.
      arguments: those to read, if not the command line's.
      tasks, presets: what the program can do, and by which presets; the defaults first.
    """
    parser = argparse.ArgumentParser(description=(description or '').partition('\n')[0])
    add = parser.add_argument
    add('--task', choices=tasks, default=tasks[0], help='what is measured')
    add('--data_dir', required=True, help='directory that holds the record files')
    add('--train_dir', help='empty folder for checkpoints and summaries')
    add('--batch_size', type=int, default=128, help='images in a training batch')
    add('--log_frequency', type=int, default=10, help='steps between console lines')
    add('--max_steps', type=int, default=0, help='0: until the process is ended')
    add('--device', choices=('cpu', 'gpu'), default='cpu', help='where the network runs')
    add('--use_fp16', action='store_true', help='compute in float16, this project alone')
    add('--use_bf16', action='store_true', help='multiply in bfloat16, this project and PyTorch')
    add('--compiled', action='store_true', help='by torch.compile, PyTorch alone')
    add('--plain', action='store_true', help='as it is written first, PyTorch alone')
    add('--preset', choices=presets, default=presets[0], help='the network and its training')
    return parser.parse_args(arguments, Options())


def run_task(
    description: str | None,
    tasks: Mapping[str, Callable[[Options], None]],
    presets: Sequence[str] = ('tutorial',),
) -> None:
    """Runs the task that the command line names; the arguments are as of `parse_options`."""
    options = parse_options(description, tasks=tuple(tasks), presets=presets)
    tasks[options.task](options)


def constant_batch(
    batch_size: int, size: int = 24, depth: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """The batch that training on a constant batch sees, at every step.

    Returns:
      images: float32 [batch_size, size, size, depth], standard normal.
      labels: int32 [batch_size], 0 to 9.
    """
    rng = np.random.default_rng(0)
    images = rng.standard_normal([batch_size, size, size, depth], np.float32)
    return images, rng.integers(0, 10, batch_size, np.int32)


class Ticker:
    """Prints the console line of this project's trainers, every so many steps.

    The time of the first step, which includes building and warming up, counts for no
    line, as in `cifar10_lib.training.console.ConsoleHook`.
    """

    def __init__(
        self, amount: float, log_frequency: int = 1, unit: str = 'examples', step: str = 'batch'
    ) -> None:
        """
        Args:
          amount: units in a step, such as the examples of a batch.
          log_frequency: steps between lines.
          unit: what is counted.
          step: what a step is called.
        """
        self._amount = amount
        self._log_frequency = log_frequency
        self._unit, self._name = unit, step
        self._step = 0
        self._last_step, self._last_time = 0, 0.0

    def tick(self, loss: Callable[[], float] | None = None) -> None:
        """Counts a step that is done.

        Args:
          loss: gives the loss; called for lines alone, as it may wait for a device.
        """
        self._step += 1
        if self._step == 1:
            self._last_step, self._last_time = 1, time.perf_counter()
        elif self._step % self._log_frequency == 0:
            loss_note = f', loss = {loss():.2f}' if loss else ''
            now = time.perf_counter()
            seconds = (now - self._last_time) / (self._step - self._last_step)
            print(
                f'{datetime.datetime.now().isoformat(sep=" ", timespec="microseconds")}: '
                f'step {self._step}{loss_note} ({self._amount / seconds:.1f} {self._unit}/sec; '
                f'{seconds:.3f} sec/{self._name})',
                flush=True,
            )
            self._last_step, self._last_time = self._step, now


def repeat(step: Callable[[], object], options: Options, ticker: Ticker | None = None) -> None:
    """Does a step again and again; by default each is one of a training batch."""
    ticker = ticker or Ticker(options.batch_size, options.log_frequency)
    for _ in options.steps:
        step()
        ticker.tick()
