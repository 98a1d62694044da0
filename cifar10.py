"""A batch becomes logits, a loss and an update.

The network, loss, learning rate and moving averages of the classic CIFAR-10 tutorial, in graph
mode:

    images, labels = distorted_inputs()
    logits = inference(images)
    total_loss = loss(logits, labels)
    train_op = train(total_loss, tf.train.get_or_create_global_step())

`cifar10_train.py` takes these steps. The trainers of several devices take `compute_gradients`
and `apply_gradients`, the two halves of `train`, one by one.

Variable names are the contract between the scripts: conv1/weights, conv1/biases,
conv2/..., local3/..., local4/..., softmax_linear/..., each with its
/ExponentialMovingAverage, global_step (updates) and examples_seen (examples).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import tensorflow.compat.v1 as tf

import cifar10_input
from cifar10_input import (
    IMAGE_SIZE,
    NUM_CLASSES,
    NUM_EXAMPLES_PER_EPOCH_FOR_EVAL,
    NUM_EXAMPLES_PER_EPOCH_FOR_TRAIN,
)
from cifar10_lib.data.datasets import DATA_DIR
from cifar10_lib.data.record_files import find_records
from cifar10_lib.nn import layers, summaries
from cifar10_lib.nn.layers import Network, Options, weights
from cifar10_lib.nn.lrn import local_response_normalization
from cifar10_lib.nn.networks import NETWORKS as OTHER_NETWORKS
from cifar10_lib.nn.optimizers import clip_gradients, look_ahead, take_step
from cifar10_lib.nn.recipes import (
    BATCH_SIZE,
    INITIAL_LEARNING_RATE,
    LEARNING_RATE_DECAY_FACTOR,
    MOVING_AVERAGE_DECAY,
    NUM_EPOCHS_PER_DECAY,
    TUTORIAL_RECIPE,
    WEIGHT_DECAY,
    Recipe,
)
from cifar10_lib.nn.schedules import create_examples_seen, learning_rate
from cifar10_lib.nn.towers import (
    TOWER_NAME,
    GradientsAndVariables,
    average_gradients,
    compute_gradients,
)

__all__ = [
    'BATCH_SIZE',
    'IMAGE_SIZE',
    'INITIAL_LEARNING_RATE',
    'LEARNING_RATE_DECAY_FACTOR',
    'MOVING_AVERAGE_DECAY',
    'NETWORKS',
    'NUM_CLASSES',
    'NUM_EPOCHS_PER_DECAY',
    'NUM_EXAMPLES_PER_EPOCH_FOR_EVAL',
    'NUM_EXAMPLES_PER_EPOCH_FOR_TRAIN',
    'Options',
    'TOWER_NAME',
    'WEIGHT_DECAY',
    'apply_gradients',
    'average_gradients',
    'compute_gradients',
    'create_counters',
    'cross_entropy',
    'distorted_inputs',
    'inference',
    'inputs',
    'loss',
    'maybe_download_and_extract',
    'train',
]

# Of the averages that the loss summaries show beside the losses.
LOSS_AVERAGE_DECAY = 0.9


def maybe_download_and_extract(data_dir: str = DATA_DIR) -> None:
    """Makes sure that CIFAR-10's files are in a folder, complete: see `cifar10_data.py`."""
    from cifar10_lib.data.prepare import prepare  # It loads an HTTP client.

    prepare(data_dir)


def distorted_inputs(
    data_dir: str = DATA_DIR, batch_size: int = BATCH_SIZE
) -> tuple[tf.Tensor, tf.Tensor]:
    """Training batches, distorted, without end: `cifar10_input.distorted_inputs`.

    Args:
      data_dir: holds the record files, or a folder cifar-10-batches-bin that does.
      batch_size: number of images in a batch.

    Returns:
      images: float32 [batch_size, 24, 24, 3], standardised.
      labels: int32 [batch_size].
    """
    return cifar10_input.distorted_inputs(find_records(data_dir), batch_size)


def inputs(
    eval_data: str | bool, data_dir: str = DATA_DIR, batch_size: int = BATCH_SIZE
) -> tuple[tf.Tensor, tf.Tensor]:
    """Evaluation batches, undistorted, without end: `cifar10_input.inputs`.

    Args:
      eval_data: 'test' or True: the test images; 'train_eval' or False: the training images.
      data_dir, batch_size: as of `distorted_inputs`, which has what is returned.
    """
    if isinstance(eval_data, bool):
        eval_data = 'test' if eval_data else 'train_eval'
    return cifar10_input.inputs(eval_data, find_records(data_dir), batch_size, repeat=True)


