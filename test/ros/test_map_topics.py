"""The loaded map in RViz: its views and landmarks, latched, and those of the next map once it is loaded."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from landmarks.scenes import camera_poses, cloud, landmarks_of, looks
from rclpy.parameter import Parameter
from sensor_msgs.msg import PointCloud2
from visualization_msgs.msg import Marker, MarkerArray

from dimm_ros.landmarks.store import hide_in_lines
from dimm_ros.ros.map_topics import LATCHED_QOS

from .robot import KnownPose
from .waiting import PATIENCE

ORIGIN = (3.0, -2.0, 1.0)
RNG = np.random.default_rng(0)
POSES = camera_poses(RNG, 6)
PLACES = cloud(RNG, 50).astype(np.float32)
POINTS = landmarks_of(PLACES, looks(RNG, 50))


def known(landmarks, name: str = "known", poses: np.ndarray | None = POSES) -> KnownPose:
    localizer = KnownPose()
    localizer.name, localizer.frame_id = name, f"/{name}_frame"
    localizer.map = SimpleNamespace(
        mapped_poses=lambda: poses, landmarks=landmarks, header=SimpleNamespace(origin=ORIGIN)
    )
    return localizer


class Eyes:
    """Listens as RViz does, from when it is made."""

    def __init__(self, session) -> None:
        self.views: list[MarkerArray] = []
        self.clouds: list[PointCloud2] = []
        session.node.create_subscription(MarkerArray, "/localizer/map/views", self.views.append, LATCHED_QOS)
        session.node.create_subscription(PointCloud2, "/localizer/map/landmarks", self.clouds.append, LATCHED_QOS)

    @property
    def places(self) -> np.ndarray:
        """(L, 3) of the newest cloud."""
        message = self.clouds[-1]
        assert [(field.name, field.offset, field.datatype) for field in message.fields] == [
            ("x", 0, 7),
            ("y", 4, 7),
            ("z", 8, 7),
        ]
        assert (message.height, message.width * message.point_step, message.is_bigendian) == (
            1,
            message.row_step,
            False,
        )
        return np.frombuffer(message.data, "<f4").reshape(message.width, 3)


def ends(message: MarkerArray) -> np.ndarray:
    """(K, 3) of the pyramids' edges."""
    clear, marker = message.markers
    assert clear.action == Marker.DELETEALL and (marker.type, marker.action) == (Marker.LINE_LIST, Marker.ADD)
    return np.array([[point.x, point.y, point.z] for point in marker.points])


def test_who_listens_later_sees_the_map(make_robot, session) -> None:
    robot = make_robot(localizer=known(POINTS))
    late = Eyes(session)
    robot.wait(lambda: late.views and late.clouds)
    shown = ends(late.views[0]).reshape(6, 16, 3)
    np.testing.assert_allclose(shown[:, 0], POSES[:, :3, 3], atol=1e-9)  # each pyramid begins at its camera
    ahead = shown.mean(axis=1) - POSES[:, :3, 3]
    assert ((ahead * POSES[:, :3, 2]).sum(axis=1) > 0.03).all()
    np.testing.assert_allclose(late.places, PLACES + np.array(ORIGIN), atol=1e-5)
    for header in (late.views[0].markers[1].header, late.clouds[0].header):
        assert header.frame_id == "known_frame" and (header.stamp.sec, header.stamp.nanosec) == (0, 0)


def test_the_frame_is_that_of_the_poses(make_robot, session) -> None:
    robot = make_robot(localizer=known(POINTS), map_frame="earth")
    eyes = Eyes(session)
    robot.wait(lambda: eyes.views and eyes.clouds)
    assert eyes.views[0].markers[1].header.frame_id == eyes.clouds[0].header.frame_id == "earth"


@pytest.mark.parametrize("landmarks", [None, hide_in_lines(POINTS, 0)])
def test_a_map_without_points_or_views_shows_none(make_robot, session, landmarks) -> None:
    """Landmarks that are hidden in lines stay hidden."""
    robot = make_robot(localizer=known(landmarks, poses=None))
    eyes = Eyes(session)
    robot.wait(lambda: eyes.views and eyes.clouds)
    assert len(eyes.places) == 0 and [marker.action for marker in eyes.views[0].markers] == [Marker.DELETEALL]


def test_nothing_of_the_map_is_published_where_that_is_turned_off(make_robot, session) -> None:
    """Neither topic is there, nor does another map bring one."""
    first, second = known(POINTS, "first"), known(POINTS, "second")
    first.open = lambda entry, **options: second if entry == "second" else first
    robot = make_robot(localizer=first, map="first", publish_map=False)
    robot.answer_of(robot.localize())
    robot.node.set_parameters([Parameter("map", value="second")])
    robot.wait(lambda: any(report.message.map_name == "second" for report in robot.collector.reports))
    published = {name for name, _ in robot.node.get_publisher_names_and_types_by_node("localizer", "/")}
    assert "/localization_pose" in published and not any(name.startswith("/localizer/map/") for name in published)


def test_another_map_takes_the_place_of_the_old_one(make_robot, session) -> None:
    """Once each: loading publishes, images do not."""
    first, second = known(POINTS, "first"), known(None, "second", POSES[:2])
    first.open = lambda entry, **options: second if entry == "second" else first
    robot = make_robot(localizer=first, map="first")
    eyes = Eyes(session)
    robot.wait(lambda: eyes.views and eyes.clouds)
    robot.answer_of(robot.localize())
    robot.node.set_parameters([Parameter("map", value="second")])
    robot.wait(lambda: len(eyes.views) > 1 and len(eyes.clouds) > 1)
    assert len(ends(eyes.views[-1])) == 2 * 16 and len(eyes.places) == 0
    assert eyes.views[-1].markers[1].header.frame_id == "second_frame"
    assert (len(eyes.views), len(eyes.clouds)) == (2, 2)


def test_the_map_that_the_images_show_is_shown(make_robot, session) -> None:
    first, second = known(POINTS, "first"), known(None, "second", POSES[:2])
    first.only, second.only = {1}, {2}
    first.open = lambda entry, **options: second if entry == "second" else first
    robot = make_robot(localizer=first, map="first", maps=["first", "second"])
    eyes = Eyes(session)
    robot.wait(lambda: eyes.views and len(ends(eyes.views[-1])) == 6 * 16)
    robot.answer_of(robot.localize(2))
    robot.wait(lambda: len(ends(eyes.views[-1])) == 2 * 16)


def test_nothing_waits_while_a_map_is_drawn(make_robot, session) -> None:
    """Neither the activation, nor the pose that an image of another map gives."""
    first, second, drawn = known(POINTS, "first"), known(None, "second", POSES[:2]), threading.Event()
    first.only, second.only = {1}, {2}
    first.open = lambda entry, **options: second if entry == "second" else first
    for localizer, poses in ((first, POSES), (second, POSES[:2])):
        localizer.map.mapped_poses = lambda poses=poses: poses if drawn.wait(PATIENCE) else None
    robot = make_robot(localizer=first, map="first", maps=["first", "second"])
    eyes = Eyes(session)
    for number in (1, 2):
        robot.answer_of(robot.localize(number))
    assert not eyes.views and not drawn.is_set()
    drawn.set()
    robot.wait(lambda: eyes.views and len(ends(eyes.views[-1])) == 2 * 16)
