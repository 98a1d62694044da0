"""The tutorial's formulation, rewritten: queue runners and the plain operations.

    python -m benchmarks.peers.tutorial_train --data_dir=cifar10_data/cifar-10-batches-bin \
        --train_dir=tutorial_train

The named peer of every ratio in the benchmark. File names and records pass through
queues, sixteen threads distort one image at a time, and the network is made of the
operations that the tutorial used, in its order.
"""

from __future__ import annotations

import logging
import math
import tempfile

import tensorflow.compat.v1 as tf

from benchmarks.speed import worker
from benchmarks.speed.project import constant_batch, run_steps, save_initial_weights
from benchmarks.speed.worker import Options, Ticker
from cifar10_input import count_examples, test_files, train_files
from cifar10_lib.training.console import ConsoleHook

NUM_THREADS = 16

# Of the training set, kept in the queue to draw from: 20,000 images of 50,000.
QUEUE_FRACTION = 0.4

EVALUATION_BATCH = 128

Batch = tuple[tf.Tensor, tf.Tensor]


def _read_record(files: list[str], shuffle: bool) -> Batch:
    """One record: image float32 [32, 32, 3], 0 to 255, and label int32 []."""
    names = tf.train.string_input_producer(files, shuffle=shuffle)
    _, record = tf.FixedLengthRecordReader(record_bytes=3073).read(names)
    data = tf.io.decode_raw(record, tf.uint8)
    # To float32 before the transposition: oneDNN declines uint8, with an error each time.
    planes = tf.cast(tf.reshape(data[1:3073], [3, 32, 32]), tf.float32)
    return tf.transpose(planes, [1, 2, 0]), tf.reshape(tf.cast(data[:1], tf.int32), [])


def training_batches(data_dir: str, batch_size: int) -> Batch:
    """Images float32 [batch_size, 24, 24, 3], distorted one by one; labels int32 [batch_size]."""
    files = train_files(data_dir)
    with tf.device('/cpu:0'):
        image, label = _read_record(files, shuffle=True)
        image = tf.image.random_crop(image, [24, 24, 3])
        image = tf.image.random_flip_left_right(image)
        image = tf.image.random_brightness(image, max_delta=63)
        image = tf.image.random_contrast(image, lower=0.2, upper=1.8)
        image = tf.image.per_image_standardization(image)
        min_in_queue = int(QUEUE_FRACTION * count_examples(files))
        return tf.train.shuffle_batch(
            [image, label],
            batch_size,
            capacity=min_in_queue + 3 * batch_size,
            min_after_dequeue=min_in_queue,
            num_threads=NUM_THREADS,
        )


def evaluation_batches(data_dir: str, batch_size: int) -> Batch:
    """Images float32 [batch_size, 24, 24, 3], central crops; labels int32 [batch_size]."""
    with tf.device('/cpu:0'):
        image, label = _read_record(test_files(data_dir), shuffle=False)
        image = tf.image.resize_with_crop_or_pad(image, 24, 24)
        image = tf.image.per_image_standardization(image)
        return tf.train.batch(
            [image, label], batch_size, num_threads=NUM_THREADS, capacity=4000 + 3 * batch_size
        )


def _variable(name: str, shape: list[int], initializer: tf.Tensor) -> tf.Variable:
    with tf.device('/cpu:0'):
        return tf.get_variable(name, shape, initializer=initializer)


def _weights(shape: list[int], stddev: float, weight_decay: float = 0.0) -> tf.Variable:
    weights = _variable('weights', shape, tf.truncated_normal_initializer(stddev=stddev))
    if weight_decay:
        tf.add_to_collection('losses', weight_decay * tf.nn.l2_loss(weights))
    return weights


def _biases(size: int, value: float) -> tf.Variable:
    return _variable('biases', [size], tf.constant_initializer(value))


def _summarize(activation: tf.Tensor) -> tf.Tensor:
    name = activation.op.name
    tf.summary.histogram(f'{name}/activations', activation)
    tf.summary.scalar(f'{name}/sparsity', tf.nn.zero_fraction(activation))
    return activation


def _convolution(name: str, images: tf.Tensor, depth: int, bias: float) -> tf.Tensor:
    with tf.variable_scope(name) as scope:
        convolved = tf.nn.conv2d(
            images, _weights([5, 5, depth, 64], 0.05), strides=[1, 1, 1, 1], padding='SAME'
        )
        biased = tf.nn.bias_add(convolved, _biases(64, bias))
        return _summarize(tf.nn.relu(biased, name=scope.name))


def _pool(images: tf.Tensor) -> tf.Tensor:
    return tf.nn.max_pool(images, ksize=[1, 3, 3, 1], strides=[1, 2, 2, 1], padding='SAME')


def _normalize(images: tf.Tensor) -> tf.Tensor:
    return tf.nn.local_response_normalization(
        images, depth_radius=4, bias=1.0, alpha=0.001 / 9.0, beta=0.75
    )


def _dense(name: str, inputs: tf.Tensor, size: int) -> tf.Tensor:
    with tf.variable_scope(name) as scope:
        weights = _weights([inputs.shape[1], size], 0.04, weight_decay=0.004)
        product = tf.matmul(inputs, weights) + _biases(size, 0.1)
        return _summarize(tf.nn.relu(product, name=scope.name))


