"""Each script as a user runs it, on drawn images: output, exit code, checkpoints."""

from __future__ import annotations

import dataclasses
import inspect
import re
import runpy
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10
import cifar10_eval
import cifar10_multi_gpu_train
from cifar10_eval import EvalSettings
from cifar10_lib.base import flags
from cifar10_lib.base.errors import UserError
from cifar10_lib.evaluation import evaluator as evaluator_module
from tests.helpers.scripts import REPOSITORY, Script, script_command, script_environment

TIME = r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}'
CONSOLE_LINE = (
    rf'{TIME}: step (\d+), loss = \d+\.\d\d '
    r'\(\d+\.\d examples/sec; \d+\.\d{3} sec/batch\)'
)
PRECISION_LINE = (
    rf'{TIME}: precision @ 1 = (\d\.\d{{3}}) \(step (\d+), (\d+) images\)'
    r' \[synthetic images, not CIFAR-10\]'
)


@pytest.fixture
def data_options(synthetic_data: Path) -> list[str]:
    return [f'--data_dir={synthetic_data}', '--dataset=synthetic']


def steps(output: str) -> list[int]:
    return [int(match[1]) for match in re.finditer(CONSOLE_LINE, output)]


def test_train_multi_gpu_and_eval_share_checkpoints(
    run_script: Script, data_options: list[str], tmp_path: Path
) -> None:
    options = [*data_options, '--log_frequency=2']

    first = run_script('cifar10_train.py', *options, '--max_steps=4', '--batch_size=8')
    assert first.returncode == 0, first.stderr
    assert steps(first.stdout) == [2, 4]

    towers = ['--num_gpus=2', '--tower_device=cpu', '--batch_size=4']
    second = run_script('cifar10_multi_gpu_train.py', *options, *towers, '--max_steps=7')
    assert second.returncode == 0, second.stderr
    assert 'Resuming from cifar10_train/model.ckpt-4 at step 4' in second.stdout
    assert steps(second.stdout) == [6]

    third = run_script('cifar10_train.py', *options, '--max_steps=9', '--batch_size=8')
    assert third.returncode == 0, third.stderr
    assert 'Resuming from cifar10_train/model.ckpt-7 at step 7' in third.stdout
    reader = tf.train.load_checkpoint(str(tmp_path / 'cifar10_train' / 'model.ckpt-9'))
    assert reader.get_tensor('examples_seen') == 72
    assert not any('tower' in name for name in reader.get_variable_to_shape_map())

    data_dir = data_options[0]
    result = run_script('cifar10_eval.py', data_dir, '--run_once', '--num_examples=60')
    assert result.returncode == 0, result.stderr
    line = re.fullmatch(PRECISION_LINE, result.stdout.strip())
    assert line and line[2] == '9' and line[3] == '60'
    (events,) = (tmp_path / 'cifar10_train' / 'eval').glob('events.out.tfevents.*')
    written = {
        (event.step, value.tag): value.simple_value
        for event in tf.train.summary_iterator(str(events))
        for value in event.summary.value
        if value.HasField('simple_value')
    }
    assert written == {(9, 'precision/test'): pytest.approx(float(line[1]), abs=5e-4)}


def test_two_towers_take_the_steps_of_one_device_with_the_whole_batch(
    run_script: Script, data_options: list[str], tmp_path: Path
) -> None:
    options = [*data_options, '--max_steps=5', '--log_frequency=5']
    one = run_script('cifar10_train.py', *options, '--train_dir=one', '--batch_size=12')
    towers = ['--num_gpus=2', '--tower_device=cpu', '--batch_size=6', '--train_dir=two']
    two = run_script('cifar10_multi_gpu_train.py', *options, *towers)

    losses = [re.findall(r'loss = (\d+\.\d+)', result.stdout) for result in (one, two)]
    assert len(losses[0]) == 1 and losses[0] == losses[1]
    readers = [
        tf.train.load_checkpoint(str(tmp_path / name / 'model.ckpt-5')) for name in ('one', 'two')
    ]
    names = readers[0].get_variable_to_shape_map()
    assert names == readers[1].get_variable_to_shape_map()
    for name in names:
        # The same sums in another order, through five steps.
        first, second = (reader.get_tensor(name) for reader in readers)
        np.testing.assert_allclose(second, first, atol=1e-4, err_msg=name)


