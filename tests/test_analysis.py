"""The analysis scripts on synthetic results: what they print, what they draw, what they refuse."""

import functools
import importlib
import io
import itertools
import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pandas as pd
import pytest
from matplotlib.figure import Figure

from attnsweep.answers.pareto import Reference
from attnsweep.core.errors import UserError
from attnsweep.figures import front, panels, placement
from attnsweep.results.schema import CONFIGURATION
from attnsweep.results.store import Store

ROOT = Path(__file__).parent.parent
DEVICE = "Xeon, 1 thread"
Rows = list[dict[str, object]]


def trial(model: str, dataset: str, seed: int, **values: object) -> dict[str, object]:
    """A done row of the trials table; what is not named is null or plausible."""
    name = f"{model}-{dataset}-{seed}-{sorted(values.items())}"
    recipe = {"lr": 1e-4, "epochs": 15, "batch_size": 64, "num_classes": 10, "image_size": 28}
    costs = {
        "params": 1_199_882,
        "macs": 12_000_000,
        "latency_ms_p50": 0.5,
        "latency_batch": 1,
        "measured_on": DEVICE,
    }
    scores = {"val_acc": 0.9, "test_acc": 0.9, "test_acc_best": 0.9}
    every: dict[str, object] = {**dict.fromkeys(column.name for column in CONFIGURATION), **recipe}
    every |= {**costs, **scores, **values}
    return {**every, "trial_id": name, "status": "done", "model": model, "dataset": dataset, "seed": seed}


def depth_sweep() -> Rows:
    """CNN, ViT and DeepViT, two depths, data sets and seeds; DeepViT is always beaten."""
    rows = []
    for dataset, base in (("mnist", 0.97), ("cifar10", 0.55)):
        for seed in (0, 1):
            spread = 0.002 * seed
            rows.append(trial("cnn", dataset, seed, test_acc=base + spread, val_acc=base + spread))
            for depth in (2, 6):
                vit = {"depth": depth, "params": 300_000 * depth, "latency_ms_p50": 0.5 * depth}
                better = base + 0.002 * depth + spread
                scores = {"val_acc": better, "test_acc": better, "test_acc_best": better + 0.001}
                rows.append(trial("vit", dataset, seed, **vit, **scores))
                vit["latency_ms_p50"] += 0.1
                rows.append(trial("deepvit", dataset, seed, **vit, test_acc=base - 0.01, val_acc=base - 0.01))
    return rows


def written(folder: Path, rows: Rows) -> Path:
    Store(folder).write("trials", rows, "all")
    return folder


def run_as_a_user(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The script in a process of its own, from the root of the repository."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, f"analysis/{script}.py", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, encoding="utf-8"
    )


