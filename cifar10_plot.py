r"""Draws a picture of a run: its curves, mistakes, filters, layers or data.

    python cifar10_plot.py --output=curve.png
    python cifar10_plot.py runs/* --table=runs.html --sort=minutes
    python cifar10_plot.py --plot=filters --output=filters.svg

--plot=curve draws loss and precision, of one run or of several side by side, from the
histories of training and evaluation. Of several, the runs in the named folders and below, it
prints a table as well: what they are, where their settings differ, what they took and reached.

The others draw one run: confusion, which classes of --eval_data the newest checkpoint takes for
which; mistakes, its most confident wrong guesses; reliability, its accuracy by confidence;
filters, its first layer's filters; feature_maps, what each layer makes of a picture; saliency and
grad_cam, what a picture's class depends on; embedding, the last hidden layer of 1,000 images in
two dimensions; layers, a table of the network's layers (printed, and drawn with --output);
distortions, some training images before and after distortion; classes, how many images of each
class the data set holds. --plot=all draws them all into the folder --output. --plot=kernels
needs no run: it takes a --picture through a --kernel. The ending of --output, .png or .svg,
chooses the format.

A run is the folder that training wrote. Its evaluations are those in its own history, and
those in --eval_dir.
"""

from __future__ import annotations

from cifar10_lib.base.start import start
from cifar10_lib.evaluation.settings import EVAL_DATA_NAMES, PlotSettings

# Before TensorFlow is imported, which takes seconds.
start(__name__, PlotSettings)

import dataclasses
import functools
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

import cifar10
from cifar10_lib.base import files
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import run_script
from cifar10_lib.base.names import printable
from cifar10_lib.data import photos
from cifar10_lib.data.prepare import Prepared, data_note
from cifar10_lib.evaluation import (
    analysis,
    comparison,
    figures,
    inside,
    inside_figures,
    layer_table,
    results,
)
from cifar10_lib.evaluation import kernels as kernel_exercise
from cifar10_lib.evaluation.evaluator import Evaluator, Scored, network_framing
from cifar10_lib.nn import schedules
from cifar10_lib.nn.layers import Network
from cifar10_lib.runs.checkpoints import Checkpoint
from cifar10_lib.runs.history import HISTORY_FILE
from cifar10_lib.runs.run_folder import EVAL_DIRECTORY, RunFolder

# Number of images that --plot=mistakes draws, of those that saliency and grad_cam explain, and of
# the points of embedding.
NUM_MISTAKES, NUM_EXPLAINED, NUM_EMBEDDED = 24, 12, 1000

# A JPEG may be decoded smaller for --plot=kernels, but with at least twice as many pixels a side.
LARGEST_FILTERED = 1000


# ------------------------------------------------------------------------------ curves


def curve(subject: Subject) -> figures.Figure | None:
    """Loss and precision of the runs; of several a table as well, which may be all there is."""
    settings = subject.settings
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


