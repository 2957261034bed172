"""Calibration of a map's self-knowledge on frames held out of its training: how large its errors are, and what it does
not know.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dimm_ros.config import SolverConfig
from dimm_ros.errors import InputError
from dimm_ros.geometry.poses import make_pose, pose_errors, rotation_angle_deg
from dimm_ros.head.global_pose import GlobalPose
from dimm_ros.head.model import MapHead
from dimm_ros.mapping.training_views import TrainingViews
from dimm_ros.reach import Reach
from dimm_ros.scene_map import GROWTH, LEAST_NOVELTY, Calibration, SceneMap
from dimm_ros.solver import solve_pose
from dimm_ros.uncalibrated import focal_that_agrees, median_focal

_PERIOD, _BLOCK = 120, 20  # whole stretches: a single frame between its neighbours would make it too easy
_MIN_FRAMES = 12
_OUTLIER = 20.0  # times the median square: one blunder must not inflate every covariance
_TAILS = 1.15  # errors have heavier tails than a Gaussian: without it the 95 % ellipsoid covers 86 to 90 %
_MIN_SHARE = 0.5  # of a view's patches: what is left of a virtual view must be like an image
_MARGIN = 1.4  # of the largest novelty over that of held-out views
_NOVELTY, _NOVELTY_OF_SHORT = (0.4, 0.6), (0.4, 1.5)  # bounds of the largest novelty: few views leave more that is new
_PARTS, _FEW_FRAMES = 8, 100


def held_out_frames(count: int) -> np.ndarray:
    """Indices of the held-out frames of a recording of ``count`` frames; none when it is short."""
    indices = np.arange(count)
    chosen = indices[(indices % _PERIOD) >= _PERIOD - _BLOCK]
    return chosen if len(chosen) >= _MIN_FRAMES else chosen[:0]


def calibrate_short(
    context: Tensor, rotations: Tensor, centres: Tensor, recorded: Tensor, frame_of: Tensor
) -> dict[str, float]:
    """Fields of the Calibration of a recording too short to hold frames out of the training.

    Each eighth of the recording is judged by a regression on the rest, which takes no training. Its errors are somewhat
    larger than those of a whole map.

    Args:
        context, rotations, centres, recorded: as for ``GlobalPose.fit``, of V views; the position's rate is in the unit
            of the centres.
        frame_of: (V,) frames of the views.
    """
    part = frame_of.long() * _PARTS // (int(frame_of.max()) + 1)
    novelty, errors = np.zeros(len(frame_of)), np.zeros((len(frame_of), 2))
    for number in part.unique():
        left_out, rest = part == number, part != number
        turned, places, new = GlobalPose.fit(context[rest], rotations[rest], centres[rest], recorded[rest])(
            context[left_out].float()
        )
        distance, angle = (
            (places - centres[left_out]).norm(dim=1),
            rotation_angle_deg(turned.cpu().numpy(), rotations[left_out].cpu().numpy()),
        )
        here = left_out.cpu().numpy()
        novelty[here], errors[here] = new.cpu().numpy(), np.stack([distance.cpu().numpy(), angle], axis=1)
    frames = int(frame_of.max()) + 1
    recorded = recorded.cpu().numpy()
    position, rotation = _rates(errors[recorded], novelty[recorded])
    limit = _limit(novelty, _NOVELTY_OF_SHORT if frames < _FEW_FRAMES else _NOVELTY)
    return {"max_novelty": limit, "position_rate": position, "rotation_rate_deg": rotation}


def _limit(novelty: np.ndarray, bounds: tuple[float, float]) -> float:
    return float(np.clip(_MARGIN * np.percentile(novelty, 99.5), *bounds))


def _rates(errors: np.ndarray, novelty: np.ndarray) -> list[float]:
    """Standard deviations per axis at novelty 1 from (N, 2) lengths of errors and angles."""
    squares = (errors / np.maximum(novelty, LEAST_NOVELTY)[:, None] ** GROWTH) ** 2 / 3
    return (_TAILS * np.sqrt(np.minimum(squares, _OUTLIER * np.median(squares, axis=0)).mean(axis=0))).tolist()


def calibrate(
    scene_map: SceneMap,
    views: TrainingViews,
    frames: np.ndarray,
    solver: SolverConfig | None = None,
    rehearsal: TrainingViews | None = None,
) -> Calibration:
    """Errors of held-out frames as they grow with novelty, and the largest novelty that is still of this map.

    The held-out frames' virtual views count for the largest novelty alone: what makes them new is in part that they are
    not real.

    Args:
        scene_map: the map at hand, made without ``frames``.
        views: of the recording.
        rehearsal: views of the map before, which count as mapped ones.
    """
    novelties, recorded, errors, solved = [], [], [], []
    of_recording, sizes = views.recorded.numpy(), views.sizes.numpy()
    held_out = np.isin(views.frame_of.numpy(), frames)
    for view in np.flatnonzero(held_out & (sizes >= _MIN_SHARE * sizes.max())):
        rows = views.rows(view)
        device = next(scene_map.head.parameters()).device
        camera_rays = views.camera_rays[rows].to(device)
        with torch.inference_mode():
            context = views.context[view, None].to(device).float()
            rays = scene_map.head(views.patches[rows].to(device).float(), context, camera_rays)
            solution = solve_pose(
                camera_rays.double(), **rays.in_metres(scene_map.header.radius), config=solver or SolverConfig()
            )
        if not solution.ok:
            continue
        pose = solution.world_from_camera.cpu().numpy().copy()
        pose[:3, 3] += scene_map.header.origin
        solved.append(view)
        recorded.append(of_recording[view])
        errors.append(pose_errors(pose, _pose(views, view)))
        novelties.append(1.0 if rays.novelty is None else float(rays.novelty[0]))
    if sum(recorded) < _MIN_FRAMES:
        return Calibration()
    novelty, errors, recorded = np.array(novelties), np.array(errors), np.array(recorded)
    position_rate, rotation_rate_deg = _rates(errors[recorded], novelty[recorded])
    position_error, rotation_error_deg = np.median(errors[recorded], axis=0).tolist()
    limit = _limit(novelty, _NOVELTY) if scene_map.head.whole is not None else None
    answers = np.full((len(views), 2), np.nan)
    answered = recorded if limit is None else recorded & (novelty <= limit)
    answers[np.array(solved)[answered]] = errors[answered]
    queries, mapped = np.flatnonzero(held_out & of_recording), np.flatnonzero(~held_out & of_recording)
    query_poses, mapped_poses = _poses(views, queries), _poses(views, mapped)
    if rehearsal is not None:
        mapped_poses = np.concatenate([_poses(rehearsal, np.flatnonzero(rehearsal.recorded.numpy())), mapped_poses])
    return Calibration(
        position_rate=position_rate,
        rotation_rate_deg=rotation_rate_deg,
        frames=len(frames),
        max_novelty=limit,
        position_error=position_error,
        rotation_error_deg=rotation_error_deg,
        reach=Reach.of(query_poses, mapped_poses, answers[queries]),
    )


def _pose(views: TrainingViews, view: int) -> np.ndarray:
    """(4, 4) world_from_camera of a view."""
    return make_pose(views.rotations[view].numpy(), views.centres[view].numpy())


def _poses(views: TrainingViews, chosen: np.ndarray) -> np.ndarray:
    """(N, 4, 4) of N views."""
    return np.stack([_pose(views, view) for view in chosen])


def focal_bias(head: MapHead, views: TrainingViews, queries: Sequence[int]) -> float:
    """By which factor a map's head finds focal lengths too long: the median over mapped views, whose cameras are known.

    A head draws the directions of an image a little together, and the focal length that agrees with itself lies 2.5
    times as far off as the directions do, so this is several per cent; it is nearly the same for all views of a map.

    Args:
        head: of the finished map.
        views: of the recording.
        queries: which of them to ask; recorded ones.

    Returns:
        The factor; 1 when fewer than three views can say.
    """
    device = next(head.parameters()).device
    found = []
    for view in queries:
        rows = views.rows(view)
        rays, patches = views.camera_rays[rows].double(), views.patches[rows]
        rays, patches = rays[rays[:, 2] > 0.1], patches[rays[:, 2] > 0.1]  # a pinhole sees no further
        plane = (rays[:, :2] / rays[:, 2:]).to(device)
        try:
            context = views.context[int(view), None].to(device).float()
            found.append(
                focal_that_agrees(head, patches.to(device).float(), context, plane, [0.6, 0.8, 1.0, 1.25, 1.6])
            )
        except InputError:
            continue
    return median_focal(found) if len(found) >= 3 else 1.0
