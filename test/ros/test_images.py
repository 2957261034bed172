"""cv_bridge is used where it is installed and right; what it cannot do is read without it, or gets one sentence."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from rcl_interfaces.msg import Log
from sensor_msgs.msg import CompressedImage

from dimm_ros.data.bridge import Bridge
from dimm_ros.errors import InputError
from dimm_ros.ros import messages
from dimm_ros.ros.messages import to_image

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)


@pytest.fixture
def cv_bridge(monkeypatch):
    """A cv_bridge that is trusted with rgb8 and mono8; ``answer`` is what it gives or raises, ``asked`` what for."""
    fake = SimpleNamespace(answer=PICTURE[::-1], asked=[])

    class CvBridge:
        def imgmsg_to_cv2(self, message, desired_encoding):
            fake.asked.append((message.encoding, desired_encoding))
            if isinstance(fake.answer, Exception):
                raise fake.answer
            return fake.answer

    monkeypatch.setitem(sys.modules, "cv_bridge", SimpleNamespace(CvBridge=CvBridge))
    monkeypatch.setattr(messages, "bridge", lambda: Bridge(True, frozenset({"rgb8", "mono8"}), ""))
    return fake


def changed(**fields):
    message = to_image(PICTURE, "camera", 1)
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def test_cv_bridge_is_asked_for_rgb(cv_bridge) -> None:
    np.testing.assert_array_equal(messages.to_rgb(changed()), PICTURE[::-1])
    assert cv_bridge.asked == [("rgb8", "rgb8")]


def test_our_checks_come_first(cv_bridge) -> None:
    """What cv_bridge is known to get wrong never reaches it."""
    padded = np.zeros((6, 13), np.uint8)  # no whole number of pixels
    padded[:, :12] = PICTURE.reshape(6, 12)
    np.testing.assert_array_equal(messages.to_rgb(changed(step=13, data=padded.tobytes())), PICTURE)
    np.testing.assert_array_equal(messages.to_rgb(changed(encoding="bgr8")), PICTURE[..., ::-1])
    np.testing.assert_array_equal(messages.to_rgb(changed(is_bigendian=1)), PICTURE)
    for fault in ({"step": 11}, {"height": 60}, {"width": 0}, {"height": 0}):
        with pytest.raises(InputError):
            messages.to_rgb(changed(**fault))
    png = CompressedImage(format="rgb8; png compressed rgb8", data=cv2.imencode(".png", PICTURE)[1].tobytes())
    np.testing.assert_array_equal(messages.to_rgb(png), PICTURE)
    assert cv_bridge.asked == []


@pytest.mark.parametrize(
    "answer",
    [
        ValueError("buffer is smaller than requested size"),
        None,
        PICTURE[:3],
        PICTURE.astype(np.uint16),
        PICTURE[..., 0],
    ],
    ids=["raises", "None", "another size", "uint16", "grey"],
)
def test_what_cv_bridge_refuses_is_read(cv_bridge, answer) -> None:
    cv_bridge.answer = answer
    np.testing.assert_array_equal(messages.to_rgb(changed()), PICTURE)
    assert len(cv_bridge.asked) == 1


def test_the_node_says_that_it_goes_on_without(make_robot, session, monkeypatch) -> None:
    said = []
    session.node.create_subscription(Log, "/rosout", lambda message: said.append(message.msg), 100)
    monkeypatch.setattr("dimm_ros.ros.node.bridge", lambda: Bridge(True, frozenset(), "cv_bridge is broken."))
    robot = make_robot()
    robot.wait(lambda: "cv_bridge is broken." in said)
    robot.answer_of(robot.localize())
