"""Runs side by side: a table of what they are, took and reached, and a page of their curves."""

from __future__ import annotations

import csv
import html
import io
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cifar10_lib.base import files
from cifar10_lib.base.errors import UserError, write_errors_named
from cifar10_lib.base.names import printable
from cifar10_lib.data.prepare import data_note
from cifar10_lib.evaluation import analysis, figures, pages
from cifar10_lib.evaluation.best import REASON_FILE
from cifar10_lib.evaluation.settings import AXES, EVAL_DATA_NAMES
from cifar10_lib.nn.presets import PRESETS
from cifar10_lib.nn.recipes import Recipe
from cifar10_lib.runs import checkpoints, history
from cifar10_lib.runs.history import Entry
from cifar10_lib.runs.run_folder import SETTINGS_FILE, RunFolder
from cifar10_lib.runs.tensorboard import NOT_HPARAMS

# Columns that every table has, by their names in --sort and in files, with their headings for
# readers, who see an interval in one column.
COLUMNS = {
    'run': 'run',
    'network': 'network',
    'preset': 'preset',
    'steps': 'steps',
    'minutes': 'minutes',
    'images_per_second': 'images/s',
    'accuracy': 'accuracy',
    'accuracy_low': '95% interval',
    'accuracy_high': '',
    'loss': 'loss',
    'training_loss': 'training loss',
    'scored_on': 'scored on',
}

ENDINGS = ('.csv', '.json', '.html')

# Of these, more is better: they are sorted from the largest on.
_LARGEST_FIRST = ('accuracy', 'images_per_second')

_DECIMALS = {'minutes': 1, 'images_per_second': 0}

# What other columns show, or what says nothing of how a run learns.
_NOT_SETTINGS = NOT_HPARAMS | {
    *(
        'model',
        'preset',
        'max_steps',
        'epochs',
        'eval_every',
        'eval_data',
        'held_out_seed',
        'keep_best',
    ),
}

# Lines of training whose mean is the training loss: of one batch each.
_LAST_LINES = 10

# What a folder of a run holds.
_MARKS = (SETTINGS_FILE, checkpoints.STATE_FILE, history.HISTORY_FILE)


Row = dict[str, Any]


class Compared(NamedTuple):
    """A run of a comparison."""

    row: Row
    """Values by the names of `COLUMNS` and of the settings that differ; None: not known."""
    run: RunFolder
    eval_dir: str | None


# ---------------------------------------------------------------------------- folders


def find_runs(folders: Iterable[str]) -> list[str]:
    """The folders of runs among some folders and below them, each once, in their order.

    A folder in which there is no run is itself taken for one, whose error says what is missing,
    unless there are other runs: then a line on stderr names it.
    """
    found: dict[str, None] = {}
    without = []
    for folder in folders:
        below = [folder] if _is_run(folder) else _runs_below(folder)
        found.update(dict.fromkeys(below))
        without += [] if below else [folder]
    if not found:
        return list(dict.fromkeys(without))
    for folder in without:
        print(f'No run: {printable(folder)}', file=sys.stderr)
    return list(found)


def _is_run(folder: str) -> bool:
    """Whether a folder is that of a run: evaluations have a history too, but no training in it."""
    present = [mark for mark in _MARKS if os.path.lexists(os.path.join(folder, mark))]
    if not present or os.path.lexists(os.path.join(folder, REASON_FILE)):
        return False
    if present != [history.HISTORY_FILE]:
        return True
    try:
        return any('loss' in entry or 'examples' in entry for entry in history.read(folder))
    except UserError:
        return True


def _runs_below(folder: str) -> list[str]:
    found = []
    for parent, names, _ in os.walk(folder):
        runs = [name for name in sorted(names) if _is_run(os.path.join(parent, name))]
        found += [os.path.join(parent, name) for name in runs]
        # Nothing within a run is another one.
        names[:] = sorted(name for name in names if name not in runs and not name.startswith('.'))
    return sorted(found)


