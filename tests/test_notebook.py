"""The notebook: it runs from its first cell to its last, and is committed with what it shows."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.helpers.scripts import REPOSITORY

NOTEBOOK = REPOSITORY / 'docs' / 'tutorial.ipynb'

# Of the committed file, with its pictures.
MOST_BYTES = 300_000


def outputs(notebook: nbformat.NotebookNode) -> str:
    """All text that the cells have printed."""
    cells = [cell for cell in notebook.cells if cell.cell_type == 'code']
    return ''.join(output.get('text', '') for cell in cells for output in cell.outputs)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What it writes belongs beside its scripts, so these are elsewhere.
    for path in [*REPOSITORY.glob('cifar10*.py'), REPOSITORY / 'cifar10_lib']:
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / 'docs').mkdir()
    # The kernel is this interpreter, whatever else has installed one.
    monkeypatch.setenv('JUPYTER_PREFER_ENV_PATH', '1')
    monkeypatch.setenv('MPLBACKEND', 'module://matplotlib_inline.backend_inline')
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    folder = {'metadata': {'path': os.fspath(tmp_path / 'docs')}}
    NotebookClient(notebook, timeout=900, resources=folder).execute()
    written = {path.name for path in (tmp_path / 'notebook').iterdir()}
    assert {'run', 'few_run', 'curve.png', 'confusion.png', 'prediction.png'} <= written
    assert 'Layers that begin anew: softmax_linear' in outputs(notebook)
    assert 'Traceback' not in outputs(notebook)


def test_the_notebook_is_committed_small_and_with_its_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    text = outputs(notebook)
    assert 'Finished at step 500, saved in notebook/run' in text
    assert 'precision @ 1 = ' in text and 'Traceback' not in text
    # Nothing of the machine that it was run on.
    assert str(Path.home()) not in text and '/tmp' not in text
