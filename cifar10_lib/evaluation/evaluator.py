"""How does a checkpoint become a classifier?

An `Evaluator` scores it on a data set, a `Predictor` classifies pictures; both see an image
as training's evaluation does, and take the moving averages as the weights.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10_input import (
    CIFAR10_RECORD,
    NUM_CLASSES,
    NUM_VIEWS,
    evaluation_crop,
    evaluation_range,
    evaluation_views,
    inputs,
)
from cifar10_lib.base.console import timestamp
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import setting
from cifar10_lib.data import prepare, record_files
from cifar10_lib.data.datasets import CIFAR10_DIRECTORY, DATA_DIR
from cifar10_lib.data.prepare import data_note
from cifar10_lib.data.record_files import CIFAR10_CLASS_NAMES, CLASS_NAMES_FILE
from cifar10_lib.nn.layers import Network, evaluation_options
from cifar10_lib.nn.presets import MODEL_NAMES
from cifar10_lib.nn.recipes import MOVING_AVERAGE_DECAY
from cifar10_lib.runs import checkpoints, run_folder, tensorboard
from cifar10_lib.runs.checkpoints import CheckpointFolder
from cifar10_lib.runs.history import Entry

# Largest number of crops that the network sees together; it changes speed and memory, not
# the result.
BATCH_SIZE = 250

# What a result says of itself where the probabilities of the views were averaged.
VIEWS_NOTE = f' [averaged over {NUM_VIEWS} views]'


def newest_checkpoint(folder: CheckpointFolder) -> str:
    """Path of the newest whole checkpoint.

    Raises:
      UserError: there is none.
    """
    newest = folder.newest_whole()
    if newest is None:
        raise UserError(
            f'--checkpoint_dir={folder.directory}: found no checkpoint; '
            'train first, for example with python cifar10_train.py'
        )
    return newest


def data_dir_of(checkpoint_dir: str, data_dir: str | None) -> str:
    """Where to look for the images: in `data_dir`, or else where the run did, if that is there.

    Raises:
      UserError: the run's settings can't be read.
    """
    if data_dir:
        return data_dir
    trained_on = str(run_folder.load(checkpoint_dir).get('data_dir', ''))
    return trained_on if os.path.isdir(trained_on) else DATA_DIR


def num_held_out(checkpoint_dir: str, eval_data: str) -> int:
    """How many training images the run held out for evaluation, by its settings.

    Raises:
      UserError: they are to be scored, and there are none; or the settings can't be read.
    """
    held_out = run_folder.load(checkpoint_dir).get('num_held_out', 0)
    if eval_data == 'held_out' and not held_out:
        raise UserError(
            f'--eval_data=held_out: the run in {checkpoint_dir} held no training images out; '
            'train with --num_held_out'
        )
    return held_out


class Result(NamedTuple):
    """What an evaluation found."""

    step: int
    num_correct: int
    num_examples: int

    @property
    def precision(self) -> float:
        """Fraction of the images whose most likely class is the true one."""
        return self.num_correct / self.num_examples


class Scored(NamedTuple):
    """What an evaluation found, and what of."""

    result: Result
    probabilities: np.ndarray
    """float32 [images, classes], in the order of the files."""
    labels: np.ndarray
    """int32 [images]."""


class Restorer:
    """Gives the current graph's weights the moving averages of one checkpoint after another."""

    def __init__(self) -> None:
        self._weights = checkpoints.weights_by_name()
        self._averages = tf.train.ExponentialMovingAverage(
            MOVING_AVERAGE_DECAY
        ).variables_to_restore(tf.trainable_variables())
        self._weights_saver = tf.train.Saver(self._weights)
        self._averages_saver = tf.train.Saver(self._averages)

    def restore(self, session: tf.Session, checkpoint: str) -> None:
        """Restores a checkpoint: the averages, or the weights where it has none.

        Where training should have kept averages, that is worth a warning.

        Raises:
          UserError: it can't be read, or is of another network.
          tf.errors.OpError: it went away while it was read.
        """
        if checkpoints.holds_averages(checkpoint):
            variables, saver = self._averages, self._averages_saver
        else:
            _warn_of_raw_weights(os.path.dirname(checkpoint))
            variables, saver = self._weights, self._weights_saver
        checkpoints.check_shapes(checkpoint, variables)
        saver.restore(session, checkpoint)


