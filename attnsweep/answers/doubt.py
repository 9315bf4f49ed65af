"""The uncertainty of an answer, which has two sources: the seeds that were trained, and the examples that are
in the test set.

Both are drawn anew, a few thousand times: the examples by a bootstrap, the same ones for all settings, so
that settings are compared example by example; the mean over each setting's seeds from its t distribution.
(Resampling three seeds would understate their variance by a third.) Each draw is a possible quality of every
setting. From the draws come intervals, the probability of being on the front, and which differences are
within noise.

A setting with one seed gets the interval of that one trial, and is marked so. Rows that do not record which
examples were right (`test_right`) lack the uncertainty of the test set, and are marked so.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from attnsweep.answers import pareto, selection
from attnsweep.answers.spread import Spread, moderated
from attnsweep.core.bits import unpacked
from attnsweep.core.errors import UserError
from attnsweep.results.schema import MEASURES

LEVEL = 0.95
DRAWS = 2000
AT_ONCE = 200  # draws of test sets in one matrix product
PER_EXAMPLE = "test_acc"  # the quality that is a mean over examples
BITS = ("test_right", "test_examples", PER_EXAMPLE)
# Of each setting one right and one wrong example besides those that there are: so one without an error has an
# uncertainty, too, and so has the difference of two that are right on the same ones.
PSEUDO = np.array([1.0, 0.0], dtype=np.float32)
LEAST = 0.5  # of the variance of seeds that differ by chance alone: three may be close by luck
BOTH, TEST_SET, SEEDS, NOTHING = "seeds and test set", "test set alone", "seeds alone", "nothing"


@dataclass(frozen=True)
class Doubt:
    """The settings of one data set, and draws of the quality of each.

    `settings` are rows of `over_seeds` with further columns: the interval of the quality (`low`, `high`), the
    number of seeds that were begun (`seeds_begun`), and the sources of uncertainty in the interval
    (`doubt_of`). `draws` is (settings, draws). `lost` counts settings left out, without a finished seed.
    """

    settings: pd.DataFrame
    quality: str
    draws: np.ndarray
    lost: int = 0

    @property
    def of_trials(self) -> bool:
        """Whether all draws are of the trials that ran, as where no setting has several seeds."""
        return not self.settings["doubt_of"].isin([BOTH, SEEDS]).any()


def doubt(frame: pd.DataFrame, quality: str | None = None) -> Doubt:
    """The settings of `frame`, trials of any status on one data set, with the uncertainty of their quality.

    `quality` defaults to the task's on its test split. Equal arguments give equal draws. Raises UserError
    where data sets are mixed, a setting has two rows of one seed, or no row has the quality.
    """
    frame = selection.plain(frame)
    quality = quality or pareto.judged_by(frame)
    selection.require(frame, quality, "seed")
    rows = selection.done(frame).dropna(subset=[quality])
    selection.refuse_other_data(rows)
    if rows.empty:
        raise UserError(f"no done trial has {quality}; {selection.instead(frame)}")
    settings = pareto.over_seeds(rows).reset_index(drop=True)
    chance = np.random.default_rng(0)
    right = per_example(rows, settings, quality)
    spread = spread_of_seeds(rows, settings, quality)
    seeds = settings["seeds"].to_numpy(dtype=float)
    moved = changes(right, on_example(right, seeds), spread, seeds, DRAWS, chance)
    means = selection.numbers(settings, quality)
    drawn = means[:, None] + moved
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
    begun, lost = seeds_begun(frame, settings)
    ends = np.minimum(means, 0.0), np.maximum(means, 1.0)  # a model of text may save less than no bits
    settings = settings.assign(
        low=bounded(low, quality, *ends), high=bounded(high, quality, *ends),
        doubt_of=sources(right, spread), seeds_begun=begun,
    )  # fmt: skip
    return Doubt(settings, quality, drawn, lost)


def changes(
    right: np.ndarray,
    noise: np.ndarray,
    spread: Spread,
    seeds: np.ndarray,
    draws: int,
    chance: np.random.Generator,
    *,
    pseudo: np.ndarray = PSEUDO,
    alike: bool = False,
) -> np.ndarray:
    """Draws of how the quality of each setting changes with other test sets and other seeds, (settings,
    draws). `right` is from `per_example`, `noise` from `on_example`, `seeds` (settings,) is their number;
    `pseudo` and `alike` as in `of_examples`.
    """
    kept = np.where(spread.dof > 0, share_of_examples(right, seeds, noise), 1.0)
    least = np.nan_to_num(LEAST * noise / max(right.shape[1], 1))
    spread = Spread(np.maximum(spread.variance, least), spread.dof)
    moved = of_examples(right, draws, chance, pseudo, alike=alike)
    return moved * kept[:, None] + of_seeds(spread, seeds, draws, chance)


def setting_of(rows: pd.DataFrame) -> np.ndarray:
    """The position of each row's setting in `over_seeds(rows)`, (rows,); all rows are done."""
    return rows.groupby(selection.setting_columns(rows), dropna=False, sort=False).ngroup().to_numpy()


