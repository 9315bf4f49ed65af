import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("attnsweep", deadline=None, derandomize=True)
settings.load_profile("attnsweep")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the real MNIST and CIFAR."""
    if "ATTNSWEEP_DATA" not in os.environ:
        pytest.skip("needs the real data sets: set ATTNSWEEP_DATA to the folder that holds them")
    return Path(os.environ["ATTNSWEEP_DATA"])