# ----------------------------------------------------------------------- network


def inference(
    images: tf.Tensor,
    options: Options = Options(),  # noqa: B008 (it is frozen)
    training: bool = False,
    position: Any = 0,
) -> tf.Tensor:
    """The tutorial's network, from images to logits.

    Two convolutions with pooling and local response normalisation, two dense layers with ReLU,
    and the linear one that gives the logits. The softmax is part of the loss. The comments have the
    tutorial's sizes; the options may have others.

    Args:
      images: float32 [batch, 24, 24, depth], standardised; any batch, also unknown.
      options: what the network is built with.
      training: drop the values that `options.dropout` asks for.
      position: int64 [], position of the first image in the stream; dropout derives from it.

    Returns:
      logits: float32 [batch, num_classes].
    """
    if options.num_parts > 1:
        return layers.in_parts(inference, images, options, training, position)
    images = tf.cast(images, options.dtype)

    filters1, filters2 = layers.sizes(options.num_filters, 64, 64)
    size3, size4 = layers.sizes(options.hidden_size, 384, 192)

    # [batch, 24, 24, depth] -> [batch, 12, 12, 64]
    with tf.variable_scope('conv1'):
        shape = [5, 5, images.shape.as_list()[-1], filters1]
        kernel = weights(shape, 0.05, options, options.conv_weight_decay)
        convolved = tf.nn.conv2d(images, kernel, strides=1, padding='SAME')
        biases = layers.biases(filters1, 0.0, options)
        # Computed when it is summarised, and only then.
        conv1 = tf.nn.relu(tf.nn.bias_add(convolved, biases))
    layers.summarize('conv1', conv1, options)
    with tf.name_scope('pool1'):
        # Bias and ReLU keep the order of values: after the pooling they give the same maximum,
        # from a quarter of the elements.
        largest = layers.max_pool('largest', convolved, side=3, padding='SAME')
        pool1 = tf.nn.relu(tf.nn.bias_add(largest, biases))
    norm1 = local_response_normalization(pool1, 4, bias=1.0, alpha=0.001 / 9.0, name='norm1')

    # [batch, 12, 12, 64] -> [batch, 6, 6, 64]
    with tf.variable_scope('conv2'):
        shape = [5, 5, filters1, filters2]
        kernel = weights(shape, 0.05, options, options.conv_weight_decay)
        convolved = tf.nn.conv2d(norm1, kernel, strides=1, padding='SAME')
        conv2 = tf.nn.relu(tf.nn.bias_add(convolved, layers.biases(filters2, 0.1, options)))
    layers.summarize('conv2', conv2, options)
    norm2 = local_response_normalization(conv2, 4, bias=1.0, alpha=0.001 / 9.0, name='norm2')
    pool2 = layers.max_pool('pool2', norm2, side=3, padding='SAME')

    # [batch, 6, 6, 64] -> [batch, 384] -> [batch, 192]
    hidden = pool2
    for name, size in (('local3', size3), ('local4', size4)):
        rate = options.dropout
        hidden = layers.dropout(f'{name}_inputs', hidden, rate, options, training, position)
        with tf.variable_scope(name):
            num_inputs = hidden.shape[1:].num_elements()
            matrix = weights([num_inputs, size], 0.04, options, options.weight_decay)
            product = tf.matmul(tf.reshape(hidden, [-1, num_inputs]), matrix)
            hidden = tf.nn.relu(tf.nn.bias_add(product, layers.biases(size, 0.1, options)))
        layers.summarize(name, hidden, options)

    # [batch, 192] -> [batch, num_classes]
    return layers.logits(hidden, options, stddev=1 / size4)


# The networks by the names of --model.
NETWORKS = {'tutorial': Network(inference), **OTHER_NETWORKS}


def cross_entropy(
    logits: tf.Tensor,
    labels: tf.Tensor,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] = (),
) -> tf.Tensor:
    """Mean cross entropy of the batch.

    Args:
      logits: float32 [batch, num_classes].
      labels: int32 [batch], 0 to num_classes - 1; or, of mixed images, float32
        [batch, num_classes], the share of each class.
      label_smoothing: part of each label that all classes share alike: Szegedy et al.,
        "Rethinking the inception architecture for computer vision", CVPR 2016, sec. 7.
      class_weights: factor of an example's cross entropy, one for each class; none: 1. Of mixed
        images, the mean by the shares.

    Returns:
      float32 [], in nats.
    """
    with tf.name_scope('cross_entropy'):
        if labels.dtype.is_integer:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        else:
            losses = tf.nn.softmax_cross_entropy_with_logits_v2(labels=labels, logits=logits)
        if label_smoothing:
            # The cross entropy is linear in the labels: log of the sum, less the labelled logit.
            labelled = layers.labelled(logits, labels)
            losses += label_smoothing * (labelled - tf.reduce_mean(logits, axis=1))
        if class_weights:
            every_example = tf.zeros_like(logits) + tf.constant(class_weights, tf.float32)
            losses *= layers.labelled(every_example, labels)
        return tf.reduce_mean(losses, name='mean')


