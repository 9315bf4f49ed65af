"""Comfort: the six limits of nuPlan and NAVSIM, by Savitzky and Golay's filter."""

import numpy as np

from attnsweep.tasks.driving.world.geometry import Flags, Floats

ALONG = (-4.05, 2.40)  # m/s2
ACROSS = 4.89  # m/s2
JERK, JERK_ALONG = 8.37, 4.13  # m/s3
YAW_RATE, YAW_ACCELERATION = 0.95, 1.93  # rad/s, rad/s2
OF_ACCELERATION, OF_JERK, OF_YAW = 8, 15, 5  # entries of 0.1 s in the windows
LEAST = 4  # entries, that a cubic needs


def discomfort(ego: Floats, dt: float) -> Flags:
    """When an ego with states (t, 5) passes which limit (t, 6): of acceleration along and across, jerk, jerk
    along, yaw acceleration, yaw rate. With fewer than four entries it passes none.

    Limits and windows are those of NAVSIM 2.2 (`pdm_comfort_metrics.py`) and nuPlan 1.2
    (`state_extractors.py`): accelerations are smoothed by a quadratic over 0.8 s, jerk is the derivative of
    what is smoothed over 1.5 s, yaw rate and acceleration are derivatives over 0.5 s, the latter of a cubic.
    Only whole windows count: at the ends of a drive, where polynomials are extended, the devkits find more
    than 4.13 m/s3 in a jerk of 3.5 that began half a second before. An ego at a time, since the filter
    solves its ends for all columns at once, whose last bits then depend on one another.
    """
    if len(ego) < LEAST:
        return np.zeros((len(ego), 6), dtype=bool)
    change = np.diff(ego[:, 3:], axis=0, append=2 * ego[-1:, 3:] - ego[-2:-1, 3:]) / dt
    cos, sin = np.cos(ego[:, 2]), np.sin(ego[:, 2])
    along = smoothed(cos * change[:, 0] + sin * change[:, 1], OF_ACCELERATION)
    across = smoothed(cos * change[:, 1] - sin * change[:, 0], OF_ACCELERATION)
    size = smoothed(np.hypot(*change.T), OF_ACCELERATION)
    yaw = np.unwrap(ego[:, 2])
    passed = (
        (OF_ACCELERATION, (along <= ALONG[0]) | (along >= ALONG[1])),
        (OF_ACCELERATION, np.abs(across) >= ACROSS),
        (OF_JERK, np.abs(smoothed(size, OF_JERK, deriv=1, dt=dt)) >= JERK),
        (OF_JERK, np.abs(smoothed(along, OF_JERK, deriv=1, dt=dt)) >= JERK_ALONG),
        (OF_YAW, np.abs(smoothed(yaw, OF_YAW, deriv=2, degree=3, dt=dt)) >= YAW_ACCELERATION),
        (OF_YAW, np.abs(smoothed(yaw, OF_YAW, deriv=1, dt=dt)) >= YAW_RATE),
    )
    at = np.arange(len(ego))
    from_end = np.minimum(at, at[::-1])
    return np.stack([flags & (from_end >= window // 2) for window, flags in passed], axis=1)


def smoothed(values: Floats, window: int, *, degree: int = 2, deriv: int = 0, dt: float = 1.0) -> Floats:
    """Values (t,), or a derivative of them, smoothed over a window that is no longer than they are."""
    from scipy.signal import savgol_filter  # here: a second that no plan, and no first step, should wait for

    return np.asarray(savgol_filter(values, min(window, len(values)), degree, deriv=deriv, delta=dt))
