r"""Draws a picture of a run: its curves, mistakes, filters, layers or data.

    python cifar10_plot.py --output=curve.png
    python cifar10_plot.py runs/* --table=runs.html --sort=minutes
    python cifar10_plot.py --plot=filters --output=filters.svg

--plot=curve draws loss and precision, of one run or of several side by side, from the
histories of training and evaluation. Of several, the runs in the named folders and below, it
prints a table as well: what they are, where their settings differ, what they took and reached.
The others draw one run: confusion, which classes of
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
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow.compat.v1 as tf

import cifar10
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import run_script
from cifar10_lib.data.prepare import Prepared, data_note
from cifar10_lib.evaluation import analysis, comparison, figures, layer_table
from cifar10_lib.evaluation.evaluator import Evaluator
from cifar10_lib.nn import schedules
from cifar10_lib.nn.layers import Network
from cifar10_lib.runs.checkpoints import Checkpoint
from cifar10_lib.runs.history import HISTORY_FILE
from cifar10_lib.runs.run_folder import EVAL_DIRECTORY, RunFolder

# Number of images that --plot=mistakes draws.
NUM_MISTAKES = 24


# ------------------------------------------------------------------------------ curves


def curve(settings: PlotSettings) -> figures.Figure | None:
    """Loss and precision of the runs; of several a table as well, which may be all there is."""
    if settings.checkpoint:
        raise UserError(f'--checkpoint={settings.checkpoint}: --plot=curve draws complete runs')
    if settings.table:
        comparison.check_table(settings.table)
    folders = _runs(settings)
    eval_dirs = _eval_dirs(folders, settings.eval_dir)
    if len(folders) > 1 or settings.table:
        return _compare(settings, folders, eval_dirs)
    run = RunFolder.open(folders[0])
    curves = analysis.read_curves(
        folders[0] + data_note(run.dataset), run, eval_dirs[0], settings.x
    )
    panels = [panel for panel in ('loss', 'precision') if panel in curves.panels()]
    if not panels:
        raise UserError(
            f'{folders[0]}: found no {HISTORY_FILE} with a loss or a precision; train first, for '
            'example with python cifar10_train.py'
        )
    return figures.draw_curves([curves], settings.x, curves.name, panels)


def _compare(
    settings: PlotSettings, folders: Sequence[str], eval_dirs: Sequence[str | None]
) -> figures.Figure | None:
    """Prints and writes the table of several runs, and draws their curves."""
    last_parts = [os.path.basename(os.path.normpath(folder)) for folder in folders]
    # The last part of a path is the name of a run, where it tells several runs apart.
    names = last_parts if len(folders) == len(set(last_parts)) else folders
    runs = comparison.sort(comparison.compare(folders, names, eval_dirs), settings.sort)
    print(comparison.terminal_table([each.row for each in runs]))
    if settings.table:
        comparison.write_table(settings.table, runs)
        print(f'Wrote {settings.table}')
    curves = comparison.read_curves(runs, settings.x)
    panels = [
        panel for panel in ('loss', 'precision') if any(panel in each.panels() for each in curves)
    ]
    return figures.draw_curves(curves, settings.x, panels=panels) if panels else None


def _runs(settings: PlotSettings) -> list[str]:
    """The folders of the runs, of which those that are named may hold several.

    Raises:
      UserError: they are named both by arguments and by the flag.
    """
    if not settings.runs:
        return [settings.train_dir]
    if settings.train_dir != PlotSettings.train_dir:
        raise UserError(
            f'--train_dir={settings.train_dir}: found {settings.runs[0]} as well; expected the '
            'folders one way or the other'
        )
    return comparison.find_runs(settings.runs)


def _eval_dirs(runs: Sequence[str], named: str | None) -> list[str | None]:
    """The folder of each run's evaluations, or None; `named` are those of --eval_dir."""
    if named is None:
        return [_default_eval_dir(run) for run in runs]
    parts = named.split(',')
    # A comma may also be part of a name.
    for ends in itertools.combinations(range(1, len(parts)), len(runs) - 1):
        bounds = itertools.pairwise((0, *ends, len(parts)))
        folders = [','.join(parts[begin:end]) for begin, end in bounds]
        if all(os.path.isdir(folder) for folder in folders):
            return list(folders)
    raise UserError(
        f'--eval_dir={named}: expected {len(runs)} folders that are there, as many as '
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


PLOTS: dict[str, Callable[[PlotSettings], figures.Figure | None]] = {
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
    if settings.table and settings.plot != 'curve':
        raise UserError(f'--table={settings.table}: --plot={settings.plot} has none')
    output = settings.output or f'cifar10_{settings.plot}.png'
    figures.check_output(output)
    figure = PLOTS[settings.plot](settings)
    if figure is None or (settings.plot == 'layers' and not settings.output):
        return
    figures.write(figure, output)
    print(f'Wrote {output}')


if __name__ == '__main__':
    run_script(plot, PlotSettings)
