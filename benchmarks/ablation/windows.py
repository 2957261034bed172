"""What several frames gain: the joint solver over short windows with odometry's noise."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from benchmarks.ablation.features import Features
from dimm_ros.encoder.patches import patch_grid
from dimm_ros.estimate import Observation
from dimm_ros.geometry.poses import invert, make_pose, pose_errors
from dimm_ros.localizer import Localizer
from dimm_ros.scene_map import SceneMap

ODOMETRY_NOISE = 0.01  # of the distance travelled and of the angle turned
STRIDE = 2  # recorded frames between two of a window: 15 a second


def window_errors(scene_map: SceneMap, val: Features, length: int, seed: int = 0) -> dict[str, float]:
    """Median errors of windows that end at each val frame with enough frames before it, and of those frames alone."""
    localizer = Localizer.__new__(Localizer)  # features are encoded already: no encoder is needed
    localizer.map, localizer.encoder = scene_map, _NoEncoder()
    from dimm_ros.config import AcceptanceConfig, SolverConfig

    localizer.solver, localizer.acceptance = SolverConfig(), AcceptanceConfig()
    observations = _observations(localizer, val)
    poses = val.recording.poses()
    numbers = np.array([int("".join(filter(str.isdigit, frame.name))) for frame in val.recording.frames])
    rng = np.random.default_rng(seed)
    alone, joint = [], []
    for last in range((length - 1) * STRIDE, len(poses)):
        members = np.arange(last - (length - 1) * STRIDE, last + 1, STRIDE)
        if numbers[members[-1]] - numbers[members[0]] != (length - 1) * STRIDE:
            continue  # the recording has a gap here
        relative = odometry(poses[members], rng)
        window = localizer.solve_window([observations[member] for member in members], relative)
        single = localizer.solve_window([observations[last]], np.eye(4)[None])
        joint.append(pose_errors(window.world_from_camera, poses[last]))
        alone.append(pose_errors(single.world_from_camera, poses[last]))
    if not joint:
        return {"windows": 0}
    (cm, deg), (cm_alone, deg_alone) = np.median(joint, axis=0), np.median(alone, axis=0)
    return {
        "windows": len(joint),
        "translation_m": cm,
        "rotation_deg": deg,
        "alone_translation_m": cm_alone,
        "alone_rotation_deg": deg_alone,
    }


def odometry(poses: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(K, 4, 4) newest_from_camera of world_from_camera poses, each step disturbed by 1 % of its length and of its
    angle.
    """
    relative = [np.eye(4)]
    for before, after in zip(poses[-2::-1], poses[:0:-1], strict=True):
        step = invert(after) @ before
        turn = Rotation.from_matrix(step[:3, :3])
        length, angle = np.linalg.norm(step[:3, 3]), turn.magnitude()
        shaken = make_pose(
            (Rotation.from_rotvec(rng.normal(0, ODOMETRY_NOISE * angle / np.sqrt(3), 3)) * turn).as_matrix(),
            step[:3, 3] + rng.normal(0, ODOMETRY_NOISE * length / np.sqrt(3), 3),
        )
        relative.append(relative[-1] @ shaken)
    return np.stack(relative[::-1])


class _NoEncoder:
    device = torch.device("cpu")


def _observations(localizer: Localizer, val: Features) -> list[Observation]:
    data = val.chosen((12,), "parts", 1)
    result = []
    for index, frame in enumerate(val.recording.frames):
        rows = data.rows(index)
        context = data.context[index].float()
        with torch.inference_mode():
            rays = localizer.map.head(data.patches[rows].float(), context[None], data.camera_rays[rows])
        stages = {"prepare": 0.0, "encode": 0.0, "head": 0.0}
        result.append(
            Observation(
                grid=patch_grid(frame.camera, 448),
                rays=rays,
                context=context,
                cls=context[: val.width],
                stage_ms=stages,
            )
        )
    return result
