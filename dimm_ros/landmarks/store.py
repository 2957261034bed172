"""The landmarks of a map: places as points, or hidden in lines of random direction, with what they look like.

A line (l, n = X x l) through a landmark X says less than the point: the camera ray d of a keypoint that shows it meets
the line, d . (n - c x l) = 0, one equation instead of two (Speciale et al., CVPR 2019). What would tell where on its
line a landmark is (the directions and distances it was seen from) is not kept with lines.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from dimm_ros.landmarks.keypoints import unit
from dimm_ros.landmarks.warp import Warp

LandmarkKind = Literal["points", "lines"]

#: What a landmark may be seen from beyond what was recorded: angle in radians, and factor of distance.
_SLACK_ANGLE, _SLACK_DISTANCE = 0.6, 1.8


@dataclass(frozen=True)
class Landmarks:
    """L landmarks, metres about the map's origin.

    Attributes:
        kind: points or lines.
        places: (L, 3) float32 of points; (L, 6) float32 of lines: direction l and moment n = X x l.
        descriptors: (L, D) uint8, see ``Keypoints``: the mean of what was seen.
        views: (L,) uint8: images that a landmark was seen in, 255 for more.
        seen_from: (L, 6) float16 of points: mean unit direction from landmark to camera, cosine of the widest angle
            from it, nearest and furthest distance, metres. Empty (L, 0) for lines.
        warp: what the recording's poses are off by these landmarks; None where it is not known.
    """

    kind: LandmarkKind
    places: np.ndarray
    descriptors: np.ndarray
    views: np.ndarray
    seen_from: np.ndarray
    warp: Warp | None = None

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def unit_descriptors(self) -> np.ndarray:
        """(L, D) float32 of length one."""
        return unit(self.descriptors)

    @cached_property
    def exact_places(self) -> np.ndarray:
        """``places`` in float64."""
        return self.places.astype(np.float64)

    @classmethod
    def shapes(cls, kind: LandmarkKind, count: int, dim: int) -> dict[str, tuple[tuple[int, int] | tuple[int], str]]:
        """Shape and dtype that each array of so many landmarks has, by its name."""
        points = kind == "points"
        return {
            "places": ((count, 3 if points else 6), "float32"),
            "descriptors": ((count, dim), "uint8"),
            "views": ((count,), "uint8"),
            "seen_from": ((count, 6 if points else 0), "float16"),
        }

    @property
    def seen_distance(self) -> float:
        """Median distance that landmarks were seen from, metres; NaN for lines, of which it is not known."""
        near, far = self.seen_from.astype(np.float64)[:, 4:].T if self.kind == "points" else (np.nan, np.nan)
        return float(np.median(np.sqrt(near * far)))

    def strangeness(self, centre: np.ndarray, slack: float, rows: np.ndarray) -> np.ndarray:
        """(K,) how unlike the views that showed a landmark one from here is: 0 as at their middle, infinite if it
        hardly shows it.

        The angle from their mean direction in radians plus the logarithm of the distance over theirs; 0 for lines, of
        which neither is known.

        Args:
            centre: (3,) of the camera, or (K, 3) of each landmark's own, metres.
            slack: how uncertain the centre is, metres.
            rows: (K,) indices of the landmarks.
        """
        if self.kind == "lines":
            return np.zeros(len(rows))
        arm = centre - self.exact_places[rows]
        distance = np.maximum(np.linalg.norm(arm, axis=1), 1e-9)
        axis, cosine, near, far = np.split(self.seen_from[rows].astype(np.float64), [3, 4, 5], axis=1)
        cosine, near, far = cosine[:, 0], near[:, 0], far[:, 0]
        angle = np.arccos(np.clip((arm * axis).sum(axis=1) / distance, -1.0, 1.0))
        hidden = angle > np.arccos(np.clip(cosine, -1.0, 1.0)) + _SLACK_ANGLE + np.arctan2(slack, distance)
        hidden |= (distance + slack < near / _SLACK_DISTANCE) | (distance - slack > far * _SLACK_DISTANCE)
        return np.where(hidden, np.inf, angle + np.abs(np.log(distance / np.sqrt(near * far))))

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays of landmarks by name."""
        return {name: getattr(self, name) for name in ("places", "descriptors", "views", "seen_from")}

    def chosen(self, rows: np.ndarray) -> Landmarks:
        """Some of the landmarks: (L,) bool or indices."""
        return replace(self, **{name: array[rows] for name, array in self.arrays().items()})

    def shifted(self, offset: np.ndarray) -> Landmarks:
        """The same about another origin: ``offset`` (3,) is the old origin as seen from the new one, metres."""
        places = self.exact_places.copy()
        if self.kind == "points":
            places += offset
        else:
            places[:, 3:] += np.cross(offset, places[:, :3])
        warp = None if self.warp is None else self.warp.shifted(offset)
        return replace(self, places=places.astype(np.float32), warp=warp)

    def rotated(self, rotation: np.ndarray) -> Landmarks:
        """The same in a frame that is turned about the origin, target_from_source (3, 3)."""
        turned = (self.exact_places.reshape(len(self), -1, 3) @ rotation.T).reshape(self.places.shape)
        seen_from = self.seen_from.astype(np.float64)
        seen_from[:, :3] = seen_from[:, :3] @ rotation.T if self.kind == "points" else seen_from[:, :3]
        warp = None if self.warp is None else self.warp.rotated(rotation)
        return replace(self, places=turned.astype(np.float32), seen_from=seen_from.astype(np.float16), warp=warp)

    @classmethod
    def joined(cls, parts: list[Landmarks]) -> Landmarks:
        """All landmarks of several maps about one origin, of one kind."""
        arrays = [part.arrays() for part in parts]
        warps = [part.warp for part in parts]
        return cls(
            parts[0].kind,
            **{name: np.concatenate([each[name] for each in arrays]) for name in arrays[0]},
            warp=None if None in warps else Warp.joined(warps),  # what one knows does not go for another's landmarks
        )


def hide_in_lines(landmarks: Landmarks, seed: int) -> Landmarks:
    """Points as lines of random directions; nothing in the result tells where on its line a landmark is."""
    direction = np.random.default_rng(seed).normal(size=(len(landmarks), 3))
    direction = (direction / np.linalg.norm(direction, axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
    moment = np.cross(landmarks.exact_places, direction)
    places = np.concatenate([direction, moment], axis=1).astype(np.float32)
    return replace(landmarks, kind="lines", places=places, seen_from=np.empty((len(landmarks), 0), np.float16))
