"""The focal length of an uncalibrated camera over time."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from dimm_ros.errors import InputError
from dimm_ros.estimate import Estimate
from dimm_ros.geometry.camera import Camera
from dimm_ros.uncalibrated import ENOUGH, NEEDED, FocalFinder

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


def test_another_size_starts_anew() -> None:
    finder = fed([500.0] * NEEDED)
    assert finder.wants(320, 240, 100 * SECOND) and not finder.ready and finder.camera is None


def test_an_image_out_of_order_changes_nothing() -> None:
    finder = fed([500.0] * NEEDED)
    assert not finder.wants(640, 480, 0) and finder.ready and finder.camera.fx == pytest.approx(500.0)


class Told:
    """A localizer that is told what it finds: focal lengths, or None for an image that nothing explains."""

    name = "room"

    def __init__(self, focals: Iterable[float | None], accepted: bool = True) -> None:
        self.focals, self.accepted, self.asked = iter(focals), accepted, 0

    def localize(self, estimate) -> tuple[Told, Estimate]:
        return self, estimate(self)

    def localize_unknown_focal(self, image: np.ndarray) -> tuple[Estimate, Camera]:
        self.asked += 1
        focal = next(self.focals)
        if focal is None:
            raise InputError("No focal length explains this image.")
        estimate = Estimate(
            world_from_camera=np.eye(4), covariance=np.eye(6), accepted=self.accepted, reason="", inliers=9, rays=10
        )
        return estimate, Camera(64, 48, focal, focal, 31.5, 23.5)


IMAGE = np.zeros((48, 64, 3), np.uint8)


def test_images_are_asked_until_they_agree_on_a_camera() -> None:
    finder, told = FocalFinder(), Told([50.0] * NEEDED + [None])
    for index in range(NEEDED - 1):
        localizer, estimate = finder.ask(IMAGE, index * SECOND, told.localize)
        assert localizer is told and not estimate.accepted
        assert estimate.reason == f"The focal length is being found: {index + 1} of {NEEDED} images have told it."
    assert finder.ask(IMAGE, NEEDED * SECOND, told.localize) is None and finder.camera.fx == pytest.approx(50.0)
    assert finder.ask(IMAGE, NEEDED * SECOND + 1, told.localize) is None and told.asked == NEEDED  # not its turn
    assert finder.ask(IMAGE, (NEEDED + 3) * SECOND, told.localize) is None  # what fails now does no harm
    assert told.asked == NEEDED + 1


def test_an_image_that_says_nothing_is_not_counted() -> None:
    finder = FocalFinder()
    with pytest.raises(InputError, match="No focal length explains"):
        finder.ask(IMAGE, 0, Told([None]).localize)
    _, rejected = finder.ask(IMAGE, SECOND, Told([50.0], accepted=False).localize)
    assert not rejected.accepted and rejected.reason == "" and finder.count == 0
