"""What a map file says by itself, without any image: the poses it was trained on, and what each mapped image looked
like as a whole.

Both stand in the global pose part (``head.global_pose``). Its weights w solve (K + ridge) w = t - offset, where t are
the poses of the mapped views; K follows from the stored places z, so that offset + (K + ridge) w gives the poses back.
``GlobalPose.mapped`` does that for updates of a map; an attacker can do it as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dimm_ros.audit.photos import EncodedImage
from dimm_ros.errors import InputError
from dimm_ros.evaluation.metrics import is_mapped
from dimm_ros.scene_map import SceneMap


@dataclass(frozen=True)
class RecoveredViews:
    """The mapped views as they are read out of a map's global pose regression.

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


@torch.inference_mode()
def check_place(scene_map: SceneMap, photos: list[EncodedImage], name: str, *, mapped: bool) -> None:
    """Refuse images by which attacks would fail for the wrong reason, and look harmless.

    Args:
        scene_map: a map without its global pose part cannot tell, and lets all pass.
        photos: that are to be of its place.
        name: what they come from, for the sentence.
        mapped: they are to be images that it was made from.

    Raises:
        InputError: they are of another place, or not those.
    """
    whole = scene_map.head.whole
    if whole is None or not photos:
        return
    contexts = torch.stack([photo.context for photo in photos]).to(whole.mean.device)
    novelty, limit = float(scene_map.head.whole(contexts)[2].median()), scene_map.header.calibration.max_novelty or 1.0
    if novelty > limit:
        raise InputError(
            f"'{name}' is of another place than map '{scene_map.header.name}' (novelty {novelty:.2f}, at most "
            f"{limit:.2f} there), so every attack would seem to fail; give the recording that the map was made from."
        )
    if mapped:
        path = read_out(scene_map).path
        known = sum(bool(is_mapped(photo.pose, path)) for photo in photos)
        if known < len(photos) / 2:
            raise InputError(
                f"'{name}' is not what map '{scene_map.header.name}' was made from: the map holds the poses of "
                f"{known} of {len(photos)} of its images, so it cannot judge the attacks; give that recording, "
                "with the --split that was mapped."
            )


def read_out(scene_map: SceneMap) -> RecoveredViews | None:
    """Poses and contexts of the mapped views; None for a map without the global pose part (``head.whole_share: 0``).

    Raises:
        InputError: the map was merged of several.
    """
    header = scene_map.header
    if header.parts:
        raise InputError(
            f"Map '{header.name}' was merged of {len(header.parts)} maps, which it holds as they were; audit each of "
            "them instead."
        )
    whole = scene_map.head.whole
    if whole is None:
        return None
    contexts, rotations, centres, recorded = whole.mapped()
    poses = np.tile(np.eye(4), (len(contexts), 1, 1))
    poses[:, :3, :3] = rotations.cpu().numpy()
    poses[:, :3, 3] = centres.cpu().numpy() * header.radius + header.origin
    return RecoveredViews(poses, contexts, recorded.cpu().numpy())
