"""Times of training steps of several graphs in one process, in turns."""

from __future__ import annotations

import time
from collections.abc import Sequence

import tensorflow.compat.v1 as tf

from benchmarks.speed.turns import alternate

# The first steps allocate memory and choose kernels.
WARM_UP_STEPS = 10


class Runner:
    """A training graph and its session, ready to take steps."""

    def __init__(self, train_op: tf.Operation, config: tf.ConfigProto | None = None) -> None:
        """Opens a session of the graph of `train_op`, and initialises its variables."""
        self.train_op = train_op
        with train_op.graph.as_default():
            self.session = tf.Session(config=config)
            self.session.run(tf.global_variables_initializer())
            self.session.run(tf.local_variables_initializer())

    def milliseconds_per_step(self, num_steps: int) -> float:
        begin = time.perf_counter()
        for _ in range(num_steps):
            self.session.run(self.train_op)
        return 1000 * (time.perf_counter() - begin) / num_steps


def take_turns(runners: Sequence[Runner], rounds: int, steps: int) -> list[list[float]]:
    """Milliseconds a step of each runner in each round, after a warm-up."""
    for runner in runners:
        runner.milliseconds_per_step(WARM_UP_STEPS)
    times: list[list[float]] = [[] for _ in runners]
    for place in alternate(range(len(runners)), rounds):
        times[place].append(runners[place].milliseconds_per_step(steps))
    return times
