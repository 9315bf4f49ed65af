"""How vehicles move and how drivers follow: the kinematic bicycle, the intelligent driver model, and the
tracking of a planned trajectory. All batched, all in float64.
"""

import numpy as np

from attnsweep.tasks.driving.world.geometry import Floats, wrap

DT = 0.1  # s, a step of the world
MAX_STEERING = 0.6  # rad, at the wheels
LEAST = 1e-2  # what stands in for a speed or gap that is smaller


def bicycle(state: Floats, acceleration: Floats, steering: Floats, wheelbase: Floats, *, dt: float) -> Floats:
    """The states (..., 4) of x, y, yaw, speed after `dt`, by the kinematic bicycle about its centre.

    Polack et al., "The kinematic bicycle model", IV 2017, equations 1 to 5, with both axles half a wheelbase
    from the centre; one explicit Euler step.
    """
    slip = slip_of(steering)
    x, y, yaw, speed = (state[..., i] for i in range(4))
    return np.stack(
        [
            x + speed * np.cos(yaw + slip) * dt,
            y + speed * np.sin(yaw + slip) * dt,
            yaw + speed * np.sin(slip) / (wheelbase / 2) * dt,
            speed + acceleration * dt,
        ],
        axis=-1,
    )


def motion_of(state: Floats, slip: Floats) -> Floats:
    """x, y, yaw, vx, vy (..., 5) of bicycles (..., 4) that go at a slip angle (...)."""
    course, speed = state[..., 2] + slip, state[..., 3:]
    velocity = speed * np.stack([np.cos(course), np.sin(course)], axis=-1)
    return np.concatenate([state[..., :3], velocity], axis=-1)


def slip_of(steering: Floats) -> Floats:
    """The angle from a bicycle's axis to the velocity of its centre."""
    return np.arctan(np.tan(steering) / 2)


def steering_of(slip: Floats) -> Floats:
    """The steering angle, within its limits, that gives the slip angle or comes nearest to it."""
    steepest = float(np.arctan(np.tan(MAX_STEERING) / 2))
    return np.arctan(2 * np.tan(np.clip(slip, -steepest, steepest)))


def not_zero(values: Floats) -> Floats:
    """The values, those nearer to zero than 0.01 moved out to 0.01 with their sign."""
    return np.where(np.abs(values) > LEAST, values, np.where(values >= 0, LEAST, -LEAST))


def free_road(speed: Floats, wanted: Floats, *, most: Floats, exponent: Floats | float = 4.0) -> Floats:
    """The acceleration on a free road to a wanted speed; Treiber, Hennecke, Helbing, 2000, equation 2."""
    return most * (1 - (np.maximum(speed, 0) / np.abs(not_zero(wanted))) ** exponent)


def braking(
    speed: Floats,
    closing: Floats,
    gap: Floats,
    *,
    most: Floats,
    comfortable: Floats,
    headway: Floats,
    standing: Floats | float,
) -> Floats:
    """What a leader takes off the acceleration; Treiber, Hennecke, Helbing, 2000, equations 2 and 3.

    `closing` is the own speed less the leader's, `gap` the distance between them, `standing` the gap wanted
    at rest, `headway` the time gap wanted, `comfortable` the braking that is felt as comfortable (above 0).
    """
    wanted = standing + speed * headway + speed * closing / (2 * np.sqrt(most * comfortable))
    return most * (wanted / not_zero(gap)) ** 2


# --- Tracking a plan ---


def pursue(state: Floats, plan: Floats, *, elapsed: float, wheelbase: Floats, spacing: float = 0.5) -> Floats:
    """Acceleration and steering (b, 2) that bring bicycles (b, 4) along plans.

    Point k of a plan (b, n, 2), in the world, is due `k * spacing` seconds after the plan was made, which was
    `elapsed` seconds ago; point 0 is where the vehicle was then. It accelerates so as to be in a second where
    the plan is in a second, within -6 and 3 m/s2, and steers onto the arc through a point ahead on the plan
    (pure pursuit, Coulter, 1992, here about the centre of the bicycle). There is no reverse gear: where the
    plan is in a second behind the vehicle, it brakes.
    """
    x, y, yaw, speed = (state[:, i] for i in range(4))
    lengths = np.hypot(np.diff(plan[..., 0]), np.diff(plan[..., 1]))
    s = np.concatenate([np.zeros((len(plan), 1)), np.cumsum(lengths, axis=1)], axis=1)
    now = progress(state[:, :2], plan, s)
    at = (elapsed + 1.0) / spacing
    k = min(int(at), s.shape[1] - 2)  # beyond the end of the plan it goes on as it ends
    due = s[:, k] + (at - k) * (s[:, k + 1] - s[:, k])
    goal = plan[:, k] + (at - k) * (plan[:, k + 1] - plan[:, k])
    ahead = (goal[:, 0] - x) * np.cos(yaw) + (goal[:, 1] - y) * np.sin(yaw) > 0
    acceleration = np.clip(2 * (np.where(ahead, due - now, 0.0) - speed), -6.0, 3.0)
    aim = point_at(plan, s, now + np.clip(0.5 * speed, 2.0, 6.0))
    dx, dy = aim[:, 0] - x, aim[:, 1] - y
    angle, distance = wrap(np.arctan2(dy, dx) - yaw), np.hypot(dx, dy)
    slip = np.arctan2(wheelbase * np.sin(angle), np.maximum(distance, 1.0) + wheelbase * np.cos(angle))
    steering = np.where(s[:, -1] > 0.3, steering_of(slip), 0.0)
    return np.stack([acceleration, steering], axis=-1)


def progress(points: Floats, line: Floats, s: Floats) -> Floats:
    """The arc length (b,) nearest to a point (b, 2) on each line (b, n, 2) with `s` (b, n) at its points."""
    start, step = line[:, :-1], np.diff(line, axis=1)
    rx, ry = points[:, None, 0] - start[..., 0], points[:, None, 1] - start[..., 1]
    square = np.maximum(step[..., 0] ** 2 + step[..., 1] ** 2, 1e-9)
    share = np.clip((rx * step[..., 0] + ry * step[..., 1]) / square, 0, 1)
    distance = np.hypot(rx - share * step[..., 0], ry - share * step[..., 1])
    nearest, rows = distance.argmin(axis=1), np.arange(len(line))
    return s[rows, nearest] + share[rows, nearest] * np.sqrt(square[rows, nearest])


def point_at(line: Floats, s: Floats, at: Floats) -> Floats:
    """The points (b, 2) of lines (b, n, 2) at arc lengths (b,); beyond a line's end, straight on."""
    rows = np.arange(len(line))
    moves = np.diff(s, axis=1) > 1e-6
    last = np.where(moves, np.arange(moves.shape[1]), 0).max(axis=1)
    k = np.minimum((s[:, 1:-1] <= at[:, None]).sum(axis=1), last)
    length = np.maximum(s[rows, k + 1] - s[rows, k], 1e-6)
    share = ((at - s[rows, k]) / length)[:, None]
    return line[rows, k] + share * (line[rows, k + 1] - line[rows, k])
