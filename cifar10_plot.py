r"""What did a run look like, and what does it see? Draws one picture, without a screen.

    python cifar10_plot.py --output=curve.png
    python cifar10_plot.py --plot=filters --output=filters.svg

--plot=curve draws loss and precision over the training steps, from the summaries that
training and evaluation wrote; filters, the first layer's filters of the newest checkpoint;
distortions, some training images before and after distortion; classes, how many images
of each class the data set holds. The ending of --output, .png or .svg, chooses the format.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import sys
from collections.abc import Sequence

import numpy as np
import tensorflow.compat.v1 as tf
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import cifar10
import cifar10_checkpoint
import cifar10_data
import cifar10_input
import cifar10_records
import cifar10_settings
from cifar10_checkpoint import CheckpointFolder
from cifar10_input import CIFAR10_RECORD, IMAGE_SIZE
from cifar10_session import data_note
from cifar10_settings import LARGEST_SEED, UserError, run_script, setting

# Tags of the summaries that are drawn.
LOSS, AVERAGE_LOSS = 'total_loss/raw', 'total_loss/average'
PRECISION = 'Precision @ 1'

# Value of each step.
Curve = dict[int, float]

DARK, LIGHT = '#08519c', '#9ecae1'

# Training images in the picture of distortions, and distorted versions of each.
NUM_IMAGES, NUM_VERSIONS = 6, 8

# Standardised values are shown from this many standard deviations below the mean, black,
# to as many above, white.
SHOWN_DEVIATIONS = 2.5


@dataclasses.dataclass(frozen=True)
class PlotSettings:
    """What to draw, and where to."""

    train_dir: str = setting('cifar10_train', 'Folder that training wrote.')
    eval_dir: str = setting('cifar10_eval', 'Folder that evaluation wrote.')
    output: str = setting(None, 'The picture to write, .png or .svg; by default cifar10_PLOT.png.')
    plot: str = setting(
        'curve',
        'What to draw: curve, filters, distortions or classes.',
        choices=('curve', 'filters', 'distortions', 'classes'),
    )
    data_dir: str = setting('cifar10_data', 'Folder of the data set.')
    seed: int = setting(0, 'Decides the distortions.', at_least=0, at_most=LARGEST_SEED)


def read_scalars(directory: str, tags: tuple[str, ...]) -> dict[str, Curve]:
    """Scalars from the summaries in `directory`.

    Args:
      directory: holds event files.
      tags: of the scalars.

    Returns:
      For each tag its value at each step, in the order of the steps. Of a step
      that was taken twice, before and after a crash, the later value.

    Raises:
      UserError: there is no such scalar.
    """
    curves: dict[str, Curve] = {tag: {} for tag in tags}
    files = glob.glob(os.path.join(glob.escape(directory), 'events.out.tfevents.*'))
    for file in sorted(files, key=os.path.getmtime):
        try:
            for event in tf.train.summary_iterator(file):
                for value in event.summary.value:
                    if value.tag in curves:
                        curves[value.tag][event.step] = value.simple_value
        except tf.errors.DataLossError as error:
            # As a killed run leaves the file, and one that is being written to.
            print(f'Warning: {file}: breaks off: {error.message}', file=sys.stderr)
    for tag, curve in curves.items():
        if not curve:
            raise UserError(f'{directory}: found no summary of {tag!r} in {len(files)} event files')
    return {tag: dict(sorted(curve.items())) for tag, curve in curves.items()}


def draw_curve(loss: Curve, average_loss: Curve, precision: Curve, title: str) -> Figure:
    """A figure of two panels: the loss, and the precision, over the steps."""
    figure = Figure(figsize=(10, 4), layout='constrained')
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    left.plot(list(loss), list(loss.values()), color=LIGHT, linewidth=1, label='one batch')
    left.plot(list(average_loss), list(average_loss.values()), color=DARK, label='average')
    left.set_ylabel('total loss')
    left.legend(frameon=False)
    right.plot(list(precision), list(precision.values()), color=DARK, marker='o', markersize=4)
    right.set_ylabel('precision @ 1')
    step, value = list(precision.items())[-1]
    right.annotate(
        f'{value:.3f}', (step, value), xytext=(0, 7), textcoords='offset points', ha='center'
    )
    for axes in (left, right):
        _tidy(axes)
    return figure


def _tidy(axes: Axes) -> None:
    axes.set_xlabel('step')
    axes.set_xlim(left=0)
    axes.grid(color='#dddddd', linewidth=0.6)
    axes.spines[['top', 'right']].set_visible(False)
    axes.margins(x=0.04, y=0.1)


def draw_filters(weights: np.ndarray, title: str) -> Figure:
    """A grid of the first layer's filters.

    Args:
      weights: float32 [height, width, 3, filters]. Of each filter the largest weight in
        size is shown at full strength, and 0 as grey.
      title: above all.
    """
    num_filters = weights.shape[-1]
    columns = int(np.ceil(np.sqrt(num_filters)))
    rows = -(-num_filters // columns)
    figure = Figure(figsize=(0.75 * columns, 0.75 * rows + 0.5), layout='constrained')
    figure.suptitle(title)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, of_filter in zip(grid, np.moveaxis(weights, -1, 0), strict=False):
        axes.imshow(0.5 + 0.5 * of_filter / np.abs(of_filter).max())
    return figure


def draw_distortions(
    images: np.ndarray, distorted: np.ndarray, names: Sequence[str], title: str
) -> Figure:
    """A row for each image: as it is, and then some distorted versions of it.

    Args:
      images: uint8 [images, height, width, 3].
      distorted: float32 [images, versions, height, width, 3], standardised.
      names: of each image's class.
      title: above all.
    """
    rows, columns = len(images), 1 + distorted.shape[1]
    figure = Figure(figsize=(columns, rows + 0.6), layout='constrained')
    figure.suptitle(title)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
    shown = np.clip(0.5 + distorted / (2 * SHOWN_DEVIATIONS), 0, 1)
    for row, image, versions, name in zip(grid, images, shown, names, strict=True):
        row[0].imshow(image)
        row[0].set_ylabel(name)
        for axes, version in zip(row[1:], versions, strict=True):
            axes.imshow(version)
    grid[0, 0].set_title('image')
    grid[0, 1].set_title('as the network sees it', loc='left')
    return figure


def draw_classes(train: np.ndarray, test: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """Bars of how many training and test images each class has.

    Args:
      train, test: int [classes], counts.
      names: of the classes.
      title: above all.
    """
    figure = Figure(figsize=(8, 0.35 * len(names) + 1.2), layout='constrained')
    figure.suptitle(title)
    axes = figure.subplots()
    places = np.arange(len(names))
    for counts, offset, color, label in (
        (train, -0.2, DARK, 'training'),
        (test, 0.2, LIGHT, 'test'),
    ):
        bars = axes.barh(places + offset, counts, 0.4, color=color, label=label)
        axes.bar_label(bars, fmt='{:,.0f}', padding=3, fontsize=8)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlabel('images')
    axes.margins(x=0.12)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False, loc='upper left', bbox_to_anchor=(1, 1))
    return figure


def curve(settings: PlotSettings) -> Figure:
    """Loss and precision of the run."""
    losses = read_scalars(settings.train_dir, (LOSS, AVERAGE_LOSS))
    precision = read_scalars(settings.eval_dir, (PRECISION,))[PRECISION]
    title = f'{settings.train_dir}{data_note(_dataset(settings))}'
    return draw_curve(losses[LOSS], losses[AVERAGE_LOSS], precision, title)


def filters(settings: PlotSettings) -> Figure:
    """The first layer's filters, their averages where the checkpoint holds any."""
    checkpoint = CheckpointFolder(settings.train_dir).newest_whole()
    if checkpoint is None:
        raise UserError(f'--train_dir={settings.train_dir}: found no checkpoint; train first')
    reader = cifar10_checkpoint.open_checkpoint(checkpoint)
    name = 'conv1/weights'
    average = name + cifar10_checkpoint.AVERAGE_SUFFIX
    if not reader.has_tensor(name):
        raise UserError(f'{checkpoint}: holds no {name}')
    weights = reader.get_tensor(average if reader.has_tensor(average) else name)
    step = cifar10_checkpoint.step_of(checkpoint)
    note = data_note(_dataset(settings))
    return draw_filters(weights, f"The first layer's filters at step {step:,}{note}")


