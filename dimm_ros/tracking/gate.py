"""Which accepted estimates are believed: by agreement with odometry and with one another.

A network's answer to a view that it does not know can look certain. What it cannot do is to follow the robot: a pose is
believed when it agrees with the last believed pose carried on by odometry, or when several of the newest estimates,
each carried on by odometry, agree with one another (``first_fix`` for a first pose, ``jump`` of ``window`` against the
pose believed so far).

Two estimates agree when the innovation passes a chi-square test (6 degrees of freedom) under the sum of both
covariances and odometry's, and lies within ``agreement_distance`` and ``agreement_angle_deg``. The odds that wrong
estimates agree by chance, for wrong poses spread over a room of 4 m x 4 m and all headings (the worst case: height,
roll and pitch always fit):

* standard deviations of 5 cm and 2 deg: an ellipsoid of 4/3 pi 16.8^1.5 (0.07 m)^2 0.05 rad = 0.07 m^2 rad in 16 m^2 x
    2 pi, so
  7e-4 for two, and 5e-7 for two further ones; with 6 ways to choose 2 of 4 earlier ones that is 3e-6 an image.
* larger ones are cut to ``position_ceiling``, and the limits leave pi 0.4^2 / 16 * 20 / 360 = 1.7e-3 for two: 2e-5 an
image.

Wrong estimates of one standing camera are not independent: whatever an unknown view looks like, it looks so again. The
gate cannot tell them from right ones; the inliers and the out-of-map score of the estimate must.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import gammaincinv

from dimm_ros.config import GateConfig
from dimm_ros.geometry.covariance import lever
from dimm_ros.geometry.poses import invert, is_rigid, moved, rotation_vector

#: Standard deviations that a hint has at least: people point at a map roughly.
_HINT_POSITION, _HINT_ROTATION_DEG = 0.5, 20.0
#: Standard deviations of what a hint leaves out: rviz gives no height, roll and pitch, with a variance of zero.
_UNSAID_POSITION, _UNSAID_ROTATION_DEG = 1.0, 30.0
#: A prediction less certain than so many ceilings does not let a single estimate pass.
_COASTING = 2.0


@dataclass(frozen=True)
class Verdict:
    """The gate's verdict on an estimate.

    Attributes:
        accepted: whether it may be published.
        reason: one sentence when not accepted, empty when accepted.
        jumped: accepted although it contradicts the pose believed so far (carried-away robot, another map, reset
            odometry).
    """

    accepted: bool
    reason: str = ""
    jumped: bool = False


@dataclass(frozen=True)
class _Sighting:
    """One estimate (or the pose believed) with what is needed to carry it on; the covariance holds floor and
    ceiling.
    """

    map_from_base: np.ndarray
    covariance: np.ndarray
    odom_from_base: np.ndarray | None
    stamp_ns: int
    map_name: str | None


@dataclass(frozen=True)
class _Innovation:
    """How far a sighting is from where an earlier one predicts it.

    Attributes:
        predicted: (4, 4) map_from_base, where the earlier one puts the base.
        covariance: (6, 6) of that prediction.
        error: (6,) shift and turn (radians) from there to the sighting, less what the base may have moved without
            odometry.
        distance, angle_deg: their lengths, metres and degrees.
        agrees: whether chance explains it.
        certain: whether the prediction is good enough to let a single estimate pass.
    """

    predicted: np.ndarray
    covariance: np.ndarray
    error: np.ndarray
    distance: float
    angle_deg: float
    agrees: bool
    certain: bool


class PoseGate:
    """Judges a stream of estimates, one after the other; not thread safe.

    Works with odometry, without it (the base then is anywhere it can have reached), and where it comes and goes. Stamps
    must advance: whoever knows that time began anew calls ``forget``; a camera whose clock lags has such stamps, too.
    """

    def __init__(self, config: GateConfig | None = None) -> None:
        self.config = config or GateConfig()
        # chi-square quantile, 6 degrees of freedom
        self._limit = float(2.0 * gammaincinv(3.0, self.config.probability))
        self._floor = np.diag(
            np.repeat([self.config.position_floor, np.radians(self.config.rotation_floor_deg)], 3) ** 2
        )
        self.forget()

    @property
    def fixed(self) -> bool:
        """Whether a pose is believed."""
        return self._believed is not None

    def forget(self) -> None:
        """Start anew: the next pose needs a first fix."""
        self._believed: _Sighting | None = None
        self._hint: _Sighting | None = None
        # the newest estimates before the one at hand; None for each that was believed on the word of the pose before it
        self._refused: deque[_Sighting | None] = deque(maxlen=self.config.window - 1)
        self._stamp_ns: int | None = None

    def hint(
        self,
        map_from_base: np.ndarray,
        covariance: np.ndarray,
        odom_from_base: np.ndarray | None = None,
        map_name: str | None = None,
    ) -> None:
        """Somebody says where the base is. What was believed is forgotten; what images say ``jump`` times counts more
        than a hint.

        Args:
            map_from_base: (4, 4), metres.
            covariance: (6, 6), widened to what a hint can know; a variance of zero means that nothing was said.
            odom_from_base: (4, 4) odometry at the hint's time, None without.
            map_name: the map it is for; None for any.
        """
        self.forget()
        least = np.repeat([_HINT_POSITION, np.radians(_HINT_ROTATION_DEG)], 3)
        unsaid = np.repeat([_UNSAID_POSITION, np.radians(_UNSAID_ROTATION_DEG)], 3)
        given = np.diag(np.asarray(covariance, dtype=np.float64))
        sigma = np.where(given > 0, np.maximum(np.sqrt(np.maximum(given, 0.0)), least), unsaid)
        self._hint = _Sighting(
            np.array(map_from_base, dtype=np.float64), np.diag(sigma**2), _optional(odom_from_base), 0, map_name
        )

    def judge(
        self,
        map_from_base: np.ndarray,
        covariance: np.ndarray,
        odom_from_base: np.ndarray | None,
        stamp_ns: int,
        map_name: str,
    ) -> Verdict:
        """Whether an estimate that the localizer accepted may be published.

        Args:
            map_from_base: (4, 4), metres.
            covariance: (6, 6), order x, y, z, rx, ry, rz about fixed map axes.
            odom_from_base: (4, 4) odometry at the image's stamp, None without.
            stamp_ns: the image's stamp.
            map_name: the map of the estimate.
        """
        if not self.config.enabled:
            return Verdict(True)
        if (
            not is_rigid(map_from_base)
            or not np.isfinite(covariance).all()
            or (odom_from_base is not None and not is_rigid(odom_from_base))
        ):
            return Verdict(
                False, "The pose, its covariance or odometry is not finite or not rigid; it cannot be judged."
            )
        if self._stamp_ns is not None:
            late_s = (self._stamp_ns - stamp_ns) * 1e-9
            if late_s > self.config.clock_jump_s:
                why = f"The image is {late_s:.2f} s older than the one before, so it proves nothing"
                return Verdict(False, f"{why}; synchronise the cameras' clocks.")
            if late_s >= 0:
                return Verdict(False, "The image is not newer than the one before, so it proves nothing.")
        self._stamp_ns = stamp_ns
        sighting = _Sighting(map_from_base, self._bounded(covariance), _optional(odom_from_base), stamp_ns, map_name)

        reference = self._believed or self._hint
        innovation = None if reference is None else self._innovation(reference, sighting)
        if self._believed is not None and innovation.agrees and innovation.certain:
            carried = self._believed.odom_from_base is not None and odom_from_base is not None
            # without odometry the prediction only knows the place a moment ago
            self._believed = self._fused(innovation, sighting) if carried else sighting
            self._refused.append(None)
            return Verdict(True)
        contradicted = innovation is not None and not innovation.agrees
        needed = self.config.jump if contradicted else self.config.first_fix
        if self._hint is not None and not contradicted:
            needed = max(1, needed - 1)
        agreeing = self._agreeing(sighting)
        if agreeing < needed:
            self._refused.append(sighting)
            return Verdict(False, self._why(innovation, agreeing, needed, contradicted))
        jumped = contradicted and self._believed is not None
        self._believed, self._hint = sighting, None
        self._refused.clear()
        return Verdict(True, jumped=jumped)

    def _fused(self, innovation: _Innovation, sighting: _Sighting) -> _Sighting:
        """Prediction and sighting, each by its certainty (Kalman): one unlucky estimate must not set where the next is
        expected.
        """
        gain = innovation.covariance @ np.linalg.inv(innovation.covariance + sighting.covariance)
        change = gain @ innovation.error
        pose = moved(innovation.predicted, change)
        covariance = (np.eye(6) - gain) @ innovation.covariance
        # errors of neighbouring images are alike, so certainty does not add up: never below the floor
        return replace(sighting, map_from_base=pose, covariance=(covariance + covariance.T) / 2.0 + self._floor)

    def _why(self, innovation: _Innovation | None, agreeing: int, needed: int, contradicted: bool) -> str:
        count = f"{agreeing} of {needed} estimates agree"
        if innovation is None:
            return f"No pose is believed yet: {count}."
        if not contradicted:
            return (
                f"The last pose is too old to vouch for this one alone: {count}."
                if self.fixed
                else f"The hint is being checked: {count}."
            )
        if innovation.distance == np.inf:
            return f"The estimate is in another map than the last one: {count}."
        where = "the last pose and odometry put it" if self.fixed else "the hint puts it"
        return (
            f"The pose is {innovation.distance:.2f} m and {innovation.angle_deg:.1f} deg from where {where}: {count}."
        )

    def _agreeing(self, sighting: _Sighting) -> int:
        """Size of a set of the newest estimates that were not believed, this one included, of which each two agree."""
        chosen = [sighting]
        for other in reversed(self._refused):  # the newest first: they are predicted best
            innovations = [] if other is None else [self._innovation(other, member) for member in chosen]
            if innovations and all(innovation.agrees and innovation.certain for innovation in innovations):
                chosen.append(other)
        return len(chosen)

    def _innovation(self, earlier: _Sighting, later: _Sighting) -> _Innovation:
        config, hinted = self.config, earlier is self._hint
        if earlier.map_name != later.map_name and not (hinted and earlier.map_name is None):
            return _Innovation(
                predicted=earlier.map_from_base,
                covariance=earlier.covariance,
                error=np.zeros(6),
                distance=np.inf,
                angle_deg=np.inf,
                agrees=False,
                certain=True,
            )
        predicted, covariance = earlier.map_from_base, earlier.covariance
        drift, turn_drift, reach, turn_reach, certain = 0.0, 0.0, 0.0, 0.0, True
        if earlier.odom_from_base is not None and later.odom_from_base is not None:
            motion = invert(earlier.odom_from_base) @ later.odom_from_base
            predicted = predicted @ motion
            travelled, turned = np.linalg.norm(motion[:3, 3]), np.linalg.norm(rotation_vector(motion[:3, :3]))
            drift = config.odometry_drift * travelled
            turn_drift = np.radians(config.odometry_turn_drift_deg) * travelled + config.odometry_turn_scale * turned
            carry = lever(predicted[:3, 3] - earlier.map_from_base[:3, 3])
            covariance = carry @ covariance @ carry.T + np.diag(np.repeat([drift, turn_drift], 3) ** 2)
            sigma = np.sqrt(np.diag(covariance))
            certain = sigma[:3].max() < _COASTING * config.position_ceiling and sigma[
                3:
            ].max() < _COASTING * np.radians(config.rotation_ceiling_deg)
        elif not hinted:
            seconds = (later.stamp_ns - earlier.stamp_ns) * 1e-9
            reach, turn_reach = config.max_speed * seconds, np.radians(config.max_turn_rate_deg) * seconds
            certain = seconds <= config.max_coast_s
        offset = _beyond(later.map_from_base[:3, 3] - predicted[:3, 3], reach)
        turn = _beyond(rotation_vector(later.map_from_base[:3, :3] @ predicted[:3, :3].T), turn_reach)
        error, distance, angle = (
            np.concatenate([offset, turn]),
            float(np.linalg.norm(offset)),
            float(np.linalg.norm(turn)),
        )
        near = hinted or (  # a hint is as wide as its covariance
            distance < config.agreement_distance + 3.0 * drift
            and angle < np.radians(config.agreement_angle_deg) + 3.0 * turn_drift
        )
        # both matrices hold floors, so their sum is regular
        agrees = near and error @ np.linalg.solve(covariance + later.covariance, error) < self._limit
        return _Innovation(
            predicted=predicted,
            covariance=covariance,
            error=error,
            distance=distance,
            angle_deg=np.degrees(angle),
            agrees=bool(agrees),
            certain=bool(certain),
        )

    def _bounded(self, covariance: np.ndarray) -> np.ndarray:
        """The covariance with standard deviations cut to the ceiling, correlations kept, and the floor added."""
        config = self.config
        ceiling = np.repeat([config.position_ceiling, np.radians(config.rotation_ceiling_deg)], 3)
        values, vectors = np.linalg.eigh((covariance + covariance.T) / 2.0 / np.outer(ceiling, ceiling))
        within = vectors @ np.diag(np.clip(values, 0.0, 1.0)) @ vectors.T
        return within * np.outer(ceiling, ceiling) + self._floor


def _optional(pose: np.ndarray | None) -> np.ndarray | None:
    return None if pose is None else np.array(pose, dtype=np.float64)


def _beyond(vector: np.ndarray, reach: float) -> np.ndarray:
    """What is left of a vector when its length is shortened by the reach."""
    length = np.linalg.norm(vector)
    return vector * (max(0.0, length - reach) / length) if length > 0 else vector
