"""The landmarks' place in the making of a map: kept in the work folder once they are there, described in the header."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from dimm_ros import __version__
from dimm_ros.config import LandmarkConfig
from dimm_ros.data.recording import Recording
from dimm_ros.errors import UNREADABLE
from dimm_ros.landmarks.build import BuiltLandmarks, build_landmarks
from dimm_ros.landmarks.calibrate import LandmarkCalibration
from dimm_ros.landmarks.combine import combine
from dimm_ros.landmarks.store import Landmarks
from dimm_ros.progress import ProgressCallback
from dimm_ros.reach import Reach
from dimm_ros.scene_map import LandmarkHeader, MapHeader, SceneMap, landmark_tensors, read_landmarks, write_safetensors

log = logging.getLogger(__name__)

_FILE = "landmarks.safetensors"
#: How far apart one landmark may be in two recordings: in standard deviations of what landmark poses err by, and at
#: least, as a share of the distance it is seen from: poses may be exact, as those of rendered images; keypoints never.
_TOLERANCE, _LEAST_SHARE = 5.0, 0.02


def no_landmarks() -> BuiltLandmarks:
    """Of a map of rays alone."""
    return BuiltLandmarks(None, LandmarkCalibration(), 0, 0.0)


def landmarks_of(
    work: Path, recording: Recording, origin: np.ndarray, config: LandmarkConfig, progress: ProgressCallback
) -> BuiltLandmarks | None:
    """Landmarks of a recording: those that the work folder has of it, or new ones, which are kept there.

    Args:
        work: the work folder.
        recording: all of it.
        origin: (3,) of the map, metres.
        config: its kind may be none.
        progress: see ``ProgressCallback``.

    Returns:
        None when ``progress`` asked to stop: they are made anew then.
    """
    if config.kind == "none":
        return no_landmarks()
    parts = (recording.state(), origin.round(6).tolist(), config.model_dump_json(), __version__)
    mark = hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()
    kept = _kept(work / _FILE, mark)
    if kept is not None:
        return kept
    built = build_landmarks(
        recording.frames, origin, config, lambda stage, done, total: progress(stage, done, total, "")
    )
    if built is not None and built.note:
        log.warning("%s", built.note)
    if built is not None and built.landmarks is not None:
        header = landmark_header(built, config)
        about = {"mark": mark, "seconds": built.seconds, "header": header.model_dump()}
        write_safetensors(landmark_tensors(built.landmarks), work / _FILE, {"landmarks": json.dumps(about)})
    return built


def points_of(scene_map: SceneMap, recording: Recording, progress: ProgressCallback) -> Landmarks | None:
    """Landmarks of a recording as points about a map's origin, made as the map's own lines were; None for a map without
    lines.
    """
    header = scene_map.header.landmarks
    if header is None or header.kind != "lines":
        return None
    config = points_config(header).changed(images=header.images)
    built = build_landmarks(recording.frames, np.array(scene_map.header.origin), config, progress)
    return None if built is None else built.landmarks


def points_config(header: LandmarkHeader) -> LandmarkConfig:
    """How to find points of another recording that go with a map's landmarks: its detector and sizes, as many as it
    has.
    """
    return LandmarkConfig(
        kind="points",
        detector=header.detector,
        longest=header.longest,
        keypoints=header.keypoints,
        most=min(max(header.count, 100), 1_000_000),
    )


def landmark_header(built: BuiltLandmarks, config: LandmarkConfig) -> LandmarkHeader | None:
    """Their entry in the map's header."""
    landmarks = built.landmarks
    if landmarks is None:
        return None
    return LandmarkHeader(
        kind=landmarks.kind,
        detector=config.detector,
        longest=config.longest,
        keypoints=config.keypoints,
        dim=landmarks.descriptors.shape[1],
        count=len(landmarks),
        images=built.images,
        calibration=built.calibration,
    ).describing(landmarks)


def one_landmark_within(
    landmarks: Sequence[Landmarks], calibrations: Sequence[LandmarkCalibration], radius: float
) -> float:
    """How far apart one landmark may be in maps of one place, metres.

    Args:
        landmarks, calibrations: of the maps.
        radius: of a map, metres: stands for the distance of what is seen where all are lines, which do not tell it.
    """
    seen = np.array([each.seen_distance for each in landmarks])
    distance = radius if np.isnan(seen).all() else float(np.nanmin(seen))
    return max(_LEAST_SHARE * distance, _TOLERANCE * max(each.widened * each.position_sigma for each in calibrations))


def merged_landmark_header(headers: Sequence[MapHeader], landmarks: Landmarks | None) -> LandmarkHeader | None:
    """Entry in the header of a map whose landmarks are those of several: the first's way to find keypoints, the
    largest errors.
    """
    known = [header.landmarks for header in headers if header.landmarks is not None]
    if landmarks is None or not known:
        return None
    calibrations = [each.calibration for each in known]
    reaches = [each.reach for each in calibrations if each.reach is not None]
    worst = LandmarkCalibration(
        position_sigma=max(each.position_sigma for each in calibrations),
        frames=sum(each.frames for each in calibrations),
        rotation_sigma_deg=max(each.rotation_sigma_deg for each in calibrations),
        widened=max(each.widened for each in calibrations),
        reach=reduce(Reach.joined, reaches) if reaches else None,
    )
    changed = known[0].model_copy(update={"images": sum(each.images for each in known), "calibration": worst})
    return changed.describing(landmarks)


def update_landmarks(
    work: Path, old: SceneMap, recording: Recording, progress: ProgressCallback
) -> tuple[Landmarks | None, LandmarkHeader | None] | None:
    """A map's landmarks with those that a new recording adds, and their header; None when asked to stop."""
    header = old.header.landmarks
    if header is None:
        return None, None
    built = landmarks_of(work, recording, np.array(old.header.origin), points_config(header), progress)
    if built is None:
        return None
    if built.landmarks is None:
        return old.landmarks, header
    joined = combine(
        [old.landmarks, built.landmarks],
        one_landmark_within(
            [old.landmarks, built.landmarks], [header.calibration, built.calibration], old.header.radius
        ),
        len(old.landmarks) + len(built.landmarks),
        seed=header.images,
    )
    added = header.model_copy(update={"images": built.images, "calibration": built.calibration})
    return joined, merged_landmark_header([old.header, old.header.model_copy(update={"landmarks": added})], joined)


def _kept(path: Path, mark: str) -> BuiltLandmarks | None:
    try:
        with safe_open(str(path), "pt") as file:
            about = json.loads((file.metadata() or {})["landmarks"])
            if about["mark"] != mark:
                return None
            header = LandmarkHeader.model_validate(about["header"])
            landmarks = read_landmarks(file, header)
        if landmarks is None:
            return None
        return BuiltLandmarks(landmarks, header.calibration, header.images, about["seconds"])
    except (OSError, SafetensorError, *UNREADABLE):
        return None
