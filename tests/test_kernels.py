"""The faster layers against torch's own: the same function, gradients and parameters."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from attnsweep.tasks.counting import blank
from attnsweep.tasks.registry import build, resolve
from attnsweep.training import kernels


def assert_equal_up_to_rounding(one: Tensor | None, other: Tensor | None) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.fixture(autouse=True)
def one_dnn_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine's CPU is, and however small the layer."""
    monkeypatch.setattr(kernels, "mkl_falls_behind", torch.backends.mkldnn.is_available)
    monkeypatch.setattr(kernels, "LEAST_WORK", 0)


def pair(plain: nn.Module) -> tuple[nn.Module, nn.Module]:
    """A layer and its faster twin with the same parameters."""
    twin = type(plain)(*arguments(plain))
    twin.load_state_dict(plain.state_dict())
    return plain, kernels.quicken(twin)


def arguments(layer: nn.Module) -> tuple[object, ...]:
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features, layer.bias is not None
    assert isinstance(layer, nn.MaxPool2d)
    return (layer.kernel_size,)


def inputs_of(shape: tuple[int, ...]) -> Iterator[Tensor]:
    """The same values, contiguous and as a view that is not."""
    values = torch.randn(shape)
    yield values.clone().requires_grad_()
    yield values.mT.contiguous().mT.requires_grad_()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("outputs", [3, 48])
@pytest.mark.parametrize("shape", [(5, 16), (2, 7, 16), (2, 3, 4, 16)])
def test_a_linear_layer_is_torchs(shape: tuple[int, ...], outputs: int, bias: bool) -> None:
    torch.manual_seed(0)
    plain, quick = pair(nn.Linear(shape[-1], outputs, bias))
    expected: list[Tensor] = []
    found: list[Tensor] = []
    for inputs in inputs_of(shape):
        for layer, seen in ((plain, expected), (quick, found)):
            out = layer(inputs)
            seen += [out, *torch.autograd.grad(out.square().sum(), [inputs, *layer.parameters()])]
    for one, other in zip(found, expected, strict=True):
        assert_equal_up_to_rounding(one, other)


def test_a_linear_layer_takes_one_dnn_for_large_products_of_float32_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernels, "LEAST_WORK", 64 * 8 * 8)
    monkeypatch.setattr(kernels.LinearMap, "apply", lambda inputs, weight, bias: "by oneDNN")
    layer = kernels.quicken(nn.Linear(8, 8))
    assert layer(torch.randn(64, 8)) == "by oneDNN" or not torch.backends.mkldnn.is_available()
    assert layer(torch.randn(63, 8)).shape == (63, 8)
    assert layer(torch.randn(8)).shape == (8,)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(64, 8)).dtype == torch.bfloat16
    assert layer.double()(torch.randn(64, 8, dtype=torch.float64)).dtype == torch.float64


def test_a_gradient_of_a_linear_layer_can_be_differentiated() -> None:
    torch.manual_seed(0)
    penalties: list[Tensor] = []
    for layer in pair(nn.Linear(6, 4)):
        inputs = torch.linspace(-1, 1, 30).view(5, 6).requires_grad_()
        (grad,) = torch.autograd.grad(layer(inputs).pow(3).sum(), inputs, create_graph=True)
        penalties += torch.autograd.grad(grad.square().sum(), list(layer.parameters())[:1])
    assert_equal_up_to_rounding(*penalties)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_a_linear_layer_works_under_vmap() -> None:
    plain, quick = pair(nn.Linear(6, 4))
    inputs = torch.randn(3, 5, 6)
    assert_equal_up_to_rounding(torch.vmap(quick)(inputs), torch.vmap(plain)(inputs))


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.999])
def test_dropout_drops_the_share_that_it_is_told_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    n = 1_000_000
    dropped = kernels.quicken(nn.Dropout(p))(torch.ones(n))
    kept = dropped > 0
    spread = 4 * (p * (1 - p) / n) ** 0.5  # four standard errors
    assert abs(kept.float().mean().item() - (1 - p)) < spread + 1 / kernels.LEVELS
    assert abs(dropped.mean().item() - 1) < spread / (1 - p)
    assert dropped.unique().tolist() == [0, pytest.approx(1 / (1 - p), rel=1e-2)]


def test_units_are_dropped_independently_of_their_neighbours() -> None:
    """Four draws come from one integer: none may follow from another."""
    torch.manual_seed(0)
    kept = (kernels.dropout_mask(torch.ones(1_000_000), 0.5) > 0).double()
    for apart in range(1, 9):
        both = (kept[apart:] * kept[:-apart]).mean().item()
        assert both == pytest.approx(0.25, abs=0.002)
    for offset in range(4):
        assert kept[offset::4].mean().item() == pytest.approx(0.5, abs=0.004)


def test_dropout_follows_the_seed_and_keeps_layout_and_type() -> None:
    like = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    layer = kernels.quicken(nn.Dropout(0.3))
    torch.manual_seed(1)
    first, second = layer(like), layer(like)
    torch.manual_seed(1)
    assert torch.equal(layer(like), first)
    assert not torch.equal(second, first)
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert layer(like.bfloat16()).dtype == torch.bfloat16


def test_a_gradient_passes_where_the_unit_was_kept() -> None:
    torch.manual_seed(0)
    inputs = torch.ones(1_000, requires_grad=True)
    out = kernels.quicken(nn.Dropout(0.4))(inputs)
    out.sum().backward()
    assert inputs.grad is not None and torch.equal(inputs.grad, out.detach())


def test_dropout_that_drops_nothing_or_all_is_torchs() -> None:
    inputs = torch.randn(50)
    assert torch.equal(kernels.quicken(nn.Dropout(0.0))(inputs), inputs)
    assert torch.equal(kernels.quicken(nn.Dropout(1.0))(inputs), torch.zeros(50))
    assert torch.equal(kernels.quicken(nn.Dropout(0.5)).eval()(inputs), inputs)
    assert kernels.quicken(nn.Dropout(0.5))(torch.empty(0)).shape == (0,)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_max_pooling_is_torchs(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(2, 8, 6, 6).to(memory_format=layout).requires_grad_()
    weights = torch.randn(2, 8, 3, 3)
    grads = [
        torch.autograd.grad((layer(inputs) * weights).sum(), inputs)[0] for layer in pair(nn.MaxPool2d(2))
    ]
    assert torch.equal(*grads)


def test_a_quick_model_is_the_same_model() -> None:
    """Its weights are those of the plain one, by the same names; without dropout so are its logits."""
    config = resolve(dict(model="hybrid", dataset="digits", depth=2, dim=16, heads=2, mlp_dim=32))
    torch.manual_seed(0)
    plain, quick = build(config).eval(), kernels.quicken(build(config)).eval()
    quick.load_state_dict(plain.state_dict())
    images = torch.randn(4, 1, 8, 8)
    assert_equal_up_to_rounding(quick(images), plain(images))
    kinds = {type(module) for module in quick.modules()}
    assert {kernels.Linear, kernels.Dropout, kernels.MaxPool2d} <= kinds
    assert not {nn.Linear, nn.Dropout, nn.MaxPool2d} & kinds


def test_a_subclass_of_torchs_layer_stays_what_it_is() -> None:
    class Mine(nn.Linear):
        pass

    assert type(kernels.quicken(Mine(2, 2))) is Mine


def test_what_is_measured_is_made_of_torchs_layers() -> None:
    kinds = {type(module) for module in blank(resolve(dict(model="vit", dataset="digits"))).modules()}
    assert nn.Linear in kinds
    assert not kinds & {*kernels.QUICK.values()}
