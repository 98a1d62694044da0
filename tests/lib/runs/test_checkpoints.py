"""What a checkpoint holds, and how it becomes the graph's values."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10
from cifar10_lib.base.errors import UserError
from cifar10_lib.runs import checkpoints
from cifar10_lib.runs.checkpoints import CheckpointFolder, Start, open_checkpoint
from tests.helpers.runs import save

# Arrays and NumPy scalars.
Values = dict[str, Any]


def build_graph(num_classes: int = 10) -> dict[str, tf.Variable]:
    """A training graph; its variables by name."""
    images = tf.placeholder(tf.float32, [None, 24, 24, 3])
    labels = tf.placeholder(tf.int32, [None])
    logits = cifar10.inference(images, cifar10.Options(num_classes))
    cifar10.train(cifar10.loss(logits, labels), tf.train.get_or_create_global_step())
    return {v.op.name: v for v in tf.global_variables()}


def write_checkpoint(
    directory: Path,
    values: Values,
    step: int = 1000,
    version: int = tf.train.SaverDef.V2,
) -> str:
    """A checkpoint of `values`, as a program that knows nothing of this one writes it."""
    with tf.Graph().as_default():
        for name, value in values.items():
            tf.get_variable(name, initializer=value, use_resource=False)
        saver = tf.train.Saver(write_version=version)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            return saver.save(session, str(directory / 'model.ckpt'), global_step=step)


def tutorial_values(averages: bool = True) -> Values:
    """Random values under the tutorial's names, loss averages included."""
    rng = np.random.default_rng(0)
    with tf.Graph().as_default():
        build_graph()
        shapes = {v.op.name: v.shape.as_list() for v in tf.trainable_variables()}
    values = {}
    for name, shape in shapes.items():
        values[name] = rng.standard_normal(shape).astype(np.float32)
        if averages:
            average = rng.standard_normal(shape).astype(np.float32)
            values[f'{name}/ExponentialMovingAverage'] = average
    return {**values, 'cross_entropy/avg': np.float32(2), 'total_loss/avg': np.float32(3)}


def restored(checkpoint: str, **kwargs: int) -> Values:
    """Values of a training graph's variables that begins from `checkpoint`."""
    with tf.Graph().as_default():
        variables = build_graph(**kwargs)
        values = checkpoints.first_values(open_checkpoint(checkpoint))
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            checkpoints.assign(session, values)
            return session.run(variables)


def find_start(directory: Path) -> Start:
    return checkpoints.find_start(CheckpointFolder(str(directory)))


def test_no_checkpoint_starts_at_zero(tmp_path: Path) -> None:
    assert find_start(tmp_path) == Start(None, 0, 0)
    assert find_start(tmp_path / 'missing') == Start(None, 0, 0)


def test_counters_are_read(tmp_path: Path) -> None:
    counters = {'global_step': np.int64(70), 'examples_seen': np.int64(7000)}
    checkpoint = write_checkpoint(tmp_path, counters, step=70)
    assert find_start(tmp_path) == Start(checkpoint, 70, 7000)


@pytest.mark.parametrize('version', [tf.train.SaverDef.V1, tf.train.SaverDef.V2])
@pytest.mark.parametrize(
    'counter',
    [
        {'global_step': np.int64(1000)},
        {'global_step': np.float32(1000)},
        {'Variable': np.int32(1000)},
    ],
    ids=['2017', 'multi-gpu', '2015'],
)
def test_the_tutorials_checkpoints_open_unchanged(
    tmp_path: Path, counter: Values, version: int
) -> None:
    values = tutorial_values()
    checkpoint = write_checkpoint(tmp_path, {**values, **counter}, version=version)

    assert find_start(tmp_path) == Start(checkpoint, 1000, 128_000)
    assert open_checkpoint(checkpoint).holds_averages
    state = restored(checkpoint)
    for name, value in values.items():
        if name in state:
            np.testing.assert_array_equal(state[name], value)
    assert sum(name in state for name in values) == 20


def test_missing_averages_start_from_the_weights(tmp_path: Path) -> None:
    values = tutorial_values(averages=False)
    checkpoint = write_checkpoint(tmp_path, values)
    assert not open_checkpoint(checkpoint).holds_averages
    state = restored(checkpoint)
    for name in weight_names(values):
        np.testing.assert_array_equal(state[f'{name}/ExponentialMovingAverage'], values[name])


