import math
from pathlib import Path
from typing import Any

import pytest
import torch

from attnsweep.core.bits import unpacked
from attnsweep.core.trial import Trial
from attnsweep.results.schema import BY_LENGTH, LATENCY_OF_TRIAL, TABLES
from attnsweep.space.trials import make_trial
from attnsweep.tasks.registry import TASKS, procedure, resolve
from attnsweep.training.trial import Options, checkpoint_path, run, weights_path

TINY = dict(depth=1, heads=2, dim=16, dim_head=8, mlp_dim=16, lr=1e-3)
TIMES = {"train_s", "epoch_s", "eval_s", "samples_per_s", "started_at", "finished_at", "peak_mem_mb"}


def tiny(**point: Any) -> Trial:
    return make_trial(resolve({"model": "vit", "epochs": 3, **TINY, **point}), Path("nowhere"))


def events(trial: Trial, **options: Any) -> list[dict[str, Any]]:
    return list(run(trial, Options(data_dir="nowhere", **options)))


def curve(happened: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [epoch for event in happened for epoch in event.get("curve", [])]


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in TIMES}


@pytest.mark.slow
def test_a_trial_ends_with_a_complete_row_and_one_curve_entry_per_epoch() -> None:
    happened = events(tiny())
    row = happened[-1]["row"]
    assert happened[-1]["status"] == "done"
    assert [epoch["epoch"] for epoch in curve(happened)] == [1, 2, 3]
    others = (column for task in TASKS.values() if task.name != "images" for column in task.columns)
    of_others = {column.name for column in others if column.table == "trials" or column.per_epoch}
    names = {column.name for column in TABLES["epochs"]}
    assert names - set(curve(happened)[0]) == {"schema_version"} | of_others & names
    written_by_the_driver = {
        "sweep", "status", "error", "attempts", "git_sha", "git_dirty", "code_hash", "ray", "python",
        "attnsweep", "schema_version",
    }  # fmt: skip
    joined_later = {column.name for column in LATENCY_OF_TRIAL}
    lacking = {column.name for column in TABLES["trials"]} - set(row)
    of_trials = {column.name for column in TABLES["trials"]}
    by_length = {column.name for column in BY_LENGTH}
    assert lacking == written_by_the_driver | joined_later | by_length | of_others & of_trials


@pytest.mark.slow
@pytest.mark.parametrize("model", ["cnn", "vit", "deepvit", "hybrid"])
def test_the_same_trial_twice_gives_the_same_numbers_to_the_bit(model: str) -> None:
    first, second = events(tiny(model=model)), events(tiny(model=model))
    assert timeless(first[-1]["row"]) == timeless(second[-1]["row"])
    assert [timeless(epoch) for epoch in curve(first)] == [timeless(epoch) for epoch in curve(second)]


@pytest.mark.slow
def test_another_seed_gives_other_numbers() -> None:
    losses = {events(tiny(seed=seed, epochs=1))[-1]["row"]["train_loss"] for seed in (0, 1)}
    assert len(losses) == 2


def judged(monkeypatch: pytest.MonkeyPatch, *accuracies: float) -> None:
    """Has the epochs that are trained from now on judged with these accuracies, one after another."""
    epochs = iter(
        {"val_acc": one, "test_acc": 0.1 * n, "val_loss": 1.0, "test_examples": 8, "test_right": bytes([n])}
        for n, one in enumerate(accuracies, 1)
    )

    def judge(*_: object) -> dict[str, float]:
        return next(epochs)

    monkeypatch.setattr(procedure("images"), "judge", judge)


@pytest.mark.slow
def test_the_selected_epoch_is_the_first_with_the_highest_validation_accuracy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged(monkeypatch, 0.5, 0.75, 0.25, 0.75, 0.5)
    row = events(tiny(epochs=5))[-1]["row"]
    assert (row["best_epoch"], row["val_acc"], row["test_acc"], row["test_acc_best"]) == (2, 0.75, 0.2, 0.5)


@pytest.mark.slow
def test_training_learns_real_digits() -> None:
    row = events(tiny(model="cnn", dim=None, epochs=5, lr=1e-3, lr_gamma=1))[-1]["row"]
    assert row["test_acc"] > 0.85
    assert unpacked(row["test_right"], row["test_examples"]).mean() == row["test_acc"]


