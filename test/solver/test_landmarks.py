"""Residuals of landmarks, their derivatives, the joint minimum with a prior, and poses of three points: against other
maths.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from dimm_ros.solver.landmarks import (
    LandmarkMatches,
    PosePrior,
    information,
    refine,
    residuals,
    squared_errors,
    three_point_poses,
)

from .landmark_scenes import SIGMA, Rig, pose_covariance

KINDS = ("points", "lines")


def moved(rotation: np.ndarray, centre: np.ndarray, by: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The perturbation that derivatives and covariances are about."""
    return Rotation.from_rotvec(by[3:]).as_matrix() @ rotation, centre + by[:3]


@pytest.mark.parametrize("kind", KINDS)
def test_the_true_pose_leaves_no_residual_and_another_does(kind: str) -> None:
    rig = Rig(1, kind=kind, cameras=3)
    assert np.abs(residuals(rig.rotation[None], rig.centre[None], rig.matches)).max() < 1e-9
    rotation, centre = rig.beside(0.05, 0.02)
    assert np.median(squared_errors(rotation[None], centre[None], rig.matches)) > 1.0


def test_residuals_are_angles_in_pixels() -> None:
    """A keypoint turned by five pixels is five pixels off its point, and five off a line that it was turned away
    from.
    """
    rig = Rig(2, count=1)
    arm = (rig.points - rig.centre)[0]
    across = np.cross(arm, [0.3, 0.2, 0.9])
    across /= np.linalg.norm(across)
    turn = Rotation.from_rotvec(5 * SIGMA * across).as_matrix()  # of the ray in the world, about ``across``
    bearings = rig.bearings @ (rig.rotation.T @ turn @ rig.rotation).T
    off = squared_errors(
        rig.rotation[None], rig.centre[None], LandmarkMatches(bearings, rig.offsets, rig.points, rig.sigma)
    )
    assert np.sqrt(off[0, 0]) == pytest.approx(5.0, rel=1e-4)  # a chord for the angle
    # The line lies along ``across`` and the keypoint moves at right angles to it, or along it.
    for direction, pixels in ((across, 5.0), (np.cross(across, arm) / np.linalg.norm(arm), 0.0)):
        line = np.concatenate([direction, np.cross(rig.points[0], direction)])[None]
        off = squared_errors(
            rig.rotation[None], rig.centre[None], LandmarkMatches(bearings, rig.offsets, line, rig.sigma)
        )
        assert np.sqrt(off[0, 0]) == pytest.approx(pixels, abs=1e-3)


