"""How a recording's poses are warped: known errors come back near its poses, and nothing is bent far from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dimm_ros.geometry.poses import invert, make_pose, pose_difference, pose_errors
from dimm_ros.landmarks.locate import locate
from dimm_ros.landmarks.store import Landmarks, hide_in_lines
from dimm_ros.landmarks.warp import MOST_POSES, Warp
from dimm_ros.solver.landmarks import PosePrior

from .scenes import camera_poses, cloud, keypoints_of, landmarks_of, looks

#: Of what is seen, metres: errors are alike over 16 cm and 9 degrees.
SEEN = 2.0
SHIFT, TURN = np.array([0.03, -0.02, 0.01]), np.array([0.0, 0.01, -0.005])


def walk(count: int = 60, spacing: float = 0.05) -> np.ndarray:
    """(N, 4, 4) along x, looking along z and turning a little."""
    turns = Rotation.from_rotvec(np.column_stack([np.zeros(count), np.linspace(0, 0.3, count), np.zeros(count)]))
    return np.stack([make_pose(turn.as_matrix(), [spacing * place, 0.0, 0.0]) for place, turn in enumerate(turns)])


def recorded_as(poses: np.ndarray, shift: np.ndarray = SHIFT, turn: np.ndarray = TURN) -> np.ndarray:
    """As a SLAM with one error everywhere would have it: ``pose_difference`` of the two is (shift, turn)."""
    back = Rotation.from_rotvec(-turn).as_matrix()
    return np.stack([make_pose(back @ pose[:3, :3], pose[:3, 3] - shift) for pose in poses])


def test_what_all_poses_near_by_are_off_is_taken_back() -> None:
    true = walk()
    recorded = recorded_as(true)
    warp = Warp.of(true, recorded, SEEN)
    between = make_pose(true[20, :3, :3], (true[20, :3, 3] + true[21, :3, 3]) / 2)
    bent, unknown = warp.recorded(between)
    wanted = recorded_as(between[None])[0]
    metres, degrees = pose_errors(bent, wanted)
    assert metres < 0.1 * np.linalg.norm(SHIFT) and degrees < 0.1 * np.degrees(np.linalg.norm(TURN))
    assert unknown < 0.2
    assert warp.sizes == pytest.approx((np.linalg.norm(SHIFT), np.degrees(np.linalg.norm(TURN))), rel=1e-4)


@pytest.mark.parametrize("away", ["place", "heading"])
def test_far_from_all_recorded_poses_nothing_is_bent(away: str) -> None:
    true = walk()
    elsewhere = true[30].copy()
    if away == "place":
        elsewhere[1, 3] += 1.0
    else:
        elsewhere[:3, :3] = Rotation.from_rotvec([0, 1.5, 0]).as_matrix() @ elsewhere[:3, :3]
    bent, unknown = Warp.of(true, recorded_as(true), SEEN).recorded(elsewhere)
    np.testing.assert_allclose(bent, elsewhere, atol=1e-6)
    assert unknown == pytest.approx(1.0, abs=1e-6)


def test_one_pose_among_many_that_is_off_by_itself_counts_little() -> None:
    true = walk()
    recorded = true.copy()
    recorded[:, 0, 3] += 0.01 * (-1.0) ** np.arange(len(true))  # jitter from pose to pose
    bent, _ = Warp.of(true, recorded, SEEN).recorded(true[30])
    assert pose_errors(bent, true[30])[0] < 0.003


def test_it_is_what_a_gaussian_process_says() -> None:
    """Against the textbook's equations, written out for one coordinate."""
    rng = np.random.default_rng(0)
    true = walk(12)
    recorded = true.copy()
    recorded[:, 0, 3] -= rng.normal(0, 0.02, len(true))
    here = make_pose(true[4, :3, :3], true[4, :3, 3] + (0.013, 0.02, -0.01))

    def kernel(one: np.ndarray, other: np.ndarray) -> float:
        turn = Rotation.from_matrix(one[:3, :3] @ other[:3, :3].T).magnitude()
        apart = np.linalg.norm(one[:3, 3] - other[:3, 3])
        return np.exp(-((apart / (0.08 * SEEN)) ** 2) / 2 - (turn / 0.15) ** 2 / 2)

    noisy = np.array([[kernel(one, other) for other in true] for one in true]) + 0.09 * np.eye(len(true))
    cross = np.array([kernel(here, pose) for pose in true])
    mean = cross @ np.linalg.solve(noisy, (true - recorded)[:, 0, 3])
    bent, unknown = Warp.of(true, recorded, SEEN).recorded(here)
    assert here[0, 3] - bent[0, 3] == pytest.approx(mean, rel=1e-3)
    assert unknown == pytest.approx((1 - cross @ np.linalg.solve(noisy, cross) + 0.09) / 1.09, rel=1e-3)


def test_what_errs_as_the_recording_is_straightened() -> None:
    true = walk()
    recorded = recorded_as(true)
    warp = Warp.of(true, recorded, SEEN)
    assert np.abs(pose_difference(warp.straight(recorded[30]), true[30])).max() < 0.1 * np.linalg.norm(SHIFT)
    assert np.abs(pose_difference(warp.recorded(warp.straight(recorded[30]))[0], recorded[30])).max() < 1e-3


