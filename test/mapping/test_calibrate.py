"""Calibration: standard deviations that agree with held-out errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dimm_ros.head.whole_image import WholeImage
from dimm_ros.mapping.calibrate import _rates, calibrate_short
from dimm_ros.scene_map import Calibration


def test_rates_are_standard_deviations_per_axis_and_novelty() -> None:
    """Lengths of Gaussian errors that grow with novelty; 15 % are added for the tails of real ones, and one blunder counts little."""
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
    old = {"position_factor": 200.0, "rotation_factor": 45.0, "position_growth": 1.1, "rotation_growth": 0.9, "reference_novelty": 0.1}
    assert Calibration.model_validate(old | {"max_novelty": 0.6}) == Calibration(max_novelty=0.6)


def test_a_short_recording_knows_what_is_not_of_it() -> None:
    """Contexts along a path through six of sixty dimensions: other views of the path are within the limit, other dimensions are not."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(6, 60))

    def path(count: int, noise: float) -> torch.Tensor:
        along = np.linspace(0, 2, count)[:, None] * np.arange(1, 4)
        return torch.from_numpy(np.concatenate([np.sin(along), np.cos(along)], axis=1) @ mix + noise * rng.normal(size=(count, 60)))

    contexts, poses = path(60, 0.05), (torch.eye(3).expand(60, 3, 3), torch.rand(60, 3))
    short = calibrate_short(contexts, *poses, torch.ones(60, dtype=torch.bool), torch.arange(60))
    limit = short["max_novelty"]
    assert short["position_rate"] > 0 and short["rotation_rate_deg"] >= 0
    whole = WholeImage.fit(contexts, *poses)
    between = whole(path(47, 0.05).float())[2]
    elsewhere = whole(torch.from_numpy(rng.normal(size=(40, 60)) * float(contexts.std())).float())[2]
    assert (between < limit).all() and (elsewhere > limit).all()
