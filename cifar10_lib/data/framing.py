"""How pictures become the squares of a data set, written beside its records."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

from cifar10_input import RecordFormat
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.files import read_text
from cifar10_lib.data.datasets import FITS, MAX_SIZE, MIN_SIZE, SIZE

# Lies beside records that pictures were converted to.
FRAMING_FILE = 'framing.json'


@dataclasses.dataclass(frozen=True)
class Framing:
    """How a picture becomes a square.

    Attributes:
      size: side of the square, in pixels.
      fit: 'crop', the largest square in the middle; 'pad', all of the picture between black
        bars; 'stretch', all of it, distorted.
      invert: exchange black and white.
      inner: side of the part in the middle that the picture takes, within black, as MNIST's
        digits take 28 of 32 pixels; 0: all.
    """

    size: int = SIZE
    fit: str = 'crop'
    invert: bool = False
    inner: int = 0

    @property
    def record(self) -> RecordFormat:
        """The format of records of such squares."""
        return RecordFormat(height=self.size, width=self.size)

    def scaled(self, size: int) -> Framing:
        """The same in another size."""
        return dataclasses.replace(self, size=size, inner=self.inner * size // self.size)


def write_framing(framing: Framing, directory: str) -> None:
    """Writes framing.json.

    Raises:
      OSError: it can't be written.
    """
    path = os.path.join(directory, FRAMING_FILE)
    with open(path, 'w', encoding='utf-8', newline='\n') as file:
        file.write(json.dumps(dataclasses.asdict(framing), indent=2) + '\n')


def read_framing(directory: str) -> Framing:
    """The framing of the records in a folder; the defaults where there is no framing.json.

    Raises:
      UserError: framing.json holds something else.
    """
    path = os.path.join(directory, FRAMING_FILE)
    if not os.path.lexists(path):
        return Framing()
    try:
        return parse_framing(json.loads(read_text(path, 'expected how pictures are framed')))
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path}: {error}') from error


def parse_framing(values: Any) -> Framing:
    """Of a JSON object; ValueError where it isn't that of a framing."""
    defaults = dataclasses.asdict(Framing())
    if not isinstance(values, dict) or set(values) - set(defaults):
        raise ValueError(f'found {str(values)[:100]}; expected {", ".join(defaults)}')
    for name, value in values.items():
        if type(value) is not type(defaults[name]):
            raise ValueError(f'{name}: found {str(value)[:40]!r}')
    framing = Framing(**values)
    if not MIN_SIZE <= framing.size <= MAX_SIZE or framing.fit not in FITS:
        raise ValueError(f'found the size {framing.size} and the fit {framing.fit[:40]}')
    if not 0 <= framing.inner <= framing.size:
        raise ValueError(f'found the inner side {framing.inner} of {framing.size}')
    return framing
