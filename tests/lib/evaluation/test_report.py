"""The report on an evaluation: numbers, text, pictures, accessibility, and what it replaces."""

from __future__ import annotations

import base64
import dataclasses
import html
import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import pytest
from axe_core_python.selenium import Axe  # type: ignore[import-untyped]
from selenium.webdriver.chrome.webdriver import WebDriver

import cifar10
import cifar10_eval
from cifar10_eval import EvalSettings
from cifar10_lib.base import files
from cifar10_lib.base.errors import UserError
from cifar10_lib.data.prepare import Prepared
from cifar10_lib.evaluation import analysis, report
from cifar10_lib.evaluation.evaluator import Evaluator, Result, Scored
from cifar10_lib.runs.checkpoints import open_checkpoint
from cifar10_lib.runs.run_folder import RunFolder
from tests.helpers import browser
from tests.helpers.runs import save_network

pytestmark = pytest.mark.slow

# Names as a user may have them, of which none must become part of the page or of a formula.
NAMES = ['<script>alert(1)</script>', 'a & b', '$x$', '" onload="x', "it's", *'fghij']

WIDTHS = (360, 1280)


class Written(NamedTuple):
    """A report, and the evaluation that it is about."""

    page: Path
    text: str
    settings: EvalSettings
    result: Result
    predicted: np.ndarray
    labels: np.ndarray


@pytest.fixture(scope='module')
def written(tmp_path_factory: pytest.TempPathFactory, records: Path) -> Written:
    """The report on a small network, with everything that a report can have."""
    folder = tmp_path_factory.mktemp('report')
    data_dir = Path(shutil.copytree(records, folder / 'data'))
    (data_dir / 'batches.meta.txt').write_text('\n'.join(NAMES))
    draw_patches(data_dir / 'test_batch.bin')
    checkpoint = save_network(folder / 'train', dataset='own', data_dir='<b>', max_steps=7)
    (folder / 'train' / 'history.jsonl').write_text(
        '{"step": 1, "loss": 4.5}\n{"step": 7, "loss": 2.25}\n{"step": 7, "precision": 0.5}\n'
    )
    evaluator = Evaluator(str(data_dir), cifar10.NETWORKS['tutorial'], 25)
    relabel(
        data_dir / 'test_batch.bin',
        evaluator.probabilities(open_checkpoint(checkpoint))[0].argmax(axis=1),
    )
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
    probabilities, labels = evaluator.probabilities(open_checkpoint(checkpoint))
    result = evaluator.evaluate(open_checkpoint(checkpoint))
    predicted = probabilities.argmax(axis=1)
    return Written(page, page.read_text(encoding='utf-8'), settings, result, predicted, labels)


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
    assert sorted(path.name for path in written.page.parent.iterdir()) == [
        'evaluation.json',
        'index.html',
    ]
    references = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)', written.text)
    # Links, drawings and mistakes.
    assert len(references) == 9 + 6 + min(24, 25 - written.result.num_correct)
    allowed = ('data:image/png;base64,', 'data:image/svg+xml;base64,', '#')
    assert all((a or b).startswith(allowed) for a, b in references)


def test_drawings_are_images_that_need_no_other_file(written: Written) -> None:
    assert '<svg' not in written.text
    drawings = re.findall(r'src="data:image/svg\+xml;base64,([^"]*)"', written.text)
    assert len(drawings) == 6
    for drawing in drawings:
        svg = base64.b64decode(drawing).decode('utf-8')
        assert ElementTree.fromstring(svg).tag == '{http://www.w3.org/2000/svg}svg'
        references = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)', svg)
        assert all((a or b).startswith(('#', 'data:image/png;')) for a, b in references)
        assert '<script' not in svg


def test_ids_are_of_one_element_each(written: Written) -> None:
    ids = re.findall(r'\sid="([^"]*)"', written.text)
    assert len(ids) == len(set(ids)) >= 15
    used = re.findall(r'(?:href="|url\(|labelledby=")#?([\w-]+)', written.text)
    assert set(used) - set(ids) == set()


def evaluation(written: Written, **changes: Any) -> report.Evaluation:
    """An evaluation in which every image is classified correctly."""
    probabilities = np.eye(10, dtype=np.float32)[written.labels]
    return report.Evaluation(
        checkpoint=open_checkpoint(f'{written.settings.checkpoint_dir}/model.ckpt-7'),
        scored=Scored(Result(7, 25, 25, 0.1), probabilities, written.labels),
        data=Prepared(written.settings.data_dir, 'own', tuple(NAMES)),
        eval_data='test',
        run=RunFolder.open(written.settings.checkpoint_dir),
        num_views=1,
        eval_dir=written.settings.eval_dir,
        network=cifar10.NETWORKS['tutorial'],
    )._replace(**changes)


