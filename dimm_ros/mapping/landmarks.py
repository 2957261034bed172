"""The landmarks' place in the making of a map: kept in the work folder once they are there, described in the header."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from dimm_ros.config import LandmarkConfig
from dimm_ros.data.recording import Recording
from dimm_ros.landmarks.build import BuiltLandmarks, build_landmarks
from dimm_ros.landmarks.calibrate import LandmarkCalibration
from dimm_ros.mapping.fit import Watcher
from dimm_ros.scene_map import LandmarkHeader, landmark_tensors, read_landmarks, write_safetensors

_FILE = "landmarks.safetensors"


def no_landmarks() -> BuiltLandmarks:
    """Of a map of rays alone."""
    return BuiltLandmarks(None, LandmarkCalibration(), 0, 0.0)


def landmarks_of(
    work: Path, recording: Recording, origin: np.ndarray, config: LandmarkConfig, watch: Watcher,
) -> BuiltLandmarks | None:
    """Landmarks of a recording: those that the work folder has of it, or new ones, which are kept there.

    Args:
        work: the work folder.
        recording: all of it.
        origin: (3,) of the map, metres.
        config: its kind may be none.
        watch: progress.

    Returns:
        None when ``watch`` asked to stop: they are made anew then.
    """
    if config.kind == "none":
        return no_landmarks()
    frames = [(frame.name, frame.stamp_ns, frame.camera, frame.world_from_camera.round(6).tolist()) for frame in recording.frames]
    mark = hashlib.sha256(f"{frames} {origin.round(6).tolist()} {config.model_dump_json()}".encode()).hexdigest()
    kept = _kept(work / _FILE, mark, config)
    if kept is not None:
        return kept
    built = build_landmarks(recording.frames, origin, config, lambda stage, done, total: watch(stage, done, total, ""))
    if built is not None and built.landmarks is not None:
        about = {
            "mark": mark, "count": len(built.landmarks), "dim": built.landmarks.descriptors.shape[1], "images": built.images,
            "seconds": built.seconds, "calibration": built.calibration.model_dump(),
        }
        write_safetensors(landmark_tensors(built.landmarks), work / _FILE, {"landmarks": json.dumps(about)})
    return built


def landmark_header(built: BuiltLandmarks, config: LandmarkConfig) -> LandmarkHeader | None:
    """What the map's header says of them."""
    landmarks = built.landmarks
    if landmarks is None:
        return None
    return LandmarkHeader(
        kind=landmarks.kind, detector=config.detector, longest=config.longest, keypoints=config.keypoints,
        dim=landmarks.descriptors.shape[1], count=len(landmarks), images=built.images, calibration=built.calibration,
    )


def _kept(path: Path, mark: str, config: LandmarkConfig) -> BuiltLandmarks | None:
    try:
        with safe_open(str(path), "pt") as file:
            about = json.loads((file.metadata() or {})["landmarks"])
            if about["mark"] != mark:
                return None
            landmarks = read_landmarks(file, config.kind, about["count"], about["dim"])
        calibration = LandmarkCalibration.model_validate(about["calibration"])
        return None if landmarks is None else BuiltLandmarks(landmarks, calibration, about["images"], about["seconds"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
