"""Draws: repeatable whatever a function draws from, resolved by need, of the same values in every search."""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ray import tune
from ray.tune.search.variant_generator import generate_variants

from attnsweep import Sweep
from attnsweep.core.errors import UserError
from attnsweep.space.draws import draw
from attnsweep.space.optuna_study import as_drawn, distribution, multiple
from attnsweep.space.search import Search
from attnsweep.space.trials import expand

NOWHERE = Path("nowhere")


def drawn(sample: int = 0, **cell: Any) -> dict[str, Any]:
    return draw(cell, sample)


# --- Repeatable ---


@pytest.mark.parametrize(
    "function",
    [
        lambda config: float(np.random.uniform(1e-4, 1e-2)),
        lambda: random.random(),
        lambda spec: random.gauss(0, 1) + np.random.rand(),
        lambda config: float(torch.rand(())),
        lambda config: float(np.random.default_rng().uniform()),
    ],
)
def test_what_a_function_draws_is_the_same_each_time_and_leaves_no_trace(
    function: Callable[..., Any],
) -> None:
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    expected = random.random(), np.random.rand(), torch.rand(()).item()
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    values = [drawn(sample, lr=tune.sample_from(function))["lr"] for sample in (0, 1, 0, 1)]
    assert values[:2] == values[2:] and values[0] != values[1]
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == expected


