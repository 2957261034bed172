"""The transform tree against poses composed by hand."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dimm_ros.data.transform_tree import TransformTree
from dimm_ros.errors import TransformError, TransformStampError
from dimm_ros.geometry import poses

START = 1_700_000_000_123_456_789


def pose(x=0.0, y=0.0, z=0.0, yaw=0.0):
    return poses.make_pose(Rotation.from_euler("z", yaw, degrees=True).as_matrix(), np.array([x, y, z]))


def at(seconds: float) -> int:
    return START + round(seconds * 1e9)


@pytest.fixture
def tree() -> TransformTree:
    """map -> odom -> base -> camera and base -> lidar; odom turns 90 degrees and drives 1 m between 0 and 1 s."""
    tree = TransformTree()
    tree.add("/map", "odom", at(0), pose(5), static=True)
    tree.add("odom", "base", at(0), pose(0, yaw=0))
    tree.add("odom", "base", at(1), pose(1, yaw=90))
    tree.add("base", "camera", at(0), pose(0, 0, 1), static=True)
    tree.add("base", "lidar", at(0), pose(0, 2, 0, yaw=180), static=True)
    return tree


def test_interpolates_along_the_chain(tree):
    expected = pose(5) @ pose(0.25, yaw=22.5) @ pose(0, 0, 1)
    np.testing.assert_allclose(tree.lookup("map", "camera", at(0.25)), expected, atol=1e-12)


def test_both_directions_and_siblings(tree):
    np.testing.assert_allclose(
        tree.lookup("camera", "map", at(0.5)), poses.invert(tree.lookup("map", "camera", at(0.5))), atol=1e-12
    )
    expected = poses.invert(pose(0, 2, 0, yaw=180)) @ pose(0, 0, 1)
    np.testing.assert_allclose(tree.lookup("lidar", "camera", at(99)), expected, atol=1e-12)
    np.testing.assert_array_equal(tree.lookup("camera", "camera", at(99)), np.eye(4))


def test_nanoseconds_are_kept_at_todays_epoch():
    tree = TransformTree()
    tree.add("a", "b", START, pose(0))
    tree.add("a", "b", START + 100, pose(1))
    assert tree.lookup("a", "b", START + 37)[0, 3] == pytest.approx(0.37, abs=1e-12)


def test_order_of_arrival_does_not_matter():
    order = np.random.default_rng(0).permutation(50)
    tree = TransformTree()
    for index in order:
        tree.add("a", "b", at(index * 0.1), pose(float(index)))
    assert tree.lookup("a", "b", at(2.55))[0, 3] == pytest.approx(25.5)


def test_latest_is_the_latest_common_time(tree):
    tree.add("map", "odom", at(0), pose(5))
    tree.add("map", "odom", at(0.5), pose(6))
    assert tree.latest_stamp("map", "camera") == at(0.5)
    np.testing.assert_allclose(tree.lookup("map", "camera", None), tree.lookup("map", "camera", at(0.5)))
    assert tree.latest_stamp("lidar", "camera") is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1.25, "'odom' -> 'base' ends 0.250 s before"), (-0.5, "'odom' -> 'base' begins 0.500 s after")],
)
def test_never_extrapolates_and_says_by_how_much(tree, seconds, words):
    with pytest.raises(TransformStampError, match=words):
        tree.lookup("map", "camera", at(seconds))


def test_gap():
    tree = TransformTree(max_gap_s=1.0)
    for seconds in (0, 1, 3):
        tree.add("a", "b", at(seconds), pose(seconds))
    assert tree.lookup("a", "b", at(0.5))[0, 3] == pytest.approx(0.5)
    assert tree.lookup("a", "b", at(3))[0, 3] == 3  # a sample itself is no interpolation
    with pytest.raises(TransformStampError, match="gap of 2.000 s"):
        tree.lookup("a", "b", at(2))


def test_unknown_frame_lists_the_frames(tree):
    with pytest.raises(
        TransformError,
        match="Frame 'world' does not exist in TF; the frames are 'base', 'camera', 'lidar', 'map', 'odom'",
    ) as caught:
        tree.lookup("world", "camera", at(0))
    assert not isinstance(caught.value, TransformStampError)
    with pytest.raises(TransformError, match="Frames 'a' and 'b' do not exist in TF; there is no transform at all"):
        TransformTree().lookup("a", "b", None)


def test_broken_link_names_both_trees(tree):
    tree.add("earth", "world", at(0), pose(), static=True)
    with pytest.raises(
        TransformError,
        match="does not link 'world' to 'camera': 'earth', 'world' and 'base', 'camera', 'lidar', 'map', 'odom' are "
        "two",
    ):
        tree.lookup("world", "camera", at(0))


def test_second_parent_is_named(tree):
    tree.add("map", "base", at(2), pose(7))
    assert tree.lookup("map", "base", at(2))[0, 3] == 7
    with pytest.raises(TransformStampError, match="'base' is published with several parents, 'map', 'odom'"):
        tree.lookup("map", "camera", at(1))


def test_loop_of_frames_ends():
    tree = TransformTree()
    tree.add("a", "b", at(0), pose(1))
    tree.add("b", "a", at(0), pose(1))
    tree.add("a", "c", at(0), pose(1))
    assert np.isfinite(tree.lookup("b", "c", at(0))).all()
    with pytest.raises(TransformError):
        tree.lookup("d", "c", at(0))


def test_cache_is_bounded_and_cleared():
    tree = TransformTree(max_age_s=1.0)
    for index in range(1000):
        tree.add("a", "b", at(index * 0.01), pose(index))
    assert tree.lookup("a", "b", at(9.0))[0, 3] == pytest.approx(900)
    with pytest.raises(TransformStampError):
        tree.lookup("a", "b", at(5.0))
    tree.add("a", "b", at(2.0), pose(0))  # late, and older than what is kept
    with pytest.raises(TransformStampError, match="begins"):
        tree.lookup("a", "b", at(5.0))
    tree.clear()
    assert tree.frames == ()


@pytest.mark.parametrize(
    ("parent", "child", "matrix"),
    [("", "b", np.eye(4)), ("a", "/", np.eye(4)), ("a", "/a", np.eye(4)), ("a", "b", np.full((4, 4), np.nan))],
)
def test_bad_transforms_are_refused(parent, child, matrix):
    with pytest.raises(TransformError, match="check its publisher"):
        TransformTree().add(parent, child, 0, matrix)


def test_threads_may_add_and_look_up():
    tree = TransformTree(max_age_s=0.05)
    tree.add("a", "b", at(0), pose(0))
    failures = []

    def read():
        for _ in range(2000):
            value = tree.lookup("a", "b", None)[0, 3]
            if value != int(value):
                failures.append(value)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for index in range(2000):
        tree.add("a", "b", at(index * 0.001), pose(index))
    for reader in readers:
        reader.join()
    assert not failures
