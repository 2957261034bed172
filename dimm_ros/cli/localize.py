"""``dimm localize``: the poses of image files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from dimm_ros.cli import options
from dimm_ros.cli.console import EXIT_FINDINGS, bars, note, say, say_json
from dimm_ros.cli.verbs import Verb
from dimm_ros.errors import InputError

if TYPE_CHECKING:
    from dimm_ros.data.recording import Frame
    from dimm_ros.estimate import Estimate
    from dimm_ros.geometry.camera import Camera

_EPILOG = (
    "Examples:\n\n  dimm localize kitchen.dimm frame.jpg --focal 525\n\n"
    "  dimm localize kitchen.dimm frame.jpg --camera head_camera.yaml --json\n\n"
    "  dimm localize kitchen.dimm photos --camera head_camera.yaml --tum poses.tum\n\n"
    "  dimm localize kitchen.dimm frame.jpg --focal 525 --picture --mcap\n\n"
    "Exit code 3: an image was rejected."
)
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


def register(app: typer.Typer) -> None:
    app.command("localize", cls=Verb, epilog=_EPILOG)(run)


def run(
    map_file: Annotated[Path, typer.Argument(metavar="MAP", show_default=False)],
    image_files: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="image files, or folders of them", show_default=False)
    ],
    camera_file: Annotated[
        Optional[Path],
        typer.Option("--camera", help="ROS calibration of the images (the YAML of camera_calibration or camera_info)"),
    ] = None,
    focal: Annotated[Optional[float], typer.Option(help="instead: focal length in pixels")] = None,
    cx: Annotated[
        Optional[float], typer.Option(help="with --focal: principal point, pixels; default: the image's centre")
    ] = None,
    cy: Annotated[Optional[float], typer.Option(help="with --focal: the same, down")] = None,
    distortion: Annotated[
        Optional[str],
        typer.Option(help="with --focal: k1,k2,p1,p2[,k3] (plumb_bob) or the 8 of rational_polynomial; default: none"),
    ] = None,
    tum: Annotated[
        Optional[Path], typer.Option("--tum", help="also write the accepted poses as a TUM trajectory")
    ] = None,
    picture: Annotated[
        bool, typer.Option("--picture", help="also write rays.png, the image's rays as colours")
    ] = False,
    rerun: options.Rerun = False,
    rerun_spawn: options.RerunSpawn = False,
    mcap: options.Mcap = False,
    results: options.Results = options.RESULTS,
    as_json: options.AsJson = False,
    weights: options.WeightsFile = None,
    device: options.Device = "auto",
    backend: options.Backend = options.Engine.torch,
) -> None:
    """Print where images were taken: world_from_camera, optical axes.

    Files that are asked for go to a dated folder in --results. With --json one image is one object, and folders or
    several images are a list.
    """
    known = _camera_of(camera_file, focal, cx, cy, distortion)
    from contextlib import ExitStack

    from dimm_ros.evaluation.report import new_results, write_tum
    from dimm_ros.localizer import Localizer
    from dimm_ros.pictures.ray_field import draw_ray_field
    from dimm_ros.pictures.shown import ShownRun
    from dimm_ros.pictures.sinks import sinks

    alone = len(image_files) == 1 and not image_files[0].is_dir()
    localizer = Localizer.open(map_file, device=device, weights=weights, backend=backend.value)
    paths = _listed(image_files)
    frames = _frames(paths, known)
    dense, answers, rejected = (localizer.sampling_every_patch() if picture else localizer), [], 0
    poses: list[tuple[int, object]] = []
    with ExitStack() as stack:
        folder, draw = None, None
        if picture or rerun or rerun_spawn or mcap:
            name = paths[0].stem if alone else f"{len(frames)}_images"
            folder = stack.enter_context(new_results(f"localize_{name}", results))
            shown = ShownRun.of(f"{name} in {localizer.name}", localizer.frame_id, frames)
            draw = stack.enter_context(sinks(shown, folder, rerun=rerun, spawn=rerun_spawn, mcap=mcap))
        progress = stack.enter_context(bars(visible=not alone))
        for number, frame in enumerate(frames):
            image = frame.load()
            estimate = dense.localize(image, frame.camera)
            if draw is not None:
                draw(frame, image, estimate)
            if picture:
                target = folder / ("rays.png" if alone else f"rays_{number:04d}_{Path(frame.name).stem}.png")
                draw_ray_field(target, frame.name, image, frame.camera, estimate, origin=localizer.map.header.origin)
            rejected += not estimate.accepted
            if estimate.accepted:
                poses.append((frame.stamp_ns, estimate.world_from_camera))
            if as_json:
                answers.append(_as_dict(frame, localizer.frame_id, estimate))
            else:
                _say_pose("" if alone else f"{frame.name}: ", localizer.frame_id, estimate)
            progress("localizing", number + 1, len(frames))
    if folder is not None:
        for path in sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".rrd", ".mcap")):
            note(f"for the viewer: {path}")
    if tum is not None:
        write_tum(tum, poses)
    if as_json:
        say_json(answers[0] if alone else answers)
    if rejected:
        raise typer.Exit(EXIT_FINDINGS)


def _camera_of(
    file: Path | None, focal: float | None, cx: float | None, cy: float | None, distortion: str | None
) -> Camera | _Simple:
    """The camera that a file describes, or what the options say of it.

    Raises:
        InputError: the file is no calibration.
    """
    from dimm_ros.data.camera_info import camera_from_file

    if (file is None) == (focal is None):
        raise typer.BadParameter("Give the camera: --camera FILE, or --focal PIXELS.")
    if file is not None:
        if any(value is not None for value in (cx, cy, distortion)):
            raise typer.BadParameter("The file of --camera has it all; --cx, --cy and --distortion go with --focal.")
        return camera_from_file(file)
    if not focal > 0:
        raise typer.BadParameter(
            "must be above 0 pixels; about the image's width where nothing is known.", param_hint="--focal"
        )
    try:
        coefficients = tuple(float(value) for value in distortion.split(",")) if distortion else ()
    except ValueError:
        raise typer.BadParameter(
            "must be numbers with commas between, such as -0.12,0.02,0,0.", param_hint="--distortion"
        ) from None
    return _Simple(focal, cx, cy, coefficients)


class _Simple:
    """A camera of a focal length, whatever the image's size."""

    def __init__(self, focal: float, cx: float | None, cy: float | None, distortion: tuple[float, ...]) -> None:
        self._focal, self._centre, self._distortion = focal, (cx, cy), distortion
        self._model = "plumb_bob" if len(distortion) <= 5 else "rational_polynomial"

    def sized(self, width: int, height: int) -> Camera:
        from dimm_ros.geometry.camera import Camera

        middle = (width - 1) / 2, (height - 1) / 2
        cx, cy = (value if value is not None else default for value, default in zip(self._centre, middle, strict=True))
        return Camera(width, height, self._focal, self._focal, cx, cy, self._model, self._distortion)


