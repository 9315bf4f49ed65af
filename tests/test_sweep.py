import dataclasses
import hashlib
import itertools
import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from ray import tune

from attnsweep.core.errors import UserError
from attnsweep.core.trial import Trial
from attnsweep.space.files import literal, parse_override, read_sweep
from attnsweep.space.grid import is_domain
from attnsweep.space.labels import label, varying
from attnsweep.space.sweep import Sweep
from attnsweep.space.trials import expand, make_trial
from attnsweep.tasks.driving.stack import design
from attnsweep.tasks.images import datasets
from attnsweep.tasks.images import space as images
from attnsweep.tasks.registry import AXES, TASKS, resolve

NOWHERE = Path("nowhere")  # the data sets used here need no file
VIT = {"model": "vit"}
Point = dict[str, Any]


def trials_of(space: Sweep) -> list[Trial]:
    """The trials of a sweep that has no invalid point."""
    trials, invalid = expand(space.points(), NOWHERE)
    assert invalid == []
    return trials


def ids(space: Sweep) -> list[str]:
    return [trial.trial_id for trial in trials_of(space)]


def trial(**point: object) -> Trial:
    return make_trial(resolve({**VIT, **point}), NOWHERE)


def values(space: Sweep, *keys: str) -> list[Any]:
    """The values of some keys in every point."""
    points = [tuple(point.get(key) for key in keys) for point in space.points()]
    return [one[0] for one in points] if len(keys) == 1 else points


def grid(*choices: object) -> dict[str, Any]:
    return tune.grid_search(list(choices))


# Imports


@pytest.mark.slow
def test_reading_results_and_checking_sweeps_imports_neither_torch_nor_ray() -> None:
    modules = [
        "attnsweep",
        *(f"attnsweep.results.{name}" for name in ("store", "provenance")),
        *(f"attnsweep.space.{name}" for name in ("sweep", "plan")),
        "attnsweep.answers.pareto",
    ]
    heavy = {"torch", "torchvision", "ray"}
    code = f"import sys, {', '.join(modules)}; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Expansion


def test_a_constant_space_is_one_trial() -> None:
    assert [one.config["depth"] for one in trials_of(Sweep(model="vit", depth=3))] == [3]


def test_a_grid_is_the_product_of_its_axes_with_the_last_one_fastest() -> None:
    space = Sweep(model=grid("vit", "deepvit"), depth=grid(2, 4))
    assert values(space, "model", "depth") == [("vit", 2), ("vit", 4), ("deepvit", 2), ("deepvit", 4)]


def test_a_list_is_a_union_in_its_order() -> None:
    space = Sweep([dict(model="vit", depth=grid(2, 4)), dict(model="cnn")], epochs=3)
    assert values(space, "model", "depth", "epochs") == [("vit", 2, 3), ("vit", 4, 3), ("cnn", None, 3)]


def test_a_parts_own_value_wins_over_a_shared_one() -> None:
    assert values(Sweep([dict(model="vit", lr=1e-2), dict(model="cnn")], lr=1e-3), "lr") == [1e-2, 1e-3]


def test_a_grid_over_depth_collapses_to_one_trial_where_a_model_has_no_depth() -> None:
    space = Sweep(model=grid("cnn", "vit"), depth=grid(1, 2, 3))
    assert [(one.config["model"], one.config["depth"]) for one in trials_of(space)] == [
        ("cnn", None),
        ("vit", 1),
        ("vit", 2),
        ("vit", 3),
    ]


def test_a_point_that_is_in_two_parts_is_one_trial() -> None:
    assert len(ids(Sweep([dict(model="vit"), dict(model="vit", depth=6), dict(model="vit", depth=6.0)]))) == 1


def test_invalid_points_are_kept_apart_with_their_reason() -> None:
    space = Sweep(model="vit", patch_size=grid(2, 3, 4, 5, 8))
    trials, invalid = expand(space.points(), NOWHERE)
    assert [one.config["patch_size"] for one in trials] == [2, 4, 8]
    assert [one.point["patch_size"] for one in invalid] == [3, 5]
    assert all("does not divide the image of vit on digits" in one.reason for one in invalid)


def test_an_empty_space_has_no_model() -> None:
    for space in (Sweep(), Sweep([]), Sweep({})):
        trials, invalid = expand(space.points(), NOWHERE)
        assert trials == [] and "no model" in invalid[0].reason


def test_a_hundred_thousand_points_are_allowed_and_one_more_is_not() -> None:
    most = range(100_000)
    assert next(Sweep(model="vit", seed=tune.grid_search(most)).points())["seed"] == 0
    with pytest.raises(UserError, match="the sweep has 200,000 points; 100,000 is the most"):
        next(Sweep(model="vit", seed=tune.grid_search(most), num_samples=2).points())
    with pytest.raises(UserError, match="100,001 points"):
        next(Sweep([dict(model="vit", seed=tune.grid_search(most)), dict(model="cnn")]).points())


