"""Drivers for highway-env's stock environments, a class for each environment.

`IntersectionEnv` sets its drivers' parameters on their class. If all environments shared one class, what is
rolled out in one would depend on whether an intersection was built before in the same process.
"""

from highway_env.vehicle.behavior import IDMVehicle


class IntersectionDriver(IDMVehicle): ...


class RoundaboutDriver(IDMVehicle): ...


class MergeDriver(IDMVehicle): ...


class HighwayDriver(IDMVehicle): ...
