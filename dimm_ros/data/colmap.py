"""COLMAP models, text or binary: cameras and poses of the registered images (points are not needed).

Since COLMAP 3.12 (and in COLMAP 4) a model may also have ``rigs`` and ``frames``; as in COLMAP itself they then say
where an image is (camera_from_rig after rig_from_world), and the pose in ``images`` is the fallback. COLMAP puts (0.5,
0.5) at the centre of the top-left pixel, ``Camera`` puts (0, 0) there; a model's unit is its own. Source: COLMAP's
documentation, "Output Format".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from dimm_ros.data.folder import OWN_UNIT, UTF8, FolderFrames, fitted, from_wxyz, invented_stamp, listed_file, parsing
from dimm_ros.data.recording import Recording
from dimm_ros.errors import DataError
from dimm_ros.geometry import poses
from dimm_ros.geometry.camera import Camera

LAYOUT = "COLMAP"

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
    "SIMPLE_FISHEYE": (14, 3, lambda f, cx, cy: (f, f, cx, cy, "equidistant")),
    "FISHEYE": (15, 4, lambda fx, fy, cx, cy: (fx, fy, cx, cy, "equidistant")),
}
_NAMES = {identifier: name for name, (identifier, _, _) in _MODELS.items()}
_CAMERA = 0  # sensor type in binary files; text files say CAMERA


class _Image(NamedTuple):
    """One line of images.txt."""

    name: str
    identifier: int
    camera_id: int
    camera_from_world: np.ndarray | None


@dataclass(frozen=True)
class _Frame:
    """One line of frames.txt: where a rig was, and the camera of each image that it took."""

    rig_id: int
    rig_from_world: np.ndarray | None
    camera_of: dict[int, int]


def is_colmap(folder: Path) -> bool:
    """Whether a folder holds a COLMAP model."""
    return bool(find_models(folder))


def find_models(folder: Path) -> list[Path]:
    """The folders that hold cameras.txt/.bin and images.txt/.bin.

    They are this one, those in sparse, sparse, or those in colmap/sparse: the first of these that there are. COLMAP
    writes several, numbered, where it could not join all images; each has a world of its own.
    """
    sparse = folder / "sparse"
    for places in ([folder], _numbered(sparse), [sparse], _numbered(folder / "colmap" / "sparse")):
        models = [place for place in places if any(_has(place, kind) for kind in ("bin", "txt"))]
        if models:
            return models
    return []


def _numbered(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("*/") if path.name.isdigit()), key=lambda path: int(path.name))


def read_colmap(folder: str | Path) -> Recording:
    """Read a COLMAP model and the images beside it (in ``images/`` or in the folder itself).

    Of several models, that of most images is read.

    Images that are absent from the folder are left out with a note. Where the files have another size than the
    model's cameras (downscaled copies), the cameras are scaled to them.

    Raises:
        DataError: no model, a damaged or unsupported one, an image that lies outside the folder, or none of its images.
    """
    folder = Path(folder)
    models = {place: _images(place) for place in find_models(folder)}
    if not models:
        raise DataError(f"'{folder}' has no COLMAP model (cameras.txt and images.txt, or .bin, in it or in sparse/0).")
    model = max(models, key=lambda place: len(models[place]))
    images, notes = sorted(models[model], key=lambda image: image.name), [OWN_UNIT]
    if others := [f"{place.name} ({len(models[place])} images)" for place in models if place != model]:
        read = f"Of the models in '{model.parent.name}', {model.name} ({len(images)} images) was read"
        notes.insert(0, f"{read} and {', '.join(others)} left out: each has a world of its own.")
    kind, reader = _kind(model)
    cameras = _parse(model / f"cameras.{kind}", reader["cameras"])
    placed = (
        _placed_by_rigs(model, kind, reader)
        if all((model / f"{name}.{kind}").exists() for name in ("rigs", "frames"))
        else {}
    )
    root = _image_root(folder, model, images)
    frames = FolderFrames(folder, LAYOUT)
    for index, image in enumerate(images):
        if image.camera_id not in cameras:
            raise DataError(
                f"Image '{image.name}' of the model in '{model}' names camera {image.camera_id}, which the model does "
                "not have."
            )
        pose = placed.get(image.identifier, image.camera_from_world)
        camera = cameras[image.camera_id]
        frames.add(
            image.name,
            listed_file(root, image.name),
            lambda size, camera=camera: fitted(camera, size),
            None if pose is None else poses.invert(pose),
            invented_stamp(index),
        )
    if not any(listed_file(root, image.name).is_file() for image in images):
        raise DataError(
            f"None of the {len(images)} images of the model in '{model}' lies in '{root}'; put them in its images/ "
            "folder."
        )
    return frames.recording(notes)


def _kind(model: Path) -> tuple[str, dict[str, Callable]]:
    """How a model's files end, and what reads them."""
    return ("bin", _BINARY) if _has(model, "bin") else ("txt", _TEXT)


def _images(model: Path) -> list[_Image]:
    kind, reader = _kind(model)
    return _parse(model / f"images.{kind}", reader["images"])


def _has(place: Path, kind: str) -> bool:
    return (place / f"cameras.{kind}").exists() and (place / f"images.{kind}").exists()


def _placed_by_rigs(model: Path, kind: str, reader: dict[str, Callable]) -> dict[int, np.ndarray]:
    """Image identifier -> camera_from_world, of the images whose rig and frame say it."""
    rigs = _parse(model / f"rigs.{kind}", reader["rigs"])
    placed = {}
    for frame in _parse(model / f"frames.{kind}", reader["frames"]):
        for image_id, camera_id in frame.camera_of.items():
            camera_from_rig = rigs.get(frame.rig_id, {}).get(camera_id)
            if camera_from_rig is not None and frame.rig_from_world is not None:
                placed[image_id] = camera_from_rig @ frame.rig_from_world
    return placed


