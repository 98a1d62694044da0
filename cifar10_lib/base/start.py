"""Start of a script: its flags are checked, then TensorFlow is imported, which takes seconds."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import IO

from cifar10_lib.base.commands import is_installed
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import exit_code, in_notebook, parse_flags, script_name

# What TensorFlow prints while it is imported, before it heeds TF_CPP_MIN_LOG_LEVEL: notes on
# the processor and on missing GPUs, and libraries of GPUs that register themselves twice.
_START_NOTES = re.compile(
    rb'WARNING: All log messages before absl::InitializeLog|I\d{4} |'
    rb'.*Unable to register cu\w+ factory'
)


def start(name: str, settings_class: type) -> None:
    """Answers --help and wrong flags, then imports TensorFlow without its notes.

    Stands in a script above the imports that need TensorFlow, and does nothing where the script
    is imported. Ends the script with exit code 0 after --help, 1 where a flag is wrong or
    TensorFlow is missing, and 130 when the user interrupts.

    Args:
      name: the script's `__name__`.
      settings_class: what `flags.run_script` gets.
    """
    # In a notebook `run_script` says what is wrong.
    if name != '__main__' or in_notebook():
        return
    sys.excepthook = _show_error

    def prepare() -> None:
        parse_flags(settings_class, script_name(), sys.argv)
        _import_tensorflow()

    if code := exit_code(prepare):
        sys.exit(code)


def _show_error(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Shows an error as Python does, but an interruption in one line."""
    if issubclass(kind, KeyboardInterrupt):
        print(f'\n{script_name()}: interrupted', file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


def _import_tensorflow() -> None:
    """Imports TensorFlow.

    Raises:
      UserError: it is not installed, or finds no folder that it can write to.
    """
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    # Evaluation and training share a GPU: each takes of its memory what it needs.
    os.environ.setdefault('TF_FORCE_GPU_ALLOW_GROWTH', 'true')
    try:
        with contextlib.ExitStack() as stack:
            if os.environ['TF_CPP_MIN_LOG_LEVEL'] != '0':
                # Without a folder for temporary files, the notes are shown.
                with contextlib.suppress(OSError):
                    held = stack.enter_context(tempfile.TemporaryFile())
                    stack.enter_context(_notes_left_out(held))
            import tensorflow  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != 'tensorflow':
            raise
        needed = 'tensorflow' if is_installed() else '-r requirements.txt'
        raise UserError(f'TensorFlow is not installed: python -m pip install {needed}') from error
    except OSError as error:
        raise UserError(f'TensorFlow cannot be imported: {error.strerror or error}') from error


@contextlib.contextmanager
def _notes_left_out(held: IO[bytes]) -> Iterator[None]:
    """Leads the descriptor of standard error into a file; then shows all but the notes."""
    sys.stderr.flush()
    console = os.dup(2)
    os.dup2(held.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(console, 2)
        os.close(console)
        held.seek(0)
        for line in held:
            if not _START_NOTES.match(line):
                os.write(2, line)
