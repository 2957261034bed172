"""Where posed images were taken and look: seen from above, how far apart, and in which directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

_TURN_DEG = 30.0  # views within this angle count as looking the same way
_THIN_SHARE = 0.07  # spacing of more than this share of the distance of what is seen is thin
_THIN_M = 0.15  # where that is not known: more than this and THIN_FACTOR times the usual
THIN_FACTOR = 3.0
SECTORS = 8  # of the circle that views look into


@dataclass(frozen=True)
class ViewCoverage:
    """Where posed images were taken and look, seen from above.

    Attributes:
        axes: (first, second, up) world axes; the picture is drawn from above along ``up``.
        up_sign: +1 where the axis points up, -1 where down.
        spacing: (N,) distance to the second-nearest view that looks the same way, metres.
        thin: (N,) bool.
    """

    axes: tuple[int, int, int]
    up_sign: int
    spacing: np.ndarray
    thin: np.ndarray

    @property
    def second_down(self) -> bool:
        """``second_down`` of these."""
        return second_down(self.axes, self.up_sign)

    def sectors(self, forward: np.ndarray) -> np.ndarray:
        """(N,) eighth of the circle that each of (N, 3) viewing directions looks into.

        Counter-clockwise about up; the first one's middle is the first axis.
        """
        first, second, _ = self.axes
        angle = np.arctan2(forward[:, second] * (-1 if self.second_down else 1), forward[:, first])
        return np.rint(angle / (2 * np.pi) * SECTORS).astype(int) % SECTORS

    def headings(self, forward: np.ndarray) -> np.ndarray:
        """(SECTORS,) how many of (N, 3) viewing directions look into each eighth of the circle."""
        return np.bincount(self.sectors(forward), minlength=SECTORS)


def view_coverage(poses: np.ndarray, seen: float | None = None) -> ViewCoverage:
    """Coverage of images taken from (N, 4, 4) poses, world_from_camera, optical axes.

    Args:
        poses: of all images; metres, or another unit.
        seen: as for ``thin_limit``.
    """
    axes, up_sign = above(poses)
    spacing = view_spacing(poses[:, :3, 3], poses[:, :3, 2])
    return ViewCoverage(axes, up_sign, spacing, spacing > thin_limit(spacing, seen))


def thin_limit(spacing: np.ndarray, seen: float | None = None) -> float:
    """Spacing beyond which views are thin, in the poses' unit.

    Args:
        spacing: (N,) of all views.
        seen: median distance of what is seen: a step matters by how much it changes the picture. None where it is not
            known.
    """
    return max(THIN_FACTOR * float(np.median(spacing)), _THIN_M) if seen is None else _THIN_SHARE * seen


def view_spacing(centres: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """(N,) distance to the second-nearest view that looks the same way: one on either side of a path."""
    count = min(len(centres), 40)
    distance, index = cKDTree(centres).query(centres, k=count)
    alike = (forward[:, None] * forward[index]).sum(axis=2) > np.cos(np.radians(_TURN_DEG))
    alike[:, 0] = False  # itself
    ordered = np.sort(np.where(alike, distance, np.inf), axis=1)
    second = ordered[:, min(1, count - 1)]
    return np.where(np.isfinite(second), second, distance[:, -1])


def above(poses: np.ndarray) -> tuple[tuple[int, int, int], int]:
    """World axes of a view from above (first, second, up), and whether up is the last one's way (1) or against it (-1).

    Images are mostly upright, so up is against the mean y axis of the camera.
    """
    up = -poses[:, :3, 1].mean(axis=0)
    place = int(np.abs(up).argmax())
    first, second = (axis for axis in range(3) if axis != place)
    return (first, second, place), 1 if up[place] >= 0 else -1


def second_down(axes: tuple[int, int, int], up_sign: int) -> bool:
    """Whether the second axis points down in a picture from above whose first one points right."""
    return (up_sign > 0) == (axes == (0, 2, 1))


def headings_of_cells(poses: np.ndarray, coverage: ViewCoverage, cell: float) -> np.ndarray:
    """(P, SECTORS) bool: into which directions each of P squares was looked from, ``cell`` wide in the poses' unit."""
    cells = np.floor(poses[:, coverage.axes[:2], 3] / cell).astype(int)
    places, number = np.unique(cells, axis=0, return_inverse=True)
    seen = np.zeros((len(places), SECTORS), dtype=bool)
    seen[number.ravel(), coverage.sectors(poses[:, :3, 2])] = True
    return seen
