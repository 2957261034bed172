"""Plücker rays in torch: unit direction ``d`` and moment ``m = c x d`` of the line through ``c``, and rotations.

All functions take float64 tensors on any device and neither branch on data nor wait for the device.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def moments_of(points: Tensor, directions: Tensor) -> Tensor:
    """(..., 3) moments ``c x d`` of the lines through (..., 3) points (metres) with (..., 3) unit directions."""
    return torch.linalg.cross(*torch.broadcast_tensors(points, directions))


def angle_between(a: Tensor, b: Tensor) -> Tensor:
    """(...) angle in radians between (..., 3) vectors; accurate near 0 and pi, where arccos is not."""
    return torch.atan2(torch.linalg.vector_norm(torch.linalg.cross(a, b), dim=-1), (a * b).sum(-1))


def skew(vectors: Tensor) -> Tensor:
    """(..., 3, 3) matrices ``[v]x`` with ``[v]x w = v x w`` of (..., 3) vectors."""
    return (vectors @ _levi_civita(vectors.device)).unflatten(-1, (3, 3))


def exp_so3(vector: Tensor) -> Tensor:
    """(3, 3) rotation of a (3,) rotation vector in radians (Rodrigues' formula, smooth through zero)."""
    angle = torch.linalg.vector_norm(vector)
    cross = skew(vector)
    # sin(t)/t and (1 - cos t)/t^2; torch.sinc is normalised by pi and exact at zero
    first, second = torch.sinc(angle / torch.pi), 0.5 * torch.sinc(angle / (2 * torch.pi)) ** 2
    return identity(vector.device) + first * cross + second * (cross @ cross)


@lru_cache(maxsize=8)
def identity(device: torch.device) -> Tensor:
    """(3, 3) identity, float64: made once per device, because each upload would wait for a GPU. Not to be written
    to.
    """
    return torch.eye(3, dtype=torch.float64, device=device)


@lru_cache(maxsize=8)
def _levi_civita(device: torch.device) -> Tensor:
    # row k holds [e_k]x, flattened by rows
    rows = [[0, 0, 0, 0, 0, -1, 0, 1, 0], [0, 0, 1, 0, 0, 0, -1, 0, 0], [0, -1, 0, 1, 0, 0, 0, 0, 0]]
    return torch.tensor(rows, dtype=torch.float64, device=device)
