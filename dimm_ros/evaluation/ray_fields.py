"""Ray fields of an evaluation's best, median and worst frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dimm_ros.data.recording import Recording
from dimm_ros.evaluation.metrics import FrameResult, errors
from dimm_ros.localizer import Localizer
from dimm_ros.pictures.ray_field import draw_ray_field


def chosen_frames(answers: Sequence[FrameResult]) -> dict[str, int]:
    """Numbers of the best, the median and the worst answered frame by translation error; fewer of few."""
    distance, _ = errors(answers)
    order = [int(number) for number in np.argsort(distance, kind="stable") if np.isfinite(distance[number])]
    if not order:
        return {}
    picked = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    return {
        name: number
        for place, (name, number) in enumerate(picked.items())
        if number not in list(picked.values())[:place]
    }


def draw_ray_fields(
    folder: Path, localizer: Localizer, recording: Recording, answers: Sequence[FrameResult]
) -> list[Path]:
    """Write rays_best.png, rays_median.png and rays_worst.png of an evaluation.

    Its frames are localized once more with every patch's ray, so that errors may differ a little from the evaluation's.
    """
    localizer = localizer.sampling_every_patch()
    paths = []
    for name, number in chosen_frames(answers).items():
        frame = recording.frames[number]
        image = frame.load()
        estimate = localizer.localize(image, frame.camera)
        title = f"{name} frame, {frame.name}"
        paths.append(
            draw_ray_field(
                folder / f"rays_{name}.png",
                title,
                image,
                frame.camera,
                estimate,
                frame.world_from_camera,
                localizer.map.header.origin,
            )
        )
    return paths
