"""The report on an evaluation: one HTML page that needs no other file.

Its pictures are within it, and it has neither scripts nor requests.
"""

from __future__ import annotations

import base64
import datetime
import io
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import jinja2
import matplotlib
import numpy as np
import tensorflow.compat.v1 as tf
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from cifar10_input import NUM_VIEWS
from cifar10_lib.base import files
from cifar10_lib.base.errors import UserError, os_errors_named
from cifar10_lib.base.files import regular_size
from cifar10_lib.data.prepare import Prepared, data_note
from cifar10_lib.evaluation import analysis, figures, layer_table
from cifar10_lib.evaluation.analysis import Curves, Series
from cifar10_lib.evaluation.evaluator import Result
from cifar10_lib.nn.layers import Network
from cifar10_lib.nn.schedules import distortions
from cifar10_lib.runs.run_folder import RunFolder

REPORT_FILE = 'index.html'

_TEMPLATE = 'report.html.jinja'

# Tells a report from other pages, within so many characters.
_HEAD_CHARACTERS = 1000
_MARKER = '<meta name="generator" content="cifar10_eval.py">'

_NUM_MISTAKES, _NUM_CONFUSIONS = 24, 10

# Beyond these many classes the matrix is no table to read; the most frequent confusions are.
_MAX_CLASSES_OF_TABLE = 50

# A little larger than the 96 CSS pixels of an inch on paper.
_PIXELS_PER_INCH = 115


class Evaluated(NamedTuple):
    """What a report is about."""

    checkpoint: str
    """Its path, in the run's folder."""
    result: Result
    probabilities: np.ndarray
    """float32 [images, classes], in the order of the files."""
    labels: np.ndarray
    """int32 [images]."""
    data: Prepared
    eval_data: str
    """Which images of it: see `cifar10_input.EVAL_DATA`."""
    run: RunFolder
    average_views: bool
    eval_dir: str
    """Where evaluation writes its history."""
    network: Network


def write(folder: str, evaluated: Evaluated) -> str:
    """Writes index.html in a folder, which is made where there is none.

    A page that is there already is replaced at once; other files stay.

    Returns:
      The page's path.

    Raises:
      UserError: it can't be written, or what it tells of can't be read.
    """
    path = check_folder(folder)
    text = page(evaluated)
    with os_errors_named(path):
        os.makedirs(folder, exist_ok=True)
        files.replace_text(path, text)
    return path


def check_folder(folder: str) -> str:
    """Makes sure that a report can be written to a folder.

    Returns:
      Path of its page.

    Raises:
      UserError: the folder is none, or holds a page that is no report.
    """
    path = os.path.join(folder, REPORT_FILE)
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise UserError(f'--report={folder}: not a folder; expected one, or a name for one')
    if os.path.lexists(path) and not _is_report(path):
        raise UserError(
            f'--report={folder}: holds an {REPORT_FILE} that is no report; name another folder'
        )
    return path


def _is_report(path: str) -> bool:
    regular_size(path, 'expected a report')
    with os_errors_named(path), open(path, encoding='utf-8', errors='replace') as file:
        return _MARKER in file.read(_HEAD_CHARACTERS)


