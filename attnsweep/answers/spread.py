"""How far seeds lie apart: few of them say little of that, so all settings say it together.

Three seeds estimate their own standard deviation to within a factor of 3 or so, and an interval that allows
for it is wide. Settings of one data set are alike in it, though not equal. How alike is estimated, and each
setting's variance is drawn towards the common one by as much as that is worth: the moderated t of Smyth,
"Linear Models and Empirical Bayes Methods", Stat. Appl. Genet. Mol. Biol. 3 (2004), sections 4 and 6.2.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

FEWEST = 3  # settings with several seeds, below which nothing is said of the others
FLOOR = 1e-5  # of the median variance: seeds that are equal by chance have no logarithm


@dataclass(frozen=True)
class Spread:
    """For each setting (s,) the variance between its seeds, and its degrees of freedom: 0 where unknown."""

    variance: np.ndarray
    dof: np.ndarray


def reach_of_mean(values: np.ndarray | pd.Series) -> float:
    """Half the 95 % interval of the mean of values (n,), by Student's t; infinite for a single one."""
    from scipy.stats import t  # here: it takes a third of a second to import

    count = len(values)
    if count < 2:
        return math.inf
    return float(t.ppf(0.975, count - 1) * np.std(values, ddof=1) / math.sqrt(count))


def moderated(variance: np.ndarray, dof: np.ndarray) -> Spread:
    """The spread of seeds of each setting in the light of the others.

    `variance` (s,) is the sample variance of a setting's seeds, `dof` (s,) their number less one: 0 where
    there is one seed, whose variance is then the common one. Where fewer than three settings have several
    seeds each of these stands for itself.
    """
    several = dof > 0
    own, most = Spread(np.where(several, variance, 0.0), dof.astype(float)), float(dof.sum())
    if not several.any():
        return own
    if several.sum() < FEWEST or not (variance[several] > 0).any():
        common = np.average(variance[several], weights=dof[several])
        return Spread(np.where(several, variance, common), np.where(several, own.dof, most))
    common, weight = prior(variance[several], dof[several])
    total = weight + own.dof  # but no more is known than all seeds together say
    if math.isinf(weight):
        return Spread(np.full(len(dof), common), np.full(len(dof), most))
    return Spread((weight * common + own.dof * own.variance) / total, np.minimum(total, most))


def prior(variance: np.ndarray, dof: np.ndarray) -> tuple[float, float]:
    """The variance that settings have in common, and how many degrees of freedom it is worth: infinitely
    many where their variances differ by no more than chance has it. Source: Smyth (2004), section 6.2, by
    the mean and variance of log variance.
    """
    kept = np.maximum(variance, FLOOR * np.median(variance[variance > 0]))
    logs = np.log(kept) - special.digamma(dof / 2) + np.log(dof / 2)
    beyond = logs.var(ddof=1) - special.polygamma(1, dof / 2).mean()
    if beyond <= 0:
        return float(np.average(variance, weights=dof)), math.inf
    half = inverse_trigamma(float(beyond))
    return float(np.exp(logs.mean() + special.digamma(half) - math.log(half))), 2 * half


def inverse_trigamma(value: float) -> float:
    """The x > 0 with trigamma(x) = `value` > 0, by Newton's steps on 1 / trigamma (Smyth 2004, appendix)."""
    x = 0.5 + 1 / value
    for _ in range(50):
        now = float(special.polygamma(1, x))
        step = now * (1 - now / value) / float(special.polygamma(2, x))
        x += step
        if abs(step) < 1e-10 * x:
            break
    return x
