"""The documentation names tests, files and flags that exist."""

from __future__ import annotations

import re

import pytest

from tests.helpers.scripts import REPOSITORY

PAGES = [REPOSITORY / 'README.md', *sorted((REPOSITORY / 'docs').glob('*.md'))]


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
