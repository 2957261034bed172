"""Jacobians against finite differences, and the covariance against Monte Carlo."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dimm_ros.config import SolverConfig
from dimm_ros.solver import solve_pose
from dimm_ros.solver.matches import match_rays
from dimm_ros.solver.rays import exp_so3
from dimm_ros.solver.refine import jacobians, pose_covariance, refine_pose, residuals

from .scenes import Scene


@pytest.mark.parametrize("rig", [False, True])
def test_jacobians_match_finite_differences(rig: bool) -> None:
    scene = Scene(1, rays=20)
    scene.add_noise(0.1, 0.3)  # the derivatives hold anywhere, not only at the solution
    offsets = scene.normal(20, 3) if rig else None
    matches = match_rays(scene.bearings, offsets, scene.directions, scene.moments, None, None, SolverConfig())
    step, numeric = 1e-6, []
    for axis in torch.eye(6, dtype=torch.float64) * step:
        forward, backward = (
            residuals(exp_so3(sign * axis[3:]) @ scene.rotation, scene.centre + sign * axis[:3], matches)
            for sign in (1, -1)
        )
        numeric.append((forward - backward) / (2 * step))
    analytic = jacobians(scene.rotation, scene.centre, matches)
    assert torch.allclose(torch.stack(numeric, dim=-1), analytic, atol=1e-8)


def _deviation(pose: torch.Tensor, scene: Scene) -> np.ndarray:
    """(6,) centre error and left rotation vector in fixed world axes."""
    turn = Rotation.from_matrix((pose[:3, :3] @ scene.rotation.T).numpy()).as_rotvec()
    return np.concatenate([(pose[:3, 3] - scene.centre).numpy(), turn])


def _agrees(deviations: np.ndarray, covariances: np.ndarray, tolerance: float) -> None:
    """Predicted against observed: standard deviation along each axis, and of the whole error (NEES)."""
    predicted = covariances.mean(axis=0)
    ratio = np.sqrt(np.diag(predicted)) / deviations.std(axis=0)
    assert (abs(ratio - 1) < tolerance).all(), ratio
    nees = np.einsum("ni,nij,nj->n", deviations, np.linalg.inv(covariances), deviations).mean()
    assert abs(math.sqrt(6 / nees) - 1) < tolerance, nees
    # no bias beyond what 1000 trials resolve
    assert (abs(deviations.mean(axis=0)) < 5 * deviations.std(axis=0) / math.sqrt(len(deviations))).all()


@pytest.mark.parametrize(
    "direction_sigma_deg, moment_sigma, outliers", [(0.3, 0.01, 0.0), (0.8, 0.005, 0.3), (0.9, 0.04, 0.3)]
)
def test_covariance_matches_monte_carlo(direction_sigma_deg: float, moment_sigma: float, outliers: float) -> None:
    config, deviations, covariances = SolverConfig(), [], []
    for trial in range(1000):
        scene = Scene(0, rays=200)
        scene.generator.manual_seed(1000 + trial)  # one camera, fresh noise
        scene.add_noise(math.radians(direction_sigma_deg), moment_sigma)
        wrong = scene.add_outliers(outliers)
        scene.moments[wrong] += 5.0
        matches = match_rays(scene.bearings, None, scene.directions, scene.moments, None, None, config)
        rotation, centre = refine_pose(scene.rotation, scene.centre, matches, config.refine_steps)
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3], pose[:3, 3] = rotation, centre
        deviations.append(_deviation(pose, scene))
        covariances.append(pose_covariance(rotation, centre, matches).numpy())
    _agrees(np.stack(deviations), np.stack(covariances), 0.2)


def test_covariance_of_the_whole_solve_with_confidence_matches_monte_carlo() -> None:
    spread = Scene(99, rays=150).normal(150).mul(0.6).exp()
    deviations, covariances = [], []
    for trial in range(400):
        scene = Scene(2, rays=150)
        scene.generator.manual_seed(trial)
        scene.add_noise(math.radians(0.5) * spread[:, None], 0.015 * spread[:, None])
        solution = solve_pose(
            scene.bearings, scene.directions, scene.moments, direction_sigma=spread, moment_sigma=spread
        )
        deviations.append(_deviation(solution.world_from_camera, scene))
        covariances.append(solution.covariance.numpy())
    _agrees(np.stack(deviations), np.stack(covariances), 0.2)


def test_directions_and_moments_are_weighed_by_how_they_scatter() -> None:
    direction_sigma, moment_sigma, errors = math.radians(0.9), 0.004, []
    for trial in range(200):
        scene = Scene(6, rays=200)
        scene.generator.manual_seed(trial)
        scene.add_noise(direction_sigma, moment_sigma)
        errors.append(_deviation(solve_pose(scene.bearings, scene.directions, scene.moments).world_from_camera, scene))
    matches = match_rays(scene.bearings, None, scene.directions, scene.moments, None, None, SolverConfig())
    jacobian = jacobians(scene.rotation, scene.centre, matches)
    weights = torch.tensor([direction_sigma, moment_sigma], dtype=torch.float64).pow(-2)
    bound = torch.linalg.inv(torch.einsum("nkca,k,nkcb->ab", jacobian, weights, jacobian)).diagonal().sqrt().numpy()
    # no estimator beats the bound; a robust one comes near it
    assert (np.std(errors, axis=0) < 1.15 * bound).all(), np.std(errors, axis=0) / bound


def test_calibrated_scale_multiplies_the_covariance() -> None:
    scene = Scene(4)
    scene.add_noise(0.01, 0.02)
    plain, scaled = (
        solve_pose(scene.bearings, scene.directions, scene.moments, covariance_scale=s) for s in (1.0, 9.0)
    )
    assert torch.allclose(9.0 * plain.covariance, scaled.covariance)


def test_covariance_of_few_rays_pays_for_the_six_that_they_fix() -> None:
    """Four rays have twenty components of error, six of which the pose itself takes up: without that the covariance is
    0.7 times too small.
    """
    deviations, variances = [], []
    for trial in range(300):
        scene = Scene(0, rays=4)
        scene.generator.manual_seed(trial)
        scene.add_noise(math.radians(0.05), 0.002)
        matches = match_rays(scene.bearings, None, scene.directions, scene.moments, None, None, SolverConfig())
        rotation, centre = refine_pose(scene.rotation, scene.centre, matches, 4)
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3], pose[:3, 3] = rotation, centre
        deviations.append(_deviation(pose, scene))
        variances.append(pose_covariance(rotation, centre, matches).diagonal().numpy())
    ratio = np.mean(variances, axis=0) / np.mean(np.square(deviations), axis=0)
    assert 0.85 < ratio.mean() < 1.2, ratio