@functools.cache
def module_of(script: str) -> ModuleType:
    return importlib.import_module(f"attnsweep.figures.{'front' if script == 'pareto' else script}")


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The same within this process, which spares a second of imports."""
    argv, out, err = [script, *map(str, arguments)], io.StringIO(), io.StringIO()
    with mock.patch("sys.argv", argv), redirect_stdout(out), redirect_stderr(err):
        status = module_of(script).main()
    return subprocess.CompletedProcess(argv, status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("sweep") / "results", depth_sweep())


@pytest.fixture(scope="module")
def drawn(results: Path) -> subprocess.CompletedProcess[str]:
    """The figure of these results, as a user draws it."""
    return run_as_a_user("pareto", results)


def section(text: str, head: str) -> list[str]:
    """The lines from the one that starts with `head` to the next empty one."""
    return text[text.index(head) :].split("\n\n")[0].splitlines()


@pytest.mark.slow
def test_the_front_is_printed_for_each_data_set_and_cost(drawn):
    assert drawn.returncode == 0, drawn.stderr
    latency = section(drawn.stdout, "mnist, latency_ms_p50: 3 of 5 settings on the front")
    assert [line.split()[:2] for line in latency[2:5]] == [["cnn", "0.500"], ["vit", "d2"], ["vit", "d6"]]
    params = section(drawn.stdout, "cifar10, params: 2 of 5 settings on the front")
    name, depth, cost, mean, low, high, seeds, p_front = params[2].split()
    assert [name, depth, cost, mean, seeds] == ["vit", "d2", "600,000", "0.5550", "2"]
    assert float(low) < 0.555 < float(high) and 0.5 < float(p_front) <= 1
    assert "mnist: 5 of 5 settings do not say which test examples were right" in drawn.stdout
    assert params[-1].endswith("from the reference point params 10M and test_acc 0")


@pytest.mark.slow
def test_the_printed_hypervolume_is_the_area_under_the_front(results, tmp_path):
    done = run("pareto", results, "--out", tmp_path, "--dataset", "mnist", "--where", "model == 'cnn'")
    line = section(done.stdout, "mnist, latency_ms_p50: 1 of 1 setting on the front")[-1]
    assert line.startswith("hypervolume 0.2923 ")  # accuracy 0.971, and log10(1 ms / 0.5 ms) decades


@pytest.mark.slow
def test_the_figure_is_written_as_svg_and_png_beside_the_results(drawn, results):
    folder = results.parent / "figures"
    assert (folder / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (folder / "pareto.svg").read_text()
    assert f"wrote {folder / 'pareto.svg'}" in drawn.stdout
    assert {path.suffix for path in results.rglob("*") if path.is_file()} == {".parquet"}


@pytest.mark.slow
def test_drawing_twice_gives_the_same_svg(drawn, results, tmp_path):
    run("pareto", results, "--out", tmp_path)
    again = (tmp_path / "pareto.svg").read_bytes()
    assert (results.parent / "figures/pareto.svg").read_bytes() == again


def figure_of(rows: Rows, tmp_path: Path) -> tuple[Any, Any]:
    """The figure of these rows, and the panels that it shows."""
    script = module_of("pareto")
    frame = script.load(written(tmp_path / "results", rows))
    shown = script.panels(frame)
    return script.draw(shown, script.summary(frame)), shown


def crowded() -> Rows:
    """49 settings whose accuracies and latencies lie close together."""
    return [
        trial("vit", "mnist", 0, depth=d, heads=h, latency_ms_p50=0.2 * d + 0.05 * h, params=1000 * d * h,
              test_acc=0.9 + 0.002 * d + 0.001 * ((d * h) % 5))
        for d, h in itertools.product(range(1, 8), range(1, 8))
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("rows", [depth_sweep, crowded])
def test_no_label_covers_another_or_leaves_the_figure(tmp_path, rows):
    figure, _ = figure_of(rows(), tmp_path)
    whole = figure.bbox
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
        assert boxes
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
        assert all(whole.x0 <= b.x0 and b.x1 <= whole.x1 and b.y1 <= whole.y1 for b in boxes)


def dot(label: str, cost: float, accuracy: float, reach: float, **known: Any) -> Any:
    """A point of the front, and of a model of its own, as labels are placed beside it; `reach` is how far its
    interval goes to either side.
    """
    ends = {"low": accuracy - reach, "high": accuracy + reach}
    named = {"label": label, "model": label, "cost": cost, "accuracy": accuracy, "on_front": True}
    return types.SimpleNamespace(**{**named, **ends, **known})


def labelled(points: list[Any], line: Sequence[tuple[float, float]] = ()) -> set[str]:
    """The labels that find room in a small panel."""
    axes = Figure(figsize=(4, 3), dpi=100).subplots()
    axes.set(xscale="log", xlim=(0.5, 8), ylim=(0.85, 1))
    missed = placement.LabelPlacer(axes, points, line, colour=lambda model: "black").place()
    found = [text.get_text() for text in axes.texts if text.get_text()]
    assert missed + len(found) == len(points)
    return set(found)


def test_the_front_is_labelled_where_another_order_finds_room(monkeypatch):
    """In the order of their costs, the labels of the first two points leave none to the third."""
    places = [(1.12, 0.904), (1.37, 0.913), (1.43, 0.919), (2.05, 0.946), (2.66, 0.951)]
    points = [dot(f"a_model_of_a_long_name_{i}", *place, 0.002) for i, place in enumerate(places)]
    corners = [corner for (_, y), (x, z) in itertools.pairwise(places) for corner in ((x, y), (x, z))]
    assert len(labelled(points, [places[0], *corners])) == len(points)
    monkeypatch.setattr(placement, "ORDERS", 1)
    assert len(labelled(points, [places[0], *corners])) < len(points)


def between_bars(label: str, cost: float, accuracy: float, reach: float, **known: Any) -> list[Any]:
    """A point and two neighbours off the front, so near that its label has no room between them."""
    sides = [dot("beside", cost * by, accuracy, reach, on_front=False, model="other") for by in (0.95, 1.05)]
    return [dot(label, cost, accuracy, reach, **known), *sides]


def test_the_line_to_a_label_may_run_along_the_bar_of_its_own_point():
    assert "a_long_name" in labelled(between_bars("a_long_name", 2, 0.92, 0.03))


def test_of_a_model_whose_best_setting_finds_no_room_the_next_one_is_labelled():
    best, rest = (
        between_bars(*one, model="vit", on_front=False)
        for one in (("best", 2, 0.93, 0.2), ("next", 5, 0.9, 0.02))
    )
    assert labelled([*best, *rest]) & {"best", "next"} == {"next"}


@pytest.mark.slow
def test_every_point_of_a_small_sweep_is_labelled(tmp_path):
    figure, shown = figure_of(depth_sweep(), tmp_path)
    for axes, panel in zip(figure.axes, shown, strict=True):
        written_labels = sorted(text.get_text() for text in axes.texts if text.get_text())
        assert written_labels == sorted(point.label for point in panel.points)


def test_a_model_has_the_same_colour_and_marker_in_every_figure():
    script = module_of("pareto")
    looks = [script.style_of(model) for model in ("cnn", "vit", "deepvit", "hybrid")]
    assert len(set(looks)) == 4
    assert script.style_of("a_model_of_tomorrow") == script.style_of("a_model_of_tomorrow")
    assert script.style_of("a_model_of_tomorrow") not in looks


@pytest.mark.slow
def test_the_subtitle_states_device_trials_seeds_and_epochs(tmp_path):
    figure, _ = figure_of(depth_sweep(), tmp_path)
    words = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
    assert "20 trials: 10 settings, 2 seeds each, 15 epochs. Latency of batch 1 on Xeon, 1 thread" in words


@pytest.mark.slow
@pytest.mark.parametrize(
    "rows",
    [
        [trial("vit", "mnist", 0, depth=2)],
        [trial("vit", "mnist", 0, depth=depth, test_acc=1.0) for depth in (2, 4)],
        [
            trial("vit", "mnist", 0, test_acc=0.0),
            trial("vit", "cifar10", 0, latency_ms_p50=None, measured_on=None),
        ],
        [trial("vit", "mnist", 0, latency_ms_p50=None, measured_on=None, macs=None)],
    ],
    ids=["one point", "equal points at 100 %", "a data set without latency", "a cost that none has"],
)
def test_odd_results_are_drawn_too(tmp_path, rows):
    done = run("pareto", written(tmp_path / "results", rows))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "figures/pareto.png").stat().st_size > 10_000


@pytest.mark.slow
def test_without_latency_parameters_and_macs_are_drawn_and_it_says_so(tmp_path):
    rows = [trial("cnn", "mnist", 0, latency_ms_p50=None, latency_batch=None, measured_on=None)]
    done = run("pareto", written(tmp_path / "results", rows))
    assert done.returncode == 0, done.stderr
    assert "mnist, macs: 1 of 1 setting on the front" in done.stdout
    assert "No latency was measured" in done.stdout


@pytest.mark.slow
def test_several_devices_are_refused_until_one_is_chosen(tmp_path):
    rows = [trial("cnn", "mnist", 0), trial("vit", "mnist", 0, depth=2, measured_on="A100")]
    folder = written(tmp_path / "results", rows)
    for name in ("pareto", "table"):
        refused = run(name, folder)
        assert refused.returncode == 2
        assert "A100 (1 row), Xeon, 1 thread (1 row); choose one with --measured-on" in refused.stderr
    chosen = run("pareto", folder, "--measured-on", "A100")
    assert "mnist, latency_ms_p50: 1 of 1 setting" in chosen.stdout


@pytest.mark.parametrize("name", ["pareto", "table"])
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--where", "deph == 2"], "'deph == 2' cannot be evaluated"),
        (["--measured-on", "abacus"], "measured_on='abacus' has no rows"),
    ],
)
def test_a_mistake_is_one_sentence_on_stderr_and_status_2(results, name, arguments, sentence):
    done = run(name, results, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("script", ["pareto", "table"])
def test_a_mistake_is_status_2_and_no_traceback_for_a_user(tmp_path, script):
    done = run_as_a_user(script, tmp_path / "nowhere")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


@pytest.mark.parametrize("name", ["pareto", "table"])
def test_a_folder_without_results_or_without_done_trials_is_a_mistake(tmp_path, name):
    missing = run(name, tmp_path / "nowhere")
    assert missing.returncode == 2 and missing.stderr.startswith("attnsweep: no results in")
    failed = {**trial("cnn", "mnist", 0), "status": "failed", "test_acc": None}
    undone = run(name, written(tmp_path / "results", [failed]))
    assert undone.returncode == 2 and "has no done trial with a test accuracy" in undone.stderr


def test_an_unknown_data_set_is_answered_with_the_known_ones(results):
    done = run("pareto", results, "--dataset", "cifar")
    assert done.returncode == 2
    assert "did you mean 'cifar10'?; there are cifar10, mnist" in done.stderr


def lines_of(text: str) -> dict[tuple[str, str], list[str]]:
    """The cells of a Markdown table behind model and data set."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    return {(row[0], row[1]): row[2:] for row in rows[2:]}


