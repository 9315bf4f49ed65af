"""Effects of axes, comparisons and curves: planted ones are found, and none where there is none."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_doubt import EXAMPLES, row
from test_report import write_results

from attnsweep.__main__ import main
from attnsweep.answers import compare, effects
from attnsweep.core.errors import UserError
from attnsweep.figures import curves
from attnsweep.figures.canvas import style_of

BASE = np.arange(EXAMPLES)


def grid(quality, *, seeds: int = 3, **axes: list[object]) -> pd.DataFrame:
    """A full grid of axes, each point with some seeds; `quality(point, seed)` is that on validation."""
    rows = []
    for values, seed in itertools.product(itertools.product(*axes.values()), range(seeds)):
        point = dict(zip(axes, values, strict=True))
        rows.append(row(2, seed, BASE < 300) | point | {"val_acc": quality(point, seed)})
    return pd.DataFrame(rows)


def test_a_planted_effect_ranks_first_with_its_size_and_the_others_are_not_told_from_chance():
    chance = np.random.default_rng(0)
    frame = grid(
        lambda point, seed: 0.8 + 0.02 * (point["depth"] == 6) + 0.004 * chance.standard_normal(),
        depth=[2, 4, 6], heads=[2, 4], lr=[1e-3, 1e-4],
    )  # fmt: skip
    found = effects.effects(frame)
    assert found.axes[0].name == "depth" and found.how == "grid"
    depth, *others = found.axes
    assert depth.is_real and depth.low <= 0.02 <= depth.high and depth.best == "6"
    assert not any(one.is_real for one in (*others, *found.pairs))


def test_what_two_axes_do_together_is_found_as_a_pair_and_not_as_either():
    chance = np.random.default_rng(0)
    frame = grid(
        lambda at, _: 0.02 * ((at["depth"] == 2) == (at["heads"] == 2)) + 0.002 * chance.random(),
        depth=[2, 4], heads=[2, 4],
    )  # fmt: skip
    found = effects.effects(frame)
    assert [one.is_real for one in found.pairs] == [True] and found.pairs[0].name == "depth x heads"
    assert not any(one.is_real for one in found.axes)


def test_where_nothing_matters_something_is_called_real_in_5_of_100_sweeps():
    """A thousand sweeps of pure noise at once: they share a design, so that it costs one decomposition."""
    design = pd.DataFrame(itertools.product([1, 2, 3], [1, 2], [1, 2, 3, 4], range(2)), columns=list("abcs"))
    levels = {name: pd.Categorical(design[name]) for name in "abc"}
    codes = {name: effects.coded(factor) for name, factor in levels.items()}
    mains = list(codes.values())
    pairs = [effects.together(codes[a], codes[b]) for a, b in itertools.combinations(codes, 2)]
    y = np.random.default_rng(0).standard_normal((48, 1000))
    error = effects.residual([*mains, *pairs], y)
    tests = [
        effects.f_test(mains, [c for other, c in codes.items() if other != name], error, y) for name in codes
    ]
    real = effects.holm(np.array(tests)).min(axis=0) <= 0.05
    assert 0.03 < real.mean() < 0.07
    together = effects.holm(np.array([effects.f_test([*mains, one], mains, error, y) for one in pairs]))
    assert 0.03 < (together.min(axis=0) <= 0.05).mean() < 0.07


@pytest.mark.slow
def test_intervals_of_effects_cover_their_size():
    hits, chance = 0, np.random.default_rng(0)
    points = list(itertools.product([0, 1], [2, 4], range(3)))
    levels = {
        name: pd.Categorical([point[i] for point in points]) for i, name in enumerate(("heads", "depth"))
    }
    for _ in range(200):
        y = np.array([0.03 * heads + 0.01 * chance.standard_normal() for heads, *_ in points])
        axes, *_ = effects.by_variance(levels, y)
        heads = next(one for one in axes if one.name == "heads")
        hits += heads.low <= 0.03 <= heads.high
    assert 0.91 < hits / 200 < 0.985


def test_axes_that_follow_from_the_model_are_not_counted_besides_it():
    models = (("vit", 7, 4), ("cnn", None, None), ("hybrid", 3, 4))
    rows = [
        row(2, seed, BASE < 300, model=model, patch_size=size, heads=heads, val_acc=0.8 + 0.01 * seed)
        for (model, size, heads), seed in itertools.product(models, range(3))
    ]
    assert [one.name for one in effects.effects(pd.DataFrame(rows)).axes] == ["model"]


@pytest.mark.slow
def test_a_forest_finds_what_was_planted_in_a_random_space():
    chance, rows = np.random.default_rng(0), []
    for _ in range(60):
        lr, depth = float(10 ** chance.uniform(-5, -2)), int(chance.integers(1, 12))
        quality = 0.7 + 0.05 * np.log10(lr) + 0.01 * chance.standard_normal()
        rows.append(row(depth, 0, BASE < 300, lr=lr, dropout=float(chance.random()), val_acc=quality))
    found = effects.effects(pd.DataFrame(rows), nulls=19)
    assert found.how == "forest" and found.axes[0].name == "lr" and found.axes[0].is_real
    assert [one.is_real for one in found.axes] == [True, False, False]


@pytest.mark.slow
def test_a_forest_is_held_against_chance_so_that_something_is_called_real_in_5_of_100_sweeps(monkeypatch):
    """A thousand sweeps of pure noise; correlations in place of the forest, which takes minutes for them."""

    def correlations(features, y, chance):
        return np.tile(np.abs(np.corrcoef(features.T, y)[-1, :-1]), (2, 1))

    monkeypatch.setattr(effects, "importances", correlations)
    chance, wrong = np.random.default_rng(0), 0
    for i in range(1000):
        axes = pd.DataFrame(chance.random((effects.FEWEST_TRIALS, 3)), columns=list("abc"))
        found = effects.by_forest(axes, chance.standard_normal(len(axes)), i, 19)
        wrong += any(one.is_real for one in found)
    assert 30 < wrong < 70


def test_a_forest_treats_qualities_and_their_shuffles_alike_and_says_how_long_it_takes(monkeypatch, caplog):
    monkeypatch.setattr(effects, "LONG_S", 0.0)
    asked: list[np.ndarray] = []
    monkeypatch.setattr(
        effects, "importances", lambda features, y, chance: asked.append(y) or np.ones((2, features.shape[1]))
    )
    y = np.arange(20.0)
    (found,) = effects.by_forest(pd.DataFrame({"lr": y}), y, 0, 39)
    assert len(asked) == 40 and all(sorted(one) == y.tolist() for one in asked) and found.p == 1
    assert "holding the forest against 39 of shuffled qualities" in caplog.text


@pytest.mark.slow
def test_seeds_that_are_equal_by_luck_make_nothing_certain():
    rows = [("cnn", 0, 0.4), ("vit", 0, 0.12), ("vit", 1, 0.12)]
    frame = pd.DataFrame(rows, columns=["model", "seed", "val_acc"]).assign(dataset="digits", depth=1)
    (found,) = effects.effects(frame, how="grid").axes
    assert not found.is_real and found.low < found.size < found.high


def test_an_axis_that_trials_of_a_model_go_without_has_that_as_a_level():
    frame = grid(
        lambda at, seed: 0.8 + 0.1 * (at["clip_norm"] is None) + 0.001 * seed, clip_norm=[None, 1.0, 2.0]
    )
    (clipped,) = effects.effects(frame).axes
    assert clipped.size == pytest.approx(0.1) and clipped.best == "none" and clipped.is_real
    (clipped,) = effects.effects(frame[frame["clip_norm"].ne(2.0)]).axes
    assert clipped.size == pytest.approx(0.1) and clipped.best == "none"


def test_another_version_of_the_code_is_no_seed_of_the_same_setting():
    rows = [("1", 0, 0.80), ("1", 1, 0.81), ("2", 2, 0.90), ("2", 3, 0.91)]
    frame = pd.DataFrame(rows, columns=["attnsweep", "seed", "val_acc"])
    found = effects.effects(frame.assign(model="vit", dataset="digits", depth=1))
    assert [one.name for one in found.axes] == ["attnsweep"] and found.axes[0].size == pytest.approx(0.1)
    with pytest.raises(UserError, match="several rows of seed 0"):
        effects.effects(frame.assign(model="vit", dataset="digits", depth=1, attnsweep="1", seed=0))


def test_equal_means_have_no_best_level_and_an_effect_names_what_it_is_held_against():
    found = effects.effects(grid(lambda *_: 0.1 + 0.2, depth=[1, 2, 4]))
    (depth,) = found.axes
    assert (depth.size, depth.low, depth.high, depth.best) == (0, 0, 0, "")
    assert "against the spread of seeds" in effects.in_words(found)
    alone = grid(lambda at, _: at["depth"] * at["heads"], seeds=1, depth=[1, 2], heads=[1, 2])
    assert "as there is one seed of each setting" in effects.in_words(effects.effects(alone))


def test_what_cannot_be_said_is_said():
    with pytest.raises(UserError, match="no done trial has val_acc"):
        effects.effects(grid(lambda *_: 0.8, depth=[2, 4]).assign(status="failed", test_acc=None), "val_acc")
    with pytest.raises(UserError, match="no axis differs"):
        effects.effects(grid(lambda *_: 0.8, depth=[2]))
    with pytest.raises(UserError, match="run several seeds"):
        effects.effects(grid(lambda *_: 0.8, depth=[2, 4], seeds=1), how="grid")
    with pytest.raises(UserError, match="2 trials are too few for a forest"):
        effects.effects(grid(lambda *_: 0.8, depth=[2, 4], seeds=1))


# --- Comparisons ---


@pytest.mark.slow
def test_a_change_that_helps_on_a_few_examples_is_seen_where_seeds_are_paired():
    """Seeds differ by far more than the change does: unpaired it would be within noise."""
    spread = [260, 300, 340]
    before = pd.DataFrame([row(2, seed, BASE < hits) for seed, hits in enumerate(spread)])
    after = pd.DataFrame([row(2, seed, BASE < hits + 8) for seed, hits in enumerate(spread)])
    found = compare.of_folders(before, after.assign(attnsweep="2"))
    assert found.mean.mean == pytest.approx(0.02) and not found.mean.is_noise
    assert compare.of_folders(after, before).mean.high < 0
    assert compare.of_folders(before, before).mean.is_noise


@pytest.mark.slow
def test_comparisons_of_equal_settings_err_as_often_as_they_say(monkeypatch):
    monkeypatch.setattr(compare, "DRAWS", 400)
    chance, wrong = np.random.default_rng(0), 0
    easy = np.where(chance.random(EXAMPLES) < 0.5, 0.95, 0.75)
    for _ in range(150):
        a, b = (chance.random((2, 3, EXAMPLES)) < easy).astype(np.float32)  # of each seed and example
        by_seed = b.mean(axis=1, dtype=float) - a.mean(axis=1, dtype=float)
        pair = compare.PairedDifferences("", a.mean(), b.mean(), by_seed, b - a)
        wrong += not compare.compared([pair], "test_acc", (0, 0)).mean.is_noise
    assert wrong <= 14


@pytest.mark.slow
def test_two_trials_stand_for_their_settings():
    rows = [row(depth, seed, BASE < 200 + 20 * depth) for depth in (1, 2) for seed in range(2)]
    found = compare.of_settings(pd.DataFrame(rows), "1-0", "2-1")
    (pair,) = found.pairs
    assert pair.label == "vit depth=1 -> vit depth=2" and pair.seeds == 2
    assert pair.difference.mean == pytest.approx(0.05) and pair.difference.low > 0


def test_where_nothing_is_known_of_a_difference_it_is_no_certainty():
    rows = [row(depth, 0, BASE < 300 + depth, test_right=None) for depth in (1, 2)]
    said = compare.in_words(compare.of_settings(pd.DataFrame(rows), "1-0", "2-0"))
    assert "+0.25 points: how sure that is, is not known; A" in said and "better" not in said


def test_no_interval_of_a_fraction_reaches_beyond_all_of_it():
    """Two seeds that disagree widely: their t interval alone would reach from -900 to 900 points."""
    rows = [row(depth, seed, BASE < (20, 380)[(depth + seed) % 2]) for depth in (1, 2) for seed in range(2)]
    found = compare.of_settings(pd.DataFrame(rows), "1-0", "2-1")
    assert (found.mean.low, found.mean.high) == (found.pairs[0].difference.low, found.mean.high) == (-1, 1)
    (depth,) = effects.effects(pd.DataFrame(rows), "test_acc").axes
    assert (depth.low, depth.high) == (-1, 1)


@pytest.mark.slow
def test_what_cannot_be_compared_is_answered_in_a_sentence():
    frame = pd.DataFrame([row(1, 0, BASE < 300), row(2, 0, BASE < 300), row(2, 1, BASE < 300)])
    other = frame.assign(data_sha256="e")
    with pytest.raises(UserError, match="differ in data_sha256"):
        compare.of_folders(frame, other)
    with pytest.raises(UserError, match="no setting in common"):
        compare.of_folders(frame, frame.assign(lr=0.5))
    with pytest.raises(UserError, match="are seeds of one setting"):
        compare.of_settings(frame, "2-0", "2-1")
    with pytest.raises(UserError, match="no done trial of the second has test_acc"):
        compare.of_folders(frame, frame.assign(status="failed"))
    with pytest.raises(UserError, match="trial 2-0 has no test_acc"):
        compare.of_settings(
            frame.assign(test_acc=frame["test_acc"].where(frame["depth"].ne(2))), "1-0", "2-0"
        )
    with pytest.raises(UserError, match=r"there is no trial .* that is done"):
        compare.of_settings(frame, "zzz", "1-0")
    assert "one seed alone: 1 of 1" in compare.of_settings(frame, "1-0", "2-0").remarks[0]
    assert "2 of 2 are the same trials" in compare.of_folders(frame, frame).remarks[-1]
    assert "same trials" not in "".join(compare.of_folders(frame, frame.assign(test_acc=0.5)).remarks)


# --- The commands ---


def test_the_legend_of_curves_names_every_model_in_full_and_those_of_one_colour_differ():
    models = ["net.py:_Net", f"net.py:{'Long' * 20}", "net.py:A", "net.py:D"]  # the last two: of one colour
    frame = grid(lambda at, seed: 0.8, seeds=1, model=models)
    frame["trial_id"] = models
    epochs = pd.DataFrame([{"trial_id": one, "epoch": e, "val_acc": 0.8} for one in models for e in (1, 2)])
    figure = curves.draw(frame, epochs)
    (axes,) = figure.axes
    legend = axes.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [f"{one[7:]} (one seed)" for one in models]
    assert legend.get_window_extent().x1 <= figure.bbox.x1
    looks = {(line.get_color(), str(line.get_linestyle())) for line in axes.lines}
    assert len(looks) == len(models) and style_of("net.py:A") == style_of("net.py:D")


@pytest.fixture
def results(tmp_path: Path) -> str:
    frame = grid(
        lambda point, seed: 0.8 + 0.02 * point["depth"] + 0.001 * seed, depth=[1, 2, 4], heads=[2, 4]
    )
    return write_results(tmp_path / "results", frame)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said", "drawn"),
    [
        (["effects"], "depth ", "effects.png"),
        (["curves", "--most", "3"], "", "curves.png"),
        (["compare", "{}", "000000000000", "000000000003"], "within noise", None),
    ],
)
def test_the_commands_say_and_draw_it(results, words, said, drawn, capsys):
    words = [word.format(results) for word in words]
    command, *rest = words
    given = [command, *rest] if command == "compare" else [command, results, *rest]
    assert main(given) == 0
    assert said in capsys.readouterr().out
    assert drawn is None or (Path(results).parent / "figures" / drawn).stat().st_size > 5000


@pytest.mark.parametrize("command", ["effects", "curves", "compare"])
def test_the_scripts_are_those_commands(command, results, capsys, monkeypatch):
    script = Path(__file__).parent.parent / "analysis" / f"{command}.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as ended:
        exec(compile(script.read_text(), str(script), "exec"), {"__name__": "__main__"})
    assert ended.value.code == 0 and f"attnsweep {command}" in capsys.readouterr().out
