"""Run a localizer over a recording with known poses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dimm_ros.data.recording import Frame, Recording
from dimm_ros.estimate import Estimate
from dimm_ros.evaluation.map_figures import mapped_poses
from dimm_ros.evaluation.metrics import FrameResult, is_mapped
from dimm_ros.localizer import Localizer
from dimm_ros.mapping.retrieval import ReferenceViews
from dimm_ros.progress import StepCallback


def evaluate(
    localizer: Localizer,
    recording: Recording,
    reference: ReferenceViews | None = None,
    progress: StepCallback | None = None,
    show: Callable[[Frame, np.ndarray, Estimate], None] | None = None,
) -> list[FrameResult]:
    """Localize every frame on its own.

    Args:
        localizer: with the map to judge.
        recording: frames with true poses in the map's frame.
        reference: mapped images for the retrieval baseline.
        progress: called with (frames done, frames in all).
        show: called with each frame, its image and its estimate.
    """
    answers, mapped = [], mapped_poses(localizer.map, reference)
    if recording.frames:
        localizer.warm_up(recording.frames[0].camera)
    for done, frame in enumerate(recording.frames, start=1):
        image = frame.load()
        estimate = localizer.localize(image, frame.camera)
        answers.append(
            FrameResult(
                name=frame.name,
                stamp_ns=frame.stamp_ns,
                true=frame.world_from_camera,
                estimated=estimate.world_from_camera if estimate.accepted else None,
                covariance=estimate.covariance,
                reason=estimate.reason,
                latency_ms=estimate.stage_ms["total"],
                encoder_ms=estimate.stage_ms["encode"],
                retrieved=reference.nearest(estimate.cls) if reference is not None else None,
                from_mapped=reference.distance(frame.world_from_camera) if reference is not None else None,
                mapped=is_mapped(frame.world_from_camera, mapped),
            )
        )
        if show is not None:
            show(frame, image, estimate)
        if progress is not None:
            progress(done, len(recording.frames))
    return answers
