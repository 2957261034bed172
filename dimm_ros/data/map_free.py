"""Map-free Relocalization (Arnold et al., ECCV 2022), from which Wayspots was taken: a scene folder such as ``s00460``.

``seq0/`` and ``seq1/`` hold two scans of one place; ``intrinsics.txt`` has ``seq0/frame_00000.jpg fx fy cx cy width
height`` and ``poses.txt`` has ``seq0/frame_00000.jpg qw qx qy qz tx ty tz``, camera_from_world in metres. Withheld
poses are written as zeros and left out. seq0 is the scan to map (``official:train``), seq1 the one to localize
(``official:val``). Source: the README of nianticlabs/map-free-reloc.
"""

from __future__ import annotations

import re
from pathlib import Path

from dimm_ros.data.folder import (
    FolderFrames,
    fitted,
    from_wxyz,
    invented_stamp,
    listed_file,
    parsing,
    require,
    text_rows,
)
from dimm_ros.data.recording import Recording
from dimm_ros.geometry import poses
from dimm_ros.geometry.camera import Camera

LAYOUT = "Map-free"

_FRAME = re.compile(r"seq(\d+)/\D*(\d+)\.\w+")


def is_map_free(folder: Path) -> bool:
    """Whether a folder looks like a Map-free scene."""
    return (folder / "seq0").is_dir() and any((folder / name).is_file() for name in ("poses.txt", "intrinsics.txt"))


def read_map_free(folder: str | Path) -> Recording:
    """Read a Map-free scene folder.

    Raises:
        DataError: a file is missing or malformed, or no image has a pose.
    """
    folder = Path(folder)
    require(folder, LAYOUT, "intrinsics.txt", "poses.txt")
    with parsing(folder / "intrinsics.txt", LAYOUT):
        cameras = {
            name.replace("\\", "/"): Camera(int(width), int(height), float(fx), float(fy), float(cx), float(cy))
            for name, fx, fy, cx, cy, width, height in text_rows(folder / "intrinsics.txt")
        }
    frames = FolderFrames(folder, LAYOUT)
    with parsing(folder / "poses.txt", LAYOUT):
        for name, *numbers in text_rows(folder / "poses.txt"):
            name = name.replace("\\", "/")
            camera, (sequence, number) = cameras[name], (int(digits) for digits in _FRAME.fullmatch(name).groups())
            camera_from_world = from_wxyz(
                [float(value) for value in numbers[:4]], [float(value) for value in numbers[4:7]]
            )
            frames.add(
                name,
                listed_file(folder, name),
                lambda size, camera=camera: fitted(camera, size),
                None if camera_from_world is None else poses.invert(camera_from_world),
                invented_stamp(number, sequence),
                part="val" if sequence else "train",
            )
    return frames.recording()
