"""Attention maps: what is collected, how it is rolled out, where it lies in the image, and the figures."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from PIL import Image
from torch import Tensor, nn

from attnsweep.figures import attention as script
from attnsweep.nn.attention import attention_maps
from attnsweep.results.store import Row, Store
from attnsweep.space.trials import make_trial
from attnsweep.tasks.images.models.cnn import convolutions
from attnsweep.tasks.images.models.maps import Tiling, over_patches, patch_maps, rollout, tiling
from attnsweep.tasks.registry import build, resolve
from attnsweep.tasks.sequences import training as sequences
from attnsweep.tasks.sequences.problems import BEGIN, END, FIRST, PAD, PROBLEMS, sign
from attnsweep.training.trial import Options, run, weights_path

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = dict(depth=3, heads=2, dim=16, dim_head=8, mlp_dim=16)
TINY_VIT: dict[str, Any] = dict(model="vit", dataset="digits", **{**SMALL, "depth": 2}, lr=1e-3, epochs=2)
TINY_REVERSE: dict[str, Any] = dict(
    model="transformer",
    dataset="reverse",
    length=3,
    depth=2,
    heads=2,
    dim=16,
    mlp_dim=16,
    epochs=1,
    batch_size=500,
)


def random_maps(blocks: int = 4, *, tokens: int = 5) -> list[Tensor]:
    """Weights (2, 3, n, n) of each block, in float64."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, tokens, tokens)
    scores = (torch.randn(shape, generator=generator, dtype=torch.float64) * 3 for _ in range(blocks))
    return [one.softmax(dim=-1) for one in scores]


def collected(model: nn.Module, images: Tensor) -> list[Tensor]:
    with patch_maps(model) as maps, torch.no_grad():
        model(images)
    return list(maps.values())


def images_of(config: dict[str, Any], count: int = 2) -> Tensor:
    shape = (count, config["channels"], config["image_size"], config["image_size"])
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


# Rollout


def test_rollout_sums_over_every_path_through_the_blocks() -> None:
    """Brute force: from an output token back to an input token, a token of each block on the way, each step
    half attention and half the residual connection.
    """
    maps, n = random_maps(3, tokens=4), 4

    def step(block: int, example: int, to: int, source: int) -> float:
        heads = [maps[block][example, head, to, source].item() for head in range(3)]
        return 0.5 * sum(heads) / 3 + 0.5 * (to == source)

    rolled = rollout(maps)
    for example in range(2):
        for to in range(n):
            for source in range(n):
                paths = (
                    step(2, example, to, a) * step(1, example, a, b) * step(0, example, b, source)
                    for a in range(n)
                    for b in range(n)
                )
                assert rolled[example, to, source].item() == pytest.approx(sum(paths), abs=1e-12)


def test_rows_of_a_rollout_sum_to_one_and_nothing_is_negative() -> None:
    rolled = rollout(random_maps(7))
    torch.testing.assert_close(rolled.sum(dim=-1), torch.ones(2, 5, dtype=torch.float64))
    assert (rolled >= 0).all()


@pytest.mark.parametrize("blocks", [1, 2, 6])
def test_uniform_attention_rolls_out_uniformly_but_for_what_the_residuals_keep(blocks: int) -> None:
    uniform = torch.full((1, 2, 10, 10), 0.1, dtype=torch.float64)
    kept = 2.0**-blocks
    expected = kept * torch.eye(10, dtype=torch.float64) + (1 - kept) * uniform[:, 0]
    rolled = rollout([uniform] * blocks)
    torch.testing.assert_close(rolled, expected)
    patches = over_patches(rolled)
    torch.testing.assert_close(patches, torch.full((1, 3, 3), (1 - kept) / 10, dtype=torch.float64))


def test_the_map_is_the_class_tokens_row_laid_out_as_the_patches_lie() -> None:
    tokens = torch.zeros(1, 17, 17)
    tokens[0, 0] = torch.arange(-1, 16)
    assert over_patches(tokens)[0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]


# Collecting


