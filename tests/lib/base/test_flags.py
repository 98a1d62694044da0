"""Settings: flags in, one line and one JSON file out."""

from __future__ import annotations

import builtins
import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cifar10_eval import EvalSettings
from cifar10_export import ExportSettings
from cifar10_lib.base import flags
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import arguments, setting
from cifar10_lib.runs import run_folder
from cifar10_lib.runs.run_folder import RunFolder
from cifar10_lib.training.settings import (
    CommandSettings,
    OneDeviceTrainSettings,
    TrainSettings,
)
from cifar10_multi_gpu_train import MultiGpuTrainSettings
from tests.helpers.scripts import REPOSITORY

SCRIPT = """'''Counts. Nothing else is shown.

    python example.py --count=5

More.
'''
import dataclasses, sys
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import path_setting, run_script, setting

@dataclasses.dataclass(frozen=True)
class Settings:
    count: int = setting(3, 'A count.', at_least=1)
    name: str = setting('x', 'A name.')
    kind: str = setting('a', 'A kind.', choices=('a', 'b'))
    folder: str = setting(None, 'A folder.')
    once: bool = setting(False, 'Only once.')
    rate: float = setting(0.5, 'A rate.', at_least=0.25, at_most=1)
    where: str = path_setting(None, 'A path.')

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


ENVIRONMENT = {'PYTHONPATH': str(REPOSITORY), 'HOME': '/home/me'}


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
        "Settings(count=3, name='x', kind='a', folder=None, once=False, rate=0.5, where=None)"
        in default.stdout
    )
    options = [
        '--count=5',
        '--name',
        'y',
        '--kind=b',
        '--folder=f',
        '--once',
        '--rate=1',
        '--where=~',
    ]
    given = run(tmp_path, *options)
    assert (
        "Settings(count=5, name='y', kind='b', folder='f', once=True, rate=1.0, where='/home/me')"
        in given.stdout
    )
    assert 'once=False' in run(tmp_path, '--once', '--noonce').stdout


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('--counts=5', '--counts: no such flag; did you mean --count? (--help'),
        ('--lr=1', '--lr: no such flag; (--help lists the flags)'),
        ('--count=many', '--count=many: expected a whole number'),
        ('--rate=fast', '--rate=fast: expected a number'),
        ('--count=0', '--count=0: expected a whole number from 1 to 1000000000'),
        ('--kind=c', '--kind=c: expected one of a, b'),
        ('--kind=A', '--kind=A: expected one of a, b; did you mean a?'),
        ('--once=maybe', '--once=maybe: expected true or false'),
        ('--noonce=1', '--noonce=1 does not take an argument'),
        ('--name=', '--name=: expected a name or path, found nothing'),
        ('--rate=0.2', '--rate=0.2: expected a number from 0.25 to 1'),
        ('--rate=1.5', '--rate=1.5: expected a number from 0.25 to 1'),
        ('--rate=inf', '--rate=inf: '),
        ('--rate=nan', '--rate=nan: expected a finite number'),
        ('--where=gs://a', '--where=gs://a: expected a path of this machine'),
        ('--where=file:///a', 'which begins with no scheme'),
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
  --where=<name>    A path.
"""


@pytest.mark.parametrize(
    'options',
    [
        ['--help'],
        ['-help'],
        ['-h'],
        ['--helpshort'],
        ['-?'],
        ['--helpfull'],
        ['--counts=5', '--help'],
    ],
)
def test_help_is_short_and_begins_with_an_example(tmp_path: Path, options: list[str]) -> None:
    result = run(tmp_path, *options)
    assert (result.returncode, result.stdout, result.stderr) == (0, HELP, '')


def test_a_flag_of_another_name_is_known() -> None:
    message = '--lr: no such flag; did you mean --learning_rate? (--helpfull lists the flags)'
    with pytest.raises(UserError, match=re.escape(message)):
        flags.parse(TrainSettings, 'train.py', ['train.py', '--lr=0.1'])
    with pytest.raises(UserError, match='did you mean small_cnn'):
        flags.parse(TrainSettings, 'train.py', ['train.py', '--model=small-cnn'])


