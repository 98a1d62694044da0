r"""What is on a picture of one's own? Prints its three likeliest classes.

    python cifar10_predict.py photo.jpg more/*.png

prints for each picture the three likeliest classes with their probabilities, by the
newest checkpoint:

    photo.jpg: cat 0.812, dog 0.101, frog 0.043

Of each picture the central square is scaled to the 32 x 32 of a record, of which the
network sees what it sees in evaluation. JPEG, PNG, GIF (its first frame) and BMP.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import cifar10
from cifar10_input import CIFAR10_RECORD, IMAGE_SIZE
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import arguments, run_script, setting
from cifar10_lib.data.photos import DRAWN_SIZE, Picture, Reader
from cifar10_lib.data.prepare import data_note
from cifar10_lib.evaluation import figures
from cifar10_lib.evaluation.evaluator import (
    BATCH_SIZE,
    VIEWS_NOTE,
    Predictor,
    class_names,
    model_setting,
    network_name,
    newest_checkpoint,
)
from cifar10_lib.runs import run_folder
from cifar10_lib.runs.checkpoints import CheckpointFolder

# How many of the likeliest classes are shown.
TOP = 3

# As many as can be looked at in one drawing.
MAX_DRAWN = 60

_EXAMPLE = 'for example: python cifar10_predict.py photo.jpg'


@dataclasses.dataclass(frozen=True)
class PredictSettings:
    """Which pictures to classify, and how to show it."""

    pictures: tuple[str, ...] = arguments()
    checkpoint_dir: str = setting('cifar10_train', 'Folder of the checkpoints.')
    model: str = model_setting()
    data_dir: str = setting(
        None,
        'Folder of the data set, for the names of its classes; by default the one that training '
        'used.',
    )
    format: str = setting(
        'text', 'Of what is printed: text, or json: an object a line.', choices=('text', 'json')
    )
    output: str = setting(None, 'A picture to write: each photo beside its bars; .png or .svg.')
    average_views: bool = setting(
        False, 'Average the probabilities over centre, corners and their mirror images.'
    )


# ----------------------------------------------------------------------------- results


class Prediction(NamedTuple):
    """What the network takes a picture for."""

    path: str
    picture: Picture
    probabilities: np.ndarray
    """float32 [classes]."""

    def top(self) -> list[int]:
        """Labels of the likeliest classes, the likeliest first."""
        return np.argsort(-self.probabilities, kind='stable')[:TOP].tolist()


def predictions(
    predictor: Predictor, paths: Sequence[str], unreadable: list[str]
) -> Iterator[Prediction]:
    """Classifies pictures, some at a time, so that any number of them fits into memory.

    Args:
      predictor: the network.
      paths: of the pictures.
      unreadable: gets the path of each that is skipped, after an error on stderr.
    """
    reader = Reader()
    for start in range(0, len(paths), BATCH_SIZE):
        read = []
        for path in paths[start : start + BATCH_SIZE]:
            try:
                read.append((path, reader.read(path)))
            except UserError as error:
                unreadable.append(path)
                print(f'Skipped: {error}', file=sys.stderr)
        if read:
            probabilities = predictor.probabilities(np.stack([pixels for _, (pixels, _) in read]))
            for (path, picture), of_picture in zip(read, probabilities, strict=True):
                yield Prediction(path, picture, of_picture)


def in_words(prediction: Prediction, names: Sequence[str]) -> str:
    """One line of text."""
    classes = [
        f'{names[label]} {prediction.probabilities[label]:.3f}' for label in prediction.top()
    ]
    return f'{prediction.path}: {", ".join(classes)}'


def in_json(prediction: Prediction, names: Sequence[str]) -> str:
    """One line of JSON."""
    classes = [
        {
            'class': names[label],
            'label': label,
            'probability': float(prediction.probabilities[label]),
        }
        for label in prediction.top()
    ]
    return json.dumps({'file': prediction.path, 'top': classes})


def draw(
    some: Sequence[Prediction], names: Sequence[str], title: str, seen: int = IMAGE_SIZE
) -> Figure:
    """Each picture beside its bars, and a frame around the central part that is looked at.

    Args:
      some: one or more.
      names: of the classes.
      title: above all.
      seen: side of that part, of a record's; all of it needs no frame.
    """
    num_columns = min(len(some), 1 + len(some) // 6, 3)
    num_rows = -(-len(some) // num_columns)
    figure = Figure(figsize=(5 * num_columns, 1.7 * num_rows + 0.5), layout='constrained')
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(
        num_rows, 2 * num_columns, squeeze=False, width_ratios=[1, 2] * num_columns
    )
    panels = grid.reshape(-1, 2)
    for prediction, (left, right) in zip(some, panels, strict=False):
        _draw_picture(left, prediction, seen)
        _draw_bars(right, prediction, names)
    for axes in panels[len(some) :].flat:
        axes.set_axis_off()
    return figure


def _draw_picture(axes: Axes, prediction: Prediction, seen: int) -> None:
    axes.imshow(prediction.picture.drawn)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color('#cccccc')
    side = DRAWN_SIZE * seen / CIFAR10_RECORD.height
    corner = ((DRAWN_SIZE - side) / 2,) * 2
    # White in black, to be seen on any picture.
    for colour, width in (('black', 2), ('white', 1)) if side < DRAWN_SIZE else ():
        frame = Rectangle(corner, side, side, fill=False, edgecolor=colour, linewidth=width)
        axes.add_patch(frame)


def _draw_bars(axes: Axes, prediction: Prediction, names: Sequence[str]) -> None:
    labels = prediction.top()
    values = [float(prediction.probabilities[label]) for label in labels]
    bars = axes.barh([names[label] for label in labels], values, color='#08519c', height=0.6)
    axes.bar_label(bars, [f'{value:.1%}' for value in values], padding=3, fontsize=8)
    axes.set_xlim(0, 1.25)
    axes.set_ylim(TOP - 0.4, -0.6)
    axes.set_xticks([])
    axes.tick_params(left=False, labelsize=9)
    axes.spines[:].set_visible(False)
    axes.set_title(os.path.basename(prediction.path), fontsize=9, loc='left')


def _check(settings: PredictSettings) -> None:
    """Raises UserError for what can be told before any work is done."""
    if not settings.pictures:
        raise UserError(f'found no picture to classify; {_EXAMPLE}')
    if settings.output is None:
        return
    figures.check_output(settings.output)
    if len(settings.pictures) > MAX_DRAWN:
        raise UserError(
            f'--output={settings.output}: found {len(settings.pictures)} pictures to draw; '
            f'expected at most {MAX_DRAWN}'
        )


def predict(settings: PredictSettings) -> None:
    """Prints what each picture shows, and draws it if asked to.

    Raises:
      UserError: nothing can be predicted, or, at the end, some pictures could not be.
    """
    _check(settings)
    checkpoint = newest_checkpoint(CheckpointFolder(settings.checkpoint_dir))
    predictor = Predictor(
        checkpoint,
        cifar10.NETWORKS[network_name(settings.checkpoint_dir, settings.model)],
        settings.average_views,
    )
    names = class_names(settings.checkpoint_dir, settings.data_dir, predictor.num_classes)
    dataset = run_folder.load(settings.checkpoint_dir).get('dataset')
    note = (VIEWS_NOTE if settings.average_views else '') + data_note(dataset)
    print(f'By {checkpoint}{note}', file=sys.stderr)
    unreadable: list[str] = []
    drawn = []
    show = in_json if settings.format == 'json' else in_words
    for prediction in predictions(predictor, settings.pictures, unreadable):
        print(show(prediction, names), flush=True)
        if settings.output:
            drawn.append(prediction)
    if drawn:
        # Ten views are of all of it.
        seen = CIFAR10_RECORD.height if settings.average_views else predictor.network.view.size
        figures.write(draw(drawn, names, f'{checkpoint}{note}', seen), settings.output)
        print(f'Wrote {settings.output}', file=sys.stderr)
    if unreadable:
        raise UserError(f'{len(unreadable)} of {len(settings.pictures)} pictures were skipped')


if __name__ == '__main__':
    run_script(predict, PredictSettings)
