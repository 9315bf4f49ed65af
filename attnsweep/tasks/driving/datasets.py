"""The sets of scenes by name: `driving:` of the world, `commonroad:` and `nuscenes:` of recorded traffic."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attnsweep.tasks.driving.records.recorded import Recorded
    from attnsweep.tasks.driving.records.scenes import Preset

    Scenes = Preset | Recorded

WORLD, RECORDED = "driving:", ("commonroad:", "nuscenes:")
NAMES = ("driving:small", "driving:full", "commonroad:PATH", "nuscenes:PATH")


def find(name: str) -> "Scenes | None":
    """The set of scenes of that name; PATH is a folder of recorded traffic. None where there is none.

    Raises UserError where a set of the world is unknown, or a folder holds nothing to read.
    """
    if not name.startswith((WORLD, *RECORDED)):
        return None
    from attnsweep.tasks.driving.records import recorded, scenes  # here: other tasks need none of it

    return scenes.find(name) if name.startswith(WORLD) else recorded.find(name)
