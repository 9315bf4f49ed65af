"""How vehicles move and how drivers follow: the kinematic bicycle, the intelligent driver model, and the
tracking of a planned trajectory. All batched, all in float64.
"""

import numpy as np

from attnsweep.planning.geometry import Floats, wrap

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


def slip_of(steering: Floats) -> Floats:
    """The angle from a bicycle's axis to the velocity of its centre."""
    return np.arctan(np.tan(steering) / 2)


def steering_of(slip: Floats) -> Floats:
    """The steering angle, within its limits, that gives the slip angle or comes nearest to it."""
    steepest = float(slip_of(np.float64(MAX_STEERING)))
    return np.arctan(2 * np.tan(np.clip(slip, -steepest, steepest)))


def not_zero(values: Floats) -> Floats:
    """The values, those nearer to zero than 0.01 moved out to 0.01 with their sign."""
    return np.where(np.abs(values) > LEAST, values, np.where(values >= 0, LEAST, -LEAST))


def free_road(speed: Floats, wanted: Floats, *, most: Floats, exponent: Floats | float = 4.0) -> Floats:
    """The acceleration on a free road towards the wanted speed; Treiber, Hennecke, Helbing, 2000, equation
    2.
    """
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


def pursue(state: Floats, plan: Floats, times: Floats, wheelbase: Floats, *, dt: float) -> Floats:
    """Acceleration and steering (b, 2) that bring bicycles (b, 4) along planned points.

    The plan (b, t, 2) is in the world, its point k due `times[k]` seconds from now. Steering is pure pursuit
    (Coulter, 1992) of the point one look-ahead distance along the plan; speed is that of the plan over the
    next half second, corrected by what is still to go, within -6 and 3 m/s2.
    """
    path = np.concatenate([state[:, None, :2], plan], axis=1)
    steps = np.hypot(np.diff(path[..., 0]), np.diff(path[..., 1]))
    s = np.concatenate([np.zeros((len(state), 1)), np.cumsum(steps, axis=1)], axis=1)
    at = np.concatenate([[0.0], times])
    due = np.stack([np.interp([dt, dt + 0.5], at, row) for row in s])
    wanted = (due[:, 1] - due[:, 0]) / 0.5
    acceleration = np.clip((wanted - state[:, 3]) / 0.5, -6.0, 3.0)
    reach = np.clip(0.6 * state[:, 3], 2.0, 8.0)
    aim = np.stack(
        [
            [np.interp(r, row, line[:, k]) for k in range(2)]
            for r, row, line in zip(np.minimum(reach, s[:, -1]), s, path, strict=True)
        ]
    )
    angle = wrap(np.arctan2(aim[:, 1] - state[:, 1], aim[:, 0] - state[:, 0]) - state[:, 2])
    slip = np.arcsin(np.clip(np.sin(angle) * wheelbase / np.maximum(reach, 2.0), -1, 1))
    return np.stack([acceleration, np.where(s[:, -1] > 0.3, steering_of(slip), 0.0)], axis=-1)
