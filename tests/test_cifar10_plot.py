"""Pictures of a run, from its summaries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

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
    figure = cifar10_plot.draw({1: 4.5, 9: 3.0}, {1: 4.4, 9: 3.3}, {9: 0.625}, 'run')
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