def page(evaluated: Evaluated) -> str:
    """The report as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(os.path.dirname(os.path.abspath(__file__))),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters['count'] = '{:,}'.format
    environment.filters['percent'] = _percent
    return environment.get_template(_TEMPLATE).render(
        **_headline(evaluated),
        **_training(evaluated),
        **_confusion(evaluated),
        **_network(evaluated),
        **_data(evaluated),
        mistakes=_mistakes(evaluated),
        marker=Markup(_MARKER),
    )


def _percent(share: float) -> str:
    return '–' if np.isnan(share) else f'{share:.1%}'


# ---------------------------------------------------------------------------- sections


def _headline(evaluated: Evaluated) -> dict[str, Any]:
    result = evaluated.result
    return {
        'run': os.path.basename(os.path.abspath(os.path.dirname(evaluated.checkpoint))),
        'checkpoint': evaluated.checkpoint,
        'result': result,
        'interval': analysis.wilson_interval(result.num_correct, result.num_examples),
        'images': analysis.IMAGES_IN_WORDS[evaluated.eval_data],
        'num_views': NUM_VIEWS if evaluated.average_views else 1,
        'note': data_note(evaluated.data.dataset).strip(' []'),
        'written': f'{datetime.datetime.now():%Y-%m-%d %H:%M}',
    }


def _training(evaluated: Evaluated) -> dict[str, Any]:
    """Curves, where there is a history, and settings."""
    train_dir = os.path.dirname(evaluated.checkpoint)
    curves = analysis.read_curves('', train_dir, evaluated.eval_dir)
    drawings = [
        _drawing(figures.draw_curves([curves], 'step', panels=[panel]), alt, panel)
        for panel, alt in _curves_in_words(curves).items()
    ]
    return {'curves': drawings, 'settings': evaluated.run.settings}


def _curves_in_words(curves: Curves) -> dict[str, str]:
    """What each panel that there is shows."""
    words = {}
    if len(curves.loss.x):
        words['loss'] = f'Total loss over the steps, {_ends(curves.loss)}.'
    if curves.precision:
        lines = [f'of {line.label}, {_ends(line)}' for line in curves.precision]
        words['precision'] = f'Precision over the steps: {"; ".join(lines)}.'
    return words


def _ends(line: Series) -> str:
    first, last = (f'{line.y[i]:.3f} at step {line.x[i]:,.0f}' for i in (0, -1))
    return f'from {first} to {last}' if len(line.x) > 1 else last


def _confusion(evaluated: Evaluated) -> dict[str, Any]:
    """The matrix, its picture, and what follows from it for each class."""
    names = evaluated.data.class_names
    matrix = analysis.confusion_matrix(evaluated.probabilities, evaluated.labels)
    scores = analysis.class_scores(matrix)
    of_class = matrix.sum(axis=1)
    pairs = [
        (names[true], names[guess], number, number / of_class[true])
        for true, guess, number in analysis.most_frequent_confusions(matrix, _NUM_CONFUSIONS)
    ]
    most = ', '.join(f'{true} for {guess} {number:,} times' for true, guess, number, _ in pairs[:3])
    alt = (
        f'Confusion matrix of {len(names)} classes: {matrix.trace():,} of {matrix.sum():,} images '
        f'lie on its diagonal, where the guess is right. '
        + (f'Most often it takes {most}.' if most else 'It takes none for another.')
    )
    return {
        'confusion': _drawing(figures.draw_confusion(matrix, names, ''), alt, 'confusion'),
        'confusions': pairs,
        'classes': list(zip(names, of_class.tolist(), *(s.tolist() for s in scores), strict=True)),
        'names': names,
        'matrix': matrix.tolist() if len(names) <= _MAX_CLASSES_OF_TABLE else None,
    }


def _mistakes(evaluated: Evaluated) -> list[dict[str, Any]]:
    places = analysis.most_confident_mistakes(
        evaluated.probabilities, evaluated.labels, _NUM_MISTAKES
    )
    images = analysis.evaluated_images(
        evaluated.eval_data, evaluated.data.directory, evaluated.run.num_held_out, places
    )
    guesses = evaluated.probabilities[places].argmax(axis=1)
    return [
        {
            'picture': _png(image),
            'truth': evaluated.data.class_names[evaluated.labels[place]],
            'guess': evaluated.data.class_names[guess],
            'probability': float(evaluated.probabilities[place, guess]),
        }
        for place, image, guess in zip(places, images, guesses, strict=True)
    ]


def _network(evaluated: Evaluated) -> dict[str, Any]:
    """Layers, and the filters of the first where it has any."""
    filters, pictures = None, None
    if analysis.has_filters(evaluated.checkpoint):
        weights = analysis.first_filters(evaluated.checkpoint)
        pictures = figures.filter_pictures(weights)
        filters = _png(_tiled(pictures, columns=16))
    with tf.Graph().as_default():
        layers = layer_table.layers_of(evaluated.network, len(evaluated.data.class_names))
    return {
        'layers': [(name, _in_words(shape), count) for name, shape, count in layers],
        'num_weights': sum(layer.num_weights for layer in layers),
        'filters': filters,
        'filter_shape': None if pictures is None else pictures.shape,
    }


def _in_words(shape: Iterable[int | None] | None) -> str:
    if shape is None:
        return '–'
    return ' × '.join('?' if size is None else str(size) for size in shape)


def _data(evaluated: Evaluated) -> dict[str, Any]:
    """Numbers of images, and what training makes of some."""
    names = evaluated.data.class_names
    train, test = analysis.class_counts(evaluated.data.directory, len(names))
    alt = (
        f'Bars of the images of {len(names)} classes: {_range(train)} training images and '
        f'{_range(test)} test images of each.'
    )
    drawing = _drawing(figures.draw_classes(train, test, names), alt, 'classes')
    return {
        'counts': drawing,
        'class_counts': list(zip(names, train.tolist(), test.tolist(), strict=True)),
        'distortions': _distortions(evaluated),
    }


def _range(counts: np.ndarray) -> str:
    low, high = counts.min(), counts.max()
    return f'{low:,}' if low == high else f'{low:,} to {high:,}'


def _distortions(evaluated: Evaluated) -> list[dict[str, Any]]:
    distorted = analysis.distorted_images(
        evaluated.data.directory,
        seed=0,
        distortions=distortions(evaluated.run.recipe),
        view=evaluated.network.view,
    )
    versions = figures.distorted_pictures(distorted.versions, evaluated.network.view)
    return [
        {
            'name': evaluated.data.class_names[label],
            'picture': _png(image),
            'versions': _png(_tiled(of_image, columns=len(of_image))),
            'count': len(of_image),
        }
        for image, label, of_image in zip(distorted.images, distorted.labels, versions, strict=True)
    ]


# ---------------------------------------------------------------------------- pictures


def _tiled(pictures: np.ndarray, columns: int) -> np.ndarray:
    """Pictures side by side, with a clear pixel between them.

    Args:
      pictures: float [pictures, height, width, 3], 0 to 1.
      columns: in a row.

    Returns:
      uint8 [rows * (height + 1) - 1, columns * (width + 1) - 1, 4].
    """
    count, height, width, _ = pictures.shape
    rows = -(-count // columns)
    tiles = np.zeros([rows * columns, height + 1, width + 1, 4], np.uint8)
    tiles[:count, :-1, :-1, :3] = np.round(255 * pictures)
    tiles[:count, :-1, :-1, 3] = 255
    tiles = tiles.reshape(rows, columns, height + 1, width + 1, 4).swapaxes(1, 2)
    return tiles.reshape(rows * (height + 1), columns * (width + 1), 4)[:-1, :-1]


def _png(pixels: np.ndarray) -> dict[str, Any]:
    """A picture as a data URI, with its size: uint8 [height, width, 3 or 4]."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, 'PNG', optimize=True)
    height, width = pixels.shape[:2]
    return {'uri': _data_uri('image/png', buffer.getvalue()), 'width': width, 'height': height}


def _drawing(figure: Figure, alt: str, name: str) -> dict[str, Any]:
    """A drawing as a data URI of an SVG.

    Args:
      figure: the drawing.
      alt: its alternative text.
      name: what it shows, for the label of a part of the page that scrolls.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context({'svg.hashsalt': name}):
        figure.savefig(buffer, format='svg', metadata={'Date': None})
    width, height = (round(_PIXELS_PER_INCH * inches) for inches in figure.get_size_inches())
    return {
        'uri': _data_uri('image/svg+xml', buffer.getvalue()),
        'alt': alt,
        'name': name,
        'width': width,
        'height': height,
    }


def _data_uri(media_type: str, content: bytes) -> str:
    return f'data:{media_type};base64,{base64.b64encode(content).decode("ascii")}'
