"""Pictures of a run, from its history, its checkpoints and its data."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from matplotlib.figure import Figure
from PIL import Image

import cifar10
import cifar10_plot
from cifar10_lib.base.errors import UserError
from cifar10_lib.data.record_files import CIFAR10_CLASS_NAMES
from cifar10_lib.evaluation.evaluator import Evaluator, Result, Scored
from cifar10_lib.runs.checkpoints import open_checkpoint
from cifar10_plot import PlotSettings, Subject
from tests.helpers.runs import save_network


def write_history(directory: Path, *entries: dict) -> str:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / 'history.jsonl').write_text(''.join(json.dumps(e) + '\n' for e in entries))
    return str(directory)


def trained(step: int, loss: float, batch: int = 10) -> dict:
    return {'step': step, 'examples': batch * step, 'seconds': step / 4, 'loss': loss}


def scored(step: int, precision: float, **more: object) -> dict:
    entry = {'step': step, 'precision': precision, 'eval_data': 'test', 'num_examples': 100}
    return {**entry, 'views': 1, **more}


@pytest.fixture
def run(tmp_path: Path) -> str:
    """A run's folder, with one evaluation of its own, beside the folder of two more."""
    write_history(tmp_path / 'a_eval', scored(100, 0.5), scored(200, 0.625))
    losses = [trained(1, 4.5), trained(100, 3.0), trained(200, 2.5)]
    return write_history(tmp_path / 'a_train', *losses, scored(150, 0.55, seconds=40, examples=9))


def curve(settings: PlotSettings) -> Figure:
    figure = cifar10_plot.curve(Subject(settings))
    assert figure
    return figure


def drawn(figure: Figure) -> list[dict[str, list[tuple[float, float]]]]:
    """Of each panel the points of each line, by the line's label."""
    return [
        {
            str(line.get_label()): list(zip(*np.array(line.get_data()).tolist(), strict=True))
            for line in axes.lines
        }
        for axes in figure.axes
    ]


def legend(figure: Figure, panel: int) -> list[str]:
    texts = figure.axes[panel].get_legend()
    return [text.get_text() for text in texts.get_texts()] if texts else []


# ------------------------------------------------------------------------------ curves


def test_a_run_is_drawn_with_the_evaluations_beside_it(run: str) -> None:
    losses, precisions = drawn(curve(PlotSettings(train_dir=run)))
    assert losses['one batch'] == [(1, 4.5), (100, 3.0), (200, 2.5)]
    assert precisions == {'test images: 0.625': [(100, 0.5), (150, 0.55), (200, 0.625)]}
    assert drawn(curve(PlotSettings((run,)))) == [losses, precisions]


@pytest.mark.parametrize(
    ('axis', 'label', 'x', 'evaluated'),
    [
        ('examples', 'examples', [10, 1000, 2000], [9, 1000, 2000]),
        ('time', 'seconds of training', [0.25, 25, 50], [25, 40, 50]),
    ],
)
def test_what_an_evaluation_does_not_note_is_interpolated(
    run: str, axis: str, label: str, x: list, evaluated: list
) -> None:
    figure = curve(PlotSettings((run,), x=axis))
    losses, precisions = drawn(figure)
    assert [place for place, _ in losses['one batch']] == x
    assert [place for place, _ in precisions['test images: 0.625']] == evaluated
    assert {axes.get_xlabel() for axes in figure.axes} == {label}


def test_long_runs_are_drawn_over_hours_and_millions(tmp_path: Path) -> None:
    run = write_history(tmp_path / 'run', trained(1, 4.5), trained(72_000, 1.0, batch=128))
    for axis, label, last in (
        ('time', 'hours of training', 5),
        ('examples', 'million examples', 9.216),
    ):
        figure = curve(PlotSettings((run,), x=axis))
        assert figure.axes[0].get_xlabel() == label
        assert drawn(figure)[0]['one batch'][-1] == (last, 1.0)


def test_kinds_of_evaluation_are_lines_of_their_own(tmp_path: Path) -> None:
    run = write_history(
        tmp_path / 'run',
        scored(1, 0.25),
        scored(1, 0.5, views=10),
        scored(1, 0.75, eval_data='train_eval'),
        scored(1, 0.125, num_examples=50),
        scored(2, 0.375),
    )
    (precisions,) = drawn(curve(PlotSettings((run,))))
    assert precisions == {
        'test images, 100 of them: 0.375': [(1, 0.25), (2, 0.375)],
        'test images, 10 views, 100 of them: 0.500': [(1, 0.5)],
        'training images, 100 of them: 0.750': [(1, 0.75)],
        'test images, 50 of them: 0.125': [(1, 0.125)],
    }


