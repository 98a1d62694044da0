"""Evaluation and prediction: the network with the weights of a checkpoint.

An `Evaluator` scores checkpoints on a data set, a `Predictor` classifies pictures. Both see
images as evaluation does, undistorted, and use the moving averages of the weights.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10_input import (
    CIFAR10_RECORD,
    NUM_CLASSES,
    evaluation_places,
    evaluation_views,
    inputs,
)
from cifar10_lib.base.console import timestamp
from cifar10_lib.base.errors import UserError, error_message
from cifar10_lib.data.framing import Framing
from cifar10_lib.data.prepare import data_note
from cifar10_lib.data.record_files import check_eval_data
from cifar10_lib.evaluation.settings import EVAL_DATA_NAMES
from cifar10_lib.nn.layers import Network
from cifar10_lib.nn.recipes import MOVING_AVERAGE_DECAY
from cifar10_lib.runs import checkpoints, tensorboard
from cifar10_lib.runs.checkpoints import Checkpoint
from cifar10_lib.runs.history import Entry
from cifar10_lib.runs.run_folder import RunFolder

# Largest number of crops that the network computes together; it changes speed and memory, not
# the result.
BATCH_SIZE = 250


class Result(NamedTuple):
    """The result of an evaluation."""

    step: int
    num_correct: int
    num_examples: int
    cross_entropy: float
    """Mean over the images, in nats."""

    @property
    def precision(self) -> float:
        """Fraction of the images whose most likely class is the true one."""
        return self.num_correct / self.num_examples


class Scored(NamedTuple):
    """The result of an evaluation, with the probabilities it comes from."""

    result: Result
    probabilities: np.ndarray
    """float32 [images, classes], in the order of the files."""
    labels: np.ndarray
    """int32 [images]."""


class Restorer:
    """Restores the moving averages of checkpoints as the weights of the current graph."""

    def __init__(self) -> None:
        averages = tf.train.ExponentialMovingAverage(MOVING_AVERAGE_DECAY)
        self._weights = checkpoints.weights_by_name()
        self._averages = averages.variables_to_restore(tf.trainable_variables())

    def restore(self, session: tf.Session, checkpoint: Checkpoint) -> None:
        """Restores the averages of a checkpoint, or its weights if it has none.

        Warns if training should have kept averages.

        Raises:
          UserError: the checkpoint is of another network.
        """
        if checkpoint.holds_averages:
            variables = self._averages
        else:
            _warn_of_raw_weights(os.path.dirname(checkpoint.path))
            variables = self._weights
        checkpoint.check_shapes(variables)
        checkpoints.assign(session, ((v, checkpoint.values[n]) for n, v in variables.items()))


@functools.cache
def _warn_of_raw_weights(checkpoint_dir: str) -> None:
    """Warns once of a run without averages, unless its recipe keeps none."""
    if RunFolder.open(checkpoint_dir).recipe.moving_average_decay:
        print(
            f'Warning: the checkpoints in {checkpoint_dir} hold no moving averages; their raw '
            'weights are used',
            file=sys.stderr,
        )


def views_note(num_views: int) -> str:
    """Marks a result that was averaged over several views of each image."""
    return f' [averaged over {num_views} views]' if num_views > 1 else ''


# Of the names of summaries, by the number of views.
_TAG_ENDINGS = {1: '', 6: '_six_views', 10: '_ten_views'}

# Of the six views, in their order: those that aren't moved count twice.
_SIX_VIEWS = (0.25, 0.125, 0.125, 0.25, 0.125, 0.125)


def class_probabilities(logits: tf.Tensor, num_views: int = 1) -> tf.Tensor:
    """The probabilities of each image, averaged over its views.

    Over ten views probabilities are averaged, over six logits: see
    `cifar10_input.evaluation_views` for the sources.

    Args:
      logits: float32 [images * num_views, classes].
      num_views: one of `cifar10_input.NUM_VIEWS`.

    Returns:
      float32 [images, classes].
    """
    by_image = tf.reshape(logits, [-1, num_views, logits.shape.as_list()[-1]])
    if num_views == 6:
        weights = tf.constant(_SIX_VIEWS)[:, tf.newaxis]
        return tf.nn.softmax(tf.reduce_sum(by_image * weights, axis=1))
    return tf.reduce_mean(tf.nn.softmax(by_image), axis=1)


class Evaluator:
    """The evaluation graph, ready for one checkpoint after another."""

    def __init__(
        self,
        data_dir: str,
        network: Network,
        num_examples: int = 0,
        eval_data: str = 'test',
        num_views: int = 1,
        num_classes: int = NUM_CLASSES,
        held_out: Sequence[int] = (),
    ) -> None:
        """
        Args:
          data_dir: directory that holds the record files.
          network: of the checkpoints, for images of the records' size.
          num_examples: how many images to score; 0: all.
          eval_data: 'test', 'train_eval' or 'held_out'.
          num_views: of each image, one of `cifar10_input.NUM_VIEWS`; the result is their average.
          num_classes: size of the network's last layer.
          held_out: places of the training images that were held out of training.

        Raises:
          UserError: there are fewer images than asked for, or none.
        """
        check_eval_data(data_dir, eval_data)
        available = len(evaluation_places(eval_data, data_dir, held_out, network.record))
        if not max(num_examples, 1) <= available:
            raise UserError(
                f'--num_examples={num_examples}: --eval_data={eval_data} '
                f'in {data_dir} holds only {available}'
            )
        self.num_examples = num_examples or available
        self.graph = tf.Graph()
        with self.graph.as_default():
            # tf.data requires a seed where a deterministic run evaluates; nothing is random here.
            tf.set_random_seed(0)
            images, self._labels = inputs(
                eval_data,
                data_dir,
                BATCH_SIZE // num_views,
                self.num_examples,
                network.record,
                num_views=num_views,
                held_out=held_out,
                view=network.view,
            )
            logits = network.evaluate(images, num_classes)
            self._probabilities = class_probabilities(logits, num_views)
            scores = self._probabilities if num_views > 1 else logits
            self._hits = tf.nn.in_top_k(scores, self._labels, k=1)
            self._restorer = Restorer()

    def evaluate(
        self, checkpoint: Checkpoint, show_scored: Callable[[int], object] | None = None
    ) -> Result:
        """The result alone of `score`."""
        return self.score(checkpoint, show_scored).result

    def probabilities(self, checkpoint: Checkpoint) -> tuple[np.ndarray, np.ndarray]:
        """The probabilities and labels alone of `score`."""
        scored = self.score(checkpoint)
        return scored.probabilities, scored.labels

    def score(
        self, checkpoint: Checkpoint, show_scored: Callable[[int], object] | None = None
    ) -> Scored:
        """Scores all images with a checkpoint.

        Args:
          checkpoint: of the network.
          show_scored: called after each batch with the number of images scored so far.

        Raises:
          UserError: the checkpoint is of another network.
        """
        with tf.Session(graph=self.graph) as session:
            self._restorer.restore(session, checkpoint)
            hits, probabilities, labels = self._score_all(session, show_scored)
        result = Result(
            checkpoint.step, int(hits.sum()), hits.size, _cross_entropy(probabilities, labels)
        )
        return Scored(result, probabilities, labels)

    def _score_all(
        self, session: tf.Session, show_scored: Callable[[int], object] | None = None
    ) -> list[np.ndarray]:
        """Of all images: bool [images], float32 [images, classes] and int32 [images]."""
        batches: list[list[np.ndarray]] = []
        num_scored = 0
        while True:
            try:
                batch = session.run([self._hits, self._probabilities, self._labels])
            except tf.errors.OutOfRangeError:
                return [np.concatenate(parts) for parts in zip(*batches, strict=True)]
            batches.append(batch)
            num_scored += len(batch[0])
            if show_scored:
                show_scored(num_scored)


def _cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean of -log p of the true class; a p that float32 rounds to 0 counts as its least."""
    of_true_class = probabilities[np.arange(len(labels)), labels]
    least = np.finfo(np.float32).tiny
    return float(-np.log(np.maximum(of_true_class, least)).mean(dtype=np.float64))


