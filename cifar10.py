"""How does a batch become logits, a loss and an update?

The network, loss, learning-rate schedule and moving averages of the classic
CIFAR-10 tutorial, in graph mode:

    images, labels = distorted_inputs(data_dir, batch_size)
    logits = inference(images)
    total_loss = loss(logits, labels)
    train_op = train(total_loss, tf.train.get_or_create_global_step())

Several towers use the same parts: `compute_gradients` for each tower,
`average_gradients` over them, and one `apply_gradients`.

Variable names are the contract between the scripts: conv1/weights, conv1/biases,
conv2/..., local3/..., local4/..., softmax_linear/..., each with its
/ExponentialMovingAverage, global_step (updates) and examples_seen (examples).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow.compat.v1 as tf

from cifar10_input import (
    IMAGE_SIZE,
    NUM_CLASSES,
    NUM_EXAMPLES_PER_EPOCH_FOR_EVAL,
    NUM_EXAMPLES_PER_EPOCH_FOR_TRAIN,
    TUTORIAL_DISTORTIONS,
    Distortions,
    batch_size_of,
    distorted_inputs,
    inputs,
)
from cifar10_lib.data import prepare
from cifar10_lib.data.download import DATA_URL
from cifar10_lib.nn import layers, summaries
from cifar10_lib.nn.layers import HISTOGRAMS, Model, Pass
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
from cifar10_lib.nn.schedules import learning_rate_after, optimizer_of

__all__ = [
    'BATCH_SIZE',
    'DATA_URL',
    'Distortions',
    'HISTOGRAMS',
    'IMAGE_SIZE',
    'INITIAL_LEARNING_RATE',
    'LEARNING_RATE_DECAY_FACTOR',
    'LOSS_SCALE',
    'MOVING_AVERAGE_DECAY',
    'NUM_CLASSES',
    'NUM_EPOCHS_PER_DECAY',
    'NUM_EXAMPLES_PER_EPOCH_FOR_EVAL',
    'NUM_EXAMPLES_PER_EPOCH_FOR_TRAIN',
    'Network',
    'TOWER_NAME',
    'TUTORIAL_DISTORTIONS',
    'TUTORIAL_MODEL',
    'TUTORIAL_NETWORK',
    'all_reduce',
    'all_reduce_gradients',
    'apply_gradients',
    'average_gradients',
    'compute_gradients',
    'create_examples_seen',
    'create_global_step',
    'cross_entropy',
    'distorted_inputs',
    'inference',
    'inputs',
    'learning_rate_after',
    'loss',
    'maybe_download_and_extract',
    'mirrored_tower_gradients',
    'tower_gradients',
    'train',
    'variable_averages',
]

# Of the average that the loss summaries show beside the raw loss.
LOSS_AVERAGE_DECAY = 0.9

# Name scope of a tower, followed by its number.
TOWER_NAME = 'tower'

# float16 gradients below 6e-8 vanish. The loss is scaled by this before the
# backward pass and the float32 gradients of the master variables by its inverse
# after it (Micikevicius et al., "Mixed precision training", ICLR 2018, sec. 3.2).
# A power of two changes no bit of a float32 gradient.
LOSS_SCALE = 128.0


def maybe_download_and_extract(
    data_dir: str, dataset: str | None = None, data_url: str = DATA_URL
) -> prepare.Prepared:
    """Makes sure that the record files are there and sound: `cifar10_data.prepare`."""
    return prepare.prepare(data_dir, dataset, data_url)


# ----------------------------------------------------------------------- network


def _weights(
    shape: Sequence[int], stddev: float, seed: int, weight_decay: float = 0.0
) -> tf.Variable:
    """The current scope's float32 `weights`, truncated normal."""
    return layers.weights(
        shape, lambda name: layers.truncated_normal(seed, name, stddev), weight_decay
    )


def _normalize(activation: tf.Tensor, name: str) -> tf.Tensor:
    """Local response normalisation in the tutorial's setting, over 9 channels in all."""
    return layers.local_response_normalization(
        name, activation, depth_radius=4, bias=1.0, alpha=0.001 / 9.0
    )


def _pool(activation: tf.Tensor, name: str) -> tf.Tensor:
    """Maximum over 3 x 3 with stride 2: halves height and width, rounding up."""
    return tf.nn.max_pool(
        activation, ksize=[1, 3, 3, 1], strides=[1, 2, 2, 1], padding='SAME', name=name
    )


