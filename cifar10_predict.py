r"""What is on a picture of one's own?

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
import tensorflow.compat.v1 as tf
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import cifar10
import cifar10_checkpoint
import cifar10_data
import cifar10_records
import cifar10_settings
from cifar10_archive import CIFAR10_DIRECTORY
from cifar10_checkpoint import CheckpointFolder
from cifar10_eval import (
    BATCH_SIZE,
    VIEWS_NOTE,
    Restorer,
    class_probabilities,
    newest_checkpoint,
)
from cifar10_input import (
    CIFAR10_RECORD,
    IMAGE_SIZE,
    NUM_CLASSES,
    NUM_VIEWS,
    evaluation_crop,
    evaluation_views,
)
from cifar10_pictures import DRAWN_SIZE, Picture, Reader
from cifar10_records import CLASS_NAMES_FILE
from cifar10_session import data_note
from cifar10_settings import UserError, arguments, run_script, setting

# By https://www.cs.toronto.edu/~kriz/cifar.html, in the order of the labels.
CIFAR10_CLASS_NAMES = (
    'airplane',
    'automobile',
    'bird',
    'cat',
    'deer',
    'dog',
    'frog',
    'horse',
    'ship',
    'truck',
)

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


class Predictor:
    """The network with the weights of one checkpoint, ready for pictures."""

    def __init__(self, checkpoint: str, average_views: bool = False) -> None:
        """
        Args:
          checkpoint: its path.
          average_views: average the probabilities over ten views of each picture.

        Raises:
          UserError: it can't be read, or is of another network.
        """
        self.num_classes = num_classes_of(checkpoint)
        self._batch_size = BATCH_SIZE // NUM_VIEWS if average_views else BATCH_SIZE
        with tf.Graph().as_default():
            self._pictures = picture_placeholder()
            crop = evaluation_views if average_views else evaluation_crop
            logits = cifar10.inference(crop(self._pictures), self.num_classes, summaries=False)
            self._probabilities = class_probabilities(logits, average_views)
            self._session = tf.Session()
            Restorer().restore(self._session, checkpoint)

    def probabilities(self, pictures: np.ndarray) -> np.ndarray:
        """float32 [pictures, classes] of uint8 [pictures, 32, 32, 3]."""
        starts = range(0, len(pictures), self._batch_size)
        batches = [pictures[start : start + self._batch_size] for start in starts]
        run = self._session.run
        return np.concatenate([run(self._probabilities, {self._pictures: b}) for b in batches])


def picture_placeholder() -> tf.Tensor:
    """uint8 [batch, 32, 32, 3]: `images` of any batch size, in a record's size."""
    shape = [None, CIFAR10_RECORD.height, CIFAR10_RECORD.width, CIFAR10_RECORD.depth]
    return tf.placeholder(tf.uint8, shape, name='images')


def num_classes_of(checkpoint: str) -> int:
    """Size of the checkpoint's last layer; the ten of CIFAR-10 where it has none of that name."""
    shapes = cifar10_checkpoint.open_checkpoint(checkpoint).get_variable_to_shape_map()
    (size,) = shapes.get('softmax_linear/biases') or [NUM_CLASSES]
    return size


# ------------------------------------------------------------------ names of classes


def class_names(checkpoint_dir: str, data_dir: str | None, num_classes: int) -> list[str]:
    """Names of the classes that the checkpoints were trained on.

    They are those of batches.meta.txt in `data_dir`, or where none is given in the folder
    that the settings beside the checkpoints name. Where that is gone, the ten classes of
    the data set cifar10 have the names that it was published with, and those of any other
    their labels, with a warning.

    Raises:
      UserError: there are no names where `data_dir` should have them, or not as many as
        classes, or the settings can't be read.
    """
    stored = cifar10_settings.load(checkpoint_dir)
    dataset = stored.get('dataset', 'cifar10')
    named = _names_directory(data_dir or str(stored.get('data_dir', '')), dataset)
    if named:
        return cifar10_records.class_names(named, num_classes)
    if data_dir:
        raise UserError(f'--data_dir={data_dir}: found no {CLASS_NAMES_FILE}')
    if dataset == 'cifar10' and num_classes == len(CIFAR10_CLASS_NAMES):
        return list(CIFAR10_CLASS_NAMES)
    print(
        f'Warning: found no {CLASS_NAMES_FILE} of the training images, so classes go by their '
        'labels; --data_dir names the folder that has it',
        file=sys.stderr,
    )
    return [str(label) for label in range(num_classes)]


def _names_directory(data_dir: str, dataset: str) -> str | None:
    """The folder in or under `data_dir` that holds the data set's class names."""
    below = {'cifar10': CIFAR10_DIRECTORY, 'synthetic': cifar10_data.SYNTHETIC_DIRECTORY}
    for directory in (os.path.join(data_dir, below.get(dataset, '')), data_dir):
        if data_dir and os.path.lexists(os.path.join(directory, CLASS_NAMES_FILE)):
            return directory
    return None


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


def draw(some: Sequence[Prediction], names: Sequence[str], title: str) -> Figure:
    """Each picture, with a frame around what the network looks at, beside its bars."""
    num_columns = min(len(some), 1 + len(some) // 6, 3)
    num_rows = -(-len(some) // num_columns)
    figure = Figure(figsize=(5 * num_columns, 1.7 * num_rows + 0.5), layout='constrained')
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(
        num_rows, 2 * num_columns, squeeze=False, width_ratios=[1, 2] * num_columns
    )
    panels = grid.reshape(-1, 2)
    for prediction, (left, right) in zip(some, panels, strict=False):
        _draw_picture(left, prediction)
        _draw_bars(right, prediction, names)
    for axes in panels[len(some) :].flat:
        axes.set_axis_off()
    return figure


def _draw_picture(axes: Axes, prediction: Prediction) -> None:
    axes.imshow(prediction.picture.drawn)
    seen = DRAWN_SIZE * IMAGE_SIZE / CIFAR10_RECORD.height
    corner = ((DRAWN_SIZE - seen) / 2,) * 2
    axes.add_patch(Rectangle(corner, seen, seen, fill=False, edgecolor='white', linewidth=1))
    axes.set_axis_off()


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
    if not settings.output.endswith(('.png', '.svg')):
        raise UserError(f'--output={settings.output}: expected a name that ends in .png or .svg')
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
    predictor = Predictor(checkpoint, settings.average_views)
    names = class_names(settings.checkpoint_dir, settings.data_dir, predictor.num_classes)
    dataset = cifar10_settings.load(settings.checkpoint_dir).get('dataset', 'cifar10')
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
        _write(draw(drawn, names, f'{checkpoint}{note}'), settings.output)
    if unreadable:
        raise UserError(f'{len(unreadable)} of {len(settings.pictures)} pictures were skipped')


def _write(figure: Figure, output: str) -> None:
    try:
        figure.savefig(output, dpi=150)
    except OSError as error:
        raise UserError(f'--output={output}: cannot be written: {error}') from error
    print(f'Wrote {output}', file=sys.stderr)


if __name__ == '__main__':
    run_script(predict, PredictSettings)
