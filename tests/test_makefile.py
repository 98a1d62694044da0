"""The Makefile: what it lists, and what it says of an unfit Python."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.scripts import REPOSITORY


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(REPOSITORY / 'Makefile', folder)
    (folder / 'requirements.txt').touch()
    return subprocess.run(['make', *words], cwd=folder, capture_output=True, text=True, timeout=60)


def test_make_alone_lists_the_targets(tmp_path: Path) -> None:
    listed = set(re.findall(r'^make (\w+)', make(tmp_path).stdout, re.M))
    (phony,) = re.findall(r'^\.PHONY: (.*)', (REPOSITORY / 'Makefile').read_text(), re.M)
    assert listed == set(phony.split()) - {'help'}


@pytest.mark.parametrize(
    ('python', 'found'), [('python3.9', 'Python 3.9.18'), ('no_python', 'missing')]
)
def test_an_unfit_python_is_one_sentence_and_makes_nothing(
    tmp_path: Path, python: str, found: str
) -> None:
    old = tmp_path / 'python3.9'
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.18\n')
    old.chmod(0o755)
    result = make(tmp_path, 'train', f'PYTHON={tmp_path / python}')
    assert result.returncode != 0
    assert f'{python} is {found}; TensorFlow needs Python 3.10 to 3.13' in result.stderr
    assert not (tmp_path / '.venv').exists()
