"""Flags that list names."""

from __future__ import annotations

from collections.abc import Iterable

from cifar10_lib.base.errors import UserError


def parse_names(text: str, possible: Iterable[str], flag: str) -> list[str]:
    """The names that a flag lists, separated by commas; `all` stands for every possible one.

    Raises:
      UserError: a name is not a possible one.
    """
    possible = list(possible)
    names = possible if text == 'all' else text.split(',')
    for name in names:
        if name not in possible:
            raise UserError(f'--{flag}: found {name!r}; expected {", ".join(possible)}; or all')
    return names