def weight_names(values: Values) -> list[str]:
    return [name for name in values if name.endswith(('/weights', '/biases'))]


def test_another_network_is_an_error_that_lists_all_that_differs(tmp_path: Path) -> None:
    values = tutorial_values()
    del values['conv1/biases']
    checkpoint = write_checkpoint(tmp_path, values)
    with pytest.raises(UserError) as error:
        restored(checkpoint, num_classes=100)
    assert str(error.value) == (
        f'{checkpoint}: not of this network: conv1/biases: missing, expected [64]; '
        'softmax_linear/biases: found [10], expected [100]; '
        'softmax_linear/weights: found [192, 10], expected [192, 100]'
    )


def test_step_comes_from_the_name_if_need_be(tmp_path: Path) -> None:
    values = {'conv1/biases': np.zeros(64, np.float32)}
    assert open_checkpoint(write_checkpoint(tmp_path, values, step=31)).step == 31
    with tf.Graph().as_default():
        tf.get_variable('conv1/biases', [64])
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            unnumbered = tf.train.Saver().save(session, str(tmp_path / 'final'))
    with pytest.raises(UserError, match='final: holds no global_step'):
        _ = open_checkpoint(unnumbered).step


# ------------------------------------------------------------------------- a name

# Patterns to TensorFlow, all but the last of which match the folder `star` as well.
PATTERNS = ('st*r', 'st?r', 's[t]ar', 'st\\ar', 'st[1]r', os.fsdecode(b'st\xffr'), 'a, b ~')


@pytest.mark.parametrize('name', PATTERNS)
def test_a_folder_with_a_pattern_for_a_name_is_that_folder_alone(tmp_path: Path, name: str) -> None:
    other, own = tmp_path / 'star', tmp_path / name
    other.mkdir()
    own.mkdir()
    save(other, [1, 2, 3])
    before = names(other)
    folder = CheckpointFolder(str(own), max_to_keep=1)
    assert folder.newest() is None
    for step in (7, 8):
        save(own, [step], max_to_keep=1)
    assert names(other) == before and folder.names() == ['model.ckpt-8']
    newest = folder.newest()
    assert newest and (newest.path, newest.step) == (str(own / 'model.ckpt-8'), 8)
    np.testing.assert_array_equal(newest.values['weights'], np.full(1000, 8, np.float32))


def test_a_checkpoint_with_a_pattern_for_a_name_is_that_one_alone(tmp_path: Path) -> None:
    save(tmp_path, [1, 10])
    for file in tmp_path.glob('model.ckpt-1.*'):
        file.rename(str(file).replace('ckpt-1.', 'ckpt-1*.'))
    assert open_checkpoint(str(tmp_path / 'model.ckpt-1*')).values['global_step'] == 1
    with pytest.raises(UserError, match=r'model\.ckpt-\*: missing'):
        open_checkpoint(str(tmp_path / 'model.ckpt-*'))


def test_an_open_checkpoint_outlives_its_files(tmp_path: Path) -> None:
    save(tmp_path, [1])
    checkpoint = open_checkpoint(str(tmp_path / 'model.ckpt-1'))
    shutil.rmtree(tmp_path)
    assert checkpoint.step == 1 and checkpoint.values['weights'].sum() == 1000


@pytest.mark.parametrize('ending', ['', '.index', '.meta', '.data-00000-of-00001'])
def test_a_checkpoint_is_named_by_any_of_its_files(tmp_path: Path, ending: str) -> None:
    save(tmp_path, [1, 2])
    path = str(tmp_path / 'model.ckpt-1')
    assert checkpoints.find_named(path + ending, 'elsewhere') == path
    assert checkpoints.find_named(f'model.ckpt-1{ending}', str(tmp_path)) == path


def test_a_missing_checkpoint_is_an_error_that_names_those_there(tmp_path: Path) -> None:
    save(tmp_path, [2, 10])
    message = f'--checkpoint=ckpt-1: missing; {tmp_path} holds model.ckpt-2, model.ckpt-10'
    with pytest.raises(UserError, match=re.escape(message)):
        checkpoints.find_named('ckpt-1', str(tmp_path))


# ------------------------------------------------------------------------- a folder

STATE = 'checkpoint'


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def data_file(directory: Path, step: int) -> Path:
    return directory / f'model.ckpt-{step}.data-00000-of-00001'


