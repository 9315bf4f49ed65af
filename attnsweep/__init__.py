"""Sweep attention architectures over data and hyperparameters; read accuracy against cost from Parquet.

The names here need neither torch nor Ray until a sweep runs.
"""

import attnsweep.core.safe_path  # noqa: F401, I001  before anything that lies in the working directory

import importlib
from typing import TYPE_CHECKING, Any

from attnsweep.core.errors import UserError
from attnsweep.core.version import __version__
from attnsweep.results.loading import load
from attnsweep.space.sweep import Sweep

if TYPE_CHECKING:
    from attnsweep.answers.pareto import front, pick
    from attnsweep.engine.runner import run
    from attnsweep.figures.front import pareto_figure
    from attnsweep.figures.report.page import report

__all__ = ["Sweep", "UserError", "__version__", "front", "load", "pareto_figure", "pick", "report", "run"]
LATER = {  # they import Ray, pandas or matplotlib
    "front": "answers.pareto",
    "pick": "answers.pareto",
    "pareto_figure": "figures.front",
    "report": "figures.report.page",
    "run": "engine.runner",
}


def __getattr__(name: str) -> Any:
    """Imports a name of LATER on its first use."""
    if name not in LATER:
        raise AttributeError(f"module 'attnsweep' has no attribute {name!r}")
    from attnsweep.engine.restored import restored

    with restored():  # packages draw random numbers, and more, when they are imported
        return getattr(importlib.import_module(f"attnsweep.{LATER[name]}"), name)
