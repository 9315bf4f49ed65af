"""What is relied on inside torch: each part is here, and without it there is a way round."""

import types

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
