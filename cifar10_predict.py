r"""Classifies pictures with the newest checkpoint.

    python cifar10_predict.py photo.jpg more/*.png

prints the three likeliest classes of each picture with their probabilities:

    photo.jpg: cat 0.812, dog 0.101, frog 0.043

The central square of a picture is scaled to the 32 x 32 of a record, which the network sees as
in evaluation. JPEG, PNG, GIF (its first frame) and BMP.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

import cifar10
from cifar10_input import CIFAR10_RECORD, IMAGE_SIZE
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import arguments, run_script, setting
from cifar10_lib.data.photos import Picture, Reader
from cifar10_lib.data.prepare import data_note
from cifar10_lib.evaluation import figures
from cifar10_lib.evaluation.evaluator import BATCH_SIZE, Predictor, views_note, views_setting
from cifar10_lib.runs.run_folder import RunFolder, model_setting

# Number of the likeliest classes that are shown.
TOP = 3

# In one drawing.
MAX_DRAWN = 60

_EXAMPLE = 'for example: python cifar10_predict.py photo.jpg'


@dataclasses.dataclass(frozen=True)
class PredictSettings:
    """What to classify, and how to show the result."""

    pictures: tuple[str, ...] = arguments()
    checkpoint_dir: str = setting('cifar10_train', 'Folder of the checkpoints.')
    model: str = model_setting()
    data_dir: str = setting(
        None,
        'Folder of the data set, for the names of its classes; by default the one that training '
        'used.',
    )
    format: str = setting(
        'text',
        'Format of each printed line: text, or json, an object.',
        choices=('text', 'json'),
    )
    output: str = setting(None, 'Drawing to write, of each picture and its classes; .png or .svg.')
    views: str = views_setting()


class Prediction(NamedTuple):
    """The probabilities of a picture's classes."""

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
    """Classifies pictures in batches, so that any number of them fits into memory.

    Args:
      predictor: the network.
      paths: of the pictures.
      unreadable: the path of each skipped picture is added, after an error on stderr.
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


def _line(prediction: Prediction, names: Sequence[str], output_format: str) -> str:
    """One line of text or JSON."""
    likeliest = [(label, float(prediction.probabilities[label])) for label in prediction.top()]
    if output_format == 'json':
        classes = [
            {'class': names[label], 'label': label, 'probability': probability}
            for label, probability in likeliest
        ]
        return json.dumps({'file': prediction.path, 'top': classes})
    text = ', '.join(f'{names[label]} {probability:.3f}' for label, probability in likeliest)
    return f'{prediction.path}: {text}'


def draw(
    some: Sequence[Prediction], names: Sequence[str], title: str, seen: int = IMAGE_SIZE
) -> Figure:
    """The pictures with their likeliest classes.

    Args:
      some: one or more.
      names: of the classes.
      title: above all.
      seen: side of the central part that the network sees of a record.
    """
    return figures.draw_predictions(
        [prediction.picture.drawn for prediction in some],
        [os.path.basename(prediction.path) for prediction in some],
        [[(names[n], float(each.probabilities[n])) for n in each.top()] for each in some],
        title,
        seen / CIFAR10_RECORD.height,
    )


def _check(settings: PredictSettings) -> None:
    """Raises UserError for wrong settings, before any work is done."""
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
    """Prints the likeliest classes of each picture, and draws them if asked to.

    Raises:
      UserError: nothing can be predicted, or, at the end, pictures were skipped.
    """
    _check(settings)
    run = RunFolder.open(settings.checkpoint_dir, settings.model)
    network = cifar10.NETWORKS[run.model].trained_by(run.recipe)
    num_views = int(settings.views)
    checkpoint = run.newest_checkpoint()
    predictor = Predictor(checkpoint, network, num_views)
    names = run.class_names(settings.data_dir)
    note = views_note(num_views) + data_note(run.dataset)
    print(f'By {checkpoint}{note}', file=sys.stderr)
    unreadable: list[str] = []
    drawn = []
    for prediction in predictions(predictor, settings.pictures, unreadable):
        print(_line(prediction, names, settings.format), flush=True)
        if settings.output:
            drawn.append(prediction)
    if drawn:
        size, complete = network.view.size, CIFAR10_RECORD.height
        # Six views reach a pixel further on each side, and ten to the edges.
        seen = {1: size, 6: min(size + 2, complete), 10: complete}[num_views]
        figures.write(draw(drawn, names, f'{checkpoint}{note}', seen), settings.output)
        print(f'Wrote {settings.output}', file=sys.stderr)
    if unreadable:
        raise UserError(f'{len(unreadable)} of {len(settings.pictures)} pictures were skipped')


if __name__ == '__main__':
    run_script(predict, PredictSettings)