@functools.cache
def _warn_of_raw_weights(checkpoint_dir: str) -> None:
    """Says once of a run that it has no averages, unless it was asked to keep none."""
    if run_folder.load(checkpoint_dir).get('moving_average_decay') != 0:
        print(
            f'Warning: the checkpoints in {checkpoint_dir} hold no moving averages; their raw '
            'weights are used',
            file=sys.stderr,
        )


def class_probabilities(logits: tf.Tensor, average_views: bool = False) -> tf.Tensor:
    """float32 [images, classes] of logits [images, classes], or [views of images, classes]."""
    probabilities = tf.nn.softmax(logits)
    if not average_views:
        return probabilities
    of_views = tf.reshape(probabilities, [-1, NUM_VIEWS, logits.shape.as_list()[-1]])
    return tf.reduce_mean(of_views, axis=1)


def unseen(num_scored: int) -> None:
    """Shows nothing of how many images have been scored."""


class Evaluator:
    """The evaluation graph, ready for one checkpoint after another."""

    def __init__(
        self,
        data_dir: str,
        network: Network,
        num_examples: int = 0,
        eval_data: str = 'test',
        average_views: bool = False,
        num_classes: int = NUM_CLASSES,
        num_held_out: int = 0,
    ) -> None:
        """
        Args:
          data_dir: directory that holds the record files.
          num_examples: how many images to score; 0: all.
          eval_data: 'test', 'train_eval' or 'held_out'.
          average_views: average the probabilities over ten views of each image.
          num_classes: size of the network's last layer.
          num_held_out: how many of the last training images were held out of training.
          network: of the checkpoints.

        Raises:
          UserError: there are fewer images than asked for, or none.
        """
        _, available = evaluation_range(eval_data, data_dir, num_held_out)
        if not max(num_examples, 1) <= available:
            raise UserError(
                f'--num_examples={num_examples}: --eval_data={eval_data} '
                f'in {data_dir} holds only {available}'
            )
        self.num_examples = num_examples or available
        self.graph = tf.Graph()
        with self.graph.as_default():
            # What tf.data asks for where a deterministic run evaluates; nothing here is drawn.
            tf.set_random_seed(0)
            images, self._labels = inputs(
                eval_data,
                data_dir,
                BATCH_SIZE // NUM_VIEWS if average_views else BATCH_SIZE,
                self.num_examples,
                crop=evaluation_views if average_views else evaluation_crop,
                num_held_out=num_held_out,
                view=network.view,
            )
            logits = network.inference(images, evaluation_options(num_classes))
            self._probabilities = class_probabilities(logits, average_views)
            scores = self._probabilities if average_views else logits
            self._hits = tf.nn.in_top_k(scores, self._labels, k=1)
            self._restorer = Restorer()

    def evaluate(self, checkpoint: str, show_scored: Callable[[int], object] = unseen) -> Result:
        """Scores a checkpoint: see `score`."""
        return self.score(checkpoint, show_scored).result

    def probabilities(self, checkpoint: str) -> tuple[np.ndarray, np.ndarray]:
        """What the network takes each image for, and what it is: see `score`."""
        scored = self.score(checkpoint)
        return scored.probabilities, scored.labels

    def score(self, checkpoint: str, show_scored: Callable[[int], object] = unseen) -> Scored:
        """Scores a checkpoint, and tells what it takes each image for.

        Args:
          checkpoint: its path.
          show_scored: is told, as it goes on, how many images have been scored.

        Raises:
          UserError: it can't be read, or is of another network.
          tf.errors.OpError: it went away while it was read.
        """
        with tf.Session(graph=self.graph) as session:
            self._restorer.restore(session, checkpoint)
            hits, probabilities, labels = self._score_all(session, show_scored)
        step = checkpoints.step_of(checkpoint)
        return Scored(Result(step, int(hits.sum()), hits.size), probabilities, labels)

    def _score_all(
        self, session: tf.Session, show_scored: Callable[[int], object] = unseen
    ) -> list[np.ndarray]:
        """Of all images: bool [images], float32 [images, classes] and int32 [images]."""
        batches = []
        num_scored = 0
        for batch in _until_the_end(session, self._hits, self._probabilities, self._labels):
            batches.append(batch)
            num_scored += len(batch[0])
            show_scored(num_scored)
        return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def _until_the_end(session: tf.Session, *tensors: tf.Tensor) -> Iterator[list[np.ndarray]]:
    """Their values, one batch after another."""
    while True:
        try:
            yield session.run(list(tensors))
        except tf.errors.OutOfRangeError:
            return


