"""What recipes reach: running them, keeping it, the table and the figure."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.processes import REPOSITORY
from benchmarks.results import __main__ as results
from benchmarks.results import published, report
from benchmarks.results.__main__ import Plan, ResultsSettings
from benchmarks.results.published import ROWS, Row
from benchmarks.results.report import Result
from cifar10_lib.base.errors import UserError
from cifar10_lib.nn.presets import PRESETS
from cifar10_lib.runs import history as history_module
from cifar10_lib.runs import run_folder
from cifar10_lib.training.settings import OneDeviceTrainSettings

DOCS = REPOSITORY / 'docs'

NAMES = tuple(ROWS)

RESULT = Result(
    preset='small_cnn',
    dataset='CIFAR-10',
    seed=0,
    use_bf16=False,
    recipe=dataclasses.asdict(PRESETS['small_cnn'].recipe),
    seconds=90.0,
    precision=0.7,
    precision_of_views=None,
    num_test_images=10_000,
    curve=[[250_000, 45.0, 0.6], [500_000, 90.0, 0.7]],
    machine='a processor, 2 cores, TensorFlow 2.21.0',
    date='2026-01-02',
)


def with_changes(**values: object) -> Result:
    if 'preset' in values:
        values.setdefault('recipe', dataclasses.asdict(PRESETS[str(values['preset'])].recipe))
    return dataclasses.replace(RESULT, **values)  # type: ignore[arg-type]


def make_plan(preset: str, seed: int = 0, **values: object) -> Plan:
    return Plan(ResultsSettings(**values), preset, seed)  # type: ignore[arg-type]


# ----------------------------------------------------------------------------- running


def test_every_preset_has_a_row() -> None:
    assert set(ROWS) == set(PRESETS)


@pytest.mark.parametrize('name', NAMES)
def test_a_row_asks_for_its_preset_with_flags_that_exist(name: str) -> None:
    plan = make_plan(name, 3, data_dir='some', mnist_dir='other', use_bf16=True)
    _, script, *flags = results.train_command(plan)
    assert os.path.basename(script) == 'cifar10_train.py'
    given = {flag.partition('=')[0][2:] for flag in flags}
    assert given <= {field.name for field in dataclasses.fields(OneDeviceTrainSettings)}
    assert len(given) == len(flags)
    steps = ROWS[name].max_steps or PRESETS[name].recipe.max_steps
    mnist = ROWS[name].dataset == published.MNIST
    train_dir = os.path.join('cifar10_results', f'{name}-bf16-3', 'cifar10_train')
    assert {
        f'--preset={name}',
        '--seed=3',
        f'--max_steps={steps}',
        f'--data_dir={"other" if mnist else "some"}',
        f'--dataset={"own" if mnist else "cifar10"}',
        f'--train_dir={train_dir}',
        '--use_bf16=True',
    } <= set(flags)


def test_what_a_preset_asks_for_stays() -> None:
    flags = results.train_command(make_plan('mnist_deep'))
    assert {'--eval_every=540', '--eval_data=held_out', '--num_held_out=6000'} <= set(flags)


def test_views_are_averaged_where_training_saw_such() -> None:
    counts = {name: published.num_views(preset.recipe) for name, preset in PRESETS.items()}
    assert {name for name, count in counts.items() if count == 10} == {'tutorial', 'fast', 'best'}
    by_six = {name for name, count in counts.items() if count == 6}
    assert by_six == {name for name in PRESETS if PRESETS[name].recipe.model == 'airbench'}


@pytest.fixture
def four_steps(records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ResultsSettings:
    """small_cnn for four steps on random images."""
    monkeypatch.setitem(ROWS, 'small_cnn', Row('70%', max_steps=4))
    return ResultsSettings(
        presets=('small_cnn',),
        seeds='5',
        data_dir=str(records),
        results_dir=str(tmp_path / 'kept'),
        output=str(tmp_path / 'picture.png'),
    )


def test_a_run_is_measured_kept_and_not_run_again(
    four_steps: ResultsSettings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    results.main(four_steps)
    output = capfd.readouterr().out
    assert 'step 4' in output and '| `--preset=small_cnn --max_steps=4` | 70%' in output
    (result,) = report.load(four_steps.results_dir)
    assert (result.preset, result.seed, result.recipe['max_steps']) == ('small_cnn', 5, 4)
    assert result.num_test_images == 25
    assert [examples for examples, *_ in result.curve] == [32, 64, 96, 128]
    assert result.precision == result.curve[-1][2] and 0 <= result.precision <= 1
    assert 0 < result.curve[0][1] < result.curve[-1][1] <= result.seconds
    assert (tmp_path / 'picture.png').read_bytes().startswith(b'\x89PNG')

    results.main(four_steps)
    assert 'small_cnn-5: kept in' in capfd.readouterr().out
    assert report.load(four_steps.results_dir) == [result]


def replace_scripts(monkeypatch: pytest.MonkeyPatch, plan: Plan, last_step: int) -> None:
    """In place of the scripts: a training run that ends at a step, and its evaluation."""

    def run(command: list[str], name: str) -> None:
        assert name == plan.name
        os.makedirs(plan.train_dir, exist_ok=True)
        with history_module.History(plan.train_dir, 0) as history:
            history.add({'step': last_step, 'examples': 9, 'seconds': 1.5, 'precision': 0.25})

    monkeypatch.setattr(results, '_run', run)


def test_a_run_that_was_stopped_is_not_kept(
    four_steps: ResultsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(four_steps, 'small_cnn', 5)
    # As an earlier run of that folder left it.
    os.makedirs(plan.eval_dir)
    with history_module.History(plan.eval_dir, 0) as history:
        history.add(
            {'step': 4, 'precision': 1.0, 'eval_data': 'test', 'num_examples': 25, 'views': 1}
        )
    replace_scripts(monkeypatch, plan, last_step=3)
    with pytest.raises(UserError, match='found no evaluation of step 4 .* give the command again'):
        results.main(four_steps)
    assert report.load(four_steps.results_dir) == []


def test_a_folder_of_another_recipe_is_not_resumed(
    four_steps: ResultsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(four_steps, 'small_cnn', 5)
    os.makedirs(plan.train_dir)
    values = {**dataclasses.asdict(plan.recipe), **plan.options, 'learning_rate': 0.5}
    trained = OneDeviceTrainSettings(**values)
    run_folder.store(trained, plan.train_dir)
    replace_scripts(monkeypatch, plan, last_step=4)
    with pytest.raises(UserError, match=r'holds a run with --learning_rate=0\.5; expected 0\.001'):
        results.main(four_steps)


def test_a_failed_script_is_named(
    four_steps: ResultsSettings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'a').write_text('a file')
    settings = dataclasses.replace(four_steps, data_dir=str(tmp_path / 'a' / 'b'))
    with pytest.raises(UserError, match=r'small_cnn-5: cifar10_train\.py ended with exit code 1'):
        results.main(settings)
    assert 'cifar10_train.py: error: ' in capfd.readouterr().err


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_script_ends_well_before_the_one_that_runs_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    """As a shell's Ctrl-C, SIGINT goes to both."""
    script = tmp_path / 'script.py'
    script.write_text(
        'import pathlib, signal, sys, time\n'
        'signal.signal(signal.SIGINT, lambda *_: None)\n'
        'def save(*_):\n'
        '    time.sleep(0.6)\n'
        f'    pathlib.Path({str(tmp_path / "saved")!r}).touch()\n'
        '    sys.exit(0)\n'
        f'signal.signal({int(number)}, save)\n'
        f'pathlib.Path({str(tmp_path / "ready")!r}).touch()\n'
        'time.sleep(60)\n'
    )
    runner = (
        'import signal, sys\n'
        'from benchmarks.results import __main__ as results\n'
        'signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n'
        f'results._run([sys.executable, {str(script)!r}], "a run")\n'
    )
    process = subprocess.Popen(
        [sys.executable, '-c', runner], cwd=REPOSITORY, start_new_session=True
    )
    while not (tmp_path / 'ready').exists():
        assert process.poll() is None
        time.sleep(0.05)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    assert process.wait(timeout=30) != 0
    assert (tmp_path / 'saved').exists()


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        (
            {'presets': ('large_cnn',)},
            "preset 'large_cnn': expected one of tutorial, fast, best, airbench94",
        ),
        ({'presets': ('mlp',), 'seeds': '1,x'}, "--seeds=1,x: found 'x'; expected whole numbers"),
        ({'seeds': 'y'}, "--seeds=y: found 'y'; expected whole numbers"),
        ({'output': 'picture.gif'}, r'--output=picture\.gif: expected a name that ends in'),
        ({}, '--results_dir=.*: found no results; name presets to run: tutorial, fast'),
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
    folder = str(tmp_path / 'new [1]')
    report.store(RESULT, folder)
    report.store(with_changes(use_bf16=True), folder)
    assert set(os.listdir(folder)) == {'small_cnn-0.json', 'small_cnn-bf16-0.json'}
    back, _ = report.load(folder)
    assert back == RESULT


