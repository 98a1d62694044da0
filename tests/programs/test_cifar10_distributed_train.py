"""Training by several processes: what it equals, and what it survives.

Real processes on the loopback interface. A limit of time is only there to end a test that
hangs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10_distributed_train
import cifar10_input
import cifar10_train
from cifar10_lib.base.errors import UserError
from cifar10_lib.training.local_cluster import free_addresses
from cifar10_train import OneDeviceTrainSettings
from tests.helpers.faults import Process, assert_bit_identical, finish, newest_step, started
from tests.helpers.scripts import script_command

MAX_STEPS = 60

# Soon a rounded value turns a ReLU, and the weights part, as those of one device in halves
# and in quarters do.
COMPARED_STEP = 10
OWN_BATCH_SIZE = 4


def options_for(data_dir: Path, train_dir: Path) -> list[str]:
    return [
        f'--data_dir={data_dir}',
        '--dataset=synthetic',
        f'--train_dir={train_dir}',
        f'--batch_size={OWN_BATCH_SIZE}',
        f'--max_steps={MAX_STEPS}',
        '--save_checkpoint_steps=10',
        '--max_to_keep=0',
        '--log_frequency=1',
        '--wait_secs=100',
        '--deterministic',
    ]


def cluster_command(data_dir: Path, train_dir: Path, *more: str) -> list[str]:
    return script_command(
        'cifar10_distributed_train.py',
        '--local_workers=2',
        *options_for(data_dir, train_dir),
        *more,
    )


@contextlib.contextmanager
def started_workers(options: list[list[str]]) -> Iterator[list[Process]]:
    """One worker for each list of options, without anybody to start it again."""
    addresses = free_addresses(len(options))
    with contextlib.ExitStack() as stack:
        processes = []
        for index, of_worker in enumerate(options):
            config = {
                'cluster': {'worker': addresses},
                'task': {'type': 'worker', 'index': index},
            }
            environment = ['env', f'TF_CONFIG={json.dumps(config)}']
            command = script_command('cifar10_distributed_train.py', *of_worker)
            processes.append(stack.enter_context(started([*environment, *command])))
        yield processes


@pytest.fixture(scope='module')
def unbroken(synthetic_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the output of two workers' run."""
    train_dir = tmp_path_factory.mktemp('cluster') / 'run'
    return train_dir, finish(cluster_command(synthetic_data, train_dir))


def test_two_workers_take_the_steps_of_one_device_with_the_whole_batch(
    unbroken: tuple[Path, str], synthetic_data: Path, tmp_path: Path
) -> None:
    cifar10_train.train(
        OneDeviceTrainSettings(
            data_dir=str(synthetic_data),
            dataset='synthetic',
            train_dir=str(tmp_path),
            batch_size=2 * OWN_BATCH_SIZE,
            max_steps=COMPARED_STEP,
            # The quarters that two workers make of it too, so that nothing is rounded
            # another way before the last sums.
            batch_splits=4,
        )
    )
    one, two = (
        tf.train.load_checkpoint(str(train_dir / f'model.ckpt-{COMPARED_STEP}'))
        for train_dir in (tmp_path, unbroken[0])
    )
    assert one.get_variable_to_shape_map() == two.get_variable_to_shape_map()
    assert two.get_tensor('examples_seen') == COMPARED_STEP * 2 * OWN_BATCH_SIZE
    for name in one.get_variable_to_shape_map():
        # The same sums in another order.
        np.testing.assert_allclose(
            two.get_tensor(name), one.get_tensor(name), atol=1e-5, err_msg=name
        )


def test_the_chief_alone_prints_and_writes(unbroken: tuple[Path, str]) -> None:
    train_dir, output = unbroken
    steps = re.findall(r'^\[(.*)\] .*: step (\d+), loss = .* examples/sec', output, re.MULTILINE)
    assert steps == [('worker 0', str(step)) for step in range(2, MAX_STEPS + 1)]
    assert f'[worker 0] Finished at step {MAX_STEPS}, saved in {train_dir}' in output
    assert f'[worker 1] Finished at step {MAX_STEPS}, saved by the chief' in output
    assert 'To resume, on each worker with its TF_CONFIG: ' in output
    stored = json.loads((train_dir / 'settings.json').read_text())
    assert stored['wait_secs'] == 100
    for flag in ('local_workers', 'max_restarts'):
        assert flag not in stored and flag not in output
    # All workers' weights are the same bits.
    assert 'Warning' not in output
    (events,) = train_dir.glob('events.out.tfevents.*')
    tags = {v.tag for e in tf.train.summary_iterator(str(events)) for v in e.summary.value}
    assert {'loss/total', 'train/learning_rate', 'input/distorted/image'} <= tags
    assert not any('worker' in tag for tag in tags)


def test_a_killed_worker_and_a_killed_chief_change_no_bit_of_the_result(
    unbroken: tuple[Path, str], synthetic_data: Path, tmp_path: Path
) -> None:
    """While another process evaluates the checkpoints."""
    train_dir = tmp_path / 'run'
    with started(cluster_command(synthetic_data, train_dir, '--start_over')) as process:
        process.wait_for(': step 25,')
        kill_worker(process, 1)
        process.wait_for('[worker 1] Resuming from step')
        process.wait_for(': step 45,')
        kill_worker(process, 0)
        evaluation = finish(
            script_command(
                'cifar10_eval.py',
                f'--checkpoint_dir={train_dir}',
                f'--eval_dir={tmp_path / "eval"}',
                f'--data_dir={synthetic_data}',
                '--num_examples=60',
                '--run_once',
            )
        )
        assert process.end() == 0, process.output()
        output = process.output()
    assert re.search(r'precision @ 1 = .* \(step [23456]0, 60 images\)', evaluation)
    assert output.count('was killed by SIGKILL: started again') == 2
    assert len(re.findall(r'\[worker 0\] Resuming from \S+ at step [2345]0\n', output)) == 2
    assert_bit_identical(train_dir, unbroken[0])


