"""Fonts for letters that Matplotlib's own font lacks, where the system has them."""

from __future__ import annotations

import functools
import sys
import unicodedata
from collections.abc import Iterable

from matplotlib.font_manager import findfont, fontManager, get_font
from matplotlib.text import Text

from cifar10_lib.base.names import printable

# Fonts to install for letters by the first word of their Unicode names: Debian's packages. Others
# are in the last.
_PACKAGES = {
    'CJK': 'fonts-noto-cjk',
    'HIRAGANA': 'fonts-noto-cjk',
    'KATAKANA': 'fonts-noto-cjk',
    'HANGUL': 'fonts-noto-cjk',
}
_EMOJI_PACKAGE, _OTHER_PACKAGE = 'fonts-symbola', 'fonts-noto-core'

# Draws the code of any letter in a box, which is no letter.
_LAST_RESORT = 'Last Resort'

_NORMAL_WEIGHTS = (400, 'normal', 'regular')

# Categories of what needs no glyph: joiners, variation selectors, line breaks.
_INVISIBLE = ('Cf', 'Mn', 'Cc')


def fit(texts: Iterable[Text]) -> None:
    """Gives texts the fonts that their letters need, and makes them fit to be drawn.

    Letters that no installed font has appear as boxes; a warning says once which font to install.
    """
    missing: frozenset[str] = frozenset()
    for text in texts:
        text.set_text('\n'.join(map(printable, text.get_text().split('\n'))))
        lacking = frozenset(text.get_text()) - _letters_of(findfont(text.get_fontproperties()))
        if lacking := frozenset(letter for letter in lacking if _is_visible(letter)):
            families, left = _find_families(lacking)
            text.set_fontfamily([*text.get_fontfamily(), *families])
            missing |= left
    _warn(missing)


def _is_visible(letter: str) -> bool:
    return unicodedata.category(letter) not in _INVISIBLE


@functools.cache
def _letters_of(path: str) -> frozenset[str]:
    """The letters of a font; none where it can't be drawn at any size, as colour emoji can't."""
    try:
        font = get_font(path)
        return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
    except (OSError, RuntimeError, ValueError):
        return frozenset()


@functools.cache
def _find_families(lacking: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Families of installed fonts that have the letters, and the letters that none has."""
    families: list[str] = []
    fonts = {
        entry.name: entry.fname
        for entry in fontManager.ttflist
        if entry.style == 'normal' and entry.weight in _NORMAL_WEIGHTS
    }
    # Those made for all scripts first: they fit together.
    for name in sorted(fonts, key=lambda name: (not name.startswith('Noto'), name)):
        if not lacking:
            break
        if not name.startswith(_LAST_RESORT):
            letters = _letters_of(fonts[name])
            if lacking & letters:
                families.append(name)
                lacking -= letters
    return tuple(families), lacking


@functools.cache
def _warn(missing: frozenset[str]) -> None:
    """Says once which fonts to install."""
    if missing:
        packages = sorted({_package(letter) for letter in missing})
        print(
            f'Warning: no installed font has {"".join(sorted(missing))[:20]}, drawn as boxes; '
            f'install one, on Debian by apt install {" ".join(packages)}',
            file=sys.stderr,
        )


def _package(letter: str) -> str:
    if unicodedata.category(letter) == 'So':
        return _EMOJI_PACKAGE
    return _PACKAGES.get(unicodedata.name(letter, '?').split()[0], _OTHER_PACKAGE)
