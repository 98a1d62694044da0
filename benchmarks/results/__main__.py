"""Results of the recipes, beside what was published of them.

    python -m benchmarks.results small_cnn --seeds=0,1,2

trains by the preset of that name with each seed, scores the test images with the weights of
the last step, and keeps the curve, the precision and the time of training in
cifar10_results/small_cnn-0.json and so on. The same command given again resumes a run that was
broken off, and runs none again whose result is kept. Then, as with no name at all,

    python -m benchmarks.results

prints the table of all that is kept in --results_dir and draws precision against time.

No result is chosen by the test images: during training they are scored for the curve alone.
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

from benchmarks.processes import script_command
from benchmarks.results import published, report
from benchmarks.results.published import MNIST, MNIST_DIR, ROWS
from benchmarks.results.report import Result
from benchmarks.speed.machine import cpu_line, gpu_model
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import arguments, run_script, setting
from cifar10_lib.evaluation import figures
from cifar10_lib.nn.recipes import Recipe
from cifar10_lib.runs import history as history_module
from cifar10_lib.runs.run_folder import RunFolder
from cifar10_lib.training.settings import TrainSettings


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
    num_points: int = setting(
        20,
        'Points of the curve, each an evaluation, where the preset itself does not ask for them.',
        at_least=1,
    )
    results_dir: str = setting('cifar10_results', 'Folder of training runs and their results.')
    output: str = setting('cifar10_results.png', 'The figure to write: .png or .svg.')


class Plan(NamedTuple):
    """A run to take."""

    settings: ResultsSettings
    preset: str
    seed: int

    @property
    def recipe(self) -> Recipe:
        return published.row_recipe(self.preset)

    @property
    def is_mnist(self) -> bool:
        return ROWS[self.preset].dataset == MNIST

    @property
    def name(self) -> str:
        """Of its folder and its result."""
        return report.run_name(self.preset, self.seed, self.settings.use_bf16)

    @property
    def train_dir(self) -> str:
        return os.path.join(self.settings.results_dir, self.name, 'cifar10_train')

    @property
    def eval_dir(self) -> str:
        return os.path.join(self.settings.results_dir, self.name, 'cifar10_eval')

    @property
    def options(self) -> dict[str, Any]:
        """Settings that training must have besides its recipe."""
        return {
            'seed': self.seed,
            'use_bf16': self.settings.use_bf16,
            'eval_every': -(-self.recipe.max_steps // self.settings.num_points),
            'eval_data': 'test',
            'dataset': 'own' if self.is_mnist else 'cifar10',
            **published.run_options(self.preset),
        }

    @property
    def data_dir(self) -> str:
        return self.settings.mnist_dir if self.is_mnist else self.settings.data_dir


# ----------------------------------------------------------------------------- running


def train_command(plan: Plan) -> list[str]:
    """`cifar10_train.py` by a preset, with evaluations for the curve."""
    values = {
        'preset': plan.preset,
        'max_steps': plan.recipe.max_steps,
        'train_dir': plan.train_dir,
        'data_dir': plan.data_dir,
        'log_frequency': 100,
        **plan.options,
    }
    return script_command('cifar10_train.py', **values)


def eval_command(plan: Plan, num_views: int) -> list[str]:
    """`cifar10_eval.py` on the test images, once."""
    return script_command(
        'cifar10_eval.py',
        run_once=True,
        checkpoint_dir=plan.train_dir,
        eval_dir=plan.eval_dir,
        data_dir=plan.data_dir,
        dataset=plan.options['dataset'],
        views=num_views,
    )


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
    num_views = published.num_views(plan.recipe)
    for count in sorted({1, num_views}):
        _run(eval_command(plan, count), plan.name)
    return _collect(plan, history, num_views)


def _check_folder(plan: Plan) -> None:
    """Raises UserError where the folder holds a run of another recipe."""
    stored = RunFolder.open(plan.train_dir).settings
    expected = {**dataclasses.asdict(plan.recipe), **plan.options}
    for name, value in expected.items() if stored else ():
        # Settings of a version before the flag lack it.
        found = stored.get(name, getattr(TrainSettings, name))
        if found != value:
            raise UserError(
                f'{plan.train_dir}: holds a run with --{name}={found}; expected {value}; move it '
                'away, or name another --results_dir'
            )


def _run(command: list[str], name: str) -> None:
    """Runs a script, and waits for its clean end where this one is told to end."""
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


def _collect(plan: Plan, history: list[history_module.Entry], num_views: int) -> Result:
    """The result that the histories of a run hold."""
    recipe = plan.recipe
    # An evaluation replaces an earlier one of its step, images and views.
    scores = {
        entry['views']: entry
        for entry in history_module.read(plan.eval_dir)
        if entry['step'] == recipe.max_steps and entry['eval_data'] == 'test'
    }
    gpus = [gpu_model()] if tf.config.list_physical_devices('GPU') else []
    return Result(
        preset=plan.preset,
        dataset=ROWS[plan.preset].dataset,
        seed=plan.seed,
        use_bf16=plan.settings.use_bf16,
        recipe=dataclasses.asdict(recipe),
        seconds=history[-1]['seconds'],
        precision=scores[1]['precision'],
        precision_of_views=scores[num_views]['precision'] if num_views > 1 else None,
        num_views=num_views,
        num_test_images=scores[1]['num_examples'],
        curve=[
            [entry['examples'], entry['seconds'], entry['precision']]
            for entry in history
            if 'precision' in entry
        ],
        machine=', '.join(
            [*gpus, cpu_line(), f'TensorFlow {importlib.metadata.version("tensorflow")}']
        ),
        date=datetime.date.today().isoformat(),
    )


# ------------------------------------------------------------------------------ script


def parse_seeds(seeds: str) -> list[int]:
    """The numbers in --seeds.

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


def make_plans(settings: ResultsSettings) -> list[Plan]:
    """The runs that the settings name.

    Raises:
      UserError: there is no such preset or seed.
    """
    for preset in settings.presets:
        if preset not in ROWS:
            raise UserError(f'preset {preset!r}: expected one of {", ".join(ROWS)}')
    seeds = parse_seeds(settings.seeds)
    return [Plan(settings, preset, seed) for preset in settings.presets for seed in seeds]


def run_plans(plans: list[Plan], kept: list[Result]) -> list[Result]:
    """Takes the runs whose results are not kept yet; returns these and the new ones.

    Raises:
      UserError: one of them failed.
    """
    results = list(kept)
    for number, plan in enumerate(plans, 1):
        if plan.name in {result.name for result in results}:
            print(f'{plan.name}: kept in {plan.settings.results_dir}')
            continue
        print(f'{plan.name}: run {number} of {len(plans)}', flush=True)
        results.append(measure(plan))
        report.store(results[-1], plan.settings.results_dir)
    return results


def main(settings: ResultsSettings) -> None:
    """Takes the runs, prints the table and draws the figure.

    Raises:
      UserError: a flag or a kept result is wrong, there is none, or a run failed.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    figures.check_output(settings.output)
    results = run_plans(make_plans(settings), report.load(settings.results_dir))
    if not results:
        raise UserError(
            f'--results_dir={settings.results_dir}: found no results; name presets to run: '
            f'{", ".join(ROWS)}'
        )
    print(f'\n{report.table(results)}')
    figures.write(report.draw(results), settings.output)
    print(f'\nWrote {settings.output}')


if __name__ == '__main__':
    run_script(main, ResultsSettings)
