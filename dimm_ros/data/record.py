"""Any recording written as the ROS 2 bag of a robot that took it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dimm_ros.data.bag_writer import BASE, MAP, ODOM, new_bag
from dimm_ros.data.recording import Frame
from dimm_ros.errors import DataError
from dimm_ros.geometry.poses import invert
from dimm_ros.progress import StepCallback

#: A camera that looks ahead from base_link's own origin: x ahead, y left, z up (REP-103) of x right, y down, z ahead.
BASE_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])

_LATEST_S = 2**31  # seconds of a ROS time are 32 bits


def record_frames(
    path: str | Path,
    frames: Sequence[Frame],
    base_from_camera: np.ndarray = BASE_FROM_OPTICAL,
    odom_from_base: np.ndarray | None = None,
    *,
    depth: bool = True,
    progress: StepCallback | None = None,
    **options,
) -> Path:
    """Write frames as a bag; it appears under its name only when it is complete.

    Each frame gives an image with its camera_info, its depth where there is one, and the transforms map -> odom and
    odom -> base_link at its stamp; base_link -> camera_optical_frame is static.

    Args:
        path: the bag's folder.
        frames: with poses, in order of time.
        base_from_camera: (4, 4) extrinsics, optical axes.
        odom_from_base: (N, 4, 4) odometry; None means that it does not drift, so that map -> odom is the identity.
        depth: write the depth images too; they are taken for registered to the camera.
        progress: called with images written and images in all.
        options: of ``new_bag``.

    Raises:
        DataError: the bag exists, cannot be written, or a frame has no pose or a stamp that a bag cannot hold.
    """
    stamps = [frame.stamp_ns for frame in frames]
    if not frames or any(frame.world_from_camera is None for frame in frames):
        raise DataError(f"Bag '{path}' cannot be written: it needs at least one frame, and a pose for each.")
    if (
        any(later <= earlier for earlier, later in zip(stamps, stamps[1:]))
        or stamps[0] < 0
        or stamps[-1] >= _LATEST_S * 10**9
    ):
        raise DataError(
            f"Bag '{path}' cannot be written: the stamps must increase from 0 and stay below {_LATEST_S} seconds."
        )
    world_from_base = np.stack([frame.world_from_camera for frame in frames]) @ invert(base_from_camera)
    odom_from_base = world_from_base if odom_from_base is None else odom_from_base
    map_from_odom = world_from_base @ invert(odom_from_base)
    with new_bag(path, **options) as bag:
        bag.start(stamps[0], base_from_camera)
        for index, frame in enumerate(frames):
            bag.transform(stamps[index], MAP, ODOM, map_from_odom[index])
            bag.transform(stamps[index], ODOM, BASE, odom_from_base[index])
            if depth and frame.load_depth is not None:
                bag.depth(stamps[index], frame.depth_camera, frame.load_depth())
            bag.image(stamps[index], frame.camera, bag.encode(frame.load()))
            if progress is not None:
                progress(index + 1, len(frames))
    return Path(path)