@pytest.mark.slow
def test_settings_stand_side_by_side_and_equal_ones_once(results):
    done = run_as_a_user("table", results)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Each cell: depth=2 -> depth=6\n")
    lines = lines_of(done.stdout)
    assert list(lines) == [(m, d) for m in ("cnn", "vit", "deepvit") for d in ("mnist", "cifar10")]
    best, selected, latency, params = lines["vit", "mnist"]
    assert best == "97.60 ± 0.14 -> 98.40 ± 0.14"
    assert selected == "97.50 ± 0.14 -> 98.30 ± 0.14"
    assert (latency, params) == ("1.00 -> 3.00", "600,000 -> 1,800,000")
    assert lines["cnn", "mnist"] == ["90.00 ± 0.00", "97.10 ± 0.14", "0.500", "1,199,882"]


@pytest.mark.slow
def test_a_setting_that_a_model_lacks_is_a_dash(tmp_path):
    rows = [
        trial("vit", "mnist", 0, depth=2),
        trial("vit", "mnist", 0, depth=4),
        trial("hybrid", "mnist", 0, depth=4),
    ]
    done = run("table", written(tmp_path / "results", rows))
    assert lines_of(done.stdout)["hybrid", "mnist"][3] == "\u2013 -> 1,199,882"
    assert "\u00b1" not in done.stdout


