"""What TensorBoard shows of runs: by its own data, and on its pages."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from google.protobuf import text_format
from selenium.webdriver.chrome.webdriver import WebDriver

import cifar10_eval
import cifar10_train
from cifar10_eval import EvalSettings
from cifar10_lib.nn import summaries
from cifar10_lib.runs import tensorboard
from cifar10_train import OneDeviceTrainSettings
from tests.helpers import browser
from tests.helpers.scripts import script_environment

pytestmark = pytest.mark.slow

LAYERS = ('conv1', 'conv2', 'local3', 'local4', 'softmax_linear')
STEPS = 20

# The nodes of a page, those in shadow trees too, that are not invisible by their kind.
NODES = """
    const nodes = [];
    const visit = (node) => {
        if (['STYLE', 'SCRIPT', 'TEMPLATE'].includes(node.nodeName)) return;
        nodes.push(node);
        if (node.shadowRoot) visit(node.shadowRoot);
        node.childNodes.forEach(visit);
    };
    visit(document.body);
"""
TEXTS = f"""
    {NODES}
    return nodes.filter((n) => n.nodeType === 3).map((n) => n.data.trim()).filter((t) => t);
"""
SHOW_TRAINING_GRAPH = f"""
    {NODES}
    const controls = nodes.find((node) => node.nodeName === 'TF-GRAPH-CONTROLS');
    const index = (controls?.datasets ?? []).findIndex((set) => set.name === 'a/train');
    if (index < 0) return false;
    controls._selectedRunIndex = index;
    return true;
"""
OPEN_PART = f"""
    {NODES}
    const part = nodes.find((node) => node.dataset?.name === 'part_0');
    part.querySelector('.nodeshape').dispatchEvent(new MouseEvent('dblclick', {{bubbles: true}}));
