"""Second stage: the point through which all lines pass, ``c x d = m``, with directions corrected by the rotation.

Predicted directions would bias the centre towards the origin, because their noise stands on both sides of the normal
equations; ``d = R u`` carries only the rotation's error, which all rays share.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dimm_ros.config import SolverConfig
from dimm_ros.solver.matches import RayMatches
from dimm_ros.solver.ransac import choose_pairs, consensus, draw_pairs
from dimm_ros.solver.rays import angle_between, moments_of


def quadratic_forms(directions: Tensor, moments: Tensor) -> Tensor:
    """(N, 10) coefficients of ``|c x d - m|^2`` in (x^2, y^2, z^2, xy, xz, yz, x, y, z, 1) of the centre c.

    Residuals of many centres, and the normal equations of many weightings, are each one matrix product with them.

    Args:
        directions: (N, 3) unit.
        moments: (N, 3) metres.
    """
    x, y, z = directions.unbind(dim=1)
    return torch.cat(
        [
            1.0 - directions.square(),
            -2.0 * torch.stack([x * y, x * z, y * z], dim=1),
            -2.0 * torch.linalg.cross(directions, moments),
            moments.square().sum(dim=1, keepdim=True),
        ],
        dim=1,
    )


def least_squares_centres(forms: Tensor) -> Tensor:
    """(K, 3) minima of (K, 10) summed quadratic forms: ``sum w (I - d d^T) c = sum w d x m``; not finite if
    singular.
    """
    xx, yy, zz, xy, xz, yz = forms[:, :6].unbind(dim=1)
    half = torch.stack([xy, xz, yz], dim=1) / 2.0
    xy, xz, yz = half.unbind(dim=1)
    normal = torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], dim=1).unflatten(1, (3, 3))
    return torch.linalg.solve_ex(normal, -forms[:, 6:9] / 2.0)[0]


def estimate_centre(matches: RayMatches, rotation: Tensor, config: SolverConfig) -> tuple[Tensor, Tensor]:
    """RANSAC over pairs of rays, those that agree with the rotation first.

    Args:
        rotation: (3, 3) world_from_rig.

    Returns:
        (3,) rig origin in the world, metres, and () bool: whether any pair of rays was far enough apart.
    """
    directions = matches.bearings @ rotation.T
    moments = matches.moments
    if matches.offsets is not None:
        moments = moments - moments_of(matches.offsets @ rotation.T, directions)
    chords = torch.linalg.vector_norm(directions - matches.directions, dim=1)
    agreeing = chords < matches.chord_limits

    # another stream of pairs than the rotation's
    pairs = draw_pairs(matches.valid, config.hypotheses, config.seed + 1)
    angles = angle_between(directions[pairs[0]], directions[pairs[1]])
    apart = torch.minimum(angles, math.pi - angles) > math.radians(config.min_pair_angle_deg)
    usable = apart & matches.valid[pairs].all(dim=0)
    chosen, usable = choose_pairs(pairs, usable, agreeing[pairs].all(dim=0), config.hypotheses)

    forms = quadratic_forms(directions, moments)
    hypotheses = least_squares_centres(forms[chosen].sum(dim=0))

    def squared_distances(centres: Tensor) -> Tensor:
        x, y, z = centres.unbind(dim=1)
        squares = [centres.square(), torch.stack([x * y, x * z, y * z], dim=1), centres, torch.ones_like(x)[:, None]]
        return torch.cat(squares, dim=1) @ forms.T

    def fit(weights: Tensor) -> Tensor:
        return least_squares_centres(weights @ forms)

    centre = consensus(hypotheses, usable, matches.precision[:, 1], squared_distances, fit, config.local_steps)
    return centre, usable.any()
