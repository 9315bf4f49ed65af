"""Does the whole road work here, and how do the four models compare on small real digits?

10 trials on 1,797 handwritten digits of 8x8 pixels; under 3 minutes on two cores, no download. Expected: the
hybrid reaches 98 % and more, the CNN 97 % at a fifth of its latency; on so few images the pure transformers
stay between 80 and 93 %.
"""

from ray import tune

from attnsweep import Sweep

sweep = Sweep(
    [
        dict(model=tune.grid_search(["vit", "deepvit", "hybrid"]), depth=tune.grid_search([1, 2, 4])),
        dict(model="cnn"),
    ],
    dataset="digits", dim=64, heads=4, dim_head=16, mlp_dim=128, lr=1e-3, lr_gamma=0.95, epochs=20,
)  # fmt: skip