def by_hand(model: Any, images: Tensor) -> list[Tensor]:
    """softmax(Q K^T / sqrt(d)) of every block, from its module's weights and the tokens that reach it."""
    inputs: list[Tensor] = []
    layers = (model[1] if isinstance(model, nn.Sequential) else model).transformer.layers
    hooks = [one.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for one, _ in layers]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    maps = []
    for (attention, _), tokens in zip(layers, inputs, strict=True):
        queries, keys, _ = attention.to_qkv.weight.chunk(3)
        q, k = (
            rearrange(attention.norm(tokens) @ part.T, "b n (h d) -> b h n d", h=attention.heads)
            for part in (queries, keys)
        )
        scores = torch.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(q.shape[-1])
        maps.append(scores.exp() / scores.exp().sum(dim=-1, keepdim=True))
    return maps


@pytest.mark.parametrize("model", ["vit", "hybrid", "deepvit"])
def test_the_maps_are_the_softmax_of_queries_and_keys_computed_by_hand(model: str) -> None:
    torch.manual_seed(0)
    config = resolve({"model": model, "dataset": "digits", **SMALL})
    net, images = build(config).eval().double(), images_of(config).double()
    maps = collected(net, images)
    assert len(maps) == config["depth"]
    torch.testing.assert_close(maps, by_hand(net, images))


def test_collecting_changes_no_output_and_leaves_no_hook() -> None:
    config = resolve({"model": "vit", "dataset": "digits", **SMALL})
    model, images = build(config).eval(), images_of(config)
    with torch.no_grad():
        before = model(images)
        with patch_maps(model) as maps:
            assert torch.equal(model(images), before)
        maps.clear()
        model(images)
    assert not maps


def test_the_fused_kernel_is_refused_by_whoever_collects() -> None:
    model = build(resolve({"model": "vit", "dataset": "digits", "attention": "fused", **SMALL}))
    with pytest.raises(TypeError, match="build the model with attention='explicit'"), patch_maps(model):
        pass


@pytest.mark.parametrize("heads", [1, 4])
def test_after_re_attention_the_mean_over_heads_of_a_fresh_deepvit_is_nothing(heads: int) -> None:
    """Why its maps are taken before."""
    config = resolve({"model": "deepvit", "dataset": "digits", **{**SMALL, "heads": heads}})
    model: Any = build(config).eval()
    mixed: list[Tensor] = []
    for attention, _ in model.transformer.layers:
        attention.reattn_norm.register_forward_hook(lambda _, __, output: mixed.append(output))
    before = collected(model, images_of(config))
    for weights in mixed:
        torch.testing.assert_close(weights.mean(dim=1), torch.zeros_like(weights[:, 0]))
    assert heads == 1 or all((weights < 0).any() for weights in mixed)
    assert all((weights >= 0).all() for weights in before)


# Where the patches lie


@pytest.mark.parametrize("model", ["vit", "deepvit", "hybrid"])
@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10"])
@pytest.mark.parametrize("geometry", ["image", "published"])
def test_there_are_as_many_tiles_as_patches_and_they_lie_inside(
    model: str, dataset: str, geometry: str
) -> None:
    config = resolve({"model": model, "dataset": dataset, "geometry": geometry, **SMALL, "depth": 1})
    tiles = tiling(config)
    (weights,) = collected(build(config).eval(), images_of(config, 1))
    assert weights.shape[-1] == 1 + tiles.count**2
    assert 0 <= tiles.start - tiles.margin and tiles.end + tiles.margin <= config["image_size"]


@pytest.mark.parametrize("size", [28, 31])
@pytest.mark.parametrize("patch", [1, 3])
def test_a_patch_of_the_hybrid_sees_the_tile_and_its_margin_and_nothing_else(size: int, patch: int) -> None:
    """By brute force: which pixels change anything in a patch of the feature map when they change."""
    torch.manual_seed(0)
    tiles = tiling({"model": "hybrid", "patch_size": patch, "image_size": size})
    net = convolutions(1).double()
    image = torch.randn(1, 1, size, size, dtype=torch.float64)
    for row, column in ((0, 0), (1, 2), (tiles.count - 1, 0)):
        above, left = (tiles.start + tiles.step * i - tiles.margin for i in (row, column))
        width = tiles.step + 2 * tiles.margin
        outside = torch.ones(size, size, dtype=torch.bool)
        outside[above : above + width, left : left + width] = False
        rows, columns = (slice(i * patch, (i + 1) * patch) for i in (row, column))
        before = net(image)[..., rows, columns]
        assert torch.equal(net(torch.where(outside, image + 5, image))[..., rows, columns], before)
        for corner in ((above, left), (above + width - 1, left + width - 1)):
            changed = image.clone()
            changed[0, 0, *corner] += 50
            assert not torch.equal(net(changed)[..., rows, columns], before)