CHOICES: dict[str, list[Any]] = {
    "model": ["cnn", "vit", "hybrid"],
    "dataset": ["digits", "mnist"],
    "depth": [1, 2, 3],
    "lr": [1e-3, 1e-2, 0.1],
    "seed": [0, 1, 2],
}
grids = st.fixed_dictionaries(
    {"model": st.lists(st.sampled_from(CHOICES["model"]), min_size=1, max_size=3)},
    optional={
        key: st.lists(st.sampled_from(choices), min_size=1, max_size=3)
        for key, choices in CHOICES.items()
        if key != "model"
    },
)


def as_space(parts: Iterable[dict[str, list[Any]]]) -> Sweep:
    return Sweep([{key: tune.grid_search(choices) for key, choices in part.items()} for part in parts])


def by_brute_force(parts: Iterable[dict[str, list[Any]]]) -> list[Point]:
    return [
        dict(zip(part, cell, strict=True)) for part in parts for cell in itertools.product(*part.values())
    ]


@pytest.mark.slow
@given(st.lists(grids, min_size=1, max_size=3))
def test_a_union_of_grids_has_every_cell_of_every_part(parts: list[dict[str, list[Any]]]) -> None:
    assert list(as_space(parts).points()) == by_brute_force(parts)


@pytest.mark.slow
@given(st.lists(grids, min_size=1, max_size=3))
def test_trials_are_the_distinct_configurations(parts: list[dict[str, list[Any]]]) -> None:
    distinct: list[Point] = []
    for point in by_brute_force(parts):
        if (config := resolve(point)) not in distinct:
            distinct.append(config)
    trials = trials_of(as_space(parts))
    assert [one.config for one in trials] == distinct
    assert len({one.trial_id for one in trials}) == len(trials)


@pytest.mark.slow
@given(st.lists(grids, min_size=1, max_size=2), st.sampled_from(sorted(CHOICES)), st.integers(0, 2), grids)
def test_widening_a_grid_changes_no_existing_id(
    parts: list[dict[str, list[Any]]], key: str, which: int, further: dict[str, list[Any]]
) -> None:
    narrow = [{**part, key: part.get(key, CHOICES[key][:1])} for part in parts]
    wide = [{**part, key: [*part[key], CHOICES[key][which % len(CHOICES[key])]]} for part in narrow]
    before, after = ids(as_space(narrow)), ids(as_space([*wide, further]))
    assert set(before) <= set(after)


# Random spaces


def test_domains_are_drawn_the_same_in_every_run_and_differently_in_every_sample() -> None:
    def space() -> Sweep:
        return Sweep(model="vit", lr=tune.loguniform(1e-5, 1e-2), num_samples=5)

    drawn = values(space(), "lr")
    assert drawn == values(space(), "lr")
    assert len(set(drawn)) == 5
    assert all(1e-5 <= lr <= 1e-2 for lr in drawn)
    assert ids(space()) == ids(space())


def test_sample_i_is_the_same_in_every_cell_and_every_part() -> None:
    lr = tune.loguniform(1e-5, 1e-2)
    space = Sweep(
        [dict(model=grid("vit", "deepvit")), dict(model="cnn")], lr=lr, depth=grid(1, 2), num_samples=3
    )
    by_cell: dict[tuple[str, int], list[float]] = {}
    for model, depth, drawn in values(space, "model", "depth", "lr"):
        by_cell.setdefault((model, depth), []).append(drawn)
    assert len(by_cell) == 6
    assert len({tuple(column) for column in by_cell.values()}) == 1
    assert [values(Sweep(model="cnn", lr=lr, num_samples=3), "lr")] == list(
        map(list, {tuple(by_cell["cnn", 1])})
    )


def test_each_sample_is_drawn_by_a_generator_that_is_as_new() -> None:
    """Ids of trials that were run depend on it."""
    space = {"lr": tune.loguniform(1e-5, 1e-2), "depth": tune.randint(1, 12), "weight_decay": tune.randn()}
    for i, point in enumerate(Sweep(model="vit", num_samples=20, **space).points()):
        for key, domain in space.items():
            seed = int.from_bytes(hashlib.sha256(f"{key}:{i}".encode()).digest()[:4])
            assert point[key] == domain.sample(config={}, random_state=np.random.RandomState(seed))


def test_two_keys_are_drawn_independently() -> None:
    uniform = tune.uniform(0, 0.9)
    drawn = values(
        Sweep(model="vit", dropout=uniform, emb_dropout=uniform, num_samples=8), "dropout", "emb_dropout"
    )
    assert all(one != other for one, other in drawn)


def test_more_samples_keep_the_first_ones() -> None:
    few, many = (ids(Sweep(model="vit", lr=tune.loguniform(1e-5, 1e-2), num_samples=n)) for n in (2, 6))
    assert many[:2] == few and len(set(many)) == 6


