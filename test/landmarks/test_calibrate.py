"""What landmark poses err by beside their own scatter: known errors of the poses come back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dimm_ros.geometry.poses import make_pose
from dimm_ros.landmarks.calibrate import HeldOut, LandmarkCalibration, calibrate_landmarks, left_out
from dimm_ros.landmarks.warp import Warp
from dimm_ros.solver.landmark_pose import LandmarkPose
from dimm_ros.solver.landmarks import PosePrior

from .scenes import camera_poses, cloud, keypoints_of, landmarks_of, looks


def calibrated(metres: float, degrees: float, frames: int, blunders: int = 0, strayed: int = 0) -> LandmarkCalibration:
    """Of frames whose recorded poses are off by so much in each axis; of some, by a metre, or by five times as much."""
    rng = np.random.default_rng(0)
    points, descriptors = cloud(rng, 200), looks(rng, 200)
    true = camera_poses(rng, frames)
    keypoints = [keypoints_of(pose, points, descriptors, 0.3, rng) for pose in true]
    turns = Rotation.from_rotvec(rng.normal(0, np.radians(degrees), (frames, 3))).as_matrix()
    moves = rng.normal(0, metres, (frames, 3))
    moves[:strayed] *= 5
    recorded = np.stack(
        [
            make_pose(turn @ pose[:3, :3], pose[:3, 3] + move)
            for turn, move, pose in zip(turns, moves, true, strict=True)
        ]
    )
    recorded[:blunders, :3, 3] += 1.0
    half = frames // 2  # what sets of frames say is put together
    landmarks = landmarks_of(points, descriptors)
    return calibrate_landmarks(
        [HeldOut(landmarks, keypoints[part], recorded[part]) for part in (slice(half), slice(half, None))]
    )


def exact_pose(prior: PosePrior | None = None) -> LandmarkPose:
    """Of so many good matches that only the errors they share are left."""
    return LandmarkPose(np.eye(3), np.zeros(3), np.ones(9, bool), 1e18 * np.eye(6), 99.0, prior)


@pytest.mark.parametrize(("metres", "degrees"), [(0.02, 0.3), (0.005, 1.5)])
def test_known_errors_are_recovered(metres: float, degrees: float) -> None:
    found = calibrated(metres, degrees, 60)
    assert found.frames == 60
    # Of 180 numbers a standard deviation is known to a twentieth.
    assert found.position_sigma == pytest.approx(metres, rel=0.2)
    assert found.rotation_sigma_deg == pytest.approx(degrees, rel=0.2)
    assert 1.0 <= found.widened < 1.15, "Gaussian errors need no more room"
    # The median length of three such numbers is 1.54 of them.
    assert found.position_error == pytest.approx(1.54 * metres, rel=0.25)
    assert found.rotation_error_deg == pytest.approx(1.54 * degrees, rel=0.25)
    np.testing.assert_allclose(
        np.diag(found.covariance(exact_pose())),
        (found.widened * np.repeat([found.position_sigma, np.radians(found.rotation_sigma_deg)], 3)) ** 2,
    )


def test_heavy_tails_get_more_room_within_limits() -> None:
    """A tenth of the errors are five times the others."""
    assert calibrated(0.02, 0.3, 60, strayed=6).widened == pytest.approx(1.3)


def test_what_is_widened_is_the_matches_own_scatter_too_but_not_the_prior() -> None:
    """Poses may be exact, and all errors the keypoints'."""
    alone = replace(exact_pose(), information=np.diag([1e4] * 6))
    for prior, factor in ((None, 1.3**2), (PosePrior(np.eye(3), np.zeros(3), 1e12 * np.eye(6)), 1.0)):
        pose = replace(alone, prior=prior)
        plain, wide = (
            LandmarkCalibration(position_sigma=0, rotation_sigma_deg=0, widened=by).covariance(pose) for by in (1, 1.3)
        )
        np.testing.assert_allclose(wide, factor * plain, rtol=1e-6, atol=1e-20)


def test_errors_are_smaller_where_the_recordings_own_are_known() -> None:
    """A quarter of the variance unknown: half of the standard deviation."""
    found = LandmarkCalibration(position_sigma=0.02, rotation_sigma_deg=0.3)
    whole, quarter = (np.sqrt(np.diag(found.covariance(exact_pose(), unknown))) for unknown in (1.0, 0.25))
    np.testing.assert_allclose(whole, np.repeat([0.02, np.radians(0.3)], 3), rtol=1e-6)
    np.testing.assert_allclose(quarter, whole / 2, rtol=1e-6)


def test_what_the_prior_gives_has_no_share_in_the_landmarks_errors() -> None:
    found = LandmarkCalibration(position_sigma=0.02, rotation_sigma_deg=0.3)
    prior = PosePrior(np.eye(3), np.zeros(3), 1e24 * np.eye(6))
    assert exact_pose(prior).share == pytest.approx(0.0, abs=1e-5) and exact_pose().share == 1.0
    assert np.diag(found.covariance(exact_pose(prior))).max() < 1e-8


def test_poses_near_those_that_were_left_out_make_the_errors_far_from_all_larger() -> None:
    """What is left of errors where most is known stands for more where nothing is."""
    rng = np.random.default_rng(0)
    points, descriptors = cloud(rng, 200), looks(rng, 200)
    true = camera_poses(rng, 80, reach=0.1)
    recorded = np.stack([make_pose(pose[:3, :3], pose[:3, 3] + rng.normal(0, 0.01, 3)) for pose in true])
    keypoints = [keypoints_of(pose, points, descriptors, 0.3, rng) for pose in true]
    plain = landmarks_of(points, descriptors)
    warp = Warp.of(true[40:], recorded[40:], plain.seen_distance)
    flat, known = (
        calibrate_landmarks([HeldOut(replace(plain, warp=each), keypoints[:40], recorded[:40])])
        for each in (None, warp)
    )
    share = np.mean([warp.recorded(pose)[1] for pose in true[:40]])
    assert share < 0.6
    assert known.position_sigma == pytest.approx(flat.position_sigma / np.sqrt(share), rel=0.35)


def test_a_blunder_does_not_inflate_all_others() -> None:
    assert calibrated(0.02, 0.3, 30, blunders=1).position_sigma < 0.06


def test_too_few_frames_say_nothing() -> None:
    assert calibrated(0.02, 0.3, 4) == LandmarkCalibration()


@pytest.mark.parametrize(("count", "longest"), [(10, 1), (21, 1), (119, 1), (120, 5), (250, 5)])
def test_frames_are_left_out_in_stretches_where_there_are_enough(count: int, longest: int) -> None:
    sets = left_out(count)
    together = np.concatenate(sets)
    assert len(set(together)) == len(together) >= min(40, count)
    for apart in sets:
        assert (np.diff(apart) > 0).all() and apart.max() < count and len(apart) <= max(1, 0.2 * count)
        runs = np.split(apart, np.flatnonzero(np.diff(apart) > 1) + 1)
        assert max(len(run) for run in runs) == longest
