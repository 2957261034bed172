"""Landmarks followed from image to image by optical flow (pyramids of Lucas and Kanade): a fifth of the time of
finding them anew.

What is followed was recognised by its descriptor once; from then on it is where it moved to. It drifts off slowly, so a
chain of images is short, and its landmarks are found anew after it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dimm_ros.geometry.camera import Camera
from dimm_ros.landmarks.keypoints import Keypoints, camera_pixels, keypoints_at
from dimm_ros.landmarks.locate import LandmarkResult, solve_known
from dimm_ros.landmarks.store import Landmarks
from dimm_ros.solver.landmarks import PosePrior

#: Images that landmarks are followed through before they are looked for anew, and the least number of them.
_LONGEST_CHAIN, _LEAST = 10, 60
#: Window and levels of the flow; what following there and back may be off, pixels of the small image.
_WINDOW, _LEVELS, _ROUND_TRIP_PX = 15, 3, 0.7


@dataclass(frozen=True)
class Followed:
    """Landmarks in an image from which the next one follows them.

    Attributes:
        grey: (h, w) uint8, the image reduced.
        pixels: (N, 2) float32 of the landmarks in it.
        landmarks: (N,) indices in the map.
        rotation: (3, 3) world_from_camera, as the recording would have it.
        map: whose indices these are.
        chain: images since the landmarks were recognised.
    """

    grey: np.ndarray
    pixels: np.ndarray
    landmarks: np.ndarray
    rotation: np.ndarray
    map: Landmarks
    chain: int = 0

    @classmethod
    def of(
        cls,
        grey: np.ndarray,
        camera: Camera,
        keypoints: Keypoints,
        found: LandmarkResult,
        landmarks: Landmarks,
        chain: int,
    ) -> Followed:
        """What agrees with a pose of one image."""
        rows = found.matched.keypoints[found.pose.inliers]
        pixels = (keypoints.pixels[rows] + 0.5) / camera_pixels(grey, camera) - 0.5
        agreeing = found.matched.landmarks[found.pose.inliers]
        return cls(grey, pixels.astype(np.float32), agreeing, found.world_from_rig[:3, :3], landmarks, chain)


def follow(
    before: Followed, grey: np.ndarray, camera: Camera, landmarks: Landmarks, prior: PosePrior
) -> tuple[LandmarkResult, Keypoints] | None:
    """Pose of an image that shows what the one before showed.

    Args:
        before: of the image before, of the same camera.
        grey: the image, reduced as that one was.
        camera: of the image at its own size.
        landmarks: of the map.
        prior: the predicted pose.

    Returns:
        The result, and where the landmarks are now; None where they are to be looked for anew: too few could be
        followed or agree, they were followed through many images, or ``before`` is of another size or map.
    """
    if before.chain >= _LONGEST_CHAIN or before.grey.shape != grey.shape or before.map is not landmarks:
        return None
    factor = camera_pixels(grey, camera)
    # The predicted turn moves nearly all there is to move from one image to the next.
    bearings, valid = camera.bearings((before.pixels + 0.5) * factor - 0.5)
    guess, front = camera.project(bearings @ before.rotation.T @ prior.rotation)
    guess = ((guess + 0.5) / factor - 0.5).astype(np.float32)
    guess = np.where((valid & front)[:, None], guess, before.pixels)
    options = {"winSize": (_WINDOW, _WINDOW), "maxLevel": _LEVELS, "flags": cv2.OPTFLOW_USE_INITIAL_FLOW}
    there, found, _ = cv2.calcOpticalFlowPyrLK(before.grey, grey, before.pixels, guess.copy(), **options)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(grey, before.grey, there, before.pixels.copy(), **options)
    round_trip = np.linalg.norm(back - before.pixels, axis=1)
    good = (found[:, 0] & found_back[:, 0]).astype(bool) & (round_trip < _ROUND_TRIP_PX)
    keypoints, valid = keypoints_at(there[good], np.empty((good.sum(), 0), np.uint8), grey, camera)
    rows = np.flatnonzero(good)[valid]
    if len(rows) < _LEAST:
        return None
    result = solve_known(keypoints, before.landmarks[rows], round_trip[rows], landmarks, prior)
    if result is None or not result.proven or result.pose.inliers.sum() < _LEAST:
        return None
    return result, keypoints
