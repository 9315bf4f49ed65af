"""The faster layers against torch's own: the same function and gradients, whatever a model does with them."""

import copy
import pickle
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from attnsweep.tasks.registry import build, resolve
from attnsweep.training import kernels


def assert_equal_up_to_rounding(one: Tensor | None, other: Tensor | None) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.fixture(autouse=True)
def one_dnn_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine's CPU is, and however small the layer."""
    monkeypatch.setattr(kernels, "mkl_falls_behind", torch.backends.mkldnn.is_available)
    monkeypatch.setattr(kernels, "LEAST_WORK", 0)


Layer = Callable[[Tensor], Tensor]


def faster(layer: Layer) -> Layer:
    """The same layer, called within `faster_layers`."""

    def call(inputs: Tensor) -> Tensor:
        with kernels.faster_layers():
            return layer(inputs)

    return call


def pair(layer: nn.Module) -> tuple[Layer, Layer]:
    """A layer as torch has it, and made faster."""
    return layer, faster(layer)


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
    layer = nn.Linear(shape[-1], outputs, bias)
    expected: list[Tensor] = []
    found: list[Tensor] = []
    for inputs in inputs_of(shape):
        for call, seen in zip(pair(layer), (expected, found), strict=True):
            out = call(inputs)
            seen += [out, *torch.autograd.grad(out.square().sum(), [inputs, *layer.parameters()])]
    for one, other in zip(found, expected, strict=True):
        assert_equal_up_to_rounding(one, other)


def test_a_linear_layer_takes_one_dnn_for_large_products_of_float32_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernels, "LEAST_WORK", 64 * 8 * 8)
    monkeypatch.setattr(kernels.LinearMap, "apply", lambda inputs, weight, bias: "by oneDNN")
    linear = nn.Linear(8, 8)
    layer = faster(linear)
    assert layer(torch.randn(64, 8)) == "by oneDNN" or not torch.backends.mkldnn.is_available()
    assert layer(torch.randn(63, 8)).shape == (63, 8)
    assert layer(torch.randn(8)).shape == (8,)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(64, 8)).dtype == torch.bfloat16
    linear.double()
    assert layer(torch.randn(64, 8, dtype=torch.float64)).dtype == torch.float64


def test_a_gradient_of_a_linear_layer_can_be_differentiated() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    penalties: list[Tensor] = []
    for call in pair(layer):
        inputs = torch.linspace(-1, 1, 30).view(5, 6).requires_grad_()
        (grad,) = torch.autograd.grad(call(inputs).pow(3).sum(), inputs, create_graph=True)
        penalties += torch.autograd.grad(grad.square().sum(), list(layer.parameters())[:1])
    assert_equal_up_to_rounding(*penalties)


@pytest.mark.parametrize("shape", [(5, 6), (2, 5, 6), (2, 3, 5, 6)])
def test_what_comes_out_of_a_linear_layer_may_be_changed_in_place(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(6, 4), nn.ReLU(inplace=True), nn.Linear(4, 4))
    inputs = torch.randn(shape, requires_grad=True)
    found = [
        torch.autograd.grad(call(inputs).add_(1).mul_(2).square().sum(), [inputs, *layer.parameters()])
        for call in pair(layer)
    ]
    assert not faster(layer)(inputs)._is_view()
    for one, other in zip(*found, strict=True):
        assert_equal_up_to_rounding(one, other)


def test_what_a_frozen_layer_was_given_may_be_changed_in_place() -> None:
    layer, gain = nn.Linear(6, 4).requires_grad_(False), torch.ones(6, requires_grad=True)
    for call in pair(layer):
        inputs = torch.ones(5, 6) * gain
        out = call(inputs)
        inputs.add_(1)  # no gradient needs what it was
        (grad,) = torch.autograd.grad(out.sum(), gain)
        assert_equal_up_to_rounding(grad, 5 * layer.weight.sum(0))


