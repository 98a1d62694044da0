"""Optimisers of a recipe, and lookahead.

Each is a `tf.train.Optimizer`, whose slots are in checkpoints.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import tensorflow.compat.v1 as tf

from cifar10_lib.nn import summaries
from cifar10_lib.nn.recipes import Recipe, examples_per_decay
from cifar10_lib.nn.towers import GradientsAndVariables

# The biases that --whitening_bias_epochs is about.
WHITENING_BIASES = 'whiten/biases'

# Ends the names of lookahead's slow weights.
LOOKAHEAD_SUFFIX = '/Lookahead'

# Of the polynomial that brings singular values near 1: Jordan et al., "Muon: an optimizer for
# hidden layers in neural networks", 2024.
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 3


def create_optimizer(recipe: Recipe, learning_rate: tf.Tensor) -> tf.train.Optimizer:
    """The recipe's optimiser with a learning rate float32 [].

    Adam's further values are those of Kingma and Ba, "Adam", ICLR 2015, algorithm 1; RMSprop's
    are Keras's, a decay of 0.9 and an epsilon of 1e-7, which is added under the root.
    """
    if recipe.optimizer == 'sgd':
        return tf.train.GradientDescentOptimizer(learning_rate)
    if recipe.optimizer == 'adam':
        return tf.train.AdamOptimizer(learning_rate)
    if recipe.optimizer == 'rmsprop':
        return tf.train.RMSPropOptimizer(learning_rate, decay=0.9, epsilon=1e-7)
    if recipe.optimizer == 'keras_rmsprop':
        return KerasRMSProp(learning_rate)
    if recipe.optimizer == 'muon':
        fraction = learning_rate / (recipe.learning_rate or 1.0)
        return Muon(
            learning_rate,
            recipe.momentum,
            recipe.muon_learning_rate * fraction,
            recipe.muon_momentum,
        )
    return tf.train.MomentumOptimizer(
        learning_rate, recipe.momentum, use_nesterov=recipe.optimizer == 'nesterov'
    )


class _DenseOptimizer(tf.train.Optimizer):
    """An optimiser of dense gradients with one slot, zeros at first."""

    def _create_slots(self, var_list: Sequence[tf.Variable]) -> None:
        for variable in var_list:
            self._zeros_slot(variable, 'memory', self._name)

    def _resource_apply_dense(self, grad: tf.Tensor, handle: Any) -> tf.Operation:
        return self._update(grad, handle, self.get_slot(handle, 'memory'))

    def _update(self, grad: tf.Tensor, variable: Any, memory: tf.Variable) -> tf.Operation:
        raise NotImplementedError


class KerasRMSProp(_DenseOptimizer):
    """RMSprop as Keras 2.0 had it.

    a <- 0.9 a + 0.1 g^2, from 0 on; w <- w - rate g / (sqrt(a) + 1e-8). TensorFlow's own begins
    with a = 1 and adds its epsilon under the root.
    """

    def __init__(self, learning_rate: tf.Tensor) -> None:
        super().__init__(use_locking=False, name='KerasRMSProp')
        self._rate = learning_rate

    def _update(self, grad: tf.Tensor, variable: Any, memory: tf.Variable) -> tf.Operation:
        mean_square = memory.assign(0.9 * memory + 0.1 * tf.square(grad))
        return variable.assign_sub(self._rate * grad / (tf.sqrt(mean_square) + 1e-8))


class Muon(_DenseOptimizer):
    """Steps of nearly orthogonal matrices for convolutions, Nesterov momentum for all else.

    Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024. A filter bank
    [height, width, inputs, outputs] is a matrix [height * width * inputs, outputs]: it is scaled
    to the norm sqrt(outputs), and takes a step along `orthogonalize` of its momentum.
    """

    def __init__(
        self,
        learning_rate: tf.Tensor,
        momentum: float,
        filters_learning_rate: tf.Tensor,
        filters_momentum: float,
    ) -> None:
        super().__init__(use_locking=False, name='Muon')
        self._rate, self._momentum = learning_rate, momentum
        self._filters_rate, self._filters_momentum = filters_learning_rate, filters_momentum

    def _update(self, grad: tf.Tensor, variable: Any, memory: tf.Variable) -> tf.Operation:
        is_filters = grad.shape.rank == 4
        momentum = self._filters_momentum if is_filters else self._momentum
        memory = memory.assign(momentum * memory + grad)
        direction = grad + momentum * memory
        if not is_filters:
            return variable.assign_sub(self._rate * direction)
        outputs = grad.shape.as_list()[-1]
        step = tf.reshape(orthogonalize(tf.reshape(direction, [-1, outputs])), grad.shape)
        weights = variable.read_value()
        weights *= outputs**0.5 / tf.norm(weights)
        return variable.assign(weights - self._filters_rate * step)


def orthogonalize(matrix: tf.Tensor) -> tf.Tensor:
    """A matrix with the singular vectors of another, and singular values near 1.

    Three Newton-Schulz steps X <- X (a I + b A + c A A) with A = X^T X, from the matrix
    divided by its norm on; singular values of more than 0.1 of the norm end between 0.6 and
    1.2.

    Args:
      matrix: float32 [rows, columns].
    """
    a, b, c = _NEWTON_SCHULZ
    columns = matrix.shape.as_list()[1]
    matrix /= tf.norm(matrix) + 1e-7
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = tf.matmul(matrix, matrix, transpose_a=True)
        factor = a * tf.eye(columns) + b * gram + c * tf.matmul(gram, gram)
        matrix = tf.matmul(matrix, factor)
    return matrix


def clip_gradients(
    clip_norm: float, gradients: GradientsAndVariables, copies: GradientsAndVariables = ()
) -> tuple[GradientsAndVariables, GradientsAndVariables]:
    """Scales gradients down to a norm of all of them together, where theirs is larger.

    Pascanu et al., "On the difficulty of training recurrent neural networks", ICML 2013,
    algorithm 1.

    Args:
      clip_norm: the largest norm.
      gradients: (gradient, variable) pairs.
      copies: pairs of the same gradients for copies of the variables, which get the same scale.
    """
    with tf.name_scope('clip'):
        norm = tf.linalg.global_norm([gradient for gradient, _ in gradients])
        summaries.scalar('train/gradient_norm', norm)
        scale = tf.minimum(1.0, clip_norm / norm)
        scaled, scaled_copies = (
            [(gradient * scale, variable) for gradient, variable in pairs]
            for pairs in (gradients, copies)
        )
    return scaled, scaled_copies


def take_step(
    recipe: Recipe,
    gradients: GradientsAndVariables,
    learning_rate: tf.Tensor,
    epochs: tf.Tensor,
    global_step: tf.Variable,
    copies: GradientsAndVariables = (),
) -> tf.Operation:
    """One step of the recipe's optimiser, each variable at its learning rate.

    Variables of one learning rate share an optimiser, so that the factor of a layer scales its
    update, whatever the optimiser makes of a gradient.

    Args:
      recipe: names the optimiser, and has the factors of the learning rate by layer.
      gradients: (gradient, variable) pairs.
      learning_rate: float32 [], of this step.
      epochs: float32 [], epochs so far.
      global_step: integer [], grows by 1.
      copies: (gradient, variable) pairs of copies of the same variables, in the same order once
        or several times, which take the same step.
    """
    factors = recipe.layer_factors()
    originals = itertools.cycle(variable.op.name for _, variable in gradients)
    groups: dict[tuple[float, bool], list[tuple[tf.Tensor, tf.Variable]]] = {}
    for pair, name in zip([*gradients, *copies], originals, strict=False):
        stops = recipe.whitening_bias_epochs > 0 and name == WHITENING_BIASES
        groups.setdefault((_layer_factor(name, factors), stops), []).append(pair)
    updates: list[tf.Operation] = []
    for number, ((factor, stops), pairs) in enumerate(groups.items(), start=1):
        rate = learning_rate if factor == 1.0 else factor * learning_rate
        if stops:
            rate *= tf.cast(epochs < recipe.whitening_bias_epochs, tf.float32)
        counter = global_step if number == len(groups) else None
        with tf.control_dependencies(updates):
            updates = [create_optimizer(recipe, rate).apply_gradients(pairs, counter)]
    return updates[0]


def _layer_factor(name: str, factors: Sequence[tuple[str, float]]) -> float:
    """The factor of the first pattern that matches the layer of a variable; 1 without one."""
    layer = name.rpartition('/')[0]
    return next((factor for pattern, factor in factors if fnmatchcase(layer, pattern)), 1.0)


def look_ahead(
    recipe: Recipe,
    variables: Sequence[tf.Variable],
    step: tf.Tensor,
    examples_seen: tf.Tensor,
    num_examples_per_epoch: int,
) -> tf.Operation:
    """Moves slow weights towards the weights, and these back to them, every so many steps.

    Zhang et al., "Lookahead optimizer: k steps forward, 1 step back", NeurIPS 2019. After every
    k-th step slow <- a slow + (1 - a) fast, then fast <- slow, where a = decay^k (t/T)^3 grows
    with the part t/T of the schedule that is over (Jordan, "94% on CIFAR-10 in 3.29 seconds on a
    single GPU", 2024, sec. 3.4). At the end of the schedule fast <- slow.

    Args:
      recipe: has k, the decay and the schedule.
      variables: the weights and moving statistics.
      step: integer [], number of steps so far, this one included.
      examples_seen: int64 [], of the same.
      num_examples_per_epoch: size of the training set.
    """
    slow_weights = [
        tf.get_variable(
            variable.op.name + LOOKAHEAD_SUFFIX,
            initializer=variable.initial_value,
            trainable=False,
        )
        for variable in variables
    ]
    length = examples_per_decay(recipe, num_examples_per_epoch)
    part = tf.cast(tf.minimum(examples_seen / length, 1.0), tf.float32)
    decay = recipe.lookahead_decay**recipe.lookahead_steps * part**3

    def meet() -> tf.Operation:
        updates = []
        for slow, fast in zip(slow_weights, variables, strict=True):
            met = decay * slow.read_value() + (1.0 - decay) * fast.read_value()
            updates += [slow.assign(met), fast.assign(met)]
        return tf.group(*updates)

    def return_to_slow() -> tf.Operation:
        return tf.group(
            *(
                fast.assign(slow.read_value())
                for slow, fast in zip(slow_weights, variables, strict=True)
            )
        )

    is_due = tf.equal(step % recipe.lookahead_steps, 0)
    return tf.cond(is_due, meet, lambda: tf.cond(part >= 1.0, return_to_slow, tf.no_op)).op