@pytest.mark.parametrize(
    ("key", "domain", "allowed"),
    [
        ("lr", tune.uniform(1e-3, 1e-2), lambda lr: 1e-3 <= lr <= 1e-2),
        ("lr", tune.quniform(0.25, 1.0, 0.25), lambda lr: lr in (0.25, 0.5, 0.75, 1.0)),
        ("lr", tune.qloguniform(1e-3, 1e-1, 1e-3), lambda lr: 1e-3 <= lr <= 1e-1),
        ("depth", tune.randint(2, 5), lambda depth: depth in (2, 3, 4)),
        ("depth", tune.qrandint(2, 8, 2), lambda depth: depth in (2, 4, 6, 8)),
        ("dim", tune.lograndint(8, 64), lambda dim: 8 <= dim <= 64),
        ("optimizer", tune.choice(["adam", "sgd"]), lambda name: name in ("adam", "sgd")),
        ("heads", tune.choice([1, 2, 4]), lambda heads: heads in (1, 2, 4)),
        ("depth", tune.sample_from(lambda config: 3), lambda depth: depth == 3),
    ],
    ids=map(str, range(9)),  # the objects' own names hold addresses, which differ from process to process
)
def test_every_domain_of_ray_tune_gives_valid_values_of_plain_types(
    key: str, domain: Any, allowed: Any
) -> None:
    trials = trials_of(Sweep(model="vit", num_samples=6, **{key: domain}))
    assert all(allowed(one.config[key]) and type(one.config[key]) is AXES[key].kind for one in trials)
    json.dumps([one.row() for one in trials])


def test_a_function_sees_the_cell_and_what_was_drawn() -> None:
    space = Sweep(
        mlp_dim=tune.sample_from(lambda config: config["dim"] * config["depth"]),
        model="vit",
        depth=grid(1, 2),
        dim=tune.choice([16, 32, 64]),
        num_samples=4,
    )
    drawn = values(space, "dim", "depth", "mlp_dim")
    assert all(mlp_dim == dim * depth for dim, depth, mlp_dim in drawn)
    assert len({dim for dim, _, _ in drawn}) > 1


def test_domains_may_stand_inside_a_grid() -> None:
    drawn = values(Sweep(model="vit", lr=grid(tune.uniform(0.1, 0.2), tune.uniform(0.5, 0.6), 1.0)), "lr")
    assert 0.1 <= drawn[0] <= 0.2 and 0.5 <= drawn[1] <= 0.6 and drawn[2] == 1.0


