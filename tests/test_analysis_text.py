"""The figures of length and of text, from rows as sweeps leave them."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from attnsweep.core.errors import UserError

ANALYSIS = Path(__file__).parent.parent / "analysis"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"analysis_{name}", ANALYSIS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


length, text = script("length"), script("text")
SHARED: dict[str, Any] = dict(
    status="done", model="transformer", length=10, norm="pre", attention="fused", depth=2, dim=64, epochs=3
)


def of_sequences() -> pd.DataFrame:
    rows = [
        dict(
            task="sequences", dataset=dataset, positions=positions, seed=seed, **SHARED,
            test_acc=1.0 - 0.2 * seed, test_acc_long=0.5, test_acc_longer=0.25,
            test_token_acc=1.0, test_token_acc_long=0.75, test_token_acc_longer=0.5,
        )
        for dataset in ("reverse", "sort") for positions in ("rope", "none") for seed in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_curve_is_the_mean_over_seeds_at_each_length(tmp_path: Path) -> None:
    shown = length.curves(of_sequences())
    assert len(shown) == 4 and shown["trials"].eq(2).all()
    assert "| reverse | rope | 90 (100) | 50 (75) | 25 (50) |" in length.table(shown)
    figure = length.draw(shown, "about")
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == ["reverse", "sort"]
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [90, 50, 25])
    rows = of_sequences()
    lacking = rows[(rows["dataset"] == "reverse") | (rows["positions"] == "rope")]
    for frame in (rows, lacking):  # every kind of line has a name, wherever it is drawn
        legend = length.draw(length.curves(frame), "about").axes[1].get_legend()
        assert [text.get_text() for text in legend.get_texts()] == ["rope", "none"]


def test_rows_that_make_no_curve_are_refused() -> None:
    with pytest.raises(UserError, match=r"no finished trial of sequences there; run sweeps/length\.py first"):
        length.curves(of_sequences().assign(task="images"))
    mixed = of_sequences()
    mixed.loc[0, "depth"] = 4
    with pytest.raises(UserError, match="rows that differ in depth make no curve together"):
        length.curves(mixed)


def of_text() -> pd.DataFrame:
    rows = [
        dict(
            task="text", status="done", model="decoder", dataset="text:python", seed=0, data_sha256="x",
            positions="rope", kv_heads=kv_heads, depth=depth, epochs=4, params=depth * 1_000,
            test_bpb=bits, test_saved=1 - bits / 8, val_saved=1 - bits / 8,
            cache_bytes=kv_heads * depth * 100, latency_ms_per_token=float(depth),
            measured_on="a CPU, 1 thread", runtime="eager", latency_batch=1,
        )
        for kv_heads, depth, bits in ((1, 2, 3.0), (4, 2, 2.5), (1, 4, 2.0), (4, 4, 2.75))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_front_of_text_is_of_fewer_bits_at_less_cost() -> None:
    shown = text.settings(of_text())
    found = {"gzip": 2.6, "xz": 2.4, "5-gram, Kneser-Ney": 1.9, "uniform": 8.0}
    assert (
        text.table(shown, found).splitlines()[2].startswith("| rope | 1 | 4 | 2.000 | 4,000 | 4.000 | 400 |")
    )
    figure = text.draw(shown, found)
    assert [axes.get_xlabel() for axes in figure.axes] == list(text.COSTS.values())
    fronts = [axes.lines[0].get_xydata().tolist() for axes in figure.axes]
    assert fronts[0] == [[2.0, 2.5], [4.0, 2.0]] and fronts[1] == [[2000.0, 2.5], [4000.0, 2.0]]
    assert fronts[2] == [[200.0, 3.0], [400.0, 2.0]]
    names = {text.get_text(): text for text in figure.axes[1].texts}
    assert {"2/1", "2/4", "4/1", "4/4", "gzip", "xz", "5-gram, Kneser-Ney"} == set(names)
    near = text.draw(shown, found | {"xz": 1.95}).axes[1]
    boxes = [one.get_window_extent() for one in near.texts if "xz" in one.get_text() or "5" in one.get_text()]
    assert len(boxes) == 2 and not boxes[0].overlaps(boxes[1])
    with pytest.raises(UserError, match=r"no finished trial of text there; run sweeps/text\.py first"):
        text.settings(of_sequences())
