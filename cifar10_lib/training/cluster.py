"""A cluster of worker processes that take each training step together.

Every worker has its own copy of the graph and of the variables. The workers exchange only sums
of tensors, by TensorFlow's collective operations between its own servers: of their settings, of
the chief's first values, and in each step of losses and gradients. TF_CONFIG or SLURM says where
they are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shlex
import signal
import socket
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10_lib.base.commands import command
from cifar10_lib.base.errors import UserError, error_message
from cifar10_lib.nn.layers import mean_statistics, set_mean_statistics
from cifar10_lib.nn.recipes import Recipe
from cifar10_lib.nn.towers import GradientsAndVariables, all_reduce
from cifar10_lib.runs.checkpoints import Start
from cifar10_lib.training import worker
from cifar10_lib.training.local_cluster import free_addresses
from cifar10_lib.training.settings import TrainSettings

_EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
)

# host:port, or [IPv6 address]:port.
_ADDRESS = re.compile(r'(?:[^\s:/\[\]]+|\[[^\s/\[\]]+\]):([0-9]{1,5})')

# First port of SLURM's tasks on each host, as TensorFlow's resolver has it.
_SLURM_PORT = 8888

# Environment variable of the hosts that gRPC reaches without a proxy.
_NO_PROXY = 'no_grpc_proxy'

# The workers' exchanges, each under its own key: TensorFlow counts those of a key, and all
# workers must have made the same number.
_MEETING, _FIRST_VALUES, _STEP, _FAREWELL = range(1, 5)

# Of the facts that a worker tells the others, as JSON.
_FACTS_BYTES = 4096

# Settings that decide the values of a step, or the number of steps.
_SAME_SETTINGS = (
    *(field.name for field in dataclasses.fields(Recipe)),
    'seed',
    'dataset',
    'num_held_out',
    'use_fp16',
    'use_bf16',
    'deterministic',
)

# Of trying to reach a worker.
_SECONDS_BETWEEN_TRIES = 0.2
_SECONDS_PER_TRY = 2.0

# A wait that takes longer is printed.
_SECONDS_BEFORE_NOTE = 5.0

# Restarts of a worker from the same checkpoint before it gives up.
MAX_RESTARTS = 10

# Environment variable of a worker that has restarted: how often from one step, and that step.
_RESTARTS = 'CIFAR10_CLUSTER_RESTARTS'

# TensorFlow's errors where another worker is gone, hangs, or has started anew.
_LOST_ERRORS = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)


# ------------------------------------------------------------------ TF_CONFIG and SLURM


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a run, and which of them this process is."""

    addresses: tuple[str, ...]
    """host:port of each worker; the first is the chief."""
    index: int
    """This process's place among them."""

    def describe(self, index: int) -> str:
        return f'worker {index} at {self.addresses[index]}'


def from_environment() -> Cluster:
    """The cluster that TF_CONFIG names, or without it the tasks of this SLURM step.

    Where neither names one, as Kubeflow's operator and SLURM do for a single replica, this process
    is the only worker. Not Kubernetes: TensorFlow's resolver for it names the workers, but not
    which of them this process is.

    Raises:
      UserError: a cluster is wrong; says where.
    """
    config = _tf_config()
    if config:
        return _from_tf_config(config)
    if 'SLURM_PROCID' in os.environ and os.environ.get('SLURM_STEP_NUM_TASKS', '1') != '1':
        return _from_slurm()
    print(
        'One worker, this one: TF_CONFIG names none, and which of them this is, as '
        f"'{_EXAMPLE}' does"
    )
    return Cluster(tuple(free_addresses(1)), 0)


def is_evaluator() -> bool:
    """Whether TF_CONFIG makes this process the evaluator of a cluster: its task's type says so.

    Raises:
      UserError: TF_CONFIG is not JSON.
    """
    config = _tf_config()
    task = config.get('task') if isinstance(config, dict) else None
    return isinstance(task, dict) and task.get('type') == 'evaluator'


def become_evaluator(settings: TrainSettings) -> None:
    """Replaces this process by `cifar10_eval.py`, on the run of these settings."""
    words = [
        *command('cifar10_eval.py'),
        f'--checkpoint_dir={settings.train_dir}',
        f'--data_dir={settings.data_dir}',
        f'--model={settings.model}',
        *([f'--dataset={settings.dataset}'] if settings.dataset else []),
    ]
    print(f'Evaluator: {shlex.join(words)}', flush=True)
    os.execvp(words[0], words)


