"""The true surface of a scene, and how much of it points give away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from dimm_ros.audit.photos import EncodedImage

NEAR_M = 0.10
_VOXEL_M = 0.05


@dataclass(frozen=True)
class Surface:
    """Points of the true surface, at most one in each cell of 5 cm.

    Attributes:
        points: (S, 3) metres.
    """

    points: np.ndarray

    @classmethod
    def of(cls, photos: list[EncodedImage]) -> Surface | None:
        """From images with depth; None without."""
        seen = [photo.surface for photo in photos if photo.surface is not None and len(photo.surface)]
        if not seen:
            return None
        points = np.concatenate(seen)
        _, first = np.unique(np.floor(points / _VOXEL_M).astype(np.int64), axis=0, return_index=True)
        return cls(points[first])

    def judge(self, recovered: np.ndarray) -> dict[str, float | int | None]:
        """Figures of (N, 3) recovered points: how many, how near the surface, and how much of it lies near one of
        them.
        """
        recovered = recovered[np.isfinite(recovered).all(axis=1)]
        if not len(recovered):
            return {"points": 0, "within_10cm": None, "median_m": None, "covered": 0.0}
        away = cKDTree(self.points).query(recovered)[0]
        covered = cKDTree(recovered).query(self.points, distance_upper_bound=NEAR_M)[0] < NEAR_M
        return {
            "points": len(recovered),
            "within_10cm": float(np.mean(away < NEAR_M)),
            "median_m": float(np.median(away)),
            "covered": float(covered.mean()),
        }
