"""The images that an attacker may hold, as the encoder sees them, and the truth about them where it is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from dimm_ros.data.recording import Frame
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.encoder.patches import fit, normalise, patch_grid
from dimm_ros.geometry.camera import Camera

_BETWEEN_PIXELS = 8  # of a depth image that the true surface is taken from
_NEAREST_M, _FURTHEST_M = 0.2, 20.0
_ROOM_SEED = 97


@dataclass(frozen=True)
class EncodedImage:
    """An image with its tokens.

    Attributes:
        patches: (P, D) float16 tokens, row by row.
        context: (C,) global context.
        camera_rays: (P, 3) float32 unit rays through the patch centres.
        shape: rows and columns of the patches.
        image: (h, w, 3) uint8 RGB as the encoder saw it, small; None where it is not kept.
        pose: (4, 4) true world_from_camera; None where it is not known.
        points: (P, 3) true world points that the patches show, metres, NaN where unknown; None without depth.
        surface: (S, 3) other true points of what the image shows, metres; None without depth.
    """

    patches: Tensor
    context: Tensor
    camera_rays: Tensor
    shape: tuple[int, int]
    image: np.ndarray | None = None
    pose: np.ndarray | None = None
    points: np.ndarray | None = None
    surface: np.ndarray | None = None


def take(
    frames: Iterable[Frame], encoder: Encoder, progress: Callable[[int], object] = lambda done: None
) -> list[EncodedImage]:
    """Encode frames; ``progress`` is called with how many are done."""
    photos = []
    for frame in frames:
        grid = patch_grid(frame.camera, encoder.config.input_size)
        image = fit(frame.load(), frame.camera, grid)
        tokens = encoder.encode(torch.from_numpy(normalise(image))[None])
        points, surface = true_points(frame, np.array(grid.rays))
        photos.append(
            EncodedImage(
                patches=tokens.patches[0].half().cpu(),
                context=tokens.context[0].float().cpu(),
                camera_rays=torch.from_numpy(np.array(grid.rays)).float(),
                shape=(grid.rows, grid.columns),
                image=image,
                pose=frame.world_from_camera,
                points=points,
                surface=surface,
            )
        )
        progress(len(photos))
    return photos


def foreign_frames(count: int) -> list[Frame]:
    """Rendered images of a room that nobody has been in."""
    from dimm_ros.gallery.render import render
    from dimm_ros.gallery.scene import build_room
    from dimm_ros.gallery.trajectory import LAP_SECONDS, MOUNTS, trajectory

    room, camera = build_room(_ROOM_SEED, photographs=False), Camera(448, 336, 300.0, 300.0, 223.5, 167.5)
    stamps, poses = trajectory(_ROOM_SEED, LAP_SECONDS, count / LAP_SECONDS)
    poses = poses @ MOUNTS["handheld"]
    return [
        Frame(f"render {number}", int(stamp), camera, pose, partial(render, room, camera, pose))
        for number, (stamp, pose) in enumerate(zip(stamps[:count], poses[:count], strict=True))
    ]


def true_points(frame: Frame, rays: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """World points (P, 3) that (P, 3) camera rays of a frame hit, NaN where its depth image says nothing, and (S, 3)
    more of them.

    The depth camera is taken to stand where the colour camera does; a data set's may be centimetres beside.
    """
    if frame.load_depth is None or frame.world_from_camera is None:
        return None, None
    depth, camera, pose = frame.load_depth(), frame.depth_camera, frame.world_from_camera
    height, width = depth.shape
    pixels, front = camera.project(rays)
    column, row = (
        np.clip(np.nan_to_num(np.rint(pixels[:, axis])), 0, size - 1).astype(int)
        for axis, size in ((0, width), (1, height))
    )
    along = np.where(front & camera.contains(pixels), depth[row, column], np.nan)
    points = _placed(rays, along, pose)
    rows, columns = np.mgrid[0:height:_BETWEEN_PIXELS, 0:width:_BETWEEN_PIXELS]
    denser, _ = camera.bearings(np.stack([columns, rows], axis=-1).reshape(-1, 2))
    surface = _placed(denser, depth[rows, columns].ravel(), pose)
    return points, surface[np.isfinite(surface).all(axis=1)]


def _placed(rays: np.ndarray, depth: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """World points at depths along the optical axis, NaN where there is none."""
    known = (depth > _NEAREST_M) & (depth < _FURTHEST_M)
    local = rays / rays[:, 2:] * np.where(known, depth, np.nan)[:, None]
    return local @ pose[:3, :3].T + pose[:3, 3]
