"""TF without tf2_ros, over DDS; and tf2_ros where it can be imported."""

from __future__ import annotations

import sys
import threading
import time
import types

import numpy as np
import pytest
from tf2_msgs.msg import TFMessage

from dimm_ros.data.transform_tree import TransformTree
from dimm_ros.errors import TransformError, TransformStampError
from dimm_ros.ros.messages import from_transform, stamp_ns, to_transform
from dimm_ros.ros.tf import DYNAMIC_QOS, STATIC_QOS, Tf2Transforms, TreeTransforms, make_transforms

from .robot import BASE_FROM_CAMERA, ODOM_FROM_BASE

SECOND = 10**9




def test_static_transforms_are_latched(session) -> None:
    publisher = session.node.create_publisher(TFMessage, "/tf_static", STATIC_QOS)
    publisher.publish(TFMessage(transforms=[to_transform("base_link", "camera", 0, BASE_FROM_CAMERA)]))
    late = TreeTransforms(session.node)  # subscribes after the message
    np.testing.assert_allclose(late.lookup("base_link", "camera", 77 * SECOND, 10.0), BASE_FROM_CAMERA, atol=1e-12)


def test_lookup_waits_for_what_is_still_to_come(session) -> None:
    transforms = TreeTransforms(session.node)
    publisher = session.node.create_publisher(TFMessage, "/tf", DYNAMIC_QOS)
    found: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: found.append(transforms.lookup("odom", "base_link", SECOND, 15.0)))
    thread.start()
    while not publisher.get_subscription_count():
        time.sleep(0.01)
    for stamp in (SECOND // 2, 2 * SECOND):
        publisher.publish(TFMessage(transforms=[to_transform("odom", "base_link", stamp, ODOM_FROM_BASE)]))
    thread.join(15.0)
    np.testing.assert_allclose(found[0], ODOM_FROM_BASE, atol=1e-12)
    with pytest.raises(TransformStampError, match="'odom' -> 'base_link' ends 1.000 s before"):
        transforms.lookup("odom", "base_link", 3 * SECOND, 0.0)


def test_broken_link_is_named(session) -> None:
    transforms = TreeTransforms(session.node)
    started = time.monotonic()
    with pytest.raises(TransformError, match="'base_link' and 'camera' do not exist"):
        transforms.lookup("base_link", "camera", SECOND, 0.2)
    assert 0.2 <= time.monotonic() - started < 5.0


def test_what_is_sent_arrives(session) -> None:
    transforms = TreeTransforms(session.node)
    transforms.send("map", "odom", 5 * SECOND, ODOM_FROM_BASE)
    np.testing.assert_allclose(transforms.lookup("map", "odom", 5 * SECOND, 10.0), ODOM_FROM_BASE, atol=1e-12)


def test_clear_keeps_static_transforms(session) -> None:
    transforms = TreeTransforms(session.node)
    transforms.send("odom", "base_link", SECOND, ODOM_FROM_BASE)
    session.node.create_publisher(TFMessage, "/tf_static", STATIC_QOS).publish(
        TFMessage(transforms=[to_transform("base_link", "camera", 0, BASE_FROM_CAMERA)]),
    )
    transforms.lookup("odom", "camera", SECOND, 10.0)
    transforms.clear()
    np.testing.assert_allclose(transforms.lookup("base_link", "camera", SECOND, 0.0), BASE_FROM_CAMERA, atol=1e-12)
    with pytest.raises(TransformError):
        transforms.lookup("odom", "camera", SECOND, 0.0)


def test_rubbish_is_ignored(session) -> None:
    transforms = TreeTransforms(session.node)
    rubbish = to_transform("map", "odom", SECOND, ODOM_FROM_BASE)
    rubbish.transform.rotation.x = rubbish.transform.rotation.y = rubbish.transform.rotation.z = rubbish.transform.rotation.w = 0.0
    loop = to_transform("odom", "odom", SECOND, ODOM_FROM_BASE)
    good = to_transform("odom", "base_link", SECOND, ODOM_FROM_BASE)
    publisher = session.node.create_publisher(TFMessage, "/tf", DYNAMIC_QOS)
    while not publisher.get_subscription_count():
        time.sleep(0.01)
    publisher.publish(TFMessage(transforms=[rubbish, loop, good]))
    np.testing.assert_allclose(transforms.lookup("odom", "base_link", SECOND, 10.0), ODOM_FROM_BASE, atol=1e-12)


class TransformException(Exception):
    pass


class ExtrapolationException(TransformException):
    pass


class Buffer:
    """tf2_ros.Buffer's signature; throws what tf2 throws."""

    def __init__(self, cache_time=None, node=None) -> None:
        self.tree = TransformTree()

    def lookup_transform(self, target_frame, source_frame, time, timeout=None):
        try:
            pose = self.tree.lookup(target_frame, source_frame, time.nanoseconds)
        except TransformStampError as error:
            raise ExtrapolationException("Lookup would require extrapolation into the future") from error
        except TransformError as error:
            raise TransformException(f'"{source_frame}" passed to lookupTransform argument source_frame does not exist.') from error
        return to_transform(target_frame, source_frame, time.nanoseconds, pose)

    def clear(self) -> None:
        self.tree.clear()


def test_tf2_is_used_where_it_is_installed(session, monkeypatch) -> None:
    """With the names and exceptions of tf2_ros, which pip does not have."""
    sent = []
    stand_in = types.ModuleType("tf2_ros")
    stand_in.Buffer, stand_in.TransformException, stand_in.ExtrapolationException = Buffer, TransformException, ExtrapolationException
    stand_in.TransformListener = lambda buffer, node, spin_thread: types.SimpleNamespace(unregister=lambda: None)
    stand_in.TransformBroadcaster = lambda node, qos: types.SimpleNamespace(sendTransform=sent.append)
    monkeypatch.setitem(sys.modules, "tf2_ros", stand_in)
    transforms = make_transforms(session.node)
    assert isinstance(transforms, Tf2Transforms)
    with pytest.raises(TransformError, match="does not link 'odom' to 'base_link'.*does not exist"):
        transforms.lookup("odom", "base_link", SECOND, 0.0)
    transforms._buffer.tree.add("odom", "base_link", SECOND, ODOM_FROM_BASE)
    np.testing.assert_allclose(transforms.lookup("odom", "base_link", SECOND, 0.0), ODOM_FROM_BASE, atol=1e-12)
    with pytest.raises(TransformStampError, match="not at the image's time"):
        transforms.lookup("odom", "base_link", 2 * SECOND, 0.02)
    transforms.send("map", "odom", 7 * SECOND, ODOM_FROM_BASE)
    assert (sent[0].header.frame_id, sent[0].child_frame_id, stamp_ns(sent[0].header.stamp)) == ("map", "odom", 7 * SECOND)
    np.testing.assert_allclose(from_transform(sent[0].transform), ODOM_FROM_BASE, atol=1e-12)
