"""The two bags of the demo: walks through the rendered gallery, or two parts of a folder of posed images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dimm_ros.data.bag_writer import CAMERA_INFO_TOPIC, IMAGE_TOPIC
from dimm_ros.data.record import record_frames
from dimm_ros.data.recording import Frame, Recording
from dimm_ros.data.splits import select
from dimm_ros.errors import DataError
from dimm_ros.gallery.odometry import drifting_odometry
from dimm_ros.gallery.recorder import GALLERY_CAMERA, record_bag
from dimm_ros.gallery.scene import build_room
from dimm_ros.gallery.trajectory import MOUNTS, trajectory
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import invert
from dimm_ros.progress import ProgressCallback, StepCallback

_TF_HZ = 48.0
_MAP_SECONDS, _MAP_EVERY = 56.0, 12  # four rounds, four images a second
_QUERY_SECONDS, _QUERY_EVERY = 26.0, 16
_SEEDS = (11, 12)  # two seeds are two walks
_SPREAD = (
    0.25  # of the walks: up to 7 cm to either side, 3 cm in height and 5 degrees in heading, as who retraces a route
)
_PERIOD, _BLOCK = 50, 10  # without a split.json, blocks of 10 images in every 50 are the query


@dataclass(frozen=True)
class DemoBags:
    """A bag to map, another to localize in, and how to read them.

    Attributes:
        mapping, query: the bags.
        base_from_camera: (4, 4) extrinsics of both.
        topics: the node's names -> the bags' topics.
    """

    mapping: Path
    query: Path
    base_from_camera: np.ndarray
    topics: dict[str, str]

    @classmethod
    def of(cls, folder: Path, *, gallery: bool) -> DemoBags:
        """Those that ``bags_of_gallery``, or ``bags_of_data``, recorded in a folder."""
        return cls(folder / "mapping_bag", folder / "query_bag", MOUNTS["handheld" if gallery else "robot"], _TOPICS)


#: How many images ``bags_of_gallery`` maps and asks, about.
RENDERED = (225, 80)
_TOPICS = {"image": f"{IMAGE_TOPIC}/compressed", "camera_info": CAMERA_INFO_TOPIC}


def bags_of_gallery(folder: Path, progress: ProgressCallback) -> DemoBags:
    """Two different hand-held walks through the gallery, rendered and recorded."""
    walks = (("mapping", _SEEDS[0], _MAP_SECONDS, _MAP_EVERY), ("query", _SEEDS[1], _QUERY_SECONDS, _QUERY_EVERY))
    for name, seed, seconds, every in walks:
        record_walk(folder / f"{name}_bag", seed, seconds, _TF_HZ / every, progress)
    return DemoBags.of(folder, gallery=True)


def gallery_mark() -> str:
    """What the bags of ``bags_of_gallery`` depend on beside the code."""
    return repr((_SEEDS, _SPREAD, _TF_HZ, _MAP_SECONDS, _MAP_EVERY, _QUERY_SECONDS, _QUERY_EVERY, GALLERY_CAMERA))


def record_walk(
    path: Path,
    seed: int,
    seconds: float,
    rate: float,
    progress: ProgressCallback,
    camera: Camera = GALLERY_CAMERA,
    **how,
) -> Path:
    """A hand-held walk through the gallery that retraces the one route, rendered and recorded.

    Args:
        path: the bag; ``progress`` gets its name as the stage.
        seed: another seed is another walk.
        rate: images a second.
        how: as of ``record_bag``.
    """
    stamps, world_from_base = trajectory(seed, seconds, _TF_HZ, spread=_SPREAD)
    return record_bag(
        path,
        build_room(),
        camera,
        stamps,
        world_from_base,
        MOUNTS["handheld"],
        image_every=round(_TF_HZ / rate),
        seed=seed,
        progress=lambda done, total: progress(path.name.replace("_", " "), done, total, ""),
        **how,
    )


def sizes_of_data(recording: Recording, split: str | None) -> tuple[int, int]:
    """How many images ``bags_of_data`` maps and asks."""
    mapping, query = _parts(recording, split)
    return len(mapping), len(query)


def bags_of_data(recording: Recording, split: str | None, folder: Path, progress: ProgressCallback) -> DemoBags:
    """The train and the val part of a recording as bags, its camera carried by a base with drifting odometry."""
    mount = MOUNTS["robot"]
    for name, part in zip(("mapping", "query"), _parts(recording, split), strict=True):
        _write(
            folder / f"{name}_bag", part, mount, lambda done, total, name=name: progress(f"{name} bag", done, total, "")
        )
    return DemoBags.of(folder, gallery=False)


def _parts(recording: Recording, split: str | None) -> tuple[Sequence[Frame], Sequence[Frame]]:
    if split is None:
        split = next((name for name, parts in recording.splits.items() if {"train", "val"} <= set(parts)), None)
    if split is not None:
        return select(recording, f"{split}:train").frames, select(recording, f"{split}:val").frames
    in_query = (np.arange(len(recording.frames)) % _PERIOD) >= _PERIOD - _BLOCK
    mapping = [frame for frame, query in zip(recording.frames, in_query, strict=True) if not query]
    query = [frame for frame, query in zip(recording.frames, in_query, strict=True) if query]
    if len(query) < 2:
        raise DataError(
            f"'{recording.name}' has {len(recording.frames)} posed images; the demo needs at least {_PERIOD} or a "
            "split.json."
        )
    return mapping, query


def _write(path: Path, frames: Sequence[Frame], base_from_camera: np.ndarray, progress: StepCallback) -> None:
    """Frames as a robot would have recorded them."""
    stamps = np.array([frame.stamp_ns for frame in frames], dtype=np.int64)
    odometry = drifting_odometry(
        stamps, np.stack([frame.world_from_camera for frame in frames]) @ invert(base_from_camera), 0
    )
    record_frames(path, frames, base_from_camera, odometry, depth=False, jpeg_quality=95, progress=progress)
