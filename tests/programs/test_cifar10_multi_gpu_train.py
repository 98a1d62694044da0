"""Training on several devices: towers take the steps of one device with the complete batch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10
import cifar10_multi_gpu_train
import cifar10_train
from benchmarks.graphs import TrainingGraph, build_training_graph
from cifar10_lib.base.errors import UserError
from cifar10_lib.nn.summaries import HISTOGRAMS
from cifar10_lib.nn.towers import CPU, FIRST, MIRRORED, tower_gradients
from cifar10_lib.training.settings import OneDeviceTrainSettings
from cifar10_multi_gpu_train import MultiGpuTrainSettings
from tests.helpers import faults
from tests.helpers.runs import checkpoint_values

HOMES = (CPU, FIRST, MIRRORED)

# Divisible among one, two, three and four towers.
BATCH_SIZE = 12

Values = dict[str, np.ndarray]


def options(data_dir: Path, train_dir: Path) -> dict[str, Any]:
    return {
        'data_dir': str(data_dir),
        'dataset': 'synthetic',
        'train_dir': str(train_dir),
        'max_steps': 100,
        'log_frequency': 50,
        'save_summaries_steps': 1000,
        'save_histograms_steps': 1000,
    }


def train_on_one_device(data_dir: Path, train_dir: Path, splits: int, **more: Any) -> Values:
    settings = {**options(data_dir, train_dir), 'batch_size': BATCH_SIZE, **more}
    cifar10_train.train(OneDeviceTrainSettings(batch_splits=splits, **settings))
    return checkpoint_values(train_dir)


def train_on_towers(
    data_dir: Path, train_dir: Path, num_towers: int, variables: str, **more: Any
) -> Values:
    settings: dict[str, Any] = {
        **options(data_dir, train_dir),
        'batch_size': BATCH_SIZE // num_towers,
        'num_gpus': num_towers,
        'tower_device': 'cpu',
        'variables': variables,
        **more,
    }
    cifar10_multi_gpu_train.train(MultiGpuTrainSettings(**settings))
    return checkpoint_values(train_dir)


def build_towers(records: Path, num_towers: int, variables: str) -> TrainingGraph:
    """The trainer's graph."""
    return build_training_graph(
        cifar10_multi_gpu_train.train,
        data_dir=str(records),
        batch_size=6 // num_towers,
        num_gpus=num_towers,
        tower_device='cpu',
        variables=variables,
    )


def open_session(num_towers: int) -> tf.Session:
    """A session of the current graph, with its variables initialised."""
    config = tf.ConfigProto(device_count={'CPU': num_towers}, allow_soft_placement=True)
    session = tf.Session(config=config)
    session.run(tf.global_variables_initializer())
    session.run(tf.local_variables_initializer())
    return session


# ------------------------------------------------------------------------- equality


@pytest.mark.parametrize('num_towers', [1, 2, 4])
def test_40_steps_are_those_of_one_device_bit_by_bit(
    synthetic_data: Path, tmp_path: Path, num_towers: int
) -> None:
    """Against one device that computes its batch in as many parts as there are towers.

    Of a batch of which each part fills complete vectors of the processor with its logits, 8
    images of 10: TensorFlow computes the exponentials of the rest in another way.
    """
    one_device = ['cifar10_train.py', '--batch_size=32', f'--batch_splits={num_towers}']
    towers = [
        'cifar10_multi_gpu_train.py',
        f'--batch_size={32 // num_towers}',
        f'--num_gpus={num_towers}',
        '--tower_device=cpu',
    ]
    for name, trainer in (('one', one_device), ('towers', towers)):
        faults.finish(
            faults.train_command(synthetic_data, tmp_path / name, *trainer, '--max_steps=40')
        )
    assert checkpoint_values(tmp_path / 'one')['examples_seen'] == 40 * 32
    faults.assert_bit_identical(tmp_path / 'one', tmp_path / 'towers', but=faults.LOSS_AVERAGES)


SMALL_RATE = {'learning_rate': 0.001}