@pytest.mark.parametrize(
    'settings_class', [OneDeviceTrainSettings, MultiGpuTrainSettings, CommandSettings]
)
def test_help_of_a_trainer_shows_a_dozen_flags_in_groups(settings_class: type) -> None:
    text = flags.help_text('train.py', 'Trains.', settings_class, width=80)
    complete = flags.help_text('train.py', 'Trains.', settings_class, width=80, complete=True)
    shown, listed = (re.findall(r'^  --(?:\[no\])?(\w+)', t, re.M) for t in (text, complete))
    assert listed == [field.name for field in dataclasses.fields(settings_class)]
    assert len(set(shown)) == len(shown) <= 16 < len(listed)
    assert {'train_dir', 'max_steps', 'learning_rate'} <= set(shown) <= set(listed)
    assert '\n\nRun:\n  --train_dir=cifar10_train ' in text
    assert text.endswith(f'\n\n--helpfull lists all {len(listed)} flags.')


def test_every_synonym_means_a_flag_of_some_script() -> None:
    scripts = (OneDeviceTrainSettings, MultiGpuTrainSettings, EvalSettings, ExportSettings)
    names = {field.name for script in scripts for field in dataclasses.fields(script)}
    assert {name for meant in flags._SYNONYMS.values() for name in meant} <= names


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


def test_closed_streams_lead_nowhere(tmp_path: Path) -> None:
    """Not into the file that is opened next."""
    script = tmp_path / 'example.py'
    script.write_text(
        SCRIPT.replace('    print(settings)', "    open('written', 'w').write(str(settings))")
    )
    command = '"$0" "$1" --count=2 <&- >&- 2>&-; echo $?'
    result = subprocess.run(
        ['bash', '-c', command, sys.executable, str(script)],
        env=ENVIRONMENT,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stdout == '0\n' and result.stderr == ''
    assert (tmp_path / 'written').read_text().startswith('Settings(count=2')
    assert 'xxx' not in (tmp_path / 'written').read_text()


def test_what_an_encoding_lacks_is_printed_as_an_escape(tmp_path: Path) -> None:
    for encoding in ('ascii', 'latin-1', 'utf-8'):
        result = subprocess.run(
            [sys.executable, str(example(tmp_path)), os.fsdecode('--name=→'.encode() + b'\xff')],
            env={**ENVIRONMENT, 'PYTHONIOENCODING': encoding, 'LC_ALL': 'C.UTF-8'},
            capture_output=True,
            timeout=60,
        )
        assert result.returncode == 0, result.stderr
        arrow = '→' if encoding == 'utf-8' else r'\u2192'
        assert arrow.encode() + rb'\udcff' in result.stdout


def test_a_notebook_runs_a_script_again_with_other_flags(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(builtins, '__IPYTHON__', True, raising=False)
    asked: list[ExampleSettings] = []
    for options in (['--count=5'], ['--name=y'], ['--counts=5'], []):
        monkeypatch.setattr(sys, 'argv', ['example.py', *options])
        flags.run_script(asked.append, ExampleSettings)
    assert asked == [ExampleSettings(count=5), ExampleSettings(name='y'), ExampleSettings()]
    assert capsys.readouterr().err.startswith('example.py: error: --counts: no such flag')


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


def test_a_working_directory_that_is_gone_is_one_error(tmp_path: Path) -> None:
    (tmp_path / 'gone').mkdir()
    shell = f'rmdir "$PWD"; exec {sys.executable} {example(tmp_path)}'
    result = subprocess.run(
        ['sh', '-c', shell],
        cwd=tmp_path / 'gone',
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stdout) == (1, '')
    assert result.stderr.startswith('example.py: error: the working directory is gone: cd to')
    assert result.stderr.count('\n') == 1


@pytest.mark.parametrize('text', ['{"count": ', '[1]', ''])
def test_damaged_settings_are_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / 'settings.json').write_text(text)
    with pytest.raises(UserError, match=r'settings\.json'):
        RunFolder.open(str(tmp_path))


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
        timeout=120,
    )
    assert json.loads(result.stdout) == [[], True]
