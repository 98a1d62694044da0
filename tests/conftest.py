"""What the tests share: small data sets, a browser, and scripts run as a user runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cifar10_input import TEST_FILES, TRAIN_FILES
from cifar10_lib.data.synthetic import generate_synthetic
from tests.helpers.browser import chromium  # noqa: F401 - a fixture
from tests.helpers.samples import Server
from tests.helpers.scripts import Script, script_command, script_environment

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As it is in a shell's background job, and would be in the scripts that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Folders whose tests start processes or train for seconds.
SLOW_FOLDERS = ('programs', 'fuzz', 'benchmarks')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(Path(__file__).parent).parts[0] in SLOW_FOLDERS:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def without_determinism() -> Iterator[None]:
    """Undoes what a --deterministic run in a test's own process asks of all later operations."""
    yield
    if 'tensorflow' in sys.modules:
        # TensorFlow has no public way back.
        from tensorflow.python.framework.config import disable_op_determinism

        disable_op_determinism()


@pytest.fixture
def run_script(tmp_path: Path) -> Script:
    """Runs a script in an empty folder, as a user does, and gives its exit code and output."""

    def run(script: str, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            script_command(script, *options),
            cwd=tmp_path,
            env=script_environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture(scope='session')
def synthetic_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A --data_dir that holds 200 training and 60 test images of the synthetic set."""
    data_dir = tmp_path_factory.mktemp('synthetic')
    directory = data_dir / 'synthetic-batches-bin'
    generate_synthetic(str(directory), num_train=200, num_test=60)
    return data_dir


@pytest.fixture(scope='session')
def small_set(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A synthetic set of 500 training and 100 test images; not to be written to."""
    directory = str(tmp_path_factory.mktemp('small') / 'set')
    generate_synthetic(directory, 500, 100, seed=3)
    return directory


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture(scope='session')
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of 60 random training records and 25 test records of CIFAR-10's format.

    The training record at place i of the five files begins its image with byte i.
    """
    directory = tmp_path_factory.mktemp('records')
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, [85, 3073], dtype=np.uint8)
    data[:, 0] = rng.integers(0, 10, 85)
    data[:60, 1] = np.arange(60)
    for i, name in enumerate(TRAIN_FILES):
        data[12 * i : 12 * (i + 1)].tofile(directory / name)
    data[60:].tofile(directory / TEST_FILES[0])
    return directory


@pytest.fixture(scope='session')
def real_data() -> str:
    """The directory of the real CIFAR-10, from the environment."""
    directory = os.environ.get('CIFAR10_DATA_DIR')
    if not directory:
        pytest.skip('needs the real CIFAR-10: set CIFAR10_DATA_DIR to its directory')
    return directory
