"""Characters that a figure's font lacks: another font draws them, or a sentence says which are left out."""

import warnings
from pathlib import Path

import matplotlib
import pytest
from matplotlib.font_manager import findfont, fontManager
from test_choice import sweep

import attnsweep
from attnsweep.figures import canvas, fonts


@pytest.fixture(autouse=True)
def bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fonts that come with matplotlib, whatever this machine has."""
    ours = [font for font in fontManager.ttflist if font.fname.startswith(matplotlib.get_data_path())]
    monkeypatch.setattr(fontManager, "ttflist", ours)
    fonts.stand_ins.cache_clear()


@pytest.mark.slow
def test_what_no_font_has_is_said_in_one_sentence_and_draws_no_page_of_warnings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frame = sweep().assign(model="\u89c6\u89c9\U0001f600", dataset="donn\u00e9es \u89c6")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = canvas.save(attnsweep.pareto_figure(frame), tmp_path, "pareto")
    (said,) = caplog.messages
    assert said.startswith("2 characters cannot be drawn (\u89c6 \u89c9), as no installed font has them")
    assert "donn\u00e9es \ufffd" in written[0].read_text("utf-8")


def test_what_another_font_has_is_drawn_by_that_one() -> None:
    usual, other = (fonts.characters(findfont(name)) for name in ("DejaVu Sans", "STIXGeneral"))
    char = max(filter(fonts.is_drawn, other - usual - fonts.characters(findfont("DejaVu Sans Mono"))))
    with matplotlib.rc_context(canvas.STYLE):
        figure = matplotlib.figure.Figure()
        text = figure.text(0, 0, f"a{char}")
    fonts.fit(figure)
    assert text.get_text() == f"a{char}" and len(text.get_fontfamily()) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