# ------------------------------------------------------------------------------- rows


def compare(
    folders: Sequence[str], names: Sequence[str], eval_dirs: Sequence[str | None]
) -> list[Compared]:
    """The runs in folders; of those that can't be read, a line on stderr says why.

    Args:
      folders: of the runs.
      names: of the runs.
      eval_dirs: the folder of each run's evaluations; None where there is none.

    Raises:
      UserError: none of them can be read.
    """
    runs = []
    for folder, name, eval_dir in zip(folders, names, eval_dirs, strict=True):
        try:
            run = RunFolder.open(folder)
            runs.append(Compared(_row(name, run, eval_dir), run, eval_dir))
        except UserError as error:
            print(f'Skipped: {printable(str(error))}', file=sys.stderr)
    if not runs:
        raise UserError(f'found no run that can be shown among {len(folders)}')
    differing = differing_settings([each.run for each in runs])
    for each in runs:
        each.row.update({name: each.run.settings.get(name) for name in differing})
    return runs


def _row(name: str, run: RunFolder, eval_dir: str | None) -> Row:
    trained = [entry for entry in history.read(run.path) if 'loss' in entry]
    scored = _newest_evaluation(run, eval_dir)
    if not trained and not scored and not run.checkpoint:
        raise UserError(
            f'{run.path}: found neither a {history.HISTORY_FILE} with a loss or a precision, nor a '
            'checkpoint; train first, for example with python cifar10_train.py'
        )
    last = trained[-1] if trained else {}
    seconds, examples = last.get('seconds'), last.get('examples')
    losses = [analysis.number(run.path, entry, 'loss') for entry in trained[-_LAST_LINES:]]
    steps = max((entry['step'] for entry in (last, scored) if entry), default=None)
    low = high = None
    if scored and (count := scored.get('num_examples')):
        low, high = analysis.wilson_interval(round(scored['precision'] * count), count)
    return {
        'run': name,
        'network': run.model if run.settings else None,
        'preset': run.preset if run.settings else None,
        'steps': run.require_checkpoint('--train_dir').step if steps is None else steps,
        'minutes': None if seconds is None else seconds / 60,
        'images_per_second': examples / seconds if seconds and examples else None,
        'accuracy': scored.get('precision'),
        'accuracy_low': low,
        'accuracy_high': high,
        'loss': scored.get('cross_entropy'),
        'training_loss': float(np.mean(losses)) if losses else None,
        'scored_on': _describe(scored) + data_note(run.dataset) if scored else None,
    }


def _newest_evaluation(run: RunFolder, eval_dir: str | None) -> Entry:
    """Of the last step that was evaluated: on test images, most images, one view, before others."""
    entries = [(run.path, entry) for entry in history.read(run.path)]
    entries += [(eval_dir, entry) for entry in run.own_entries(eval_dir)] if eval_dir else []
    found = [(folder, entry) for folder, entry in entries if 'precision' in entry]
    for folder, entry in found:
        for name in {'precision', 'cross_entropy', 'num_examples'} & entry.keys():
            analysis.number(folder, entry, name)

    def rank(entry: Entry) -> tuple[Any, ...]:
        is_test = entry.get('eval_data', 'test') == 'test'
        return entry['step'], is_test, entry.get('num_examples', 0), entry.get('views', 1) == 1

    return max((entry for _, entry in found), key=rank, default={})


def _describe(scored: Entry) -> str:
    """The images of an evaluation for readers, and their views."""
    kind = scored.get('eval_data', 'test')
    count = f'{scored["num_examples"]:,} ' if 'num_examples' in scored else ''
    views = scored.get('views', 1)
    return f'{count}{EVAL_DATA_NAMES.get(kind, kind)}' + (f', {views} views' if views != 1 else '')


