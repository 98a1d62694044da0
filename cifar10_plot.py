r"""What did a run look like, and what does it see? Draws one picture, without a screen.

    python cifar10_plot.py --output=curve.png
    python cifar10_plot.py run1 run2 --x=time
    python cifar10_plot.py --plot=filters --output=filters.svg

--plot=curve draws loss and precision, of one run or of several side by side, from the
histories that training and evaluation wrote; confusion, which classes of --eval_data the
newest checkpoint takes for which; mistakes, the images that it is wrong about and surest of;
filters, its first layer's filters; layers, a table of the network's layers (printed, and drawn with
--output); distortions, some training images before and after
distortion; classes, how many images of each class the data set holds. The ending of
--output, .png or .svg, chooses the format.

A run is the folder that training wrote. Its evaluations are those in its own history, and
those in the folder beside it that has `eval` in place of `train` in its name, or that
--eval_dir names.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
import tensorflow.compat.v1 as tf
from matplotlib.figure import Figure

import cifar10
from cifar10_input import EVAL_DATA, NUM_CLASSES
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import LARGEST_SEED, arguments, run_script, setting
from cifar10_lib.data import prepare
from cifar10_lib.data.prepare import data_note
from cifar10_lib.evaluation import analysis, figures, layer_table
from cifar10_lib.evaluation.analysis import IMAGES_IN_WORDS
from cifar10_lib.evaluation.evaluator import (
    Evaluator,
    data_dir_of,
    model_setting,
    network_name,
    num_classes_of,
    num_held_out,
)
from cifar10_lib.nn.layers import Network
from cifar10_lib.nn.recipes import load_recipe
from cifar10_lib.nn.schedules import distortions as distortions_of
from cifar10_lib.runs import checkpoints, run_folder
from cifar10_lib.runs.checkpoints import CheckpointFolder
from cifar10_lib.runs.history import HISTORY_FILE

# In the picture of mistakes.
NUM_MISTAKES = 24


@dataclasses.dataclass(frozen=True)
class PlotSettings:
    """What to draw, and where to."""

    runs: tuple[str, ...] = arguments()
    train_dir: str = setting(
        'cifar10_train', 'Folder that training wrote; the same as to name it without a flag.'
    )
    eval_dir: str = setting(
        None,
        'Folder that evaluation wrote, for several runs as many, in the same order, with commas '
        'between them; by default the one beside that of training that has eval in place of train '
        'in its name, if there is one.',
    )
    output: str = setting(None, 'The picture to write, .png or .svg; by default cifar10_PLOT.png.')
    plot: str = setting(
        'curve',
        'What to draw: curve, confusion, mistakes, filters, layers, distortions or classes.',
        choices=('curve', 'confusion', 'mistakes', 'filters', 'layers', 'distortions', 'classes'),
    )
    x: str = setting(
        'step',
        'What curves are drawn over: step, examples, or time, that of training.',
        choices=tuple(analysis.AXES),
    )
    eval_data: str = setting(
        'test',
        'The images of confusion and mistakes: test, train_eval or held_out.',
        choices=EVAL_DATA,
    )
    model: str = model_setting()
    data_dir: str = setting(None, 'Folder of the data set; by default the one that training used.')
    seed: int = setting(0, 'Decides the distortions.', at_least=0, at_most=LARGEST_SEED)


# ------------------------------------------------------------------------------ curves


def curve(settings: PlotSettings) -> Figure:
    """Loss and precision of the runs."""
    folders = _runs(settings)
    runs = [
        analysis.read_curves(name + data_note(_dataset(folder)), folder, eval_dir, settings.x)
        for name, folder, eval_dir in zip(
            _names_of(folders), folders, _eval_dirs(settings), strict=True
        )
    ]
    for run, folder in zip(runs, folders, strict=True):
        if not run.panels():
            raise UserError(
                f'{folder}: found no {HISTORY_FILE} with a loss or a precision; train first, for '
                'example with python cifar10_train.py'
            )
    panels = [name for name in ('loss', 'precision') if any(name in run.panels() for run in runs)]
    title = runs[0].name if len(runs) == 1 else ''
    return figures.draw_curves(runs, settings.x, title, panels)


def _names_of(folders: Sequence[str]) -> Sequence[str]:
    """What the runs are called: the last part of their paths, where that tells them apart."""
    last = [os.path.basename(os.path.normpath(folder)) for folder in folders]
    return last if 1 < len(folders) == len(set(last)) else folders


def _runs(settings: PlotSettings) -> tuple[str, ...]:
    """The folders of the runs.

    Raises:
      UserError: they are named in two ways, or are more than can be told apart.
    """
    if not settings.runs:
        return (settings.train_dir,)
    if settings.train_dir != PlotSettings.train_dir:
        raise UserError(
            f'--train_dir={settings.train_dir}: found {settings.runs[0]} as well; expected the '
            'folders one way or the other'
        )
    largest = len(figures.PALETTE)
    if len(settings.runs) > largest:
        raise UserError(
            f'found {len(settings.runs)} runs; expected at most {largest}, as many as there are '
            'colours that can be told apart'
        )
    return settings.runs


def _eval_dirs(settings: PlotSettings) -> list[str | None]:
    """The folder of each run's evaluations, or None."""
    runs = _runs(settings)
    if settings.eval_dir is None:
        return [beside(run) for run in runs]
    folders = settings.eval_dir.split(',') if len(runs) > 1 else [settings.eval_dir]
    if len(folders) != len(runs):
        raise UserError(
            f'--eval_dir={settings.eval_dir}: found {len(folders)} folders for {len(runs)} runs; '
            'expected as many, with commas between them'
        )
    for folder in folders:
        if not os.path.isdir(folder):
            raise UserError(f'--eval_dir={settings.eval_dir}: found no folder {folder!r}')
    return list(folders)


