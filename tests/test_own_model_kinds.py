"""Whatever trains in a plain PyTorch loop trains here, however odd it is."""

import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed
from PIL import Image

from attnsweep.core import replaced, waiting
from attnsweep.core.containment import Contained, values
from attnsweep.core.errors import UserError
from attnsweep.core.source import Source
from attnsweep.core.trial import Trial
from attnsweep.space.trials import make_trial
from attnsweep.tasks import counting, own
from attnsweep.tasks.registry import build, resolve
from attnsweep.training import kernels
from attnsweep.training.trial import Options, run

HEAD = """
import math, random
from collections import Counter, deque
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEPS, DRAWS, FOUND = 0, np.random.default_rng(0), []
"""
# What each class does in its constructor and in its forward pass of digits (b, 1, 8, 8); 64 numbers each.
MODELS: dict[str, str] = {
    "a view of a convolution's output": """
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(256, 10)
        def forward(self, x):
            x = F.relu(self.conv(x))
            return self.head(x.view(x.size(0), -1))""",
    "a four-dimensional parameter that is viewed": """
        def __init__(self):
            super().__init__()
            self.places, self.head = nn.Parameter(torch.randn(1, 4, 8, 8)), nn.Linear(256, 10)
        def forward(self, x):
            return self.head(x.expand(-1, 4, 8, 8).flatten(1) + self.places.view(1, -1))""",
    "a convolution in three dimensions": """
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv3d(1, 2, (1, 3, 3)), nn.Linear(72, 10)
        def forward(self, x):
            return self.head(self.conv(x[:, :, None]).flatten(1))""",
    "pooling with indices": """
        def __init__(self):
            super().__init__()
            self.pool, self.back = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
            self.head = nn.Linear(64, 10)
        def forward(self, x):
            return self.head(self.back(*self.pool(x)).flatten(1))""",
    "in place after a linear layer": """
        def __init__(self):
            super().__init__()
            self.mix = nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 8))
            self.head = nn.Linear(64, 10)
        def forward(self, x):
            x = self.mix(x.squeeze(1))
            x += 1
            return self.head(x.flatten(1))""",
    "a look at the class of its layers": """
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(0.1), nn.Linear(16, 10))
        def forward(self, x):
            assert [type(layer) for layer in self.net] == [nn.Flatten, nn.Linear, nn.Dropout, nn.Linear]
            return self.net(x)""",
    "a look at values": """
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(64, 10)
        def forward(self, x):
            assert torch.isfinite(x).all()
            if x.sum() > 0:
                x = 2 * x
            return self.head(x.flatten(1)) * float(x.abs().max() > 0)""",
    "a mask that is made in passing": """
        def __init__(self):
            super().__init__()
            self.q, self.head = nn.Linear(8, 8), nn.Linear(64, 10)
        def forward(self, x):
            x = x.squeeze(1)
            mask = torch.ones(8, 8).tril() == 0
            scores = (self.q(x) @ x.mT).masked_fill(mask, float("-inf"))
            return self.head((scores.softmax(-1) @ x).flatten(1))""",
    "numpy on the way": """
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(64, 10)
        def forward(self, x):
            scale = torch.from_numpy(np.abs(x.detach().numpy()).max(axis=(1, 2, 3)))
            return self.head(x.flatten(1) / (scale[:, None] + 1))""",
    "a mask of minus infinity as a buffer": """
        def __init__(self):
            super().__init__()
            self.register_buffer("mask", torch.full((8, 8), float("-inf")).triu(1))
            self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(64, 10)
        def forward(self, x):
            x = x.squeeze(1)
            return self.head(self.attention(x, x, x, attn_mask=self.mask)[0].flatten(1))""",
    "a cache that judging fills": """
        def __init__(self):
            super().__init__()
            self.scale, self.head, self.cache = nn.Linear(1, 64), nn.Linear(64, 10), {}
        def forward(self, x):
            if not self.training and "ones" not in self.cache:
                self.cache["ones"] = torch.ones(1, 1)
            return self.head(x.flatten(1) * self.scale(self.cache.get("ones", torch.ones(1, 1))))""",
    "a derivative in its forward pass": """
        def __init__(self):
            super().__init__()
            self.energy = nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 1))
            self.head = nn.Linear(64, 10)
        def forward(self, x):
            with torch.enable_grad():
                x = x.flatten(1).requires_grad_()
                (force,) = torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)
            return self.head(x + force)""",
    "transforms of torch.func": """
        def __init__(self):
            super().__init__()
            self.energy = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
            self.head = nn.Linear(64, 10)
        def forward(self, x):
            x = x.squeeze(1)
            force = torch.vmap(torch.vmap(torch.func.grad(lambda row: self.energy(row).sum())))(x)
            _, along = torch.func.jvp(self.energy, (x,), (force,))
            return self.head((x + along).flatten(1))""",
    "tangents of forward mode": """
        def __init__(self):
            super().__init__()
            self.mix, self.head = nn.Sequential(nn.Linear(64, 64), nn.Tanh()), nn.Linear(64, 10)
        def forward(self, x):
            x = x.flatten(1)
            with torch.autograd.forward_ad.dual_level():
                dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
                along = torch.autograd.forward_ad.unpack_dual(self.mix(dual)).tangent
            return self.head(x + along)""",
    "checkpointed activations": """
        def __init__(self):
            super().__init__()
            self.mix = nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.5), nn.Tanh())
            self.head = nn.Linear(64, 10)
        def forward(self, x):
            x = torch.utils.checkpoint.checkpoint(self.mix, x.flatten(1), use_reentrant=False)
            return self.head(x)""",
    "layers that learn their sizes": """
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(
                nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
        def forward(self, x):
            return self.net(x)""",
    "normalised weights": """
        def __init__(self):
            super().__init__()
            from torch.nn.utils import parametrizations
            self.a = parametrizations.weight_norm(nn.Linear(64, 32))
            self.b = parametrizations.spectral_norm(nn.Linear(32, 32))
            self.c, self.head = parametrizations.orthogonal(nn.Linear(32, 32)), nn.Linear(32, 10)
        def forward(self, x):
            return self.head(self.c(self.b(self.a(x.flatten(1)))))""",
    "weights normalised the old way": """
        def __init__(self):
            super().__init__()
            self.a = torch.nn.utils.weight_norm(nn.Linear(64, 32))
            self.b = torch.nn.utils.spectral_norm(nn.Linear(32, 10))
        def forward(self, x):
            return self.b(self.a(x.flatten(1)))""",
    "tied weights and hooks": """
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
            self.b.weight, self.seen = self.a.weight, []
            self.a.register_forward_hook(lambda module, args, out: 2 * out)
            self.b.register_full_backward_hook(lambda module, into, out: None)
        def forward(self, x):
            return self.head(self.b(self.a(x.flatten(1))))""",
    "double precision": """
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(0.1), nn.Linear(16, 10))
            self.double()
        def forward(self, x):
            return self.net(x)""",
    "double precision that it casts to itself": """
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(64, 10, dtype=torch.float64)
        def forward(self, x):
            return self.head(x.double().flatten(1)).float()""",
    "two precisions": """
        def __init__(self):
            super().__init__()
            self.mix, self.head = nn.Linear(64, 64), nn.Linear(64, 10, dtype=torch.float64)
        def forward(self, x):
            return self.head(self.mix(x.flatten(1)).double())""",
    "half precision": """
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(64, 10).bfloat16()
        def forward(self, x):
            return self.head(x.flatten(1))""",
    "complex weights": """
        def __init__(self):
            super().__init__()
            self.filter = nn.Parameter(torch.randn(8, 5, dtype=torch.complex64))
            self.head = nn.Linear(64, 10)
        def forward(self, x):
            x = torch.fft.irfft2(torch.fft.rfft2(x.squeeze(1)) * self.filter, s=(8, 8))
            return self.head(x.flatten(1))""",
    "sparse gradients": """
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Embedding(20, 4, sparse=True), nn.Linear(256, 10)
        def forward(self, x):
            return self.head(self.words((4 * x).clamp(-9, 9).long().flatten(1) + 9).flatten(1))""",
    "a weight with gaps in memory": """
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(64, 20)[:, ::2] / 8)
        def forward(self, x):
            return x.flatten(1) @ self.weight""",
    "frozen, unused and empty parameters": """
        def __init__(self):
            super().__init__()
            self.frozen, self.unused = nn.Linear(64, 64).requires_grad_(False), nn.Linear(3, 3)
            self.empty, self.index = nn.Parameter(torch.zeros(0)), nn.Parameter(torch.arange(64), False)
            self.head = nn.Linear(64, 10)
        def forward(self, x):
            x = self.frozen(x.flatten(1))
            x.add_(1)
            return self.head(x[:, self.index])""",
    "nothing to learn": """
        def __init__(self):
            super().__init__()
            self.register_buffer("weight", torch.randn(64, 10))
        def forward(self, x):
            return x.flatten(1) @ self.weight""",
    "a recurrent layer": """
        def __init__(self):
            super().__init__()
            self.rows, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 10)
        def forward(self, x):
            return self.head(self.rows(x.squeeze(1))[0][:, -1])""",
    "a scripted layer": """
        def __init__(self):
            super().__init__()
            self.net = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
        def forward(self, x):
            return self.net(x)""",
    "attributes that change": """
        def __init__(self):
            super().__init__()
            self.steps, self.gain, self.head = 0, 1.0, nn.Linear(64, 10)
            self.register_buffer("total", torch.zeros(()), persistent=False)
        def forward(self, x):
            if self.training:
                self.steps += 1
                self.gain = 1 / math.sqrt(self.steps)
                self.total += x.mean()
            return self.head(x.flatten(1)) * (1 + self.gain + self.total)""",
    "collections that change": """
        SEEN = 0
        def __init__(self):
            super().__init__()
            self.means, self.named, self.last = [], {"steps": 0, 3: (1, None)}, deque([0.0], maxlen=3)
            self.shift, self.kinds, self.head = torch.zeros(64), set(), nn.Linear(64, 10)
            self.counts, self.place = Counter(), np.zeros(2)
        def forward(self, x):
            x = x.flatten(1)
            if self.training:
                type(self).SEEN += 1
                FOUND.append(self.SEEN)
                self.means.append(float(x.mean())), self.last.append(float(x.std())), self.kinds.add(len(x))
                self.named["steps"] += 1
                self.counts["steps"] += 1
                self.shift += 0.1 * x.mean(0)
                self.hidden = x.mean(0)
                self.place = self.place + 1
            gain = sum(self.means) + sum(self.last) + len(self.kinds) + self.named["steps"] + self.place[0]
            gain = gain + len(FOUND) + self.counts["steps"] + self.SEEN + getattr(self, "hidden", x[0]).mean()
            return self.head(x - self.shift) * (1 + 1 / (1 + gain))""",
    "state beside the weights": """
        def __init__(self):
            super().__init__()
            self.seen, self.head = {"batches": 0}, nn.Linear(64, 10)
        def get_extra_state(self):
            return self.seen
        def set_extra_state(self, state):
            self.seen = state
        def forward(self, x):
            self.seen["batches"] += self.training
            return self.head(x.flatten(1)) / (1 + self.seen["batches"])""",
    "a switch that returns nothing": """
        def __init__(self):
            super().__init__()
            self.frozen, self.head = nn.BatchNorm1d(64), nn.Linear(64, 10)
        def train(self, mode=True):
            super().train(mode)
            self.frozen.eval()
        def to(self, *args, **kwargs):
            super().to(*args, **kwargs)
        def forward(self, x):
            return self.head(self.frozen(x.flatten(1)))""",
    "generators of its own": """
        def __init__(self):
            super().__init__()
            self.torch, self.numpy = torch.Generator().manual_seed(1), np.random.default_rng(2)
            self.old, self.python = np.random.RandomState(3), random.Random(4)
            self.head = nn.Linear(64, 10)
        def forward(self, x):
            if self.training:
                x = x + torch.randn(1, generator=self.torch) + self.numpy.normal() + self.old.normal()
                x = x * self.python.uniform(0.5, 1)
            return self.head(x.flatten(1))""",
    "what stands at the top of its file": """
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(64, 10)
        def forward(self, x):
            global STEPS
            STEPS += self.training
            return self.head(x.flatten(1)) * (1 + 1 / (1 + STEPS)) + DRAWS.normal() * self.training""",
    "every generator": """
        def __init__(self):
            super().__init__()
            self.order = torch.from_numpy(np.random.permutation(64))
            self.keep, self.head = random.sample(range(64), 48), nn.Linear(48, 10)
        def forward(self, x):
            x = x.flatten(1)[:, self.order][:, self.keep]
            if self.training:
                x = x * random.uniform(0.9, 1.1) + float(np.random.normal(scale=0.1)) + 0.1 * torch.randn(())
            return self.head(x)""",
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_dnn_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine's CPU is, and however small the layer."""
    monkeypatch.setattr(kernels, "mkl_falls_behind", torch.backends.mkldnn.is_available)
    monkeypatch.setattr(kernels, "LEAST_WORK", 0)


def written(body: str, folder: Path, *, head: str = HEAD) -> str:
    """The name of a model whose class has that body."""
    (folder / "net.py").write_text(
        head + "class Net(nn.Module):" + textwrap.indent(textwrap.dedent(body), "    ")
    )
    return f"{folder}/net.py:Net"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where images are kept as they were decoded


def trial(model: str, **point: Any) -> Trial:
    return make_trial(
        resolve({"model": model, "batch_size": 256, "epochs": 2, "lr": 1e-2, **point}), Path(".")
    )


def last(one: Trial, **options: Any) -> dict[str, Any]:
    return list(run(one, Options(data_dir=".", **options)))[-1]


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    """What of a row does not depend on when and how fast it was made."""
    return {key: value for key, value in row.items() if not key.endswith(("_s", "_at", "_mb"))}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", MODELS)
def test_it_is_planned_and_trained_and_resumed_to_the_bit(kind: str, tmp_path: Path) -> None:
    one = trial(written(MODELS[kind], tmp_path))
    whole = last(one)
    assert whole["status"] == "done", whole["row"].get("error")
    assert 0 <= whole["row"]["test_acc"] <= 1 and whole["row"]["macs"] is not None
    cut = run(one, Options(data_dir=".", runs_dir=str(tmp_path), checkpoint_s=0))
    next(cut)
    cut.close()
    assert timeless(last(one, runs_dir=str(tmp_path))["row"]) == timeless(whole["row"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["what stands at the top of its file", "state beside the weights"])
def test_what_tells_its_head_leaves_the_model_its_file(kind: str, tmp_path: Path) -> None:
    """The twins that show which parameters are the head are built of another run of the file."""
    body = (
        MODELS[kind].replace("__init__(self)", "__init__(self, num_classes)").replace("10)", "num_classes)")
    )
    one = trial(written(body, tmp_path), backbone_lr=0.1)
    whole = last(one)
    assert whole["status"] == "done", whole["row"].get("error")
    cut = run(one, Options(data_dir=".", runs_dir=str(tmp_path), checkpoint_s=0))
    next(cut)
    cut.close()
    assert timeless(last(one, runs_dir=str(tmp_path))["row"]) == timeless(whole["row"])


# What a model must answer

PLAIN = """
        def __init__(self{}):
            super().__init__()
            self.head = nn.Linear(64, {})
        def forward(self, x):
            logits = self.head(x.flatten(1))
            {}"""
LOGITS = "wanted is one tensor of logits of the shape (2, 10)"
ANSWERS: dict[str, tuple[str, str, str]] = {  # the head's width, what comes after the logits, the sentence
    "a pair": (
        "10",
        "return logits, x",
        "a tuple of a tensor (2, 10) of float32 and a tensor (2, 1, 8, 8) of float32",
    ),
    "a list": ("10", "return [logits]", "a list of a tensor (2, 10) of float32"),
    "a dict": ("10", "return {'logits': logits}", "a dict of 'logits': a tensor (2, 10) of float32"),
    "nothing": ("10", "pass", "returns nothing, for 2 images"),
    "a number": ("10", "return 1.0", "returns a float, for 2 images"),
    "five classes": ("5", "return logits", "a tensor (2, 5) of float32, for 2 images of 10 classes"),
    "one logit": ("1", "return logits[:, 0]", "a tensor (2,) of float32"),
    "logits for each token": ("10", "return logits[:, None]", "a tensor (2, 1, 10) of float32"),
    "classes": ("10", "return logits.argmax(1)", "a tensor (2,) of int64"),
    "whole numbers": ("10", "return logits.long()", "a tensor (2, 10) of int64"),
    "complex numbers": ("10", "return logits + 1j", "a tensor (2, 10) of complex64"),
    "the images as a batch of one": ("10", "return logits.flatten()[None]", "a tensor (1, 20) of float32"),
    "a pair in training": (
        "10",
        "return (logits, x) if self.training else logits",
        "(2, 1, 8, 8) of float32 in training, for 2 images",
    ),
    "a dict in judging": ("10", "return logits if self.training else {'out': logits}", "a dict of 'out': "),
}


def refusal(model: str, **point: Any) -> str:
    with pytest.raises(UserError) as caught:
        trial(model, **point)
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_that_is_no_tensor_of_logits_is_refused(kind: str, tmp_path: Path) -> None:
    width, end, sentence = ANSWERS[kind]
    found = refusal(written(PLAIN.format("", width, end), tmp_path))
    assert sentence in found and LOGITS in found


@pytest.mark.parametrize(
    ("end", "sentence"),
    [
        ("return logits.detach()", "returns logits without gradients, so it cannot learn"),
        ("return self.head(x)", "fails on 2 images (RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        ("return x.exp_() * 0 + self.tail(logits)", "(AttributeError: 'Net' object has no attribute 'tail')"),
        ("return logits.sigmoid().mul_(2).sigmoid_()", "modified by an inplace operation"),
        ("raise SystemExit('enough')", "fails on 2 images (SystemExit: enough)"),
        ("return logits * float('nan')", "has a loss of nan before it has learnt; mend its logits"),
        ("return logits.where(logits > 99, -torch.inf)", "has a loss of nan before it has learnt"),
        (
            "self.kept = getattr(self, 'kept', 0) + logits.mean(); return logits * self.kept",
            "fails on 2 images (RuntimeError: Trying to backward through the graph a second time",
        ),
    ],
)
def test_a_step_that_fails_is_refused(end: str, sentence: str, tmp_path: Path) -> None:
    assert sentence in refusal(written(PLAIN.format("", 10, end), tmp_path))


# Of pixels, normalised to -0.81 .. 2.01 as digits are, and of two labels
LOOK_UPS: dict[str, str] = {
    "a table without a place for black": "self.table((4 * x).long()[..., 0].flatten(1)).mean(1)",
    "a table without a place for white": "self.table((4 * x).long()[..., 0].flatten(1) + 4).mean(1)",
    "a gather beyond the end": "logits.gather(1, (x.flatten(1)[:, :10] > 9).long() + 10)",
    "an index beyond the end": "logits[:, [0, 1, 2, 3, 4, 5, 6, 7, 8, 10]]",
    "one hot of too few": "F.one_hot((x.flatten(1) > 0).long(), 1)[:, :10, 0] + logits",
    "a selection": "logits.index_select(1, (x[0, 0, 0] > 0).long() + 9).repeat(1, 2)[:, :10]",
    "a look at values": "logits if x.min() >= 0 else self.nowhere",
}


@pytest.mark.parametrize("kind", LOOK_UPS)
def test_an_index_that_no_pixel_has_is_refused_and_the_range_told(kind: str, tmp_path: Path) -> None:
    body = PLAIN.format("", 10, f"return {LOOK_UPS[kind]}").replace(
        "self.head =", "self.table = nn.Embedding(10, 10); self.head ="
    )
    found = refusal(written(body, tmp_path))
    assert "fails on 2 images (" in found and "normalised: from -0.81 to 2.01" in found


def test_what_no_folder_would_show_is_not_held_against_a_model(tmp_path: Path) -> None:
    """Of pixels all between 100 and 140 the darkest ones lie some 5 deviations away, in 8 images of many."""
    chance = np.random.default_rng(0)
    for i in range(40):
        (tmp_path / f"images/{i % 2}").mkdir(parents=True, exist_ok=True)
        pixels = chance.integers(100, 140, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"images/{i % 2}/{i}.png")
    body = """
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(192, 2)
        def forward(self, x):
            assert x.abs().max() < 30, x.abs().max()
            return self.head(x.flatten(1))"""
    point = {"dataset": f"folder:{tmp_path}/images", "image_size": 8}
    assert last(trial(written(body, tmp_path), **point))["status"] == "done"


@pytest.mark.parametrize(
    ("batch_size", "fits"),
    [(100, True), (1294, True), (2000, True), (1, False), (2, True), (647, True), (431, False)],
)
def test_a_batch_of_one_is_tried_where_one_occurs(batch_size: int, fits: bool, tmp_path: Path) -> None:
    """Batch normalisation learns nothing from one image; 1,294 train."""
    body = PLAIN.format("", 10, "return self.norm(logits)").replace(
        "self.head =", "self.norm = nn.BatchNorm1d(10); self.head ="
    )
    model = written(body, tmp_path)
    if fits:
        trial(model, batch_size=batch_size)
    else:
        assert "fails on 1 image (ValueError: Expected more than 1" in refusal(model, batch_size=batch_size)


@pytest.mark.parametrize("end", ["assert len(x) > 3; return logits", "return logits + logits[3]"])
def test_a_model_that_wants_more_images_than_two_is_tried_on_those_of_a_batch(
    end: str, tmp_path: Path
) -> None:
    model = written(PLAIN.format("", 10, end), tmp_path)
    assert "fails on 2 images (" in refusal(model, batch_size=3)
    one = trial(model)
    assert (one.params, one.macs) == (650, None), "one image alone cannot be counted"
    assert last(one)["status"] == "done"


def test_what_half_precision_lacks_is_refused_with_it_alone(tmp_path: Path) -> None:
    body = PLAIN.format("", 10, "return logits + torch.linalg.det(logits.mT @ logits)")
    model = written(body, tmp_path)
    assert trial(model).macs
    assert "BFloat16" in refusal(model, precision="bf16")


def test_on_the_cpu_a_model_is_tried_with_the_kernels_that_train_it(tmp_path: Path) -> None:
    """Some of oneDNN's lack what others have, such as an LSTM in bf16."""
    end = "assert x.is_meta or not torch._C._get_mkldnn_enabled(), 'no primitive'; return logits"
    assert "fails on 2 images (AssertionError: no primitive)" in refusal(
        written(PLAIN.format("", 10, end), tmp_path)
    )


HANGS = {
    "in Python": "[None for _ in iter(int, 1)]",
    "asleep": "__import__('time').sleep(1e6)",
    "in C, with Python's lock": "__import__('re').match('(a+)+$', 'a' * 60 + 'b')",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HANGS)
def test_a_model_that_hangs_does_not_hang_the_plan(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(counting, "STEP_S", 0.5)
    hanging = f"return logits if not self.training else {HANGS[kind]}"
    model = written(PLAIN.format(", depth=1", 10, hanging), tmp_path)
    one = trial(model)
    assert (one.params, one.macs) == (650, None)
    assert "took no training step within 0.5 s" in caplog.text and "trial_timeout=" in caplog.text
    began = time.monotonic()
    monkeypatch.setattr(counting, "STEP_S", 100.0)
    assert trial(model, depth=2).params == 650
    assert time.monotonic() - began < 90, "the next of its kind is not waited for"


@pytest.mark.slow
def test_a_model_that_is_never_built_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "BUILD_S", 0.5)
    body = PLAIN.format("", 10, "return logits").replace("super()", "while True: pass\n            super()")
    assert "was not built within 0.5 s" in refusal(written(body, tmp_path))


@pytest.mark.slow
def test_a_model_that_kills_its_process_is_refused_and_the_next_is_tried(tmp_path: Path) -> None:
    head = f"{HEAD}import os, signal\n"
    kills = PLAIN.format("", 10, "os.kill(os.getpid(), signal.SIGKILL)")
    assert "cannot be tried: its process ended with SIGKILL" in refusal(written(kills, tmp_path, head=head))
    assert trial(written(PLAIN.format("", 10, "return logits"), tmp_path)).params == 650


def test_more_outputs_than_classes_are_fine_where_they_were_asked_for(tmp_path: Path) -> None:
    model = written(PLAIN.format(", num_classes", "num_classes", "return logits"), tmp_path)
    assert trial(model, num_classes=12).params == 65 * 12


@pytest.mark.parametrize("times", ["exit()", "sys.exit(3)", "raise KeyError", "raise Stop"])
def test_a_program_that_ends_in_training_is_a_failed_trial(times: str, tmp_path: Path) -> None:
    body = PLAIN.format(
        "",
        10,
        f"""self.steps = getattr(self, "steps", 0) + 1
            if self.steps > 4:
                {times}
            return logits""",
    )
    head = HEAD + "import sys\nclass Stop(BaseException): pass\n"
    assert last(trial(written(body, tmp_path, head=head)))["status"] == "failed"


# What a model may do to the process

CHANGES: dict[str, str] = {
    "torch's default dtype": "torch.set_default_dtype(torch.float64)",
    "torch's default device": "torch.set_default_device('cpu')",
    "no gradients": "torch.set_grad_enabled(False)",
    "threads": "torch.set_num_threads(3)",
    "precision of products": "torch.set_float32_matmul_precision('medium')",
    "deterministic algorithms": "torch.use_deterministic_algorithms(True)",
    "anomalies": "torch.autograd.set_detect_anomaly(True)",
    "seeds": "torch.manual_seed(7); np.random.seed(7); random.seed(7)",
    "draws": "torch.rand(3); np.random.rand(3); random.random()",
    "the folder": "os.chdir('/')",
    "arguments": "sys.argv.append('--wrong')",
    "the path": "sys.path.insert(0, '/nowhere')",
    "the environment": "os.environ['NET'] = '1'; os.environ.pop('HOME', None)",
    "warnings": "warnings.simplefilter('ignore')",
    "numpy's errors": "np.seterr(all='ignore')",
    "logging": "logging.disable(logging.CRITICAL)",
    "recursion": "sys.setrecursionlimit(5_000)",
    "output": "sys.stdout = sys.stderr = io.StringIO()",
    "signals": "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "permissions": "os.umask(0o777)",
    "uncaught errors": "sys.excepthook = print",
}
IMPORTS = "\nimport io, logging, os, signal, sys, warnings\n"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_a_model_changes_in_the_process_holds_for_the_model_only(change: str, tmp_path: Path) -> None:
    body = PLAIN.format("", 10, "return logits").replace(
        "super().__init__()", f"super().__init__(); {change}"
    )
    model = written(body, tmp_path, head=f"{HEAD}{IMPORTS}{change}\n")
    before = values()
    one = trial(model, epochs=1)
    events = run(one, Options(data_dir="."))
    for event in events:  # noqa: B007
        assert all(map(same, values(), before)), change
    assert event["status"] == "done", event["row"].get("error")
    build(one.config)
    assert all(map(same, values(), before)), change


REPLACED: dict[str, str] = {
    "a function": "old = F.relu; F.relu = lambda x, inplace=False: 2 * old(x)",
    "a method": "nn.Linear.reset_parameters = lambda self: nn.init.zeros_(self.weight)",
    "a class": "nn.Linear = nn.LazyLinear",
    "an initialisation": "nn.init.kaiming_uniform_ = nn.init.zeros_",
    "hooks of all modules": "nn.modules.module.register_module_forward_hook(lambda *args: 2 * args[-1])",
    "hooks backwards": "nn.modules.module.register_module_full_backward_hook(lambda *args: None)",
    "how processes start": "multiprocessing.set_start_method('spawn')",
    "printing": "import builtins; builtins.print = lambda *args: None",
    "warning": "import warnings; warnings.warn = lambda *args, **named: None",
    "trust": "import ssl; ssl._create_default_https_context = ssl._create_unverified_context",
    "loading": "import functools; torch.load = functools.partial(torch.load, weights_only=False)",
    "kernels": "torch.backends.mkldnn.enabled = False; torch.backends.cudnn.benchmark = True",
    "the root logger": "logging.root.handlers.clear(); logging.basicConfig(level=logging.DEBUG)",
    "threads between operators": "torch.set_num_interop_threads(1)",
    "collecting garbage": "gc.disable()",
}


@pytest.mark.parametrize("change", REPLACED.values(), ids=REPLACED)
def test_a_file_that_is_run_again_replaces_the_same_once_more_and_for_itself(change: str) -> None:
    head = f"{HEAD}import gc, logging, multiprocessing\n{change}\n"
    before = values()
    with Contained():
        own.run_file(Source("net.py", head))
        once = values()
        own.run_file(Source("net.py", head))
        assert len(replaced.hooks()["_global_forward_hooks"]) == ("forward_hook" in change)
        assert not all(map(same, once, before)) or change.startswith("torch.set_num_interop")
    assert all(map(same, values(), before))


ONCE: dict[str, str] = {
    "an operator": "ours = torch.library.Library('once', 'DEF'); ours.define('twice(Tensor x) -> Tensor')",
    "a group of processes": "dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)",
    "a name in a registry": "assert 'Net' not in vars(dist); dist.Net = Net",
}


@pytest.mark.parametrize("change", ONCE.values(), ids=ONCE)
def test_a_file_that_can_run_but_once_is_what_it_was_then(change: str) -> None:
    head = f"{HEAD}import torch.distributed as dist\nclass Net(nn.Module): pass\n{change}\n"
    try:
        runs = []
        for _ in range(3):
            with Contained():
                runs.append(own.run_file(Source("net.py", head))["Net"])
                assert vars(sys.modules[runs[-1].__module__])["Net"] is runs[-1]
        assert runs == [runs[0]] * 3
    finally:
        vars(torch.distributed).pop("Net", None)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def same(one: Any, other: Any) -> bool:
    """Whether two settings are equal, those that hold arrays by their text."""
    try:
        return bool(one == other)
    except (RuntimeError, ValueError):
        return str(one) == str(other)


def test_what_a_file_sets_holds_for_its_model_whenever_it_runs(tmp_path: Path) -> None:
    head = f"{HEAD}torch.set_default_dtype(torch.float64)\n"
    body = PLAIN.format("", 10, "return logits * torch.ones(1)").replace(
        "self.head", "assert torch.get_default_dtype() == torch.float64; self.head", 1
    )
    one = trial(written(body, tmp_path, head=head))
    assert last(one)["status"] == "done"
    assert {parameter.dtype for parameter in build(one.config).parameters()} == {torch.float64}
    assert {parameter.dtype for parameter in build(trial("vit").config).parameters()} == {torch.float32}


def test_a_file_may_parse_arguments_that_nobody_gave(tmp_path: Path) -> None:
    head = HEAD + (
        "import argparse\n"
        "parser = argparse.ArgumentParser()\n"
        "parser.add_argument('--width', type=int, default=10)\n"
        "WIDTH = parser.parse_args().width\n"
    )
    assert (
        last(trial(written(PLAIN.format("", "WIDTH", "return logits"), tmp_path, head=head)))["status"]
        == "done"
    )


def test_the_plan_names_the_files_that_a_model_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sizes.json").write_text("10")
    (tmp_path / "log.txt").write_text("")
    head = f"{HEAD}import json, os\nHERE = os.path.dirname(__file__)\nopen(HERE + '/log.txt', 'a').close()\n"
    reads = "json.load(open(HERE + '/sizes.json'))"
    assert trial(written(PLAIN.format("", reads, "return logits"), tmp_path, head=head)).params == 650
    assert "net.py reads sizes.json, which its trials' ids do not cover" in capsys.readouterr().err
    trial(written(PLAIN.format("", 10, "return logits"), tmp_path))
    assert "ids do not cover" not in capsys.readouterr().err


def test_an_import_that_takes_long_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(waiting, "PATIENCE_S", 0.02)
    slow = f"{HEAD}import time; time.sleep(0.2)\n"
    model = written(PLAIN.format("", 10, "return logits"), tmp_path, head=slow)
    own.signature(model, own.read(model))
    assert "still waiting for the import of" in caplog.text and "net.py; Ctrl-C ends it" in caplog.text


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_default_device_of_one_file_is_not_that_of_the_next(device: str, tmp_path: Path) -> None:
    body = PLAIN.format("", 10, "return logits")
    sets = written(body, tmp_path, head=f"{HEAD}torch.set_default_device('{device}')\n")
    if device == "meta":
        assert "cannot be built" in refusal(sets)
    else:
        assert trial(sets).params == 650
    assert trial(written(body, tmp_path)).params == 650
    assert torch.ones(1).device.type == "cpu"


ENUMERATIONS = """
import enum
class Depth(enum.IntEnum):
    TWO = 2
class Kernel(str, enum.Enum):
    FUSED = "fused"
"""


def test_a_member_of_an_enumeration_is_the_value_that_it_has(tmp_path: Path) -> None:
    arguments = ", depth=Depth.TWO, attention=Kernel.FUSED, width=np.int64(3), kernel=Kernel.FUSED"
    one = trial(written(PLAIN.format(arguments, 10, "return logits"), tmp_path, head=HEAD + ENUMERATIONS))
    assert (one.config["depth"], str(one.config["attention"])) == (2, "fused")
    assert one.config["model_args"] == '{"kernel": "fused", "width": 3}' and one.params == 650


def test_a_file_of_the_name_of_torch_does_not_hide_it(tmp_path: Path) -> None:
    for name in ("torch", "numpy"):
        (tmp_path / f"{name}.py").write_text("")
    assert trial(written(PLAIN.format("", 10, "return logits"), tmp_path)).params == 650


def test_a_file_that_python_cannot_nest_is_a_sentence(tmp_path: Path) -> None:
    head = f"{HEAD}ALL = {'+'.join(['1'] * 20_000)}\n"
    sentence = refusal(written(PLAIN.format("", 10, "return logits"), tmp_path, head=head))
    assert "cannot be imported (RecursionError: " in sentence


def test_a_class_within_another_is_a_model(tmp_path: Path) -> None:
    own_file = Path(written(PLAIN.format("", 10, "return logits"), tmp_path).removesuffix(":Net"))
    own_file.write_text(f"{own_file.read_text()}\nclass Outer:\n    Inner = Net\n")
    assert trial(f"{own_file}:Outer.Inner").params == 650


@pytest.mark.slow
def test_a_trial_begins_with_torch_as_in_a_new_process() -> None:
    """Workers know nothing of what a sweep's file, or a notebook, has set in its own process."""
    first = timeless(last(trial("vit", depth=1, epochs=1))["row"])
    with Contained():
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_grad_enabled(False)
        assert timeless(last(trial("vit", depth=1, epochs=1))["row"]) == first


@pytest.mark.parametrize("end", ["import sys; sys.exit(0)", "raise SystemExit", "exit()"])
def test_a_file_that_ends_the_program_is_refused(end: str, tmp_path: Path) -> None:
    sentence = refusal(written(PLAIN.format("", 10, "return logits"), tmp_path, head=f"{HEAD}{end}\n"))
    assert "ends the program when it is imported" in sentence


def test_what_a_model_prints_is_not_for_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = PLAIN.format("", 10, "print('forward'); return logits")
    trial(written(body, tmp_path, head=f"{HEAD}print('imported')\n"))
    out, err = capsys.readouterr()
    assert out == "" and "imported" in err and "forward" in err


# What makes a trial the same each time


@pytest.mark.slow
def test_a_trial_does_not_depend_on_what_ran_before_it(tmp_path: Path) -> None:
    """Not on the position of a generator, nor on what an earlier trial left in the module."""
    head = HEAD + "DRAWS, SEEN = np.random.default_rng(0), []\nORDER = torch.randperm(64)\n"
    body = PLAIN.format("", 10, "SEEN.append(1); return logits * (1 + 1 / len(SEEN))").replace(
        "self.head =", "self.gain = float(DRAWS.normal()) + random.random() + np.random.rand(); self.head ="
    )
    model = written(body.replace("x.flatten(1)", "x.flatten(1)[:, ORDER] * self.gain"), tmp_path, head=head)
    first = timeless(last(trial(model))["row"])
    torch.rand(5), last(trial("cnn", epochs=1)), last(trial(model, seed=1))
    assert timeless(last(trial(model))["row"]) == first
    assert timeless(last(trial(model, seed=1))["row"])["train_loss"] != first["train_loss"]


def test_a_trial_leaves_the_generators_of_its_caller_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    last(trial("cnn", epochs=1))
    assert torch.equal(torch.rand(4), expected)
