"""Calibration of the covariance on frames held out of the training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dimm_ros.data.recording import Recording
from dimm_ros.encoder.dinov2 import Encoder, Tokens
from dimm_ros.encoder.patches import patch_grid
from dimm_ros.geometry.poses import rotation_vector
from dimm_ros.localizer import Localizer
from dimm_ros.scene_map import Calibration, SceneMap

_PERIOD, _BLOCK = 160, 20  # whole stretches: a single frame between its neighbours would make it too easy
_MIN_FRAMES = 12
_OUTLIER = 20.0  # times the median square


def held_out_frames(count: int) -> np.ndarray:
    """Indices of the held-out frames of a recording of ``count`` frames; none when it is short."""
    indices = np.arange(count)
    chosen = indices[(indices % _PERIOD) >= _PERIOD - _BLOCK]
    return chosen if len(chosen) >= _MIN_FRAMES else chosen[:0]


def calibrate(scene_map: SceneMap, recording: Recording, data: dict[str, Tensor], frames: np.ndarray, encoder: Encoder) -> Calibration:
    """Factors on the solver's standard deviations so that held-out errors have the expected normalised square.

    Args:
        scene_map: the map at hand, trained without ``frames``.
        data: the feature buffer; its first views are the recorded images.
    """
    localizer = Localizer(scene_map, encoder)
    squares = []
    for index in frames:
        grid = patch_grid(recording.frames[index].camera, encoder.config.input_size)
        rows = data["view_of"] == int(index)
        patches = torch.zeros(1, len(grid.rays), data["patches"].shape[1])
        patches[0, torch.from_numpy(np.array(grid.valid))] = data["patches"][rows].float()
        context = data["context"][index][None].float().to(encoder.device)
        tokens = Tokens(patches.to(encoder.device), context, context[:, : encoder.cls_dim])
        solution = localizer.solve(localizer.predict_rays(tokens, grid), grid)
        inliers = (solution.rotation_inliers & solution.centre_inliers).float().mean()
        if not solution.ok or inliers < localizer.acceptance.min_inlier_ratio:
            continue  # would not have been published
        pose, covariance = solution.world_from_camera.cpu().numpy(), solution.covariance.cpu().numpy()
        true = recording.frames[index].world_from_camera
        offset = pose[:3, 3] + scene_map.header.origin - true[:3, 3]
        turn = rotation_vector(pose[:3, :3] @ true[:3, :3].T)
        squares.append([
            offset @ np.linalg.solve(covariance[:3, :3], offset) / 3, turn @ np.linalg.solve(covariance[3:, 3:], turn) / 3,
        ])
    if len(squares) < _MIN_FRAMES:
        return Calibration()
    limited = np.minimum(squares, _OUTLIER * np.median(squares, axis=0))  # one blunder must not inflate every covariance
    position, rotation = np.sqrt(np.mean(limited, axis=0))
    return Calibration(position_factor=float(position), rotation_factor=float(rotation), frames=len(squares))
