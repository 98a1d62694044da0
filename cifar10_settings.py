"""What was asked for? Settings: one frozen value, made from flags, stored as JSON.

A script declares its settings as a frozen dataclass whose fields are made by
`setting`, and hands it to `run_script` with its `main`. Each field becomes one
absl flag of the same name, type, default and range, so flags, settings and the
JSON beside the checkpoints can't drift apart. A field made by `arguments` takes
what the command line holds beside flags.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from absl import app, flags

import cifar10_files

SETTINGS_FILE = 'settings.json'

# Of steps, seconds and counts, unless a setting says otherwise: far beyond any use, and
# small enough for 64-bit integers to hold the product of two.
LARGEST = 10**9

# Of what seeds a 64-bit generator.
LARGEST_SEED = 2**63 - 1

S = TypeVar('S')


class UserError(Exception):
    """What the user can put right: shown as one line, with exit code 1."""


def setting(
    default: Any,
    help_text: str,
    *,
    at_least: int | None = None,
    at_most: int = LARGEST,
    choices: Sequence[str] | None = None,
) -> Any:
    """A dataclass field that is also a flag.

    Args:
      default: bool, int, str or None (an optional string); gives the flag its type.
      help_text: one line for --help.
      at_least, at_most: the smallest and the largest value of an int.
      choices: the allowed values of a str.
    """
    return dataclasses.field(
        default=default,
        metadata={
            'help': help_text,
            'at_least': at_least,
            'at_most': at_most,
            'choices': choices,
        },
    )


def arguments() -> Any:
    """A dataclass field that takes what the command line holds beside flags: tuple[str, ...].

    A script without such a field refuses what is no flag.
    """
    return dataclasses.field(default=(), metadata={'arguments': True})


def _takes_arguments(field: dataclasses.Field) -> bool:
    return 'arguments' in field.metadata


def define_flags(settings_class: type) -> None:
    """Defines one absl flag for each field of a dataclass of `setting`s."""
    # The flags belong to the script that is run, so that its --help lists them.
    flags.disclaim_key_flags()
    for field in dataclasses.fields(settings_class):
        if _takes_arguments(field):
            # Flags may follow arguments, as they may in most commands.
            flags.FLAGS.set_gnu_getopt()
            continue
        name, default, metadata = field.name, field.default, field.metadata
        help_text = metadata['help']
        if isinstance(default, bool):
            flags.DEFINE_boolean(name, default, help_text)
        elif isinstance(default, int):
            flags.DEFINE_integer(
                name,
                default,
                help_text,
                lower_bound=metadata['at_least'],
                upper_bound=metadata['at_most'],
            )
        elif metadata['choices']:
            flags.DEFINE_enum(name, default, metadata['choices'], help_text)
        else:
            flags.DEFINE_string(name, default, help_text)
            flags.register_validator(
                name, lambda text: text != '', 'expected a name or path, found nothing'
            )


def run_script(main: Callable[[S], None], settings_class: type[S]) -> None:
    """Runs `main` on the settings that the command line gives, and exits.

    The exit code is 0 when `main` returns, 1 for a `UserError` or a wrong flag,
    and 130 when the user interrupts.
    """

    def call_main(argv: list[str]) -> None:
        script = os.path.basename(argv[0])
        try:
            main(_settings(settings_class, tuple(argv[1:])))
        except UserError as error:
            sys.exit(f'{script}: error: {error}')
        except KeyboardInterrupt:
            print(f'\n{script}: interrupted', file=sys.stderr)
            sys.exit(130)

    # TensorFlow's Python side notes every save, and its own use of what it has deprecated.
    logging.getLogger('tensorflow').setLevel(logging.ERROR)
    define_flags(settings_class)
    app.run(call_main)


def _settings(settings_class: type[S], rest: tuple[str, ...]) -> S:
    """What the flags and the `rest` of the command line ask for."""
    values = flags.FLAGS.flag_values_dict()
    fields = dataclasses.fields(settings_class)  # type: ignore[arg-type]
    if rest and not any(map(_takes_arguments, fields)):
        raise UserError(f'unexpected argument {rest[0]!r}: options start with --')
    return settings_class(
        **{field.name: rest if _takes_arguments(field) else values[field.name] for field in fields}
    )


def describe(settings: Any) -> str:
    """`name=value` for every setting, on one line, in the order of the fields."""
    return ' '.join(f'{name}={value}' for name, value in dataclasses.asdict(settings).items())


def command_line(settings: Any) -> str:
    """The command that runs this script with these settings; defaults are left out."""
    interpreter = sys.executable
    if shutil.which('python') == interpreter:
        interpreter = 'python'
    options = [
        _option(field.name, getattr(settings, field.name))
        for field in dataclasses.fields(settings)
        if getattr(settings, field.name) != field.default
    ]
    return shlex.join([interpreter, sys.argv[0], *options])


def _option(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f'--{name}' if value else f'--no{name}'
    return f'--{name}={value}'


def store(settings: Any, directory: str, **more: str) -> None:
    """Writes `settings`, and `more`, to settings.json in `directory`.

    A crash leaves the old file whole.

    Raises:
      OSError: it cannot be written.
    """
    values = {**dataclasses.asdict(settings), **more}
    path = os.path.join(directory, SETTINGS_FILE)
    cifar10_files.replace_text(path, json.dumps(values, indent=2) + '\n')


def load(directory: str) -> dict[str, Any]:
    """The settings stored in `directory`; empty where none are stored.

    Raises:
      UserError: settings.json is there and is not a JSON object.
    """
    path = os.path.join(directory, SETTINGS_FILE)
    try:
        with open(path, encoding='utf-8') as file:
            stored = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise UserError(
            f'{path}: cannot be read as settings: {error}; move it away to go on without'
        ) from error
    if not isinstance(stored, dict):
        raise UserError(f'{path}: expected a JSON object, found {type(stored).__name__}')
    return stored
