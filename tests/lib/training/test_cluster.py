"""The cluster of workers: how it is named, how they meet, and when one restarts."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest
import tensorflow.compat.v1 as tf

from cifar10_lib.base.errors import UserError
from cifar10_lib.training import cluster as cluster_module
from cifar10_lib.training.cluster import Cluster, ClusterWorker

TWO = {'worker': ['host0:2222', 'host1:2223']}


def tf_config(monkeypatch: pytest.MonkeyPatch, cluster: Any, kind: Any, index: Any) -> None:
    config = {'cluster': cluster, 'task': {'type': kind, 'index': index}}
    monkeypatch.setenv('TF_CONFIG', json.dumps(config))


@pytest.mark.parametrize(
    ('cluster', 'kind', 'index', 'place'),
    [
        (TWO, 'worker', 0, 0),
        (TWO, 'worker', 1, 1),
        ({'worker': ['host1:2223'], 'chief': ['host0:2222']}, 'chief', 0, 0),
        ({'worker': ['host1:2223'], 'chief': ['host0:2222']}, 'worker', 0, 1),
        # As Kubernetes operators have it.
        (TWO, 'worker', '1', 1),
        ({**TWO, 'evaluator': ['host2:2222']}, 'worker', 1, 1),
    ],
)
def test_workers_are_numbered_through_and_the_chief_is_the_first(
    monkeypatch: pytest.MonkeyPatch, cluster: Any, kind: str, index: int, place: int
) -> None:
    tf_config(monkeypatch, cluster, kind, index)
    expected = Cluster(('host0:2222', 'host1:2223'), place)
    assert cluster_module.from_environment() == expected


@pytest.mark.parametrize(
    ('cluster', 'kind', 'index', 'message'),
    [
        (None, 'worker', 0, "expected an object 'cluster'"),
        ({}, 'worker', 0, 'cluster: names no worker'),
        ({'ps': ['a:1'], **TWO}, 'worker', 0, 'cluster: ps: .* no parameter servers'),
        ({'worker': []}, 'worker', 0, 'worker: expected a list of addresses, found'),
        ({'worker': 'a:1'}, 'worker', 0, "job 'worker' must be a list .* found .*'a:1'"),
        ({'worker': {'1': 'a:1'}}, 'worker', 0, "expected a list of addresses, found {1: 'a:1'}"),
        ({'worker': ['a']}, 'worker', 0, "expected host:port, found 'a'"),
        ({'worker': ['a:65536']}, 'worker', 0, "expected host:port, found 'a:65536'"),
        ({'worker': ['http://a:1']}, 'worker', 0, "expected host:port, found 'http://a:1'"),
        ({'worker': ['::1:1']}, 'worker', 0, "expected host:port, found '::1:1'"),
        ({'worker': [7]}, 'worker', 0, 'cluster: Task address 7 must be .* found .*7'),
        ({'chief': ['a:1', 'b:1']}, 'chief', 0, 'chief: expected one address'),
        ({'worker': ['a:1', 'b:1', 'a:1']}, 'worker', 0, 'a:1 is there more than once'),
        ({'chief': ['a:1'], 'worker': ['a:1']}, 'worker', 0, 'a:1 is there more than once'),
        (TWO, 'chief', 0, "task: type: expected one of worker, .* found 'chief'"),
        (TWO, 'worker', 2, 'task: index: expected 0 to 1, .* found 2'),
        (TWO, 'worker', -1, 'task: index: expected 0 to 1, .* found -1'),
        (TWO, 'worker', True, 'task: index: .* found True'),
        (TWO, 'worker', 1.5, 'task: index: .* found 1.5'),
        (TWO, 'worker', '2', 'task: index: expected 0 to 1, .* found 2'),
        (TWO, 'worker', 'first', "task: index: .* found 'first'"),
    ],
)
def test_a_wrong_tf_config_is_refused(
    monkeypatch: pytest.MonkeyPatch, cluster: Any, kind: Any, index: Any, message: str
) -> None:
    tf_config(monkeypatch, cluster, kind, index)
    with pytest.raises(UserError, match=f'^TF_CONFIG: .*{message}'):
        cluster_module.from_environment()


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"cluster"', 'not JSON'),
        ('[1]', "expected an object 'cluster'"),
        ('{"cluster": {"worker": ["a:1"]}}', "expected an object 'task'"),
    ],
)
def test_a_tf_config_that_is_no_such_json_is_refused(
    monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setenv('TF_CONFIG', text)
    with pytest.raises(UserError, match=f'^TF_CONFIG: {message}'):
        cluster_module.from_environment()


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('', False),
        ('{}', False),
        ('[1]', False),
        (json.dumps({'cluster': TWO, 'task': {'type': 'worker', 'index': 0}}), False),
        (json.dumps({'cluster': TWO, 'task': {'type': 'evaluator', 'index': 0}}), True),
    ],
)
def test_the_task_evaluator_is_known(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: bool
) -> None:
    monkeypatch.setenv('TF_CONFIG', text)
    assert cluster_module.is_evaluator() == expected


def test_an_ipv6_address_is_one_in_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    tf_config(monkeypatch, {'worker': ['[::1]:2222']}, 'worker', 0)
    assert cluster_module.from_environment() == Cluster(('[::1]:2222',), 0)


# --------------------------------------------------------------------------- SLURM


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the variables of a step of three tasks on n1 and n2; None: leaves one out."""
    for name in ('TF_CONFIG', 'CUDA_VISIBLE_DEVICES'):
        monkeypatch.delenv(name, raising=False)
    # As on a machine without GPUs, where nvidia-smi is not found.
    monkeypatch.setenv('PATH', '')

    def set_variables(**changed: str | None) -> None:
        step = {
            'PROCID': '2',
            'STEP_NUM_TASKS': '3',
            'STEP_NODELIST': 'n[1-2]',
            'STEP_TASKS_PER_NODE': '2,1',
            'LOCALID': '0',
        }
        for name, value in {**step, **changed}.items():
            monkeypatch.delenv(f'SLURM_{name}', raising=False)
            if value is not None:
                monkeypatch.setenv(f'SLURM_{name}', value)

    return set_variables