def differing_settings(runs: Sequence[RunFolder]) -> list[str]:
    """Names of the settings in which runs differ, beyond what their presets say."""
    values = {name: None for run in runs for name in run.settings if name not in _NOT_SETTINGS}
    return [
        name
        for name in values
        # Folders without settings tell of no difference.
        if len({str(run.settings[name]) for run in runs if name in run.settings}) > 1
        and any(isinstance(run.settings.get(name), (bool, int, float, str)) for run in runs)
        and not all(_is_of_preset(name, run) for run in runs)
    ]


def _is_of_preset(name: str, run: RunFolder) -> bool:
    """Whether a run has its preset's value of a setting, or none."""
    preset: Mapping[str, Any] = PRESETS[run.preset].flags
    default = preset.get(name, getattr(Recipe(), name, None))
    return name not in run.settings or run.settings[name] == default


def sort(runs: Sequence[Compared], column: str) -> list[Compared]:
    """The runs in the order of a column; those without a value last.

    Args:
      runs: of the comparison.
      column: name of a column; `-` before it turns the order round.

    Raises:
      UserError: there is no such column.
    """
    name = column.removeprefix('-')
    known = list(dict.fromkeys(name for each in runs for name in each.row))
    if name not in known:
        raise UserError(f'--sort={column}: expected one of {", ".join(known)}')
    with_value = [each for each in runs if each.row[name] is not None]
    # Texts and numbers, as another version may have stored, have an order of their own each.
    with_value.sort(
        key=lambda each: (isinstance(each.row[name], str), each.row[name]),
        reverse=(name in _LARGEST_FIRST) != column.startswith('-'),
    )
    return with_value + [each for each in runs if each.row[name] is None]


# ------------------------------------------------------------------------------ tables


def _shown(name: str, row: Row) -> str:
    """A value of a row for readers."""
    value = row[name]
    if value is None:
        return '–'
    if name == 'accuracy_low':
        return f'{value:.3f} to {row["accuracy_high"]:.3f}'
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return printable(str(value).lower() if isinstance(value, bool) else str(value))
    if name not in COLUMNS:
        return f'{value:g}' if isinstance(value, float) else str(value)
    return f'{value:,.{_DECIMALS.get(name, 3)}f}' if isinstance(value, float) else f'{value:,}'


def settings_of(rows: Sequence[Row]) -> list[str]:
    """Names of the columns beyond `COLUMNS`: of the settings that differ."""
    return list(dict.fromkeys(name for row in rows for name in row if name not in COLUMNS))


def _columns(rows: Sequence[Row]) -> tuple[list[str], str]:
    """The columns of `COLUMNS` that have values, and what is the same in all rows, for readers."""
    columns = [
        name
        for name, heading in COLUMNS.items()
        if heading and any(row[name] is not None for row in rows)
    ]
    scored_on = {row['scored_on'] for row in rows} - {None}
    if len(scored_on) != 1:
        return columns, ''
    columns.remove('scored_on')
    return columns, f'Accuracy and loss (cross entropy) are those of {scored_on.pop()}.'


def terminal_table(rows: Sequence[Row]) -> str:
    """The rows as lines of text; the settings that differ are in the last column."""
    columns, note = _columns(rows)
    differing = settings_of(rows)
    cells = [[COLUMNS[name] for name in columns] + ['settings'] * bool(differing)]
    for row in rows:
        settings = [f'{name}={_shown(name, row)}' for name in differing if row[name] is not None]
        cells.append(
            [_shown(name, row) for name in columns] + [' '.join(settings)] * bool(differing)
        )
    is_number = [_is_number(name, rows) for name in columns] + [False] * bool(differing)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        '  '.join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, is_number, strict=True)
        ).rstrip()
        for line in cells
    ]
    rule = min(max(map(len, lines)), shutil.get_terminal_size((80, 24)).columns)
    return '\n'.join([lines[0], '-' * rule, *lines[1:], *([note] if note else [])])


def _is_number(name: str, rows: Sequence[Row]) -> bool:
    """Whether a column has numbers, which are aligned on the right."""
    return any(isinstance(row[name], (int, float)) for row in rows)


