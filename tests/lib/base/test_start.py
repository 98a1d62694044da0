"""Start of a script: flags first, then TensorFlow without its notes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.scripts import REPOSITORY

SCRIPT = '''"""An example.

    python example.py --count=5

More.
"""
import dataclasses, sys
from cifar10_lib.base.flags import run_script, setting
from cifar10_lib.base.start import start

@dataclasses.dataclass(frozen=True)
class Settings:
    count: int = setting(3, 'A count.', at_least=1)

start(__name__, Settings)
print('imported', flush=True)

if __name__ == '__main__':
    run_script(lambda settings: print('count', settings.count), Settings)
'''

# In place of TensorFlow, it writes to the descriptor of standard error, as libraries do.
FAKE_TENSORFLOW = """
import os
os.write(2, b'WARNING: All log messages before absl::InitializeLog() is called are written\\n')
os.write(2, b'I0000 00:00:1.2  7 port.cc:153] oneDNN custom operations are on.\\n')
os.write(2, b'E0000 00:00:1.2  7 cuda_dnn.cc:1] Unable to register cuDNN factory: again\\n')
os.write(2, b'E0000 00:00:1.2  7 driver.cc:9] the driver is too old\\n')
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / 'example.py').write_text(SCRIPT)
    return tmp_path


def run(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, 'example.py', *options],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ('option', 'code', 'expected'),
    [
        ('--help', 0, 'Example:\n    python example.py --count=5'),
        ('--count=0', 1, 'example.py: error: --count=0: expected a whole number from 1'),
        ('--counts=1', 1, 'example.py: error: --counts: no such flag; did you mean --count?'),
        ('five', 1, "example.py: error: unexpected argument 'five'"),
    ],
)
def test_flags_are_answered_before_tensorflow(
    folder: Path, option: str, code: int, expected: str
) -> None:
    (folder / 'tensorflow.py').write_text('raise SystemExit("TensorFlow was imported")')
    result = run(folder, option)
    assert result.returncode == code
    assert (result.stdout + result.stderr).startswith(expected)
    assert 'imported' not in result.stdout + result.stderr


def test_notes_of_tensorflow_are_held_back_and_errors_are_not(folder: Path) -> None:
    (folder / 'tensorflow.py').write_text(FAKE_TENSORFLOW)
    result = run(folder, '--count=7', TF_CPP_MIN_LOG_LEVEL='3')
    assert result.stdout == 'imported\ncount 7\n'
    assert result.stderr == 'E0000 00:00:1.2  7 driver.cc:9] the driver is too old\n'


def test_without_temporary_files_the_notes_are_shown(folder: Path) -> None:
    (folder / 'tensorflow.py').write_text(FAKE_TENSORFLOW)
    (folder / 'sitecustomize.py').write_text(
        'import tempfile\ndef fail():\n    raise FileNotFoundError(2, "no folder")\n'
        'tempfile.TemporaryFile = fail'
    )
    result = run(folder, PYTHONPATH=f'{REPOSITORY}{os.pathsep}{folder}')
    assert result.stdout == 'imported\ncount 3\n'
    assert len(result.stderr.splitlines()) == 4


def test_memory_of_gpus_grows_unless_the_user_says_otherwise(folder: Path) -> None:
    (folder / 'tensorflow.py').write_text(
        'import os\nprint(os.environ["TF_FORCE_GPU_ALLOW_GROWTH"])'
    )
    assert run(folder).stdout.startswith('true\n')
    assert run(folder, TF_FORCE_GPU_ALLOW_GROWTH='false').stdout.startswith('false\n')


def test_notes_are_shown_to_who_asks(folder: Path) -> None:
    (folder / 'tensorflow.py').write_text(FAKE_TENSORFLOW)
    assert len(run(folder, TF_CPP_MIN_LOG_LEVEL='0').stderr.splitlines()) == 4


def test_a_failing_import_is_shown(folder: Path) -> None:
    (folder / 'tensorflow.py').write_text(
        'import os\nos.write(2, b"no such library\\n")\nimport missing_part'
    )
    result = run(folder)
    assert result.returncode == 1
    assert result.stderr.startswith('no such library\n')
    assert "No module named 'missing_part'" in result.stderr


def test_a_missing_tensorflow_is_one_line(folder: Path) -> None:
    (folder / 'tensorflow.py').write_text('raise ModuleNotFoundError("x", name="tensorflow")')
    result = run(folder)
    assert (result.returncode, result.stdout) == (1, '')
    assert result.stderr.splitlines() == [
        'example.py: error: TensorFlow is not installed: python -m pip install -r requirements.txt'
    ]


def test_an_interrupted_import_is_one_line(folder: Path) -> None:
    (folder / 'tensorflow.py').write_text(
        'print("waiting", flush=True)\nimport time\ntime.sleep(60)'
    )
    process = subprocess.Popen(
        [sys.executable, 'example.py'],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == 'waiting\n'
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, '\nexample.py: interrupted\n')


def test_an_interruption_after_it_is_one_line(folder: Path) -> None:
    (folder / 'tensorflow.py').write_text('')
    text = SCRIPT.replace("print('imported', flush=True)", 'raise KeyboardInterrupt')
    (folder / 'example.py').write_text(text)
    result = run(folder)
    assert result.returncode == -signal.SIGINT
    assert result.stderr == '\nexample.py: interrupted\n'


def test_nothing_happens_where_a_script_is_imported(folder: Path) -> None:
    (folder / 'tensorflow.py').write_text('raise SystemExit("TensorFlow was imported")')
    result = subprocess.run(
        [sys.executable, '-c', 'import example', '--count=0'],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, 'imported\n', '')
