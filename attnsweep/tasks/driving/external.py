"""highway-env's stock environments as a test of planners that were never trained there."""

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attnsweep.core.errors import UserError
from attnsweep.tasks.task import ExternalTest, Point

if TYPE_CHECKING:
    from torch import nn


def require() -> None:
    """Raises UserError where highway-env is not installed."""
    if importlib.util.find_spec("highway_env") is None:
        raise UserError(
            "highway-env is not installed, whose environments this test drives; pip install highway-env"
        )


def takes(row: Point) -> bool:
    """Planners by lidar: there are no views out there, and the expert is of our own world."""
    import pandas as pd  # here, for start-up time

    return not pd.isna(row["test_score"]) and row["model"] != "expert" and row["sensor"] != "cameras"


def run(model: "nn.Module", config: Mapping[str, Any]) -> float:
    """The mean score over all environments, as `judging.stock.score_stock` gives it."""
    from attnsweep.tasks.driving.judging.baselines import policy_of
    from attnsweep.tasks.driving.judging.stock import score_stock
    from attnsweep.tasks.driving.records.batches import inputs_of

    return float(score_stock(policy_of(model, inputs_of(config))).score.mean())


HIGHWAY_ENV = ExternalTest(
    name="highway-env",
    column="highway_env_score",
    does="drive highway-env's environments with every planner that has not; minutes for each",
    require=require,
    takes=takes,
    run=run,
)