def inference(images: tf.Tensor) -> tf.Tensor:
    """Images float32 [batch, 24, 24, 3] -> logits float32 [batch, 10]."""
    norm1 = _normalize(_pool(_convolution('conv1', images, depth=3, bias=0.0)))
    pool2 = _pool(_normalize(_convolution('conv2', norm1, depth=64, bias=0.1)))
    flat = tf.reshape(pool2, [-1, 6 * 6 * 64])
    local4 = _dense('local4', _dense('local3', flat, 384), 192)
    with tf.variable_scope('softmax_linear') as scope:
        weights = _weights([192, 10], 1 / 192.0)
        return _summarize(tf.add(tf.matmul(local4, weights), _biases(10, 0.0), name=scope.name))


def loss(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Mean cross entropy plus weight decay, float32 []."""
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    tf.add_to_collection('losses', tf.reduce_mean(cross_entropy, name='cross_entropy'))
    return tf.add_n(tf.get_collection('losses'), name='total_loss')


def _average_losses(total_loss: tf.Tensor) -> tf.Operation:
    averages = tf.train.ExponentialMovingAverage(0.9, name='avg')
    losses = [*tf.get_collection('losses'), total_loss]
    update = averages.apply(losses)
    for term in losses:
        tf.summary.scalar(f'{term.op.name}_raw', term)
        tf.summary.scalar(term.op.name, averages.average(term))
    return update


def train(total_loss: tf.Tensor, batch_size: int) -> tf.Operation:
    """One step of gradient descent, with loss averages, summaries and moving averages."""
    global_step = tf.train.get_or_create_global_step()
    steps_per_decay = int(350 * 50_000 / batch_size)
    rate = tf.train.exponential_decay(0.1, global_step, steps_per_decay, 0.1, staircase=True)
    tf.summary.scalar('learning_rate', rate)
    with tf.control_dependencies([_average_losses(total_loss)]):
        optimizer = tf.train.GradientDescentOptimizer(rate)
        gradients = optimizer.compute_gradients(total_loss)
    update = optimizer.apply_gradients(gradients, global_step=global_step)
    for gradient, variable in gradients:
        tf.summary.histogram(variable.op.name, variable)
        tf.summary.histogram(f'{variable.op.name}/gradients', gradient)
    averages = tf.train.ExponentialMovingAverage(0.9999, global_step)
    with tf.control_dependencies([update]):
        return averages.apply(tf.trainable_variables())


def train_end_to_end(options: Options) -> None:
    """Training with input, summaries every 100 steps, and checkpoints."""
    with tf.Graph().as_default():
        images, labels = training_batches(options.data_dir, options.batch_size)
        total_loss = loss(inference(images), labels)
        train_op = train(total_loss, options.batch_size)
        with tf.control_dependencies([train_op]):
            step = tf.train.get_global_step().read_value()
        hooks = [
            tf.train.NanTensorHook(total_loss),
            ConsoleHook(step, total_loss, options.batch_size, options.log_frequency),
        ]
        if options.max_steps:
            hooks.append(tf.train.StopAtStepHook(last_step=options.max_steps))
        with tf.train.MonitoredTrainingSession(
            checkpoint_dir=options.train_dir, hooks=hooks, log_step_count_steps=None
        ) as session:
            while not session.should_stop():
                session.run(train_op)


def train_on_constant_batch(options: Options) -> None:
    """The same step without input, summaries and checkpoints."""
    with tf.Graph().as_default():
        images, labels = constant_batch(options.batch_size)
        total_loss = loss(inference(images), labels)
        train_op = train(total_loss, options.batch_size)
        run_steps(train_op, total_loss, options, tf.ConfigProto(allow_soft_placement=True))


def read_input(options: Options) -> None:
    """The training batches, computed and thrown away."""
    with tf.Graph().as_default():
        batch = tf.group(*training_batches(options.data_dir, options.batch_size))
        with tf.train.MonitoredSession() as session:
            worker.repeat(lambda: session.run(batch), options)


def evaluate(options: Options) -> None:
    """Scores the test images again and again, each time restoring the checkpoint."""
    num_examples = count_examples(test_files(options.data_dir))
    num_batches = math.ceil(num_examples / EVALUATION_BATCH)
    with tempfile.TemporaryDirectory() as directory, tf.Graph().as_default():
        checkpoint = save_initial_weights(directory)
        images, labels = evaluation_batches(options.data_dir, EVALUATION_BATCH)
        hits = tf.nn.in_top_k(inference(images), labels, 1)
        averages = tf.train.ExponentialMovingAverage(0.9999)
        saver = tf.train.Saver(averages.variables_to_restore())
        worker.repeat(
            lambda: _count_hits(saver, checkpoint, hits, num_batches), options, Ticker(num_examples)
        )


def _count_hits(saver: tf.train.Saver, checkpoint: str, hits: tf.Tensor, num_batches: int) -> int:
    """Number of hits in as many batches, with the queue runners started and stopped."""
    with tf.Session() as session:
        saver.restore(session, checkpoint)
        coordinator = tf.train.Coordinator()
        threads = tf.train.start_queue_runners(session, coordinator)
        num_hits = sum(int(session.run(hits).sum()) for _ in range(num_batches))
        coordinator.request_stop()
        coordinator.join(threads, stop_grace_period_secs=10)
    return num_hits


RUN = {
    worker.TRAIN: train_end_to_end,
    worker.CONSTANT: train_on_constant_batch,
    worker.INPUT: read_input,
    worker.EVALUATION: evaluate,
}


def main() -> None:
    logging.getLogger('tensorflow').setLevel(logging.ERROR)
    worker.run_task(__doc__, RUN)


if __name__ == '__main__':
    main()
