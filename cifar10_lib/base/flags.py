"""What was asked for? Settings: one frozen value, made from flags, stored as JSON.

A script declares its settings as a frozen dataclass whose fields are made by
`setting`, and hands it to `run_script` with its `main`. Each field becomes one
absl flag of the same name, type, default and range, so flags, settings and the
JSON beside the checkpoints can't drift apart. A field made by `arguments` takes
what the command line holds beside flags.

What --help prints comes from the same fields and from the script's docstring: its
first line says what the script does, its first indented block is an example.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import inspect
import logging
import math
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from absl import app, flags

from cifar10_lib.base.errors import UserError

# Of steps, seconds and counts, unless a setting says otherwise: far beyond any use, and
# small enough for 64-bit integers to hold the product of two.
LARGEST = 10**9

# Of what seeds a 64-bit generator.
LARGEST_SEED = 2**63 - 1

# As a shell gives it for a program that SIGPIPE (13) ended.
BROKEN_PIPE = 128 + 13

# What writing says where the disk, or what the user may have of it, is full.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Flags longer than this have their help on the next line.
_FLAG_COLUMNS = 30

S = TypeVar('S')


def setting(
    default: Any,
    help_text: str,
    *,
    at_least: float | None = None,
    at_most: float = LARGEST,
    choices: Sequence[str] | None = None,
) -> Any:
    """A dataclass field that is also a flag.

    Args:
      default: bool, int, float, str or None (an optional string); gives the flag its type.
      help_text: a sentence for --help.
      at_least, at_most: the smallest and the largest value of an int or a float, which is
        finite in any case.
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


