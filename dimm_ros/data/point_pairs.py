"""Pairs of points, in a map's frame and on an occupancy grid, as people give them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dimm_ros.data.folder import UTF8
from dimm_ros.errors import InputError

_FORM = "x,y,z=X,Y: a point in the map's frame and the same one on the grid, metres, such as 1.2,0.4,0.9=-3.5,7.25"


@dataclass(frozen=True)
class PointPairs:
    """N pairs.

    Attributes:
        source: (N, 3) in the map's frame, metres.
        target: (N, 2) on the grid, metres.
    """

    source: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.source)

    @classmethod
    def of(cls, pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> PointPairs:
        """From points in the map's frame, each with its point on the grid."""
        return cls(
            np.array([pair[0] for pair in pairs], dtype=float).reshape(-1, 3),
            np.array([pair[1] for pair in pairs], dtype=float).reshape(-1, 2),
        )


def parse_pairs(texts: Sequence[str]) -> PointPairs:
    """Pairs given as x,y,z=X,Y.

    Raises:
        InputError: one is not.
    """
    pairs = []
    for text in texts:
        source, _, target = text.partition("=")
        numbers = _numbers(source.split(",")), _numbers(target.split(","))
        if tuple(map(len, numbers)) != (3, 2):
            raise InputError(f"The pair '{text}' is not of the form {_FORM}.")
        pairs.append(numbers)
    return PointPairs.of(pairs)


def read_pairs(path: Path) -> PointPairs:
    """Pairs of a text file, one a line; empty lines and comments (#) are left out.

    Raises:
        InputError: it cannot be read, or a line is no pair.
    """
    lines = (line.partition("#")[0].strip() for line in _lines(path))
    return parse_pairs([line for line in lines if line])


def read_clicks(path: Path) -> PointPairs:
    """Pairs clicked in RViz (Publish Point), as ``ros2 topic echo --csv /clicked_point`` writes them: stamp, frame,
    x, y, z.

    Each click on something that the map shows is followed by one on the same thing in the grid, of which z is left out.

    Raises:
        InputError: it cannot be read, has no clicks, or an odd number of them.
    """
    clicks = [numbers for row in csv.reader(_lines(path)) if len(numbers := _numbers(row[-3:])) == 3]
    if not clicks or len(clicks) % 2:
        raise InputError(
            f"'{path}' has {len(clicks)} clicked points; they come in pairs, first in the map, then the same "
            "thing on the grid: click again with "
            "'ros2 topic echo --csv /clicked_point > FILE'."
        )
    return PointPairs.of([(one, other[:2]) for one, other in zip(clicks[::2], clicks[1::2], strict=True)])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding=UTF8).splitlines()
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"The pairs '{path}' cannot be read ({cause}); give a text file.") from None


def _numbers(fields: Sequence[str]) -> list[float]:
    """The fields as finite numbers; none where one is not."""
    try:
        values = [float(field) for field in fields]
    except ValueError:
        return []
    return values if np.isfinite(values).all() else []
