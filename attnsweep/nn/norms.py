"""The norm without a mean: "Root Mean Square Layer Normalization" (https://arxiv.org/abs/1910.07467)."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

EPS = 1e-6  # below the root


class RMSNorm(nn.RMSNorm):
    """x / sqrt(mean(x^2)) times a scale, along the last axis, in its precision: float32 under autocast."""

    def __init__(self, width: int, *, eps: float = EPS) -> None:
        super().__init__(width, eps=eps)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        return F.rms_norm(x.to(self.weight.dtype), self.normalized_shape, self.weight, self.eps)