def _tf_config() -> Any:
    """What TF_CONFIG holds; None where it is not set."""
    text = os.environ.get('TF_CONFIG')
    try:
        return json.loads(text) if text else None
    except ValueError as error:
        raise UserError(
            f'TF_CONFIG: not JSON: {error}; expected something like {_EXAMPLE}'
        ) from error


def _from_tf_config(config: Any) -> Cluster:
    for name in ('cluster', 'task'):
        if not isinstance(config, dict) or not isinstance(config.get(name), dict):
            raise UserError(f'TF_CONFIG: expected an object {name!r}, as in {_EXAMPLE}')
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    try:
        jobs = resolver.cluster_spec().as_dict()
    except (TypeError, ValueError) as error:
        raise UserError(f'TF_CONFIG: cluster: {error}; found {config["cluster"]}') from error
    # It trains nothing: `is_evaluator`.
    jobs.pop('evaluator', None)
    # Not resolver.task_id, which takes true and 1.5 for 1.
    index = config['task'].get('index')
    if isinstance(index, str) and index.isascii() and index.isdigit():
        index = int(index)
    return _checked_cluster('TF_CONFIG', jobs, resolver.task_type, index)


def _from_slurm() -> Cluster:
    try:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=_SLURM_PORT,
            # SLURM assigns the GPUs. Without these numbers the resolver runs nvidia-smi, and
            # leaves out the tasks of a host with fewer GPUs than tasks.
            gpus_per_node=int(os.environ['SLURM_STEP_NUM_TASKS']),
            gpus_per_task=1,
            auto_set_gpu=False,
        )
        jobs = resolver.cluster_spec().as_dict()
    except (RuntimeError, ValueError) as error:
        raise UserError(f'SLURM: {error}; set TF_CONFIG in its place') from error
    cluster = _checked_cluster('SLURM', jobs, resolver.task_type, resolver.task_id)
    # The resolver sorts the hosts by name, and fills one after the other.
    host, task = (os.environ.get(name) for name in ('SLURMD_NODENAME', 'SLURM_LOCALID'))
    if host and task and cluster.addresses[cluster.index] != f'{host}:{_SLURM_PORT + int(task)}':
        raise UserError(
            f'SLURM: {cluster.describe(cluster.index)} was expected, but this is task {task} of '
            f'{host}: the tasks are not numbered by the names of their hosts; give --nodelist '
            'in alphabetical order and --distribution=block, or set TF_CONFIG'
        )
    return cluster


def _checked_cluster(
    source: str, jobs: dict[str, list[str]], job: str | None, index: Any
) -> Cluster:
    """The cluster of a resolved specification, its workers numbered through.

    A job `chief` is worker 0, and those of `worker` follow.

    Raises:
      UserError: names what is wrong, and what was expected.
    """
    for name, addresses in jobs.items():
        where = f'{source}: cluster: {name}'
        if name not in ('chief', 'worker'):
            raise UserError(
                f'{where}: expected only the jobs chief, worker and evaluator; there are no '
                'parameter servers'
            )
        if not addresses or not isinstance(addresses, list):
            raise UserError(f'{where}: expected a list of addresses, found {addresses or "none"}')
        for address in addresses:
            match = _ADDRESS.fullmatch(address)
            if not match or not 0 < int(match[1]) < 2**16:
                raise UserError(f'{where}: expected host:port, found {address!r}')
    chiefs = jobs.get('chief', [])
    if len(chiefs) > 1:
        raise UserError(f'{source}: cluster: chief: expected one address, found {chiefs}')
    workers = (*chiefs, *jobs.get('worker', []))
    if not workers:
        raise UserError(f'{source}: cluster: names no worker; expected something like {_EXAMPLE}')
    duplicates = sorted({address for address in workers if workers.count(address) > 1})
    if duplicates:
        raise UserError(f'{source}: cluster: {", ".join(duplicates)} is there more than once')
    if job not in jobs:
        raise UserError(
            f'{source}: task: type: expected one of {", ".join(jobs)}, as in cluster; found {job!r}'
        )
    size = len(jobs[job])
    if type(index) is not int or not 0 <= index < size:
        raise UserError(
            f'{source}: task: index: expected 0 to {size - 1}, as cluster has {size} of type '
            f'{job!r}; found {index!r}'
        )
    return Cluster(workers, index + (len(chiefs) if job == 'worker' else 0))


