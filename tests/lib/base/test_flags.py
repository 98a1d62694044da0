"""Settings: flags in, one line and one JSON file out."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cifar10_lib.base import flags
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import arguments, setting
from cifar10_lib.runs import run_folder
from cifar10_lib.runs.run_folder import RunFolder
from tests.helpers.scripts import REPOSITORY

SCRIPT = """'''Counts. Nothing else is shown.

    python example.py --count=5

More.
'''
import dataclasses, sys
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import run_script, setting

@dataclasses.dataclass(frozen=True)
class Settings:
    count: int = setting(3, 'A count.', at_least=1)
    name: str = setting('x', 'A name.')
    kind: str = setting('a', 'A kind.', choices=('a', 'b'))
    folder: str = setting(None, 'A folder.')
    once: bool = setting(False, 'Only once.')
    rate: float = setting(0.5, 'A rate.', at_least=0.25, at_most=1)

def main(settings):
    if settings.count == 13:
        raise UserError('--count=13: found 13, expected a lucky number')
    print(settings)
    if settings.count == 14:
        raise UserError('--count=14: found 14')
    for _ in range(settings.count):
        print('x' * 99)

if __name__ == '__main__':
    run_script(main, Settings)
"""


@dataclasses.dataclass(frozen=True)
class ExampleSettings:
    count: int = setting(3, 'A count.', at_least=1)
    once: bool = setting(False, 'Only once.')
    name: str = setting('x', 'A name.')


ENVIRONMENT = {'PYTHONPATH': str(REPOSITORY)}


def example(tmp_path: Path) -> Path:
    script = tmp_path / 'example.py'
    script.write_text(SCRIPT)
    return script


def run(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(example(tmp_path)), *options],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_flags_become_settings(tmp_path: Path) -> None:
    default = run(tmp_path)
    assert (
        "Settings(count=3, name='x', kind='a', folder=None, once=False, rate=0.5)" in default.stdout
    )
    options = ['--count=5', '--name', 'y', '--kind=b', '--folder=f', '--once', '--rate=1']
    given = run(tmp_path, *options)
    assert "Settings(count=5, name='y', kind='b', folder='f', once=True, rate=1.0)" in given.stdout
    assert 'once=False' in run(tmp_path, '--once', '--noonce').stdout


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('--counts=5', "Unknown command line flag 'counts'"),
        ('--count=many', 'flag --count=many: expected a whole number'),
        ('--rate=fast', 'flag --rate=fast: expected a number'),
        ('--count=0', 'flag --count=0: 0 is not an integer in the range [1, 1000000000]'),
        ('--kind=c', 'flag --kind=c: value should be one of <a|b>'),
        ('--once=maybe', 'flag --once=maybe: expected true or false'),
        ('--noonce=1', '--noonce=1 does not take an argument'),
        ('--name=', 'flag --name=: expected a name or path, found nothing'),
        ('--rate=0.2', 'flag --rate=0.2: 0.2 is not a number in the range [0.25, 1]'),
        ('--rate=1.5', 'flag --rate=1.5: 1.5 is not a number in the range [0.25, 1]'),
        ('--rate=inf', 'flag --rate=inf: '),
        ('--rate=nan', 'flag --rate=nan: expected a finite number'),
        ('stray', "unexpected argument 'stray'"),
        ('--count=13', 'example.py: error: --count=13: found 13, expected a lucky number'),
    ],
)
def test_a_users_mistake_is_one_clear_error(tmp_path: Path, option: str, message: str) -> None:
    result = run(tmp_path, option)
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.startswith('example.py: error: ') and result.stdout == ''
    assert result.stderr.count('\n') == 1


HELP = """\
Example:
    python example.py --count=5

Counts. Nothing else is shown.

Flags:
  --count=3         A count.
  --name=x          A name.
  --kind=a          A kind. One of a, b.
  --folder=<name>   A folder.
  --[no]once        Only once.
  --rate=0.5        A rate. At least 0.25, at most 1.
