"""``dimm gallery``: record a bag in the rendered room."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dimm_ros.cli.console import bars, console


def register(app: typer.Typer) -> None:
    app.command("gallery", epilog="Example:\n\n  dimm gallery tour_bag --seconds 60 --seed 1")(run)


def run(
    output: Annotated[Path, typer.Argument(metavar="BAG", help="the bag folder to write", show_default=False)],
    seconds: Annotated[float, typer.Option(min=1.0, help="length of the walk")] = 30.0,
    rate: Annotated[float, typer.Option(min=0.5, max=48.0, help="images per second")] = 6.0,
    seed: Annotated[int, typer.Option(min=0, help="another seed is another walk")] = 0,
    style: Annotated[str, typer.Option(help="handheld or robot")] = "handheld",
    storage: Annotated[str, typer.Option(help="mcap or sqlite3")] = "mcap",
    raw: Annotated[bool, typer.Option("--raw", help="Image instead of CompressedImage")] = False,
) -> None:
    """Record a walk through a furnished room as a ROS 2 bag with images, camera_info, TF and odometry, to try everything with."""
    from dimm_ros.errors import InputError
    from dimm_ros.evaluation.demo_bags import GALLERY_CAMERA
    from dimm_ros.gallery.recorder import record_bag
    from dimm_ros.gallery.scene import build_room
    from dimm_ros.gallery.trajectory import MOUNTS, trajectory

    if style not in MOUNTS or storage not in ("mcap", "sqlite3"):
        raise InputError(f"There is no style '{style}' or storage '{storage}'; styles are {', '.join(MOUNTS)}, storages mcap and sqlite3.")
    every = max(1, round(48.0 / rate))
    stamps, world_from_base = trajectory(seed, seconds, every * rate, style=style)
    with bars() as progress:
        record_bag(
            output, build_room(), GALLERY_CAMERA, stamps, world_from_base, MOUNTS[style], image_every=every, storage=storage,
            compressed=not raw, seed=seed, progress=lambda done, total: progress("rendering", done, total),
        )
    console.print(
        f"{output}: {len(stamps[::every])} images; map it with 'dimm map {output} -o gallery.dimm'", markup=False, highlight=False, soft_wrap=True,
    )
