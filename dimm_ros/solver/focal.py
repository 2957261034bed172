"""Focal length of an uncalibrated camera: from predicted directions alone, and then from matched landmarks.

The angle between two pixels' rays depends on the focal length f, and directions in the world keep that angle:
with p_i the pixels relative to the principal point, a = p1.p2, b_i = |p_i|^2, k = d1.d2 and x = f^2,

    (a + x)^2 = k^2 (b1 + x)(b2 + x)        with a + x of the sign of k,

a quadratic in x. It needs no rotation and no centre, hence works wherever the camera looks. Landmarks whose places are
known fix the focal length together with the pose, ten times as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.optimize import least_squares
from torch import Tensor

from dimm_ros.config import SolverConfig
from dimm_ros.errors import InputError
from dimm_ros.geometry.poses import exp_so3 as exp_vector
from dimm_ros.solver.ransac import biweight, draw_pairs
from dimm_ros.solver.rays import exp_so3, skew
from dimm_ros.solver.rotation import two_ray_rotations

_MIN_RAYS = 4
#: Landmarks that refine a focal length at least, and how far at most (a logarithm).
_MIN_POINTS, _FURTHEST = 20, 0.3
_REFINE_STEPS = 10
#: A search ends when a focal length agrees with what it predicts to this part of itself, or after so many steps.
_AGREEMENT, _SEARCH_STEPS = 5e-4, 8


def search_focal(
    predict: Callable[[float], Tensor],
    pixels: Tensor,
    candidates: Sequence[float],
    *,
    config: SolverConfig = SolverConfig(),
) -> float:
    """Focal length that agrees with the directions that are predicted for that focal length.

    A head gets the place of its patches in the camera, so its directions depend on the focal length: it predicts
    something between the focal length given and the one seen. Where both agree, the given one is true. That point is
    bracketed by the candidates and found by regula falsi (Illinois).

    Args:
        predict: focal length -> (N, 3) predicted directions, world frame.
        pixels: (N, 2) undistorted pixels relative to the principal point.
        candidates: focal lengths in pixels that enclose the one sought.
        config: see ``fit_focal``.

    Raises:
        InputError: no focal length within the candidates agrees with its prediction.
    """
    known: list[tuple[float, float, int]] = []  # log focal length, logarithm of estimate over it, inliers
    for focal in sorted(candidates):
        try:
            estimate, inliers = fit_focal(pixels, predict(focal), config)
        except InputError:
            continue
        known.append((math.log(focal), math.log(estimate / focal), inliers))
    brackets = [pair for pair in zip(known, known[1:]) if pair[0][1] >= 0 >= pair[1][1]]
    if not brackets:
        raise InputError(
            f"No focal length between {min(candidates):.0f} and {max(candidates):.0f} pixels explains this image: it "
            "does not show the "
            "mapped place, or its lens is distorted; calibrate the camera."
        )
    (low, above, _), (high, below, _) = max(brackets, key=lambda pair: pair[0][2] + pair[1][2])
    for _ in range(_SEARCH_STEPS):
        middle = (low * below - high * above) / (below - above) if above > below else (low + high) / 2
        try:
            error = math.log(fit_focal(pixels, predict(math.exp(middle)), config)[0]) - middle
        except InputError:
            break
        if error >= 0:
            low, above, below = middle, error, below / 2
        else:
            high, below, above = middle, error, above / 2
        if abs(error) < _AGREEMENT:
            break
    return math.exp(middle)


@torch.no_grad()
def fit_focal(pixels: Tensor, directions: Tensor, config: SolverConfig = SolverConfig()) -> tuple[float, int]:
    """Focal length in pixels of a pinhole camera with square pixels and known principal point, and how many rays agree.

    RANSAC over pairs of rays, each of which gives focal length and rotation in closed form; then Gauss-Newton on both,
    which maximises the Kabsch trace over f.

    Args:
        pixels: (N, 2) undistorted pixels relative to the principal point.
        directions: (N, 3) predicted directions, world frame; normalised inside.
        config: rotation threshold, smallest angle of a pair, number of hypotheses and seed.

    Raises:
        InputError: fewer than four rays agree on a focal length.
    """
    pixels, directions = pixels.detach().to(torch.float64), directions.detach().to(torch.float64)
    valid = (
        torch.isfinite(pixels).all(dim=1)
        & torch.isfinite(directions).all(dim=1)
        & (directions.square().sum(dim=1) > 1e-18)
    )
    pixels, directions = pixels[valid], directions[valid]
    directions = directions / torch.linalg.vector_norm(directions, dim=1, keepdim=True)
    if len(pixels) < _MIN_RAYS:
        raise InputError(f"Only {len(pixels)} rays are finite; the focal length needs at least {_MIN_RAYS}.")

    pairs = draw_pairs(torch.ones(len(pixels), dtype=torch.bool, device=pixels.device), config.hypotheses, config.seed)
    cosines = (directions[pairs[0]] * directions[pairs[1]]).sum(dim=1)
    apart = cosines.abs() < math.cos(math.radians(config.min_pair_angle_deg))
    candidates = torch.where(apart, two_ray_focals(pixels[pairs[0]], pixels[pairs[1]], cosines), torch.nan)
    found = torch.isfinite(candidates.T).nonzero()[: config.hypotheses]  # (H, 2): pair, root
    if not len(found):
        raise InputError(
            "No two rays are far enough apart to tell the focal length; use a view with more of the scene."
        )
    focal, chosen = candidates[found[:, 1], found[:, 0]], pairs[:, found[:, 0]].T

    rotations = two_ray_rotations(_bearings(pixels[chosen], focal[:, None]), directions[chosen])
    limit = 2.0 * math.sin(math.radians(config.rotation_threshold_deg) / 2.0)
    errors = _bearings(pixels, focal[:, None]) @ rotations.mT - directions
    best = (errors.square().sum(dim=2) / limit**2).clamp(max=1.0).sum(dim=1).argmin()
    rotation, log_focal = rotations[best], focal[best].log()

    for _ in range(_REFINE_STEPS):
        turned, by_log_focal = _bearings_and_slope(pixels, log_focal.exp())
        turned, by_log_focal = turned @ rotation.T, by_log_focal @ rotation.T
        error = turned - directions
        normalised = error.square().sum(dim=1) / limit**2
        jacobian = torch.cat([-skew(turned), by_log_focal[:, :, None]], dim=2)  # (N, 3, 4)
        weighted = (biweight(normalised)[:, None, None] * jacobian).flatten(0, 1)
        change = torch.linalg.solve_ex(weighted.T @ jacobian.flatten(0, 1), -(weighted.T @ error.flatten()))[0]
        rotation, log_focal = exp_so3(change[:3]) @ rotation, log_focal + change[3].clamp(-0.5, 0.5)
    inliers = int((normalised < 1.0).sum())
    if inliers < _MIN_RAYS or not bool(torch.isfinite(log_focal)):
        raise InputError(
            f"Only {inliers} of {len(pixels)} rays agree on a focal length; this view is not of the map or its lens is "
            "distorted."
        )
    return math.exp(log_focal.item()), inliers


def two_ray_focals(first: Tensor, second: Tensor, cosines: Tensor) -> Tensor:
    """(2, K) focal lengths from (K, 2) and (K, 2) pixels whose rays have the given (K,) cosines; NaN where none
    exists.
    """
    a, k2 = (first * second).sum(dim=1), cosines.square()
    b1, b2 = first.square().sum(dim=1), second.square().sum(dim=1)
    quadratic, linear, constant = 1.0 - k2, 2.0 * a - k2 * (b1 + b2), a.square() - k2 * b1 * b2
    root = (linear.square() - 4.0 * quadratic * constant).sqrt()  # NaN: no solution
    x = torch.stack([root - linear, -root - linear]) / (2.0 * quadratic)
    # squaring also admits the opposite angle
    genuine = (x > 0) & ((a + x) * cosines > 0)
    return torch.where(genuine, x, torch.nan).sqrt()


def _bearings(pixels: Tensor, focal: Tensor) -> Tensor:
    """(..., N, 3) unit rays of (..., N, 2) pixels at focal lengths that broadcast against (..., N)."""
    shape = torch.broadcast_shapes(pixels.shape[:-1], focal.shape)
    rays = torch.cat([pixels.expand(*shape, 2), focal.expand(shape)[..., None]], dim=-1)
    return rays / torch.linalg.vector_norm(rays, dim=-1, keepdim=True)


def _bearings_and_slope(pixels: Tensor, focal: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 3) unit rays and their derivative by the logarithm of the focal length."""
    rays = torch.cat([pixels, focal.expand(len(pixels))[:, None]], dim=1)
    length = torch.linalg.vector_norm(rays, dim=1, keepdim=True)
    unit = rays / length
    along_axis = torch.zeros_like(rays)
    along_axis[:, 2] = focal
    along_axis = along_axis / length
    return unit, along_axis - unit * (unit * along_axis).sum(dim=1, keepdim=True)


def refine_focal(
    pixels: np.ndarray, points: np.ndarray, rotation: np.ndarray, centre: np.ndarray, focal: float, width: float = 2.0
) -> float:
    """Focal length in pixels that, with the pose, has the least reprojection errors (Cauchy); the given one if none is
    near it.

    Args:
        pixels: (N, 2) undistorted pixels relative to the principal point.
        points: (N, 3) landmarks that they show.
        rotation, centre: (3, 3), (3,) world_from_camera, about right.
        focal: about right.
        width: error from which a match counts less, pixels.
    """

    def residuals(state: np.ndarray) -> np.ndarray:
        seen = (points - centre - state[:3]) @ exp_vector(state[3:6]) @ rotation
        return (focal * math.exp(min(state[6], 1.0)) * seen[:, :2] / np.maximum(seen[:, 2:], 1e-6) - pixels).ravel()

    if len(pixels) < _MIN_POINTS:
        return focal
    change = float(least_squares(residuals, np.zeros(7), loss="cauchy", f_scale=width, x_scale="jac").x[6])
    return focal * math.exp(change) if abs(change) < _FURTHEST else focal