# ------------------------------------------------------------------- meeting others


def configure(config: tf.ConfigProto, cluster: Cluster, wait_secs: int) -> tf.ConfigProto:
    """Makes the configuration of a session on one machine that of a worker, and returns it.

    Args:
      config: is changed.
      cluster: of the worker.
      wait_secs: longest wait of a call for other workers.
    """
    config.experimental.collective_group_leader = '/job:worker/replica:0/task:0'
    # A session waits without limit for all devices that it may use: its own are enough.
    config.device_filters.append(f'/job:worker/task:{cluster.index}')
    # Not the collective operations' own timeout_seconds: that leaves a sleeping thread
    # behind for each of them.
    config.operation_timeout_in_ms = 1000 * wait_secs
    return config


def start_server(cluster: Cluster, config: tf.ConfigProto) -> tf.train.Server:
    """Opens this worker's port.

    The workers are reached directly, whatever proxy the environment names for downloads.

    Raises:
      UserError: it can't be opened.
    """
    hosts = {address.rpartition(':')[0].strip('[]') for address in cluster.addresses}
    # TensorFlow's channels would go through the proxy, where they fail without a word.
    direct = [os.environ.get(_NO_PROXY), *sorted(hosts)]
    os.environ[_NO_PROXY] = ','.join(filter(None, direct))
    spec = tf.train.ClusterSpec({'worker': list(cluster.addresses)})
    try:
        return tf.train.Server(spec, job_name='worker', task_index=cluster.index, config=config)
    except tf.errors.OpError as error:
        raise UserError(
            f'{cluster.describe(cluster.index)}: the port cannot be opened; is it in use by '
            'another run?'
        ) from error


def wait_for_others(cluster: Cluster, wait_secs: int) -> None:
    """Returns when every other worker's port is open.

    Raises:
      UserError: names the first that was not open within `wait_secs` seconds.
    """
    begin = time.monotonic()
    for index, address in enumerate(cluster.addresses):
        noted = False
        while index != cluster.index and (problem := _connection_error(address)):
            waited = time.monotonic() - begin
            if waited >= wait_secs:
                raise UserError(
                    f'{cluster.describe(index)}: not reached within --wait_secs={wait_secs} '
                    f'seconds: {problem}; start it, or correct its address'
                )
            if waited >= _SECONDS_BEFORE_NOTE and not noted:
                print(f'Waiting for {cluster.describe(index)}: {problem}', flush=True)
                noted = True
            time.sleep(_SECONDS_BETWEEN_TRIES)


def _connection_error(address: str) -> str | None:
    """Why host:port can't be connected to; None where it can."""
    host, _, port = address.rpartition(':')
    try:
        socket.create_connection((host.strip('[]'), int(port)), _SECONDS_PER_TRY).close()
    except OSError as error:
        return error_message(error)
    return None