class Predictor:
    """The network with the weights of one checkpoint, ready for pictures."""

    def __init__(self, checkpoint: Checkpoint, network: Network, num_views: int = 1) -> None:
        """
        Args:
          checkpoint: of the network.
          network: for pictures of its size.
          num_views: of each picture, one of `cifar10_input.NUM_VIEWS`; the result is their average.

        Raises:
          UserError: the checkpoint is of another network.
        """
        self._batch_size = BATCH_SIZE // num_views
        with tf.Graph().as_default():
            self._pictures = picture_placeholder(network.size)
            images = evaluation_views(self._pictures, network.view, num_views)
            logits = network.evaluate(images, checkpoint.num_classes)
            self._probabilities = class_probabilities(logits, num_views)
            self._session = tf.Session()
            Restorer().restore(self._session, checkpoint)

    def probabilities(self, pictures: np.ndarray) -> np.ndarray:
        """float32 [pictures, classes] of uint8 [pictures, size, size, 3]."""
        starts = range(0, len(pictures), self._batch_size)
        batches = [pictures[start : start + self._batch_size] for start in starts]
        run = self._session.run
        return np.concatenate([run(self._probabilities, {self._pictures: b}) for b in batches])


def network_framing(framing: Framing, network: Network) -> Framing:
    """How pictures are framed for a network, by the framing of its data set."""
    if not framing.inner and network.view.depth == 1:
        # A network of digits sees those 28 of 32 pixels that MNIST's images take.
        return dataclasses.replace(framing, inner=network.view.size)
    return framing


