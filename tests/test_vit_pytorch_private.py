"""What is relied on inside vit-pytorch: each part is there, and without it there is a way round."""

from typing import Any

import pytest
import torch
from vit_pytorch import vit

from attnsweep.core.errors import UserError
from attnsweep.tasks.images.models import vit_pytorch_private as private
from attnsweep.tasks.images.models.maps import patch_maps
from attnsweep.tasks.registry import build, resolve

TINY = {"model": "vit", "depth": 2, "dim": 16, "heads": 2, "dim_head": 8, "mlp_dim": 16, "dropout": 0.0}


def tiny(**point: Any) -> vit.ViT:
    torch.manual_seed(0)
    return build(resolve({**TINY, **point})).eval()


def test_without_the_parts_of_its_attention_a_vit_computes_the_same_explicitly() -> None:
    images, fused, whole = torch.randn(2, 1, 8, 8), tiny(attention="fused"), tiny(attention="explicit")
    kinds = [type(attention) for attention, _ in fused.transformer.layers]
    assert kinds == [private.FusedAttention] * 2
    for attention, _ in whole.transformer.layers:
        del attention.norm
    private.fuse_attention(whole)
    assert {type(attention) for attention, _ in whole.transformer.layers} == {vit.Attention}
    private.fuse_attention(torch.nn.Identity())  # no blocks at all
    assert torch.allclose(fused(images), tiny(attention="explicit")(images), atol=1e-6)


def test_maps_of_an_attention_without_its_dropout_are_refused() -> None:
    model = tiny(attention="explicit")
    del model.transformer.layers[1][0].dropout
    with pytest.raises(UserError, match=r"vit-pytorch's Attention has no dropout any more; install"):
        with patch_maps(model):
            pass


def test_a_part_that_is_not_there_is_not_replaced_in_vain() -> None:
    model = tiny()
    private.replace(model, "mlp_head", torch.nn.Identity())
    assert isinstance(model.mlp_head, torch.nn.Identity)
    with pytest.raises(UserError, match=r"ViT has no head any more; .* leave the model out"):
        private.replace(model, "head", torch.nn.Identity())
