"""Two settings, or two folders of results, held against each other: example by example and, where both have
the same seeds, seed by seed, so that what they have in common does not count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from attnsweep.answers import doubt, naming, pareto, phrases, selection
from attnsweep.answers.chances import Difference
from attnsweep.answers.doubt import DRAWS
from attnsweep.answers.spread import moderated
from attnsweep.core.errors import UserError
from attnsweep.results.loading import the_trial

OTHER_DATA = "compare what was judged on the same examples"
PSEUDO = np.array([1.0, -1.0], dtype=np.float32)  # an example for either side: equal on all is no certainty


@dataclass(frozen=True)
class Pair:
    """A setting of A and one of B: their qualities over as many seeds as both have, and B less A."""

    label: str
    one: float
    other: float
    seeds: int
    difference: Difference


@dataclass(frozen=True)
class Comparison:
    """The pairs, their mean, how many settings only A or only B has, and what a reader has to know."""

    quality: str
    pairs: tuple[Pair, ...]
    mean: Difference
    alone: tuple[int, int]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class PairedDifferences:
    """B less A of a pair of settings: for each seed (seeds,), and on each test example (seeds, examples);
    without examples where it is not known which of them were right.
    """

    label: str
    one: float
    other: float
    by_seed: np.ndarray
    by_example: np.ndarray


def of_folders(a: pd.DataFrame, b: pd.DataFrame, quality: str | None = None) -> Comparison:
    """The settings that two results have in common, B less A: say before and after a change of the package.

    Raises UserError where they have none in common, or their data differ.
    """
    both = pd.concat([selection.done(a), selection.done(b)], ignore_index=True)
    selection.refuse_other_data(both, OTHER_DATA)
    quality = quality or pareto.judged_by(both)
    ours, theirs = (by_setting(one, quality) for one in (a, b))
    for name, parts, frame in (("first", ours, a), ("second", theirs, b)):
        if not parts:
            raise UserError(f"no done trial of the {name} has {quality}; {selection.instead(frame)}")
    common = [key for key in ours if key in theirs]
    if not common:
        raise UserError("the two have no setting in common; name two trials of one folder instead")
    names = naming.labels(pd.concat([ours[key].head(1) for key in common]), short=False)
    pairs = [
        paired_differences(name, ours[key], theirs[key], quality)
        for name, key in zip(names, common, strict=True)
    ]
    comparison = compared(pairs, quality, (len(ours) - len(common), len(theirs) - len(common)))
    same = sum(
        ours[key]["trial_id"].isin(theirs[key]["trial_id"]).all() and not pair.by_seed.any()
        for key, pair in zip(common, pairs, strict=True)
    )
    if not same:
        return comparison
    remark = f"{same} of {len(common)} are the same trials in both, and differ by nothing"
    return replace(comparison, remarks=(*comparison.remarks, remark))


def of_settings(frame: pd.DataFrame, a: str, b: str, quality: str | None = None) -> Comparison:
    """The settings of two trials, by their ids or how those begin, B less A.

    Raises UserError where there is no such trial that is done, or several, or their data differ.
    """
    rows = selection.done(frame)
    ids = [str(the_trial(rows, wanted, "that is done")["trial_id"]) for wanted in (a, b)]
    named = rows[rows["trial_id"].isin(ids)]
    selection.refuse_other_data(named, OTHER_DATA)
    quality = quality or pareto.judged_by(named)
    keys = [*selection.SETTING, *selection.STATE]
    parts = by_setting(rows, quality, keys)
    one, other = (part_with(parts, trial_id, quality) for trial_id in ids)
    if one.equals(other):
        raise UserError(f"{a} and {b} are seeds of one setting; name trials of two")
    names = naming.labels(pd.concat([one.head(1), other.head(1)]), short=False).tolist()
    pair = paired_differences(" -> ".join(names), one, other, quality)
    return compared([pair], quality, (0, 0))


def by_setting(
    frame: pd.DataFrame, quality: str, keys: Sequence[str] = selection.SETTING
) -> dict[tuple[object, ...], pd.DataFrame]:
    """The done rows of each setting, by its axes. Raises UserError where one has two rows of a seed."""
    selection.require(frame, quality, "seed")
    rows = selection.done(frame).dropna(subset=[quality])
    names = [name for name in keys if name in rows]
    pareto.refuse_twice(rows, names)
    needed = dict.fromkeys([*names, "seed", "trial_id", "params", quality, *doubt.BITS])
    rows = rows[[name for name in needed if name in rows]].copy()  # in one piece: it is cut into many
    return {doubt.key_of(key): part for key, part in rows.groupby(names, dropna=False, sort=False)}


def part_with(parts: Mapping[tuple[object, ...], pd.DataFrame], trial_id: str, quality: str) -> pd.DataFrame:
    """The setting that has this trial. Raises UserError where the trial lacks the quality."""
    for part in parts.values():
        if part["trial_id"].eq(trial_id).any():
            return part
    raise UserError(f"trial {trial_id} has no {quality}; name another one, or another --quality")


def paired_differences(label: str, a: pd.DataFrame, b: pd.DataFrame, quality: str) -> PairedDifferences:
    """The differences on the seeds that both settings have. Raises UserError where they share none."""
    needed = [name for name in dict.fromkeys([quality, *doubt.BITS]) if name in a and name in b]
    a, b = (rows.set_index("seed")[needed] for rows in (a, b))
    seeds = [seed for seed in a.index if seed in b.index]
    if not seeds:
        raise UserError(f"{label}: the two share no seed; run both with the same ones: seed=0,1,2")
    one, other = (rows.loc[seeds] for rows in (a, b))
    flags = [flags_of(rows, quality) for rows in (one, other)]
    known = flags[0].shape == flags[1].shape
    by_example = flags[1] - flags[0] if known else np.zeros((len(seeds), 0), np.float32)
    values = [selection.numbers(rows, quality) for rows in (one, other)]
    one_mean, other_mean = (float(value.mean()) for value in values)
    return PairedDifferences(label, one_mean, other_mean, values[1] - values[0], by_example)


def flags_of(rows: pd.DataFrame, quality: str) -> np.ndarray:
    """Which test examples each row has right, (rows, examples); no example where a row does not say it."""
    nothing = np.zeros((len(rows), 0), np.float32)
    if quality != doubt.PER_EXAMPLE or "test_right" not in rows:
        return nothing
    found = [doubt.flags_of(*row) for row in zip(*(rows[name] for name in doubt.BITS), strict=True)]
    if any(one is None for one in found) or len({len(one) for one in found if one is not None}) != 1:
        return nothing
    return np.array(found, dtype=np.float32)


def compared(pairs: Sequence[PairedDifferences], quality: str, alone: tuple[int, int]) -> Comparison:
    """The pairs with the intervals of their differences, drawn together."""
    seeds = np.array([len(pair.by_seed) for pair in pairs], dtype=float)
    variance = np.array([pair.by_seed.var(ddof=1) if len(pair.by_seed) > 1 else 0.0 for pair in pairs])
    examples = max(pair.by_example.shape[1] for pair in pairs)
    shares = np.full((len(pairs), examples), np.nan, np.float32)
    noise = np.full(len(pairs), np.nan)
    for i, pair in enumerate(pairs):
        if pair.by_example.shape[1] == examples and examples:
            shares[i] = pair.by_example.mean(axis=0)
            if len(pair.by_seed) > 1:
                noise[i] = pair.by_example.var(axis=0, ddof=1).mean()
    spread = moderated(variance, seeds - 1)
    chance = np.random.default_rng(0)
    moved = doubt.changes(shares, noise, spread, seeds, DRAWS, chance, pseudo=PSEUDO, alike=True)
    means = np.array([pair.by_seed.mean() for pair in pairs])
    drawn = doubt.bounded(means[:, None] + moved, quality, -1.0, 1.0)
    differing = tuple(
        Pair(pair.label, pair.one, pair.other, len(pair.by_seed), Difference.of(mean, draws))
        for pair, mean, draws in zip(pairs, means, drawn, strict=True)
    )
    overall = Difference.of(means.mean(), drawn.mean(axis=0))
    return Comparison(quality, differing, overall, alone, remarks(pairs, quality))


def remarks(pairs: Sequence[PairedDifferences], quality: str) -> tuple[str, ...]:
    """Of how many pairs the intervals say less than they seem to."""
    found = []
    if alone := sum(len(pair.by_seed) == 1 for pair in pairs):
        found.append(f"one seed alone: {alone} of {len(pairs)}; another seed might say otherwise")
    if quality == doubt.PER_EXAMPLE and (blind := sum(not pair.by_example.shape[1] for pair in pairs)):
        found.append(f"{blind} of {len(pairs)} do not say which test examples were right: run them again")
    return tuple(found)


def in_words(found: Comparison) -> str:
    """A line for each pair, the mean over them, and what a reader has to know."""
    fraction = doubt.is_fraction(found.quality)
    scale, unit, sign = (100, " points", " %") if fraction else (1, "", "")

    def line(name: str, one: Difference) -> str:
        if one.low == one.high:  # neither seeds that differ nor test examples
            return f"{name:<36} {scale * one.mean:+.3g}{unit}: how sure that is, is not known"
        ends = f"({scale * one.low:+.3g} to {scale * one.high:+.3g})"
        verdict = "within noise" if one.is_noise else "better" if one.mean > 0 else "worse"
        return f"{name:<36} {scale * one.mean:+.3g}{unit} {ends}: {verdict}"

    lines = [f"{found.quality}, B less A, paired by test example and seed, 95 % intervals"]
    for pair in found.pairs:
        a, b = (phrases.value_of(value, found.quality) for value in (pair.one, pair.other))
        seeds = phrases.seeds_in_words(pair.seeds)
        lines.append(f"{line(pair.label, pair.difference)}; A {a}{sign}, B {b}{sign}, {seeds}")
    if len(found.pairs) > 1:
        lines.append(line(f"mean of {len(found.pairs)} settings", found.mean))
    if any(found.alone):
        lines.append(f"not compared: {found.alone[0]} settings of A alone, {found.alone[1]} of B alone")
    return "\n".join([*lines, *found.remarks])
