import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from attnsweep.cli import export
from attnsweep.core.errors import UserError
from attnsweep.core.runtimes import PACKAGES
from attnsweep.results.store import Row, Store
from attnsweep.space.trials import make_trial
from attnsweep.tasks.images.training import load_for
from attnsweep.tasks.registry import build, resolve
from attnsweep.training.deployed import Raw, deployed, raw_of
from attnsweep.training.trial import Options, run

from commands import PATIENCE_S

CNN = {"model": "cnn", "dataset": "digits", "epochs": 1, "batch_size": 32, "lr": 2e-3}
VIT = {
    **{
        "model": "vit",
        "dataset": "digits",
        "epochs": 2,
        "batch_size": 8,
        "lr": 4e-3,
        "dropout": 0.0,
        "emb_dropout": 0.0,
    },
    **{"depth": 1, "heads": 2, "dim": 16, "dim_head": 8, "mlp_dim": 32},
}


def finish(folder: Path, *, keep_weights: bool = True, **point: Any) -> Row:
    """Runs a trial and writes its row, as a sweep does."""
    trial = make_trial(resolve(point), folder)
    options = Options(data_dir=str(folder), runs_dir=str(folder / "runs"), keep_weights=keep_weights)
    event = list(run(trial, options))[-1]
    row = {**event["row"], "status": event["status"], "sweep": "s", "attempts": 1}
    Store(folder / "results").write("trials", [row], trial.trial_id)
    return row


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Row]]:
    """A folder with results and weights of a trial of each model."""
    folder = tmp_path_factory.mktemp("done")
    return folder, {point["model"]: finish(folder, **point) for point in (CNN, VIT)}


def exported(folder: Path, trial_id: str, file: Path, *options: str) -> None:
    results = str(folder / "results")
    assert export.main([trial_id, str(file), "--results", results, "--data", str(folder), *options]) == 0