class Predictor:
    """The network with the weights of one checkpoint, ready for pictures."""

    def __init__(self, checkpoint: str, network: Network, average_views: bool = False) -> None:
        """
        Args:
          checkpoint: its path.
          average_views: average the probabilities over ten views of each picture.
          network: of the checkpoint.

        Raises:
          UserError: it can't be read, or is of another network.
        """
        self.network = network
        self.num_classes = num_classes_of(checkpoint)
        self._batch_size = BATCH_SIZE // NUM_VIEWS if average_views else BATCH_SIZE
        with tf.Graph().as_default():
            self._pictures = picture_placeholder()
            crop = evaluation_views if average_views else evaluation_crop
            images = crop(self._pictures, network.view)
            logits = network.inference(images, evaluation_options(self.num_classes))
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
    shapes = checkpoints.open_checkpoint(checkpoint).get_variable_to_shape_map()
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
    stored = run_folder.load(checkpoint_dir)
    dataset = stored.get('dataset', 'cifar10')
    named = _names_directory(data_dir or str(stored.get('data_dir', '')), dataset)
    if named:
        names = record_files.class_names(named)
        if len(names) != num_classes:
            raise UserError(
                f'{os.path.join(named, CLASS_NAMES_FILE)}: found {len(names)} class names; '
                f'expected {num_classes}, as many as the checkpoints in {checkpoint_dir} tell apart'
            )
        return names
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
    below = {'cifar10': CIFAR10_DIRECTORY, 'synthetic': prepare.SYNTHETIC_DIRECTORY}
    for directory in (os.path.join(data_dir, below.get(dataset, '')), data_dir):
        if data_dir and os.path.lexists(os.path.join(directory, CLASS_NAMES_FILE)):
            return directory
    return None


def report_precision(
    result: Result,
    dataset: str | None,
    eval_data: str,
    average_views: bool,
    writer: tf.summary.FileWriter,
) -> None:
    """Prints a precision, and writes it as a summary.

    Args:
      result: of an evaluation.
      dataset: what it was done on.
      eval_data: name of the images.
      average_views: whether probabilities were averaged over ten views of each.
      writer: of the summary.
    """
    note = VIEWS_NOTE if average_views else ''
    print(
        f'{timestamp()}: precision @ 1 = {result.precision:.3f} '
        f'(step {result.step}, {result.num_examples} images){note}{data_note(dataset)}',
        flush=True,
    )
    tag = f'precision/{eval_data}{"_ten_views" if average_views else ""}'
    writer.add_summary(tensorboard.scalar_value(tag, result.precision), result.step)
    writer.flush()


def evaluation_entry(result: Result, eval_data: str, num_views: int) -> Entry:
    """What the history keeps of an evaluation.

    Args:
      result: of it.
      eval_data: name of the images.
      num_views: of each image.
    """
    return {
        'step': result.step,
        'precision': result.precision,
        'eval_data': eval_data,
        'num_examples': result.num_examples,
        'views': num_views,
    }


def model_setting() -> Any:
    """The flag --model of a script that opens checkpoints."""
    return setting(
        None,
        'The network of the checkpoints; by default the one that the settings beside them name, '
        'else tutorial.',
        choices=MODEL_NAMES,
    )


def network_name(directory: str, asked_for: str | None = None) -> str:
    """The network of the checkpoints in a folder.

    Args:
      directory: of the checkpoints.
      asked_for: its name, for a folder without settings; None: the tutorial's there.

    Raises:
      UserError: the settings can't be read, name a network that isn't there, or another one
        than is asked for.
    """
    stored = run_folder.load(directory)
    named = run_folder.stored_choice(stored, directory, 'model', MODEL_NAMES)
    name = named or (None if stored else asked_for) or 'tutorial'
    if asked_for not in (None, name):
        raise UserError(
            f'--model={asked_for}: the checkpoints in {directory} are of the network {name}'
        )
    return name
