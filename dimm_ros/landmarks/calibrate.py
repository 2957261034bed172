"""How large the errors of landmark poses are, from frames that were left out when the landmarks were made.

What matches say of their own scatter leaves out what all landmarks of a place share: the recording's poses are off by
centimetres, and so are landmarks made from them. Two standard deviations, of position and of rotation, are added; they
are the likeliest for the errors seen (Gaussian errors, the matches' own covariance plus the shared part). They are
those far from every recorded pose, and shrink as poses near by tell what the recording errs by (``Warp``). Errors have
heavier tails than Gaussian ones, so the whole is widened until it holds as many frames as it says, within limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.optimize import minimize

from dimm_ros.geometry.poses import pose_difference
from dimm_ros.landmarks.keypoints import Keypoints
from dimm_ros.landmarks.locate import locate
from dimm_ros.landmarks.store import Landmarks
from dimm_ros.reach import Reach
from dimm_ros.solver.landmark_pose import LandmarkPose

#: Of many key frames, the last of so many are left out together, for a frame between its neighbours would make it too
#: easy; twice, each time others.
_PERIOD, _BLOCK, _TIMES = 30, 5, 2
#: So few frames lie far apart already: every tenth is left out, again and again until so many were.
_SPARSE, _TENTH, _ASKED = 120, 10, 40
_MIN_FRAMES = 5
_OUTERMOST = 0.3  # share of the frames
#: Share of frames that the ellipsoid of so many squares must hold, and how much wider it may become for that.
_INSIDE, _ELLIPSOID, _WIDEST = 0.95, 12.592, 1.3
_OUTLIER = 40.0  # largest squared Mahalanobis distance that counts: one blunder must not inflate every covariance

#: Of a frame that was found: its error (6,), metres and a rotation vector; the covariance (6, 6) that its matches
#: say; and how much of the shared errors is unknown there.
_Found = tuple[np.ndarray, np.ndarray, float]


class LandmarkCalibration(BaseModel):
    """Errors of landmark poses beside what the matches' own scatter says.

    Attributes:
        position_sigma, rotation_sigma_deg: standard deviation per axis, metres and degrees, of views far from every
            recorded pose, see ``Warp``; the defaults are what other maps had. In maps of format 6 and before, of
            views like the frames that were left out.
        widened: factor of all standard deviations, those of the matches' own scatter among them.
        frames: that were left out and found; 0 when there were too few.
        position_error, rotation_error_deg: their median errors.
        reach: all that were left out, by their distance from the nearest view; None in maps of format 5 and before.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_strangeness(cls, fields: object) -> object:
        """Maps of formats 5 and 6 may hold how errors grew before warps were known; it is left out."""
        return (
            {name: value for name, value in fields.items() if name != "strangeness"}
            if isinstance(fields, dict)
            else fields
        )

    position_sigma: float = Field(0.02, ge=0)
    rotation_sigma_deg: float = Field(0.5, ge=0)
    widened: float = Field(1.0, ge=1)
    frames: int = Field(0, ge=0)
    position_error: float | None = Field(None, ge=0)
    rotation_error_deg: float | None = Field(None, ge=0)
    reach: Reach | None = None

    def covariance(self, pose: LandmarkPose, unknown: float = 1.0, apart: np.ndarray | None = None) -> np.ndarray:
        """(6, 6) covariance of a pose from landmarks: x, y, z, rx, ry, rz; square metres and radians.

        Few landmarks leave most of the pose to the prior, and then add little of the errors that they share.

        Args:
            pose: with what its matches' own scatter says, and the prior that joined it.
            unknown, apart: see ``LandmarkResult``. Where two passes are known, what they share is the mean of the
                calibrated variance and that of the two.
        """
        variance = (self.widened * np.array([self.position_sigma, np.radians(self.rotation_sigma_deg)])) ** 2
        if apart is not None:
            of_two = np.mean(apart.reshape(2, 3) ** 2, axis=1) / 2  # two values vary by half their difference squared
            variance = (variance + of_two) / 2
        information = pose.counted / self.widened**2
        if pose.prior is not None:
            information = information + pose.prior.information
        return np.linalg.inv(information) + pose.share * unknown * np.diag(np.repeat(variance, 3))


