"""Does depth buy accuracy once latency and parameters are counted?

10 trials on MNIST, about 45 min on two cores: ViT, DeepViT and Hybrid at depths 2, 4 and 6, and the CNN,
which has none. Expected: depth 2 to 6 is worth a point to the pure transformers and next to nothing to the
hybrid; latency grows linearly.
"""

from ray import tune

from attnsweep import Sweep

sweep = Sweep(
    [
        dict(model=tune.grid_search(["vit", "deepvit", "hybrid"]), depth=tune.grid_search([2, 4, 6])),
        dict(model="cnn"),  # a list is a union: the CNN has no depth
    ],
    dataset="mnist", heads=4, dim=128, mlp_dim=256, epochs=5,
)  # fmt: skip
