"""The cv_bridge that is installed, beside our own decoder, over all encodings, in a child process (see the node's
probe).
"""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from dimm_ros.data.bridge import bridge
from dimm_ros.data.image_encoding import PIXEL_BYTES, decode_raw
from dimm_ros.ros.messages import to_rgb

pytestmark = pytest.mark.skipif(find_spec("cv_bridge") is None, reason="cv_bridge is not installed")


def message(encoding: str, *, width: int = 12, padding: int = 0, is_bigendian: int = 0) -> SimpleNamespace:
    """A ``sensor_msgs/Image`` of 8 rows of noise."""
    step = width * PIXEL_BYTES[encoding] + padding
    data = np.random.default_rng(1).integers(0, 256, 8 * step, dtype=np.uint8)
    return SimpleNamespace(
        encoding=encoding, height=8, width=width, step=step, is_bigendian=is_bigendian, data=data.tobytes()
    )


def test_it_is_used_or_there_is_a_reason() -> None:
    """Where it is used at all, what every camera driver publishes goes through it."""
    assert bridge().trouble or {"mono8", "rgb8", "bgr8", "rgba8", "bgra8", "bayer_rggb8"} <= bridge().converts
    assert not (bridge().trouble and bridge().converts)


@pytest.mark.parametrize("encoding", sorted(PIXEL_BYTES))
@pytest.mark.parametrize("layout", [{}, {"padding": 4}, {"padding": 5}, {"is_bigendian": 1}, {"width": 640}], ids=str)
def test_an_image_is_the_same_with_and_without_it(encoding: str, layout: dict) -> None:
    one = message(encoding, **layout)
    expected = decode_raw(encoding, one.height, one.width, one.step, bool(one.is_bigendian), one.data)
    np.testing.assert_array_equal(to_rgb(one), expected)


@pytest.mark.parametrize("encoding", sorted({"rgb8", "bgr8", "mono8"}))
def test_it_does_convert(encoding: str) -> None:
    if bridge().trouble:
        pytest.skip(bridge().trouble)
    assert bridge().convert(message(encoding)) is not None
