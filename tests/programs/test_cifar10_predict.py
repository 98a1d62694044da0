"""Predictions of pictures, compared with what evaluation says of the same records."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

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
from cifar10_lib.runs.checkpoints import open_checkpoint
from cifar10_lib.runs.run_folder import RunFolder
from cifar10_predict import PredictSettings
from tests.helpers.data_sets import DIGITS, digits_csv
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
    expected, _ = evaluator.probabilities(open_checkpoint(checkpoint))
    assert np.ptp(expected, axis=0).max() > 0.1

    unreadable: list[str] = []
    paths = save_pictures(tmp_path, records / 'test_batch.bin')
    asked = [*paths[:7], 'missing.png', *paths[7:], paths[0]]
    predictor = Predictor(open_checkpoint(checkpoint), NETWORK, num_views)
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
    of_views = Predictor(open_checkpoint(checkpoint), NETWORK).probabilities(views)
    averaged = Predictor(open_checkpoint(checkpoint), NETWORK, num_views=10).probabilities(
        image[np.newaxis]
    )
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
    probabilities, labels = evaluator.probabilities(open_checkpoint(checkpoint))
    precision = (probabilities.argmax(axis=1) == labels).mean()
    cifar10_eval.evaluate(settings)
    line = capsys.readouterr().out
    assert f'= {precision:.3f} (step 7, 25 images) [averaged over 10 views]\n' in line


def test_weights_serve_where_there_are_no_averages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Predictor(open_checkpoint(save_network(tmp_path, averages=False)), NETWORK)
    assert 'hold no moving averages' in capsys.readouterr().err


def test_another_number_of_classes(tmp_path: Path) -> None:
    predictor = Predictor(open_checkpoint(save_network(tmp_path, num_classes=2)), NETWORK)
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
    expected, _ = Evaluator(str(records), NETWORK, 3).probabilities(open_checkpoint(checkpoint))
    for line, probabilities in zip(lines, expected, strict=True):
        labels = [entry['label'] for entry in line['top']]
        assert labels == np.argsort(-probabilities)[:3].tolist()
        assert [e['class'] for e in line['top']] == [CIFAR10_CLASS_NAMES[i] for i in labels]
        found = [entry['probability'] for entry in line['top']]
        np.testing.assert_allclose(found, probabilities[labels], atol=1e-5)


def predict(checkpoint: str, *pictures: object, **options: Any) -> None:
    folder = str(Path(checkpoint).parent)
    cifar10_predict.predict(PredictSettings(tuple(map(str, pictures)), folder, **options))


def test_folders_and_patterns_are_pictures(
    checkpoint: str, records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ('a/b', 'a/@eaDir', 'c[1]'):
        (tmp_path / folder).mkdir(parents=True)
    paths = save_pictures(tmp_path / 'a' / 'b', records / 'test_batch.bin')
    (tmp_path / 'a' / '@eaDir' / 'x.png').touch()
    (tmp_path / 'a' / 'notes.txt').touch()
    odd = shutil.copy(paths[0], tmp_path / 'c[1]' / 'x\x1b[2J.png')
    predict(checkpoint, tmp_path / 'a', tmp_path / 'a' / '**' / '1?.png', odd)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(': ')[0] for line in lines] == [
        *sorted(paths),
        *(
            path
            for path in sorted(paths)
            if Path(path).name[0] == '1' and len(Path(path).name) == 6
        ),
        f'{tmp_path}/c[1]/x\\x1b[2J.png',
    ]
    with pytest.raises(UserError, match=r'none/\*\.png: found no pictures'):
        predict(checkpoint, tmp_path / 'none' / '*.png')
    with pytest.raises(UserError, match=r'@eaDir: found no pictures|c: found no pictures'):
        (tmp_path / 'c').mkdir()
        predict(checkpoint, tmp_path / 'c')


def test_a_test_image_is_classified_by_its_number(
    checkpoint: str, records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, labels = Evaluator(str(records), NETWORK, 25).probabilities(
        open_checkpoint(checkpoint)
    )
    predict(
        checkpoint, index=7, data_dir=str(records), output=str(tmp_path / 'x.png'), format='json'
    )
    line = json.loads(capsys.readouterr().out)
    assert (line['file'], line['truth']) == ('test image 7', CIFAR10_CLASS_NAMES[labels[7]])
    assert line['top'][0]['label'] == expected[7].argmax()
    assert (tmp_path / 'x.png').exists()
    predict(checkpoint, index=7, data_dir=str(records))
    truth = CIFAR10_CLASS_NAMES[labels[7]]
    assert capsys.readouterr().out.startswith(f'test image 7 ({truth}): ')
    with pytest.raises(UserError, match='--index=25: .*test_batch.bin holds the images 0 to 24'):
        predict(checkpoint, index=25, data_dir=str(records))
    with pytest.raises(UserError, match='--index=1: found x.png as well'):
        predict(checkpoint, 'x.png', index=1)


def test_rows_of_digits_become_a_submission(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = dataclasses.asdict(Framing(inner=28))
    checkpoint = save_network(tmp_path / 'run', framing=inner, dataset='own')
    (tmp_path / 'test.csv').write_bytes(digits_csv('test', labelled=False))
    predict(checkpoint, tmp_path / 'test.csv', output=str(tmp_path / 'submission.csv'))
    images, _ = DIGITS['test']
    padded = np.repeat(np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., np.newaxis], 3, axis=3)
    labels = Predictor(open_checkpoint(checkpoint), NETWORK).probabilities(padded).argmax(axis=1)
    expected = [f'{number},{label}' for number, label in enumerate(labels, 1)]
    lines = (tmp_path / 'submission.csv').read_text().splitlines()
    assert lines == ['ImageId,Label', *expected] and capsys.readouterr().out == ''
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f'{number}.png')
    # Pictures of digits stand in the middle as the rows do.
    predict(checkpoint, tmp_path / '?.png', output=str(tmp_path / 'table.csv'))
    lines = (tmp_path / 'table.csv').read_text().splitlines()
    assert lines[0] == 'file,class' and [line[-1] for line in lines[1:]] == [*map(str, labels)]


def test_a_picture_is_never_overwritten(checkpoint: str, records: Path, tmp_path: Path) -> None:
    (path, *_) = save_pictures(tmp_path, records / 'test_batch.bin')
    before = Path(path).read_bytes()
    with pytest.raises(UserError, match='--output=.*0.png: is also read; name another file'):
        predict(checkpoint, path, output=path)
    with pytest.raises(UserError, match='--output=.*new.png: lies within .*, which is read'):
        predict(checkpoint, tmp_path, output=str(tmp_path / 'new.png'))
    assert Path(path).read_bytes() == before


def test_fit_and_invert_change_what_the_network_sees(tmp_path: Path) -> None:
    run = Framing(inner=0, fit='pad')
    frame = cifar10_predict.frame
    settings = PredictSettings(('x',))
    assert frame(settings, run, NETWORK) == run
    changed = dataclasses.replace(settings, fit='stretch', invert=True)
    assert frame(changed, run, NETWORK) == Framing(32, 'stretch', True)
    # A network of digits sees 28 of 32 pixels.
    digits = cifar10.NETWORKS['mnist_cnn']
    assert frame(settings, Framing(), digits).inner == 28
    assert frame(settings, Framing(64), digits.of_size(64)).inner == 56


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
    only = cifar10_predict.draw(some, ['ant', 'bee', 'cow'], 'title', top=1).axes[1]
    assert [text.get_text() for text in only.texts] == ['50.0%']


def test_as_many_classes_are_shown_as_are_asked_for() -> None:
    prediction = cifar10_predict.Prediction(
        cifar10_predict.Picture('a.png', np.empty(0), np.empty(0)),
        np.array([0.125, 0.5, 0.375], np.float32),
    )
    names = ['ant', 'bee', 'cow']
    for top, expected in ((1, 'bee 0.500'), (2, 'bee 0.500, cow 0.375')):
        assert cifar10_predict._line(prediction, names, 'text', top) == f'a.png: {expected}'
    # There are no more.
    assert prediction.top(10) == [1, 2, 0]


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
    with pytest.raises(UserError, match=r'nowhere/a\.png: its folder is missing'):
        cifar10_predict.predict(settings)