def define_flags(settings_class: type, flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines one absl flag for each field of a dataclass of `setting`s."""
    # The flags belong to the script that is run, so that its --helpfull lists them.
    flags.disclaim_key_flags()
    for field in dataclasses.fields(settings_class):
        if _takes_arguments(field):
            # Flags may follow arguments, as they may in most commands.
            flag_values.set_gnu_getopt()
        else:
            _define_flag(field, flag_values)


def _define_flag(field: dataclasses.Field, flag_values: flags.FlagValues) -> None:
    name, default, metadata = field.name, field.default, field.metadata
    common = {
        'name': name,
        'default': default,
        'help': metadata['help'],
        'flag_values': flag_values,
    }
    bounds = {'lower_bound': metadata['at_least'], 'upper_bound': metadata['at_most']}
    if isinstance(default, bool):
        flags.DEFINE_boolean(**common)
    elif isinstance(default, int):
        flags.DEFINE_integer(**common, **bounds)
    elif isinstance(default, float):
        flags.DEFINE_float(**common, **bounds)
        # Of a value that is not a number, no comparison with a bound holds.
        flags.register_validator(
            name, math.isfinite, 'expected a finite number', flag_values=flag_values
        )
    elif metadata['choices']:
        flags.DEFINE_enum(**common, enum_values=metadata['choices'])
    else:
        flags.DEFINE_string(**common)
        flags.register_validator(
            name,
            lambda text: text != '',
            'expected a name or path, found nothing',
            flag_values=flag_values,
        )


def run_script(main: Callable[[S], None], settings_class: type[S]) -> None:
    """Runs `main` on the settings that the command line gives, and exits.

    The exit code is 0 when `main` returns and after --help, 1 for a `UserError`, a wrong
    flag or an output on a full disk, 130 when the user interrupts, and 141 when nobody
    reads the output any more.
    """
    script = os.path.basename(sys.argv[0])

    def parse_flags(argv: list[str]) -> list[str]:
        text = help_text(script, sys.modules['__main__'].__doc__ or '', settings_class)
        for name, short_name in (('help', 'h'), ('helpshort', '?')):
            flags.DEFINE_flag(_HelpFlag(name, short_name, text))
        try:
            return flags.FLAGS(argv)
        except (flags.Error, ValueError) as error:
            _fail(script, f'{_flag_error(error, settings_class)} (--help lists the flags)')

    def call_main(argv: list[str]) -> None:
        try:
            main(_settings(settings_class, tuple(argv[1:])))
        except UserError as error:
            _fail(script, str(error))
        except KeyboardInterrupt:
            print(f'\n{script}: interrupted', file=sys.stderr)
            sys.exit(130)

    # TensorFlow's Python side notes every save, and its own use of what it has deprecated.
    logging.getLogger('tensorflow').setLevel(logging.ERROR)
    define_flags(settings_class)
    try:
        try:
            app.run(call_main, flags_parser=parse_flags)
        finally:
            # A failure to write what is buffered shows here, not at the interpreter's exit.
            print(end='', flush=True)
    except BrokenPipeError:
        _discard_output()
        sys.exit(BROKEN_PIPE)
    except OSError as error:
        # Of files, only the output has no name.
        if error.filename is not None or error.errno not in _FULL:
            raise
        with contextlib.suppress(OSError):
            print(f'{script}: error: output: {error.strerror}', file=sys.stderr)
        _discard_output()
        sys.exit(1)


# What a flag takes, by the type of its default.
_VALUES_IN_WORDS = {bool: 'true or false', int: 'a whole number', float: 'a number'}


def _flag_error(error: Exception, settings_class: type) -> str:
    """What is wrong with the flags, in one line."""
    text = ' '.join(str(error).split())
    match = re.match(r'flag --(\w+)=(.*?): .*(?:Non-boolean|invalid literal|could not conv)', text)
    types = {field.name: type(field.default) for field in dataclasses.fields(settings_class)}
    expected = _VALUES_IN_WORDS.get(types.get(match[1], str)) if match else None
    return f'flag --{match[1]}={match[2]}: expected {expected}' if match and expected else text


def _settings(settings_class: type[S], rest: tuple[str, ...]) -> S:
    """What the flags and the `rest` of the command line ask for."""
    values = flags.FLAGS.flag_values_dict()
    fields = dataclasses.fields(settings_class)  # type: ignore[arg-type]
    if rest and not any(map(_takes_arguments, fields)):
        raise UserError(f'unexpected argument {rest[0]!r}: options start with --')
    settings = settings_class(
        **{field.name: rest if _takes_arguments(field) else values[field.name] for field in fields}
    )
    not_given = {
        name: default
        for name, default in _defaults(settings).items()
        if name in flags.FLAGS and not flags.FLAGS[name].present
    }
    return dataclasses.replace(settings, **not_given)  # type: ignore[type-var]


def _defaults(settings: Any) -> dict[str, Any]:
    """Values of the flags that aren't given.

    They may depend on those that are: a class of settings says so in its method `defaults`,
    which returns values by name.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    if hasattr(settings, 'defaults'):
        defaults.update(settings.defaults())
    return defaults


def _fail(script: str, message: str) -> NoReturn:
    print(f'{script}: error: {message}', file=sys.stderr)
    sys.exit(1)


def _discard_output() -> None:
    """Lets the interpreter's exit flush into nothing."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        os.dup2(nowhere, stream.fileno())


# ------------------------------------------------------------------------------ help


class _HelpFlag(flags.BooleanFlag):
    """Prints `text` as soon as it is met, so that it helps with wrong flags after it too."""

    def __init__(self, name: str, short_name: str, text: str) -> None:
        super().__init__(name, False, 'show this help', short_name=short_name, allow_override=True)
        self._text = text

    def parse(self, argument: str) -> None:
        super().parse(argument)
        if self.value:
            print(self._text)
            sys.exit(0)


def help_text(script: str, docstring: str, settings_class: type, width: int | None = None) -> str:
    """What --help prints: an example, what the script does, and its flags.

    Args:
      script: its file name.
      docstring: the script's; its first line and its first indented block are shown.
      settings_class: a dataclass of `setting`s.
      width: of a line, in columns; by default the terminal's, or 80.
    """
    width = width or shutil.get_terminal_size((80, 24)).columns
    docstring = inspect.cleandoc(docstring)
    purpose = docstring.partition('\n')[0]
    example = re.search(r'(?m)(?:^    .*\n?)+', docstring)
    blocks = [textwrap.fill(purpose, width)]
    if example:
        blocks.insert(0, f'Example:\n{example[0].rstrip()}')
    fields = dataclasses.fields(settings_class)
    for field in filter(_takes_arguments, fields):
        blocks.append(f'Usage:\n    {script} [flags] [{field.name} ...]')
    options = [field for field in fields if not _takes_arguments(field)]
    blocks.append('Flags:\n' + _flag_table(options, width))
    return '\n\n'.join(blocks)


def _flag_table(fields: Sequence[dataclasses.Field], width: int) -> str:
    """Two columns: each flag with its default, and what it means."""
    names = [f'  {_flag_and_default(field)}' for field in fields]
    longest = max((len(name) for name in names if len(name) <= _FLAG_COLUMNS + 2), default=0)
    column = longest + 3
    lines = []
    for name, field in zip(names, fields, strict=True):
        meaning = textwrap.fill(
            _meaning(field),
            max(width, column + 20),
            initial_indent=' ' * column,
            subsequent_indent=' ' * column,
            break_long_words=False,
            break_on_hyphens=False,
        )
        beside = len(name) < column
        lines.append(name + meaning[len(name) :] if beside else f'{name}\n{meaning}')
    return '\n'.join(lines)


def _flag_and_default(field: dataclasses.Field) -> str:
    if isinstance(field.default, bool):
        return f'--[no]{field.name}'
    return f'--{field.name}={"<name>" if field.default is None else field.default}'


def _meaning(field: dataclasses.Field) -> str:
    """The help of a flag, with the values it takes where they don't go without saying."""
    default, text = field.default, field.metadata['help']
    choices = field.metadata['choices'] or ()
    low, high = field.metadata['at_least'], field.metadata['at_most']
    if default is True:
        return f'{text} On by default.'
    if not set(choices) <= set(re.findall(r'\w+', text)):
        return f'{text} One of {", ".join(choices)}.'
    if isinstance(default, bool) or not isinstance(default, int | float):
        return text
    bounds = [
        *([f'at least {low:,}'] if low not in (None, 0, 1) else []),
        *([f'at most {high:,}'] if high < LARGEST else []),
    ]
    return f'{text} {", ".join(bounds).capitalize()}.' if bounds else text


# ---------------------------------------------------------------------- use and storage


def describe(settings: Any) -> str:
    """`name=value` for every setting, on one line, in the order of the fields."""
    return ' '.join(f'{name}={value}' for name, value in dataclasses.asdict(settings).items())


def command_line(settings: Any) -> str:
    """The command that runs this script with these settings; defaults are left out."""
    options: list[str] = []
    rest: list[str] = []
    defaults = _defaults(settings)
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if _takes_arguments(field):
            rest += value
        elif value != defaults[field.name]:
            options.append(_option(field.name, value))
    if any(argument.startswith('-') for argument in rest):
        rest.insert(0, '--')
    return shlex.join([interpreter(), sys.argv[0], *options, *rest])


def interpreter() -> str:
    """What runs a script as this one is run, as short as a user writes it."""
    return 'python' if shutil.which('python') == sys.executable else sys.executable


def _option(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f'--{name}' if value else f'--no{name}'
    return f'--{name}={value}'
