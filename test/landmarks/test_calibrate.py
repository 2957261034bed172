"""What landmark poses err by beside their own scatter: known errors of the poses come back."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dimm_ros.geometry.poses import make_pose
from dimm_ros.landmarks.calibrate import LandmarkCalibration, calibrate_landmarks, left_out

from .scenes import camera_poses, cloud, keypoints_of, landmarks_of, looks


def calibrated(metres: float, degrees: float, frames: int, blunders: int = 0) -> LandmarkCalibration:
    """Of frames whose recorded poses are off by so much in each axis; of some, by a metre."""
    rng = np.random.default_rng(0)
    points, descriptors = cloud(rng, 200), looks(rng, 200)
    true = camera_poses(rng, frames)
    keypoints = [keypoints_of(pose, points, descriptors, 0.3, rng) for pose in true]
    recorded = np.stack([
        make_pose(Rotation.from_rotvec(rng.normal(0, np.radians(degrees), 3)).as_matrix() @ pose[:3, :3], pose[:3, 3] + rng.normal(0, metres, 3))
        for pose in true
    ])
    recorded[:blunders, :3, 3] += 1.0
    return calibrate_landmarks(landmarks_of(points, descriptors), keypoints, recorded)


@pytest.mark.parametrize(("metres", "degrees"), [(0.02, 0.3), (0.005, 1.5)])
def test_known_errors_are_recovered(metres: float, degrees: float) -> None:
    found = calibrated(metres, degrees, 30)
    assert found.frames == 30
    # 1.2 times as large, for the tails; of 90 numbers a standard deviation is known to a tenth.
    assert found.position_sigma == pytest.approx(1.2 * metres, rel=0.25)
    assert found.rotation_sigma_deg == pytest.approx(1.2 * degrees, rel=0.25)
    # The median length of three such numbers is 1.54 of them.
    assert found.position_error == pytest.approx(1.54 * metres, rel=0.25)
    assert found.rotation_error_deg == pytest.approx(1.54 * degrees, rel=0.25)
    np.testing.assert_allclose(
        np.diag(found.covariance(1e18 * np.eye(6))), np.repeat([found.position_sigma, np.radians(found.rotation_sigma_deg)], 3) ** 2,
    )


def test_a_blunder_does_not_inflate_all_others() -> None:
    assert calibrated(0.02, 0.3, 30, blunders=1).position_sigma < 0.06


def test_too_few_frames_say_nothing() -> None:
    assert calibrated(0.02, 0.3, 4) == LandmarkCalibration()


@pytest.mark.parametrize("count", [10, 59, 60, 250])
def test_frames_are_left_out_in_stretches_where_there_are_enough(count: int) -> None:
    apart = left_out(count)
    assert (np.diff(apart) > 0).all() and apart.max(initial=0) < count and 0.1 < len(apart) / count < 0.3
    runs = np.split(apart, np.flatnonzero(np.diff(apart) > 1) + 1)
    assert max(len(run) for run in runs) == (1 if count < 60 else 8)
