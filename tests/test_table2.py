"""UniAD's Table 2: which modules, what each is worth, with which interval; as Markdown and as a figure."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from attnsweep.figures import planning, table2
from attnsweep.results.loading import load
from attnsweep.results.store import Store
from attnsweep.space.files import read_sweep
from attnsweep.space.trials import make_trial
from attnsweep.tasks.driving.columns import BY_MAP, COLUMNS
from attnsweep.tasks.driving.stack.design import STAGES
from attnsweep.tasks.registry import resolve

UNIAD = {  # the ticks of the published table: Track, Map, Motion, Occ., Plan
    "id0": "11111", "id1": "10000", "id2": "01000", "id3": "11000", "id4": "00100", "id5": "10100",
    "id6": "11100", "id7": "00010", "id8": "10010", "id9": "11110", "id10": "00001", "id11": "11101",
    "id12": "11111",
}  # fmt: skip
MAPS = 30


def trial_row(seed: int = 0, maps: dict[str, list[float]] | None = None, **point: Any) -> dict[str, Any]:
    """A done row whose measures are those of its stages, such as 0.5 for each fraction."""
    trial = make_trial(resolve({"model": "planning", "seed": seed, **point}), Path("nowhere"))
    has = {
        "amota": trial.config["track"] != "none", "map_iou_drivable": trial.config["lines"] != "none",
        "min_ade6": trial.config["motion"] != "none", "vpq_near": trial.config["occ"] != "none",
    }  # fmt: skip
    quality: dict[str, Any] = {f"test_{name}": 0.5 + 0.1 * seed for name, is_there in has.items() if is_there}
    if trial.config["plan"] == "on":
        scores = [0.5] * MAPS
        quality |= {"test_score": 0.5, "test_map_scores": json.dumps(scores), "test_off_road": 0.25}
        quality |= {"test_at_fault": 0.1, "test_l2_1s": 1.0, "test_l2_2s": 2.0, "test_l2_3s": 6.0}
    if maps:
        quality["test_map_measures"] = json.dumps(maps)
    return {**trial.row(), **quality, "status": "done", "device": "a CPU, 1 thread"}


def frame_of(folder: Path, rows: list[dict[str, Any]]) -> pd.DataFrame:
    for one in rows:
        Store(folder).write_trial(one)
    return load(folder, all_columns=True)


def rows_of(frame: pd.DataFrame) -> list[table2.Row]:
    return [table2.row_of(group, name) for name, group in planning.settings_of(frame).items()]


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """A row of each set of the table."""
    folder = tmp_path_factory.mktemp("all") / "results"
    return frame_of(folder, [trial_row(stages=stages, epochs=1) for stages in UNIAD])


def test_the_sweep_asks_for_every_row_of_the_table() -> None:
    sweep = read_sweep(Path(__file__).parent.parent / "sweeps/planning_table2.py")
    assert {point["stages"] for point in sweep.points()} == set(UNIAD)


@pytest.mark.slow
def test_the_ticks_are_those_of_the_published_table(every: pd.DataFrame) -> None:
    rows = rows_of(every)
    assert [row.name.partition(":")[0] for row in rows] == list(UNIAD)
    assert ["".join(map(str, map(int, row.modules))) for row in rows] == list(UNIAD.values())
    assert set(UNIAD) <= set(STAGES)


@pytest.mark.slow
def test_a_setting_has_cells_for_what_it_has_and_no_setting_is_lost(every: pd.DataFrame) -> None:
    names = [measure.name for measure in table2.MEASURES]
    text = table2.markdown(rows_of(every))
    lines = text.splitlines()
    assert len(lines) == 2 + len(UNIAD) and len({line.count("|") for line in lines}) == 1
    by_name = {row.name.partition(":")[0]: dict(zip(names, row.cells, strict=True)) for row in rows_of(every)}
    assert by_name["id2"]["AMOTA"] is None and by_name["id2"]["IoU road"] is not None
    assert by_name["id9"]["VPQ near"] is not None and by_name["id9"]["score"] is None
    assert by_name["id10"]["avg. L2"] == table2.Cell(3.0) and by_name["id10"]["IoU road"] is None


def test_every_measure_of_the_table_is_a_column_that_knows_its_direction() -> None:
    better = {column.name: column.better for column in COLUMNS}
    for measure in table2.MEASURES:
        assert all(better[name] in ("higher", "lower") for name in measure.columns)
        assert all(name.removeprefix("test_") in (*BY_MAP, "score") for name in measure.columns)


@pytest.mark.slow
def test_the_interval_over_seeds_is_students(tmp_path: Path) -> None:
    frame = frame_of(tmp_path, [trial_row(stages="id1", seed=seed) for seed in (0, 1, 2)])
    cell = rows_of(frame)[0].cells[0]
    assert cell is not None and cell.low is not None and cell.high is not None
    assert cell.mean == pytest.approx(0.6)
    reach = 4.302652729911275 * 0.1 / 3**0.5  # t(0.975, 2) from a table
    assert (cell.low, cell.high) == pytest.approx((0.6 - reach, 0.6 + reach))


def test_the_interval_of_one_seed_is_the_bootstraps_over_maps(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(0.3, 0.1, 400)
    lists = {"amota": [*values.tolist(), None], "ids": [1.0] * MAPS}
    frame = frame_of(tmp_path, [trial_row(stages="id1", maps=lists)])
    frame["test_ids"] = 30.0
    amota, _, ids = rows_of(frame)[0].cells[:3]
    assert amota is not None and amota.low is not None and amota.high is not None
    reach = 1.96 * values.std() / len(values) ** 0.5
    assert amota.mean == 0.5  # not that of the maps, whose spread alone counts
    assert (amota.low, amota.high) == pytest.approx((0.5 - reach, 0.5 + reach), abs=reach / 5)
    assert ids == table2.Cell(30.0)  # equal everywhere, so nothing is known of how it varies
    assert table2.of_seeds(np.full(3, 0.5)) == table2.Cell(0.5)


@pytest.mark.slow
def test_a_score_has_its_own_interval_whether_maps_were_driven_or_not(tmp_path: Path) -> None:
    rows = [trial_row(stages=stages) for stages in ("id10", "id12")]
    rows[0] |= {"test_map_scores": None, "test_score_low": 0.41, "test_score_high": 0.63}  # recorded traffic
    rows[1] |= {"test_score_low": 0.5, "test_score_high": 0.5}
    at = [measure.name for measure in table2.MEASURES].index("score")
    found = [row.cells[at] for row in rows_of(frame_of(tmp_path, rows))]
    assert found == [table2.Cell(0.5, 0.41, 0.63), table2.Cell(0.5)]


@pytest.mark.slow
def test_no_interval_leaves_what_there_can_be(tmp_path: Path) -> None:
    frame = frame_of(tmp_path, [trial_row(stages="id1", seed=seed) for seed in (0, 4)])
    cell = rows_of(frame)[0].cells[0]
    assert cell is not None and (cell.low, cell.high) == (0.0, 1.0)


@pytest.mark.slow
def test_the_best_is_bold_whichever_way_is_better(tmp_path: Path) -> None:
    rows = [trial_row(stages="id5", seed=0), trial_row(stages="id6", seed=1)]  # 0.5, and 0.6
    text = table2.markdown(rows_of(frame_of(tmp_path, rows)))
    _, _, five, six = text.splitlines()
    assert "| **0.50** |" in five and "| 0.60 |" in six  # minADE
    assert five.count("**") == 2 and "| **0.60** |" in six  # AMOTA
    alike = [trial_row(stages=stages) for stages in ("id1", "id3")]
    assert "**" not in table2.markdown(rows_of(frame_of(tmp_path / "alike", alike)))  # nobody is the best


@pytest.mark.slow
def test_who_tracks_nobody_is_not_praised_for_confusing_nobody(tmp_path: Path) -> None:
    rows = [trial_row(stages=stages, seed=seed) for stages in ("id1", "id3", "id5") for seed in (0, 1)]
    for one, amota, switches in zip(rows, (0, 0, 0, 0.2, 0.4, 0.2), (0, 0, 0, 30, 40, 50), strict=True):
        one |= {"test_amota": amota, "test_ids": switches}
    _, _, nobody, once, twice = table2.markdown(rows_of(frame_of(tmp_path, rows))).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[7:10]] for line in (nobody, once, twice)]
    assert cells[0] == ["0.00", "-", "-"]
    assert cells[1][0].startswith("0.10 [") and cells[1][2] == "**30**"  # of the seed that tracked somebody
    assert cells[2][0].startswith("**0.30**") and cells[2][2].startswith("45 [")


@pytest.mark.slow
def test_the_command_writes_the_table_and_names_who_drove_nothing(
    tmp_path: Path, every: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = planning.write_figures(every, "id12", tmp_path)
    assert {path.name for path in paths} == {
        f"{name}.{kind}" for name in ("planning", "planning_table2") for kind in ("png", "svg")
    } | {"planning_table2.md"}
    said = capsys.readouterr().out
    assert "drove no maps: id1: track; id2: map; id3: track, map; id4: detect, motion;" in said
    assert "| id9: no plan |" in (tmp_path / "planning_table2.md").read_text()
    assert "1 epoch;" in (tmp_path / "planning_table2.md").read_text()


@pytest.mark.slow
def test_what_is_not_there_yet_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = frame_of(tmp_path / "results", [trial_row(stages="id10")])
    figure = planning.draw(planning.lines_of(frame, "id12"), "", "id12")
    assert "nothing to compare with id12" in [text.get_text() for text in figure.axes[1].texts]
    assert "60 unseen maps with reactive" in planning.subtitle(frame, 60)
    assert "traffic, which does not react" in planning.subtitle(frame.assign(dataset="commonroad:a"), 0)
    assert planning.main([str(tmp_path / "results"), "--against", "id99"]) == 2
    assert "--against='id99' is unknown" in capsys.readouterr().err


def overlaps(texts: list[Text]) -> list[tuple[str, str]]:
    """Which of the texts cover one another."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text().strip()]
    return [
        (one, other)
        for i, (one, box) in enumerate(boxes)
        for other, its in boxes[i + 1 :]
        if box.x0 < its.x1 and its.x0 < box.x1 and box.y0 < its.y1 and its.y0 < box.y1
    ]


