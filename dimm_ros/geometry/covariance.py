"""Covariances of poses: (6, 6), order x, y, z, rx, ry, rz about fixed axes (the perturbation c <- c + dc, R <-
exp([a]x) R).
"""

from __future__ import annotations

import numpy as np


def lever(arm: np.ndarray) -> np.ndarray:
    """(6, 6) matrix that carries (dc, a) of a body to its point at an arm: turning by a also moves that point by a x
    arm.

    Args:
        arm: (3,) from the body's reference point to the other, in the fixed axes, metres.
    """
    x, y, z = arm
    result = np.eye(6)
    result[:3, 3:] = [[0.0, z, -y], [-z, 0.0, x], [y, -x, 0.0]]
    return result


def position_sigma(covariance: np.ndarray) -> float:
    """Standard deviation of the position along its most uncertain direction, metres."""
    return float(np.sqrt(max(np.linalg.eigvalsh(covariance[:3, :3])[-1], 0.0)))
