"""The result of every reader: a ``Recording`` of ``Frame`` s whose images are loaded on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dimm_ros.geometry.camera import Camera


@dataclass(frozen=True)
class Frame:
    """A posed image.

    Attributes:
        name: unique within its recording (file name, or the stamp for a bag).
        stamp_ns: time of the image in nanoseconds; the frame number times 1e9/30 where a data set has no time.
        camera: intrinsics of the stored image.
        world_from_camera: (4, 4), metres, optical axes; None when the frame's pose is unknown.
        load: returns the image as (H, W, 3) uint8 RGB; raises DataError with the file's name when it cannot.
        load_depth: returns depth along z in metres, (h, w) float32 with 0 = none, or None when there is no depth.
        depth_camera: intrinsics of the depth image, where there is one.
        files: what image and depth are read from, by which a change of either is noticed; empty where they are made.
    """

    name: str
    stamp_ns: int
    camera: Camera
    world_from_camera: np.ndarray | None
    load: Callable[[], np.ndarray]
    load_depth: Callable[[], np.ndarray] | None = None
    depth_camera: Camera | None = None
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Recording:
    """Posed images of one place, in time order.

    Attributes:
        name: short, for tables and file names.
        source: where it came from, for the map's header (a name, never an absolute path).
        frame_id: the world frame's ROS name, "map" where the source has none.
        frames: the images.
        splits: named parts of a data set's split.json: name -> part ("train", "val") -> indices into frames.
        notes: sentences for the user about what was left out and why.
        timed: whether the stamps are times; False where the source has none and they only keep the frames in order.
    """

    name: str
    source: str
    frames: Sequence[Frame]
    frame_id: str = "map"
    splits: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    timed: bool = True

    def poses(self) -> np.ndarray:
        """(N, 4, 4) world_from_camera of all frames."""
        return np.stack([frame.world_from_camera for frame in self.frames])

    def scaled(self, metres: float) -> Recording:
        """The recording with its poses in metres, where one unit of them was so many; depth is in metres already."""
        unit = np.ones((4, 4))
        unit[:3, 3] = metres
        poses = [frame.world_from_camera for frame in self.frames]
        frames = [
            frame if pose is None else replace(frame, world_from_camera=pose * unit)
            for frame, pose in zip(self.frames, poses, strict=True)
        ]
        return replace(self, frames=frames)

    def state(self) -> str:
        """What is made of posed images depends on it: names, stamps, cameras, poses, and the size and time of each file
        that is read.

        Raises:
            OSError: a file is not there any more.
        """
        frames = [
            (
                frame.name,
                frame.stamp_ns,
                frame.camera,
                frame.world_from_camera.round(6).tolist(),
                frame.load_depth is not None,
                frame.depth_camera,
            )
            for frame in self.frames
        ]
        files = ((file.name, file.stat()) for file in sorted({file for frame in self.frames for file in frame.files}))
        return repr((frames, [(name, state.st_size, state.st_mtime_ns) for name, state in files]))
