"""The beginning of a run: folders in which none is begun."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import cifar10
from cifar10_lib.base.errors import UserError
from cifar10_lib.runs.checkpoints import CheckpointFolder
from cifar10_lib.training.begin import begin
from cifar10_lib.training.hooks import CheckpointHook
from tests.helpers.runs import settings_for, train
from tests.helpers.samples import unix

FILES = {
    'metadata.json': 'an exported network',
    'batches.meta.txt': 'a data set',
    'data_batch_1.bin': 'a data set',
    'history.jsonl': 'the history of evaluations',
}


def begin_in(folder: Path, data_dir: Path) -> None:
    settings = settings_for(data_dir, folder)
    with begin(settings, cifar10.NETWORKS[settings.model], settings.batch_size):
        pass


@pytest.mark.parametrize('name', FILES)
def test_no_run_is_begun_beside_the_files_of_another_kind(
    synthetic_data: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text('{"step": 1}\n')
    with pytest.raises(UserError, match=f'^--train_dir=.*: holds {FILES[name]}; expected'):
        begin_in(tmp_path, synthetic_data)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize('below', ['', 'synthetic-batches-bin'])
def test_no_run_is_begun_in_the_folder_of_its_data(
    synthetic_data: Path, tmp_path: Path, below: str
) -> None:
    data_dir = tmp_path / 'data'
    shutil.copytree(synthetic_data, data_dir)
    with pytest.raises(UserError, match=r'^--train_dir=.*: holds a data set; expected'):
        begin_in(data_dir / below, data_dir)


def test_a_run_is_begun_beside_files_of_no_known_kind(synthetic_data: Path, tmp_path: Path) -> None:
    (tmp_path / 'notes.txt').write_text('a run of mine\n')
    begin_in(tmp_path, synthetic_data)
    assert (tmp_path / 'settings.json').exists() and (tmp_path / 'notes.txt').exists()
    # What a run may keep beside its settings.
    (tmp_path / 'history.jsonl').write_text('{"step": 0}\n')
    begin_in(tmp_path, synthetic_data)


@unix
@pytest.mark.slow
def test_names_that_are_not_utf_8_are_those_of_any_folder(
    synthetic_data: Path, tmp_path: Path
) -> None:
    data_dir, run = tmp_path / os.fsdecode(b'data\xff'), tmp_path / os.fsdecode(b'run\xff')
    shutil.copytree(synthetic_data, data_dir)
    for step in (1, 2):
        train(data_dir, run, max_steps=step, eval_every=1)
        assert CheckpointFolder(str(run)).require_newest('--train_dir').step == step
    assert list(run.glob('events.out.tfevents.*'))


@unix
@pytest.mark.slow
def test_a_working_directory_that_goes_away_ends_no_run(
    synthetic_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / 'here'
    here.mkdir()
    begin_training = CheckpointHook.begin

    def remove_and_begin(self: CheckpointHook) -> None:
        here.rmdir()
        begin_training(self)

    with monkeypatch.context() as patch:
        patch.chdir(here)
        patch.setattr(CheckpointHook, 'begin', remove_and_begin)
        train(synthetic_data, Path('../run'), max_steps=3, eval_every=2)
    assert CheckpointFolder(str(tmp_path / 'run')).require_newest('--train_dir').step == 3
