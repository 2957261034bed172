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
from dimm_ros.ros.tf import (
    CACHE_S,
    DYNAMIC_QOS,
    STATIC_QOS,
    NodeTransforms,
    Tf2Transforms,
    TreeTransforms,
    make_transforms,
)
from dimm_ros.ros.tf_conflicts import WatchedTransforms

from .robot import BASE_FROM_CAMERA, ODOM_FROM_BASE, wait
from .waiting import PATIENCE

SECOND = 10**9


def test_static_transforms_are_latched(session) -> None:
    publisher = session.node.create_publisher(TFMessage, "/tf_static", STATIC_QOS)
    publisher.publish(TFMessage(transforms=[to_transform("base_link", "camera", 0, BASE_FROM_CAMERA)]))
    late = TreeTransforms(session.node)  # subscribes after the message
    np.testing.assert_allclose(late.lookup("base_link", "camera", 77 * SECOND, PATIENCE), BASE_FROM_CAMERA, atol=1e-12)


def test_lookup_waits_for_what_is_still_to_come(session) -> None:
    transforms = TreeTransforms(session.node)
    publisher = session.node.create_publisher(TFMessage, "/tf", DYNAMIC_QOS)
    found: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: found.append(transforms.lookup("odom", "base_link", SECOND, PATIENCE)))
    thread.start()
    wait(publisher.get_subscription_count)
    for stamp in (SECOND // 2, 2 * SECOND):
        publisher.publish(TFMessage(transforms=[to_transform("odom", "base_link", stamp, ODOM_FROM_BASE)]))
    thread.join(PATIENCE)
    np.testing.assert_allclose(found[0], ODOM_FROM_BASE, atol=1e-12)
    with pytest.raises(TransformStampError, match="'odom' -> 'base_link' ends 1.000 s before"):
        transforms.lookup("odom", "base_link", 3 * SECOND, 0.0)


def test_broken_link_is_named(session) -> None:
    transforms = TreeTransforms(session.node)
    started = time.monotonic()
    with pytest.raises(TransformError, match="'base_link' and 'camera' do not exist"):
        transforms.lookup("base_link", "camera", SECOND, 0.2)
    assert 0.2 <= time.monotonic() - started < PATIENCE


def test_what_is_sent_arrives(session) -> None:
    transforms = TreeTransforms(session.node)
    transforms.send("map", "odom", 5 * SECOND, ODOM_FROM_BASE)
    np.testing.assert_allclose(transforms.lookup("map", "odom", 5 * SECOND, PATIENCE), ODOM_FROM_BASE, atol=1e-12)


def test_clear_keeps_static_transforms(session) -> None:
    transforms = TreeTransforms(session.node)
    transforms.send("odom", "base_link", SECOND, ODOM_FROM_BASE)
    session.node.create_publisher(TFMessage, "/tf_static", STATIC_QOS).publish(
        TFMessage(transforms=[to_transform("base_link", "camera", 0, BASE_FROM_CAMERA)])
    )
    transforms.lookup("odom", "camera", SECOND, PATIENCE)
    transforms.clear()
    np.testing.assert_allclose(transforms.lookup("base_link", "camera", SECOND, 0.0), BASE_FROM_CAMERA, atol=1e-12)
    with pytest.raises(TransformError):
        transforms.lookup("odom", "camera", SECOND, 0.0)


def test_rubbish_is_ignored(session) -> None:
    transforms = TreeTransforms(session.node)
    rubbish = to_transform("map", "odom", SECOND, ODOM_FROM_BASE)
    rubbish.transform.rotation.x = rubbish.transform.rotation.y = rubbish.transform.rotation.z = (
        rubbish.transform.rotation.w
    ) = 0.0
    loop = to_transform("odom", "odom", SECOND, ODOM_FROM_BASE)
    good = to_transform("odom", "base_link", SECOND, ODOM_FROM_BASE)
    publisher = session.node.create_publisher(TFMessage, "/tf", DYNAMIC_QOS)
    wait(publisher.get_subscription_count)
    publisher.publish(TFMessage(transforms=[rubbish, loop, good]))
    np.testing.assert_allclose(transforms.lookup("odom", "base_link", SECOND, PATIENCE), ODOM_FROM_BASE, atol=1e-12)


@pytest.fixture(params=["tree", "tf2"])
def transforms(request, session, monkeypatch) -> NodeTransforms:
    """Both kinds on the session's node, whatever is installed; tf2_ros is a stand-in, which pip does not have."""
    monkeypatch.setitem(sys.modules, "tf2_ros", stand_in() if request.param == "tf2" else None)
    made = make_transforms(session.node)
    assert isinstance(made, Tf2Transforms if request.param == "tf2" else TreeTransforms)
    return made


def test_old_transforms_are_forgotten(session) -> None:
    """Whether or not somebody asks: a robot runs for weeks."""
    transforms = TreeTransforms(session.node)
    for stamp in (0, SECOND, round(40 * SECOND)):
        transforms.send("odom", "base_link", stamp, ODOM_FROM_BASE)
    transforms.lookup("odom", "base_link", 40 * SECOND, PATIENCE)
    with pytest.raises(TransformStampError, match="begins 39.000 s after"):
        transforms.lookup("odom", "base_link", SECOND, 0.0)


def test_tf_is_subscribed_once_for_all_that_listen(transforms, session) -> None:
    heard = threading.Event()
    watched = WatchedTransforms(transforms, session.node, "map_odom", "odom", "base_link")
    transforms.watch(lambda transform, static: heard.set())
    graph = session.node.get_subscriptions_info_by_topic
    assert [len(graph(topic)) for topic in ("/tf", "/tf_static")] == [1, 1]
    watched.send("map", "odom", SECOND, ODOM_FROM_BASE)
    np.testing.assert_allclose(watched.lookup("map", "odom", SECOND, PATIENCE), ODOM_FROM_BASE, atol=1e-12)
    assert heard.wait(PATIENCE)
    watched.destroy()
    wait(lambda: not graph("/tf") and not graph("/tf_static"))


def test_a_leading_slash_does_not_matter(transforms) -> None:
    transforms.send("/odom", "/base_link", SECOND, ODOM_FROM_BASE)
    for target, source in (("/odom", "base_link"), ("odom", "/base_link"), ("/odom", "/base_link")):
        np.testing.assert_allclose(transforms.lookup(target, source, SECOND, PATIENCE), ODOM_FROM_BASE, atol=1e-12)


def test_a_lookup_wakes_when_what_it_waits_for_comes(transforms) -> None:
    found: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: found.append(transforms.lookup("odom", "base_link", SECOND, PATIENCE)))
    thread.start()
    transforms.send("odom", "base_link", SECOND, ODOM_FROM_BASE)
    thread.join(PATIENCE)
    np.testing.assert_allclose(found[0], ODOM_FROM_BASE, atol=1e-12)