def test_blunders_are_left_out_and_no_pose_is_none() -> None:
    true = walk()
    recorded = recorded_as(true)
    recorded[30, :3, 3] += 2.0
    warp = Warp.of(true, recorded, SEEN)
    assert len(warp) == len(true) - 1
    assert pose_errors(warp.recorded(true[30])[0], recorded_as(true[30:31])[0])[0] < 0.1 * np.linalg.norm(SHIFT)
    assert Warp.of([], [], SEEN) is None
    recorded[:, :3, 3] += 2.0
    assert Warp.of(true, recorded, SEEN) is None


def test_it_goes_where_its_map_goes() -> None:
    """Moved to another frame and another origin first, or bent first: the same."""
    true = walk()
    warp, here = Warp.of(true, recorded_as(true), SEEN), true[17]
    turn, offset = Rotation.from_rotvec([0.3, -1.0, 2.0]).as_matrix(), np.array([3.0, -1.0, 0.5])
    move = make_pose(turn, offset)
    one, _ = warp.rotated(turn).shifted(offset).recorded(move @ here)
    np.testing.assert_allclose(one, move @ warp.recorded(here)[0], atol=1e-5)


def test_of_several_recordings_each_counts_at_its_place() -> None:
    near = walk()
    far = near + np.array([[0, 0, 0, 0], [0, 0, 0, 50.0], [0, 0, 0, 0], [0, 0, 0, 0]])
    joined = Warp.joined([Warp.of(near, recorded_as(near), SEEN), Warp.of(far, recorded_as(far, -SHIFT), 3 * SEEN)])
    assert joined.reach == pytest.approx(0.08 * 2 * SEEN) and len(joined) == 2 * len(near)
    for place, shift in ((near[30], SHIFT), (far[30], -SHIFT)):
        assert pose_errors(joined.recorded(place)[0], recorded_as(place[None], shift)[0])[0] < 0.01
    many = Warp(*(np.tile(part, (30, 1)) for part in (joined.poses, joined.errors)), 1.0)
    assert len(Warp.joined([many, many])) == MOST_POSES


def warped_landmarks(rng: np.random.Generator) -> tuple[Landmarks, np.ndarray, np.ndarray]:
    """Landmarks that know that all poses about the origin were recorded with one error; points, descriptors."""
    points, descriptors = cloud(rng, 200), looks(rng, 200)
    poses = camera_poses(rng, 80, reach=0.3)
    plain = landmarks_of(points, descriptors)
    return replace(plain, warp=Warp.of(poses, recorded_as(poses), plain.seen_distance)), points, descriptors


def test_a_pose_that_is_nearly_the_priors_is_the_prior() -> None:
    """Whatever a sure prior says, which errs as the recording does, is not bent."""
    rng = np.random.default_rng(3)
    landmarks, points, descriptors = warped_landmarks(rng)
    pose = camera_poses(rng, 1, reach=0.1)[0]
    told = recorded_as(pose[None])[0]
    prior = PosePrior.of(told, 1e-12 * np.eye(6))
    found = locate([keypoints_of(pose, points[:12], descriptors[:12])], np.eye(4)[None], landmarks, prior)
    assert found.pose.prior is not None and found.pose.share < 0.01
    metres, degrees = pose_errors(found.world_from_rig, told)
    assert metres < 2e-3 and degrees < 0.1


@pytest.mark.parametrize("kind", ["points", "lines"])
def test_a_camera_is_located_as_the_recording_would_have_it(kind: str) -> None:
    rng = np.random.default_rng(0)
    landmarks, points, descriptors = warped_landmarks(rng)
    pose = camera_poses(rng, 1, reach=0.1)[0]
    landmarks = landmarks if kind == "points" else hide_in_lines(landmarks, 0)
    prior = PosePrior.of(pose, np.diag([0.05**2] * 3 + [0.03**2] * 3))
    found = locate([keypoints_of(pose, points, descriptors)], np.eye(4)[None], landmarks, prior)
    assert pose_errors(make_pose(found.pose.rotation, found.pose.centre), pose)[0] < 0.002
    metres, degrees = pose_errors(found.world_from_rig, recorded_as(pose[None])[0])
    assert metres < 0.2 * np.linalg.norm(SHIFT) and degrees < 0.2 * np.degrees(np.linalg.norm(TURN))
    assert found.unknown < 0.5


def test_a_rig_is_bent_about_the_camera_that_shows_most() -> None:
    rng = np.random.default_rng(1)
    landmarks, points, descriptors = warped_landmarks(rng)
    camera = camera_poses(rng, 1, reach=0.1)[0]
    rig_from_camera = make_pose(Rotation.from_rotvec([0.2, 0.1, 0.0]).as_matrix(), [5.0, 0.0, 0.0])
    found = locate([keypoints_of(camera, points, descriptors)], rig_from_camera[None], landmarks, None)
    wanted = recorded_as(camera[None])[0] @ invert(rig_from_camera)
    assert pose_errors(found.world_from_rig @ rig_from_camera, wanted @ rig_from_camera)[0] < 0.2 * np.linalg.norm(
        SHIFT
    )
