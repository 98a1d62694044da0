"""Imports of the project's files, those inside functions included, held to four rules.

1. cifar10_input imports nothing of the project.
2. cifar10_lib imports cifar10_input and itself, each wing only itself and lower wings.
3. cifar10 imports cifar10_input and the library; scripts import these three; only benchmarks and
   tests import scripts.
4. There are no circles.
"""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import cifar10_input
from cifar10_lib.data import datasets
from cifar10_lib.evaluation import settings as evaluation_settings
from cifar10_lib.nn import towers
from cifar10_lib.training.settings import MultiGpuTrainSettings
from tests.helpers.scripts import REPOSITORY, script_environment

SCRIPTS = (
    'cifar10_train',
    'cifar10_multi_gpu_train',
    'cifar10_distributed_train',
    'cifar10_eval',
    'cifar10_data',
    'cifar10_predict',
    'cifar10_plot',
    'cifar10_export',
)

# What each kind of file imports of the project. A script is any other file at the top.
ALLOWED: dict[str, tuple[str, ...]] = {
    'cifar10_input': (),
    'cifar10_lib': ('cifar10_input', 'cifar10_lib'),
    'cifar10': ('cifar10_input', 'cifar10_lib'),
    'a script': ('cifar10_input', 'cifar10_lib', 'cifar10'),
    'benchmarks': ('cifar10_input', 'cifar10_lib', 'cifar10', 'a script', 'benchmarks'),
    'tests': ('cifar10_input', 'cifar10_lib', 'cifar10', 'a script', 'benchmarks', 'tests'),
}

# The wings of the library, and what each imports beside itself.
BELOW: dict[str, set[str]] = {
    'base': set(),
    'data': {'base'},
    'nn': {'base'},
    'runs': {'base', 'data', 'nn'},
    'evaluation': {'base', 'data', 'nn', 'runs'},
    'export': {'base', 'data', 'nn', 'runs', 'evaluation'},
    'training': {'base', 'data', 'nn', 'runs', 'evaluation'},
}

# Last names of the library's modules of data, which don't import TensorFlow.
DATA_MODULES = ('recipe', 'recipes', 'preset', 'presets', 'settings')

FOLDERS = ('cifar10_lib', 'benchmarks', 'tests')


class Module(NamedTuple):
    """What a file imports, by full names, of the project and from elsewhere."""

    all: set[str]
    at_import: set[str]
    """Without what stands in functions, and what is for type checkers alone."""


# ------------------------------------------------------------------------------ reader


def read_project(root: Path) -> dict[str, Module]:
    """Each Python file of the project by the name that it is imported by."""
    paths = {module_name(path.relative_to(root)): path for path in python_files(root)}
    return {name: read_module(path, name, set(paths)) for name, path in paths.items()}


def python_files(root: Path) -> Iterator[Path]:
    yield from root.glob('*.py')
    for folder in FOLDERS:
        yield from (root / folder).rglob('*.py')


def module_name(path: Path) -> str:
    return '.'.join(path.with_suffix('').parts).removesuffix('.__init__')


def read_module(path: Path, name: str, project: set[str]) -> Module:
    tree = ast.parse(path.read_text(encoding='utf-8'), str(path))
    package = name if path.name == '__init__.py' else name.rpartition('.')[0]
    everything = {
        imported for node in ast.walk(tree) for imported in imported_by(node, package, project)
    }
    at_import = {
        imported for node in run_at_import(tree) for imported in imported_by(node, package, project)
    }
    return Module(everything - {name}, at_import - {name})


def imported_by(node: ast.AST, package: str, project: set[str]) -> Iterator[str]:
    """The modules that a node imports, if it is an import at all."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        module = node.module or ''
        if node.level:
            parents = package.split('.')[: len(package.split('.')) - node.level + 1]
            module = '.'.join([*parents, *filter(None, [module])])
        for alias in node.names:
            # What is imported from a package may be a module of it.
            inner = f'{module}.{alias.name}'
            yield inner
            if inner not in project:
                yield module


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes under `node` that run when its file is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and 'TYPE_CHECKING' in ast.unparse(child.test):
            continue
        yield child
        yield from run_at_import(child)


# ------------------------------------------------------------------------------- rules


def violations(project: dict[str, Module]) -> list[str]:
    """Imports that break the first three rules, as `module imports module: rule`."""
    found = []
    for name, module in sorted(project.items()):
        for imported in sorted(module.all & set(project)):
            rule = broken_rule(name, imported)
            if rule:
                found.append(f'{name} imports {imported}: {rule}')
    return found


def broken_rule(name: str, imported: str) -> str | None:
    kind, imported_kind = module_kind(name), module_kind(imported)
    if imported_kind not in ALLOWED[kind]:
        return f'{kind} imports only {", ".join(ALLOWED[kind]) or "nothing of the project"}'
    if kind == imported_kind == 'cifar10_lib':
        wing, imported_wing = (each.split('.')[1] for each in (name, imported))
        if wing not in BELOW or imported_wing not in {wing, *BELOW[wing]}:
            return 'a wing imports only itself and lower wings'
    return None


def module_kind(name: str) -> str:
    first = name.partition('.')[0]
    return first if first in ALLOWED else 'a script'


def circles(project: dict[str, Module]) -> list[list[str]]:
    """Modules that import one another, directly or through others: one list for each circle."""
    reached = {name: reachable(name, project) for name in project}
    found = {
        tuple(other for other in sorted(reached[name]) if name in reached[other])
        for name in project
        if name in reached[name]
    }
    return [list(circle) for circle in sorted(found)]


def reachable(name: str, project: dict[str, Module]) -> set[str]:
    """The project's modules that a module imports, directly or through others."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        new = project[waiting.pop()].all & set(project) - found
        found |= new
        waiting += new
    return found


