"""Does a planner of one's own beat the route alone?  A small CNN, in `own_planner_net.py` beside this.

6 trials, by estimate 10 min on two cores, the recording of the scenes included; not run whole yet.
`dataset=driving:tiny epochs=2` shows in a minute that all works. Expected: ahead of `route_following`, which
sees nobody; behind the stack, which also learns from all that there is to see.
"""

from ray import tune

from attnsweep import Sweep

sweep = Sweep(
    [
        dict(
            model="own_planner_net.py:SpeedPlanner",
            dim=tune.grid_search([16, 32]),
            depth=tune.grid_search([3, 4]),
        ),
        dict(model=tune.grid_search(["planning", "route_following"])),
    ],
    dataset="driving:small",
)
