"""Which axis matters, and whether that is real.

Of a grid: an analysis of variance with each axis as a factor and all pairs of axes, against the spread of
seeds (type II sums of squares: each axis beyond the others). Of a random or searched space, whose values
hardly repeat: a forest that predicts the quality, and by how much worse it does on trials that it has not
seen once an axis is shuffled (Breiman, "Random Forests", Machine Learning 45, 2001, section 10), against
forests of shuffled qualities, which are grown and asked in the same way. Either way the chance of calling any
axis real where none is, is 5 %.
"""

import itertools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from attnsweep.answers import doubt, naming, pareto, selection
from attnsweep.core.errors import UserError
from attnsweep.core.labels import shown

ERROR_RATE = 0.05
MOST_LEVELS = 8  # of an axis of a grid
MOST_TERMS = 200  # columns of an analysis of variance
FEWEST_TRIALS = 20  # that a forest learns from
ROUNDING = 12  # decimals that are more than rounding: equal means differ in the last ones
TREES, FOLDS, SHUFFLES, NULLS = 20, 5, 2, 39  # trees of each fold: a trial is seen by 80, and judged by 20
MOST_LEAVES = 50  # of a tree; with more a forest of 1,000 trials is slower and finds less
LONG_S = 3.0  # from there on it is said how long something takes
FOREST, GRID = "forest", "grid"
NONE = "none"  # the level of trials without an axis that others of their model have
MEANINGS = {  # of a size
    GRID: "best level less worst, the other axes being equal",
    FOREST: "how much worse a forest predicts once the axis is shuffled, relative to the variance",
}
log = logging.getLogger("attnsweep")
SIZES = {GRID: "best level less worst", FOREST: "rise of the squared error, of the variance"}


@dataclass(frozen=True)
class Effect:
    """What an axis, or two together (`depth x dim`), does: its size with its 95 % interval, and the
    probability of such a size where there is no effect, adjusted for the number of axes (of pairs).

    Of a grid the size is the mean quality of the best level less that of the worst; of a pair the root mean
    square of what the axes do together beyond what each does, without an interval; of a forest by how much
    the mean squared error rises relative to the variance. NaN is a probability that was not looked for.
    """

    name: str
    size: float
    low: float
    high: float
    p: float
    best: str = ""

    @property
    def is_real(self) -> bool:
        return self.p <= ERROR_RATE


@dataclass(frozen=True)
class Effects:
    """The effects of axes, the largest first, those of pairs, and how they were found: `grid` or `forest`."""

    how: str
    quality: str
    trials: int
    axes: tuple[Effect, ...]
    pairs: tuple[Effect, ...]
    noise: str = ""  # what the effects of a grid are held against

    @property
    def meaning(self) -> str:
        """What a size is, in words."""
        return MEANINGS[self.how] + (f", against {self.noise}" if self.noise else "")


def effects(
    frame: pd.DataFrame, quality: str | None = None, *, how: str | None = None, nulls: int = NULLS
) -> Effects:
    """The effects in `frame`, trials on one data set, on a quality on validation by default: many axes are
    looked at, and the test is not for choosing. A forest is held against `nulls` of shuffled
    qualities. Raises UserError where no axis differs or there are too few trials.
    """
    rows = selection.done(frame)
    quality = quality or pareto.selecting(rows)
    selection.require(rows, quality, "model", "dataset", "seed")
    rows = rows.dropna(subset=[quality]).reset_index(drop=True)
    if rows.empty:
        raise UserError(f"no done trial has {quality}; {selection.instead(frame)}")
    selection.refuse_other_data(rows)
    pareto.refuse_twice(rows, selection.setting_columns(rows))
    axes = differing(rows)
    if not axes:
        raise UserError("no axis differs between these trials, so none can matter; sweep one")
    levels = {axis: as_levels(rows, axis) for axis in axes}
    y = selection.numbers(rows, quality)
    how = how or (GRID if is_grid(levels, len(y)) else FOREST)
    if how == FOREST:
        return Effects(FOREST, quality, len(y), by_forest(rows[axes], y, 0, nulls), ())
    of_axes, pairs, noise = by_variance(levels, y)
    ends = doubt.bounded(np.array([[one.low, one.high] for one in of_axes]), quality, -1.0, 1.0).tolist()
    bounded = (replace(one, low=low, high=high) for one, (low, high) in zip(of_axes, ends, strict=True))
    return Effects(GRID, quality, len(y), tuple(bounded), pairs, noise)