# Signs


def test_tokens_are_written_as_people_write_them() -> None:
    def text(name: str, tokens: list[int]) -> str:
        return "".join(sign(PROBLEMS[name], token) for token in tokens)

    assert text("reverse", [BEGIN, FIRST, FIRST + 9, END, PAD]) == "09end"
    assert text("addition", [FIRST + 1, FIRST + 10, FIRST + 2]) == "1+2"
    assert sign(PROBLEMS["sort"], FIRST + 31) == "31"


def test_an_answer_of_dyck_closes_what_its_question_opens() -> None:
    problem = PROBLEMS["dyck"]
    question, answer = problem.draw(np.full(50, 9), np.random.default_rng(0))
    for asked, closing in zip(question.tolist(), answer.tolist(), strict=True):
        text = "".join(sign(problem, token) for token in [*asked, *closing] if token > END)
        while (shorter := re.sub(r"\(\)|\[\]|\{\}|<>", "", text)) != text:
            text = shorter
        assert text == ""


# The script


def finish(folder: Path, *, keep_weights: bool = True, data: str = "nowhere", **point: Any) -> Row:
    """Runs a trial and writes its row, as a sweep does."""
    trial = make_trial(resolve(point), Path(data))
    options = Options(data_dir=data, runs_dir=str(folder / "runs"), keep_weights=keep_weights)
    event = list(run(trial, options))[-1]
    row = {**event["row"], "status": event["status"], "sweep": "s", "attempts": 1}
    Store(folder / "results").write("trials", [row], trial.trial_id)
    return row


