"""The sets of scenes by name: `driving:` of the world, `commonroad:` and `nuscenes:` of recorded traffic."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attnsweep.tasks.driving.records.scenes import SceneSet

WORLD, RECORDED = "driving:", ("commonroad:", "nuscenes:")
NAMES = ("driving:small", "driving:full", "commonroad:PATH", "nuscenes:PATH")


def find(name: str) -> "SceneSet | None":
    """The set of scenes of that name; PATH is a folder of recorded traffic. None where there is none.

    Raises UserError where a set of the world is unknown, or a folder holds nothing to read.
    """
    if not name.startswith((WORLD, *RECORDED)):
        return None
    from attnsweep.tasks.driving.records import presets, recorded, scenes  # here: other tasks need none of it

    if name.startswith(WORLD):
        return scenes.SceneSet(presets.find(name), is_folder=False)
    return scenes.SceneSet(recorded.find(name), is_folder=True)