@pytest.mark.slow
def test_the_table_says_how_many_trials_a_scheduler_has_stopped(tmp_path):
    rows = [trial("vit", "mnist", seed, lr=lr) for lr in (1e-3, 1e-4, 1e-5) for seed in range(3)]
    assert "Stopped early" not in run("table", written(tmp_path / "all", rows)).stdout
    for row in (*rows[4:6], *rows[6:]):  # two seeds of one setting, all of another
        row["status"] = "stopped"
    out = run("table", written(tmp_path / "results", rows)).stdout
    assert (
        "Stopped early by a scheduler, and not in the table: 5 of 9 trials; of these 2 of 3 seeds of vit"
        in out
    )
    assert "lr=0.0001: their means are of the others." in out
    few = run("table", tmp_path / "results", "--where", "lr == 1e-3").stdout
    assert "Stopped early" not in few


@pytest.mark.slow
def test_axes_that_do_not_tell_two_settings_apart_are_refused(tmp_path):
    rows = [trial("vit", "mnist", 0, depth=2, lr=lr) for lr in (1e-3, 1e-4)]
    folder = written(tmp_path / "results", rows)
    done = run("table", folder, "--by", "depth")
    assert done.returncode == 2 and "2 settings of vit on mnist differ in lr" in done.stderr
    assert (
        "Each cell: depth=2 lr=0.0001 -> depth=2 lr=0.001" in run("table", folder, "--by", "depth,lr").stdout
    )
    assert "did you mean 'depth'" in run("table", folder, "--by", "dept").stderr


@pytest.mark.parametrize("by", [["--by", "depth,lr,depth"], ["--by", "depth", "--by", "lr"]])
def test_axes_that_are_named_twice_or_one_by_one_are_those_axes(tmp_path, by):
    rows = [trial("vit", "mnist", 0, depth=2, lr=lr) for lr in (1e-3, 1e-4)]
    done = run("table", written(tmp_path / "results", rows), *by)
    assert "Each cell: depth=2 lr=0.0001 -> depth=2 lr=0.001" in done.stdout, done.stderr


def test_of_several_conditions_all_must_hold(tmp_path):
    rows = [trial("vit", "mnist", 0, depth=depth, lr=lr) for depth in (2, 4) for lr in (1e-3, 1e-4)]
    wanted = ["--where", "lr == 1e-3 or lr == 2", "--where", "depth == 4"]
    done = run("table", written(tmp_path / "results", rows), "--by", "depth,lr", *wanted)
    assert done.returncode == 0 and len(lines_of(done.stdout)) == 1, done.stderr
    assert "Each cell" not in done.stdout, "one setting"