def test_two_trees_are_not_said_to_be_linked(transforms) -> None:
    """At a time that neither tree has; tf2 speaks of extrapolation then."""
    transforms.send("odom", "base_link", SECOND, ODOM_FROM_BASE)
    transforms.send("rig", "camera", SECOND, BASE_FROM_CAMERA)
    transforms.lookup("odom", "base_link", SECOND, PATIENCE)
    transforms.lookup("rig", "camera", SECOND, PATIENCE)
    for stamp in (SECOND, 5 * SECOND):
        with pytest.raises(TransformError, match="TF does not link 'base_link' to 'camera'") as caught:
            transforms.lookup("base_link", "camera", stamp, 0.0)
        assert not isinstance(caught.value, TransformStampError)
    with pytest.raises(TransformStampError):
        transforms.lookup("odom", "base_link", 5 * SECOND, 0.0)


class TransformException(Exception):
    pass


class ExtrapolationException(TransformException):
    pass


class ConnectivityException(TransformException):
    pass


class LookupException(TransformException):
    pass


class InvalidArgumentException(TransformException):
    pass


class Buffer:
    """tf2_ros.Buffer as far as it is used, and as tf2 does: stamps are asked for before links, leading slashes refused.

    With a node it makes the service ``tf2_frames``, which outlives it; so there is no such argument here.
    """

    def __init__(self, cache_time=None) -> None:
        self.tree, self.cache_time = TransformTree(), cache_time
        self.statics = []

    def set_transform(self, transform, authority: str) -> None:
        pose = from_transform(transform.transform)
        self.tree.add(transform.header.frame_id, transform.child_frame_id, stamp_ns(transform.header.stamp), pose)

    def set_transform_static(self, transform, authority: str) -> None:
        self.statics.append(transform)
        pose = from_transform(transform.transform)
        self.tree.add(transform.header.frame_id, transform.child_frame_id, 0, pose, static=True)

    def lookup_transform(self, target_frame, source_frame, time, timeout=None):
        if "/" in (target_frame[:1], source_frame[:1]):
            raise InvalidArgumentException("tf2 frame_ids cannot start with a '/'")
        for frame in (target_frame, source_frame):
            if frame not in self.tree.frames:
                raise LookupException(f'"{frame}" passed to lookupTransform does not exist.')
        try:
            pose = self.tree.lookup(target_frame, source_frame, time.nanoseconds or None)
        except TransformStampError as error:
            raise ExtrapolationException("Lookup would require extrapolation into the future") from error
        except TransformError as error:
            if time.nanoseconds > 2 * SECOND:  # later than all that the tests send
                raise ExtrapolationException("Lookup would require extrapolation into the future") from error
            raise ConnectivityException("they are not part of the same tree") from error
        return to_transform(target_frame, source_frame, time.nanoseconds, pose)

    def clear(self) -> None:
        self.tree.clear()
        for transform in self.statics[:]:
            self.set_transform_static(transform, "")


