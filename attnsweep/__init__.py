"""Sweep attention architectures over data and hyperparameters; read accuracy against cost from Parquet.

The names here need neither torch nor Ray until a sweep runs.
"""

import attnsweep.core.safe_path  # noqa: F401, I001  before anything that lies in the working directory

import importlib
from typing import TYPE_CHECKING, Any

from attnsweep.core.errors import UserError
from attnsweep.core.version import __version__
from attnsweep.results.store import load
from attnsweep.space.sweep import Sweep

if TYPE_CHECKING:
    from attnsweep.answers.pareto import front, pick
    from attnsweep.engine.runner import run
    from attnsweep.figures.front import pareto_figure
    from attnsweep.figures.report.page import report

__all__ = ["Sweep", "UserError", "__version__", "front", "load", "pareto_figure", "pick", "report", "run"]
LATER = {
    "front": "attnsweep.answers.pareto",
    "pick": "attnsweep.answers.pareto",
    "pareto_figure": "attnsweep.figures.front",
    "report": "attnsweep.figures.report.page",
}


def __getattr__(name: str) -> Any:
    """`attnsweep.run`, which imports Ray, and what reads rows by pandas or draws, when first asked for."""
    if name in LATER:
        return getattr(importlib.import_module(LATER[name]), name)
    if name != "run":
        raise AttributeError(f"module 'attnsweep' has no attribute {name!r}")
    from attnsweep.engine.restored import restored

    with restored():  # packages draw random numbers, and more, when they are imported
        from attnsweep.engine.runner import run

    return run