def differing(rows: pd.DataFrame) -> list[str]:
    """The axes that take several values, without those that follow from the others: the patch of models that
    have one of their own says no more than the model. What an architecture is goes first. The state of data
    and code is an axis, too: what differs in that is no seed of the same setting.
    """
    kept = ["model"] if rows["model"].nunique() > 1 else []
    for name in naming.varying(rows):
        if not any(decides(rows, one, name) for one in kept):
            kept.append(name)
    return kept


def decides(rows: pd.DataFrame, one: str, other: str) -> bool:
    """Whether an axis takes few values, and with each of them `other` takes one."""
    if rows[one].nunique() > len(rows) / 2:
        return False  # each value stands alone, as in a random space
    return int(rows.groupby(rows[one].map(str))[other].nunique(dropna=False).max()) == 1


def as_levels(rows: pd.DataFrame, axis: str) -> pd.Categorical:
    """An axis as a factor: its values in order, at the end `none` where a model has trials with and without
    it (a norm that is clipped or not); models that never have it have no level.
    """
    values = rows[axis].astype(object)
    is_optional = values.notna().groupby(rows["model"]).transform("any")
    values = values.mask(values.isna() & is_optional, NONE)
    kinds = sorted(values.dropna().unique().tolist(), key=lambda value: (isinstance(value, str), value))
    return pd.Categorical(values, categories=kinds)


def is_grid(levels: Mapping[str, pd.Categorical], trials: int) -> bool:
    """Whether every axis has few levels and there are more trials than terms."""
    counts = [len(one.categories) for one in levels.values()]
    terms = 1 + sum(count - 1 for count in counts)
    return max(counts) <= MOST_LEVELS and terms < min(trials, MOST_TERMS)


# --- Grids ---


def coded(factor: pd.Categorical) -> np.ndarray:
    """The factor's columns (n, levels - 1), each level less the last: they sum to 0; 0 without the axis."""
    count = len(factor.categories)
    code = np.vstack([np.eye(count - 1), -np.ones(count - 1), np.zeros(count - 1)])
    return code[factor.codes]  # -1 is the last one: no value


