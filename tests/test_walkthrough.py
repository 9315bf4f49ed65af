"""The walkthrough runs from top to bottom, shows every variant, and notices where a piece is another one."""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attnsweep.core.errors import UserError
from attnsweep.nn import kernels
from attnsweep.nn.design import ATTENTIONS, MLPS, RELATIVE, Variant
from attnsweep.walkthrough import __main__ as command
from attnsweep.walkthrough import stations
from attnsweep.walkthrough.__main__ import walk
from attnsweep.walkthrough.reader import Reader
from attnsweep.walkthrough.stations import STATIONS

NOTEBOOK = Path(__file__).parent.parent / "docs/walkthrough.ipynb"


def walked(*names: str) -> str:
    lines: list[str] = []
    walk(names, Reader(lines.append))
    return "\n".join(lines)


def test_it_goes_from_tokens_to_loss_and_past_every_variant() -> None:
    text = walked()
    places = [
        text.index(what) for what in ("From tokens to loss", "Encoder", "Decoder", "Loss:", "Backward:")
    ]
    assert places == sorted(places) and "nan" not in text
    for reference in (
        "equation 1",
        "equation 2",
        "section 3.1",
        "section 3.2.2",
        "section 3.2.3",
        "section 3.4",
    ):
        assert f"[{reference}" in text
    for name, station in STATIONS.items():
        assert f"=== {name}: {station.what} (arXiv:" in text
    assert all(f"mlp={kind!r}" in text for kind in MLPS if kind != "relu")


def test_every_variant_has_a_station() -> None:
    shown = {station.attention for station in STATIONS.values()} | {
        "fused"
    }  # which computes what explicit does
    assert shown == set(ATTENTIONS)
    varied = {name for one in STATIONS.values() for name, value in vars(one.variant).items() if value}
    assert varied == set(vars(Variant()))
    assert {one.variant.positions for one in STATIONS.values()} == {None, *RELATIVE}


def test_the_mask_of_the_decoder_is_drawn_and_weights_sum_to_one() -> None:
    text = walked()
    assert "    x . . .\n    x x . .\n    x x x .\n    x x x x" in text
    weights = text.split("  weights (b=1, h=2, n=4, m=4)\n")[1].splitlines()[:4]
    assert all(sum(map(float, row.split())) == pytest.approx(1, abs=0.02) for row in weights)
    assert all(row.endswith("0.00") for row in weights), "the last place of the question is padding"


def test_a_piece_that_computes_something_else_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def turned_the_other_way(x: Tensor, start: int = 0) -> Tensor:
        return kernels.repeat_kv(x.flip(-1), x)

    monkeypatch.setattr(stations, "apply_rope", turned_the_other_way)
    with pytest.raises(AssertionError):
        walked("rope")


def test_one_variant_is_shown_and_an_unknown_one_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "From tokens" not in walked("linear") and "section 3.4" in walked("linear")
    with pytest.raises(UserError, match="variant='ropes' is unknown, did you mean 'rope'"):
        walked("ropes")
    monkeypatch.setattr(sys, "argv", ["walkthrough", "--list"])
    command.main()
    assert capsys.readouterr().out.splitlines()[0] == "rope          Rotary positions (arXiv:2104.09864)"


def test_what_is_read_is_the_same_each_time() -> None:
    torch.manual_seed(5)
    assert walked("gated") == walked("gated")


@pytest.mark.slow
def test_the_notebook_shows_every_variant_and_runs_what_is_there() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for source in sources:
            exec(compile(source, NOTEBOOK.name, "exec"), names)
    assert printed.getvalue().strip() == walked().strip(), "cell by cell it is the whole"
    assert all(f'visit("{name}", say)' in sources for name in STATIONS)
