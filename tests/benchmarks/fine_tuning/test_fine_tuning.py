"""The parts of data sets, the table and the figure of fine-tuning, and the released checkpoint."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fine_tuning import __main__ as fine_tuning
from benchmarks.fine_tuning.release import ReleaseSettings, release
from cifar10_lib.base.errors import UserError
from cifar10_lib.data.record_files import check_directory, read_class_names, read_labels
from cifar10_lib.evaluation import figures
from cifar10_lib.runs.run_folder import RunFolder
from tests.helpers.data_sets import write_own_set
from tests.helpers.runs import checkpoint_values, save_network
from tests.helpers.scripts import REPOSITORY

AVERAGE = '/ExponentialMovingAverage'


def test_a_part_has_so_many_images_of_each_class_and_all_test_images(tmp_path: Path) -> None:
    source = write_own_set(tmp_path / 'source', [0, 1, 2, 3] * 10, num_test=20)
    fine_tuning.write_part(str(source), str(tmp_path / 'part'), [1, 3], 4, seed=5)
    part = str(tmp_path / 'part')
    assert read_class_names(part) == ['class1', 'class3']
    assert check_directory(part, num_classes=2) == (8, 10)
    files = [os.path.join(part, name) for name in (*fine_tuning.TRAIN_FILES, 'test_batch.bin')]
    *training, test = [read_labels(file, fine_tuning.read_framing(part).record) for file in files]
    assert np.bincount(np.concatenate(training)).tolist() == [4, 4]
    assert np.bincount(test).tolist() == [5, 5]
    images = {
        record.tobytes()
        for record in np.fromfile(source / 'test_batch.bin', np.uint8).reshape(-1, 3073)[:, 1:]
    }
    assert {
        record.tobytes() for record in np.fromfile(files[-1], np.uint8).reshape(-1, 3073)[:, 1:]
    } <= images


def test_the_seed_chooses_the_images() -> None:
    labels = np.arange(1000) % 4
    first, again, other = (fine_tuning.choose(labels, [1, 2], 20, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert len(set(first)) == 40 and set(first) != set(other)


def test_table_and_figure_show_all_starts(tmp_path: Path) -> None:
    curves = {
        start: [[[50, 0.2], [100, 0.5 + number / 10]] for number in range(3)]
        for start in fine_tuning.STARTS
    }
    results = {'classes': curves, 'digits': curves}
    lines = fine_tuning.table(results).splitlines()
    assert len(lines) == 2 + 2 * len(fine_tuning.STARTS)
    assert all('0.600 (0.500 to 0.700)' in line for line in lines[2:])
    figures.write(fine_tuning.draw(results), str(tmp_path / 'figure.png'))
    assert (tmp_path / 'figure.png').stat().st_size > 10_000


# ---------------------------------------------------------------------- the release


def test_a_release_holds_the_averages_and_the_recipe_without_paths(tmp_path: Path) -> None:
    save_network(
        tmp_path / 'run',
        step=7,
        dataset='cifar10',
        data_dir=str(tmp_path),
        learning_rate=0.5,
        training_files_sha256='0',
    )
    before = checkpoint_values(tmp_path / 'run')
    release(ReleaseSettings(str(tmp_path / 'run'), output=str(tmp_path / 'released')))
    found = checkpoint_values(tmp_path / 'released')
    assert set(found) == {name for name in before if name.endswith(AVERAGE)}
    for name, value in found.items():
        np.testing.assert_array_equal(value, before[name])
    run = RunFolder.open(str(tmp_path / 'released'))
    assert run.recipe.learning_rate == 0.5 and run.dataset == 'cifar10'
    assert run.require_checkpoint().step == 7 and run.num_classes == 10
    assert str(tmp_path) not in (tmp_path / 'released' / 'settings.json').read_text()
    with pytest.raises(UserError, match='released'):
        release(ReleaseSettings(str(tmp_path / 'run'), output=str(tmp_path / 'released')))


def test_the_released_checkpoint_is_small_and_complete() -> None:
    folder = REPOSITORY / 'releases' / 'tutorial'
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5_000_000
    run = RunFolder.open(str(folder))
    checkpoint = run.require_checkpoint()
    weights = [value for name, value in checkpoint.values.items() if name.endswith(AVERAGE)]
    assert sum(value.size for value in weights) == 1_068_298
    assert (run.model, run.dataset, checkpoint.step) == ('tutorial', 'cifar10', 8000)
    assert '/' not in json.dumps(dict(run.settings))
