"""Tracks: keypoints of several images that show one thing of the scene, joined from pairwise matches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from dimm_ros.landmarks.keypoints import Keypoints


@dataclass(frozen=True)
class Tracks:
    """Observations of T tracks, K in all.

    Attributes:
        track: (K,) which track an observation belongs to, 0 to T - 1.
        image: (K,) which image it is in.
        bearings: (K, 3) unit ray in the optical frame of that image.
        sigma: (K,) angle of a pixel there, radians.
        descriptors: (K, D) uint8.
    """

    track: np.ndarray
    image: np.ndarray
    bearings: np.ndarray
    sigma: np.ndarray
    descriptors: np.ndarray

    @property
    def count(self) -> int:
        """T."""
        return int(self.track.max(initial=-1)) + 1

    def of_images(self, chosen: np.ndarray) -> Tracks:
        """The observations in some images, (N,) bool; tracks keep their numbers."""
        kept = chosen[self.image]
        return Tracks(**{name: getattr(self, name)[kept] for name in self.__dataclass_fields__})


def join_matches(keypoints: Sequence[Keypoints], pairs: np.ndarray, matches: Sequence[np.ndarray]) -> Tracks:
    """Tracks from matches.

    Args:
        keypoints: of each image.
        pairs: (P, 2) images.
        matches: of each pair, (M, 2) indices of keypoints.
    """
    first = np.concatenate([[0], np.cumsum([len(each) for each in keypoints])])
    ends = [first[pair] + found for pair, found in zip(pairs, matches, strict=True) if len(found)]
    joined = np.concatenate(ends) if ends else np.empty((0, 2), int)
    graph = coo_matrix((np.ones(len(joined)), (joined[:, 0], joined[:, 1])), (first[-1], first[-1]))
    label = connected_components(graph, directed=False)[1] if len(joined) else np.empty(0, int)
    used = np.unique(joined)
    track = np.unique(label[used], return_inverse=True)[1] if len(used) else np.empty(0, int)
    image = np.searchsorted(first, used, side="right") - 1

    def gathered(name: str) -> np.ndarray:
        return np.concatenate([getattr(each, name) for each in keypoints])[used]

    sigma = np.array([each.sigma for each in keypoints])[image]
    return Tracks(
        track=track, image=image, bearings=gathered("bearings"), sigma=sigma, descriptors=gathered("descriptors")
    )


def epipolar_agreement(
    one: Keypoints, other: Keypoints, one_pose: np.ndarray, other_pose: np.ndarray, matches: np.ndarray, pixels: float
) -> np.ndarray:
    """(M,) bool: matches whose rays pass each other within so many pixels in both images, as the known poses say.

    Args:
        one, other: keypoints.
        one_pose, other_pose: (4, 4) world_from_camera.
        matches: (M, 2) indices.
    """
    a = one.bearings[matches[:, 0]] @ one_pose[:3, :3].T
    b = other.bearings[matches[:, 1]] @ other_pose[:3, :3].T
    baseline = other_pose[:3, 3] - one_pose[:3, 3]
    length = np.linalg.norm(baseline)
    if length < 1e-9:
        return np.linalg.norm(a - b, axis=1) < pixels * max(one.sigma, other.sigma)
    good = np.ones(len(matches), bool)
    for near, far, sigma in ((a, b, other.sigma), (b, a, one.sigma)):
        normal = np.cross(baseline / length, near)
        sine = np.abs((far * normal).sum(axis=1)) / np.maximum(np.linalg.norm(normal, axis=1), 1e-9)
        good &= sine < pixels * sigma
    return good