def path_to(name: str, other: str, project: dict[str, Module]) -> list[str]:
    """How importing a module imports one from elsewhere; empty where it doesn't."""
    paths = [[name]]
    seen = {name}
    while paths:
        path = paths.pop(0)
        imported = project[path[-1]].at_import
        if any(f'{each}.'.startswith(f'{other}.') for each in imported):
            return [*path, other]
        # A module's packages are imported before it.
        parents = {each.rpartition('.')[0] for each in (imported | {path[-1]}) & set(project)}
        new = (imported | parents) & set(project) - seen
        seen |= new
        paths += [[*path, each] for each in sorted(new)]
    return []


def data_modules(project: dict[str, Module]) -> list[str]:
    return [
        name
        for name in sorted(project)
        if module_kind(name) == 'cifar10_lib' and name.rpartition('.')[2] in DATA_MODULES
    ]


# ------------------------------------------------------------------------- the project


@pytest.fixture(scope='module')
def project() -> dict[str, Module]:
    return read_project(REPOSITORY)


def test_imports_point_downwards(project: dict[str, Module]) -> None:
    assert violations(project) == []


def test_there_are_no_circles(project: dict[str, Module]) -> None:
    assert circles(project) == []


def test_settings_recipes_and_presets_import_no_tensorflow(project: dict[str, Module]) -> None:
    modules = data_modules(project)
    assert len(modules) >= 3, modules
    paths = [path_to(name, 'tensorflow', project) for name in modules]
    assert [' -> '.join(path) for path in paths if path] == []


def test_settings_have_the_choices_of_what_loads_tensorflow() -> None:
    assert evaluation_settings.EVAL_DATA == cifar10_input.EVAL_DATA
    assert evaluation_settings.NUM_VIEWS == cifar10_input.NUM_VIEWS
    assert cifar10_input.CIFAR10_RECORD.height == datasets.SIZE
    homes = {field.name: field for field in dataclasses.fields(MultiGpuTrainSettings)}['variables']
    assert homes.metadata['choices'] == (towers.CPU, towers.FIRST, towers.MIRRORED)


def test_ten_files_stand_at_the_top() -> None:
    names = {path.stem for path in REPOSITORY.glob('*.py')}
    assert names == {'cifar10_input', 'cifar10', *SCRIPTS}


