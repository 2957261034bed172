"""``dimm gallery``: record a bag in the rendered room."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from dimm_ros.cli import options
from dimm_ros.cli.console import bars, say, say_json
from dimm_ros.cli.verbs import Verb

_EPILOG = (
    "Examples:\n\n  dimm gallery tour_bag --seconds 60 --seed 1\n\n  dimm gallery tour_bag --seed 1 --spread 0.25\n\n"
    "  dimm gallery drive_bag --style robot --storage sqlite3 --raw"
)


class Style(str, Enum):
    """Who carries the camera."""

    handheld = "handheld"
    robot = "robot"


def register(app: typer.Typer) -> None:
    app.command("gallery", cls=Verb, epilog=_EPILOG)(run)


def run(
    output: Annotated[Path, typer.Argument(metavar="BAG", help="the bag folder to write", show_default=False)],
    seconds: Annotated[float, typer.Option(min=1.0, help="length of the walk")] = 30.0,
    rate: Annotated[float, typer.Option(min=0.5, max=48.0, help="images per second")] = 6.0,
    seed: Annotated[int, typer.Option(min=0, help="another seed is another walk")] = 0,
    style: Annotated[
        Style, typer.Option(help="carried by hand, or by a robot that moves on the floor")
    ] = Style.handheld,
    spread: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="how far a walk strays from the one route; 1 is 0.3 m and 22 degrees"),
    ] = 1.0,
    storage: options.BagStorage = options.Storage.mcap,
    raw: Annotated[bool, typer.Option("--raw", help="Image instead of CompressedImage")] = False,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Record a walk through a furnished room as a ROS 2 bag with images, camera_info, TF and odometry, to try
    everything with.
    """
    from dimm_ros.gallery.recorder import GALLERY_CAMERA, record_bag
    from dimm_ros.gallery.scene import build_room
    from dimm_ros.gallery.trajectory import MOUNTS, trajectory

    every = max(1, round(48.0 / rate))
    stamps, world_from_base = trajectory(seed, seconds, every * rate, style=style.value, spread=spread)
    with bars() as progress:
        record_bag(
            output,
            build_room(),
            GALLERY_CAMERA,
            stamps,
            world_from_base,
            MOUNTS[style.value],
            image_every=every,
            storage=storage.value,
            compressed=not raw,
            seed=seed,
            overwrite=overwrite,
            progress=lambda done, total: progress("rendering", done, total),
        )
    images = len(stamps[::every])
    if as_json:
        say_json({"bag": str(output), "images": images, "seconds": seconds, "seed": seed, "style": style.value})
    else:
        say(f"{output}: {images} images; map it with 'dimm map {output} -o gallery.dimm'")
