"""``python -m benchmarks.cameras MAP``: two cameras on one base against each alone, and an uncalibrated camera, in the
gallery.

The map is the demo's (``make demo``); the poses are of another walk along its route. The rig's cameras look a little to
the left and to the right of the mapping camera. The uncalibrated one has another lens than the map was made with: no
distortion, f = 450 pixels.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads

from functools import lru_cache  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Annotated  # noqa: E402

import numpy as np  # noqa: E402
import typer  # noqa: E402

from benchmarks.report import Row, machine, run, table, write_json  # noqa: E402
from dimm_ros.cli.console import console  # noqa: E402
from dimm_ros.gallery.recorder import GALLERY_CAMERA  # noqa: E402
from dimm_ros.gallery.render import render  # noqa: E402
from dimm_ros.gallery.scene import Scene, build_room  # noqa: E402
from dimm_ros.gallery.trajectory import camera_mount, trajectory  # noqa: E402
from dimm_ros.geometry.camera import Camera  # noqa: E402
from dimm_ros.geometry.poses import pose_errors  # noqa: E402
from dimm_ros.localizer import Estimate, Localizer  # noqa: E402
from dimm_ros.uncalibrated import encode_image, find_focal, square_camera  # noqa: E402

_SEED, _SECONDS, _RATE_HZ, _SPREAD = 14, 26.0, 24.0, 0.25  # a walk of the demo's kind that neither of its bags holds
_NOISE = 1.5  # grey levels
_FOCAL = 450.0
RIG = {"left": camera_mount((0.05, 0.06, 0.0), yaw_deg=7.0), "right": camera_mount((0.05, -0.06, 0.0), yaw_deg=-7.0)}


@lru_cache(maxsize=1)
def _room() -> Scene:
    return build_room()


def film(camera: Camera, world_from_camera: np.ndarray, seed: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB image of the gallery with a sensor's noise."""
    image = render(_room(), camera, world_from_camera)
    grain = np.random.default_rng(seed).standard_normal(image.shape, dtype=np.float32)
    return np.clip(np.rint(image + _NOISE * grain), 0, 255).astype(np.uint8)


def rig_rows(localizer: Localizer, world_from_base: np.ndarray) -> list[Row]:
    """Errors of the base's pose from each camera alone and from both."""
    answers: dict[str, list[Estimate]] = {**{name: [] for name in RIG}, "both": []}
    cameras = [GALLERY_CAMERA] * len(RIG)
    for number, pose in enumerate(world_from_base):
        images = [film(GALLERY_CAMERA, pose @ mount, 2 * number + side) for side, mount in enumerate(RIG.values())]
        for name, image, mount in zip(RIG, images, RIG.values()):
            answers[name].append(localizer.localize_rig([image], [GALLERY_CAMERA], [mount]))
        answers["both"].append(localizer.localize_rig(images, cameras, list(RIG.values())))
    rows: list[Row] = []
    for name, estimates in answers.items():
        distance, angle = pose_errors(np.stack([estimate.world_from_camera for estimate in estimates]), world_from_base)
        rows.append(
            {
                "cameras": name,
                "accepted": sum(estimate.accepted for estimate in estimates),
                "poses": len(estimates),
                "median (cm)": 100 * float(np.median(distance)),
                "median (deg)": float(np.median(angle)),
                "90 % (cm)": 100 * float(np.quantile(distance, 0.9)),
                "90 % (deg)": float(np.quantile(angle, 0.9)),
            }
        )
    return rows


def focal_row(localizer: Localizer, world_from_base: np.ndarray) -> Row:
    """What images of a camera with f = 450 pixels say about its focal length, one by one and together."""
    camera, mount = square_camera(640, 480, _FOCAL), camera_mount()
    found = []
    for number, pose in enumerate(world_from_base):
        image = film(camera, pose @ mount, 1000 + number)
        found.append(find_focal(localizer.map, encode_image(localizer.encoder, image), image.shape))
    ratio = np.array(found) / _FOCAL
    return {
        "images": len(found),
        "true (px)": _FOCAL,
        "median (px)": float(np.median(found)),
        "error (%)": 100 * float(np.median(ratio) - 1),
        "one image, median (%)": 100 * float(np.median(np.abs(ratio - 1))),
        "one image, worst (%)": 100 * float(np.abs(ratio - 1).max()),
    }


def main(
    map_path: Annotated[Path, typer.Argument(metavar="MAP", help="a map that 'make demo' made")] = Path(
        "results/latest/map.dimm"
    ),
    poses: Annotated[int, typer.Option(min=4, help="poses along the walk")] = 40,
    results: Annotated[Path, typer.Option(help="where the figures are kept as JSON")] = Path("results/cameras"),
) -> None:
    """Localize with a rig of two cameras and with an uncalibrated camera."""
    localizer = Localizer.open(map_path)
    _, walk = trajectory(_SEED, _SECONDS, _RATE_HZ, spread=_SPREAD)
    chosen = walk[np.linspace(0, len(walk) - 1, poses).round().astype(int)]
    rows = rig_rows(localizer, chosen)
    console.print(table("A rig of two cameras in the gallery, errors of the base", rows))
    focal = focal_row(localizer, chosen)
    console.print(table("Focal length of an uncalibrated camera in the gallery", [focal]))
    figures = {"machine": machine(["cpu"]), "map": str(map_path), "rig": rows, "focal": focal}
    console.print(f"figures: {write_json(figures, results)}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run(main)
