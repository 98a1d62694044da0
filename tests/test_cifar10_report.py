"""The report of an evaluation: is the page right, whole, and readable for everyone?"""

from __future__ import annotations

import dataclasses
import html
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import cifar10_eval
import cifar10_files
import cifar10_report
from cifar10_classifier import Evaluator, Result
from cifar10_eval import EvalSettings
from cifar10_settings import UserError
from test_cifar10_predict import save_network

# Names as a user may have them, of which none must become part of the page or of a formula.
NAMES = ['<script>alert(1)</script>', 'a & b', '$x$', '" onload="x', "it's", *'fghij']


class Written(NamedTuple):
    """A report, and the evaluation that it is about."""

    page: Path
    text: str
    settings: EvalSettings
    result: Result
    guesses: np.ndarray
    labels: np.ndarray


@pytest.fixture(scope='module')
def written(tmp_path_factory: pytest.TempPathFactory, records: Path) -> Written:
    """The report on a small network, with everything that a report can have."""
    folder = tmp_path_factory.mktemp('report')
    data_dir = Path(shutil.copytree(records, folder / 'data'))
    (data_dir / 'batches.meta.txt').write_text('\n'.join(NAMES))
    draw_patches(data_dir / 'test_batch.bin')
    checkpoint = save_network(folder / 'train', dataset='cifar10', data_dir='<b>', max_steps=7)
    (folder / 'train' / 'history.jsonl').write_text(
        '{"step": 1, "loss": 4.5}\n{"step": 7, "loss": 2.25}\n{"step": 7, "precision": 0.5}\n'
    )
    evaluator = Evaluator(str(data_dir), 25)
    relabel(data_dir / 'test_batch.bin', evaluator.probabilities(checkpoint)[0].argmax(axis=1))
    settings = EvalSettings(
        eval_dir=str(folder / 'eval'),
        checkpoint_dir=str(folder / 'train'),
        report=str(folder / 'new' / 'report'),
        num_examples=25,
        run_once=True,
        data_dir=str(data_dir),
    )
    cifar10_eval.evaluate(settings)
    page = folder / 'new' / 'report' / 'index.html'
    probabilities, labels = evaluator.probabilities(checkpoint)
    result = evaluator.evaluate(checkpoint)
    guesses = probabilities.argmax(axis=1)
    return Written(page, page.read_text(encoding='utf-8'), settings, result, guesses, labels)


def relabel(record_file: Path, labels: np.ndarray) -> None:
    """Gives two of three records these labels."""
    data = np.fromfile(record_file, np.uint8).reshape(-1, 3073)
    keep = np.arange(len(data)) % 3 == 0
    data[:, 0] = np.where(keep, data[:, 0], labels)
    data.tofile(record_file)


def draw_patches(record_file: Path) -> None:
    """Puts a few large patches of colour into each record, which networks tell apart."""
    data = np.fromfile(record_file, np.uint8).reshape(-1, 3073)
    patches = np.random.default_rng(1).integers(0, 256, [len(data), 3, 2, 2], np.uint8)
    data[:, 1:] = np.kron(patches, np.ones([16, 16], np.uint8)).reshape(len(data), -1)
    data.tofile(record_file)


# --------------------------------------------------------------------------- the file


def test_names_stay_text(written: Written) -> None:
    assert '<script' not in written.text
    assert '<b>' not in written.text
    for name in NAMES:
        assert (
            f'<th scope="row">{html.escape(name)}</th>'.replace('&#x27;', '&#39;').replace(
                '&quot;', '&#34;'
            )
            in written.text
        )


def test_the_page_needs_no_other_file(written: Written) -> None:
    assert [path.name for path in written.page.parent.iterdir()] == ['index.html']
    references = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)', written.text)
    assert len(references) > 50
    assert {re.match('data:image/png;base64,|#|', a or b)[0] for a, b in references} == {  # type: ignore[index]
        'data:image/png;base64,',
        '#',
    }


