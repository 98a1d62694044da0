"""The programs that the speed benchmark measures: peers and this project, at every task."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10
from benchmarks.peers import keras_train, tutorial_train
from benchmarks.speed import project, turns
from benchmarks.speed.worker import (
    CONSTANT,
    EVALUATION,
    INPUT,
    TASKS,
    TRAIN,
    constant_batch,
    parse_options,
)
from cifar10_lib.nn.presets import MODEL_NAMES
from tests.helpers.benchmarks import finite_losses, task_options

NUM_PARAMETERS = 1_068_298


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('module', [tutorial_train, keras_train])
def test_peers_do_every_task(
    module, task: str, synthetic_data: Path, tmp_path: Path, capsys
) -> None:
    options = parse_options(None, task_options(task, synthetic_data, tmp_path))
    module.RUN[task](options)
    output = capsys.readouterr().out
    assert len(finite_losses(output)) == (2 if task in (TRAIN, CONSTANT) else 0)
    lines = [turns.parse_line(text) for text in output.splitlines()]
    assert [line.step for line in lines if line] == ([2, 3, 4] if task == EVALUATION else [2, 4])


@pytest.mark.parametrize('task', [CONSTANT, INPUT, EVALUATION])
def test_this_project_does_every_task(
    task: str, synthetic_data: Path, tmp_path: Path, capsys
) -> None:
    project.RUN[task](parse_options(None, task_options(task, synthetic_data, tmp_path)))
    output = capsys.readouterr().out
    assert len(finite_losses(output)) == (2 if task == CONSTANT else 0)


@pytest.mark.parametrize(
    ('model', 'task'),
    [
        *((model, CONSTANT) for model in MODEL_NAMES),
        ('mnist_deep', INPUT),
        ('batch_norm_cnn', EVALUATION),
    ],
)
def test_every_network_is_measured(
    model: str, task: str, synthetic_data: Path, tmp_path: Path, capsys
) -> None:
    options = [*task_options(task, synthetic_data, tmp_path), f'--model={model}', '--use_bf16']
    project.RUN[task](parse_options(None, options, models=MODEL_NAMES))
    output = capsys.readouterr().out
    assert len(finite_losses(output)) == (2 if task == CONSTANT else 0)
    assert output.count('/sec') >= 2


@pytest.mark.parametrize(
    ('module', 'option'),
    [(project, '--model=none'), (project, '--task=train'), (keras_train, '--model=deep_cnn')],
)
def test_an_option_that_a_program_does_not_have_is_refused(
    module, option: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(sys, 'argv', ['program', '--data_dir=none', option])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 2
    name, _, value = option.partition('=')
    assert f"argument {name}: invalid choice: '{value}' (choose from " in capsys.readouterr().err


def test_tutorial_network() -> None:
    with tf.Graph().as_default():
        tutorial_train.inference(tf.zeros([2, 24, 24, 3]))
        variables = tf.trainable_variables()
    assert sum(variable.shape.num_elements() for variable in variables) == NUM_PARAMETERS


def test_tutorial_computes_what_this_project_does() -> None:
    """Same names and same weights give the same loss, to float32 rounding."""
    images, labels = constant_batch(4)
    losses = []
    for module in (tutorial_train, cifar10):
        with tf.Graph().as_default(), tf.Session() as session:
            total_loss = module.loss(module.inference(tf.constant(images)), tf.constant(labels))
            # Small enough that the loss is far from saturated, and never the same twice.
            rng = np.random.default_rng(0)
            variables = {v.op.name: v for v in tf.trainable_variables()}
            for name in sorted(variables):
                value = rng.normal(scale=0.05, size=variables[name].shape.as_list())
                variables[name].load(value, session)
            losses.append(session.run(total_loss))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_keras_network() -> None:
    assert keras_train.build_model().count_params() == NUM_PARAMETERS


def torch_train():
    """The PyTorch variant's module; skips where PyTorch is not installed."""
    pytest.importorskip('torch', reason='PyTorch is not installed (benchmarks/requirements.txt)')
    from benchmarks.peers import torch_train

    return torch_train


def test_torch_network() -> None:
    network = torch_train().build_network()
    assert sum(parameter.numel() for parameter in network.parameters()) == NUM_PARAMETERS


@pytest.mark.parametrize('task', TASKS)
def test_torch_does_every_task(task: str, synthetic_data: Path, tmp_path: Path, capsys) -> None:
    module = torch_train()
    module.RUN[task](parse_options(None, task_options(task, synthetic_data, tmp_path)))
    output = capsys.readouterr().out
    assert len(finite_losses(output)) == (2 if task in (TRAIN, CONSTANT) else 0)
    assert output.count('examples/sec') == (3 if task == EVALUATION else 2)
