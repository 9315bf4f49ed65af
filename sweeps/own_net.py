"""A model of one's own, to be swept by `own_model.py`: an MLP-Mixer (https://arxiv.org/abs/2105.01601).

What a sweep asks of a class: it is an nn.Module, takes its hyperparameters by name, and of image_size,
channels and num_classes what it needs; it maps images (b, channels, image_size, image_size) to logits
(b, num_classes).
"""

from einops.layers.torch import Rearrange, Reduce
from torch import Tensor, nn


class Mixing(nn.Module):
    """x + MLP(norm(x)) along one axis of tokens (b, n, d): across tokens, or across the channels of each."""

    def __init__(self, dim: int, size: int, hidden: int, *, across_tokens: bool) -> None:
        super().__init__()
        turn = Rearrange("b n d -> b d n") if across_tokens else nn.Identity()
        mlp = (nn.Linear(size, hidden), nn.GELU(), nn.Linear(hidden, size))
        self.mix = nn.Sequential(nn.LayerNorm(dim), turn, *mlp, turn)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(x)


class Mixer(nn.Sequential):
    """Patches mixed by `depth` pairs of MLPs; `token_dim` is the hidden width across tokens."""

    def __init__(
        self, *, image_size: int, channels: int, num_classes: int,
        patch_size: int = 2, dim: int = 64, depth: int = 2, mlp_dim: int = 128, token_dim: int = 32,
    ) -> None:  # fmt: skip
        tokens = (image_size // patch_size) ** 2
        patches = "b c (h p1) (w p2) -> b (h w) (p1 p2 c)"
        super().__init__(
            Rearrange(patches, p1=patch_size, p2=patch_size),
            nn.Linear(channels * patch_size**2, dim),
            *(
                nn.Sequential(
                    Mixing(dim, tokens, token_dim, across_tokens=True),
                    Mixing(dim, dim, mlp_dim, across_tokens=False),
                )
                for _ in range(depth)
            ),
            nn.LayerNorm(dim),
            Reduce("b n d -> b d", "mean"),
            nn.Linear(dim, num_classes),
        )
