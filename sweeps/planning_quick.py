"""Does a planner that sees the road drive better than what sees nothing?

9 trials, some 10 minutes on two cores, recording the scenes included. Expected: closed-loop scores above 0.8
for the stack, which sees; below 0.5 for all that is blind, though one stays closest to the expert's path.
"""

from ray import tune

from attnsweep import Sweep

sweep = Sweep(
    [
        dict(model="planning", stages=tune.grid_search(["id12", "id10"])),
        dict(model=tune.grid_search(["ego_mlp", "route_mlp"]), dim=128, depth=2, epochs=20),
        dict(model=tune.grid_search(["expert", "route_following", "steady", "constant_velocity", "stop"])),
    ],
    dataset="driving:small",
    keep_weights=True,
)
