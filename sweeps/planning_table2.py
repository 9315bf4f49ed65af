"""Which task helps which? All rows of UniAD's table 2 (https://arxiv.org/abs/2212.10156), id0 to id12.

39 trials of three seeds, some 2 h on two idle cores, the recording of the scenes included; seed=0 is an hour
of one core, seed=0 epochs=1 a first look. python -m attnsweep planning results writes them in the table's own
layout, each cell with its interval. Expected by UniAD: tracking and the map help motion; motion and occupancy
help planning (id10 against id12). What one seed says is in docs/driving.md.
"""

from ray import tune

from attnsweep import Sweep

sweep = Sweep(
    model="planning",
    stages=tune.grid_search([f"id{number}" for number in range(13)]),
    dataset="driving:small",
    seed=tune.grid_search([0, 1, 2]),
)
