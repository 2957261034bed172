"""Data set -> bag -> data set keeps stamps, intrinsics and poses; images and depth too, where the bag stores them
losslessly.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from bag_messages import BagContent
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import LAYOUTS, write

from dimm_ros.data.open import open_recording
from dimm_ros.data.record import record_frames
from dimm_ros.data.recording import Recording
from dimm_ros.errors import DataError


def assert_same(one: Recording, other: Recording, lossless: bool) -> None:
    assert [frame.stamp_ns for frame in one.frames] == [frame.stamp_ns for frame in other.frames]
    np.testing.assert_allclose(other.poses(), one.poses(), atol=1e-6, rtol=0)
    for first, second in zip(one.frames, other.frames, strict=True):
        assert second.camera == first.camera
        np.testing.assert_allclose(second.load(), first.load(), atol=0 if lossless else 12)
        if first.load_depth is not None:
            assert second.depth_camera == first.depth_camera
            np.testing.assert_allclose(second.load_depth(), first.load_depth(), atol=1e-6)


@pytest.mark.parametrize("name", LAYOUTS)
@settings(max_examples=2, deadline=None, database=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["jpeg", "png", "raw"]),
    storage=st.sampled_from(["mcap", "sqlite3"]),
)
def test_round_trip(name, seed, kind, storage):
    with TemporaryDirectory() as place:
        folder, _ = write(name, Path(place) / "data", seed)
        recording = open_recording(folder)
        bag = record_frames(
            Path(place) / "bag", recording.frames, compressed=kind != "raw", lossless=kind == "png", storage=storage
        )
        again = open_recording(bag)
        assert_same(recording, again, lossless=kind != "jpeg")
        assert again.frame_id == "map" and again.notes == ()


def test_bag_of_ros1_becomes_one_of_ros2(drive: BagContent, tmp_path):
    old = open_recording(drive.write_ros1(tmp_path / "old.bag"))
    assert_same(old, open_recording(record_frames(tmp_path / "new", old.frames, lossless=True)), lossless=True)


def test_odometry_drifts_but_the_camera_does_not(tmp_path):
    folder, _ = write("kitti", tmp_path)
    recording = open_recording(folder)
    odometry = np.tile(np.eye(4), (3, 1, 1))
    odometry[:, 0, 3] = [0, 1, 5]
    bag = record_frames(tmp_path / "bag", recording.frames, odom_from_base=odometry)
    np.testing.assert_allclose(open_recording(bag).poses(), recording.poses(), atol=1e-9)
    base = open_recording(bag, map_frame="odom").poses()
    np.testing.assert_allclose(base[:, :3, 3], odometry[:, :3, 3], atol=1e-9)
    # the camera looks along base_link's x
    np.testing.assert_allclose(base[0][:3, :3] @ [0, 0, 1], [1, 0, 0], atol=1e-12)


def test_nothing_is_left_of_a_bag_that_failed(tmp_path):
    folder, _ = write("kitti", tmp_path)
    frames = list(open_recording(folder).frames)
    (folder / "image_2" / "000002.png").write_bytes(b"\x89PNG cut")
    with pytest.raises(DataError, match="000002.png' cannot be decoded"):
        record_frames(tmp_path / "bags" / "bag", frames)
    assert list((tmp_path / "bags").iterdir()) == []
    for wrong, words in (
        ([], "at least one frame"),
        ([replace(frames[0], world_from_camera=None)], "a pose for each"),
        ([frames[1], frames[0]], "the stamps must increase"),
        ([frames[0], replace(frames[1], stamp_ns=2**31 * 10**9)], "stay below"),
    ):
        with pytest.raises(DataError, match=words):
            record_frames(tmp_path / "bag", wrong)
    assert not (tmp_path / "bag").exists()


def test_depth_is_written_exactly(tmp_path):
    """Millimetres as 16 bits, finer steps (here TUM's 0.2 mm) as floats."""
    for name, encoding in (("twelve_scenes", "16UC1"), ("tum_rgbd", "32FC1")):
        folder, truth = write(name, tmp_path / name)
        bag = record_frames(tmp_path / f"{name}_bag", open_recording(folder).frames)
        frame = open_recording(bag).frames[1]
        np.testing.assert_allclose(frame.load_depth(), truth.depth[1], atol=1e-6)
        assert encoding.encode() in (bag / f"{bag.name}.mcap").read_bytes()
    assert (
        open_recording(record_frames(tmp_path / "plain", open_recording(folder).frames, depth=False))
        .frames[1]
        .load_depth
        is None
    )
