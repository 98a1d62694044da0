"""Predictions of pictures, compared with what evaluation says of the same records."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

import cifar10
import cifar10_eval
import cifar10_predict
from cifar10_eval import EvalSettings
from cifar10_lib.base.errors import UserError
from cifar10_lib.data import record_files
from cifar10_lib.data.framing import Framing
from cifar10_lib.data.record_files import CIFAR10_CLASS_NAMES
from cifar10_lib.evaluation.evaluator import Evaluator, Predictor
from cifar10_lib.runs.run_folder import RunFolder
from cifar10_predict import PredictSettings
from tests.helpers.runs import save_network
from tests.helpers.scripts import Script

NETWORK = cifar10.NETWORKS['tutorial']


def save_pictures(directory: Path, record_file: Path) -> list[str]:
    """One PNG for each record, in the order of the file; their paths."""
    images = np.fromfile(record_file, np.uint8).reshape(-1, 3073)[:, 1:].reshape(-1, 3, 32, 32)
    paths = [str(directory / f'{i}.png') for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(path)
    return paths


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_network(tmp_path_factory.mktemp('trained'))


@pytest.mark.parametrize('num_views', [1, 6, 10])
def test_pictures_of_records_are_predicted_as_evaluation_does(
    checkpoint: str,
    records: Path,
    tmp_path: Path,
    num_views: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # So that the 25 pictures are read in three parts.
    monkeypatch.setattr(cifar10_predict, 'BATCH_SIZE', 10)
    evaluator = Evaluator(str(records), NETWORK, 25, num_views=num_views)
    expected, _ = evaluator.probabilities(checkpoint)
    assert np.ptp(expected, axis=0).max() > 0.1

    unreadable: list[str] = []
    paths = save_pictures(tmp_path, records / 'test_batch.bin')
    asked = [*paths[:7], 'missing.png', *paths[7:], paths[0]]
    predictor = Predictor(checkpoint, NETWORK, num_views)
    pictures = cifar10_predict.read_files(asked, Framing(), unreadable, draws=True)
    found = list(cifar10_predict.predictions(predictor, pictures))
    assert [prediction.picture.name for prediction in found] == [*paths, paths[0]]
    assert found[0].picture.drawn.shape == (192, 192, 3)
    assert unreadable == ['missing.png']
    probabilities = np.stack([prediction.probabilities for prediction in found])
    np.testing.assert_allclose(probabilities, [*expected, expected[0]], atol=1e-5)


def test_views_are_ten_pictures_averaged(checkpoint: str, records: Path) -> None:
    """Shifted by hand, each view is the central square of another picture."""
    image = np.fromfile(records / 'test_batch.bin', np.uint8)[1:3073].reshape(3, 32, 32)
    image = image.transpose(1, 2, 0)
    shifts = [(0, 0), (4, 4), (4, -4), (-4, 4), (-4, -4)]
    shifted = [np.roll(image, shift, axis=(0, 1)) for shift in shifts]
    views = np.stack([*shifted, *(view[:, ::-1] for view in shifted)])
    of_views = Predictor(checkpoint, NETWORK).probabilities(views)
    averaged = Predictor(checkpoint, NETWORK, num_views=10).probabilities(image[np.newaxis])
    assert np.abs(of_views - of_views[0]).max() > 0.01
    np.testing.assert_allclose(averaged[0], of_views.mean(axis=0), atol=1e-6)


def test_eval_averages_views(
    checkpoint: str, records: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    settings = EvalSettings(
        eval_dir=str(tmp_path),
        checkpoint_dir=str(Path(checkpoint).parent),
        data_dir=str(records),
        num_examples=25,
        run_once=True,
        views='10',
    )
    evaluator = Evaluator(str(records), NETWORK, 25, num_views=10)
    probabilities, labels = evaluator.probabilities(checkpoint)
    precision = (probabilities.argmax(axis=1) == labels).mean()
    cifar10_eval.evaluate(settings)
    line = capsys.readouterr().out
    assert f'= {precision:.3f} (step 7, 25 images) [averaged over 10 views]\n' in line


def test_weights_serve_where_there_are_no_averages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Predictor(save_network(tmp_path, averages=False), NETWORK)
    assert 'hold no moving averages' in capsys.readouterr().err


def test_another_number_of_classes(tmp_path: Path) -> None:
    predictor = Predictor(save_network(tmp_path, num_classes=2), NETWORK)
    assert predictor.probabilities(np.zeros([3, 32, 32, 3], np.uint8)).shape == (3, 2)


# ------------------------------------------------------------------ names of classes


def class_names_for(directory: Path, data_dir: Path | None = None) -> list[str]:
    return RunFolder.open(str(directory)).class_names(str(data_dir) if data_dir else None)


def test_names_come_from_the_data_that_training_used(tmp_path: Path, synthetic_data: Path) -> None:
    save_network(tmp_path / 'run', dataset='synthetic', data_dir=str(synthetic_data))
    assert class_names_for(tmp_path / 'run')[:2] == ['disc', 'ring']
    below = tmp_path / 'data' / 'cifar-10-batches-bin'
    below.mkdir(parents=True)
    (below / 'batches.meta.txt').write_text('\n'.join('abcdefghij') + '\n\n')
    save_network(tmp_path / 'other', dataset='cifar10', data_dir=str(tmp_path / 'data'))
    assert class_names_for(tmp_path / 'other') == list('abcdefghij')
    assert class_names_for(tmp_path / 'other', data_dir=below) == list('abcdefghij')
    save_network(tmp_path / 'two', 2, dataset='cifar10', data_dir=str(tmp_path / 'data'))
    with pytest.raises(UserError, match='found 10 class names; expected 2'):
        class_names_for(tmp_path / 'two')


def test_names_where_the_data_is_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_network(tmp_path, dataset='cifar10', data_dir=str(tmp_path / 'gone'))
    assert class_names_for(tmp_path) == list(CIFAR10_CLASS_NAMES)
    assert capsys.readouterr().err == ''
    save_network(tmp_path / 'three', 3, dataset='cifar10', data_dir=str(tmp_path / 'gone'))
    assert class_names_for(tmp_path / 'three') == ['0', '1', '2']
    assert 'found no batches.meta.txt' in capsys.readouterr().err
    with pytest.raises(UserError, match='--data_dir=.*: found no batches.meta.txt'):
        class_names_for(tmp_path, data_dir=tmp_path)


def test_published_names_are_those_of_the_published_files(real_data: str) -> None:
    assert record_files.read_class_names(real_data) == list(CIFAR10_CLASS_NAMES)


# ------------------------------------------------------------------------ the script


def test_the_script_names_skips_draws_and_continues(
    run_script: Script, checkpoint: str, records: Path, tmp_path: Path
) -> None:
    paths = save_pictures(tmp_path, records / 'test_batch.bin')[:2]
    (tmp_path / 'notes.txt').write_text('no picture')
    folder = f'--checkpoint_dir={Path(checkpoint).parent}'
    # Flags between the pictures, as a shell's patterns leave them.
    result = run_script(
        'cifar10_predict.py', paths[0], 'notes.txt', folder, '--output=out.png', paths[1]
    )
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    classes = '|'.join(CIFAR10_CLASS_NAMES)
    for path, line in zip(paths, lines, strict=True):
        assert re.fullmatch(rf'{re.escape(path)}: (?:({classes}) 0\.\d{{3}}(, |$)){{3}}', line)
    assert 'Skipped: notes.txt: not a picture' in result.stderr
    assert 'cifar10_predict.py: error: 1 of 3 pictures were skipped' in result.stderr
    assert 'Traceback' not in result.stderr
    assert Image.open(tmp_path / 'out.png').size[0] >= 500


def test_json_holds_the_same_numbers(
    checkpoint: str, records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = save_pictures(tmp_path, records / 'test_batch.bin')[:3]
    folder = str(Path(checkpoint).parent)
    cifar10_predict.predict(PredictSettings(tuple(paths), folder, format='json'))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line['file'] for line in lines] == paths
    expected, _ = Evaluator(str(records), NETWORK, 3).probabilities(checkpoint)
    for line, probabilities in zip(lines, expected, strict=True):
        labels = [entry['label'] for entry in line['top']]
        assert labels == np.argsort(-probabilities)[:3].tolist()
        assert [e['class'] for e in line['top']] == [CIFAR10_CLASS_NAMES[i] for i in labels]
        found = [entry['probability'] for entry in line['top']]
        np.testing.assert_allclose(found, probabilities[labels], atol=1e-5)


def test_the_drawing_shows_pictures_and_probabilities(checkpoint: str, records: Path) -> None:
    probabilities = np.array([0.5, 0.3, 0.2], np.float32)
    pixels, drawn = np.zeros([32, 32, 3], np.uint8), np.full([192, 192, 3], 9, np.uint8)
    some = [
        cifar10_predict.Prediction(
            cifar10_predict.Picture(f'a/{i}.png', pixels, drawn), probabilities
        )
        for i in range(7)
    ]
    figure = cifar10_predict.draw(some, ['ant', 'bee', 'cow'], 'title', seen=24 / 32)
    shown = [axes for axes in figure.axes if axes.axison or axes.images]
    assert len(shown) == 14
    left, right = shown[:2]
    assert (np.asarray(left.images[0].get_array()) == 9).all()
    # The central 24 of 32 pixels.
    frame = left.patches[-1]
    assert isinstance(frame, Rectangle) and frame.get_bbox().bounds == (24, 24, 144, 144)
    unframed = cifar10_predict.draw(some, ['ant', 'bee', 'cow'], 'title')
    assert len(unframed.axes[0].patches) == 0
    assert [text.get_text() for text in right.texts] == ['50.0%', '30.0%', '20.0%']
    assert [label.get_text() for label in right.get_yticklabels()] == ['ant', 'bee', 'cow']
    assert right.get_title(loc='left') == '0.png'


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'pictures': ()}, 'found no picture to classify; for example: python cifar10_predict.py'),
        (
            {'output': 'a.pdf'},
            r'--output=a\.pdf: .* ends in \.png, \.svg or \.csv',
        ),
        (
            {'output': 'b.png', 'pictures': ('a.png',) * 61},
            '--output=b.png: found 61 pictures to draw; expected at most 60',
        ),
        ({'checkpoint_dir': 'nowhere'}, '--checkpoint_dir=nowhere: found no checkpoint'),
    ],
)
def test_mistakes_are_named(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cifar10_predict.predict(PredictSettings(**{'pictures': ('a.png',), **options}))


def test_a_drawing_that_cannot_be_written_is_named(
    checkpoint: str, records: Path, tmp_path: Path
) -> None:
    paths = save_pictures(tmp_path, records / 'test_batch.bin')[:1]
    output = str(tmp_path / 'nowhere' / 'a.png')
    settings = PredictSettings(tuple(paths), str(Path(checkpoint).parent), output=output)
    with pytest.raises(UserError, match=r'nowhere/a\.png: cannot be written'):
        cifar10_predict.predict(settings)
