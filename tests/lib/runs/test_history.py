"""The history of a run: complete, in order, nothing twice."""

from __future__ import annotations

import json
import threading
from functools import partial
from pathlib import Path

import pytest

from cifar10_lib.base.errors import UserError
from cifar10_lib.runs import history
from cifar10_lib.runs.history import Entry, History, UnwritableError, replace
from tests.helpers.samples import ODD, full_disk, make_odd, unix


def write(folder: Path, text: str) -> None:
    (folder / 'history.jsonl').write_text(text)


def steps(folder: Path) -> list[int]:
    return [entry['step'] for entry in history.read(str(folder))]


def is_of_step(step: int, entry: Entry) -> bool:
    return entry['step'] == step


def test_a_line_is_there_as_soon_as_it_is_noted(tmp_path: Path) -> None:
    with History(str(tmp_path), 0) as history:
        assert steps(tmp_path) == []
        history.add({'step': 10, 'seconds': 1.5})
        history.add({'step': 10, 'precision': 0.5})
        history.sync()
        assert steps(tmp_path) == [10, 10]
        assert history.last('seconds') == 1.5 and history.last('loss') is None
    assert (tmp_path / 'history.jsonl').read_text().splitlines()[1] == (
        '{"step": 10, "precision": 0.5}'
    )


def test_a_run_drops_what_lies_beyond_its_start(tmp_path: Path) -> None:
    write(tmp_path, ''.join(f'{{"step": {step}, "seconds": {step}}}\n' for step in (5, 10, 15, 20)))
    with History(str(tmp_path), 14) as history:
        assert steps(tmp_path) == [5, 10]
        assert history.last('seconds') == 10
        history.add({'step': 15})
    assert steps(tmp_path) == [5, 10, 15]


def test_a_line_that_a_crash_broke_off_is_written_anew(tmp_path: Path) -> None:
    write(tmp_path, '{"step": 5}\n{"step": 1')
    assert steps(tmp_path) == [5]
    with History(str(tmp_path), 5) as history:
        history.add({'step': 6})
    assert steps(tmp_path) == [5, 6]


@pytest.mark.parametrize(
    'line',
    ['', 'step 5', '[]', '5', '{}', '{"step": "5"}', '{"step": 5.0}', '{"step": true}']
    + ['{"step": 5, "seconds": null}', '[' * 100_000, '\0' * 50],
)
def test_a_damaged_history_is_named_and_left_as_it_is(tmp_path: Path, line: str) -> None:
    text = f'{{"step": 1}}\n{line}\n{{"step": 9}}\n'
    write(tmp_path, text)
    with pytest.raises(UserError, match=r'history\.jsonl: line 2: found .*move the file away'):
        History(str(tmp_path), 5)
    assert (tmp_path / 'history.jsonl').read_text() == text


@unix
@pytest.mark.parametrize('kind', ODD)
def test_what_is_no_file_is_named(tmp_path: Path, kind: str) -> None:
    make_odd(str(tmp_path / 'history.jsonl'), kind)
    with pytest.raises(UserError, match=rf'history\.jsonl: {ODD[kind]}'):
        History(str(tmp_path), 5)


@unix
def test_a_folder_that_takes_the_place_of_another_stays_empty(tmp_path: Path) -> None:
    folder = tmp_path / 'run'
    folder.mkdir()
    with History(str(folder), 0) as history:
        folder.rename(tmp_path / 'away')
        folder.mkdir()
        history.add({'step': 1})
        history.sync()
    assert not list(folder.iterdir()) and steps(tmp_path / 'away') == [1]


@unix
def test_a_full_disk_is_an_error_and_leaves_whole_lines(tmp_path: Path) -> None:
    entry = {'step': 1, 'note': 'x' * 100}
    size = len(json.dumps(entry)) + 1
    with full_disk(2 * size + 10), History(str(tmp_path), 0) as history:
        history.add(entry)
        history.add(entry)
        with pytest.raises(
            UnwritableError, match=r'history\.jsonl: cannot be written: File too la'
        ):
            history.add(entry)
    assert steps(tmp_path) == [1, 1]
    with History(str(tmp_path), 1):
        assert (tmp_path / 'history.jsonl').stat().st_size == 2 * size


def test_an_entry_takes_the_place_of_those_that_it_repeats(tmp_path: Path) -> None:
    for step, x in ((1, 1), (2, 1), (1, 2)):
        history.replace(str(tmp_path), {'step': step, 'x': x}, partial(is_of_step, step))
    assert history.read(str(tmp_path)) == [{'step': 2, 'x': 1}, {'step': 1, 'x': 2}]


def test_writers_take_turns(tmp_path: Path) -> None:
    """As two evaluators of one folder do: each of their lines is there."""

    def write_all(first: int) -> None:
        for step in range(first, first + 20):
            replace(str(tmp_path), {'step': step}, partial(is_of_step, step))

    threads = [threading.Thread(target=write_all, args=[first]) for first in (0, 20, 40, 60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(steps(tmp_path)) == list(range(80))
    assert [path.name for path in tmp_path.iterdir()] == ['history.jsonl']
