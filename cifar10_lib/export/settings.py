"""The settings of an export."""

from __future__ import annotations

import dataclasses

from cifar10_lib.base.flags import path_setting, setting
from cifar10_lib.evaluation.settings import checkpoint_setting, model_setting


@dataclasses.dataclass(frozen=True)
class ExportSettings:
    """What to export, and where to."""

    output: str = path_setting(
        'cifar10_export', 'Folder to make; without --force it must be missing or empty.'
    )
    checkpoint_dir: str = path_setting('cifar10_train', 'Folder of the checkpoints.')
    checkpoint: str = checkpoint_setting()
    model: str = model_setting()
    eval: bool = setting(
        False, 'Measure the precision on the test images, and compare the models on all of them.'
    )
    int8: bool = setting(
        False,
        'Also write a TensorFlow Lite file in int8, calibrated on training images. The models are '
        'then compared as by --eval.',
    )
    onnx: bool = setting(
        False,
        'Also write an ONNX file, for ONNX Runtime and its like; needs tf2onnx and onnxruntime.',
    )
    force: bool = setting(
        False, 'Replace an export that --output holds, once the new one is complete.'
    )
    data_dir: str = path_setting(
        None,
        'Folder of the data set, for the names of its classes, --eval and --int8; by default the '
        'one that training used.',
    )
