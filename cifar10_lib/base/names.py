"""Names that come from files, made fit to be printed and drawn."""

from __future__ import annotations

# Zero-width non-joiner and joiner, without which some scripts and emoji fall apart. The other
# invisible characters could hide or turn around what stands beside them.
_JOINERS = '\u200c\u200d'


def printable(name: str) -> str:
    r"""The name with all escaped that isn't a letter, sign or space: `\n`, `\x1b`, `\udcff`, ...

    So it stays on its line, and commands no terminal. A lone surrogate stands for a byte that is
    not UTF-8 in the name of a file.
    """
    return ''.join(
        letter if letter.isprintable() or letter in _JOINERS else ascii(letter)[1:-1]
        for letter in name
    )
