"""The commands of README and docs, run one after another as the pages have them.

Each page has a folder of its own, which holds a small drawn data set in place of CIFAR-10, and the
pictures and files that the page calls the user's. What is too long is cut down by flags that are
appended: of a flag that is given twice the last counts.
"""

from __future__ import annotations

import glob
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cifar10_lib.data.synthetic import generate_synthetic
from tests.helpers.commands import PAGES, Command, read_commands
from tests.helpers.data_sets import digits_csv, idx_files, png, save, write_all
from tests.helpers.runs import save_network
from tests.helpers.scripts import REPOSITORY, script_environment

# First words of commands that are not run, and why. Benchmarks measure for minutes to hours; each
# has tests of its own on fewer steps.
NOT_RUN = {
    'make': 'makes an environment from a package index; its commands are run here one by one',
    'pip': 'needs a package index',
    'docker': 'needs a server from a registry',
    'curl': 'needs that server',
    'srun': 'needs Slurm',
    'TF_CONFIG': 'needs two machines',
    'benchmarks': 'measures for minutes to hours',
}

# What cuts a command down: for all trainers, and where the flag is given.
FEW_STEPS = ('--max_steps=2', '--batch_size=8')
SMALLER = {
    '--num_held_out': '--num_held_out=20',
    '--eval_every': '--eval_every=2',
    '--index': '--index=44',
    # Of the machine that has no GPUs.
    '--num_gpus': '--tower_device=cpu',
}

# They begin with a trained network.
OF_A_NETWORK = ('evaluation.md', 'pictures.md')


def reason_not_to_run(command: Command) -> str | None:
    program = command.program
    for name in (command.words[0], *command.environment, *program[1:2]):
        if name.partition('.')[0] in NOT_RUN:
            return NOT_RUN[name.partition('.')[0]]
    if '--onnx' in program:
        pytest.importorskip('tf2onnx')
        pytest.importorskip('onnxruntime')
    return None


RUN = {
    page.name: [each for each in read_commands(page) if not reason_not_to_run(each)]
    for page in PAGES
}


def shorten(program: list[str]) -> list[str]:
    """The arguments of a script, and the flags that cut them down."""
    given = [each for name, each in SMALLER.items() if any(w.startswith(name) for w in program)]
    if not program[0].endswith('train.py'):
        return [*program[1:], *given]
    # Without a folder of its own, from CIFAR-10's, which holds drawn images.
    drawn = (
        [] if any(word.startswith('--data_dir') for word in program) else ['--dataset=synthetic']
    )
    return [*program[1:], *FEW_STEPS, *drawn, *given]


def write_own_files(folder: Path) -> None:
    """What the pages name as the user's: pictures, in folders of classes, and digits."""
    generate_synthetic(str(folder / 'cifar10_data' / 'synthetic-batches-bin'), 200, 60)
    for name in ('my_pictures', 'SOURCE'):
        for label in range(2):
            save(folder / name / f'class {label}', label, range(8))
    image = png(np.random.default_rng(0).integers(0, 256, [40, 50, 3], dtype=np.uint8))
    write_all(folder, dict.fromkeys(('photo.jpg', 'more/a.png', 'others/b.png'), image))
    write_all(folder / 'mnist', idx_files())
    (folder / 'test.csv').write_bytes(digits_csv('test', labelled=False))


@pytest.mark.parametrize('name', [name for name, commands in RUN.items() if commands])
def test_the_commands_of_a_page_run_in_their_order(name: str, tmp_path: Path) -> None:
    write_own_files(tmp_path)
    (tmp_path / 'releases').symlink_to(REPOSITORY / 'releases')
    if name == 'README.md':
        shutil.copytree(tmp_path / 'others', tmp_path / 'pictures')
    if name in OF_A_NETWORK:
        data_dir = str(tmp_path / 'cifar10_data')
        save_network(tmp_path / 'cifar10_train', step=1000, dataset='synthetic', data_dir=data_dir)
        shutil.copytree(tmp_path / 'cifar10_train', tmp_path / 'runs' / 'first')
    for command in RUN[name]:
        # As a shell does where nothing is quoted.
        quoted = {word for word in command.program if f"'{word}'" in command.text}
        arguments = [
            path
            for word in shorten(command.program)
            for path in (sorted(glob.glob(word, root_dir=tmp_path)) if word not in quoted else [])
            or [word]
        ]
        result = subprocess.run(
            [sys.executable, str(REPOSITORY / command.program[0]), *arguments],
            cwd=tmp_path,
            env={**script_environment(), **command.environment},
            capture_output=True,
            text=True,
            timeout=300,
        )
        place = f'{command.page}:{command.line}: {shlex.join(arguments)}'
        assert result.returncode == 0, f'{place}\n{result.stdout}\n{result.stderr}'
        for word in arguments:
            if word.startswith(('--output=', '--report=')):
                assert os.path.exists(tmp_path / word.partition('=')[2]), place
    shutil.rmtree(tmp_path)


def test_every_script_is_run_by_a_page() -> None:
    run = {command.program[0] for commands in RUN.values() for command in commands}
    assert run == {path.name for path in REPOSITORY.glob('cifar10_*.py')} - {'cifar10_input.py'}
