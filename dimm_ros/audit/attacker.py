"""What a map file says by itself, without any image: the poses it was trained on, and what each mapped image looked like as a whole.

Both stand in the whole-image part (``head.whole_image``). Its weights w solve (K + ridge) w = t - offset, where t are the poses of the
mapped views; K follows from the stored places z, so that offset + (K + ridge) w gives the poses back. ``WholeImage.mapped`` does that
for updates of a map; an attacker can do it as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dimm_ros.errors import InputError
from dimm_ros.scene_map import SceneMap


@dataclass(frozen=True)
class Loot:
    """What was read out of a map's whole-image part.

    Attributes:
        poses: (V, 4, 4) world_from_camera of the mapped views, metres, the map's frame.
        contexts: (V, C) global contexts of these views, as far as the kept axes carry them.
        recorded: (V,) bool: which of the views are recorded images; the others are virtual views made from them.
    """

    poses: np.ndarray
    contexts: torch.Tensor
    recorded: np.ndarray

    @property
    def path(self) -> np.ndarray:
        """(N, 4, 4) world_from_camera of the recorded images, in the order of the recording."""
        return self.poses[self.recorded]


def read_out(scene_map: SceneMap) -> Loot | None:
    """Poses and contexts of the mapped views; None for a map without the whole-image part (``head.whole_share: 0``).

    Raises:
        InputError: the map was merged of several.
    """
    header = scene_map.header
    if header.parts:
        raise InputError(f"Map '{header.name}' was merged of {len(header.parts)} maps, which it holds as they were; audit each of them instead.")
    whole = scene_map.head.whole
    if whole is None:
        return None
    contexts, rotations, centres, recorded = whole.mapped()
    poses = np.tile(np.eye(4), (len(contexts), 1, 1))
    poses[:, :3, :3] = rotations.cpu().numpy()
    poses[:, :3, 3] = centres.cpu().numpy() * header.radius + header.origin
    return Loot(poses, contexts, recorded.cpu().numpy())
