"""Training graphs, built by the trainers themselves and handed over before their first step."""

from __future__ import annotations

import contextlib
import tempfile
import typing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import tensorflow.compat.v1 as tf

from cifar10_lib.training.begin import Run


class TrainingGraph(NamedTuple):
    """The tensors that a trainer opens its session with: see `session.training_session`."""

    run: Run
    images: tf.Tensor
    labels: tf.Tensor
    total_loss: tf.Tensor
    train_op: tf.Operation
    config: tf.ConfigProto


class _FinishedSession:
    def should_stop(self) -> bool:
        return True


def build_training_graph(train: Callable[[Any], None], **settings: Any) -> TrainingGraph:
    """Calls a trainer's `train`, which takes no step.

    Args:
      train: of one of the trainers.
      settings: of the trainer's class of settings, by name; `train_dir` is a temporary folder.

    Returns:
      Its tensors, in a graph of their own: `train_op.graph`.
    """
    built: list[TrainingGraph] = []

    @contextlib.contextmanager
    def hand_over(*tensors: Any) -> Iterator[_FinishedSession]:
        built.append(TrainingGraph(*tensors))
        yield _FinishedSession()

    settings_class = typing.get_type_hints(train)['settings']
    with (
        tempfile.TemporaryDirectory() as train_dir,
        mock.patch.dict(train.__globals__, training_session=hand_over),
    ):
        train(settings_class(train_dir=train_dir, **settings))
    return built[0]
