"""Calibration: standard deviations that agree with held-out errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dimm_ros.head.whole_image import WholeImage
from dimm_ros.mapping.calibrate import _factor, _growth, novelty_limit
from dimm_ros.scene_map import Calibration


@pytest.mark.parametrize("growth", [0.4, 1.5])
def test_errors_that_grow_with_novelty_are_recognised(growth: float) -> None:
    """Squares of three-dimensional Gaussian errors with deviations 3 novelty^growth of what the solver says."""
    rng = np.random.default_rng(0)
    novelty = np.exp(rng.normal(0, 1, 3000))
    squares = (9 * novelty ** (2 * growth))[:, None] * rng.chisquare(3, (3000, 2)) / 3
    found = _growth(np.log(novelty), squares)
    assert found == pytest.approx([growth, growth], abs=0.08)
    factor = _factor(squares / novelty[:, None] ** (2 * found))
    assert factor == pytest.approx([3, 3], rel=0.1)


def test_few_views_leave_the_growth_at_what_is_believed() -> None:
    squares = np.random.default_rng(0).chisquare(3, (20, 2))
    assert _growth(np.zeros(20), squares) == pytest.approx([1.25, 1.25])


def test_factors_grow_from_the_reference() -> None:
    calibration = Calibration(position_factor=2.0, rotation_factor=3.0, position_growth=1.0, rotation_growth=0.5, reference_novelty=0.1)
    assert calibration.factors(0.1) == pytest.approx((2.0, 3.0))
    assert calibration.factors(0.4) == pytest.approx((8.0, 6.0))
    assert calibration.factors(None) == pytest.approx((2.0, 3.0))
    assert Calibration().factors(0.7) == (1.0, 1.0)


def test_a_short_recording_knows_what_is_not_of_it() -> None:
    """Contexts along a path through six of sixty dimensions: other views of the path are within the limit, other dimensions are not."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(6, 60))

    def path(count: int, noise: float) -> torch.Tensor:
        along = np.linspace(0, 2, count)[:, None] * np.arange(1, 4)
        return torch.from_numpy(np.concatenate([np.sin(along), np.cos(along)], axis=1) @ mix + noise * rng.normal(size=(count, 60)))

    contexts, poses = path(60, 0.05), (torch.eye(3).expand(60, 3, 3), torch.rand(60, 3))
    limit = novelty_limit(contexts, *poses, torch.arange(60))
    whole = WholeImage.fit(contexts, *poses)
    between = whole(path(47, 0.05).float())[2]
    elsewhere = whole(torch.from_numpy(rng.normal(size=(40, 60)) * float(contexts.std())).float())[2]
    assert (between < limit).all() and (elsewhere > limit).all()