def beside(train_dir: str) -> str | None:
    """The folder beside that of a run that has eval in place of train in its name."""
    parent, name = os.path.split(os.path.normpath(train_dir))
    folder = os.path.join(parent, name.replace('train', 'eval'))
    return folder if 'train' in name and os.path.isdir(folder) else None


# ------------------------------------------------------------------ newest checkpoint


def confusion(settings: PlotSettings) -> Figure:
    """Which classes are taken for which."""
    checkpoint, prepared = _newest(settings), _data(settings)
    matrix = analysis.confusion_matrix(*_evaluate(settings, checkpoint, prepared))
    precision = matrix.trace() / matrix.sum()
    title = (
        f'Confusion of {matrix.sum():,} {IMAGES_IN_WORDS[settings.eval_data]} at step '
        f'{checkpoints.step_of(checkpoint):,}\nprecision @ 1 = {precision:.3f}'
        f'{data_note(prepared.dataset)}'
    )
    return figures.draw_confusion(matrix, prepared.class_names, title)


def mistakes(settings: PlotSettings) -> Figure:
    """The images whose wrong guess is the likeliest."""
    checkpoint, prepared = _newest(settings), _data(settings)
    probabilities, labels = _evaluate(settings, checkpoint, prepared)
    places = analysis.most_confident_mistakes(probabilities, labels, NUM_MISTAKES)
    step = checkpoints.step_of(checkpoint)
    if not len(places):
        raise UserError(
            f'--plot=mistakes: found none among {len(labels):,} images at step {step:,}'
        )
    names = prepared.class_names
    guesses = probabilities[places].argmax(axis=1)
    return figures.draw_mistakes(
        analysis.evaluated_images(
            settings.eval_data, prepared.directory, _held_out(settings), places
        ),
        [names[label] for label in labels[places]],
        [names[guess] for guess in guesses],
        probabilities[places, guesses].tolist(),
        f'Most confident mistakes on {IMAGES_IN_WORDS[settings.eval_data]} at step '
        f'{step:,}{data_note(prepared.dataset)}',
    )