def test_runs_side_by_side_have_a_colour_each(run: str, tmp_path: Path) -> None:
    other = write_history(tmp_path / 'b$x$_train', trained(1, 4.0), scored(9, 0.75))
    figure = curve(PlotSettings((run, other)))
    # The best first.
    assert legend(figure, 0) == ['b$x$_train', 'a_train']
    assert legend(figure, 1) == ['b$x$_train: 0.750', 'a_train: 0.625']
    colors = [[line.get_color() for line in axes.lines] for axes in figure.axes]
    assert colors[0] == colors[1] and len(set(colors[0])) == 2


def test_evaluations_of_several_runs_are_named_in_their_order(run: str, tmp_path: Path) -> None:
    other = write_history(tmp_path / 'other', trained(1, 4.0))
    folders = [write_history(tmp_path / n, scored(5, p)) for n, p in (('p', 0.25), ('q', 0.75))]
    figure = curve(PlotSettings((run, other), eval_dir=','.join(folders)))
    points = list(drawn(figure)[1].values())
    assert points == [[(5, 0.75)], [(5, 0.25), (150, 0.55)]]
    # A comma may be part of a name.
    folders[0] = shutil.move(folders[0], str(tmp_path / 'p,q'))
    figure = curve(PlotSettings((run, other), eval_dir=','.join(folders)))
    assert list(drawn(figure)[1].values()) == points
    with pytest.raises(UserError, match='--eval_dir=.*: expected 2 folders that are there'):
        curve(PlotSettings((run, other), eval_dir=folders[0]))
    with pytest.raises(UserError, match='/none: expected 1 folders that are there'):
        curve(PlotSettings((run,), eval_dir=str(tmp_path / 'none')))


