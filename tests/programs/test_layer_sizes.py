"""Networks with layers of other sizes, from flags to checkpoints and to all that reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10_eval
import cifar10_export
import cifar10_predict
from cifar10 import NETWORKS
from cifar10_eval import EvalSettings
from cifar10_export import ExportSettings
from cifar10_lib.base.errors import UserError
from cifar10_lib.evaluation import layer_table
from cifar10_lib.nn.recipes import Recipe
from cifar10_lib.runs import history
from cifar10_predict import PredictSettings
from tests.helpers.networks import TUTORIAL_SHAPES, initialized_session
from tests.helpers.runs import checkpoint_values, train

# Numbers of sizes that each network takes: of filters, and of hidden layers.
COUNTS = {
    'tutorial': (2, 2),
    'book': (2, 2),
    'logistic': (0, 0),
    'mlp': (0, 2),
    'small_cnn': (2, 0),
    'dropout_cnn': (1, 1),
    'deep_cnn': (4, 1),
    'batch_norm_cnn': (3, 1),
    'airbench': (3, 0),
    'mnist_cnn': (1, 1),
    'mnist_deep': (4, 1),
}


def shapes_of(model: str, **recipe: Any) -> dict[str, list[int]]:
    """Shapes of the variables of a network, as a run's recipe has it."""
    network = NETWORKS[model].trained_by(Recipe(model=model, **recipe))
    with tf.Graph().as_default():
        layer_table.network_layers(network, 10)
        return {v.op.name: v.shape.as_list() for v in tf.global_variables()}


def outputs(shapes: dict[str, list[int]], kind: str) -> list[int]:
    """Sizes of the layers whose names begin so, in their order."""
    names = [name for name in shapes if name.startswith(kind) and name.endswith('/weights')]
    return [shapes[name][-1] for name in names]


@pytest.mark.parametrize('model', NETWORKS)
def test_every_network_takes_sizes_and_factors(model: str) -> None:
    assert set(COUNTS) == set(NETWORKS)
    num_filters, num_hidden = COUNTS[model]
    own = shapes_of(model)
    hidden = 'local' if model in ('tutorial', 'book') else 'hidden'
    if num_filters:
        doubled = outputs(shapes_of(model, num_filters='2x'), 'conv')
        assert doubled == [2 * size for size in outputs(own, 'conv')]
        chosen = [30 + 2 * number for number in range(num_filters)]
        found = outputs(shapes_of(model, num_filters=','.join(map(str, chosen))), 'conv')
        assert sorted(set(found)) == chosen
        assert set(outputs(shapes_of(model, num_filters='28'), 'conv')) == {28}
    if num_hidden:
        assert outputs(shapes_of(model, hidden_size='0.5x'), hidden) == [
            size // 2 for size in outputs(own, hidden)
        ]
        assert outputs(shapes_of(model, hidden_size='10'), hidden) == [10] * num_hidden
    assert shapes_of(model, num_filters='network', hidden_size='network') == own


def test_the_tutorials_network_ten_times_larger() -> None:
    """The exercise: weights that are drawn as the tutorial's, with 1 / inputs for the logits."""
    own = shapes_of('tutorial')
    assert {name: own[name] for name in TUTORIAL_SHAPES} == TUTORIAL_SHAPES
    found = shapes_of('tutorial', hidden_size='10x')
    assert found['local3/weights'] == [2304, 3840] and found['local4/weights'] == [3840, 1920]
    network = NETWORKS['tutorial'].trained_by(Recipe(hidden_size='10x'))
    with tf.Graph().as_default():
        network.evaluate(tf.zeros([1, 24, 24, 3]), 10)
        (matrix,) = (v for v in tf.trainable_variables() if v.op.name == 'softmax_linear/weights')
        with initialized_session() as session:
            # A normal distribution, truncated at two standard deviations, has 0.88 of its own.
            assert session.run(matrix).std() == pytest.approx(0.88 / 1920, rel=0.05)


@pytest.mark.parametrize(
    ('model', 'given', 'message'),
    [
        (
            'tutorial',
            {'hidden_size': '100,x'},
            r"--hidden_size=100,x: expected a number for each layer, as '384,192', one for all, a "
            'factor, as 2x, or network; each size 1 to 65,536',
        ),
        ('tutorial', {'hidden_size': '100,0'}, '--hidden_size=100,0: expected'),
        ('tutorial', {'hidden_size': '1,2,3'}, "--hidden_size=1,2,3: expected .* as '384,192'"),
        ('tutorial', {'hidden_size': '1000x'}, '--hidden_size=1000x: expected'),
        ('tutorial', {'num_filters': 'nanx'}, '--num_filters=nanx: expected'),
        ('tutorial', {'num_filters': '0x'}, '--num_filters=0x: expected'),
        ('airbench', {'num_filters': '64,64'}, "--num_filters=64,64: expected .* '64,256,256'"),
        ('airbench', {'hidden_size': '2x'}, 'the network airbench has no hidden dense layers'),
        ('logistic', {'num_filters': '8'}, 'the network logistic has no convolutions'),
    ],
)
def test_sizes_that_a_network_has_not_are_one_error_before_anything_is_written(
    model: str, given: dict[str, Any], message: str, synthetic_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        train(synthetic_data, tmp_path / 'run', model=model, **given)
    assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_all_that_reads_a_run_has_its_sizes(
    synthetic_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Resuming, evaluation, prediction, export, the summary, and a run that begins with it."""
    run = tmp_path / 'run'
    sizes = {'num_filters': '8,12', 'hidden_size': '0.25x'}
    train(synthetic_data, run, max_steps=1, **sizes)
    train(synthetic_data, run, max_steps=2, **sizes)
    shapes = {name: list(value.shape) for name, value in checkpoint_values(run).items()}
    assert shapes['conv2/weights'] == [5, 5, 8, 12]
    assert shapes['local4/weights'] == [96, 48] and shapes['softmax_linear/weights'] == [48, 10]
    num_weights = sum(int(np.prod(shapes[name])) for name in TUTORIAL_SHAPES)
    output = capsys.readouterr().out
    assert f'Network: tutorial, {num_weights:,} weights' in output
    assert '--num_filters=8,12 --hidden_size=0.25x' in output

    message = '--hidden_size=network: the run in .* trains a network of --hidden_size 0.25x'
    with pytest.raises(UserError, match=message):
        train(synthetic_data, run, max_steps=3, num_filters='8,12')
    assert json.loads((run / 'settings.json').read_text())['hidden_size'] == '0.25x'

    cifar10_eval.evaluate(
        EvalSettings(checkpoint_dir=str(run), data_dir=str(synthetic_data), run_once=True)
    )
    assert history.read(str(run / 'eval'))[0]['step'] == 2
    cifar10_predict.predict(
        PredictSettings(checkpoint_dir=str(run), data_dir=str(synthetic_data), index=0)
    )
    export = tmp_path / 'export'
    cifar10_export.export(ExportSettings(str(export), str(run), data_dir=str(synthetic_data)))
    assert (export / 'metadata.json').exists()

    train(synthetic_data, tmp_path / 'other', init_from=str(run), max_steps=1, num_filters='8,16')
    output = capsys.readouterr().out
    assert 'step 2: conv1\nLayers that begin anew: conv2 (weights [5, 5, 8, 16], there' in output
