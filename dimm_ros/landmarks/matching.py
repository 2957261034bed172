"""Which descriptor is whose: nearest neighbours that are mutual and clearly nearer than the second."""

from __future__ import annotations

import numpy as np
import torch

#: Largest angle between descriptors of one thing, radians; and of a match to the second best, as a share.
MAX_ANGLE, RATIO = 0.9, 0.9
#: Share of allowed pairs below which they are compared one by one.
_SPARSE = 0.015


def mutual_matches(
    ones: np.ndarray, others: np.ndarray, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Matches between two sets of unit descriptors.

    Args:
        ones, others: (N, D) and (M, D) float32 of length one.
        allowed: (N, M) bool; None allows every pair.

    Returns:
        (K, 2) indices, and (K,) how much nearer each match is than the second best of its row: the ratio of angles, 0
        to ``RATIO``.
    """
    if min(len(ones), len(others)) < 2:
        return np.empty((0, 2), int), np.empty(0)
    pairs = None if allowed is None else _few(allowed)
    rows, columns, best, second = (
        _among_all(ones, others, allowed) if pairs is None else _among_few(ones, others, *pairs)
    )
    near = best > np.cos(MAX_ANGLE)
    rows, columns, best, second = rows[near], columns[near], best[near], second[near]
    ratio = np.arccos(np.clip(best, -1, 1)) / np.maximum(np.arccos(np.clip(second, -1, 1)), 1e-9)
    ratio[best <= second] = 1.0  # twins, even of the keypoint itself
    clear = ratio < RATIO
    return np.column_stack([rows[clear], columns[clear]]), ratio[clear]


def _few(allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows and columns of what is allowed, in the order of rows; None where it is much."""
    if np.count_nonzero(allowed) > _SPARSE * allowed.size:
        return None
    return np.divmod(np.flatnonzero(allowed), allowed.shape[1])  # NumPy's own nonzero takes seven times as long


#: Rows, columns, cosines of mutual nearest neighbours, and of each row's second best.
_Mutual = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _among_all(ones: np.ndarray, others: np.ndarray, allowed: np.ndarray | None) -> _Mutual:
    """By the whole table. PyTorch reduces it several times faster than NumPy, down the columns above all."""
    table = torch.from_numpy(ones) @ torch.from_numpy(others).T
    if allowed is not None:
        table.masked_fill_(~torch.from_numpy(allowed), -1.0)
    best, columns = (part.numpy() for part in table.max(dim=1))
    of_column = table.amax(dim=0).numpy()  # plain maxima cost a tenth of those that tell where they are
    rows = np.flatnonzero(best == of_column[columns])
    columns, chosen = columns[rows], table.numpy()[rows]
    chosen[np.arange(len(rows)), columns] = -1.0
    return rows, columns, best[rows], torch.from_numpy(chosen).amax(dim=1).numpy() if len(rows) else best[rows]


def _among_few(ones: np.ndarray, others: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> _Mutual:
    """By the (K,) allowed pairs alone, in the order of rows, where these are few."""
    if not len(rows):
        return rows, columns, np.empty(0, np.float32), np.empty(0, np.float32)
    cosine = np.einsum("kd,kd->k", ones[rows], others[columns])
    first = np.flatnonzero(np.diff(rows, prepend=-1))
    of_row = np.repeat(np.maximum.reduceat(cosine, first), np.diff(first, append=len(rows)))
    of_column = np.full(len(others), -1.0, np.float32)
    np.maximum.at(of_column, columns, cosine)
    mutual = (cosine == of_row) & (cosine == of_column[columns])
    second = np.maximum.reduceat(np.where(mutual, np.float32(-1.0), cosine), first)[
        np.searchsorted(first, np.flatnonzero(mutual), "right") - 1
    ]
    return rows[mutual], columns[mutual], cosine[mutual], second
