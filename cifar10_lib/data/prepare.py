"""A directory of record files, found, downloaded, unpacked or generated."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import NamedTuple

from cifar10_input import CIFAR10_RECORD, NUM_CLASSES, TEST_FILES
from cifar10_lib.base.errors import UserError, os_errors_named
from cifar10_lib.base.files import filled_directory
from cifar10_lib.base.locks import turn
from cifar10_lib.data import download, record_files
from cifar10_lib.data.archive import FETCH_ANEW, unpack
from cifar10_lib.data.datasets import CIFAR10_DIRECTORY, DATA_URL, DATASETS, IDX_DIRECTORIES
from cifar10_lib.data.download import CIFAR10_FINGERPRINT, UnreachableError
from cifar10_lib.data.framing import FRAMING_FILE, Framing, read_framing
from cifar10_lib.data.record_files import (
    CIFAR10_CLASS_NAMES,
    CIFAR10_TEST_DIGEST,
    RECORD_FILES,
)
from cifar10_lib.data.synthetic import CLASS_NAMES as SYNTHETIC_CLASS_NAMES
from cifar10_lib.data.synthetic import (
    SYNTHETIC_MARKER,
    SyntheticSet,
    generate_synthetic,
    read_marker,
)

SYNTHETIC_DIRECTORY = 'synthetic-batches-bin'


class OtherDataError(UserError):
    """A folder holds another data set than the one that was asked for."""

    def __init__(self, found: str, kind: str) -> None:
        """
        Args:
          found: which one it holds.
          kind: the --dataset of that one.
        """
        super().__init__(f'{found}; choose --dataset={kind} or another --data_dir')
        self.found = found


class Prepared(NamedTuple):
    """A directory that directly holds sound record files.

    Attributes:
      directory: holds data_batch_1.bin to data_batch_5.bin and test_batch.bin.
      dataset: 'cifar10', 'mnist', 'fashion_mnist', 'synthetic' or 'own'.
      class_names: 2 to 256, in the order of the labels.
      framing: size of the images, and how pictures become such.
    """

    directory: str
    dataset: str
    class_names: tuple[str, ...]
    framing: Framing = Framing()

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


def prepare(
    data_dir: str,
    dataset: str | None = None,
    data_url: str = DATA_URL,
    synthetic: SyntheticSet | None = None,
    may_make: bool = True,
) -> Prepared:
    """Makes sure that a data set is there and sound.

    Files that are there are used as they are: they are checked, and never
    replaced or deleted. Processes that prepare the same directory at the same
    time wait for each other.

    Args:
      data_dir: the data directory; made where it is missing.
      dataset: 'cifar10'; 'mnist'; 'fashion_mnist'; 'synthetic'; 'own', images whose classes
        batches.meta.txt names otherwise than CIFAR-10's, or that were converted; 'auto', CIFAR-10
        where it is there or can be downloaded, else the synthetic set, which is then announced;
        or None, images of one's own where they are, else CIFAR-10.
      data_url: http, https or file URL of the CIFAR-10 archive. What DATA_URL gives
        must be the published archive, bit by bit. For another URL the user vouches:
        its archive must unpack into six sound record files, and that it is not the
        published one is only printed. An archive that lies in data_dir already under
        the URL's file name is taken in place of a download, by the same rule.
      synthetic: what a synthetic set must hold; None takes the one that is there,
        and generates the default where there is none.
      may_make: whether a set that isn't there is downloaded or generated.

    Returns:
      The directory that directly holds the six record files, and what they are.

    Raises:
      UserError: the files are damaged, are not of that data set, or cannot be had.
    """
    if dataset not in (None, *DATASETS):
        raise UserError(f'--dataset must be one of {", ".join(DATASETS)}, found {dataset!r}')
    found = _find(data_dir, dataset)
    if found is None and not may_make:
        raise UserError(
            f'--data_dir={data_dir}: holds no data set; expected the one of training, which '
            f'python cifar10_data.py --data_dir={data_dir} gets if it is CIFAR-10'
        )
    if found is None:
        with os_errors_named(data_dir):
            os.makedirs(data_dir, exist_ok=True)
        with turn(data_dir, f'Waiting for another process that is preparing {data_dir}'):
            # Another process may have put the files there in the meantime.
            found = _find(data_dir, dataset) or _obtain(data_dir, dataset, data_url, synthetic)
    if found.is_synthetic:
        _check_synthetic(found.directory, synthetic)
        if dataset == 'auto':
            print(f'Using synthetic pictures instead of CIFAR-10, from {found.directory}')
        return Prepared(found.directory, 'synthetic', SYNTHETIC_CLASS_NAMES)
    names = tuple(record_files.read_class_names(found.directory))
    framing = read_framing(found.directory)
    record_files.check_directory(found.directory, framing.record, len(names))
    kind = _kind(found.directory, names, dataset)
    if dataset not in (None, 'auto', kind):
        raise OtherDataError(
            f'--dataset={dataset}: {found.directory} holds images of {len(names)} classes, '
            f'{_some(names)}',
            kind,
        )
    return Prepared(found.directory, kind, names, framing)


def _kind(directory: str, names: tuple[str, ...], dataset: str | None) -> str:
    """Which data set record files are.

    Files without names are taken for CIFAR-10's, as they are in the tutorial. Converted ones that
    have its names are known by their images.
    """
    if dataset in IDX_DIRECTORIES and os.path.basename(directory) == IDX_DIRECTORIES[dataset]:
        return dataset
    if names != CIFAR10_CLASS_NAMES:
        return 'own'
    test = os.path.join(directory, TEST_FILES[0])
    is_converted = os.path.lexists(os.path.join(directory, FRAMING_FILE))
    if is_converted and record_files.content_digest(test) != CIFAR10_TEST_DIGEST:
        return 'own'
    return 'cifar10'


def _some(names: Sequence[str]) -> str:
    """The first few of many names."""
    return ', '.join([*names[:10], *(['...'] if len(names) > 10 else [])])


def refuse_unused_url(dataset: str | None, data_url: str) -> None:
    """Raises UserError where a URL was asked for, and nothing will be downloaded."""
    if dataset == 'synthetic' and data_url != DATA_URL:
        raise UserError(
            f'--data_url={data_url}: --dataset=synthetic is drawn, not downloaded; give one of '
            'the two'
        )


class _Found(NamedTuple):
    """Record files that are not yet checked."""

    directory: str
    is_synthetic: bool


def _find(data_dir: str, dataset: str | None) -> _Found | None:
    """The data set that `data_dir` holds already."""
    directories = [os.path.join(data_dir, CIFAR10_DIRECTORY), data_dir]
    if dataset in IDX_DIRECTORIES:
        directories = [os.path.join(data_dir, IDX_DIRECTORIES[dataset]), data_dir]
    if dataset == 'synthetic':
        directories.append(os.path.join(data_dir, SYNTHETIC_DIRECTORY))
    for directory in directories:
        is_synthetic = os.path.lexists(os.path.join(directory, SYNTHETIC_MARKER))
        if is_synthetic and dataset not in ('synthetic', 'auto'):
            raise OtherDataError(
                f'{directory} holds the synthetic set, as its {SYNTHETIC_MARKER} says: expected '
                'CIFAR-10',
                'synthetic',
            )
        if _holds_files(directory) and (is_synthetic or dataset != 'synthetic'):
            return _Found(directory, is_synthetic)
    return None


def _holds_files(directory: str) -> bool:
    names = (*RECORD_FILES, SYNTHETIC_MARKER)
    return any(os.path.lexists(os.path.join(directory, name)) for name in names)


def _obtain(
    data_dir: str, dataset: str | None, data_url: str, synthetic: SyntheticSet | None
) -> _Found:
    """Downloads or generates what `_find` did not find."""
    if dataset == 'own':
        raise UserError(
            f'--dataset=own: found no record files in {data_dir}; make them with python '
            f'cifar10_data.py convert PICTURES --data_dir={data_dir}'
        )
    if dataset in IDX_DIRECTORIES:
        return _Found(_fetch_idx(data_dir, dataset, data_url), is_synthetic=False)
    if dataset != 'synthetic':
        _refuse_pictures(data_dir)
        try:
            return _Found(_fetch_cifar10(data_dir, data_url), is_synthetic=False)
        except UnreachableError as error:
            if dataset != 'auto':
                raise UserError(
                    f'CIFAR-10 could not be had: {error}. Ways out: put the files '
                    f'{RECORD_FILES[0]} to {RECORD_FILES[-1]} into {data_dir}; or give '
                    '--data_url the http, https or file URL of a copy of the archive; or '
                    'choose --dataset=synthetic'
                ) from error
            print(f'CIFAR-10 could not be had: {error}')
    found = _find(data_dir, 'synthetic')
    if found is None:
        found = _Found(os.path.join(data_dir, SYNTHETIC_DIRECTORY), is_synthetic=True)
        wanted = synthetic or SyntheticSet()
        print(f'Generating {wanted.num_train + wanted.num_test:,} images in {found.directory}')
        generate_synthetic(found.directory, wanted.num_train, wanted.num_test, wanted.seed)
    return found


def _fetch_cifar10(data_dir: str, data_url: str) -> str:
    """Downloads the archive, where it is not there yet, and unpacks it."""
    archive = os.path.join(data_dir, download.file_name(data_url))
    is_published = data_url == DATA_URL
    if not os.path.lexists(archive):
        print(f'Downloading {data_url} to {archive}')
        download.download(data_url, archive, CIFAR10_FINGERPRINT if is_published else None)
    with os_errors_named(archive):
        mismatch = download.mismatch_with(archive, CIFAR10_FINGERPRINT)
    if mismatch and is_published:
        raise UserError(f'{archive}: not the published archive: {mismatch}; {FETCH_ANEW}')
    if mismatch:
        print(f'Not the published archive, but used because --data_url names it: {mismatch}')
    print(f'Unpacking {archive}')
    return unpack(archive, data_dir)


def _fetch_idx(data_dir: str, dataset: str, data_url: str) -> str:
    """Downloads the four files of MNIST or its like, and converts them.

    Args:
      data_dir: gets the files, in a folder, and the converted records, in another.
      dataset: 'mnist' or 'fashion_mnist'.
      data_url: of the folder that holds the files, for whose content the user then vouches;
        DATA_URL: the published one.
    """
    from cifar10_lib.data.convert import write_records  # It loads Pillow.
    from cifar10_lib.data.sources.base import Options

    is_published = data_url == DATA_URL
    base = download.IDX_URLS[dataset] if is_published else data_url.rstrip('/')
    folder = os.path.join(data_dir, dataset)
    directory = os.path.join(data_dir, IDX_DIRECTORIES[dataset])
    with os_errors_named(folder):
        os.makedirs(folder, exist_ok=True)
    for name, fingerprint in download.IDX_FINGERPRINTS[dataset].items():
        path, url = os.path.join(folder, name), f'{base}/{name}'
        expected = fingerprint if is_published else None
        if not os.path.lexists(path):
            print(f'Downloading {url} to {path}')
            try:
                download.download(url, path, expected)
            except UnreachableError as error:
                raise UserError(
                    f'{dataset} could not be had: {error}. Ways out: put {name} and its like into '
                    f'{folder}; or give --data_url the URL of a folder that holds them'
                ) from error
        elif expected and (mismatch := download.mismatch_with(path, expected)):
            raise UserError(
                f'{path}: not the published file: {mismatch}; move it away to have it downloaded '
                f'anew, or use it as your own: python cifar10_data.py convert {shlex.quote(folder)}'
            )
    with filled_directory(directory) as temporary:
        write_records(folder, temporary, 0, 0, Options())
    return directory


def _refuse_pictures(data_dir: str) -> None:
    """Raises UserError where the folder holds a data set in another layout, or above a set."""
    names = set(os.listdir(data_dir))
    if not names:
        return
    for name in names.difference((SYNTHETIC_DIRECTORY, *IDX_DIRECTORIES.values())):
        folder = os.path.join(data_dir, name)
        if _holds_files(folder):
            raise UserError(f'--data_dir={data_dir}: found no record files; {folder} holds some')
    from cifar10_lib.data import sources  # It loads Pillow.

    if kind := sources.recognize(data_dir):
        raise UserError(
            f'--data_dir={data_dir}: is {kind}, not yet converted: python cifar10_data.py '
            f'convert {shlex.quote(data_dir)} --data_dir=OUT'
        )


def _check_synthetic(directory: str, wanted: SyntheticSet | None) -> None:
    """Checks a synthetic set against its marker, and its marker against `wanted`."""
    held = read_marker(os.path.join(directory, SYNTHETIC_MARKER))
    num_train, num_test = record_files.check_records(directory, CIFAR10_RECORD, NUM_CLASSES)
    if (num_train, num_test) != (held.num_train, held.num_test):
        raise UserError(
            f'{directory}: found {num_train:,} training and {num_test:,} test images; '
            f'{SYNTHETIC_MARKER} says {held.num_train:,} and {held.num_test:,}'
        )
    record_files.check_sums(directory)
    if wanted is not None and wanted != held:
        raise UserError(
            f'{directory}: holds a set of {held.describe()}; asked for {wanted.describe()}; choose '
            'another --data_dir, or move that directory away'
        )


def data_note(dataset: str | None) -> str:
    """What every result on drawn images says of itself; nothing for CIFAR-10."""
    return ' [synthetic images, not CIFAR-10]' if dataset == 'synthetic' else ''
