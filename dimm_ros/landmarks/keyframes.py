"""Key frames: few images of a recording that stand for all of it, spread over where the camera was and looked."""

from __future__ import annotations

import numpy as np

from dimm_ros.geometry.poses import rotation_angle_deg
from dimm_ros.reach import motion_units


def choose_keyframes(world_from_camera: np.ndarray, most: int) -> np.ndarray:
    """Indices, in order, of at most so many frames: each next one is the furthest from all before (k-centre, Gonzalez
    1985).

    Distance and angle between frames count alike in units of the recording's own motion: what it moves and turns from
    frame to frame at the median.

    Args:
        world_from_camera: (N, 4, 4).
        most: frames to choose.
    """
    count = len(world_from_camera)
    if count <= most:
        return np.arange(count)
    metre, degree = motion_units(world_from_camera)

    def away(index: int) -> np.ndarray:
        distance = np.linalg.norm(world_from_camera[:, :3, 3] - world_from_camera[index, :3, 3], axis=1)
        angle = rotation_angle_deg(
            world_from_camera[:, :3, :3], np.broadcast_to(world_from_camera[index, :3, :3], (count, 3, 3))
        )
        return metre * distance + degree * angle

    chosen, nearest = [0], away(0)
    while len(chosen) < most:
        nearest[chosen[-1]] = -1.0  # where a robot stands, all that is left is nought away
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, away(chosen[-1]))
    return np.sort(chosen)