def program_digest() -> str:
    """SHA-256 of this program's files, shortened."""
    digest = hashlib.sha256()
    top = Path(__file__).resolve().parents[2]
    for path in sorted([*top.glob('cifar10*.py'), *top.glob('cifar10_lib/*/*.py')]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def refuse_mismatch(cluster: Cluster, facts: list[dict[str, Any]]) -> None:
    """Raises UserError that names every fact in which a worker differs from the chief."""
    problems = [
        f'{name} is {of_worker.get(name)} on {cluster.describe(index)}, '
        f'and {expected} on {cluster.describe(0)}'
        for index, of_worker in enumerate(facts)
        for name, expected in facts[0].items()
        if of_worker.get(name) != expected
    ]
    if problems:
        raise UserError(f'the workers must agree: {"; ".join(problems)}')


# --------------------------------------------------------------------------- a worker


class ClusterWorker(worker.Worker):
    """One of several processes that take each step together."""

    def __init__(self, cluster: Cluster, config: tf.ConfigProto, wait_secs: int) -> None:
        """
        Args:
          cluster: its workers.
          config: as `configure` returns it.
          wait_secs: longest wait for the others, in seconds.
        """
        self.cluster = cluster
        self.index = cluster.index
        self.num_workers = len(cluster.addresses)
        self.device = f'/job:worker/replica:0/task:{cluster.index}'
        self._config = config
        self._wait_secs = wait_secs
        self._start_step = -1
        self._stop: _AgreedStopHook | None = None

    def sum_over_workers(self, values: tf.Tensor, key: int) -> tf.Tensor:
        """The sum of all workers' `values`, with the same bits on each.

        Args:
          values: float32, int32 or int64, of the same shape on all workers.
          key: of this exchange; the workers make those of a key in the same order.
        """
        with tf.device(f'{self.device}/cpu:0'):
            return all_reduce(values, key, self.num_workers)

    def join(self, settings: TrainSettings, facts: dict[str, Any], start: Start | None) -> Start:
        self._server = start_server(self.cluster, self._config)
        self.target = self._server.target
        wait_for_others(self.cluster, self._wait_secs)
        own = {
            **{f'--{name}': getattr(settings, name) for name in _SAME_SETTINGS},
            **facts,
            'TensorFlow': tf.__version__,
            'the program': program_digest(),
        }
        everyones = self._exchange({'facts': own, 'start': start and start[1:]})
        refuse_mismatch(self.cluster, [of_worker['facts'] for of_worker in everyones])
        step, examples = everyones[0]['start']
        self._start_step = step
        if start is None and step:
            print(f'Resuming from step {step}, as {self.cluster.describe(0)} says', flush=True)
        return start or Start(None, step, examples)

    def _exchange(self, own: dict[str, Any]) -> list[dict[str, Any]]:
        """The facts of each worker, in the workers' order, from each worker's `own`."""
        text = json.dumps(own).encode()
        rows = np.zeros([self.num_workers, _FACTS_BYTES], np.int32)
        rows[self.index, : len(text)] = np.frombuffer(text, np.uint8)
        with tf.Graph().as_default():
            everyones = self.sum_over_workers(tf.constant(rows), _MEETING)
            with self.together(), tf.Session(self.target, config=self._config) as session:
                try:
                    rows = session.run(everyones)
                except tf.errors.DeadlineExceededError as error:
                    raise UserError(
                        f'{self.cluster.describe(self.index)}: the port of each of '
                        f'{", ".join(self.cluster.addresses)} is open, but not every worker has '
                        f'answered within --wait_secs={self._wait_secs} seconds: one hangs, or '
                        'was started with another TF_CONFIG'
                    ) from error
        return [json.loads(row.astype(np.uint8).tobytes().rstrip(b'\0')) for row in rows]

    def mean_over_workers(
        self, loss: tf.Tensor, gradients: GradientsAndVariables
    ) -> tuple[tf.Tensor, GradientsAndVariables]:
        """Means over the workers' equal shares of the batch.

        All go in one vector, and with them the statistics of batch normalisation, which are set
        to their means, and the signals that ask to stop.
        """
        num_gradients = len(gradients)
        gradients = [*gradients, *mean_statistics()]
        signals = tf.placeholder(tf.float32, [self.num_workers], name='signals')
        tensors = [loss, *(gradient for gradient, _ in gradients), signals]
        with tf.name_scope('mean_over_workers'):
            flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)
            total = self.sum_over_workers(flat, _STEP)
            sizes = [tensor.shape.num_elements() for tensor in tensors]
            *parts, everyones_signals = tf.split(total, sizes)
            mean_loss, *means = [
                tf.reshape(part, tensor.shape) / self.num_workers
                for part, tensor in zip(parts, tensors[:-1], strict=True)
            ]
        self._stop = _AgreedStopHook(self.index, signals, everyones_signals)
        pairs = [(mean, variable) for mean, (_, variable) in zip(means, gradients, strict=True)]
        set_mean_statistics(pairs[num_gradients:])
        return mean_loss, pairs[:num_gradients]

    def hooks(self, own: list[tf.train.SessionRunHook]) -> list[tf.train.SessionRunHook]:
        return [_FirstValuesHook(self), *own, _FarewellHook(self)]

    def stop_hook(self) -> _AgreedStopHook:
        assert self._stop
        return self._stop

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Restarts this process where another worker is lost inside `with`."""
        try:
            yield
        except tf.errors.OpError as error:
            is_lost = 'Collective ops is aborted' in error.message
            if not is_lost and not isinstance(error, _LOST_ERRORS):
                raise
            self._restart(error)

    def _restart(self, error: tf.errors.OpError) -> None:
        """Replaces this process by a new one with the same command, but for --start_over.

        TensorFlow can't close a server, and only another process can open the port again.

        Raises:
          UserError: it was asked to stop, or has restarted too often.
        """
        reason = 'no answer' if isinstance(error, tf.errors.DeadlineExceededError) else 'broken off'
        if self._stop and self._stop.received:
            raise UserError(
                f'{self._stop.received.name} came as another worker was lost; the run '
                'resumes from the last checkpoint'
            ) from error
        restarts, _, step = os.environ.get(_RESTARTS, '0 -1').partition(' ')
        # Step -1: this process has not learnt yet where the run starts.
        is_same_start = self._start_step in (-1, int(step))
        num_restarts = 1 + (int(restarts) if is_same_start else 0)
        if num_restarts > MAX_RESTARTS:
            raise UserError(
                f'another worker was lost ({reason}), for the {num_restarts}th time since the last '
                'checkpoint: given up'
            ) from error
        print(
            f'{self.cluster.describe(self.index)}: another worker was lost ({reason}): starting '
            f'again from the last checkpoint ({num_restarts} of {MAX_RESTARTS})',
            file=sys.stderr,
        )
        os.environ[_RESTARTS] = f'{num_restarts} {self._start_step}'
        sys.stdout.flush()
        sys.stderr.flush()
        # Of a flag that is given twice the last counts: the restarted run resumes.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], '--nostart_over'])


class _AgreedStopHook(worker.StopSignalHook):
    """Ends all workers' training after the same step, once a signal has come to any of them."""

    def __init__(self, index: int, own: tf.Tensor, everyones: tf.Tensor) -> None:
        """
        Args:
          index: of this worker.
          own: placeholder, float32 [num_workers], of the signal's number at this worker's place.
          everyones: float32 [num_workers], the sum of `own` over the workers.
        """
        super().__init__()
        self._index, self._own, self._everyones = index, own, everyones

    def before_run(self, run_context: tf.train.SessionRunContext) -> tf.train.SessionRunArgs:
        signals = np.zeros(self._own.shape.as_list(), np.float32)
        signals[self._index] = self.received or 0
        return tf.train.SessionRunArgs(self._everyones, {self._own: signals})

    def after_run(
        self, run_context: tf.train.SessionRunContext, run_values: tf.train.SessionRunValues
    ) -> None:
        numbers = [int(number) for number in run_values.results if number]
        if numbers:
            self.received = self.received or signal.Signals(numbers[0])
            run_context.request_stop()


