"""Runs side by side: which are found, what differs, in which order, and in which files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from axe_core_python.selenium import Axe  # type: ignore[import-untyped]
from selenium.webdriver.chrome.webdriver import WebDriver

from cifar10_lib.base.errors import UserError
from cifar10_lib.evaluation import analysis, comparison
from tests.helpers import browser


def make_run(
    folder: Path, precisions: dict[int, float], speed: float = 100, **settings: Any
) -> str:
    """A run of ten images a step, with a cross entropy unless its loss is all there is."""
    folder.mkdir(parents=True)
    (folder / 'settings.json').write_text(json.dumps({'model': 'tutorial', **settings}))
    lines: list[dict[str, Any]] = [
        {
            'step': step,
            'examples': 10 * step,
            'seconds': 10 * step / speed,
            'loss': 4 - step / 100,
            'cross_entropy': 2 - step / 100,
        }
        for step in (10, 60, 120)
    ]
    lines += [
        {
            'step': step,
            'precision': precision,
            'cross_entropy': 1.5,
            'eval_data': 'test',
            'num_examples': 1000,
            'views': 1,
        }
        for step, precision in precisions.items()
    ]
    (folder / 'history.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return str(folder)


def compare(*folders: str) -> list[comparison.Compared]:
    found = comparison.find_runs(folders)
    names = [Path(folder).name for folder in found]
    return comparison.compare(found, names, [None] * len(found))


@pytest.fixture
def runs(tmp_path: Path) -> str:
    """Three runs below a folder: of two presets, and of another learning rate."""
    make_run(tmp_path / 'a', {60: 0.4, 120: 0.5}, learning_rate=0.1, seed=0)
    make_run(tmp_path / 'more' / 'b', {120: 0.75}, 400, learning_rate=0.05, seed=1)
    fast = {'preset': 'fast', 'learning_rate': 0.05, 'optimizer': 'momentum', 'seed': 2}
    make_run(tmp_path / 'c', {}, 200, **fast)
    return str(tmp_path)


# ---------------------------------------------------------------------------- folders


def test_runs_are_found_below_the_folders_and_nothing_else(
    runs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluations = tmp_path / 'a' / 'eval'
    (evaluations / 'best').mkdir(parents=True)
    for name in ('settings.json', 'best.json', 'checkpoint'):
        (evaluations / 'best' / name).write_text('{}')
    (tmp_path / 'a_eval').mkdir()
    for folder in (evaluations, tmp_path / 'a_eval'):
        (folder / 'history.jsonl').write_text('{"step": 3, "precision": 0.5}\n')
    (tmp_path / 'old').mkdir()
    (tmp_path / 'old' / 'checkpoint').write_text('')
    (tmp_path / 'notes.txt').write_text('')
    expected = [str(tmp_path / name) for name in ('a', 'c', 'more/b', 'old')]
    assert comparison.find_runs([runs]) == expected
    assert capsys.readouterr().err == ''
    # Each once, in the order of the arguments; of others a line.
    named = [str(tmp_path / name) for name in ('more', 'notes.txt', 'a', 'a_eval', 'more/b')]
    assert comparison.find_runs(named) == [str(tmp_path / name) for name in ('more/b', 'a')]
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f'No run: {tmp_path / name}' for name in ('notes.txt', 'a_eval')]


def test_broken_runs_have_a_line_and_the_others_are_shown(
    runs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, settings, history in (
        ('other', '{"model": "resnet"}', ''),
        ('cut', '{"model": ', ''),
        ('history', '{}', 'nothing\n'),
        ('value', '{}', '{"step": 1, "loss": "low"}\n'),
        ('began', '{}', ''),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'settings.json').write_text(settings)
        (tmp_path / name / 'history.jsonl').write_text(history)
    assert sorted(each.row['run'] for each in compare(runs)) == ['a', 'b', 'c']
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(': ')[0] for line in lines] == ['Skipped'] * 5
    for line, name in zip(lines, ('began', 'cut', 'history', 'other', 'value'), strict=True):
        assert str(tmp_path / name) in line
    with pytest.raises(UserError, match='found no run that can be shown among 1'):
        compare(str(tmp_path / 'other'))


# -------------------------------------------------------------------------------- rows


def test_a_row_has_what_a_run_took_and_reached(runs: str) -> None:
    a, c, b = compare(runs)
    assert a.row == {
        'run': 'a',
        'network': 'tutorial',
        'preset': 'tutorial',
        'steps': 120,
        'minutes': 0.2,
        'images_per_second': 100,
        'accuracy': 0.5,
        'accuracy_low': pytest.approx(0.469, abs=5e-4),
        'accuracy_high': pytest.approx(0.531, abs=5e-4),
        'loss': 1.5,
        'training_loss': pytest.approx((3.9 + 3.4 + 2.8) / 3),
        'scored_on': '1,000 test images',
        'learning_rate': 0.1,
        'seed': 0,
    }
    assert (a.row['accuracy_low'], a.row['accuracy_high']) == analysis.wilson_interval(500, 1000)
    assert b.row.items() >= {'accuracy': 0.75, 'images_per_second': 400, 'minutes': 0.05}.items()
    assert c.row['accuracy'] is c.row['loss'] is None


def test_what_presets_say_is_no_difference(runs: str, tmp_path: Path) -> None:
    a, c, b = (each.run for each in compare(runs))
    # The optimiser is that of the preset.
    assert comparison.differing_settings([a, c, b]) == ['learning_rate', 'seed']
    assert comparison.differing_settings([a, a]) == []
    # A folder without settings tells of no difference.
    old = tmp_path / 'old'
    old.mkdir()
    (old / 'history.jsonl').write_text('{"step": 1, "loss": 2}\n')
    (without,) = compare(str(old))
    assert comparison.differing_settings([a, without.run]) == []
    assert without.row['network'] is None


def test_of_evaluations_of_the_last_step_that_of_most_test_images_counts(tmp_path: Path) -> None:
    folder = make_run(tmp_path / 'run', {120: 0.5})
    more = (
        {'precision': 0.9, 'eval_data': 'train_eval', 'num_examples': 50_000, 'views': 1},
        {'precision': 0.8, 'eval_data': 'test', 'num_examples': 1000, 'views': 10},
        {'precision': 0.1, 'eval_data': 'test', 'num_examples': 500, 'views': 1},
    )
    with open(tmp_path / 'run' / 'history.jsonl', 'a') as file:
        file.writelines(json.dumps({'step': 120, **entry}) + '\n' for entry in more)
    (run,) = compare(folder)
    assert run.row['accuracy'] == 0.5 and run.row['scored_on'] == '1,000 test images'


@pytest.mark.parametrize(
    ('column', 'expected'),
    [
        ('accuracy', 'bac'),
        ('-accuracy', 'abc'),
        ('minutes', 'bca'),
        ('-minutes', 'acb'),
        ('images_per_second', 'bca'),
        ('run', 'abc'),
        ('seed', 'abc'),
        ('-learning_rate', 'abc'),
    ],
)
def test_any_column_orders_the_runs(runs: str, column: str, expected: str) -> None:
    found = [each.row['run'] for each in comparison.sort(compare(runs), column)]
    if column == '-learning_rate':
        assert found[0] == 'a'
    else:
        assert ''.join(found) == expected


def test_a_column_that_is_not_there_is_named(runs: str) -> None:
    with pytest.raises(UserError, match='--sort=speed: expected one of run, .*, learning_rate'):
        comparison.sort(compare(runs), 'speed')


# ------------------------------------------------------------------------------- files


def test_the_table_on_the_terminal(runs: str) -> None:
    rows = [each.row for each in comparison.sort(compare(runs), 'accuracy')]
    heading, _, first, *_, third, note = comparison.terminal_table(rows).splitlines()
    assert heading.split('  ')[0] == 'run' and heading.endswith('settings')
    assert '0.750  0.722 to 0.776  1.500' in first
    assert first.endswith('learning_rate=0.05 seed=1')
    assert third.split()[:8] == ['c', 'tutorial', 'fast', '120', '0.1', '200', '–', '–']
    assert note == 'Accuracy and loss (cross entropy) are those of 1,000 test images.'


def test_files_hold_the_rows(runs: str, tmp_path: Path) -> None:
    found = compare(runs)
    rows = [each.row for each in found]
    comparison.write_table(str(tmp_path / 't.json'), found)
    assert json.loads((tmp_path / 't.json').read_text()) == rows
    comparison.write_table(str(tmp_path / 't.csv'), found)
    with open(tmp_path / 't.csv', newline='') as file:
        read = list(csv.DictReader(file))
    assert read == [
        {name: '' if value is None else str(value) for name, value in row.items()} for row in rows
    ]


@pytest.mark.slow
@pytest.mark.parametrize('width', [360, 1280])
def test_the_page_has_rows_and_curves_over_each_axis(
    tmp_path: Path, chromium: WebDriver, width: int
) -> None:
    names = ['<b>bold</b>', 'b & c', '$d$']
    folders = [make_run(tmp_path / f'run{n}', {60: 0.3, 120: 0.5}, seed=n) for n in range(3)]
    found = comparison.compare(folders, names, [None] * 3)
    page = tmp_path / 'runs.html'
    comparison.write_table(str(page), found)
    browser.open_page(chromium, page, width)
    assert browser.console_errors(chromium) == []
    rows = chromium.execute_script(
        'return [...document.querySelectorAll("tbody th")].map(cell => cell.textContent)'
    )
    assert rows == names
    assert chromium.execute_script('return document.documentElement.scrollWidth') == width
    for axis in ('step', 'examples', 'time'):
        chromium.execute_script('document.getElementById(arguments[0]).click()', f'x-{axis}')
        shown = chromium.execute_script(
            'return [...document.images].filter(i => i.offsetParent && i.naturalWidth)'
            '.map(i => [i.alt, i.closest("[class^=over]").className])'
        )
        alt = 'Cross entropy and accuracy of 3 runs. Accuracies at the end: <b>bold</b> 0.500'
        assert [name for _, name in shown] == [f'over-{axis}'] and shown[0][0].startswith(alt)
    violations = Axe().run(chromium, None, {'resultTypes': ['violations']})['violations']
    assert [(rule['id'], rule['nodes'][0]['html']) for rule in violations] == []
