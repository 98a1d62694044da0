r"""What did a run look like? Draws loss and precision over the training steps.

    python cifar10_plot.py --output=curve.png

reads the summaries that training and evaluation wrote, and needs no screen. The
ending of --output, .png or .svg, chooses the format.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import sys

import tensorflow.compat.v1 as tf
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import cifar10_settings
from cifar10_session import data_note
from cifar10_settings import UserError, run_script, setting

# Tags of the summaries that are drawn.
LOSS, AVERAGE_LOSS = 'total_loss/raw', 'total_loss/average'
PRECISION = 'Precision @ 1'

# Value of each step.
Curve = dict[int, float]


@dataclasses.dataclass(frozen=True)
class PlotSettings:
    """What to draw, and where to."""

    train_dir: str = setting('cifar10_train', 'Folder that training wrote.')
    eval_dir: str = setting('cifar10_eval', 'Folder that evaluation wrote.')
    output: str = setting('cifar10_curve.png', 'The picture to write: .png or .svg.')


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


def draw(loss: Curve, average_loss: Curve, precision: Curve, title: str) -> Figure:
    """A figure of two panels: the loss, and the precision, over the steps."""
    figure = Figure(figsize=(10, 4), layout='constrained')
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    left.plot(list(loss), list(loss.values()), color='#9ecae1', linewidth=1, label='one batch')
    left.plot(list(average_loss), list(average_loss.values()), color='#08519c', label='average')
    left.set_ylabel('total loss')
    left.legend(frameon=False)
    right.plot(list(precision), list(precision.values()), color='#08519c', marker='o', markersize=4)
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


def plot(settings: PlotSettings) -> None:
    """Draws the run and writes the picture.

    Raises:
      UserError: there is nothing to draw, or the picture can't be written.
    """
    if not settings.output.endswith(('.png', '.svg')):
        raise UserError(f'--output={settings.output}: expected a name that ends in .png or .svg')
    losses = read_scalars(settings.train_dir, (LOSS, AVERAGE_LOSS))
    precision = read_scalars(settings.eval_dir, (PRECISION,))[PRECISION]
    note = data_note(cifar10_settings.load(settings.train_dir).get('dataset', 'cifar10'))
    figure = draw(losses[LOSS], losses[AVERAGE_LOSS], precision, f'{settings.train_dir}{note}')
    try:
        figure.savefig(settings.output, dpi=150)
    except OSError as error:
        raise UserError(f'--output={settings.output}: cannot be written: {error}') from error
    print(f'Wrote {settings.output}')


if __name__ == '__main__':
    run_script(plot, PlotSettings)