def result_text(**values: object) -> bytes:
    return json.dumps({**dataclasses.asdict(RESULT), **values}).encode()


@pytest.mark.parametrize(
    'text',
    [
        b'',
        b'{',
        b'[]',
        b'\xff\xfe',
        b'[' * 100_000,
        b'{"preset": "mlp"}',
        result_text(colour=1),
        result_text(preset='large_cnn'),
        result_text(seconds='long'),
        result_text(precision=None),
        result_text(curve=[]),
        result_text(curve=[[1, 2]]),
        result_text(recipe={}),
        result_text(seconds=float('nan')),
        result_text(seconds=10**400),
        result_text(seed=1),
        result_text(use_bf16='no'),
        result_text(machine=None),
        result_text(dataset=3),
    ],
)
def test_a_file_that_is_no_result_is_named(tmp_path: Path, text: bytes) -> None:
    (tmp_path / f'{RESULT.name}.json').write_bytes(text)
    with pytest.raises(
        UserError, match=r'small_cnn-0\.json: (expected a result|byte 0 is not UTF-8)'
    ):
        report.load(str(tmp_path))


def test_a_copy_of_a_result_is_none(tmp_path: Path) -> None:
    (tmp_path / 'small_cnn-1.json').write_bytes(result_text())
    with pytest.raises(UserError, match=r'small_cnn-1\.json: expected a result'):
        report.load(str(tmp_path))