class Subject:
    """What the settings ask to draw; each part is read when it is asked for, and once."""

    def __init__(self, settings: PlotSettings) -> None:
        self.settings = settings

    @functools.cached_property
    def run(self) -> RunFolder:
        """Raises UserError where several runs are named."""
        settings, runs = self.settings, _runs(self.settings)
        if len(runs) > 1:
            raise UserError(f'--plot={settings.plot}: found {len(runs)} runs; expected one')
        if settings.checkpoint and settings.plot in ('distortions', 'classes'):
            raise UserError(
                f'--checkpoint={settings.checkpoint}: --plot={settings.plot} draws none'
            )
        return RunFolder.open(runs[0], settings.model, settings.checkpoint)

    @functools.cached_property
    def checkpoint(self) -> Checkpoint:
        return self.run.require_checkpoint('--train_dir')

    @functools.cached_property
    def prepared(self) -> Prepared:
        return self.run.prepare_data(self.settings.data_dir)

    @functools.cached_property
    def network(self) -> Network:
        return self.run.configure(cifar10.NETWORKS[self.run.model])

    @functools.cached_property
    def inspector(self) -> inside.Inspector:
        return inside.Inspector(self.checkpoint, self.network)

    @functools.cached_property
    def scored(self) -> Scored:
        """The evaluation of all images of --eval_data."""
        checkpoint, prepared, eval_data = self.checkpoint, self.prepared, self.settings.eval_data
        self.run.check_eval_data(eval_data)
        evaluator = Evaluator(
            prepared.directory,
            self.network,
            eval_data=eval_data,
            num_classes=prepared.num_classes,
            held_out=self.run.find_held_out(prepared),
        )
        return evaluator.score(checkpoint)

    def images(self, places: np.ndarray) -> np.ndarray:
        """Images of --eval_data by their places, uint8 [images, size, size, 3]."""
        return analysis.evaluated_images(
            self.settings.eval_data,
            self.prepared.directory,
            self.run.find_held_out(self.prepared),
            places,
            self.network.record,
        )

    def seen(self, picture: np.ndarray) -> np.ndarray:
        """The part of a picture [side, side, 3] that the network sees."""
        side = len(picture) * self.network.view.size // self.network.size
        first = (len(picture) - side) // 2
        return picture[first : first + side, first : first + side]

    def title(self, what: str) -> str:
        """Of a drawing of the checkpoint, with a note where its data is not CIFAR-10."""
        return f'{what} at step {self.checkpoint.step:,}{data_note(self.run.dataset)}'

    @functools.cached_property
    def scored_name(self) -> str:
        return EVAL_DATA_NAMES[self.settings.eval_data]


def confusion(subject: Subject) -> figures.Figure:
    """Which classes are taken for which."""
    _, probabilities, labels = subject.scored
    matrix = analysis.confusion_matrix(probabilities, labels)
    title = (
        f'Confusion of {matrix.sum():,} {subject.scored_name} at step '
        f'{subject.checkpoint.step:,}\nprecision @ 1 = {matrix.trace() / matrix.sum():.3f}'
        f'{data_note(subject.prepared.dataset)}'
    )
    return figures.draw_confusion(matrix, subject.prepared.class_names, title)


def _find_mistakes(subject: Subject, count: int) -> np.ndarray:
    """Places of the images with the most probable wrong guesses; UserError where there are none."""
    _, probabilities, labels = subject.scored
    places = analysis.most_confident_mistakes(probabilities, labels, count)
    if not len(places):
        raise UserError(
            f'--plot={subject.settings.plot}: found no mistakes among {len(labels):,} images at '
            f'step {subject.checkpoint.step:,}'
        )
    return places


def mistakes(subject: Subject) -> figures.Figure:
    """The images with the most probable wrong guesses."""
    places = _find_mistakes(subject, NUM_MISTAKES)
    _, probabilities, labels = subject.scored
    names = subject.prepared.class_names
    guesses = probabilities[places].argmax(axis=1)
    return figures.draw_mistakes(
        subject.images(places),
        [names[label] for label in labels[places]],
        [names[guess] for guess in guesses],
        probabilities[places, guesses].tolist(),
        subject.title(f'Most confident mistakes on {subject.scored_name}'),
    )


def reliability(subject: Subject) -> figures.Figure:
    """Accuracy by confidence."""
    _, probabilities, labels = subject.scored
    title = subject.title(f'Calibration on {len(labels):,} {subject.scored_name}\n')
    calibration = results.calibrate(probabilities, labels)
    return inside_figures.draw_reliability(calibration, title.replace('\n ', '\n'))


def filters(subject: Subject) -> figures.Figure:
    """The first layer's filters."""
    title = subject.title("The first layer's filters")
    return figures.draw_filters(analysis.first_filters(subject.checkpoint), title)


