"""Matches that the solver works on: camera rays matched to map rays, in units of each ray's own threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dimm_ros.config import SolverConfig


@dataclass(frozen=True)
class RayMatches:
    """N camera rays and the map rays predicted for them; all float64 on one device.

    A ray of a camera at ``offset`` in the rig satisfies ``R bearing = direction`` and
    ``(c + R offset) x (R bearing) = moment`` for the pose (R, c) = world_from_rig.

    Attributes:
        bearings: (N, 3) unit, rig frame.
        offsets: (N, 3) centre of the ray's camera in the rig frame, metres; None when all are zero (one camera).
        directions: (N, 3) unit, world frame.
        moments: (N, 3) metres, about the world's origin.
        valid: (N,) bool; a dropped ray holds harmless numbers and has zero precision.
        chord_limits: (N,) inlier threshold of ``|R bearing - direction|``.
        moment_limits: (N,) inlier threshold of the moment residual, metres.
        precision: (N, 2) inverse squares of the two limits, zero for dropped rays. Squared residuals times
            precision are below 1 for inliers; that is the only form in which the stages see thresholds and confidence.
    """

    bearings: Tensor
    offsets: Tensor | None
    directions: Tensor
    moments: Tensor
    valid: Tensor
    chord_limits: Tensor
    moment_limits: Tensor
    precision: Tensor


def match_rays(
    bearings: Tensor,
    offsets: Tensor | None,
    directions: Tensor,
    moments: Tensor,
    direction_sigma: Tensor | None,
    moment_sigma: Tensor | None,
    config: SolverConfig,
) -> RayMatches:
    """Normalise, drop rays that are not finite or have no direction, and set each ray's thresholds.

    Predicted scales act relative to their median over the image, within a factor of ``config.confidence_range``: they
    say which rays to trust more, while the thresholds say how well rays must agree. So a head that is overconfident
    throughout, as heads are away from their training views, does not tighten the thresholds.
    """
    bearings, directions, moments = (t.detach().to(torch.float64) for t in (bearings, directions, moments))
    bearing_length = torch.linalg.vector_norm(bearings, dim=1)
    direction_length = torch.linalg.vector_norm(directions, dim=1)
    valid = torch.isfinite(bearing_length + direction_length + torch.linalg.vector_norm(moments, dim=1))
    valid = valid & (bearing_length > 1e-9) & (direction_length > 1e-9)
    sigmas = [direction_sigma, moment_sigma]
    if config.use_confidence:
        sigmas = [None if sigma is None else sigma.detach().to(torch.float64) for sigma in sigmas]
        for sigma in sigmas:
            if sigma is not None:
                valid = valid & (sigma > 0) & (sigma < torch.inf)
    else:
        sigmas = [None, None]

    keep = valid[:, None]
    axis = torch.zeros_like(bearings)
    axis[:, 2] = 1.0
    chord = 2.0 * math.sin(math.radians(config.rotation_threshold_deg) / 2.0)
    limits = [
        limit * _relative_scale(sigma, valid, config.confidence_range)
        for limit, sigma in zip((chord, config.centre_threshold), sigmas)
    ]
    precision = torch.stack([limit.reciprocal().square() for limit in limits], dim=1) * keep
    return RayMatches(
        bearings=torch.where(keep, bearings / bearing_length[:, None], axis),
        offsets=offsets,
        directions=torch.where(keep, directions / direction_length[:, None], axis),
        moments=torch.where(keep, moments, 0.0),
        valid=valid,
        chord_limits=limits[0],
        moment_limits=limits[1],
        precision=precision,
    )


def _relative_scale(sigma: Tensor | None, valid: Tensor, span: float) -> Tensor:
    """(N,) sigma over its median among valid rays, within [1/span, span]; ones without sigma or for dropped rays."""
    if sigma is None:
        return torch.ones_like(valid, dtype=torch.float64)
    relative = sigma / torch.where(valid, sigma, torch.nan).nanmedian()
    return torch.where(valid, relative.clamp(1.0 / span, span), 1.0)
