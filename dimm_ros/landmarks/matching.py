"""Which descriptor is whose: nearest neighbours that are mutual and clearly nearer than the second."""

from __future__ import annotations

import numpy as np
import torch

#: Largest angle between descriptors of one thing, radians; and of a match to the second best, as a share.
MAX_ANGLE, RATIO = 0.9, 0.9


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
    # PyTorch reduces several times faster than NumPy, down the columns above all.
    table = torch.from_numpy(ones) @ torch.from_numpy(others).T
    if allowed is not None:
        table.masked_fill_(~torch.from_numpy(allowed), -1.0)
    nearest, back = table.max(dim=1).indices.numpy(), table.max(dim=0).indices.numpy()
    cosine = table.numpy()
    rows = np.flatnonzero(back[nearest] == np.arange(len(nearest)))
    columns = nearest[rows]
    best = cosine[rows, columns]
    near = best > np.cos(MAX_ANGLE)
    rows, columns, best = rows[near], columns[near], best[near]
    chosen = cosine[rows]
    chosen[np.arange(len(rows)), columns] = -1.0
    second = chosen.max(axis=1, initial=-1.0)
    ratio = np.arccos(np.clip(best, -1, 1)) / np.maximum(np.arccos(np.clip(second, -1, 1)), 1e-9)
    ratio[best <= second] = 1.0  # twins, even of the keypoint itself
    clear = ratio < RATIO
    return np.column_stack([rows[clear], columns[clear]]), ratio[clear]
