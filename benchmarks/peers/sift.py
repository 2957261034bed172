"""hloc with SIFT: pycolmap's SIFT (COLMAP's settings), ratio test and mutual matches, points from the known poses, PnP
+ RANSAC.
"""

from __future__ import annotations

import numpy as np

from benchmarks.peers.matching import LocalFeatures, PointMap, build_points
from benchmarks.peers.peer import Mapped
from dimm_ros.geometry.camera import Camera
from dimm_ros.progress import ProgressCallback

NAME = "sift"
TITLE = "hloc with SIFT (pycolmap features and triangulation, PoseLib)"
NEEDS = ("pycolmap", "poselib")
FEATURES = False  # of recorded images alone, which it encodes itself
#: What two CPU cores leave time for: images mapped, queries answered at most; the table says so.
MAPPED, QUERIES = 150, 25

_FEATURES = 1500  # keypoints; some have two orientations
_RATIO, _MAX_ANGLE = 0.8, 0.7  # COLMAP's


class ColmapSift:
    """COLMAP's SIFT with its matching criterion; see ``matching.Matcher``."""

    name, ranks = NAME, 7

    def __init__(self) -> None:
        import pycolmap

        pycolmap.logging.minloglevel = pycolmap.logging.Level.WARNING
        options = pycolmap.FeatureExtractionOptions()
        options.use_gpu, options.num_threads, options.sift.max_num_features = False, 1, _FEATURES
        self._bitmap, self._extractor = (
            pycolmap.Bitmap.from_array,
            pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu),
        )

    def extract(self, image: np.ndarray) -> LocalFeatures:
        """COLMAP counts pixels from the corner of the top-left one, we from its centre."""
        grey = np.ascontiguousarray(np.rint(image @ [0.299, 0.587, 0.114]).astype(np.uint8))
        keypoints, descriptors = self._extractor.extract(self._bitmap(grey))
        pixels = np.array([(point.x - 0.5, point.y - 0.5) for point in keypoints], dtype=np.float32).reshape(-1, 2)
        return LocalFeatures(pixels, np.ascontiguousarray(descriptors.data, dtype=np.uint8))

    def match(self, one: LocalFeatures, other: LocalFeatures, one_camera: Camera, other_camera: Camera) -> np.ndarray:
        """Nearest neighbours by angle that are mutual and pass the ratio test both ways, as COLMAP's brute force
        matcher.
        """
        if min(len(one.pixels), len(other.pixels)) < 2:
            return np.empty((0, 2), int)
        a, b = (each.descriptors.astype(np.float32) for each in (one, other))
        cosine = (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T
        nearest, back = cosine.argmax(axis=1), cosine.argmax(axis=0)
        rows = np.flatnonzero(back[nearest] == np.arange(len(nearest)))
        columns = nearest[rows]
        best = cosine[rows, columns]
        cosine[
            rows, columns
        ] = -1.0  # the best of its row and of its column, so what is left is the second best of both
        second = np.maximum(cosine.max(axis=1)[rows], cosine.max(axis=0)[columns])
        angle, other_angle = np.arccos(np.clip(best, -1, 1)), np.arccos(np.clip(second, -1, 1))
        good = (angle <= _MAX_ANGLE) & (angle < _RATIO * other_angle)
        return np.column_stack([rows[good], columns[good]])


def build(mapped: Mapped, progress: ProgressCallback) -> PointMap:
    """Points of the mapped images' SIFT features."""
    return build_points(mapped, ColmapSift(), progress)
