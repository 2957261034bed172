"""Debug topics: made only for listeners, at most so often, and they show what was predicted."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
from sensor_msgs.msg import Image
from visualization_msgs.msg import Marker, MarkerArray

from dimm_ros.localizer import Estimate
from dimm_ros.ros.debug import DebugTopics, ray_markers
from dimm_ros.ros.messages import stamp_ns, to_rgb

from .robot import CAMERA_FRAME, WORLD_FROM_CAMERA, KnownPose

IMAGE = np.full((48, 64, 3), 90, np.uint8)
CENTRE = WORLD_FROM_CAMERA[:3, 3]


def estimate(offset: float = 0.0) -> Estimate:
    """3 x 4 rays whose lines pass the true camera centre at a distance (metres); one patch has none."""
    directions = np.random.default_rng(0).normal(size=(3, 4, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    sideways = np.cross(directions, [0.0, 0.0, 1.0])
    sideways *= offset / np.linalg.norm(sideways, axis=-1, keepdims=True)
    rays = np.concatenate([directions, np.cross(CENTRE + sideways, directions)], axis=-1)
    residual = np.linspace(0, 6, 12).reshape(3, 4)
    residual[1, 1] = np.nan
    return Estimate(
        world_from_camera=WORLD_FROM_CAMERA,
        covariance=np.eye(6),
        accepted=True,
        reason="",
        inliers=9,
        rays=11,
        angle_residual_deg=residual,
        world_rays=rays,
    )


def test_markers_are_the_predicted_rays() -> None:
    made = estimate(offset=0.05)
    (marker,) = ray_markers(made, "hall", 12).markers
    assert (marker.type, marker.header.frame_id, stamp_ns(marker.header.stamp)) == (Marker.LINE_LIST, "hall", 12)
    points = np.array([[point.x, point.y, point.z] for point in marker.points]).reshape(-1, 2, 3)
    assert len(points) == 11 and len(marker.colors) == 22  # one patch has no ray
    known = np.isfinite(made.angle_residual_deg)
    directions = made.world_rays[known][:, :3]
    np.testing.assert_allclose(np.linalg.norm(points[:, 0] - CENTRE, axis=1), 0.05, atol=1e-12)
    along = points[:, 1] - points[:, 0]
    np.testing.assert_allclose(along / np.linalg.norm(along, axis=1, keepdims=True), directions, atol=1e-12)
    assert marker.colors[0].b > marker.colors[0].r and marker.colors[-1].r > marker.colors[-1].b


def test_markers_without_usable_rays() -> None:
    lost = estimate()
    lost = replace(lost, world_rays=np.full_like(lost.world_rays, np.nan))
    assert ray_markers(lost, "hall", 0).markers[0].points == []


def test_nothing_is_made_for_nobody(session, monkeypatch) -> None:
    topics = DebugTopics(session.node)
    monkeypatch.setattr("dimm_ros.ros.debug.ray_residual_picture", None)  # would raise if it were called
    monkeypatch.setattr("dimm_ros.ros.debug.ray_markers", None)
    topics.publish(IMAGE, estimate(), CAMERA_FRAME, "hall", 1)
    topics.destroy()


def test_listeners_get_both_but_not_too_often(session) -> None:
    topics = DebugTopics(session.node, rate_hz=0.01)
    pictures, markers, arrived = [], [], threading.Condition()

    def keep(gathered: list):
        def on(message) -> None:
            with arrived:
                gathered.append(message)
                arrived.notify_all()

        return on

    session.node.create_subscription(Image, f"{session.node.get_name()}/debug/rays", keep(pictures), 5)
    session.node.create_subscription(MarkerArray, f"{session.node.get_name()}/debug/markers", keep(markers), 5)
    with arrived:
        for index in range(1, 500):  # until both are matched
            topics.publish(IMAGE, estimate(), CAMERA_FRAME, "hall", index)
            if arrived.wait_for(lambda: pictures and markers, 0.02):
                break
    assert len(pictures) == len(markers) == 1
    picture = to_rgb(pictures[0])
    assert picture.shape == IMAGE.shape and (picture != IMAGE).any() and pictures[0].header.frame_id == CAMERA_FRAME
    for index in range(5):
        topics.publish(IMAGE, estimate(), CAMERA_FRAME, "hall", 600 + index)
    topics.destroy()
    assert len(pictures) == len(markers) == 1


def test_the_node_shows_what_it_saw(make_robot, session) -> None:
    """Accepted or not; the markers in the map's frame."""
    localizer = KnownPose()
    localizer.localize = lambda image, camera: replace(estimate(), accepted=False, reason="Only 3% of the rays agree.")
    robot = make_robot(localizer=localizer)
    pictures, markers = [], []
    session.node.create_subscription(Image, "/localizer/debug/rays", pictures.append, 5)
    session.node.create_subscription(MarkerArray, "/localizer/debug/markers", markers.append, 5)
    robot.wait(lambda: robot.report_of(robot.localize()) and pictures and markers)
    assert to_rgb(pictures[0]).shape == (48, 64, 3) and pictures[0].header.frame_id == CAMERA_FRAME
    assert markers[0].markers[0].header.frame_id == "hall" and len(markers[0].markers[0].points) == 22
    assert robot.collector.report_of(stamp_ns(pictures[0].header.stamp)).message.reason == "Only 3% of the rays agree."
