r"""Classifies pictures with the newest checkpoint.

    python cifar10_predict.py photo.jpg more/ 'others/*.png'

prints the three likeliest classes of each picture, or --top, with their probabilities:

    photo.jpg: cat 0.812, dog 0.101, frog 0.043

A picture is framed as those of the data set were: the central square is scaled to the size of a
record, unless --fit says otherwise, and the network sees it as in evaluation. Of a folder all
pictures are taken. All formats that the installed Pillow reads.

    python cifar10_predict.py --index=4444
    python cifar10_predict.py test.csv --output=submission.csv

The first classifies a test image of the data set by its number, from 0 on; the second the rows of
a table of pixels, as Kaggle has MNIST's, and writes ImageId,Label.
"""

from __future__ import annotations

from cifar10_lib.base.start import start
from cifar10_lib.evaluation.settings import PredictSettings

# Before TensorFlow is imported, which takes seconds.
start(__name__, PredictSettings)

import csv
import dataclasses
import glob
import io
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

import cifar10
from cifar10_input import test_files
from cifar10_lib.base import files
from cifar10_lib.base.errors import UserError, write_errors_named
from cifar10_lib.base.flags import run_script
from cifar10_lib.base.names import printable
from cifar10_lib.data import photos, record_files
from cifar10_lib.data.framing import Framing
from cifar10_lib.data.prepare import data_note
from cifar10_lib.data.sources import digits
from cifar10_lib.data.sources.base import files_below
from cifar10_lib.evaluation import analysis, figures
from cifar10_lib.evaluation.evaluator import BATCH_SIZE, Predictor, network_framing, views_note
from cifar10_lib.nn.layers import Network
from cifar10_lib.runs.run_folder import RunFolder

# In one drawing.
MAX_DRAWN = 60

_EXAMPLE = 'for example: python cifar10_predict.py photo.jpg'


class Picture(NamedTuple):
    """One picture, as the network and as people see it."""

    name: str
    pixels: np.ndarray
    """uint8 [size, size, 3], as in a record."""
    drawn: np.ndarray
    """uint8 [side, side, 3], the same square."""
    truth: int | None = None
    """Its label, where it is known."""


class Prediction(NamedTuple):
    """The probabilities of a picture's classes."""

    picture: Picture
    probabilities: np.ndarray
    """float32 [classes]."""

    def top(self, count: int) -> list[int]:
        """Labels of at most `count` classes, the likeliest first."""
        return np.argsort(-self.probabilities, kind='stable')[:count].tolist()


# ---------------------------------------------------------------------------- pictures


def find_pictures(arguments: Sequence[str]) -> list[str]:
    """Paths of pictures: those in folders and of patterns, and whatever else is named.

    Raises:
      UserError: a folder holds no picture, or nothing has the name or matches the pattern.
    """
    paths: list[str] = []
    for argument in arguments:
        found = [argument]
        if os.path.isdir(argument):
            found = [path for path in files_below(argument) if photos.is_picture(path)]
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            found = sorted(glob.glob(argument, recursive=True))
        if not found:
            raise UserError(f'{argument}: found no pictures; {_EXAMPLE}')
        paths += found
    return paths


def read_files(
    paths: Sequence[str], framing: Framing, unreadable: list[str], draws: bool
) -> Iterator[Picture]:
    """Reads pictures.

    Args:
      paths: of the pictures.
      framing: how they become squares.
      unreadable: the path of each skipped picture is added, after an error on stderr.
      draws: whether they are drawn as well.
    """
    for path in paths:
        try:
            image = photos.load(path, framing.size)
        except UserError as error:
            unreadable.append(path)
            print(f'Skipped: {printable(str(error))}', file=sys.stderr)
            continue
        pixels = photos.square(image, framing)
        drawn = photos.square(image, framing.scaled(photos.DRAWN_SIZE)) if draws else pixels
        yield Picture(path, pixels, drawn)


def read_rows(rows: digits.Rows, framing: Framing) -> Iterator[Picture]:
    """The images of a table, named by their numbers from 1 on, as Kaggle has them."""
    for number, image in enumerate(rows.images, 1):
        pixels = photos.from_array(image, framing, rows.path)
        yield Picture(str(number), pixels, _enlarged(pixels))


def read_test_image(index: int, directory: str, framing: Framing) -> Picture:
    """A test image of a data set.

    Raises:
      UserError: there are fewer.
    """
    (path,) = test_files(directory)
    labels = record_files.read_labels(path, framing.record)
    if index >= len(labels):
        raise UserError(f'--index={index}: {path} holds the images 0 to {len(labels) - 1:,}')
    (pixels,) = analysis.read_images([path], np.array([index]), framing.record)
    return Picture(f'test image {index}', pixels, _enlarged(pixels), int(labels[index]))


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    """uint8 [192, 192, 3] of a square, pixel by pixel."""
    size = (photos.DRAWN_SIZE, photos.DRAWN_SIZE)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST))


def frame(settings: PredictSettings, framing: Framing, network: Network) -> Framing:
    """How pictures are framed, by those of training, the network and the flags."""
    framing = network_framing(framing, network)
    invert = framing.invert or settings.invert
    return dataclasses.replace(framing, fit=settings.fit or framing.fit, invert=invert)


def predictions(predictor: Predictor, pictures: Iterable[Picture]) -> Iterator[Prediction]:
    """Classifies pictures in batches, so that any number of them fits into memory."""
    pictures = iter(pictures)
    while some := list(itertools.islice(pictures, BATCH_SIZE)):
        probabilities = predictor.probabilities(np.stack([picture.pixels for picture in some]))
        yield from map(Prediction, some, probabilities)


# ----------------------------------------------------------------------------- results


