"""What is relied on inside torch: each part is here, and without it there is a way round."""

import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from attnsweep.nn import torch_private
from attnsweep.tasks import counting


@pytest.mark.parametrize("name", ["mkldnn", "aten"])
def test_that_torch_lacks_its_private_operators_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch_private.has_one_dnn() or not torch.backends.mkldnn.is_available()
    monkeypatch.setattr(torch.ops, name, object())
    assert not torch_private.has_one_dnn()


def test_a_torch_that_does_not_say_whether_it_transforms_is_taken_to(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not torch_private.transforms_are_active()
    seen: list[bool] = []
    torch.func.vmap(lambda x: [x, seen.append(torch_private.transforms_are_active())][0])(torch.ones(2))
    assert seen == [True]
    monkeypatch.delattr(torch._C, "_are_functorch_transforms_active")
    assert torch_private.transforms_are_active()


def test_operations_are_counted_with_the_tracker_of_modules_and_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert hasattr(FlopCounterMode(display=False), "mod_tracker")
    assert torch_private.without_modules(other := types.SimpleNamespace()) is other and not vars(other)
    model, inputs = nn.Linear(3, 5), torch.ones(1, 3)
    assert counting.count(model, inputs).macs == 15
    monkeypatch.setattr(counting, "without_modules", lambda counter: counter)
    assert counting.count(model, inputs).macs == 15


SPARED = """
import sys
from pathlib import Path
from attnsweep.space.trials import make_trial
from attnsweep.tasks.registry import resolve
from attnsweep.training.trial import Options, run
trial = make_trial(resolve(dict(model="vit", dataset="digits", depth=1, epochs=1)), Path("."))
(*_, last) = run(trial, Options(data_dir=".", runs_dir=sys.argv[1]))
assert last["status"] == "done", last
assert "torch._dynamo" not in sys.modules
"""


@pytest.mark.slow
def test_a_trial_does_not_import_the_compiler(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SPARED, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


COUNTED = """
import sys
from attnsweep.nn import torch_private
from attnsweep.tasks import counting
from attnsweep.tasks.registry import resolve
config = resolve(dict(model="planning", dataset="driving:tiny", dim=16, heads=2, mlp_dim=16, depth=1))
cost = counting.counted(config)
assert "torch._dynamo" not in sys.modules
marked = torch_private.disabled_operators()
assert len(marked) > 100 and not any(hasattr(one, "__dynamo_disable") for one in marked)
import torch._dynamo
counting.counted_once.cache_clear()
assert counting.counted(config) == cost and cost.macs
"""


@pytest.mark.slow
def test_a_model_is_counted_without_the_compiler_and_costs_the_same_with_it() -> None:
    done = subprocess.run([sys.executable, "-c", COUNTED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("without", ["nothing", "wrapped", "hooks"])
def test_a_step_is_the_step_of_the_optimizer(
    kind: type[torch.optim.Optimizer], without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, by torch's own layers and without them."""
    monkeypatch.setattr(torch_private, "COMPILER", "is not imported")
    found = []
    for ours in (True, False):
        torch.manual_seed(0)
        model = nn.Linear(3, 5)
        optimizer = kind(model.parameters(), lr=0.1)
        if without == "wrapped":
            monkeypatch.setattr(kind, "step", lambda self, whole=kind.step: whole(self))
        called: list[object] = []
        if without == "hooks":
            optimizer.register_step_post_hook(lambda *given, called=called: called.append(given))
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(2, 3)).square().sum().backward()
            torch_private.step(optimizer) if ours else optimizer.step()
        assert len(called) == (3 if without == "hooks" else 0)
        found.append(model.weight.detach())
    assert torch.equal(*found)
