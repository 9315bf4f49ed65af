"""How large should a planning stack be, once latency and parameters are counted?

27 trials of the full stack (depth x heads x dim), some 4 h on two cores, judging by the smallest and a middle
size; not run whole yet. The smallest drives at 86 %, the expert at 99 %.
"""

from ray import tune

from attnsweep import Sweep

sweep = Sweep(
    dict(
        model="planning",
        stages="id12",
        depth=tune.grid_search([1, 2, 3]),
        heads=tune.grid_search([2, 4, 8]),
        dim=tune.grid_search([32, 64, 128]),
    ),
    mlp_dim=tune.sample_from(lambda config: 2 * config["dim"]),
    dataset="driving:small",
)