"""


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, f'waited in vain for {what}'
        time.sleep(0.1)


class Board:
    """A TensorBoard that runs."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **parameters: str) -> Any:
        """What it says of a plugin's data."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f'{self.url}data/plugin/{path}?{query}', timeout=30) as reply:
            text = reply.read().decode()
        return text if path == 'graphs/graph' else json.loads(text)

    def ask(self, path: str, **request: Any) -> Any:
        return self.get(path, request=json.dumps({'experimentName': '', **request}))


@contextlib.contextmanager
def started_board(logdir: Path) -> Iterator[Callable[[], Board]]:
    """Starts TensorBoard; what it yields waits until it listens."""
    command = [
        sys.executable,
        '-m',
        'tensorboard.main',
        f'--logdir={logdir}',
        '--reload_interval=1',
    ]
    with subprocess.Popen(
        [*command, '--host=127.0.0.1', '--port=0'],
        env=script_environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr

        def board() -> Board:
            assert process.stderr
            for line in process.stderr:
                found = re.search(r'TensorBoard .* at (http://\S+/)', line)
                if found:
                    return Board(found[1])
            raise AssertionError('TensorBoard ended')

        try:
            yield board
        finally:
            process.kill()


@pytest.fixture(scope='module')
def board(tmp_path_factory: pytest.TempPathFactory, synthetic_data: Path) -> Iterator[Board]:
    """The board of the runs a, which is evaluated, and b, of another batch and seed."""
    logdir = tmp_path_factory.mktemp('board') / 'runs'
    logdir.mkdir()
    # While it starts, the runs are trained.
    with started_board(logdir) as listening:
        data = {'dataset': 'synthetic', 'data_dir': str(synthetic_data)}
        every = {'save_summaries_steps': 5, 'save_histograms_steps': 10}
        common = {**data, **every, 'batch_splits': 2}
        for run, values in {
            'a': {'max_steps': STEPS, 'batch_size': 16, 'seed': 3},
            'b': {'max_steps': 2, 'batch_size': 4},
        }.items():
            settings = {'train_dir': str(logdir / run / 'train'), **common, **values}
            cifar10_train.train(OneDeviceTrainSettings(**settings))  # type: ignore[arg-type]
        evaluation = EvalSettings(
            checkpoint_dir=str(logdir / 'a' / 'train'),
            eval_dir=str(logdir / 'a' / 'eval'),
            data_dir=str(synthetic_data),
            num_examples=60,
            run_once=True,
        )
        cifar10_eval.evaluate(evaluation)
        board = listening()
        runs = {'a/train', 'a/eval', 'b/train'}
        wait_until(lambda: set(board.get('scalars/tags')) >= runs, 'the runs')
        yield board


# ----------------------------------------------------------------------------- data


def test_scalars_are_in_groups_and_training_and_evaluation_are_runs_of_one_board(
    board: Board,
) -> None:
    losses = ('total', 'cross_entropy', 'weight_decay_local3', 'weight_decay_local4')
    tags = board.get('scalars/tags')
    assert set(tags['a/eval']) == {'precision/test'}
    assert set(tags['a/train']) == {
        *(f'{group}/{loss}' for group in ('loss', 'loss_average') for loss in losses),
        *(f'sparsity/{layer}' for layer in LAYERS),
        'train/learning_rate',
        'train/examples_per_sec',
    }
    values = board.get('scalars/scalars', run='a/train', tag='loss/total')
    assert [step for _, step, _ in values] == [1, 6, 11, 16]
    ((_, step, precision),) = board.get('scalars/scalars', run='a/eval', tag='precision/test')
    assert step == STEPS and 0 <= precision <= 1


def test_histograms_are_in_groups_by_layer(board: Board) -> None:
    assert set(board.get('histograms/tags')['a/train']) == {
        f'{layer}/{kind}'
        for layer in LAYERS
        for kind in (
            'activations',
            'weights/values',
            'weights/gradients',
            'biases/values',
            'biases/gradients',
        )
    }


def test_the_picture_of_a_batch(board: Board) -> None:
    pictures = board.get('images/images', run='a/train', tag='input/distorted/image', sample='0')
    assert [picture['step'] for picture in pictures] == [1, 6, 11, 16]
    url = f'{board.url}data/plugin/images/individualImage?{pictures[0]["query"]}'
    with urllib.request.urlopen(url, timeout=30) as reply:
        picture = matplotlib.image.imread(io.BytesIO(reply.read()), format='png')
    # Two rows of four images, each magnified, with a frame.
    assert picture.shape == (2 * (24 * 5 + 4), 4 * (24 * 5 + 4), 3)
    assert picture.std() > 0.1


def test_runs_are_compared_by_their_settings(board: Board) -> None:
    names = {info['name'] for info in board.ask('hparams/experiment')['hparamInfos']}
    assert names >= {'batch_size', 'dataset', 'max_steps', 'seed', 'use_fp16', 'learning_rate'}
    assert not names & {'train_dir', 'data_dir', 'log_frequency', 'progress', 'start_over'}
    metrics = [
        {'tag': tag, 'group': ''} for tag in ('precision/test', 'loss_average/cross_entropy')
    ]
    reply = board.ask(
        'hparams/session_groups',
        allowedStatuses=['STATUS_UNKNOWN'],
        colParams=[{'metric': metric} for metric in metrics],
        sliceSize=10,
    )
    a, b = sorted(reply['sessionGroups'], key=lambda group: group['name'])
    # Training and evaluation make one row.
    assert [session['name'] for session in a['sessions']] == ['a/eval', 'a/train']
    assert re.match('a/train in /.*/runs$', a['name'])
    values = {'dataset': 'synthetic', 'use_fp16': False}
    assert (
        a['hparams'].items() >= {**values, 'batch_size': 16, 'max_steps': STEPS, 'seed': 3}.items()
    )
    assert b['hparams'].items() >= {**values, 'batch_size': 4, 'max_steps': 2, 'seed': 0}.items()
    assert [metric['trainingStep'] for metric in a['metricValues']] == [STEPS, 16]
    assert [metric['name']['tag'] for metric in b['metricValues']] == ['loss_average/cross_entropy']


def test_the_graph_is_that_of_layers_in_parts(board: Board) -> None:
    graph = text_format.Parse(board.get('graphs/graph', run='a/train'), tf.GraphDef())
    names = {node.name for node in graph.node}
    outermost = {name.partition('/')[0] for name in names if '/' in name}
    assert outermost == {
        'gradients',
        'input',
        'learning_rate',
        'logits',
        'loss',
        'part_0',
        'part_1',
        'progress',
        'split',
        'summaries',
        'train',
        'variables',
    }
    in_part = {name.split('/')[1] for name in names if name.startswith('part_0/')}
    others = {'ReadVariableOp', 'add'}
    assert in_part - others == {*LAYERS, 'pool1', 'norm1', 'norm2', 'pool2'}
    assert 'variables/conv1/weights/ExponentialMovingAverage' in names
    for node in graph.node:
        sources = {name.removeprefix('^').partition(':')[0] for name in node.input}
        assert sources <= names, node.name


# ---------------------------------------------------------------------------- pages


@pytest.mark.parametrize(
    ('page', 'expected'),
    [
        ('timeseries', {'a/eval', 'conv1', 'input', 'loss', 'loss_average', 'precision', 'train'}),
        ('images', {'input/distorted/image'}),
        ('histograms', {f'{layer}' for layer in LAYERS} | {'conv1/weights/gradients'}),
        ('hparams', {'batch_size', '16.000', 'a/train in', 'precision @ 1'}),
    ],
)
def test_the_pages_show_it(
    board: Board, chromium: WebDriver, page: str, expected: set[str]
) -> None:
    open_board(chromium, board, page)
    wait_for_texts(chromium, expected)
    assert browser.console_errors(chromium) == []


def open_board(chromium: WebDriver, board: Board, page: str) -> None:
    # Another query for each page: one that differs behind # alone would not be loaded anew.
    browser.open_page(chromium, f'{board.url}?{page}#{page}', 1400, 2000)


def wait_for_texts(chromium: WebDriver, expected: set[str]) -> None:
    """Each text must be the beginning of one on the page."""

    def is_shown() -> bool:
        texts = chromium.execute_script(TEXTS)
        return all(any(text.startswith(begin) for text in texts) for begin in expected)

    wait_until(is_shown, str(expected))


def test_the_graph_opens_down_to_the_layers(board: Board, chromium: WebDriver) -> None:
    open_board(chromium, board, 'graphs')
    wait_until(lambda: chromium.execute_script(SHOW_TRAINING_GRAPH), 'the choice of runs')
    wait_for_texts(chromium, {'input', 'part_0', 'loss', 'train', 'variables', 'summaries'})
    chromium.execute_script(OPEN_PART)
    wait_for_texts(chromium, {*LAYERS, 'norm1', 'pool1', 'norm2', 'pool2'})
    assert browser.console_errors(chromium) == []


# ------------------------------------------------------------------------ its parts


@pytest.mark.parametrize(
    ('num_images', 'rows', 'columns'), [(1, 1, 1), (3, 1, 3), (7, 1, 4), (9, 2, 4)]
)
def test_contact_sheet(num_images: int, rows: int, columns: int) -> None:
    batch = np.random.default_rng(0).normal(size=[num_images, 6, 6, 3]).astype(np.float32)
    batch[0] = 5
    with tf.Graph().as_default(), tf.Session() as session:
        sheet = session.run(summaries._contact_sheet(tf.constant(batch)))
    framed = 2 + 6 * 5 + 2
    assert sheet.shape == (rows * framed, columns * framed, 3)
    for i in range(rows * columns):
        row, column = divmod(i, columns)
        image = sheet[row * framed : (row + 1) * framed, column * framed : (column + 1) * framed]
        assert (image[:2] == 255).all() and (image[:, -2:] == 255).all()
        low, high = batch[i].min(), batch[i].max()
        expected = (batch[i] - low) / max(high - low, 1e-9) * 255
        for corner in (2, 6):
            found = image[corner:-2:5, corner:-2:5]
            np.testing.assert_allclose(found, expected, atol=1.01)


class Written:
    """A writer of events that keeps them."""

    def __init__(self) -> None:
        self.scalars: list[tuple[str, float, int]] = []

    def add_summary(self, summary: tf.Summary, step: int) -> None:
        self.scalars += [(value.tag, value.simple_value, step) for value in summary.value]


def test_speed_is_that_of_all_examples() -> None:
    written = Written()
    hook = tensorboard.SpeedHook(written, batch_size=20, every_steps=10)
    hook._log_and_record(elapsed_steps=10, elapsed_time=4.0, global_step=31)
    assert written.scalars == [('train/examples_per_sec', 50.0, 31)]


def test_checkpoints_without_settings_have_none_to_show(tmp_path: Path) -> None:
    with tf.Graph().as_default():
        writer = tf.summary.FileWriter(str(tmp_path))
    tensorboard.add_settings(writer, {'train_dir': 'train', 'seed': None}, 'train')
    writer.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('train_dir', 'logdir'),
    [('cifar10_train', '.'), ('runs/a/train/', 'runs/a'), ('/data/my run/train', '/data/my run')],
)
def test_the_command_shows_the_run_and_its_neighbours(
    monkeypatch: pytest.MonkeyPatch, train_dir: str, logdir: str
) -> None:
    monkeypatch.setenv('PATH', os.path.dirname(sys.executable))
    command = tensorboard.command_line(train_dir)
    assert shlex.split(command) == ['tensorboard', f'--logdir={logdir}']
    monkeypatch.setenv('PATH', '')
    (program, _) = shlex.split(tensorboard.command_line(train_dir))
    assert os.path.isfile(program)