class _FirstValuesHook(tf.train.SessionRunHook):
    """Assigns the chief's values to every worker's variables."""

    def __init__(self, worker: ClusterWorker) -> None:
        self._worker = worker

    def begin(self) -> None:
        variables = [v for v in tf.global_variables() if v.dtype.base_dtype == tf.float32]
        # As integers, whose sum with zeros keeps every bit.
        flat = tf.concat([tf.reshape(tf.bitcast(v, tf.int32), [-1]) for v in variables], axis=0)
        own = flat if self._worker.is_chief else tf.zeros_like(flat)
        chiefs = self._worker.sum_over_workers(own, _FIRST_VALUES)
        parts = tf.split(chiefs, [v.shape.num_elements() for v in variables])
        self._assign = tf.group(
            [
                v.assign(tf.bitcast(tf.reshape(part, v.shape), tf.float32))
                for v, part in zip(variables, parts, strict=True)
            ]
        )

    def after_create_session(self, session: tf.Session, coord: tf.train.Coordinator) -> None:
        with self._worker.together():
            session.run(self._assign)


class _FarewellHook(tf.train.SessionRunHook):
    """Waits at the end until the chief has saved, and compares the workers' weights."""

    def __init__(self, worker: ClusterWorker) -> None:
        self._worker = worker

    def begin(self) -> None:
        self._own = tf.placeholder(tf.int64, [self._worker.num_workers])
        self._everyones = self._worker.sum_over_workers(self._own, _FAREWELL)

    def end(self, session: tf.Session) -> None:
        checksums = np.zeros([self._worker.num_workers], np.int64)
        weights = session.run(tf.trainable_variables())
        checksums[self._worker.index] = zlib.crc32(b''.join(array.tobytes() for array in weights))
        try:
            checksums = session.run(self._everyones, {self._own: checksums})
        except tf.errors.OpError:
            # The last step is taken, and the chief saves before it comes here.
            return
        if len(set(checksums)) > 1:
            print(
                "Warning: the workers' weights are not the same to the bit; the chief's are saved",
                file=sys.stderr,
            )
