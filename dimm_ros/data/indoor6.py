"""Indoor-6 (Do et al., CVPR 2022): a scene folder such as ``scene1`` with ``images/`` and lists of its parts.

``images/image-XXXXXX.color.jpg``, ``.pose.txt`` (3x4 camera_from_world) and ``.intrinsics.txt``, one line ``width
height f cx cy k original_name``: COLMAP's SIMPLE_RADIAL, with (0.5, 0.5) at the centre of the top-left pixel.
``scene1_train.txt``, ``_val.txt`` and ``_test.txt`` list the images of each part; the same lists in
``train_test_val.pkl`` are not read, as a pickle may run any code. The parts become ``official:train``,
``official:tune`` (the published val, for choosing parameters) and ``official:val`` (the published test). Sources: the
repository microsoft/SceneLandmarkLocalization (src/dataloader/indoor6.py, whose loader leaves k aside) and
nianticspatial/scr-priors (datasets/setup_indoor6.py, which reads the lists).
"""

from __future__ import annotations

import re
from pathlib import Path

from dimm_ros.data.folder import FolderFrames, fitted, invented_stamp, parsing, read_pose, read_text
from dimm_ros.data.recording import Recording
from dimm_ros.geometry import poses
from dimm_ros.geometry.camera import Camera

LAYOUT = "Indoor-6"

_IMAGE = re.compile(r"image-(\d+)\.color\.(?:png|jpe?g)")
_PARTS = {"train": "train", "val": "tune", "test": "val"}


def is_indoor6(folder: Path) -> bool:
    """Whether a folder looks like an Indoor-6 scene."""
    return (folder / "images").is_dir() and any(_IMAGE.fullmatch(path.name) for path in (folder / "images").iterdir())


def read_indoor6(folder: str | Path) -> Recording:
    """Read an Indoor-6 scene folder.

    Raises:
        DataError: a file is missing or malformed, or no image has a pose.
    """
    folder = Path(folder)
    part_of, notes = _parts(folder)
    frames, bent = FolderFrames(folder, LAYOUT), False
    for image in sorted((folder / "images").iterdir()):
        match = _IMAGE.fullmatch(image.name)
        if match is None:
            continue
        stem = image.name.split(".", 1)[0]
        intrinsics = image.with_name(f"{stem}.intrinsics.txt")
        with parsing(intrinsics, LAYOUT):
            camera = _camera(read_text(intrinsics))
        bent = bent or bool(camera.distortion)
        camera_from_world = read_pose(image.with_name(f"{stem}.pose.txt"))
        frames.add(
            stem,
            image,
            lambda size, camera=camera: fitted(camera, size),
            None if camera_from_world is None else poses.invert(camera_from_world),
            invented_stamp(int(match.group(1))),
            part=part_of.get(image.name),
        )
    if bent:
        notes.append(
            "The radial distortion in the intrinsics files is applied; the authors' own loader leaves it aside."
        )
    return frames.recording(notes)


def _camera(line: str) -> Camera:
    fields = line.split()
    f, cx, cy, k = (float(value) for value in fields[2:6])
    distortion = (k, 0.0, 0.0, 0.0) if k else ()
    return Camera(int(fields[0]), int(fields[1]), f, f, cx - 0.5, cy - 0.5, distortion=distortion)


def _parts(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Image -> part, and what to tell the user."""
    part_of, missing = {}, []
    for published, part in _PARTS.items():
        listing = next(iter(sorted(folder.glob(f"*_{published}.txt"))), None)
        if listing is None:
            missing.append(f"*_{published}.txt")
            continue
        with parsing(listing, LAYOUT):
            part_of |= {name.strip(): part for name in read_text(listing).split()}
    if missing and (folder / "train_test_val.pkl").exists():
        return part_of, [
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not there; train_test_val.pkl is not read, "
            "because a pickle may run "
            "any code: write its lists to these text files, one image name a line."
        ]
    return part_of, []