def check_table(path: str) -> None:
    """Raises UserError where --table could not be written, before long work."""
    figures.check_output(path, ENDINGS, '--table')


def write_table(path: str, runs: Sequence[Compared]) -> None:
    """Writes the table in the format of its name's ending: CSV, JSON, or a page with curves.

    Raises:
      UserError: it can't be written.
    """
    rows = [each.row for each in runs]
    columns = [*COLUMNS, *settings_of(rows)]
    if path.endswith('.json'):
        values = [{name: row.get(name) for name in columns} for row in rows]
        text = json.dumps(values, indent=1, ensure_ascii=False) + '\n'
    elif path.endswith('.csv'):
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, columns, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
        text = buffer.getvalue()
    else:
        text = page(runs)
    with write_errors_named(f'--table={path}'):
        files.replace_text(path, text)


# -------------------------------------------------------------------------------- page


def page(runs: Sequence[Compared]) -> str:
    """The comparison as HTML: the table, and curves over steps, examples and time."""
    rows = [each.row for each in runs]
    columns, note = _columns(rows)
    columns += settings_of(rows)
    curves = {axis: read_curves(runs, axis) for axis in AXES}
    drawings = {axis: _draw(found, axis) for axis, found in curves.items()}
    lacking = [one.name for one in curves['step'] if 'cross_entropy' not in one.panels()]
    return pages.render(
        'comparison.html.jinja',
        note=note,
        headings=[(COLUMNS.get(name, name), _is_number(name, rows)) for name in columns],
        rows=[
            {
                'swatch': _swatch(place),
                'name': _shown('run', row),
                'cells': [
                    (_shown(name, row), _is_number(name, rows)) for name in columns if name != 'run'
                ],
            }
            for place, row in enumerate(rows)
        ],
        drawings={axis: drawing for axis, drawing in drawings.items() if drawing},
        axis_names={'step': 'steps', 'examples': 'examples', 'time': 'time of training'},
        lacking=lacking,
    )


def read_curves(runs: Sequence[Compared], axis: str) -> list[analysis.Curves]:
    """The curves of the runs; without points, where a run's history has none over the axis."""
    found = []
    for each in runs:
        name = each.row['run'] + data_note(each.run.dataset)
        try:
            found.append(analysis.read_curves(name, each.run, each.eval_dir, axis))
        except UserError as error:
            print(f'Not drawn: {printable(str(error))}', file=sys.stderr)
            empty = analysis.Series('', np.empty(0), np.empty(0))
            found.append(analysis.Curves(name, empty, []))
    return found


def _draw(curves: Sequence[analysis.Curves], axis: str) -> dict[str, Any] | None:
    """Cross entropy and precision of all runs."""
    panels = [
        panel
        for panel in ('cross_entropy', 'precision')
        if any(panel in each.panels() for each in curves)
    ]
    if not panels:
        return None
    figure = figures.draw_curves(curves, axis, panels=panels, legends=False)
    what = ' and '.join(
        {'cross_entropy': 'Cross entropy', 'precision': 'accuracy'}[panel] for panel in panels
    )
    ends = '; '.join(
        f'{each.name} {each.precision[0].y[-1]:.3f}' for each in curves if each.precision
    )
    alt = f'{what} of {len(curves)} runs.' + (f' Accuracies at the end: {ends}.' if ends else '')
    return pages.drawing(figure, alt, f'curves-{axis}')


def _swatch(place: int) -> str:
    """An SVG image of a run's line."""
    color, style = figures.line_of(place)
    dashes = {'-': 'none', '--': '7 4', ':': '2 3', '-.': '7 3 2 3'}[style]
    return (
        '<svg width="28" height="10" aria-hidden="true"><line x1="1" y1="5" x2="27" y2="5" '
        f'stroke="{html.escape(color)}" stroke-width="3" stroke-dasharray="{dashes}"/></svg>'
    )