def layers(subject: Subject) -> figures.Figure:
    """The table of the network's layers, which is printed as well."""
    with tf.Graph().as_default():
        rows = layer_table.network_layers(subject.network, subject.run.num_classes)
    table = layer_table.table(rows)
    print(table)
    return figures.draw_text(table)


def distortions(subject: Subject) -> figures.Figure:
    """The first training images, each with distorted versions."""
    prepared, network = subject.prepared, subject.network
    return figures.draw_distortions(
        analysis.distorted_images(
            prepared.directory,
            subject.settings.seed,
            schedules.distortions(subject.run.recipe, network.size),
            network.view,
            network.record,
        ),
        prepared.class_names,
        f'Training images, distorted{data_note(prepared.dataset)}',
        network.view,
    )


def classes(subject: Subject) -> figures.Figure:
    """How many images of each class there are."""
    prepared = subject.prepared
    names = prepared.class_names
    train, test = analysis.class_counts(prepared.directory, len(names), prepared.framing.record)
    title = f'Images of each class{data_note(prepared.dataset)}'
    return figures.draw_classes(train, test, names, title)


# ------------------------------------------------------------------ inside the network


class _Pictures(NamedTuple):
    """Pictures whose inside is drawn."""

    pixels: np.ndarray
    """uint8 [pictures, size, size, 3]."""
    drawn: list[np.ndarray]
    """uint8 [side, side, 3] each, as far as the network sees them."""
    captions: list[str]
    predicted: np.ndarray
    """int64 [pictures], the likeliest class of each."""
    names: str
    """What they are."""


def _pictures(subject: Subject, places: Callable[[], np.ndarray]) -> _Pictures:
    """The picture that --picture names, or images of --eval_data at some places."""
    path = subject.settings.picture
    if path:
        framing = network_framing(subject.run.framing, subject.network)
        image = photos.load(path, framing.size)
        pixels = photos.square(image, framing)[np.newaxis]
        drawn = [photos.square(image, framing.scaled(photos.DRAWN_SIZE))]
        names, truths = subject.run.class_names(subject.settings.data_dir), ['']
    else:
        found = places()
        pixels = subject.images(found)
        drawn = list(pixels)
        names = list(subject.prepared.class_names)
        truths = [f'true: {figures.shorten(names[n])}\n' for n in subject.scored.labels[found]]
    probabilities = subject.inspector.probabilities(pixels)
    predicted = probabilities.argmax(axis=1)
    captions = [
        f'{truth}predicted: {figures.shorten(names[guess])} {probability[guess]:.1%}'
        for truth, guess, probability in zip(truths, predicted, probabilities, strict=True)
    ]
    what = (
        os.path.basename(path) if path else f'the most confident mistakes on {subject.scored_name}'
    )
    return _Pictures(pixels, [subject.seen(each) for each in drawn], captions, predicted, what)


def feature_maps(subject: Subject) -> figures.Figure:
    """The maps of each layer for one picture, by default the first image."""
    shown = _pictures(subject, lambda: np.array([0]))
    what = shown.names if subject.settings.picture else f'the first of the {subject.scored_name}'
    caption = shown.captions[0].replace('\n', ', ')
    return inside_figures.draw_feature_maps(
        shown.drawn[0],
        subject.inspector.layer_outputs(shown.pixels[0]),
        subject.title(f'Feature maps of {what}') + f'\n{caption}',
    )


def _attention(
    subject: Subject,
    what: str,
    compute: Callable[[np.ndarray, np.ndarray], np.ndarray],
    overlay: bool,
) -> figures.Figure:
    shown = _pictures(subject, lambda: _find_mistakes(subject, NUM_EXPLAINED))
    values = compute(shown.pixels, shown.predicted)
    title = subject.title(f'{what} of {shown.names}')
    return inside_figures.draw_attention(shown.drawn, values, shown.captions, title, overlay)


