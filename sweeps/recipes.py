"""Is the order of five architectures theirs, or that of the recipe which trains them?

30 trials at 100,000 parameters, within 2 %, on CIFAR-10: each model under the published recipe (Adam, a step
schedule, no augmentation) and the modern one (what the CCT and DeiT papers do, at small scale), three seeds
each, from the same highest learning rate; some 10 h on two cores. docs/recipes.md has what came out of it on
fewer images.
"""

from ray import tune

from attnsweep import Sweep

sweep = Sweep(
    [
        dict(model="cct", dim=60, mlp_dim=120),
        dict(model="vit", dim=78, mlp_dim=156, patch_size=4),
        dict(model="simple_vit", dim=80, mlp_dim=160, patch_size=4),
        dict(model="hybrid", dim=60, mlp_dim=120, patch_size=2),
        dict(model="cnn", dim=32),
    ],
    recipe=tune.grid_search(["published", "modern"]), seed=tune.grid_search([0, 1, 2]),
    dataset="cifar10", depth=2, heads=4, dim_head=16, lr=1e-3, lr_gamma=0.88, epochs=25,
)  # fmt: skip