def _listed(paths: Sequence[Path]) -> list[Path]:
    """The images that were named and those in the folders that were, depth images left out.

    Raises:
        InputError: a folder without any.
    """
    result: list[Path] = []
    for path in paths:
        if not path.is_dir():
            result.append(path)
            continue
        inside = (one for one in path.iterdir() if one.suffix.lower() in _SUFFIXES and not one.stem.endswith(".depth"))
        found = sorted(one for one in inside if one.is_file())
        if not found:
            raise InputError(
                f"The folder '{path}' holds no image ({', '.join(sorted(_SUFFIXES))}); give another, or image files."
            )
        result += found
    return result


def _frames(paths: Sequence[Path], known: Camera | _Simple) -> list[Frame]:
    """The images as frames without a pose; their sizes are read now, their pixels when they are asked for."""
    from functools import partial

    from dimm_ros.data.image_file import image_sizes, load_rgb
    from dimm_ros.data.recording import Frame

    stamps = _stamps([path.stem for path in paths])
    names = [path.name for path in paths]
    if len(set(names)) < len(names):  # of several folders, as cameras and data sets number their images
        names = [str(path) for path in paths]
    cameras = [known.sized(*image_sizes(path)[-1]) if isinstance(known, _Simple) else known for path in paths]
    return [
        # Of a focal length alone the picture is turned as viewers show it; a calibration is mostly of stored pixels.
        Frame(name, stamp, camera, None, partial(load_rgb, path, None if isinstance(known, _Simple) else camera))
        for name, path, stamp, camera in zip(names, paths, stamps, cameras, strict=True)
    ]


def _stamps(names: Sequence[str]) -> list[int]:
    """Nanoseconds: what all names say (seconds with a fraction, or 16 to 19 digits), else the images' numbers at
    30 Hz.
    """
    import re

    result = []
    for name in names:
        if re.fullmatch(r"\d{16,19}", name):
            result.append(int(name))
        elif re.fullmatch(r"\d{1,10}\.\d{1,9}", name):
            seconds, fraction = name.split(".")
            result.append(int(seconds) * 10**9 + int(fraction.ljust(9, "0")))
        else:
            return [round(number * 1e9 / 30) for number in range(len(names))]
    return result


def _as_dict(frame: Frame, frame_id: str, estimate: Estimate) -> dict:
    from dimm_ros.geometry.poses import to_quaternion

    translation, xyzw = to_quaternion(estimate.world_from_camera)
    return {
        "image": frame.name,
        "stamp_ns": frame.stamp_ns,
        "frame_id": frame_id,
        "accepted": estimate.accepted,
        "reason": estimate.reason,
        "inlier_ratio": estimate.inlier_ratio,
        "translation": translation.tolist(),
        "quaternion_xyzw": xyzw.tolist(),
        "covariance": estimate.covariance.tolist(),
    }


def _say_pose(prefix: str, frame_id: str, estimate: Estimate) -> None:
    import numpy as np
    from transforms3d.euler import mat2euler

    from dimm_ros.geometry.poses import to_quaternion

    sigma = np.sqrt(np.diag(estimate.covariance))
    angles = np.degrees(mat2euler(estimate.world_from_camera[:3, :3], "sxyz"))
    say(prefix + ("accepted" if estimate.accepted else f"rejected: {estimate.reason}"))
    for name, values, unit, spread in (
        ("x y z", to_quaternion(estimate.world_from_camera)[0], "m", sigma[:3]),
        ("roll pitch yaw", angles, "deg", np.degrees(sigma[3:])),
    ):
        shown = "  ".join(f"{value:.3f} +- {deviation:.3f}" for value, deviation in zip(values, spread, strict=True))
        say(f"{frame_id}_from_camera  {name}: {shown} {unit}")
