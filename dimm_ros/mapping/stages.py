"""The stages of map-making and what each usually takes, for plans of the time that is left."""

from __future__ import annotations

from dimm_ros.config import EncoderConfig, HeadConfig, LandmarkConfig, TrainingConfig
from dimm_ros.mapping.fit import CALIBRATING

#: Seconds on two CPU cores, about (their ratios count, see ``cli.plan``), of the default preset: keypoints of an image,
#: matches of a pair, one pose from landmarks, one view through the small encoder at an input size of 448, one optimiser
#: step at a width of 256 and a batch of 2048.
_KEYPOINTS, _PAIR, _POSE, _VIEW, _STEP = 0.05, 0.012, 0.02, 0.3, 0.2
_PAIRS_OF_AN_IMAGE = 6


def usual_seconds(
    images: int, landmarks: LandmarkConfig, encoder: EncoderConfig, head: HeadConfig, training: TrainingConfig
) -> dict[str, float]:
    """Stages in order, by the names under which they tell their progress, and their usual seconds.

    Args:
        images: of the recording.
        landmarks, encoder, head, training: as the map will be made.
    """
    seen = 0 if landmarks.kind == "none" else min(images, landmarks.images)
    views = training.passes * min(images, training.images)
    step = _STEP * (training.batch / 2048) * (head.width / 256) ** 2
    return {
        "keypoints": _KEYPOINTS * seen,
        "matching": _PAIR * _PAIRS_OF_AN_IMAGE * seen,
        "poses": _POSE * seen,
        "features": _VIEW * views * (encoder.input_size / 448) ** 2,
        "calibration": CALIBRATING * step * training.steps,
        "training": step * training.steps,
    }
