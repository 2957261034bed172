"""Places of tracks from the known poses: iteratively reweighted least squares on rays, all tracks at once.

A ray from c in direction d passes X at (I - d d^T)(X - c); weighted by the inverse square of the distance this is the
angle that the keypoint is off. The kernel (Geman-McClure) narrows from wide to the threshold, so that a wrong match of
a track is left out instead of bending it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dimm_ros.landmarks.tracks import Tracks

#: Thresholds: of an observation in pixels, of the angle between a point's rays in degrees; views of a point.
MAX_PIXELS, MIN_ANGLE_DEG, MIN_VIEWS = 4.0, 1.5, 2
_STEPS, _WIDEST, _NARROWING = 12, 32.0, 0.6


@dataclass(frozen=True)
class Structure:
    """Where tracks are.

    Attributes:
        points: (T, 3) world; meaningless where not ``good``.
        good: (T,) bool: seen by enough images from far enough apart.
        agrees: (K,) bool: observations that the point explains, one an image at most.
        views: (T,) number of them.
    """

    points: np.ndarray
    good: np.ndarray
    agrees: np.ndarray
    views: np.ndarray


def triangulate(tracks: Tracks, world_from_camera: np.ndarray) -> Structure:
    """Places of tracks.

    Args:
        tracks: of images with known poses.
        world_from_camera: (N, 4, 4) of all images.
    """
    poses, count, track = world_from_camera[tracks.image], tracks.count, tracks.track
    rays, centres = np.einsum("kij,kj->ki", poses[:, :3, :3], tracks.bearings), poses[:, :3, 3]
    across = np.eye(3) - rays[:, :, None] * rays[:, None, :]

    def summed(values: np.ndarray) -> np.ndarray:
        flat = values.reshape(len(values), int(np.prod(values.shape[1:])))
        sums = np.stack([np.bincount(track, column, count) for column in flat.T], axis=1)
        return sums.reshape(count, *values.shape[1:]).astype(float)  # without any track they would be integers

    # About the middle of a track's cameras and in units of the route: the little damping below pulls towards nought.
    middle = summed(centres) / np.maximum(np.bincount(track, minlength=count), 1)[:, None]
    unit = (np.linalg.norm(centres - centres.mean(axis=0), axis=1).mean() if len(centres) else 0.0) or 1.0
    offsets = np.einsum("kij,kj->ki", across, centres - middle[track])

    def solved(weights: np.ndarray) -> np.ndarray:
        normal = summed(weights[:, None, None] * across)
        normal += (1e-12 * np.trace(normal, axis1=1, axis2=2) + 1e-15)[:, None, None] * np.eye(3)
        return middle + np.linalg.solve(normal, summed(weights[:, None] * offsets)[:, :, None])[:, :, 0]

    def errors(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Directions, distances, and angles in pixels (infinite behind the camera)."""
        arms = points[track] - centres
        distance = np.maximum(np.linalg.norm(arms, axis=1), 1e-9)
        angle = np.linalg.norm(np.cross(rays, arms), axis=1) / distance / tracks.sigma
        return arms / distance[:, None], distance, np.where((rays * arms).sum(axis=1) > 0, angle, np.inf)

    points = solved(np.ones(len(track)))
    for step in range(_STEPS):
        _, distance, error = errors(points)
        width = max(MAX_PIXELS, _WIDEST * _NARROWING**step)
        weights = (1.0 + (error / width) ** 2) ** -2 / np.maximum(distance / unit, 0.02) ** 2
        points = solved(np.where(np.isfinite(error), weights, 0.0) + 1e-12)
    directions, _, error = errors(points)
    agrees = (error < MAX_PIXELS) & _one_an_image(track, tracks.image, error)
    views = np.bincount(track[agrees], minlength=count)
    mean = summed(np.where(agrees[:, None], directions, 0.0))
    mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-9)
    apart = np.arccos(np.clip((directions * mean[track]).sum(axis=1), -1.0, 1.0))
    widest = np.zeros(count)
    np.maximum.at(widest, track[agrees], apart[agrees])
    good = (views >= MIN_VIEWS) & (2.0 * widest >= np.radians(MIN_ANGLE_DEG)) & np.isfinite(points).all(axis=1)
    return Structure(points, good, agrees, views)


def _one_an_image(track: np.ndarray, image: np.ndarray, error: np.ndarray) -> np.ndarray:
    """(K,) bool: the best observation that a track has in an image."""
    order = np.lexsort((error, image, track))
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(track[order]) != 0) | (np.diff(image[order]) != 0)
    result = np.zeros(len(order), bool)
    result[order[first]] = True
    return result
