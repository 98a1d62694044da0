"""The harness of faults: its parsing, its words, and what it sees of programs known to it."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from benchmarks.faults import __main__ as faults
from benchmarks.faults import trials
from benchmarks.faults.programs import (
    MAX_STEPS,
    NUM_IMAGES,
    PROGRAMS,
    Checkpoints,
    KerasBackup,
    NotRun,
    Program,
    Saved,
    Tensors,
)
from benchmarks.faults.runs import (
    Mount,
    Process,
    Run,
    ending,
    ending_and_step,
    kept_full,
    parse_step,
    small_disk,
)
from benchmarks.faults.trials import Baseline, Trial, compare, describe_weights, measure_baseline
from benchmarks.flags import parse_names
from benchmarks.peers import monitored_session_train
from cifar10_lib.base.errors import UserError
from cifar10_lib.data.synthetic import generate_synthetic

# --------------------------------------------------------------------------- runs


@pytest.mark.parametrize(
    ('line', 'step'),
    [
        ('step 20 loss 4.5', 20),
        ('2026-11-22 02:30:08.79: step 100, loss = nan (3384.8 examples/sec; 0.038 sec)', 100),
        ('Going on from train/model.ckpt-7 at step 7', None),
        ('train.py: error: the loss of step 32 is not finite', None),
    ],
)
def test_parse_step(line: str, step: int | None) -> None:
    assert parse_step(line) == step


def test_steps_of_a_run() -> None:
    run = Run(0, 'Settings: a=1\nstep 8 loss 1.5\nnoise\nstep 9 loss 1.5\n')
    assert (run.steps, run.last) == ([8, 9], 9)
    assert (Run(1, 'no').steps, Run(1, 'no').last) == ([], 0)


TRACEBACK = 'Traceback (most recent call last):\n  File "x"\nValueError: x\n'


@pytest.mark.parametrize(
    ('run', 'words'),
    [
        (Run(0, 'train.py: error: no, this one got over it\n'), 'exit 0'),
        (Run(1, 'a\ntrain.py: error: it is full\n'), 'one-line error, exit 1'),
        (Run(1, f'train.py: error: it is full\n{TRACEBACK}'), 'traceback, exit 1'),
        (Run(2, 'usage'), 'exit 2'),
        (Run(-15, ''), 'killed by SIGTERM'),
        (Run(-2, TRACEBACK), 'traceback, killed by SIGINT'),
        (Run(-9, '', hung=True), 'hung'),
    ],
)
def test_ending(run: Run, words: str) -> None:
    assert ending(run) == words


def test_ending_and_step() -> None:
    assert ending_and_step(Run(1, 'step 4 loss 1\n')) == 'exit 1 after step 4'
    assert ending_and_step(Run(1, '')) == 'exit 1 at once'


def _process(tmp_path: Path, script: str, limit: float = 20) -> Process:
    command = [sys.executable, '-u', '-c', textwrap.dedent(script)]
    return Process(command, dict(os.environ), tmp_path / 'log', limit)


def test_process_is_read_and_gets_ctrl_c_also_where_the_shell_ignores_it(tmp_path: Path) -> None:
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        script = """
            import time
            for step in range(1, 4):
                print(f'step {step} loss 1')
            time.sleep(60)
        """
        with _process(tmp_path, script) as process:
            assert process.read_to(3)
            process.send(signal.SIGINT)
            run = process.finish()
    finally:
        signal.signal(signal.SIGINT, handler)
    assert (run.code, run.last, run.hung) == (-signal.SIGINT, 3, False)
    assert 'KeyboardInterrupt' in (tmp_path / 'log').read_text()


def test_process_that_ends_before_the_step(tmp_path: Path) -> None:
    with _process(tmp_path, "print('step 1 loss 1'); raise SystemExit(3)") as process:
        assert not process.read_to(2)
        run = process.finish()
    assert (run.code, run.steps) == (3, [1])


def test_process_that_hangs_is_ended(tmp_path: Path) -> None:
    with _process(tmp_path, 'import time; time.sleep(60)', limit=0.5) as process:
        assert ending(process.finish()) == 'hung'


def test_frozen_process_does_nothing(tmp_path: Path) -> None:
    script = """
        print('step 1 loss 1')
        while True:
            pass
    """
    with _process(tmp_path, script) as process:
        process.read_to(1)
        state = Path(f'/proc/{process._process.pid}/stat')
        with process.frozen():
            assert state.read_text().rpartition(')')[2].split()[0] == 'T'
        assert state.read_text().rpartition(')')[2].split()[0] == 'R'


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Mount, Path]]:
    """A small disk, and its folder seen from here."""
    try:
        with small_disk(tmp_path, megabytes=1) as mount:
            yield mount, mount.root / tmp_path.relative_to('/')
    except NotRun as reason:
        pytest.skip(str(reason))


def test_small_disk_is_seen_by_its_own_processes_alone(
    disk: tuple[Mount, Path], tmp_path: Path
) -> None:
    mount, seen_from_here = disk
    mount.call('touch', str(tmp_path / 'file'))
    assert (seen_from_here / 'file').exists()
    assert not (tmp_path / 'file').exists()
    with pytest.raises(NotRun, match='^false: '):
        mount.call('false')


def test_disk_kept_full_takes_what_is_freed(disk: tuple[Mount, Path]) -> None:
    _, folder = disk
    (folder / 'old').write_bytes(bytes(100_000))
    with kept_full(folder):
        (folder / 'old').unlink()
        with pytest.raises(OSError, match='No space left'):
            while True:
                (folder / 'new').write_bytes(bytes(300_000))
    (folder / 'new').write_bytes(bytes(300_000))


# -------------------------------------------------------------------------- words


TENSORS = {'weights': np.ones([2, 3], np.float32), 'step': np.array(5)}


@pytest.mark.parametrize(
    ('found', 'words'),
    [
        (TENSORS, 'weights bit-identical'),
        ({**TENSORS, 'weights': np.full([2, 3], 1 + 1e-6, np.float32)}, 'weights close'),
        ({**TENSORS, 'weights': np.full([2, 3], 1.1, np.float32)}, 'other weights'),
        ({**TENSORS, 'weights': np.ones([2, 4], np.float32)}, 'other weights'),
        ({**TENSORS, 'weights': np.full([2, 3], np.inf, np.float32)}, 'weights not finite'),
        ({'weights': TENSORS['weights']}, 'other weights'),
        (None, 'nothing readable saved'),
    ],
)
def test_compare(found: Tensors | None, words: str) -> None:
    assert compare(found, TENSORS) == words


def test_damage_is_told_from_what_every_restart_changes() -> None:
    after = {**TENSORS, 'weights': np.full([2, 3], 2, np.float32)}
    odd = {**TENSORS, 'weights': np.full([2, 3], 3, np.float32)}
    baseline = Baseline(TENSORS, Path(), 34, 30, after)

    def words(found: Tensors, start: int) -> str:
        return describe_weights(found, baseline, start, damaged=True)

    assert words(TENSORS, 30) == 'weights bit-identical'
    assert words(after, 30) == 'weights as without the damage'
    assert words(odd, 30) == 'other weights: trained on the damage silently'
    assert words(odd, 20) == 'other weights'
    assert describe_weights(odd, baseline, 30) == 'other weights'


def test_start_and_end() -> None:
    assert trials.describe_start(30, 34) == 'resumed from step 30 of 34'
    assert trials.describe_start(0, 34) == 'started again from 0 of 34'
    assert trials.describe_start(None, 34) == 'took no step'
    assert trials.describe_end(MAX_STEPS) == ''
    assert trials.describe_end(90) == f', ended at step 90 instead of {MAX_STEPS}'


def test_chosen_names() -> None:
    assert parse_names('all', ['a', 'b'], 'faults') == ['a', 'b']
    assert parse_names('b', ['a', 'b'], 'faults') == ['b']
    with pytest.raises(UserError, match="--faults: found 'c'; expected a, b; or all"):
        parse_names('b,c', ['a', 'b'], 'faults')


def test_report() -> None:
    columns = {'session': {'sigkill': 'x', 'sigint': 'y'}, 'keras': {'sigkill': 'z', 'sigint': '0'}}
    assert faults.report(columns).splitlines() == [
        '### SIGKILL',
        '',
        '- MonitoredTrainingSession: x',
        '- Keras BackupAndRestore: z',
        '',
        '### Ctrl-C',
        '',
        '- MonitoredTrainingSession: y',
        '- Keras BackupAndRestore: 0',
    ]


# -------------------------------------------------------------------------- files


def test_changes_to_a_training_file(tmp_path: Path) -> None:
    path = tmp_path / 'data_batch_1.bin'
    complete = bytes(6 * 3073)

    def changed(change: faults.Change) -> bytes:
        path.write_bytes(complete)
        change(path)
        return path.read_bytes()

    assert changed(faults.cut_in_half) == complete[: 3 * 3073 + 1]
    assert changed(faults.empty) == b''
    noise = changed(faults.fill_with_noise)
    assert len(noise) == len(complete) and len(set(noise)) == 256
    labelled = changed(faults.set_wrong_label)
    assert [i for i, byte in enumerate(labelled) if byte] == [3 * 3073]
    assert labelled[3 * 3073] == faults.WRONG_LABEL
    flipped = changed(faults.flip_byte)
    assert [(i, byte) for i, byte in enumerate(flipped) if byte] == [(4611, 255)]


def test_last_layer_of_twice_as_many_classes() -> None:
    assert faults.double_classes(np.zeros([192, 10])).shape == (192, 20)
    assert faults.double_classes(np.zeros([10])).shape == (20,)
    assert faults.double_classes(np.zeros([10, 192])).shape == (10, 192)
    assert faults.double_classes(np.array(10)).shape == ()


def test_checkpoints_are_found_read_and_rewritten(tmp_path: Path) -> None:
    store = Checkpoints()
    assert store.saved(tmp_path) is None
    with tf.Graph().as_default(), tf.Session() as session:
        weights = tf.get_variable('a/weights', initializer=tf.ones([192, 10]))
        session.run(weights.initializer)
        saver = tf.train.Saver()
        for step in (9, 10):
            saver.save(session, str(tmp_path / 'model.ckpt'), global_step=step)
    saved = store.saved(tmp_path)
    assert saved is not None
    assert saved.index == tmp_path / 'model.ckpt-10.index'
    assert saved.data.exists() and saved.state.exists()
    store.rewrite(tmp_path, faults.double_classes)
    tensors = store.tensors(tmp_path)
    assert {name: value.shape for name, value in tensors.items()} == {'a/weights': (192, 20)}


def test_keras_backup_is_found_read_and_rewritten(tmp_path: Path) -> None:
    store = KerasBackup()
    with h5py.File(tmp_path / 'final.weights.h5', 'w') as file:
        file['layers/dense/vars/0'] = np.zeros([3])
    assert store.saved(tmp_path) is None
    assert store.tensors(tmp_path).keys() == {'layers/dense/vars/0'}
    (tmp_path / 'backup').mkdir()
    with h5py.File(tmp_path / 'backup' / 'latest.weights.h5', 'w') as file:
        file['layers/dense/vars/0'] = np.ones([192, 10])
    store.rewrite(tmp_path, faults.double_classes)
    assert store.tensors(tmp_path)['layers/dense/vars/0'].shape == (192, 20)


# ------------------------------------------------------------------------- trials

# Trains one weight, which counts the steps. Its saved state has no checksum, and it takes
# no heed of signals or of what becomes of its folder.
TRAINER = """
    import json, pathlib, sys, time
    (folder,) = (pathlib.Path(a[12:]) for a in sys.argv if a.startswith('--train_dir='))
    folder.mkdir(exist_ok=True)
    path = folder / 'state.json'
    step, weight = json.loads(path.read_text()) if path.exists() else (0, 0)
    while step < 80:
        step, weight = step + 1, weight + 1
        time.sleep(0.05 if 34 < step < 38 else 0.002)
        if step % 10 == 0:
            path.with_suffix('.new').write_text(json.dumps([step, weight]))
            path.with_suffix('.new').rename(path)
        print('step', step, 'loss 1', flush=True)