def _convolution(activation: tf.Tensor, num_filters: int, stddev: float, given: Pass) -> tf.Tensor:
    """5 x 5 convolution with stride 1, with the current scope's weights."""
    depth = activation.shape.as_list()[-1]
    weights = _weights([5, 5, depth, num_filters], stddev, given.seed, given.conv_weight_decay)
    return tf.nn.conv2d(
        activation, tf.cast(weights, activation.dtype), strides=[1, 1, 1, 1], padding='SAME'
    )


def _bias_and_relu(activation: tf.Tensor, biases: tf.Variable) -> tf.Tensor:
    return tf.nn.relu(tf.nn.bias_add(activation, tf.cast(biases, activation.dtype)))


def _convolutional_layers(images: tf.Tensor, given: Pass) -> tf.Tensor:
    """conv1 to pool2: [batch, 24, 24, depth] -> [batch, 6, 6, 64]."""
    with tf.variable_scope('conv1'):
        convolved = _convolution(images, 64, 0.05, given)
        biases = layers.biases(64, 0.0)
        # Computed when it is summarised, and only then.
        conv1 = _bias_and_relu(convolved, biases)
    layers.summarize('conv1', conv1, given)
    with tf.name_scope('pool1'):
        # Bias and ReLU keep the order of values, so the largest comes out the same when
        # they follow the pooling, on a quarter of the elements.
        pool1 = _bias_and_relu(_pool(convolved, name='largest'), biases)
    norm1 = _normalize(pool1, name='norm1')

    with tf.variable_scope('conv2'):
        convolved = _convolution(norm1, 64, 0.05, given)
        conv2 = _bias_and_relu(convolved, layers.biases(64, 0.1))
    layers.summarize('conv2', conv2, given)
    return _pool(_normalize(conv2, name='norm2'), name='pool2')


def _dense_layers(features: tf.Tensor, given: Pass) -> tf.Tensor:
    """local3 to softmax_linear: [batch, ...] -> float32 [batch, num_classes]."""
    local3 = layers.hidden('local3', features, 384, given, stddev=0.04, bias=0.1)
    local4 = layers.hidden('local4', local3, 192, given, stddev=0.04, bias=0.1)
    return layers.logits(local4, given, stddev=1 / 192.0)


def _tutorial(images: tf.Tensor, given: Pass) -> tf.Tensor:
    """The network of `inference`."""
    return _dense_layers(_convolutional_layers(images, given), given)


TUTORIAL_MODEL = Model('tutorial', _tutorial)


def inference(
    images: tf.Tensor,
    num_classes: int = NUM_CLASSES,
    seed: int = 0,
    use_fp16: bool = False,
    summaries: bool = True,
    weight_decay: float = WEIGHT_DECAY,
    conv_weight_decay: float = 0.0,
) -> tf.Tensor:
    """The network, from images to unscaled log probabilities.

    Two convolutions with pooling and local response normalisation, two dense
    layers and the linear one that gives the logits. A softmax would be one more
    exponential for nothing: the loss takes logits.

    Args:
      images: float32 [batch, 24, 24, depth], standardised; any batch, also unknown.
      num_classes: size of the last layer.
      seed: int; the first weights derive from it and the variables' names.
      use_fp16: compute in float16. The variables stay float32, and so do the
        gradients that reach them.
      summaries: summarise the activations; of several towers, one is enough.
      weight_decay: of the two hidden dense layers.
      conv_weight_decay: of the convolutions.

    Returns:
      logits: float32 [batch, num_classes].
    """
    given = Pass(
        num_classes,
        seed,
        use_fp16,
        summaries,
        weight_decay=weight_decay,
        conv_weight_decay=conv_weight_decay,
    )
    return TUTORIAL_MODEL.logits(images, given)


