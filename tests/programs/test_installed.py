"""The commands that pip installs, run in a folder that holds none of the project's files."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.scripts import REPOSITORY, script_command, script_environment

COMMANDS = sorted(path.stem for path in REPOSITORY.glob('cifar10_*.py') if 'input' not in path.stem)

SETUPTOOLS = 77  # As pyproject.toml has it.

Run = Callable[..., 'subprocess.CompletedProcess[str]']


@pytest.fixture(scope='module')
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prefix that pip installed the project to, without the network."""
    try:
        found = int(importlib.metadata.version('setuptools').partition('.')[0])
    except importlib.metadata.PackageNotFoundError:
        found = 0
    if found < SETUPTOOLS:
        pytest.skip(f'needs setuptools {SETUPTOOLS} or newer to build without the network')
    folder = tmp_path_factory.mktemp('installed')
    source, prefix = folder / 'source', folder / 'prefix'
    source.mkdir()
    for path in (*REPOSITORY.glob('*.*'), REPOSITORY / 'LICENSE'):
        if path.is_file():
            shutil.copy(path, source)
    shutil.copytree(
        REPOSITORY / 'cifar10_lib',
        source / 'cifar10_lib',
        ignore=shutil.ignore_patterns('__pycache__'),
    )
    options = ['--quiet', '--no-deps', '--no-build-isolation', '--no-index', '--ignore-installed']
    subprocess.run(
        [sys.executable, '-m', 'pip', 'install', *options, f'--prefix={prefix}', str(source)],
        cwd=folder,
        check=True,
    )
    return prefix


@pytest.fixture
def run(installed: Path, tmp_path: Path) -> Run:
    """Runs a line of a shell that has the installed commands on its path."""

    def run(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
        library = sysconfig.get_path('purelib', vars={'base': str(installed)})
        path = f'{installed / "bin"}{os.pathsep}{os.environ["PATH"]}'
        return subprocess.run(
            shlex.split(line),
            cwd=tmp_path,
            env={**script_environment(), 'PATH': path, 'PYTHONPATH': library, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.mark.parametrize('script', COMMANDS)
def test_help_is_that_of_the_script(run: Run, tmp_path: Path, script: str) -> None:
    name = script.replace('_', '-')
    found = run(f'{name} --help')
    assert (found.returncode, found.stderr) == (0, '')
    expected = subprocess.run(
        script_command(f'{script}.py', '--help'), cwd=tmp_path, capture_output=True, text=True
    ).stdout
    assert re.search(rf'python {script}\.py', expected)
    assert found.stdout == re.sub(rf'(python )?{script}\.py', name, expected)


@pytest.mark.parametrize('script', COMMANDS)
def test_wrong_flags_are_answered_before_tensorflow(run: Run, tmp_path: Path, script: str) -> None:
    (tmp_path / 'tensorflow.py').write_text('raise SystemExit("TensorFlow was imported")')
    name = script.replace('_', '-')
    found = run(f'{name} --xyzzy=1')
    assert (found.returncode, found.stdout) == (1, '')
    assert found.stderr.startswith(f'{name}: error: --xyzzy: no such flag; ')


def test_a_run_from_data_to_report(run: Run, tmp_path: Path, synthetic_data: Path) -> None:
    shutil.copytree(synthetic_data, tmp_path / 'data')
    train = 'cifar10-train --data_dir=data --dataset=synthetic --batch_size=8'
    result = run(f'{train} --max_steps=2')
    assert result.returncode == 0, result.stderr
    # The command that is printed to resume it is one that works.
    (resume,) = re.findall(r'To resume: (cifar10-train.*) --max_steps=\d+', result.stdout)
    result = run(f'{resume} --max_steps=3')
    assert result.returncode == 0, result.stderr
    assert 'Finished at step 3' in result.stdout
    for line, expected in (
        ('cifar10-eval --run_once --report=report', 'precision @ 1 = '),
        ('cifar10-plot --plot=filters --output=filters.png', 'filters.png'),
        ('cifar10-predict --index=0', 'test image 0'),
        ('cifar10-export --output=new', 'to new'),
    ):
        result = run(line)
        assert result.returncode == 0, result.stderr
        assert expected in result.stdout
    assert (tmp_path / 'report' / 'index.html').exists()


def test_errors_name_installed_commands(run: Run) -> None:
    result = run('cifar10-eval --run_once')
    assert result.returncode == 1
    assert result.stderr.endswith('train first, for example with cifar10-train\n')


def test_workers_are_installed_commands_too(run: Run, tmp_path: Path, synthetic_data: Path) -> None:
    result = run(
        f'cifar10-distributed-train --local_workers=2 --data_dir={synthetic_data} '
        '--dataset=synthetic --batch_size=8 --max_steps=2'
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert '[worker 0] Finished at step 2' in result.stdout
