"""The commands in the code blocks of README and docs, and in the docstrings of scripts."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.scripts import REPOSITORY

PAGES = [REPOSITORY / 'README.md', *sorted((REPOSITORY / 'docs').glob('*.md'))]

# What commands begin with. Other lines of code blocks are what scripts print.
_BEGINNING = re.compile(r'(python|make|pip|docker|curl|srun) |[A-Z_]+=')


@dataclasses.dataclass(frozen=True)
class Command:
    """A command as a page has it, its lines joined."""

    page: str
    line: int
    text: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables that stand before it."""
        words = shlex.split(self.text)
        return dict(word.split('=', 1) for word in words[: words.index(self.words[0])])

    @property
    def words(self) -> list[str]:
        words = shlex.split(self.text)
        while re.match(r'\w+=', words[0]):
            words.pop(0)
        return words

    @property
    def program(self) -> list[str]:
        """A script of the project, or `-m` and a module, and its arguments; or nothing."""
        words = self.words
        return words[words.index('python') + 1 :] if 'python' in words else []


def read_commands(page: Path) -> Iterator[Command]:
    """The commands of a page of Markdown, whose code blocks are indented."""
    command = ''
    before = ''
    for number, line in enumerate(page.read_text(encoding='utf-8').splitlines(), 1):
        is_code = line.startswith('    ') and (not before or before.startswith('    '))
        before = line
        if not command and not (is_code and _BEGINNING.match(line.strip())):
            continue
        assert is_code, f'{page.name}:{number}: the command before has no end'
        command += f'\n{line.strip()}' if command else line.strip()
        command = command.replace('\\\n', '')
        try:
            shlex.split(command)
        except ValueError:
            # A quotation that is still open goes on.
            continue
        if command.endswith('\\'):
            continue
        yield Command(page.name, number, command)
        command = ''


def docstring_commands() -> Iterator[Command]:
    """The examples of scripts."""
    for path in REPOSITORY.glob('cifar10_*.py'):
        text = path.read_text(encoding='utf-8')
        for match in re.finditer(r'(?m)^    (?: {4})?(python .*\\\n.*|python .*)', text):
            line = text[: match.start()].count('\n') + 1
            yield Command(path.name, line, re.sub(r'\\\n\s*', '', match[1]))