@pytest.mark.slow
def test_the_published_figures_stand_beside_ours(tmp_path):
    small = {"dim": 128, "depth": 6, "heads": 4, "mlp_dim": 256, "dim_head": 64, "geometry": "published"}
    rows = [
        trial("vit", "mnist", 0, **small, params=1_614_866, test_acc_best=0.979),
        trial("hybrid", "mnist", 0, **small, num_classes=100, params=1_591_652),
        trial(
            "hybrid", "cifar10", 0, **small, num_classes=10, params=1_715_402
        ),  # the published head is 100-way
        trial("vit", "cifar10", 0, **{**small, "geometry": "image"}, params=1_500_000),
        trial("cnn", "mnist", 0),
    ]
    done = run("table", written(tmp_path / "results", rows), "--published")
    assert done.returncode == 0, done.stderr
    lines = lines_of(done.stdout)
    assert len(lines) == 12
    assert lines["vit", "mnist"][:2] == ["97.90 -> \u2013 -> \u2013", "97.87 -> 98.87 -> 98.81"]
    assert lines["vit", "mnist"][4:6] == ["9.46 -> 13.04 -> 8.98", "1,614,866 -> \u2013 -> \u2013"]
    assert lines["hybrid", "mnist"][5].startswith("1,591,652 ->")
    assert lines["hybrid", "cifar10"][5] == lines["vit", "cifar10"][5] == "\u2013"
    assert lines["cnn", "mnist"][5:] == ["1,199,882", "1,199,882"]
    assert "5 of 36 published cells have a trial here" in done.stdout
    assert "without synchronisation" in done.stdout


@pytest.mark.slow
def test_a_file_that_is_not_a_published_table_is_refused(results, tmp_path):
    strange = tmp_path / "strange.csv"
    strange.write_text("setting,model\n")
    assert "lacks dataset, dim, depth" in run("table", results, "--published", strange).stderr
    assert "is not a file" in run("table", results, "--published", tmp_path / "missing.csv").stderr
    assert "does not go with --published" in run("table", results, "--by", "depth", "--published").stderr


# Names that mean something to matplotlib, to Markdown or to a shell

MATHEMATICS = ("$", "$^$", "a$x^2_{$b")  # in a figure of its own each, as matplotlib may stop at it
NAMES = (
    "_x_", r"a\b|c", "|", "||", "*a*", "`a`", "<b>", "100%", "{x}", "\\frac{", "[a](b)", "#", "~~a~~",
)  # fmt: skip


def odd(names: tuple[str, ...]) -> Rows:
    together = "".join(names)
    where = {"dataset": f"folder:/srv/{together}", "measured_on": together}
    rows = [
        trial(f"/srv/{name}/net.py:Net{name}", "", seed, depth=depth, model_args=json.dumps({name: depth}))
        for name, seed, depth in itertools.product(names, (0, 1), (2, 4))
    ]
    return [{**row, **where, "trial_id": f"{i}"} for i, row in enumerate(rows)]


