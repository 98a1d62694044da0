"""Events for TensorBoard: the graph, the settings and the speed of a run.

    make board

Scalars are grouped by the part of their tag before the first slash:

    loss/total, loss/cross_entropy, loss/weight_decay_local3, loss/weight_decay_local4
    loss_average/...: the same, averaged over about ten steps
    precision/test, precision/train_eval: of an evaluation
    sparsity/conv1, ...: fraction of zeros among a layer's activations
    train/learning_rate, train/examples_per_sec

Histograms are grouped by layer: conv1/activations, conv1/weights/values,
conv1/weights/gradients, ...; input/distorted/image is the first images of a batch. The
HParams table has the settings of each run beside its precision and its loss.

The graph has the scopes input; part_0, part_1, ... of one device, or tower_0, tower_1, ... of
several, each with its layers (conv1, pool1, norm1, ...); gradients; train, the update of
weights and averages; variables; and summaries, all that is computed for TensorBoard alone.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any

import tensorflow.compat.v1 as tf
from tensorboard.plugins.hparams import summary_v2 as hparams

from cifar10_lib.base.names import printable

# Results in the HParams table: tag and heading.
_RESULTS = {'precision/test': 'precision @ 1', 'loss_average/cross_entropy': 'cross entropy'}

# Settings of the machine, the folders and the schedule of outputs, which don't change what a run
# learns.
NOT_HPARAMS = frozenset(
    {
        'batch_splits',
        'data_dir',
        'data_dir_from_run',
        'data_url',
        'deterministic',
        'inter_op_threads',
        'intra_op_threads',
        'log_device_placement',
        'log_frequency',
        'max_to_keep',
        'progress',
        'run',
        'save_checkpoint_secs',
        'save_checkpoint_steps',
        'save_histograms_steps',
        'save_summaries_steps',
        'start_over',
        'test_files_sha256',
        'tower_device',
        'train_dir',
        'training_files_sha256',
        'variables',
        'wait_secs',
    }
)


def add_graph(writer: tf.summary.FileWriter, graph: tf.Graph) -> None:
    """Writes a training graph, readable by towers and their layers.

    Operations of variables are moved into a scope `variables`: in a scope for each layer, they
    would make TensorBoard draw the towers, which read them all, apart from the main graph. The
    bodies of functions are left out.
    """
    shown = graph.as_graph_def(add_shapes=True)
    shown.ClearField('library')
    variables = {op.name for op in graph.get_operations() if op.type == 'VarHandleOp'}
    names = {node.name: _shown_name(node.name, variables) for node in shown.node}
    for node in shown.node:
        node.name = names[node.name]
        node.input[:] = [_renamed(reference, names) for reference in node.input]
        # It names colocated operations by their old names.
        node.attr.pop('_class', None)
    writer.add_event(tf.Event(graph_def=shown.SerializeToString(), wall_time=time.time()))


def _shown_name(name: str, variables: set[str]) -> str:
    parts = name.split('/')
    beginnings = ('/'.join(parts[:end]) for end in range(1, len(parts) + 1))
    return name if variables.isdisjoint(beginnings) else f'variables/{name}'


def _renamed(reference: str, names: Mapping[str, str]) -> str:
    """An input of a node, renamed: ^name of a control input, else name or name:output."""
    control = '^' if reference.startswith('^') else ''
    name, colon, output = reference.removeprefix('^').partition(':')
    return f'{control}{names[name]}{colon}{output}'


class SpeedHook(tf.train.StepCounterHook):
    """Writes the scalar train/examples_per_sec, over all the time of the process."""

    def __init__(self, writer: tf.summary.FileWriter, batch_size: int, every_steps: int) -> None:
        """
        Args:
          writer: of the run's events.
          batch_size: number of examples in a step, all towers and workers together.
          every_steps: steps that each value is the mean of.
        """
        super().__init__(every_n_steps=every_steps, summary_writer=writer)
        self._writer = writer
        self._batch_size = batch_size

    def _log_and_record(self, elapsed_steps: int, elapsed_time: float, global_step: int) -> None:
        rate = self._batch_size * elapsed_steps / elapsed_time
        self._writer.add_summary(scalar_value('train/examples_per_sec', rate), global_step)


def scalar_value(tag: str, value: float) -> tf.Summary:
    """A summary of one scalar."""
    return tf.Summary(value=[tf.Summary.Value(tag=tag, simple_value=value)])


def add_settings(
    writer: tf.summary.FileWriter, settings: Mapping[str, Any], train_dir: str
) -> None:
    """Adds a run's settings to the HParams table.

    Events of training and of evaluation with the same `train_dir` make one row.

    Args:
      writer: of the events of training, or of an evaluation.
      settings: of settings.json; if it is empty, nothing is added.
      train_dir: the folder of the checkpoints.
    """
    shown = {
        name: printable(value) if isinstance(value, str) else value
        for name, value in settings.items()
        if name not in NOT_HPARAMS and isinstance(value, (bool, int, float, str))
    }
    if not shown:
        return
    metrics = [hparams.Metric(tag, display_name=heading) for tag, heading in _RESULTS.items()]
    columns = [hparams.HParam(name) for name in shown]
    for summary in (
        hparams.hparams_config_pb(columns, metrics),
        hparams.hparams_pb(shown, trial_id=_trial_id(train_dir)),
    ):
        # TensorBoard's message class isn't TensorFlow's, but has the same fields.
        writer.add_summary(summary.SerializeToString())


def _trial_id(train_dir: str) -> str:
    """A folder's path, its last parts first: a narrow column shows those alone."""
    parent, name = os.path.split(os.path.realpath(train_dir))
    grandparent, parent = os.path.split(parent)
    return printable(f'{os.path.join(parent, name)} in {grandparent}')


def command_line(train_dir: str) -> str:
    """The command that shows a run, and those in the folders beside it."""
    program = 'tensorboard'
    if not shutil.which(program):
        program = os.path.join(os.path.dirname(sys.executable), program)
    parent = os.path.dirname(os.path.normpath(train_dir)) or os.curdir
    return shlex.join([program, f'--logdir={parent}'])
