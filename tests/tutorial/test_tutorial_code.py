"""Programs in the style of the tutorial of 2017, with no argument that the tutorial lacked.

They run in a folder whose cifar10_data holds record files. What had to change since 2017 is in
docs/old-code.md, and nothing else did.
"""

from __future__ import annotations

import math
import re
import shutil
import tarfile
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10
import cifar10_eval
from cifar10_eval import EvalSettings
from cifar10_input import TEST_FILES, TRAIN_FILES
from cifar10_lib.data.synthetic import generate_synthetic
from tests.helpers import runs
from tests.helpers.runs import checkpoint_values
from tests.helpers.scripts import REPOSITORY

pytestmark = pytest.mark.slow

# Whole batches of 128, so that an evaluation scores each image once.
NUM_TRAIN, NUM_TEST = 640, 256

# As the tutorial's programs defined them by tf.app.flags.
FLAGS = SimpleNamespace(
    train_dir='cifar10_train',
    eval_dir='cifar10_eval',
    checkpoint_dir='cifar10_train',
    eval_data='test',
    num_examples=NUM_TEST,
    max_steps=3,
    batch_size=128,
    num_gpus=2,
    log_frequency=1,
    log_device_placement=False,
)


@pytest.fixture(scope='module')
def record_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of CIFAR-10's files and nothing else."""
    drawn = tmp_path_factory.mktemp('drawn') / 'set'
    generate_synthetic(str(drawn), NUM_TRAIN, NUM_TEST)
    directory = tmp_path_factory.mktemp('records')
    for name in (*TRAIN_FILES, *TEST_FILES):
        shutil.copy(drawn / name, directory)
    return directory


