"""One entry for every kind of recording: bags, and folders in the layouts that data sets are published in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from dimm_ros.data import (
    ace,
    cambridge,
    colmap,
    euroc,
    indoor6,
    kitti,
    map_free,
    nerfstudio,
    seven_scenes,
    tum_rgbd,
    twelve_scenes,
)
from dimm_ros.data.bag_files import is_bag_file
from dimm_ros.data.recording import Recording
from dimm_ros.data.splits import SPLIT_FILE, add_split_file, select
from dimm_ros.errors import DataError

_BAG = "a ROS bag"
_LOOKED_INTO = 200  # folders of a wrong folder, in search of the right one


@dataclass(frozen=True)
class Layout:
    """One layout of folders.

    Attributes:
        name: as its data set is called.
        mark: what tells it, for the sentence about a folder of no layout.
        fits: whether a folder looks like it.
        read: its reader.
    """

    name: str
    mark: str
    fits: Callable[[Path], bool]
    read: Callable[[Path], Recording]


#: Folders are tried in this order: where one holds several kinds, the first is meant.
LAYOUTS = (
    Layout(
        seven_scenes.LAYOUT,
        "frame-XXXXXX.color.png with .pose.txt",
        seven_scenes.is_seven_scenes,
        seven_scenes.read_seven_scenes,
    ),
    Layout(
        twelve_scenes.LAYOUT,
        "info.txt with data/frame-XXXXXX.color.jpg",
        twelve_scenes.is_twelve_scenes,
        twelve_scenes.read_twelve_scenes,
    ),
    Layout(indoor6.LAYOUT, "images/image-XXXXXX.color.jpg with .pose.txt", indoor6.is_indoor6, indoor6.read_indoor6),
    Layout(
        cambridge.LAYOUT, "dataset_train.txt with reconstruction.nvm", cambridge.is_cambridge, cambridge.read_cambridge
    ),
    Layout(ace.LAYOUT, "train/rgb with poses and calibration", ace.is_ace, ace.read_ace),
    Layout(map_free.LAYOUT, "poses.txt with intrinsics.txt and seq0", map_free.is_map_free, map_free.read_map_free),
    Layout(nerfstudio.LAYOUT, "transforms.json", nerfstudio.is_nerfstudio, nerfstudio.read_nerfstudio),
    Layout(colmap.LAYOUT, "sparse/0 with cameras and images", colmap.is_colmap, colmap.read_colmap),
    Layout(tum_rgbd.LAYOUT, "rgb.txt with groundtruth.txt", tum_rgbd.is_tum_rgbd, tum_rgbd.read_tum_rgbd),
    Layout(euroc.LAYOUT, "mav0/cam0", euroc.is_euroc, euroc.read_euroc),
    Layout(kitti.LAYOUT, "calib.txt with image_2", kitti.is_kitti, kitti.read_kitti),
)

_KINDS = "give a ROS bag or a folder in a known layout (" + ", ".join(layout.name for layout in LAYOUTS) + ")"


def open_recording(path: str | Path, *, split: str | None = None, **bag_options) -> Recording:
    """Open a ROS 2 bag (folder, .mcap or .db3 file), a ROS 1 bag (.bag file) or a folder in one of ``LAYOUTS``.

    Args:
        path: the bag or folder.
        split: "name:part" of the published split or of the folder's split.json, such as "official:train" or "near:val";
            None takes all frames.
        bag_options: passed to ``dimm_ros.data.bag.read_bag`` and ignored by the other kinds.

    Raises:
        DataError: nothing is there, it is of no known kind, or its reader refuses it.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"'{path}' does not exist; {_KINDS}.")
    if path.name == "metadata.yaml":
        path = path.parent
    recording = _read(path, bag_options)
    if path.is_dir() and (path / SPLIT_FILE).exists():
        recording = add_split_file(recording, path / SPLIT_FILE)
    return recording if split is None else select(recording, split)


def _read(path: Path, bag_options: dict) -> Recording:
    if path.is_file() and not is_bag_file(path):
        if path.name == "transforms.json":
            return nerfstudio.read_nerfstudio(path.parent)
        raise DataError(f"'{path}' is not a ROS bag file (.mcap, .db3 or .bag); {_KINDS}.")
    if is_bag(path):
        from dimm_ros.data.bag import read_bag  # rosbags is not needed for folders of images

        return read_bag(path, **bag_options)
    layout = _layout_of(path)
    if layout is not None:
        recording = layout.read(path)
        bags = ", ".join(sorted(child.name for child in path.iterdir() if is_bag_file(child)))
        note = f"The folder was read as {layout.name}; {bags} beside its files was not."
        return replace(recording, notes=(*recording.notes, note)) if bags else recording
    if not any(path.iterdir()):
        raise DataError(f"'{path}' is empty; {_KINDS}.")
    marks = ", ".join(f"{layout.mark} ({layout.name})" for layout in LAYOUTS)
    raise DataError(
        f"'{path}' holds neither a ROS bag (metadata.yaml, .mcap, .db3, .bag) nor any of {marks}{_instead(path)}."
    )


def is_bag(path: Path) -> bool:
    """Whether a path that exists is read as a bag; a data set's folder is not, even if its own bag lies in it."""
    if path.is_file() or (path / "metadata.yaml").exists():
        return True
    return any(is_bag_file(child) for child in path.iterdir()) and _layout_of(path) is None


def _layout_of(folder: Path) -> Layout | None:
    return next((layout for layout in LAYOUTS if layout.fits(folder)), None)


def _instead(folder: Path) -> str:
    """Which folders in it, or around it, could have been meant."""
    inside = (path for path in sorted(folder.glob("*/*/")) if path.is_dir())
    for place in islice((*sorted(path for path in folder.iterdir() if path.is_dir()), *inside), _LOOKED_INTO):
        kind = _kind(place)
        if kind is not None:
            return f"; its folder '{place.relative_to(folder).as_posix()}' is {kind}: give that"
    for place in list(folder.resolve().parents)[:2]:
        kind = _kind(place)
        if kind not in (None, _BAG):  # a bag beside the folder says nothing about it
            return f"; the folder '{place.name}' around it is {kind}: give that"
    return ""


def _kind(place: Path) -> str | None:
    try:
        layout = _layout_of(place)
        return layout.name if layout is not None else _BAG if is_bag(place) else None
    except OSError:  # a folder that may not be read
        return None
