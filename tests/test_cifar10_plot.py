"""Pictures of a run, from its summaries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from matplotlib.patches import Rectangle

import cifar10_plot
from cifar10_plot import PlotSettings
from cifar10_settings import UserError


def write_summaries(directory: Path, tag: str, values: dict[int, float], suffix: str = '') -> None:
    with tf.Graph().as_default():
        writer = tf.summary.FileWriter(str(directory), filename_suffix=suffix)
    for step, value in values.items():
        summary = tf.Summary(value=[tf.Summary.Value(tag=tag, simple_value=value)])
        writer.add_summary(summary, step)
    writer.close()


@pytest.fixture
def run_dirs(tmp_path: Path) -> PlotSettings:
    for tag in ('total_loss/raw', 'total_loss/average'):
        write_summaries(tmp_path / 'train', tag, {1: 4.5, 100: 3.0, 200: 2.5}, tag[-3:])
    write_summaries(tmp_path / 'eval', 'Precision @ 1', {100: 0.5, 200: 0.625})
    return PlotSettings(str(tmp_path / 'train'), str(tmp_path / 'eval'), str(tmp_path / 'c.png'))


def test_a_step_taken_twice_counts_once(tmp_path: Path) -> None:
    write_summaries(tmp_path, 'loss', {1: 4.0, 2: 3.0, 3: 2.0}, '.a')
    write_summaries(tmp_path, 'loss', {2: 3.5, 3: 2.5, 4: 1.5}, '.b')
    curve = cifar10_plot.read_scalars(str(tmp_path), ('loss',))['loss']
    assert curve == {1: 4.0, 2: 3.5, 3: 2.5, 4: 1.5} and list(curve) == [1, 2, 3, 4]


def test_the_figure_shows_the_values() -> None:
    figure = cifar10_plot.draw_curve({1: 4.5, 9: 3.0}, {1: 4.4, 9: 3.3}, {9: 0.625}, 'run')
    left, right = figure.axes
    assert [np.array(line.get_ydata()).tolist() for line in left.lines] == [[4.5, 3.0], [4.4, 3.3]]
    assert (
        np.array(right.lines[0].get_xdata()).tolist() == [9]
        and right.texts[0].get_text() == '0.625'
    )


@pytest.mark.parametrize(('ending', 'magic'), [('.png', b'\x89PNG'), ('.svg', b'<?xml')])
def test_the_picture_is_written(run_dirs: PlotSettings, ending: str, magic: bytes) -> None:
    output = Path(run_dirs.output).with_suffix(ending)
    cifar10_plot.plot(PlotSettings(run_dirs.train_dir, run_dirs.eval_dir, str(output)))
    assert output.read_bytes().startswith(magic)


def test_mistakes_are_named(run_dirs: PlotSettings, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'--output=curve\.pdf: expected .*\.png or \.svg'):
        cifar10_plot.plot(PlotSettings(output='curve.pdf'))
    with pytest.raises(UserError, match=r"no summary of 'total_loss/raw' in 0 event files"):
        cifar10_plot.plot(PlotSettings(train_dir=str(tmp_path / 'none')))
    beyond = str(tmp_path / 'none' / 'c.png')
    with pytest.raises(UserError, match=r'c\.png: cannot be written'):
        cifar10_plot.plot(PlotSettings(run_dirs.train_dir, run_dirs.eval_dir, beyond))


def test_an_event_file_that_breaks_off_is_drawn_as_far_as_it_goes(
    run_dirs: PlotSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    (events,) = Path(run_dirs.eval_dir).iterdir()
    before = cifar10_plot.read_scalars(run_dirs.eval_dir, ('Precision @ 1',))['Precision @ 1']
    events.write_bytes(events.read_bytes()[:-5])
    after = cifar10_plot.read_scalars(run_dirs.eval_dir, ('Precision @ 1',))['Precision @ 1']
    assert list(after.items()) == list(before.items())[:-1] and len(after) > 0
    assert f'{events.name}: breaks off' in capsys.readouterr().err


# ------------------------------------------------------------------- other pictures


def test_filters_are_scaled_each_by_its_own_largest_weight() -> None:
    weights = np.zeros([5, 5, 3, 7], np.float32)
    for number in range(7):
        weights[0, 0, :, number] = 10.0**number
        weights[1, 1, :, number] = -(10.0**number) / 2
    figure = cifar10_plot.draw_filters(weights, 'filters')
    pictures = [np.array(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    assert len(pictures) == 7
    for picture in pictures:
        np.testing.assert_allclose(picture[[0, 1, 2], [0, 1, 2], 0], [1, 0.25, 0.5])


def test_the_newest_checkpoints_averages_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(cifar10_plot, 'draw_filters', lambda *arguments: drawn.append(arguments))
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
        cifar10_plot.filters(PlotSettings(train_dir=str(tmp_path)))
    assert [float(weights.mean()) for weights, _ in drawn] == [1, 2]
    assert drawn[1][1] == "The first layer's filters at step 1,001"


def test_filters_need_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='found no checkpoint'):
        cifar10_plot.filters(PlotSettings(train_dir=str(tmp_path)))


def test_distortions_are_those_of_the_first_images(
    records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list = []
    monkeypatch.setattr(
        cifar10_plot, 'draw_distortions', lambda *arguments: drawn.extend(arguments)
    )
    cifar10_plot.distortions(PlotSettings(data_dir=str(records), train_dir=str(records)))
    images, distorted, names, _ = drawn
    assert images[:, 0, 0, 0].tolist() == list(range(6))
    assert distorted.shape == (6, 8, 24, 24, 3)
    data = np.fromfile(records / 'data_batch_1.bin', np.uint8).reshape(-1, 3073)
    assert names == [str(label) for label in data[:6, 0]]
    # Standardised, and no two versions the same.
    np.testing.assert_allclose(distorted.mean(axis=(2, 3, 4)), 0, atol=1e-5)
    assert len({version.tobytes() for version in distorted.reshape(48, -1)}) == 48


def test_classes_are_counted(records: Path) -> None:
    figure = cifar10_plot.classes(PlotSettings(data_dir=str(records), train_dir=str(records)))
    axes = figure.axes[0]
    counts = [round(bar.get_bbox().width) for bar in axes.patches if isinstance(bar, Rectangle)]
    train = [np.fromfile(path, np.uint8)[::3073] for path in sorted(records.glob('data_batch_*'))]
    test = np.fromfile(records / 'test_batch.bin', np.uint8)[::3073]
    expected = [np.bincount(labels, minlength=10) for labels in (np.concatenate(train), test)]
    assert counts == np.concatenate(expected).tolist()


@pytest.mark.parametrize('kind', ['distortions', 'classes'])
def test_each_kind_of_picture_is_written_under_its_name(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    cifar10_plot.plot(PlotSettings(plot=kind, data_dir=str(records)))
    assert (tmp_path / f'cifar10_{kind}.png').read_bytes().startswith(b'\x89PNG')
