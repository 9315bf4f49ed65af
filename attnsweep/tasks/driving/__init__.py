"""Driving: a planner after UniAD (https://arxiv.org/abs/2212.10156), learnt in minutes and judged by driving.

`world` is where it drives and what it senses there, `records` what it learns from, `stack` what it is made
of, `judging` what it is worth. Right-handed frames, x forward and y left in the frame of a vehicle; metres,
seconds, radians. Traffic drives on the right.
"""
