"""How large the errors of landmark poses are, from frames that were left out when the landmarks were made.

What matches say of their own scatter leaves out what all landmarks of a place share: the recording's poses are off by
centimetres, and so are landmarks made from them. Two standard deviations, of position and of rotation, are added; they
are the likeliest for the errors seen (Gaussian errors, the matches' own covariance plus the shared part). They grow
with how unlike the views that showed the landmarks the answered one is (``Landmarks.strangeness``), as the errors of
frames left out do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.optimize import minimize

from dimm_ros.geometry.poses import rotation_vector
from dimm_ros.landmarks.keypoints import Keypoints
from dimm_ros.landmarks.locate import locate
from dimm_ros.landmarks.store import Landmarks
from dimm_ros.reach import Reach

#: Neighbouring matches err alike, for their landmarks were placed by the same images: they count for a quarter of their
#: number.
CORRELATED = 4.0

#: Of many key frames, the last of so many are left out together, for a frame between its neighbours would make it too
#: easy; twice, each time others.
_PERIOD, _BLOCK, _TIMES = 30, 5, 2
#: So few frames lie far apart already: every tenth is left out, again and again until so many were.
_SPARSE, _TENTH, _ASKED = 120, 10, 40
_MIN_FRAMES = 5
_OUTERMOST = 0.3  # share of the frames
_TAILS = 1.2  # errors have heavier tails than a Gaussian, and frames elsewhere are further from the recorded ones
#: Share of frames that the ellipsoid of so many squares must hold, and how much wider it may become for that.
_INSIDE, _ELLIPSOID, _WIDEST = 0.95, 12.592, 3.0
_LINES = 1.5  # errors of lines against those of the points that they hide
_LEAST = 0.3  # of the usual strangeness: views at the middle of the mapped ones share errors, too
_OUTLIER = 40.0  # largest squared Mahalanobis distance that counts: one blunder must not inflate every covariance

#: Of a frame that was found: its error (6,), metres and a rotation vector; the covariance (6, 6) that its matches
#: say; and its strangeness.
_Found = tuple[np.ndarray, np.ndarray, float]


class LandmarkCalibration(BaseModel):
    """Errors of landmark poses beside what the matches' own scatter says.

    Attributes:
        position_sigma, rotation_sigma_deg: standard deviation per axis, metres and degrees, of views as strange as the
            frames that were left out; the defaults are what other maps had.
        strangeness: median of those frames, see ``Landmarks.strangeness``; None where it is not known, as of lines.
        frames: that were left out and found; 0 when there were too few.
        position_error, rotation_error_deg: their median errors.
        reach: all that were left out, by their distance from the nearest view; None in maps of format 5 and before.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    position_sigma: float = Field(0.02, ge=0)
    rotation_sigma_deg: float = Field(0.5, ge=0)
    strangeness: float | None = Field(None, gt=0)
    frames: int = Field(0, ge=0)
    position_error: float | None = Field(None, ge=0)
    rotation_error_deg: float | None = Field(None, ge=0)
    reach: Reach | None = None

    def of_lines(self) -> LandmarkCalibration:
        """Of the lines that hide these points: one equation a match instead of two, and no strangeness to grow with."""
        return self.model_copy(
            update={
                "position_sigma": _LINES * self.position_sigma,
                "rotation_sigma_deg": _LINES * self.rotation_sigma_deg,
                "strangeness": None,
            }
        )

    def covariance(
        self, information: np.ndarray, strangeness: float | None, prior: np.ndarray | None = None
    ) -> np.ndarray:
        """(6, 6) covariance of a pose from landmarks: x, y, z, rx, ry, rz; square metres and radians.

        Args:
            information: (6, 6) that the matches' own scatter says, see ``LandmarkPose``.
            strangeness: of the landmarks that agree, see ``LandmarkResult``.
            prior: (6, 6) information of the prior that joined it, or None. Few landmarks leave most to it, and then add
                little of the errors that they share.
        """
        grown = 1.0 if strangeness is None or self.strangeness is None else max(strangeness / self.strangeness, _LEAST)
        shared = grown**2 * np.diag([self.position_sigma**2] * 3 + [np.radians(self.rotation_sigma_deg) ** 2] * 3)
        information = information / CORRELATED
        if prior is None:
            return np.linalg.inv(information) + shared
        joined = np.linalg.inv(information + prior)
        return joined + (1.0 - np.trace(joined @ prior) / 6) * shared


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
    errors, own, strange = ([each[part] for each in found if each is not None] for part in range(3))
    if len(errors) < _MIN_FRAMES:
        return LandmarkCalibration(reach=reach)
    errors, own = np.array(errors), np.array(own)
    usual = float(np.median(strange)) or None
    grown = np.ones(len(errors)) if usual is None else np.maximum(np.array(strange) / usual, _LEAST)
    position, rotation = np.linalg.norm(errors[:, :3], axis=1), np.linalg.norm(errors[:, 3:], axis=1)

    def unlikely(logarithms: np.ndarray) -> float:
        spread = own + grown[:, None, None] ** 2 * np.diag(np.exp(2 * np.repeat(logarithms, 3)))
        distance = np.einsum("ni,nij,nj->n", errors, np.linalg.inv(spread), errors)
        return float(np.minimum(distance, _OUTLIER).sum() + np.linalg.slogdet(spread)[1].sum())

    start = np.log([max(np.median(position), 1e-6), max(np.median(rotation), 1e-7)])
    # From one start it may get lost.
    tried = [minimize(unlikely, start + np.log(share), method="Nelder-Mead") for share in (1.0, 0.3)]
    fitted = np.exp(min(tried, key=lambda each: each.fun).x)
    spread = own + grown[:, None, None] ** 2 * np.diag(np.repeat(fitted**2, 3))
    squares = np.einsum("ni,nij,nj->n", errors, np.linalg.inv(spread), errors)
    fitted = fitted * _TAILS * np.clip(np.sqrt(np.quantile(squares, _INSIDE) / _ELLIPSOID), 1.0, _WIDEST)
    return LandmarkCalibration(
        position_sigma=float(fitted[0]),
        rotation_sigma_deg=float(np.degrees(fitted[1])),
        strangeness=usual,
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
        turned = rotation_vector(found.pose.rotation @ pose[:3, :3].T)
        error = np.concatenate([found.pose.centre - pose[:3, 3], turned])
        result.append((error, CORRELATED * np.linalg.inv(found.pose.information), found.strangeness))
    return result


def _reach(found: Sequence[_Found | None], held_out: HeldOut) -> Reach | None:
    if held_out.mapped is None:
        return None
    errors = np.array([np.full(6, np.nan) if each is None else each[0] for each in found]).reshape(-1, 2, 3)
    metres, radians = np.linalg.norm(errors, axis=2).T
    return Reach.of(held_out.poses, held_out.mapped, np.stack([metres, np.degrees(radians)], axis=1))
