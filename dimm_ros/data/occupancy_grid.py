"""An occupancy grid as nav2's map_saver writes it and its map_server reads it: a YAML file and the image that it
names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from dimm_ros.data.folder import parsing, read_text
from dimm_ros.data.image_file import load_rgb
from dimm_ros.errors import DataError

LAYOUT = "occupancy grid"
FREE, OCCUPIED, UNKNOWN, OUTSIDE = range(4)


@dataclass(frozen=True)
class OccupancyGrid:
    """H x W cells.

    Attributes:
        name: of the YAML file.
        image: (H, W) uint8, the picture as it is stored; its first row is the one with the largest y.
        resolution: side of a cell, metres.
        origin: (x, y, yaw) of the picture's lower left corner, metres and radians.
        states: (H, W) of the cells: FREE, OCCUPIED or UNKNOWN.
    """

    name: str
    image: np.ndarray
    resolution: float
    origin: tuple[float, float, float]
    states: np.ndarray

    def states_at(self, places: np.ndarray) -> np.ndarray:
        """(N,) state of the cells at (N, 2) places of the grid's frame, metres; OUTSIDE where there is no cell."""
        cells = np.floor(self.local(places) / self.resolution).astype(int)
        height, width = self.states.shape
        inside = ((cells >= 0) & (cells < (width, height))).all(axis=1)
        result = np.full(len(places), OUTSIDE)
        columns, rows = cells[inside].T
        result[inside] = self.states[height - 1 - rows, columns]
        return result

    def local(self, places: np.ndarray) -> np.ndarray:
        """(N, 2) places from the lower left corner along the picture's sides, metres."""
        x, y, yaw = self.origin
        cosine, sine = np.cos(yaw), np.sin(yaw)
        return (places - (x, y)) @ np.array([[cosine, -sine], [sine, cosine]])


def read_grid(path: Path) -> OccupancyGrid:
    """Read a grid's YAML file and its image.

    Raises:
        DataError: a file is missing, malformed, or lacks something.
    """
    with parsing(path, LAYOUT):
        content = yaml.safe_load(read_text(path))
        if not isinstance(content, dict) or not {"image", "resolution", "origin"} <= set(content):
            raise DataError(
                f"'{path}' is not the YAML file of an occupancy grid (image, resolution, origin); give the one "
                "that map_saver wrote."
            )
        resolution, origin = float(content["resolution"]), tuple(float(value) for value in content["origin"])
        negated, mode = bool(content.get("negate", 0)), str(content.get("mode", "trinary"))
        occupied, free = float(content.get("occupied_thresh", 0.65)), float(content.get("free_thresh", 0.25))
        picture = path.parent / str(content["image"])  # an absolute path stays one
    if len(origin) != 3 or not np.isfinite([resolution, *origin]).all() or resolution <= 0:
        raise DataError(
            f"'{path}' has resolution {resolution:g} and origin {list(origin)}; needed are metres above 0, and x, "
            "y and yaw."
        )
    image = load_rgb(picture).mean(axis=2).round().astype(np.uint8)
    if mode == "raw":
        states = np.select([image == 0, image <= 100], [FREE, OCCUPIED], UNKNOWN)
    else:
        share = (image if negated else 255 - image.astype(float)) / 255
        states = np.select([share > occupied, share < free], [OCCUPIED, FREE], UNKNOWN)
    return OccupancyGrid(path.name, image, resolution, origin, states)
