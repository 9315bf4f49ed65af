from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from attnsweep.core.bits import unpacked
from attnsweep.tasks.images import datasets, official
from attnsweep.tasks.images import training as images
from attnsweep.tasks.images.training import Data, Split
from attnsweep.tasks.registry import resolve


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """Each test reads its data anew, as another process would."""
    images.load.cache_clear()
    yield


def digits() -> Data:
    return images.load_for(resolve({"model": "vit"}), "nowhere", "cpu")


def rows(*splits: Split) -> np.ndarray:
    """The images and labels of splits as sorted rows of bytes."""
    parts = [torch.cat([split.images.flatten(1), split.labels[:, None]], dim=1) for split in splits]
    content = torch.cat(parts).numpy()
    return content[np.lexsort(content.T)]


class Constant(nn.Module):
    """The same logits for every image."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), -1)


class InFloat64(nn.Module):
    """Logits by a linear map, rounded so little that no image stands between two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1).double())


def test_the_example_is_the_same_each_time_and_the_global_generator_is_left_alone() -> None:
    config, state = resolve({"model": "vit"}), torch.get_rng_state()
    (one,), (other,) = images.example(config, 4), images.example(config, 4)
    assert torch.equal(one, other) and one.shape == (4, 1, 8, 8)
    assert torch.equal(torch.get_rng_state(), state)


# Loading


def test_a_process_reads_a_data_set_once() -> None:
    assert digits() is digits()
    info = images.load.cache_info()
    assert (info.misses, info.hits) == (1, 1)


def test_images_stay_bytes() -> None:
    data = digits()
    for split in (data.train, data.val, data.test):
        assert (split.images.dtype, split.labels.dtype) == (torch.uint8, torch.int64)
        assert split.images.shape == (len(split), 1, 8, 8)


def test_a_tenth_of_the_training_part_is_held_out_for_validation() -> None:
    data = digits()
    assert [len(split) for split in (data.train, data.val, data.test)] == [1294, 144, 359]


def test_training_and_validation_are_disjoint_and_together_the_training_part() -> None:
    data, (pixels, labels) = digits(), official.read(datasets.find("digits"), Path("nowhere"))["train"]
    whole = Split(torch.from_numpy(pixels), torch.from_numpy(labels))
    assert np.array_equal(rows(data.train, data.val), rows(whole))


def test_the_split_depends_on_no_seed() -> None:
    torch.manual_seed(1), np.random.seed(1)
    before = digits()
    images.load.cache_clear()
    torch.manual_seed(2), np.random.seed(2)
    assert torch.equal(digits().val.images, before.val.images)


def test_the_split_is_the_one_that_finished_trials_had() -> None:
    """Another split is another validation accuracy: with it the task's numerics rise."""
    assert digits().val.labels[:16].tolist() == [1, 9, 5, 0, 5, 9, 9, 3, 6, 4, 0, 6, 3, 7, 0, 0]


def test_digits_are_normalised_to_mean_0_and_standard_deviation_1() -> None:
    data = digits()
    normalised = images.inputs(data, data.train.images)
    assert normalised.dtype == torch.float32
    assert normalised.mean().item() == pytest.approx(0, abs=0.01)
    assert normalised.std().item() == pytest.approx(1, abs=0.01)


def test_normalising_is_subtracting_the_mean_and_dividing_by_the_standard_deviation() -> None:
    data, one = digits(), datasets.find("digits")
    assert one.mean is not None and one.std is not None
    expected = (data.val.images.double() / 255 - one.mean[0]) / one.std[0]
    torch.testing.assert_close(images.inputs(data, data.val.images).double(), expected, rtol=1e-5, atol=1e-5)