def picture_placeholder(size: int = CIFAR10_RECORD.height) -> tf.Tensor:
    """uint8 [batch, size, size, 3]: `images` of any batch size, in a record's size."""
    return tf.placeholder(tf.uint8, [None, size, size, CIFAR10_RECORD.depth], name='images')


def report_precision(
    result: Result,
    dataset: str | None,
    eval_data: str,
    num_views: int,
    writer: tf.summary.FileWriter,
) -> None:
    """Prints a precision, and writes it as a summary.

    Args:
      result: of an evaluation.
      dataset: that was evaluated on.
      eval_data: 'test', 'train_eval' or 'held_out'.
      num_views: of each image that the result is the average of.
      writer: of the summary.

    Raises:
      UserError: the summary can't be written.
    """
    notes = views_note(num_views) + data_note(dataset)
    images = 'images' if eval_data == 'test' else EVAL_DATA_NAMES[eval_data]
    print(
        f'{timestamp()}: precision @ 1 = {result.precision:.3f} '
        f'(step {result.step}, {result.num_examples} {images}){notes}',
        flush=True,
    )
    tag = f'precision/{eval_data}{_TAG_ENDINGS[num_views]}'
    writer.add_summary(tensorboard.scalar_value(tag, result.precision), result.step)
    try:
        writer.flush()
    except (RuntimeError, IndexError, tf.errors.OpError) as error:
        # Of the first two, which TensorFlow's status becomes here, the file and the reason.
        raise UserError(f'summaries: cannot be written: {error_message(error)}') from error


def evaluation_entry(result: Result, eval_data: str, num_views: int) -> Entry:
    """The entry of an evaluation in the history, with the number of views of each image."""
    return {
        'step': result.step,
        'precision': result.precision,
        'cross_entropy': result.cross_entropy,
        'eval_data': eval_data,
        'num_examples': result.num_examples,
        'views': num_views,
    }
