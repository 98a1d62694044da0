"""Letters of other scripts in figures."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from cifar10_lib.evaluation import figures, fonts


def draw(text: str) -> tuple[list[str], bytes]:
    """The text's families after it was drawn, and the picture."""
    figure, buffer = Figure((1, 1)), io.BytesIO()
    drawn = figure.text(0, 0, text)
    figures.save(figure, buffer, format='png')
    return drawn.get_fontfamily(), buffer.getvalue()


@pytest.fixture(autouse=True)
def _forget() -> None:
    fonts._warn.cache_clear()
    fonts._find_families.cache_clear()


def test_a_font_that_has_the_letters_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    """Matplotlib brings a font of its own with letters that its default lacks."""
    letter = chr(next(iter(_letters_of('STIXSizeOneSym') - _letters_of('DejaVu Sans'))))
    families, _ = draw(f'a{letter}')
    assert len(families) == 2 and ord(letter) in _letters_of(families[1])
    assert draw('abc')[0] == matplotlib.rcParams['font.family']
    assert capsys.readouterr().err == ''


def _letters_of(family: str) -> set[int]:
    from matplotlib.font_manager import findfont, get_font

    return set(get_font(findfont(family)).get_charmap())


def test_letters_that_no_font_has_are_named_once_with_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fontManager, 'ttflist', [])
    for _ in range(2):
        draw('猫')
    draw('한글 क्‍ष 🚀')
    first, second, *more = capsys.readouterr().err.splitlines()
    assert first.startswith('Warning: no installed font has 猫, drawn as boxes; install one, on ')
    assert first.endswith('apt install fonts-noto-cjk') and not more
    assert second.endswith('apt install fonts-noto-cjk fonts-noto-core fonts-symbola')


def test_what_no_text_should_have_is_escaped() -> None:
    figure = Figure((1, 1))
    text = figure.text(0, 0, 'a\x1b[31m\nb\udcff $x_$')
    figures.save(figure, io.BytesIO(), format='svg')
    assert text.get_text() == 'a\\x1b[31m\nb\\udcff $x_$'


def test_a_font_that_cannot_be_opened_has_no_letters(tmp_path: Path) -> None:
    (tmp_path / 'x.ttf').write_bytes(b'no font')
    assert fonts._letters_of(str(tmp_path / 'x.ttf')) == frozenset()