def loss(
    logits: tf.Tensor,
    labels: tf.Tensor,
    decay_factor: float = 1.0,
    recipe: Recipe = TUTORIAL_RECIPE,
) -> tf.Tensor:
    """Mean cross entropy of the batch plus the weight decay.

    Each of its terms is added to the collection 'losses', under the current name scope.

    Args:
      logits: float32 [batch, num_classes].
      labels: as of `cross_entropy`.
      decay_factor: of the weight decay; 0 leaves it out.
      recipe: its label smoothing, class weights and weight decay are used.

    Returns:
      total_loss: float32 [], in nats.
    """
    with tf.name_scope('loss'):
        terms = [cross_entropy(logits, labels, recipe.label_smoothing, recipe.class_factors())]
        if decay_factor and recipe.total_weight_decay:
            layers.decay_all(recipe)
        if decay_factor:
            terms += [
                tf.multiply(weight_loss, decay_factor, name='weight_decay')
                for weight_loss in tf.losses.get_regularization_losses()
            ]
        for term in terms:
            tf.add_to_collection('losses', term)
        return tf.add_n(terms, name='total_loss')


# ------------------------------------------------------------------------ update


def create_counters(step: int = 0, examples: int = 0) -> tuple[tf.Variable, tf.Variable]:
    """The counters of updates and of training examples, int64 [] each.

    The number of examples, not of updates, drives the learning rate and the position in the
    input stream: so both stay right when the batch or the number of towers changes between one
    run and the next.

    Args:
      step: first value of global_step.
      examples: first value of examples_seen.

    Returns:
      global_step, examples_seen.
    """
    global_step = tf.get_variable(
        'global_step',
        initializer=tf.constant(step, tf.int64),
        trainable=False,
        collections=[tf.GraphKeys.GLOBAL_VARIABLES, tf.GraphKeys.GLOBAL_STEP],
    )
    return global_step, create_examples_seen(examples)


def train(
    total_loss: tf.Tensor,
    global_step: tf.Variable,
    examples_seen: tf.Variable | None = None,
    batch_size: int = BATCH_SIZE,
    num_examples_per_epoch: int = NUM_EXAMPLES_PER_EPOCH_FOR_TRAIN,
    recipe: Recipe = TUTORIAL_RECIPE,
    use_fp16: bool = False,
) -> tf.Operation:
    """The update of a network on one device.

    Args:
      total_loss: float32 [], as `loss` gives it.
      use_fp16: the network computes in float16.
      The others are as of `apply_gradients`.

    Returns:
      The operation that takes one training step.
    """
    return apply_gradients(
        compute_gradients(total_loss, use_fp16),
        total_loss,
        global_step,
        examples_seen,
        batch_size,
        num_examples_per_epoch,
        recipe,
    )


