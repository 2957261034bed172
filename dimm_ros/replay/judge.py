"""Judge the running node instead of the library: a bag replayed over DDS into a localizer in its own process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dimm_ros.data.recording import Recording
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.evaluation.evaluate import evaluate
from dimm_ros.evaluation.metrics import FrameResult
from dimm_ros.geometry.covariance import lever
from dimm_ros.localizer import Localizer
from dimm_ros.mapping.retrieval import ReferenceViews
from dimm_ros.progress import StepCallback
from dimm_ros.replay.player import PlayOptions
from dimm_ros.replay.session import Replay, replay_bag
from dimm_ros.scene_map import SceneMap


def replay_through_node(
    bag: Path,
    map_file: Path,
    recording: Recording,
    base_from_camera: np.ndarray,
    *,
    topics: dict[str, str],
    transport: str,
    log: Path | None = None,
    progress: Callable[[int], object] | None = None,
) -> tuple[list[FrameResult], Replay]:
    """Play a bag into the localizer node, each image once the one before was answered, and compare with its true poses.

    Args:
        bag: the bag; its own map -> odom is left out, since the node publishes it.
        recording: the same bag as read with its true poses.
        base_from_camera: (4, 4) extrinsics, since the node publishes the pose of base_link.
        topics: the node's names ("image", "camera_info") -> the bag's topics.
        transport: "raw" or "compressed".
        log: file for the node's output.
        progress: called with the number of images played.
    """
    options = PlayOptions(rate=0.0, drop_transforms=(("map", "odom"),), wait_ready=True, wait_answers=True)
    parameters = {
        "map": str(map_file.resolve()),
        "image_transport": transport,
        "tf_mode": "map_odom",
        "max_image_age": 0.0,
    }
    replay = replay_bag(bag, parameters=parameters, remap=topics, options=options, log=log, progress=progress)
    return judge(replay, recording, base_from_camera), replay


def judge(replay: Replay, recording: Recording, base_from_camera: np.ndarray) -> list[FrameResult]:
    """The node's answers for every frame of the recording: pose and covariance of the camera, time until they
    came.
    """
    poses = {answer.stamp_ns: answer for answer in replay.answers}
    reports = {report.stamp_ns: report.message for report in replay.reports}
    answers = []
    for frame in recording.frames:
        pose, report = poses.get(frame.stamp_ns), reports.get(frame.stamp_ns)
        published = replay.played.images.get(frame.stamp_ns)
        estimated = covariance = None
        if pose is not None:
            estimated = pose.map_from_body @ base_from_camera
            to_camera = lever(estimated[:3, 3] - pose.map_from_body[:3, 3])
            covariance = to_camera @ pose.covariance @ to_camera.T
        answers.append(
            FrameResult(
                name=frame.name,
                stamp_ns=frame.stamp_ns,
                true=frame.world_from_camera,
                estimated=estimated,
                covariance=covariance,
                reason=""
                if pose is not None
                else (report.reason if report is not None else "The node said nothing about this frame."),
                latency_ms=(pose.received_s - published) * 1e3
                if pose is not None and published is not None
                else float("nan"),
                encoder_ms=report.encode_ms if report is not None else float("nan"),
            )
        )
    return answers


def beside_rays_alone(
    answers: Sequence[FrameResult],
    recording: Recording,
    scene_map: SceneMap,
    encoder: Encoder,
    reference: ReferenceViews,
    progress: StepCallback | None = None,
) -> tuple[list[FrameResult], list[FrameResult]]:
    """The same answers with the retrieval baseline's pose beside each, and what the map's rays alone say of the same
    images, encoded as a map's are (see ``Encoder.for_many``): what is compared are centimetres.
    """
    rays = evaluate(Localizer(scene_map.rays_alone(), encoder.for_many()), recording, reference, progress)
    pairs = zip(answers, rays, strict=True)
    joined = [
        replace(node, retrieved=one.retrieved, from_mapped=one.from_mapped, mapped=one.mapped) for node, one in pairs
    ]
    return joined, rays
