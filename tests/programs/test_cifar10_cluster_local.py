"""A cluster on one machine: its log, its end and its restarts, with workers that do nothing."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest

import cifar10_cluster_local
from tests.helpers.faults import started

# In place of the trainer: index says which worker it is.
PROLOGUE = """
import json, os, signal, sys, time
config = json.loads(os.environ['TF_CONFIG'])
index = config['task']['index']
"""

MAIN = """
import sys
import cifar10_cluster_local as local
local.TRAINER = sys.argv.pop(1)
own, options = local.split_arguments(sys.argv)
sys.argv[:] = own
local.run_script(lambda settings: local.run(settings, options), local.LocalClusterSettings)
"""


def command(tmp_path: Path, program: str, *options: str) -> list[str]:
    trainer = tmp_path / 'trainer.py'
    trainer.write_text(PROLOGUE + program)
    return [sys.executable, '-u', '-c', MAIN, str(trainer), *options]


def test_what_follows_two_dashes_is_the_trainers() -> None:
    arguments = ['me', '--num_workers=3', '--', '--seed=1', '--']
    assert cifar10_cluster_local.split_arguments(arguments) == (
        ['me', '--num_workers=3'],
        ['--seed=1', '--'],
    )
    assert cifar10_cluster_local.split_arguments(['me']) == (['me'], [])


def test_each_line_begins_with_its_workers_name(tmp_path: Path) -> None:
    program = 'print(len(config["cluster"]["worker"]), sys.argv[1:]); print("end", file=sys.stderr)'
    options = ['--num_workers=3', '--', '--seed=1']
    with started(command(tmp_path, program, *options)) as process:
        assert process.end() == 0
        lines = sorted(process.output().splitlines())
    lines = [line for line in lines if not line.startswith('[cluster] ')]
    assert lines == sorted(
        f'[worker {i}] {line}' for i in range(3) for line in ("3 ['--seed=1']", 'end')
    )


def test_addresses_are_different(tmp_path: Path) -> None:
    addresses = cifar10_cluster_local.free_addresses(20)
    assert len(set(addresses)) == 20
    assert all(re.fullmatch(r'127\.0\.0\.1:\d+', address) for address in addresses)


def test_a_killed_worker_is_started_again_and_does_not_start_over(tmp_path: Path) -> None:
    program = """
print(sys.argv[1:])
if index == 1 and len(sys.argv) < 4:
    os.kill(os.getpid(), signal.SIGKILL)
"""
    with started(command(tmp_path, program, '--', '--start_over')) as process:
        assert process.end() == 0
        output = process.output()
    assert output.count('[cluster] worker 1 was killed by SIGKILL: started again') == 2
    assert "[worker 1] ['--start_over', '--nostart_over']" in output
    assert output.count('[worker 0]') == 1


@pytest.mark.parametrize(
    ('fail', 'code'), [('sys.exit(3)', 3), ('os.kill(os.getpid(), signal.SIGKILL)', 137)]
)
def test_a_worker_that_fails_for_good_ends_the_others(tmp_path: Path, fail: str, code: int) -> None:
    program = f"""
if index == 1:
    {fail}
signal.signal(signal.SIGTERM, lambda *_: sys.exit('stopped'))
time.sleep(300)
"""
    with started(command(tmp_path, program, '--max_restarts=1')) as process:
        assert process.end() == code
        assert 'worker 1 failed with exit code' in process.output()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_every_worker_once(tmp_path: Path, number: signal.Signals) -> None:
    program = """
def stop(number, frame):
    print('got', number)
    sys.exit()
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, stop)
print('ready')
time.sleep(300)
"""
    with started(command(tmp_path, program)) as process:
        process.wait_until(lambda: process.output().count('ready') == 2)
        process.send(number)
        assert process.end() == 0
        assert process.output().count(f'got {int(number)}') == 2


def test_a_second_signal_kills(tmp_path: Path) -> None:
    program = """
signal.signal(signal.SIGTERM, lambda *_: print('asked'))
print('ready')
while True:
    time.sleep(0.1)
"""
    with started(command(tmp_path, program)) as process:
        process.wait_until(lambda: process.output().count('ready') == 2)
        process.send(signal.SIGTERM)
        process.wait_until(lambda: process.output().count('asked') == 2)
        process.send(signal.SIGTERM)
        assert process.end() == 137
