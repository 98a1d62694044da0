"""Settings of a script: one frozen value made from its flags.

A script declares its settings as a frozen dataclass whose fields are made by `setting`, and
hands it to `run_script` with its `main`. Each field becomes one absl flag of the same name,
type, default and range. A field made by `arguments` takes the command line's other arguments.

--help shows the same fields, after the first indented block of the script's docstring, an
example, and its first line, the script's purpose. Of a class with many fields, `MAIN_FLAGS`
names those that --help shows, by the heading of their group; --helpfull shows all.
"""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import difflib
import errno
import functools
import inspect
import io
import logging
import math
import os
import re
import shlex
import shutil
import sys
import textwrap
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from absl import flags

from cifar10_lib.base.commands import command, name_commands
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.names import printable

# Of steps, seconds and counts, unless a setting says otherwise: far beyond any use, and
# small enough for 64-bit integers to hold the product of two.
LARGEST = 10**9

# Of what seeds a 64-bit generator.
LARGEST_SEED = 2**63 - 1

# As a shell gives it for a program that SIGPIPE (13) ended.
BROKEN_PIPE = 128 + 13

# Errors of writing where the disk, or the user's quota, is full.
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# The help of longer flags begins on the next line.
_FLAG_COLUMNS = 30

# Python's messages for a wrong value, and plain ones.
_PLAIN_MESSAGES = {
    r'invalid literal for int.*': 'expected a whole number',
    r'could not convert string to float.*': 'expected a number',
    r'\(.Non-boolean argument.*': 'expected true or false',
    r'\S+ is not an integer in the range \[(.+), (.+)\]': r'expected a whole number from \1 to \2',
    r'\S+ is not a number in the range \[(.+), (.+)\]': r'expected a number from \1 to \2',
}

# Flags as other programs call them.
_SYNONYMS = {
    'lr': ('learning_rate',),
    'rate': ('learning_rate',),
    'num_epochs': ('epochs',),
    'steps': ('max_steps',),
    'num_steps': ('max_steps',),
    'train_steps': ('max_steps',),
    'batch': ('batch_size',),
    'bs': ('batch_size',),
    'data': ('data_dir',),
    'out': ('output', 'train_dir'),
    'output_dir': ('train_dir', 'output', 'eval_dir'),
    'model_dir': ('train_dir', 'checkpoint_dir'),
    'logdir': ('train_dir', 'eval_dir'),
    'log_dir': ('train_dir', 'eval_dir'),
    'train_dir': ('checkpoint_dir',),
    'checkpoint_dir': ('train_dir',),
    'resume': ('train_dir',),
    'restart': ('start_over',),
    'overwrite': ('start_over',),
    'network': ('model',),
    'arch': ('model',),
    'optim': ('optimizer',),
    'opt': ('optimizer',),
    'wd': ('weight_decay',),
    'gpus': ('num_gpus',),
    'fp16': ('use_fp16',),
    'amp': ('use_fp16', 'use_bf16'),
    'bf16': ('use_bf16',),
    'once': ('run_once',),
}

# Of a URL: TensorFlow would take some for file systems of its own.
_SCHEME = r'[A-Za-z][A-Za-z0-9+.-]*://'

S = TypeVar('S')


def setting(
    default: Any,
    help_text: str,
    *,
    at_least: float | None = None,
    at_most: float = LARGEST,
    choices: Sequence[str] | None = None,
    is_path: bool = False,
) -> Any:
    """A dataclass field that is also a flag.

    Args:
      default: bool, int, float, str or None (an optional string); gives the flag its type.
      help_text: a sentence for --help.
      at_least, at_most: range of an int or a float, which is finite in any case.
      choices: the allowed values of a str.
      is_path: whether a str is a path of this machine, which begins with no scheme.
    """
    metadata = {
        'help': help_text,
        'at_least': at_least,
        'at_most': at_most,
        'choices': choices,
        'is_path': is_path,
    }
    return dataclasses.field(default=default, metadata=metadata)


def path_setting(default: str | None, help_text: str) -> Any:
    """A `setting` that is a path."""
    return setting(default, help_text, is_path=True)


def arguments() -> Any:
    """A dataclass field, tuple[str, ...], of the command line's arguments that are no flags.

    A script without such a field refuses them.
    """
    return dataclasses.field(default=())


