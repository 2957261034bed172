"""Matched features of image pairs, found without looking at the poses that are to be judged.

Clips of frames at doubling distances (0, 1, 2, 4, ... frames) are spread over the recording; within each, every pair is
matched (RootSIFT, ratio test, mutual), freed of mismatches by a fundamental matrix (no focal length assumed), and kept
if the camera moved enough for parallax.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, groupby

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from dimm_ros.data.recording import Frame
from dimm_ros.errors import DataError
from dimm_ros.geometry.camera import Camera
from dimm_ros.progress import StepCallback

_SIZE = 640  # longer side of the image that features are found in
_FEATURES = 800
_RATIO = 0.8
_STEPS = (0, 1, 2, 4, 8, 16, 32)  # frames of a clip
_MIN_MATCHES, _MAX_MATCHES = 25, 60  # of a pair
_MAX_PAIRS = 8  # of a clip: those with the most parallax
_MIN_PARALLAX = 0.008  # of the image's longer side: less drowns in the noise of the features
_MAX_ANGLE = np.cos(np.radians(60))  # farther from the axis, a plane of projection stretches noise too much
_F_THRESHOLD_PX = 1.5


@dataclass(frozen=True)
class Matches:
    """Matches of P image pairs, N in all, ordered by pair.

    Attributes:
        frames: (P, 2) indices of the pairs' frames.
        clip: (P,) number of the clip that a pair is of; pairs of one clip err together.
        pair: (N,) which pair a match is of.
        pixels: (2, N, 2) where it is in the first and in the second image.
        cameras: the camera of each frame of the recording that occurs, by its index.
        floor_px: (P,) median distance of the matches from the epipolar lines that fit them best.
        parallax_px: (P,) median shift that no rotation explains (as far as the focal length is right).
        tried: pairs with enough matches, whatever their parallax.
    """

    frames: np.ndarray
    clip: np.ndarray
    pair: np.ndarray
    pixels: np.ndarray
    cameras: dict[int, Camera]
    floor_px: np.ndarray
    parallax_px: np.ndarray
    tried: int

    def __len__(self) -> int:
        return len(self.frames)


def match_recording(frames: Sequence[Frame], *, clips: int = 20, progress: StepCallback | None = None) -> Matches:
    """Match image pairs of a recording.

    Args:
        frames: in time order; images that cannot be read are passed over.
        clips: how many places of the recording are looked at.
        progress: called with clips done and in all.
    """
    reach = min(_STEPS[-1], max(1, len(frames) // 3))
    steps = [step for step in _STEPS if step <= reach]
    starts = np.unique(np.linspace(0, max(0, len(frames) - 1 - steps[-1]), clips).astype(int))
    cache: dict[int, _Features | None] = {}
    found: list[_Pair] = []
    used: set[tuple[int, int]] = set()
    for clip, start in enumerate(starts):
        members = [int(start) + step for step in steps if start + step < len(frames)]
        for index in members:
            if index not in cache:
                cache[index] = _features(frames[index])
        for first, second in combinations(members, 2):
            if (first, second) not in used and cache[first] is not None and cache[second] is not None:
                used.add((first, second))
                pair = _match(first, second, cache[first], cache[second], clip)
                if pair is not None:
                    found.append(pair)
        # Later clips start later: what lies before is not needed again.
        cache = {index: features for index, features in cache.items() if index > start}
        if progress is not None:
            progress(clip + 1, len(starts))
    moved = sorted(
        (pair for pair in found if pair.parallax_px > _MIN_PARALLAX * pair.size),
        key=lambda pair: (pair.clip, -pair.parallax_px),
    )
    kept = [pair for _, clip in groupby(moved, key=lambda pair: pair.clip) for pair in list(clip)[:_MAX_PAIRS]]
    indices = sorted({index for pair in kept for index in pair.frames})
    return Matches(
        frames=np.array([pair.frames for pair in kept], dtype=int).reshape(-1, 2),
        clip=np.array([pair.clip for pair in kept], dtype=int),
        pair=np.repeat(np.arange(len(kept)), [pair.pixels.shape[1] for pair in kept])
        if kept
        else np.empty(0, dtype=int),
        pixels=np.concatenate([pair.pixels for pair in kept], axis=1) if kept else np.empty((2, 0, 2)),
        cameras={index: frames[index].camera for index in indices},
        floor_px=np.array([pair.floor_px for pair in kept]),
        parallax_px=np.array([pair.parallax_px for pair in kept]),
        tried=len(found),
    )


@dataclass(frozen=True)
class _Features:
    """pixels (N, 2) of the stored image, plane (N, 2) of the pinhole without distortion, rays (N, 3), descriptors (N,
    128).
    """

    pixels: np.ndarray
    plane: np.ndarray
    rays: np.ndarray
    descriptors: np.ndarray
    camera: Camera


@dataclass(frozen=True)
class _Pair:
    frames: tuple[int, int]
    clip: int
    pixels: np.ndarray
    floor_px: float
    parallax_px: float
    size: int


def _features(frame: Frame) -> _Features | None:
    try:
        image = frame.load()
    except DataError:
        return None  # the check of the images reports it
    camera = frame.camera
    scale = min(1.0, _SIZE / max(camera.width, camera.height))
    small = camera.scaled(max(1, round(camera.width * scale)), max(1, round(camera.height * scale)))
    grey = cv2.resize(
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (small.width, small.height), interpolation=cv2.INTER_AREA
    )
    points, descriptors = cv2.SIFT_create(nfeatures=_FEATURES).detectAndCompute(grey, None)
    if len(points) < _MIN_MATCHES:
        return None
    factor = np.array([camera.width / small.width, camera.height / small.height])
    pixels = (np.array([point.pt for point in points]) + 0.5) * factor - 0.5
    rays, valid = camera.bearings(pixels)
    valid &= rays[:, 2] > _MAX_ANGLE
    descriptors = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9))
    plane = rays[:, :2] / np.maximum(rays[:, 2:], 1e-9) * [camera.fx, camera.fy]
    return _Features(
        pixels=pixels[valid], plane=plane[valid], rays=rays[valid], descriptors=descriptors[valid], camera=camera
    )


def _match(first: int, second: int, a: _Features, b: _Features, clip: int) -> _Pair | None:
    if min(len(a.pixels), len(b.pixels)) < _MIN_MATCHES:
        return None
    rows = np.arange(len(a.pixels))
    distance = 2 - 2 * (a.descriptors @ b.descriptors.T)  # squared, of unit vectors
    nearest = distance.argmin(axis=1)
    best = distance[rows, nearest]
    back = distance.argmin(axis=0)
    second_best = np.partition(distance, 1, axis=1)[:, 1]
    good = np.flatnonzero((back[nearest] == rows) & (best < _RATIO**2 * second_best))
    if len(good) < _MIN_MATCHES:
        return None
    one, other = good, nearest[good]
    size = max(a.camera.width, a.camera.height)
    threshold = _F_THRESHOLD_PX * max(1.0, size / _SIZE)
    try:
        fundamental, mask = cv2.findFundamentalMat(
            a.plane[one], b.plane[other], cv2.USAC_MAGSAC, threshold, 0.999, 2000
        )
    except cv2.error:  # OpenCV 5 asserts where it finds no model
        return None
    if fundamental is None or fundamental.shape != (3, 3):
        return None
    inliers = np.flatnonzero(mask.ravel())
    if len(inliers) < max(_MIN_MATCHES, 0.3 * len(good)):
        return None
    inliers = inliers[np.unique(np.linspace(0, len(inliers) - 1, _MAX_MATCHES).astype(int))]
    one, other = one[inliers], other[inliers]
    turned = Rotation.align_vectors(b.rays[other], a.rays[one])[0].apply(a.rays[one])
    focal = (b.camera.fx + b.camera.fy) / 2
    parallax = focal * float(np.median(np.linalg.norm(np.cross(turned, b.rays[other]), axis=1)))
    pixels = np.stack([a.pixels[one], b.pixels[other]])
    return _Pair(
        frames=(first, second),
        clip=clip,
        pixels=pixels,
        floor_px=_floor(fundamental, a.plane[one], b.plane[other]),
        parallax_px=parallax,
        size=size,
    )


def _floor(fundamental: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Median symmetric distance from the epipolar lines of a fundamental matrix, pixels."""
    a, b = (np.column_stack([points, np.ones(len(points))]) for points in (a, b))
    lines_b, lines_a = a @ fundamental.T, b @ fundamental
    residual = np.abs((b * lines_b).sum(axis=1))
    distances = [residual / np.maximum(np.linalg.norm(lines[:, :2], axis=1), 1e-12) for lines in (lines_a, lines_b)]
    return float(np.median(np.mean(distances, axis=0)))
