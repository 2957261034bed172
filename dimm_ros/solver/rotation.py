"""First stage: the rotation that carries camera rays onto predicted directions, ``R u = d`` (Wahba's problem)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dimm_ros.config import SolverConfig
from dimm_ros.solver.matches import RayMatches
from dimm_ros.solver.ransac import choose_pairs, consensus, draw_pairs


def kabsch(correlation: Tensor) -> Tensor:
    """(..., 3, 3) rotations R that maximise ``trace(R^T B)`` for (..., 3, 3) finite B = sum w d u^T.

    B of rank one leaves a turn about the common axis open; some rotation is returned.
    Source: Kabsch 1976; Markley and Mortari 2000 (the sign fix keeps det R = +1).
    """
    left, _, right = torch.linalg.svd(correlation)
    last = left[..., :, 2] * torch.linalg.det(left @ right)[..., None]
    return torch.cat([left[..., :2], last[..., None]], dim=-1) @ right


def two_ray_rotations(sources: Tensor, targets: Tensor) -> Tensor:
    """(H, 3, 3) least-squares rotations of H pairs of unit vectors, without an SVD.

    Sum and difference of two unit vectors are orthogonal, so each pair spans a triad symmetric in its two members:
    where the pairs' angles differ, the misfit is shared equally, which is the least-squares solution.

    Args:
        sources: (H, 2, 3) unit vectors.
        targets: (H, 2, 3) unit vectors.
    """
    pairs = torch.stack([sources, targets])
    axes = torch.stack([pairs[..., 0, :] + pairs[..., 1, :], pairs[..., 0, :] - pairs[..., 1, :]])
    axes = axes / torch.linalg.vector_norm(axes, dim=-1, keepdim=True).clamp(min=1e-12)
    triads = torch.stack([axes[0], axes[1], torch.linalg.cross(axes[0], axes[1])], dim=-1)
    return triads[1] @ triads[0].mT


def estimate_rotation(matches: RayMatches, config: SolverConfig) -> tuple[Tensor, Tensor]:
    """RANSAC over pairs of rays.

    A pair is drawn only if its rays are neither parallel nor opposite (within ``config.min_pair_angle_deg``) and keep
    the angle between them up to the sum of their thresholds: a test of both rays that needs no pose.

    Returns:
        (3, 3) world_from_rig rotation, and () bool: whether any pair passed.
    """
    pairs = draw_pairs(matches.valid, config.hypotheses, config.seed)
    bearings, directions = matches.bearings[pairs], matches.directions[pairs]
    angles = _pair_angles(torch.stack([bearings, directions], dim=1))
    apart = torch.minimum(angles, math.pi - angles).amin(dim=0) > math.radians(config.min_pair_angle_deg)
    kept = (angles[0] - angles[1]).abs() < matches.chord_limits[pairs].sum(dim=0)
    (first, second), usable = choose_pairs(
        pairs, apart & kept & matches.valid[pairs].all(dim=0), None, config.hypotheses
    )

    chosen = torch.stack([first, second], dim=1)
    hypotheses = two_ray_rotations(matches.bearings[chosen], matches.directions[chosen])
    outer = (matches.directions[:, :, None] * matches.bearings[:, None, :]).flatten(1)  # (N, 9): d u^T

    def squared_chords(rotations: Tensor) -> Tensor:
        return 2.0 - 2.0 * (rotations.flatten(1) @ outer.T)

    def fit(weights: Tensor) -> Tensor:
        return kabsch((weights @ outer).unflatten(1, (3, 3)))

    rotation = consensus(hypotheses, usable, matches.precision[:, 0], squared_chords, fit, config.local_steps)
    return rotation, usable.any()


def _pair_angles(pairs: Tensor) -> Tensor:
    """(...) angle between the unit vectors pairs[0] and pairs[1]."""
    return 2.0 * torch.asin((torch.linalg.vector_norm(pairs[0] - pairs[1], dim=-1) / 2.0).clamp(max=1.0))
