"""Joint refinement of rotation and centre by robust Gauss-Newton, and the covariance of its result.

Residuals of a ray, with p = R bearing and q = R offset (zero for one camera), in the world frame:

    r_d = p - d                      r_m = (c + q) x p - m

Perturbation: c <- c + dc, R <- exp([a]x) R, about fixed world axes; parameters in ROS order (dc, a). Jacobians:

    dr_d = -[p]x a                   dr_m = -[p]x dc + (q p^T - p (c + q)^T + (c . p) I) a
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dimm_ros.solver.matches import RayMatches
from dimm_ros.solver.ransac import biweight
from dimm_ros.solver.rays import exp_so3, identity, moments_of, skew

#: Least variance of a residual, in squared thresholds: noise-free rays must not make the weights infinite.
_VARIANCE_FLOOR = 1e-12
#: Least mean slope of the kernel: when nearly all residuals lie near their threshold, the scatter says nothing.
_SLOPE_FLOOR = 0.1


def residuals(rotation: Tensor, centre: Tensor, matches: RayMatches) -> Tensor:
    """(N, 2, 3) direction residuals (chord) and moment residuals (metres) of a pose (3, 3), (3,)."""
    turned = matches.bearings @ rotation.T
    points = centre if matches.offsets is None else centre + matches.offsets @ rotation.T
    return torch.stack([turned - matches.directions, moments_of(points, turned) - matches.moments], dim=1)


def jacobians(rotation: Tensor, centre: Tensor, matches: RayMatches) -> Tensor:
    """(N, 2, 3, 6) derivatives of ``residuals`` by (dc, a)."""
    turned = matches.bearings @ rotation.T
    result = turned.new_zeros((len(turned), 2, 3, 6))
    result[:, 0, :, 3:] = result[:, 1, :, :3] = -skew(turned)
    by_angle = (turned @ centre)[:, None, None] * identity(turned.device)
    if matches.offsets is None:
        by_angle = by_angle - turned[:, :, None] * centre
    else:
        arms = matches.offsets @ rotation.T
        by_angle = by_angle + arms[:, :, None] * turned[:, None, :] - turned[:, :, None] * (centre + arms)[:, None, :]
    result[:, 1, :, 3:] = by_angle
    return result


@dataclass(frozen=True)
class _Scatter:
    """How the residuals of directions and moments scatter, in units of their thresholds; each (2,).

    Attributes:
        variance: of one component of the weighted residual (psi function).
        slope: mean derivative of psi.
        rays: inliers of each kind.
    """

    variance: Tensor
    slope: Tensor
    rays: Tensor

    @property
    def trust(self) -> Tensor:
        """(2,) weight of each kind that minimises the pose's variance."""
        return self.slope / self.variance


def _scatter(normalised: Tensor, valid: Tensor) -> _Scatter:
    """Variance components of (N, 2) normalised squared residuals (Huber's asymptotic theory, isotropic psi)."""
    inlier = ((normalised < 1.0) & valid[:, None]).to(normalised.dtype)
    rays = inlier.sum(dim=0).clamp(min=1.0)
    inside = normalised.clamp(max=1.0)
    weights = biweight(inside)
    # a direction's error has two components (its length is fixed), a moment's three
    squares, slopes = weights.square() * inside, inside * (1.0 - inside)
    components = _components(normalised.device)
    variance = (squares * inlier).sum(dim=0) / (rays * components)
    slope = ((weights - 4.0 * slopes / components) * inlier).sum(dim=0) / rays
    return _Scatter(variance.clamp(min=_VARIANCE_FLOOR), slope.clamp(min=_SLOPE_FLOOR), rays)


def refine_pose(rotation: Tensor, centre: Tensor, matches: RayMatches, steps: int) -> tuple[Tensor, Tensor]:
    """Gauss-Newton on both residuals with biweight kernels; directions and moments are weighed by how they scatter.

    Returns:
        Rotation and centre; the given ones if no step was finite or the robust loss did not fall.
    """
    start, trust, losses = (rotation, centre), None, []
    for step in range(steps + 1):
        error = residuals(rotation, centre, matches)
        normalised = error.square().sum(dim=2) * matches.precision
        if trust is None:
            trust = _scatter(normalised, matches.valid).trust
        if step in (0, steps):
            losses.append((trust * (1.0 - (1.0 - normalised).clamp(min=0.0) ** 3)).sum())
        if step == steps:
            break
        weights = (biweight(normalised) * matches.precision * trust)[:, :, None, None]
        jacobian = jacobians(rotation, centre, matches)
        weighted = (weights * jacobian).flatten(0, 2)
        change = torch.linalg.solve_ex(weighted.T @ jacobian.flatten(0, 2), -(weighted.T @ error.flatten()))[0]
        centre = centre + change[:3]
        rotation = exp_so3(change[3:]) @ rotation
    better = losses[-1] <= losses[0]  # false for NaN
    return torch.where(better, rotation, start[0]), torch.where(better, centre, start[1])


def pose_covariance(rotation: Tensor, centre: Tensor, matches: RayMatches) -> Tensor:
    """(6, 6) covariance of (dc, a) at a refined pose: metres and radians, order x, y, z, rx, ry, rz, fixed world axes.

    ``A^-1 B A^-1`` of an M-estimator, with the scatter of directions and moments measured on their inliers. For
    residuals well below their thresholds this is the familiar s^2 (J^T W J)^-1, one s^2 for directions and one for
    moments. It holds for errors independent between rays; a head's errors are not, which is what a calibrated scale is
    for.
    """
    error = residuals(rotation, centre, matches)
    normalised = error.square().sum(dim=2) * matches.precision
    scatter = _scatter(normalised, matches.valid)
    jacobian = jacobians(rotation, centre, matches).transpose(0, 1).flatten(1, 2)  # (2, 3 N, 6)
    inliers = (matches.precision * (normalised < 1.0)).T.repeat_interleave(3, dim=1)[:, :, None]
    information = (jacobian * inliers).mT @ jacobian  # (2, 6, 6)
    trust, slope, variance = (t[:, None, None] for t in (scatter.trust, scatter.slope, scatter.variance))
    bread = torch.linalg.inv_ex((trust * slope * information).sum(dim=0))[0]
    filling = (trust.square() * variance * information).sum(dim=0)
    observed = (scatter.rays * _components(centre.device)).sum()
    covariance = bread @ filling @ bread * (observed / (observed - 6.0).clamp(min=1.0))
    return (covariance + covariance.T) / 2.0


def _components(device: torch.device) -> Tensor:
    """(2,) independent components of a direction's and of a moment's error."""
    return torch.arange(2, 4, dtype=torch.float64, device=device)