def test_a_page_of_ones_own_is_not_replaced(written: Written, tmp_path: Path) -> None:
    (tmp_path / 'index.html').write_text('<title>My thesis</title>')
    (tmp_path / 'file').touch()
    (tmp_path / 'numbers').mkdir()
    (tmp_path / 'numbers' / 'evaluation.json').write_text('{}')
    for folder, found in (
        (tmp_path, 'holds an index.html'),
        (tmp_path / 'file', 'not a folder'),
        (tmp_path / 'numbers', 'holds evaluation.json without a report'),
    ):
        settings = dataclasses.replace(written.settings, report=str(folder))
        with pytest.raises(UserError, match=f'--report={folder}: {found}'):
            cifar10_eval.evaluate(settings)
    assert (tmp_path / 'index.html').read_text() == '<title>My thesis</title>'


def test_a_report_that_fails_leaves_the_old_one(
    written: Written, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old = written.text
    (tmp_path / 'index.html').write_text(old, encoding='utf-8')
    (tmp_path / 'other.txt').write_text('stays')
    monkeypatch.setattr(report, 'page', lambda _: 'new')

    def fail(_: str) -> None:
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(files, 'sync', fail)
        with pytest.raises(UserError, match=r'index\.html: No space left on device'):
            report.write(str(tmp_path), evaluation(written))
    assert {p.name: p.read_text(encoding='utf-8') for p in tmp_path.iterdir()} == {
        'index.html': old,
        'other.txt': 'stays',
    }
    report.write(str(tmp_path), evaluation(written))
    assert json.loads((tmp_path / 'evaluation.json').read_text())['accuracy'] == 1
    (tmp_path / 'evaluation.json').unlink()
    assert {p.name: p.read_text(encoding='utf-8') for p in tmp_path.iterdir()} == {
        'index.html': 'new',
        'other.txt': 'stays',
    }
    with pytest.raises(UserError, match=r'--report=.*other\.txt: not a folder'):
        report.write(str(tmp_path / 'other.txt'), evaluation(written))


def test_beside_training_the_report_is_that_of_the_newest_evaluation(
    written: Written,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
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
        titles.append(find_title((tmp_path / 'report' / 'index.html').read_text()))
        if len(titles) > 1:
            raise KeyboardInterrupt
        save_network(train_dir, step=9)

    monkeypatch.setattr(cifar10_eval.time, 'sleep', next_checkpoint)
    with pytest.raises(KeyboardInterrupt):
        cifar10_eval.evaluate(settings)
    precision = f'{written.result.precision:.3f}'
    assert titles == [f'train: precision {precision} at step {step}' for step in (7, 9)]
    result = written.result
    low, high = analysis.wilson_interval(result.num_correct, result.num_examples)
    line = f'Accuracy (precision @ 1): {precision}, 95% interval {low:.3f} to {high:.3f}\n'
    assert capsys.readouterr().out.count(line) == 2


def find_title(page: str) -> str:
    return page.partition('<title>')[2].partition('</title>')[0]


@pytest.fixture(scope='module')
def of_many_classes(written: Written, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of an evaluation on drawn images of 60 classes, without history and settings."""
    folder = tmp_path_factory.mktemp('many')
    rng = np.random.default_rng(0)
    about = evaluation(
        written,
        checkpoint=open_checkpoint(save_network(folder / 'run')),
        run=RunFolder.open(str(folder / 'run')),
        scored=Scored(Result(7, 0, 25, 4.0), rng.random([25, 60], np.float32), written.labels),
        data=Prepared(
            written.settings.data_dir,
            'synthetic',
            tuple(f'class {label} of a rather long name' for label in range(60)),
        ),
        num_views=10,
        eval_dir=str(folder),
    )
    (folder / 'run' / 'settings.json').unlink()
    return Path(report.write(str(folder / 'report'), about))


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
    text = report.page(evaluation(written))
    assert 'None: every image is classified correctly.' in text
    assert 'id="frequent"' not in text


# ------------------------------------------------------------------------- in a browser


@pytest.fixture(params=WIDTHS)
def width(request: pytest.FixtureRequest) -> int:
    return request.param


def test_the_page_fits_its_window(
    chromium: WebDriver, written: Written, of_many_classes: Path, width: int
) -> None:
    for page in (written.page, of_many_classes):
        browser.open_page(chromium, page, width)
        assert browser.console_errors(chromium) == []
        # What is folded up may be too wide as well.
        chromium.execute_script(
            'for (const details of document.querySelectorAll("details")) details.open = true'
        )
        assert chromium.execute_script('return document.documentElement.scrollWidth') == width
        outside = chromium.execute_script(
            'return [...document.querySelectorAll("body *")].filter(element => '
            '!element.closest(".scroll, .skip") && '
            'element.getBoundingClientRect().right > window.innerWidth + 1)'
            '.map(element => element.outerHTML)'
        )
        assert outside == []


def test_pictures_are_there_with_alternative_text(
    chromium: WebDriver, written: Written, of_many_classes: Path
) -> None:
    for page in (written.page, of_many_classes):
        browser.open_page(chromium, page)
        pictures = chromium.execute_script(
            'return [...document.images].map(i => [i.alt, i.naturalWidth, i.complete])'
        )
        assert all(alt and size and complete for alt, size, complete in pictures)
        drawings = chromium.execute_script(
            'return [...document.querySelectorAll(".card img")].map(d => [d.alt, '
            'd.getBoundingClientRect().height])'
        )
        mistakes = 25 - written.result.num_correct if page == written.page else 22
        assert len(drawings) == (6 if page == written.page else 4)
        assert len(pictures) == len(drawings) + mistakes
        assert all(alt and height > 200 for alt, height in drawings)


def test_headings_and_tables_tell_the_structure(chromium: WebDriver, written: Written) -> None:
    browser.open_page(chromium, written.page)
    headings = chromium.execute_script(
        'return [...document.querySelectorAll("h1, h2, h3, h4")].map(h => h.localName)'
    )
    assert headings[0] == 'h1' and set(headings[1:]) == {'h2'} and len(headings) == 9
    unnamed = chromium.execute_script(
        'return [...document.querySelectorAll("table")].filter(t => !t.caption?.textContent || '
        't.querySelector("th:not([scope])")).length'
    )
    assert unnamed == 0
    targets = chromium.execute_script(
        'return [...document.querySelectorAll("a")].map(a => '
        'document.querySelector(a.getAttribute("href")) !== null)'
    )
    assert len(targets) == 9 and all(targets)


def table(chromium: WebDriver, caption: str) -> list[list[str]]:
    """The cells of the table that the element of an id is the caption of."""
    return chromium.execute_script(
        'return [...document.getElementById(arguments[0]).parentNode.rows]'
        '.map(row => [...row.cells].map(cell => cell.textContent))',
        caption,
    )


def test_numbers_are_those_of_the_evaluation(chromium: WebDriver, written: Written) -> None:
    browser.open_page(chromium, written.page)
    result, predicted, labels = written.result, written.predicted, written.labels
    assert 10 < result.num_correct < 25 and len(set(predicted)) > 2
    facts = chromium.execute_script(
        'return [...document.querySelectorAll("dd")].map(d => d.firstChild.textContent.trim())'
    )
    assert facts == [f'{result.precision:.3f}', '7', '25', '1']
    heading, *matrix = table(chromium, 'matrix')
    assert heading == ['True class', *NAMES]
    for true, (name, *counts) in enumerate(matrix):
        assert name == NAMES[true]
        expected = [np.sum((labels == true) & (predicted == column)) for column in range(10)]
        assert [int(count) for count in counts] == expected
    for true, row in enumerate(table(chromium, 'per-class')[1:]):
        hits = np.sum((labels == true) & (predicted == true))
        of_class, taken = np.sum(labels == true), np.sum(predicted == true)
        assert row[:2] == [NAMES[true], str(of_class)]
        shares = [(hits, taken), (hits, of_class), (2 * hits, of_class + taken)]
        assert row[2:] == [f'{a / b:.1%}' if b else '–' for a, b in shares]
    losses, precisions, confusion = chromium.execute_script(
        'return [...document.querySelectorAll(".card img")].slice(0, 3).map(d => d.alt)'
    )
    assert losses == 'Total loss over the steps, from 4.500 at step 1 to 2.250 at step 7.'
    assert 'of test images' in precisions and '0.500 at step 7' in precisions
    assert f': {result.num_correct} of 25 images lie on its diagonal' in confusion


@pytest.mark.parametrize(('scheme', 'window'), [('light', 1280), ('dark', 360)])
def test_no_rule_of_accessibility_is_broken(
    chromium: WebDriver, written: Written, of_many_classes: Path, scheme: str, window: int
) -> None:
    for page in (written.page, of_many_classes):
        show_in(chromium, scheme, page, window)
        found = Axe().run(chromium, None, {'resultTypes': ['violations']})
        assert len(found['passes']) > 20
        broken = [(rule['id'], rule['nodes'][0]['html']) for rule in found['violations']]
        assert broken == []


def test_the_page_follows_the_scheme_and_drawings_stay_on_a_light_card(
    chromium: WebDriver, written: Written
) -> None:
    colours = []
    for scheme in ('light', 'dark'):
        show_in(chromium, scheme, written.page)
        colours.append(
            chromium.execute_script(
                'return ["body", ".card"].map(s => getComputedStyle(document.querySelector(s))'
                '.backgroundColor)'
            )
        )
    assert colours == [
        ['rgb(255, 255, 255)', 'rgb(255, 255, 255)'],
        ['rgb(17, 22, 28)', 'rgb(255, 255, 255)'],
    ]


def show_in(chromium: WebDriver, scheme: str, page: Path, window: int = 1280) -> None:
    """Opens a page in a light or dark scheme, which stays until another one is set."""
    features = [{'name': 'prefers-color-scheme', 'value': scheme}]
    chromium.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': features})
    browser.open_page(chromium, page, window)
