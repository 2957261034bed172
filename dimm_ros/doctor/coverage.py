"""Where the recording looks from, and where it is too thin to localize."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from dimm_ros.data.recording import Recording
from dimm_ros.doctor.findings import Finding, ok, two_digits, unknown, warning

_TURN_DEG = 30.0  # views within this angle count as looking the same way
_THIN_SHARE = 0.07  # spacing of more than this share of the distance of what is seen is thin
_THIN_FACTOR, _THIN_M = 3.0, 0.15  # where that is not known: so many times the usual, and more than this
_FEW = 20
SECTORS = 8  # of the circle that views look into
_CELL, _CELL_SHARE = 1.0, 0.5  # metres, or share of the distance of what is seen: the square that headings are counted in


@dataclass(frozen=True)
class Coverage:
    """For the picture.

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


def check_coverage(recording: Recording, seen: float | None = None) -> tuple[list[Finding], Coverage]:
    """Extent, density and headings of the views.

    Args:
        recording: all of its frames have poses.
        seen: median distance of what is seen, in the poses' unit: a step matters by how much it changes the picture.
            None where it is not known.
    """
    poses = recording.poses()
    centres, forward = poses[:, :3, 3], poses[:, :3, 2]
    axes, up_sign = above(poses)
    spacing = _spacing(centres, forward)
    usual = float(np.median(spacing))
    limit = max(_THIN_FACTOR * usual, _THIN_M) if seen is None else _THIN_SHARE * seen
    thin = spacing > limit
    coverage = Coverage(axes, up_sign, spacing, thin)
    if len(poses) < _FEW:
        return [unknown("coverage", f"only {len(poses)} images", "", "record at least a hundred, along every path the robot will take")], coverage
    size = np.ptp(centres, axis=0)
    path = float(np.linalg.norm(np.diff(centres, axis=0), axis=1).sum())
    figures = {
        "extent_m": size.tolist(), "path_m": path, "usual_spacing_m": usual, "thin_views": int(thin.sum()),
        "limit_m": limit, "seen_m": seen,
    }
    area = f"{size[axes[0]]:.1f} x {size[axes[1]]:.1f} m, path {path:.1f} m, a view each {two_digits(usual)} m"
    if seen is not None:
        area += f", {two_digits(100 * usual / seen)} % of the distance of what is seen ({two_digits(seen)} m)"
    cell = _CELL if seen is None else _CELL_SHARE * seen
    density = _sparse(area, figures) if usual > limit else _thin_spots(recording, coverage, area, figures)
    return [density, _headings(centres, forward, coverage, cell)], coverage


def _spacing(centres: np.ndarray, forward: np.ndarray) -> np.ndarray:
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


def _sparse(area: str, figures: dict) -> Finding:
    limit = two_digits(figures["limit_m"])
    return warning(
        "coverage", f"{area}: sparse everywhere", "photographs instead of a film, quick motion, or images left out",
        f"record again, slowly: a view each {limit} m or less, along every path the robot will take", **figures,
    )


def second_down(axes: tuple[int, int, int], up_sign: int) -> bool:
    """Whether the second axis points down in a picture from above whose first one points right."""
    return (up_sign > 0) == (axes == (0, 2, 1))


def _thin_spots(recording: Recording, coverage: Coverage, area: str, figures: dict) -> Finding:
    spots = _runs(coverage.thin)
    if not len(spots):
        return ok("coverage", area, **figures)
    centres = recording.poses()[:, :3, 3]
    first, second, _ = coverage.axes
    told = []
    for start, stop in sorted(spots, key=lambda run: -coverage.spacing[run[0] : run[1]].max())[:3]:
        here = centres[start:stop].mean(axis=0)
        off = two_digits(coverage.spacing[start:stop].max())
        told.append(f"({here[first]:.1f}, {here[second]:.1f}) m: next view that way {off} m off")
    more = f" and {len(spots) - 3} more" if len(spots) > 3 else ""
    label = f"{'xyz'[first]}, {'xyz'[second]}"
    return warning(
        "coverage", f"{area}; thin at {label} = " + "; ".join(told) + more, "quick motion or turns, or a place that was passed once",
        f"walk there again, slowly: a view each {two_digits(figures['limit_m'] / _THIN_FACTOR)} m, looking both ways",
        **figures,
    )


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _headings(centres: np.ndarray, forward: np.ndarray, coverage: Coverage, cell: float) -> Finding:
    """From how many of eight directions each square of ``cell`` metres was looked at."""
    cells = np.floor(centres[:, coverage.axes[:2]] / cell).astype(int)
    places, number = np.unique(cells, axis=0, return_inverse=True)
    seen = np.zeros((len(places), SECTORS), dtype=bool)
    seen[number.ravel(), coverage.sectors(forward)] = True
    opposite = (seen & np.roll(seen, SECTORS // 2, axis=1)).any(axis=1).mean()
    mean, total = float(seen.sum(axis=1).mean()), int(seen.any(axis=0).sum())
    figures = {"sectors_per_cell": mean, "sectors_in_all": total, "cells_seen_both_ways": float(opposite)}
    return ok(
        "headings", f"{mean:.1f} of {SECTORS} directions from each square of {two_digits(cell)} m on average, "
        f"{total} in all; {100 * opposite:.0f} % of the places are seen both ways (a robot that looks another way there "
        "will not be localized)", **figures,
    )
