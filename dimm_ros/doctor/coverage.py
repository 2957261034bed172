"""Where the recording looks from, and where it is too thin to localize."""

from __future__ import annotations

import numpy as np

from dimm_ros.data.coverage import SECTORS, THIN_FACTOR, ViewCoverage, headings_of_cells, thin_limit, view_coverage
from dimm_ros.data.recording import Recording
from dimm_ros.doctor.findings import Finding, ok, two_digits, unknown, warning

_FEW = 20
# metres, or share of the distance of what is seen: the square that headings are counted in
_CELL, _CELL_SHARE = (1.0, 0.5)


def check_coverage(recording: Recording, seen: float | None = None) -> tuple[list[Finding], ViewCoverage]:
    """Extent, density and headings of the views.

    Args:
        recording: all of its frames have poses.
        seen: median distance of what is seen, in the poses' unit: a step matters by how much it changes the picture.
            None where it is not known.
    """
    poses = recording.poses()
    centres = poses[:, :3, 3]
    coverage = view_coverage(poses, seen)
    usual, limit = float(np.median(coverage.spacing)), thin_limit(coverage.spacing, seen)
    if len(poses) < _FEW:
        return [
            unknown(
                "coverage",
                f"only {len(poses)} images",
                "",
                "record at least a hundred, along every path the robot will take",
            )
        ], coverage
    size = np.ptp(centres, axis=0)
    path = float(np.linalg.norm(np.diff(centres, axis=0), axis=1).sum())
    figures = {
        "extent_m": size.tolist(),
        "path_m": path,
        "usual_spacing_m": usual,
        "thin_views": int(coverage.thin.sum()),
        "limit_m": limit,
        "seen_m": seen,
    }
    area = (
        f"{size[coverage.axes[0]]:.1f} x {size[coverage.axes[1]]:.1f} m, path {path:.1f} m, a view each "
        f"{two_digits(usual)} m"
    )
    if seen is not None:
        area += f", {two_digits(100 * usual / seen)} % of the distance of what is seen ({two_digits(seen)} m)"
    cell = _CELL if seen is None else _CELL_SHARE * seen
    density = _sparse(area, figures) if usual > limit else _thin_spots(recording, coverage, area, figures)
    return [density, _headings(poses, coverage, cell)], coverage


def _sparse(area: str, figures: dict) -> Finding:
    limit = two_digits(figures["limit_m"])
    return warning(
        "coverage",
        f"{area}: sparse everywhere",
        "photographs instead of a film, quick motion, or images left out",
        f"record again, slowly: a view each {limit} m or less, along every path the robot will take",
        **figures,
    )


def _thin_spots(recording: Recording, coverage: ViewCoverage, area: str, figures: dict) -> Finding:
    spots = _runs(coverage.thin)
    if not len(spots):
        return ok("coverage", area, **figures)
    centres = recording.poses()[:, :3, 3]
    first, second, _ = coverage.axes
    places = []
    for start, stop in sorted(spots, key=lambda run: -coverage.spacing[run[0] : run[1]].max())[:3]:
        here = centres[start:stop].mean(axis=0)
        off = two_digits(coverage.spacing[start:stop].max())
        places.append(f"({here[first]:.1f}, {here[second]:.1f}) m: next view that way {off} m off")
    more = f" and {len(spots) - 3} more" if len(spots) > 3 else ""
    label = f"{'xyz'[first]}, {'xyz'[second]}"
    return warning(
        "coverage",
        f"{area}; thin at {label} = " + "; ".join(places) + more,
        "quick motion or turns, or a place that was passed once",
        f"walk there again, slowly: a view each {two_digits(figures['limit_m'] / THIN_FACTOR)} m, looking both ways",
        **figures,
    )


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _headings(poses: np.ndarray, coverage: ViewCoverage, cell: float) -> Finding:
    """From how many of eight directions each square of ``cell`` metres was looked at."""
    seen = headings_of_cells(poses, coverage, cell)
    opposite = (seen & np.roll(seen, SECTORS // 2, axis=1)).any(axis=1).mean()
    mean, total = float(seen.sum(axis=1).mean()), int(seen.any(axis=0).sum())
    figures = {"sectors_per_cell": mean, "sectors_in_all": total, "cells_seen_both_ways": float(opposite)}
    return ok(
        "headings",
        f"{mean:.1f} of {SECTORS} directions from each square of {two_digits(cell)} m on average, "
        f"{total} in all; {100 * opposite:.0f} % of the places are seen both ways (a robot that looks another way "
        "there will not be localized)",
        **figures,
    )