def _split_fields(
    settings: Any,
) -> tuple[list[dataclasses.Field], list[dataclasses.Field]]:
    """The fields of a dataclass that are made by `setting`, and those made by `arguments`."""
    fields = dataclasses.fields(settings)
    return [f for f in fields if f.metadata], [f for f in fields if not f.metadata]


def define_flags(settings_class: type, flag_values: flags.FlagValues) -> None:
    """Defines one absl flag for each field of a dataclass of `setting`s."""
    options, rest = _split_fields(settings_class)
    if rest:
        # Flags may follow arguments, as they may in most commands.
        flag_values.set_gnu_getopt()
    for field in options:
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
        # Comparing nan with a bound is always false.
        flags.register_validator(
            name, math.isfinite, 'expected a finite number', flag_values=flag_values
        )
    elif metadata['choices']:
        flags.DEFINE_string(**common)
        flags.register_validator(
            name, lambda text: _check_choice(text, metadata['choices']), flag_values=flag_values
        )
    else:
        flags.DEFINE_string(**common)
        flags.register_validator(
            name,
            lambda text: text != '',
            'expected a name or path, found nothing',
            flag_values=flag_values,
        )
    if metadata['is_path']:
        flags.register_validator(
            name,
            lambda path: not (path and re.match(_SCHEME, path)),
            'expected a path of this machine, which begins with no scheme',
            flag_values=flag_values,
        )


def _check_choice(text: str | None, choices: Sequence[str]) -> bool:
    """Raises flags.ValidationError where a text is none of the choices, with the likeliest."""
    if text is None or text in choices:
        return True
    meant = difflib.get_close_matches(text.lower().replace('-', '_'), choices, 1)
    hint = f'; did you mean {meant[0]}?' if meant else ''
    raise flags.ValidationError(f'expected one of {", ".join(choices)}{hint}')


def run_script(main: Callable[[S], None], settings_class: type[S]) -> None:
    """Runs `main` on the settings that the command line gives; exits unless it returns.

    The exit code is that of `exit_code`.
    """
    # TensorFlow's Python side logs every save, its own use of what it has deprecated, and errors
    # that it then raises.
    logging.getLogger('tensorflow').setLevel(logging.CRITICAL)
    threading.excepthook = _show_thread_error
    code = exit_code(lambda: main(parse(settings_class, script_name(), sys.argv)))
    if code and not in_notebook():
        sys.exit(code)


def in_notebook() -> bool:
    """Whether IPython runs the script, which would show an exit as one more error."""
    return hasattr(builtins, '__IPYTHON__')


def _show_thread_error(error: threading.ExceptHookArgs) -> None:
    """Shows a thread's error, but not that of the writer of summaries: its flush raises it too."""
    if error.thread is None or error.thread.name != 'EventLoggerThread':
        threading.__excepthook__(error)


def script_name() -> str:
    """The file name of the script that runs; of a package, its folder's."""
    folder, script = os.path.split(sys.argv[0])
    return os.path.basename(folder) if script == '__main__.py' else script


def exit_code(action: Callable[[], None]) -> int:
    """Runs a part of a script, shows what went wrong, and gives the exit code.

    It is 0 when `action` returns, 1 for a `UserError`, a wrong flag or an output on a full disk,
    130 when the user interrupts, and 141 when nobody reads the output any more.
    """
    script = script_name()
    open_streams()
    code = 0
    try:
        try:
            action()
        except UserError as error:
            print(f'{script}: error: {printable(name_commands(str(error)))}', file=sys.stderr)
            code = 1
        except KeyboardInterrupt:
            print(f'\n{script}: interrupted', file=sys.stderr)
            code = 130
        finally:
            # A failure to write what is buffered shows here, not at the interpreter's exit.
            print(end='', flush=True)
    except BrokenPipeError:
        _discard_output()
        code = BROKEN_PIPE
    except OSError as error:
        # Of files, only the output has no name.
        if error.filename is not None or error.errno not in _DISK_FULL:
            raise
        with contextlib.suppress(OSError):
            print(f'{script}: error: output: {error.strerror}', file=sys.stderr)
        _discard_output()
        code = 1
    return code


