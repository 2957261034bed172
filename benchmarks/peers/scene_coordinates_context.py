"""Scene coordinates with the image's global context beside each patch (the method of GLACE, CVPR 2024); see
``scene_coordinates``.
"""

from __future__ import annotations

from benchmarks.peers import scene_coordinates
from benchmarks.peers.peer import Mapped
from dimm_ros.progress import ProgressCallback

NAME = "scene_coordinates_context"
TITLE = "scene coordinates with global context (GLACE-style)"
NEEDS = scene_coordinates.NEEDS


def build(mapped: Mapped, progress: ProgressCallback) -> scene_coordinates.SceneCoordinateMap:
    """As ``scene_coordinates``."""
    return scene_coordinates.build(mapped, progress, context=True)