@dataclasses.dataclass(frozen=True)
class Network(Pass):
    """Which network towers train, and how: what all their passes have in common."""

    weight_decay: float = WEIGHT_DECAY
    training: bool = True
    model: Model = TUTORIAL_MODEL

    def logits(
        self, images: tf.Tensor, summaries: bool = True, position: Any = 0, offset: int = 0
    ) -> tf.Tensor:
        """The logits of training.

        Args:
          images: float32 [batch, size, size, depth], as the model sees them.
          summaries: summarise the activations; of several towers, one is enough.
          position: int64 [], place in the stream of the first example of all towers.
          offset: number of examples between that one and the first of `images`.

        Returns:
          float32 [batch, num_classes].
        """
        given = dataclasses.replace(self, summaries=summaries, position=position, offset=offset)
        return self.model.logits(images, given)


TUTORIAL_NETWORK = Network()


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Mean cross entropy of the batch.

    Args:
      logits: float32 [batch, num_classes].
      labels: int32 [batch], 0 to num_classes - 1.

    Returns:
      float32 [], in nats.
    """
    with tf.name_scope('cross_entropy'):
        of_image = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        return tf.reduce_mean(of_image, name='mean')


def loss(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Mean cross entropy of the batch plus the weight decay.

    Args:
      logits: float32 [batch, num_classes].
      labels: int32 [batch], 0 to num_classes - 1.

    Returns:
      total_loss: float32 [], in nats.
    """
    terms = [cross_entropy(logits, labels), *tf.losses.get_regularization_losses()]
    return tf.add_n(terms, name='total_loss')


# ------------------------------------------------------------------------ update


def create_global_step(value: int = 0) -> tf.Variable:
    """The graph's global_step, int64 []: number of updates, `value` at first."""
    return tf.get_variable(
        'global_step',
        initializer=tf.constant(value, tf.int64),
        trainable=False,
        collections=[tf.GraphKeys.GLOBAL_VARIABLES, tf.GraphKeys.GLOBAL_STEP],
    )


def create_examples_seen(value: int = 0) -> tf.Variable:
    """examples_seen, int64 []: number of training examples, `value` at first.

    It, not global_step, drives the learning rate and the position in the input
    stream, so both stay right when the batch or the number of towers changes
    between one run and the next.
    """
    return tf.get_variable(
        'examples_seen', initializer=tf.constant(value, tf.int64), trainable=False
    )


def variable_averages(
    global_step: tf.Variable | None = None, decay: float = MOVING_AVERAGE_DECAY
) -> tf.train.ExponentialMovingAverage:
    """The moving averages of the weights, as training keeps and evaluation restores them.

    With `global_step` the decay ramps up as min(decay, (1 + step) / (10 + step)).
    """
    return tf.train.ExponentialMovingAverage(decay, global_step)


# What tf.device takes.
Device = str | Callable[[tf.Operation], str] | None

GradientsAndVariables = Sequence[tuple[tf.Tensor, tf.Variable]]

# From a loss and its gradients to their means over several processes.
Reduction = Callable[[tf.Tensor, GradientsAndVariables], tuple[tf.Tensor, GradientsAndVariables]]


def compute_gradients(
    total_loss: tf.Tensor, use_fp16: bool = False, variables: Sequence[tf.Variable] | None = None
) -> GradientsAndVariables:
    """Gradients of the loss for every trainable variable.

    Args:
      total_loss: float32 [].
      use_fp16: the network computes in float16: keep small gradients from vanishing.
      variables: for these instead.

    Returns:
      (gradient float32, variable) for each variable.
    """
    variables = variables or tf.trainable_variables()
    if use_fp16:
        scaled = tf.gradients(total_loss * LOSS_SCALE, variables)
        gradients = [gradient / LOSS_SCALE for gradient in scaled]
    else:
        gradients = tf.gradients(total_loss, variables)
    return list(zip(gradients, variables, strict=True))


def average_gradients(tower_gradients: Sequence[GradientsAndVariables]) -> GradientsAndVariables:
    """Mean over the towers of each variable's gradient.

    Args:
      tower_gradients: what `compute_gradients` gave for each tower; the towers
        share their variables.

    Returns:
      (mean gradient float32, variable) for each variable.
    """
    scale = 1.0 / len(tower_gradients)
    averages = []
    with tf.name_scope('mean_over_towers'):
        for of_variable in zip(*tower_gradients, strict=True):
            gradients = [gradient for gradient, _ in of_variable]
            averages.append((tf.add_n(gradients) * scale, of_variable[0][1]))
    return averages