@pytest.fixture(autouse=True)
def scratch(record_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the programs run."""
    shutil.copytree(record_files, tmp_path / 'cifar10_data' / 'cifar-10-batches-bin')
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ------------------------------------------------------- training, cifar10_train.py's style


def train(max_steps: int) -> list[float]:
    """Trains to a step; the losses on the way."""
    losses: list[float] = []
    with tf.Graph().as_default():
        global_step = tf.train.get_or_create_global_step()

        with tf.device('/cpu:0'):
            images, labels = cifar10.distorted_inputs()

        logits = cifar10.inference(images)
        loss = cifar10.loss(logits, labels)
        train_op = cifar10.train(loss, global_step)

        class _LoggerHook(tf.train.SessionRunHook):
            def begin(self) -> None:
                self._step = -1

            def before_run(self, run_context: Any) -> Any:
                self._step += 1
                return tf.train.SessionRunArgs(loss)

            def after_run(self, run_context: Any, run_values: Any) -> None:
                if self._step % FLAGS.log_frequency == 0:
                    losses.append(run_values.results)
                    print(f'{datetime.now()}: step {self._step}, loss = {losses[-1]:.2f}')

        with tf.train.MonitoredTrainingSession(
            checkpoint_dir=FLAGS.train_dir,
            hooks=[
                tf.train.StopAtStepHook(last_step=max_steps),
                tf.train.NanTensorHook(loss),
                _LoggerHook(),
            ],
            config=tf.ConfigProto(log_device_placement=FLAGS.log_device_placement),
        ) as mon_sess:
            while not mon_sess.should_stop():
                mon_sess.run(train_op)
    return losses


# ------------------------------------------------------ evaluation, cifar10_eval.py's style


def eval_once(
    saver: Any, summary_writer: Any, top_k_op: Any, summary_op: Any, num_examples: int
) -> tuple[int, float, tf.Summary]:
    """Scores the newest checkpoint; its step, the precision and the summary."""
    with tf.Session() as sess:
        ckpt = tf.train.get_checkpoint_state(FLAGS.checkpoint_dir)
        assert ckpt and ckpt.model_checkpoint_path
        saver.restore(sess, ckpt.model_checkpoint_path)
        global_step = int(ckpt.model_checkpoint_path.split('/')[-1].split('-')[-1])

        coord = tf.train.Coordinator()
        try:
            threads = []
            for qr in tf.get_collection(tf.GraphKeys.QUEUE_RUNNERS):
                threads.extend(qr.create_threads(sess, coord=coord, daemon=True, start=True))

            num_iter = int(math.ceil(num_examples / FLAGS.batch_size))
            true_count = 0
            total_sample_count = num_iter * FLAGS.batch_size
            step = 0
            while step < num_iter and not coord.should_stop():
                predictions = sess.run([top_k_op])
                true_count += np.sum(predictions)
                step += 1
            precision = true_count / total_sample_count

            summary = tf.Summary()
            summary.ParseFromString(sess.run(summary_op))
            summary.value.add(tag='Precision @ 1', simple_value=precision)
            summary_writer.add_summary(summary, global_step)
        except Exception as e:
            coord.request_stop(e)
            raise

        coord.request_stop()
        coord.join(threads, stop_grace_period_secs=10)
    return global_step, precision, summary


def evaluate(eval_data: bool | str, num_examples: int) -> tuple[int, float, tf.Summary]:
    with tf.Graph().as_default() as g:
        images, labels = cifar10.inputs(eval_data=eval_data)
        logits = cifar10.inference(images)
        top_k_op = tf.nn.in_top_k(logits, labels, 1)

        variable_averages = tf.train.ExponentialMovingAverage(cifar10.MOVING_AVERAGE_DECAY)
        variables_to_restore = variable_averages.variables_to_restore()
        saver = tf.train.Saver(variables_to_restore)

        summary_op = tf.summary.merge_all()
        summary_writer = tf.summary.FileWriter(FLAGS.eval_dir, g)
        return eval_once(saver, summary_writer, top_k_op, summary_op, num_examples)


# ------------------------------------------- towers, cifar10_multi_gpu_train.py's style


def tower_loss(scope: str, images: Any, labels: Any) -> tuple[Any, Any]:
    """The loss by the collection, and the one that cifar10.loss returns."""
    logits = cifar10.inference(images)
    returned = cifar10.loss(logits, labels)
    losses = tf.get_collection('losses', scope)
    total_loss = tf.add_n(losses, name='total_loss')
    for l in [*losses, total_loss]:  # noqa: E741 - the tutorial's name
        loss_name = re.sub(f'{cifar10.TOWER_NAME}_[0-9]*/', '', l.op.name)
        tf.summary.scalar(loss_name, l)
    return total_loss, returned


def average_gradients(tower_grads: list[Any]) -> list[Any]:
    average_grads = []
    for grad_and_vars in zip(*tower_grads, strict=True):
        grads = [tf.expand_dims(g, 0) for g, _ in grad_and_vars]
        grad = tf.reduce_mean(tf.concat(axis=0, values=grads), 0)
        average_grads.append((grad, grad_and_vars[0][1]))
    return average_grads


def train_towers() -> list[np.ndarray]:
    """Trains on two towers; of each step the two losses of each tower."""
    with tf.Graph().as_default(), tf.device('/cpu:0'):
        global_step = tf.get_variable(
            'global_step', [], initializer=tf.constant_initializer(0), trainable=False
        )
        num_batches_per_epoch = cifar10.NUM_EXAMPLES_PER_EPOCH_FOR_TRAIN / FLAGS.batch_size
        decay_steps = int(num_batches_per_epoch * cifar10.NUM_EPOCHS_PER_DECAY)
        lr = tf.train.exponential_decay(
            cifar10.INITIAL_LEARNING_RATE,
            global_step,
            decay_steps,
            cifar10.LEARNING_RATE_DECAY_FACTOR,
            staircase=True,
        )
        opt = tf.train.GradientDescentOptimizer(lr)

        # In place of tf.contrib's prefetch queue.
        images, labels = cifar10.distorted_inputs()
        image_batches = tf.split(images, FLAGS.num_gpus)
        label_batches = tf.split(labels, FLAGS.num_gpus)

        tower_grads, tower_losses = [], []
        with tf.variable_scope(tf.get_variable_scope()):
            for i in range(FLAGS.num_gpus):
                with (
                    tf.device(f'/gpu:{i}'),
                    tf.name_scope('%s_%d' % (cifar10.TOWER_NAME, i)) as scope,  # noqa: UP031
                ):
                    losses = tower_loss(scope, image_batches[i], label_batches[i])
                    tf.get_variable_scope().reuse_variables()
                    summaries = tf.get_collection(tf.GraphKeys.SUMMARIES, scope)
                    tower_grads.append(opt.compute_gradients(losses[0]))
                    tower_losses.append(losses)

        grads = average_gradients(tower_grads)
        summaries.append(tf.summary.scalar('learning_rate', lr))
        apply_gradient_op = opt.apply_gradients(grads, global_step=global_step)

        variable_averages = tf.train.ExponentialMovingAverage(
            cifar10.MOVING_AVERAGE_DECAY, global_step
        )
        variables_averages_op = variable_averages.apply(tf.trainable_variables())
        train_op = tf.group(apply_gradient_op, variables_averages_op)

        saver = tf.train.Saver(tf.global_variables())
        summary_op = tf.summary.merge(summaries)
        init = tf.global_variables_initializer()
        sess = tf.Session(
            config=tf.ConfigProto(
                allow_soft_placement=True, log_device_placement=FLAGS.log_device_placement
            )
        )
        sess.run(init)
        tf.train.start_queue_runners(sess=sess)
        summary_writer = tf.summary.FileWriter(FLAGS.train_dir, sess.graph)

        found = []
        for step in range(FLAGS.max_steps):
            _, values = sess.run([train_op, tower_losses])
            assert not np.isnan(values).any(), 'Model diverged with loss = NaN'
            found.append(np.array(values))
            if step == FLAGS.max_steps - 1:
                summary_writer.add_summary(sess.run(summary_op), step)
                saver.save(sess, f'{FLAGS.train_dir}/model.ckpt', global_step=step)
        sess.close()
    return found


# ------------------------------------------------------------------------------- tests


def precision_by_cifar10_eval(eval_data: str) -> float:
    cifar10_eval.evaluate(EvalSettings(eval_dir='scored', eval_data=eval_data, run_once=True))
    (events,) = Path('scored').glob('events.out.tfevents.*')
    (precision,) = (
        value.simple_value
        for event in tf.train.summary_iterator(str(events))
        for value in event.summary.value
        if value.tag.startswith('precision/')
    )
    return precision


def unpack_tutorial_checkpoint() -> None:
    """Puts the tutorial's own checkpoint of 2017, at step 100,000, where training left it."""
    with tarfile.open(REPOSITORY / 'tests' / 'golden' / 'tutorial_2017.tar.xz') as archive:
        archive.extractall(FLAGS.train_dir, filter='data')


def test_training_trains_and_resumes(scratch: Path) -> None:
    cifar10.maybe_download_and_extract()
    losses = train(FLAGS.max_steps)
    assert len(losses) == 3
    # The loss of equal probabilities, ln 10, and the decay of the first weights.
    assert losses[0] == pytest.approx(4.6, abs=0.2)
    values = checkpoint_values(scratch / FLAGS.train_dir)
    assert values['global_step'] == 3
    assert values['examples_seen'] == 384

    losses = train(FLAGS.max_steps + 2)
    assert len(losses) == 2
    assert checkpoint_values(scratch / FLAGS.train_dir)['global_step'] == 5


def test_training_resumes_a_tutorials_checkpoint_after_a_step_of_cifar10_train() -> None:
    unpack_tutorial_checkpoint()
    runs.train(Path('cifar10_data'), Path(FLAGS.train_dir), dataset=None, max_steps=100_001)
    assert len(train(100_003)) == 2
    # The step by cifar10_train.py had a batch of 8.
    examples = 100_000 * 128 + 8 + 2 * 128
    assert checkpoint_values(Path(FLAGS.train_dir))['examples_seen'] == examples


@pytest.mark.parametrize(
    ('eval_data', 'name', 'num_examples'),
    [
        (True, 'test', NUM_TEST),
        ('test', 'test', NUM_TEST),
        (False, 'train_eval', NUM_TRAIN),
        ('train_eval', 'train_eval', NUM_TRAIN),
    ],
)
def test_evaluation_finds_what_cifar10_eval_finds(
    eval_data: bool | str, name: str, num_examples: int
) -> None:
    unpack_tutorial_checkpoint()
    cifar10.maybe_download_and_extract()
    step, precision, summary = evaluate(eval_data, num_examples)
    assert step == 100_000
    assert precision == pytest.approx(precision_by_cifar10_eval(name), abs=1e-6)
    assert len(summary.value) > 1


def test_evaluation_goes_round_the_images() -> None:
    """Three batches of two, as for num_examples that no batch divides, and one for the summary."""
    train(1)
    step, precision, _ = evaluate(FLAGS.eval_data == 'test', NUM_TEST + 1)
    assert step == 1
    assert 0 <= precision <= 1


def test_towers_find_their_losses_in_the_collection(scratch: Path) -> None:
    cifar10.maybe_download_and_extract()
    for losses in train_towers():
        by_collection, returned = losses.T
        np.testing.assert_allclose(by_collection, returned, rtol=1e-6)
        # Each tower has images of its own.
        assert by_collection[0] != by_collection[1]
    values = checkpoint_values(scratch / FLAGS.train_dir)
    assert values['global_step'] == 3
    assert not any(cifar10.TOWER_NAME in name for name in values)

    step, _, _ = evaluate(FLAGS.eval_data == 'test', FLAGS.num_examples)
    assert step == 2
