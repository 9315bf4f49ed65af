"""The ids of the example sweeps' trials: a new axis, column or room changes none, or rows would be lost."""

import json
from pathlib import Path

import pytest

from attnsweep.core.cost import Cost
from attnsweep.space import trials as trials_module
from attnsweep.space.files import read_sweep
from attnsweep.space.search import expand_sweep
from attnsweep.tasks.text import corpus

HERE = Path(__file__).parent
IDS: dict[str, str] = json.loads((HERE / "trial_ids.json").read_text())
SWEEPS = sorted((HERE.parent / "sweeps").glob("*.py"))


def test_every_example_sweep_has_its_ids_on_record() -> None:
    assert {path.stem for path in SWEEPS} - {"own_net", "own_planner_net"} == IDS.keys()


@pytest.mark.parametrize("name", IDS)
def test_the_trials_of_the_example_sweeps_keep_their_ids(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials_module, "cost_of", lambda *_: Cost(0, 0))  # building them all takes 20 s
    monkeypatch.setattr(corpus.Text, "checksum", lambda *_: "of any version of Python")
    trials, invalid = expand_sweep(read_sweep(HERE.parent / "sweeps" / f"{name}.py"), tmp_path)
    assert not invalid
    assert [f"{trial.trial_id}/{trial.arch_id}" for trial in trials] == IDS[name].split()
