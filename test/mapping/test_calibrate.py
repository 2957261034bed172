"""Calibration: standard deviations that agree with held-out errors."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dimm_ros.config import HeadConfig, LandmarkConfig, TrainingConfig
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.evaluation.metrics import FrameResult, errors, normalised_squares
from dimm_ros.gallery.conditions import film
from dimm_ros.gallery.scene import build_room
from dimm_ros.gallery.trajectory import MOUNTS, trajectory
from dimm_ros.geometry.camera import Camera
from dimm_ros.head.global_pose import GlobalPose
from dimm_ros.localizer import Localizer
from dimm_ros.mapping.build import build_map
from dimm_ros.mapping.calibrate import _rates, calibrate_short, held_out_frames
from dimm_ros.scene_map import Calibration, SceneMap


def test_rates_are_standard_deviations_per_axis_and_novelty() -> None:
    """Lengths of Gaussian errors that grow with novelty; 15 % are added for the tails of real ones, and one blunder
    counts little.
    """
    rng = np.random.default_rng(0)
    novelty = np.exp(rng.normal(-1, 0.5, 5000))
    errors = novelty[:, None] ** 0.9 * np.linalg.norm(rng.normal(0, 1, (5000, 2, 3)), axis=2) * [0.4, 13.0]
    assert _rates(errors, novelty) == pytest.approx([1.15 * 0.4, 1.15 * 13.0], rel=0.03)
    errors[7] *= 1000
    assert _rates(errors, novelty) == pytest.approx([1.15 * 0.4, 1.15 * 13.0], rel=0.03)


def test_sigmas_grow_with_novelty() -> None:
    calibration = Calibration(position_rate=0.4, rotation_rate_deg=12.0)
    assert calibration.sigmas(0.1) == pytest.approx((0.4 * 0.1**0.9, np.radians(12.0) * 0.1**0.9))
    assert np.divide(calibration.sigmas(0.3), calibration.sigmas(0.1)) == pytest.approx(3**0.9)
    assert calibration.sigmas(None) == calibration.sigmas(1.0)  # nothing is known


def test_calibrations_of_older_maps_are_read() -> None:
    old = {
        "position_factor": 200.0,
        "rotation_factor": 45.0,
        "position_growth": 1.1,
        "rotation_growth": 0.9,
        "reference_novelty": 0.1,
    }
    assert Calibration.model_validate(old | {"max_novelty": 0.6}) == Calibration(max_novelty=0.6)


def test_a_short_recording_knows_what_is_not_of_it() -> None:
    """Contexts along a path through six of sixty dimensions: other views of the path are within the limit, other
    dimensions are not.
    """
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(6, 60))

    def path(count: int, noise: float) -> torch.Tensor:
        along = np.linspace(0, 2, count)[:, None] * np.arange(1, 4)
        return torch.from_numpy(
            np.concatenate([np.sin(along), np.cos(along)], axis=1) @ mix + noise * rng.normal(size=(count, 60))
        )

    contexts, poses = path(60, 0.05), (torch.eye(3).expand(60, 3, 3), torch.rand(60, 3))
    short = calibrate_short(contexts, *poses, torch.ones(60, dtype=torch.bool), torch.arange(60))
    limit = short["max_novelty"]
    assert short["position_rate"] > 0 and short["rotation_rate_deg"] >= 0
    whole = GlobalPose.fit(contexts, *poses)
    between = whole(path(47, 0.05).float())[2]
    elsewhere = whole(torch.from_numpy(rng.normal(size=(40, 60)) * float(contexts.std())).float())[2]
    assert (between < limit).all() and (elsewhere > limit).all()


def test_virtual_views_do_not_count_in_a_short_recordings_rates() -> None:
    """Their images are not real, and neither are their errors: here they are metres off, and the recorded views are
    not.
    """
    generator = torch.Generator().manual_seed(0)
    where = torch.linspace(0, 3, 60, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    context = torch.sin(where @ torch.randn(3, 24, generator=generator, dtype=torch.float64)) + 0.02 * torch.randn(
        60, 24, generator=generator
    )
    rotations, frame_of, real = torch.eye(3).expand(60, 3, 3), torch.arange(60), torch.ones(60, dtype=torch.bool)
    alone = calibrate_short(context, rotations, where, real, frame_of)
    away = where + 5 * torch.randn(60, 3, generator=generator, dtype=torch.float64)
    both = calibrate_short(
        torch.cat([context, context + 1.0]),
        torch.cat([rotations, rotations]),
        torch.cat([where, away]),
        torch.cat([real, ~real]),
        torch.cat([frame_of, frame_of]),
    )
    assert both["position_rate"] < 2.5 * alone["position_rate"], (alone, both)


@pytest.mark.long
def test_covariances_of_a_map_are_those_of_its_errors(tmp_path: Path, encoder: Encoder) -> None:
    """On frames of the gallery that were left out: the mean of six normalised squares is six, within a factor of three
    for so few.
    """
    small = copy.copy(encoder)
    small.config = encoder.config.changed(input_size=112)
    stamps, world_from_base = trajectory(1, 28.75, 20.0)
    camera = Camera(112, 84, 75.0, 75.0, 55.5, 41.5)
    recording = film(build_room(0, photographs=False), camera, stamps, world_from_base @ MOUNTS["handheld"], every=4)
    left_out = np.arange(len(recording.frames)) % 36 >= 30
    mapped, queries = (
        [frame for frame, out in zip(recording.frames, left_out, strict=True) if out == wanted]
        for wanted in (False, True)
    )
    path = tmp_path / "gallery.dimm"
    build_map(
        replace(recording, frames=mapped),
        path,
        small,
        head=HeadConfig(mappers=1, width=64, depth=1),
        training=TrainingConfig(steps=200, batch=512, passes=1, learning_rate=3e-3),
        landmarks=LandmarkConfig(kind="none"),
    )
    localizer = Localizer(SceneMap.load(path), small)
    calibration = localizer.map.header.calibration
    assert calibration.frames == 20 == len(held_out_frames(len(mapped)))
    estimates = [localizer.localize(frame.load(), frame.camera) for frame in queries]
    answers = [
        FrameResult(
            name=frame.name,
            stamp_ns=frame.stamp_ns,
            true=frame.world_from_camera,
            estimated=estimate.world_from_camera,
            covariance=estimate.covariance,
        )
        for frame, estimate in zip(queries, estimates, strict=True)
    ]
    squares = normalised_squares(answers)
    assert 2.0 < squares.mean() < 18.0 and (squares < 12.592).mean() > 0.6, squares
    assert calibration.position_error == pytest.approx(np.median(errors(answers)[0]), rel=2.0)
