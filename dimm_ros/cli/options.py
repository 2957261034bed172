"""Options that several verbs share, so that they read alike and mean the same everywhere."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from dimm_ros.cli.console import note

if TYPE_CHECKING:
    from dimm_ros.data.recording import Recording


class Storage(str, Enum):
    """A bag's files."""

    mcap = "mcap"
    sqlite3 = "sqlite3"


class Engine(str, Enum):
    """Runtime of a map's network."""

    torch = "torch"
    onnx = "onnx"


AsJson = Annotated[bool, typer.Option("--json", help="print the result as JSON and nothing else to stdout")]
Results = Annotated[Path, typer.Option("--results", help="where the dated result folder is made")]
RESULTS = Path("results")

Rerun = Annotated[
    bool, typer.Option("--rerun", help="also write rays.rrd for the rerun viewer (pip install rerun-sdk)")
]
RerunSpawn = Annotated[bool, typer.Option("--rerun-spawn", help="show it in the rerun viewer while it is made")]
Mcap = Annotated[bool, typer.Option("--mcap", help="also write foxglove/foxglove.mcap, which Foxglove opens")]

Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]
WeightsFile = Annotated[
    Optional[Path],
    typer.Option("--weights", help="the encoder's weights (safetensors); default: found as 'dimm weights' says"),
]
Backend = Annotated[
    Engine, typer.Option("--backend", help="torch, or onnx for the network that 'dimm export' wrote beside the map")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what exists")]
Licence = Annotated[
    Optional[str], typer.Option("--licence", help="of the recording, as text for the map's header, such as CC-BY-4.0")
]
BagStorage = Annotated[Storage, typer.Option("--storage", help="the bag's files")]
Split = Annotated[
    Optional[str], typer.Option(help="part of the data, NAME:PART, such as official:train or one of its split.json")
]
ImageTopic = Annotated[Optional[str], typer.Option(help="bag: image topic; default: the only one there is")]
CameraInfoTopic = Annotated[
    Optional[str], typer.Option(help="bag: camera_info topic; default: the one beside the image topic")
]
PoseTopic = Annotated[
    Optional[str], typer.Option(help="bag: PoseStamped, PoseWithCovarianceStamped or Odometry topic; default: /tf")
]
MapFrame = Annotated[str, typer.Option(help="bag: the world frame in /tf")]


def check_new_map(path: Path, overwrite: bool, *, goes_on: bool = False) -> None:
    """Refuse to replace a file.

    Args:
        goes_on: a map whose training was stopped may be there: that one is gone on with.

    Raises:
        MapError: there is something else.
    """
    from dimm_ros.errors import MapError
    from dimm_ros.scene_map import SceneMap

    if overwrite or not path.is_file():
        return
    try:
        complete = SceneMap.load(path).header.complete
        what = "a finished map" if complete else "" if goes_on else "an unfinished map"
    except MapError:
        what = "no map that this dimm_ros can read"
    if what:
        cure = "give another name with -o, or replace it with --overwrite"
        raise MapError(f"{path} exists already, and is {what}; {cure}.")


def opened(source: Path, split: str | None, bag: dict) -> Recording:
    """The recording that a verb was given; what its reader noticed goes to stderr."""
    from dimm_ros.data.open import open_recording

    recording = open_recording(source, split=split, **bag)
    for line in recording.notes:
        note(line)
    return recording


def bag_options(image_topic: str | None, camera_info_topic: str | None, pose_topic: str | None, map_frame: str) -> dict:
    """The reader's keyword arguments."""
    return {
        "image_topic": image_topic,
        "camera_info_topic": camera_info_topic,
        "pose_topic": pose_topic,
        "map_frame": map_frame,
    }
