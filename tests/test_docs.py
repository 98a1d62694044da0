"""The documentation names tests, files, commands and flags that exist."""

from __future__ import annotations

import importlib
import re

import pytest

from cifar10_lib.base import flags
from tests.helpers.commands import PAGES, Command, docstring_commands, read_commands
from tests.helpers.scripts import REPOSITORY

COMMANDS = [*(each for page in PAGES for each in read_commands(page)), *docstring_commands()]


def test_the_tests_of_the_promises_exist() -> None:
    sources = '\n'.join(
        path.read_text(encoding='utf-8') for path in (REPOSITORY / 'tests').rglob('*.py')
    )
    names = {path.name for path in (REPOSITORY / 'tests').rglob('*.py')}
    named = re.findall(r'`(test_\w+(?:\.py|\*)?)', (REPOSITORY / 'docs/trust.md').read_text())
    assert len(named) > 30
    for name in named:
        if name.endswith('.py'):
            assert name in names, name
        else:
            assert f'def {name.removesuffix("*")}' in sources, name


@pytest.mark.parametrize('page', PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page) -> None:
    text = page.read_text(encoding='utf-8')
    for link in re.findall(r'\]\(([^)#]+)[^)]*\)|src="([^"]+)"', text):
        target = link[0] or link[1]
        if '://' not in target:
            assert (page.parent / target).exists(), target


def test_the_readme_is_read_in_one_sitting() -> None:
    lines = (REPOSITORY / 'README.md').read_text(encoding='utf-8').splitlines()
    assert len(lines) <= 180


def test_commands_are_found() -> None:
    pages = {command.page for command in COMMANDS}
    assert {'README.md', 'data.md', 'speed.md', 'cifar10_train.py'} <= pages
    texts = [command.text for command in COMMANDS]
    assert 'make train' in texts and 'python cifar10_eval.py --run_once' in texts


@pytest.mark.parametrize(
    'command', COMMANDS, ids=[f'{command.page}:{command.line}' for command in COMMANDS]
)
def test_commands_are_of_programs_that_exist_and_of_flags_that_they_have(command: Command) -> None:
    words, program = command.words, command.program
    if program:
        if program[0] == '-m':
            module, arguments = program[1], program[2:]
            if (REPOSITORY / module.replace('.', '/')).is_dir():
                module += '.__main__'
        else:
            assert (REPOSITORY / program[0]).is_file()
            module, arguments = program[0].removesuffix('.py'), program[1:]
        source = (REPOSITORY / f'{module.replace(".", "/")}.py').read_text(encoding='utf-8')
        settings_class = re.search(r'^    run_script\(\w+, (\w+)\)', source, re.M)
        if settings_class:
            settings = getattr(importlib.import_module(module), settings_class[1])
            flags.parse(settings, module, [module, *arguments])
        else:
            assert "__name__ == '__main__'" in source and not arguments
    elif words[0] == 'make':
        makefile = (REPOSITORY / 'Makefile').read_text(encoding='utf-8')
        assert re.search(rf'^{words[1]}:', makefile, re.M)
    elif words[:2] == ['pip', 'install']:
        assert words[2] != '-r' or (REPOSITORY / words[3]).is_file()
    else:
        # Programs of others.
        assert words[0] in ('docker', 'curl')
