"""How near does CCT-2/3x2 come to the 89.17 % that its authors publish for CIFAR-10 after 200 epochs?

One trial of 0.28 million parameters (arXiv:2104.05704; two blocks, two heads, two 3x3 convolutions) under the
modern recipe, which is stronger than theirs: they have AutoAugment, and neither mixing nor erasing. Some 12 h
on a core; docs/recipes.md has how far a few epochs came.
"""

from attnsweep import Sweep

sweep = Sweep(
    model="cct", depth=2, heads=2, dim=128, mlp_dim=128, dataset="cifar10", recipe="modern", batch_size=128,
    epochs=200, precision="bf16", keep_weights=True,
)  # fmt: skip
