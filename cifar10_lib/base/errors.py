"""Errors that the user can put right."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator


class UserError(Exception):
    """What the user can put right: shown as one line, with exit code 1."""


@contextlib.contextmanager
def os_errors_named(path: str) -> Iterator[None]:
    """Turns an OSError into a UserError that names its file, or else `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(f'{error.filename or path}: {error_message(error)}') from error


@contextlib.contextmanager
def write_errors_named(target: str) -> Iterator[None]:
    """Turns an OSError into a UserError that says which flag or path cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f'{target}: cannot be written: {error_message(error)}') from error


def error_message(error: Exception) -> str:
    """The reason of an error in one line, without the node of the graph that it names.

    Of an OSError its strerror; of a TensorFlow error its message.
    """
    if isinstance(error, OSError):
        return error.strerror or str(error)
    message = str(getattr(error, 'message', error))
    node = re.search(r"^Node: '.*'\n(.+)", message, re.MULTILINE)
    line = node[1] if node else message.partition('\n')[0]
    return re.sub(r'^\{\{function_node .*?\}\} | \[Op:\w+\].*$', '', line)
