"""Images of another size than CIFAR-10's, from pictures to export and report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import cifar10_eval
import cifar10_export
import cifar10_plot
import cifar10_predict
import cifar10_train
from cifar10_eval import EvalSettings
from cifar10_lib.base.errors import UserError
from cifar10_lib.data.framing import Framing
from cifar10_lib.data.sources.base import Options
from cifar10_lib.runs.run_folder import RunFolder
from cifar10_train import OneDeviceTrainSettings
from tests.helpers.data_sets import convert, save

SIZE = 48


@pytest.fixture(scope='module', params=['tutorial', 'small_cnn'])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, a data set of 48 x 48 pixels, and a run of two steps on it."""
    folder = tmp_path_factory.mktemp('run')
    for label, name in enumerate(('a', 'b')):
        save(folder / 'in' / name, label, range(20))
    convert(folder / 'in', folder / 'data', options=Options(Framing(SIZE, 'pad')))
    cifar10_train.train(
        OneDeviceTrainSettings(
            train_dir=str(folder / 'train'),
            data_dir=str(folder / 'data'),
            model=request.param,
            batch_size=8,
            max_steps=2,
        )
    )
    return folder


def test_all_scripts_follow_the_size(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = RunFolder.open(str(run / 'train'))
    assert opened.framing == Framing(SIZE, 'pad')
    seen = {'tutorial': 36, 'small_cnn': 48}[opened.model]

    report = str(tmp_path / 'report')
    cifar10_eval.evaluate(
        EvalSettings(str(tmp_path / 'eval'), str(run / 'train'), run_once=True, report=report)
    )
    assert 'precision @ 1 = ' in capsys.readouterr().out
    assert (tmp_path / 'report' / 'index.html').exists()

    output = str(tmp_path / 'export')
    cifar10_export.export(cifar10_export.ExportSettings(output, str(run / 'train'), eval=True))
    metadata = json.loads((tmp_path / 'export' / 'metadata.json').read_text())
    assert metadata['input']['shape'] == ['batch', SIZE, SIZE, 3]
    assert metadata['preprocessing']['crop']['height'] == seen
    assert metadata['preprocessing']['framing'] == {
        'size': SIZE,
        'fit': 'pad',
        'invert': False,
        'inner': 0,
    }
    assert 'longer side has 48 pixels' in metadata['preprocessing']['outside_the_model']
    model = tf.saved_model.load(f'{output}/saved_model/1').signatures['serving_default']
    images = tf.constant(np.zeros([1, SIZE, SIZE, 3], np.uint8))
    assert model(images=images)['probabilities'].shape == (1, 2)

    picture = str(run / 'in' / 'a' / '0.png')
    cifar10_predict.predict(
        cifar10_predict.PredictSettings(
            (picture,), str(run / 'train'), output=str(tmp_path / 'x.png')
        )
    )
    assert f'{picture}: ' in capsys.readouterr().out

    for plot in ('distortions', 'mistakes', 'classes'):
        settings = cifar10_plot.PlotSettings(
            (str(run / 'train'),), output=str(tmp_path / f'{plot}.png'), plot=plot
        )
        try:
            cifar10_plot.plot(settings)
        except UserError as error:
            assert 'found none among' in str(error)


def test_data_of_another_size_is_refused(run: Path, tmp_path: Path) -> None:
    convert(run / 'in', tmp_path / 'data')
    settings = EvalSettings(
        str(tmp_path / 'eval'), str(run / 'train'), data_dir=str(tmp_path / 'data'), run_once=True
    )
    with pytest.raises(UserError, match='data: holds images of 32 pixels; .* on images of 48'):
        cifar10_eval.evaluate(settings)