"""


@pytest.mark.parametrize(
    'options', [['--help'], ['-help'], ['-h'], ['--helpshort'], ['-?'], ['--counts=5', '--help']]
)
def test_help_is_short_and_begins_with_an_example(tmp_path: Path, options: list[str]) -> None:
    result = run(tmp_path, *options)
    assert (result.returncode, result.stdout, result.stderr) == (0, HELP, '')


def test_a_wrong_flag_names_the_help_and_the_full_help_has_absls_flags(tmp_path: Path) -> None:
    assert '--help lists the flags' in run(tmp_path, '--counts=5').stderr
    text = run(tmp_path, '--helpfull').stdout
    assert '--count: A count.' in text and '--[no]only_check_args' in text


@dataclasses.dataclass(frozen=True)
class WideSettings:
    files: tuple[str, ...] = arguments()
    url: str = setting('https://example.org/an/address', 'Where to look, or --shade=light.')
    shade: str = setting(None, 'light or dark.', choices=('light', 'dark'))
    seed: int = setting(0, 'A seed.', at_least=0, at_most=flags.LARGEST_SEED)
    size: int = setting(4, 'A size.', at_least=2)
    seen: bool = setting(True, 'Whether it shows.')


def test_help_wraps_and_says_only_what_does_not_go_without_saying() -> None:
    text = flags.help_text('look.py', 'Looks.', WideSettings, width=40)
    assert text == inspect.cleandoc("""
        Looks.

        Usage:
            look.py [flags] [files ...]

        Flags:
          --url=https://example.org/an/address
                           Where to look, or
                           --shade=light.
          --shade=<name>   light or dark.
          --seed=0         A seed.
          --size=4         A size. At least 2.
          --[no]seen       Whether it shows. On
                           by default.
    """)


@pytest.mark.parametrize('option', ['--count=1', '--count=10000', '--count=14', '--help'])
def test_a_script_ends_quietly_when_nobody_reads(tmp_path: Path, option: str) -> None:
    """Output that fits into the buffer fails at its end, other output under way."""
    script = example(tmp_path)
    read, write = os.pipe()
    os.close(read)
    try:
        result = subprocess.run(
            [sys.executable, str(script), option],
            env=ENVIRONMENT,
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    finally:
        os.close(write)
    assert result.returncode == 141
    # An error is still told.
    error = 'example.py: error: --count=14: found 14\n'
    assert result.stderr == (error if option == '--count=14' else '')


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs /dev/full')
@pytest.mark.parametrize('option', ['--count=1', '--count=10000', '--help'])
def test_an_output_that_is_full_is_one_error(tmp_path: Path, option: str) -> None:
    with open('/dev/full', 'w', encoding='utf-8') as full:
        result = subprocess.run(
            [sys.executable, str(example(tmp_path)), option],
            env=ENVIRONMENT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert result.returncode == 1
    assert result.stderr == 'example.py: error: output: No space left on device\n'


def test_stored_settings_come_back(tmp_path: Path) -> None:
    settings = ExampleSettings(count=7)
    assert RunFolder.open(str(tmp_path)).settings == {}
    run_folder.store(settings, str(tmp_path))
    assert RunFolder.open(str(tmp_path)).settings == {'count': 7, 'once': False, 'name': 'x'}
    assert [path.name for path in tmp_path.iterdir()] == ['settings.json']


@pytest.mark.parametrize('text', ['{"count": ', '[1]', ''])
def test_damaged_settings_are_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / 'settings.json').write_text(text)
    with pytest.raises(UserError, match=r'settings\.json'):
        RunFolder.open(str(tmp_path))


def test_settings_in_one_line() -> None:
    assert flags.describe(ExampleSettings(name='y')) == 'count=3 once=False name=y'


def test_command_line_gives_what_differs_from_the_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, 'argv', ['train.py', '--count=1'])
    command = flags.command_line(ExampleSettings(count=9, once=True, name='a b'))
    assert command.endswith("train.py --count=9 --once '--name=a b'")


@pytest.mark.parametrize(
    ('files', 'rest'),
    [((), ''), (('a', 'b c'), " a 'b c'"), (('a', '--size=3'), ' -- a --size=3')],
)
def test_command_line_ends_with_the_arguments(
    files: tuple[str, ...], rest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, 'argv', ['look.py'])
    command = flags.command_line(WideSettings(files, size=3))
    assert command.endswith(f'look.py --size=3{rest}')


def test_importing_any_file_prints_nothing_and_defines_no_flag() -> None:
    files = [*REPOSITORY.glob('cifar10*.py'), *REPOSITORY.glob('cifar10_lib/*/*.py')]
    modules = ['.'.join(path.relative_to(REPOSITORY).with_suffix('').parts) for path in files]
    assert {'cifar10_eval', 'cifar10_lib.training.session'} < set(modules)
    program = f"""
import json, sys
from absl import flags
import tensorflow.compat.v1 as tf
before = set(flags.FLAGS)
for name in {modules!r}:
    __import__(name)
print(json.dumps([sorted(set(flags.FLAGS) - before), tf.executing_eagerly()]))
"""
    result = subprocess.run(
        [sys.executable, '-c', program],
        cwd=REPOSITORY,
        env={'TF_CPP_MIN_LOG_LEVEL': '3'},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert json.loads(result.stdout) == [[], True]
