"""Points where several rays meet, when most rays of a group may be wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TOLERANCE_M, TOLERANCE_RAD = 0.05, 0.02  # distance of an agreeing ray from the point: this, and this much of the range
_NEAREST_M = 0.3  # in front of the camera
_MIN_ANGLE = np.radians(3.0)  # between the two rays of a hypothesis
_REFITS = 3


@dataclass(frozen=True)
class Meetings:
    """The best meeting point of each group of rays.

    Attributes:
        points: (T, 3), NaN where no two rays meet.
        support: (T,) number of rays that pass it.
    """

    points: np.ndarray
    support: np.ndarray

    def supported(self, least: int) -> np.ndarray:
        """(M, 3) points that at least so many rays pass."""
        return self.points[self.support >= least]


def meet(centres: np.ndarray, directions: np.ndarray) -> Meetings:
    """The point that most rays of each group pass in front of their cameras.

    Every pair of a group's rays is a hypothesis: the middle of their nearest points.

    Args:
        centres: (V, 3) camera centres that all groups share, or (T, V, 3), metres.
        directions: (T, V, 3) unit rays of T groups, one from each centre.
    """
    one, two = np.triu_indices(directions.shape[1], k=1)
    points, support = np.full((len(directions), 3), np.nan), np.zeros(len(directions), int)
    for index, (starts, rays) in enumerate(zip(np.broadcast_to(centres, directions.shape), directions, strict=True)):
        hypotheses = _between(starts, rays, one, two)
        agrees = _agrees(hypotheses, starts, rays)
        counts = agrees.sum(axis=1)
        if not len(counts) or counts.max() < 2:
            continue
        best = int(np.argmax(counts))
        point, chosen = hypotheses[best], agrees[best]
        for _ in range(_REFITS):
            refined = _least_squares(starts[chosen], rays[chosen])
            now = _agrees(refined[None], starts, rays)[0]
            if now.sum() < chosen.sum():
                break
            point, chosen = refined, now
        points[index], support[index] = point, chosen.sum()
    return Meetings(points, support)


def _between(centres: np.ndarray, rays: np.ndarray, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """(H, 3) middles between pairs of rays that are neither parallel nor meet behind a camera."""
    a, b, apart = rays[one], rays[two], centres[two] - centres[one]
    cosine = (a * b).sum(axis=1)
    wide = np.abs(cosine) < np.cos(_MIN_ANGLE)
    a, b, apart, cosine, start = a[wide], b[wide], apart[wide], cosine[wide], centres[one][wide]
    along_a, along_b = (apart * a).sum(axis=1), (apart * b).sum(axis=1)
    s = (along_a - cosine * along_b) / (1 - cosine**2)
    t = (cosine * along_a - along_b) / (1 - cosine**2)
    front = (s > _NEAREST_M) & (t > _NEAREST_M)
    return ((start + s[:, None] * a + start + apart + t[:, None] * b) / 2)[front]


def _agrees(points: np.ndarray, centres: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """(H, V) bool: which rays pass (H, 3) points."""
    offset = points[:, None] - centres
    along = np.einsum("hvi,vi->hv", offset, rays)
    away = np.sqrt(np.maximum(np.square(offset).sum(axis=2) - along**2, 0))
    return (along > _NEAREST_M) & (away < TOLERANCE_M + TOLERANCE_RAD * along)


def _least_squares(centres: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """The point nearest to rays."""
    across = np.eye(3) - rays[:, :, None] * rays[:, None, :]
    return np.linalg.lstsq(across.sum(axis=0), np.einsum("vij,vj->i", across, centres), rcond=None)[0]