@pytest.mark.slow
@pytest.mark.parametrize("names", [*((name,) for name in MATHEMATICS), NAMES])
def test_any_name_is_drawn_as_it_is_and_stays_in_its_cell(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = written(tmp_path, odd(names))
    done = run("pareto", folder, "--out", tmp_path / "figures")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"pareto.svg", "pareto.png"}
    table = run("table", folder)
    assert table.returncode == 0, table.stderr
    lines = [line for line in table.stdout.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(names) and len({len(cells(line)) for line in lines}) == 1
    told = {tuple(unescaped(cell) for cell in cells(line)[:2]) for line in lines[2:]}
    assert told == {(f"/srv/{name}/net.py:Net{name}", f"folder:/srv/{''.join(names)}") for name in names}


def cells(line: str) -> list[str]:
    """The cells of a line as GitHub splits them: an escaped character is no end of a cell."""
    parts = re.findall(r"((?:\\.|[^|\\])*)\|", line)
    return [part.strip() for part in parts[1:]]


def unescaped(text: str) -> str:
    assert not re.search(r"(?<!\\)(?:\\\\)*[$*`<]", text), "Markdown would make something of it"
    return re.sub(r"\\(.)", r"\1", text)


# A reader that has gone, as after `| head`

# Of the command and of the scripts: what is long, what is flushed at its end alone, and what argparse prints
UNREAD = (
    "-m attnsweep columns", "-m attnsweep pick", "-m attnsweep --help",
    f"{ROOT}/analysis/table.py RESULTS", f"{ROOT}/analysis/planning.py --help",
)  # fmt: skip


def unread(command: list[str], folder: Path) -> tuple[int, str]:
    """The status and the errors of a command whose output nobody reads from the beginning."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    return done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("words", UNREAD)
def test_a_command_whose_output_nobody_reads_ends_without_a_word(tmp_path: Path, words: str) -> None:
    """With 141, as a program that SIGPIPE ends."""
    Store(tmp_path / "results").write("trials", [{**trial("cnn", "mnist", 0), "trial_id": "ID"}], "one")
    status, errors = unread(words.replace("RESULTS", "results").split(), tmp_path)
    assert status in (0, 141) if "-h" in words else status == 141, "argparse may say nothing of it"
    assert errors == ""


def crowd() -> Rows:
    """Sixty settings of one model, close to one another."""
    rows = []
    for depth, heads in itertools.product(range(1, 11), range(1, 7)):
        scores = {"val_acc": 0.9 + 0.001 * depth, "test_acc": 0.9 + 0.001 * depth + 0.0001 * heads}
        costs = {"latency_ms_p50": 0.1 * depth + 0.01 * heads, "macs": 1000}
        rows.append(trial("vit", "mnist", 0, depth=depth, heads=heads, **scores, **costs))
    return rows


@pytest.mark.slow
def test_of_sixty_settings_those_without_a_label_or_a_cost_are_counted(tmp_path):
    unmeasured = trial("vit", "mnist", 0, depth=11, heads=1, macs=1000, latency_ms_p50=None)
    figure, (first, *_) = figure_of([*crowd(), unmeasured], tmp_path)
    texts = [text.get_text() for text in figure.axes[0].texts]
    labels = [text for text in texts if text.startswith("vit ")]
    missing = len(first.points) - len(labels)
    assert missing > 0 and f"{missing} settings without a label; 1 setting not drawn: cost unknown" in texts


@pytest.mark.parametrize(("sets", "shape"), [(1, (1, 2)), (3, (2, 3)), (4, (4, 2)), (14, (12, 2))])
def test_many_data_sets_stand_below_each_other(sets, shape):
    made = [
        panels.Panel(f"set{i}", "test_acc", cost, (), Reference(100.0), 0.5)
        for cost in ("latency_ms_p50", "params") for i in range(sets)
    ]  # fmt: skip
    figure = front.draw(made, panels.Summary(1, 1, (1, 1), (1, 1), None, None))
    assert figure.axes[0].get_gridspec().get_geometry() == shape
    titles = [(axes.get_title("left"), axes.get_xlabel()[:6]) for axes in figure.axes]
    by_cost = [(one.dataset, front.COSTS[one.cost][1][:6]) for one in made if one.dataset in dict(titles)]
    assert sorted(titles) == sorted(by_cost) and (titles == by_cost) == (shape[0] <= 2)
    said = " ".join(text.get_text() for text in figure.texts)
    assert ("The first 12 of 14 data sets" in said) == (sets == 14)


@pytest.mark.parametrize("rows", [[], [trial("vit", "mnist", 0) | {"status": "failed"}]])
def test_a_figure_of_nothing_is_a_sentence(rows):
    columns = list(trial("vit", "mnist", 0))
    with pytest.raises(UserError, match="this frame has no done trial"):
        front.pareto_figure(pd.DataFrame(rows, columns=columns))


def test_a_crowded_panel_has_the_intervals_of_its_front_alone():
    points = [panels.Point("vit", "vit", 1.0 + i, 0.9, 0.8, 0.95, 3, on_front=not i) for i in range(61)]
    crowd = panels.Panel("mnist", "test_acc", "params", tuple(points), Reference(100.0), 0.5)
    first, *rest = front.uncrowded(crowd).points
    assert first == points[0] and {(point.low, point.high) for point in rest} == {(0.9, 0.9)}
    few = replace(crowd, points=tuple(points[:60]))
    assert front.uncrowded(few) is few


@pytest.mark.slow
def test_a_table_of_many_settings_has_a_line_for_each(tmp_path):
    done = run("table", written(tmp_path / "results", crowd()))
    lines = [line for line in done.stdout.splitlines() if line.startswith("| vit ")]
    assert len(lines) == 60 and not any("->" in line for line in lines)
    assert any("vit depth=10 heads=6" in line for line in lines)