def test_a_saved_checkpoint_is_the_newest_for_every_reader(tmp_path: Path) -> None:
    folder = save(tmp_path, [1, 2])
    newest = str(tmp_path / 'model.ckpt-2')
    assert folder.newest_complete() == newest
    assert tf.train.latest_checkpoint(str(tmp_path)) == newest
    assert open_checkpoint(newest).step == 2
    # The folder can be moved: its state file names no folder.
    moved = tmp_path.rename(tmp_path.with_name(f'{tmp_path.name}-moved'))
    assert tf.train.latest_checkpoint(str(moved)) == str(moved / 'model.ckpt-2')
    moved.rename(tmp_path)


def test_the_oldest_checkpoints_are_dropped(tmp_path: Path) -> None:
    save(tmp_path, [1, 2, 3])
    folder = save(tmp_path, [4], max_to_keep=2)
    assert {name.split('.')[1] for name in names(tmp_path) if '.' in name} == {'ckpt-3', 'ckpt-4'}
    state = tf.train.get_checkpoint_state(str(tmp_path))
    kept = [str(tmp_path / f'model.ckpt-{step}') for step in (3, 4)]
    assert list(state.all_model_checkpoint_paths) == kept
    assert folder.newest_complete() == kept[-1]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    # Further on, the index has bytes that mean nothing.
    content[len(content) // 8] ^= 1
    path.write_bytes(content)


DAMAGE = {
    'truncated data': lambda folder: os.truncate(data_file(folder, 3), 100),
    'flipped bit in data': lambda folder: flip(data_file(folder, 3)),
    'deleted shard': lambda folder: data_file(folder, 3).unlink(),
    'truncated index': lambda folder: os.truncate(folder / 'model.ckpt-3.index', 50),
    'flipped bit in index': lambda folder: flip(folder / 'model.ckpt-3.index'),
    'empty index': lambda folder: os.truncate(folder / 'model.ckpt-3.index', 0),
    'deleted index': lambda folder: (folder / 'model.ckpt-3.index').unlink(),
    'older data': lambda folder: shutil.copy(data_file(folder, 2), data_file(folder, 3)),
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_a_damaged_newest_checkpoint_is_passed_over_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    folder = save(tmp_path, [1, 2, 3])
    DAMAGE[damage](tmp_path)
    before = names(tmp_path)
    for _ in range(2):
        assert folder.newest_complete() == str(tmp_path / 'model.ckpt-2')
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith(f'Warning: {tmp_path}/model.ckpt-3: ')
    assert warning.endswith(f'; falling back to {tmp_path}/model.ckpt-2')
    assert names(tmp_path) == before


def test_a_damaged_checkpoint_is_never_dropped_and_never_counts(tmp_path: Path) -> None:
    save(tmp_path, [1, 2, 3])
    flip(data_file(tmp_path, 3))
    folder = CheckpointFolder(str(tmp_path), max_to_keep=2)
    assert folder.newest_complete() == str(tmp_path / 'model.ckpt-2')
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable('global_step', initializer=np.int64(4))
        session.run(tf.global_variables_initializer())
        folder.save(tf.train.Saver(), session, 4)
    state = tf.train.get_checkpoint_state(str(tmp_path))
    kept = [str(tmp_path / f'model.ckpt-{step}') for step in (2, 4)]
    assert list(state.all_model_checkpoint_paths) == kept
    assert data_file(tmp_path, 3).exists() and not data_file(tmp_path, 1).exists()


STATES = {
    'empty': b'',
    'binary': bytes(range(256)),
    'text': b'hello',
    'missing': b'model_checkpoint_path: "model.ckpt-9"',
    'elsewhere': b'model_checkpoint_path: "/nowhere/model.ckpt-3"',
}


@pytest.mark.parametrize('state', STATES)
def test_the_folder_tells_where_the_state_file_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], state: str
) -> None:
    folder = save(tmp_path, [9, 10])
    (tmp_path / 'model.ckpt-9.index').rename(tmp_path / 'model.ckpt-8.index')
    data_file(tmp_path, 9).rename(data_file(tmp_path, 8))
    (tmp_path / STATE).write_bytes(STATES[state])
    # As numbers: 10 is more than 9.
    assert folder.newest_complete() == str(tmp_path / 'model.ckpt-10')
    assert 'falling back to' in capsys.readouterr().err
    newest = save(tmp_path, [11], max_to_keep=2)
    assert newest.newest_complete() == str(tmp_path / 'model.ckpt-11')


