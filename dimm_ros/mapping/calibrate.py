"""Calibration of a map's self-knowledge on frames held out of its training: how large its errors are, and what it does not know."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dimm_ros.config import SolverConfig
from dimm_ros.geometry.poses import rotation_vector
from dimm_ros.head.whole_image import WholeImage
from dimm_ros.scene_map import Calibration, SceneMap
from dimm_ros.solver import solve_pose

_PERIOD, _BLOCK = 240, 40  # whole stretches: a single frame between its neighbours would make it too easy
_MIN_FRAMES = 12
_OUTLIER = 20.0  # times the expectation
_MIN_SHARE = 0.5  # of a view's patches: what is left of a virtual view must be like an image
_PRIOR, _GROWTH = 100.0, 1.25  # strength (in views) and value of what is believed of the growth before looking
_MARGIN = 1.4  # of the largest novelty over that of held-out views
_NOVELTY, _NOVELTY_OF_SHORT = (0.4, 0.6), (0.4, 1.5)  # bounds of the largest novelty: few views leave more that is new
_PARTS, _FEW_FRAMES = 8, 100


def held_out_frames(count: int) -> np.ndarray:
    """Indices of the held-out frames of a recording of ``count`` frames; none when it is short."""
    indices = np.arange(count)
    chosen = indices[(indices % _PERIOD) >= _PERIOD - _BLOCK]
    return chosen if len(chosen) >= _MIN_FRAMES else chosen[:0]


def novelty_limit(context: Tensor, rotations: Tensor, centres: Tensor, frame_of: Tensor) -> float:
    """The largest novelty that is still of this map, for a recording too short to hold frames out of the training.

    Each eighth of the recording is judged by a regression on the rest, which takes no training. Arguments as ``WholeImage.fit``,
    and the (V,) frames of the views.
    """
    part = frame_of.long() * _PARTS // (int(frame_of.max()) + 1)
    novelty = []
    for number in part.unique():
        rest = part != number
        novelty.append(WholeImage.fit(context[rest], rotations[rest], centres[rest])(context[~rest].float())[2].cpu().numpy())
    few = int(frame_of.max()) + 1 < _FEW_FRAMES
    return _limit(np.concatenate(novelty), _NOVELTY_OF_SHORT if few else _NOVELTY)


def _limit(novelty: np.ndarray, bounds: tuple[float, float]) -> float:
    return float(np.clip(_MARGIN * np.percentile(novelty, 99.5), *bounds))


def calibrate(scene_map: SceneMap, data: dict[str, Tensor], frames: np.ndarray, solver: SolverConfig | None = None) -> Calibration:
    """Standard deviations that held-out errors agree with, and the largest novelty that is still of this map.

    Standard deviations of position and rotation become

        factor (novelty / reference)^growth sigma

    with the growth from the logarithms of errors and novelty (a regression drawn to what other recordings showed), and the factor
    such that the normalised squares have their expectation. The held-out frames' virtual views count for the largest novelty alone:
    what makes them new is in part that they are not real.

    Args:
        scene_map: the map at hand, made without ``frames``.
        data: ``FeatureBuffer.tensors()``.
    """
    radius, origin = scene_map.header.radius, np.asarray(scene_map.header.origin)
    squares, novelties, recorded = [], [], []
    frame_of = data["frame_of"].numpy()
    sizes = torch.bincount(data["view_of"].long(), minlength=len(frame_of)).numpy()
    first = np.cumsum(sizes) - sizes
    for view in np.flatnonzero(np.isin(frame_of, frames) & (sizes >= _MIN_SHARE * sizes.max())):
        rows = slice(first[view], first[view] + sizes[view])
        device = next(scene_map.head.parameters()).device
        camera_rays = data["camera_rays"][rows].to(device)
        with torch.inference_mode():
            rays = scene_map.head(data["patches"][rows].to(device).float(), data["context"][view, None].to(device).float(), camera_rays)
            confident = rays.direction_scale is not None
            solution = solve_pose(
                camera_rays.double(), rays.directions, rays.moments * radius, config=solver or SolverConfig(),
                direction_sigma=rays.direction_scale if confident else None, moment_sigma=rays.moment_scale * radius if confident else None,
            )
        if not solution.ok:
            continue
        pose, covariance = solution.world_from_camera.cpu().numpy(), solution.covariance.cpu().numpy()
        offset = pose[:3, 3] + origin - data["centres"][view].numpy()
        turn = rotation_vector(pose[:3, :3] @ data["rotations"][view].numpy().T)
        squares.append([
            offset @ np.linalg.solve(covariance[:3, :3], offset) / 3, turn @ np.linalg.solve(covariance[3:, 3:], turn) / 3,
        ])
        recorded.append(view <= frame_of.max())  # the first pass
        novelties.append(1.0 if rays.novelty is None else float(rays.novelty[0]))
    if sum(recorded) < _MIN_FRAMES:
        return Calibration()
    all_novelty, squares = np.array(novelties), np.array(squares)[recorded]
    novelty = all_novelty[recorded]
    reference = float(np.median(novelty))
    growth = _growth(np.log(novelty / reference), squares)
    factor = _factor(squares / (novelty[:, None] / reference) ** (2 * growth))
    known = scene_map.head.whole is not None
    return Calibration(
        position_factor=float(factor[0]), rotation_factor=float(factor[1]), frames=len(frames), reference_novelty=reference,
        position_growth=float(growth[0]), rotation_growth=float(growth[1]),
        max_novelty=_limit(all_novelty, _NOVELTY) if known else None,
    )


def _growth(log_novelty: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """(2,) exponents of the standard deviations from the slope of half the logarithm of the squares."""
    centred = log_novelty - log_novelty.mean()
    spread = max(float(centred.var()), 1e-6)
    half = 0.5 * np.log(np.maximum(squares, 1e-12))
    slope = centred @ (half - half.mean(axis=0)) / (len(half) * spread)
    count = len(half) * min(1.0, spread)  # views that do not differ in novelty say nothing about the slope
    return np.clip((count * slope + _PRIOR * _GROWTH) / (count + _PRIOR), 0.0, 2.0)


def _factor(squares: np.ndarray) -> np.ndarray:
    """(2,) roots of the mean squares; one blunder must not inflate every covariance."""
    return np.sqrt(np.minimum(squares, _OUTLIER * np.median(squares, axis=0)).mean(axis=0))
