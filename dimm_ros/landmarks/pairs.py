"""Which images of a recording are matched with each other: those that look the same way, over a range of baselines.

Short baselines give many matches and long ones fix the depth; both are needed. The range follows from the recording:
from the step between neighbouring images to the distance at which images that look the same way still overlap.
"""

from __future__ import annotations

import numpy as np

MAX_ANGLE_DEG = 40.0  # between optical axes: SIFT holds about as far
_BASELINES, _PER_BASELINE = 4, 2
_OCTAVES = 3.1  # from the shortest baseline to the longest, as powers of two: 8 cm to 70 cm
_LEAST_STEP = 0.08  # least of the shortest baseline, as a share of the route's spread


def choose_pairs(world_from_camera: np.ndarray) -> np.ndarray:
    """Pairs of images worth matching.

    Args:
        world_from_camera: (N, 4, 4).

    Returns:
        (P, 2) indices, the first below the second, in order.
    """
    centres, axes = world_from_camera[:, :3, 3], world_from_camera[:, :3, 2]
    distance = np.linalg.norm(centres[:, None] - centres, axis=2)
    angle = np.degrees(np.arccos(np.clip(axes @ axes.T, -1.0, 1.0)))
    alike = angle < MAX_ANGLE_DEG
    np.fill_diagonal(alike, False)
    chosen = set()
    for baseline in baselines(distance, alike):
        ratio = np.log(np.maximum(distance, 1e-9) / baseline)
        cost = np.where(
            alike & (np.abs(ratio) < np.log(3.0)), np.abs(ratio) + 0.5 * (angle / MAX_ANGLE_DEG) ** 2, np.inf
        )
        for one in range(len(centres)):
            for other in np.argsort(cost[one], kind="stable")[:_PER_BASELINE]:
                if np.isfinite(cost[one, other]):
                    chosen.add((min(one, int(other)), max(one, int(other))))
    return np.array(sorted(chosen), int).reshape(-1, 2)


def baselines(distance: np.ndarray, alike: np.ndarray) -> np.ndarray:
    """Baselines to look for, in the world's unit: from the recording's own step upwards.

    Args:
        distance: (N, N) between camera centres.
        alike: (N, N) bool: whether two images look the same way.
    """
    nearest = np.where(alike, distance, np.inf).min(axis=1)
    step = float(np.median(nearest[np.isfinite(nearest)])) if np.isfinite(nearest).any() else 0.0
    spread = float(np.sqrt(((distance**2).sum() / max(len(distance), 1) ** 2) / 2))  # RMS distance from the centroid
    # A dense recording's steps are below what triangulates; a sparse one starts at its own.
    shortest = max(step, _LEAST_STEP * spread, 1e-9)
    return shortest * 2.0 ** np.linspace(0.0, _OCTAVES, _BASELINES)
