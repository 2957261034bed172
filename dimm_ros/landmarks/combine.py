"""Landmarks of several maps of one place as one: what both have seen is kept once.

Lines above all: a landmark that two maps hide in two lines lies where these meet, so of two lines of one landmark only
the first is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dimm_ros.landmarks.store import Landmarks, hide_in_lines

_MAX_ANGLE = 0.6  # between descriptors of one landmark in two recordings, radians
_CHUNK = 2000  # rows of the comparison at a time: 15 000 landmarks against as many would take a gigabyte


def combine(maps: Sequence[Landmarks], tolerance: float, most: int, seed: int) -> Landmarks:
    """Join landmarks about one origin.

    Args:
        maps: the first keeps all of its own. If any is of lines, the result is: points among them are hidden.
        tolerance: how far apart one landmark may be in two maps, metres.
        most: of the result; those that more images show are kept.
        seed: of the directions of new lines.
    """
    lines = any(each.kind == "lines" for each in maps)
    result: Landmarks | None = None
    for number, each in enumerate(maps):
        if result is not None:
            each = each.chosen(~_known(each, result, tolerance))
        if lines and each.kind == "points":
            each = hide_in_lines(each, seed + number)
        result = each if result is None else Landmarks.joined([result, each])
    if len(result) > most:
        result = result.chosen(np.sort(np.argsort(-result.views.astype(int), kind="stable")[:most]))
    return result


def _known(new: Landmarks, old: Landmarks, tolerance: float) -> np.ndarray:
    """(L,) bool: new landmarks that look like an old one and may be where it is."""
    known = np.zeros(len(new), bool)
    for first in range(0, len(new), _CHUNK):
        rows = slice(first, first + _CHUNK)
        one, other = np.nonzero(new.unit_descriptors[rows] @ old.unit_descriptors.T > np.cos(_MAX_ANGLE))
        near = distances(new.exact_places[first + one], old.exact_places[other]) < tolerance
        known[first + one[near]] = True
    return known


def distances(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(K,) distances between (K, 3) points or (K, 6) lines, metres."""
    if ones.shape[1] == others.shape[1] == 3:
        return np.linalg.norm(ones - others, axis=1)
    if ones.shape[1] == 3:
        return np.linalg.norm(np.cross(ones, others[:, :3]) - others[:, 3:], axis=1)
    if others.shape[1] == 3:
        return distances(others, ones)
    across = np.cross(ones[:, :3], others[:, :3])
    sine = np.linalg.norm(across, axis=1)
    apart = np.abs((ones[:, :3] * others[:, 3:]).sum(axis=1) + (others[:, :3] * ones[:, 3:]).sum(axis=1))
    foot = np.cross(ones[:, :3], ones[:, 3:])  # of parallel lines any point's distance is theirs
    return np.where(sine > 1e-6, apart / np.maximum(sine, 1e-6), distances(foot, others))