def test_the_tasks_of_a_slurm_step_are_the_workers(
    slurm: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm()
    monkeypatch.setenv('SLURMD_NODENAME', 'n2')
    expected = Cluster(('n1:8888', 'n1:8889', 'n2:8888'), 2)
    assert cluster_module.from_environment() == expected
    assert 'CUDA_VISIBLE_DEVICES' not in os.environ

    tf_config(monkeypatch, TWO, 'worker', 1)
    assert cluster_module.from_environment() == Cluster(('host0:2222', 'host1:2223'), 1)


@pytest.mark.parametrize(
    'variables', [{'STEP_NUM_TASKS': '1'}, {'STEP_NUM_TASKS': None}, {'PROCID': None}]
)
@pytest.mark.parametrize('tf_config', [None, '', '{}'])
def test_a_process_that_is_alone_is_the_only_worker(
    slurm: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str | None],
    tf_config: str | None,
) -> None:
    slurm(**variables)
    if tf_config is not None:
        monkeypatch.setenv('TF_CONFIG', tf_config)
    cluster = cluster_module.from_environment()
    assert cluster.index == 0 and len(cluster.addresses) == 1
    assert re.fullmatch(r'127\.0\.0\.1:\d+', cluster.addresses[0])
    assert capsys.readouterr().out.startswith('One worker, this one: TF_CONFIG names none')


@pytest.mark.parametrize(
    ('variables', 'message'),
    [
        ({'PROCID': '3'}, 'SLURM: task: type: expected one of worker, .* found None'),
        ({'STEP_NUM_TASKS': 'x'}, "SLURM: invalid literal .* 'x'"),
        ({'STEP_NUM_TASKS': '4'}, 'SLURM: Requested 4 tasks but only 3 were assigned'),
        ({'STEP_NODELIST': None}, 'SLURM: SLURM_STEP_NODELIST not found in environment'),
        ({'STEP_NODELIST': 'n[1-'}, r'SLURM: Invalid hostlist format "n\[1-"'),
        ({'LOCALID': '1'}, 'SLURM: worker 2 at n2:8888 was expected, but this is task 1 of n2'),
        (
            {'STEP_NODELIST': 'n[2,10]'},
            'SLURM: worker 2 at n2:8889 was expected, but this is task 0 of n2: ',
        ),
    ],
)
def test_a_slurm_step_that_names_no_cluster_is_refused(
    slurm: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str | None],
    message: str,
) -> None:
    slurm(**variables)
    monkeypatch.setenv('SLURMD_NODENAME', 'n2')
    with pytest.raises(UserError, match=f'^{message}'):
        cluster_module.from_environment()


