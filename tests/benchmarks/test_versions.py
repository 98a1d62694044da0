"""Which TensorFlows and Pythons are tried, and what comes of one that fails."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from benchmarks import versions
from benchmarks.versions import COMBINATIONS, PYTHONS, VersionsSettings
from cifar10_lib.base.errors import UserError
from tests.helpers.scripts import REPOSITORY

CURRENT = '.'.join(map(str, sys.version_info[:2]))


def test_the_range_is_that_of_the_requirements_and_of_the_docs() -> None:
    (required,) = re.findall(
        r'tensorflow>=2\.(\d+),<2\.(\d+)', (REPOSITORY / 'requirements.txt').read_text()
    )
    assert list(PYTHONS) == [f'2.{minor}' for minor in range(*map(int, required))]
    project = (REPOSITORY / 'pyproject.toml').read_text(encoding='utf-8')
    low, high = re.findall(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', project)[0]
    pythons = {python for each in PYTHONS.values() for python in each}
    assert pythons == {f'3.{minor}' for minor in range(int(low), int(high))}
    page = (REPOSITORY / 'docs/install.md').read_text(encoding='utf-8')
    seen = re.findall(r'(?m)^\| (2\.\d+) +\| (3\.\d+)\.\d+ +\|', page)
    assert seen and {'-'.join(each) for each in seen} <= set(COMBINATIONS)


def test_a_python_is_found_by_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('PYENV_ROOT', str(tmp_path / 'pyenv'))
    monkeypatch.setenv('PATH', str(tmp_path))
    assert versions.find_python(CURRENT) is None
    # One that says it can't be run, as a stand-in for a Python that isn't switched on.
    stand_in = tmp_path / f'python{CURRENT}'
    stand_in.write_text('#!/bin/sh\nexit 127\n')
    stand_in.chmod(0o755)
    assert versions.find_python(CURRENT) is None
    python = tmp_path / 'pyenv' / 'versions' / f'{CURRENT}.0' / 'bin' / 'python'
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    assert versions.find_python(CURRENT) == str(python)


def test_failures_are_named_after_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = {'2.18': '3 passed', '2.19': '1 failed, 2 passed', '2.21': None}

    def try_versions(tensorflow: str, python: str, processes: int) -> list[str]:
        if results[tensorflow] is None:
            raise UserError('pip: exit code 1')
        return [f'{tensorflow}.0', python, '2.0.2', '3.9.0', str(results[tensorflow])]

    monkeypatch.setattr(versions, 'try_versions', try_versions)
    monkeypatch.setattr(versions, 'find_python', lambda version: {'3.13': None}.get(version, 'py'))
    only = '2.18-3.10,2.19-3.11,2.20-3.13,2.21-3.12'
    with pytest.raises(UserError, match=r'^tests failed with 2\.19-3\.11, 2\.21-3\.12$'):
        versions.main(VersionsSettings(only))
    output, errors = capsys.readouterr()
    assert "2.20-3.13: left out: Python 3.13 was not found on PATH or among pyenv's" in output
    assert [line.split('|')[5].strip() for line in output.splitlines() if '|' in line][2:] == [
        '3 passed',
        '1 failed, 2 passed',
        'no environment',
    ]
    assert errors == 'pip: exit code 1\n'
