"""FlexAttention computes what the explicit kernel does: step by step on a CPU, compiled on a GPU."""

import itertools
import warnings
from typing import Any

import pytest
import torch

from attnsweep.nn import flex
from attnsweep.nn.attention import MultiHeadAttention
from attnsweep.nn.design import Variant
from attnsweep.nn.kernels import explicit
from attnsweep.nn.positions import alibi_bias
from attnsweep.nn.windows import window_mask

SHAPES: list[dict[str, Any]] = [dict(alibi=True), dict(window=17, sinks=3), dict(window=40, alibi=True)]
N = 200


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("causal", [True, False])
def test_masks_and_biases_are_those_of_the_explicit_kernel(causal: bool) -> None:
    generator, places = torch.Generator().manual_seed(0), torch.arange(N)
    q, k, v = (torch.randn(2, heads, N, 16, generator=generator) for heads in (4, 2, 2))
    for shape in SHAPES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read = flex.attend(q, k, v, causal=causal, compiled=False, **shape)
        window, bias = shape.get("window"), alibi_bias(places, places, 4, like=q)
        mask = window_mask(places, places, window, shape.get("sinks", 0)) if window else None
        expected = explicit(q, k, v, mask=mask, bias=bias if "alibi" in shape else None, causal=causal)
        torch.testing.assert_close(read, expected)


def test_it_is_for_gpus_alone() -> None:
    layer = MultiHeadAttention(16, heads=4, variant=Variant(window=3))
    assert not layer.uses_flex(torch.randn(1, 500, 16), alone=True)
    assert layer.uses_flex(torch.randn(1, 500, 16, device="meta").as_subclass(OnGpu), alone=True)
    assert not layer.uses_flex(torch.randn(1, 20, 16, device="meta").as_subclass(OnGpu), alone=True)
    assert not layer.uses_flex(torch.randn(1, 500, 16, device="meta").as_subclass(OnGpu), alone=False)


class OnGpu(torch.Tensor):
    """Says that it lies on a GPU."""

    is_cuda = True  # type: ignore[assignment]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("causal", [True, False])
def test_compiled_on_a_gpu_it_is_the_explicit_kernel(causal: bool) -> None:
    for positions, window in itertools.product((None, "rope", "alibi"), (None, 40)):
        variant = Variant(kv_heads=2, positions=positions, window=window, sinks=2 if window else 0)
        torch.manual_seed(0)
        layer = MultiHeadAttention(64, heads=4, variant=variant).cuda()
        twin = MultiHeadAttention(64, heads=4, variant=variant, attention="explicit").cuda()
        twin.load_state_dict(layer.state_dict())
        x = torch.randn(2, 300, 64, device="cuda", requires_grad=True)
        other = x.detach().clone().requires_grad_()
        one, two = layer(x, causal=causal), twin(other, causal=causal)
        torch.testing.assert_close(one, two, atol=2e-4, rtol=1e-3)
        one.square().sum().backward()
        two.square().sum().backward()
        torch.testing.assert_close(x.grad, other.grad, atol=2e-3, rtol=1e-2)
