"""The settings of a training run that all trainers share."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from cifar10_lib.base.flags import LARGEST_SEED, path_setting, setting
from cifar10_lib.data.datasets import DATA_DIR, DATA_URL, DATASET_HELP, DATASETS
from cifar10_lib.nn.presets import MODEL_NAMES, NETWORK_PRESETS, PRESETS
from cifar10_lib.nn.recipes import BATCH_SIZE, TUTORIAL_RECIPE, Recipe

if TYPE_CHECKING:
    from cifar10_input import RecordFormat
    from cifar10_lib.runs.run_folder import RunFolder

# Steps between histogram summaries, by default. On 2 CPU cores one set of them costs
# 156 ms, as much as four steps, and the scalars less than can be measured: this keeps
# all summaries together under 1% of the training time.
_HISTOGRAM_STEPS = 500

# Of --eval_every.
AUTOMATIC = -1

# More than any machine has cores; many more can't be started.
MAX_THREADS = 4096

# More than any machine has GPUs; each is a copy of the network in the graph.
MAX_TOWERS = 256

# On one machine: each is a process with all of TensorFlow.
MAX_WORKERS = 64


# Settings that a resumed run doesn't take from the run's folder.
_NOT_RESUMED = ('train_dir', 'start_over', 'progress', 'log_device_placement')


def _fits(value: Any, default: Any) -> bool:
    """Whether a stored value is of a flag's type; that of one without a default is text."""
    if isinstance(default, float):
        return type(value) in (int, float)
    return type(value) is (str if default is None else type(default))


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """Settings of a training run besides its recipe."""

    train_dir: str = path_setting(
        'cifar10_train',
        'Folder of checkpoints, summaries and settings; a run that it holds is resumed.',
    )
    preset: str = setting(
        None,
        "A recipe by name, by default the network's own; flags beside it change single values.",
        choices=tuple(PRESETS),
    )
    init_from: str = path_setting(
        None,
        "A run's folder or a checkpoint, whose layers a new run begins with, as far as they fit; "
        'the others begin anew.',
    )
    data_dir: str = path_setting(DATA_DIR, 'Folder of the data set, filled if it is empty.')
    dataset: str = setting(None, DATASET_HELP, choices=DATASETS)
    data_url: str = setting(DATA_URL, 'http, https or file URL of the CIFAR-10 archive.')
    num_held_out: int = setting(
        0,
        'Number of training images that are kept for evaluation, of each class the same share, '
        'drawn by --seed.',
        at_least=0,
    )
    held_out: float = setting(
        0.0, 'The same as a share of the training images.', at_least=0, at_most=0.9
    )
    log_frequency: int = setting(
        10, 'Steps between console lines, and between lines of history.jsonl.', at_least=1
    )
    progress: bool = setting(
        True, 'On a terminal, show one progress line in place of console lines.'
    )
    eval_every: int = setting(
        AUTOMATIC,
        'Steps between evaluations during training, each of a checkpoint saved for it; 0: none; '
        '-1: about 15 in the run, on as many images as take at most 3% of its time.',
        at_least=AUTOMATIC,
    )
    eval_data: str = setting(
        None,
        'Images that --eval_every scores: test, or held_out, those of --num_held_out; by default '
        'these, where images are held out.',
        choices=('test', 'held_out'),
    )
    keep_best: bool = setting(
        False,
        'Keep a copy of the checkpoint of the best precision so far in the folder best of '
        '--train_dir.',
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
        0,
        'Seed of the initial weights, the order of the images, distortions and dropout.',
        at_least=0,
        at_most=LARGEST_SEED,
    )
    deterministic: bool = setting(False, 'Use deterministic operations: the same bits on each run.')
    save_checkpoint_secs: int = setting(600, 'Seconds between checkpoints.', at_least=1)
    save_checkpoint_steps: int = setting(
        0,
        'Steps between checkpoints, in place of --save_checkpoint_secs; 0: those seconds.',
        at_least=0,
    )
    max_to_keep: int = setting(5, 'Number of checkpoints that are kept; 0: all.', at_least=0)
    save_summaries_steps: int = setting(100, 'Steps between scalar summaries.', at_least=1)
    save_histograms_steps: int = setting(
        _HISTOGRAM_STEPS, 'Steps between histogram summaries.', at_least=1
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
    start_over: bool = setting(False, 'First remove the run in --train_dir.')

    @property
    def evaluated_data(self) -> str:
        """What evaluations score: `eval_data`, or what it is by default."""
        return self.eval_data or ('held_out' if self.num_held_out else 'test')


@dataclasses.dataclass(frozen=True)
class TrainSettings(Recipe, RunSettings):
    """Settings of a training run."""

    # What --help shows.
    MAIN_FLAGS: ClassVar[Mapping[str, Sequence[str]]] = {
        'Run': ('train_dir', 'max_steps', 'epochs', 'start_over'),
        'Data': ('data_dir', 'num_held_out'),
        'Network and recipe': ('model', 'preset', 'batch_size', 'optimizer', 'learning_rate'),
        'Evaluation': ('eval_every',),
        'Speed': ('use_bf16', 'use_fp16'),
    }

    model: str = setting('tutorial', 'The network.', choices=MODEL_NAMES)

    @property
    def preset_name(self) -> str:
        """The preset that is asked for, or that of the network."""
        return self.preset or NETWORK_PRESETS[self.model]

    def defaults(self) -> dict[str, Any]:
        """Values of the flags that aren't given: those of the run in --train_dir.

        Where it holds none, those of the preset.

        Raises:
          UserError: the run's settings can't be read.
        """
        if not self.start_over and os.path.isdir(self.train_dir):
            from cifar10_lib.runs.run_folder import RunFolder  # It loads TensorFlow.

            run = RunFolder.open(self.train_dir)
            if run.settings:
                return self._stored(run)
        more = {} if self.preset else {'model': TUTORIAL_RECIPE.model}
        return {**PRESETS[self.preset_name].flags, **more}

    def _stored(self, run: RunFolder) -> dict[str, Any]:
        """What a run was begun with, but for its folder; of flags that it doesn't know, nothing."""
        values = {}
        for field in dataclasses.fields(self):
            value = run.settings.get(field.name)
            if field.name not in _NOT_RESUMED and _fits(value, field.default):
                values[field.name] = value
        if self.held_out:
            values.pop('num_held_out', None)
        # The network of a run that stored none is the tutorial's.
        values.update(model=run.model, preset=values.get('preset'))
        if run.data_dir:
            values['data_dir'] = run.places_of_data()[0]
        return values


@dataclasses.dataclass(frozen=True)
class OneDeviceTrainSettings(TrainSettings):
    """Settings of a training run on one device."""

    batch_splits: int = setting(
        0,
        'Parts of the batch that the device computes side by side; 0: two on a CPU of two or '
        'more cores, else one, as where batches are normalised.',
        at_least=0,
    )


@dataclasses.dataclass(frozen=True)
class MultiGpuTrainSettings(TrainSettings):
    """What a training run on several devices is asked to do."""

    MAIN_FLAGS: ClassVar[Mapping[str, Sequence[str]]] = {
        'Devices': ('num_gpus', 'variables'),
        **TrainSettings.MAIN_FLAGS,
    }

    num_gpus: int = setting(1, 'Number of towers.', at_least=1, at_most=MAX_TOWERS)
    tower_device: str = setting(
        'gpu', 'Kind of device of the towers; cpu: virtual CPU devices.', choices=('gpu', 'cpu')
    )
    variables: str = setting(
        'first',
        'Home of the variables, where the gradients are added up: cpu; first, the first tower; '
        'mirrored, a copy on each tower, gradients added by all-reduce.',
        choices=('cpu', 'first', 'mirrored'),
    )


@dataclasses.dataclass(frozen=True)
class DistributedTrainSettings(OneDeviceTrainSettings):
    """What each worker of a training run is asked to do."""

    batch_size: int = setting(BATCH_SIZE, 'Number of images in a batch of one worker.', at_least=1)
    wait_secs: int = setting(
        300,
        'Longest wait for another worker, in seconds: until it starts, and in a step, the '
        "chief's saving and evaluating included.",
        at_least=1,
        at_most=1_000_000,
    )


@dataclasses.dataclass(frozen=True)
class CommandSettings(DistributedTrainSettings):
    """What the command line asks for: a worker, or several on this machine."""

    MAIN_FLAGS: ClassVar[Mapping[str, Sequence[str]]] = {
        'Workers': ('local_workers', 'max_restarts'),
        **TrainSettings.MAIN_FLAGS,
    }

    local_workers: int = setting(
        0,
        'Start so many workers on this machine; 0: be the one that TF_CONFIG or SLURM names.',
        at_least=0,
        at_most=MAX_WORKERS,
    )
    max_restarts: int = setting(
        10,
        'How often workers of --local_workers that were killed are started again, all together.',
        at_least=0,
    )


class TrainingData(NamedTuple):
    """The images that a run is trained on."""

    directory: str
    """Of the record files."""
    num_examples: int
    """Size of the training set, without what is held out."""
    num_classes: int
    record: RecordFormat
    held_out: Sequence[int] = ()
    """Places of the training images that are kept for evaluation."""
    held_out_seed: int | None = None
    """Seed by which they were drawn: see `held_out.find`."""
