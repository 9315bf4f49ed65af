"""Probabilities from the draws of `doubt`: that a setting is on the front, and that it is better than
another.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from attnsweep.answers import selection
from attnsweep.answers.doubt import AT_ONCE, LEVEL, NOTHING, Doubt

ENDLESS = 10.0
LATENCY_ENDS = ("latency_ms_low", "latency_ms_high")
Ends = tuple[np.ndarray, np.ndarray]  # of 95 % intervals: the lower ones and the upper ones, (settings,) each


def on_front(sure: Doubt, cost: str, ends: Ends | None = None) -> pd.Series:
    """The probability of each setting to be on the front: the share of draws in which no other setting
    dominates it. NaN without the cost, or any known uncertainty. Raises UserError as `pareto.front` does.

    Where no setting has several seeds (`sure.of_trials`) it is a probability for the trials that ran: of
    settings that it puts on the front at 0.9, other seeds may leave 0.75 there.

    Costs are drawn, too, from intervals with these `ends`, by default those of the median latency. A cost
    without an interval is exact.
    """
    settings = sure.settings
    selection.require(settings, cost)
    costs = selection.numbers(settings, cost)
    known = np.isfinite(costs)
    selection.check_direction(cost, sure.quality)
    selection.refuse_mixtures(settings[known], cost)
    ends = ends or ends_of(settings, cost)
    shares = np.full(len(costs), np.nan)
    drawn = costs[known] if ends is None else drawn_costs(costs[known], ends[0][known], ends[1][known], sure)
    shares[known] = nondominated(drawn, sure.draws[known]).mean(axis=1)
    return pd.Series(shares, index=settings.index).mask(settings["doubt_of"].eq(NOTHING))


def ends_of(settings: pd.DataFrame, cost: str) -> Ends | None:
    """The ends of the intervals of a cost; None if it has none."""
    if cost != "latency_ms_p50" or not {*LATENCY_ENDS} <= {*settings}:
        return None
    low, high = (selection.numbers(settings, name) for name in LATENCY_ENDS)
    return low, high


def drawn_costs(costs: np.ndarray, low: np.ndarray, high: np.ndarray, sure: Doubt) -> np.ndarray:
    """Draws of costs, (n, draws), whose logarithm is normal with 95 % between `low` and `high` (n,); an end
    that is none, as of too few calls, is `ENDLESS` times away. Settings that share a measurement, as those
    that differ only in `lr`, share its draws. Without any interval, the costs (n,).
    """
    has_none = np.isnan(low) & np.isnan(high)
    with np.errstate(divide="ignore", invalid="ignore"):  # of a cost of 0
        low = np.clip(np.nan_to_num(low) / costs, 1 / ENDLESS, 1)
        high = np.clip(np.nan_to_num(high, nan=np.inf) / costs, 1, ENDLESS)
    known = ~has_none & (costs > 0)
    deviation = np.where(known, np.log(high / low), 0.0) / (2 * special.ndtri((1 + LEVEL) / 2))
    if not deviation.any():
        return costs
    one, of = np.unique(np.column_stack([costs, deviation]), axis=0, return_inverse=True)
    noise = np.random.default_rng(0).standard_normal((len(one), sure.draws.shape[1]))
    return np.asarray(costs[:, None] * np.exp(deviation[:, None] * noise[of]))


def nondominated(costs: np.ndarray, qualities: np.ndarray) -> np.ndarray:
    """Whether each point is on the front of its draw, (n, draws), for costs (n,) or (n, draws), of which less
    is better, and qualities (n, draws), of which more is.
    """
    if costs.ndim == 2:
        parts = [slice(begin, begin + AT_ONCE) for begin in range(0, costs.shape[1], AT_ONCE)]
        return np.concatenate([fronts_of(costs[:, part], qualities[:, part]) for part in parts], axis=1)
    found = np.zeros(qualities.shape, dtype=bool)  # one order of costs for all draws: no sorting
    best = np.full(qualities.shape[1], -np.inf)  # of all that cost less
    for value in np.unique(costs):
        same = np.flatnonzero(costs == value)
        top = qualities[same].max(axis=0)
        found[same] = (qualities[same] == top) & (top > best)
        best = np.maximum(best, top)
    return found


def fronts_of(costs: np.ndarray, qualities: np.ndarray) -> np.ndarray:
    """See `nondominated`; both (n, draws). Sorted by cost and then quality, points that are better than all
    before them, or equal to such a point, are on the front.
    """
    order = np.lexsort((-qualities, costs), axis=0)
    cost, quality = (np.take_along_axis(values, order, axis=0) for values in (costs, qualities))
    best = np.maximum.accumulate(quality, axis=0)
    better = np.vstack([np.ones(quality.shape[1], bool), quality[1:] > best[:-1]])
    cost_of_best = np.maximum.accumulate(np.where(better, cost, -np.inf), axis=0)
    found = np.empty(costs.shape, dtype=bool)
    np.put_along_axis(found, order, (quality == best) & (cost == cost_of_best), axis=0)
    return found


@dataclass(frozen=True)
class Difference:
    """By how much one setting is better: the mean, its 95 % interval, and the share of draws that say so."""

    mean: float
    low: float
    high: float
    better: float

    @classmethod
    def of(cls, mean: float, draws: np.ndarray) -> "Difference":
        """A difference of that mean, from draws of it; a draw without a difference is half better."""
        low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        better = float((draws > 0).mean() + 0.5 * (draws == 0).mean())
        return cls(float(mean), float(low), float(high), better)

    @property
    def is_noise(self) -> bool:
        """Whether the interval contains 0."""
        return self.low <= 0 <= self.high


def difference(sure: Doubt, one: int, other: int) -> Difference:
    """The quality of the setting at position `one` less that of `other`. They are drawn together, so that
    test examples on which both agree do not count.
    """
    means = selection.numbers(sure.settings, sure.quality)
    return Difference.of(means[one] - means[other], sure.draws[one] - sure.draws[other])


def within_noise_of(sure: Doubt, one: int) -> list[int]:
    """The positions of other settings whose difference from the one at `one` is within noise at 95 %."""
    beyond, least = sure.draws[one], (1 - LEVEL) / 2 * sure.draws.shape[1]  # draws that either tail holds
    worse, better = (sure.draws <= beyond).sum(axis=1), (sure.draws >= beyond).sum(axis=1)
    return [i for i in np.flatnonzero((worse > least) & (better > least)).tolist() if i != one]