def open_streams() -> None:
    """Makes standard streams that can always be printed to.

    Those that are closed lead nowhere, lest the next file that is opened gets what is printed.
    What a stream's encoding lacks is printed as an escape.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for name in ('stdout', 'stderr'):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, 'w', encoding='utf-8'))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')


def parse(settings_class: type[S], script: str, argv: Sequence[str]) -> S:
    """The settings that a command line gives. After --help, prints it and exits.

    Args:
      settings_class: a dataclass of `setting`s.
      script: name of the program's file.
      argv: the program and its arguments.

    Raises:
      UserError: a flag is unknown, or has a wrong value; or the working directory is gone.
    """
    return _settings(settings_class, *parse_flags(settings_class, script, argv))


def parse_flags(
    settings_class: type, script: str, argv: Sequence[str]
) -> tuple[flags.FlagValues, tuple[str, ...]]:
    """The flags of a command line and its other arguments, each checked by itself.

    Arguments, --help and errors are those of `parse`.
    """
    values = flags.FlagValues()
    define_flags(settings_class, values)
    docstring = sys.modules['__main__'].__doc__ or ''
    for name, short_name in (('help', 'h'), ('helpshort', '?'), ('helpfull', None)):
        write_text = functools.partial(
            help_text, script, docstring, settings_class, complete=name == 'helpfull'
        )
        flags.DEFINE_flag(_HelpFlag(name, short_name, write_text), values)
    try:
        rest = tuple(values(argv)[1:])
    except flags.UnrecognizedFlagError as error:
        raise UserError(_unknown_flag(error.flagname, settings_class)) from error
    except (flags.Error, ValueError) as error:
        message = ' '.join(str(error).split()).removeprefix('flag ')
        for pattern, plain in _PLAIN_MESSAGES.items():
            message = re.sub(pattern, plain, message)
        raise UserError(f'{message} (--help lists the flags)') from error
    if rest and not _split_fields(settings_class)[1]:
        raise UserError(f'unexpected argument {rest[0]!r}: options start with --')
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise UserError(
            'the working directory is gone: cd to a folder that is there, and start again'
        ) from error
    return values, rest


def _unknown_flag(name: str, settings_class: type) -> str:
    names = [field.name for field in _split_fields(settings_class)[0]]
    plain = name.lower().replace('-', '_')
    meant = [flag for flag in _SYNONYMS.get(plain, ()) if flag in names]
    meant = meant or difflib.get_close_matches(plain, names, 2)
    hint = f'did you mean --{" or --".join(meant)}? ' if meant else ''
    lists = 'helpfull' if hasattr(settings_class, 'MAIN_FLAGS') else 'help'
    return f'--{name}: no such flag; {hint}(--{lists} lists the flags)'


def _settings(settings_class: type[S], parsed: flags.FlagValues, rest: tuple[str, ...]) -> S:
    """The settings that the parsed flags and the `rest` of the command line ask for."""
    options, rest_fields = _split_fields(settings_class)
    values = {field.name: _expand(parsed[field.name].value) for field in options}
    rest = tuple(map(os.path.expanduser, rest))
    settings = settings_class(**values, **{field.name: rest for field in rest_fields})
    defaults = {
        name: default
        for name, default in _defaults(settings).items()
        if name in parsed and not parsed[name].present
    }
    return dataclasses.replace(settings, **defaults)  # type: ignore[type-var]


def _expand(value: Any) -> Any:
    """A path's `~` as the home folder: shells leave it as it is after `=`."""
    return os.path.expanduser(value) if isinstance(value, str) else value


def _defaults(settings: Any) -> dict[str, Any]:
    """The values of flags that are not given.

    A class of settings may have a method `defaults`, which returns those that depend on the
    other flags.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    return {**defaults, **(settings.defaults() if hasattr(settings, 'defaults') else {})}


def _discard_output() -> None:
    """Lets the interpreter's exit flush into nothing."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        os.dup2(nowhere, stream.fileno())


# ------------------------------------------------------------------------------ help


class _HelpFlag(flags.BooleanFlag):
    """Prints a text and exits where it is parsed, whatever is wrong with later flags."""

    def __init__(self, name: str, short_name: str | None, write_text: Callable[[], str]) -> None:
        super().__init__(name, False, 'show this help', short_name=short_name, allow_override=True)
        self._write_text = write_text

    def parse(self, argument: str) -> None:
        super().parse(argument)
        if self.value:
            print(self._write_text())
            sys.exit(0)


