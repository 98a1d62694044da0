r"""Draws a picture of a run: its curves, mistakes, filters, layers or data.

    python cifar10_plot.py --output=curve.png
    python cifar10_plot.py run1 run2 --x=time
    python cifar10_plot.py --plot=filters --output=filters.svg

--plot=curve draws loss and precision, of one run or of several side by side, from the
histories of training and evaluation. The others draw one run: confusion, which classes of
--eval_data the newest checkpoint takes for which; mistakes, its most confident wrong guesses;
filters, its first layer's filters; layers, a table of the network's layers (printed, and drawn
with --output); distortions, some training images before and after distortion; classes, how
many images of each class the data set holds. The ending of --output, .png or .svg, chooses the
format.

A run is the folder that training wrote. Its evaluations are those in its own history, and
those in --eval_dir.
"""

from __future__ import annotations

from cifar10_lib.base.start import start
from cifar10_lib.evaluation.settings import EVAL_DATA_NAMES, PlotSettings

# Before TensorFlow is imported, which takes seconds.
start(__name__, PlotSettings)

import itertools
import os

import numpy as np
import tensorflow.compat.v1 as tf

import cifar10
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import run_script
from cifar10_lib.data.prepare import Prepared, data_note
from cifar10_lib.evaluation import analysis, figures, layer_table
from cifar10_lib.evaluation.evaluator import Evaluator
from cifar10_lib.nn import schedules
from cifar10_lib.nn.layers import Network
from cifar10_lib.runs.checkpoints import Checkpoint
from cifar10_lib.runs.history import HISTORY_FILE
from cifar10_lib.runs.run_folder import EVAL_DIRECTORY, RunFolder

# Number of images that --plot=mistakes draws.
NUM_MISTAKES = 24


# ------------------------------------------------------------------------------ curves


def curve(settings: PlotSettings) -> figures.Figure:
    """Loss and precision of the runs."""
    if settings.checkpoint:
        raise UserError(f'--checkpoint={settings.checkpoint}: --plot=curve draws complete runs')
    folders = _runs(settings)
    last_parts = [os.path.basename(os.path.normpath(folder)) for folder in folders]
    # The last part of a path is the name of a run, where it tells several runs apart.
    names = last_parts if 1 < len(folders) == len(set(last_parts)) else folders
    runs = []
    for name, folder, eval_dir in zip(names, folders, _eval_dirs(settings), strict=True):
        run = RunFolder.open(folder)
        title = name + data_note(run.dataset)
        runs.append(analysis.read_curves(title, run, eval_dir, settings.x))
        if not runs[-1].panels():
            raise UserError(
                f'{folder}: found no {HISTORY_FILE} with a loss or a precision; train first, for '
                'example with python cifar10_train.py'
            )
    panels = [name for name in ('loss', 'precision') if any(name in run.panels() for run in runs)]
    title = runs[0].name if len(runs) == 1 else ''
    return figures.draw_curves(runs, settings.x, title, panels)


def _runs(settings: PlotSettings) -> tuple[str, ...]:
    """The folders of the runs.

    Raises:
      UserError: they are named both by arguments and by the flag, or there are more than colours.
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
        return [_default_eval_dir(run) for run in runs]
    parts = settings.eval_dir.split(',')
    # A comma may also be part of a name.
    for ends in itertools.combinations(range(1, len(parts)), len(runs) - 1):
        bounds = itertools.pairwise((0, *ends, len(parts)))
        folders = [','.join(parts[begin:end]) for begin, end in bounds]
        if all(os.path.isdir(folder) for folder in folders):
            return list(folders)
    raise UserError(
        f'--eval_dir={settings.eval_dir}: expected {len(runs)} folders that are there, as many as '
        'runs, with commas between them'
    )


def _default_eval_dir(train_dir: str) -> str | None:
    """The folder of evaluations within that of the run; in earlier versions it was beside it."""
    parent, name = os.path.split(os.path.normpath(train_dir))
    places = [os.path.join(train_dir, EVAL_DIRECTORY)]
    if 'train' in name:
        places.append(os.path.join(parent, name.replace('train', 'eval')))
    return next((place for place in places if os.path.isdir(place)), None)


# -------------------------------------------------------------------------- one run


def _open_run(settings: PlotSettings) -> RunFolder:
    """Raises UserError where several runs are named."""
    runs = _runs(settings)
    if len(runs) > 1:
        raise UserError(f'--plot={settings.plot}: found {len(runs)} runs; expected one')
    if settings.checkpoint and settings.plot in ('distortions', 'classes'):
        raise UserError(f'--checkpoint={settings.checkpoint}: --plot={settings.plot} draws none')
    return RunFolder.open(runs[0], settings.model, settings.checkpoint)


def _network(run: RunFolder, size: int) -> Network:
    return cifar10.NETWORKS[run.model].trained_by(run.recipe).of_size(size)


def _evaluate(
    settings: PlotSettings, run: RunFolder, checkpoint: Checkpoint, prepared: Prepared
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels of all images of --eval_data."""
    run.check_eval_data(settings.eval_data)
    evaluator = Evaluator(
        prepared.directory,
        _network(run, prepared.framing.size),
        eval_data=settings.eval_data,
        num_classes=prepared.num_classes,
        held_out=run.find_held_out(prepared),
    )
    return evaluator.probabilities(checkpoint)


