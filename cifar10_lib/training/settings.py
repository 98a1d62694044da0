"""What is a training run asked to do? The settings that all trainers share, and what they build."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import LARGEST_SEED, setting
from cifar10_lib.data import prepare
from cifar10_lib.data.download import DATA_URL
from cifar10_lib.data.record_files import DATA_DIR
from cifar10_lib.nn.layers import Network
from cifar10_lib.nn.presets import PRESET_RUNS, PRESETS
from cifar10_lib.nn.recipes import MODEL_NAMES, TUTORIAL_RECIPE, Recipe
from cifar10_lib.runs import run_folder

# Steps between histogram summaries, by default. On 2 CPU cores one set of them costs
# 156 ms, as much as four steps, and the scalars less than can be measured: this keeps
# all summaries together under 1% of the training time.
_HISTOGRAM_STEPS = 500

# More than any machine has cores; many more can't be started.
MAX_THREADS = 4096


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """What a training run is asked to do, besides its recipe."""

    train_dir: str = setting(
        'cifar10_train', 'Folder for checkpoints, summaries and settings; resumed if it holds any.'
    )
    preset: str = setting(
        None,
        "A recipe by its name, by default the network's own; flags beside it change single values.",
        choices=tuple(PRESETS),
    )
    data_dir: str = setting(DATA_DIR, 'Folder of the data set, filled if it is empty.')
    dataset: str = setting(None, prepare.DATASET_HELP, choices=prepare.DATASETS)
    data_url: str = setting(DATA_URL, 'Where to get CIFAR-10: an http, https or file URL.')
    num_held_out: int = setting(
        0, 'How many of the last training images are kept for evaluation.', at_least=0
    )
    log_frequency: int = setting(
        10, 'Steps between console lines, and between lines of history.jsonl.', at_least=1
    )
    progress: bool = setting(True, 'On a terminal, show one live line in place of console lines.')
    eval_every: int = setting(
        0,
        'Steps between evaluations of the checkpoint that is then saved, in the midst of '
        'training; 0: none.',
        at_least=0,
    )
    eval_data: str = setting(
        'test',
        'The images that --eval_every scores: test, or held_out, those of --num_held_out.',
        choices=('test', 'held_out'),
    )
    log_device_placement: bool = setting(False, 'Log the device of every operation.')
    use_fp16: bool = setting(
        False, 'Compute in float16, with float32 master variables: for GPUs with tensor cores.'
    )
    use_bf16: bool = setting(
        False,
        'Multiply in bfloat16, with float32 master variables: for CPUs with instructions for it '
        '(AVX512_BF16 or AMX).',
    )
    seed: int = setting(
        0, 'Decides first weights, order and distortions.', at_least=0, at_most=LARGEST_SEED
    )
    deterministic: bool = setting(
        False, 'Have TensorFlow use deterministic operations: the same bits on each run.'
    )
    save_checkpoint_secs: int = setting(600, 'Seconds between checkpoints.', at_least=1)
    save_checkpoint_steps: int = setting(
        0,
        'Steps between checkpoints, in place of seconds; 0: as --save_checkpoint_secs says.',
        at_least=0,
    )
    max_to_keep: int = setting(5, 'How many checkpoints are kept; 0: all.', at_least=0)
    save_summaries_steps: int = setting(100, 'Steps between scalar summaries.', at_least=1)
    save_histograms_steps: int = setting(
        _HISTOGRAM_STEPS, 'Steps between histogram summaries, which cost more.', at_least=1
    )
    intra_op_threads: int = setting(
        0,
        'Threads that share one operation; 0: one for each core.',
        at_least=0,
        at_most=MAX_THREADS,
    )
    inter_op_threads: int = setting(
        0, 'Operations that run at a time; 0: one for each core.', at_least=0, at_most=MAX_THREADS
    )
    start_over: bool = setting(False, 'First remove the run that --train_dir holds.')


@dataclasses.dataclass(frozen=True)
class TrainSettings(Recipe, RunSettings):
    """What a training run is asked to do."""

    def defaults(self) -> dict[str, Any]:
        """Values of the flags that aren't given: those of the preset.

        Where neither preset nor network is given, both are those of the run in --train_dir.

        Raises:
          UserError: its settings can't be read.
        """
        more = {} if self.preset else {'model': TUTORIAL_RECIPE.model}
        name = self.preset or self.model
        if name == TUTORIAL_RECIPE.model and not self.preset and not self.start_over:
            more = _stored_choice(self.train_dir)
            name = more.get('preset') or more.get('model', name)
        return {**dataclasses.asdict(PRESETS[name]), **PRESET_RUNS.get(name, {}), **more}


def _stored_choice(train_dir: str) -> dict[str, str]:
    """Preset and network of the run in a folder, as far as its settings name them.

    Raises:
      UserError: they can't be read, or name what isn't there.
    """
    stored = run_folder.load(train_dir)
    choices = {
        name: run_folder.stored_choice(stored, train_dir, name, known)
        for name, known in (('preset', tuple(PRESETS)), ('model', MODEL_NAMES))
    }
    return {name: choice for name, choice in choices.items() if choice is not None}


@dataclasses.dataclass(frozen=True)
class OneDeviceTrainSettings(TrainSettings):
    """What a training run on one device is asked to do."""

    batch_splits: int = setting(
        0,
        'Parts of the batch that the device works on side by side; 0: two on a CPU of two or '
        'more cores, else one, as where batches are normalised.',
        at_least=0,
    )


def num_parts(settings: OneDeviceTrainSettings, network: Network) -> int:
    """Number of parts of a batch that the device computes side by side.

    On a CPU, operations of one half fill the cores while those of the other wait
    for each other. A GPU is better filled by one large batch. A network that normalises
    batches would compute another result of their parts.

    Raises:
      UserError: the number that was asked for doesn't divide the batch.
    """
    if not settings.batch_splits:
        on_gpu = bool(tf.config.list_physical_devices('GPU'))
        halves = not on_gpu and (os.cpu_count() or 1) > 1 and settings.batch_size % 2 == 0
        return 2 if halves and not network.normalizes_batches else 1
    if settings.batch_size % settings.batch_splits:
        raise UserError(
            f'--batch_splits={settings.batch_splits}: expected a divisor of '
            f'--batch_size={settings.batch_size}'
        )
    return settings.batch_splits


class TrainingData(NamedTuple):
    """The images that a run is trained on."""

    directory: str
    """Of the record files."""
    num_examples: int
    """Size of the training set, without what is held out."""
    num_classes: int
