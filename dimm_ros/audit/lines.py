"""Attacks on landmarks: where on its hidden line a landmark is, from one map's lines and from two maps' lines of one
place.

Chelani, Kahl and Sattler (CVPR 2021): where lines are dense, the lines that pass nearest to a line belong to landmarks
near its own, so the places on it that are nearest to them gather about the landmark. Two maps that hide one landmark in
two lines of different directions give it away at once: it lies where these meet, and its descriptor says which two.
"""

from __future__ import annotations

import numpy as np

from dimm_ros.landmarks.matching import mutual_matches
from dimm_ros.landmarks.store import Landmarks, hide_in_lines

_NEIGHBOURS = 50  # lines that pass nearest
_PARALLEL = 0.2  # sine of the angle below which a line says little of where on another a landmark is
_CHUNK = 500
_SECOND_SEED = 1_000_003  # directions of the second map: another user chose them


def nearest_lines(lines: Landmarks) -> np.ndarray:
    """(L, 3) the likeliest place of each landmark, metres: the densest part of its line's nearest places to other
    lines.
    """
    direction, moment = lines.exact_places[:, :3], lines.exact_places[:, 3:]
    foot = np.cross(direction, moment)
    found = np.empty((len(lines), 3))
    count = min(_NEIGHBOURS, len(lines) - 1)
    for first in range(0, len(lines), _CHUNK):
        rows = np.arange(first, min(first + _CHUNK, len(lines)))
        sine = np.sqrt(np.maximum(1.0 - (direction[rows] @ direction.T) ** 2, 0.0))
        apart = np.abs(direction[rows] @ moment.T + moment[rows] @ direction.T) / np.maximum(sine, 1e-9)
        apart[sine < _PARALLEL] = np.inf
        near = np.argpartition(apart, count, axis=1)[:, :count]
        along = _along(direction[rows, None], foot[rows, None], direction[near], foot[near])
        found[rows] = foot[rows] + _densest(along)[:, None] * direction[rows]
    return found


def meeting_points(one: Landmarks, other: Landmarks) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks that two maps of one place hide, matched by their descriptors: (M,) which of the first, (M, 3)
    where.
    """
    pairs, _ = mutual_matches(one.unit_descriptors, other.unit_descriptors)
    ours, theirs = one.exact_places[pairs[:, 0]], other.exact_places[pairs[:, 1]]
    foot, others_foot = (np.cross(lines[:, :3], lines[:, 3:]) for lines in (ours, theirs))
    along = _along(ours[:, :3], foot, theirs[:, :3], others_foot)
    back = _along(theirs[:, :3], others_foot, ours[:, :3], foot)
    middle = (foot + along[:, None] * ours[:, :3] + others_foot + back[:, None] * theirs[:, :3]) / 2
    fine = np.isfinite(middle).all(axis=1)
    return pairs[fine, 0], middle[fine]


def judged(found: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """How near (N, 3) places are to the true ones: median in metres, and shares."""
    error = np.linalg.norm(found - true, axis=1)
    return {
        "landmarks": len(error),
        "median_error_m": float(np.median(error)),
        **{f"within_{centimetres}cm": float(np.mean(error < centimetres / 100)) for centimetres in (5, 10, 25)},
    }


def guessed(lines: Landmarks, true: np.ndarray, seed: int = 0) -> np.ndarray:
    """(L, 3) the guess of an attacker who knows only how large the scene is: the line's place nearest to a random
    landmark.
    """
    others = true[np.random.default_rng(seed).permutation(len(true))]
    direction = lines.exact_places[:, :3]
    foot = np.cross(direction, lines.exact_places[:, 3:])
    return foot + ((others - foot) * direction).sum(axis=1, keepdims=True) * direction


def _along(direction: np.ndarray, foot: np.ndarray, others: np.ndarray, others_foot: np.ndarray) -> np.ndarray:
    """How far along a line from its foot it comes nearest to another: metres."""
    cosine = (direction * others).sum(axis=-1)
    gap = others_foot - foot
    with np.errstate(divide="ignore", invalid="ignore"):
        return ((gap * direction).sum(axis=-1) - cosine * (gap * others).sum(axis=-1)) / (1.0 - cosine**2)


def _densest(along: np.ndarray) -> np.ndarray:
    """(R,) centre of the shortest stretch that holds a quarter of each row's (R, K) places."""
    ordered = np.sort(along, axis=1)
    span = max(along.shape[1] // 4, 2)
    width = ordered[:, span:] - ordered[:, :-span]
    first = width.argmin(axis=1)
    return ordered[np.arange(len(along)), first + span // 2]


def audit_landmarks(stored: Landmarks | None, true: Landmarks | None, second: Landmarks | None) -> dict | None:
    """What the landmarks of a map give away.

    Args:
        stored: of the map.
        true: points made of the same recording, about the same origin; None judges nothing.
        second: points of another recording of the place, about the same origin; None leaves the attack of two maps out.
    """
    if stored is None:
        return None
    result: dict = {"kind": stored.kind, "landmarks": len(stored)}
    if stored.kind == "points":
        return result | {"read": len(stored)}
    found = nearest_lines(stored)
    if true is None:
        return result
    rows, of_true = _same(stored, true)
    places = true.exact_places[of_true]
    result |= {
        "nearest_lines": judged(found[rows], places),
        "guess": judged(guessed(stored.chosen(rows), places), places),
    }
    if second is not None:
        theirs, meeting = meeting_points(stored, hide_in_lines(second, _SECOND_SEED))
        at = {row: number for number, row in enumerate(rows)}
        known = np.array([row in at for row in theirs], bool)
        truth = places[[at[row] for row in theirs[known]]]
        result["two_maps"] = judged(meeting[known], truth) if known.any() else None
    return result


def _same(stored: Landmarks, true: Landmarks) -> tuple[np.ndarray, np.ndarray]:
    """Which stored landmark is which of the true ones: their descriptors are the same to the bit."""
    known = {each.tobytes(): number for number, each in enumerate(true.descriptors)}
    pairs = [(row, known[each.tobytes()]) for row, each in enumerate(stored.descriptors) if each.tobytes() in known]
    return tuple(np.array(pairs, int).reshape(-1, 2).T)
