"""The planning stack: a driving world of its own, its sensor, the scenes recorded in it, and what is learned
from them.

Right-handed frames, x forward and y left in the frame of a vehicle; metres, seconds, radians. Traffic drives
on the right.
"""
