"""The fast tests with other TensorFlows and Pythons, each in an environment of its own.

    python -m benchmarks.versions --only=2.18-3.10,2.21-3.13

makes an environment of 2 GB in the folder of temporary files (TMPDIR) for one combination after
another, runs the fast tests in it, removes it, and ends with a table. A Python is looked for on
PATH and among pyenv's; a combination without one is left out, and said to be.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

from benchmarks.flags import parse_names
from benchmarks.processes import REPOSITORY, child_environment
from benchmarks.tables import markdown_table
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import run_script, setting

# The Pythons that TensorFlow's releases have wheels for, from the project's oldest on.
PYTHONS = {
    '2.18': ('3.10', '3.11', '3.12'),
    '2.19': ('3.10', '3.11', '3.12'),
    '2.20': ('3.10', '3.11', '3.12', '3.13'),
    '2.21': ('3.10', '3.11', '3.12', '3.13'),
}
COMBINATIONS = {
    f'{tensorflow}-{python}': (tensorflow, python)
    for tensorflow, pythons in PYTHONS.items()
    for python in pythons
}

_ASK_VERSION = 'import sys; print("%d.%d" % sys.version_info[:2])'
_NAME_VERSIONS = (
    'import platform; from importlib.metadata import version; '
    'print(version("tensorflow"), platform.python_version(), version("numpy"), version("keras"))'
)

# Of the output of what failed.
_SHOWN_LINES = 40


@dataclasses.dataclass(frozen=True)
class VersionsSettings:
    """Which combinations to try."""

    only: str = setting(
        'all', 'Combinations of TensorFlow and Python, separated by commas, such as 2.18-3.10.'
    )
    processes: int = setting(2, 'Test processes side by side.', at_least=1, at_most=1024)


def find_python(version: str) -> str | None:
    """A Python of that version, on PATH or among pyenv's; None where there is none."""
    pyenv = os.environ.get('PYENV_ROOT') or os.path.expanduser('~/.pyenv')
    for path in (
        shutil.which(f'python{version}'),
        *sorted(glob.glob(os.path.join(pyenv, 'versions', f'{version}.*', 'bin', 'python'))),
    ):
        # One on PATH may be pyenv's stand-in for a Python that isn't switched on.
        if path and _output([path, '-c', _ASK_VERSION]).strip() == version:
            return path
    return None


def try_versions(tensorflow: str, python: str, processes: int) -> list[str]:
    """Runs the fast tests; returns the cells of a row: versions, and what the tests came to.

    Args:
      tensorflow: a release, as 2.18.
      python: path of the interpreter.
      processes: of tests, side by side.

    Raises:
      UserError: the environment can't be made.
    """
    with tempfile.TemporaryDirectory(prefix='cifar10_versions') as environment:
        _run([python, '-m', 'venv', environment])
        inside = os.path.join(environment, 'bin', 'python')
        requirements = ['-r', 'requirements-dev.txt', f'tensorflow=={tensorflow}.*']
        _run([inside, '-m', 'pip', 'install', '--quiet', *requirements])
        versions = _output([inside, '-c', _NAME_VERSIONS]).split()
        options = ['--tb=short', '-W', 'ignore', '-p', 'no:cacheprovider', '-m', 'not slow']
        options += ['-o', 'addopts=--import-mode=importlib', '-n', str(processes)]
        tests = _start([inside, '-m', 'pytest', '-q', *options, '--dist', 'worksteal'])
        summary = re.search(r'(?m)^=* ?(\d+ \w+.*?) in [\d.]+s', tests.stdout)
        if tests.returncode:
            print(_end(tests.stdout), file=sys.stderr)
        return [*versions, summary[1] if summary else f'exit code {tests.returncode}']


def _start(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**child_environment(), 'PIP_DISABLE_PIP_VERSION_CHECK': '1'},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors='replace',
    )


def _run(command: list[str]) -> None:
    """Raises UserError, with the end of its output, where a command fails."""
    done = _start(command)
    if done.returncode:
        raise UserError(f'{" ".join(command)}: exit code {done.returncode}:\n{_end(done.stdout)}')


def _output(command: list[str]) -> str:
    """What a command prints; nothing where it fails."""
    done = _start(command)
    return '' if done.returncode else done.stdout


def _end(output: str) -> str:
    return '\n'.join(output.splitlines()[-_SHOWN_LINES:])


def main(settings: VersionsSettings) -> None:
    """Prints the table.

    Raises:
      UserError: after the table, that tests fail, or an environment can't be made.
    """
    rows, failed = [], []
    for name in parse_names(settings.only, COMBINATIONS, 'only'):
        tensorflow, version = COMBINATIONS[name]
        python = find_python(version)
        if python is None:
            print(f"{name}: left out: Python {version} was not found on PATH or among pyenv's")
            continue
        try:
            row = try_versions(tensorflow, python, settings.processes)
        except UserError as error:
            print(error, file=sys.stderr)
            row = [tensorflow, version, '', '', 'no environment']
        print(f'{name}: {row[-1]}', flush=True)
        rows.append(row)
        if re.search(r'failed|error|exit code|no environment', row[-1]):
            failed.append(name)
    print()
    print(markdown_table(['TensorFlow', 'Python', 'NumPy', 'Keras', 'fast tests'], rows))
    if failed:
        raise UserError(f'tests failed with {", ".join(failed)}')


if __name__ == '__main__':
    run_script(main, VersionsSettings)
