"""Ways in which recordings go wrong between the images and the poses, as candidates for the epipolar test."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import permutations, product

import numpy as np
from scipy.spatial.transform import Rotation

from dimm_ros.geometry.poses import invert

#: Camera axes (x right, y down, z forward) in other conventions: name -> (3, 3) stored_from_optical, cure.
AXES = {
    "OpenGL axes (y up, z backwards)": (
        np.diag([1.0, -1.0, -1.0]),
        "turn the poses to optical axes: world_from_camera @ diag(1, -1, -1, 1)",
    ),
    "body axes (x forward, y left, z up)": (
        np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]),
        "give the pose of the optical frame (REP-103), or record the static transform from the camera's body frame to "
        "it",
    ),
    "body axes (x forward, y right, z down)": (
        np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]),
        "give the pose of the optical frame (x right, y down, z forward)",
    ),
    "images upside down (turned by 180 degrees)": (
        np.diag([-1.0, -1.0, 1.0]),
        "turn the images or the camera's poses by 180 degrees about the optical axis",
    ),
    "images turned by 90 degrees": (
        np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]),
        "turn the images (and swap width and height, fx and fy) or the poses about the optical axis",
    ),
    "images turned by -90 degrees": (
        np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]),
        "turn the images (and swap width and height, fx and fy) or the poses about the optical axis",
    ),
    "mirrored images": (
        np.diag([-1.0, 1.0, 1.0]),
        "switch the driver's horizontal flip off, or convert the poses from their left-handed system",
    ),
    "vertically flipped images or left-handed poses (Unity)": (
        np.diag([1.0, -1.0, 1.0]),
        "switch the driver's vertical flip off, or convert the poses from their left-handed system",
    ),
    "camera that looks backwards": (
        np.diag([-1.0, 1.0, -1.0]),
        "turn the camera's extrinsics by 180 degrees about its y axis",
    ),
}


def _quaternion_reordered(poses: np.ndarray, order: list[int]) -> np.ndarray:
    result = poses.copy()
    known = np.isfinite(poses[:, 0, 0])
    result[known, :3, :3] = Rotation.from_quat(
        Rotation.from_matrix(poses[known, :3, :3]).as_quat()[:, order]
    ).as_matrix()
    return result


def _transposed(poses: np.ndarray) -> np.ndarray:
    result = poses.copy()
    result[:, :3, :3] = np.swapaxes(poses[:, :3, :3], 1, 2)
    return result


def _unrotated_translation(poses: np.ndarray) -> np.ndarray:
    result = poses.copy()
    result[:, :3, 3] = -np.einsum("nij,nj->ni", poses[:, :3, :3], poses[:, :3, 3])
    return result


def _opposite(poses: np.ndarray) -> np.ndarray:
    result = poses.copy()
    result[:, :3, 3] *= -1
    return result


#: What was taken for world_from_camera: name -> (what makes it so, cure).
FORMS = {
    "": (lambda poses: poses, ""),
    "inverted poses (camera_from_world)": (
        invert,
        "invert every pose: DIMM takes world_from_camera, COLMAP and ORB-SLAM store its inverse",
    ),
    "transposed rotations": (
        _transposed,
        "transpose the rotations: they are camera_from_world, the positions are the camera's",
    ),
    "translations of camera_from_world beside rotations of world_from_camera": (
        _unrotated_translation,
        "the camera's position is -R^T t of camera_from_world = [R t]",
    ),
    "quaternions read as x y z w that are stored as w x y z": (
        lambda poses: _quaternion_reordered(poses, [1, 2, 3, 0]),
        "reorder the quaternions when converting",
    ),
    "quaternions read as w x y z that are stored as x y z w": (
        lambda poses: _quaternion_reordered(poses, [3, 0, 1, 2]),
        "reorder the quaternions when converting",
    ),
    "positions with the wrong sign": (_opposite, "negate the positions"),
}


@dataclass(frozen=True)
class Convention:
    """How the stored poses are to be read.

    Attributes:
        form: key of FORMS.
        axes: name of the camera's axes; empty for optical ones.
        stored_from_optical: (3, 3) signed permutation as a tuple of tuples.
        cure: what to do about it.
    """

    form: str
    axes: str
    stored_from_optical: tuple[tuple[float, ...], ...]
    cure: str

    @property
    def name(self) -> str:
        return " and ".join(part for part in (self.form, self.axes) if part) or "as given"

    @property
    def plain(self) -> bool:
        return not self.form and not self.axes

    def apply(self, poses: np.ndarray) -> np.ndarray:
        """(N, 4, 4) world_from_camera in optical axes, were the given ones of this convention."""
        change = np.eye(4)
        change[:3, :3] = self.stored_from_optical
        return FORMS[self.form][0](poses) @ change


@cache
def conventions() -> tuple[Convention, ...]:
    """All combinations of a form with signed permutations of the axes; the likely ones first.

    A mirrored axis (determinant -1) is no rotation, but conjugates the motion between two cameras to one.
    """
    identity = np.eye(3)
    named = {"": (identity, "")} | AXES
    seen = [matrix for matrix, _ in named.values()]
    others = [
        matrix
        for order in permutations(range(3))
        for signs in product((1.0, -1.0), repeat=3)
        if not any(np.array_equal(matrix := np.array(signs)[:, None] * identity[list(order)], one) for one in seen)
    ]
    result = []
    for form, (_, form_cure) in FORMS.items():
        for axes, (matrix, cure) in named.items():
            result.append(Convention(form, axes, _tuple(matrix), "; ".join(part for part in (form_cure, cure) if part)))
    for form, (_, form_cure) in FORMS.items():
        for matrix in others:
            axes = "camera axes " + ", ".join(
                f"{label} = {_axis(matrix[:, place])}" for place, label in enumerate(("right", "down", "forward"))
            )
            result.append(
                Convention(
                    form,
                    axes,
                    _tuple(matrix),
                    "; ".join(part for part in (form_cure, "turn the poses to optical axes") if part),
                )
            )
    return tuple(result)


def _tuple(matrix: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in matrix)


def _axis(column: np.ndarray) -> str:
    place = int(np.abs(column).argmax())
    return ("" if column[place] > 0 else "-") + "xyz"[place]
