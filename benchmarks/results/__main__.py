r"""What does each recipe reach, beside what was published of it? Trains, evaluates, tells.

    python -m benchmarks.results small_cnn --seeds=0,1,2

trains by the preset of that name with each seed, scores the test images with the weights of
the last step, and keeps the curve, the precision and the time of training in
cifar10_results/small_cnn-0.json and so on. A run that is broken off goes on when the same
command is given again, and one that is kept is not run again. Then, as with no name at all,

    python -m benchmarks.results

prints the table of all that is kept in --results_dir and draws precision against time.

No result is chosen by the test images: they are scored in the midst of training for the
curve alone.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import os
import signal
import subprocess
import sys
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

from benchmarks import REPOSITORY
from benchmarks.results import report as results_report
from benchmarks.results.report import Result
from benchmarks.speed.machine import cpu_line, gpu_model
from cifar10_input import NUM_VIEWS
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import arguments, run_script, setting
from cifar10_lib.evaluation import figures
from cifar10_lib.nn.presets import PRESETS
from cifar10_lib.nn.recipes import Recipe, load_recipe
from cifar10_lib.runs import history as history_module
from cifar10_lib.runs.run_folder import RunFolder
from cifar10_lib.training.settings import TrainSettings

CIFAR10, MNIST = 'CIFAR-10', 'MNIST'
MNIST_DIR = 'mnist_data'

# Points of a curve, where the preset itself does not ask for evaluations.
NUM_POINTS = 20


class Row(NamedTuple):
    """What was published of a recipe, and what to run it on."""

    published: str
    """Accuracy on images that were not trained on, in the words of the source; empty: none."""
    dataset: str = CIFAR10
    max_steps: int = 0
    """0: as many as the preset says."""

    def recipe(self, preset: str) -> Recipe:
        """The recipe of the preset, as the row runs it."""
        recipe = PRESETS[preset].recipe
        return dataclasses.replace(recipe, max_steps=self.max_steps or recipe.max_steps)

    def flags(self, preset: str) -> list[str]:
        """The flags of `cifar10_train.py` that train as the row does."""
        return [
            f'--preset={preset}',
            *([f'--max_steps={self.max_steps}'] if self.max_steps else []),
            *([f'--data_dir={MNIST_DIR}'] if self.dataset == MNIST else []),
        ]


# By the names of the presets.
ROWS = {
    'tutorial': Row('about 86%', max_steps=100_000),
    'fast': Row(''),
    'best': Row(''),
    'book': Row('about 75%'),
    'logistic': Row('37%'),
    'mlp': Row('45%'),
    'small_cnn': Row('70%'),
    'dropout_cnn': Row('66.6%'),
    'deep_cnn': Row('over 80%'),
    'deep_cnn_augmented': Row('78.3%'),
    'batch_norm_cnn': Row('83%'),
    'mnist_cnn': Row('98.5%', MNIST),
    'mnist_deep': Row('', MNIST),
}


@dataclasses.dataclass(frozen=True)
class ResultsSettings:
    """Which recipes to run, on what, and where results are kept."""

    presets: tuple[str, ...] = arguments()
    seeds: str = setting('0', 'Seeds, with commas between them: one run of each preset for each.')
    use_bf16: bool = setting(False, 'Train in bfloat16: see cifar10_train.py.')
    data_dir: str = setting('cifar10_data', 'Folder of CIFAR-10, filled if it is empty.')
    mnist_dir: str = setting(
        MNIST_DIR, 'Folder of MNIST, as cifar10_data.py convert mnist writes it.'
    )
    results_dir: str = setting('cifar10_results', 'Folder of training runs and their results.')
    output: str = setting('cifar10_results.png', 'The figure to write: .png or .svg.')


class Plan(NamedTuple):
    """A run to take."""

    settings: ResultsSettings
    preset: str
    seed: int

    @property
    def row(self) -> Row:
        return ROWS[self.preset]

    @property
    def recipe(self) -> Recipe:
        return self.row.recipe(self.preset)

    @property
    def name(self) -> str:
        """Of its folder and its result."""
        return results_report.run_name(self.preset, self.seed, self.settings.use_bf16)

    @property
    def train_dir(self) -> str:
        return os.path.join(self.settings.results_dir, self.name, 'cifar10_train')

    @property
    def eval_dir(self) -> str:
        return os.path.join(self.settings.results_dir, self.name, 'cifar10_eval')

    @property
    def asked_for(self) -> dict[str, Any]:
        """What training must have been asked for."""
        return {
            'seed': self.seed,
            'use_bf16': self.settings.use_bf16,
            'eval_every': -(-self.recipe.max_steps // NUM_POINTS),
            'dataset': 'own' if self.row.dataset == MNIST else 'cifar10',
            **PRESETS[self.preset].run,
        }

    @property
    def data_dir(self) -> str:
        settings = self.settings
        return settings.mnist_dir if self.row.dataset == MNIST else settings.data_dir


# ----------------------------------------------------------------------------- running


def train_command(plan: Plan) -> list[str]:
    """`cifar10_train.py` by a preset, with evaluations for the curve."""
    values = {
        'preset': plan.preset,
        'max_steps': plan.recipe.max_steps,
        'train_dir': plan.train_dir,
        'data_dir': plan.data_dir,
        'log_frequency': 100,
        **plan.asked_for,
    }
    return [
        sys.executable,
        str(REPOSITORY / 'cifar10_train.py'),
        *(f'--{name}={value}' for name, value in values.items()),
    ]


def eval_command(plan: Plan, average_views: bool) -> list[str]:
    """`cifar10_eval.py` on the test images, once."""
    return [
        sys.executable,
        str(REPOSITORY / 'cifar10_eval.py'),
        '--run_once',
        f'--checkpoint_dir={plan.train_dir}',
        f'--eval_dir={plan.eval_dir}',
        f'--data_dir={plan.data_dir}',
        f'--dataset={plan.asked_for["dataset"]}',
        *(['--average_views'] if average_views else []),
    ]


def averages_views(recipe: Recipe) -> bool:
    """Whether training saw what averaging shows: crops from any place, and mirror images."""
    return recipe.flip and recipe.max_shift > 0


def measure(plan: Plan) -> Result:
    """Trains and evaluates.

    Raises:
      UserError: a script failed, the run was stopped before its last step, or its folder
        holds one of other settings.
    """
    _check_folder(plan)
    _run(train_command(plan), plan.name)
    history = history_module.read(plan.train_dir)
    max_steps = plan.recipe.max_steps
    if not history or history[-1]['step'] != max_steps or 'precision' not in history[-1]:
        raise UserError(
            f'{plan.train_dir}: found no evaluation of step {max_steps} at the end of its history; '
            'give the command again, or move the folder away'
        )
    several_views = averages_views(plan.recipe)
    for average_views in (False, True) if several_views else (False,):
        _run(eval_command(plan, average_views), plan.name)
    return _collect(plan, history, NUM_VIEWS if several_views else None)


def _check_folder(plan: Plan) -> None:
    """Raises UserError where the folder holds a run of another recipe."""
    stored = RunFolder.open(plan.train_dir).settings
    expected = {**dataclasses.asdict(plan.recipe), **plan.asked_for}
    for name, value in expected.items() if stored else ():
        # Settings of a version before the flag lack it.
        found = stored.get(name, getattr(TrainSettings, name))
        if found != value:
            raise UserError(
                f'{plan.train_dir}: holds a run with --{name}={found}; expected {value}; move it '
                'away, or name another --results_dir'
            )


def _run(command: list[str], name: str) -> None:
    """Runs a script, which is told to end well where this one is to end."""
    with subprocess.Popen(command) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            # Ctrl-C has reached the script as well: it saves a checkpoint.
            process.wait()
            raise
        except SystemExit:
            process.terminate()
            process.wait()
            raise
    if code:
        raise UserError(f'{name}: {os.path.basename(command[1])} ended with exit code {code}')


def _collect(plan: Plan, history: list[history_module.Entry], num_views: int | None) -> Result:
    """What the histories of a run say of it."""
    recipe = plan.recipe
    # An evaluation replaces an earlier one of its step, images and views.
    scores = {
        entry['views']: entry
        for entry in history_module.read(plan.eval_dir)
        if entry['step'] == recipe.max_steps and entry['eval_data'] == 'test'
    }
    return Result(
        preset=plan.preset,
        dataset=plan.row.dataset,
        seed=plan.seed,
        use_bf16=plan.settings.use_bf16,
        recipe=dataclasses.asdict(recipe),
        seconds=history[-1]['seconds'],
        precision=scores[1]['precision'],
        precision_of_views=scores[num_views]['precision'] if num_views else None,
        num_test_images=scores[1]['num_examples'],
        curve=[
            [entry['examples'], entry['seconds'], entry['precision']]
            for entry in history
            if 'precision' in entry
        ],
        machine=_machine(),
        date=datetime.date.today().isoformat(),
    )


def _machine() -> str:
    gpus = [gpu_model()] if tf.config.list_physical_devices('GPU') else []
    return ', '.join([*gpus, cpu_line(), f'TensorFlow {importlib.metadata.version("tensorflow")}'])


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


def plans(settings: ResultsSettings) -> list[Plan]:
    """The runs that are asked for.

    Raises:
      UserError: a preset or a seed is none.
    """
    for preset in settings.presets:
        if preset not in ROWS:
            raise UserError(f'preset {preset!r}: expected one of {", ".join(ROWS)}')
    seeds = chosen_seeds(settings.seeds)
    return [Plan(settings, preset, seed) for preset in settings.presets for seed in seeds]


def take(planned: list[Plan], kept: list[Result]) -> list[Result]:
    """Takes the runs whose results are not kept yet; returns these and the new ones.

    Raises:
      UserError: one of them failed.
    """
    results = list(kept)
    for number, plan in enumerate(planned, 1):
        if plan.name in {result.name for result in results}:
            print(f'{plan.name}: kept in {plan.settings.results_dir}')
            continue
        print(f'{plan.name}: run {number} of {len(planned)}', flush=True)
        results.append(measure(plan))
        results_report.store(results[-1], plan.settings.results_dir)
    return results


def load(results_dir: str) -> list[Result]:
    """The results in a folder.

    Raises:
      UserError: a file is no result, or one of another recipe than the preset's of today.
    """
    results = results_report.load(results_dir, tuple(ROWS))
    for result in results:
        recipe = dataclasses.asdict(ROWS[result.preset].recipe(result.preset))
        # A result of a version before a flag lacks it.
        kept = dataclasses.asdict(load_recipe(result.recipe))
        for name, value in recipe.items():
            if kept[name] != value:
                path = results_report.path_of(result, results_dir)
                raise UserError(
                    f'{path}: has --{name}={kept[name]}; the preset {result.preset} has {value}; '
                    f'to run it again, move the file and the folder {result.name} away'
                )
    return results


def table(results: list[Result]) -> str:
    """The results as a table in Markdown."""
    return results_report.table(
        results, {name: (row.flags(name), row.published) for name, row in ROWS.items()}
    )


def main(settings: ResultsSettings) -> None:
    """Runs what was asked for, prints the table and draws the figure.

    Raises:
      UserError: a flag or a kept result is wrong, there is none, or a run failed.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    figures.check_output(settings.output)
    results = take(plans(settings), load(settings.results_dir))
    if not results:
        raise UserError(
            f'--results_dir={settings.results_dir}: found no results; name presets to run: '
            f'{", ".join(ROWS)}'
        )
    print(f'\n{table(results)}')
    figures.write(results_report.draw(results, tuple(ROWS)), settings.output)
    print(f'\nWrote {settings.output}')


if __name__ == '__main__':
    run_script(main, ResultsSettings)
