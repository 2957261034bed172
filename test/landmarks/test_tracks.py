"""Matches of pairs become tracks, and poses say which matches may be."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dimm_ros.geometry.poses import make_pose
from dimm_ros.landmarks import matching
from dimm_ros.landmarks.keypoints import unit
from dimm_ros.landmarks.matching import MAX_ANGLE, RATIO, mutual_matches
from dimm_ros.landmarks.tracks import epipolar_agreement, join_matches

from .scenes import SIGMA, camera_poses, cloud, keypoints_of, looks


def test_matches_are_joined_across_images() -> None:
    rng = np.random.default_rng(0)
    poses, points, descriptors = camera_poses(rng, 4), cloud(rng, 10), looks(rng, 10)
    # Each image has the points in an order of its own; the last two points are matched nowhere.
    orders = [rng.permutation(10) for _ in poses]
    keypoints = [
        keypoints_of(pose, points[order], descriptors[order]) for pose, order in zip(poses, orders, strict=True)
    ]
    pairs = np.array([[0, 1], [1, 2], [0, 3]])

    def matches(one: int, other: int) -> np.ndarray:
        return np.array(
            [[np.flatnonzero(orders[one] == point)[0], np.flatnonzero(orders[other] == point)[0]] for point in range(8)]
        )

    tracks = join_matches(keypoints, pairs, [matches(0, 1), matches(1, 2)[:4], matches(0, 3)[:6]])
    assert tracks.count == 8
    shown = [
        orders[image][np.flatnonzero((keypoints[image].bearings == bearing).all(axis=1))[0]]
        for image, bearing in zip(tracks.image, tracks.bearings, strict=True)
    ]
    seen: dict[int, set] = {}
    for track, image, point in zip(tracks.track, tracks.image, shown, strict=True):
        seen.setdefault(int(track), set()).add((int(point), int(image)))
    of_points = {next(iter(each))[0]: each for each in seen.values()}
    assert set(of_points) == set(range(8))
    for point, each in of_points.items():
        expected = {0, 1} | ({2} if point < 4 else set()) | ({3} if point < 6 else set())
        assert each == {(point, image) for image in expected}
    np.testing.assert_array_equal(tracks.descriptors, descriptors[shown])
    np.testing.assert_array_equal(tracks.sigma, SIGMA)
    only = tracks.of_images(np.array([True, True, False, False]))
    assert set(only.image) == {0, 1} and len(only.track) == 16 and only.count == 8


def test_no_matches_are_no_tracks() -> None:
    rng = np.random.default_rng(1)
    points, descriptors = cloud(rng, 5), looks(rng, 5)
    keypoints = [keypoints_of(pose, points, descriptors) for pose in camera_poses(rng, 2)]
    tracks = join_matches(keypoints, np.array([[0, 1]]), [np.empty((0, 2), int)])
    assert tracks.count == 0 and tracks.bearings.shape == (0, 3) and tracks.descriptors.shape == (0, 128)


def test_poses_that_are_wrong_are_told_by_their_epipolar_geometry() -> None:
    rng = np.random.default_rng(2)
    points, descriptors = cloud(rng, 200), looks(rng, 200)
    one, other = camera_poses(rng, 2)
    a, b = (keypoints_of(pose, points, descriptors, 0.5, rng) for pose in (one, other))
    same = np.column_stack([np.arange(200)] * 2)
    assert epipolar_agreement(a, b, one, other, same, 4.0).all()
    assert (
        epipolar_agreement(a, b, one, other, np.column_stack([np.arange(200), np.roll(np.arange(200), 1)]), 4.0).mean()
        < 0.15
    )
    axes = make_pose(np.array([[0, -1, 0], [0, 0, -1], [1.0, 0, 0]]), np.zeros(3))  # a body's axes taken for a camera's
    assert epipolar_agreement(a, b, one @ axes, other @ axes, same, 4.0).mean() < 0.2
    turned = other @ make_pose(Rotation.from_rotvec([0.05, 0.05, 0.05]).as_matrix(), np.zeros(3))
    assert epipolar_agreement(a, b, one, turned, same, 4.0).mean() < 0.3


def test_a_shift_along_the_epipolar_line_agrees_and_one_across_does_not() -> None:
    """Two cameras side by side: rows are epipolar lines, and depth moves a keypoint along them."""
    one, other = np.eye(4), make_pose(np.eye(3), np.array([0.3, 0.0, 0.0]))
    point = np.array([[0.1, 0.2, 2.0]])
    a, match = keypoints_of(one, point, looks(np.random.default_rng(0), 1)), np.array([[0, 0]])
    for shift, agrees in (([40, 0], True), ([0, 3], True), ([0, 6], False)):
        moved = other[:3, 3] + (point[0] - other[:3, 3]) + np.array([*shift, 0.0]) * SIGMA * 2.0
        b = keypoints_of(other, moved[None], looks(np.random.default_rng(0), 1))
        assert epipolar_agreement(a, b, one, other, match, 4.0)[0] == agrees
    # Without a baseline the same direction is asked for.
    still = keypoints_of(one, point + [[3 * SIGMA * 2.0, 0, 0]], looks(np.random.default_rng(0), 1))
    away = keypoints_of(one, point + [[6 * SIGMA * 2.0, 0, 0]], looks(np.random.default_rng(0), 1))
    assert (
        epipolar_agreement(a, still, one, one, match, 4.0)[0]
        and not epipolar_agreement(a, away, one, one, match, 4.0)[0]
    )


def test_matches_are_mutual_near_clear_and_allowed() -> None:
    def at(*degrees: float) -> np.ndarray:
        angle = np.radians(degrees)
        return np.column_stack([np.cos(angle), np.sin(angle)]).astype(np.float32)

    pairs, ratio = mutual_matches(at(0, 90), at(10, 95, 200))
    np.testing.assert_array_equal(pairs, [[0, 0], [1, 1]])
    np.testing.assert_allclose(ratio, [10 / 95, 5 / 80], rtol=1e-3)
    # Two rows whose nearest is one column: the nearer one has it.
    pairs, _ = mutual_matches(at(0, 8), at(10, 180))
    np.testing.assert_array_equal(pairs, [[1, 0]])
    # Nearly as near to another: unclear; all the way off: none.
    assert not len(mutual_matches(at(0, 90), at(10, -10.5))[0]) and 10 / 10.5 > RATIO
    assert not len(mutual_matches(at(0, 180), at(60, 240))[0]) and np.radians(60) > MAX_ANGLE
    # What is not allowed is no rival, either.
    allowed = np.array([[True, False], [True, True]])
    pairs, _ = mutual_matches(at(0, 90), at(10, -10.5), allowed)
    assert [0, 0] in pairs.tolist()
    assert mutual_matches(at(0), at(0, 1))[0].shape == (0, 2)


def test_twins_among_descriptors_match_nothing_and_warn_of_nothing() -> None:
    """Two landmarks that look exactly alike, and exactly like the keypoint, are not told apart."""
    twin = np.eye(3, dtype=np.float32)
    with np.errstate(all="raise"):
        pairs, _ = mutual_matches(twin[[0, 1]], twin[[0, 0, 1, 2]])
    np.testing.assert_array_equal(pairs, [[1, 2]])


def test_few_allowed_pairs_are_matched_as_the_whole_table_is(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    ones = unit(rng.integers(0, 255, (300, 32)))
    others = unit(np.concatenate([ones[:200] * 500 + rng.normal(0, 8, (200, 32)), rng.integers(0, 255, (250, 32))]))
    allowed = rng.random((300, 450)) < 0.02
    allowed[np.arange(150), np.arange(150)] = True
    found = {}
    for share in (0.0, 1.0):  # never and always pair by pair
        monkeypatch.setattr(matching, "_SPARSE", share)
        pairs, ratio = matching.mutual_matches(ones, others, allowed)
        order = np.lexsort(pairs.T)
        found[share] = pairs[order], ratio[order]
    assert len(found[0.0][0]) >= 150 and allowed[tuple(found[0.0][0].T)].all()
    np.testing.assert_array_equal(found[0.0][0], found[1.0][0])
    np.testing.assert_allclose(found[0.0][1], found[1.0][1], atol=1e-5)
