"""Which descriptor is whose: nearest neighbours that are mutual and clearly nearer than the second."""

from __future__ import annotations

import numpy as np
import torch

#: Largest angle between descriptors of one thing, radians; and of a match to the second best, as a share.
MAX_ANGLE, RATIO = 0.9, 0.9
#: Share of allowed pairs below which they are compared one by one.
_SPARSE = 0.01


def mutual_matches(ones: np.ndarray, others: np.ndarray, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Matches between two sets of unit descriptors.

    Args:
        ones, others: (N, D) and (M, D) float32 of length one.
        allowed: (N, M) bool; None allows every pair.

    Returns:
        (K, 2) indices, and (K,) how much nearer each match is than the second best of its row: the ratio of angles, 0 to
        ``RATIO``.
    """
    if min(len(ones), len(others)) < 2:
        return np.empty((0, 2), int), np.empty(0)
    pairs = None if allowed is None else np.argwhere(allowed) if np.count_nonzero(allowed) < _SPARSE * allowed.size else None
    rows, columns, best, second = _among_all(ones, others, allowed) if pairs is None else _among_few(ones, others, *pairs.T)
    near = best > np.cos(MAX_ANGLE)
    rows, columns, best, second = rows[near], columns[near], best[near], second[near]
    ratio = np.arccos(np.clip(best, -1, 1)) / np.maximum(np.arccos(np.clip(second, -1, 1)), 1e-9)
    ratio[best <= second] = 1.0  # twins, even of the keypoint itself
    clear = ratio < RATIO
    return np.column_stack([rows[clear], columns[clear]]), ratio[clear]


#: Rows, columns, cosines of mutual nearest neighbours, and of each row's second best.
_Mutual = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _among_all(ones: np.ndarray, others: np.ndarray, allowed: np.ndarray | None) -> _Mutual:
    """By the whole table. PyTorch reduces it several times faster than NumPy, down the columns above all."""
    table = torch.from_numpy(ones) @ torch.from_numpy(others).T
    if allowed is not None:
        table.masked_fill_(~torch.from_numpy(allowed), -1.0)
    nearest, back = table.max(dim=1).indices.numpy(), table.max(dim=0).indices.numpy()
    cosine = table.numpy()
    rows = np.flatnonzero(back[nearest] == np.arange(len(nearest)))
    columns = nearest[rows]
    best = cosine[rows, columns]
    chosen = cosine[rows]
    chosen[np.arange(len(rows)), columns] = -1.0
    return rows, columns, best, chosen.max(axis=1, initial=-1.0)


def _among_few(ones: np.ndarray, others: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> _Mutual:
    """By the (K,) allowed pairs alone, where these are few."""
    cosine = np.einsum("kd,kd->k", ones[rows], others[columns])
    order = np.lexsort((-cosine, rows))
    first = np.flatnonzero(np.diff(rows[order], prepend=-1))
    after = np.minimum(first + 1, len(order) - 1)
    second = np.where((after > first) & (rows[order[after]] == rows[order[first]]), cosine[order[after]], -1.0)
    by_column = np.lexsort((-cosine, columns))
    back = np.full(len(others), -1)
    firsts = by_column[np.flatnonzero(np.diff(columns[by_column], prepend=-1))]
    back[columns[firsts]] = rows[firsts]
    best = order[first]
    mutual = back[columns[best]] == rows[best]
    best = best[mutual]
    return rows[best], columns[best], cosine[best], second[mutual]