def test_no_state_file_is_no_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save(tmp_path, [1, 2])
    (tmp_path / STATE).unlink()
    assert folder.newest_complete() == str(tmp_path / 'model.ckpt-2')
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize('state', [None, b''])
def test_no_complete_checkpoint_is_an_error_that_names_all(tmp_path: Path, state: bytes) -> None:
    folder = save(tmp_path, [1, 2])
    for step in (1, 2):
        flip(data_file(tmp_path, step))
    if state is not None:
        (tmp_path / STATE).write_bytes(state)
    before = names(tmp_path)
    with pytest.raises(UserError) as error:
        folder.newest_complete()
    message = str(error.value)
    assert message.startswith(f'{tmp_path} holds no complete checkpoint, and nothing was deleted: ')
    assert 'model.ckpt-1: not a readable' in message and 'model.ckpt-2: not a readable' in message
    assert ('checkpoint: does not name checkpoints' in message) == (state is not None)
    assert names(tmp_path) == before


def test_a_file_that_happens_to_end_in_a_number_is_no_checkpoint(tmp_path: Path) -> None:
    folder = save(tmp_path, [1])
    (tmp_path / 'events.out.tfevents.1795321463.host-5').write_text('')
    (tmp_path / STATE).unlink()
    assert folder.newest_complete() == str(tmp_path / 'model.ckpt-1')


@pytest.mark.parametrize('moment', ['write', 'sync', 'move data', 'move index', 'state', 'drop'])
def test_an_interrupted_save_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """As a crash: from that moment on nothing is done any more, not even cleaning up."""
    save(tmp_path, [1, 2])

    class Crash(BaseException):
        pass

    def crash(*arguments: object, **options: object) -> None:
        raise Crash

    replace = os.replace

    def crash_at_index(source: str, target: str) -> None:
        if source.endswith('.index'):
            raise Crash
        replace(source, target)

    where = {
        'write': (tf.train.Saver, 'save', crash),
        'sync': (checkpoints, 'sync', crash),
        'move data': (os, 'replace', crash),
        'move index': (os, 'replace', crash_at_index),
        'state': (checkpoints, 'replace_text', crash),
        'drop': (os, 'remove', crash),
    }
    with monkeypatch.context() as patch:
        patch.setattr(*where[moment])
        patch.setattr(CheckpointFolder, 'remove_unfinished', lambda folder: None)
        with pytest.raises(Crash):
            save(tmp_path, [3], max_to_keep=2)

    folder = CheckpointFolder(str(tmp_path))
    expected = 3 if moment == 'drop' else 2
    assert folder.newest_complete() == str(tmp_path / f'model.ckpt-{expected}')
    folder.remove_unfinished()
    save(tmp_path, [3, 4], max_to_keep=2)
    assert folder.newest_complete() == str(tmp_path / 'model.ckpt-4')
    assert 'unfinished' not in names(tmp_path)


def test_a_folder_that_is_gone_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='model.ckpt-1: cannot be written: No such file'):
        save(tmp_path / 'gone', [1])
    assert not (tmp_path / 'gone').exists()


def test_a_copy_is_as_good_as_the_original(tmp_path: Path) -> None:
    (tmp_path / 'from').mkdir()
    save(tmp_path / 'from', [1, 2])
    (tmp_path / 'to').mkdir()
    folder = CheckpointFolder(str(tmp_path / 'to'), max_to_keep=1)
    for step in (1, 2):
        copy = folder.add_copy(open_checkpoint(str(tmp_path / 'from' / f'model.ckpt-{step}')))
        newest = folder.newest()
        assert newest and (newest.path, newest.step) == (copy, step)
    assert not list((tmp_path / 'to').glob('model.ckpt-1*'))


def test_a_checkpoint_whose_files_are_gone_is_copied(tmp_path: Path) -> None:
    (tmp_path / 'from').mkdir()
    save(tmp_path / 'from', [1])
    checkpoint = open_checkpoint(str(tmp_path / 'from' / 'model.ckpt-1'))
    shutil.rmtree(tmp_path / 'from')
    (tmp_path / 'to').mkdir()
    copy = open_checkpoint(CheckpointFolder(str(tmp_path / 'to')).add_copy(checkpoint))
    assert copy.values.keys() == checkpoint.values.keys()
    np.testing.assert_array_equal(copy.values['weights'], checkpoint.values['weights'])