@pytest.mark.parametrize("cameras", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_information_is_that_of_numeric_derivatives(kind: str, cameras: int) -> None:
    rig = Rig(3, kind=kind, cameras=cameras)
    rig.blur(2.0)  # residuals that are not nought
    rotation, centre = rig.beside(0.1, 0.05)

    def flat(by: np.ndarray) -> np.ndarray:
        turned, at = moved(rotation, centre, by)
        return residuals(turned[None], at[None], rig.matches).ravel()

    step = 1e-5
    numeric = np.stack([(flat(step * axis) - flat(-step * axis)) / (2 * step) for axis in np.eye(6)], axis=1)
    np.testing.assert_allclose(
        information(rotation, centre, rig.matches, 0.7), numeric.T @ numeric / 0.7, rtol=1e-6, atol=1e-3
    )


@pytest.mark.parametrize("cameras", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_refinement_returns_to_the_exact_pose(kind: str, cameras: int) -> None:
    rig = Rig(4, kind=kind, cameras=cameras)
    starts = [rig.beside(0.15, 0.06) for _ in range(5)]
    rotation, centre = refine(
        *map(np.stack, zip(*starts, strict=True)), rig.matches, [80.0, 40.0, 20.0, 10.0, 6.0, 4.0, 4.0, 4.0]
    )
    errors = np.array([rig.error(*pose) for pose in zip(rotation, centre, strict=True)])
    assert np.abs(errors).max() < 1e-8


def test_refinement_follows_its_kernel_past_wrong_matches() -> None:
    rig = Rig(5, count=100)
    wrong = rig.mismatch(0.3)
    rotation, centre = rig.beside(0.02, 0.01)
    rotation, centre = refine(rotation[None], centre[None], rig.matches, [40.0, 20.0, 10.0, 6.0, 4.0, 4.0, 4.0, 4.0])
    assert np.abs(rig.error(rotation[0], centre[0])).max() < 1e-3
    errors = squared_errors(rotation, centre, rig.matches)[0]
    assert errors[~wrong].max() < 1.0 < np.median(errors[wrong])


@pytest.mark.parametrize("kind", KINDS)
def test_the_joint_minimum_is_scipys(kind: str) -> None:
    """Landmarks and prior pull apart: where they balance is what another optimiser finds for the cost as it is
    written.
    """
    rig, width = Rig(6, count=12, kind=kind, cameras=2), 4.0
    rig.blur(1.5)
    covariance = pose_covariance(0.01, 0.005)
    start = rig.beside(0.02, 0.01)
    prior = PosePrior(*start, np.linalg.inv(covariance))
    root = np.linalg.cholesky(np.linalg.inv(covariance)).T

    def cost(by: np.ndarray) -> np.ndarray:
        turned, at = moved(*start, by)
        squared = (residuals(turned[None], at[None], rig.matches)[0] ** 2).sum(axis=-1)
        # Geman and McClure's rho = s / (1 + s / width^2), whose weight is (1 + s / width^2)^-2.
        return np.concatenate([np.sqrt(squared / (1 + squared / width**2)), root @ by])

    best = moved(*start, least_squares(cost, np.zeros(6), xtol=1e-15, ftol=1e-15, gtol=1e-15).x)
    rotation, centre = refine(start[0][None], start[1][None], rig.matches, [width] * 60, prior)
    np.testing.assert_allclose(rig.error(rotation[0], centre[0]), rig.error(*best), atol=2e-5)
    # It is neither the prior's pose nor the landmarks' own.
    alone = refine(start[0][None], start[1][None], rig.matches, [width] * 60)
    assert np.abs(rig.error(*best) - rig.error(alone[0][0], alone[1][0])).max() > 1e-3
    assert np.abs(rig.error(*best) - rig.error(*start)).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_without_landmarks_the_prior_stays(kind: str) -> None:
    rig = Rig(7, kind=kind)
    prior = PosePrior(*rig.beside(0.0, 0.0), np.linalg.inv(pose_covariance(0.1, 0.05)))
    start = rig.beside(0.2, 0.1)
    rotation, centre = refine(start[0][None], start[1][None], rig.matches.at(np.empty(0, int)), [4.0] * 6, prior)
    assert np.abs(rig.error(rotation[0], centre[0])).max() < 1e-8


def test_a_prior_is_read_from_a_pose_and_its_covariance() -> None:
    rig, covariance = Rig(8), pose_covariance(0.1, 0.05)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rig.rotation, rig.centre
    prior = PosePrior.of(pose, covariance)
    np.testing.assert_allclose(prior.information @ covariance, np.eye(6), atol=1e-9)
    by = np.array([0.1, -0.2, 0.3, 0.02, -0.05, 0.01])
    np.testing.assert_allclose(prior.difference(*moved(rig.rotation, rig.centre, by)), by, atol=1e-12)


def test_hypotheses_may_have_matches_of_their_own() -> None:
    rig = Rig(9, cameras=2)
    rows = np.stack([rig.rng.permutation(60)[:12] for _ in range(3)])
    start = rig.beside(0.05, 0.02)
    together = refine(
        np.repeat(start[0][None], 3, 0), np.repeat(start[1][None], 3, 0), rig.matches.at(rows), [10.0, 4.0]
    )
    for number, chosen in enumerate(rows):
        alone = refine(start[0][None], start[1][None], rig.matches.at(chosen), [10.0, 4.0])
        np.testing.assert_allclose(together[1][number], alone[1][0], atol=1e-12)
        np.testing.assert_allclose(together[0][number], alone[0][0], atol=1e-12)


def test_three_points_give_opencvs_poses() -> None:
    compared = 0
    for seed in range(60):
        rig = Rig(seed, count=3)
        rotation, centre, sample = three_point_poses(rig.bearings[None], rig.points[None])
        assert (sample == 0).all() and len(rotation) <= 4
        found = np.array([rig.error(*pose) for pose in zip(rotation, centre, strict=True)])
        assert np.abs(found).max(axis=1).min() < 1e-6  # the true one is among them
        pixels = np.ascontiguousarray(rig.bearings[:, :2] / rig.bearings[:, 2:])
        _, turns, shifts = cv2.solveP3P(rig.points, pixels, np.eye(3), None, flags=cv2.SOLVEPNP_AP3P)
        for turn, shift in zip(turns, shifts, strict=True):
            camera_from_world = Rotation.from_rotvec(turn.ravel()).as_matrix()
            other = rig.error(camera_from_world.T, -camera_from_world.T @ shift.ravel())
            depths = ((rig.points @ camera_from_world.T + shift.ravel()) * rig.bearings).sum(axis=1)
            # OpenCV's may lie behind the camera; nearly double roots are told apart by neither.
            if depths.min() > 0 and np.abs(other).max() > 1e-2:
                compared += 1
                assert np.abs(found - other).max(axis=1).min() < 1e-4
    assert compared > 30


def test_many_triples_are_solved_at_once_and_impossible_ones_give_nothing() -> None:
    rigs = [Rig(seed, count=3) for seed in range(20)]
    bearings, points = np.stack([rig.bearings for rig in rigs]), np.stack([rig.points for rig in rigs])
    points[3] = points[3, 0]  # three times the same point
    points[5, 1] = points[5, 0]
    rotation, centre, sample = three_point_poses(bearings, points)
    for number, rig in enumerate(rigs):
        own = [
            np.abs(rig.error(r, c)).max()
            for r, c in zip(rotation[sample == number], centre[sample == number], strict=True)
        ]
        assert number in (3, 5) or min(own) < 1e-6
    assert 3 not in sample and np.isfinite(rotation).all() and np.isfinite(centre).all()
    np.testing.assert_allclose(
        rotation @ rotation.swapaxes(1, 2), np.broadcast_to(np.eye(3), rotation.shape), atol=1e-9
    )
    assert not len(three_point_poses(np.empty((0, 3, 3)), np.empty((0, 3, 3)))[2])
