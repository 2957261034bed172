"""What the readers of data set folders share: text files, rigid poses, intrinsics, poses over time, and frames with
notes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from scipy.spatial.transform import Rotation

from dimm_ros.data.image_file import image_size, image_sizes, load_depth, load_rgb
from dimm_ros.data.recording import Frame, Recording
from dimm_ros.data.splits import OFFICIAL, Splits
from dimm_ros.data.transform_tree import TransformTree
from dimm_ros.errors import DataError, DimmError, InputError, TransformError
from dimm_ros.geometry import poses
from dimm_ros.geometry.camera import Camera

#: Encoding of every text file that is read: a byte order mark is passed over.
UTF8 = "utf-8-sig"

#: Turns the axes of OpenGL and Blender cameras (x right, y up, z back) into optical ones; its own inverse.
GL_FROM_OPTICAL = np.diag([1.0, -1.0, -1.0, 1.0])

#: Note of the readers whose data set says nothing about its unit.
OWN_UNIT = (
    "The poses are in the data's own unit, which need not be the metre that robots and 'dimm map' take it for: "
    "'dimm doctor' says how far away what is seen would be, and 'dimm convert --scale' makes metres of it."
)

_IMAGES = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG")
Entry = TypeVar("Entry")

_RATE_HZ = 30
_SEQUENCE_NS = 3600 * 10**9
_RIGID_TOLERANCE = 0.02  # of R^T R from identity; text files round, but a scaled or sheared matrix is no pose


def invented_stamp(number: int, sequence: int = 0) -> int:
    """Nanoseconds of a frame whose data set has no times: 30 Hz, and sequences an hour apart, so that none are
    neighbours.
    """
    return sequence * _SEQUENCE_NS + round(number * 10**9 / _RATE_HZ)


def nanoseconds(seconds: str) -> int:
    """Nanoseconds of a decimal number of seconds, exactly: a double does not hold today's time to the nanosecond."""
    return int(Decimal(seconds).scaleb(9).to_integral_value())


@contextmanager
def parsing(path: Path, layout: str) -> Iterator[None]:
    """Turns what a damaged file leads its parser to into one sentence.

    Raises:
        DataError: the block failed to read or understand the file.
    """
    try:
        yield
    except (
        OSError,
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        InvalidOperation,
        struct.error,
        InputError,
    ) as error:
        cause = (
            error.strerror
            if isinstance(error, OSError) and error.strerror
            else f"{type(error).__name__}: {error}".rstrip(".")
        )
        raise DataError(
            f"'{path}' is not a readable {layout} file ({cause}); compare it with the published format."
        ) from None


def require(folder: Path, layout: str, *names: str) -> None:
    """Check that a folder has what its layout needs.

    Raises:
        DataError: something is missing; the sentence lists it.
    """
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise DataError(
            f"'{folder}' looks like {layout}, but {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} "
            "missing."
        )


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without the byte order mark that Windows' editors put before it."""
    return path.read_text(encoding=UTF8)


def text_rows(path: Path, separator: str | None = None) -> list[list[str]]:
    """Fields of the lines of a text file, without empty ones and comments (#)."""
    lines = (line.strip() for line in read_text(path).splitlines())
    return [[field.strip() for field in line.split(separator)] for line in lines if line and not line.startswith("#")]


def listed_file(folder: Path, name: str) -> Path:
    """The file that a data set's list names, in its folder; backslashes of Windows separate, too.

    Raises:
        DataError: the name leads out of the folder: a data set must not make other files part of a map or a bag.
    """
    root = Path(os.path.abspath(folder))
    path = Path(os.path.abspath(root / name.replace("\\", "/")))
    if not path.is_relative_to(root):
        raise DataError(
            f"'{folder}' lists '{name}', which lies outside the folder; move the images into it and correct the list."
        )
    return folder / path.relative_to(root)


def image_of(stem: Path) -> Path:
    """The image file of a name without extension; where there is none, its .png."""
    paths = [stem.with_name(stem.name + suffix) for suffix in _IMAGES]
    return next((path for path in paths if path.is_file()), paths[0])


def rigid(matrix: np.ndarray) -> np.ndarray | None:
    """(4, 4) pose of a (3, 4) or (4, 4) matrix, its rotation made exactly orthonormal; None where it is not finite and
    rigid.
    """
    if matrix.shape not in ((3, 4), (4, 4)) or not np.isfinite(matrix).all():
        return None
    rotation = matrix[:3, :3]
    if np.abs(rotation.T @ rotation - np.eye(3)).max() > _RIGID_TOLERANCE or np.linalg.det(rotation) < 0:
        return None
    return poses.make_pose(Rotation.from_matrix(rotation).as_matrix(), matrix[:3, 3])