# ------------------------------------------------------------------------- meeting


@pytest.fixture
def opened() -> Any:
    """The address of an open port of this process."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        yield f'127.0.0.1:{server.getsockname()[1]}'


@pytest.fixture
def closed() -> str:
    with socket.create_server(('127.0.0.1', 0)) as server:
        return f'127.0.0.1:{server.getsockname()[1]}'


def test_a_worker_that_never_comes_is_named_after_a_bounded_wait(opened: str, closed: str) -> None:
    cluster = Cluster(('127.0.0.1:1', opened, closed), 0)
    with pytest.raises(UserError, match=f'^worker 2 at {closed}: not reached within .*secs=1'):
        cluster_module.wait_for_others(cluster, wait_secs=1)


def test_no_one_waits_for_workers_that_are_there(opened: str, closed: str) -> None:
    cluster_module.wait_for_others(Cluster((closed, opened), 0), wait_secs=0)


def test_a_port_in_use_is_refused(opened: str) -> None:
    with pytest.raises(UserError, match=f'^worker 0 at {opened}: the port cannot be opened'):
        cluster_module.start_server(Cluster((opened,), 0), tf.ConfigProto())


def test_every_setting_that_differs_is_named_with_its_worker_and_both_values() -> None:
    cluster = Cluster(('a:1', 'b:1', 'c:1'), 0)
    facts = [{'--seed': 0, 'x': 'y'}, {'--seed': 0, 'x': 'z'}, {'--seed': 5, 'x': 'y'}]
    with pytest.raises(UserError) as error:
        cluster_module.refuse_mismatch(cluster, facts)
    assert str(error.value) == (
        'the workers must agree: x is z on worker 1 at b:1, and y on worker 0 at a:1; '
        '--seed is 5 on worker 2 at c:1, and 0 on worker 0 at a:1'
    )
    cluster_module.refuse_mismatch(cluster, facts[:1] * 3)


# ------------------------------------------------------------------- a lost worker


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> ClusterWorker:
    monkeypatch.delenv('CIFAR10_CLUSTER_RESTARTS', raising=False)
    return ClusterWorker(Cluster(('a:1', 'b:1'), 1), tf.ConfigProto(), wait_secs=1)


def lose(worker: ClusterWorker) -> None:
    with worker.together():
        raise tf.errors.UnavailableError(None, None, 'recvmsg: connection reset')


def test_a_worker_starts_again_so_often_and_no_more(
    worker: ClusterWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(os, 'execv', lambda path, command: commands.append(command))
    for _ in range(cluster_module.MAX_RESTARTS):
        lose(worker)
    with pytest.raises(UserError, match='for the 11th time since the last checkpoint'):
        lose(worker)
    assert len(commands) == cluster_module.MAX_RESTARTS
    assert commands[0] == [sys.executable, *sys.orig_argv[1:], '--nostart_over']

    # A checkpoint later it counts anew.
    worker._start_step = 7
    lose(worker)
    assert os.environ['CIFAR10_CLUSTER_RESTARTS'] == '1 7'


def test_a_worker_that_was_asked_to_stop_does_not_start_again(worker: ClusterWorker) -> None:
    with tf.Graph().as_default():
        gradients = [(tf.zeros([3]), None)]
        worker.mean_over_workers(tf.zeros([]), gradients)
    worker.stop_hook().received = signal.SIGTERM
    with pytest.raises(UserError, match='SIGTERM came as another worker was lost'):
        lose(worker)


def test_other_errors_pass_through(worker: ClusterWorker) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError), worker.together():
        raise tf.errors.InvalidArgumentError(None, None, 'not finite')