def all_reduce_gradients(
    tower_gradients: Sequence[GradientsAndVariables],
) -> list[GradientsAndVariables]:
    """Sum over the towers of each variable's gradient, on every tower's device.

    Each variable's sum begins when the towers have its gradient, while they still compute
    those of earlier layers. On GPUs NCCL adds, on CPUs a ring of copies; either leaves the
    same bits on all devices. Each sum waits for all towers, so whoever fetches one tower's
    must have the others' computed in the same run, as a training step does.

    Args:
      tower_gradients: of each tower, for its own copies of the variables.

    Returns:
      For each tower: (summed gradient float32, variable) for each of its variables.
    """
    with tf.name_scope('all_reduce'):
        return [
            [
                (_sum_on_its_device(gradient, number, len(tower_gradients)), variable)
                for number, (gradient, variable) in enumerate(gradients)
            ]
            for gradients in tower_gradients
        ]


def _sum_on_its_device(tensor: tf.Tensor, number: int, num_towers: int) -> tf.Tensor:
    with tf.device(tensor.device):
        return all_reduce(tensor, number, num_towers)


def all_reduce(tensor: tf.Tensor, key: int, group_size: int) -> tf.Tensor:
    """The sum of the tensors that the members of a group give, with the same bits for each.

    Args:
      tensor: this member's, on its device; of one shape and type for all.
      key: of this sum; the members take part in those of a key in the same order.
      group_size: number of members, towers of a process or processes.

    Returns:
      The sum, of the shape and type of `tensor`.
    """
    return tf.raw_ops.CollectiveReduceV2(
        input=tensor,
        group_size=group_size,
        group_key=1,
        instance_key=key,
        ordering_token=[],
        merge_op='Add',
        final_op='Id',
    )


def tower_gradients(
    images: tf.Tensor,
    labels: tf.Tensor,
    devices: Sequence[Device],
    network: Network = TUTORIAL_NETWORK,
    reduction: Reduction | None = None,
    position: Any = 0,
) -> tuple[tf.Tensor, GradientsAndVariables]:
    """Loss and gradients of a batch, computed by one tower for each device.

    Each tower takes an equal share of the batch; all share one set of variables. So
    the result is that of one device with the whole batch, to rounding, unless the network
    normalises batches. Several towers on one CPU pay too: operations of one run while
    another's wait.

    Args:
      images: float32 [batch, size, size, depth], one batch for all towers.
      labels: int32 [batch].
      devices: of each tower, as tf.device takes it; their number divides the batch.
      network: what each of them computes.
      reduction: where other processes compute the rest of the batch, gives the means over
        all of them.
      position: int64 [], the first image's place in the stream, which decides what dropout
        drops.

    Returns:
      total_loss: float32 [], mean cross entropy over the towers plus the weight decay.
      gradients: of that loss; (mean gradient float32, variable) for each trainable variable.
    """
    losses, gradients = _towers(images, labels, devices, network, position, mirrored=False)
    mean_loss, mean_gradients = _mean(losses), average_gradients(gradients)
    if reduction:
        statistics = layers.mean_statistics()
        mean_loss, means = reduction(mean_loss, [*mean_gradients, *statistics])
        mean_gradients = means[: len(mean_gradients)]
        layers.set_mean_statistics(means[len(mean_gradients) :])
    return _total_loss(mean_loss), _add_weight_decay(mean_gradients)


def mirrored_tower_gradients(
    images: tf.Tensor,
    labels: tf.Tensor,
    devices: Sequence[Device],
    network: Network = TUTORIAL_NETWORK,
    position: Any = 0,
) -> tuple[tf.Tensor, list[GradientsAndVariables]]:
    """As `tower_gradients`, but each tower has its own copy of the variables on its device.

    The copies are local variables: they start from the first tower's variables, once those
    have their values, and no checkpoint holds them.

    Returns:
      total_loss: float32 [], mean cross entropy over the towers plus the weight decay.
      gradients: for each tower, (gradient float32, variable) for each of its variables;
        their sum over the towers is the gradient of that loss.
    """
    losses, gradients = _towers(images, labels, devices, network, position, mirrored=True)
    scale = 1.0 / len(devices)
    for i, device in enumerate(devices):
        with tf.device(device), tf.name_scope(f'share_of_{TOWER_NAME}_{i}'):
            gradients[i] = [(gradient * scale, variable) for gradient, variable in gradients[i]]
            if i == 0:
                gradients[0] = _add_weight_decay(gradients[0])
    return _total_loss(_mean(losses)), gradients


