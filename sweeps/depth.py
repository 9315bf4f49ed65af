"""Does depth buy accuracy once latency and parameters are counted?

10 trials on MNIST, about 35 min on two cores: ViT, DeepViT and Hybrid at depths 2, 4 and 6, and the CNN,
which has no depth. Expected: depth 2 to 6 is worth two to three points to the ViT, one to DeepViT and half a
point to the hybrid, for three times the latency of a ViT and twice that of a hybrid.
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
