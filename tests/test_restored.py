"""What a command changes in its process is put back."""

import faulthandler
import logging
import os
import random
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import attnsweep
from attnsweep import Sweep
from attnsweep.engine.restored import restored


def state() -> dict[str, Any]:
    """All that a process has for itself, and that a library may change."""
    loggers = [
        logging.root,
        *(logging.getLogger(name) for name in ("ray", "ray.tune", "ray.data", "attnsweep")),
    ]
    return {
        "environment": dict(os.environ),
        "cwd": os.getcwd(),
        "path": list(sys.path),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "timer": signal.getitimer(signal.ITIMER_REAL)[0] > 0,
        "loggers": [
            (one.name, one.level, list(one.handlers), one.propagate, one.disabled) for one in loggers
        ],
        "factory": logging.getLogRecordFactory(),
        "hooks": (sys.excepthook, threading.excepthook, faulthandler.is_enabled()),
        "streams": (sys.stdout, sys.stderr),
        "warnings": (list(warnings.filters), warnings.showwarning),
        "random": random.getstate(),
        "numpy": str(np.random.get_state()),
        "torch": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
        "torch defaults": (
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.get_float32_matmul_precision(),
        ),
        "threads that stay": sorted(one.name for one in threading.enumerate() if not one.daemon),
    }


@pytest.fixture(autouse=True, scope="module")
def imported() -> None:
    """torch imports more when it is first asked for some of it, which draws random numbers."""
    state()


def test_all_that_a_block_changes_is_as_before(tmp_path: Path) -> None:
    before = state()
    with pytest.raises(KeyboardInterrupt), restored():
        os.environ["ATTNSWEEP_TEST"] = "1"
        os.environ.pop("PATH")
        os.chdir(tmp_path)
        sys.path.insert(0, "/nowhere")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        logging.getLogger("attnsweep").addHandler(logging.NullHandler())
        logging.root.addHandler(logging.NullHandler())
        logging.setLogRecordFactory(lambda *args, **kwargs: logging.LogRecord(*args, **kwargs))
        sys.excepthook = threading.excepthook = print  # type: ignore[assignment]
        warnings.simplefilter("ignore")
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        torch.set_num_threads(before["threads"] + 1)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        raise KeyboardInterrupt
    assert state() == before


@pytest.mark.ray
@pytest.mark.parametrize("options", [{"serial": True}, {"address": "local"}], ids=["serial", "ray"])
def test_a_sweep_leaves_its_process_as_it_was(tmp_path: Path, options: dict[str, Any]) -> None:
    import ray

    assert not ray.is_initialized()
    before = state()
    sweep = Sweep(model="cnn", epochs=1, batch_size=1000)
    rows = attnsweep.run(sweep, tmp_path / "results", latency=False, **options)
    assert list(rows["status"]) == ["done"]
    after = state()
    assert {key for key in before if before[key] != after[key]} == set()
    assert not ray.is_initialized()


def test_a_sweep_that_cannot_start_leaves_its_process_as_it_was(tmp_path: Path) -> None:
    before = state()
    with pytest.raises(attnsweep.UserError):
        attnsweep.run(Sweep(model="nothing"), tmp_path / "results")
    assert state() == before