def from_wxyz(wxyz: Sequence[float], translation: Sequence[float]) -> np.ndarray | None:
    """(4, 4) pose of a quaternion that begins with w; None where it is not finite or has no length."""
    values = np.array([*wxyz, *translation], dtype=np.float64)
    if not np.isfinite(values).all() or np.linalg.norm(values[:4]) < 0.5:
        return None
    return poses.from_quaternion(values[4:], values[[1, 2, 3, 0]])


def read_pose(path: Path) -> np.ndarray | None:
    """(4, 4) pose of a text file of three or four rows; None where there is none that is finite and rigid."""
    try:
        return rigid(np.loadtxt(path, dtype=np.float64, ndmin=2, encoding=UTF8))
    except (OSError, ValueError):
        return None


def read_intrinsics(path: Path, size: tuple[int, int]) -> Camera:
    """The pinhole camera of a text file with a 3x3 (or 4x4) intrinsic matrix.

    Raises:
        DataError: the file holds something else.
    """
    try:
        matrix = np.loadtxt(path, dtype=np.float64, encoding=UTF8)
    except (OSError, ValueError):
        matrix = np.empty(0)
    if matrix.shape not in ((3, 3), (4, 4)):
        raise DataError(f"'{path}' must hold a 3x3 intrinsic matrix.")
    try:
        return from_matrix(matrix, size)
    except InputError as error:
        raise DataError(f"'{path}': {error}") from None


def from_matrix(matrix: np.ndarray, size: tuple[int, int]) -> Camera:
    """The pinhole camera of an intrinsic matrix of at least 3x3."""
    return Camera(*size, *(float(matrix[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2))))


def centred(focal: float, size: tuple[int, int], distortion: tuple[float, ...] = ()) -> Camera:
    """A camera of one focal length whose principal point is the centre of the image, (w - 1) / 2 and (h - 1) / 2."""
    return Camera(*size, focal, focal, (size[0] - 1) / 2, (size[1] - 1) / 2, distortion=distortion)


def fitted(camera: Camera, size: tuple[int, int]) -> Camera:
    """The camera of a copy of its image that was resized to another size.

    Raises:
        InputError: the copy has another shape than the image, by more than the rounding of its sides.
    """
    width, height = size
    if abs(width / camera.width - height / camera.height) > 1 / camera.width + 1 / camera.height:
        raise InputError(
            f"It is {width}x{height}, but its camera is {camera.width}x{camera.height}, another shape: it was turned, "
            "cropped or stretched after the calibration; give the images that the intrinsics are of, or their own "
            "intrinsics."
        )
    return camera if size == (camera.width, camera.height) else camera.scaled(*size)


def camera_of(image: Path, make: Callable[[tuple[int, int]], Camera]) -> Camera:
    """The camera that ``make`` gives for the size of an image file.

    A picture that its EXIF orientation lays on its side has two sizes, stored and as shown, and software takes either;
    where the intrinsics fit both, they are of the one whose middle is nearer to the principal point.

    Raises:
        DataError: the intrinsics fit no size of it.
    """
    cameras, refused = [], None
    for size in image_sizes(image):
        try:
            cameras.append(make(size))
        except DimmError as error:
            refused = refused or error
    if not cameras:
        raise DataError(f"Image '{image}': {refused}")

    def off_centre(camera: Camera) -> float:
        return np.hypot((camera.cx + 0.5) / camera.width - 0.5, (camera.cy + 0.5) / camera.height - 0.5)

    return min(cameras, key=off_centre)


def one_per_stamp(entries: Sequence[tuple[int, Entry]], what: str) -> tuple[list[tuple[int, Entry]], list[str]]:
    """The first entry (stamp in nanoseconds, anything) of each stamp, in order of time, and a note about the others."""
    kept: dict[int, Entry] = {}
    repeated = []
    for stamp, entry in sorted(entries, key=lambda pair: pair[0]):
        if stamp in kept:
            repeated.append(stamp)
        else:
            kept[stamp] = entry
    if not repeated:
        return list(kept.items()), []
    first = f"{repeated[0] // 10**9}.{repeated[0] % 10**9:09d}"
    note = f"{len(repeated)} {what} with the same stamp as another were left out, the first at {first} s."
    return list(kept.items()), [note]


