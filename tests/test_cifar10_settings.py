"""Settings: flags in, one line and one JSON file out."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

import cifar10_settings
from cifar10_settings import UserError, setting

SCRIPT = """
import dataclasses, sys
from cifar10_settings import UserError, run_script, setting

@dataclasses.dataclass(frozen=True)
class Settings:
    count: int = setting(3, 'A count.', at_least=1)
    name: str = setting('x', 'A name.')
    kind: str = setting('a', 'A kind.', choices=('a', 'b'))
    folder: str = setting(None, 'A folder.')
    once: bool = setting(False, 'Only once.')

def main(settings):
    if settings.count == 13:
        raise UserError('--count=13: found 13, expected a lucky number')
    print(settings)

if __name__ == '__main__':
    run_script(main, Settings)
"""


@dataclasses.dataclass(frozen=True)
class ExampleSettings:
    count: int = setting(3, 'A count.', at_least=1)
    once: bool = setting(False, 'Only once.')
    name: str = setting('x', 'A name.')


def run(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / 'example.py'
    script.write_text(SCRIPT)
    repository = str(Path(cifar10_settings.__file__).parent)
    return subprocess.run(
        [sys.executable, str(script), *options],
        env={'PYTHONPATH': repository},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_flags_become_settings(tmp_path: Path) -> None:
    default = run(tmp_path)
    assert "Settings(count=3, name='x', kind='a', folder=None, once=False)" in default.stdout
    given = run(tmp_path, '--count=5', '--name', 'y', '--kind=b', '--folder=f', '--once')
    assert "Settings(count=5, name='y', kind='b', folder='f', once=True)" in given.stdout
    assert 'once=False' in run(tmp_path, '--once', '--noonce').stdout


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('--counts=5', "Unknown command line flag 'counts'"),
        ('--count=many', 'flag --count=many'),
        ('--count=0', 'flag --count=0: 0 is not an integer in the range [1, 1000000000]'),
        ('--kind=c', 'flag --kind=c: value should be one of <a|b>'),
        ('--once=maybe', 'flag --once=maybe'),
        ('stray', "unexpected argument 'stray'"),
        ('--count=13', 'example.py: error: --count=13: found 13, expected a lucky number'),
    ],
)
def test_a_users_mistake_is_one_clear_error(tmp_path: Path, option: str, message: str) -> None:
    result = run(tmp_path, option)
    assert result.returncode == 1
    assert message in result.stderr
    assert 'Traceback' not in result.stderr and result.stdout == ''


def test_help_lists_the_scripts_own_flags(tmp_path: Path) -> None:
    text = run(tmp_path, '--help').stdout
    assert '--count: A count.' in text and '--[no]once: Only once.' in text


def test_stored_settings_come_back(tmp_path: Path) -> None:
    settings = ExampleSettings(count=7)
    assert cifar10_settings.load(str(tmp_path)) == {}
    cifar10_settings.store(settings, str(tmp_path))
    assert cifar10_settings.load(str(tmp_path)) == {'count': 7, 'once': False, 'name': 'x'}
    assert [path.name for path in tmp_path.iterdir()] == ['settings.json']


@pytest.mark.parametrize('text', ['{"count": ', '[1]', ''])
def test_damaged_settings_are_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / 'settings.json').write_text(text)
    with pytest.raises(UserError, match=r'settings\.json'):
        cifar10_settings.load(str(tmp_path))


def test_settings_in_one_line() -> None:
    assert cifar10_settings.describe(ExampleSettings(name='y')) == 'count=3 once=False name=y'


def test_command_line_gives_what_differs_from_the_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, 'argv', ['train.py', '--count=1'])
    command = cifar10_settings.command_line(ExampleSettings(count=9, once=True, name='a b'))
    assert command.endswith("train.py --count=9 --once '--name=a b'")


def test_importing_any_file_prints_nothing_and_defines_no_flag() -> None:
    repository = Path(cifar10_settings.__file__).parent
    modules = sorted(path.stem for path in repository.glob('cifar10*.py'))
    assert 'cifar10_eval' in modules
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
        cwd=repository,
        env={'TF_CPP_MIN_LOG_LEVEL': '3'},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert json.loads(result.stdout) == [[], True]
