"""The folder of a training run: its settings, its checkpoints, and its data set."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cifar10_input import NUM_CLASSES
from cifar10_lib.base import files
from cifar10_lib.base.errors import UserError
from cifar10_lib.data import held_out, prepare, record_files
from cifar10_lib.data.datasets import CIFAR10_DIRECTORY, DATA_DIR, DATASETS, IDX_DIRECTORIES
from cifar10_lib.data.framing import Framing, parse_framing
from cifar10_lib.data.record_files import CIFAR10_CLASS_NAMES, CLASS_NAMES_FILE, RECORD_FILES
from cifar10_lib.nn.layers import Network
from cifar10_lib.nn.presets import MODEL_NAMES, NETWORK_PRESETS, PRESETS
from cifar10_lib.nn.recipes import TUTORIAL_RECIPE, Recipe
from cifar10_lib.runs import checkpoints, history
from cifar10_lib.runs.checkpoints import Checkpoint, CheckpointFolder, find_named, open_checkpoint

SETTINGS_FILE = 'settings.json'

# Inside the folder of a run, by default: its evaluations.
EVAL_DIRECTORY = 'eval'

# What is read of settings.json, by name: the type, and the choices of a text. Numbers are 0 or
# more.
_RECIPE = {f.name: (type(f.default), f.metadata.get('choices')) for f in dataclasses.fields(Recipe)}
_KNOWN: dict[str, tuple[type, Any]] = {
    **_RECIPE,
    'model': (str, MODEL_NAMES),
    'preset': (str, tuple(PRESETS)),
    'dataset': (str, DATASETS),
    'data_dir': (str, None),
    'data_dir_from_run': (str, None),
    'run': (str, None),
    'num_held_out': (int, None),
    'held_out_seed': (int, None),
    'use_fp16': (bool, None),
    'use_bf16': (bool, None),
    'seed': (int, None),
}
_EXPECTED = {
    bool: 'true or false',
    int: 'a whole number, 0 or more',
    float: 'a number, 0 or more',
    str: 'a text',
}


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The folder of a training run, as `open` reads it; the defaults are the tutorial's."""

    path: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """All of settings.json; empty where there is none."""
    recipe: Recipe = TUTORIAL_RECIPE
    preset: str = TUTORIAL_RECIPE.model
    dataset: str | None = None
    """'cifar10', 'synthetic' or 'own'; None where it is not known."""
    data_dir: str | None = None
    """The --data_dir of training, an absolute path; None where it is not known."""
    data_dir_from_run: str | None = None
    """The same, from this folder on: both may have been moved together."""
    run: str | None = None
    """Name of the run, of its own and other than that of any run before it in the folder; None
    where an earlier version began it."""
    num_held_out: int = 0
    """How many training images were held out of training."""
    held_out_seed: int | None = None
    """Seed by which they were drawn; None: they are the last ones."""
    use_fp16: bool = False
    use_bf16: bool = False
    seed: int = 0
    framing: Framing = Framing()
    """How pictures became the images of training; the defaults where it is not known."""
    named: str | None = None
    """Path of the checkpoint that --checkpoint names; None: the newest is meant."""

    @classmethod
    def open(cls, path: str, model: str | None = None, checkpoint: str | None = None) -> RunFolder:
        """Reads the settings of a run; a folder without settings, or without some, is one too.

        Args:
          path: of the folder.
          model: --model, the network of a folder without settings; None: the tutorial's.
          checkpoint: --checkpoint, whose folder is opened in place of `path`; None: the newest
            one in `path`.

        Raises:
          UserError: settings.json can't be read, has a value of another type or an unknown
            name, or has another network than `model`; or the checkpoint is missing.
        """
        refuse_checkpoint(path)
        named = find_named(checkpoint, path) if checkpoint else None
        path = os.path.dirname(named) if named else path
        settings = _read_settings(path)
        known = {name: settings[name] for name in _KNOWN if settings.get(name) is not None}
        for name, value in known.items():
            _check(os.path.join(path, SETTINGS_FILE), name, value)
        if not settings and model:
            known['model'] = model
        try:
            known['framing'] = parse_framing(settings.get('framing', {}))
        except ValueError as error:
            raise UserError(f'{os.path.join(path, SETTINGS_FILE)}: framing: {error}') from error
        recipe = Recipe(**{name: known.pop(name) for name in _RECIPE if name in known})
        if model not in (None, recipe.model):
            raise UserError(
                f'--model={model}: the checkpoints in {path} are of the network {recipe.model}'
            )
        known = {'preset': NETWORK_PRESETS[recipe.model], **known, 'named': named}
        return cls(path, settings, recipe, **known)

    @property
    def model(self) -> str:
        """Name of the network."""
        return self.recipe.model

    def configure(self, network: Network) -> Network:
        """The network as the run's recipe and the size of its images have it."""
        return network.trained_by(self.recipe).of_size(self.framing.size)

    @functools.cached_property
    def checkpoints(self) -> CheckpointFolder:
        return CheckpointFolder(self.path)

    @functools.cached_property
    def checkpoint(self) -> Checkpoint | None:
        """The named checkpoint, else the newest complete one; None where there is none.

        It is read once, so that all who ask have the same one.

        Raises:
          UserError: the named one can't be read, or there are others, and none is complete.
        """
        return open_checkpoint(self.named) if self.named else self.checkpoints.newest()

    def require_checkpoint(self, flag: str = '--checkpoint_dir') -> Checkpoint:
        """As `checkpoint`; raises UserError, which names the flag, where there is none."""
        return self.checkpoint or self.checkpoints.require_newest(flag)

    @property
    def num_classes(self) -> int:
        """Size of the checkpoint's last layer; ten where there is no checkpoint."""
        return self.checkpoint.num_classes if self.checkpoint else NUM_CLASSES

    def check_eval_data(self, eval_data: str) -> None:
        """Raises UserError where held-out images are asked for, and there are none."""
        if eval_data == 'held_out' and not self.num_held_out:
            raise UserError(
                f'--eval_data=held_out: the run in {self.path} held no training images out; '
                'train with --num_held_out'
            )

    def find_held_out(self, prepared: prepare.Prepared) -> list[int]:
        """Places of the training images that were held out of training."""
        record = prepared.framing.record
        return held_out.find(prepared.directory, record, self.num_held_out, self.held_out_seed)

    def find_data_dir(self, data_dir: str | None) -> str:
        """The folder of the data set: `data_dir`, else that of training.

        Raises:
          UserError: that of training is gone.
        """
        if data_dir or self.data_dir is None:
            return data_dir or DATA_DIR
        found = self.places_of_data()[0]
        if not os.path.isdir(found):
            raise UserError(
                f'{self.data_dir}: missing; the run in {self.path} was trained on its images; '
                '--data_dir names where they are now'
            )
        return found

    def places_of_data(self) -> list[str]:
        """Where training's data set may be: folders that are there before others."""
        places = [self.data_dir] if self.data_dir else []
        if self.data_dir_from_run:
            places.append(os.path.normpath(os.path.join(self.path, self.data_dir_from_run)))
        return sorted(places, key=os.path.isdir, reverse=True)

    @property
    def labels(self) -> dict[str, str]:
        """What each line of a history says of the run that it is of."""
        return {'run': self.run, 'model': self.model} if self.run else {}

    def own_entries(self, folder: str) -> list[history.Entry]:
        """The lines of this run in the history of evaluations in a folder.

        Warns of those of other runs, which are left out.
        """
        entries = history.read(folder)
        own = [entry for entry in entries if entry.get('run') == self.run]
        others = [e.get('run') or 'one without a name' for e in entries if e.get('run') != self.run]
        if others:
            print(
                f'Warning: {os.path.join(folder, history.HISTORY_FILE)}: {len(others)} lines are '
                f'of another run than the one in {self.path}, and left out: of '
                f'{", ".join(sorted(set(others)))}',
                file=sys.stderr,
            )
        return own

    def check_files(self, paths: Sequence[str], digest: str, kind: str) -> None:
        """Checks that files are those of the data set of training, as far as that is known.

        Args:
          paths: of the training or test files.
          digest: of their contents.
          kind: 'training' or 'test'.

        Raises:
          UserError: they are others.
        """
        expected = self.settings.get(f'{kind}_files_sha256')
        if expected not in (None, digest):
            raise UserError(
                f'{os.path.dirname(paths[0])}: these are not the {kind} files of the data set that '
                f'the run in {self.path} was trained on (SHA-256 {digest[:12]}, expected '
                f'{str(expected)[:12]}); name its folder by --data_dir'
            )

    def prepare_data(self, data_dir: str | None, dataset: str | None = None) -> prepare.Prepared:
        """The data set that the run was trained on.

        Args:
          data_dir: --data_dir, or None: see `find_data_dir`.
          dataset: --dataset, or None.

        Raises:
          UserError: `dataset` is another one; or see `prepare.prepare`.
        """
        if dataset and self.dataset and dataset != self.dataset:
            raise UserError(
                f'--dataset={dataset}: the checkpoints in {self.path} were trained on '
                f'{self.dataset}'
            )
        prepared = prepare.prepare(
            self.find_data_dir(data_dir), dataset or self.dataset, may_make=False
        )
        if self.settings and prepared.framing.size != self.framing.size:
            raise UserError(
                f'{prepared.directory}: holds images of {prepared.framing.size} pixels; the run '
                f'in {self.path} was trained on images of {self.framing.size}'
            )
        return prepared

    def class_names(self, data_dir: str | None) -> list[str]:
        """Names of the classes, as many as `num_classes`, in the order of the labels.

        They are those of batches.meta.txt in `data_dir`, or without it in the folder of
        training. Where that is gone, the ten classes of cifar10 have their published names,
        and those of any other data set their labels, with a warning.

        Raises:
          UserError: there are no names in `data_dir`, or another number of names.
        """
        below = {
            'cifar10': CIFAR10_DIRECTORY,
            'synthetic': prepare.SYNTHETIC_DIRECTORY,
            **IDX_DIRECTORIES,
        }
        dataset = self.dataset or 'cifar10'
        folders = [data_dir] if data_dir else self.places_of_data()
        parts = (below.get(dataset, ''), '')
        directories = [os.path.join(folder, part) for folder in folders for part in parts]
        for directory in directories:
            path = os.path.join(directory, CLASS_NAMES_FILE)
            if os.path.lexists(path):
                names = record_files.read_class_names(directory)
                if len(names) != self.num_classes:
                    raise UserError(
                        f'{path}: found {len(names)} class names; expected {self.num_classes}, '
                        f'as many as the checkpoints in {self.path} tell apart'
                    )
                return names
        # CIFAR-10's files come without names, too.
        is_cifar10 = dataset == 'cifar10' and self.num_classes == len(CIFAR10_CLASS_NAMES)
        paths = [os.path.join(directory, RECORD_FILES[0]) for directory in directories]
        if data_dir and not (is_cifar10 and any(map(os.path.exists, paths))):
            raise UserError(f'--data_dir={data_dir}: found no {CLASS_NAMES_FILE}')
        if is_cifar10:
            return list(CIFAR10_CLASS_NAMES)
        print(
            f'Warning: found no {CLASS_NAMES_FILE} of the training images, so classes are named '
            'by their labels; --data_dir names the folder that has it',
            file=sys.stderr,
        )
        return [str(label) for label in range(self.num_classes)]


