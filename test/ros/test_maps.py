"""Maps of a running node: changed, several at once, and what cannot be used."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import pytest
from rclpy.parameter import Parameter

from dimm_ros.data.open import open_recording
from dimm_ros.errors import MapError
from dimm_ros.msg import LocalizationStatus
from dimm_ros.ros.messages import to_image

from .robot import CAMERA_FRAME, KnownPose
from .test_requests import sent_by_timer
from .waiting import PATIENCE


class Building(KnownPose):
    """Opens a map for each name: floor N accepts images whose first pixel is N."""

    def __init__(self, *broken: str) -> None:
        super().__init__()
        self.broken, self.floors, self.calls = set(broken), {}, []

    def open(self, entry: str, **options) -> KnownPose:
        self.calls.append(entry)
        if entry in self.broken:
            raise MapError(f"The map {entry} is damaged.")
        number = int(entry[-1])
        floor = self.floors[number] = KnownPose({number})
        floor.name, floor.frame_id = f"floor{number}", f"map{number}"
        floor.world_from_camera[2, 3] += 3.0 * number
        return floor


@pytest.fixture
def in_building(make_robot):
    def make(*broken: str, **parameters):
        building = Building(*broken)
        return make_robot(localizer=building, **parameters), building

    return make


def set_parameter(robot, name: str, value: object) -> None:
    (result,) = robot.node.set_parameters([Parameter(name, value=value)])
    assert result.successful, result.reason


def test_map_is_changed_while_the_node_runs(in_building) -> None:
    robot, building = in_building(map="floor1")
    status = robot.report_of(robot.localize(1)).message
    assert status.accepted and (status.map_name, status.header.frame_id) == ("floor1", "map1")
    set_parameter(robot, "map", "floor2")
    assert robot.collector.wait_for(lambda: robot.collector.reports[-1].message.map_name == "floor2", PATIENCE)
    # what was known was of another map
    assert robot.collector.reports[-1].message.state == LocalizationStatus.UNINITIALIZED
    assert not robot.report_of(robot.localize(1)).message.accepted
    stamp = robot.localize(2)
    assert robot.answer_of(stamp).frame_id == "map2"
    assert building.floors[2].warmed and robot.node.state == "active"


def test_the_transform_of_the_old_map_ends_with_it(in_building) -> None:
    robot, _ = in_building(map="floor1", tf_rate=100.0)
    robot.answer_of(robot.localize(1))
    assert set(sent_by_timer(robot)) == {"map1"}
    set_parameter(robot, "map", "floor2")
    assert robot.collector.wait_for(lambda: robot.collector.reports[-1].message.map_name == "floor2", PATIENCE)
    assert sent_by_timer(robot) == []


def test_the_transform_ends_where_an_image_shows_another_map(in_building) -> None:
    """Also where the new one cannot be published yet, since odometry is missing at the image's stamp."""
    robot, _ = in_building(map="floor1", maps=["floor1", "floor2"], tf_rate=100.0)
    robot.answer_of(robot.localize(1))
    assert set(sent_by_timer(robot)) == {"map1"}
    status = robot.report_of(robot.send_image(robot.now_ns() + 10 * 10**9, 2)).message  # TF does not reach so far
    assert status.accepted and status.map_name == "floor2"
    assert "the transform of tf_mode map_odom is not" in status.reason
    assert sent_by_timer(robot) == []


def test_old_map_stays_when_the_new_one_cannot_be_used(in_building) -> None:
    robot, _ = in_building("floor9", map="floor1")
    robot.answer_of(robot.localize(1))
    set_parameter(robot, "map", "floor9")
    assert robot.says("The map stays 'floor1', the new one cannot be used: The map floor9 is damaged.")
    status = robot.report_of(robot.localize(1)).message
    assert status.accepted and status.map_name == "floor1" and status.state == LocalizationStatus.LOCALIZED
    assert "floor9 is damaged" in status.reason  # until it is mended
    set_parameter(robot, "map", "floor1")
    robot.wait(lambda: not robot.node._maps.trouble)
    robot.localize(1)
    assert robot.report_of(robot.localize(1)).message.reason == ""


def test_the_map_that_an_image_shows_is_picked(in_building) -> None:
    robot, building = in_building(map="floor1", maps=["floor1", "floor2", ""])
    assert building.calls == ["floor1", "floor2"]
    assert robot.answer_of(robot.localize(1)).frame_id == "map1"
    lift = robot.localize(2)
    answer = robot.answer_of(lift)
    status = robot.report_of(lift).message
    assert answer.frame_id == "map2" and (status.map_name, status.header.frame_id) == ("floor2", "map2")
    transform = [one for one in robot.collector.broadcasts if one.parent == "map2"]
    robot.collector.wait_for(lambda: [one for one in robot.collector.broadcasts if one.parent == "map2"], PATIENCE)
    transform = [one for one in robot.collector.broadcasts if one.parent == "map2"][0]
    assert transform.child == "odom"
    nowhere = robot.report_of(robot.localize(7)).message
    assert not nowhere.accepted and nowhere.map_name == "floor2" and "No other of the 2 maps" in nowhere.reason
    asked = len(building.floors[1].seen)
    robot.answer_of(robot.localize(2))
    assert len(building.floors[1].seen) == asked  # while the current map accepts, the other is not asked