def test_a_folder_is_normalised_by_its_own_training_images(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    noise = np.random.RandomState(0)
    for label, offset in (("dark", 0), ("light", 100)):
        (tmp_path / label).mkdir()
        for i in range(20):
            pixels = np.uint8(noise.randint(0, 100, (8, 8, 3)) + np.array([offset, 50, 25]))
            Image.fromarray(pixels).save(tmp_path / label / f"{i:02}.png")
    data = images.load(f"folder:{tmp_path}", 8, str(tmp_path_factory.mktemp("data")), "cpu")
    normalised = images.inputs(data, data.train.images)
    assert sum(len(split) for split in (data.train, data.val, data.test)) == 40
    assert normalised.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert normalised.std(dim=(0, 2, 3)).tolist() == pytest.approx([1, 1, 1], abs=1e-3)


def test_images_without_any_contrast_stay_finite(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(10):
            Image.new("RGB", (8, 8), "grey").save(tmp_path / label / f"{i}.png")
    data = images.load(f"folder:{tmp_path}", 8, str(tmp_path_factory.mktemp("data")), "cpu")
    assert images.inputs(data, data.train.images).abs().max().item() < 1e-3


@pytest.mark.data
@pytest.mark.parametrize(("name", "size", "channels"), [("mnist", 28, 1), ("cifar10", 32, 3)])
def test_real_data_is_split_and_normalised(data_dir: Path, name: str, size: int, channels: int) -> None:
    data, tenth = images.load(name, size, str(data_dir), "cpu"), datasets.find(name).train_size // 10
    assert [len(split) for split in (data.train, data.val, data.test)] == [9 * tenth, tenth, 10_000]
    assert data.train.images.shape[1:] == (channels, size, size)
    normalised = images.inputs(data, data.train.images[::10])
    assert normalised.mean(dim=(0, 2, 3)).abs().max().item() < 0.02
    assert (normalised.std(dim=(0, 2, 3)) - 1).abs().max().item() < 0.02


# Batches


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_an_epoch_visits_every_training_image_once() -> None:
    data = digits()
    batches = list(images.batches(data, {"batch_size": 100}, epoch=0, order=generator()))
    assert [len(labels) for _, labels in batches] == [100] * 12 + [94]
    visited, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    expected = images.inputs(data, data.train.images)
    order = torch.randperm(len(data.train), generator=generator())
    torch.testing.assert_close(visited, expected[order])
    assert torch.equal(labels, data.train.labels[order])


def whole_epoch(order: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    return images.batches(digits(), {"batch_size": 1294}, epoch=0, order=order)


def test_the_order_of_an_epoch_is_fixed_by_its_generator_alone() -> None:
    def labels(seed: int) -> list[int]:
        return next(whole_epoch(generator(seed)))[1].tolist()

    torch.manual_seed(1)
    first = labels(0)
    torch.manual_seed(2)
    assert labels(0) == first != labels(1)


def test_two_epochs_of_one_generator_differ_in_order() -> None:
    order = generator()
    first, second = (next(whole_epoch(order))[1] for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, second.sort().values)


# Loss and judgement


def test_the_loss_of_a_model_that_knows_nothing_is_the_logarithm_of_the_classes() -> None:
    batch = next(images.batches(digits(), {"batch_size": 64}, epoch=0, order=generator()))
    assert images.loss(Constant([0.0] * 10), batch, {}).item() == pytest.approx(np.log(10))


def test_a_model_that_always_says_seven_is_right_as_often_as_there_are_sevens() -> None:
    data, logits = digits(), [0.0] * 7 + [2.0] + [0.0] * 2
    with torch.inference_mode():
        judged = images.judge(Constant(logits), data, {})
    sevens = {part: (getattr(data, part).labels == 7).double().mean().item() for part in ("val", "test")}
    total = np.log(9 + np.exp(2))
    right = judged.pop("test_right"), judged.pop("test_examples")
    assert unpacked(*right).tolist() == (data.test.labels == 7).tolist()
    measures = {
        f"{part}_{name}" for part in ("val", "test") for name in ("balanced_acc", "macro_f1", "top5_acc")
    }
    assert judged.keys() == {"val_acc", "test_acc", "val_loss", *measures}
    assert {name: judged[name] for name in ("val_acc", "test_acc", "val_loss")} == pytest.approx(
        {"val_acc": sevens["val"], "test_acc": sevens["test"], "val_loss": total - 2 * sevens["val"]}
    )
    assert judged["test_balanced_acc"] == pytest.approx(0.1)


@pytest.mark.parametrize("judge_batch", [1, 7, 144, 1000])
def test_the_judgement_does_not_depend_on_how_the_split_is_cut(
    judge_batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = digits()
    torch.manual_seed(0)
    model = InFloat64()
    monkeypatch.setattr(images, "JUDGE_BATCH", judge_batch)
    with torch.inference_mode():
        found = images.answers(model, data, data.val)
        logits = model(images.inputs(data, data.val.images))
    right = [int(row.argmax()) == label for row, label in zip(logits, data.val.labels.tolist(), strict=True)]
    surprise = [-row.log_softmax(0)[label].item() for row, label in zip(logits, data.val.labels, strict=True)]
    assert found.hits.tolist() == right and found.measures("val")["val_acc"] == sum(right) / len(right)
    assert found.loss == pytest.approx(sum(surprise) / len(surprise), rel=1e-5)