def kill_worker(cluster: Process, index: int) -> None:
    """SIGKILL to the process that --local_workers has last started for a worker."""
    pids = re.findall(rf'worker {index} is process (\d+)', cluster.output())
    os.kill(int(pids[-1]), signal.SIGKILL)


def test_a_signal_to_any_worker_ends_all_after_a_common_step(
    synthetic_data: Path, tmp_path: Path
) -> None:
    """The chief has a folder, the other none."""
    options = options_for(synthetic_data, tmp_path / 'run')
    with started_workers([[*options, '--max_steps=100000']] * 2) as (chief, other):
        chief.wait_for(': step 30,')
        other.send(signal.SIGTERM)
        assert chief.end() == 0, chief.output()
        assert other.end() == 0, other.output()
        (stopped,) = re.findall(r'Stopped by SIGTERM at step (\d+), saved in', chief.output())
        assert f'Stopped by SIGTERM at step {stopped}, saved by the chief' in other.output()
    assert newest_step(tmp_path / 'run') == int(stopped)


def test_a_worker_that_does_not_come_back_is_named(synthetic_data: Path, tmp_path: Path) -> None:
    options = options_for(synthetic_data, tmp_path / 'run')
    # Short where someone is missing, and in a step beyond what a slow machine needs for it.
    with started_workers([[*options, '--wait_secs=15', '--max_steps=100000']] * 2) as workers:
        chief, other = workers
        chief.wait_for(': step 30,')
        other.send(signal.SIGKILL)
        assert chief.end() == 1, chief.output()
        output = chief.output()
    assert 'another worker was lost (broken off): starting again' in output
    assert re.search(r'error: worker 1 at \S+: not reached within --wait_secs=15', output)
    assert 'Traceback' not in output
    assert newest_step(tmp_path / 'run') >= 20


def test_workers_that_were_asked_for_different_things_are_refused(
    synthetic_data: Path, tmp_path: Path
) -> None:
    options = options_for(synthetic_data, tmp_path / 'run')
    others = [*options, '--seed=7', '--max_steps=9', '--learning_rate=0.2']
    with started_workers([options, others]) as workers:
        for worker in workers:
            assert worker.end() == 1, worker.output()
            assert re.search(
                r'error: the workers must agree: --max_steps is 9 on worker 1 at \S+, and 60 on '
                r'worker 0 at \S+; --learning_rate is 0.2 on worker 1 at \S+, and 0.1 on '
                r'worker 0 at \S+; --seed is 7 on worker 1 at \S+, and 0 on worker 0',
                worker.output(),
            )
            assert 'Traceback' not in worker.output()
    assert newest_step(tmp_path / 'run') == -1


def test_tf_config_is_checked_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, synthetic_data: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv('TF_CONFIG', '[]x')
    settings = cifar10_distributed_train.DistributedTrainSettings(
        data_dir=str(synthetic_data), dataset='synthetic', train_dir=str(tmp_path / 'run')
    )
    with pytest.raises(UserError, match='^TF_CONFIG: not JSON'):
        cifar10_distributed_train.train(settings)
    assert not (tmp_path / 'run').exists()


def test_a_process_without_a_cluster_trains_alone_and_the_evaluator_evaluates(
    synthetic_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Kubeflow's operator starts them: no TF_CONFIG for a single replica."""
    options = [*options_for(synthetic_data, tmp_path / 'run'), '--max_steps=3']
    monkeypatch.delenv('TF_CONFIG', raising=False)
    command = script_command('cifar10_distributed_train.py', *options)
    assert 'One worker, this one' in finish(command) and newest_step(tmp_path / 'run') == 3

    task = {'cluster': {'worker': ['a:1', 'b:1']}, 'task': {'type': 'evaluator', 'index': 0}}
    monkeypatch.setenv('TF_CONFIG', json.dumps(task))
    with started(command) as evaluator:
        evaluator.wait_for('(step 3, 60 images)')
        assert evaluator.is_running()


def test_a_proxy_in_the_environment_does_not_come_between_workers(
    synthetic_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ('http_proxy', 'https_proxy', 'grpc_proxy'):
        monkeypatch.setenv(name, 'http://127.0.0.1:9')
    finish(cluster_command(synthetic_data, tmp_path / 'run', '--max_steps=2'))
    assert newest_step(tmp_path / 'run') == 2


@pytest.mark.parametrize('num_shares', [2, 3])
def test_shares_of_the_stream_are_disjoint_and_make_the_whole_batch(
    records: Path, num_shares: int
) -> None:
    """Bit by bit, from an odd position, over the end of an epoch."""

    def batches(batch_size: int, share: int, num_shares: int) -> list[np.ndarray]:
        with tf.Graph().as_default(), tf.Session() as session:
            next_batch = cifar10_input.distorted_inputs(
                str(records), batch_size, 5, 41, share=share, num_shares=num_shares
            )
            return [session.run(next_batch) for _ in range(4)]

    whole = batches(4 * num_shares, 0, 1)
    shares = [batches(4, share, num_shares) for share in range(num_shares)]
    for step, (images, labels) in enumerate(whole):
        own = [share[step] for share in shares]
        np.testing.assert_array_equal(np.concatenate([i for i, _ in own]), images)
        np.testing.assert_array_equal(np.concatenate([o for _, o in own]), labels)
