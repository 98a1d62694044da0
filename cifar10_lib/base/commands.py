"""Commands that a user types: `python cifar10_train.py`, or where it is installed cifar10-train."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys

# What installed commands begin with, and no script does.
_PREFIX = 'cifar10-'


def main() -> None:
    """Runs the script that an installed command stands for: of cifar10-train, cifar10_train.py.

    The script is `__main__`, as it is where Python is given its file. Unlike with `runpy`,
    sys.argv[0] stays the command, which messages name and workers run.
    """
    name = _installed_name().replace('-', '_')
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__name__ = '__main__'
    sys.modules['__main__'] = module
    exec(spec.loader.get_code(name), module.__dict__)  # type: ignore[attr-defined]


def is_installed() -> bool:
    """Whether this process was begun by an installed command."""
    return _installed_name().startswith(_PREFIX)


def _installed_name() -> str:
    return os.path.basename(sys.argv[0]).removesuffix('.exe')


def command(script: str) -> list[str]:
    """The words that run a script beside this one, as short as a user writes them.

    Args:
      script: its file name, such as cifar10_train.py.
    """
    folder = os.path.dirname(sys.argv[0])
    if not is_installed():
        python = 'python' if shutil.which('python') == sys.executable else sys.executable
        return [python, os.path.join(folder, script)]
    name = script.removesuffix('.py').replace('_', '-')
    path = os.path.join(folder, name)
    return [name if shutil.which(name) == path else path]


def name_commands(text: str) -> str:
    """A text that names commands as `python cifar10_train.py`; installed, as cifar10-train."""
    if not is_installed():
        return text
    return re.sub(r'\bpython (cifar10_\w+\.py)', lambda match: command(match[1])[0], text)
