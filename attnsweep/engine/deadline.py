"""When a command ends by itself: no trial begins any more, and those under way end with their next epoch.

What they have learnt stands in their checkpoints, and the same command goes on from there. An epoch that
takes too long is not waited for: where none has ended, nothing is kept.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from attnsweep.core.errors import UserError
from attnsweep.core.trial import Trial

GRACE_S = 120.0  # that the epoch of a trial has to end after the time is up
HOUR_S = 3600.0


@dataclass
class Deadline:
    """The time that a command has, from when this is made; `late` are trials that began after it. `kept` are
    the epochs and trials that have ended, and `epoch_s` the least seconds that an epoch of those under way
    will take, as far as they have come.
    """

    seconds: float = math.inf
    clock: Callable[[], float] = time.monotonic
    late: set[str] = field(default_factory=set)
    began: dict[str, float] = field(default_factory=dict)  # when trials did, by the clock
    kept: int = 0
    epoch_s: float = math.inf

    def __post_init__(self) -> None:
        self.until = self.clock() + self.seconds

    @property
    def left_s(self) -> float:
        """The seconds that are left."""
        return max(0.0, self.until - self.clock())

    @property
    def is_over(self) -> bool:
        return self.clock() >= self.until

    @property
    def is_long_over(self) -> bool:
        """Whether nothing is waited for any more."""
        return self.clock() >= self.until + GRACE_S

    def begins(self, trial_id: str) -> None:
        """Notes that a trial has begun."""
        self.began[trial_id] = self.clock()
        if self.is_over:
            self.late.add(trial_id)

    def reported(self, trial: Trial, report: Mapping[str, Any]) -> None:
        """Notes what is kept of a trial, or how far into an epoch it has come."""
        if "epoch" in report or "status" in report:
            self.kept += 1
        elif share := report.get("progress", 0.0) * trial.config["epochs"] % 1:
            self.epoch_s = min(self.epoch_s, (self.clock() - self.began[trial.trial_id]) / share)

    def ends(self, trial_id: str, report: Mapping[str, Any]) -> bool:
        """Whether a trial ends with this report of an epoch, or of a part of one."""
        return self.is_over and ("epoch" in report or trial_id in self.late or self.is_long_over)


def hours_of(seconds: float) -> str:
    """Seconds as hours, rounded up to two digits."""
    hours = seconds / HOUR_S
    unit = 10.0 ** (math.floor(math.log10(hours)) - 1)
    return f"{math.ceil(hours / unit - 1e-9) * unit:g}"


def after(hours: float | None) -> Deadline:
    """The deadline so many hours from now; none for None. Raises UserError for what is no number above 0."""
    if hours is None:
        return Deadline()
    if isinstance(hours, bool) or not isinstance(hours, int | float) or not 0 < hours < math.inf:
        raise UserError(f"hours={hours!r} is out of range; use a number of hours above 0, such as 0.5")
    return Deadline(HOUR_S * hours)
