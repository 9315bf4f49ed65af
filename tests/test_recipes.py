import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

from attnsweep.answers import pareto
from attnsweep.core.errors import UserError
from attnsweep.core.trial import Trial
from attnsweep.results.loading import load
from attnsweep.results.store import Store
from attnsweep.space.labels import label, varying
from attnsweep.space.rerun import trial_of
from attnsweep.space.trials import make_trial
from attnsweep.tasks.images import recipe
from attnsweep.tasks.images.models import drop_path
from attnsweep.tasks.images.schedule import learning_rate
from attnsweep.tasks.images.space import MODELS
from attnsweep.tasks.registry import AXES, build, resolve
from attnsweep.training import checkpoint, epoch
from attnsweep.training.average import Average
from attnsweep.training.setup import Setup, prepare
from attnsweep.training.trial import Options, checkpoint_path, run, weights_path

TINY = dict(depth=1, heads=2, dim=16, dim_head=8, mlp_dim=16, batch_size=256, epochs=4)
VIT = {"model": "vit", **TINY}
DROPPING = ("vit", "deepvit", "hybrid", "cct", "simple_vit")
EVERYTHING = dict(recipe="modern", ema=0.9, clip_norm=1.0, depth=2, drop_path=0.3)
ONE_BY_ONE: dict[str, dict[str, Any]] = {  # each axis of a recipe alone
    "augment": {"augment": "randaugment"}, "random_erasing": {"random_erasing": 0.5},
    "mixup": {"mixup": 0.8}, "cutmix": {"cutmix": 1.0}, "label_smoothing": {"label_smoothing": 0.1},
    "schedule": {"schedule": "cosine"}, "warmup_epochs": {"warmup_epochs": 2.5},
    "clip_norm": {"clip_norm": 0.5}, "ema": {"ema": 0.99}, "drop_path": {"drop_path": 0.5, "depth": 2},
    "optimizer": {"optimizer": "sgd"}, "precision": {"precision": "bf16"},
    "backbone_lr": {"backbone_lr": 0.1}, "freeze": {"freeze": "backbone"},
}  # fmt: skip
TIMES = {"train_s", "epoch_s", "eval_s", "samples_per_s", "started_at", "finished_at", "peak_mem_mb"}
OWN = """
from torch import nn

class Plain(nn.Module):
    def __init__(self, image_size, channels, num_classes):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, num_classes))

    def forward(self, images):
        return self.net(images)
"""
SAME_NAMES = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, ema=0.9, schedule="linear", drop_path=0.1, label_smoothing=0.2):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))

    def forward(self, images):
        return self.net(images)
