"""The places: which images are mapped and which are queries. The same for all peers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dimm_ros.data.open import open_recording
from dimm_ros.data.recording import Recording
from dimm_ros.gallery.conditions import CONDITIONS, film
from dimm_ros.gallery.recorder import GALLERY_CAMERA, record_bag
from dimm_ros.gallery.scene import build_room
from dimm_ros.gallery.trajectory import MOUNTS, trajectory

QUERIES = 50  # of a scene, at most: some peers take seconds for each
MAPPED = 100  # images of the scenes other than red kitchen: there is not the time for more on two cores
#: Every so many-th image of these is asked of red kitchen's maps, which must not know it.
OTHER_PLACES = {"bonsai": 4, "herzjesu": 4, "office_hololens": 4}
_HELD_OUT = 8  # every so many images, where there is no split
_GALLERY_SEEDS, _GALLERY_SPREAD, _GALLERY_HZ = (21, 22), 0.25, 48.0  # two walks along one route, as the demo's
_GALLERY_SECONDS, _GALLERY_EVERY, _GALLERY_QUERIES = 28.0, 13, 20


@dataclass(frozen=True)
class BenchmarkScene:
    """One place.

    Attributes:
        name: short.
        note: what is mapped and asked, for the table.
        mapped: posed images that maps are made of.
        queries: images to localize by the condition they were taken in; "" where there is only one.
        ablation_split: of red kitchen, whose features and maps the ablation may have made already.
    """

    name: str
    note: str
    mapped: Recording
    queries: dict[str, Recording]
    ablation_split: str = ""


def spread(recording: Recording, most: int) -> Recording:
    """At most so many frames of a recording, evenly chosen."""
    count = len(recording.frames)
    if count <= most:
        return recording
    return replace(
        recording, frames=[recording.frames[int(index)] for index in np.linspace(0, count - 1, most).round()], splits={}
    )


def _kitchen(split: str) -> Callable[[Path, Path], BenchmarkScene]:
    def load(data: Path, folder: Path) -> BenchmarkScene:
        mapped = open_recording(data / "redkitchen", split=f"{split}:train")
        val = open_recording(data / "redkitchen", split=f"{split}:val")
        note = (
            f"7-Scenes red kitchen, split {split}: {len(mapped.frames)} images mapped, "
            f"{min(QUERIES, len(val.frames))} of {len(val.frames)} asked"
        )
        return BenchmarkScene(f"redkitchen_{split}", note, mapped, {"": spread(val, QUERIES)}, split)

    return load


def _herzjesu(data: Path, folder: Path) -> BenchmarkScene:
    mapped, val = (open_recording(data / "herzjesu", split=part) for part in ("train", "val"))
    return BenchmarkScene(
        "herzjesu",
        f"church front, wide baselines: {len(mapped.frames)} photos mapped, {len(val.frames)} asked",
        mapped,
        {"": val},
    )


def _every(name: str, what: str, unit: bool = False) -> Callable[[Path, Path], BenchmarkScene]:
    """Every 8th image asked, of the others so many mapped; ``unit``: of arbitrary scale, so the cameras' mean distance
    becomes a metre.
    """

    def load(data: Path, folder: Path) -> BenchmarkScene:
        recording = open_recording(data / name)
        if unit:
            recording = _scaled(recording)
        queried = [frame for index, frame in enumerate(recording.frames) if index % _HELD_OUT == _HELD_OUT // 2]
        rest = [frame for index, frame in enumerate(recording.frames) if index % _HELD_OUT != _HELD_OUT // 2]
        mapped = spread(replace(recording, frames=rest, splits={}), MAPPED)
        queries = spread(replace(recording, frames=queried, splits={}), QUERIES)
        return BenchmarkScene(
            name, f"{what}: {len(mapped.frames)} images mapped, {len(queries.frames)} asked", mapped, {"": queries}
        )

    return load


def _scaled(recording: Recording) -> Recording:
    """With the cameras a metre from their mean, on average."""
    centres = recording.poses()[:, :3, 3]
    unit = float(np.linalg.norm(centres - centres.mean(axis=0), axis=1).mean())

    def scaled(pose: np.ndarray) -> np.ndarray:
        pose = pose.copy()
        pose[:3, 3] /= unit
        return pose

    return replace(
        recording,
        frames=[replace(frame, world_from_camera=scaled(frame.world_from_camera)) for frame in recording.frames],
    )


def _gallery(data: Path, folder: Path) -> BenchmarkScene:
    bag, mount = folder / "gallery" / "mapping_bag", MOUNTS["handheld"]
    if not bag.exists():
        stamps, world_from_base = trajectory(_GALLERY_SEEDS[0], _GALLERY_SECONDS, _GALLERY_HZ, spread=_GALLERY_SPREAD)
        record_bag(
            bag,
            build_room(),
            GALLERY_CAMERA,
            stamps,
            world_from_base,
            mount,
            image_every=_GALLERY_EVERY,
            seed=_GALLERY_SEEDS[0],
        )
    mapped = open_recording(bag)
    stamps, world_from_base = trajectory(_GALLERY_SEEDS[1], _GALLERY_SECONDS / 2, _GALLERY_HZ, spread=_GALLERY_SPREAD)
    every = len(stamps) // _GALLERY_QUERIES
    queries = {
        condition: film(
            build_room(),
            GALLERY_CAMERA,
            stamps,
            world_from_base @ mount,
            condition,
            every=every,
            seed=_GALLERY_SEEDS[1],
        )
        for condition in CONDITIONS
    }
    queried = len(next(iter(queries.values())).frames)
    return BenchmarkScene(
        "gallery",
        f"rendered room: {len(mapped.frames)} images mapped, {queried} of another walk asked in each condition",
        mapped,
        queries,
    )


#: Scenes by name, in the order in which they are worth having.
SCENES: dict[str, Callable[[Path, Path], BenchmarkScene]] = {
    "redkitchen_near": _kitchen("near"),
    "redkitchen_mid": _kitchen("mid"),
    "redkitchen_far": _kitchen("far"),
    "herzjesu": _herzjesu,
    "gallery": _gallery,
    "bonsai": _every(
        "bonsai", "table-top orbit, cameras scaled to a mean distance of 1 m from their middle", unit=True
    ),
    "office_hololens": _every("office_hololens", "30 m walk through an office"),
}
