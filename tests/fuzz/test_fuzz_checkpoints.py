"""Corrupted folders of checkpoints: each gives a clean checkpoint, or a clear error."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cifar10_lib.base.errors import UserError
from cifar10_lib.runs import checkpoints
from cifar10_lib.runs.checkpoints import CheckpointFolder
from tests.helpers.runs import save

# As in the other fuzz tests: set for a longer run, which is then a random one.
EXAMPLES = os.environ.get('CIFAR10_FUZZ_EXAMPLES')
FUZZ = settings(
    max_examples=int(EXAMPLES or 700),
    derandomize=EXAMPLES is None,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

STEPS = (5, 9, 10)
FILES = (
    'checkpoint',
    *(f'model.ckpt-{step}.index' for step in STEPS),
    *(f'model.ckpt-{step}.data-00000-of-00001' for step in STEPS),
)

Corruption = Callable[[Path], None]


def rewritten(change: Callable[[bytes], bytes]) -> Corruption:
    def corrupt(path: Path) -> None:
        if path.is_file():
            path.write_bytes(change(path.read_bytes()))

    return corrupt


def removed(path: Path) -> None:
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def replaced_by_folder(path: Path) -> None:
    removed(path)
    path.mkdir()


def replaced_by_dangling_link(path: Path) -> None:
    removed(path)
    path.symlink_to('nowhere')


def swapped_with(name: str) -> Corruption:
    def corrupt(path: Path) -> None:
        other = path.with_name(name)
        if path.is_file() and other.is_file():
            first, second = path.read_bytes(), other.read_bytes()
            path.write_bytes(second)
            other.write_bytes(first)

    return corrupt


def flipped(place: float, bit: int) -> Corruption:
    def flip(content: bytes) -> bytes:
        if not content:
            return content
        index = int(place * len(content))
        return content[:index] + bytes([content[index] ^ 1 << bit]) + content[index + 1 :]

    return rewritten(flip)


def cut(place: float) -> Corruption:
    return rewritten(lambda content: content[: int(place * len(content))])


def overwritten(place: float, new: bytes) -> Corruption:
    def overwrite(content: bytes) -> bytes:
        index = int(place * len(content))
        return content[:index] + new + content[index + len(new) :]

    return rewritten(overwrite)


def inserted(place: float, new: bytes) -> Corruption:
    def insert(content: bytes) -> bytes:
        index = int(place * len(content))
        return content[:index] + new + content[index:]

    return rewritten(insert)


places = st.floats(0, 1, exclude_max=True)
some_bytes = st.binary(min_size=1, max_size=100)
corruptions = st.one_of(
    st.builds(flipped, places, st.integers(0, 7)),
    st.builds(cut, places),
    st.builds(overwritten, places, some_bytes),
    st.builds(inserted, places, some_bytes),
    st.builds(swapped_with, st.sampled_from(FILES)),
    st.builds(lambda new: rewritten(lambda content: new), st.binary(max_size=100)),
    st.just(removed),
    st.just(replaced_by_folder),
    st.just(replaced_by_dangling_link),
)


@pytest.fixture(scope='module')
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three checkpoints, each of a thousand weights that equal its step."""
    directory = tmp_path_factory.mktemp('clean')
    save(directory, list(STEPS))
    for path in directory.glob('*.meta'):
        path.unlink()
    assert sorted(path.name for path in directory.iterdir()) == sorted(FILES)
    return directory


def contents(directory: Path) -> dict[str, bytes | None]:
    """What each file of the folder holds; None for what is no file."""
    return {
        path.name: path.read_bytes() if path.is_file() else None for path in directory.iterdir()
    }


def untouched_steps(directory: Path, clean: Path) -> list[int]:
    before, after = contents(clean), contents(directory)
    files = {step: [name for name in FILES if f'-{step}.' in name] for step in STEPS}
    return [step for step in STEPS if all(after.get(name) == before[name] for name in files[step])]


# Lengths in the index that ask for more memory than there is.
ENORMOUS = [
    ('model.ckpt-10.index', inserted(0.84375, b'\x80\x80\x80\x80_\x00')),
    ('model.ckpt-10.index', inserted(0.875, bytes(7))),
    ('model.ckpt-10.index', inserted(0.875, bytes(7))),
]


@FUZZ
@example(ENORMOUS)
@given(st.lists(st.tuples(st.sampled_from(FILES), corruptions), min_size=1, max_size=4))
def test_a_corrupted_folder_gives_a_clean_checkpoint_or_a_clear_error(
    clean: Path, corrupted: list[tuple[str, Corruption]]
) -> None:
    with tempfile.TemporaryDirectory() as parent:
        directory = Path(parent) / 'run'
        shutil.copytree(clean, directory)
        for name, corrupt in corrupted:
            corrupt(directory / name)
        before = contents(directory)
        untouched = untouched_steps(directory, clean)
        state_is_clean = before.get('checkpoint') == (clean / 'checkpoint').read_bytes()
        try:
            newest = CheckpointFolder(str(directory)).newest_complete()
        except UserError as error:
            assert str(error).startswith(f'{directory} holds no complete checkpoint')
            assert not untouched
        else:
            check_values(newest, untouched, state_is_clean)
        # Nothing is deleted or changed.
        assert contents(directory) == before


def check_values(newest: str | None, untouched: list[int], state_is_clean: bool) -> None:
    """The checkpoint is one of the clean ones, and none that is clean was passed over."""
    if newest is None:
        assert not untouched and not state_is_clean
        return
    values = checkpoints.open_checkpoint(newest).values
    step = values['global_step']
    np.testing.assert_array_equal(values['weights'], np.full(1000, step, np.float32))
    assert step in STEPS
    if untouched and state_is_clean:
        assert step >= max(untouched)