def per_example(rows: pd.DataFrame, settings: pd.DataFrame, quality: str) -> np.ndarray:
    """The share of a setting's seeds right on each test example, (settings, examples); NaN where unknown."""
    has_bits = quality == PER_EXAMPLE and "test_right" in rows
    bits = zip(*(rows.get(name) for name in BITS), strict=True) if has_bits else ()
    flags = [flags_of(*row) for row in bits]
    counts = [len(one) for one in flags if one is not None]
    if not counts:
        return np.full((len(settings), 0), np.nan)
    examples = max(set(counts), key=counts.count)
    total = np.zeros((len(settings), examples), dtype=np.float32)
    for position, one in zip(setting_of(rows), flags, strict=True):
        total[position] += np.nan if one is None or len(one) != examples else one
    return total / settings["seeds"].to_numpy(dtype=np.float32)[:, None]


def flags_of(bits: object, count: Any, accuracy: float) -> np.ndarray | None:
    """Which examples were right, (examples,); None if a row does not say, or contradicts its accuracy."""
    if not isinstance(bits, bytes) or pd.isna(count):
        return None
    try:
        flags = unpacked(bits, int(count))
    except ValueError:  # a file of somebody else's
        return None
    return flags if len(flags) and abs(flags.mean() - accuracy) < 1e-6 else None


def of_examples(
    right: np.ndarray, draws: int, chance: np.random.Generator, pseudo: np.ndarray, *, alike: bool = False
) -> np.ndarray:
    """Draws of how the quality of each setting changes with other test sets, (settings, draws): a bootstrap
    over examples, shared by all settings. 0 where it is not known which examples were right.

    The `pseudo` examples, which are added to those of each setting, are drawn for each by itself, unless they
    are to be drawn `alike`. They draw the quality towards their own mean, without which intervals of few
    examples would cover too little: Agresti and Caffo, The American Statistician 54 (2000); for differences
    of pairs Bonett and Price, J. Educ. Behav. Stat. 37 (2012).
    """
    known = ~np.isnan(right).any(axis=1) & (right.shape[1] > 0)
    moved = np.zeros((len(right), draws))
    if not known.any():
        return moved
    shares, examples = right[known], right.shape[1] + len(pseudo)
    means = (shares.sum(axis=1, keepdims=True) + pseudo.sum()) / examples
    apart, drawn = shares - means, pseudo - means
    for begin in range(0, draws, AT_ONCE):
        many = min(AT_ONCE, draws - begin)
        times = chance.multinomial(examples, np.full(examples, 1 / examples), size=many).astype(np.float32)
        sums = apart @ times[:, : right.shape[1]].T
        for j in range(len(pseudo)):
            sums += drawn[:, [j]] * chance.poisson(1, (1 if alike else len(sums), many))
        moved[known, begin : begin + many] = sums
    moved[known] = moved[known] / examples + means - shares.mean(axis=1, keepdims=True)
    return moved