def test_cifar10_reads_no_http_client_and_no_archive_reader() -> None:
    # TensorFlow reads the standard library's, so it is the project's own that counts.
    program = "import sys, cifar10; print(*(n for n in sys.modules if n.startswith('cifar10')))"
    result = subprocess.run(
        [sys.executable, '-c', program],
        cwd=REPOSITORY,
        env=script_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(result.stdout.split())
    assert {'cifar10', 'cifar10_input'} <= loaded
    assert not loaded & {'cifar10_lib.data.download', 'cifar10_lib.data.archive'}


def test_neither_does_any_module_that_cifar10_reads(project: dict[str, Module]) -> None:
    readers = ('http', 'urllib.request', 'requests', 'tarfile', 'zipfile', 'PIL')
    paths = [path_to('cifar10', reader, project) for reader in readers]
    assert [' -> '.join(path) for path in paths if path] == []


# -------------------------------------------------------------------------- the reader


def write_project(root: Path, files: dict[str, str]) -> dict[str, Module]:
    """Reads a small project: the code of each file by its path."""
    for path, code in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(code)
    return read_project(root)


SOUND = {
    'cifar10_input.py': 'import tensorflow',
    'cifar10.py': 'import cifar10_input\nfrom cifar10_lib.nn import layers',
    'cifar10_train.py': 'import cifar10\nfrom cifar10_lib.training import session',
    'cifar10_eval.py': 'from cifar10_lib.data.download import get',
    'cifar10_lib/base/files.py': 'import os',
    'cifar10_lib/data/__init__.py': '',
    'cifar10_lib/data/download.py': 'import http.client\nfrom cifar10_lib.base import files',
    'cifar10_lib/nn/__init__.py': '',
    'cifar10_lib/nn/layers.py': 'import cifar10_input\nfrom cifar10_lib.nn import recipe',
    'cifar10_lib/nn/recipe.py': 'import dataclasses',
    'cifar10_lib/runs/folder.py': 'import cifar10_lib.nn.recipe',
    'cifar10_lib/evaluation/report.py': 'from cifar10_lib.runs import folder',
    'cifar10_lib/training/session.py': 'from cifar10_lib.evaluation import report',
    'benchmarks/speed.py': 'import cifar10_train',
    'tests/test_speed.py': 'from benchmarks import speed',
}


def test_a_sound_project_has_no_violations(tmp_path: Path) -> None:
    sound = write_project(tmp_path, SOUND)
    assert len(sound) == len(SOUND)
    assert violations(sound) == [] and circles(sound) == []
    assert data_modules(sound) == ['cifar10_lib.nn.recipe']
    assert path_to('cifar10_lib.nn.recipe', 'tensorflow', sound) == []


@pytest.mark.parametrize(
    ('path', 'code', 'imported'),
    [
        ('cifar10_input.py', 'import cifar10_lib.base.files', 'cifar10_lib.base.files'),
        ('cifar10_input.py', 'def f():\n  import cifar10', 'cifar10'),
        (
            'cifar10_lib/base/files.py',
            'from cifar10_lib.nn.layers import x',
            'cifar10_lib.nn.layers',
        ),
        ('cifar10_lib/data/download.py', 'from ..nn import layers', 'cifar10_lib.nn.layers'),
        ('cifar10_lib/data/__init__.py', 'from ..nn import layers', 'cifar10_lib.nn.layers'),
        ('cifar10_lib/nn/layers.py', 'from cifar10_lib import data', 'cifar10_lib.data'),
        ('cifar10_lib/nn/layers.py', 'from ..runs.folder import x', 'cifar10_lib.runs.folder'),
        ('cifar10_lib/runs/folder.py', 'import cifar10', 'cifar10'),
        ('cifar10_lib/training/session.py', 'def f():\n  import cifar10_eval', 'cifar10_eval'),
        ('cifar10_lib/training/session.py', 'import benchmarks.speed', 'benchmarks.speed'),
        ('cifar10_lib/other/new.py', 'import cifar10_lib.base.files', 'cifar10_lib.base.files'),
        ('cifar10.py', 'class A:\n  import cifar10_train', 'cifar10_train'),
        ('cifar10_eval.py', 'from cifar10_train import train', 'cifar10_train'),
        ('cifar10_eval.py', 'if TYPE_CHECKING:\n  import cifar10_train', 'cifar10_train'),
        ('cifar10_eval.py', 'import tests.test_speed', 'tests.test_speed'),
        ('benchmarks/speed.py', 'import tests.test_speed', 'tests.test_speed'),
    ],
)
def test_a_violation_is_found(tmp_path: Path, path: str, code: str, imported: str) -> None:
    (found,) = violations(write_project(tmp_path, {**SOUND, path: code}))
    assert found.startswith(f'{module_name(Path(path))} imports {imported}: ')


@pytest.mark.parametrize(
    ('changed', 'circle'),
    [
        (
            {
                'cifar10_lib/nn/recipe.py': 'def f():\n  from cifar10_lib.nn import layers',
            },
            ['cifar10_lib.nn.layers', 'cifar10_lib.nn.recipe'],
        ),
        (
            {
                'cifar10_lib/base/files.py': 'from . import locks',
                'cifar10_lib/base/locks.py': 'from .flags import flag',
                'cifar10_lib/base/flags.py': 'from cifar10_lib.base.files import x',
            },
            ['cifar10_lib.base.files', 'cifar10_lib.base.flags', 'cifar10_lib.base.locks'],
        ),
    ],
)
def test_a_circle_is_found(tmp_path: Path, changed: dict[str, str], circle: list[str]) -> None:
    assert circles(write_project(tmp_path, {**SOUND, **changed})) == [circle]


@pytest.mark.parametrize(
    ('changed', 'path'),
    [
        ({'cifar10_lib/nn/recipe.py': 'import tensorflow.compat.v1 as tf'}, []),
        ({'cifar10_lib/nn/recipe.py': 'from cifar10_input import x'}, ['cifar10_input']),
        ({'cifar10_lib/nn/__init__.py': 'import tensorflow'}, ['cifar10_lib.nn']),
    ],
)
def test_tensorflow_behind_data_is_found(
    tmp_path: Path, changed: dict[str, str], path: list[str]
) -> None:
    changed_project = write_project(tmp_path, {**SOUND, **changed})
    found = path_to('cifar10_lib.nn.recipe', 'tensorflow', changed_project)
    assert found == ['cifar10_lib.nn.recipe', *path, 'tensorflow']


def test_what_a_function_imports_is_not_read_with_its_file(tmp_path: Path) -> None:
    recipe = 'def f():\n  import tensorflow\nif TYPE_CHECKING:\n  import tensorflow'
    lazy = write_project(tmp_path, {**SOUND, 'cifar10_lib/nn/recipe.py': recipe})
    assert path_to('cifar10_lib.nn.recipe', 'tensorflow', lazy) == []
