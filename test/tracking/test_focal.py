"""The focal length of an uncalibrated camera over time."""

from __future__ import annotations

import numpy as np
import pytest

from dimm_ros.tracking.focal import ENOUGH, NEEDED, FocalFinder

SECOND = 10**9


def fed(focals, every: int = 3 * SECOND) -> FocalFinder:
    finder = FocalFinder()
    for index, focal in enumerate(focals):
        assert finder.wants(640, 480, index * every)
        finder.add(focal, index * every)
    return finder


def test_median_of_many_images_with_some_far_off() -> None:
    rng = np.random.default_rng(0)
    focals = 500.0 * np.exp(0.04 * rng.standard_normal(ENOUGH))
    focals[[2, 7, 11]] = 900.0, 210.0, 1200.0
    finder = fed(focals)
    camera = finder.camera
    assert (camera.width, camera.height, camera.cx, camera.cy) == (640, 480, 319.5, 239.5) and camera.fx == camera.fy
    assert camera.fx == pytest.approx(500.0, rel=0.02)
    assert finder.ready and not finder.wants(640, 480, 10**12)


def test_images_are_asked_some_time_apart() -> None:
    finder = fed([500.0])
    assert not finder.wants(640, 480, SECOND // 10) and finder.wants(640, 480, SECOND)
    later = fed([500.0] * NEEDED, every=SECOND)
    last = (NEEDED - 1) * SECOND
    assert later.ready and not later.wants(640, 480, last + SECOND) and later.wants(640, 480, last + 2 * SECOND)


def test_nothing_is_known_at_first() -> None:
    finder = FocalFinder()
    assert finder.camera is None and not finder.ready and finder.wants(640, 480, 0)
    assert not fed([500.0] * (NEEDED - 1)).ready


@pytest.mark.parametrize("width, height, stamp", [(320, 240, 100 * SECOND), (640, 480, 0)], ids=["another size", "time jumped back"])
def test_another_stream_starts_anew(width, height, stamp) -> None:
    finder = fed([500.0] * NEEDED)
    assert finder.wants(width, height, stamp) and not finder.ready and finder.camera is None
