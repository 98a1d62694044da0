"""A small checkpoint of a run, to begin others with: the averages alone, without any path.

    python -m benchmarks.fine_tuning.release --checkpoint_dir=fast_train --output=releases/fast

A checkpoint holds each weight, its average, and what the optimiser remembers of it; the averages
are what evaluation, prediction, export and --init_from take.
"""

from __future__ import annotations

import dataclasses
import json
import os

from cifar10_lib.base.files import filled_directory
from cifar10_lib.base.flags import path_setting, run_script, setting
from cifar10_lib.runs.checkpoints import AVERAGE_SUFFIX, Checkpoint, CheckpointFolder
from cifar10_lib.runs.run_folder import SETTINGS_FILE, RunFolder

# Statistics of batch normalisation, which have no averages, and the counters.
_KEPT = (AVERAGE_SUFFIX, '/moving_mean', '/moving_variance', 'global_step', 'examples_seen')


@dataclasses.dataclass(frozen=True)
class ReleaseSettings:
    """Which checkpoint, and where its copy goes."""

    checkpoint_dir: str = path_setting('cifar10_train', 'Folder of the run.')
    checkpoint: str = setting(None, 'A checkpoint of it by name; by default the newest.')
    output: str = path_setting('releases/tutorial', 'The folder to make.')


def release(settings: ReleaseSettings) -> None:
    """Writes the averages and the recipe.

    Raises:
      UserError: there is no checkpoint, or the folder can't be made.
    """
    run = RunFolder.open(settings.checkpoint_dir, checkpoint=settings.checkpoint)
    checkpoint = run.require_checkpoint()
    values = {
        name: value
        for name, value in checkpoint.values.items()
        if name.endswith(_KEPT) or not checkpoint.holds_averages
    }
    stored = {
        **dataclasses.asdict(run.recipe),
        'preset': run.preset,
        'dataset': run.dataset,
        'seed': run.seed,
        'use_fp16': run.use_fp16,
        'use_bf16': run.use_bf16,
        'framing': dataclasses.asdict(run.framing),
    }
    with filled_directory(settings.output) as directory:
        copy = Checkpoint(checkpoint.path, values, checkpoint.modified)
        CheckpointFolder(directory).add_copy(copy)
        with open(os.path.join(directory, SETTINGS_FILE), 'w', encoding='utf-8') as file:
            file.write(json.dumps(stored, indent=2) + '\n')
    print(f'Released {checkpoint} as {settings.output}')


if __name__ == '__main__':
    run_script(release, ReleaseSettings)