def distortions(settings: PlotSettings) -> Figure:
    """The first training images, and what distortion makes of them."""
    prepared = _data(settings)
    records = np.fromfile(
        cifar10_input.train_files(prepared.directory)[0],
        np.uint8,
        NUM_IMAGES * CIFAR10_RECORD.record_bytes,
    ).reshape(-1, CIFAR10_RECORD.record_bytes)
    with tf.Graph().as_default(), tf.Session() as session:
        images, labels = cifar10_input.decode_records(tf.constant([r.tobytes() for r in records]))
        repeated = tf.repeat(images, NUM_VERSIONS, axis=0)
        numbers = cifar10_input.random_numbers(
            settings.seed, tf.constant(0, tf.int64), len(records) * NUM_VERSIONS
        )
        distorted = cifar10_input.distort(repeated, numbers)
        images, labels, distorted = session.run([images, labels, distorted])
    names = prepared.class_names
    return draw_distortions(
        images,
        distorted.reshape(len(records), NUM_VERSIONS, IMAGE_SIZE, IMAGE_SIZE, -1),
        [names[label] for label in labels],
        f'Training images, distorted{data_note(prepared.dataset)}',
    )


def classes(settings: PlotSettings) -> Figure:
    """How many images of each class there are."""
    prepared = _data(settings)
    names = prepared.class_names
    train, test = (
        _count_labels(files(prepared.directory), len(names))
        for files in (cifar10_input.train_files, cifar10_input.test_files)
    )
    return draw_classes(train, test, names, f'Images of each class{data_note(prepared.dataset)}')


def _count_labels(files: Sequence[str], num_classes: int) -> np.ndarray:
    labels = [cifar10_records.read_labels(file, CIFAR10_RECORD) for file in files]
    return np.bincount(np.concatenate(labels), minlength=num_classes)


def _dataset(settings: PlotSettings) -> str | None:
    """The data set that the run was trained on, if there was one."""
    return cifar10_settings.load(settings.train_dir).get('dataset')


def _data(settings: PlotSettings) -> cifar10_data.Prepared:
    return cifar10.maybe_download_and_extract(settings.data_dir, _dataset(settings))


PLOTS = {'curve': curve, 'filters': filters, 'distortions': distortions, 'classes': classes}


def plot(settings: PlotSettings) -> None:
    """Draws what was asked for and writes the picture.

    Raises:
      UserError: there is nothing to draw, or the picture can't be written.
    """
    output = settings.output or f'cifar10_{settings.plot}.png'
    if not output.endswith(('.png', '.svg')):
        raise UserError(f'--output={output}: expected a name that ends in .png or .svg')
    figure = PLOTS[settings.plot](settings)
    try:
        figure.savefig(output, dpi=150)
    except OSError as error:
        raise UserError(f'--output={output}: cannot be written: {error}') from error
    print(f'Wrote {output}')


if __name__ == '__main__':
    run_script(plot, PlotSettings)
