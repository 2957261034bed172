"""Landmarks of a recording: keypoints, matches of chosen pairs, tracks, places; calibrated on frames that are left
out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from dimm_ros.config import LandmarkConfig
from dimm_ros.data.recording import Frame
from dimm_ros.errors import DataError
from dimm_ros.landmarks.calibrate import (
    HeldOut,
    LandmarkCalibration,
    calibrate_landmarks,
    landmark_reach,
    left_out,
    outermost,
)
from dimm_ros.landmarks.keyframes import choose_keyframes
from dimm_ros.landmarks.keypoints import Keypoints, detector_of, find_keypoints, quantised, unit
from dimm_ros.landmarks.locate import LandmarkResult, locate
from dimm_ros.landmarks.matching import mutual_matches
from dimm_ros.landmarks.pairs import choose_pairs
from dimm_ros.landmarks.store import Landmarks, hide_in_lines
from dimm_ros.landmarks.tracks import Tracks, epipolar_agreement, join_matches
from dimm_ros.landmarks.triangulation import MAX_PIXELS, Structure, triangulate
from dimm_ros.landmarks.warp import Warp
from dimm_ros.prefetch import prefetched
from dimm_ros.progress import ProgressCallback

#: Least share of matches that the poses' epipolar geometry allows: below it poses and images do not belong together.
_MIN_AGREEMENT, _MATCHES_THAT_TELL = 0.15, 30
#: Fewer landmarks than this are none: a few keypoints on a white wall prove nothing.
MIN_LANDMARKS = 50
_STRONGEST = 1000  # keypoints of an image that tell what its recorded pose is off
_FAR_QUERIES = 24  # frames at the recording's end that are looked for by what the rest of it shows


@dataclass(frozen=True)
class BuiltLandmarks:
    """Landmarks of a recording.

    Attributes:
        landmarks: about the origin given, or None where the images show too little; ``note`` says so.
        calibration: what frames that were left out say of their errors.
        images: that they were made of.
        seconds: that it took.
        note: one sentence for the user, or empty.
    """

    landmarks: Landmarks | None
    calibration: LandmarkCalibration
    images: int
    seconds: float
    note: str = ""


def build_landmarks(
    frames: Sequence[Frame], origin: np.ndarray, config: LandmarkConfig, progress: ProgressCallback | None = None
) -> BuiltLandmarks | None:
    """Make landmarks of posed images.

    Args:
        frames: of one place.
        origin: (3,) of the map, metres: landmarks are stored about it.
        config: what kind, how many.
        progress: see ``ProgressCallback``.

    Returns:
        None when ``progress`` asked to stop.

    Raises:
        DataError: an image cannot be read, or the poses contradict the images.
    """
    begun, progress = time.perf_counter(), progress or (lambda *_: False)
    frames = [
        frames[index]
        for index in choose_keyframes(np.stack([frame.world_from_camera for frame in frames]), config.images)
    ]
    poses = np.stack([frame.world_from_camera for frame in frames])
    poses[:, :3, 3] -= origin
    keypoints = _all_keypoints(frames, config, progress)
    if keypoints is None:
        return None
    pairs = choose_pairs(poses)
    matches = _all_matches(keypoints, poses, pairs, progress)
    if matches is None:
        return None
    tracks = join_matches(keypoints, pairs, matches)

    def points_of(images: np.ndarray) -> Landmarks:
        chosen = tracks.of_images(images)
        return keep_best(chosen, triangulate(chosen, poses), poses, config.most)

    # Lines, too, are judged as the points that they hide: without a prior they hardly fix a pose.
    landmarks = points_of(np.ones(len(frames), bool))
    seconds = time.perf_counter() - begun
    if len(landmarks) < MIN_LANDMARKS:
        note = (
            f"The images show only {len(landmarks)} landmarks (at least {MIN_LANDMARKS} are needed): few keypoints, or "
            "too little movement between them; the map answers from rays alone."
        )
        return BuiltLandmarks(None, LandmarkCalibration(), len(frames), seconds, note)

    def located(seen: Keypoints) -> LandmarkResult | None:
        """Without a prior, as what an image shows wherever it is: by the recorded pose it would share its error."""
        return locate([seen.strongest(_STRONGEST)], np.eye(4)[None], landmarks, None)

    known = _with_progress("poses", located, keypoints, progress)
    if known is None:
        return None

    def warp_of(chosen: np.ndarray) -> Warp | None:
        rows = [index for index in np.flatnonzero(chosen) if known[index] is not None and known[index].proven]
        return Warp.of([known[index].world_from_rig for index in rows], poses[rows], landmarks.seen_distance)

    def without(out: np.ndarray, asked: np.ndarray) -> HeldOut:
        # What the others' poses are off stays as all landmarks said: to locate them again would take a minute.
        kept = np.ones(len(frames), bool)
        kept[out] = False
        shown = replace(points_of(kept), warp=warp_of(kept))
        return HeldOut(shown, [keypoints[index] for index in asked], poses[asked], poses[kept])

    calibration = calibrate_landmarks([without(apart, apart) for apart in left_out(len(frames))])
    far = np.flatnonzero(outermost(poses))
    asked = far[np.unique(np.linspace(0, len(far) - 1, min(_FAR_QUERIES, len(far))).round().astype(int))]
    reach = landmark_reach(without(far, asked))
    if reach is not None:
        calibration = calibration.model_copy(update={"reach": reach.joined(calibration.reach)})
    landmarks = replace(landmarks, warp=warp_of(np.ones(len(frames), bool)))
    if config.kind == "lines":
        landmarks = hide_in_lines(landmarks, config.seed)
    return BuiltLandmarks(landmarks, calibration, len(frames), time.perf_counter() - begun)


def keep_best(tracks: Tracks, structure: Structure, poses: np.ndarray, most: int) -> Landmarks:
    """The tracks that are worth keeping, those that most images show first.

    Args:
        tracks: observations.
        structure: their places, in the frame of ``poses``.
        poses: (N, 4, 4) world_from_camera.
        most: of them.
    """
    rank = np.argsort(-np.where(structure.good, structure.views, -1), kind="stable")[
        : min(most, int(structure.good.sum()))
    ]
    number = np.full(tracks.count, -1)
    number[rank] = np.arange(len(rank))
    kept = structure.agrees & (number[tracks.track] >= 0)
    owner, points = number[tracks.track[kept]], structure.points[rank]
    descriptors = np.zeros((len(rank), tracks.descriptors.shape[1]), np.float32)
    np.add.at(descriptors, owner, unit(tracks.descriptors[kept]))
    arm = poses[tracks.image[kept], :3, 3] - points[owner]
    distance = np.maximum(np.linalg.norm(arm, axis=1), 1e-9)
    arm /= distance[:, None]
    axis = np.zeros((len(rank), 3))
    np.add.at(axis, owner, arm)
    axis /= np.maximum(np.linalg.norm(axis, axis=1, keepdims=True), 1e-9)
    cosine, near, far = np.ones(len(rank)), np.full(len(rank), np.inf), np.zeros(len(rank))
    np.minimum.at(cosine, owner, (arm * axis[owner]).sum(axis=1))
    np.minimum.at(near, owner, distance)
    np.maximum.at(far, owner, distance)
    limit = np.finfo(np.float16).max
    return Landmarks(
        kind="points",
        places=points.astype(np.float32),
        descriptors=quantised(unit(descriptors)),
        views=structure.views[rank].clip(0, 255).astype(np.uint8),
        seen_from=np.column_stack([axis, cosine, near, far]).clip(-limit, limit).astype(np.float16),
    )


def _all_keypoints(
    frames: Sequence[Frame], config: LandmarkConfig, progress: ProgressCallback
) -> list[Keypoints] | None:
    detector = detector_of(config.detector)

    def found(frame: Frame) -> Keypoints:
        return find_keypoints(frame.load(), frame.camera, detector, config.longest, config.keypoints)

    return _with_progress("keypoints", found, frames, progress)


def _all_matches(
    keypoints: Sequence[Keypoints], poses: np.ndarray, pairs: np.ndarray, progress: ProgressCallback
) -> list[np.ndarray] | None:
    """Of each pair, matches that the poses allow."""
    shares = []

    def found(pair: np.ndarray) -> np.ndarray:
        one, other = pair
        matches, _ = mutual_matches(keypoints[one].unit_descriptors(), keypoints[other].unit_descriptors())
        good = epipolar_agreement(keypoints[one], keypoints[other], poses[one], poses[other], matches, MAX_PIXELS)
        if len(matches) >= _MATCHES_THAT_TELL:
            shares.append(good.mean())
        return matches[good]

    result = _with_progress("matching", found, pairs, progress)
    if result is not None and shares and np.median(shares) < _MIN_AGREEMENT:
        raise DataError(
            f"The recording's poses contradict its images: only {np.median(shares):.0%} of what two images share lies "
            "where their poses "
            "say; run 'dimm doctor' on it, which tells a wrong camera or pose convention."
        )
    return result


def _with_progress(stage: str, work: Callable, items: Sequence, progress: ProgressCallback) -> list | None:
    """Results of work on all items, in order, on all cores; None when asked to stop."""
    workers = os.cpu_count() or 1
    results: list = []
    with ThreadPoolExecutor(workers) as pool:
        for result in prefetched(pool, work, items, 2 * workers):
            results.append(result)
            if progress(stage, len(results), len(items)) and len(results) < len(items):
                return None
    return results