"""


def trial(**point: Any) -> Trial:
    return make_trial(resolve({**VIT, **point}), Path("nowhere"))


def refusal(**point: Any) -> str:
    with pytest.raises(UserError) as caught:
        resolve({**VIT, **point})
    return str(caught.value)


def numbers(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = [row for event in events for row in (*event.get("curve", []), event["row"])]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def last_row(events: list[dict[str, Any]]) -> dict[str, Any]:
    return numbers(events)[-1]


# The configuration


def test_every_axis_of_a_recipe_is_tried_alone() -> None:
    assert {*recipe.AXES, "drop_path"} - {"recipe"} <= ONE_BY_ONE.keys()


def test_the_modern_recipe_is_written_out_in_the_row() -> None:
    row = trial(recipe="modern", epochs=40).row()
    assert row["recipe"] == "modern"
    assert {axis: row[axis] for axis in recipe.MODERN} == dict(recipe.MODERN)
    assert row["warmup_epochs"] == 2.0


def test_a_sweep_overrides_a_recipe_axis_by_axis() -> None:
    own = {"mixup": 0.0, "augment": "none", "lr": 0.1, "warmup_epochs": 0.0}
    modern, other = (resolve({**VIT, "recipe": "modern", **one}) for one in ({}, own))
    assert {key: other[key] for key in modern if modern[key] != other[key]} == own


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_a_modern_recipe_of_the_axes_that_it_has(model: str) -> None:
    config = resolve({"model": model, "dataset": "cifar10", "recipe": "modern"})
    assert config["schedule"] == "cosine" and config["lr_gamma"] is None
    assert (config["drop_path"] == 0.1) == (model in DROPPING)
    for axis in ("dropout", "emb_dropout"):
        assert config[axis] == (0.0 if axis in MODELS[model] else None)


def test_the_published_recipe_is_the_default_and_keeps_the_ids_of_before() -> None:
    """The ids of trials from before there were recipes."""
    assert trial().trial_id == trial(recipe="published").trial_id
    known = make_trial(resolve({"model": "vit"}), Path("nowhere"))
    assert (known.trial_id, known.arch_id) == ("e10372c8dcaf", "1f557ebd5e85")


def test_a_recipe_is_a_shorthand_with_the_id_of_what_it_stands_for() -> None:
    modern = trial(recipe="modern")
    spelt = {axis: value for axis, value in modern.config.items() if axis != "recipe" and value is not None}
    assert make_trial(resolve(spelt), Path("nowhere")).trial_id == modern.trial_id
    assert modern.trial_id != trial().trial_id
    assert modern.arch_id == trial().arch_id


def test_trials_are_called_by_their_recipe() -> None:
    trials = [trial(recipe="published"), trial(recipe="modern")]
    assert [label(one, varying(trials)) for one in trials] == ["vit recipe=published", "vit recipe=modern"]


def test_a_row_of_before_is_still_the_trial_that_it_was() -> None:
    row = trial().row()
    before = {**row, **dict.fromkeys([*recipe.AXES, "drop_path"])}
    assert trial_of(before, Path("nowhere")).trial_id == row["trial_id"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "sentence"),
    [
        (dict(mixup=-0.1), "mixup=-0.1 is out of range; use a number from 0 to 100"),
        (dict(cutmix="yes"), "cutmix='yes' is not a number; use a number from 0 to 100"),
        (dict(clip_norm=0), "clip_norm=0 is out of range; use a number above 0 up to 1e+06"),
        (dict(random_erasing=1.5), "random_erasing=1.5 is out of range; use a number from 0 to 1"),
        (dict(ema=1), "ema=1 is out of range; use a number from 0 to 0.999999"),
        (dict(label_smoothing=1), "label_smoothing=1 is out of range; use a number from 0 to 0.99"),
        (dict(warmup_epochs=5), "warmup_epochs=5 are more than epochs=4; use 4 or less"),
        (dict(schedule="cosin"), "schedule='cosin' is unknown, did you mean 'cosine'?; use one of step, "),
        (dict(augment="crop"), "augment='crop' is unknown"),
        (dict(augment="randaugmnt"), "did you mean 'randaugment'?"),
        (dict(recipe="deit"), "recipe='deit' is unknown; use one of published, modern"),
        (dict(recipe=3), "recipe=3 is unknown"),
        (dict(recipe="modern", epochs="many"), "epochs='many' is not a whole number"),
        (dict(model="cnn", drop_path=0.1), "drop_path=0.1 is nothing that cnn has; leave it out, or "),
        (dict(model="timm:vit_tiny_patch16_224", drop_path=0.1), "or give the argument of that library, "),
        (dict(model="nest", depth=2, drop_path=0.5), "drop_path=0.5 is nothing that nest has"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_refused_with_a_sentence(point: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(**point)


def test_where_there_are_no_branches_to_leave_out_none_may_be_said() -> None:
    assert resolve({"model": "cnn", "drop_path": 0.0})["drop_path"] is None


# The learning rate


def rates(steps: int, **config: Any) -> list[float]:
    return [learning_rate({"lr": 0.3, "lr_gamma": 0.5, **config}, step, 10) for step in range(steps)]


def by_torch(steps: int, schedule: Any, **settings: Any) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    stepped, found = schedule(optimizer, **settings), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        stepped.step()
    return found


def test_steps_are_torchs_to_the_bit() -> None:
    assert rates(40, epochs=4) == by_torch(40, StepLR, step_size=10, gamma=0.5)


def test_a_cosine_is_torchs() -> None:
    assert rates(40, epochs=4, schedule="cosine") == pytest.approx(by_torch(40, CosineAnnealingLR, T_max=40))


def test_after_its_warm_up_a_cosine_is_the_same_over_what_is_left() -> None:
    found = rates(40, epochs=4, schedule="cosine", warmup_epochs=0.5)
    assert found[:5] == pytest.approx([0.06, 0.12, 0.18, 0.24, 0.3])
    assert found[5:] == pytest.approx(by_torch(35, CosineAnnealingLR, T_max=35))


def test_a_constant_stays_and_a_warm_up_may_take_the_whole_training() -> None:
    assert rates(20, epochs=2, schedule="constant") == [0.3] * 20
    assert rates(20, epochs=2, schedule="cosine", warmup_epochs=2)[-1] == 0.3
    assert rates(20, epochs=2, schedule="step", warmup_epochs=1)[9:11] == pytest.approx([0.3, 0.15])


# Training


@pytest.mark.slow
def test_the_same_trial_twice_is_equal_to_the_bit() -> None:
    once, twice = (list(run(trial(**EVERYTHING), Options("nowhere"))) for _ in range(2))
    assert numbers(once) == numbers(twice)


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [EVERYTHING, {"augment": "trivialaugment", "ema": 0.99}, *ONE_BY_ONE.values()],
    ids=["everything", "two", *ONE_BY_ONE],
)
def test_a_trial_that_was_killed_goes_on_to_the_same_numbers_and_weights(
    point: dict[str, Any], tmp_path: Path
) -> None:
    one = trial(**point)
    rows: list[dict[str, Any]] = []
    weights: list[dict[str, torch.Tensor]] = []
    for cut in (0, 2):
        runs = str(tmp_path / str(cut))
        options = Options("nowhere", runs_dir=runs, keep_weights=True, checkpoint_s=0)
        begun = run(one, options)
        for _ in range(cut):
            next(begun)
        begun.close()
        torch.manual_seed(77)  # another process has drawn otherwise
        rows.append(last_row(list(run(one, options))))
        weights.append(torch.load(weights_path(runs, one.trial_id), weights_only=True))
    assert rows[0] == rows[1]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.slow
def test_the_trials_of_before_compute_what_they_did() -> None:
    """The last loss of this trial as the version before the recipes had it; CPUs differ by rounding alone."""
    row = last_row(list(run(trial(lr=1e-3), Options("nowhere"))))
    assert row["train_loss"] == pytest.approx(2.3448137286273183, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("channels", ["digits"])
def test_a_greyscale_set_trains_under_every_augmentation(channels: str) -> None:
    for kind in AXES["augment"].choices:
        row = last_row(list(run(trial(augment=kind, epochs=1, **{"dataset": channels}), Options("nowhere"))))
        assert math.isfinite(row["train_loss"]), kind


def setup_of(**point: Any) -> Setup:
    return prepare(trial(**point), Options("nowhere"))


def one_epoch(setup: Setup) -> None:
    assert setup.optimizer
    for _ in epoch.train(setup, setup.optimizer, epoch=0):
        pass


def vector(model: nn.Module) -> torch.Tensor:
    return torch.cat([one.detach().flatten() for one in model.parameters()])


@pytest.mark.slow
def test_a_steps_gradient_is_clipped_to_the_norm() -> None:
    moved = []
    for norm in (None, 1e-3):
        setup = setup_of(optimizer="sgd", lr=1.0, clip_norm=norm, batch_size=2_000, schedule="constant")
        before = vector(setup.model)
        one_epoch(setup)  # of one step
        moved.append((vector(setup.model) - before).norm().item())
    assert moved[0] > 0.1
    assert moved[1] == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.slow
def test_the_mean_of_the_weights_is_the_one_of_its_recurrence() -> None:
    setup = setup_of(ema=0.5)
    expected, seen = vector(setup.model).double(), []
    update = setup.average.update  # type: ignore[union-attr]

    def watch() -> None:
        update()
        seen.append(vector(setup.model).double())

    setup.average.update = watch  # type: ignore[union-attr,method-assign]
    one_epoch(setup)
    for step, weights in enumerate(seen):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights
    live = vector(setup.model)
    with setup.averaged():
        torch.testing.assert_close(vector(setup.model).double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(vector(setup.model), live)
    assert len(seen) > 5 and not torch.allclose(live.double(), expected)


@pytest.mark.slow
def test_the_mean_is_what_is_judged_and_kept(tmp_path: Path) -> None:
    one = trial(ema=0.9, lr=1e-2)
    options = Options("nowhere", runs_dir=str(tmp_path), keep_weights=True)
    row = last_row(list(run(one, options)))
    kept = torch.load(weights_path(tmp_path, one.trial_id), weights_only=True)
    setup = setup_of(ema=0.9, lr=1e-2)
    for n in range(row["best_epoch"]):
        for _ in epoch.train(setup, setup.optimizer, epoch=n):  # type: ignore[arg-type]
            pass
    live = {name: value.clone() for name, value in setup.model.state_dict().items()}
    with setup.averaged():
        judged = epoch.judge(setup, epoch=0, effort={})
        mean = setup.model.state_dict()
        assert all(torch.equal(kept[name], mean[name]) for name in mean)
    assert judged["val_acc"] == row["val_acc"] and judged["test_acc"] == row["test_acc"]
    assert any(not torch.equal(kept[name], live[name]) for name in live)


def test_the_statistics_of_batch_norms_are_averaged_too() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    average, expected = Average(model, 0.9), torch.zeros(3)
    for step in range(5):
        model(torch.randn(8, 3) + 5)
        average.update()
        decay = (1 + step) / (10 + step)
        expected = decay * expected + (1 - decay) * model[1].running_mean
    with average.in_place():
        torch.testing.assert_close(model[1].running_mean, expected)
        assert model[1].num_batches_tracked == 5


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["missing", "shape", "infinite"])
def test_a_checkpoint_with_another_average_is_skipped(damage: str, tmp_path: Path) -> None:
    one, options = trial(ema=0.9), Options("nowhere", runs_dir=str(tmp_path), checkpoint_s=0)
    begun = run(one, options)
    next(begun)
    begun.close()
    path = str(checkpoint_path(one, options))
    state = checkpoint.read(Path(path).read_bytes(), "cpu")
    if damage == "missing":
        del state["average"]
    elif damage == "shape":
        state["average"]["mean"].pop()
    else:
        state["average"]["mean"][0][:] = math.inf
    checkpoint.write(state, path)
    again = list(run(one, options))
    assert again[0]["epoch"] == 1, "it began anew"
    assert last_row(again) == last_row(list(run(one, Options("nowhere"))))


# Residual branches


def test_the_rate_rises_evenly_to_the_last_block() -> None:
    assert drop_path.rates(0.3, 4) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert drop_path.rates(0.3, 1) == [0.0]


def test_branches_are_kept_at_their_rate_and_their_expectation_stays() -> None:
    torch.manual_seed(0)
    kept = drop_path.keeps(torch.ones(20_000, 3, 2), 0.25)
    assert kept.shape == (20_000, 1, 1)
    assert sorted(kept.unique().tolist()) == pytest.approx([0, 4 / 3])
    assert kept.mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    "variant", [*({"model": model} for model in DROPPING), {"model": "vit", "mlp": "swiglu"}]
)
def test_dropping_is_for_training_alone_and_changes_no_weight(variant: dict[str, str]) -> None:
    point = {**TINY, **variant, "depth": 3, "dropout": 0.0, "emb_dropout": 0.0}
    images = torch.randn(8, 1, 8, 8)
    plain = build(resolve(point))
    dropping = build(resolve({**point, "drop_path": 0.9}))
    dropping.load_state_dict(plain.state_dict())
    with torch.no_grad():
        assert torch.equal(plain.eval()(images), dropping.eval()(images))
        assert torch.equal(plain.train()(images), plain(images))
        assert not torch.equal(dropping.train()(images), plain(images))
    assert [name for name, _ in dropping.named_parameters()] == [name for name, _ in plain.named_parameters()]


def test_an_image_whose_branches_are_left_out_passes_a_block_as_it_came() -> None:
    net = build(resolve({**VIT, "depth": 2, "drop_path": 0.9, "dropout": 0.0})).train()  # type: ignore[arg-type]
    tokens, block = torch.randn(64, 5, 16), net.transformer.layers[1]
    torch.manual_seed(0)
    out = block[0](tokens)
    whole = copy.deepcopy(block[0]).eval()(tokens)
    left_out = (out == 0).all(dim=2).all(dim=1)
    assert 0.7 < left_out.float().mean() < 1.0
    torch.testing.assert_close(out[~left_out], 10 * whole[~left_out])


# Models of one's own


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(OWN)
    return f"{tmp_path}/mine.py"


@pytest.mark.slow
def test_ones_own_model_trains_under_the_modern_recipe(own: str) -> None:
    point = dict(model=f"{own}:Plain", recipe="modern", ema=0.9, epochs=2)
    one = make_trial(resolve(point), Path("nowhere"))
    assert (one.config["mixup"], one.config["optimizer"], one.config["drop_path"]) == (0.8, "adamw", None)
    once, twice = (last_row(list(run(one, Options("nowhere")))) for _ in range(2))
    assert once == twice and math.isfinite(once["train_loss"])


@pytest.mark.slow
def test_an_argument_of_the_name_of_a_recipes_axis_stays_the_classs_own_and_its_id_too(own: str) -> None:
    """The ids are those of before the recipes."""
    Path(own).write_text(SAME_NAMES)
    others = dict(ema=0.5, schedule="spiral", drop_path=0.2, label_smoothing=0.3)
    known = {"85d52b7cedba": ({}, "e395d8ab9eb9"), "ec388975cb79": (others, "7634b3c17e9c")}
    for trial_id, (point, arch_id) in known.items():
        one = make_trial(resolve({"model": f"{own}:Net", **point}), Path("nowhere"))
        assert (one.trial_id, one.arch_id) == (trial_id, arch_id)
        assert (one.config["ema"], one.config["schedule"], one.config["label_smoothing"]) == (0, "step", 0)


def test_ones_own_model_without_that_argument_has_no_branches_to_leave_out(own: str) -> None:
    with pytest.raises(UserError, match=r"drop_path=0\.1 is nothing that .*:Plain has"):
        resolve({"model": f"{own}:Plain", "drop_path": 0.1})


@pytest.mark.slow
def test_old_rows_and_new_ones_of_one_setting_are_seeds_of_it(tmp_path: Path) -> None:
    """Rows of before an axis have null there; they are read as what they had."""
    store = Store(tmp_path)
    for seed in range(3):
        row = {**trial(seed=seed).row(), "status": "done", "test_acc": 0.5, "sweep": "s"}
        old = dict.fromkeys([*recipe.AXES, "drop_path", "attention"]) if seed == 0 else {}
        store.write("trials", [{**row, **old}], row["trial_id"])
    rows = load(tmp_path)
    assert set(rows["augment"]) == {"none"} and set(rows["recipe"]) == {"published"}
    assert pareto.over_seeds(rows)["seeds"].tolist() == [3]