def confusion(settings: PlotSettings) -> figures.Figure:
    """Which classes are taken for which."""
    run = _open_run(settings)
    checkpoint, prepared = (
        run.require_checkpoint('--train_dir'),
        run.prepare_data(settings.data_dir),
    )
    matrix = analysis.confusion_matrix(*_evaluate(settings, run, checkpoint, prepared))
    precision = matrix.trace() / matrix.sum()
    title = (
        f'Confusion of {matrix.sum():,} {EVAL_DATA_NAMES[settings.eval_data]} at step '
        f'{checkpoint.step:,}\nprecision @ 1 = {precision:.3f}'
        f'{data_note(prepared.dataset)}'
    )
    return figures.draw_confusion(matrix, prepared.class_names, title)


def mistakes(settings: PlotSettings) -> figures.Figure:
    """The images with the most probable wrong guesses."""
    run = _open_run(settings)
    checkpoint, prepared = (
        run.require_checkpoint('--train_dir'),
        run.prepare_data(settings.data_dir),
    )
    probabilities, labels = _evaluate(settings, run, checkpoint, prepared)
    places = analysis.most_confident_mistakes(probabilities, labels, NUM_MISTAKES)
    step = checkpoint.step
    if not len(places):
        raise UserError(
            f'--plot=mistakes: found none among {len(labels):,} images at step {step:,}'
        )
    names = prepared.class_names
    guesses = probabilities[places].argmax(axis=1)
    return figures.draw_mistakes(
        analysis.evaluated_images(
            settings.eval_data,
            prepared.directory,
            run.find_held_out(prepared),
            places,
            prepared.framing.record,
        ),
        [names[label] for label in labels[places]],
        [names[guess] for guess in guesses],
        probabilities[places, guesses].tolist(),
        f'Most confident mistakes on {EVAL_DATA_NAMES[settings.eval_data]} at step '
        f'{step:,}{data_note(prepared.dataset)}',
    )


def filters(settings: PlotSettings) -> figures.Figure:
    """The first layer's filters."""
    run = _open_run(settings)
    checkpoint = run.require_checkpoint('--train_dir')
    title = f"The first layer's filters at step {checkpoint.step:,}{data_note(run.dataset)}"
    return figures.draw_filters(analysis.first_filters(checkpoint), title)


def layers(settings: PlotSettings) -> figures.Figure:
    """The table of the network's layers, which is printed as well."""
    run = _open_run(settings)
    network = _network(run, run.framing.size)
    with tf.Graph().as_default():
        table = layer_table.table(layer_table.network_layers(network, run.num_classes))
    print(table)
    return figures.draw_text(table)


def distortions(settings: PlotSettings) -> figures.Figure:
    """The first training images, each with distorted versions."""
    run = _open_run(settings)
    prepared = run.prepare_data(settings.data_dir)
    network = _network(run, prepared.framing.size)
    ranges = schedules.distortions(run.recipe, network.size)
    return figures.draw_distortions(
        analysis.distorted_images(
            prepared.directory, settings.seed, ranges, network.view, network.record
        ),
        prepared.class_names,
        f'Training images, distorted{data_note(prepared.dataset)}',
        network.view,
    )


def classes(settings: PlotSettings) -> figures.Figure:
    """How many images of each class there are."""
    prepared = _open_run(settings).prepare_data(settings.data_dir)
    names = prepared.class_names
    train, test = analysis.class_counts(prepared.directory, len(names), prepared.framing.record)
    title = f'Images of each class{data_note(prepared.dataset)}'
    return figures.draw_classes(train, test, names, title)


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
    """Draws the picture and writes it.

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
