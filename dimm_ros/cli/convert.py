"""``dimm convert``: any recording as a ROS 2 bag, to be replayed through the node."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from dimm_ros.cli import options
from dimm_ros.cli.console import bars, say, say_json
from dimm_ros.cli.verbs import Verb

_EPILOG = (
    "Examples:\n\n  dimm convert 7scenes/chess chess_bag --split official:val\n\n  dimm convert KingsCollege kings_bag "
    "--images png\n\n"
    "  dimm convert old_ros1.bag drive_bag\n\n  dimm convert colmap_folder table_bag --scale 0.173\n\n"
    "Replay with: ros2 launch dimm_ros replay.launch.py bagfile:=chess_bag map:=chess.dimm "
    "image:=/camera/image_raw camera_info:=/camera/camera_info"
)


class Images(str, Enum):
    """How images are stored."""

    jpeg = "jpeg"
    png = "png"
    raw = "raw"


def register(app: typer.Typer) -> None:
    app.command("convert", cls=Verb, epilog=_EPILOG)(run)


def run(
    source: Annotated[
        Path,
        typer.Argument(help="data set folder, COLMAP or nerfstudio folder, ROS 1 or ROS 2 bag", show_default=False),
    ],
    output: Annotated[Path, typer.Argument(metavar="BAG", help="the bag folder to write", show_default=False)],
    split: options.Split = None,
    images: Annotated[
        Images, typer.Option(help="CompressedImage of jpeg or png (lossless), or raw Image")
    ] = Images.jpeg,
    quality: Annotated[int, typer.Option(min=1, max=100, help="of jpeg")] = 95,
    depth: Annotated[
        bool, typer.Option(help="depth images, where there are some; they are taken for registered to the camera")
    ] = True,
    scale: Annotated[
        float,
        typer.Option(min=1e-9, max=1e9, help="metres of one unit of the data's poses, such as 0.001 for millimetres"),
    ] = 1.0,
    storage: options.BagStorage = options.Storage.mcap,
    overwrite: options.Overwrite = False,
    image_topic: options.ImageTopic = None,
    camera_info_topic: options.CameraInfoTopic = None,
    pose_topic: options.PoseTopic = None,
    map_frame: options.MapFrame = "map",
    as_json: options.AsJson = False,
) -> None:
    """Write a recording as a ROS 2 bag with images, camera_info, depth and TF (map -> odom -> base_link ->
    camera_optical_frame).

    Stamps, intrinsics and poses (times --scale) stay as they are; odom -> base_link carries the true poses. Data sets
    without times get 30 images a second, with their sequences an hour apart. The bag appears only when it is complete.
    """
    from dimm_ros.data.record import record_frames

    topics = options.bag_options(image_topic, camera_info_topic, pose_topic, map_frame)
    recording = options.opened(source, split, topics).scaled(scale)
    with bars() as progress:
        record_frames(
            output,
            recording.frames,
            depth=depth,
            compressed=images is not Images.raw,
            lossless=images is Images.png,
            jpeg_quality=quality,
            storage=storage.value,
            overwrite=overwrite,
            progress=lambda done, total: progress("converting", done, total),
        )
    size = sum(path.stat().st_size for path in output.iterdir())
    with_depth = sum(depth and frame.load_depth is not None for frame in recording.frames)
    if as_json:
        say_json(
            {
                "bag": str(output),
                "source": recording.source,
                "images": len(recording.frames),
                "depth_images": with_depth,
                "bytes": size,
            }
        )
        return
    what = f"{len(recording.frames)} images" + (f", {with_depth} with depth" if with_depth else "")
    say(f"{recording.source}: {what} -> {output} ({size / 1e6:.1f} MB)")
