r"""What does each recipe reach, beside what was published of it? Trains, evaluates, tells.

    python -m benchmarks.results small_cnn --seeds=0,1,2

trains by the preset of that name with each seed, scores the test images with the weights of
the last step, and keeps the curve, the precision and the time of training in
cifar10_results/small_cnn-0.json and so on. A run that is broken off goes on when the same
command is given again; one that is done is not run anew. Then, as with no name at all,

    python -m benchmarks.results

prints the table of all that is kept in --results_dir and draws precision against time.

Nothing is chosen by the test images: they are scored in the midst of training for the
curve alone.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import tensorflow.compat.v1 as tf

import cifar10_drawings
import cifar10_history
from benchmarks import results_report
from benchmarks.results_report import Result
from benchmarks.run import cpu_model
from cifar10_input import NUM_VIEWS
from cifar10_recipe import PRESET_RUNS, PRESETS, Recipe
from cifar10_settings import UserError, arguments, run_script, setting

REPOSITORY = Path(__file__).resolve().parent.parent

# Points of a curve, where the preset itself does not ask for evaluations.
NUM_POINTS = 20


CIFAR10, MNIST = 'CIFAR-10', 'MNIST'


class Row(NamedTuple):
    """A recipe, and what was published of it."""

    published: str
    """Precision @ 1 on test images, in the words of the source; empty: none."""
    dataset: str = CIFAR10
    max_steps: int = 0
    """0: as many as the preset says."""


# By the names of `cifar10_recipe.PRESETS`.
ROWS = {
    'tutorial': Row('about 86%', max_steps=100_000),
    'fast': Row('about 86%, in 100,000 steps'),
    'book': Row('about 75%'),
    'logistic': Row('37%'),
    'mlp': Row('45%'),
    'small_cnn': Row('70%'),
    'dropout_cnn': Row('66.6%'),
    'deep_cnn': Row('over 80%'),
    'deep_cnn_augmented': Row('78.3%'),
    'batch_norm_cnn': Row('83%'),
    'mnist_cnn': Row('98.5%', dataset=MNIST),
    'mnist_deep': Row('', dataset=MNIST),
}


@dataclasses.dataclass(frozen=True)
class ResultsSettings:
    """Which recipes to run, on what, and where results are kept."""

    rows: tuple[str, ...] = arguments()
    seeds: str = setting('0', 'Seeds, with commas between them: one run of each recipe for each.')
    use_bf16: bool = setting(False, 'Train in bfloat16: see cifar10_train.py.')
    data_dir: str = setting('cifar10_data', 'Folder of CIFAR-10, filled if it is empty.')
    mnist_dir: str = setting(
        'mnist_data', 'Folder of MNIST, as cifar10_data.py convert mnist writes it.'
    )
    results_dir: str = setting('cifar10_results', 'Folder of training runs and their results.')
    output: str = setting('cifar10_results.png', 'The figure to write: .png or .svg.')


# ----------------------------------------------------------------------------- running


def train_command(settings: ResultsSettings, name: str, seed: int) -> list[str]:
    """`cifar10_train.py` by a preset, with evaluations for the curve."""
    row, recipe = ROWS[name], PRESETS[name]
    max_steps = row.max_steps or recipe.max_steps
    asked_for = {
        'eval_every': -(-max_steps // NUM_POINTS),
        'log_frequency': 100,
        **PRESET_RUNS.get(name, {}),
    }
    values = {
        'preset': name,
        'seed': seed,
        'max_steps': max_steps,
        'data_dir': _data_dir(settings, row),
        'train_dir': _folder(settings, name, seed, 'train'),
        **asked_for,
    }
    return [
        sys.executable,
        str(REPOSITORY / 'cifar10_train.py'),
        *(f'--{name}={value}' for name, value in values.items()),
        *(['--use_bf16'] if settings.use_bf16 else []),
    ]


def eval_command(settings: ResultsSettings, name: str, seed: int, average: bool) -> list[str]:
    """`cifar10_eval.py` on the test images, once."""
    return [
        sys.executable,
        str(REPOSITORY / 'cifar10_eval.py'),
        '--run_once',
        f'--checkpoint_dir={_folder(settings, name, seed, "train")}',
        f'--eval_dir={_folder(settings, name, seed, "eval")}',
        f'--data_dir={_data_dir(settings, ROWS[name])}',
        *(['--average_views'] if average else []),
    ]


def averages_views(recipe: Recipe) -> bool:
    """Whether training saw what averaging shows: crops from any place, and mirror images."""
    return recipe.flip and recipe.max_shift > 0


def _folder(settings: ResultsSettings, name: str, seed: int, kind: str) -> str:
    run = results_report.run_name(name, seed, settings.use_bf16)
    return os.path.join(settings.results_dir, run, f'cifar10_{kind}')


def _data_dir(settings: ResultsSettings, row: Row) -> str:
    return settings.mnist_dir if row.dataset == MNIST else settings.data_dir


def measure(settings: ResultsSettings, name: str, seed: int) -> Result:
    """Trains and evaluates.

    Raises:
      UserError: one of the scripts failed, or was stopped before its last step.
    """
    _run(train_command(settings, name, seed))
    average = averages_views(PRESETS[name])
    for averaged in (False, True) if average else (False,):
        _run(eval_command(settings, name, seed, averaged))
    return _collect(settings, name, seed)


def _run(command: list[str]) -> None:
    code = subprocess.run(command, check=False).returncode
    if code:
        raise UserError(f'{os.path.basename(command[1])} ended with exit code {code}')


def _collect(settings: ResultsSettings, name: str, seed: int) -> Result:
    """What the histories of a run say of it."""
    recipe = PRESETS[name]
    max_steps = ROWS[name].max_steps or recipe.max_steps
    train = cifar10_history.read(_folder(settings, name, seed, 'train'))
    scores = {
        entry['views']: entry
        for entry in cifar10_history.read(_folder(settings, name, seed, 'eval'))
        if entry['step'] == max_steps and entry['eval_data'] == 'test'
    }
    if 1 not in scores:
        raise UserError(f'{name}: stopped before step {max_steps}; give the command again')
    curve = [
        [entry['examples'], entry['seconds'], entry['precision']]
        for entry in train
        if 'precision' in entry
    ]
    return Result(
        preset=name,
        dataset=ROWS[name].dataset,
        seed=seed,
        steps=max_steps,
        batch_size=recipe.batch_size,
        use_bf16=settings.use_bf16,
        seconds=max(entry['seconds'] for entry in train),
        precision=scores[1]['precision'],
        precision_of_views=scores[NUM_VIEWS]['precision'] if NUM_VIEWS in scores else None,
        num_test_images=scores[1]['num_examples'],
        curve=curve,
        machine=f'{cpu_model()}, {os.cpu_count()} cores, TensorFlow {tf.__version__}',
        date=datetime.date.today().isoformat(),
    )


# ------------------------------------------------------------------------------ script


def chosen_seeds(seeds: str) -> list[int]:
    """The numbers that --seeds gives.

    Raises:
      UserError: one of them is none.
    """
    for seed in seeds.split(','):
        if not (seed.isascii() and seed.isdigit()):
            raise UserError(
                f'--seeds={seeds}: found {seed!r}; expected whole numbers of 0 or more, with '
                'commas between them'
            )
    return [int(seed) for seed in seeds.split(',')]


def check_rows(names: tuple[str, ...]) -> None:
    """Raises UserError where a name is none of a recipe."""
    for name in names:
        if name not in ROWS:
            raise UserError(f'found {name!r}; expected names of {", ".join(ROWS)}')


def main(settings: ResultsSettings) -> None:
    """Runs what was asked for, prints the table and draws the figure.

    Raises:
      UserError: a flag or a kept result is wrong, there is none, or a run failed.
    """
    cifar10_drawings.check_output(settings.output)
    check_rows(settings.rows)
    for name in settings.rows:
        for seed in chosen_seeds(settings.seeds):
            results_report.store(measure(settings, name, seed), settings.results_dir)
    results = results_report.load(settings.results_dir)
    if not results:
        raise UserError(
            f'--results_dir={settings.results_dir}: found no results; name recipes to run: '
            f'{", ".join(ROWS)}'
        )
    published = {name: row.published for name, row in ROWS.items()}
    print(f'\n{results_report.table(results, published)}')
    cifar10_drawings.write(results_report.draw(results, tuple(ROWS)), settings.output)
    print(f'\nWrote {settings.output}')


if __name__ == '__main__':
    run_script(main, ResultsSettings)