def called(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str
) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of the script."""
    argv = ["attention.py", *arguments, "--results", str(folder / "results"), "--data", "nowhere"]
    monkeypatch.setattr("sys.argv", argv)
    status = script.main()
    return status, *capsys.readouterr()


@pytest.fixture(scope="module")
def vit_trial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Row]:
    """The folder and the row of a tiny ViT with the fused kernel."""
    folder = tmp_path_factory.mktemp("vit")
    return folder, finish(folder, attention="fused", **TINY_VIT)


def model_of(folder: Path, row: Row) -> tuple[Any, dict[str, Any]]:
    """The model that the script draws, and its configuration."""
    found = script.find_trial(str(folder / "results"), row["trial_id"])
    one = script.trial_of(found, Path("nowhere"))
    model = script.trained(found, one, runs=folder / "runs", data=Path("nowhere"), attention="explicit")
    return model, one.config


def test_a_trial_with_fused_kernels_gives_the_maps_of_its_own_model(vit_trial: tuple[Path, Row]) -> None:
    folder, row = vit_trial
    model, config = model_of(folder, row)
    fused = build(config).eval()
    fused.load_state_dict(torch.load(weights_path(folder / "runs", row["trial_id"]), weights_only=True))
    assert config["attention"] == "fused"
    model, fused, images = model.double(), fused.double(), images_of(config).double()
    torch.testing.assert_close(collected(model, images), by_hand(fused, images))
    with torch.no_grad():
        torch.testing.assert_close(model(images), fused(images))


@pytest.mark.parametrize("attention", ["linear", "differential", "gated", "sigmoid", "fused"])
def test_the_maps_of_a_vit_of_our_pieces_are_those_of_its_weights(attention: str) -> None:
    config = resolve({**TINY_VIT, "attention": attention, "qk_norm": "rms", "kv_heads": 1})
    torch.manual_seed(0)
    model = build(config).eval()
    shown = script.pictures(model, config, Path("nowhere"), 3)
    images = script.images.load_for(config, "nowhere", "cpu")
    with attention_maps(model) as maps, torch.no_grad():
        chosen = script.of_all_classes(images.test.labels, 3)
        model(script.images.inputs(images, images.test.images[chosen]))
    mixed = [torch.eye(maps[name].shape[-1]) + maps[name].mean(dim=1) for name in maps]
    first, second = (one / one.sum(dim=-1, keepdim=True) for one in mixed)
    wanted = (second @ first)[:, 0, 1:]
    wanted = wanted / wanted.mean(dim=-1, keepdim=True)
    found = torch.tensor(np.stack([picture.rollout.reshape(-1) for picture in shown]))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    figure = script.draw_pictures(shown, make_trial(config, Path("nowhere")), 0.5)
    assert script.OF_ATTENTION.get(attention, "") in figure.texts[-1].get_text().replace("\n", " ")


@pytest.mark.parametrize("attention", ["linear", "differential"])
def test_a_transformer_of_other_depths_is_drawn_with_its_decoders_blocks(attention: str) -> None:
    config = resolve({**TINY_REVERSE, "attention": attention, "decoder_depth": 3})
    model: Any = build(config).eval()
    (shown,) = script.readings(model, config, 1)
    assert len(shown.maps) == 3
    assert len(script.draw_readings([shown], make_trial(config, Path("nowhere")), 0.5).axes) == 4


def test_a_picture_has_the_image_its_labels_and_multiples_of_the_mean_patch(
    vit_trial: tuple[Path, Row],
) -> None:
    model, config = model_of(*vit_trial)
    shown = script.pictures(model, config, Path("nowhere"), 1_000)
    data = script.images.load_for(config, "nowhere", "cpu")
    assert len(shown) == len(data.test), "there are no more"
    assert [picture.truth for picture in shown] == data.test.labels.tolist()
    right = np.mean([picture.truth == picture.predicted for picture in shown])
    assert right == pytest.approx(
        vit_trial[1]["test_acc"], abs=2.5 / len(shown)
    )  # its layers round otherwise
    assert all(picture.rollout.mean() == pytest.approx(1, abs=1e-5) for picture in shown)
    assert np.array_equal(shown[3].image[..., 0] * 255, data.test.images[3, 0].numpy())


def test_weights_that_were_kept_are_drawn_and_lost_ones_are_trained_again_to_the_same_figure(
    vit_trial: tuple[Path, Row], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder, row = vit_trial
    with monkeypatch.context() as patch:
        patch.setattr("attnsweep.training.trial.run", None)  # nothing may be trained
        status, out, err = called(capsys, patch, folder, row["trial_id"][:6])
    assert (status, err) == (0, "")
    path = folder / f"figures/attention-{row['trial_id']}"
    assert out == f"wrote {path}.svg\nwrote {path}.png\n"
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")

    again = finish(tmp_path, keep_weights=False, attention="fused", **TINY_VIT)
    status, out, _ = called(capsys, monkeypatch, tmp_path, again["trial_id"])
    assert status == 0
    assert out.startswith(f"No weights were kept of trial {row['trial_id']}, so it is trained again (2")
    assert "not quite the same" not in out
    assert list((tmp_path / "figures").iterdir())
    assert not Path(weights_path(tmp_path / "runs", again["trial_id"])).exists()
    assert (tmp_path / f"figures/{path.name}.svg").read_bytes() == path.with_suffix(".svg").read_bytes()


def test_a_model_that_comes_out_differently_the_second_time_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = finish(tmp_path, keep_weights=False, **{**TINY_VIT, "epochs": 1})
    Store(tmp_path / "results").update_trials({row["trial_id"]: {"test_acc": 0.99}})
    status, out, _ = called(capsys, monkeypatch, tmp_path, row["trial_id"])
    assert status == 0
    assert f"its test_acc is {row['test_acc']:.4f}, where its row says 0.9900" in out


@pytest.fixture(scope="module")
def reverse_trial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Row]:
    """The folder and the row of a tiny transformer."""
    folder = tmp_path_factory.mktemp("reverse")
    return folder, finish(folder, **TINY_REVERSE)


def test_a_row_of_a_matrix_is_what_the_decoder_read_when_it_wrote_that_sign(
    reverse_trial: tuple[Path, Row],
) -> None:
    """Each sign follows anew from those that were written before it."""
    model, config = model_of(*reverse_trial)
    (reading,) = script.readings(model, config, 1)
    question = sequences.load_for(config, "", "cpu").held_out["test"][0][:1]
    tokens = {
        sign(PROBLEMS["reverse"], token): token for token in range(END, PROBLEMS["reverse"].num_classes)
    }
    written = [BEGIN]
    for i, text in enumerate(reading.written):
        with attention_maps(model) as maps, torch.no_grad():
            logits = model(question, torch.tensor([written]))[0, -1]
        for block in range(2):
            now = maps[f"decoder.{block}.cross_attention"][0, :, -1].mean(dim=0)
            torch.testing.assert_close(torch.from_numpy(reading.maps[block, i]), now, atol=1e-4, rtol=0)
        logits[[PAD, BEGIN]] = -torch.inf
        written.append(tokens[text])
        assert logits[written[-1]] >= logits.max() - 1e-4, "nothing is more probable but by rounding"
    assert reading.maps.shape == (2, len(reading.written), 3)
    np.testing.assert_allclose(reading.maps.sum(axis=-1), 1, rtol=1e-5)
    assert reading.answer == (*reading.question[::-1], "end")


def test_the_figure_of_a_transformer_names_the_signs_of_questions_and_answers(
    reverse_trial: tuple[Path, Row], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, row = reverse_trial
    status, _, err = called(capsys, monkeypatch, folder, row["trial_id"], "--examples", "2")
    assert (status, err) == (0, "")
    assert {path.suffix for path in (folder / "figures").iterdir()} == {".svg", ".png"}
    model, config = model_of(folder, row)
    shown = script.readings(model, config, 2)
    one = make_trial(config, Path("nowhere"))
    panels = script.draw_readings(shown, one, row["test_acc"]).axes[:4]
    for axes, (block, reading) in zip(panels, [(b, r) for b in (0, 1) for r in shown], strict=True):
        assert tuple(label.get_text() for label in axes.get_xticklabels()) == reading.question
        assert tuple(label.get_text() for label in axes.get_yticklabels()) == reading.written
        assert np.array_equal(axes.images[0].get_array(), reading.maps[block])


def test_what_was_written_wrong_is_red_also_beyond_the_end_of_the_answer() -> None:
    one = make_trial(resolve(TINY_REVERSE), Path("nowhere"))
    maps = np.full((2, 4, 2), 0.5)
    wrong = script.Reading(("1", "2"), ("2", "1", "end"), ("2", "2", "2", "end"), maps)
    axes = script.draw_readings([wrong], one, 0.5).axes[0]
    colours = [label.get_color() for label in axes.get_yticklabels()]
    assert colours == [script.INK, script.WRONG, script.WRONG, script.WRONG]
    assert axes.get_title(loc="left") == "should be\n2 1"


def test_a_patch_is_painted_where_it_lies_and_ink_stays_dark() -> None:
    colours = ScalarMappable(Normalize(0, 2), script.LinearSegmentedColormap.from_list("", ["white", "red"]))
    image = np.zeros((8, 8, 1))
    image[3, 4] = 1
    picture = script.Picture(image, 0, 0, np.array([[0.0, 2.0], [0.0, 0.0]]))
    painted = script.overlaid(picture, Tiling(start=2, step=2, count=2, margin=2), colours)
    red = np.zeros((8, 8), dtype=bool)
    red[2:4, 4:6] = True
    red[3, 4] = False
    assert np.allclose(painted[red], to_rgb("red"))
    assert painted[3, 4].max() < 0.5 and painted[3, 4].argmax() == 0
    red[3, 4] = True
    assert np.allclose(painted[~red], 1)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_number_of_examples_stays_inside_the_figure_with_wrong_predictions_in_red(count: int) -> None:
    one = make_trial(resolve(TINY_VIT), Path("nowhere"))
    rng = np.random.default_rng(0)
    shown = [script.Picture(rng.random((8, 8, 1)), 3, 3 + (i == 0), rng.random((4, 4))) for i in range(count)]
    figure = script.draw_pictures(shown, one, 0.5)
    figure.canvas.draw()
    texts = [text for part in (figure, *figure.axes) for text in part.texts]
    assert all(figure.bbox.x0 <= t.get_window_extent().x0 and t.get_window_extent().x1 <= figure.bbox.x1
               for t in texts)  # fmt: skip
    verdicts = {text.get_text(): text.get_color() for text in texts if "predicted" in text.get_text()}
    assert verdicts["predicted 4"] == script.WRONG and verdicts.get("predicted 3") != script.WRONG


def test_a_folder_is_drawn_with_images_of_all_its_classes_and_their_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["a class with a long name", "$^$", "round"]
    for label in names:
        (tmp_path / "shapes" / label).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (8, 8), (9 * i, 0, 0)).save(tmp_path / f"shapes/{label}/{i:02}.png")
    data = {"dataset": f"folder:{tmp_path / 'shapes'}", "image_size": 8}
    row = finish(tmp_path, **{**TINY_VIT, **data, "epochs": 1})
    status, _, err = called(capsys, monkeypatch, tmp_path, row["trial_id"], "--examples", "5")
    assert (status, err) == (0, "")
    model, config = model_of(tmp_path, row)
    shown = script.pictures(model, config, Path("nowhere"), 5)
    assert [picture.truth for picture in shown] == [0, 0, 1, 1, 2]
    figure = script.draw_pictures(shown, make_trial(config, Path("nowhere")), row["test_acc"])
    texts = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"class a class with\N{HORIZONTAL ELLIPSIS}", "class $^$", "class round"} <= texts


def test_classes_are_drawn_in_turn() -> None:
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    assert [script.of_all_classes(labels, n).tolist() for n in (1, 3, 4, 9)] == [
        [0], [0, 3, 4], [0, 1, 3, 4], [0, 1, 2, 3, 4, 5],
    ]  # fmt: skip


# Refusals


def refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str
) -> str:
    """What the script says when it refuses, after its name: one line."""
    status, out, err = called(capsys, monkeypatch, folder, *arguments)
    assert (status, out, err.count("\n"), err[:11]) == (2, "", 1, "attnsweep: ")
    return err.removeprefix("attnsweep: ")


def unfinished(folder: Path, *, status: str = "done", **point: Any) -> str:
    """Writes a row of a trial that never ran; returns its id."""
    trial = make_trial(resolve(point), Path("nowhere"))
    row = {**trial.row(), "status": status, "error": "no room", "test_acc": 0.5, "train_s": 1.0}
    Store(folder / "results").write("trials", [row], trial.trial_id)
    return trial.trial_id


@pytest.mark.parametrize("model", ["cnn", "simple_vit"])
def test_other_models_are_answered_with_those_that_can_be_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    trial_id = unfinished(tmp_path, model=model)
    assert refused(capsys, monkeypatch, tmp_path, trial_id) == (
        f"trial {trial_id} is of {model}, whose attention is not drawn; choose one of vit, deepvit, hybrid "
        "or transformer\n"
    )


@pytest.mark.parametrize("status", ["failed", "diverged"])
def test_a_trial_without_a_result_is_refused_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    trial_id = unfinished(tmp_path, status=status, model="vit")
    said = refused(capsys, monkeypatch, tmp_path, trial_id)
    assert said == f"trial {trial_id} {status} (no room); choose one that is done\n"


def test_what_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no results in" in refused(capsys, monkeypatch, tmp_path, "abc")
    trial_id = unfinished(tmp_path, model="vit")
    assert "there is no trial 'xyz'" in refused(capsys, monkeypatch, tmp_path, "xyz")
    for count in ("0", "25"):
        said = refused(capsys, monkeypatch, tmp_path, trial_id, "--examples", count)
        assert said == f"--examples {count} is out of range; use 1 to 24\n"


def test_a_data_set_that_is_gone_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shapes"
    for label in ("round", "square"):
        (folder / label).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(folder / label / f"{i}.png")
    trial_id = unfinished(tmp_path, model="vit", dataset=f"folder:{folder}", image_size=8)
    folder.rename(tmp_path / "elsewhere")
    assert "is not a folder" in refused(capsys, monkeypatch, tmp_path, trial_id)


def test_a_trial_that_would_come_out_as_another_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial_id = unfinished(tmp_path, model="vit")
    for change, what in (({"lr": 0.5}, "this package"), ({"data_sha256": "0"}, "the data set")):
        Store(tmp_path / "results").update_trials({trial_id: {"lr": 0.5, **change}})
        said = refused(capsys, monkeypatch, tmp_path, trial_id)
        assert said == (
            f"trial {trial_id} cannot be made again: {what} has changed since; run its sweep once more\n"
        )


def test_weights_that_cannot_be_read_are_refused_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(weights_path(tmp_path / "runs", unfinished(tmp_path, model="vit")))
    path.parent.mkdir(parents=True)
    torch.save({"weight": torch.zeros(3)}, path)
    foreign = path.read_bytes()
    for content in (b"", b"PK torn", foreign):
        path.write_bytes(content)
        said = refused(capsys, monkeypatch, tmp_path, path.parent.name)
        assert said.startswith(f"{path} cannot be read (") and "delete it" in said


def test_a_trial_that_fails_when_it_is_trained_again_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = unfinished(tmp_path, model="vit", optimizer="sgd", lr=1e6, depth=1, epochs=2)
    status, _, err = called(capsys, monkeypatch, tmp_path, row)
    assert status == 2
    assert (
        err.startswith(f"attnsweep: trained again, trial {row} diverged: the loss was ") and "lower lr" in err
    )