def test_a_result_of_another_recipe_is_named(tmp_path: Path) -> None:
    report.store(with_changes(recipe={**RESULT.recipe, 'flip': True}), str(tmp_path))
    with pytest.raises(UserError, match=r'small_cnn-0\.json: has --flip=True; .* has False'):
        report.load(str(tmp_path))


def test_a_result_of_a_version_before_a_flag_has_its_default(tmp_path: Path) -> None:
    earlier = {name: value for name, value in RESULT.recipe.items() if name != 'dropout'}
    report.store(with_changes(recipe=earlier), str(tmp_path))
    assert [result.name for result in report.load(str(tmp_path))] == ['small_cnn-0']


# ------------------------------------------------------------------- table and figure


def table_cells(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith('|')]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]


def test_the_table_has_a_line_for_each_command_the_best_of_a_data_set_first() -> None:
    runs = [
        with_changes(seed=2, precision=0.72, seconds=150.0),
        with_changes(preset='mnist_cnn', dataset='MNIST'),
        with_changes(preset='fast', precision=0.8, precision_of_views=0.88),
        with_changes(use_bf16=True),
        RESULT,
        with_changes(seed=1, precision=0.71, seconds=120.0),
    ]
    table = report.table(runs)
    header, _, fast, small, bf16, mnist = table_cells(table)
    assert header == list(report.HEADER)
    steps = f'{PRESETS["fast"].recipe.max_steps:,}'
    assert fast == ['`--preset=fast`', '–', '0.800', '0.880, 10 views', steps, '128', '1.5', '0']
    assert small[:3] == ['`--preset=small_cnn`', '70%', '0.710 (0.700 to 0.720)']
    assert small[3:] == ['–', '31,250', '32', '2.0', '0, 1, 2']
    assert bf16[0] == '`--preset=small_cnn --use_bf16`' and bf16[-1] == '0'
    assert mnist[0] == '`--preset=mnist_cnn --data_dir=mnist_data`'
    assert table.endswith('\n\nMeasured on a processor, 2 cores, TensorFlow 2.21.0.')


def test_the_table_tells_machines_apart() -> None:
    table = report.table([RESULT, with_changes(seed=1, machine='another', seconds=30.0)])
    assert [cells[-2:] for cells in table_cells(table)[2:]] == [['1.5 (1)', '0'], ['0.5 (2)', '1']]
    assert '\nMeasured on (1) a processor, 2 cores, TensorFlow 2.21.0; (2) another.' in table


def test_the_figure_has_a_panel_for_each_data_set_and_a_line_for_each_run() -> None:
    runs = [RESULT, with_changes(seed=1), with_changes(preset='mnist_cnn', dataset='MNIST')]
    cifar10, mnist = report.draw(runs).axes
    assert cifar10.get_title('left') == 'CIFAR-10' and mnist.get_title('left') == 'MNIST'
    curves = [line.get_xydata() for line in cifar10.lines if line.get_marker() == 'None']
    assert len(curves) == 2
    np.testing.assert_array_equal(curves[0], [[0.75, 0.6], [1.5, 0.7]])
    assert cifar10.get_legend_handles_labels()[1] == ['small_cnn: 0.700']


def test_the_figure_shows_all_presets_each_in_its_way() -> None:
    runs = [with_changes(preset=n) for n in NAMES]
    (axes,) = report.draw(runs).axes
    named = [line for line in axes.lines if not str(line.get_label()).startswith('_')]
    assert len(named) == len(NAMES)
    assert len({(line.get_color(), line.get_linestyle()) for line in named}) == len(named)


def test_the_documented_table_is_that_of_the_kept_results() -> None:
    kept = report.load(str(DOCS / 'results'))
    assert kept
    assert all(result.num_test_images == 10_000 for result in kept)
    assert report.table(kept) in (DOCS / 'results.md').read_text(encoding='utf-8')
