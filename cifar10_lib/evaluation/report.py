"""The report on an evaluation: one HTML page that needs no other file.

Its pictures are within it, and it has neither scripts nor requests.
"""

from __future__ import annotations

import datetime
import io
import os
from typing import Any, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from PIL import Image

from cifar10_lib.base import files
from cifar10_lib.base.errors import UserError, os_errors_named
from cifar10_lib.base.files import regular_size
from cifar10_lib.data.prepare import Prepared, data_note
from cifar10_lib.evaluation import analysis, figures, layer_table, pages, results
from cifar10_lib.evaluation.analysis import Series
from cifar10_lib.evaluation.evaluator import Scored
from cifar10_lib.evaluation.settings import EVAL_DATA_NAMES
from cifar10_lib.nn.layers import Network
from cifar10_lib.nn.schedules import distortions
from cifar10_lib.runs.checkpoints import Checkpoint
from cifar10_lib.runs.run_folder import RunFolder

REPORT_FILE = 'index.html'

_TEMPLATE = 'report.html.jinja'

# Marks a page as a report, within its first characters.
_MARKER = '<meta name="generator" content="cifar10_eval.py">'
_HEAD_CHARACTERS = 1000

_NUM_MISTAKES, _NUM_CONFUSIONS = 24, 10

# Most classes whose confusion matrix is readable as a table.
_MAX_CLASSES_OF_TABLE = 50


class Evaluation(NamedTuple):
    """One evaluation of one checkpoint, the subject of a report."""

    checkpoint: Checkpoint
    scored: Scored
    data: Prepared
    eval_data: str
    """Which images of the data: see `cifar10_input.EVAL_DATA`."""
    num_views: int
    """Of each image."""
    run: RunFolder
    """Folder of the checkpoint."""
    eval_dir: str
    """Folder with the history of the evaluations."""
    network: Network


def write(folder: str, evaluation: Evaluation) -> str:
    """Writes index.html and evaluation.json into a folder, which is created if necessary.

    Each of an earlier report's is replaced in one step; other files stay.

    Returns:
      Path of the page.

    Raises:
      UserError: the page can't be written, or its subject can't be read.
    """
    path = check_folder(folder)
    text = page(evaluation)
    run, data = evaluation.run, evaluation.data
    values = results.numbers(
        evaluation.scored,
        data.class_names,
        evaluation.eval_data,
        evaluation.num_views,
        run=run.run,
        network=run.model,
        checkpoint=os.path.abspath(evaluation.checkpoint.path),
        dataset=data.dataset,
    )
    with os_errors_named(path):
        os.makedirs(folder, exist_ok=True)
        files.replace_text(path, text)
        results.write(folder, values)
    return path


def check_folder(folder: str) -> str:
    """Makes sure that a report can be written into a folder.

    Returns:
      Path of its page.

    Raises:
      UserError: the path is not that of a folder, or the folder holds a page that is no report.
    """
    path = os.path.join(folder, REPORT_FILE)
    files.refuse_dangling_link(folder, '--report')
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise UserError(f'--report={folder}: not a folder; expected one, or a name for one')
    if os.path.lexists(path):
        regular_size(path, 'expected a report')
        with os_errors_named(path), open(path, encoding='utf-8', errors='replace') as file:
            if _MARKER not in file.read(_HEAD_CHARACTERS):
                raise UserError(
                    f'--report={folder}: holds an {REPORT_FILE} that is no report; name another '
                    'folder'
                )
    elif os.path.lexists(numbers := os.path.join(folder, results.RESULTS_FILE)):
        raise UserError(
            f'--report={folder}: holds {results.RESULTS_FILE} without a report: move {numbers} '
            'away, or name another folder'
        )
    return path


def page(evaluation: Evaluation) -> str:
    """The report as HTML."""
    result = evaluation.scored.result
    return pages.render(
        _TEMPLATE,
        marker=_MARKER,
        run=os.path.basename(os.path.abspath(evaluation.run.path)),
        checkpoint=evaluation.checkpoint.path,
        result=result,
        interval=analysis.wilson_interval(result.num_correct, result.num_examples),
        images=EVAL_DATA_NAMES[evaluation.eval_data],
        num_views=evaluation.num_views,
        note=data_note(evaluation.data.dataset).strip(' []'),
        written=f'{datetime.datetime.now():%Y-%m-%d %H:%M}',
        settings=[
            (name, '–' if value is None else str(value))
            for name, value in evaluation.run.settings.items()
        ],
        curves=_curves(evaluation),
        mistakes=_mistakes(evaluation),
        distortions=_distortions(evaluation),
        **_confusion(evaluation),
        **_network(evaluation),
        **_class_counts(evaluation),
    )


# ---------------------------------------------------------------------------- sections


