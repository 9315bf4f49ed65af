"""What a planning stack is made of: its axes, the named sets of stages, and which of them go together.

The sets are the rows of Table 2 of UniAD (https://arxiv.org/abs/2212.10156), the ablation that asks which
task helps planning, with the substitutions that its authors describe: without tracking, queries of a detector
take the place of tracked ones; without a map nobody attends to it; without motion the agents' queries stand
for their motion. `id13` and on are ours.
"""

from collections.abc import Mapping
from typing import Any

from attnsweep.core.errors import UserError, did_you_mean

SWITCH = ("on", "off")
MOTION_LINKS = ("agent_agent", "agent_map", "agent_goal")  # attentions of the motion stage
PLAN_LINKS = ("plan_agents", "plan_map", "plan_motion", "plan_bev")  # and of the planner
LINKS = (*MOTION_LINKS, *PLAN_LINKS)
CHOICES: dict[str, tuple[str, ...]] = {
    "stages": tuple(f"id{number}" for number in range(17)),
    "topology": ("sequential", "parallel"),
    "track": ("none", "det", "offset"),
    "lines": ("none", "dense", "vector", "both"),
    "motion": ("none", "former"),
    "occ": ("none", "head", "former"),
    **dict.fromkeys(("plan", *LINKS), SWITCH),
    "ego_state": ("none", "dropout", "full"),
    "post": ("none", "gradient"),
    "query_init": ("heatmap", "learned"),
    "plan_head": ("frenet", "xy", "anchors"),
    "nav": ("route", "target", "command"),
    "grad_stop": ("none", "bev"),
    "bev_attention": ("global", "window"),
    "sensor": ("lidar", "cameras"),
    "attention": ("fused", "explicit"),
}
DEFAULTS: dict[str, Any] = {  # of all that the stages do not say
    "stages": "id12",
    "depth": 1,
    "heads": 4,
    "dim": 32,
    "mlp_dim": 64,
    "dropout": 0.0,
    "attention": "fused",
    "query_init": "heatmap",
    "plan_head": "frenet",
    "nav": "route",
    "grad_stop": "none",
    "bev_attention": "window",
    "sensor": "lidar",
}
ALL: dict[str, str] = {
    "topology": "sequential",
    "track": "offset",
    "lines": "both",
    "motion": "former",
    "occ": "former",
    "plan": "on",
    **dict.fromkeys(LINKS, "on"),
    "ego_state": "none",
    "post": "none",
}
NO_TRACK = {"track": "none", "motion": "none", "occ": "none"}
NO_MAP = {"lines": "none", "agent_map": "off", "plan_map": "off"}
NO_MOTION = {"motion": "none", **dict.fromkeys((*MOTION_LINKS, "plan_motion"), "off")}
NO_OCC = {"occ": "none"}
NO_PLAN = {"plan": "off", **dict.fromkeys(PLAN_LINKS, "off")}
DETECTS = {"track": "det"}  # in the place of tracking
PLAN_ONLY = ALL | NO_TRACK | NO_MAP | NO_MOTION | {"plan_agents": "off"}
READ_OTHERS = ("agent_map", "plan_agents", "plan_map", "plan_motion")  # what stages find, not the grid alone
APART = {"topology": "parallel", "occ": "head", **dict.fromkeys(READ_OTHERS, "off")}
STAGES: dict[str, dict[str, str]] = {
    "id0": ALL | APART | dict.fromkeys(("agent_agent", "agent_goal", "plan_bev"), "off"),
    "id1": ALL | NO_MAP | NO_MOTION | NO_OCC | NO_PLAN,
    "id2": ALL | NO_TRACK | NO_MOTION | NO_PLAN,
    "id3": ALL | NO_MOTION | NO_OCC | NO_PLAN,
    "id4": ALL | DETECTS | NO_MAP | NO_OCC | NO_PLAN,
    "id5": ALL | NO_MAP | NO_OCC | NO_PLAN,
    "id6": ALL | NO_OCC | NO_PLAN,
    "id7": ALL | DETECTS | NO_MAP | NO_MOTION | NO_PLAN,
    "id8": ALL | NO_MAP | NO_MOTION | NO_PLAN,
    "id9": ALL | NO_PLAN,
    "id10": PLAN_ONLY,
    "id11": ALL | NO_OCC,
    "id12": ALL,
    "id13": ALL | APART,
    "id14": ALL | {"post": "gradient"},
    "id15": ALL | {"ego_state": "full"},
    "id16": PLAN_ONLY | {"ego_state": "full"},
}
VECTORS = ("vector", "both")
AGENTS = ("det", "offset")
NEEDS: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    # a toggle that is not none or off, the stage that it needs, as what, and why
    ("motion", "track", AGENTS, "predicts the agents that were found"),
    ("occ", "track", AGENTS, "says which cells each agent that was found will cover"),
    *((link, "motion", ("former",), "is an attention of the motion stage") for link in MOTION_LINKS),
    ("agent_map", "lines", VECTORS, "attends to queries of map lines"),
    *((link, "plan", ("on",), "is an attention of the planner") for link in PLAN_LINKS),
    ("plan_agents", "track", AGENTS, "attends to queries of agents"),
    ("plan_map", "lines", VECTORS, "attends to queries of map lines"),
    ("plan_motion", "motion", ("former",), "attends to queries of agents' futures"),
    ("ego_state", "plan", ("on",), "is read by the planner alone"),
    ("post", "plan", ("on",), "mends the plan"),
    ("post", "track", AGENTS, "mends the plan by the agents that were found"),
)


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with every key: of those that are None or missing, a toggle as its stage set says,
    another as in `DEFAULTS`.

    A toggle that was left open falls away with the stage that it needs, and with a topology where no stage
    reads another. Raises UserError for an unknown word and for toggles that make no sense together.
    """
    named = {key: value for key, value in config.items() if value is not None}
    full = DEFAULTS | named
    for key, words in CHOICES.items():
        if key in full and full[key] not in words:
            hint = did_you_mean(full[key], words)
            raise UserError(f"{key}={full[key]!r} is unknown{hint}; use one of {', '.join(words)}")
    full = STAGES[full["stages"]] | full
    if full["topology"] == "parallel":
        full |= {link: "off" for link in READ_OTHERS if link not in named}
        full["occ"] = "head" if full["occ"] == "former" and "occ" not in named else full["occ"]
    for toggle, stage, values, why in NEEDS:
        if is_on(full[toggle]) and full[stage] not in values:
            if toggle in named:
                raise UserError(
                    f"{toggle}={full[toggle]!r} {why}, and {stage}={full[stage]!r} has none; "
                    f"set {stage}={values[-1]!r} or {toggle}={off(toggle)!r}"
                )
            full[toggle] = off(toggle)
    check(full)
    return full


def is_on(value: object) -> bool:
    """Whether a toggle's value means that something is there."""
    return value not in ("none", "off")