def saliency(subject: Subject) -> figures.Figure:
    """What the predicted class depends on, pixel by pixel."""
    compute = subject.inspector.saliency
    return _attention(subject, 'Saliency of the predicted class', compute, overlay=False)


def grad_cam(subject: Subject) -> figures.Figure:
    """Where the last convolution sees the predicted class."""
    compute = subject.inspector.grad_cam
    return _attention(subject, 'Grad-CAM of the predicted class', compute, overlay=True)


def embedding(subject: Subject) -> figures.Figure:
    """The last hidden layer of images, in two dimensions."""
    labels = subject.scored.labels[:NUM_EMBEDDED]
    hidden = subject.inspector.hidden(subject.images(np.arange(len(labels))))
    title = subject.title(
        f'Principal components of the last hidden layer\non {len(labels):,} {subject.scored_name}'
    )
    names = subject.prepared.class_names
    return inside_figures.draw_embedding(inside.project(hidden), labels, names, title)


def kernels(subject: Subject) -> figures.Figure:
    """A picture before and after a kernel of 3 x 3, which needs no run."""
    path, name = subject.settings.picture, subject.settings.kernel
    kernel = kernel_exercise.parse(name)
    if not path:
        raise UserError('--plot=kernels: expected a --picture=FILE')
    image = photos.load(path, LARGEST_FILTERED)
    try:
        filtered = kernel_exercise.apply(image, kernel)
    except UserError as error:
        raise UserError(f'{path}: {error}') from error
    label = name if name in kernel_exercise.KERNELS else 'convolved'
    return inside_figures.draw_kernel(filtered, kernel, label, os.path.basename(path))


PLOTS: dict[str, Callable[[Subject], figures.Figure | None]] = {
    'curve': curve,
    'confusion': confusion,
    'mistakes': mistakes,
    'reliability': reliability,
    'filters': filters,
    'feature_maps': feature_maps,
    'saliency': saliency,
    'grad_cam': grad_cam,
    'embedding': embedding,
    'layers': layers,
    'distortions': distortions,
    'classes': classes,
    'kernels': kernels,
}

_OF_PICTURES = ('feature_maps', 'saliency', 'grad_cam', 'kernels', 'all')


def plot_all(settings: PlotSettings) -> None:
    """Draws every figure of a run into a folder; those that it can't have are named.

    Raises:
      UserError: nothing can be drawn, or a picture can't be written.
    """
    folder = settings.output or 'cifar10_plots'
    files.make_folder(folder, '--output')
    subject, num_written = Subject(settings), 0
    for name in PLOTS:
        if name == 'kernels' and not settings.picture:
            continue
        # For errors; what has been read stays.
        subject.settings = dataclasses.replace(settings, plot=name)
        try:
            figure = PLOTS[name](subject)
        except UserError as error:
            print(f'Left out: {name}: {printable(str(error))}', file=sys.stderr)
            continue
        if figure:
            output = os.path.join(folder, f'{name}.png')
            figures.write(figure, output)
            print(f'Wrote {output}', flush=True)
            num_written += 1
    if not num_written:
        raise UserError('--plot=all: found nothing to draw')


def plot(settings: PlotSettings) -> None:
    """Draws the picture and writes it.

    Raises:
      UserError: there is nothing to draw, or the picture can't be written.
    """
    if settings.table and settings.plot != 'curve':
        raise UserError(f'--table={settings.table}: --plot={settings.plot} has none')
    if settings.picture and settings.plot not in _OF_PICTURES:
        raise UserError(f'--picture={settings.picture}: --plot={settings.plot} takes none')
    if settings.plot == 'all':
        plot_all(settings)
        return
    output = settings.output or f'cifar10_{settings.plot}.png'
    figures.check_output(output)
    figure = PLOTS[settings.plot](Subject(settings))
    if figure is None or (settings.plot == 'layers' and not settings.output):
        return
    figures.write(figure, output)
    print(f'Wrote {output}')


if __name__ == '__main__':
    run_script(plot, PlotSettings)
