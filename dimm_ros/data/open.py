"""One entry for every kind of recording."""

from __future__ import annotations

from pathlib import Path

from dimm_ros.data.colmap import find_model, read_colmap
from dimm_ros.data.recording import Recording
from dimm_ros.data.seven_scenes import is_seven_scenes, read_seven_scenes
from dimm_ros.data.splits import select
from dimm_ros.errors import DataError

_BAG_FILES = (".mcap", ".db3")


def open_recording(path: str | Path, *, split: str | None = None, **bag_options) -> Recording:
    """Open a ROS 2 bag (folder or .mcap/.db3 file), a 7-Scenes folder or a COLMAP folder.

    Args:
        path: the bag or folder.
        split: "name:part" of the folder's split.json, such as "near:train"; None takes all frames.
        bag_options: passed to ``dimm_ros.data.bag.read_bag`` and ignored by the other kinds.

    Raises:
        DataError: nothing is there, it is of no known kind, or its reader refuses it.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"'{path}' does not exist; give a ROS 2 bag, a 7-Scenes folder or a COLMAP folder.")
    recording = _read(path, bag_options)
    return recording if split is None else select(recording, split)


def _read(path: Path, bag_options: dict) -> Recording:
    if path.is_file():
        if path.name == "metadata.yaml":
            path = path.parent
        elif path.suffix not in _BAG_FILES:
            raise DataError(
                f"'{path}' is not a ROS 2 bag file (.mcap or .db3); give a bag, a 7-Scenes folder or a COLMAP folder."
            )
    if path.is_file() or (path / "metadata.yaml").exists() or any(child.suffix in _BAG_FILES for child in path.iterdir()):
        from dimm_ros.data.bag import read_bag  # rosbags is not needed for folders of images

        return read_bag(path, **bag_options)
    if is_seven_scenes(path):
        return read_seven_scenes(path)
    if find_model(path) is not None:
        return read_colmap(path)
    if not any(path.iterdir()):
        raise DataError(f"'{path}' is empty; give a ROS 2 bag, a 7-Scenes folder or a COLMAP folder.")
    raise DataError(
        f"'{path}' holds neither a ROS 2 bag (metadata.yaml), nor frame-XXXXXX.color.png with .pose.txt (7-Scenes), "
        "nor a COLMAP model (sparse/0).",
    )
