"""Which images are matched, and which stand for a recording: whatever the world's unit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dimm_ros.geometry.poses import make_pose
from dimm_ros.landmarks.keyframes import choose_keyframes
from dimm_ros.landmarks.pairs import MAX_ANGLE_DEG, choose_pairs


def route(count: int, step: float, turn_deg: float = 0.0) -> np.ndarray:
    """Poses along x, each further one turned about y."""
    return np.stack(
        [
            make_pose(Rotation.from_euler("y", turn_deg * index, degrees=True).as_matrix(), [step * index, 0.0, 0.0])
            for index in range(count)
        ]
    )


def in_millimetres(poses: np.ndarray) -> np.ndarray:
    scaled = poses.copy()
    scaled[:, :3, 3] *= 1000.0
    return scaled


def wander(seed: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    turns, places = (
        np.cumsum(rng.normal(0, 0.12, (count, 3)), axis=0),
        np.cumsum(rng.normal(0, 0.07, (count, 3)), axis=0),
    )
    return np.stack(
        [make_pose(Rotation.from_rotvec(turn).as_matrix(), place) for turn, place in zip(turns, places, strict=True)]
    )


def test_baselines_range_from_neighbours_to_eight_times_as_far() -> None:
    pairs = choose_pairs(route(40, 0.2))
    assert (pairs[:, 0] < pairs[:, 1]).all() and len(np.unique(pairs, axis=0)) == len(pairs)
    steps = np.diff(pairs, axis=1).ravel()
    # From the step, or the share of the route's spread that triangulates, upwards to 2^3.1 of it.
    spread = 0.2 * np.std(np.arange(40))
    shortest = max(0.2, 0.08 * spread) / 0.2
    assert steps.min() == pytest.approx(shortest, abs=1) and steps.max() == pytest.approx(shortest * 2**3.1, abs=1)
    assert len(np.unique(steps)) >= 4
    # A few pairs an image, not all of them.
    assert 2 * 40 < len(pairs) < 9 * 40 and set(pairs.ravel()) == set(range(40))


def test_images_that_look_elsewhere_are_not_matched() -> None:
    poses = route(30, 0.1, turn_deg=15.0)
    pairs = choose_pairs(poses)
    axes = poses[:, :3, 2]
    angle = np.degrees(np.arccos(np.clip((axes[pairs[:, 0]] * axes[pairs[:, 1]]).sum(axis=1), -1, 1)))
    assert len(pairs) and angle.max() < MAX_ANGLE_DEG
    back = route(30, 0.1)
    back[::2, :3, :3] = back[::2, :3, :3] @ np.diag([-1.0, 1.0, -1.0])  # every other camera looks behind
    assert all((one - other) % 2 == 0 for one, other in choose_pairs(back))


def test_a_sparse_recording_starts_at_its_own_step() -> None:
    """Photographs five metres apart have neighbours only five metres away: these are matched."""
    pairs = choose_pairs(route(12, 5.0))
    assert {(index, index + 1) for index in range(11)} <= set(map(tuple, pairs.tolist()))


@pytest.mark.parametrize("seed", range(3))
def test_the_same_recording_in_millimetres_gives_the_same_pairs_and_key_frames(seed: int) -> None:
    poses = wander(seed, 60)
    np.testing.assert_array_equal(choose_pairs(poses), choose_pairs(in_millimetres(poses)))
    np.testing.assert_array_equal(choose_keyframes(poses, 15), choose_keyframes(in_millimetres(poses), 15))


def test_too_few_images_give_no_pairs() -> None:
    assert choose_pairs(route(1, 0.1)).shape == (0, 2)


def test_key_frames_are_spread_evenly_however_unevenly_images_are() -> None:
    """A robot that stood still for most of its recording: its other places are all there."""
    places = np.concatenate([np.linspace(0, 0.01, 100), np.linspace(0.2, 4.0, 20)])
    poses = np.tile(np.eye(4), (120, 1, 1))
    poses[:, 0, 3] = places
    chosen = choose_keyframes(poses, 10)
    assert (np.diff(chosen) > 0).all() and len(chosen) == 10 and chosen[0] == 0
    gaps = np.abs(places[:, None] - places[chosen]).min(axis=1)
    assert gaps.max() < 0.45 and (chosen < 100).sum() <= 2


def test_turning_on_the_spot_is_movement_too() -> None:
    poses = route(60, 0.0, turn_deg=6.0)
    chosen = choose_keyframes(poses, 12)
    gaps = np.diff([*chosen, 60])
    assert gaps.max() <= 8


def test_few_images_are_all_kept() -> None:
    np.testing.assert_array_equal(choose_keyframes(wander(0, 7), 7), np.arange(7))


def test_no_key_frame_is_chosen_twice() -> None:
    """Of a robot that stands, the same pose is there many times over."""
    poses = np.repeat(wander(1, 6), 10, axis=0)
    chosen = choose_keyframes(poses, 20)
    assert len(chosen) == len(np.unique(chosen)) == 20
    assert set(chosen // 10) == set(range(6))
    assert len(np.unique(choose_keyframes(np.tile(np.eye(4), (30, 1, 1)), 12))) == 12
