"""What pip installs: the files, the commands and the requirements, each written once or alike."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.helpers.scripts import REPOSITORY

tomllib = pytest.importorskip('tomllib')


@pytest.fixture(scope='module')
def metadata() -> dict[str, Any]:
    return tomllib.loads((REPOSITORY / 'pyproject.toml').read_text(encoding='utf-8'))


def requirements(name: str) -> list[str]:
    lines = (REPOSITORY / name).read_text(encoding='utf-8').splitlines()
    return [line for line in lines if not line.startswith(('#', '-r'))]


def test_requirements_are_those_of_the_package(metadata: dict[str, Any]) -> None:
    project = metadata['project']
    assert project['dynamic'] == ['dependencies']
    assert metadata['tool']['setuptools']['dynamic'] == {
        'dependencies': {'file': ['requirements.txt']}
    }
    extras = project['optional-dependencies']
    assert extras['dev'] == requirements('requirements-dev.txt')
    (tensorflow,) = (each for each in requirements('requirements.txt') if 'tensorflow' in each)
    assert extras['gpu'] == [tensorflow.replace('tensorflow', 'tensorflow[and-cuda]')]
    assert f"'{extras['gpu'][0]}'" in (REPOSITORY / 'README.md').read_text(encoding='utf-8')


def test_every_package_that_an_error_asks_for_is_in_an_extra(metadata: dict[str, Any]) -> None:
    extras = metadata['project']['optional-dependencies']
    offered = {
        re.split('[<>=]', package)[0]
        for name in set(extras) - {'dev', 'gpu'}
        for package in extras[name]
    }
    sources = '\n'.join(
        path.read_text(encoding='utf-8') for path in (REPOSITORY / 'cifar10_lib').rglob('*.py')
    )
    asked = set(re.findall(r"missing_extra\(\w+, '([\w-]+)'\)|pip install ([a-z][\w-]+)", sources))
    asked_names = {first or second for first, second in asked} - {'tensorflow'}
    assert asked_names and asked_names <= offered


def test_every_file_at_the_top_is_installed_and_every_script_a_command(
    metadata: dict[str, Any],
) -> None:
    paths = REPOSITORY.glob('*.py')
    assert sorted(metadata['tool']['setuptools']['py-modules']) == sorted(p.stem for p in paths)
    scripts = [
        path.stem.replace('_', '-')
        for path in REPOSITORY.glob('*.py')
        if "__name__ == '__main__'" in path.read_text(encoding='utf-8')
    ]
    assert sorted(metadata['project']['scripts']) == sorted(scripts)
    assert set(metadata['project']['scripts'].values()) == {'cifar10_lib.base.commands:main'}
