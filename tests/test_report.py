"""The report: what stands in the page, and that a real browser shows it without asking a network."""

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_choice import sweep
from test_doubt import EXAMPLES, row

import attnsweep
from attnsweep.__main__ import main
from attnsweep.answers import overview, pareto
from attnsweep.results.store import Store

from commands import PATIENCE_S, wait_for

BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome", "chrome")


def write_results(folder: Path, frame: pd.DataFrame, *, epochs: int = 2) -> str:
    """The rows as a folder of results, each with a learning curve."""
    store, curve, rows = Store(folder), [], []
    for i, one in enumerate(frame.to_dict("records")):
        known = {
            key: value for key, value in one.items() if not (isinstance(value, float) and np.isnan(value))
        }
        known |= {"trial_id": f"{i:012x}", "arch_id": f"{i // 3:012x}", "precision": "fp32"}
        rows.append(known | {"depth": int(one["depth"]), "params": int(one["params"])})
        curve += [
            {
                "trial_id": f"{i:012x}",
                "epoch": epoch + 1,
                "val_acc": (one["val_acc"] or 0) * (epoch + 1) / epochs,
            }
            for epoch in range(epochs)
        ]
    store.write("trials", rows, "all")
    store.write("epochs", curve, "all")
    return str(folder)


def data_of(path: Path) -> dict[str, Any]:
    """The data that stands in a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text("utf-8"))
    assert found
    return json.loads(found[1])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> str:
    frame = sweep()
    lost = row(
        5, 0, np.ones(EXAMPLES, bool), status="failed", error="MemoryError: <b>no room</b>", test_acc=None
    )
    frame = pd.concat([frame, pd.DataFrame([lost | {"val_acc": None, "test_right": None}])])
    where = tmp_path_factory.mktemp("report") / "results"
    write_results(where, frame)
    measured = {"measured_on": "cpu", "batch": 1, "precision": "fp32", "versions": "1"}
    fast = [{f"latency_ms_{p}": 0.3 * (4 - i) for p in ("p50", "p90", "p99")} for i in range(4)]
    rows = [
        {"arch_id": f"{i:012x}", "runtime": "onnxruntime", **one, **measured} for i, one in enumerate(fast)
    ]
    Store(where).write("latency", rows, "all")
    return str(where)


@pytest.fixture(scope="module")
def path(results: str) -> Path:
    return attnsweep.report(results, Path(results).parent / "report.html")


@pytest.mark.slow
def test_the_page_holds_the_settings_with_their_doubt_and_every_cost(path, results):
    page = data_of(path)
    (part,) = page["datasets"]
    assert part["settings"]["label"] == [f"vit depth={depth}" for depth in (1, 2, 3, 4)]
    assert [one["name"] for one in part["costs"]] == [
        "latency_ms_p50", "params",
        *(f"latency {p} onnxruntime, batch 1, cpu" for p in ("p50", "p90", "p99")),
    ]  # fmt: skip
    assert all(
        low < test < high
        for low, test, high in zip(*(part["settings"][k] for k in ("low", "test", "high")), strict=True)
    )
    assert part["curves"][0]["epoch"] == [1, 2]
    assert part["importance"]["names"] == ["depth"] and part["importance"]["real"] == [True]
    assert part["importance"]["size"] == [pytest.approx(28)]
    assert page["counts"] == {"done": 12, "failed": 1}
    assert page["failures"][0]["error"] == "MemoryError: <b>no room</b>"
    assert all("attnsweep.run(attnsweep.Sweep(" in line for line in page["trials"]["rerun"][:12] if line)


def test_importance_says_that_it_looks_at_a_sample_where_there_are_many(results, monkeypatch):
    rows = attnsweep.load(results, status=None, all_columns=True)
    whole = overview.importance(rows)
    monkeypatch.setattr(overview, "MOST_FOR_EFFECTS", 8)
    sample = overview.importance(rows)
    assert whole is not None and "of 12 trials: " in whole["note"]
    assert sample is not None and "of 8 trials drawn from 12: " in sample["note"]


def test_the_page_asks_nothing_of_a_network_and_ends_no_script_early(path):
    text = path.read_text("utf-8")
    assert len(re.findall(r"</script", text)) == 3
    assert not re.search(r'(src|href)="(?!#)', text.split("<script>")[0])
    assert "default-src 'none'" in text


@pytest.mark.slow
def test_names_that_would_end_a_script_are_text(tmp_path):
    bad = "</script><script>alert(1)</script>\u2028"
    frame = sweep().assign(model=bad, dataset="x<!--")
    page = tmp_path / "r.html"
    attnsweep.report(write_results(tmp_path / "results", frame), page)
    assert len(re.findall(r"</script", page.read_text("utf-8"))) == 3
    assert data_of(page)["datasets"][0]["dataset"] == "x<!--"


@pytest.mark.slow
def test_a_thousand_trials_stay_under_8_mb(tmp_path):
    chance = np.random.default_rng(0)
    rows = [
        row(i // 4 + 1, i % 4, chance.random(EXAMPLES) < 0.5 + i / 2500, lr=1e-3, latency_ms_p50=1 + i / 100)
        for i in range(1000)
    ]
    found = attnsweep.report(
        write_results(tmp_path / "results", pd.DataFrame(rows), epochs=15), tmp_path / "r.html"
    )
    assert found.stat().st_size < 8e6


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "one row",
        "all failed",
        "ties",
        "two data sets",
        "nothing but nan",
        "two devices",
        "devices of seeds",
        "inf",
    ],
)
def test_whatever_stands_in_the_rows_there_is_a_page_that_says_what_it_leaves_out(tmp_path, kind):
    right = np.arange(EXAMPLES) < 300
    frames = {
        "one row": [row(1, 0, right)],
        "all failed": [row(1, 0, right, status="failed", test_acc=None, val_acc=None)],
        "ties": [row(1, 0, right), row(2, 0, right, latency_ms_p50=1.0, params=1000)],
        "two data sets": [row(1, 0, right), row(1, 0, right, dataset="cifar10", data_sha256="e")],
        "nothing but nan": [row(1, 0, right, latency_ms_p50=None, val_acc=None)],
        "two devices": [row(1, 0, right), row(2, 0, right, measured_on="gpu")],
        "devices of seeds": [row(1, 0, right), row(1, 1, right, measured_on="gpu")],
        "inf": [row(1, 0, right, lr=math.inf, latency_ms_p50=math.inf), row(2, 0, right, val_acc=math.inf)],
    }
    page = tmp_path / "r.html"
    attnsweep.report(write_results(tmp_path / "results", pd.DataFrame(frames[kind])), page)
    found = data_of(page)
    assert len(found["datasets"]) == {"all failed": 0, "two data sets": 2}.get(kind, 1)
    assert all(part["of_trials"] == (kind != "devices of seeds") for part in found["datasets"])
    said = {
        "all failed": "no done trial has test_acc",
        "two devices": "latency_ms_p50 is left out: rows that differ",
        "devices of seeds": "latency_ms_p50 is left out: rows that differ",
    }
    assert said.get(kind, "") in " ".join(found["remarks"])


@pytest.mark.slow
def test_rows_of_older_and_of_newer_versions_are_loaded_and_drawn(tmp_path, capsys, caplog):
    """An older one knew no `test_right`; a newer one has a column more, which outlives compaction."""
    store, files = Store(tmp_path / "results"), tmp_path / "results" / "trials"
    write_results(tmp_path / "results", sweep().iloc[:6])
    table = pq.read_table(files / "all.parquet")
    at = table.column_names.index("schema_version")
    versions = {name: pa.array([value] * 3, pa.int64()) for name, value in (("old", 2), ("new", 99))}
    parts = {
        name: table[i : i + 3].set_column(at, "schema_version", versions[name])
        for i, name in ((0, "old"), (3, "new"))
    }
    (files / "all.parquet").unlink()
    pq.write_table(parts["old"].drop_columns(["test_right", "test_examples"]), files / "old.parquet")
    pq.write_table(parts["new"].append_column("joules", pa.array([7.5] * 3)), files / "new.parquet")
    store.compact()
    assert main(["pick", str(store.root)]) == 0
    assert "1 of 2 settings do not say which test examples were right" in capsys.readouterr().out
    assert "rows of a newer version (schema 99" in caplog.text
    page = data_of(attnsweep.report(store.root, tmp_path / "r.html"))
    assert page["counts"] == {"done": 6} and len(page["datasets"][0]["settings"]["label"]) == 2
    assert pq.read_table(files / "new.parquet")["joules"].to_pylist() == [7.5] * 3


@pytest.mark.slow
def test_without_results_or_room_there_is_a_sentence(tmp_path, results, capsys):
    assert main(["report", str(tmp_path / "none"), "-o", str(tmp_path / "r.html")]) == 2
    assert "no results in" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["report", results, "-o", str(tmp_path / "file" / "r.html")]) == 2
    assert "cannot be" in capsys.readouterr().err
    assert main(["report", results, "--where", "depth > 99", "-o", str(tmp_path / "r.html")]) == 2


@pytest.mark.slow
def test_watch_follows_the_results_until_it_is_interrupted(tmp_path, results):
    out, copy = tmp_path / "live.html", tmp_path / "results"
    shutil.copytree(results, copy)
    words = [
        sys.executable,
        "-m",
        "attnsweep",
        "report",
        str(copy),
        "-o",
        str(out),
        "--watch",
        "--every",
        "0.2",
    ]
    watching = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: out.exists() and data_of(out)["counts"]["done"] == 12)
        right = np.arange(EXAMPLES) < 390
        known = {k: v for k, v in row(9, 0, right, trial_id="new").items() if v is not None}
        Store(copy).write_trial(known | {"depth": 9, "params": 9000})
        wait_for(lambda: data_of(out)["counts"]["done"] == 13)
        assert data_of(out)["live_s"] == 0.2
    finally:
        watching.send_signal(2)
        said, _ = watching.communicate(timeout=PATIENCE_S)
    assert watching.returncode == 0 and "Ctrl-C ends it" in said
    assert data_of(out)["live_s"] is None, "the page that is left waits for no other"


# --- In a browser ---


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium of this machine."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)}; apt-get install chromium-headless-shell")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def shown(browser: Any, path: Path) -> Iterator[Any]:
    """The page in the browser; it may neither ask for anything nor complain."""
    page, asked, wrong = browser.new_page(viewport={"width": 1280, "height": 900}), [], []
    page.on("request", lambda one: asked.append(one.url))
    page.on("console", lambda one: wrong.append(one.text) if one.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]")
    yield page
    for name in ("curves", "parallel", "importance", "provenance"):
        page.locator(f"#{name}").scroll_into_view_if_needed()
        page.wait_for_timeout(100)
    page.wait_for_selector("#importance .point")
    page.close()
    assert asked == [path.as_uri()] and not wrong


def front_in(page: Any) -> list[str]:
    return json.loads(page.get_attribute("#front", "data-front"))


@pytest.mark.slow
def test_the_front_in_the_browser_is_that_of_attnsweep_for_every_cost(shown, results):
    rows = pareto.over_seeds(attnsweep.load(results))
    for cost, value in (("latency_ms_p50", "0"), ("params", "1")):
        shown.select_option("#cost", value)
        assert front_in(shown) == attnsweep.front(rows, cost)["trial_id"].tolist()
    shown.select_option("#cost", "2")  # onnxruntime: there the deepest is the fastest
    assert front_in(shown) == [f"{9:012x}"]


@pytest.mark.slow
def test_limits_filter_hover_and_table_answer(shown, results):
    assert f"trial {9:012x}" in shown.inner_text("#pick")
    shown.evaluate(
        "const e = document.getElementById('limit'); e.value = 90; e.dispatchEvent(new Event('input'))"
    )
    best = attnsweep.pick(attnsweep.load(results), latency_ms=2.5)["trial_id"].iloc[0]
    assert shown.get_attribute("#pick", "data-pick") == best == f"{6:012x}"
    assert "vit depth=2 is within noise of it" in shown.inner_text("#pick")
    assert "3 times as fast" in shown.inner_text("#pick")
    shown.fill("#filter", "depth=2")
    assert front_in(shown) == [f"{3:012x}"]
    shown.fill("#filter", "")
    point = shown.locator("#front .points path").first.bounding_box()
    shown.mouse.move(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2)
    shown.wait_for_selector("#front .hoverlayer .hovertext")
    assert "vit depth=1" in shown.inner_html("#front .hoverlayer")
    assert re.search(r"parameters: [\d.]+( [kMG])?<", shown.inner_html("#front .hoverlayer")), "the unit once"
    shown.fill("#find", "failed")
    assert shown.inner_text("#found") == "1 of 13 trials"
    shown.fill("#find", "")
    sort = shown.locator("#rows th button", has_text="test_acc")
    sort.focus()
    shown.keyboard.press("Enter")
    first = shown.locator("#rows tbody tr").first
    assert first.inner_text().startswith(f"{9:012x}")
    first.locator("button").click()
    assert "attnsweep.run(attnsweep.Sweep(" in shown.inner_text("#rows pre")
    assert "<b>no room</b>" in shown.inner_text("#failures pre")


@pytest.mark.slow
def test_it_follows_dark_and_narrow(browser, path):
    page = browser.new_page(viewport={"width": 380, "height": 700}, color_scheme="dark")
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 25, 30)"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing runs over the edge"
    page.locator("#curves").scroll_into_view_if_needed()
    page.wait_for_selector("#curves .legend")
    title, legend = (page.locator(f"#curves .{name}").bounding_box() for name in ("xtitle", "legend"))
    assert title["y"] + title["height"] <= legend["y"] + 1, "no text covers another"
    page.close()