def test_ids_are_of_one_element_each(written: Written) -> None:
    ids = re.findall(r'\sid="([^"]*)"', written.text)
    assert len(ids) == len(set(ids)) > 50
    used = re.findall(r'(?:href="|url\(|labelledby=")#?([\w-]+)', written.text)
    assert set(used) - set(ids) == set()


def evaluated(written: Written, **changes: Any) -> cifar10_report.Evaluated:
    """What a report is made of, with every image taken for what it is."""
    return cifar10_report.Evaluated(
        checkpoint=f'{written.settings.checkpoint_dir}/model.ckpt-7',
        result=Result(7, 25, 25),
        probabilities=np.eye(10, dtype=np.float32)[written.labels],
        labels=written.labels,
        names=NAMES,
        eval_data='test',
        average_views=False,
        data_dir=written.settings.data_dir,
        dataset='cifar10',
        eval_dir=written.settings.eval_dir,
    )._replace(**changes)


def test_a_report_that_fails_leaves_the_old_one(
    written: Written, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / 'index.html').write_text('old')
    (tmp_path / 'other.txt').write_text('stays')
    monkeypatch.setattr(cifar10_report, 'page', lambda _: 'new')

    def fail(_: str) -> None:
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(cifar10_files, 'sync', fail)
        with pytest.raises(UserError, match=r'index\.html: No space left on device'):
            cifar10_report.write(str(tmp_path), evaluated(written))
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        'index.html': 'old',
        'other.txt': 'stays',
    }
    cifar10_report.write(str(tmp_path), evaluated(written))
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        'index.html': 'new',
        'other.txt': 'stays',
    }
    with pytest.raises(UserError, match=r'other\.txt: File exists'):
        cifar10_report.write(str(tmp_path / 'other.txt'), evaluated(written))


def test_beside_training_the_report_is_that_of_the_newest_evaluation(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_dir = Path(shutil.copytree(written.settings.checkpoint_dir, tmp_path / 'train'))
    settings = dataclasses.replace(
        written.settings,
        checkpoint_dir=str(train_dir),
        report=str(tmp_path / 'report'),
        run_once=False,
    )
    titles = []

    def next_checkpoint(_: float) -> None:
        titles.append(title_of((tmp_path / 'report' / 'index.html').read_text()))
        if len(titles) > 1:
            raise KeyboardInterrupt
        save_network(train_dir, step=9)

    monkeypatch.setattr(cifar10_eval.time, 'sleep', next_checkpoint)
    with pytest.raises(KeyboardInterrupt):
        cifar10_eval.evaluate(settings)
    precision = f'{written.result.precision:.3f}'
    assert titles == [f'train: precision {precision} at step {step}' for step in (7, 9)]


def title_of(page: str) -> str:
    return page.partition('<title>')[2].partition('</title>')[0]


@pytest.fixture(scope='module')
def of_many_classes(written: Written, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of an evaluation on drawn images of 60 classes, without history and settings."""
    folder = tmp_path_factory.mktemp('many')
    rng = np.random.default_rng(0)
    about = evaluated(
        written,
        checkpoint=save_network(folder / 'run'),
        result=Result(7, 0, 25),
        probabilities=rng.random([25, 60], np.float32),
        names=[f'class {label} of a rather long name' for label in range(60)],
        average_views=True,
        dataset='synthetic',
        eval_dir=str(folder),
    )
    (folder / 'run' / 'settings.json').unlink()
    return Path(cifar10_report.write(str(folder / 'report'), about))


def test_what_there_is_not_is_left_out(of_many_classes: Path, written: Written) -> None:
    text = of_many_classes.read_text()
    for section in ('training', 'settings', 'matrix'):
        assert f'id="{section}"' in written.text
        assert f'id="{section}"' not in text
    assert 'On synthetic images, not CIFAR-10.' in text
    assert 'On synthetic' not in written.text
    assert '<dt>Views of each image</dt><dd>10 ' in text
    assert len(text) < 1_000_000


def test_a_network_without_mistakes_has_none_in_its_report(written: Written) -> None:
    text = cifar10_report.page(evaluated(written))
    assert 'None: every image was taken for what it is.' in text
    assert 'id="frequent"' not in text