def test_a_loaded_map_is_chosen_without_loading(in_building) -> None:
    robot, building = in_building(map="floor2", maps=["floor1", "floor2"])
    assert robot.collector.wait_for(
        lambda: any(one.message.map_name == "floor2" for one in robot.collector.reports), PATIENCE
    )
    set_parameter(robot, "map", "floor1")
    assert robot.collector.wait_for(lambda: robot.collector.reports[-1].message.map_name == "floor1", PATIENCE)
    assert building.calls == ["floor1", "floor2"]
    set_parameter(robot, "maps", ["floor1", "floor3"])
    robot.wait(lambda: robot.node._maps.atlas.names == ("floor1", "floor3"))
    assert robot.answer_of(robot.localize(3)).frame_id == "map3"


def test_several_maps_with_the_gate(in_building) -> None:
    """Another floor is a jump: one image that looks like it changes nothing."""
    robot, _ = in_building(map="floor1", maps=["floor1", "floor2"], gate__enabled=True)
    start = robot.now_ns() - 20 * 10**9
    statuses = []
    for index, floor in enumerate([1, 1, 1, 2, 1, 2, 2, 2]):
        stamp = start + index * 10**9
        robot.send_tf(stamp)
        if not index:
            robot.send_info()
        statuses.append(robot.report_of(robot.send_image(stamp, floor)).message)
    # 3 of the newest 5
    assert [status.accepted for status in statuses] == [False, False, True, False, True, False, True, True]
    assert [status.map_name for status in statuses][2:] == ["floor1"] * 4 + ["floor2"] * 2
    assert "another map" in statuses[3].reason
    heights = [answer.map_from_body[2, 3] for answer in robot.collector.answers]
    np.testing.assert_allclose(np.diff(heights), [0.0, 3.0, 0.0], atol=1e-9)


def test_a_real_map_replaced_by_another_and_by_garbage(make_robot, small_map, tmp_path) -> None:
    from dimm_ros.scene_map import SceneMap

    scene_map = SceneMap.load(small_map)
    for name in ("first", "second"):
        scene_map.header = scene_map.header.model_copy(update={"name": name, "frame_id": f"{name}_frame"})
        scene_map.save(tmp_path / f"{name}.dimm")
    (tmp_path / "garbage.dimm").write_bytes(bytes(1000))
    robot = make_robot(real=True, ready=False, map="first", map_folder=str(tmp_path), device="cpu")
    robot.wait(lambda: robot.node.state == "active", PATIENCE)
    encoder = robot.node._maps.atlas.current.encoder
    for bad, words in (
        ("garbage", "damaged or not a map"),
        ("missing", "does not exist"),
        (str(tmp_path), "is a folder"),
    ):
        set_parameter(robot, "map", bad)
        assert robot.says(words, 60.0) and robot.collector.reports[-1].message.map_name == "first"
    set_parameter(robot, "map", "second")
    assert robot.collector.wait_for(lambda: robot.collector.reports[-1].message.map_name == "second", PATIENCE)
    assert robot.node._maps.atlas.current.encoder is encoder  # not loaded again
    assert robot.node._reporter.map_frame == "second_frame" and not robot.node._maps.trouble


def test_the_back_end_reaches_the_maps(make_robot) -> None:
    robot = make_robot(localizer=KnownPose(), backend="onnx", onnx_provider="cpu")
    assert (robot.localizer.options["backend"], robot.localizer.options["onnx_provider"]) == ("onnx", "cpu")
    (result,) = robot.node.set_parameters([Parameter("backend", value="torch")])
    assert not result.successful and "can be set only while the node is unconfigured" in result.reason


def test_the_node_writes_no_map(make_robot, walk, small_map, tmp_path) -> None:
    """Whatever it does with a map, the file and its folder stay as they were: nothing in the node writes one."""
    for path in small_map.parent.glob(f"{small_map.name}*"):
        if path.is_file():
            shutil.copy(path, tmp_path)

    def state() -> dict[str, tuple[str, int]]:
        files = list(tmp_path.iterdir())
        return {path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in files}

    before = state()
    frame = open_recording(walk).frames[0]
    robot = make_robot(
        real=True,
        ready=False,
        map=small_map.name,
        map_folder=str(tmp_path),
        device="cpu",
        tf_mode="none",
        base_frame="",
    )
    robot.wait(lambda: robot.node.state == "active", PATIENCE)
    pixels, camera = frame.load(), frame.camera
    k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
    robot.send_info(width=camera.width, height=camera.height, k=k)
    stamp = robot.now_ns()
    message = to_image(pixels, CAMERA_FRAME, stamp)
    robot._images.publish(message)
    assert robot.report_of(stamp).message.rays > 0  # it was localized, well or not
    set_parameter(robot, "map", small_map.name)  # read again
    steps = {"deactivate": "inactive", "cleanup": "unconfigured", "configure": "inactive", "activate": "active"}
    for transition, reached in steps.items():
        robot.session.call(lambda transition=transition: robot.node.change(transition), PATIENCE)
        robot.wait(lambda reached=reached: robot.node.state == reached)
    robot.session.call(robot.node.release)
    assert len(before) > 1 and state() == before
