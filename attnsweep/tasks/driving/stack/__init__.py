"""The planning stack, after UniAD (https://arxiv.org/abs/2212.10156), and what trains it."""
