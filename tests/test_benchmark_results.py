"""What recipes reach: running them, keeping it, the table and the figure."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

import cifar10_recipe
from benchmarks import results, results_report
from benchmarks.results import ResultsSettings, Row
from benchmarks.results_report import Result
from cifar10_settings import UserError
from cifar10_train_settings import OneDeviceTrainSettings

DOCS = Path(results.__file__).resolve().parent.parent / 'docs'

RESULT = Result(
    preset='small_cnn',
    dataset='CIFAR-10',
    seed=0,
    steps=15_625,
    batch_size=32,
    use_bf16=False,
    seconds=90.0,
    precision=0.7,
    precision_of_views=None,
    num_test_images=10_000,
    curve=[[250_000, 45.0, 0.6], [500_000, 90.0, 0.7]],
    machine='a processor, 2 cores, TensorFlow 2.21.0',
    date='2026-01-02',
)


def with_changes(**values: object) -> Result:
    return dataclasses.replace(RESULT, **values)  # type: ignore[arg-type]


def published() -> dict[str, str]:
    return {name: row.published for name, row in results.ROWS.items()}


# ----------------------------------------------------------------------------- running


def test_every_preset_has_a_row() -> None:
    assert set(results.ROWS) == set(cifar10_recipe.PRESETS)


@pytest.mark.parametrize('name', results.ROWS)
def test_a_row_asks_for_its_preset_with_flags_that_exist(name: str) -> None:
    settings = ResultsSettings(data_dir='some', mnist_dir='other', use_bf16=True)
    _, script, *flags = results.train_command(settings, name, 3)
    assert os.path.basename(script) == 'cifar10_train.py'
    given = {flag.partition('=')[0][2:] for flag in flags}
    assert given <= {field.name for field in dataclasses.fields(OneDeviceTrainSettings)}
    row = results.ROWS[name]
    steps = row.max_steps or cifar10_recipe.PRESETS[name].max_steps
    folder = 'other' if row.dataset == results.MNIST else 'some'
    train_dir = os.path.join('cifar10_results', f'{name}-bf16-3', 'cifar10_train')
    assert {
        f'--preset={name}',
        '--seed=3',
        f'--max_steps={steps}',
        f'--data_dir={folder}',
        f'--train_dir={train_dir}',
        '--use_bf16',
    } <= set(flags)


def test_what_a_preset_asks_for_stays() -> None:
    flags = results.train_command(ResultsSettings(), 'mnist_deep', 0)
    assert {'--eval_every=540', '--eval_data=held_out', '--num_held_out=6000'} <= set(flags)


def test_views_are_averaged_where_training_saw_such() -> None:
    averaged = {
        name for name, recipe in cifar10_recipe.PRESETS.items() if results.averages_views(recipe)
    }
    assert 'tutorial' in averaged
    assert not averaged & {'book', 'small_cnn', 'deep_cnn_augmented', 'mnist_cnn'}


def test_a_run_is_measured_kept_and_not_run_again(
    records: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(results.ROWS, 'small_cnn', Row('70%', max_steps=4))
    settings = ResultsSettings(
        rows=('small_cnn',),
        seeds='5',
        data_dir=str(records),
        results_dir=str(tmp_path / 'kept'),
        output=str(tmp_path / 'picture.png'),
    )
    results.main(settings)
    output = capfd.readouterr().out
    assert 'step 4' in output and '| `cifar10_train.py --preset=small_cnn` | 70%' in output
    (result,) = results_report.load(settings.results_dir)
    assert (result.preset, result.seed, result.steps) == ('small_cnn', 5, 4)
    assert result.num_test_images == 25
    assert [examples for examples, *_ in result.curve] == [32, 64, 96, 128]
    assert result.precision == result.curve[-1][2] and 0 <= result.precision <= 1
    assert 0 < result.curve[0][1] < result.curve[-1][1] <= result.seconds
    assert (tmp_path / 'picture.png').read_bytes().startswith(b'\x89PNG')

    results.main(settings)
    assert 'Nothing to do: step 4 has reached --max_steps=4' in capfd.readouterr().out
    assert results_report.load(settings.results_dir) == [result]


def test_a_failed_script_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = ResultsSettings(
        rows=('small_cnn',),
        data_dir=str(tmp_path / 'a' / 'b'),
        results_dir=str(tmp_path / 'kept'),
    )
    (tmp_path / 'a').write_text('a file')
    with pytest.raises(UserError, match=r'cifar10_train\.py ended with exit code 1'):
        results.main(settings)
    assert 'cifar10_train.py: error: ' in capfd.readouterr().err


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'rows': ('large_cnn',)}, "found 'large_cnn'; expected names of tutorial, fast, book"),
        ({'rows': ('mlp',), 'seeds': '1,x'}, "--seeds=1,x: found 'x'; expected whole numbers"),
        ({'output': 'picture.gif'}, r'--output=picture\.gif: expected a name that ends in'),
        ({}, '--results_dir=.*: found no results; name recipes to run: tutorial, fast, book'),
    ],
)
def test_wrong_flags_are_one_clear_error(
    tmp_path: Path, values: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        results.main(ResultsSettings(**{'results_dir': str(tmp_path / 'none'), **values}))  # type: ignore[arg-type]
    assert not (tmp_path / 'none').exists()


# -------------------------------------------------------------------------------- files


def test_a_result_comes_back_from_its_file(tmp_path: Path) -> None:
    results_report.store(RESULT, str(tmp_path / 'new'))
    results_report.store(with_changes(use_bf16=True), str(tmp_path / 'new'))
    assert {path.name for path in (tmp_path / 'new').iterdir()} == {
        'small_cnn-0.json',
        'small_cnn-bf16-0.json',
    }
    back, _ = results_report.load(str(tmp_path / 'new'))
    assert back == RESULT


@pytest.mark.parametrize('text', ['', '{', '[]', '{"preset": "mlp"}', '{"colour": 1}'])
def test_a_file_that_is_no_result_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / 'x.json').write_text(text)
    with pytest.raises(UserError, match=r'x\.json: expected a result'):
        results_report.load(str(tmp_path))


# ------------------------------------------------------------------- table and figure


def test_the_table_has_a_line_for_each_command() -> None:
    runs = [
        with_changes(seed=2, precision=0.72, seconds=150.0),
        with_changes(preset='tutorial', precision_of_views=0.88, batch_size=128),
        with_changes(use_bf16=True),
        RESULT,
        with_changes(seed=1, precision=0.71, seconds=120.0),
    ]
    lines = results_report.table(runs, published()).splitlines()
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    assert cells[0] == list(results_report.HEADER)
    assert cells[2:] == [
        [
            '`cifar10_train.py --preset=tutorial`',
            'about 86%',
            '0.700',
            '0.880',
            '15,625 of 128',
            '1.5',
            '0',
        ],
        [
            '`cifar10_train.py --preset=small_cnn`',
            '70%',
            '0.710 (0.700 to 0.720)',
            '–',
            '15,625 of 32',
            '2.0',
            '0, 1, 2',
        ],
        [
            '`cifar10_train.py --preset=small_cnn --use_bf16`',
            '70%',
            '0.700',
            '–',
            '15,625 of 32',
            '1.5',
            '0',
        ],
    ]


def test_the_figure_has_a_panel_for_each_data_set_and_a_line_for_each_run() -> None:
    runs = [RESULT, with_changes(seed=1), with_changes(preset='mnist_cnn', dataset='MNIST')]
    figure = results_report.draw(runs, tuple(results.ROWS))
    cifar10, mnist = figure.axes
    assert cifar10.get_title('left') == 'CIFAR-10' and mnist.get_title('left') == 'MNIST'
    curves = [line.get_xydata() for line in cifar10.lines if line.get_marker() == 'None']
    assert len(curves) == 2
    np.testing.assert_array_equal(curves[0], [[0.75, 0.6], [1.5, 0.7]])
    assert cifar10.get_legend_handles_labels()[1] == ['small_cnn: 0.700']


def test_the_documented_table_is_that_of_the_kept_results() -> None:
    kept = results_report.load(str(DOCS / 'results'))
    assert kept
    text = (DOCS / 'results.md').read_text(encoding='utf-8')
    assert results_report.table(kept, published()) in text


def test_kept_results_are_those_of_the_presets_as_they_stand() -> None:
    for path in (DOCS / 'results').glob('*.json'):
        result = json.loads(path.read_text(encoding='utf-8'))
        recipe = cifar10_recipe.PRESETS[result['preset']]
        row = results.ROWS[result['preset']]
        assert result['batch_size'] == recipe.batch_size
        assert result['steps'] == (row.max_steps or recipe.max_steps)
        assert result['dataset'] == row.dataset
