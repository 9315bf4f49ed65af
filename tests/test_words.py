"""The words of search spaces without Ray, against Ray's own."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import tune

from attnsweep.space import words
from attnsweep.space.files import read_sweep
from attnsweep.space.trials import expand

DOMAINS: list[Callable[[Any], Any]] = [
    lambda tune: tune.choice(["a", 2, None, 0.5]),
    lambda tune: tune.uniform(-1, 3.5),
    lambda tune: tune.quniform(0.1, 0.7, 0.1),
    lambda tune: tune.quniform(-4, 12, 4),
    lambda tune: tune.loguniform(1e-5, 1e-1),
    lambda tune: tune.qloguniform(1e-4, 1e-1, 1e-4),
    lambda tune: tune.randint(1, 9),
    lambda tune: tune.lograndint(1, 1000),
    lambda tune: tune.qrandint(30, 150, 64),
    lambda tune: tune.qrandint(1, 9),
    lambda tune: tune.qrandint(8, 64, 8),
    lambda tune: tune.qlograndint(8, 512, 8),
    lambda tune: tune.randn(3, 2),
    lambda tune: tune.qrandn(0, 10, 0.2),
    lambda tune: tune.sample_from(lambda config: config["depth"] * 2),
    lambda tune: tune.sample_from(lambda: 7),
]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(DOMAINS)))
def test_each_word_draws_what_rays_draws(number: int) -> None:
    theirs, ours = DOMAINS[number](tune), DOMAINS[number](words)
    for seed in range(200):
        expected = theirs.sample(config={"depth": 3}, random_state=np.random.RandomState(seed))
        drawn = ours.sample(config={"depth": 3}, random_state=np.random.RandomState(seed))
        assert drawn == expected and type(drawn) is type(expected)


def test_a_grid_is_rays_grid() -> None:
    assert words.grid_search([1, 2]) == tune.grid_search([1, 2])


def test_every_word_of_rays_is_there() -> None:
    theirs = {name for name in dir(tune.search.sample) if name in dir(tune) and name[0].islower()}
    assert theirs - {"isclose", "signature", "copy", "logger", "logging", "warnings", "np"} <= {
        word.__name__ for word in words.WORDS
    }


def test_a_sweep_file_has_the_same_trials_with_ray_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s.py").write_text(
        "from ray import tune\nimport ray.tune\nfrom attnsweep import Sweep\n"
        "sweep = Sweep(model=tune.grid_search(['vit', 'cnn']), lr=ray.tune.loguniform(1e-4, 1e-2),\n"
        "              batch_size=tune.choice([32, 64]), num_samples=5)\n"
    )

    def ids() -> list[str]:
        trials, _ = expand(read_sweep(tmp_path / "s.py").points(), tmp_path)
        return [trial.trial_id for trial in trials]

    with_ray, modules = ids(), dict(sys.modules)
    for name in [name for name in modules if name.partition(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(words, "has_ray", lambda: False)
    assert ids() == with_ray
    assert "ray" not in sys.modules