def off(toggle: str) -> str:
    """The value of a toggle that means that nothing is there."""
    return "off" if "off" in CHOICES[toggle] else "none"


def reads_fine(config: Mapping[str, Any]) -> bool:
    """Whether any stage reads the fine map."""
    return is_on(config["track"]) or config["lines"] in ("dense", "both") or config["plan_bev"] == "on"


def check(config: Mapping[str, Any]) -> None:
    """Raises UserError where a full configuration makes no sense."""
    if config.get("dim") == 1:
        raise UserError(
            "dim=1 is too small for planning, whose grids have half as many channels; use 2 or more"
        )
    if not any(is_on(config[stage]) for stage in ("track", "lines", "plan")):
        raise UserError("track, lines and plan are all off, so there is nothing to learn; set plan='on'")
    if config["topology"] == "parallel":
        links = [link for link in READ_OTHERS if config[link] == "on"]
        if links or config["occ"] == "former":
            link = f"{links[0]}='on'" if links else "occ='former'"
            instead = f"{links[0]}='off'" if links else "occ='head'"
            raise UserError(
                f"{link} reads what another stage found, and with topology='parallel' no stage does; "
                f"set {instead} or topology='sequential'"
            )
    if config["plan"] == "on" and config["plan_head"] != "xy" and config["nav"] != "route":
        raise UserError(
            f"plan_head={config['plan_head']!r} lays the plan along the route, which nav={config['nav']!r} "
            "does not give; set nav='route' or plan_head='xy'"
        )
    others = is_on(config["track"]) or is_on(config["lines"])
    if is_on(config["grad_stop"]) and not (others and config["plan"] == "on"):
        raise UserError(
            "grad_stop='bev' keeps the plan's gradients from what is perceived, so that needs a planner and "
            "another stage that trains the encoder; set track='offset' or grad_stop='none'"
        )
