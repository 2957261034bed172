"""Feature matching with a map of points, as hloc (CVPR 2019) does it: what the ``sift`` and ``lightglue`` peers share.

Mapping: features of every image, matches of pairs that see the same place, kept if the known poses' epipolar geometry
allows them, joined to tracks and triangulated from the known poses by pycolmap. A query is matched with the images
whose CLS tokens are most similar; PoseLib solves for the pose.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmarks.peers.peer import Mapped, PeerResult, Stages, encoded, kept
from benchmarks.peers.pnp import pose_from_points
from dimm_ros.data.recording import Recording
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import invert
from dimm_ros.progress import ProgressCallback

TOP = 8  # retrieved images of a query
# of the images near an image, those it is matched with: near for many matches, further for parallax
_RANKS = (0, 1, 3, 7, 15, 31, 63)
_MAX_ANGLE_DEG = 50.0  # between the optical axes of a pair
# COLMAP's and hloc's thresholds, and the scale of their refinement's loss
_EPIPOLAR_PX, _PNP_PX, _LOSS_PX = (4.0, 12.0, 1.0)
_MIN_PARALLAX_DEG = 1.5  # of a point's rays, as COLMAP
_STEEP = 0.17  # z of a unit ray (80 degrees off the axis) below which no pinhole image is worth having


@dataclass(frozen=True)
class LocalFeatures:
    """Features of one image: (N, 2) pixels, (0, 0) the centre of the top-left one; (N, D) descriptors."""

    pixels: np.ndarray
    descriptors: np.ndarray


class Matcher(Protocol):
    """A kind of local feature, and how it is matched.

    Attributes:
        ranks: how many of ``_RANKS`` an image is matched with when the map is made.
    """

    name: str
    ranks: int

    def extract(self, image: np.ndarray) -> LocalFeatures:
        """Features of an (H, W, 3) uint8 RGB image."""

    def match(self, one: LocalFeatures, other: LocalFeatures, one_camera: Camera, other_camera: Camera) -> np.ndarray:
        """(M, 2) indices of matched features."""


@dataclass
class PointMap:
    """Features of the mapped images, which of them show which point, and the points; see ``peer.PeerMap``.

    Attributes:
        features: of each image.
        point_of: (N,) of each image: index of the point that a feature shows, -1 for none.
        points: (P, 3) world, metres.
        cls: (V, W) unit CLS tokens.
    """

    features: Sequence[LocalFeatures]
    point_of: Sequence[np.ndarray]
    points: np.ndarray
    cls: np.ndarray
    cameras: Sequence[Camera]
    matcher: Matcher
    encoder: Encoder

    @property
    def bytes(self) -> int:
        """Pixels in half precision, descriptors as they are stored, points in single, CLS tokens in half precision."""
        size = sum(each.descriptors.nbytes + 2 * 2 * len(each.pixels) + 4 * len(each.pixels) for each in self.features)
        return size + 3 * 4 * len(self.points) + 2 * self.cls.size

    def localize(self, image: np.ndarray, camera: Camera) -> PeerResult:
        """Matches with the retrieved images, and PnP on the points they show."""
        stages = Stages()
        tokens, _ = encoded(self.encoder, image, camera, stages)
        with stages("retrieve"):
            nearest = np.argsort(-(self.cls @ tokens.cls[0].float().numpy()))[:TOP]
        with stages("features"):
            query = self.matcher.extract(image)
        with stages("match"):
            found = set()
            for index in nearest:
                pairs = self.matcher.match(query, self.features[index], camera, self.cameras[index])
                points = self.point_of[index][pairs[:, 1]]
                found.update(zip(pairs[points >= 0, 0].tolist(), points[points >= 0].tolist(), strict=True))
            matched = np.array(sorted(found), dtype=int).reshape(-1, 2)
        with stages("solve"):
            rays, valid = camera.bearings(query.pixels[matched[:, 0]])
            pose = pose_from_points(rays[valid], self.points[matched[valid, 1]], camera.fx, _PNP_PX, _LOSS_PX)
        return PeerResult(pose, stages.ms)


def build_points(mapped: Mapped, matcher: Matcher, progress: ProgressCallback) -> PointMap:
    """Features, matches, points."""
    recording = mapped.recording
    features, mapped.seconds["extract"] = _features(recording, matcher, mapped.shared / matcher.name, progress)
    with mapped.timed("match"):
        pairs = _pairs(recording.poses(), matcher.ranks)
        matches = []
        geometry = [
            _Geometry.of(each, frame.camera, pose)
            for each, frame, pose in zip(features, recording.frames, recording.poses(), strict=True)
        ]
        for done, (one, other) in enumerate(pairs, start=1):
            found = matcher.match(
                features[one], features[other], recording.frames[one].camera, recording.frames[other].camera
            )
            matches.append(found[_agree(geometry[one], geometry[other], found)])
            progress("matching", done, len(pairs))
    with mapped.timed("triangulate"):
        points, point_of = _triangulate(geometry, pairs, matches, progress)
    cls = mapped.cls()
    return PointMap(
        features,
        point_of,
        points,
        cls / np.linalg.norm(cls, axis=1, keepdims=True),
        [frame.camera for frame in recording.frames],
        matcher,
        mapped.encoder,
    )


def _features(
    recording: Recording, matcher: Matcher, folder: Path, progress: ProgressCallback
) -> tuple[list[LocalFeatures], float]:
    """Features of all frames, kept in files from run to run, and the seconds that finding them took in all."""
    result, seconds = [], 0.0
    for done, frame in enumerate(recording.frames, start=1):
        found = kept(folder, frame, lambda image, _: asdict(matcher.extract(image)))
        seconds += float(found.pop("seconds"))
        result.append(LocalFeatures(**found))
        progress(f"{matcher.name} features", done, len(recording.frames))
    return result, seconds


@dataclass(frozen=True)
class _Geometry:
    """Features of an image on a pinhole's plane: (N, 2) pixels from its centre, (N,) which have any, (N, 3) world
    rays.
    """

    plane: np.ndarray
    valid: np.ndarray
    rays: np.ndarray
    world_from_camera: np.ndarray
    focal: float

    @classmethod
    def of(cls, features: LocalFeatures, camera: Camera, world_from_camera: np.ndarray) -> _Geometry:
        rays, valid = camera.bearings(features.pixels)
        valid &= rays[:, 2] > _STEEP
        plane = camera.fx * rays[:, :2] / np.maximum(rays[:, 2:], _STEEP)
        return cls(plane, valid, rays @ world_from_camera[:3, :3].T, world_from_camera, camera.fx)


def _pairs(poses: np.ndarray, ranks: int) -> list[tuple[int, int]]:
    """Pairs of images that look the same way from near places."""
    result = set()
    for index, pose in enumerate(poses):
        alike = poses[:, :3, 2] @ pose[:3, 2] > np.cos(np.radians(_MAX_ANGLE_DEG))
        alike[index] = False
        near = np.flatnonzero(alike)
        near = near[np.argsort(np.linalg.norm(poses[near, :3, 3] - pose[:3, 3], axis=1), kind="stable")]
        for rank in _RANKS[:ranks]:
            if rank < len(near):
                result.add((min(index, int(near[rank])), max(index, int(near[rank]))))
    return sorted(result)


def _agree(one: _Geometry, other: _Geometry, matches: np.ndarray) -> np.ndarray:
    """(M,) bool: matches whose rays pass each other within the epipolar threshold (the angle from the epipolar plane)
    in both images.
    """
    a, b = one.rays[matches[:, 0]], other.rays[matches[:, 1]]
    baseline = other.world_from_camera[:3, 3] - one.world_from_camera[:3, 3]
    length = np.linalg.norm(baseline)
    good = one.valid[matches[:, 0]] & other.valid[matches[:, 1]]
    if length < 1e-9:
        return good & ((a * b).sum(axis=1) > np.cos(_EPIPOLAR_PX / one.focal))
    for near, far, focal in ((a, b, other.focal), (b, a, one.focal)):
        normal = np.cross(baseline / length, near)
        sine = np.abs((far * normal).sum(axis=1)) / np.maximum(np.linalg.norm(normal, axis=1), 1e-9)
        good &= sine < _EPIPOLAR_PX / focal
    return good


def _triangulate(
    geometry: Sequence[_Geometry],
    pairs: Sequence[tuple[int, int]],
    matches: Sequence[np.ndarray],
    progress: ProgressCallback,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """(P, 3) points, and which of them each feature shows."""
    import pycolmap

    first = np.concatenate([[0], np.cumsum([len(each.valid) for each in geometry])])
    tracks = _tracks(first, pairs, matches)
    image_of = np.searchsorted(first, np.arange(first[-1]), side="right") - 1
    cameras = [pycolmap.Camera.create_from_model_name(1, "SIMPLE_PINHOLE", each.focal, 2, 2) for each in geometry]
    for camera in cameras:
        camera.params = [camera.params[0], 0.0, 0.0]
    poses = [pycolmap.Rigid3d(invert(each.world_from_camera)[:3]) for each in geometry]
    plane = np.concatenate([each.plane for each in geometry])
    options = pycolmap.EstimateTriangulationOptions()
    options.min_tri_angle = np.radians(_MIN_PARALLAX_DEG)
    options.residual_type = pycolmap.TriangulationResidualType.REPROJECTION_ERROR
    options.ransac.max_error = _EPIPOLAR_PX
    options.ransac.random_seed = 0
    points, point_of = [], np.full(first[-1], -1)
    for done, track in enumerate(tracks, start=1):
        images = image_of[track]
        found = pycolmap.estimate_triangulation(
            plane[track], [poses[image] for image in images], [cameras[image] for image in images], options
        )
        if found is not None:
            inliers = track[np.asarray(found["inliers"], dtype=bool)]
            if len(inliers) >= 2:
                point_of[inliers] = len(points)
                points.append(found["xyz"])
        if done % 1000 == 0 or done == len(tracks):
            progress("triangulating", done, len(tracks))
    return np.array(points, dtype=np.float64).reshape(-1, 3), np.split(point_of, first[1:-1])


def _tracks(first: np.ndarray, pairs: Sequence[tuple[int, int]], matches: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Indices of the features of each track: what chains of matches link."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ones = np.concatenate(
        [first[one] + found[:, 0] for (one, _), found in zip(pairs, matches, strict=True)] or [np.empty(0, int)]
    )
    others = np.concatenate(
        [first[other] + found[:, 1] for (_, other), found in zip(pairs, matches, strict=True)] or [np.empty(0, int)]
    )
    graph = coo_matrix((np.ones(len(ones), bool), (ones, others)), shape=(first[-1], first[-1]))
    _, label = connected_components(graph, directed=False)
    members = defaultdict(list)
    for feature in np.unique(np.concatenate([ones, others])):
        members[label[feature]].append(feature)
    return [np.array(each) for each in members.values()]