class Trajectory:
    """Poses over time, interpolated but never extrapolated.

    Args:
        stamps_ns: times, in any order.
        world_from_body: a (4, 4) pose each.
        max_gap_s: poses farther apart than this are not interpolated between.
    """

    def __init__(self, stamps_ns: Sequence[int], world_from_body: Sequence[np.ndarray], max_gap_s: float) -> None:
        self._tree = TransformTree(max_gap_s=max_gap_s)
        for stamp, pose in sorted(zip(stamps_ns, world_from_body, strict=True), key=lambda pair: pair[0]):
            self._tree.add("world", "body", stamp, pose)

    def at(self, stamp_ns: int) -> np.ndarray | None:
        """(4, 4) world_from_body at a time, or None where nothing tells."""
        try:
            return self._tree.lookup("world", "body", stamp_ns)
        except TransformError:
            return None


class FolderFrames:
    """The frames of a folder as its reader finds them; images that are absent or have no pose are counted for a note.

    Args:
        folder: the data set's folder, whose name the recording takes.
        layout: the layout's name, for sentences.
        timed: whether the data set has times.
    """

    def __init__(self, folder: Path, layout: str, *, timed: bool = False) -> None:
        self._folder, self._layout, self._timed = folder, layout, timed
        self._found: list[tuple[int, tuple[Frame, str | None]]] = []
        self._absent = self._unposed = self._odd_depths = 0

    def add(
        self,
        name: str,
        image: Path,
        camera: Camera | Callable[[tuple[int, int]], Camera],
        world_from_camera: np.ndarray | None,
        stamp_ns: int,
        *,
        part: str | None = None,
        depth: Path | None = None,
        depth_camera: Camera | None = None,
        depth_unit: float = 1e-3,
    ) -> None:
        """One image.

        Args:
            name: unique in the recording.
            image: its file.
            camera: its camera, or what makes it from the file's width and height.
            world_from_camera: (4, 4), optical axes, or None where the data set has no valid one.
            stamp_ns: its time.
            part: the part of the published split that it belongs to ("train", "val", ...).
            depth: a 16-bit image, where there is one.
            depth_camera: the depth image's camera; None takes the colour camera, at the depth image's size.
            depth_unit: metres of one step of its grey levels.
        """
        if not image.is_file():
            self._absent += 1
            return
        if world_from_camera is None:
            self._unposed += 1
            return
        if not isinstance(camera, Camera):
            with parsing(image, f"{self._layout} image"):
                camera = camera_of(image, camera)
        if depth is not None and not depth.is_file():
            depth = None
        if depth is not None and depth_camera is None:
            try:
                depth_camera = fitted(camera, image_size(depth))
            except InputError:
                self._odd_depths += 1
                depth = None
        self._found.append(
            (
                stamp_ns,
                (
                    Frame(
                        name=name,
                        stamp_ns=stamp_ns,
                        camera=camera,
                        world_from_camera=world_from_camera,
                        load=partial(load_rgb, image, camera),
                        files=(image,) if depth is None else (image, depth),
                        load_depth=None if depth is None else partial(load_depth, depth, depth_unit),
                        depth_camera=None if depth is None else depth_camera,
                    ),
                    part,
                ),
            )
        )

    def recording(self, notes: Sequence[str] = ()) -> Recording:
        """The recording of all frames, in order of time, with the published split under the name ``official``.

        Raises:
            DataError: there is no frame.
        """
        if not self._found:
            raise DataError(
                f"'{self._folder}' ({self._layout}) has no image with a valid pose: {self._absent} of its images are "
                "not in the folder and "
                f"{self._unposed} have no pose."
            )
        found, repeated = one_per_stamp(self._found, "images")
        parts: dict[str, list[int]] = {}
        for index, (_, (_, part)) in enumerate(found):
            if part is not None:
                parts.setdefault(part, []).append(index)
        splits: Splits = {OFFICIAL: parts} if parts else {}
        counted = [
            (self._absent, "listed images are not in the folder and were left out."),
            (self._unposed, "frames without a valid pose were left out."),
            (
                self._odd_depths,
                "depth images were left out: another shape than their image, and no camera of their own.",
            ),
        ]
        notes = (*(f"{count} {what}" for count, what in counted if count), *repeated, *notes)
        name = self._folder.resolve().name
        return Recording(
            name=name,
            source=f"{self._layout} folder {name}",
            frames=[frame for _, (frame, _) in found],
            splits=splits,
            notes=notes,
            timed=self._timed,
        )