def _towers(
    images: tf.Tensor,
    labels: tf.Tensor,
    devices: Sequence[Device],
    network: Network,
    position: Any,
    mirrored: bool,
) -> tuple[list[tf.Tensor], list[GradientsAndVariables]]:
    """Cross entropy of each tower, and its gradients, without the weight decay."""
    losses, gradients = [], []
    # Where the batch is, so that a tower is sent its share and nothing else.
    with tf.device(images.device), tf.name_scope('split'):
        parts = tf.split(images, len(devices)), tf.split(labels, len(devices))
    for i, (device, tower_images, tower_labels) in enumerate(zip(devices, *parts, strict=True)):
        copies: list[tf.Variable] = []
        getter = _copying_getter(copies) if mirrored and i > 0 else None
        with (
            tf.device(device),
            tf.variable_scope(tf.get_variable_scope(), reuse=i > 0, custom_getter=getter),
            tf.name_scope(f'{TOWER_NAME}_{i}'),
        ):
            offset = i * batch_size_of(tower_images)
            logits = network.logits(tower_images, i == 0, position, offset)
            losses.append(cross_entropy(logits, tower_labels))
            gradients.append(compute_gradients(losses[-1], network.use_fp16, copies))
    return losses, gradients


def _copying_getter(copies: list[tf.Variable]) -> Callable[..., tf.Variable]:
    """Has tf.get_variable give a copy of each variable, which is added to `copies`.

    What is not trained, as moving statistics are, the towers share.
    """

    def get(getter: Callable[..., tf.Variable], name: str, *args: Any, **kwargs: Any):
        variable = getter(name, *args, **kwargs)
        if not variable.trainable:
            return variable
        copy = tf.Variable(
            variable.read_value(),
            trainable=False,
            collections=[tf.GraphKeys.LOCAL_VARIABLES],
            name=f'{variable.op.name}/copy',
        )
        copies.append(copy)
        return copy

    return get


def _mean(losses: Sequence[tf.Tensor]) -> tf.Tensor:
    with tf.name_scope('loss/'):
        return tf.reduce_mean(tf.stack(losses))


def _total_loss(mean_cross_entropy: tf.Tensor) -> tf.Tensor:
    """The mean cross entropy plus the weight decay."""
    weight_losses = tf.losses.get_regularization_losses()
    with tf.name_scope('loss/'):
        return tf.add_n([mean_cross_entropy, *weight_losses], name='total_loss')


def _add_weight_decay(gradients: GradientsAndVariables) -> GradientsAndVariables:
    """Adds the gradients of the weight losses, once for however many towers.

    After their mean, so that the order of the sums, and with it every bit, is the same on
    one device as on several.
    """
    weight_losses = tf.losses.get_regularization_losses()
    if not weight_losses:
        return gradients
    variables = [variable for _, variable in gradients]
    with tf.name_scope('weight_decay'):
        decays = tf.gradients(weight_losses, variables)
        return [
            (gradient if decay is None else gradient + decay, variable)
            for (gradient, variable), decay in zip(gradients, decays, strict=True)
        ]


def _loss_summaries(total_loss: tf.Tensor) -> tf.Operation:
    """Summaries of each loss, raw and averaged; returns the averages' update."""
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


def _check_finite(gradients: GradientsAndVariables, total_loss: tf.Tensor) -> tf.Operation:
    """Fails where the loss or a gradient is not finite.

    One sum of squares takes 0.1 ms, a tenth of looking at each of a million gradients. It
    is finite too where none of them exceeds 1e16.
    """
    squares = [tf.nn.l2_loss(gradient) for gradient, _ in gradients]
    return tf.debugging.check_numerics(
        tf.add_n([total_loss, *squares]), 'loss or gradients are not finite'
    ).op


