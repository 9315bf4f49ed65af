import math
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from attnsweep.training import epoch

from commands import SLOW, write_sweep
from disturbed import Fault, Reference, undisturbed_sweep, write_table

# Each process of tests has a temporary folder of its own: there the sweeps of one user find each other, and
# wait while another measures. Its name is short, for Ray's sockets lie there.
TEMPORARY = os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="as-", dir="/tmp")
os.environ["RAY_worker_niceness"] = "0"  # by itself 15: beside other tests a worker would hardly run
torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what runs in its background ignore it
settings.register_profile("attnsweep", deadline=None, derandomize=True)
settings.load_profile("attnsweep")


def pytest_unconfigure() -> None:
    shutil.rmtree(TEMPORARY, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start Ray clusters come first, then those with most slow tests: of several workers none ends
    alone with the longest.
    """
    of_ray = {item.path for item in items if item.get_closest_marker("ray")}
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (item.path not in of_ray, -slow[item.path]))


@pytest.fixture(autouse=True)
def epochs_alone_are_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial in this process yields an event per epoch however slow the machine is: those of mere progress
    come by the clock.
    """
    monkeypatch.setattr(epoch, "PROGRESS_S", math.inf)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the real MNIST and CIFAR."""
    if "ATTNSWEEP_DATA" not in os.environ:
        pytest.skip("needs the real data sets: set ATTNSWEEP_DATA to the folder that holds them")
    return Path(os.environ["ATTNSWEEP_DATA"])


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """What the sweep SLOW finds out where nothing disturbs it."""
    return undisturbed_sweep(write_sweep(tmp_path_factory.mktemp("undisturbed"), SLOW))


@pytest.fixture(scope="session")
def faults() -> Iterator[list[Fault]]:
    """What the tests of faults have measured: a table, where $ATTNSWEEP_FAULTS_TABLE names a file for it."""
    measured: list[Fault] = []
    yield measured
    if measured and (path := os.environ.get("ATTNSWEEP_FAULTS_TABLE")):
        write_table(measured, Path(path))
