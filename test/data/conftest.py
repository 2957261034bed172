"""A small real bag."""

from __future__ import annotations

import numpy as np
import pytest
from bag_messages import START, BagContent, camera_info, image, tf, transform


@pytest.fixture
def drive() -> BagContent:
    """A robot that drives 1 m/s along map x: 5 images at 0.1 s, TF from 0 to 0.4 s at 0.05 s, camera 0.2 m before the
    base.

    The image at 0.1 k s is filled with the value 10 k.
    """
    bag = BagContent()
    bag.add(START, "/tf_static", tf(transform(START, "base_link", "optical", (0.2, 0, 0))))
    for step in range(9):
        ns = START + step * 50_000_000
        bag.add(
            ns,
            "/tf",
            tf(transform(ns, "map", "odom", (100, 0, 0)), transform(ns, "odom", "base_link", (step * 0.05, 0, 0))),
        )
    for k in range(5):
        ns = START + k * 100_000_000 - 10_000_000 * (k == 2)  # one image between two transforms
        bag.add(ns + 3_000_000, "/camera/image_raw", image(ns, np.full((24, 32, 3), 10 * k, np.uint8)))
        bag.add(ns + 3_000_000, "/camera/camera_info", camera_info(ns))
    return bag