def together(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The columns of what two factors do together: all products, (n, columns)."""
    return (one[:, :, None] * other[:, None, :]).reshape(len(one), -1)


def residual(columns: Sequence[np.ndarray], y: np.ndarray) -> tuple[np.ndarray, int]:
    """The sum of squares that a linear model leaves of y (n,) or (n, many), and its degrees of freedom."""
    design = np.column_stack([np.ones(len(y)), *columns])
    basis, sizes, _ = np.linalg.svd(design, full_matrices=False)
    basis = basis[:, sizes > 1e-9 * sizes[0]]
    left = y - basis @ (basis.T @ y)
    return (left**2).sum(axis=0), len(y) - basis.shape[1]


def at_least(error: tuple[np.ndarray, int], y: np.ndarray) -> tuple[np.ndarray, int]:
    """The error, or that of rounding to the smallest step between two qualities where it is less: a share of
    a few hundred examples can be the same for all seeds by luck.
    """
    steps = np.diff(np.sort(y, axis=0), axis=0)
    step = np.where(steps > 1e-9, steps, np.inf).min(axis=0)
    step = np.where(np.isinf(step), 0.0, step)  # all are equal
    return np.maximum(error[0], error[1] * step**2 / 12), error[1]


def f_test(
    more: Sequence[np.ndarray], less: Sequence[np.ndarray], error: tuple[np.ndarray, int], y: np.ndarray
) -> np.ndarray:
    """The probability of what the model `more` explains beyond `less` where that is chance, by F against the
    error's sum of squares and degrees of freedom; 1 where it explains nothing that could be told apart.
    """
    (large, large_dof), (small, small_dof) = residual(more, y), residual(less, y)
    gained = small_dof - large_dof
    if gained == 0 or error[1] <= 0:
        return np.ones_like(large)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = ((small - large) / gained) / (error[0] / error[1])
    return np.nan_to_num(stats.f.sf(ratio, gained, error[1]), nan=1.0)


def by_variance(
    levels: Mapping[str, pd.Categorical], y: np.ndarray
) -> tuple[tuple[Effect, ...], tuple[Effect, ...], str]:
    """The effects of axes and of pairs by an analysis of variance, and what they are held against. Raises
    UserError where there is nothing: one seed of each setting of a full grid.
    """
    codes = {name: coded(factor) for name, factor in levels.items()}
    pairs = {(a, b): together(codes[a], codes[b]) for a, b in itertools.combinations(codes, 2)}
    mains, full = list(codes.values()), [*codes.values(), *pairs.values()]
    error = at_least(residual(full, y), y)
    left = residual(mains, y)[1]  # only of axes that were crossed can it be seen what they do together
    pairs = {key: columns for key, columns in pairs.items() if residual([*mains, columns], y)[1] < left}
    noise = "the spread of seeds"
    if error[1] <= 0:
        error, pairs = at_least(residual(mains, y), y), {}
        noise = "what axes do together, as there is one seed of each setting"
    if error[1] <= 0:
        raise UserError("there are as many axes as trials; run several seeds: seed=0,1,2")
    p_axes = holm(
        np.array([f_test(mains, [c for n, c in codes.items() if n != name], error, y) for name in codes])
    )
    p_pairs = holm(np.array([f_test([*mains, columns], mains, error, y) for columns in pairs.values()]))
    axes = [main_effect(name, levels, codes, y, error, p) for name, p in zip(codes, p_axes, strict=True)]
    joint = []
    for ((a, b), columns), p in zip(pairs.items(), p_pairs, strict=True):
        gained = residual(mains, y)[0] - residual([*mains, columns], y)[0]
        size = float(np.sqrt(max(gained, 0) / len(y)))  # the root mean square over trials
        joint.append(Effect(f"{a} x {b}", size, np.nan, np.nan, float(p)))
    return sort(axes), sort(joint), noise


def main_effect(
    name: str,
    levels: Mapping[str, pd.Categorical],
    codes: Mapping[str, np.ndarray],
    y: np.ndarray,
    error: tuple[np.ndarray, int],
    p: float,
) -> Effect:
    """The mean of the best level of an axis less that of the worst, the other axes being equal; its interval
    allows for the best and the worst having been looked for among all pairs of levels (Bonferroni).
    """
    factor, count = levels[name], len(levels[name].categories)
    flags = np.vstack([np.eye(count), np.zeros(count)])[factor.codes]  # (n, levels)
    others = [columns for other, columns in codes.items() if other != name]
    design = np.column_stack([flags, np.ones(len(y)), *others])
    inverse = np.linalg.pinv(design.T @ design)
    means = (inverse @ design.T @ y)[:count]
    best, worst = int(means.argmax()), int(means.argmin())
    contrast = np.zeros(design.shape[1])
    contrast[[best, worst]] = 1, -1
    deviation = np.sqrt(contrast @ inverse @ contrast * error[0] / error[1])
    reach = stats.t.ppf(1 - ERROR_RATE / (count * (count - 1)), error[1]) * deviation
    size = means[best] - means[worst]
    size, low, high = (np.array([size, size - reach, size + reach]).round(ROUNDING) + 0.0).tolist()
    return Effect(name, size, low, high, float(p), shown(factor.categories[best]) if size else "")


def holm(p: np.ndarray) -> np.ndarray:
    """The p values (tests, ...) adjusted so that the chance of any below 5 % by luck is 5 % (Holm 1979)."""
    order = np.argsort(p, axis=0)
    factors = np.arange(len(p), 0, -1).reshape(-1, *[1] * (p.ndim - 1))
    adjusted = np.minimum(np.maximum.accumulate(np.take_along_axis(p, order, 0) * factors, axis=0), 1.0)
    found = np.empty_like(adjusted)
    np.put_along_axis(found, order, adjusted, 0)
    return found


def sort(found: Sequence[Effect]) -> tuple[Effect, ...]:
    """What is real first, then by size."""
    return tuple(sorted(found, key=lambda one: (not one.is_real, -one.size)))


# --- Random and searched spaces ---


def by_forest(axes: pd.DataFrame, y: np.ndarray, seed: int, nulls: int) -> tuple[Effect, ...]:
    """Each axis's importance for a forest, with its interval over folds. Raises UserError for few trials."""
    if len(y) < FEWEST_TRIALS:
        raise UserError(
            f"{len(y)} trials are too few for a forest, which wants {FEWEST_TRIALS}; of a grid run several "
            "seeds: seed=0,1,2"
        )
    features = np.column_stack([as_numbers(axes[name]) for name in axes])
    chance = np.random.default_rng(seed)
    importance = importances(features, y, chance)  # (folds, axes)
    largest = by_chance(features, y, chance, nulls)
    sizes, spread = importance.mean(axis=0), importance.std(axis=0, ddof=1)
    reach = stats.t.ppf(1 - ERROR_RATE / 2, FOLDS - 1) * spread / np.sqrt(FOLDS)
    effects = []
    for name, size, r in zip(axes, sizes.tolist(), reach.tolist(), strict=True):
        p = (1 + sum(one >= size for one in largest)) / (nulls + 1) if nulls else float("nan")
        effects.append(Effect(name, size, size - r, size + r, p))
    return sort(effects)


def by_chance(features: np.ndarray, y: np.ndarray, chance: np.random.Generator, nulls: int) -> list[float]:
    """The greatest importance for shuffled qualities, `nulls` times. Says so where it takes long."""
    found, begun = list[float](), time.monotonic()
    for _ in range(nulls):
        found.append(float(importances(features, chance.permutation(y), chance).mean(axis=0).max()))
        if len(found) == 1 and (expected := (nulls - 1) * (time.monotonic() - begun)) > LONG_S:
            log.warning("holding the forest against %d of shuffled qualities, about %.0f s", nulls, expected)
    return found


def as_numbers(values: pd.Series) -> np.ndarray:
    """An axis as a feature (n,): numbers by their order, text by its rank; -1 where a model has none."""
    known = values.dropna()
    if all(isinstance(value, int | float) for value in known):
        return values.rank(method="dense").fillna(-1).to_numpy(dtype=float)
    ranks = {kind: i for i, kind in enumerate(sorted(map(str, known.unique())))}
    return values.map(ranks).fillna(-1).to_numpy(dtype=float)


def importances(features: np.ndarray, y: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """The rise of a forest's mean squared error with an axis shuffled, by the variance, (folds, axes)."""
    from sklearn.ensemble import ExtraTreesRegressor  # here: it takes a second to import

    folds, found = chance.permutation(len(y)) % FOLDS, []
    least = max(2, len(y) // MOST_LEAVES)
    for fold in range(FOLDS):
        held = folds == fold
        forest = ExtraTreesRegressor(TREES, min_samples_leaf=least, random_state=int(chance.integers(2**31)))
        forest.fit(features[~held], y[~held])
        asked = np.concatenate([features[held], *shuffled(features[held], chance)])
        errors = ((forest.predict(asked).reshape(-1, held.sum()) - y[held]) ** 2).mean(axis=1)
        found.append((errors[1:] - errors[0]).reshape(SHUFFLES, -1).mean(axis=0) / max(y.var(), 1e-12))
    return np.array(found)


def shuffled(features: np.ndarray, chance: np.random.Generator) -> Iterator[np.ndarray]:
    """The features with each axis shuffled in turn, `SHUFFLES` times."""
    for _, axis in itertools.product(range(SHUFFLES), range(features.shape[1])):
        copy = features.copy()
        copy[:, axis] = chance.permutation(copy[:, axis])
        yield copy


# --- In words ---


def in_words(found: Effects) -> str:
    """A line for each axis and pair, and how to read it."""
    points = doubt.is_fraction(found.quality) and found.how == GRID
    scale, unit = (100, " points") if points else (1, "")

    def line(one: Effect) -> str:
        ends = "" if np.isnan(one.low) else f" ({scale * one.low:.3g} to {scale * one.high:.3g})"
        best = f", best {one.best}" if one.best else ""
        verdict = "real" if one.is_real else "not told from chance"
        return f"{one.name:<24} {scale * one.size:7.3g}{unit}{ends}{best}; p = {one.p:.2g}: {verdict}"

    head = f"{found.quality} of {found.trials} trials, {found.meaning}; p is adjusted for all axes"
    pairs = ["", "pairs of axes, beyond what each does (root mean square):", *map(line, found.pairs)]
    return "\n".join([head, *map(line, found.axes), *(pairs if found.pairs else [])])