@pytest.mark.slow
def test_no_text_of_the_figures_covers_another(tmp_path: Path) -> None:
    lists = {name: np.linspace(0, 30, MAPS).tolist() for name in BY_MAP}
    rows = [trial_row(stages=stages, maps=lists) for stages in UNIAD]
    rows += [trial_row(stages="id12", seed=1)]
    rows += [trial_row(stages="id12", dim=64, mlp_dim=168, grad_stop="bev", bev_attention="global")]
    frame = frame_of(tmp_path, rows)
    frame[["test_min_ade6", "test_min_fde6"]] = 26.4
    figure = table2.draw(rows_of(frame), "about")
    figure.draw_without_rendering()
    assert not overlaps(figure.axes[0].texts)
    scores = planning.draw(planning.lines_of(frame, "id12"), "about", "id12")
    scores.draw_without_rendering()
    assert all(name.get_window_extent().x0 >= 0 for name in scores.axes[0].get_yticklabels())
    assert len(scores.axes) == 5 and scores.axes[3].get_xlabel() == "Leaves the road"
    shown = [
        text
        for axes in scores.axes
        for text in axes.get_xticklabels()
        if axes.get_xlim()[0] <= text.get_position()[0] <= axes.get_xlim()[1]  # others are not drawn
    ]
    assert len(shown) > 10 and not overlaps(shown)
