"""Calibration: standard deviations that agree with held-out errors."""

from __future__ import annotations

import numpy as np
import pytest

from dimm_ros.mapping.calibrate import _factor, _growth
from dimm_ros.scene_map import Calibration


@pytest.mark.parametrize("growth", [0.4, 1.5])
def test_errors_that_grow_with_novelty_are_recognised(growth: float) -> None:
    """Squares of three-dimensional Gaussian errors with deviations 3 novelty^growth of what the solver says."""
    rng = np.random.default_rng(0)
    novelty = np.exp(rng.normal(0, 1, 3000))
    squares = (9 * novelty ** (2 * growth))[:, None] * rng.chisquare(3, (3000, 2)) / 3
    found = _growth(np.log(novelty), squares)
    assert found == pytest.approx([growth, growth], abs=0.05)
    factor = _factor(squares / novelty[:, None] ** (2 * found))
    assert factor == pytest.approx([3, 3], rel=0.05)


def test_few_views_leave_the_growth_at_what_is_believed() -> None:
    squares = np.random.default_rng(0).chisquare(3, (20, 2))
    assert _growth(np.zeros(20), squares) == pytest.approx([1.0, 1.0])


def test_factors_grow_from_the_reference() -> None:
    calibration = Calibration(position_factor=2.0, rotation_factor=3.0, position_growth=1.0, rotation_growth=0.5, reference_novelty=0.1)
    assert calibration.factors(0.1) == pytest.approx((2.0, 3.0))
    assert calibration.factors(0.4) == pytest.approx((8.0, 6.0))
    assert calibration.factors(None) == pytest.approx((2.0, 3.0))
    assert Calibration().factors(0.7) == (1.0, 1.0)
