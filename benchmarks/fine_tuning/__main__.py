"""Fine-tuning beside training from new weights, on few images.

    python -m benchmarks.fine_tuning --data_dir=cifar10_data --mnist_dir=mnist_data --seeds=0,1,2

Two experiments with the tutorial's network, each with every seed:

- classes: trained on the 25,000 images of CIFAR-10's first five classes, then on 100 images of each
  of the other five, tested on their 5,000 test images.
- digits: --release, which was trained on CIFAR-10, then on 10 images of each digit of MNIST, tested
  on its 10,000.

Each is trained three times: from new weights, from the trained ones, and from these with frozen
convolutions. The same recipe serves all three, and the seed draws the images and the new weights. A
run that is complete isn't taken again. Prints a table, writes the curves to --output and all
precisions to --results.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.processes import REPOSITORY, child_environment, script_command
from benchmarks.results.__main__ import parse_seeds
from benchmarks.speed.machine import cpu_line
from benchmarks.tables import markdown_table
from cifar10_input import TEST_FILES, TRAIN_FILES
from cifar10_lib.base.errors import UserError, write_errors_named
from cifar10_lib.base.files import filled_directory, replace_text
from cifar10_lib.base.flags import path_setting, run_script, setting
from cifar10_lib.data.framing import read_framing
from cifar10_lib.data.record_files import find_records, read_class_names, write_class_names
from cifar10_lib.evaluation import figures
from cifar10_lib.runs import history

# Of CIFAR-10's classes, those that the first network knows; the others come later.
_KNOWN, _NEW = range(5), range(5, 10)

# How a run begins, and which layers of the trained weights it then freezes; None: new weights.
STARTS = {
    'new weights': None,
    'trained weights': 'none',
    'trained weights, convolutions frozen': 'conv*',
}

_BATCH_SIZE = 50


@dataclasses.dataclass(frozen=True)
class FineTuningSettings:
    """On what, how long, and where results go."""

    data_dir: str = path_setting('cifar10_data', 'Folder of CIFAR-10.')
    mnist_dir: str = path_setting(
        'mnist_data', 'Folder of MNIST, as cifar10_data.py convert mnist writes it.'
    )
    release: str = path_setting(
        str(REPOSITORY / 'releases' / 'tutorial'), 'Run that the digits begin with.'
    )
    seeds: str = setting('0,1,2', 'Seeds, with commas between them.')
    source_steps: int = setting(3000, 'Steps of the first training, of 128 images.', at_least=1)
    steps: int = setting(300, f'Steps of each other training, of {_BATCH_SIZE} images.', at_least=1)
    # A third of the preset's, with which training on digits diverged from trained weights.
    learning_rate: float = setting(0.01, 'Largest learning rate of these.', at_least=0.0)
    eval_every: int = setting(50, 'Steps between points of the curves.', at_least=1)
    use_bf16: bool = setting(False, 'Train in bfloat16: see cifar10_train.py.')
    runs_dir: str = path_setting('fine_tuning_runs', 'Folder of the data sets and runs.')
    results: str = path_setting('fine_tuning.json', 'All precisions.')
    output: str = setting('fine_tuning.png', 'The figure to write: .png or .svg.')


# ------------------------------------------------------------------------- data sets


def choose(labels: np.ndarray, classes: Sequence[int], count: int | None, seed: int) -> np.ndarray:
    """Places of `count` images of each class, or of all, in an order by the seed."""
    rng = np.random.default_rng(seed)
    places = [rng.permutation(np.flatnonzero(labels == label))[:count] for label in classes]
    return rng.permutation(np.concatenate(places))


def write_part(
    source: str, output: str, classes: Sequence[int], count: int | None, seed: int
) -> None:
    """A data set of some classes of another, with `count` training images of each, or all.

    Its labels are the places in `classes`; its test images are all of those classes.
    """
    if os.path.isdir(output):
        return
    record = read_framing(source).record
    names = read_class_names(source)
    with filled_directory(output) as directory:
        for files, limit in ((TRAIN_FILES, count), (TEST_FILES, None)):
            paths = [os.path.join(source, name) for name in files]
            records = np.concatenate([np.fromfile(path, np.uint8) for path in paths])
            records = records.reshape(-1, record.record_bytes)
            chosen = records[choose(records[:, 0], classes, limit, seed)]
            chosen[:, 0] = np.searchsorted(classes, chosen[:, 0])
            for name, part in zip(files, np.array_split(chosen, len(files)), strict=True):
                part.tofile(os.path.join(directory, name))
        write_class_names([names[label] for label in classes], directory)
        framing = os.path.join(source, 'framing.json')
        if os.path.exists(framing):
            shutil.copy(framing, directory)


# ------------------------------------------------------------------------------ runs


def train(train_dir: str, **values: Any) -> list[list[float]]:
    """Trains, or resumes, and gives the [step, precision] pairs of its history.

    Raises:
      UserError: training failed.
    """
    command = script_command('cifar10_train.py', train_dir=train_dir, **values)
    code = subprocess.run(command, env=child_environment()).returncode
    if code:
        raise UserError(f'{train_dir}: cifar10_train.py ended with exit code {code}')
    entries = history.read(train_dir)
    return [[entry['step'], entry['precision']] for entry in entries if 'precision' in entry]


class Experiments:
    """The two experiments, with all seeds."""

    def __init__(self, settings: FineTuningSettings) -> None:
        self._settings = settings
        self._common = {'preset': 'fast', 'use_bf16': settings.use_bf16, 'log_frequency': 50}

    def take(self) -> dict[str, dict[str, list[list[list[float]]]]]:
        """The curves of each seed, by experiment and start.

        Raises:
          UserError: a data set is missing, or a run failed.
        """
        settings = self._settings
        seeds = parse_seeds(settings.seeds)
        cifar10, mnist = find_records(settings.data_dir), find_records(settings.mnist_dir)
        known = self._data('known', cifar10, _KNOWN, None, 0)
        source = os.path.join(settings.runs_dir, 'known_train')
        # All of the schedule in these steps.
        epochs = settings.source_steps * 128 / 25_000
        train(
            source, data_dir=known, epochs=epochs, eval_every=settings.source_steps, **self._common
        )
        digits = {'flip': False, 'max_shift': 2}
        return {
            'classes': self._tune('classes', source, cifar10, _NEW, 100, seeds),
            'digits': self._tune('digits', settings.release, mnist, range(10), 10, seeds, **digits),
        }

    def _data(
        self, name: str, source: str, classes: Sequence[int], count: int | None, seed: int
    ) -> str:
        path = os.path.join(self._settings.runs_dir, 'data', f'{name}-{seed}')
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_part(source, path, classes, count, seed)
        return path

    def _tune(
        self,
        name: str,
        source: str,
        data: str,
        classes: Sequence[int],
        count: int,
        seeds: Sequence[int],
        **more: Any,
    ) -> dict[str, list[list[list[float]]]]:
        settings = self._settings
        curves: dict[str, list[list[list[float]]]] = {start: [] for start in STARTS}
        for seed in seeds:
            part = self._data(name, data, classes, count, seed)
            epochs = settings.steps * _BATCH_SIZE / (count * len(classes))
            for number, (start, frozen) in enumerate(STARTS.items()):
                values = {'init_from': source, 'freeze': frozen} if frozen else {}
                curve = train(
                    os.path.join(settings.runs_dir, f'{name}-{number}-{seed}'),
                    data_dir=part,
                    batch_size=_BATCH_SIZE,
                    learning_rate=settings.learning_rate,
                    epochs=epochs,
                    eval_every=settings.eval_every,
                    seed=seed,
                    **self._common,
                    **more,
                    **values,
                )
                curves[start].append(curve)
        return curves


# --------------------------------------------------------------------------- results

Results = dict[str, dict[str, list[list[list[float]]]]]

_TITLES = {
    'classes': '100 images of each of 5 other classes',
    'digits': '10 images of each digit',
}


def table(results: Results) -> str:
    """Precision after the last step: mean, lowest and highest of the seeds."""
    lines = []
    for name, curves in results.items():
        for start, runs in curves.items():
            precisions = [run[-1][1] for run in runs]
            cells = [statistics.mean(precisions), min(precisions), max(precisions)]
            mean, low, high = (f'{cell:.3f}' for cell in cells)
            lines.append((_TITLES[name], start, f'{mean} ({low} to {high})', str(len(runs))))
    return markdown_table(('training images', 'start', 'precision @ 1', 'seeds'), lines)


def draw(results: Results) -> Figure:
    """Precision against steps: the mean of the seeds, between the lowest and the highest."""
    figure = Figure(figsize=(9, 4), layout='constrained')
    axes = figure.subplots(1, len(results), squeeze=False)[0]
    for place, (name, curves) in zip(axes, results.items(), strict=True):
        for (start, runs), colour in zip(curves.items(), figures.PALETTE, strict=False):
            steps = [step for step, _ in runs[0]]
            values = np.array([[precision for _, precision in run] for run in runs])
            place.plot(steps, values.mean(axis=0), color=colour, marker='.', label=start)
            place.fill_between(
                steps, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, lw=0
            )
        place.set_title(_TITLES[name], fontsize=11)
        place.set_xlabel('step')
        place.set_xlim(left=0)
        place.grid(color=figures.GRID)
        place.spines[['top', 'right']].set_visible(False)
    axes[0].set_ylabel('precision @ 1')
    axes[-1].legend(loc='lower right', frameon=False)
    return figure


def main(settings: FineTuningSettings) -> None:
    """Takes the runs, prints the table, and writes precisions and figure.

    Raises:
      UserError: a flag is wrong, a data set is missing, or a run failed.
    """
    figures.check_output(settings.output)
    results = Experiments(settings).take()
    numbers = {
        name: getattr(settings, name)
        for name in ('source_steps', 'steps', 'learning_rate', 'use_bf16')
    }
    stored = {'machine': cpu_line(), **numbers, 'precisions': results}
    with write_errors_named(f'--results={settings.results}'):
        replace_text(settings.results, json.dumps(stored) + '\n')
    figures.write(draw(results), settings.output)
    print(f'\n{table(results)}\n\nWrote {settings.output} and {settings.results}')


if __name__ == '__main__':
    run_script(main, FineTuningSettings)