@pytest.fixture(scope='module')
def one_device(synthetic_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Values:
    """The weights after 100 steps of a batch in one part; they have moved from the start."""
    folder = tmp_path_factory.mktemp('one_device')
    start = train_on_one_device(synthetic_data, folder / 'start', 1, max_steps=1, **SMALL_RATE)
    end = train_on_one_device(synthetic_data, folder / 'end', 1, **SMALL_RATE)
    assert np.abs(end['local4/weights'] - start['local4/weights']).max() > 5e-5
    return end


@pytest.mark.parametrize('variables', HOMES)
@pytest.mark.parametrize('num_towers', [2, 3, 4])
def test_100_steps_are_those_of_one_device_to_rounding(
    one_device: Values, synthetic_data: Path, tmp_path: Path, num_towers: int, variables: str
) -> None:
    """Against one device that adds up its batch in one go.

    At the tutorial's rate of 0.1 and so small a batch, training itself makes every
    difference in a last bit grow, to a fiftieth of a weight's unit, between one device with
    two parts and one with one too. At a hundredth of the rate, differences stay those of
    float32 sums in another order: 1.5e-8 was seen, of weights of about 0.04.
    """
    towers = train_on_towers(synthetic_data, tmp_path, num_towers, variables, **SMALL_RATE)
    assert set(one_device) == set(towers)
    for name, value in one_device.items():
        np.testing.assert_allclose(towers[name], value, rtol=1e-5, atol=2e-7, err_msg=name)


@pytest.mark.parametrize('variables', HOMES)
def test_the_first_update_is_that_of_one_device(records: Path, variables: str) -> None:
    """Gradients and loss, each at its own scale: float32 sums in another order."""

    def loss(images: tf.Tensor, labels: tf.Tensor, position: Any, tower: int) -> tf.Tensor:
        options = cifar10.Options(summaries=False)
        return cifar10.cross_entropy(cifar10.inference(images, options), labels)

    results = []
    for num_towers in (1, 3):
        with tf.Graph().as_default():
            images, labels = cifar10.distorted_inputs(str(records), BATCH_SIZE)
            devices = cifar10_multi_gpu_train.tower_devices('cpu', num_towers)
            with tf.device('/cpu:0'):
                towers = tower_gradients(loss, images, labels, devices, home=variables)
            gradients = [gradient for gradient, _ in [*towers.gradients, *towers.copies]]
            with open_session(num_towers) as session:
                results.append(session.run([towers.total_loss, gradients]))
    (loss_value, expected), (tower_loss, found) = results
    np.testing.assert_allclose(tower_loss, loss_value, rtol=1e-6)
    assert len(found) == (3 if variables == MIRRORED else 1) * len(expected)
    for i, gradient in enumerate(found):
        reference = expected[i % len(expected)]
        assert np.linalg.norm(gradient - reference) / np.linalg.norm(reference) < 1e-5


def test_copies_keep_the_bits_of_the_first_towers_variables(records: Path) -> None:
    training = build_towers(records, 3, MIRRORED)
    with training.train_op.graph.as_default():
        copies = tf.local_variables()
        assert len(copies) == 2 * len(tf.trainable_variables())
        with open_session(3) as session:
            before = session.run(tf.trainable_variables())
            for _ in range(5):
                session.run(training.train_op)
            first, others = session.run([tf.trainable_variables(), copies])
    for i, value in enumerate(first):
        assert not np.array_equal(before[i], value)
        assert value.tobytes() == others[i].tobytes() == others[i + len(first)].tobytes()


# --------------------------------------------------------------------------- graph


@pytest.mark.parametrize('variables', HOMES)
def test_names_and_tags_are_those_of_one_tower(records: Path, variables: str) -> None:
    found = []
    for num_towers in (1, 3):
        training = build_towers(records, num_towers, variables)
        with training.train_op.graph.as_default():
            summaries = [tf.summary.merge_all(), tf.summary.merge_all(HISTOGRAMS)]
            with open_session(num_towers) as session:
                tags = [
                    value.tag
                    for summary in session.run([summaries, training.train_op])[0]
                    for value in tf.Summary.FromString(summary).value
                ]
            found.append((sorted(v.op.name for v in tf.global_variables()), sorted(tags)))
    assert found[0] == found[1]
    names, tags = found[0]
    assert len(tags) > 30 and len(names) > 20
    assert not any('tower' in name or 'copy' in name for name in [*names, *tags])


@pytest.mark.parametrize(
    ('variables', 'home'), [(CPU, 'CPU:0'), (FIRST, 'GPU:0'), (MIRRORED, 'GPU:0')]
)
def test_variables_and_what_is_done_with_them_are_at_home(
    records: Path, variables: str, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The devices that the graph asks for; a graph can be built without them."""
    monkeypatch.setattr(
        cifar10_multi_gpu_train, 'tower_devices', lambda kind, count: ['/gpu:0', '/gpu:1']
    )
    training = build_training_graph(
        cifar10_multi_gpu_train.train,
        data_dir=str(records),
        batch_size=2,
        num_gpus=2,
        variables=variables,
    )
    graph = training.train_op.graph
    with graph.as_default():
        assert {v.device for v in tf.trainable_variables()} == {f'/device:{home}'}
        averages = tf.moving_average_variables()
        assert {v.device for v in averages} == {f'/device:{home}'}
        assert {v.device for v in tf.local_variables()} <= {'/device:GPU:1'}
        kinds = {
            kind: {op.device for op in graph.get_operations() if op.type == kind}
            for kind in ('Conv2D', 'CheckNumerics', 'CollectiveReduceV2', 'Split')
        }
    towers = {'/device:GPU:0', '/device:GPU:1'}
    assert kinds == {
        'Conv2D': towers,
        'CheckNumerics': {f'/device:{home}'},
        'CollectiveReduceV2': towers if variables == MIRRORED else set(),
        'Split': {'/device:CPU:0'},
    }


# -------------------------------------------------------------------------- complete runs


@pytest.mark.parametrize('variables', HOMES)
def test_a_run_resumes_with_other_towers_and_another_home(
    synthetic_data: Path, tmp_path: Path, variables: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train_on_towers(synthetic_data, tmp_path / 'whole', 2, variables, max_steps=4)
    train_on_towers(synthetic_data, tmp_path / 'pieces', 3, FIRST, max_steps=2)
    pieces = train_on_towers(synthetic_data, tmp_path / 'pieces', 2, variables, max_steps=4)
    assert 'Resuming from' in capsys.readouterr().out
    assert set(whole) == set(pieces)
    for name, value in whole.items():
        np.testing.assert_allclose(pieces[name], value, atol=1e-4, err_msg=name)


def test_the_line_tells_the_speed_of_all_and_of_each(
    synthetic_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_on_towers(synthetic_data, tmp_path, 3, FIRST, max_steps=4, log_frequency=2)
    line = re.search(
        r'step 4, loss = \d+\.\d\d \((\d+\.\d) examples/sec; \d+\.\d{3} sec/batch\), '
        r'(\d+\.\d) examples/sec on each of 3 towers\n',
        capsys.readouterr().out,
    )
    assert line
    assert float(line[1]) == pytest.approx(3 * float(line[2]), abs=0.3)


@pytest.mark.parametrize('variables', HOMES)
def test_a_step_that_is_not_finite_is_not_taken(
    synthetic_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: str
) -> None:
    """The failed step is looked into tensor by tensor, and none waits for another tower."""
    with pytest.raises(UserError, match=r'step \d: tower_\d/.* infinite; the step was not taken'):
        train_on_towers(synthetic_data, tmp_path, 2, variables, learning_rate=1e30)


def test_a_batch_of_all_towers_larger_than_the_data_is_refused(
    synthetic_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match='takes 202 examples, .* holds only 200 training images'):
        train_on_towers(synthetic_data, tmp_path / 'run', 2, FIRST, batch_size=101)


@pytest.mark.parametrize('variables', HOMES)
def test_an_optimizer_with_a_memory_takes_the_steps_of_one_device(
    synthetic_data: Path, tmp_path: Path, variables: str
) -> None:
    """In two runs: what the optimiser remembers is in the checkpoint, and there once."""
    recipe = {'optimizer': 'momentum', 'learning_rate': 0.001, 'conv_weight_decay': 0.01}
    one = train_on_one_device(synthetic_data, tmp_path / 'one', splits=2, max_steps=8, **recipe)
    for steps in (5, 8):
        towers = train_on_towers(
            synthetic_data, tmp_path / 'towers', 2, variables, max_steps=steps, **recipe
        )
    assert set(one) == set(towers) and 'conv1/weights/Momentum' in one
    for name, value in one.items():
        np.testing.assert_allclose(towers[name], value, rtol=1e-5, atol=2e-7, err_msg=name)