# What is refused before anything starts


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        (dict(modle="vit"), "'modle' is not a key of a sweep, did you mean 'model'?"),
        (dict(model="vit", learning_rat=1), "'learning_rat' is not a key of a sweep; known are agent_agent"),
        (dict(model="vit", num_sample=2), "did you mean 'num_samples'?"),
        (dict(model="vit", depth=tune.grid_search([])), "depth: the grid is empty; name at least one value"),
        (dict(model="vit", depth=[2, 4]), "depth=[2, 4] is a list; write tune.grid_search([2, 4])"),
        (dict(model="vit", depth=(2, 4)), "depth=(2, 4) is a tuple; write tune.grid_search([2, 4])"),
        (dict(model="vit", seed=range(2)), "seed=range(0, 2) is a range; write tune.grid_search([0, 1])"),
        (dict(model="vit", num_samples=0), "num_samples=0 is out of range; use a whole number from 1"),
        (dict(model="vit", num_samples=2.0), "num_samples=2.0 is out of range"),
        (dict(model="vit", num_samples=True), "num_samples=True is out of range"),
        (dict(model="vit", scheduler="hyperband"), "scheduler='hyperband' is unknown; use 'asha' or"),
        (dict(model="vit", resources=2), "resources=2 is not a dict; write resources={'cpu': 1,"),
        (dict(model="vit", resources={"GPU": 1}), "resources: 'GPU' is written 'gpu'"),
        (dict(model="vit", resources={"cpu": -1}), "resources: cpu=-1 is out of range; use a number from 0"),
        (dict(model="vit", resources={"gpu": "1"}), "resources: gpu='1' is out of range"),
        (dict(model="vit", resources={"gpu": True}), "resources: gpu=True is out of range"),
        (dict(space="vit"), "the space of a Sweep is a dict, or a list of dicts"),
        (dict(space=[dict(model="vit"), "cnn"]), "the space of a Sweep is a dict, or a list of dicts"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_sweep_is_said_when_it_is_made(keywords: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        Sweep(**keywords)


def test_a_misspelt_key_inside_a_part_of_a_union_is_refused() -> None:
    with pytest.raises(UserError, match="'dpeth' is not a key of a sweep, did you mean 'depth'"):
        Sweep([dict(model="cnn"), dict(model="vit", dpeth=6)])


@pytest.mark.parametrize("key", [axis.name for axis in AXES.values() if not axis.settable])
def test_a_derived_column_is_not_for_a_sweep_to_set(key: str) -> None:
    with pytest.raises(UserError, match=f"'{key}' is not a key of a sweep"):
        Sweep({"model": "vit", key: 3})


@pytest.mark.parametrize("key", ["channels", "name", "num_samples", "resources"])
def test_a_refused_key_is_not_hinted_at(key: str) -> None:
    with pytest.raises(UserError) as caught:
        Sweep({"model": "vit", key: 3})
    assert f"did you mean {key!r}" not in str(caught.value)


def test_a_grid_may_be_any_iterable() -> None:
    assert values(Sweep(model=tune.grid_search(name for name in ("vit", "cnn"))), "model") == ["vit", "cnn"]


def test_a_grid_may_be_an_array() -> None:
    rates = [
        one.config["lr"] for one in trials_of(Sweep(model="vit", lr=tune.grid_search(np.array([0.1, 0.2]))))
    ]
    assert rates == [0.1, 0.2] and {type(lr) for lr in rates} == {float}


def test_a_trial_takes_one_cpu_unless_resources_say_otherwise() -> None:
    assert Sweep(model="vit").resources is None
    assert Sweep(model="vit", resources={"gpu": 0.25}).resources == {"cpu": 1, "gpu": 0.25}
    assert Sweep(model="vit", resources={"cpu": 4}).resources == {"cpu": 4}


# Identity


OTHER: dict[str, Any] = {
    "task": "sequences", "model": "deepvit", "dataset": "cifar100", "geometry": "published", "image_size": 16,
    "channels": 3, "num_classes": 11, "depth": 7, "heads": 5, "dim": 129, "dim_head": 65, "mlp_dim": 257,
    "patch_size": 4, "dropout": 0.11, "emb_dropout": 0.11, "optimizer": "sgd", "lr": 1.1e-4, "lr_gamma": 0.71,
    "weight_decay": 0.01, "batch_size": 65, "epochs": 16, "precision": "bf16", "seed": 1,
    "attention": "fused", "length": 17, "norm": "pre", "positions": "learned", "beam": 2,
    "label_smoothing": 0.11, "warmup_steps": 401, "model_args": '{"width": 3}', "model_sha256": "0" * 64,
    "pooling": "mean", "drop_path": 0.1, "augment": "crop_flip", "random_erasing": 0.25, "mixup": 0.8,
    "cutmix": 1.0, "schedule": "cosine", "warmup_epochs": 1.0, "clip_norm": 1.0, "ema": 0.999,
    **{key: AXES[key].choices[-1] for key in design.CHOICES if key != "attention"},
}  # fmt: skip
NOT_ARCHITECTURE = {
    "dataset", "dropout", "emb_dropout", "drop_path", "warmup_steps", "grad_stop", *images.RECIPE,
}  # fmt: skip


def test_a_known_trial_keeps_its_ids() -> None:
    """These change when a default, the digits or the task's numerics do: finished trials then run again.

    Nothing else may change them, a new column or a new model least of all.
    """
    known = trial()
    assert (known.trial_id, known.arch_id) == ("e10372c8dcaf", "1f557ebd5e85")


@pytest.mark.slow
def test_ids_are_the_same_in_another_process() -> None:
    code = (
        "from pathlib import Path\nfrom attnsweep.tasks.registry import resolve\n"
        "from attnsweep.space.trials import make_trial\n"
        "trial = make_trial(resolve({'lr': 1e-4, 'model': 'vit'}), Path('elsewhere'))\n"
        "print(trial.trial_id, trial.arch_id)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [trial().trial_id, trial().arch_id]


@pytest.mark.parametrize("key", sorted(OTHER.keys() - {"task"}))  # of another task nothing is the same
def test_every_column_of_the_configuration_tells_trials_apart(key: str) -> None:
    config = resolve(VIT)
    changed = make_trial({**config, key: OTHER[key]}, NOWHERE)
    assert OTHER[key] != config[key]
    assert changed.trial_id != trial().trial_id
    assert (changed.arch_id == trial().arch_id) == (key in NOT_ARCHITECTURE)


@pytest.mark.slow
@given(st.permutations(sorted(OTHER)))
def test_the_order_of_keys_changes_no_id(order: list[str]) -> None:
    config = resolve(VIT)
    shuffled = make_trial({key: config[key] for key in order}, NOWHERE)
    assert (shuffled.trial_id, shuffled.arch_id) == (trial().trial_id, trial().arch_id)


def test_a_column_that_is_null_changes_no_id() -> None:
    wider = make_trial({**resolve(VIT), "agents": None}, NOWHERE)
    assert (wider.trial_id, wider.arch_id) == (trial().trial_id, trial().arch_id)


def test_one_trial_has_one_id_however_it_is_written() -> None:
    spelt = [
        trial(depth=6),
        trial(depth=6.0),
        trial(depth=np.int64(6)),
        trial(lr=np.float64(1e-4)),
        trial(seed=None),
    ]
    assert {one.trial_id for one in spelt} == {trial().trial_id}
    assert trial(lr=1).trial_id == trial(lr=1.0).trial_id


def test_a_negative_zero_is_zero() -> None:
    assert trial(dropout=-0.0).trial_id == trial(dropout=0.0).trial_id


def test_the_same_trial_in_two_sweeps_has_the_same_id() -> None:
    one = Sweep([dict(model=grid("vit", "hybrid"), depth=grid(2, 4))], name="one", lr=1e-3)
    other = Sweep(model="vit", lr=grid(1e-3, 1e-2), depth=4, name="other", resources={"cpu": 2})
    assert len(set(ids(one)) & set(ids(other))) == 1


def test_ids_are_twelve_hexadecimal_digits() -> None:
    assert re.fullmatch("[0-9a-f]{12}", trial().trial_id)
    assert re.fullmatch("[0-9a-f]{12}", trial().arch_id)


def test_a_new_version_of_the_numerics_is_another_trial_of_the_same_architecture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = trial()
    images = dataclasses.replace(TASKS["images"], numerics=TASKS["images"].numerics + 1)
    monkeypatch.setitem(TASKS, "images", images)
    assert trial().trial_id != before.trial_id
    assert trial().arch_id == before.arch_id


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from(sorted(set(OTHER) - {"task", "dataset", "image_size", "channels"})), unique=True)
)
def test_trials_differ_exactly_if_their_configurations_do(keys: list[str]) -> None:
    config = {**resolve(VIT), **{key: OTHER[key] for key in keys}}
    assert (make_trial(config, NOWHERE).trial_id == trial().trial_id) == (keys == [])


def test_a_trials_row_says_what_it_is_before_it_has_run() -> None:
    one = trial(dataset="mnist")
    assert one.row() == {
        **one.config,
        "trial_id": one.trial_id,
        "arch_id": one.arch_id,
        "params": one.params,
        "macs": one.macs,
        "data_sha256": datasets.DATASETS["mnist"].sha256,
        "images_skipped": None,
        "numerics": one.numerics,
    }


# A folder of images is known by its content


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of eight images each."""
    noise = random.Random(0)
    for kind in ("cats", "dogs"):
        (tmp_path / "images" / kind).mkdir(parents=True)
        for i in range(8):
            pixels = bytes(noise.randrange(256) for _ in range(8 * 8 * 3))
            Image.frombytes("RGB", (8, 8), pixels).save(tmp_path / f"images/{kind}/{i}.png")
    return tmp_path / "images"


def folder_id(folder: Path) -> str:
    """The id of a trial on the folder, as another plan finds it."""
    datasets.forget()
    return trial(dataset=f"folder:{folder}", image_size=8).trial_id


def test_a_folder_that_moves_is_the_same_data(images: Path) -> None:
    before = folder_id(images)
    moved = images.rename(images.with_name("elsewhere"))
    assert folder_id(moved) == before


def test_another_path_to_the_same_folder_is_the_same_trial(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images.parent)
    assert folder_id(Path("images")) == folder_id(images)


def test_a_changed_pixel_is_other_data(images: Path) -> None:
    before = folder_id(images)
    with Image.open(images / "cats/3.png") as image:
        image.load()
    red, green, blue = image.getpixel((0, 0))
    image.putpixel((0, 0), (red ^ 1, green, blue))
    image.save(images / "cats/3.png")
    assert folder_id(images) != before


@pytest.mark.parametrize("source", ["cats/4.png", "dogs/0.png"])
def test_an_image_less_is_other_data(images: Path, source: str) -> None:
    before = folder_id(images)
    (images / source).unlink()
    assert folder_id(images) != before


def test_an_image_in_another_class_is_other_data(images: Path) -> None:
    before = folder_id(images)
    (images / "cats/4.png").rename(images / "dogs/9.png")
    assert folder_id(images) != before


def test_an_image_in_another_class_is_other_data_even_in_a_folder_of_the_same_name(images: Path) -> None:
    for kind, other in (("cats", "dogs"), ("dogs", "cats")):
        (images / kind / "indoors").mkdir()
        (images / kind / "0.png").rename(images / kind / f"indoors/{other}.png")
    before = folder_id(images)
    (images / "cats/indoors/dogs.png").rename(images / "dogs/indoors/dogs.png")
    assert folder_id(images) != before


def test_an_image_in_another_part_is_other_data(images: Path) -> None:
    for part in ("train", "test"):
        shutil.copytree(images, images.parent / f"parts/{part}")
    before = folder_id(images.parent / "parts")
    (images.parent / "parts/train/dogs/4.png").rename(images.parent / "parts/test/dogs/9.png")
    assert folder_id(images.parent / "parts") != before


# The width of a CNN, which it got after sweeps had shared theirs among other models


SHARED = dict(dim=64, heads=4, mlp_dim=128)


def test_a_width_that_is_shared_with_transformers_is_theirs() -> None:
    published = trial(model="cnn")
    for space in (
        Sweep([dict(model=grid("vit", "hybrid")), dict(model="cnn")], **SHARED),
        Sweep(model=grid("cnn", "vit"), **SHARED),
        Sweep(model=tune.choice(["cnn", "vit"]), num_samples=20, **SHARED),
        Sweep([dict(model="vit", dim=32), dict(model="cnn")], dim=grid(16, 64)),
        Sweep([dict(model="vit"), dict(model="cnn")], **SHARED).override({"dim": [64]}),
        Sweep([dict(model="vit"), dict(model="cnn")], **SHARED).override({"dim": [32, 48]}),
    ):
        found = [one for one in trials_of(space) if one.config["model"] == "cnn"]
        assert [one.trial_id for one in found] == [published.trial_id]
        assert {one.config["dim"] for one in trials_of(space)} > {None}
        assert "dim" in space.unused().get("cnn", "drawn models are not known: dim")


@pytest.mark.parametrize(
    "space",
    [
        Sweep(model="cnn", dim=grid(16, 32)),
        Sweep(dict(model="cnn", dim=grid(16, 32)), heads=4),
        Sweep([dict(model="vit"), dict(model="cnn", dim=grid(16, 32))], **SHARED),
        Sweep([dict(model="cnn", lr=1e-2), dict(model="cnn", lr=1e-3)], dim=grid(16, 32)),
        Sweep([dict(model="vit"), dict(model="cnn", dim=16)], **SHARED).override({"dim": [16, 32]}),
        Sweep(model="cnn").override({"dim": [16, 32]}),
    ],
)
def test_a_width_of_a_cnns_own_part_or_of_a_sweep_of_cnns_is_the_cnns(space: Sweep) -> None:
    found = [one.config["dim"] for one in trials_of(space) if one.config["model"] == "cnn"]
    assert set(found) == {16, 32}
    assert "dim" not in space.unused().get("cnn", [])


def test_the_published_cnn_has_one_id_however_it_is_written() -> None:
    ways = [{"dim": dim, "pooling": pooling} for dim in (None, 128) for pooling in (None, "flatten")]
    assert {trial(model="cnn", **way).trial_id for way in ways} == {trial(model="cnn").trial_id}
    for other in ({"dim": 64}, {"pooling": "max"}):
        assert trial(model="cnn", **other).trial_id != trial(model="cnn").trial_id
    assert trial(model="vit", dim=128).trial_id != trial(model="vit", dim=64).trial_id


# Overrides


UNION = Sweep(
    [dict(model=grid("vit", "deepvit", "hybrid"), depth=grid(2, 4)), dict(model="cnn")],
    name="union",
    epochs=15,
    lr=tune.loguniform(1e-5, 1e-2),
    resources={"cpu": 2},
    num_samples=2,
)


def test_an_override_narrows_a_union_and_keeps_its_parts_right() -> None:
    narrowed = UNION.override({"model": ["vit", "cnn"]})
    once = narrowed.override({"num_samples": [1]})
    assert values(once, "model", "depth") == [("vit", 2), ("vit", 4), ("cnn", None)]
    assert set(ids(narrowed)) < set(ids(UNION))


def test_an_override_drops_the_parts_that_have_none_of_its_values() -> None:
    assert set(values(UNION.override({"model": ["cnn"]}), "model", "depth")) == {("cnn", None)}


def test_an_override_leaves_parts_without_the_key_alone() -> None:
    assert set(values(UNION.override({"depth": [4]}), "model", "depth")) == {
        ("vit", 4),
        ("deepvit", 4),
        ("hybrid", 4),
        ("cnn", None),
    }


def test_an_override_with_a_new_value_replaces_the_old_ones_everywhere() -> None:
    assert set(values(UNION.override({"epochs": [2]}), "epochs")) == {2}
    assert set(values(UNION.override({"depth": [2, 8]}), "model", "depth")) == {
        (model, depth) for model in ("vit", "deepvit", "hybrid", "cnn") for depth in (2, 8)
    }
    assert set(values(UNION.override({"lr": [0.5]}), "lr")) == {0.5}


def test_an_override_adds_a_grid_over_a_key_that_the_sweep_did_not_name() -> None:
    assert len(ids(UNION.override({"seed": [0, 1, 2]}))) == 3 * len(ids(UNION))


def test_an_override_replaces_a_domain_even_if_another_part_names_its_value() -> None:
    mixed = Sweep([dict(model="vit", lr=tune.loguniform(1e-5, 1e-2)), dict(model="cnn", lr=1e-4)])
    assert values(mixed.override({"lr": [1e-4]}), "lr") == [1e-4, 1e-4]


def test_several_overrides_hold_together() -> None:
    overridden = UNION.override({"model": ["vit"], "epochs": [1], "seed": [0, 1], "lr": [1e-3]})
    assert set(values(overridden, "model", "epochs", "seed", "depth", "lr")) == {
        ("vit", 1, seed, depth, 1e-3) for seed in (0, 1) for depth in (2, 4)
    }


def test_an_override_changes_options_and_keeps_the_others() -> None:
    changed = UNION.override({"num_samples": [1], "scheduler": ["asha"]})
    assert (changed.num_samples, changed.scheduler) == (1, "asha")
    assert (changed.name, changed.resources) == ("union", {"cpu": 2})
    assert UNION.num_samples == 2, "the sweep itself stays"


def test_an_override_of_a_misspelt_key_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'epochs'"):
        UNION.override({"epoch": [2]})


@pytest.mark.slow
@given(st.lists(grids, min_size=1, max_size=3), st.sampled_from(sorted(CHOICES)), st.data())
def test_an_override_with_values_of_the_sweep_keeps_exactly_the_points_that_have_them(
    parts: list[dict[str, list[Any]]], key: str, data: st.DataObject
) -> None:
    own = sorted({value for part in parts for value in part.get(key, [])})
    if not own:
        return
    wanted = data.draw(st.lists(st.sampled_from(own), min_size=1, unique=True))
    kept = [point for point in by_brute_force(parts) if key not in point or point[key] in wanted]
    assert list(as_space(parts).override({key: wanted}).points()) == kept


@pytest.mark.parametrize(
    ("text", "key", "literals"),
    [
        ("epochs=2", "epochs", [2]),
        ("seed=0,1,2", "seed", [0, 1, 2]),
        ("model=vit,cnn", "model", ["vit", "cnn"]),
        ("lr=1e-4,0.5", "lr", [1e-4, 0.5]),
        ("patch_size=none,4", "patch_size", [None, 4]),
        ("patch_size=NULL", "patch_size", [None]),
        ("keep_weights=true", "keep_weights", [True]),
        ("keep_weights=False", "keep_weights", [False]),
        ("dataset=folder:a=b", "dataset", ["folder:a=b"]),
        ("depth=-1", "depth", [-1]),
    ],
)
def test_an_override_is_read_as_people_write_it(text: str, key: str, literals: list[Any]) -> None:
    parsed = parse_override(text)
    assert parsed == (key, literals)
    assert [type(value) for value in parsed[1]] == [type(value) for value in literals]


@pytest.mark.parametrize("text", ["epochs", "epochs=", "=", ""])
def test_what_is_no_override_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"{text!r} is not an override; write key=value")):
        parse_override(text)


@given(st.one_of(st.integers(), st.floats(allow_nan=False)))
def test_a_number_survives_the_command_line(number: float) -> None:
    assert literal(repr(number)) == number


def test_a_sweep_may_be_named_by_a_number_on_the_command_line() -> None:
    key, named = parse_override("name=2024")
    assert Sweep(model="vit").override({key: named}).name == "2024"


# Sweep files


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_sweep(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_sweep_is_named_after_its_file(tmp_path: Path) -> None:
    file = write(tmp_path / "depth.py", "from attnsweep import Sweep\nsweep = Sweep(model='vit', depth=3)\n")
    assert read_sweep(file).name == "depth"
    assert values(read_sweep(str(file)), "depth") == [3]


def test_a_sweep_keeps_the_name_it_has(tmp_path: Path) -> None:
    file = write(
        tmp_path / "depth.py", "from attnsweep import Sweep\nsweep = Sweep(model='vit', name='mine')\n"
    )
    assert read_sweep(file).name == "mine"


def test_a_file_that_is_missing_is_answered_with_the_one_that_was_meant(tmp_path: Path) -> None:
    write(tmp_path / "depth.py", "")
    assert refused(tmp_path / "detph.py").endswith("detph.py, did you mean 'depth.py'?")
    assert refused(tmp_path / "xyz.py") == f"there is no sweep file {tmp_path / 'xyz.py'}"
    assert refused(tmp_path) == f"{tmp_path} is a folder; name a sweep file, such as {tmp_path}/depth.py"
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty").endswith("/empty is a folder; name a sweep file")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("swep = 1\n", " defines no variable `sweep`; write: from attnsweep import Sweep; sweep = Sweep("),
        ("sweep = dict(model='vit')\n", " sets sweep to a dict; write: "),
        ("from attnsweep import Sweep as sweep\n", " sets sweep to a type; write: "),
        ("a = 1\n\nb = 1 / 0\n", ":3: ZeroDivisionError: division by zero"),
        ("def f():\n    raise KeyError('x')\n\nf()\n", ":2: KeyError: 'x'"),
        ("raise SystemExit('no')\n", ":1: SystemExit: no"),
        ("a = 1\nb = (\n", ":2: SyntaxError: "),
        ("import nosuchmodule\n", ":1: ModuleNotFoundError: No module named 'nosuchmodule'"),
        (
            "from attnsweep import Sweep\nsweep = Sweep(modle='vit')\n",
            ":2: 'modle' is not a key of a sweep, did",
        ),
        ("raise ValueError('one\\n  two')\n", ":1: ValueError: one two"),
    ],
)
def test_a_file_that_gives_no_sweep_is_refused_with_its_line(
    tmp_path: Path, text: str, sentence: str
) -> None:
    file = write(tmp_path / "broken.py", text)
    assert refused(file).startswith(f"{file}{sentence}")


def test_a_syntax_error_elsewhere_is_not_blamed_on_a_line_of_the_sweep_file(tmp_path: Path) -> None:
    file = write(tmp_path / "broken.py", "a = 1\nb = 2\neval('1 +')\n")
    assert refused(file).startswith(f"{file}:3: SyntaxError")


def test_a_sweep_file_in_rays_own_words_becomes_its_trials(tmp_path: Path) -> None:
    text = """
from ray import tune
from attnsweep import Sweep

sweep = Sweep(
    [dict(model=tune.grid_search(["vit", "hybrid"]), depth=tune.grid_search([2, 4])), dict(model="cnn")],
    dataset="mnist", lr=tune.choice([1e-4, 1e-3]), seed=tune.grid_search([0, 1]),
)
"""
    assert len(ids(read_sweep(write(tmp_path / "mine.py", text)))) == 2 * (2 * 2 + 1)


# Labels


def test_a_label_names_what_tells_trials_of_a_model_apart() -> None:
    trials = trials_of(Sweep([dict(model="vit", depth=grid(2, 4)), dict(model="cnn")], lr=grid(1e-4, 1e-3)))
    assert [label(one, varying(trials)) for one in trials] == [
        "vit depth=2 lr=0.0001",
        "vit depth=4 lr=0.0001",
        "vit depth=2 lr=0.001",
        "vit depth=4 lr=0.001",
        "cnn lr=0.0001",
        "cnn lr=0.001",
    ]


def test_a_label_gives_a_data_set_by_its_bare_name_and_leaves_out_what_a_model_lacks() -> None:
    assert label(trial(dataset="mnist"), ["dataset", "depth"]) == "vit mnist depth=6"
    assert label(trial(model="cnn", dataset="mnist"), ["dataset", "depth"]) == "cnn mnist"


def test_a_label_does_not_repeat_what_comes_with_a_data_set() -> None:
    trials = trials_of(Sweep(model="vit", dataset=grid("mnist", "cifar10"), seed=grid(0, 1)))
    assert [label(one, varying(trials)) for one in trials] == [
        "vit mnist seed=0",
        "vit mnist seed=1",
        "vit cifar10 seed=0",
        "vit cifar10 seed=1",
    ]


def test_a_domain_of_models_in_a_sweep_file_stays_a_domain(tmp_path: Path) -> None:
    text = "sweep = Sweep(model=tune.choice(['vit', 'cnn']), search='optuna', num_samples=2)\n"
    file = write(tmp_path / "s.py", f"from ray import tune\nfrom attnsweep import Sweep\n{text}")
    (part,) = read_sweep(file).parts
    assert is_domain(part["model"])


def test_a_label_says_what_an_architecture_is_before_how_it_was_trained(images: Path) -> None:
    parts = [dict(image_size=40, epochs=5, patch_size=8), dict(image_size=64, epochs=12, patch_size=16)]
    for model in ("cnn", "vit"):
        trials = trials_of(Sweep(parts, model=model, dataset=f"folder:{images}"))
        assert [label(one, varying(trials)) for one in trials] == [
            f"{model} image_size=40",
            f"{model} image_size=64",
        ]


def test_what_follows_from_an_axis_is_not_named_in_its_place() -> None:
    text = {"model": "decoder", "encoding": "bpe"}
    trials = [make_trial(resolve({**text, "vocabulary": size}), Path(".")) for size in (300, 400)]
    assert [label(one, varying(trials)) for one in trials] == [
        "decoder vocabulary=300",
        "decoder vocabulary=400",
    ]


def test_trials_of_models_that_are_trained_otherwise_say_so() -> None:
    def labelled(*points: dict[str, Any]) -> list[str]:
        trials = [make_trial(resolve(point), Path(".")) for point in points]
        return [label(trial, varying(trials)) for trial in trials]

    vit, cnn = {"model": "vit", "epochs": 1}, {"model": "cnn", "epochs": 15}
    assert labelled(vit, cnn) == ["vit epochs=1", "cnn epochs=15"]
    assert labelled(vit, {**cnn, "epochs": 1}) == ["vit", "cnn"]
    both = [{**one, "epochs": 2, "lr": lr} for one in (vit, cnn) for lr in (1e-3, 1e-4)]
    assert labelled(*both)[0] == "vit lr=0.001"
    assert labelled(*both[:3]) == ["vit lr=0.001", "vit lr=0.0001", "cnn lr=0.001"]
