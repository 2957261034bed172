"""How far from the mapped views a map answers, and how well: held-out frames against their nearest mapped view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.spatial.transform import Rotation

from dimm_ros.geometry.poses import rotation_angle_deg

_MOST = 200  # frames that a header keeps, evenly chosen: a few kilobytes
_DISTANCE_EDGES = tuple(digit * 10.0**power for power in range(-2, 4) for digit in (1, 2, 5))  # metres
_TURN_EDGES = (5.0, 10.0, 20.0, 45.0, 90.0, 180.0)  # degrees


@dataclass(frozen=True)
class ReachCell:
    """Held-out frames at about one distance and turn from their nearest mapped view.

    Attributes:
        distance: (from, to) metres.
        turn: (from, to) degrees.
        frames: how many there are.
        answered: how many of them the map localized.
        position_error, rotation_error_deg: medians of those, metres and degrees; None where there are none.
    """

    distance: tuple[float, float]
    turn: tuple[float, float]
    frames: int
    answered: int
    position_error: float | None
    rotation_error_deg: float | None


class Reach(BaseModel):
    """N frames that were held out of a map: where they were from its nearest view, and what the map made of them.

    Nothing is known of views further away than the furthest of them.

    Attributes:
        distance, turn: (N,) from the nearest mapped view, metres and degrees.
        error, error_deg: (N,) of the answers, metres and degrees; None where there was no answer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    distance: tuple[float, ...] = Field(min_length=1, max_length=_MOST)
    turn: tuple[float, ...]
    error: tuple[float | None, ...]
    error_deg: tuple[float | None, ...]

    @model_validator(mode="after")
    def _of_one_length(self) -> Reach:
        if {len(self.turn), len(self.error), len(self.error_deg)} != {len(self.distance)}:
            raise ValueError("distances, turns and errors are not of the same frames")
        return self

    @classmethod
    def of(cls, poses: np.ndarray, mapped: np.ndarray, errors: np.ndarray) -> Reach | None:
        """Of frames that a map was made without.

        Args:
            poses: (N, 4, 4) world_from_camera of the frames.
            mapped: (M, 4, 4) of the views that the map was made of.
            errors: (N, 2) metres and degrees; NaN where there was no answer.

        Returns:
            None where there are no frames, or no views.
        """
        if not (len(poses) and len(mapped)):
            return None
        return cls._kept(*nearest_view(poses, mapped), *errors.T)

    def joined(self, other: Reach | None) -> Reach:
        """Of the frames of both, each against its own map's views."""
        if other is None:
            return self
        ours, theirs = self._columns(), other._columns()
        return self._kept(*(np.concatenate(pair) for pair in zip(ours, theirs, strict=True)))

    def cells(self) -> list[ReachCell]:
        """The frames by distance and turn, near ones first; cells without frames are left out."""
        distance, turn, error, error_deg = self._columns()
        by_distance, by_turn = (
            np.searchsorted(edges, values) for edges, values in ((_DISTANCE_EDGES, distance), (_TURN_EDGES, turn))
        )
        result = []
        for row, column in sorted(set(zip(by_distance.tolist(), by_turn.tolist(), strict=True))):
            here = (by_distance == row) & (by_turn == column)
            answered = here & np.isfinite(error)
            medians = (float(np.median(values[answered])) if answered.any() else None for values in (error, error_deg))
            result.append(
                ReachCell(
                    _between(_DISTANCE_EDGES, row),
                    _between(_TURN_EDGES, column),
                    int(here.sum()),
                    int(answered.sum()),
                    *medians,
                )
            )
        return result

    @property
    def furthest(self) -> tuple[float, float]:
        """The largest distance and the largest turn among the frames, metres and degrees."""
        return max(self.distance), max(self.turn)

    def arrays(self) -> dict[str, np.ndarray]:
        """(N,) float64 each by name; NaN where there was no answer."""
        return dict(zip(("distance", "turn", "error", "error_deg"), self._columns(), strict=True))

    def _columns(self) -> tuple[np.ndarray, ...]:
        return tuple(
            np.array(values, dtype=np.float64) for values in (self.distance, self.turn, self.error, self.error_deg)
        )

    @classmethod
    def _kept(cls, distance: np.ndarray, turn: np.ndarray, error: np.ndarray, error_deg: np.ndarray) -> Reach:
        chosen = np.unique(np.linspace(0, len(distance) - 1, min(len(distance), _MOST)).round().astype(int))

        def rounded(values: np.ndarray, digits: int) -> tuple[float | None, ...]:
            return tuple(None if np.isnan(value) else round(float(value), digits) for value in values[chosen])

        return cls(
            distance=rounded(distance, 4),
            turn=rounded(turn, 2),
            error=rounded(error, 5),
            error_deg=rounded(error_deg, 3),
        )


def nearest_view(poses: np.ndarray, mapped: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (N,) and turn (N,) of poses from the mapped view that is nearest by both.

    Both count in units of the mapped views' own motion, see ``motion_units``: the view nearest by place alone may
    look elsewhere.

    Args:
        poses: (N, 4, 4) world_from_camera.
        mapped: (M, 4, 4), in the order in which they were recorded.
    """
    metre, degree = motion_units(mapped)
    distance = np.linalg.norm(poses[:, None, :3, 3] - mapped[None, :, :3, 3], axis=2)
    ours, theirs = (Rotation.from_matrix(part[:, :3, :3]).as_quat() for part in (poses, mapped))
    turn = np.degrees(2 * np.arccos(np.abs(ours @ theirs.T).clip(0, 1)))
    nearest = (metre * distance + degree * turn).argmin(axis=1)
    rows = np.arange(len(poses))
    return distance[rows, nearest], rotation_angle_deg(poses[:, :3, :3], mapped[nearest, :3, :3])


def motion_units(world_from_camera: np.ndarray) -> tuple[float, float]:
    """What a metre and a degree count in a recording's own motion: one over what it moves and turns from view to
    view at the median.

    Args:
        world_from_camera: (N, 4, 4), in order.
    """
    steps = np.linalg.norm(np.diff(world_from_camera[:, :3, 3], axis=0), axis=1)
    turned = rotation_angle_deg(world_from_camera[:-1, :3, :3], world_from_camera[1:, :3, :3])
    return 1.0 / max(_typical(steps), 1e-9), 1.0 / max(_typical(turned), 1e-3)


def _typical(steps: np.ndarray) -> float:
    """Median of the steps in which the camera moved at all."""
    return float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0


def _between(edges: Sequence[float], index: int) -> tuple[float, float]:
    """The edges about a place that ``searchsorted`` gave."""
    return (edges[index - 1] if index else 0.0), (edges[index] if index < len(edges) else float("inf"))
