"""``dimm localize``: the pose of one image file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dimm_ros.cli import options
from dimm_ros.cli.console import note, say, say_json

_EPILOG = (
    "Examples:\n\n  dimm localize kitchen.dimm frame.jpg --focal 525\n\n  dimm localize kitchen.dimm frame.jpg --focal 525 --json\n\n"
    "  dimm localize kitchen.dimm frame.jpg --focal 525 --picture --mcap"
)


def register(app: typer.Typer) -> None:
    app.command("localize", epilog=_EPILOG)(run)


def run(
    map_file: Annotated[Path, typer.Argument(metavar="MAP", show_default=False)],
    image_file: Annotated[Path, typer.Argument(metavar="IMAGE", show_default=False)],
    focal: Annotated[float, typer.Option(help="focal length in pixels of this image; principal point at its centre, no distortion")],
    picture: Annotated[bool, typer.Option("--picture", help="also write rays.png, the image's rays as colours")] = False,
    rerun: options.Rerun = False,
    rerun_spawn: options.RerunSpawn = False,
    mcap: options.Mcap = False,
    results: options.Results = options.RESULTS,
    as_json: options.AsJson = False,
    weights: options.WeightsFile = None,
    device: options.Device = "auto",
    backend: options.Backend = options.Engine.torch,
) -> None:
    """Print where one image was taken. Files that are asked for go to a dated folder in --results."""
    import numpy as np
    from transforms3d.euler import mat2euler

    from dimm_ros.data.image_file import load_rgb
    from dimm_ros.data.recording import Frame
    from dimm_ros.evaluation.report import new_results
    from dimm_ros.geometry.camera import Camera
    from dimm_ros.geometry.poses import to_quaternion
    from dimm_ros.localizer import Localizer
    from dimm_ros.pictures.ray_field import draw_ray_field
    from dimm_ros.pictures.shown import ShownRun
    from dimm_ros.pictures.sinks import sinks

    localizer = Localizer.open(map_file, device=device, weights=weights, backend=backend.value)
    image = load_rgb(image_file)
    height, width = image.shape[:2]
    camera = Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
    estimate = (localizer.asking_every_patch() if picture else localizer).localize(image, camera)
    if picture or rerun or rerun_spawn or mcap:
        frame = Frame(image_file.name, 0, camera, None, lambda: image)
        with new_results(f"localize_{image_file.stem}", results) as folder:
            run_shown = ShownRun.of(f"{image_file.name} in {localizer.name}", localizer.frame_id, [frame])
            with sinks(run_shown, folder, rerun=rerun, spawn=rerun_spawn, mcap=mcap) as show:
                if show is not None:
                    show(frame, image, estimate)
            if picture:
                draw_ray_field(folder / "rays.png", image_file.name, image, camera, estimate, origin=localizer.map.header.origin)
        for path in sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".rrd", ".mcap")):
            note(f"for the viewer: {path}")
    translation, xyzw = to_quaternion(estimate.world_from_camera)
    if as_json:
        say_json({
            "frame_id": localizer.frame_id, "accepted": estimate.accepted, "reason": estimate.reason, "inlier_ratio": estimate.inlier_ratio,
            "translation": translation.tolist(), "quaternion_xyzw": xyzw.tolist(), "covariance": estimate.covariance.tolist(),
        })
        return
    sigma = np.sqrt(np.diag(estimate.covariance))
    angles = np.degrees(mat2euler(estimate.world_from_camera[:3, :3], "sxyz"))
    say("accepted" if estimate.accepted else f"rejected: {estimate.reason}")
    for name, values, unit, spread in (
        ("x y z", translation, "m", sigma[:3]), ("roll pitch yaw", angles, "deg", np.degrees(sigma[3:])),
    ):
        shown = "  ".join(f"{value:.3f} +- {deviation:.3f}" for value, deviation in zip(values, spread, strict=True))
        say(f"{localizer.frame_id}_from_camera  {name}: {shown} {unit}")