def help_text(
    script: str,
    docstring: str,
    settings_class: type,
    width: int | None = None,
    complete: bool = False,
) -> str:
    """The text of --help: an example, the script's purpose, and its flags.

    Args:
      script: its file name.
      docstring: the script's; its first line and its first indented block are shown.
      settings_class: a dataclass of `setting`s.
      width: of a line, in columns; by default the terminal's, or 80.
      complete: whether to show all flags of a class that has MAIN_FLAGS.
    """
    width = width or shutil.get_terminal_size((80, 24)).columns
    docstring = inspect.cleandoc(docstring)
    options, rest = _split_fields(settings_class)
    example = re.search(r'(?m)(?:^    .*\n?)+', docstring)
    blocks = [f'Example:\n{name_commands(example[0].rstrip())}'] if example else []
    blocks.append(textwrap.fill(docstring.partition('\n')[0], width))
    blocks += [f'Usage:\n    {script} [flags] [{field.name} ...]' for field in rest]
    groups = getattr(settings_class, 'MAIN_FLAGS', {})
    if complete or not groups:
        return '\n\n'.join([*blocks, f'Flags:\n{_flag_table(options, width)}'])
    by_name = {field.name: field for field in options}
    for heading, names in groups.items():
        blocks.append(f'{heading}:\n{_flag_table([by_name[name] for name in names], width)}')
    return '\n\n'.join([*blocks, f'--helpfull lists all {len(options)} flags.'])


def _flag_table(options: Sequence[dataclasses.Field], width: int) -> str:
    """Two columns: each flag with its default, and its help."""
    names = [
        f'  --[no]{field.name}'
        if isinstance(field.default, bool)
        else f'  --{field.name}={"<name>" if field.default is None else field.default}'
        for field in options
    ]
    column = 3 + max((len(name) for name in names if len(name) <= _FLAG_COLUMNS + 2), default=0)
    indent = ' ' * column
    lines = []
    for name, field in zip(names, options, strict=True):
        first_indent = name.ljust(column) if len(name) < column else f'{name}\n{indent}'
        meaning = textwrap.wrap(
            _meaning(field), max(width - column, 20), break_long_words=False, break_on_hyphens=False
        )
        lines.append(first_indent + f'\n{indent}'.join(meaning))
    return '\n'.join(lines)


def _meaning(field: dataclasses.Field) -> str:
    """The help of a flag, and its range or choices where they are not obvious."""
    default, text = field.default, field.metadata['help']
    choices = field.metadata['choices'] or ()
    low, high = field.metadata['at_least'], field.metadata['at_most']
    if default is True:
        return f'{text} On by default.'
    if not set(choices) <= set(re.findall(r'\w+', text)):
        return f'{text} One of {", ".join(choices)}.'
    if isinstance(default, bool) or not isinstance(default, int | float):
        return text
    bounds = [f'at least {low:,}'] if low not in (None, -1, 0, 1) else []
    bounds += [f'at most {high:,}'] if high < LARGEST else []
    return f'{text} {", ".join(bounds).capitalize()}.' if bounds else text


# ---------------------------------------------------------------------- use and storage


def changed_flags(settings: Any, expected: Mapping[str, Any]) -> list[str]:
    """The flags whose values are not the expected ones, as they are given, in the fields' order."""
    words = []
    for name in (field.name for field in _split_fields(settings)[0]):
        value = getattr(settings, name)
        if value != expected[name]:
            no = 'no' if value is False else ''
            words.append(f'--{no}{name}' if isinstance(value, bool) else f'--{name}={value}')
    return words


def command_line(settings: Any) -> str:
    """The command that runs this script with these settings; defaults are left out."""
    words = changed_flags(settings, _defaults(settings))
    rest_fields = _split_fields(settings)[1]
    rest = [argument for field in rest_fields for argument in getattr(settings, field.name)]
    if any(argument.startswith('-') for argument in rest):
        words.append('--')
    return shlex.join([*command(os.path.basename(sys.argv[0])), *words, *rest])
