"""Random rigs that see points, or lines through points, for the tests of landmarks."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from dimm_ros.geometry.covariance import lever
from dimm_ros.solver.landmarks import LandmarkMatches

SIGMA = 1.0 / 500.0  # radians of a pixel


class Rig:
    """A rig at a random pose whose cameras, each at an offset, see N points; exact until noise or wrong matches are
    added.
    """

    def __init__(self, seed: int, count: int = 60, kind: str = "points", cameras: int = 1) -> None:
        self.rng = np.random.default_rng(seed)
        self.rotation, self.centre = Rotation.random(random_state=self.rng).as_matrix(), self.rng.normal(size=3) * 2
        centres = np.zeros((1, 3)) if cameras == 1 else self.rng.normal(size=(cameras, 3)) * 0.4
        self.offsets = centres[np.arange(count) % cameras]
        self.bearings = np.column_stack([self.rng.uniform(-0.7, 0.7, (count, 2)), np.ones(count)])
        self.bearings /= np.linalg.norm(self.bearings, axis=1, keepdims=True)
        depth = self.rng.uniform(1.5, 5.0, (count, 1))
        self.points = self.centre + (self.offsets + depth * self.bearings) @ self.rotation.T
        direction = self.rng.normal(size=(count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        self.places = self.points if kind == "points" else np.hstack([direction, np.cross(self.points, direction)])
        self.sigma = np.full(count, SIGMA)

    @property
    def matches(self) -> LandmarkMatches:
        return LandmarkMatches(self.bearings, self.offsets, self.places, self.sigma)

    def blur(self, pixels: float) -> None:
        """Independent errors of the bearings, so many pixels in each tangent axis."""
        error = pixels * SIGMA * self.rng.normal(size=self.bearings.shape)
        self.bearings = self.bearings + error - self.bearings * (error * self.bearings).sum(axis=1, keepdims=True)
        self.bearings /= np.linalg.norm(self.bearings, axis=1, keepdims=True)

    def mismatch(self, share: float) -> np.ndarray:
        """Give a share of the keypoints others' landmarks; returns their (N,) bool mask."""
        wrong = np.zeros(len(self.bearings), bool)
        wrong[self.rng.permutation(len(wrong))[: round(share * len(wrong))]] = True
        rows = np.flatnonzero(wrong)
        self.places = self.places.copy()
        self.places[rows] = self.places[np.roll(rows, 1)]
        return wrong

    def beside(self, metres: float, radians: float) -> tuple[np.ndarray, np.ndarray]:
        """A pose so far from the true one, in a random direction."""
        shift, turn = self.rng.normal(size=(2, 3))
        turned = Rotation.from_rotvec(radians * turn / np.linalg.norm(turn)).as_matrix() @ self.rotation
        return turned, self.centre + metres * shift / np.linalg.norm(shift)

    def error(self, rotation: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """(6,) a pose minus the true one: metres and radians."""
        return np.concatenate([centre - self.centre, Rotation.from_matrix(rotation @ self.rotation.T).as_rotvec()])


def pose_covariance(metres: float, radians: float) -> np.ndarray:
    """A covariance that is neither diagonal nor the same in all axes."""
    arm = lever(np.array([0.3, -0.5, 0.8]))
    return (
        arm
        @ np.diag(
            [metres**2, (2 * metres) ** 2, (0.5 * metres) ** 2, radians**2, (0.5 * radians) ** 2, (2 * radians) ** 2]
        )
        @ arm.T
    )
