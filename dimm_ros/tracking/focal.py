"""The focal length of an uncalibrated camera, from what single images say over time."""

from __future__ import annotations

import numpy as np

from dimm_ros.geometry.camera import Camera

#: Images before the focal length is used, and before it is settled: one fixes it to a few per cent, ten to about one.
NEEDED, ENOUGH = 5, 15

#: Time between images that are asked, seconds, before and after it is used: neighbouring images err alike.
_SPACING_S, _LATER_SPACING_S = 0.5, 2.0


class FocalFinder:
    """Gathers the focal lengths that images of one camera give, and takes their median."""

    def __init__(self) -> None:
        self._size, self._last_ns = (0, 0), None
        self._focals: list[float] = []

    @property
    def count(self) -> int:
        """Images that have said something."""
        return len(self._focals)

    @property
    def ready(self) -> bool:
        """Whether ``camera`` is good enough to localize with."""
        return self.count >= NEEDED

    @property
    def camera(self) -> Camera | None:
        """The camera as it is known by now: square pixels, principal point at the centre, no distortion; None before the first image."""
        if not self._focals:
            return None
        width, height = self._size
        focal = float(np.exp(np.median(np.log(self._focals))))
        return Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)

    def wants(self, width: int, height: int, stamp_ns: int) -> bool:
        """Whether an image should be asked; one of another size starts anew."""
        if (width, height) != self._size or (self._last_ns is not None and stamp_ns < self._last_ns):
            self._size, self._last_ns = (width, height), None
            self._focals.clear()
        if self.count >= ENOUGH:
            return False
        spacing = _LATER_SPACING_S if self.ready else _SPACING_S
        return self._last_ns is None or stamp_ns - self._last_ns >= spacing * 1e9

    def add(self, focal: float, stamp_ns: int) -> None:
        """What an image said, in pixels."""
        self._focals.append(focal)
        self._last_ns = stamp_ns
