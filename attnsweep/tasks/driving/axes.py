"""The axes that only planners have; `stack.design` has their values and says which go together."""

from attnsweep.core.axes import KERNEL, SHARED, Axis, by_name
from attnsweep.tasks.driving.stack import design

MEANINGS = {
    "stages": "set of stages: a row of UniAD's table 2, or ours",
    "topology": "stages one after another, or side by side",
    "track": "no agents; their detection; with where each was before",
    "lines": "the map: not learned, as a grid, as lines, or both",
    "motion": "whether agents' futures are predicted",
    "occ": "occupancy: none, by agents' embeddings alone, or by OccFormer",
    "plan": "whether it plans",
    "agent_agent": "MotionFormer attends to agents",
    "agent_map": "MotionFormer attends to map lines",
    "agent_goal": "MotionFormer looks at where each future ends",
    "plan_agents": "Planner attends to agents",
    "plan_map": "Planner attends to map lines",
    "plan_motion": "Planner attends to agents' futures",
    "plan_bev": "Planner attends to the bird's-eye view",
    "query_init": "agent queries from peaks of a heat map, or learned",
    "plan_head": "progress along the route and offset; x and y; anchors",
    "nav": "what is told of the way: the route, a point of it, a command",
    "ego_state": "the ego's own motion as an input: none, at times, always",
    "grad_stop": "whom the planner's gradient does not reach",
    "bev_attention": "of the bird's-eye view's tokens",
    "sensor": "by what the stack sees: a scanner, or six cameras",
    "post": "what mends the plan afterwards",
}


def stack_axis(name: str) -> Axis:
    """An axis of the planning stack, with the values and the default of `design`.

    No cost depends on `grad_stop`. There were only scanners before `sensor` came.
    """
    default = design.DEFAULTS.get(name)
    before = "lidar" if name == "sensor" else None
    choices, architecture = design.CHOICES[name], name != "grad_stop"
    return Axis(name, str, default, MEANINGS[name], choices=choices, architecture=architecture, before=before)


AXES = tuple(map(stack_axis, MEANINGS))
KNOWN = by_name(SHARED.values(), AXES) | KERNEL
