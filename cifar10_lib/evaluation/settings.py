"""The settings of the scripts that open checkpoints to score, classify and draw."""

from __future__ import annotations

import dataclasses
from typing import Any

from cifar10_lib.base.flags import LARGEST_SEED, arguments, path_setting, setting
from cifar10_lib.data.datasets import DATASETS, FITS
from cifar10_lib.nn.presets import MODEL_NAMES

# As `cifar10_input` has them, which loads TensorFlow.
EVAL_DATA = ('test', 'train_eval', 'held_out')
NUM_VIEWS = (1, 6, 10)

# The same for readers.
EVAL_DATA_NAMES = {
    'test': 'test images',
    'train_eval': 'training images',
    'held_out': 'held-out training images',
}

# Kinds of figures of `cifar10_plot.py`.
PLOT_NAMES = (
    *('curve', 'confusion', 'mistakes', 'reliability', 'filters', 'feature_maps', 'saliency'),
    *('grad_cam', 'embedding', 'layers', 'distortions', 'classes', 'kernels', 'all'),
)

# Of a curve: each axis by name, and its key in a line of the history.
AXES = {'step': 'step', 'examples': 'examples', 'time': 'seconds'}


def model_setting() -> Any:
    """The flag --model of a script that opens checkpoints."""
    return setting(
        None,
        'The network of the checkpoints; by default the one that the settings beside them name, '
        'else tutorial.',
        choices=MODEL_NAMES,
    )


def checkpoint_setting() -> Any:
    """The flag --checkpoint of a script that opens checkpoints."""
    return path_setting(
        None,
        'A checkpoint in place of the newest one: its path, that of one of its files, or its '
        'name in the folder of the run.',
    )


def views_setting() -> Any:
    """The flag --views of a script that scores images."""
    return setting(
        '1',
        'Views of each image, whose results are averaged, at so many times the work: 1, the '
        'centre; 6, it and shifts by a pixel; 10, it and the corners; half of them mirrored.',
        choices=[str(count) for count in NUM_VIEWS],
    )


class _ScoresViews:
    """Settings with the flag of `views_setting`."""

    views: str

    @property
    def num_views(self) -> int:
        """Number of views of each image."""
        return int(self.views)


@dataclasses.dataclass(frozen=True)
class EvalSettings(_ScoresViews):
    """What an evaluation is asked to do."""

    eval_dir: str = path_setting(
        None, 'Folder for the summaries and history.jsonl; by default eval in --checkpoint_dir.'
    )
    checkpoint_dir: str = path_setting('cifar10_train', 'Folder of the checkpoints.')
    checkpoint: str = checkpoint_setting()
    model: str = model_setting()
    eval_data: str = setting(
        'test',
        'The images: test; train_eval, the training images; or held_out, those that '
        '--num_held_out kept from training.',
        choices=EVAL_DATA,
    )
    eval_interval_secs: int = setting(
        300, 'Seconds between looks for a new checkpoint.', at_least=1
    )
    keep_best: bool = setting(
        False,
        'Keep a copy of the checkpoint of the best precision so far in the folder best of '
        '--eval_dir.',
    )
    views: str = views_setting()
    report: str = path_setting(
        None,
        'Folder for a report, an HTML page, of the newest evaluation, and its numbers, '
        'evaluation.json; replaced by the next.',
    )
    predictions: str = path_setting(
        None,
        'File for the probabilities of all classes of each image, .csv; replaced by the next '
        'evaluation.',
    )
    num_examples: int = setting(0, 'How many images to score; 0: all.', at_least=0)
    run_once: bool = setting(False, 'Evaluate the newest checkpoint and exit.')
    progress: bool = setting(True, 'On a terminal, show how many images have been scored.')
    data_dir: str = path_setting(
        None, 'Folder of the data set; by default the one that training used.'
    )
    dataset: str = setting(
        None,
        'The data set; by default the one that the checkpoints were trained on.',
        choices=tuple(name for name in DATASETS if name != 'auto'),
    )


@dataclasses.dataclass(frozen=True)
class PredictSettings(_ScoresViews):
    """What to classify, and how to show the result."""

    pictures: tuple[str, ...] = arguments()
    checkpoint_dir: str = path_setting('cifar10_train', 'Folder of the checkpoints.')
    checkpoint: str = checkpoint_setting()
    model: str = model_setting()
    data_dir: str = path_setting(
        None,
        'Folder of the data set, for the names of its classes and --index; by default the one '
        'that training used.',
    )
    index: int = setting(
        -1, 'Classify the test image of this number, from 0 on; -1: none.', at_least=-1
    )
    fit: str = setting(
        None,
        'How a picture becomes a square: crop, the largest one in its middle; pad, all of it '
        'between black bars; or stretch; by default as those of the data set did.',
        choices=FITS,
    )
    invert: bool = setting(
        False, 'Exchange black and white, as for digits drawn in black on white.'
    )
    format: str = setting(
        'text',
        'Format of each printed line: text, or json, an object.',
        choices=('text', 'json'),
    )
    output: str = path_setting(
        None,
        'File to write: .png or .svg, a drawing of each picture and its classes; .csv, a table of '
        'the likeliest class of each.',
    )
    top: int = setting(
        3, 'How many of the likeliest classes are shown of each picture.', at_least=1
    )
    views: str = views_setting()


@dataclasses.dataclass(frozen=True)
class PlotSettings:
    """What to draw, and where to."""

    runs: tuple[str, ...] = arguments()
    table: str = path_setting(
        None,
        'File for the table of several runs: .csv, .json, or .html, a page with their curves.',
    )
    sort: str = setting(
        'accuracy',
        'Column that orders several runs, such as accuracy, minutes or a setting; a - before it '
        'turns the order round.',
    )
    train_dir: str = path_setting(
        'cifar10_train', 'Folder that training wrote; it can also be named without the flag.'
    )
    eval_dir: str = path_setting(
        None,
        'Folder that evaluation wrote; for several runs as many, in their order, with commas '
        'between them. By default the folder eval in that of training.',
    )
    output: str = path_setting(
        None,
        'Picture to write, .png or .svg, by default cifar10_PLOT.png; of --plot=all the folder, by '
        'default cifar10_plots.',
    )
    plot: str = setting(
        'curve',
        'What to draw: curve, confusion, mistakes, reliability, filters, feature_maps, saliency, '
        'grad_cam, embedding, layers, distortions, classes, kernels, or all.',
        choices=PLOT_NAMES,
    )
    picture: str = path_setting(
        None,
        'Picture for feature_maps, saliency, grad_cam and kernels; by default the first test '
        'image, for saliency and grad_cam the most confident mistakes; kernels needs one.',
    )
    kernel: str = setting(
        'sobel_x',
        'Kernel of kernels: identity, blur, gaussian, sharpen, edge, laplacian, sobel_x, sobel_y, '
        'prewitt_x, prewitt_y, emboss, or nine numbers, row by row, as 1,0,-1,2,0,-2,1,0,-1.',
    )
    x: str = setting(
        'step',
        'Axis of the curves: step, examples, or time of training.',
        choices=tuple(AXES),
    )
    eval_data: str = setting(
        'test',
        'The images that are evaluated or shown: test, train_eval or held_out.',
        choices=EVAL_DATA,
    )
    checkpoint: str = checkpoint_setting()
    model: str = model_setting()
    data_dir: str = path_setting(
        None, 'Folder of the data set; by default the one that training used.'
    )
    seed: int = setting(0, 'Seed of the distortions.', at_least=0, at_most=LARGEST_SEED)
