"""Names from files, as they are printed and drawn."""

from __future__ import annotations

import pytest

from cifar10_lib.base.names import printable


@pytest.mark.parametrize(
    ('name', 'shown'),
    [
        ('naïve 猫 $1$', 'naïve 猫 $1$'),
        ('क्‍ष 👩‍🚀', 'क्‍ष 👩‍🚀'),
        ('two\nlines\t\r', r'two\nlines\t\r'),
        ('\x1b[31mred\x07', r'\x1b[31mred\x07'),
        ('\u202egpj.tac', r'\u202egpj.tac'),
        ('caf\udce9', r'caf\udce9'),
        ('\ufeffcat', r'\ufeffcat'),
    ],
)
def test_what_acts_on_a_terminal_is_escaped_and_letters_stay(name: str, shown: str) -> None:
    assert printable(name) == shown
