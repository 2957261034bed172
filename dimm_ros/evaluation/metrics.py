"""Pose errors and the figures that visual localization reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dimm_ros.evaluation.rejections import count_rejections
from dimm_ros.geometry.poses import pose_difference, pose_errors

#: Recall thresholds: name -> (metres, degrees).
RECALLS = {"recall_5cm_5deg": (0.05, 5.0), "recall_10cm_5deg": (0.10, 5.0), "recall_25cm_2deg": (0.25, 2.0)}

_SAME_POSE = (1e-3, 0.1)  # metres and degrees: as exactly a map remembers where its images were taken
_CHI2_95 = 12.592  # six degrees of freedom


@dataclass(frozen=True)
class FrameResult:
    """A frame's true and estimated pose.

    Attributes:
        name, stamp_ns: the frame.
        true: (4, 4) true world_from_camera.
        estimated: (4, 4), or None where the frame was rejected or never answered.
        covariance: (6, 6) of the estimate, or None.
        reason: why it was rejected, empty when answered.
        latency_ms: image in to pose out.
        encoder_ms: the encoder's forward pass, where known.
        retrieved: (4, 4) pose of the most similar mapped image, where the reference views are known.
        from_mapped: metres and degrees from the nearest mapped image, where the reference views are known.
        mapped: whether the image is one that the map was made from; None where the map does not know them.
    """

    name: str
    stamp_ns: int
    true: np.ndarray
    estimated: np.ndarray | None
    covariance: np.ndarray | None = None
    reason: str = ""
    latency_ms: float = float("nan")
    encoder_ms: float = float("nan")
    retrieved: np.ndarray | None = None
    from_mapped: tuple[float, float] | None = None
    mapped: bool | None = None


def errors(answers: Sequence[FrameResult]) -> tuple[np.ndarray, np.ndarray]:
    """(N,) translation (metres) and (N,) rotation (degrees) errors; infinite for frames without an answer."""
    translation, rotation = np.full(len(answers), np.inf), np.full(len(answers), np.inf)
    for index, answer in enumerate(answers):
        if answer.estimated is not None:
            translation[index], rotation[index] = pose_errors(answer.estimated, answer.true)
    return translation, rotation


def normalised_squares(answers: Sequence[FrameResult]) -> np.ndarray:
    """(M,) normalised estimation error squared of answered frames with covariance; six on average when it is right.

    The rotation error is the left perturbation a of R_estimated = exp([a]x) R_true, as in the covariance.
    """
    squares = []
    for answer in answers:
        if answer.estimated is None or answer.covariance is None:
            continue
        error = pose_difference(answer.estimated, answer.true)
        squares.append(float(error @ np.linalg.solve(answer.covariance, error)))
    return np.array(squares)


def is_mapped(world_from_camera: np.ndarray, mapped: np.ndarray | None) -> bool | None:
    """Whether an image taken at a (4, 4) pose is one of a map's own, by their (N, 4, 4) poses; None without these."""
    if mapped is None:
        return None
    metres, degrees = pose_errors(mapped, world_from_camera)
    return bool(((metres <= _SAME_POSE[0]) & (degrees <= _SAME_POSE[1])).any())


def summarise(answers: Sequence[FrameResult]) -> dict:
    """The figures of a run. Unanswered frames count: as infinite errors in medians, as failures in recalls.

    Figures that are infinite or unknown are None. ``rejections`` is the one list, see ``count_rejections``.
    """
    translation, rotation = errors(answers)
    answered = int(np.isfinite(translation).sum())
    known = [answer.mapped for answer in answers if answer.mapped is not None]
    figures: dict = {
        "frames": len(answers),
        "answered": answered,
        "rejected": len(answers) - answered,
        "rejections": count_rejections(answer.reason for answer in answers if answer.estimated is None),
        "frames_mapped": sum(known) if known else None,
        "median_translation_m": _quantile(translation, 0.5),
        "p90_translation_m": _quantile(translation, 0.9),
        "median_rotation_deg": _quantile(rotation, 0.5),
        "p90_rotation_deg": _quantile(rotation, 0.9),
    }
    for name, (metres, degrees) in RECALLS.items():
        figures[name] = float(np.mean((translation <= metres) & (rotation <= degrees))) if len(answers) else None
    figures["latency_ms_median"] = _median([answer.latency_ms for answer in answers])
    figures["encoder_ms_median"] = _median([answer.encoder_ms for answer in answers])
    retrieved = [answer for answer in answers if answer.retrieved is not None]
    distances = [pose_errors(answer.retrieved, answer.true) for answer in retrieved]
    figures["retrieval_median_translation_m"] = _quantile(np.array([distance for distance, _ in distances]), 0.5)
    figures["retrieval_median_rotation_deg"] = _quantile(np.array([angle for _, angle in distances]), 0.5)
    from_mapped = np.array([answer.from_mapped for answer in answers if answer.from_mapped is not None]).reshape(-1, 2)
    figures["nearest_mapped_median_m"] = _quantile(from_mapped[:, 0], 0.5)
    figures["nearest_mapped_median_deg"] = _quantile(from_mapped[:, 1], 0.5)
    squares = normalised_squares(answers)
    figures["nees_mean"] = float(squares.mean()) if len(squares) else None
    figures["nees_within_95"] = float((squares <= _CHI2_95).mean()) if len(squares) else None
    return figures


def _quantile(values: np.ndarray, share: float) -> float | None:
    """The order statistic at or above the share: never an interpolation with an infinite neighbour."""
    if not len(values):
        return None
    value = float(np.quantile(values, share, method="higher"))
    return value if np.isfinite(value) else None


def _median(values: Sequence[float]) -> float | None:
    known = [value for value in values if np.isfinite(value)]
    return float(np.median(known)) if known else None