"""


class _JsonStore:
    """What TRAINER saves."""

    def saved(self, train_dir: Path) -> Saved | None:
        path = train_dir / 'state.json'
        return Saved(path, path, path) if path.exists() else None

    def tensors(self, train_dir: Path) -> Tensors:
        text = (train_dir / 'state.json').read_text()
        return {'step_and_weight': np.array([int(part) for part in text.strip('[]').split(',')])}

    def rewrite(self, train_dir: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
        value = change(self.tensors(train_dir)['step_and_weight'])
        (train_dir / 'state.json').write_text(json.dumps(value.tolist()))


KNOWN = Program('known', [sys.executable, '-c', textwrap.dedent(TRAINER)], _JsonStore())


@pytest.fixture(scope='session')
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp('drawn') / 'data'
    generate_synthetic(str(directory), NUM_IMAGES, num_test=50)
    return directory


@pytest.fixture(scope='session')
def known_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('known')


@pytest.fixture(scope='session')
def known_baseline(known_folder: Path, drawn: Path) -> Baseline:
    return measure_baseline(KNOWN, known_folder, drawn)


@pytest.fixture
def known(known_folder: Path, drawn: Path, known_baseline: Baseline) -> Trial:
    """After the baseline, which is taken in the same folder."""
    return Trial(KNOWN, known_folder, drawn, 'test')


def test_signals_lose_the_steps_since_the_last_save(known: Trial, known_baseline: Baseline) -> None:
    seen = faults.signal_in_training(signal.SIGTERM, known, known_baseline)
    assert re.fullmatch(
        r'killed by SIGTERM after step (3\d); then: resumed from step 30 of \1, '
        'weights bit-identical',
        seen,
    )


def _tamper(path: Path) -> None:
    path.write_text('[30, 999]')


def test_damage_is_seen_to_be_trained_on(known: Trial, known_baseline: Baseline) -> None:
    seen = faults.saved_file_changed('data', _tamper, known, known_baseline)
    assert seen == ('resumed from step 30 of 34, other weights: trained on the damage silently')


def test_files_that_stop_every_start(known: Trial, known_baseline: Baseline) -> None:
    seen = faults.saved_file_changed('data', faults.cut_in_half, known, known_baseline)
    assert seen == 'traceback, exit 1, at every start'


def test_deleted_files_lose_all(known: Trial, known_baseline: Baseline) -> None:
    seen = faults.saved_file_changed('data', os.remove, known, known_baseline)
    assert seen == f'started again from 0 of {known_baseline.last}, weights bit-identical'


def test_folder_removed(known: Trial, known_baseline: Baseline) -> None:
    assert faults.folder_removed(known, known_baseline) == (
        'traceback, exit 1 after step 39; then: started again from 0 of 39, weights bit-identical'
    )


def test_two_trainers(known: Trial, known_baseline: Baseline) -> None:
    assert faults.two_trainers(known, known_baseline) == (
        'first: exit 0 after step 80, from 0; second: exit 0 after step 80, from 30; '
        'weights bit-identical'
    )


@pytest.mark.parametrize('fault', ['full_disk', 'read_only'])
def test_disks(known: Trial, known_baseline: Baseline, fault: str) -> None:
    seen = faults.cell(fault, known, known_baseline)
    if seen.startswith('not run: unshare'):
        pytest.skip(seen)
    assert seen.startswith('traceback, exit 1 after step 39; then, ')
    assert seen.endswith('resumed from step 30 of 39, weights bit-identical')


def test_program_that_does_not_train_is_an_error(tmp_path: Path, drawn: Path) -> None:
    broken = Program('broken', [sys.executable, '-c', '1 / 0'], _JsonStore())
    with pytest.raises(UserError, match='(?s)broken: traceback, exit 1: .*ZeroDivisionError'):
        measure_baseline(broken, tmp_path, drawn)


# ------------------------------------------------------------------ real programs


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('project', 'one-line error, exit 1 at once'),
        ('keras', 'traceback, exit 1 '),
    ],
)
def test_real_programs_on_a_wrong_label(
    name: str, words: str, tmp_path: Path, drawn: Path, known_baseline: Baseline
) -> None:
    trial = Trial(PROGRAMS[name], tmp_path, drawn, 'wrong_label')
    assert faults.cell('wrong_label', trial, known_baseline).startswith(words)


def test_session_peer_saves_and_resumes(
    tmp_path: Path, drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(max_steps: int) -> list[int]:
        options = monitored_session_train.peer_parser('').parse_args(
            [
                f'--data_dir={drawn}',
                f'--train_dir={tmp_path}',
                f'--max_steps={max_steps}',
                '--batch_size=2',
                '--save_checkpoint_steps=2',
            ]
        )
        options.stop_on_nan = False
        with tf.Graph().as_default():
            monitored_session_train.train(options)
        return Run(0, capsys.readouterr().out).steps

    assert train(3) == [1, 2, 3]
    assert sorted(path.stem for path in tmp_path.glob('*.index')) == [
        f'model.ckpt-{step}' for step in (0, 2, 3)
    ]
    assert train(4) == [4]