def run_lines(printed: str, folder: Path) -> str:
    """What Python says to the printed lines alone."""
    script = folder / "run.py"
    script.write_text(printed.partition("To run it:")[2])
    done = subprocess.run(
        [sys.executable, script], cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("model", ["cnn", "vit"])
def test_a_file_gives_the_trials_test_accuracy_to_the_image_by_onnx_runtime_alone(
    model: str, done: tuple[Path, dict[str, Row]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, rows = done
    file = tmp_path / "model.onnx"
    exported(folder, rows[model]["trial_id"], file)
    assert run_lines(capsys.readouterr().out, tmp_path).strip() in {str([str(n)]) for n in range(10)}
    session = onnxruntime.InferenceSession(file)
    test = load_for(resolve(CNN), str(folder), "cpu").test
    assert test.images.dtype == torch.uint8
    (logits,) = session.run(None, {"images": test.images.numpy()})
    right = int((logits.argmax(axis=1) == test.labels.numpy()).sum())
    assert right == round(rows[model]["test_acc"] * len(test)) and right > 0.15 * len(test)
    known = session.get_modelmeta().custom_metadata_map
    assert json.loads(known["classes"]) == [str(n) for n in range(10)]
    assert (known["trial_id"], known["arch_id"]) == (rows[model]["trial_id"], rows[model]["arch_id"])


@pytest.mark.slow
def test_a_file_of_torch_export_runs_by_the_lines_that_are_printed(
    done: tuple[Path, dict[str, Row]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, rows = done
    exported(folder, rows["vit"]["trial_id"][:6], tmp_path / "model.pt2")
    assert run_lines(capsys.readouterr().out, tmp_path).strip() in {str([str(n)]) for n in range(10)}


@pytest.mark.slow
def test_without_kept_weights_the_trial_is_trained_again_to_the_same_numbers(
    done: tuple[Path, dict[str, Row]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, rows = done
    again = finish(tmp_path, keep_weights=False, **CNN)
    exported(folder, rows["cnn"]["trial_id"], tmp_path / "kept.onnx")
    exported(tmp_path, again["trial_id"], tmp_path / "again.onnx")
    assert "it is trained again" in capsys.readouterr().out
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)
    one, other = (
        onnxruntime.InferenceSession(tmp_path / name).run(None, {"images": images})[0]
        for name in ("kept.onnx", "again.onnx")
    )
    assert np.array_equal(one, other)


# What cannot be


def refused(done: tuple[Path, dict[str, Row]], file: Path, *, trial_id: str | None = None) -> str:
    folder, rows = done
    with pytest.raises(UserError) as raised:
        exported(folder, trial_id or rows["cnn"]["trial_id"], file)
    return str(raised.value)


@pytest.mark.slow
def test_bad_input_is_a_sentence(done: tuple[Path, dict[str, Row]], tmp_path: Path) -> None:
    there, link = tmp_path / "there.onnx", tmp_path / "link.onnx"
    there.write_text("mine")
    link.symlink_to(tmp_path / "elsewhere")
    assert "there is no trial 'zzz'" in refused(done, tmp_path / "model.onnx", trial_id="zzz")
    for given, better in (("model.tf", "model"), ("m.ONNX", "m"), (".onnx", "model"), ("", "model")):
        said = f"is neither NAME.onnx nor NAME.pt2; call it {better}.onnx"
        assert refused(done, Path(given)) == f"{Path(given)} {said}"
    assert "there.onnx is there already; give another name, or --overwrite" in refused(done, there)
    assert "link.onnx is there already" in refused(done, link)
    assert "is no folder; make it first" in refused(done, tmp_path / "none" / "model.onnx")
    assert "~nobody_ is no folder; make it first" in refused(done, Path("~nobody_/model.onnx"))
    assert "cannot be written (File name too long)" in refused(done, tmp_path / f"{'a' * 300}.onnx")
    assert "/proc/model.onnx cannot be written" in refused(done, Path("/proc/model.onnx"))
    folder, rows = done
    for status, error in (("stopped", None), ("failed", "ValueError: no")):
        row = {**rows["vit"], "trial_id": status, "status": status, "error": error}
        Store(folder / "results").write("trials", [row], status)
    stopped = "trial stopped stopped; choose one that is done"
    assert refused(done, tmp_path / "model.onnx", trial_id="stopped") == stopped
    failed = refused(done, tmp_path / "model.onnx", trial_id="failed")
    assert failed == "trial failed failed (ValueError: no); choose one that is done"
    assert there.read_text() == "mine" and not (tmp_path / "elsewhere").exists()


@pytest.mark.slow
def test_a_link_is_replaced_and_not_followed(done: tuple[Path, dict[str, Row]], tmp_path: Path) -> None:
    folder, rows = done
    (tmp_path / "other").write_text("theirs")
    (link := tmp_path / "model.onnx").symlink_to(tmp_path / "other")
    exported(folder, rows["cnn"]["trial_id"], link, "--overwrite")
    assert not link.is_symlink() and (tmp_path / "other").read_text() == "theirs"


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_told_before_anything_is_trained(
    done: tuple[Path, dict[str, Row]], tmp_path: Path
) -> None:
    tmp_path.chmod(0o500)
    assert "cannot be written (Permission denied)" in refused(done, tmp_path / "model.onnx")


@pytest.mark.slow
def test_a_missing_package_is_told_with_the_extra_that_brings_it(
    done: tuple[Path, dict[str, Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGES, "onnx", (("no-such-package",),))
    assert "pip install 'attnsweep[onnx]'" in refused(done, tmp_path / "model.onnx")


def test_what_decodes_token_by_token_is_no_file() -> None:
    config = resolve({"model": "transformer", "length": 4})
    with pytest.raises(UserError, match="transformer cannot be exported: its answer is decoded token by"):
        raw_of(nn.Identity(), config, Path(), None)


class Looking(nn.Module):
    """Decides by what it sees."""

    def forward(self, images: Tensor) -> Tensor:
        return images * 2.0 if images.float().mean() > 0 else images * 3.0


class Single(nn.Module):
    """Takes one image at a time."""

    def forward(self, images: Tensor) -> Tensor:
        return images.reshape(4).float() * 2


def raw(model: nn.Module) -> Raw:
    return Raw(model.eval(), lambda batch: {"images": torch.ones(batch, 4, dtype=torch.uint8)}, "logits")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_model_that_no_exporter_can_follow_is_refused(
    suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"the model cannot be exported: torch.*cannot follow it"):
        deployed(raw(Looking()), suffix=suffix, metadata={})
    assert capfd.readouterr() == ("", ""), "torch prints what it has of a graph"


ENDLESS = """
import os, time, torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self, num_classes: int, dies: bool = False):
        super().__init__(nn.Flatten(), nn.Linear(64, num_classes))
        self.dies = dies

    def forward(self, x):
        if torch.compiler.is_exporting():
            os._exit(3) if self.dies else time.sleep(99)
        return super().forward(x)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "dies", "sentence"),
    [(1.0, False, "torch.export took longer than 1 s"), (99.0, True, "its process ended with status 3")],
    ids=["hangs", "dies"],
)
def test_an_exporter_that_comes_to_no_end_or_dies_is_a_sentence(
    seconds: float, dies: bool, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attnsweep.training.deployed.EXPORT_S", seconds)
    (file := tmp_path / "mine.py").write_text(ENDLESS)
    row = finish(tmp_path, model=f"{file}:Net", dies=dies, dataset="digits", epochs=1)
    with pytest.raises(UserError, match=f"cannot be exported: {sentence}"):
        exported(tmp_path, row["trial_id"], tmp_path / "model.pt2")
    assert not (tmp_path / "model.pt2").exists()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_model_that_takes_one_example_is_a_file_for_one(suffix: str) -> None:
    assert not deployed(raw(Single()), suffix=suffix, metadata={}).any_batch
    assert deployed(raw(nn.Flatten()), suffix=suffix, metadata={}).any_batch


@pytest.mark.slow
def test_a_planner_takes_its_sensors_and_gives_all_that_it_predicts_by_name() -> None:
    sizes = {"dim": 32, "depth": 1, "heads": 2, "mlp_dim": 32}
    config = resolve({"model": "planning", "dataset": "driving:small", **sizes})
    made = deployed(raw_of(build(config).eval(), config, Path(), None), suffix=".onnx", metadata={"a": "b"})
    session = onnxruntime.InferenceSession(made.content)
    assert [one.name for one in session.get_inputs()] == ["bev", "route", "command", "ego_state"]
    assert {"plan", "agents.box", "occupancy"} <= {one.name for one in session.get_outputs()}
