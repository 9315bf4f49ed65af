"""Which attention writes text best, at which latency per token and memory of its cache?

16 trials on the reference texts that come with Python, or on your own: `dataset=text:PATH`. Four ways to say
where a token stands, one head of keys and values or four, two blocks or four. About 10 min on two cores.
`python -m attnsweep.tasks.text.baselines` says what counting and compressing reach; docs/text.md shows both.
"""

from ray import tune

from attnsweep import Sweep

sweep = Sweep(
    model="decoder",
    dataset="text:python",
    positions=tune.grid_search(["rope", "alibi", "sinusoidal", "none"]),
    kv_heads=tune.grid_search([1, 4]),
    depth=tune.grid_search([2, 4]),
    dim=64, heads=4, mlp_dim=256, context=128, batch_size=8, epochs=4, keep_weights=True,
)  # fmt: skip
