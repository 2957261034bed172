"""Bags written message by message and read back, and every sentence a bad bag earns."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from bag_messages import START, BagContent, T, camera_info, compressed, header, image, point, quaternion, tf, transform

from dimm_ros.data.bag import Bag, read_bag
from dimm_ros.data.open import open_recording
from dimm_ros.errors import DataError

SHARED = Path(__file__).parents[3] / "shared" / "data" / "bags"


def ns(seconds: float) -> int:
    return START + round(seconds * 1e9)


def camera_x(recording) -> np.ndarray:
    return recording.poses()[:, 0, 3]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_images_cameras_and_poses(drive, tmp_path, storage):
    recording = read_bag(drive.write(tmp_path / "drive", storage))
    assert recording.frame_id == "map" and recording.notes == () and recording.name == "drive"
    assert [frame.stamp_ns - START for frame in recording.frames] == [
        0,
        100_000_000,
        190_000_000,
        300_000_000,
        400_000_000,
    ]
    np.testing.assert_allclose(camera_x(recording), 100.2 + np.array([0, 0.1, 0.19, 0.3, 0.4]), atol=1e-9)
    order = [3, 0, 4, 2, 1]
    with ThreadPoolExecutor(4) as pool:  # frames are loaded by several threads, in any order
        images = list(pool.map(lambda index: recording.frames[index].load(), order))
    assert [int(picture.mean()) for picture in images] == [10 * index for index in order]
    assert images[0].shape == (24, 32, 3) and recording.frames[0].camera.fx == 30


def test_bags_of_ros1(drive, tmp_path):
    recording = open_recording(drive.write(tmp_path / "drive"))
    (tmp_path / "old").mkdir()
    path = drive.write_ros1(tmp_path / "old" / "drive.bag")
    for place in (path, tmp_path / "old"):
        old = open_recording(place)
        assert [frame.stamp_ns for frame in old.frames] == [frame.stamp_ns for frame in recording.frames]
        np.testing.assert_array_equal(old.poses(), recording.poses())
        assert [frame.camera for frame in old.frames] == [frame.camera for frame in recording.frames]
        assert int(old.frames[3].load().mean()) == 30
    with pytest.raises(DataError, match="Bag 'drive.bag' is of ROS 1; make a ROS 2 bag of it with 'dimm convert'"):
        Bag(path)
    path.with_name("tour.bag").write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="holds several bags .drive.bag, tour.bag.; give one of them"):
        open_recording(tmp_path / "old")


def test_parts_of_a_ros1_bag(drive, tmp_path):
    drive.messages.sort(key=lambda entry: entry[0])
    middle = len(drive.messages) // 2
    for part, messages in enumerate((drive.messages[:middle], drive.messages[middle:])):
        BagContent(messages).write_ros1(tmp_path / f"drive_{part}.bag")
    assert len(open_recording(tmp_path).frames) == 5


def test_depth_in_the_frame_of_the_camera(drive, tmp_path):
    for k in range(5):
        shift = 5_000_000 if k < 4 else 40_000_000  # the last is too far from its image
        depth = np.full((12, 16), 1000 + k, np.uint16)
        drive.add(
            ns(0.1 * k) + 9_000_000, "/camera/depth/image_raw", image(ns(0.1 * k) + shift, depth, encoding="16UC1")
        )
        drive.add(
            ns(0.1 * k) + 9_000_000,
            "/camera/depth/camera_info",
            camera_info(ns(0.1 * k) + shift, width=16, height=12, focal=15.0),
        )
    frames = read_bag(drive.write(tmp_path / "b")).frames
    assert frames[0].depth_camera.fx == 15 and frames[0].camera.fx == 30
    assert [frame.load_depth().mean() for frame in frames] == pytest.approx([1.0, 1.001, 1.002, 1.003, 0.0])
    for index, (stamp, topic, _) in enumerate(drive.messages):
        if topic == "/camera/depth/image_raw":
            drive.messages[index] = (stamp, topic, image(ns(0), np.ones((12, 16), np.uint16), "depth_optical", "16UC1"))
    assert read_bag(drive.write(tmp_path / "c")).frames[0].load_depth is None


def test_single_file_and_folder_without_metadata(drive, tmp_path):
    folder = drive.write(tmp_path / "drive")
    assert len(read_bag(folder / "drive.mcap").frames) == 5
    (folder / "metadata.yaml").unlink()
    assert len(open_recording(folder).frames) == 5


def test_compressed_twin_and_namespace(drive, tmp_path):
    bag = drive.without("/camera/image_raw")
    bag.add(ns(0.1), "/camera/image_raw/compressed", compressed(ns(0.1), np.full((24, 32, 3), [7, 8, 9], np.uint8)))
    bag.add(ns(0.1), "/camera/depth/image_raw", image(ns(0.1), np.ones((24, 32), np.uint16), encoding="16UC1"))
    bag.add(ns(0.1), "/other/camera_info", camera_info(ns(0.1), focal=99))
    path = bag.write(tmp_path / "b")
    for topic in (None, "/camera/image_raw"):
        (frame,) = read_bag(path, image_topic=topic).frames
        assert frame.load()[0, 0].tolist() == [7, 8, 9]
        assert frame.camera.fx == 30  # of the sibling /camera/camera_info, not of /other


def test_two_images_in_one_nanosecond_of_log_time(drive, tmp_path):
    bag = drive.without("/camera/image_raw")
    for index in range(3):
        bag.add(ns(0.3), "/camera/image_raw", image(ns(0.1 * index), np.full((24, 32, 3), index, np.uint8)))
    recording = read_bag(bag.write(tmp_path / "b"))
    assert [int(frame.load()[0, 0, 0]) for frame in recording.frames] == [0, 1, 2]


def test_camera_info_that_changes(drive, tmp_path):
    bag = drive.without("/camera/camera_info")
    for seconds, focal in ((0.0, 30), (0.15, 45), (0.25, 60)):
        bag.add(ns(seconds), "/camera/camera_info", camera_info(ns(seconds), focal=focal))
    assert [frame.camera.fx for frame in read_bag(bag.write(tmp_path / "b")).frames] == [30, 30, 45, 60, 60]


def test_images_outside_tf_are_left_out_with_a_note(drive, tmp_path):
    for seconds in (-0.5, 0.5, 0.7):
        drive.add(ns(seconds), "/camera/image_raw", image(ns(seconds), np.zeros((24, 32, 3), np.uint8)))
    path = drive.write(tmp_path / "b")
    recording = read_bag(path)
    assert len(recording.frames) == 5
    assert recording.notes == (
        "3 of 8 images have no pose at their stamp and were left out (Transform 'odom' -> 'base_link' begins 0.500 s "
        "after the "
        "requested time 1699999999.500 s; its first is of 1700000000.000 s).",
    )
    everything = read_bag(path, require_poses=False)
    assert [frame.world_from_camera is None for frame in everything.frames] == [True] + [False] * 5 + [True] * 2


def test_gap_in_tf(drive, tmp_path):
    drive.add(
        ns(10),
        "/tf",
        tf(transform(ns(10), "map", "odom", (0, 0, 0)), transform(ns(10), "odom", "base_link", (0, 0, 0))),
    )
    drive.add(ns(5), "/camera/image_raw", image(ns(5), np.zeros((24, 32, 3), np.uint8)))
    path = drive.write(tmp_path / "b")
    assert len(read_bag(path).frames) == 5
    assert len(read_bag(path, max_gap_s=20).frames) == 6


def test_camera_frame_can_be_named(drive, tmp_path):
    bag = drive.without("/camera/image_raw")
    bag.add(ns(0.1), "/camera/image_raw", image(ns(0.1), np.zeros((24, 32, 3), np.uint8), frame_id="wrong"))
    path = bag.write(tmp_path / "b")
    with pytest.raises(
        DataError,
        match="Frame 'wrong' does not exist in TF; the frames are 'base_link', 'map', 'odom', 'optical'; record /tf",
    ):
        read_bag(path)
    assert camera_x(read_bag(path, camera_frame="optical")) == pytest.approx(100.3)
    assert camera_x(read_bag(path, camera_frame="base_link", map_frame="odom")) == pytest.approx(0.1)


def pose_message(seconds: float, x: float, kind: str, frame_id: str = "map"):
    pose = T["geometry_msgs/msg/Pose"](position=point((x, 0, 0)), orientation=quaternion((0, 0, 0, 1)))
    if kind == "PoseStamped":
        return T["geometry_msgs/msg/PoseStamped"](header=header(ns(seconds), frame_id), pose=pose)
    if kind == "TransformStamped":
        return transform(ns(seconds), frame_id, "base_link", (x, 0, 0))
    covered = T["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=np.zeros(36))
    if kind == "PoseWithCovarianceStamped":
        return T["geometry_msgs/msg/PoseWithCovarianceStamped"](header=header(ns(seconds), frame_id), pose=covered)
    zero = T["geometry_msgs/msg/Vector3"](x=0.0, y=0.0, z=0.0)
    twist = T["geometry_msgs/msg/TwistWithCovariance"](
        twist=T["geometry_msgs/msg/Twist"](linear=zero, angular=zero), covariance=np.zeros(36)
    )
    return T["nav_msgs/msg/Odometry"](
        header=header(ns(seconds), frame_id), child_frame_id="base_link", pose=covered, twist=twist
    )


@pytest.mark.parametrize("kind", ["PoseStamped", "PoseWithCovarianceStamped", "Odometry", "TransformStamped"])
def test_poses_from_a_topic(drive, tmp_path, kind):
    bag = drive.without("/tf")
    for seconds in (0, 0.2, 0.4):
        bag.add(ns(seconds), "/truth", pose_message(seconds, 10 * seconds, kind, frame_id="mocap"))
    recording = read_bag(bag.write(tmp_path / "b"), pose_topic="/truth")
    assert recording.frame_id == "mocap"
    np.testing.assert_allclose(camera_x(recording), 0.2 + 10 * np.array([0, 0.1, 0.19, 0.3, 0.4]), atol=1e-9)
    assert "Poses of /truth are in frame 'mocap', which is the map's frame." in recording.notes
    guessed = "Poses of /truth are taken for those of base_link."
    assert (guessed in recording.notes) == kind.startswith("Pose")


def test_pose_topic_of_the_camera_itself(drive, tmp_path):
    bag = drive.without("/tf").without("/tf_static")
    for seconds in (0, 0.4):
        bag.add(ns(seconds), "/truth", pose_message(seconds, 10 * seconds, "PoseStamped"))
    recording = read_bag(bag.write(tmp_path / "b"), pose_topic="/truth")
    assert camera_x(recording)[-1] == pytest.approx(4.0)
    assert recording.notes == ("Poses of /truth are taken for those of the camera (optical axes).",)


def test_pose_topic_without_extrinsics(drive, tmp_path):
    bag = drive.without("/tf_static")
    bag.add(ns(0), "/odom", pose_message(0, 0, "Odometry"))
    with pytest.raises(
        DataError,
        match="no extrinsics from 'base_link' .the child frame of /odom. to the camera: Frame 'optical' does not exist",
    ):
        read_bag(bag.write(tmp_path / "b"), pose_topic="/odom")


@pytest.mark.parametrize(
    ("removed", "options", "words"),
    [
        (
            "/camera/image_raw",
            {},
            "has no image topic .*; the bag has /camera/camera_info .CameraInfo., /tf .TFMessage., /tf_static",
        ),
        (
            "",
            {"image_topic": "/front/image"},
            "Image topic /front/image .* is not in it; the bag has .*/camera/image_raw .Image.",
        ),
        ("", {"image_topic": "/tf"}, "it is a TFMessage, not an image; the bag has"),
        ("/camera/camera_info", {}, "has no CameraInfo topic.*; the bag has /camera/image_raw"),
        ("", {"camera_info_topic": "/x"}, "Topic /x of type CameraInfo is not in bag"),
        ("", {"pose_topic": "/x"}, "Topic /x of a pose type .* is not in bag"),
        (
            "/tf",
            {},
            "cannot give the camera's poses: Frame 'map' does not exist in TF; the frames are 'base_link', 'optical'; "
            "record /tf",
        ),
        ("/tf_static", {}, "Frame 'optical' does not exist in TF; the frames are 'base_link', 'map', 'odom'"),
        ("", {"map_frame": "world"}, "Frame 'world' does not exist in TF"),
    ],
)
def test_missing_topics_and_links(drive, tmp_path, removed, options, words):
    with pytest.raises(DataError, match=words) as caught:
        read_bag(drive.without(removed).write(tmp_path / "b"), **options)
    assert "\n" not in str(caught.value)


def test_broken_link_names_both_sides(drive, tmp_path):
    bag = drive.without("/tf")
    for seconds in (0, 0.4):
        bag.add(
            ns(seconds),
            "/tf",
            tf(
                transform(ns(seconds), "map", "odom", (0, 0, 0)),
                transform(ns(seconds), "footprint", "base_link", (0, 0, 0)),
            ),
        )
    with pytest.raises(
        DataError,
        match="link 'map' to 'optical': 'map', 'odom' and 'base_link', 'footprint', 'optical' are two separate trees; "
        "record",
    ):
        read_bag(bag.write(tmp_path / "b"))


def test_no_image_within_tf(drive, tmp_path):
    bag = drive.without("/camera/image_raw")
    bag.add(ns(9), "/camera/image_raw", image(ns(9), np.zeros((24, 32, 3), np.uint8)))
    with pytest.raises(
        DataError, match="No image .* has a pose at its stamp. Transform 'odom' -> 'base_link' ends 8.600 s before"
    ):
        read_bag(bag.write(tmp_path / "b"))


def test_several_cameras_need_a_choice(drive, tmp_path):
    drive.add(ns(0.1), "/rear/image_raw", image(ns(0.1), np.zeros((24, 32, 3), np.uint8)))
    with pytest.raises(DataError, match="choose one with --image-topic among /camera/image_raw, /rear/image_raw"):
        read_bag(drive.write(tmp_path / "b"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"focal": 0.0}, "not calibrated"), ({"focal": np.nan}, "NaN"), ({"model": "swirl"}, "'swirl' is not known")],
)
def test_bad_camera_info(drive, tmp_path, changes, words):
    bag = drive.without("/camera/camera_info")
    bag.add(ns(0), "/camera/camera_info", camera_info(ns(0), **changes))
    with pytest.raises(DataError, match=f"Topic /camera/camera_info of bag 'b': .*{words}"):
        read_bag(bag.write(tmp_path / "b"))


def test_bad_images_are_named_when_loaded(drive, tmp_path):
    bag = drive.without("/camera/image_raw")
    bag.add(ns(0.1), "/camera/image_raw", image(ns(0.1), np.zeros((24, 40, 3), np.uint8)))
    bag.add(ns(0.2), "/camera/image_raw", image(ns(0.2), np.zeros((24, 32, 3), np.uint8), encoding="rgb99"))
    wide, unknown = read_bag(bag.write(tmp_path / "b")).frames
    with pytest.raises(
        DataError, match="Image 1700000000.100 s of /camera/image_raw in bag 'b' is 40x24, but camera_info says 32x24"
    ):
        wide.load()
    with pytest.raises(DataError, match="'rgb99' is not known"):
        unknown.load()


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("keep", [0.0, 0.05, 0.5, 0.9])
def test_truncated_file(drive, tmp_path, storage, keep):
    folder = drive.write(tmp_path / "b", storage)
    (file,) = (path for path in folder.iterdir() if path.suffix in (".mcap", ".db3"))
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)])
    for path in (folder, file):
        with pytest.raises(DataError) as caught:
            for frame in read_bag(path).frames:
                frame.load()
        assert path.name in str(caught.value) and "\n" not in str(caught.value)


def test_no_bag_and_no_message(drive, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_bag(tmp_path / "none")
    with pytest.raises(DataError, match="neither metadata.yaml nor"):
        read_bag(tmp_path)
    with pytest.raises(DataError, match="holds no message"):
        read_bag(type(drive)().write(tmp_path / "empty"))
    folder = drive.write(tmp_path / "b")
    next(folder.glob("*.mcap")).unlink()
    with pytest.raises(DataError, match="Bag 'b' cannot be read"):
        read_bag(folder)


@pytest.mark.parametrize("name", ["test_bag_mcap", "test_bag_sqlite3"])
def test_bags_of_rosbag2_itself(name):
    if not (SHARED / name).exists():
        pytest.skip("shared data are not on this machine")
    with pytest.raises(
        DataError,
        match="choose one with --image-topic among /test/sensor_msgs/compressed_image, /test/sensor_msgs/image",
    ):
        open_recording(SHARED / name)
    recording = open_recording(SHARED / name, image_topic="/test/sensor_msgs/image", require_poses=False)
    assert len(recording.frames) == 2 and recording.frames[0].camera.width == 640
    with pytest.raises(DataError, match="Frames 'map' and 'test_frame' do not exist in TF"):
        open_recording(SHARED / name, image_topic="/test/sensor_msgs/image")
