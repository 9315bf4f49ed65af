"""What a planner says about a key frame. Every planner, a baseline too, returns a `Prediction`.

Shapes: b examples, q agent queries, m modes, l line queries, g cells of a coarser grid. All in the frame of
the ego at the key frame: metres, seconds, radians. Modes and times are those of `samples.SAMPLE`.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

MODES = 6  # futures that are predicted for each agent


@dataclass(frozen=True)
class Agents:
    """Agents that were found: the `logit` that one is there; its `box`: x, y, cosine and sine of yaw, length,
    width; its `velocity` over the ground; `offset`, where it was a key frame ago less where it is, both in
    the present frame, or None without identity over frames.
    """

    logit: Float[Tensor, "b q"]
    box: Float[Tensor, "b q 6"]
    velocity: Float[Tensor, "b q 2"]
    offset: Float[Tensor, "b q 2"] | None


@dataclass(frozen=True)
class Lines:
    """Lines of the map: `logits` of centre, border, divider and none, and `points`."""

    logits: Float[Tensor, "b l 4"]
    points: Float[Tensor, "b l 10 2"]


@dataclass(frozen=True)
class Futures:
    """Where `Agents` go: `logits` of the modes, and `offsets` each half second from where they are."""

    logits: Float[Tensor, "b q m"]
    offsets: Float[Tensor, "b q m 8 2"]


@dataclass(frozen=True)
class Choice:
    """What a planner chose from: `logits` of the `plans`, each made from one of the `anchors`."""

    logits: Float[Tensor, "b v"]
    plans: Float[Tensor, "b v 8 3"]
    anchors: Float[Tensor, "b v 8 3"]


@dataclass(frozen=True)
class Prediction:
    """`plan`: x, y, yaw of the ego each half second; NaN, and `planned` False, where nothing plans. The rest
    is None where a planner has no such stage: `heat`, logits that an agent's centre lies in a cell; `map`,
    logits of drivable, border, divider; `occupancy`, logits that an agent covers a cell in 0 to 4 s;
    `choice`, what the plan was chosen from. The cells of a grid of g lie over the sample's grid of 64, which
    g divides.
    """

    plan: Float[Tensor, "b 8 3"]
    agents: Agents | None = None
    lines: Lines | None = None
    futures: Futures | None = None
    heat: Float[Tensor, "b g g"] | None = None
    map: Float[Tensor, "b 3 g g"] | None = None
    occupancy: Float[Tensor, "b 5 q g g"] | None = None
    choice: Choice | None = None
    planned: bool = True