def stand_in() -> types.ModuleType:
    """The names of tf2_ros that are used."""
    module = types.ModuleType("tf2_ros")
    module.Buffer, module.TransformException = Buffer, TransformException
    module.ExtrapolationException = ExtrapolationException
    return module


def test_tf2_is_used_where_it_is_installed(session, monkeypatch) -> None:
    """With the names and exceptions of tf2_ros, which pip does not have."""
    monkeypatch.setitem(sys.modules, "tf2_ros", stand_in())
    transforms = make_transforms(session.node)
    assert isinstance(transforms, Tf2Transforms) and transforms._buffer.cache_time.nanoseconds == CACHE_S * SECOND
    with pytest.raises(TransformError, match="does not link 'odom' to 'base_link'.*does not exist"):
        transforms.lookup("odom", "base_link", SECOND, 0.0)
    session.node.create_publisher(TFMessage, "/tf_static", STATIC_QOS).publish(
        TFMessage(transforms=[to_transform("base_link", "camera", 0, BASE_FROM_CAMERA)])
    )
    transforms.send("odom", "base_link", SECOND, ODOM_FROM_BASE)
    found = transforms.lookup("odom", "camera", SECOND, PATIENCE)
    np.testing.assert_allclose(found, ODOM_FROM_BASE @ BASE_FROM_CAMERA, atol=1e-12)
    with pytest.raises(TransformStampError, match="not at the image's time"):
        transforms.lookup("odom", "base_link", 2 * SECOND, 0.02)
    transforms.clear()
    np.testing.assert_allclose(transforms.lookup("base_link", "camera", SECOND, 0.0), BASE_FROM_CAMERA, atol=1e-12)
    with pytest.raises(TransformError, match="does not link"):
        transforms.lookup("odom", "camera", SECOND, 0.0)
