"""COLMAP models, text or binary: cameras and poses of the registered images (points are not needed).

COLMAP puts (0.5, 0.5) at the centre of the top-left pixel, ``Camera`` puts (0, 0) there; a model's unit is its own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from dimm_ros.data.image_file import image_size, load_rgb
from dimm_ros.data.recording import Frame, Recording
from dimm_ros.errors import DataError
from dimm_ros.geometry import poses
from dimm_ros.geometry.camera import Camera

#: Model -> (identifier in binary files, number of parameters, what Camera makes of them).
_MODELS = {
    "SIMPLE_PINHOLE": (0, 3, lambda f, cx, cy: (f, f, cx, cy)),
    "PINHOLE": (1, 4, lambda fx, fy, cx, cy: (fx, fy, cx, cy)),
    "SIMPLE_RADIAL": (2, 4, lambda f, cx, cy, k: (f, f, cx, cy, "plumb_bob", (k, 0.0, 0.0, 0.0))),
    "RADIAL": (3, 5, lambda f, cx, cy, k1, k2: (f, f, cx, cy, "plumb_bob", (k1, k2, 0.0, 0.0))),
    "OPENCV": (4, 8, lambda fx, fy, cx, cy, *d: (fx, fy, cx, cy, "plumb_bob", d)),
    "OPENCV_FISHEYE": (5, 8, lambda fx, fy, cx, cy, *d: (fx, fy, cx, cy, "equidistant", d)),
    "FULL_OPENCV": (6, 12, lambda fx, fy, cx, cy, *d: (fx, fy, cx, cy, "rational_polynomial", d)),
    "SIMPLE_RADIAL_FISHEYE": (8, 4, lambda f, cx, cy, k: (f, f, cx, cy, "equidistant", (k, 0.0, 0.0, 0.0))),
    "RADIAL_FISHEYE": (9, 5, lambda f, cx, cy, k1, k2: (f, f, cx, cy, "equidistant", (k1, k2, 0.0, 0.0))),
}
_NAMES = {identifier: name for name, (identifier, _, _) in _MODELS.items()}
_RATE_HZ = 30  # a model has no times; its images are numbered in order of their names


class _Image(NamedTuple):
    """One line of images.txt."""

    name: str
    camera_id: int
    wxyz: tuple[float, ...]
    translation: tuple[float, ...]


def find_model(folder: Path) -> Path | None:
    """The folder that holds cameras.txt/.bin and images.txt/.bin: this one, sparse/0, sparse or colmap/sparse/0."""
    for place in (folder, folder / "sparse" / "0", folder / "sparse", folder / "colmap" / "sparse" / "0"):
        if any((place / f"cameras.{kind}").exists() and (place / f"images.{kind}").exists() for kind in ("bin", "txt")):
            return place
    return None


def read_colmap(folder: str | Path) -> Recording:
    """Read a COLMAP model and the images beside it (in ``images/`` or in the folder itself).

    Images that are absent from the folder are left out with one note. Where the files have another size than the
    model's cameras (downscaled copies), the cameras are scaled to them.

    Raises:
        DataError: no model, a damaged or unsupported one, or none of its images in the folder.
    """
    folder = Path(folder)
    model = find_model(folder)
    if model is None:
        raise DataError(f"'{folder}' has no COLMAP model (cameras.txt and images.txt, or .bin, in it or in sparse/0).")
    kind = "bin" if (model / "cameras.bin").exists() and (model / "images.bin").exists() else "txt"
    read_cameras, read_images = (_cameras_bin, _images_bin) if kind == "bin" else (_cameras_txt, _images_txt)
    cameras = _parse(model / f"cameras.{kind}", read_cameras)
    images = sorted(_parse(model / f"images.{kind}", read_images))
    root = _image_root(folder, model, images)
    frames, absent = [], 0
    for index, image in enumerate(images):
        path = root / image.name
        if not path.is_file():
            absent += 1
            continue
        if image.camera_id not in cameras:
            raise DataError(
                f"Image '{image.name}' of the model in '{model}' names camera {image.camera_id}, which the model does not have."
            )
        camera = cameras[image.camera_id]
        size = image_size(path)
        if size != (camera.width, camera.height):
            camera = camera.scaled(*size)
        w, *xyz = image.wxyz
        frames.append(
            Frame(
                name=image.name,
                stamp_ns=round(index * 10**9 / _RATE_HZ),
                camera=camera,
                world_from_camera=poses.invert(poses.from_quaternion(np.array(image.translation), np.array([*xyz, w]))),
                load=partial(load_rgb, path, camera),
            )
        )
    if not frames:
        raise DataError(
            f"None of the {len(images)} images of the model in '{model}' lies in '{root}'; put them in its images/ folder."
        )
    notes = (f"{absent} of the model's {len(images)} images are not in the folder and were left out.",) if absent else ()
    name = folder.resolve().name
    return Recording(name=name, source=f"COLMAP model {name}", frames=frames, notes=notes)


def _image_root(folder: Path, model: Path, images: list[_Image]) -> Path:
    """Where the images lie: the first place that has any of them."""
    places = dict.fromkeys([folder / "images", folder, model / "images", model.parent / "images", model.parent.parent / "images"])
    return next((place for place in places if any((place / image.name).is_file() for image in images)), folder / "images")


def _parse(path: Path, parser):
    try:
        with path.open("rb") as file:
            return parser(file)
    except (OSError, ValueError, IndexError, struct.error) as error:  # UnicodeDecodeError is a ValueError
        raise DataError(f"'{path}' is not a readable COLMAP file ({error}); export the model again.") from None
    except DataError as error:
        raise DataError(f"'{path}': {error}") from None


def _make_camera(model: str, width: int, height: int, parameters: list[float]) -> Camera:
    if model not in _MODELS:
        raise DataError(f"camera model {model} is not supported; undistort the images, or use one of {', '.join(_MODELS)}.")
    _, count, convert = _MODELS[model]
    if len(parameters) != count:
        raise ValueError(f"camera model {model} takes {count} parameters, not {len(parameters)}")
    camera = Camera(width, height, *convert(*parameters))
    return replace(camera, cx=camera.cx - 0.5, cy=camera.cy - 0.5)


def _lines(file: BinaryIO) -> Iterator[str]:
    return (line for line in (raw.decode("utf-8").strip() for raw in file) if not line.startswith("#"))


def _cameras_txt(file: BinaryIO) -> dict[int, Camera]:
    cameras = {}
    for fields in (line.split() for line in _lines(file) if line):
        cameras[int(fields[0])] = _make_camera(fields[1], int(fields[2]), int(fields[3]), [float(value) for value in fields[4:]])
    return cameras


def _images_txt(file: BinaryIO) -> list[_Image]:
    images = []
    lines = _lines(file)
    for line in lines:
        if not line:
            continue
        fields = line.split(maxsplit=9)
        numbers = tuple(float(value) for value in fields[1:8])
        images.append(_Image(fields[9], int(fields[8]), numbers[:4], numbers[4:]))
        next(lines, None)  # its points, a line that may be empty
    return images


def _unpack(file: BinaryIO, layout: str) -> tuple:
    return struct.unpack("<" + layout, file.read(struct.calcsize("<" + layout)))


def _cameras_bin(file: BinaryIO) -> dict[int, Camera]:
    cameras = {}
    for _ in range(_unpack(file, "Q")[0]):
        camera_id, model, width, height = _unpack(file, "iiQQ")
        name = _NAMES.get(model, f"number {model}")
        count = _MODELS[name][1] if name in _MODELS else 0
        cameras[camera_id] = _make_camera(name, width, height, list(_unpack(file, f"{count}d")))
    return cameras


def _images_bin(file: BinaryIO) -> list[_Image]:
    images = []
    for _ in range(_unpack(file, "Q")[0]):
        _, *numbers, camera_id = _unpack(file, "i7di")
        name = bytearray()
        while (byte := file.read(1)) != b"\0":
            if not byte:
                raise ValueError("it ends within an image's name")
            name += byte
        file.seek(24 * _unpack(file, "Q")[0], 1)  # its points: x, y, identifier
        images.append(_Image(name.decode("utf-8"), camera_id, tuple(numbers[:4]), tuple(numbers[4:])))
    return images