@pytest.mark.slow
def test_a_function_that_imports_torch_itself_draws_the_same_each_time() -> None:
    code = (
        "from ray import tune; from attnsweep.space.draws import draw;"
        "function = tune.sample_from(lambda: float(__import__('torch').rand(())));"
        "assert draw({'lr': function}, 0) == draw({'lr': function}, 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_a_function_draws_the_same_in_another_process() -> None:
    code = (
        "import numpy as np; from ray import tune; from attnsweep.space.draws import draw;"
        "print(draw({'lr': tune.sample_from(lambda: float(np.random.uniform()))}, 7)['lr'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == drawn(7, lr=tune.sample_from(lambda: float(np.random.uniform())))["lr"]


def test_a_function_that_cannot_be_repeated_is_refused() -> None:
    numbers = iter(range(100))
    with pytest.raises(
        UserError, match=r"lr: its tune.sample_from gives another value each time, as 0 and 1;"
    ):
        drawn(lr=tune.sample_from(lambda: next(numbers)))


def test_drawn_values_of_domains_are_those_of_earlier_versions() -> None:
    """Finished trials had these."""
    cell = dict(
        lr=tune.loguniform(1e-5, 1e-2), depth=tune.randint(1, 100), dropout=tune.quniform(0, 0.5, 0.1)
    )
    for sample, known in ((0, (1.2916181874e-3, 11, 0.5)), (5, (2.9029777640e-5, 79, 0.1))):
        assert tuple(draw(cell, sample).values()) == pytest.approx(known, rel=1e-9)


# --- Resolved by need ---


def test_functions_are_drawn_in_the_order_in_which_they_read_one_another() -> None:
    values = drawn(
        mlp_dim=tune.sample_from(lambda config: 2 * config["dim"]),
        dim=tune.sample_from(lambda config: config.heads * config.get("dim_head", 0)),
        dim_head=tune.sample_from(lambda spec: 4 * spec.config.depth),
        patch_size=tune.sample_from(lambda spec: spec["config"]["depth"] - 1),
        depth=tune.choice([3]),
        heads=2,
    )
    assert values == {"heads": 2, "depth": 3, "dim_head": 12, "dim": 24, "mlp_dim": 48, "patch_size": 2}


def test_functions_in_a_circle_are_named() -> None:
    with pytest.raises(UserError, match=r"dim: its .* reads itself, by way of dim -> heads -> dim"):
        drawn(
            dim=tune.sample_from(lambda config: config["heads"]),
            heads=tune.sample_from(lambda config: config["dim"]),
        )


def test_a_draw_that_gives_a_domain_is_drawn_from() -> None:
    def either(config: dict[str, Any]) -> Any:
        return tune.uniform(5, 6) if config["depth"] > 1 else 0.5

    for depth, low, high in ((1, 0.5, 0.5), (2, 5, 6)):
        value = drawn(depth=depth, lr=tune.sample_from(either))["lr"]
        assert low <= value <= high and value == drawn(depth=depth, lr=tune.sample_from(either))["lr"]
    assert 1 <= drawn(lr=tune.choice([tune.uniform(1, 2)]))["lr"] <= 2


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        (tune.sample_from(lambda config: config["dimm"]), "lr: its tune.sample_from raised KeyError: 'dimm'"),
        (tune.sample_from(lambda: 1 / 0), "lr: its tune.sample_from raised ZeroDivisionError"),
        (tune.sample_from(lambda: sys.exit(3)), "lr: its tune.sample_from raised SystemExit: 3"),
        (tune.sample_from(lambda: tune.grid_search([1])), "lr: a draw gave a grid; use tune.choice"),
        (tune.qrandint(65, 127, 64), "lr: nothing can be drawn from it: ValueError: There is no multiple"),
        (tune.choice([]), "lr: nothing can be drawn from it: "),
    ],
)
def test_a_draw_that_fails_is_a_sentence_that_names_its_key(domain: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        expand(Sweep(model="vit", lr=domain).points(), NOWHERE)


# --- One domain, one meaning ---

BOUNDS = st.tuples(st.integers(1, 60), st.integers(1, 60)).map(lambda pair: (min(pair), max(pair) + 2))
DOMAINS = st.one_of(
    BOUNDS.map(lambda bounds: tune.randint(*bounds)),
    BOUNDS.map(lambda bounds: tune.lograndint(*bounds)),
    st.tuples(BOUNDS, st.integers(1, 9)).map(
        lambda one: tune.qrandint(one[0][0], one[0][1] + 2 * one[1], one[1])
    ),
    st.tuples(st.integers(0, 20), st.integers(1, 20), st.sampled_from([0.1, 0.25, 2.0])).map(
        lambda one: tune.quniform(one[0] * one[2], (one[0] + one[1]) * one[2], one[2])
    ),
    st.lists(st.sampled_from([1, 2.5, "a", None, True]), min_size=1, unique=True).map(tune.choice),
)


def values_of(draw_one: Callable[[int], Any]) -> set[Any]:
    return {draw_one(seed) for seed in range(200)}


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(DOMAINS)
def test_ray_random_search_and_optuna_draw_from_the_same_values(domain: Any) -> None:
    ours = values_of(lambda sample: draw({"key": domain}, sample).get("key"))
    rays = values_of(
        lambda seed: next(generate_variants({"key": domain}, random_state=np.random.RandomState(seed)))[1][
            "key"
        ]
    )
    kind = distribution("key", domain)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    optunas = values_of(lambda _: as_drawn(domain, study.ask({"key": kind}).params["key"]))
    every = ours | rays | optunas
    if len(every) <= 12:  # each value comes up in 200 draws
        assert ours == rays == optunas
    step = getattr(kind, "step", None)
    stored = {multiple(value, step) if isinstance(value, float) else value for value in every}
    assert all(kind._contains(kind.to_internal_repr(value)) for value in stored), "Optuna has all of Ray's"


def test_batch_sizes_that_are_multiples_are_the_same_for_optuna() -> None:
    sweep = Sweep(model="vit", batch_size=tune.qrandint(30, 150, 64), search="optuna", num_samples=2)
    search = Search(sweep, [], NOWHERE)
    assert {search.take().config["batch_size"] for _ in range(2)} == {64, 128}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        (tune.qrandint(65, 127, 64), "lr: ValueError"),
        (tune.randint(5, 5), "lr: ValueError"),
        (tune.randn(), "lr: Optuna cannot search this domain"),
        (tune.qrandn(0, 1, 0.5), "lr: Optuna cannot search this domain"),
        (tune.qloguniform(1e-2, 1, 1e-2), "lr: Optuna cannot search this domain"),
        (tune.choice([tune.uniform(0, 1), 2]), "lr: Optuna cannot search this domain"),
    ],
)
def test_what_optuna_cannot_draw_from_is_a_sentence(domain: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Search(Sweep(model="vit", lr=domain, search="optuna"), [], NOWHERE)


def test_functions_draw_anew_for_each_point_of_optunas_and_finished_trials_count() -> None:
    lr = tune.sample_from(lambda: float(np.random.uniform(1e-4, 1e-2)))
    sweep = Sweep(
        model="vit", dataset="digits", depth=tune.randint(1, 9), lr=lr, search="optuna", num_samples=4
    )
    search = Search(sweep, [], NOWHERE)
    trials = [search.take() for _ in range(4)]
    assert len({trial.config["lr"] for trial in trials if trial}) == 4


def test_a_search_over_functions_alone_has_nothing_to_choose() -> None:
    with pytest.raises(UserError, match="nothing to choose"):
        Sweep(model="vit", lr=tune.sample_from(lambda: 1e-3), search="optuna")