TRANSFORMS: dict[str, Callable[[Layer, Tensor], object]] = {
    "vmap": lambda layer, x: torch.vmap(layer)(x),
    "grad": lambda layer, x: torch.func.grad(lambda x: layer(x).square().sum())(x),
    "jvp": lambda layer, x: torch.func.jvp(layer, (x,), (torch.ones_like(x),)),
    "jacfwd": lambda layer, x: torch.func.jacfwd(layer)(x[0, :2]),
    "hessian": lambda layer, x: torch.func.hessian(lambda x: layer(x).pow(3).sum())(x[0, :2]),
    "per-example gradients": lambda layer, x: torch.vmap(torch.func.grad(lambda x: layer(x).pow(2).sum()))(x),
    "double backward": lambda layer, x: torch.autograd.functional.jvp(layer, x, torch.ones_like(x))[1],
    "checkpoint": lambda layer, x: torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("layer", [nn.Linear(6, 4), nn.MaxPool2d(2), nn.Dropout(0.5).eval()], ids=repr)
def test_what_transforms_a_layer_finds_torchs(layer: nn.Module, transform: str) -> None:
    inputs = torch.linspace(-1, 1, 3 * 2 * 4 * 6).view(3, 2, 4, 6).requires_grad_()
    if isinstance(layer, nn.MaxPool2d) and transform in ("jacfwd", "hessian"):
        return  # of a single map there are no channels
    apply = TRANSFORMS[transform]
    torch.testing.assert_close(apply(faster(layer), inputs), apply(layer, inputs))


def test_forward_mode_differentiation_passes_through_every_layer() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3))
    inputs, direction = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    tangents = []
    for call in pair(net):
        with torch.autograd.forward_ad.dual_level():
            out = call(torch.autograd.forward_ad.make_dual(inputs, direction))
            tangents.append(torch.autograd.forward_ad.unpack_dual(out).tangent)
    assert tangents[0] is not None
    assert_equal_up_to_rounding(*tangents)


def test_dropout_draws_as_a_transform_asks_for() -> None:
    inputs = torch.ones(4, 1_000)
    alike = torch.vmap(faster(nn.Dropout(0.5)), randomness="same")(inputs)
    assert torch.equal(alike[0], alike[1])
    apart = torch.vmap(faster(nn.Dropout(0.5)), randomness="different")(inputs)
    assert not torch.equal(apart[0], apart[1])


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_a_traced_layer_is_made_of_torchs_operators() -> None:
    with kernels.faster_layers():
        traced = torch.jit.trace(nn.Linear(6, 4), torch.ones(5, 6))
    assert "aten::linear" in str(traced.graph)


@pytest.mark.slow
def test_a_compiled_model_is_the_same_model() -> None:
    net = nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.0), nn.Linear(4, 2))
    inputs = torch.randn(5, 6)
    assert_equal_up_to_rounding(faster(torch.compile(net))(inputs), net(inputs))


def test_a_torch_that_does_not_tell_of_transforms_runs_its_own_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernels, "transforms_are_active", lambda: True)
    monkeypatch.setattr(kernels.LinearMap, "apply", lambda *tensors: pytest.fail("by oneDNN"))
    plain, quick = pair(nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5)))
    torch.manual_seed(0)
    expected = plain(torch.ones(3, 6))
    torch.manual_seed(0)
    assert torch.equal(quick(torch.ones(3, 6)), expected)


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.999])
def test_dropout_drops_the_share_that_it_is_told_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    n = 1_000_000
    dropped = faster(nn.Dropout(p))(torch.ones(n))
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
    layer = faster(nn.Dropout(0.3))
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
    out = faster(nn.Dropout(0.4))(inputs)
    out.sum().backward()
    assert inputs.grad is not None and torch.equal(inputs.grad, out.detach())