def apply_gradients(
    gradients: GradientsAndVariables,
    total_loss: tf.Tensor,
    global_step: tf.Variable,
    examples_seen: tf.Variable,
    batch_size: int,
    num_examples_per_epoch: int = NUM_EXAMPLES_PER_EPOCH_FOR_TRAIN,
    copies: GradientsAndVariables = (),
    recipe: Recipe = TUTORIAL_RECIPE,
) -> tf.Operation:
    """One step of gradient descent, then the moving averages of the new weights.

    Where the network normalises batches, its moving statistics take a step as well.

    Args:
      gradients: (gradient, variable) pairs, over the whole batch.
      total_loss: float32 [], over the whole batch; for the summaries.
      global_step: int64 [], grows by 1.
      examples_seen: int64 [], grows by `batch_size`.
      batch_size: number of examples in the whole batch, all towers together.
      num_examples_per_epoch: size of the training set.
      copies: (gradient, variable) pairs of the other towers' copies, which take the same
        step and have no averages.
      recipe: its optimiser, learning rate and averages are used.

    Returns:
      The operation that does it all. Where loss or gradients are not finite it changes
      no weight, and fails with tf.errors.InvalidArgumentError.
    """
    with tf.name_scope('learning_rate'):
        learning_rate = learning_rate_after(examples_seen, num_examples_per_epoch, recipe)
    summaries.scalar('train/learning_rate', learning_rate)
    for gradient, variable in gradients:
        name = variable.op.name
        summaries.histogram(f'{name}/values', variable, HISTOGRAMS)
        summaries.histogram(f'{name}/gradients', gradient, HISTOGRAMS)
    optimizer = optimizer_of(recipe, learning_rate)
    statistics = layers.mean_statistics()
    with tf.name_scope('train'):
        with tf.control_dependencies([_check_finite([*gradients, *statistics], total_loss)]):
            update_loss_averages = _loss_summaries(total_loss)
            update_statistics = layers.update_statistics(statistics)
            update_weights = _update_weights(optimizer, gradients, copies, global_step)
        with tf.control_dependencies([update_weights]):
            update_averages = _update_averages(gradients, global_step, recipe)
            count_examples = examples_seen.assign_add(batch_size)
        return tf.group(
            update_averages,
            count_examples,
            update_loss_averages,
            *update_statistics,
            name='step',
        )


def _update_weights(
    optimizer: tf.train.Optimizer,
    gradients: GradientsAndVariables,
    copies: GradientsAndVariables,
    global_step: tf.Variable,
) -> tf.Operation:
    """The step of all variables and of their copies."""
    if type(optimizer) is tf.train.GradientDescentOptimizer or not copies:
        return optimizer.apply_gradients([*gradients, *copies], global_step)
    # What an optimiser notes of a variable must be in checkpoints, and once: so the copies take
    # the result. Their gradients are computed all the same, which the all-reduce waits for.
    with tf.control_dependencies([gradient for gradient, _ in copies]):
        update = optimizer.apply_gradients(gradients, global_step)
    originals = itertools.cycle(variable for _, variable in gradients)
    with tf.control_dependencies([update]):
        return tf.group(
            *(
                copy.assign(original.read_value())
                for (_, copy), original in zip(copies, originals, strict=False)
            )
        )


def _update_averages(
    gradients: GradientsAndVariables, global_step: tf.Variable, recipe: Recipe
) -> tf.Operation:
    """The moving averages of the variables, where the recipe keeps any."""
    with tf.name_scope('averages'):
        if not recipe.moving_average_decay:
            return tf.no_op()
        averages = variable_averages(global_step, recipe.moving_average_decay)
        return averages.apply([variable for _, variable in gradients])


def train(
    total_loss: tf.Tensor,
    global_step: tf.Variable,
    examples_seen: tf.Variable | None = None,
    batch_size: int = BATCH_SIZE,
    num_examples_per_epoch: int = NUM_EXAMPLES_PER_EPOCH_FOR_TRAIN,
    use_fp16: bool = False,
) -> tf.Operation:
    """The update of a network on one device.

    Args:
      total_loss: float32 [], as `loss` gives it.
      global_step: int64 [], number of updates so far.
      examples_seen: int64 [], number of examples so far; None creates it at 0.
      batch_size: number of examples in a batch.
      num_examples_per_epoch: size of the training set.
      use_fp16: the network computes in float16.

    Returns:
      The operation that takes one training step.
    """
    return apply_gradients(
        compute_gradients(total_loss, use_fp16),
        total_loss,
        global_step,
        create_examples_seen() if examples_seen is None else examples_seen,
        batch_size,
        num_examples_per_epoch,
    )