def left_out(count: int) -> list[np.ndarray]:
    """Sets of indices of the frames that landmarks are judged on, each set by landmarks that are made without it."""
    indices = np.arange(count)
    if count < _SPARSE:
        sets = min(_TENTH, -(-_ASKED * _TENTH // max(count, 1)))
        chosen = np.linspace(0, _TENTH, sets, endpoint=False).astype(int)
        return [indices[first::_TENTH] for first in chosen if first < count]
    shifts = (turn * _PERIOD // _TIMES for turn in range(_TIMES))
    return [indices[(indices + shift) % _PERIOD >= _PERIOD - _BLOCK] for shift in shifts]


def outermost(poses: np.ndarray) -> np.ndarray:
    """(N,) bool: the frames at one end of the recording's longest extent, whenever they were taken.

    Left out together they are further from the rest than a stretch of time is, which the next round of a walk covers
    again.

    Args:
        poses: (N, 4, 4) world_from_camera.
    """
    centres = poses[:, :3, 3] - poses[:, :3, 3].mean(axis=0)
    along = centres @ np.linalg.svd(centres, full_matrices=False)[2][0]
    return along > np.quantile(along, 1 - _OUTERMOST)


@dataclass(frozen=True)
class HeldOut:
    """Frames, and landmarks that were made without them.

    Attributes:
        landmarks: of the other frames.
        keypoints: of each frame.
        poses: (N, 4, 4) the frames' world_from_camera, in the landmarks' frame.
        mapped: (M, 4, 4) of the images that the landmarks were made of, for ``reach``; None leaves that out.
    """

    landmarks: Landmarks
    keypoints: Sequence[Keypoints]
    poses: np.ndarray
    mapped: np.ndarray | None = None


def landmark_reach(held_out: HeldOut) -> Reach | None:
    """How well frames are found by landmarks alone."""
    return _reach(_found(held_out), held_out)


def calibrate_landmarks(sets: Sequence[HeldOut]) -> LandmarkCalibration:
    """Fit the shared errors to all frames of the sets, whose landmarks are points."""
    found: list[_Found | None] = []
    reach: Reach | None = None
    for held_out in sets:
        of_set = _found(held_out)
        found += of_set
        seen = _reach(of_set, held_out)
        reach = reach if seen is None else seen.joined(reach)
    errors, own, unknown = ([each[part] for each in found if each is not None] for part in range(3))
    if len(errors) < _MIN_FRAMES:
        return LandmarkCalibration(reach=reach)
    errors, own, shared = np.array(errors), np.array(own), np.array(unknown)[:, None, None]
    position, rotation = np.linalg.norm(errors[:, :3], axis=1), np.linalg.norm(errors[:, 3:], axis=1)

    def unlikely(logarithms: np.ndarray) -> float:
        spread = own + shared * np.diag(np.exp(2 * np.repeat(logarithms, 3)))
        distance = np.einsum("ni,nij,nj->n", errors, np.linalg.inv(spread), errors)
        return float(np.minimum(distance, _OUTLIER).sum() + np.linalg.slogdet(spread)[1].sum())

    start = np.log([max(np.median(position), 1e-6), max(np.median(rotation), 1e-7)])
    # From one start it may get lost.
    tried = [minimize(unlikely, start + np.log(share), method="Nelder-Mead") for share in (1.0, 0.3)]
    fitted = np.exp(min(tried, key=lambda each: each.fun).x)
    spread = own + shared * np.diag(np.repeat(fitted**2, 3))
    squares = np.einsum("ni,nij,nj->n", errors, np.linalg.inv(spread), errors)
    return LandmarkCalibration(
        position_sigma=float(fitted[0]),
        rotation_sigma_deg=float(np.degrees(fitted[1])),
        widened=float(np.clip(np.sqrt(np.quantile(squares, _INSIDE) / _ELLIPSOID), 1.0, _WIDEST)),
        frames=len(errors),
        position_error=float(np.median(position)),
        rotation_error_deg=float(np.degrees(np.median(rotation))),
        reach=reach,
    )


def _found(held_out: HeldOut) -> list[_Found | None]:
    """Pose of each frame from landmarks alone; None where it was not found."""
    result: list[_Found | None] = []
    for points, pose in zip(held_out.keypoints, held_out.poses, strict=True):
        found = locate([points], np.eye(4)[None], held_out.landmarks, None)
        if found is None or not found.proven:
            result.append(None)
            continue
        own = np.linalg.inv(found.pose.counted)
        result.append((pose_difference(found.world_from_rig, pose), own, found.unknown))
    return result


def _reach(found: Sequence[_Found | None], held_out: HeldOut) -> Reach | None:
    if held_out.mapped is None:
        return None
    errors = np.array([np.full(6, np.nan) if each is None else each[0] for each in found]).reshape(-1, 2, 3)
    metres, radians = np.linalg.norm(errors, axis=2).T
    return Reach.of(held_out.poses, held_out.mapped, np.stack([metres, np.degrees(radians)], axis=1))