def on_example(right: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The variance between seeds on one example, (settings,): p (1 - p) k / (k - 1) for flags with mean p
    over k seeds. Settings with one seed get the mean of the others; NaN where nothing is known.
    """
    if not right.shape[1]:
        return np.full(len(right), np.nan)
    several = np.where(seeds > 1, seeds / np.maximum(seeds - 1, 1), np.nan)
    found = (right * (1 - right)).mean(axis=1) * several
    known = found[np.isfinite(found)]
    return np.where(np.isfinite(found) | (seeds > 1), found, known.mean() if len(known) else np.nan)


def share_of_examples(right: np.ndarray, seeds: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The share of the deviation over examples that is due to the examples alone, 0..1, (settings,): `noise`,
    the variance between seeds on an example, is also in the spread of the seeds, and would count twice.
    """
    between = right.var(axis=1) if right.shape[1] else noise
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = np.sqrt(np.clip(1 - noise / seeds / between, 0.0, 1.0))
    return np.where(np.isfinite(kept), kept, 1.0)


def spread_of_seeds(rows: pd.DataFrame, settings: pd.DataFrame, quality: str) -> Spread:
    """The spread of a quality over the seeds of each setting."""
    by_setting = rows.groupby(setting_of(rows))[quality]
    variance = by_setting.var(ddof=1).fillna(0.0).to_numpy(dtype=float)
    return moderated(variance, settings["seeds"].to_numpy() - 1)


def of_seeds(spread: Spread, seeds: np.ndarray, draws: int, chance: np.random.Generator) -> np.ndarray:
    """Draws of how the quality of each setting changes with other seeds, (settings, draws), from the t
    distribution of its mean. 0 where the spread is not known.
    """
    known = spread.dof > 0
    moved = np.zeros((len(seeds), draws))
    scale = np.sqrt(spread.variance[known] / seeds[known])
    dof = np.broadcast_to(spread.dof[known][:, None], (known.sum(), draws))
    moved[known] = scale[:, None] * chance.standard_t(dof)
    return moved


End = float | np.ndarray


def bounded(values: np.ndarray, quality: str, least: End, most: End) -> np.ndarray:
    """Qualities, or differences of them, within `least`..`most` where the quality is a fraction."""
    return np.clip(values, least, most) if is_fraction(quality) else values


def is_fraction(quality: str) -> bool:
    """Whether a quality is a fraction, which is written in percent."""
    column = MEASURES.get(quality)
    return column is not None and column.unit == "fraction"


def sources(right: np.ndarray, spread: Spread) -> list[str]:
    """The sources of uncertainty in each setting's interval. Seeds that are equal say nothing alone."""
    examples = ~np.isnan(right).any(axis=1) & (right.shape[1] > 0)
    seeds = (spread.dof > 0) & (examples | (spread.variance > 0))
    named = {(True, True): BOTH, (False, True): TEST_SET, (True, False): SEEDS, (False, False): NOTHING}
    return [named[pair] for pair in zip(seeds.tolist(), examples.tolist(), strict=True)]


def seeds_begun(frame: pd.DataFrame, settings: pd.DataFrame) -> tuple[list[int], int]:
    """Of each setting how many seeds have a row of any status; and how many other settings have rows."""
    keys = selection.setting_columns(settings)
    counts = frame.groupby(keys, dropna=False, sort=False)["seed"].nunique()
    found = {key_of(index): int(count) for index, count in counts.items()}
    ours = [key_of(key) for key in settings[keys].itertuples(index=False)]
    many = [max(found.get(key, 0), int(seeds)) for key, seeds in zip(ours, settings["seeds"], strict=True)]
    return many, len(found.keys() - set(ours))


def key_of(values: object) -> tuple[object, ...]:
    """Values of axes as a key, in which null equals null."""
    several = values if isinstance(values, tuple) else (values,)
    return tuple(None if pd.isna(value) else value for value in several)