def _line(prediction: Prediction, names: Sequence[str], output_format: str, top: int) -> str:
    """One line of text or JSON, of the `top` likeliest classes."""
    picture = prediction.picture
    likeliest = [(label, float(prediction.probabilities[label])) for label in prediction.top(top)]
    if output_format == 'json':
        classes = [
            {'class': names[label], 'label': label, 'probability': probability}
            for label, probability in likeliest
        ]
        truth = {} if picture.truth is None else {'truth': names[picture.truth]}
        return json.dumps({'file': picture.name, **truth, 'top': classes})
    text = ', '.join(f'{names[label]} {probability:.3f}' for label, probability in likeliest)
    return f'{_title(picture, names)}: {text}'


def _title(picture: Picture, names: Sequence[str]) -> str:
    truth = '' if picture.truth is None else f' ({names[picture.truth]})'
    return f'{printable(picture.name)}{truth}'


def draw(
    some: Sequence[Prediction],
    names: Sequence[str],
    title: str,
    top: int = PredictSettings.top,
    seen: float = 1.0,
) -> figures.Figure:
    """The pictures with their likeliest classes.

    Args:
      some: one or more.
      names: of the classes.
      title: above all.
      top: how many classes are shown of each picture.
      seen: side of the central part that the network sees, as a fraction of a record's.
    """
    pictures = [prediction.picture for prediction in some]
    return figures.draw_predictions(
        [picture.drawn for picture in pictures],
        [
            _title(picture._replace(name=os.path.basename(picture.name)), names)
            for picture in pictures
        ],
        [[(names[n], float(each.probabilities[n])) for n in each.top(top)] for each in some],
        title,
        seen,
    )


def table(some: Sequence[Prediction], names: Sequence[str], header: Sequence[str]) -> str:
    """CSV of the name of each picture and its likeliest class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(header)
    writer.writerows((each.picture.name, names[each.top(1)[0]]) for each in some)
    return text.getvalue()


# ---------------------------------------------------------------------------- the script


def _check(settings: PredictSettings, num_pictures: int) -> None:
    """Raises UserError for an output that can't be, before any work is done."""
    if settings.output is None:
        return
    files.refuse_among(settings.output, settings.pictures, '--output')
    if settings.output.endswith('.csv'):
        return
    figures.check_output(settings.output, ('.png', '.svg', '.csv'))
    if num_pictures > MAX_DRAWN:
        raise UserError(
            f'--output={settings.output}: found {num_pictures:,} pictures to draw; '
            f'expected at most {MAX_DRAWN}, or a name that ends in .csv'
        )


def predict(settings: PredictSettings) -> None:
    """Prints the likeliest classes of each picture, and draws or lists them if asked to.

    Raises:
      UserError: nothing can be predicted, or, at the end, pictures were skipped.
    """
    if not settings.pictures and settings.index < 0:
        raise UserError(f'found no picture to classify; {_EXAMPLE}')
    if settings.pictures and settings.index >= 0:
        raise UserError(f'--index={settings.index}: found {settings.pictures[0]} as well')
    rows, paths = None, []
    if len(settings.pictures) == 1 and digits.is_table(settings.pictures[0]):
        rows = digits.read_rows(settings.pictures[0])
    elif settings.index < 0:
        paths = find_pictures(settings.pictures)
    _check(settings, len(rows.images) if rows else len(paths))

    run = RunFolder.open(settings.checkpoint_dir, settings.model, settings.checkpoint)
    network = run.configure(cifar10.NETWORKS[run.model])
    framing = frame(settings, run.framing, network)
    checkpoint = run.require_checkpoint()
    predictor = Predictor(checkpoint, network, settings.num_views)
    names = run.class_names(settings.data_dir)
    note = views_note(settings.num_views) + data_note(run.dataset)
    print(f'By {checkpoint}{note}', file=sys.stderr)

    unreadable: list[str] = []
    is_table = bool(settings.output and settings.output.endswith('.csv'))
    pictures: Iterable[Picture]
    if rows:
        pictures = read_rows(rows, framing)
    elif paths:
        pictures = read_files(paths, framing, unreadable, bool(settings.output) and not is_table)
    else:
        directory = run.prepare_data(settings.data_dir).directory
        pictures = [read_test_image(settings.index, directory, framing)]
    found = []
    for prediction in predictions(predictor, pictures):
        if not (rows and is_table):
            print(_line(prediction, names, settings.format, settings.top), flush=True)
        if settings.output:
            empty = np.empty(0)
            light = prediction.picture._replace(pixels=empty, drawn=empty)
            found.append(prediction._replace(picture=light) if is_table else prediction)
    if found:
        _write(found, names, settings, f'{checkpoint}{note}', network, bool(rows))
    if unreadable:
        raise UserError(f'{len(unreadable)} of {len(paths)} pictures were skipped')


def _write(
    found: Sequence[Prediction],
    names: Sequence[str],
    settings: PredictSettings,
    title: str,
    network: Network,
    of_rows: bool,
) -> None:
    """Writes --output."""
    if settings.output.endswith('.csv'):
        header = ('ImageId', 'Label') if of_rows else ('file', 'class')
        with write_errors_named(f'--output={settings.output}'):
            files.replace_text(settings.output, table(found, names, header))
    else:
        size, complete = network.view.size, network.size
        # Six views reach a pixel further on each side, and ten to the edges.
        seen = {1: size, 6: min(size + 2, complete), 10: complete}[settings.num_views]
        figures.write(draw(found, names, title, settings.top, seen / complete), settings.output)
    print(f'Wrote {settings.output}', file=sys.stderr)


if __name__ == '__main__':
    run_script(predict, PredictSettings)
