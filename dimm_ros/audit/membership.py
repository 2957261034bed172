"""Was this image mapped? Is it of this place? What a map answers to someone who holds an image and the map file."""

from __future__ import annotations

import numpy as np
import torch

from dimm_ros.audit.photos import EncodedImage
from dimm_ros.audit.structure import confidence
from dimm_ros.scene_map import SceneMap

#: How an attacker may ask, and what of the map he needs for it.
SCORES = {
    "novelty": "distance from the nearest stored context",
    "confidence": "the head's own predicted errors",
    "mean context": "distance from the mean context, which every map stores",
}


@torch.inference_mode()
def scores(scene_map: SceneMap, photos: list[EncodedImage]) -> dict[str, np.ndarray]:
    """(N,) scores of images by each way to ask, larger for members; those that the map does not allow are left out."""
    head = scene_map.head
    device = head.context_mean.device
    contexts = torch.stack([photo.context for photo in photos]).to(device)
    result = {}
    if head.whole is not None:
        result["novelty"] = -head.whole(contexts)[2].double().cpu().numpy()
    if scene_map.header.head.confidence:
        bare = head.alone()
        result["confidence"] = np.array([confidence(bare, photo) for photo in photos])
    standardised = (contexts - head.context_mean) / head.context_std
    result["mean context"] = -standardised.square().mean(dim=1).double().cpu().numpy()
    return result


def auc(members: np.ndarray, others: np.ndarray) -> float:
    """Probability that a member scores higher than another, ties counting half: 0.5 is a guess, 1 is certain."""
    higher = (members[:, None] > others).mean() + 0.5 * (members[:, None] == others).mean()
    return float(higher)