def _evaluate(
    settings: PlotSettings, checkpoint: str, prepared: prepare.Prepared
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels of all images of --eval_data."""
    evaluator = Evaluator(
        prepared.directory,
        eval_data=settings.eval_data,
        num_classes=prepared.num_classes,
        num_held_out=_held_out(settings),
        network=_model(settings),
    )
    return evaluator.probabilities(checkpoint)


def _model(settings: PlotSettings) -> Network:
    return cifar10.NETWORKS[network_name(_run(settings), settings.model)]


def _held_out(settings: PlotSettings) -> int:
    return num_held_out(_run(settings), settings.eval_data)


def filters(settings: PlotSettings) -> Figure:
    """The first layer's filters."""
    checkpoint = _newest(settings)
    step = checkpoints.step_of(checkpoint)
    note = data_note(_dataset(_run(settings)))
    return figures.draw_filters(
        analysis.first_filters(checkpoint),
        f"The first layer's filters at step {step:,}{note}",
    )


def layers(settings: PlotSettings) -> Figure:
    """The table of the network's layers, which is printed as well."""
    checkpoint = CheckpointFolder(_run(settings)).newest_whole()
    num_classes = num_classes_of(checkpoint) if checkpoint else NUM_CLASSES
    network = _model(settings)
    with tf.Graph().as_default():
        table = layer_table.table(layer_table.layers_of(network, num_classes))
    print(table)
    return figures.draw_text(table)


def _newest(settings: PlotSettings) -> str:
    run = _run(settings)
    checkpoint = CheckpointFolder(run).newest_whole()
    if checkpoint is None:
        raise UserError(f'{run}: found no checkpoint; train first')
    return checkpoint


def _run(settings: PlotSettings) -> str:
    """The folder of the one run."""
    runs = _runs(settings)
    if len(runs) > 1:
        raise UserError(f'--plot={settings.plot}: found {len(runs)} runs; expected one')
    return runs[0]


# ----------------------------------------------------------------------------- the data


def distortions(settings: PlotSettings) -> Figure:
    """The first training images, and what distortion makes of them."""
    prepared = _data(settings)
    view = _model(settings).view
    return figures.draw_distortions(
        analysis.distorted_images(
            prepared.directory,
            settings.seed,
            distortions_of(load_recipe(run_folder.load(_run(settings)))),
            view,
        ),
        prepared.class_names,
        f'Training images, distorted{data_note(prepared.dataset)}',
        view,
    )


def classes(settings: PlotSettings) -> Figure:
    """How many images of each class there are."""
    prepared = _data(settings)
    names = prepared.class_names
    train, test = analysis.class_counts(prepared.directory, len(names))
    title = f'Images of each class{data_note(prepared.dataset)}'
    return figures.draw_classes(train, test, names, title)


def _dataset(run: str) -> str | None:
    """The data set that a run was trained on, if there was one."""
    return run_folder.load(run).get('dataset')


def _data(settings: PlotSettings) -> prepare.Prepared:
    run = _run(settings)
    return prepare.prepare(data_dir_of(run, settings.data_dir), _dataset(run))


PLOTS = {
    'curve': curve,
    'confusion': confusion,
    'mistakes': mistakes,
    'filters': filters,
    'layers': layers,
    'distortions': distortions,
    'classes': classes,
}


def plot(settings: PlotSettings) -> None:
    """Draws what was asked for and writes the picture.

    Raises:
      UserError: there is nothing to draw, or the picture can't be written.
    """
    output = settings.output or f'cifar10_{settings.plot}.png'
    figures.check_output(output)
    figure = PLOTS[settings.plot](settings)
    if settings.plot == 'layers' and not settings.output:
        return
    figures.write(figure, output)
    print(f'Wrote {output}')


if __name__ == '__main__':
    run_script(plot, PlotSettings)
