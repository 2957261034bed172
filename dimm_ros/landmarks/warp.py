"""How a recording's poses are warped: what they are off, place by place, from what all landmarks together say.

Landmarks are means over every image that shows them, so they straighten a trajectory whose error drifts by
centimetres. A robot's map frame is that trajectory, errors included: its costmap was made of the same poses. So a pose
from landmarks is bent back by what the poses recorded near it are off, as a Gaussian process regresses it (kriging;
Rasmussen and Williams 2006, equations 2.25 and 2.26): errors of neighbouring poses are alike, those far away say
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial.transform import Rotation

from dimm_ros.geometry.poses import moved, pose_difference, rotation_vector

#: Over what poses err alike, one standard deviation of the kernel: as a share of the distance of what is seen, radians.
_ALIKE, _TURN = 0.08, 0.15
#: What one pose errs by itself, as a share of what it shares with its neighbours (standard deviations).
_OWN = 0.3
#: Most poses: their covariances are a matrix.
MOST_POSES = 1000
#: A recorded pose that is further off is a blunder, not drift: as a share of the distance of what is seen, radians.
_BLUNDER = 0.06


@dataclass(frozen=True)
class Warp:
    """Errors of K recorded poses; metres about the map's origin, radians.

    Attributes:
        poses: (K, 6) float32: what landmarks say of each, camera centre and rotation vector, world_from_camera.
        errors: (K, 6) float32: of the recorded one by that: centre from landmarks less the recorded one, and the
            rotation vector of landmarks' rotation by the inverse of the recorded one, world axes.
        reach: metres over which poses err alike.
    """

    poses: np.ndarray
    errors: np.ndarray
    reach: float

    def __len__(self) -> int:
        return len(self.poses)

    @classmethod
    def of(cls, found: Sequence[np.ndarray], recorded: Sequence[np.ndarray], seen_distance: float) -> Warp | None:
        """Of recorded poses, without blunders; None where no pose is left.

        Args:
            found, recorded: (4, 4) each, world_from_camera from landmarks and as recorded.
            seen_distance: of the landmarks, see ``Landmarks.seen_distance``.
        """
        if not len(found):
            return None
        errors = np.array([pose_difference(*pair) for pair in zip(found, recorded, strict=True)])
        turns = [rotation_vector(pose[:3, :3]) for pose in found]
        poses = np.concatenate([[pose[:3, 3] for pose in found], turns], axis=1)
        size = np.linalg.norm(errors.reshape(-1, 2, 3), axis=2)
        good = (size <= [_BLUNDER * seen_distance, _BLUNDER]).all(axis=1)
        if not good.any():
            return None
        return cls._thinned(poses[good].astype(np.float32), errors[good].astype(np.float32), _ALIKE * seen_distance)

    def recorded(self, world_from_camera: np.ndarray) -> tuple[np.ndarray, float]:
        """A pose from landmarks as the recording would have it, (4, 4), and the share of the variance of such errors
        that the poses near by do not tell: 1 far from all.
        """
        error, unknown = self._error(world_from_camera)
        return moved(world_from_camera, -error), unknown

    def straight(self, world_from_camera: np.ndarray) -> np.ndarray:
        """A pose that errs as the recording does, (4, 4), as landmarks would have it; the other way round."""
        return moved(world_from_camera, self._error(world_from_camera)[0])

    def _error(self, world_from_camera: np.ndarray) -> tuple[np.ndarray, float]:
        alike = self._alike(world_from_camera[None, :3, 3], world_from_camera[None, :3, :3])[0]
        told = self._inverse @ alike
        unknown = (1.0 - alike @ told + _OWN**2) / (1.0 + _OWN**2)
        return told @ self.errors.astype(np.float64), float(np.clip(unknown, 0.0, 1.0))

    def shifted(self, offset: np.ndarray) -> Warp:
        """The same about another origin: ``offset`` (3,) is the old origin as seen from the new one, metres."""
        poses = self.poses.astype(np.float64)
        poses[:, :3] += offset
        return Warp(poses.astype(np.float32), self.errors, self.reach)

    def rotated(self, rotation: np.ndarray) -> Warp:
        """The same in a frame that is turned about the origin, target_from_source (3, 3)."""
        centres = self.poses[:, :3] @ rotation.T
        turned = rotation_vector(rotation @ self._rotations)
        errors = (self.errors.reshape(-1, 2, 3) @ rotation.T).reshape(-1, 6)
        return Warp(np.concatenate([centres, turned], axis=1).astype(np.float32), errors.astype(np.float32), self.reach)

    @classmethod
    def joined(cls, parts: Sequence[Warp]) -> Warp:
        """Of several recordings of one place about one origin; their reach becomes one, by the number of poses."""
        reach = np.average([part.reach for part in parts], weights=[len(part) for part in parts])
        poses, errors = (np.concatenate([getattr(part, name) for part in parts]) for name in ("poses", "errors"))
        return cls._thinned(poses, errors, float(reach))

    @classmethod
    def _thinned(cls, poses: np.ndarray, errors: np.ndarray, reach: float) -> Warp:
        """At most ``MOST_POSES`` of them, evenly chosen."""
        kept = np.unique(np.linspace(0, len(poses) - 1, min(len(poses), MOST_POSES)).round().astype(int))
        return cls(poses[kept], errors[kept], reach)

    @property
    def sizes(self) -> tuple[float, float]:
        """Median length of the errors: metres, and degrees."""
        metres, radians = np.median(np.linalg.norm(self.errors.reshape(-1, 2, 3), axis=2), axis=0)
        return float(metres), float(np.degrees(radians))

    @cached_property
    def _rotations(self) -> np.ndarray:
        return Rotation.from_rotvec(self.poses[:, 3:]).as_matrix()

    @cached_property
    def _inverse(self) -> np.ndarray:
        """(K, K) inverse covariance of the errors, in units of their variance."""
        alike = self._alike(self.poses[:, :3].astype(np.float64), self._rotations)
        return np.linalg.inv(alike + _OWN**2 * np.eye(len(self)))

    def _alike(self, centres: np.ndarray, rotations: np.ndarray) -> np.ndarray:
        """(N, K) correlation of errors at (N, 3) and (N, 3, 3) poses with those of the recorded ones."""
        distance = np.linalg.norm(centres[:, None] - self.poses[None, :, :3], axis=2)
        cosine = (np.einsum("nij,kij->nk", rotations, self._rotations) - 1.0) / 2.0
        turn = np.arccos(np.clip(cosine, -1.0, 1.0))
        return np.exp(-0.5 * ((distance / self.reach) ** 2 + (turn / _TURN) ** 2))