def test_train_stops_at_sigterm_and_the_printed_command_resumes(
    data_options: list[str], tmp_path: Path
) -> None:
    command = script_command(
        'cifar10_train.py', *data_options, '--batch_size=8', '--log_frequency=1', '--max_steps=500'
    )
    with subprocess.Popen(
        command, cwd=tmp_path, env=script_environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if ': step 3,' in line:
                break
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
    assert process.returncode == 0
    stopped = re.search(r'Stopped by SIGTERM at step (\d+), saved in cifar10_train', rest)
    assert stopped and 3 <= int(stopped[1]) < 500
    assert (tmp_path / 'cifar10_train' / f'model.ckpt-{stopped[1]}.index').exists()

    go_on = re.search(r'To resume: (.*)', rest)
    assert go_on
    result = subprocess.run(
        f'{go_on[1]} --max_steps={int(stopped[1]) + 1}',
        shell=True,
        cwd=tmp_path,
        env=script_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert f'at step {stopped[1]}' in result.stdout
    assert f'Finished at step {int(stopped[1]) + 1}' in result.stdout


def test_eval_waits_for_checkpoints_and_scores_each_once(
    run_script: Script, data_options: list[str], tmp_path: Path
) -> None:
    command = script_command(
        'cifar10_eval.py', data_options[0], '--num_examples=60', '--eval_interval_secs=1'
    )
    with subprocess.Popen(
        command, cwd=tmp_path, env=script_environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = iter(process.stdout)
        assert 'waiting for a checkpoint in cifar10_train after none' in next(lines)
        scored: list[int] = []
        for max_steps in (1, 2):
            run_script(
                'cifar10_train.py', *data_options, f'--max_steps={max_steps}', '--batch_size=8'
            )
            # The evaluator may have come upon the checkpoint of step 0 before.
            while max_steps not in scored:
                found = next(line for line in lines if 'precision' in line)
                scored.append(int(found.split('(step ')[1].split(',')[0]))
                assert ', 60 images)' in found
            assert f'after model.ckpt-{max_steps}, looking every 1 seconds' in next(lines)
        # One look more: nothing is scored twice.
        assert 'waiting' in next(lines)
        assert scored == sorted(set(scored))
        process.send_signal(signal.SIGINT)
        process.stdout.read()
    assert process.returncode == 130


def test_eval_scores_each_image_once(synthetic_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A batch that does not divide the number of images.
    monkeypatch.setattr(evaluator_module, 'BATCH_SIZE', 25)
    directory = str(synthetic_data / 'synthetic-batches-bin')
    evaluator = evaluator_module.Evaluator(directory, cifar10.NETWORKS['tutorial'], 60)
    with evaluator.graph.as_default(), tf.Session() as session:
        session.run(tf.global_variables_initializer())
        hits, _, _ = evaluator._score_all(session)
        num_examples = hits.size
    assert num_examples == 60


@pytest.mark.parametrize('averages', [True, False])
def test_eval_restores_averages_or_warns(
    synthetic_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    averages: bool,
) -> None:
    """Biases of the last layer decide every guess: 5 by the averages, 3 by the weights."""
    monkeypatch.chdir(tmp_path)
    with tf.Graph().as_default():
        cifar10.inference(tf.zeros([1, 24, 24, 3]))
        weights = tf.trainable_variables()
        for variable in weights if averages else []:
            zeros = np.zeros(variable.shape.as_list(), np.float32)
            average = f'{variable.op.name}/ExponentialMovingAverage'
            value = 1000 * np.eye(10, dtype='f')[5] if variable.shape == [10] else zeros
            tf.get_variable(average, initializer=value, trainable=False)
        (bias,) = [v for v in weights if v.op.name == 'softmax_linear/biases']
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            session.run(tf.assign(bias, 1000 * np.eye(10, dtype='f')[3]))
            tf.train.Saver().save(session, str(tmp_path / 'model.ckpt'), global_step=7)
    test_file = synthetic_data / 'synthetic-batches-bin' / 'test_batch.bin'
    labels = np.fromfile(test_file, np.uint8).reshape(-1, 3073)[:, 0]
    settings = EvalSettings(
        data_dir=str(synthetic_data),
        dataset='synthetic',
        checkpoint_dir='.',
        run_once=True,
        num_examples=50,
    )

    cifar10_eval.evaluate(settings)
    expected = (labels[:50] == (5 if averages else 3)).mean()
    printed = capsys.readouterr()
    assert f'precision @ 1 = {expected:.3f} (step 7, 50 images)' in printed.out
    assert ('hold no moving averages' in printed.err) == (not averages)

    with pytest.raises(UserError) as raised:
        cifar10_eval.evaluate(dataclasses.replace(settings, num_examples=61))
    assert '--num_examples=61: --eval_data=test in' in str(raised.value)
    assert 'holds only 60' in str(raised.value)


@pytest.mark.parametrize(
    ('script', 'options', 'message'),
    [
        ('cifar10_eval.py', ['--run_once'], '--checkpoint_dir=cifar10_train: found no checkpoint'),
        (
            'cifar10_train.py',
            ['--max_step=3'],
            '--max_step: no such flag; did you mean --max_steps',
        ),
        (
            'cifar10_train.py',
            ['--dataset=synthetic', '--data_url=file:///a.tar.gz'],
            '--data_url=file:///a.tar.gz: --dataset=synthetic is drawn',
        ),
        ('cifar10_multi_gpu_train.py', ['--num_gpus=99'], '--num_gpus=99: found'),
    ],
)
def test_a_users_mistake_is_one_clear_error(
    run_script: Script, script: str, options: list[str], message: str
) -> None:
    result = run_script(script, *options)
    assert result.returncode == 1
    assert message in result.stderr
    assert 'Traceback' not in result.stderr and result.stdout == ''


def test_too_few_gpus_are_listed() -> None:
    with pytest.raises(UserError, match='/physical_device:CPU:0.*--tower_device=cpu'):
        cifar10_multi_gpu_train.tower_devices('gpu', 99)


SCRIPTS = [
    path
    for path in sorted([*REPOSITORY.glob('*.py'), *REPOSITORY.glob('benchmarks/**/*.py')])
    if re.search(r'^    run_script\(', path.read_text(), re.MULTILINE)
]


class Declared(NamedTuple):
    """What a script hands to `run_script`, and says of itself."""

    docstring: str
    settings_class: type

    def parse(self, *options: str) -> None:
        flags.parse(self.settings_class, 'script', ['script', *options])


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Declared]:
    """Runs a script up to `run_script`, in this process."""

    def run(path: Path) -> Declared:
        asked: list[type] = []
        monkeypatch.setattr('sys.argv', [str(path)])
        monkeypatch.setattr(flags, 'run_script', lambda _, given: asked.append(given))
        docstring = runpy.run_path(str(path), run_name='__main__')['__doc__']
        (settings_class,) = asked
        return Declared(docstring, settings_class)

    return run


@pytest.mark.parametrize(
    ('script', 'option', 'message'),
    [
        ('cifar10_eval.py', '--eval_data=all', '--eval_data=all: expected one of'),
        ('cifar10_train.py', '--use_fp16=perhaps', '--use_fp16=perhaps'),
        ('cifar10_train.py', '--max_steps=-5', '--max_steps=-5: expected a whole number'),
        ('cifar10_train.py', '--seed=9223372036854775808', '--seed=9223372036854775808'),
        ('cifar10_train.py', '--train_dir=', '--train_dir=: expected a name or path'),
        ('cifar10_data.py', '--num_train=1000001', '--num_train=1000001'),
        ('cifar10_multi_gpu_train.py', '--num_gpus=0', '--num_gpus=0'),
        ('cifar10_distributed_train.py', '--local_workers=65', '--local_workers=65'),
    ],
)
def test_flags_have_bounds(
    declared: Callable[[Path], Declared], script: str, option: str, message: str
) -> None:
    trainer = declared(REPOSITORY / script)
    with pytest.raises(UserError, match=re.escape(message)):
        trainer.parse(option)


@pytest.mark.parametrize(
    'path', SCRIPTS, ids=[str(path.relative_to(REPOSITORY)) for path in SCRIPTS]
)
def test_help_begins_with_an_example_of_flags_that_exist(
    path: Path, declared: Callable[[Path], Declared]
) -> None:
    script = declared(path)
    docstring = script.docstring
    text = flags.help_text(path.name, docstring, script.settings_class, width=80)
    head, example, rest = re.split(r'(?<=^Example:\n)(.*?)\n\n', text, maxsplit=1, flags=re.S)
    assert head == 'Example:\n'
    parts = path.relative_to(REPOSITORY).with_suffix('').parts
    module = '.'.join(part for part in parts if part != '__main__')
    assert f'python {path.name}' in example or f'python -m {module}' in example
    words = shlex.split(example.replace('\\\n', ' '))
    script.parse(*(word for word in words if word.startswith('--')))
    purpose = inspect.cleandoc(docstring).partition('\n')[0]
    assert purpose.endswith('.') and ' '.join(rest.split()).startswith(purpose)
    assert all(len(line) <= 80 or '://' in line for line in rest.splitlines())


def test_every_script_is_found() -> None:
    names = {str(path.relative_to(REPOSITORY)) for path in SCRIPTS}
    assert {'cifar10_train.py', 'cifar10_plot.py', 'benchmarks/faults/__main__.py'} < names