def test_several_runs_are_a_table_and_a_page_as_well(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_history(tmp_path / 'more' / 'b_train', trained(1, 4.0), scored(9, 0.75))
    cifar10_plot.plot(PlotSettings((run, 'more', 'a_eval'), table='runs.html', output='runs.png'))
    heading, _, first, second, *end = capsys.readouterr().out.splitlines()
    assert heading.split()[:2] == ['run', 'steps'] and 'accuracy' in heading
    assert [first.split()[0], second.split()[0]] == ['b_train', 'a_train']
    assert end[1:] == ['Wrote runs.html', 'Wrote runs.png']
    check_picture(tmp_path / 'runs.png')
    assert 'Comparison of 2 runs' in (tmp_path / 'runs.html').read_text()


def test_of_very_many_lines_the_extremes_are_drawn(tmp_path: Path) -> None:
    losses = 2 + 0.1 * np.sin(np.arange(30_000))
    losses[12_345], losses[23_456] = 7, 1
    run = write_history(tmp_path / 'run', *(trained(i, x) for i, x in enumerate(losses.tolist())))
    figure = curve(PlotSettings((run,)))
    assert legend(figure, 0) == ['one batch', 'mean of 601 batches']
    points = drawn(figure)[0]['one batch']
    assert len(points) <= 4000 and points == sorted(points)
    assert (12_345, 7) in points and (23_456, 1) in points


def test_mistakes_of_asking_are_named(run: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'--output=curve\.pdf: expected .*\.png or \.svg'):
        cifar10_plot.plot(PlotSettings(output='curve.pdf'))
    nothing = write_history(tmp_path / 'none')
    with pytest.raises(UserError, match=r'none: found no history\.jsonl with a loss'):
        cifar10_plot.plot(PlotSettings((nothing,)))
    with pytest.raises(UserError, match=r'--table=runs\.txt: expected .*\.csv, \.json or \.html'):
        cifar10_plot.plot(PlotSettings((run,), table='runs.txt'))
    with pytest.raises(UserError, match=r'--table=runs\.csv: --plot=filters has none'):
        cifar10_plot.plot(PlotSettings((run,), plot='filters', table='runs.csv'))
    other = write_history(tmp_path / 'other', trained(1, 4.0))
    with pytest.raises(UserError, match=r'--plot=filters: found 2 runs; expected one'):
        cifar10_plot.plot(PlotSettings((run, other), plot='filters'))
    with pytest.raises(UserError, match=r'--train_dir=other: found .*a_train as well'):
        cifar10_plot.plot(PlotSettings((run,), train_dir='other'))
    beyond = str(tmp_path / 'none' / 'none' / 'c.png')
    with pytest.raises(UserError, match=r'c\.png: its folder is missing'):
        cifar10_plot.plot(PlotSettings((run,), output=beyond))


@pytest.mark.parametrize('value', ['NaN', 'Infinity', '"low"', 'null', 'true', '1' + 400 * '0'])
def test_a_history_without_a_number_where_one_should_be_is_named(
    tmp_path: Path, value: str
) -> None:
    (tmp_path / 'history.jsonl').write_text(f'{{"step": 3, "loss": {value}}}\n')
    with pytest.raises(UserError, match=r'history\.jsonl: step 3: found loss .*expected a number'):
        curve(PlotSettings((str(tmp_path),)))


def test_evaluations_alone_have_no_time(tmp_path: Path) -> None:
    run = write_history(tmp_path / 'run', scored(3, 0.5))
    with pytest.raises(UserError, match=r'run/history\.jsonl: step 3: found no seconds, nor'):
        curve(PlotSettings((run,), x='time'))


# ------------------------------------------------------------------- other pictures


def test_filters_are_scaled_each_by_its_own_largest_weight() -> None:
    weights = np.zeros([5, 5, 3, 8], np.float32)
    for number in range(7):
        weights[0, 0, :, number] = 10.0**number
        weights[1, 1, :, number] = -(10.0**number) / 2
    figure = cifar10_plot.figures.draw_filters(weights, 'filters')
    pictures = [np.array(image.get_array()) for image in figure.axes[0].images]
    assert len(pictures) == 8
    for picture in pictures[:7]:
        np.testing.assert_allclose(picture[[0, 1, 2], [0, 1, 2], 0], [1, 0.25, 0.5])
    assert (pictures[7] == 0.5).all()


def test_the_newest_checkpoints_averages_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    monkeypatch.setattr(
        cifar10_plot.figures, 'draw_filters', lambda *arguments: found.append(arguments)
    )
    for averages in (False, True):
        with tf.Graph().as_default(), tf.Session() as session:
            tf.get_variable('conv1/weights', initializer=np.ones([5, 5, 3, 4], np.float32))
            if averages:
                average = np.full([5, 5, 3, 4], 2, np.float32)
                tf.get_variable('conv1/weights/ExponentialMovingAverage', initializer=average)
            session.run(tf.global_variables_initializer())
            tf.train.Saver().save(
                session, str(tmp_path / 'model.ckpt'), global_step=1000 + averages
            )
        cifar10_plot.filters(Subject(PlotSettings(train_dir=str(tmp_path))))
    assert [float(weights.mean()) for weights, _ in found] == [1, 2]
    assert found[1][1] == "The first layer's filters at step 1,001"


@pytest.mark.parametrize('kind', ['filters', 'confusion', 'saliency'])
def test_what_a_network_sees_needs_a_checkpoint(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UserError, match='found no checkpoint'):
        cifar10_plot.plot(PlotSettings(train_dir=str(tmp_path), plot=kind))


def test_classes_are_counted(records: Path) -> None:
    settings = PlotSettings(data_dir=str(records), train_dir=str(records))
    figure = cifar10_plot.classes(Subject(settings))
    shown = [[bar.get_width() for bar in axes.containers[0]] for axes in figure.axes]
    train = [np.fromfile(path, np.uint8)[::3073] for path in sorted(records.glob('data_batch_*'))]
    test = np.fromfile(records / 'test_batch.bin', np.uint8)[::3073]
    expected = [np.bincount(labels, minlength=10) for labels in (np.concatenate(train), test)]
    assert shown == [counts.tolist() for counts in expected]


@pytest.fixture(scope='module')
def checkpoint_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(Path(save_network(tmp_path_factory.mktemp('trained'))).parent)


def test_confusion_and_mistakes_are_those_of_the_evaluation(
    checkpoint_dir: str, records: Path
) -> None:
    checkpoint = f'{checkpoint_dir}/model.ckpt-7'
    for eval_data, num_images in (('test', 25), ('train_eval', 60)):
        settings = PlotSettings((checkpoint_dir,), data_dir=str(records), eval_data=eval_data)
        evaluator = Evaluator(str(records), cifar10.NETWORKS['tutorial'], num_images, eval_data)
        probabilities, labels = evaluator.probabilities(open_checkpoint(checkpoint))
        guesses = probabilities.argmax(axis=1)
        result = evaluator.evaluate(open_checkpoint(checkpoint))

        figure = cifar10_plot.confusion(Subject(settings))
        cells = np.array([int(text.get_text()) for text in figure.axes[0].texts[:100]])
        expected = np.zeros([10, 10], int)
        np.add.at(expected, (labels, guesses), 1)
        np.testing.assert_array_equal(cells.reshape(10, 10), expected)
        assert f'step 7\nprecision @ 1 = {result.precision:.3f}' in figure.get_suptitle()

        first = cifar10_plot.mistakes(Subject(settings)).axes[0]
        wrong = np.where(guesses != labels, probabilities.max(axis=1), 0)
        place = int(wrong.argmax())
        assert first.texts[0].get_text() == (
            f'true: {CIFAR10_CLASS_NAMES[labels[place]]}\n'
            f'predicted: {CIFAR10_CLASS_NAMES[guesses[place]]} {wrong.max():.1%}'
        )
        data = b''.join(
            path.read_bytes()
            for path in sorted(records.glob('test_*' if eval_data == 'test' else 'data_*'))
        )
        image = np.frombuffer(data, np.uint8).reshape(-1, 3073)[place, 1:].reshape(3, 32, 32)
        np.testing.assert_array_equal(first.images[0].get_array(), image.transpose(1, 2, 0))


def test_a_network_without_mistakes_has_none_to_draw(
    checkpoint_dir: str, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.arange(10, dtype=np.int32)
    perfect = Scored(Result(7, 10, 10, 0.0), np.eye(10, dtype=np.float32), labels)
    monkeypatch.setattr(Subject, 'scored', perfect)
    for kind in ('mistakes', 'saliency', 'grad_cam'):
        settings = PlotSettings((checkpoint_dir,), plot=kind, data_dir=str(records))
        pattern = f'--plot={kind}: found no mistakes among 10 images at step 7'
        with pytest.raises(UserError, match=pattern):
            cifar10_plot.PLOTS[kind](Subject(settings))


def check_picture(path: Path) -> None:
    """Raises if a file is no picture, or an empty one."""
    if path.suffix == '.svg':
        root = ElementTree.parse(path).getroot()
        assert root.tag.endswith('svg') and len(list(root.iter())) > 50
    else:
        picture = matplotlib.image.imread(path)
        assert min(picture.shape[:2]) > 300 and picture.std() > 0.05


@pytest.mark.parametrize('ending', ['png', 'svg'])
def test_each_kind_of_picture_is_written_under_its_name(
    records: Path,
    run: str,
    checkpoint_dir: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in cifar10_plot.PLOTS:
        folder = run if kind == 'curve' else checkpoint_dir
        settings = PlotSettings((folder,), plot=kind, data_dir=str(records))
        if kind == 'kernels':
            Image.fromarray(np.eye(9, 7, dtype=np.uint8)).save('eye.png')
            settings = PlotSettings(plot=kind, picture='eye.png')
        output = f'cifar10_{kind}.{ending}'
        if kind == 'layers':
            # Printed, and drawn only where a picture is asked for.
            cifar10_plot.plot(settings)
            assert not (tmp_path / output).exists()
        if ending != 'png' or kind == 'layers':
            settings = dataclasses.replace(settings, output=output)
        cifar10_plot.plot(settings)
        check_picture(tmp_path / output)


def test_all_figures_of_a_run_are_drawn_in_one_start(
    records: Path, checkpoint_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = PlotSettings((checkpoint_dir,), plot='all', data_dir=str(records))
    settings = dataclasses.replace(settings, output=str(tmp_path / 'figures'))
    cifar10_plot.plot(settings)
    expected = set(cifar10_plot.PLOTS) - {'curve', 'kernels'}
    assert {path.stem for path in (tmp_path / 'figures').iterdir()} == expected
    for path in (tmp_path / 'figures').iterdir():
        check_picture(path)
    # There is no history.
    assert capsys.readouterr().err.startswith('Left out: curve: ')


@pytest.mark.parametrize('kind', ['feature_maps', 'saliency', 'grad_cam'])
def test_a_picture_of_ones_own_is_looked_into(
    checkpoint_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, [50, 70, 3], np.uint8)
    Image.fromarray(pixels).save('own.png')
    settings = PlotSettings((checkpoint_dir,), plot=kind, picture='own.png')
    cifar10_plot.plot(settings)
    check_picture(tmp_path / f'cifar10_{kind}.png')
    figure = cifar10_plot.PLOTS[kind](Subject(settings))
    assert figure and 'own.png at step 7' in figure.get_suptitle()
    with pytest.raises(UserError, match='--picture=own.png: --plot=filters takes none'):
        cifar10_plot.plot(dataclasses.replace(settings, plot='filters'))
    with pytest.raises(UserError, match='no.png: '):
        cifar10_plot.plot(dataclasses.replace(settings, picture='no.png'))


def test_a_kernel_needs_a_picture(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='--plot=kernels: expected a --picture=FILE'):
        cifar10_plot.plot(PlotSettings(plot='kernels', output=str(tmp_path / 'k.png')))