def _read_settings(folder: str) -> dict[str, Any]:
    path = os.path.join(folder, SETTINGS_FILE)
    try:
        # An editor may have put a byte order mark before it.
        with open(path, encoding='utf-8-sig') as file:
            settings = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f'{path}: cannot be read as settings: {error}; move it away to continue without it'
        ) from error
    if not isinstance(settings, dict):
        raise UserError(f'{path}: expected a JSON object, found {type(settings).__name__}')
    return settings


def _check(path: str, name: str, value: Any) -> None:
    """Raises UserError where a value of settings.json is of another type, or no choice."""
    kind, choices = _KNOWN[name]
    # Not isinstance: True is an int to Python. JSON has no type for whole floats.
    sound = type(value) is kind or (kind is float and type(value) is int)
    if not sound or (choices and value not in choices) or (kind in (int, float) and not value >= 0):
        expected = f'one of {", ".join(choices)}' if choices else _EXPECTED[kind]
        raise UserError(f'{path}: found the {name} {repr(value)[:60]}; expected {expected}')


def refuse_checkpoint(path: str) -> None:
    """Raises UserError where the path of a folder is that of a checkpoint."""
    if checkpoints.exists(path):
        raise UserError(
            f'{path}: is a checkpoint, or a file of one; expected the folder of a run, here '
            f'{os.path.dirname(path) or os.curdir}'
        )


def new_run() -> str:
    """A name for a run that begins now."""
    return f'{datetime.datetime.now():%Y-%m-%d %H:%M:%S} {secrets.token_hex(2)}'


def store(settings: Any, folder: str, **more: Any) -> None:
    """Writes a dataclass of settings, and `more`, to settings.json in `folder`.

    The path of the data set is stored so that it is found again from any working directory. A
    crash leaves the old file complete.

    Raises:
      OSError: the file can't be written.
    """
    values = {**dataclasses.asdict(settings), **more}
    if 'data_dir' in values:
        values['data_dir'] = os.path.abspath(values['data_dir'])
        relative = os.path.relpath(os.path.realpath(values['data_dir']), os.path.realpath(folder))
        values['data_dir_from_run'] = relative
    files.replace_text(os.path.join(folder, SETTINGS_FILE), json.dumps(values, indent=2) + '\n')
