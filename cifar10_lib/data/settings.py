"""The settings of the script that gets or makes a data set."""

from __future__ import annotations

import dataclasses

from cifar10_lib.base.flags import LARGEST_SEED, arguments, path_setting, setting
from cifar10_lib.data.datasets import (
    DATA_DIR,
    DATA_URL,
    DATASET_HELP,
    DATASETS,
    FITS,
    MAX_DRAWN_IMAGES,
    MAX_SIZE,
    MIN_SIZE,
    SIZE,
)


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """What to put where."""

    words: tuple[str, ...] = arguments()
    data_dir: str = path_setting(DATA_DIR, 'Directory that holds, or gets, the data set.')
    dataset: str = setting(None, DATASET_HELP, choices=DATASETS)
    data_url: str = setting(DATA_URL, 'http, https or file URL of the CIFAR-10 archive.')
    num_train: int = setting(
        50000, 'Synthetic training images, a multiple of 5.', at_least=5, at_most=MAX_DRAWN_IMAGES
    )
    num_test: int = setting(10000, 'Synthetic test images.', at_least=1, at_most=MAX_DRAWN_IMAGES)
    seed: int = setting(
        0,
        'Seed of the synthetic set, or of the order of converted images and of what is a test '
        'image.',
        at_least=0,
        at_most=LARGEST_SEED,
    )
    test_percent: int = setting(
        0,
        'convert: share of each class that become test images, in percent, where there is no '
        'train/ and test/; 0: a sixth.',
        at_least=0,
        at_most=99,
    )
    labels: str = setting(
        None,
        'convert: which labels where there are several: fine (the default) or coarse of '
        "CIFAR-100, or the name of one of EMNIST's sets.",
    )
    size: int = setting(
        SIZE,
        'convert: side of the images in pixels.',
        at_least=MIN_SIZE,
        at_most=MAX_SIZE,
    )
    fit: str = setting(
        'crop',
        'convert: how a picture becomes a square: crop, the largest one in its middle; pad, all '
        'of it between black bars; or stretch.',
        choices=FITS,
    )
    invert: bool = setting(
        False, 'convert: exchange black and white, as for digits drawn in black on white.'
    )
    contact_sheet: str = path_setting(
        None, 'convert: PNG of examples to write; by default contact_sheet.png in --data_dir.'
    )
