"""Do more heads help, or only wider attention?

Two questions that are often mixed up; 7 trials of a ViT on MNIST, about 25 min on two cores. First with
each head 64 wide, as vit-pytorch has it: more heads are then more parameters. Then with heads x dim_head
fixed at 128: equal parameters. Expected: the first rises a little with its cost, the second is flat, and best
at 2 to 8 heads.
"""

from attnsweep import Sweep

HEADS = (1, 2, 4, 8)

sweep = Sweep(
    [dict(heads=heads, dim_head=64) for heads in HEADS]
    + [dict(heads=heads, dim_head=128 // heads) for heads in HEADS],
    model="vit", dataset="mnist", depth=4, dim=128, mlp_dim=256, epochs=5,
)  # fmt: skip
