"""Between full localizations: where the camera should be by now, for ``Localizer.track`` to look for landmarks about
there.

With odometry the last believed pose moves as the odometry says. Without, it moves on as it did between the last two
believed poses (constant velocity in the body frame). Either prediction grows unsure with what was moved and with time,
as the gate's own rules for odometry and for the fastest motion say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dimm_ros.config import GateConfig
from dimm_ros.geometry.covariance import lever
from dimm_ros.geometry.poses import exp_so3, invert, make_pose, rotation_vector

#: Without odometry: how far a body may depart from constant velocity, m/s^2 and rad/s^2, one standard deviation.
_ACCELERATION, _TURNING = 1.0, 2.0
#: Longest time over which a pose is predicted, seconds: further on, a full localization costs less than it risks.
_LONGEST_S = 0.5
#: Least standard deviations of a prediction, metres and radians.
_LEAST_POSITION, _LEAST_ROTATION = 0.01, np.radians(0.5)


@dataclass(frozen=True)
class PredictedPose:
    """Where a body should be: (4, 4) map_from_body and its (6, 6) covariance, order x, y, z, rx, ry, rz, map axes."""

    map_from_body: np.ndarray
    covariance: np.ndarray


@dataclass(frozen=True)
class _Believed:
    stamp_ns: int
    map_from_body: np.ndarray
    covariance: np.ndarray
    odom_from_body: np.ndarray | None


class Tracker:
    """Remembers believed poses and predicts the next."""

    def __init__(self) -> None:
        self._last: _Believed | None = None
        self._before: _Believed | None = None
        self._full_ns: int | None = None

    def forget(self) -> None:
        """Believe nothing of what was."""
        self._last = self._before = self._full_ns = None

    def believe(
        self,
        stamp_ns: int,
        map_from_body: np.ndarray,
        covariance: np.ndarray,
        odom_from_body: np.ndarray | None,
        *,
        full: bool,
    ) -> None:
        """A pose was believed: of a full localization, or of a tracked image."""
        if self._last is not None and stamp_ns <= self._last.stamp_ns:
            self.forget()
        self._before, self._last = self._last, _Believed(stamp_ns, map_from_body, covariance, odom_from_body)
        if full:
            self._full_ns = stamp_ns

    def due(self, stamp_ns: int, every_s: float) -> bool:
        """Whether it is time for a full localization."""
        return self._full_ns is None or not 0 <= stamp_ns - self._full_ns < every_s * 1e9

    def predict(self, stamp_ns: int, odom_from_body: np.ndarray | None, config: GateConfig) -> PredictedPose | None:
        """Where the body should be at a time; None when that is anybody's guess.

        Args:
            stamp_ns: of the image.
            odom_from_body: (4, 4) odometry then, or None.
            config: how far odometry drifts.
        """
        last = self._last
        if last is None:
            return None
        seconds = (stamp_ns - last.stamp_ns) * 1e-9
        if not 0 < seconds <= _LONGEST_S:
            return None
        if odom_from_body is not None and last.odom_from_body is not None:
            motion = invert(last.odom_from_body) @ odom_from_body
            metres, radians = np.linalg.norm(motion[:3, 3]), np.linalg.norm(rotation_vector(motion[:3, :3]))
            position = config.odometry_drift * metres
            rotation = np.radians(config.odometry_turn_drift_deg) * metres + config.odometry_turn_scale * radians
        else:
            motion = self._coasted(seconds)
            if motion is None:
                return None
            position, rotation = 0.5 * _ACCELERATION * seconds**2, 0.5 * _TURNING * seconds**2
        spread = [max(position, _LEAST_POSITION) ** 2] * 3 + [max(rotation, _LEAST_ROTATION) ** 2] * 3
        carried = lever(last.map_from_body[:3, :3] @ motion[:3, 3])
        return PredictedPose(last.map_from_body @ motion, carried @ last.covariance @ carried.T + np.diag(spread))

    def _coasted(self, seconds: float) -> np.ndarray | None:
        """Motion of the body over a time at its last velocity; None before there are two poses."""
        if self._before is None:
            return None
        between = (self._last.stamp_ns - self._before.stamp_ns) * 1e-9
        if not 0 < between <= _LONGEST_S:
            return None
        motion = invert(self._before.map_from_body) @ self._last.map_from_body
        share = seconds / between
        return make_pose(exp_so3(share * rotation_vector(motion[:3, :3])), share * motion[:3, 3])
