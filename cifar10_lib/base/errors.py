"""Errors that the user can put right."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class UserError(Exception):
    """What the user can put right: shown as one line, with exit code 1."""


@contextlib.contextmanager
def os_errors_named(path: str) -> Iterator[None]:
    """Turns an OSError into a UserError that names its file, or else `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(f'{error.filename or path}: {error.strerror or error}') from error
