"""What a planner says about a key frame. Every planner, a baseline too, returns a `Prediction`.

Shapes: b examples, q agent queries, m modes, l line queries, g cells of a coarser grid. All in the frame of
the ego at the key frame: metres, seconds, radians. Modes and times are those of `samples.SAMPLE`.
"""

from dataclasses import dataclass

from torch import Tensor

MODES = 6  # futures that are predicted for each agent


@dataclass(frozen=True)
class Agents:
    """Agents that were found: `logit` (b, q) that one is there; `box` (b, q, 6) of x, y, cosine and sine of
    yaw, length, width; `velocity` (b, q, 2) over the ground; `offset` (b, q, 2), where it was a key frame ago
    less where it is, both in the present frame, or None without identity over frames.
    """

    logit: Tensor
    box: Tensor
    velocity: Tensor
    offset: Tensor | None


@dataclass(frozen=True)
class Lines:
    """Lines of the map: `logits` (b, l, 4) of centre, border, divider and none; `points` (b, l, 10, 2)."""

    logits: Tensor
    points: Tensor


@dataclass(frozen=True)
class Futures:
    """Where each agent of `Agents` goes: `logits` (b, q, m) of the modes, `offsets` (b, q, m, 8, 2), where it
    will be each half second less where it is.
    """

    logits: Tensor
    offsets: Tensor


@dataclass(frozen=True)
class Choice:
    """What a planner chose from: `logits` (b, v) of the `plans` (b, v, 8, 3), each made from one of the
    `anchors` (b, v, 8, 3).
    """

    logits: Tensor
    plans: Tensor
    anchors: Tensor


@dataclass(frozen=True)
class Prediction:
    """`plan` (b, 8, 3): x, y, yaw of the ego each half second; NaN, and `planned` False, where nothing plans.
    The rest is None where a planner has no such stage: `heat` (b, g, g) logits that an agent's centre lies in
    a cell; `map` (b, 3, g, g) logits of drivable, border, divider; `occupancy` (b, 5, q, g, g) logits that an
    agent covers a cell in 0 to 4 s; `choice`, what the plan was chosen from. The cells of a grid of g lie
    over the sample's grid of 64, which g divides.
    """

    plan: Tensor
    agents: Agents | None = None
    lines: Lines | None = None
    futures: Futures | None = None
    heat: Tensor | None = None
    map: Tensor | None = None
    occupancy: Tensor | None = None
    choice: Choice | None = None
    planned: bool = True
