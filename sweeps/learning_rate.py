"""How far is the published learning rate of 1e-4 from each model's best?

4 models x 8 draws, the same eight for every model, on the built-in digits: about 6 min on two cores.
Expected: on so small a set all models want ten times more, and the transformers fall off earliest above that.
"""

from ray import tune

from attnsweep import Sweep

sweep = Sweep(
    model=tune.grid_search(["cnn", "vit", "deepvit", "hybrid"]),
    lr=tune.loguniform(1e-5, 1e-1),
    num_samples=8,
    dataset="digits", depth=2, heads=4, dim=64, dim_head=16, mlp_dim=128, lr_gamma=0.95, epochs=20,
)  # fmt: skip
