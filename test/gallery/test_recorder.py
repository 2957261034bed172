"""A recorded walk, read back by the bag reader and by rosbags itself."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability, QosReliability

from dimm_ros.data.bag import read_bag
from dimm_ros.errors import DataError
from dimm_ros.gallery.recorder import record_bag
from dimm_ros.gallery.render import render
from dimm_ros.gallery.trajectory import MOUNTS, trajectory
from dimm_ros.geometry.camera import Camera

CAMERA = Camera(160, 120, 105.5, 106.25, 79.2, 60.1, "plumb_bob", (-0.1, 0.02, 0.001, -0.001, 0.0))
MOUNT = MOUNTS["handheld"]


@pytest.fixture(scope="module")
def walk():
    return trajectory(9, 2, 50)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("compressed", [True, False])
def test_round_trip(room, walk, tmp_path, storage, compressed):
    stamps, poses = walk
    calls = []
    path = record_bag(
        tmp_path / "walk",
        room,
        CAMERA,
        stamps,
        poses,
        MOUNT,
        image_every=10,
        storage=storage,
        compressed=compressed,
        noise=0,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["walk"]
    assert calls == [(index + 1, 11) for index in range(11)]
    recording = read_bag(path)
    assert recording.notes == () and recording.frame_id == "map"
    np.testing.assert_array_equal([frame.stamp_ns for frame in recording.frames], stamps[::10])
    np.testing.assert_allclose(recording.poses(), poses[::10] @ MOUNT, atol=1e-9)
    assert all(frame.camera == CAMERA for frame in recording.frames)
    picture, expected = recording.frames[7].load(), render(room, CAMERA, poses[70] @ MOUNT)
    if compressed:
        assert np.abs(picture.astype(int) - expected).mean() < 7
    else:
        np.testing.assert_array_equal(picture, expected)


@pytest.mark.parametrize(
    "model",
    [
        ("rational_polynomial", (0.5, -0.1, 1e-3, 2e-3, 0.02, 0.7, -0.05, 0.03)),
        ("equidistant", (0.02, -0.01, 0.003, 0.0)),
    ],
)
def test_other_lenses(room, walk, tmp_path, model):
    camera = Camera(80, 60, 40, 40, 39.5, 29.5, *model)
    path = record_bag(tmp_path / "walk", room, camera, walk[0][:3], walk[1][:3], MOUNT)
    assert read_bag(path).frames[0].camera == camera


def test_topics_and_quality_of_service(room, walk, tmp_path):
    path = record_bag(tmp_path / "walk", room, CAMERA, *(part[:20] for part in walk), MOUNT, image_every=5)
    with AnyReader([path]) as reader:
        counts = {connection.topic: connection.msgcount for connection in reader.connections}
        profiles = {connection.topic: connection.ext.offered_qos_profiles[0] for connection in reader.connections}
        children = [
            reader.deserialize(data, c.msgtype).transforms[0].child_frame_id
            for c, _, data in reader.messages()
            if c.topic == "/tf"
        ]
        (static,) = [
            reader.deserialize(data, c.msgtype).transforms[0]
            for c, _, data in reader.messages()
            if c.topic == "/tf_static"
        ]
        odometry = [reader.deserialize(data, c.msgtype) for c, _, data in reader.messages() if c.topic == "/odom"]
    assert counts == {
        "/camera/image_raw/compressed": 4,
        "/camera/camera_info": 4,
        "/tf": 40,
        "/tf_static": 1,
        "/odom": 20,
    }
    assert profiles["/tf_static"].durability == QosDurability.TRANSIENT_LOCAL
    assert profiles["/camera/camera_info"].reliability == QosReliability.BEST_EFFORT
    assert profiles["/tf"].reliability == QosReliability.RELIABLE
    assert children.count("odom") == children.count("base_link") == 20
    assert (static.header.frame_id, static.child_frame_id) == ("base_link", "camera_optical_frame")
    speeds = [message.twist.twist.linear.x for message in odometry]
    assert 0.1 < np.mean(speeds) < 1.0
    assert odometry[3].pose.covariance[0] > 0 and odometry[3].child_frame_id == "base_link"


def test_without_the_map_frame_the_truth_has_its_own_topic(room, walk, tmp_path):
    stamps, poses = (part[:20] for part in walk)
    path = record_bag(
        tmp_path / "walk",
        room,
        CAMERA,
        stamps,
        poses,
        MOUNT,
        image_every=5,
        map_to_odom=False,
        ground_truth_topic="/ground_truth",
    )
    with pytest.raises(DataError, match="Frame 'map' does not exist in TF"):
        read_bag(path)
    np.testing.assert_allclose(read_bag(path, pose_topic="/ground_truth").poses(), poses[::5] @ MOUNT, atol=1e-9)
    drifted = read_bag(path, map_frame="odom").poses()
    assert np.abs(drifted - poses[::5] @ MOUNT).max() > 0.1


def test_noise_is_seeded(room, walk, tmp_path):
    images = []
    for name, seed, noise in (("a", 1, 4.0), ("b", 1, 4.0), ("c", 2, 4.0), ("clean", 1, 0.0)):
        path = record_bag(
            tmp_path / name, room, CAMERA, walk[0][:2], walk[1][:2], MOUNT, compressed=False, seed=seed, noise=noise
        )
        images.append(read_bag(path).frames[1].load().astype(int))
    np.testing.assert_array_equal(images[0], images[1])
    assert np.any(images[0] != images[2])
    assert 3 < (images[0] - images[3]).std() < 4.5


def test_whole_or_not_at_all(room, walk, tmp_path):
    class Stop(Exception):
        pass

    def stop(done, total):
        if done == 3:
            raise Stop

    with pytest.raises(Stop):
        record_bag(tmp_path / "walk", room, CAMERA, *walk, MOUNT, image_every=10, progress=stop)
    assert list(tmp_path.iterdir()) == []
    first = record_bag(tmp_path / "walk", room, CAMERA, walk[0][:3], walk[1][:3], MOUNT)
    with pytest.raises(DataError, match="walk' exists already; choose another name or replace it with --overwrite"):
        record_bag(first, room, CAMERA, walk[0][:2], walk[1][:2], MOUNT)
    with pytest.raises(Stop):
        record_bag(first, room, CAMERA, *walk, MOUNT, image_every=10, overwrite=True, progress=stop)
    assert len(read_bag(first).frames) == 3
    record_bag(first, room, CAMERA, walk[0][:2], walk[1][:2], MOUNT, overwrite=True)
    assert len(read_bag(first).frames) == 2
    with pytest.raises(ValueError, match="must increase"):
        record_bag(tmp_path / "x", room, CAMERA, walk[0][[1, 0]], walk[1][:2], MOUNT)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        record_bag(tmp_path / "file" / "walk", room, CAMERA, walk[0][:2], walk[1][:2], MOUNT)


def test_jpeg_is_what_a_viewer_shows(room, walk, tmp_path):
    """The bytes are an ordinary JPEG: decoded by OpenCV as BGR they have the picture's colours, not swapped ones."""
    path = record_bag(tmp_path / "walk", room, CAMERA, walk[0][:2], walk[1][:2], MOUNT, noise=0)
    with AnyReader([path]) as reader:
        connection = next(c for c in reader.connections if c.topic.endswith("compressed"))
        message = reader.deserialize(next(reader.messages([connection]))[2], connection.msgtype)
    bgr = cv2.imdecode(message.data, cv2.IMREAD_COLOR)
    expected = render(room, CAMERA, walk[1][0] @ MOUNT)
    assert message.format == "rgb8; jpeg compressed bgr8"
    assert np.abs(bgr[..., ::-1].astype(int) - expected).mean() < 7 < 14 < np.abs(bgr.astype(int) - expected).mean()