def apply_gradients(
    gradients: GradientsAndVariables,
    total_loss: tf.Tensor,
    global_step: tf.Variable,
    examples_seen: tf.Variable | None = None,
    batch_size: int = BATCH_SIZE,
    num_examples_per_epoch: int = NUM_EXAMPLES_PER_EPOCH_FOR_TRAIN,
    recipe: Recipe = TUTORIAL_RECIPE,
    copies: GradientsAndVariables = (),
) -> tf.Operation:
    """One step of the optimiser, then the moving averages of the new weights.

    Where the network normalises batches, its moving statistics take a step as well.

    Args:
      gradients: (gradient, variable) pairs, over the complete batch.
      total_loss: float32 [], over the complete batch; for the summaries.
      global_step: integer [], grows by 1.
      examples_seen: int64 [], grows by `batch_size`; None creates it at 0.
      batch_size: number of examples in the complete batch, all towers and workers together.
      num_examples_per_epoch: size of the training set.
      recipe: its optimiser, learning rate and averages are used.
      copies: (gradient, variable) pairs of the other towers' copies, which take the same
        step and have no averages.

    Returns:
      The operation that does it all. Where loss or gradients are not finite it changes
      no weight, and fails with tf.errors.InvalidArgumentError.
    """
    if examples_seen is None:
        examples_seen = create_examples_seen()
    with tf.name_scope('learning_rate'):
        rate = learning_rate(examples_seen, num_examples_per_epoch, recipe)
        epochs = tf.cast(examples_seen / num_examples_per_epoch, tf.float32)
    summaries.scalar('train/learning_rate', rate)
    for gradient, variable in gradients:
        summaries.histogram(f'{variable.op.name}/values', variable)
        summaries.histogram(f'{variable.op.name}/gradients', gradient)
    statistics = layers.mean_statistics()
    # Gradient descent remembers nothing: it moves the copies as well.
    moved_alike = copies if recipe.optimizer == 'sgd' and not recipe.lookahead_steps else ()
    with tf.name_scope('train'):
        with tf.control_dependencies([_check_finite([*gradients, *statistics], total_loss)]):
            update_loss_averages = _summarize_losses(total_loss)
            if recipe.clip_norm:
                gradients, moved_alike = clip_gradients(recipe.clip_norm, gradients, moved_alike)
            updates = [
                take_step(recipe, gradients, rate, epochs, global_step, moved_alike),
                *layers.update_statistics(statistics, recipe.batch_norm_decay),
            ]
        if recipe.lookahead_steps:
            variables = [variable for _, variable in (*gradients, *statistics)]
            with tf.control_dependencies(updates):
                updates = [
                    look_ahead(
                        recipe,
                        variables,
                        global_step.read_value(),
                        examples_seen + batch_size,
                        num_examples_per_epoch,
                    )
                ]
        if copies and not moved_alike:
            updates = [_update_copies(gradients, copies, updates)]
        with tf.control_dependencies(updates), tf.name_scope('averages'):
            update_averages = tf.no_op()
            if recipe.moving_average_decay:
                # The decay ramps up as min(decay, (1 + step) / (10 + step)).
                averages = tf.train.ExponentialMovingAverage(
                    recipe.moving_average_decay, global_step
                )
                averaged = [variable for _, variable in gradients]
                update_averages = averages.apply(averaged + tf.get_collection(layers.FROZEN))
            count_examples = examples_seen.assign_add(batch_size)
        return tf.group(
            update_averages,
            count_examples,
            update_loss_averages,
            name='step',
        )


def _check_finite(gradients: GradientsAndVariables, total_loss: tf.Tensor) -> tf.Operation:
    """Fails where the loss or a gradient is not finite.

    One sum of squares takes 0.1 ms, a tenth of a look at each of a million gradients. It
    is finite too where none of them exceeds 1e16.
    """
    squares = [tf.nn.l2_loss(gradient) for gradient, _ in gradients]
    return tf.debugging.check_numerics(
        tf.add_n([total_loss, *squares]), 'loss or gradients are not finite', name='check_finite'
    ).op


def _summarize_losses(total_loss: tf.Tensor) -> tf.Operation:
    """Summaries of each loss and of its average; returns the averages' update."""
    weight_losses = tf.losses.get_regularization_losses()
    cross_entropy = total_loss - tf.add_n([tf.zeros([]), *weight_losses])
    terms = {'total': total_loss, 'cross_entropy': cross_entropy}
    terms.update({f'weight_decay_{term.op.name.split("/")[-2]}': term for term in weight_losses})

    # At the root: the variables of its averages are named after it.
    with tf.name_scope(None):
        losses = tf.stack(list(terms.values()), name='losses')
    averages = tf.train.ExponentialMovingAverage(LOSS_AVERAGE_DECAY, zero_debias=True, name='avg')
    update = averages.apply([losses])
    with tf.control_dependencies([update]):
        averaged = tf.unstack(averages.average(losses))
    for (name, term), average in zip(terms.items(), averaged, strict=True):
        summaries.scalar(f'loss/{name}', term)
        summaries.scalar(f'loss_average/{name}', average)
    return update


def _update_copies(
    gradients: GradientsAndVariables,
    copies: GradientsAndVariables,
    updates: Sequence[tf.Operation],
) -> tf.Operation:
    """Gives the other towers' copies the values of the variables, after `updates`.

    What an optimiser remembers of a variable must be in checkpoints, and once: so the copies
    take the result. Their gradients are computed all the same: the all-reduce waits for them.
    """
    originals = itertools.cycle(variable for _, variable in gradients)
    with tf.control_dependencies([*updates, *(gradient for gradient, _ in copies)]):
        return tf.group(
            *(
                copy.assign(original.read_value())
                for (_, copy), original in zip(copies, originals, strict=False)
            )
        )
