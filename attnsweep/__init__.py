"""Sweep attention architectures over data and hyperparameters; read accuracy against cost from Parquet.

The names here need neither torch nor Ray until a sweep runs.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from attnsweep.errors import UserError
from attnsweep.pareto import front
from attnsweep.results import load
from attnsweep.sweep import Sweep

if TYPE_CHECKING:
    import pandas as pd

__version__ = "0.1.0"
__all__ = ["Sweep", "UserError", "front", "load", "run"]


def run(sweep: "Sweep | str | Path", results: str | Path = "results", **options: object) -> "pd.DataFrame":
    """What `python -m attnsweep SWEEP.py` does, from a notebook or a script; returns the sweep's rows of
    `trials`.

    Options: see attnsweep.runner.Options. Raises UserError where the sweep cannot start.
    """
    from attnsweep import runner  # imports Ray

    return runner.run(sweep, results=results, **options)