def _curves(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Drawings of loss and precision, as far as the histories have them."""
    curves = analysis.read_curves('', evaluation.run, evaluation.eval_dir)
    precisions = '; '.join(f'of {line.label}, {_ends(line)}' for line in curves.precision)
    drawings = []
    for panel in ('loss', 'precision'):
        if panel not in curves.panels():
            continue
        alt = (
            f'Total loss over the steps, {_ends(curves.loss)}.'
            if panel == 'loss'
            else f'Precision over the steps: {precisions}.'
        )
        drawings.append(
            pages.drawing(figures.draw_curves([curves], 'step', panels=[panel]), alt, panel)
        )
    return drawings


def _ends(line: Series) -> str:
    first, last = (f'{line.y[i]:.3f} at step {line.x[i]:,.0f}' for i in (0, -1))
    return f'from {first} to {last}' if len(line.x) > 1 else last


def _confusion(evaluation: Evaluation) -> dict[str, Any]:
    """The confusion matrix, its drawing, and the scores of each class."""
    names = evaluation.data.class_names
    matrix = analysis.confusion_matrix(evaluation.scored.probabilities, evaluation.scored.labels)
    scores = analysis.class_scores(matrix)
    of_class = matrix.sum(axis=1)
    pairs = [
        (names[true], names[predicted], number, number / of_class[true])
        for true, predicted, number in analysis.most_frequent_confusions(matrix, _NUM_CONFUSIONS)
    ]
    most = ', '.join(
        f'{true} as {predicted} ({number:,})' for true, predicted, number, _ in pairs[:3]
    )
    alt = (
        f'Confusion matrix of {len(names)} classes: {matrix.trace():,} of {matrix.sum():,} images '
        f'lie on its diagonal, where the prediction is right. '
        + (f'The most frequent mistakes: {most}.' if most else 'There are no mistakes.')
    )
    return {
        'confusion': pages.drawing(figures.draw_confusion(matrix, names, ''), alt, 'confusion'),
        'confusions': pairs,
        'classes': list(zip(names, of_class.tolist(), *(s.tolist() for s in scores), strict=True)),
        'names': list(names),
        'matrix': [[name, *row] for name, row in zip(names, matrix.tolist(), strict=True)]
        if len(names) <= _MAX_CLASSES_OF_TABLE
        else None,
    }


def _mistakes(evaluation: Evaluation) -> list[dict[str, Any]]:
    _, probabilities, labels = evaluation.scored
    positions = analysis.most_confident_mistakes(probabilities, labels, _NUM_MISTAKES)
    images = analysis.evaluated_images(
        evaluation.eval_data,
        evaluation.data.directory,
        evaluation.run.find_held_out(evaluation.data),
        positions,
        evaluation.network.record,
    )
    names = evaluation.data.class_names
    mistakes = []
    for position, image in zip(positions, images, strict=True):
        predicted = probabilities[position].argmax()
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, 'PNG', optimize=True)
        mistakes.append(
            {
                'uri': pages.data_uri('image/png', buffer),
                'truth': names[labels[position]],
                'predicted': names[predicted],
                'probability': float(probabilities[position, predicted]),
            }
        )
    return mistakes


def _network(evaluation: Evaluation) -> dict[str, Any]:
    """The layers, and the filters of a first convolution."""
    filters = None
    if analysis.has_filters(evaluation.checkpoint):
        weights = analysis.first_filters(evaluation.checkpoint)
        height, width, _, count = weights.shape
        alt = f'{count} filters of {height} by {width} pixels'
        filters = pages.drawing(figures.draw_filters(weights, ''), alt, 'filters')
    with tf.Graph().as_default():
        layers = layer_table.network_layers(evaluation.network, evaluation.data.num_classes)
    num_weights = sum(layer.num_weights for layer in layers)
    rows = [
        (name, layer_table.describe_shape(shape), count, count / num_weights)
        for name, shape, count in layers
    ]
    return {'layers': rows, 'num_weights': num_weights, 'filters': filters}


def _distortions(evaluation: Evaluation) -> dict[str, Any]:
    network, names = evaluation.network, evaluation.data.class_names
    distorted = analysis.distorted_images(
        evaluation.data.directory,
        0,
        distortions(evaluation.run.recipe, network.size),
        network.view,
        network.record,
    )
    alt = f'Training images, each with {analysis.NUM_VERSIONS} distorted versions: ' + ', '.join(
        names[label] for label in distorted.labels
    )
    return pages.drawing(
        figures.draw_distortions(distorted, names, '', network.view), alt, 'distortions'
    )


def _class_counts(evaluation: Evaluation) -> dict[str, Any]:
    """Numbers of training and test images."""
    names = evaluation.data.class_names
    train, test = analysis.class_counts(
        evaluation.data.directory, len(names), evaluation.network.record
    )
    alt = (
        f'Bars of the images of {len(names)} classes: {_range(train)} training images and '
        f'{_range(test)} test images of each.'
    )
    return {
        'counts': pages.drawing(figures.draw_classes(train, test, names), alt, 'classes'),
        'class_counts': list(zip(names, train.tolist(), test.tolist(), strict=True)),
    }


def _range(counts: np.ndarray) -> str:
    low, high = counts.min(), counts.max()
    return f'{low:,}' if low == high else f'{low:,} to {high:,}'