def _image_root(folder: Path, model: Path, images: list[_Image]) -> Path:
    """Where the images lie: the place that has most of them."""
    places = dict.fromkeys(
        [folder / "images", folder, model / "images", model.parent / "images", model.parent.parent / "images"]
    )
    return max(places, key=lambda place: sum(listed_file(place, image.name).is_file() for image in images))


def _parse(path: Path, parser: Callable):
    with parsing(path, LAYOUT), path.open("rb") as file:
        try:
            return parser(file)
        except DataError as error:
            raise DataError(f"'{path}': {error}") from None


def _make_camera(model: str, width: int, height: int, parameters: list[float]) -> Camera:
    if model not in _MODELS:
        raise DataError(
            f"camera model {model} is not supported; undistort the images, or use one of {', '.join(_MODELS)}."
        )
    _, count, convert = _MODELS[model]
    if len(parameters) != count:
        raise ValueError(f"camera model {model} takes {count} parameters, not {len(parameters)}")
    camera = Camera(width, height, *convert(*parameters))
    return replace(camera, cx=camera.cx - 0.5, cy=camera.cy - 0.5)


def _pose(numbers) -> np.ndarray | None:
    """(4, 4) of QW QX QY QZ TX TY TZ."""
    values = [float(value) for value in numbers]
    if len(values) != 7:
        raise ValueError(f"a pose has {len(values)} numbers, not 7")
    return from_wxyz(values[:4], values[4:])


def _lines(file: BinaryIO) -> Iterator[str]:
    return (line for line in (raw.strip() for raw in TextIOWrapper(file, encoding=UTF8)) if not line.startswith("#"))


def _cameras_txt(file: BinaryIO) -> dict[int, Camera]:
    cameras = {}
    for fields in (line.split() for line in _lines(file) if line):
        cameras[int(fields[0])] = _make_camera(
            fields[1], int(fields[2]), int(fields[3]), [float(value) for value in fields[4:]]
        )
    return cameras


def _images_txt(file: BinaryIO) -> list[_Image]:
    images = []
    lines = _lines(file)
    for line in lines:
        if not line:
            continue
        fields = line.split(maxsplit=9)
        images.append(_Image(fields[9].replace("\\", "/"), int(fields[0]), int(fields[8]), _pose(fields[1:8])))
        next(lines, None)  # its points, a line that may be empty
    return images


def _rigs_txt(file: BinaryIO) -> dict[int, dict[int, np.ndarray | None]]:
    rigs = {}
    for fields in (iter(line.split()) for line in _lines(file) if line):
        rig, sensors = int(next(fields)), int(next(fields))
        cameras: dict[int, np.ndarray | None] = {}
        for number in range(sensors):
            kind, sensor = next(fields), int(next(fields))
            pose = np.eye(4)  # the first sensor is the rig's reference
            if number:
                pose = _pose([next(fields) for _ in range(7)]) if next(fields) == "1" else None
            if kind == "CAMERA":
                cameras[sensor] = pose
        rigs[rig] = cameras
    return rigs


def _frames_txt(file: BinaryIO) -> list[_Frame]:
    frames = []
    for fields in (line.split() for line in _lines(file) if line):
        data = [fields[start : start + 3] for start in range(10, 10 + 3 * int(fields[9]), 3)]
        frames.append(
            _Frame(
                int(fields[1]),
                _pose(fields[2:9]),
                {int(image): int(camera) for kind, camera, image in data if kind == "CAMERA"},
            )
        )
    return frames


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
        identifier, *numbers, camera_id = _unpack(file, "I7dI")
        name = bytearray()
        while (byte := file.read(1)) != b"\0":
            if not byte:
                raise ValueError("it ends within an image's name")
            name += byte
        file.seek(24 * _unpack(file, "Q")[0], 1)  # its points: x, y, identifier
        images.append(_Image(name.decode("utf-8").replace("\\", "/"), identifier, camera_id, _pose(numbers)))
    return images


def _rigs_bin(file: BinaryIO) -> dict[int, dict[int, np.ndarray | None]]:
    rigs = {}
    for _ in range(_unpack(file, "Q")[0]):
        rig, sensors = _unpack(file, "II")
        cameras: dict[int, np.ndarray | None] = {}
        for number in range(sensors):
            kind, sensor = _unpack(file, "iI")
            pose = np.eye(4)
            if number:
                pose = _pose(_unpack(file, "7d")) if _unpack(file, "B")[0] else None
            if kind == _CAMERA:
                cameras[sensor] = pose
        rigs[rig] = cameras
    return rigs


def _frames_bin(file: BinaryIO) -> list[_Frame]:
    frames = []
    for _ in range(_unpack(file, "Q")[0]):
        _, rig, *numbers = _unpack(file, "II7d")
        data = [_unpack(file, "iIQ") for _ in range(_unpack(file, "I")[0])]
        frames.append(_Frame(rig, _pose(numbers), {image: camera for kind, camera, image in data if kind == _CAMERA}))
    return frames


_TEXT = {"cameras": _cameras_txt, "images": _images_txt, "rigs": _rigs_txt, "frames": _frames_txt}
_BINARY = {"cameras": _cameras_bin, "images": _images_bin, "rigs": _rigs_bin, "frames": _frames_bin}
