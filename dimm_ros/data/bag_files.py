"""Which files make a bag: told by names and metadata.yaml, without opening them."""

from __future__ import annotations

import re
from pathlib import Path, PurePath

import yaml

from dimm_ros.errors import DataError

#: Names of bag files; .zstd is a packed one, .active one of ROS 1 whose recording was cut off.
_BAG_FILE = re.compile(r"(.*)\.(?:mcap|db3|bag)(?:\.zstd|\.active)?", re.DOTALL)

#: Recorders number the parts of one recording; that of ROS 1 also puts before the number when the part began.
_PART = re.compile(r"(.*?)(?:_?\d{4}(?:-\d\d){5})?_(\d+)", re.DOTALL)


def is_bag_file(path: Path) -> bool:
    """Whether a path is named as a file of a bag is."""
    return _BAG_FILE.fullmatch(path.name) is not None


def bag_files(path: Path) -> tuple[list[Path], bool]:
    """The files of a bag, and whether each of its messages is compressed by itself.

    A metadata.yaml that is damaged, or whose files were renamed, counts as absent: files tell what is in them.

    Args:
        path: a file, or a folder of the files of one recording.

    Raises:
        DataError: there is none, some are missing, or they are of several bags.
    """
    if not path.exists():
        raise DataError(f"Bag '{path}' does not exist.")
    if path.is_file():
        return [path], False
    listed, packed = _metadata(path / "metadata.yaml")
    missing = [name for name in listed if not (path / name).exists()]
    there = sorted(child for child in path.iterdir() if is_bag_file(child) and child.is_file())
    if missing and (len(missing) < len(listed) or not there):
        some = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
        raise DataError(
            f"Bag '{path.name}' cannot be read: metadata.yaml lists {some}, but the folder lacks it; "
            "copy the whole folder."
        )
    if listed and not missing:
        return [path / name for name in listed], packed
    if not there:
        raise DataError(f"'{path}' is not a bag: it has neither metadata.yaml nor a .mcap, .db3 or .bag file.")
    if not _one_recording(there):
        names = ", ".join(child.name for child in there)
        raise DataError(f"'{path}' holds several bags ({names}); give one of them.")
    return there, packed


def _one_recording(files: list[Path]) -> bool:
    """Whether files are the numbered parts of one recording."""
    parts = [_PART.fullmatch(_BAG_FILE.fullmatch(file.name)[1]) for file in files]
    if len(files) == 1 or not all(parts):
        return len(files) == 1
    return len({part[1] for part in parts}) == 1 and len({int(part[2]) for part in parts}) == len(parts)


def _metadata(path: Path) -> tuple[list[str], bool]:
    """File names in a metadata.yaml, and whether messages are compressed one by one; none where it is of no use."""
    try:
        about = yaml.safe_load(path.read_text(encoding="utf-8"))["rosbag2_bagfile_information"]
        names = [PurePath(name).name for name in about["relative_file_paths"]]
        return names, str(about.get("compression_mode", "")).lower() == "message"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError):
        return [], False
