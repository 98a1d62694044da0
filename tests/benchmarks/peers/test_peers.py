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
from cifar10_lib.nn.presets import PRESETS
from tests.helpers.benchmarks import finite_losses, task_options

NUM_PARAMETERS = 1_068_298

# One preset of each network.
NETWORK_PRESETS = {preset.recipe.model: name for name, preset in reversed(PRESETS.items())}


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
    ('preset', 'task'),
    [
        *((preset, CONSTANT) for preset in NETWORK_PRESETS.values()),
        ('mnist_deep', INPUT),
        ('batch_norm_cnn', EVALUATION),
    ],
)
def test_every_network_is_measured(
    preset: str, task: str, synthetic_data: Path, tmp_path: Path, capsys
) -> None:
    options = [*task_options(task, synthetic_data, tmp_path), f'--preset={preset}', '--use_bf16']
    project.RUN[task](parse_options(None, options, presets=tuple(PRESETS)))
    output = capsys.readouterr().out
    assert len(finite_losses(output)) == (2 if task == CONSTANT else 0)
    assert output.count('/sec') >= 2


@pytest.mark.parametrize(
    ('module', 'option'),
    [(project, '--preset=none'), (project, '--task=train'), (keras_train, '--preset=deep_cnn')],
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


# ----------------------------------------------------------------------- PyTorch


@pytest.fixture(scope='module')
def torch():
    """PyTorch; skips where it is not installed. Its peers are imported in the tests."""
    return pytest.importorskip(
        'torch', reason='PyTorch is not installed (benchmarks/requirements.txt)'
    )


def test_torch_networks(torch) -> None:
    from benchmarks.peers import torch_airbench, torch_tutorial

    sizes = []
    for module in (torch_tutorial, torch_airbench):
        size = module.WORKLOAD.size
        network = module.build_network(torch.randn(8, 3, size, size))
        assert network(torch.zeros(2, 3, size, size)).shape == (2, 10)
        sizes.append(sum(parameter.numel() for parameter in network.parameters()))
    # The second with batch normalisation's scales, which are 1 and not trained.
    assert sizes == [NUM_PARAMETERS, 1_971_640 + 2 * (64 + 256 + 256)]


def test_torch_normalises_by_a_matrix_product_as_its_own_layer_does(torch) -> None:
    """To float32 rounding, forward and gradient, in a layer's usual range."""
    from benchmarks.peers import torch_tutorial

    results = []
    for layer in (torch_tutorial.Normalize(), torch_tutorial.plain_normalize()):
        torch.manual_seed(0)
        images = (20 * torch.randn(2, 64, 5, 5)).requires_grad_()
        output = layer(images)
        (output * torch.randn_like(output)).sum().backward()
        results += [output.detach(), images.grad]
    torch.testing.assert_close(results[:2], results[2:], rtol=1e-5, atol=1e-5)


def test_torch_forms_of_the_tutorial_are_one_network(torch) -> None:
    from benchmarks.peers import torch_tutorial

    images = torch.randn(4, 3, 24, 24)
    logits = []
    for plain in (False, True):
        torch.manual_seed(0)
        logits.append(torch_tutorial.build_network(images, plain)(images))
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-6)


def test_torch_whitening_decorrelates_patches(torch) -> None:
    """The first 12 filters give channels of mean square 1 and mean product 0, to their epsilon."""
    from benchmarks.peers import torch_airbench

    torch.manual_seed(0)
    mixed = torch.nn.functional.conv2d(torch.randn(16, 3, 33, 33), torch.randn(3, 3, 2, 2))
    outputs = torch_airbench.build_network(mixed)[0](mixed)
    channels = outputs.transpose(0, 1).flatten(1)
    assert torch.equal(channels[12:], -channels[:12])
    products = channels[:12] @ channels[:12].T / channels.shape[1]
    torch.testing.assert_close(products, torch.eye(12), rtol=0, atol=0.02)


def test_torch_crops_lie_in_the_reflected_image(torch) -> None:
    from benchmarks.peers import torch_parts

    images = torch.arange(3 * 36, dtype=torch.uint8).reshape(1, 3, 6, 6).repeat(200, 1, 1, 1)
    mirrored = torch.arange(200)[:, None] % 2 == 1
    crops = torch_parts.crop_and_flip(images, 6, mirrored, padding=2).numpy()
    padded = np.pad(images[0].numpy(), [(0, 0), (2, 2), (2, 2)], mode='reflect')
    windows = [padded[:, i : i + 6, j : j + 6] for i in range(5) for j in range(5)]
    crops[1::2] = crops[1::2, :, :, ::-1]
    places = [[(window == crop).all() for window in windows].index(True) for crop in crops]
    # Of 100 crops each, nearly every one of the 25 places.
    assert len(set(places[::2])) > 18 and len(set(places[1::2])) > 18


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize(
    'form',
    [
        ['--preset=tutorial'],
        ['--preset=tutorial', '--plain'],
        ['--preset=airbench94', '--use_bf16', '--compiled'],
    ],
    ids=' '.join,
)
def test_torch_does_every_task(
    torch, task: str, form: list[str], synthetic_data: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    from benchmarks.peers import torch_train

    # Compiling takes a quarter of a minute.
    monkeypatch.setattr(torch, 'compile', lambda function: function)
    options = [*task_options(task, synthetic_data, tmp_path), *form]
    presets = tuple(torch_train.WORKLOADS)
    torch_train.RUN[task](parse_options(None, options, presets=presets))
    output = capsys.readouterr().out
    assert len(finite_losses(output)) == (2 if task in (TRAIN, CONSTANT) else 0)
    assert output.count('examples/sec') == (3 if task == EVALUATION else 2)
