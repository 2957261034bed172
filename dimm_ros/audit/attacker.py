"""What a map file says by itself, without any image: the poses it was trained on, and what each mapped image looked like as a whole.

Both stand in the whole-image part (``head.whole_image``). It solves (K + r) w = t - offset for its weights w, where t are the
poses of the mapped views; K and r follow from the stored places z, so that t = offset + (K + r) w gives the poses back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dimm_ros.head.whole_image import MAX_VIEWS, RIDGE, nearest_rotations
from dimm_ros.scene_map import SceneMap


@dataclass(frozen=True)
class Loot:
    """What was read out of a map's whole-image part.

    Attributes:
        poses: (V, 4, 4) world_from_camera of the mapped views, metres, the map's frame.
        contexts: (V, C) global contexts of these views, as far as the kept axes carry them.
        recorded: how many of the views, the first ones, are recorded images; the others are virtual views made from them.
    """

    poses: np.ndarray
    contexts: torch.Tensor
    recorded: int

    @property
    def path(self) -> np.ndarray:
        """(N, 4, 4) world_from_camera of the recorded images, in the order of the recording."""
        return self.poses[: self.recorded]


def read_out(scene_map: SceneMap) -> Loot | None:
    """Poses and contexts of the mapped views; None for a map without the whole-image part (``head.whole_share: 0``)."""
    whole, header = scene_map.head.whole, scene_map.header
    if whole is None:
        return None
    views, weights = whole.views.double().cpu(), whole.weights.double().cpu()
    kernel = torch.exp(-torch.cdist(views, views).square() / whole.spread.double().cpu())
    targets = whole.offset.double().cpu() + kernel @ weights + RIDGE * weights
    poses = np.tile(np.eye(4), (len(views), 1, 1))
    poses[:, :3, :3] = nearest_rotations(targets[:, 3:].reshape(-1, 3, 3)).numpy()
    poses[:, :3, 3] = targets[:, :3].numpy() * header.radius + header.origin
    contexts = whole.views @ whole.basis.T * whole.deviation + whole.mean
    # The images' own views come first; of more than 4096 views only every n-th was kept.
    frames, passes = sum(source.frames for source in header.sources), header.training.passes
    recorded = frames if len(views) < MAX_VIEWS else round(frames * MAX_VIEWS / max(frames * passes, MAX_VIEWS))
    return Loot(poses, contexts, min(recorded, len(views)))
