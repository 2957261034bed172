"""``align_map``: a map is brought into the frame of an occupancy grid, by pairs of points or by two trajectories of
one drive.

A grid is flat and level, so the map is turned about the vertical and shifted, no more: which way is up in the map is
known from its images, which are mostly upright, and metres are metres in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from dimm_ros.data.coverage import above
from dimm_ros.data.folder import Trajectory
from dimm_ros.data.point_pairs import PointPairs
from dimm_ros.errors import InputError, MapError
from dimm_ros.geometry.poses import make_pose
from dimm_ros.mapping.rehearse import features_path, load_features, write_features
from dimm_ros.mapping.retrieval import ReferenceViews, reference_path
from dimm_ros.reach import nearest_view
from dimm_ros.scene_map import Alignment, SceneMap

#: Directions that may be up in a map.
UPS = ("+x", "-x", "+y", "-y", "+z", "-z")
#: Largest distance that may remain between the points of a pair, metres.
TOLERANCE = 0.5

_MIN_PAIRS = 2
_LINE = 0.05  # points that spread less to the side than this share of their length lie on one line
_SCALE = 0.1  # lengths in the map and on the grid that differ by more are not of one unit
_MAX_GAP_S = 1.0  # between poses of a trajectory
_MIN_POSES = 10
_CHECKED, _TURN_DEG = 200, 15.0  # poses that are compared with the map's views, and how far they may be turned
_POSE_SIGMA, _ARM_SIGMA = 0.05, 1.0  # metres: of a localized robot, and of a camera from its base


@dataclass(frozen=True)
class FittedFrame:
    """A map's frame fitted to a grid's.

    Attributes:
        target_from_source: (4, 4) grid_from_map, metres.
        residuals: (N,) distances on the grid that remain, metres.
        scale: how much longer distances are on the grid than in the map; 1 where both are right.
        mirrored: whether the points fit better seen from below.
        method: in words.
    """

    target_from_source: np.ndarray
    residuals: np.ndarray
    scale: float
    mirrored: bool
    method: str

    @property
    def rms(self) -> float:
        """Root mean square of the residuals, metres."""
        return float(np.sqrt(np.mean(self.residuals**2)))


def up_of(scene_map: SceneMap) -> str:
    """The axis of a map's frame that points up, such as "+z", as its images' uprights say.

    Raises:
        MapError: the map remembers no view.
    """
    poses = scene_map.mapped_poses()
    if poses is None:
        raise MapError(
            f"Map '{scene_map.header.name}' remembers no view (whole_share is 0), so which way is up in it is not "
            "known; say it with --up, such as "
            "--up +z."
        )
    axes, sign = above(poses)
    return f"{'+' if sign > 0 else '-'}{'xyz'[axes[2]]}"


def fit_pairs(pairs: PointPairs, up: str, *, sure_of_up: bool = False, tolerance: float = TOLERANCE) -> FittedFrame:
    """Fit by pairs of points.

    Args:
        pairs: two at least.
        up: axis of the map's frame.
        sure_of_up: the user said so; otherwise points on one line are not enough, for they cannot tell from below
            from above.
        tolerance: largest residual, metres.

    Raises:
        InputError: too few pairs, all in one place or on one line, or pairs that contradict each other.
    """
    if len(pairs) < _MIN_PAIRS:
        raise InputError(
            f"{len(pairs)} pair{'s' * (len(pairs) != 1)} of points cannot turn a map; give three pairs or more, "
            "far from each other."
        )
    _check_spread(pairs.source @ _level(up)[:2].T, pairs.target, "pairs", tolerance, sure_of_up)
    fitted = _fit(pairs.source, pairs.target, up, f"{len(pairs)} pairs")
    worst = int(fitted.residuals.argmax())
    _check_residual(fitted, float(fitted.residuals[worst]), tolerance, "pairs", f"pair {worst + 1} is off by")
    return fitted


def fit_trajectories(
    in_map: Sequence[tuple[int, np.ndarray]],
    on_grid: Sequence[tuple[int, np.ndarray]],
    up: str,
    *,
    sure_of_up: bool = False,
    tolerance: float = TOLERANCE,
) -> FittedFrame:
    """Fit by two trajectories of one drive: the camera's in the map's frame, the robot's on the grid.

    Where the camera sits on the robot is found with it. Heights on the grid are left out.

    Args:
        in_map: stamps (nanoseconds) and (4, 4) world_from_camera.
        on_grid: stamps and (4, 4) grid_from_base.
        up, sure_of_up, tolerance: as of ``fit_pairs``; the tolerance is of the root mean square.

    Raises:
        InputError: too few common times, a robot that hardly moved or only straight on, or trajectories that
            contradict each other.
    """
    path = Trajectory([stamp for stamp, _ in on_grid], [pose for _, pose in on_grid], _MAX_GAP_S)
    both = [(pose, base) for stamp, pose in in_map if (base := path.at(stamp)) is not None]
    if len(both) < _MIN_POSES:
        raise InputError(
            f"The trajectories have {len(both)} times in common (at least {_MIN_POSES} are needed); give both of "
            "one drive, with the stamps of "
            "one clock."
        )
    cameras, target = np.stack([pose for pose, _ in both]), np.stack([base[:2, 3] for _, base in both])
    level = _level(up)
    _check_spread(cameras[:, :3, 3] @ level[:2].T, target, "poses", tolerance, sure_of_up)
    start = _fit(cameras[:, :3, 3], target, up, "")

    def apart(values: np.ndarray) -> np.ndarray:
        (yaw, x, y), arm = values[:3], values[3:]
        bases = cameras[:, :3, 3] + cameras[:, :3, :3] @ arm
        return bases @ (_yaw(yaw) @ level)[:2].T + (x, y) - target

    first = start.target_from_source
    yaw = np.arctan2(*(first[:3, :3] @ level.T)[[1, 0], 0])
    found = least_squares(
        lambda values: np.concatenate([apart(values).ravel() / _POSE_SIGMA, values[3:] / _ARM_SIGMA]),
        [yaw, *first[:2, 3], 0.0, 0.0, 0.0],
        loss="soft_l1",
    ).x
    move = make_pose(_yaw(found[0]) @ level, np.array([found[1], found[2], 0.0]))
    bases = cameras[:, :3, 3] + cameras[:, :3, :3] @ found[3:]
    check = _fit(bases, target, up, "")
    fitted = FittedFrame(move, np.linalg.norm(apart(found), axis=1), check.scale, check.mirrored, f"{len(both)} poses")
    _check_residual(fitted, fitted.rms, tolerance, "trajectories", "their distance (root mean square) is")
    return fitted


def check_in_map(scene_map: SceneMap, in_map: Sequence[tuple[int, np.ndarray]], tolerance: float = TOLERANCE) -> None:
    """Whether a trajectory is in a map's frame: of the recording that was mapped it is where the map's views are.

    Nothing is known of a map that remembers no view.

    Args:
        scene_map: the map.
        in_map: stamps and (4, 4) world_from_camera.
        tolerance: largest median distance to the nearest mapped view, metres.

    Raises:
        InputError: it is elsewhere.
    """
    views = scene_map.mapped_poses()
    if views is None or not len(views) or not in_map:
        return
    chosen = np.unique(np.linspace(0, len(in_map) - 1, min(len(in_map), _CHECKED)).round().astype(int))
    metres, degrees = map(np.median, nearest_view(np.stack([in_map[index][1] for index in chosen]), views))
    if metres <= tolerance and degrees <= _TURN_DEG:
        return
    header = scene_map.header
    cure = f"give the trajectory of what was mapped, in the map's frame '{header.frame_id}'"
    if header.all_alignments:
        cure += ", into which the map was moved by an earlier 'dimm map align', or align the map from before that"
    raise InputError(
        f"IN_MAP is not in the frame of map '{header.name}': its poses are {metres:.2f} m and {degrees:.0f} degrees "
        f"(medians) from the nearest mapped views; {cure}."
    )


def lowered(fitted: FittedFrame, floor: float) -> FittedFrame:
    """The same with the floor, ``floor`` metres above the map's origin along up, at height 0 of the grid's frame."""
    move = fitted.target_from_source.copy()
    move[2, 3] -= floor
    return replace(fitted, target_from_source=move)


def align_map(path: Path, output: Path, fitted: FittedFrame, target: str, reference: str) -> SceneMap:
    """Write a map that is in the grid's frame, with what lies beside it.

    Args:
        path: the map; it stays as it is, unless it is the output as well.
        output: the file to write.
        fitted: grid_from_map.
        target: name of the grid's frame.
        reference: name of the grid.

    Raises:
        MapError: not a map, or it cannot be written.
    """
    scene_map = SceneMap.load(path)
    old, move = scene_map.header, fitted.target_from_source
    aligned = scene_map.aligned(
        Alignment(
            target=target,
            source=old.frame_id,
            target_from_source=tuple(map(tuple, move.tolist())),
            reference=reference,
            method=fitted.method,
            residual=fitted.rms,
            aligned=datetime.now(timezone.utc).date().isoformat(),
        )
    )
    references, features = ReferenceViews.load(path, old), load_features(features_path(path), old)
    aligned.save(output)
    for beside in (reference_path(output), features_path(output)):
        beside.unlink(missing_ok=True)  # of a map that was here before
    if references is not None:
        ReferenceViews(references.cls, move @ references.world_from_camera).save(output, aligned.header)
    if features is not None:
        write_features(features_path(output), aligned.header, features.transformed(move))
    return aligned


def _level(up: str) -> np.ndarray:
    """(3, 3) rotation of a frame in which an axis is up into one in which z is."""
    axis = np.eye(3)["xyz".index(up[1])] * (-1 if up[0] == "-" else 1)
    first = np.roll(np.abs(axis), 1)
    return np.stack([first, np.cross(axis, first), axis])


def _yaw(angle: float) -> np.ndarray:
    return Rotation.from_euler("z", angle).as_matrix()


def _fit(source: np.ndarray, target: np.ndarray, up: str, method: str) -> FittedFrame:
    """Turn about up and shift, in closed form; points as complex numbers."""
    level = _level(up)
    flat = source @ level[:2].T
    ours, theirs = ((points - points.mean(axis=0)) @ [1, 1j] for points in (flat, target))
    product, flipped = np.vdot(ours, theirs), np.vdot(ours.conj(), theirs)
    rotation = _yaw(float(np.angle(product))) @ level
    shift = target.mean(axis=0) - (source @ rotation.T)[:, :2].mean(axis=0)
    residuals = np.linalg.norm((source @ rotation.T)[:, :2] + shift - target, axis=1)
    larger = max(abs(product), abs(flipped))
    scale = larger / max(float(np.vdot(ours, ours).real), 1e-12)
    return FittedFrame(
        make_pose(rotation, np.array([*shift, 0.0])),
        residuals,
        float(scale),
        abs(flipped) > 1.02 * abs(product),
        method,
    )


def _check_spread(flat: np.ndarray, target: np.ndarray, what: str, tolerance: float, sure_of_up: bool) -> None:
    """Whether points, (N, 2) in the map from above and on the grid, can turn a map at all."""
    for points, where in ((flat, "in the map"), (target, "on the grid")):
        long, short = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)[:2] / np.sqrt(len(points))
        if long < tolerance:
            raise InputError(
                f"The {what} lie within {long:.2f} m of one place {where}, which cannot turn a map to within "
                f"{tolerance:g} m; choose them far apart."
            )
        if short < _LINE * long and not sure_of_up:
            raise InputError(
                f"The {what} lie on one line {where}, which does not tell above from below; add one beside the "
                "line, or say with --up which axis "
                "of the map is up."
            )


def _check_residual(fitted: FittedFrame, residual: float, tolerance: float, what: str, which: str) -> None:
    """Whether what was fitted agrees; the sentence names the likeliest cause."""
    if residual <= tolerance:
        return
    if fitted.mirrored:
        cause = (
            "they fit better mirrored: the map is seen from below, so choose the opposite --up, or points are mixed up"
        )
    elif abs(fitted.scale - 1) > _SCALE:
        cause = (
            f"distances are {fitted.scale:.2f} times as long on the grid as in the map, whose unit is not the metre "
            "then, or points are mixed up"
        )
    else:
        cause = "correct what is mixed up"
    raise InputError(
        f"The {what} contradict each other: {which} {residual:.2f} m, and at most {tolerance:g} m is allowed; {cause}."
    )
