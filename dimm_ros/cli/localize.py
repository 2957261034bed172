"""``dimm localize``: the pose of one image file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dimm_ros.cli import options
from dimm_ros.cli.console import say, say_json

_EPILOG = "Examples:\n\n  dimm localize kitchen.dimm frame.jpg --focal 525\n\n  dimm localize kitchen.dimm frame.jpg --focal 525 --json"


def register(app: typer.Typer) -> None:
    app.command("localize", epilog=_EPILOG)(run)


def run(
    map_file: Annotated[Path, typer.Argument(metavar="MAP", show_default=False)],
    image_file: Annotated[Path, typer.Argument(metavar="IMAGE", show_default=False)],
    focal: Annotated[float, typer.Option(help="focal length in pixels of this image; principal point at its centre, no distortion")],
    as_json: options.AsJson = False,
    weights: options.WeightsFile = None,
    device: options.Device = "auto",
) -> None:
    """Print where one image was taken."""
    import numpy as np
    from transforms3d.euler import mat2euler

    from dimm_ros.data.image_file import load_rgb
    from dimm_ros.geometry.camera import Camera
    from dimm_ros.geometry.poses import to_quaternion
    from dimm_ros.localizer import Localizer

    localizer = Localizer.open(map_file, device=device, weights=weights)
    image = load_rgb(image_file)
    height, width = image.shape[:2]
    estimate = localizer.localize(image, Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2))
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
