"""--local_workers: output, end and restarts of a cluster on one machine, of idle workers."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cifar10_lib.training.local_cluster import free_addresses
from tests.helpers.faults import started
from tests.helpers.scripts import REPOSITORY, Script, script_environment

# A script that starts itself as workers; what it does as worker `index` follows.
PROLOGUE = """
import json, os, signal, sys, time
sys.path.append({repository!r})
from cifar10_lib.training import local_cluster
if 'TF_CONFIG' not in os.environ:
    local_cluster.run({num_workers}, {max_restarts})
config = json.loads(os.environ['TF_CONFIG'])
index = config['task']['index']
"""


def command(
    tmp_path: Path, program: str, *options: str, num_workers: int = 2, max_restarts: int = 10
) -> list[str]:
    prologue = PROLOGUE.format(
        repository=str(REPOSITORY), num_workers=num_workers, max_restarts=max_restarts
    )
    script = tmp_path / 'script.py'
    script.write_text(prologue + program)
    return [sys.executable, '-u', str(script), *options]


def test_each_line_begins_with_its_workers_name(tmp_path: Path) -> None:
    program = 'print(len(config["cluster"]["worker"]), sys.argv[1:]); print("end", file=sys.stderr)'
    with started(command(tmp_path, program, '--seed=1', num_workers=3)) as process:
        assert process.end() == 0
        lines = sorted(process.output().splitlines())
    lines = [line for line in lines if not line.startswith('[cluster] ')]
    assert lines == sorted(
        f'[worker {i}] {line}'
        for i in range(3)
        for line in ("3 ['--seed=1', '--local_workers=0']", 'end')
    )


def test_addresses_are_different(tmp_path: Path) -> None:
    addresses = free_addresses(20)
    assert len(set(addresses)) == 20
    assert all(re.fullmatch(r'127\.0\.0\.1:\d+', address) for address in addresses)


def test_a_killed_worker_is_started_again_and_does_not_start_over(tmp_path: Path) -> None:
    program = """
print(sys.argv[1:])
if index == 1 and len(sys.argv) < 5:
    os.kill(os.getpid(), signal.SIGKILL)
"""
    with started(command(tmp_path, program, '--start_over')) as process:
        assert process.end() == 0
        output = process.output()
    assert output.count('[cluster] worker 1 was killed by SIGKILL: started again') == 2
    assert "[worker 1] ['--start_over', '--local_workers=0', '--nostart_over']" in output
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
    with started(command(tmp_path, program, max_restarts=1)) as process:
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


def test_workers_are_stopped_when_nobody_reads(tmp_path: Path) -> None:
    program = f"""
def stop(number, frame):
    open(f'{tmp_path}/stopped {{index}}', 'x').close()
    sys.exit()
signal.signal(signal.SIGTERM, stop)
while True:
    print('x' * 10_000)
    time.sleep(0.01)
"""
    with subprocess.Popen(
        command(tmp_path, program), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        while '[worker 1] x' not in process.stdout.readline():
            pass
        process.stdout.close()
        assert process.stderr.read().endswith('BrokenPipeError: [Errno 32] Broken pipe\n')
    assert sorted(path.name for path in tmp_path.glob('stopped *')) == ['stopped 0', 'stopped 1']


def test_a_linked_script_starts_its_workers_from_any_folder(tmp_path: Path) -> None:
    *python, script = command(tmp_path, 'print(os.getcwd(), sys.argv[0])')
    folder = tmp_path / 'folder'
    folder.mkdir()
    (tmp_path / 'link.py').symlink_to(script)
    result = subprocess.run(
        [*python, '../link.py'],
        cwd=folder,
        env=script_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    for index in range(2):
        assert f'[worker {index}] {folder} {script}\n' in result.stdout


def test_workers_are_not_started_by_a_worker(
    run_script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('TF_CONFIG', '{"cluster": {}}')
    result = run_script('cifar10_distributed_train.py', '--local_workers=2')
    assert (result.returncode, result.stdout) == (1, '')
    assert result.stderr.endswith(
        'cifar10_distributed_train.py: error: --local_workers=2: expected no TF_CONFIG, as it '
        'would make this process a worker itself; found \'{"cluster": {}}\'\n'
    )
    assert 'Traceback' not in result.stderr