@pytest.mark.slow
def test_the_learning_rate_falls_by_gamma_after_each_epoch() -> None:
    rates = [epoch["lr"] for epoch in curve(events(tiny(lr=1e-3, lr_gamma=0.5)))]
    assert rates == pytest.approx([1e-3, 5e-4, 2.5e-4])


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_every_optimiser_and_precision_trains(optimizer: str) -> None:
    for precision in ("fp32", "bf16"):
        row = events(tiny(optimizer=optimizer, precision=precision, epochs=1))[-1]["row"]
        assert math.isfinite(row["train_loss"]), (optimizer, precision)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_trial_as_diverged_with_its_curve_so_far(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = procedure("images").loss
    steps = iter(range(10_000))

    def loss(*args: Any) -> torch.Tensor:
        return original(*args) * (math.nan if next(steps) > 50 else 1.0)  # the third epoch has step 51

    monkeypatch.setattr(procedure("images"), "loss", loss)
    happened = events(tiny(epochs=6))
    assert happened[-1]["status"] == "diverged"
    assert "nan in epoch 3" in happened[-1]["row"]["error"]
    assert [epoch["epoch"] for epoch in curve(happened)] == [1, 2]
    assert happened[-1]["row"]["val_acc"] == max(epoch["val_acc"] for epoch in curve(happened))


def test_a_hopeless_learning_rate_diverges_for_real() -> None:
    happened = events(tiny(optimizer="sgd", lr=1e6, epochs=10))
    assert happened[-1]["status"] == "diverged"


@pytest.mark.slow
def test_an_error_inside_a_trial_becomes_a_failed_row_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(*_: object) -> dict[str, float]:
        raise MemoryError("no room for 7 images")

    monkeypatch.setattr(procedure("images"), "judge", judge)
    last = events(tiny())[-1]
    assert last["status"] == "failed"
    assert "no room for 7 images" in last["row"]["error"]
    assert last["row"]["trial_id"] == tiny().trial_id


@pytest.mark.slow
def test_a_trial_that_is_cut_off_goes_on_from_its_checkpoint_to_the_same_numbers(tmp_path: Path) -> None:
    trial, options = tiny(epochs=4), Options(data_dir="nowhere", runs_dir=str(tmp_path), checkpoint_s=0)
    whole = events(trial)
    cut = run(trial, options)
    for _ in range(2):
        next(cut)
    cut.close()
    rest = list(run(trial, options))
    assert rest[0]["epoch"] == 3, "two epochs were done before"
    assert [epoch["epoch"] for epoch in rest[0]["curve"]] == [1, 2, 3], (
        "the first event repeats the earlier epochs"
    )
    assert timeless(rest[-1]["row"]) == timeless(whole[-1]["row"])
    assert rest[-1]["row"]["train_s"] > sum(epoch["epoch_s"] for epoch in curve(rest)[2:])


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"PK torn", b"\x80\x04."])
def test_a_checkpoint_that_cannot_be_read_is_skipped(tmp_path: Path, content: bytes) -> None:
    trial, options = tiny(epochs=1), Options(data_dir="nowhere", runs_dir=str(tmp_path))
    path = Path(str(checkpoint_path(trial, options)))
    path.parent.mkdir()
    path.write_bytes(content)
    assert timeless(list(run(trial, options))[-1]["row"]) == timeless(events(trial)[-1]["row"])


@pytest.mark.slow
def test_a_hostile_checkpoint_runs_no_code(tmp_path: Path) -> None:
    trial, options = tiny(epochs=1), Options(data_dir="nowhere", runs_dir=str(tmp_path))
    path, mark = Path(str(checkpoint_path(trial, options))), tmp_path / "ran"
    path.parent.mkdir()

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (mark,)

    torch.save({"model": Hostile()}, path)
    assert list(run(trial, options))[-1]["status"] == "done"
    assert not mark.exists()


def kept_weights(trial: Trial, runs: Path, *, cut_after: int = 0) -> tuple[int, dict[str, torch.Tensor]]:
    """The selected epoch of a trial and the weights that it leaves; it is cut off once, and goes on."""
    options = Options(data_dir="nowhere", runs_dir=str(runs), keep_weights=True, checkpoint_s=0)
    begun = run(trial, options)
    for _ in range(cut_after):
        next(begun)
    begun.close()
    row = list(run(trial, options))[-1]["row"]
    return row["best_epoch"], torch.load(weights_path(runs, trial.trial_id), weights_only=True)


@pytest.mark.slow
def test_the_weights_that_are_kept_are_those_of_the_selected_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the trial was cut off after that epoch: a trial that ends there has the same ones."""
    judged(monkeypatch, 0.5, 0.75, 0.25, 0.75, 0.5, 0.25)
    selected, weights = kept_weights(tiny(epochs=6), tmp_path / "long", cut_after=5)
    judged(monkeypatch, 0.5, 0.75)
    last, same = kept_weights(tiny(epochs=2), tmp_path / "short")
    assert last == selected == 2
    assert all(torch.equal(weights[name], same[name]) for name in weights)


@pytest.mark.slow
@pytest.mark.parametrize("cut_after", [0, 1, 3])
def test_which_examples_were_right_is_kept_of_the_selected_epoch_even_where_it_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_after: int
) -> None:
    trial = tiny(epochs=5)
    options = Options(data_dir="nowhere", runs_dir=str(tmp_path), checkpoint_s=0)
    judged(monkeypatch, 0.5, 0.75, 0.25, 0.75, 0.5)
    begun = run(trial, options)
    for _ in range(cut_after):
        next(begun)
    begun.close()
    happened = list(run(trial, options))
    assert happened[-1]["row"]["test_right"] == bytes([2])
    assert not any("test_right" in epoch for epoch in curve(happened)), "it would be most of the curves' size"


@pytest.mark.slow
def test_a_checkpoint_that_keeps_what_it_should_not_is_skipped(tmp_path: Path) -> None:
    trial = tiny(epochs=2)
    options = Options(data_dir="nowhere", runs_dir=str(tmp_path), checkpoint_s=0)
    begun = run(trial, options)
    next(begun)
    begun.close()
    path = Path(str(checkpoint_path(trial, options)))
    state = torch.load(path, weights_only=True)
    for kept in ({"val_acc": 1.0}, {"test_right": 3.5}):
        torch.save({**state, "of_selected": kept}, path)
        assert [epoch["epoch"] for epoch in next(run(trial, options))["curve"]] == [1]


@pytest.mark.slow
def test_weights_are_left_only_where_they_are_wanted(tmp_path: Path) -> None:
    trial = tiny(epochs=1)
    list(run(trial, Options(data_dir="nowhere", runs_dir=str(tmp_path))))
    assert not Path(weights_path(tmp_path, trial.trial_id)).exists()