def test_dropout_that_drops_nothing_or_all_is_torchs() -> None:
    inputs = torch.randn(50)
    assert torch.equal(faster(nn.Dropout(0.0))(inputs), inputs)
    assert torch.equal(faster(nn.Dropout(1.0))(inputs), torch.zeros(50))
    assert torch.equal(faster(nn.Dropout(0.5).eval())(inputs), inputs)
    assert faster(nn.Dropout(0.5))(torch.empty(0)).shape == (0,)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_max_pooling_is_torchs(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(2, 8, 6, 6).to(memory_format=layout).requires_grad_()
    weights = torch.randn(2, 8, 3, 3)
    grads = [
        torch.autograd.grad((layer(inputs) * weights).sum(), inputs)[0] for layer in pair(nn.MaxPool2d(2))
    ]
    assert torch.equal(*grads)


def test_max_pooling_returns_indices_where_it_is_asked_for_them() -> None:
    layer = nn.MaxPool2d(2, return_indices=True)
    inputs = torch.randn(2, 3, 6, 6, requires_grad=True)
    pooled, indices = faster(layer)(inputs)
    assert nn.MaxUnpool2d(2)(pooled, indices).shape == inputs.shape


def test_dropout_of_other_numbers_is_torchs() -> None:
    for kind in (torch.float16, torch.float64):
        assert faster(nn.Dropout(0.5))(torch.ones(8, dtype=kind)).dtype == kind

    class Mine(Tensor):
        pass

    assert type(faster(nn.Dropout(0.5))(torch.ones(8).as_subclass(Mine))) is Mine


def test_a_model_within_is_the_same_model() -> None:
    """Its modules are of torch's classes, and its logits those that it gives outside."""
    config = resolve(dict(model="hybrid", dataset="digits", depth=2, dim=16, heads=2, mlp_dim=32))
    model, images = build(config).eval(), torch.randn(4, 1, 8, 8)
    kinds = [type(module) for module in model.modules()]
    assert_equal_up_to_rounding(faster(model)(images), model(images))
    with kernels.faster_layers():
        assert [type(module) for module in model.modules()] == kinds
        assert [type(module) for module in copy.deepcopy(model).modules()] == kinds
        assert [type(module) for module in pickle.loads(pickle.dumps(model)).modules()] == kinds


def test_outside_torchs_layers_are_torchs_again() -> None:
    before = [kind.forward for kind in kernels.FASTER]
    with pytest.raises(ZeroDivisionError), kernels.faster_layers(), kernels.faster_layers():
        assert all(kind.forward is forward for kind, forward in kernels.FASTER.items())
        1 / 0  # noqa: B018
    assert [kind.forward for kind in kernels.FASTER] == before == list(kernels.TORCHS.values())


def test_a_subclass_and_its_parametrizations_are_computed_once_and_by_torch() -> None:
    """Spectral normalisation takes a step of power iteration each time that its weight is read."""
    torch.manual_seed(0)
    plain = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4))
    quick, inputs = copy.deepcopy(plain), torch.randn(5, 6)
    for _ in range(3):
        expected, found = plain(inputs), faster(quick)(inputs)
    assert torch.equal(found, expected)
    states = plain.state_dict().values(), quick.state_dict().values()
    assert all(torch.equal(one, other) for one, other in zip(*states, strict=True))


def test_hooks_tied_weights_and_layers_without_a_bias_are_seen() -> None:
    one, other = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    other.weight = one.weight
    seen: list[str] = []
    one.register_forward_pre_hook(lambda module, args: seen.append("before"))
    one.register_forward_hook(lambda module, args, out: seen.append("after"))
    one.register_full_backward_hook(lambda module, into, out: seen.append("back"))
    net, inputs = nn.Sequential(one, nn.ReLU(), other), torch.randn(3, 4, requires_grad=True)
    grads = []
    for call in pair(net):
        one.weight.grad = None
        call(inputs).square().sum().backward()
        grads.append(one.weight.grad)  # of both uses of the weight
    assert_equal_up_to_rounding(*grads)
    assert seen == ["before", "after", "back"] * 2


def test_where_torch_lacks_its_private_operators_mkl_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the fixture's way of looking for them
    monkeypatch.setattr(kernels, "has_one_dnn", lambda: False)
    kernels.mkl_falls_behind.cache_clear()
    assert not kernels.mkl_falls_behind()
    kernels.mkl_falls_behind.cache_clear()
