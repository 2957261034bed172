"""A place that two passes of a recording put apart: half-way between where nothing else is known, the nearer one beside
its poses.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dimm_ros.geometry.poses import make_pose, moved, pose_difference
from dimm_ros.landmarks.calibrate import LandmarkCalibration
from dimm_ros.landmarks.keypoints import Keypoints
from dimm_ros.landmarks.locate import LandmarkResult, locate
from dimm_ros.landmarks.store import Landmarks
from dimm_ros.landmarks.warp import Warp
from dimm_ros.solver.landmark_pose import LandmarkPose
from dimm_ros.solver.landmarks import PosePrior

from .scenes import camera_poses, cloud, keypoints_of, landmarks_of, looks

#: Of the second pass by the first: 4 cm and 3.4 degrees.
APART = make_pose(Rotation.from_rotvec([0.0, 0.06, 0.0]).as_matrix(), [0.03, -0.02, 0.02])
ELSEWHERE = np.array([10.0, 0.0, 0.0])


def passes(
    second: int = 90, apart: np.ndarray = APART, recorded_at: np.ndarray = ELSEWHERE, width: float = 1.0
) -> tuple[Landmarks, Keypoints, np.ndarray]:
    """Landmarks of 120 points as the first pass puts them and of some, in a part of the image of some width, as the
    second does, with exact poses of the first recorded somewhere; what a camera sees of them all; its pose by the
    first.
    """
    rng = np.random.default_rng(5)
    points, descriptors = cloud(rng, 120 + second), looks(rng, 120 + second)
    points[120:, :2] *= width
    pose, mapped = camera_poses(rng, 1, reach=0.1)[0], points.copy()
    mapped[120:] = points[120:] @ apart[:3, :3].T + apart[:3, 3]
    recorded = camera_poses(rng, 60, reach=0.2)
    recorded[:, :3, 3] += recorded_at
    plain = landmarks_of(mapped, descriptors)
    warp = Warp.of(recorded, recorded, plain.seen_distance)
    return replace(plain, warp=warp), keypoints_of(pose, points, descriptors, 0.5, rng), pose


def located(landmarks: Landmarks, keypoints: Keypoints) -> LandmarkResult:
    found = locate([keypoints], np.eye(4)[None], landmarks, None)
    assert found is not None and found.proven
    return found


def away(found: LandmarkResult, pose: np.ndarray) -> float:
    """Largest part of the error: metres or radians."""
    return float(np.abs(pose_difference(found.world_from_rig, pose)).max())


def test_far_from_recorded_poses_it_is_half_way() -> None:
    landmarks, keypoints, pose = passes()
    found = located(landmarks, keypoints)
    half = moved(pose, 0.5 * pose_difference(APART @ pose, pose))
    assert away(found, half) < 0.004 and away(found, pose) > 0.02
    assert found.unknown == pytest.approx(0.5, abs=1e-3), "the mean of two is surer than each"
    assert away(replace(found, world_from_rig=found.other), APART @ pose) < 0.004
    np.testing.assert_allclose(found.apart, pose_difference(APART @ pose, pose), atol=0.006)


def test_next_to_poses_of_one_pass_it_is_that_one() -> None:
    landmarks, keypoints, pose = passes(recorded_at=np.zeros(3))
    found = located(landmarks, keypoints)
    assert found.other is not None and found.unknown < 0.2
    assert away(found, pose) < 0.012


@pytest.mark.parametrize(
    "second, apart, turn, width",
    [(0, 1.0, 1.0, 1.0), (25, 1.0, 1.0, 1.0), (90, 12.0, 1.0, 1.0), (90, 1.0, 2.5, 1.0), (90, 1.0, 1.0, 0.2)],
    ids=["one", "few", "elsewhere", "turned", "a thing that was moved"],
)
def test_what_is_no_other_pass_changes_nothing(second: int, apart: float, turn: float, width: float) -> None:
    """No landmarks, few, a place that is another, one that looks elsewhere, or a small part of the image."""
    further = make_pose(
        Rotation.from_rotvec(turn * Rotation.from_matrix(APART[:3, :3]).as_rotvec()).as_matrix(), apart * APART[:3, 3]
    )
    landmarks, keypoints, pose = passes(second, further, width=width)
    found = located(landmarks, keypoints)
    assert found.other is None and found.unknown == pytest.approx(1.0, abs=1e-3)
    assert away(found, pose) < 0.004


def test_a_prior_of_a_search_everywhere_counts_for_what_it_says() -> None:
    """An unsure one as none; a sure one is nobody's pass."""
    landmarks, keypoints, pose = passes()
    half = moved(pose, 0.5 * pose_difference(APART @ pose, pose))
    for sigma, wanted in ((1.0, half), (1e-5, pose)):
        prior = PosePrior.of(pose, sigma**2 * np.eye(6))
        found = locate([keypoints], np.eye(4)[None], landmarks, prior, everywhere=True)
        assert found.other is not None and away(found, wanted) < 0.004


def test_a_rigs_camera_is_between_the_passes() -> None:
    """Passes near each other at the camera that shows them may be far apart at the rig's origin."""
    landmarks, keypoints, pose = passes()
    rig_from_camera = make_pose(Rotation.from_rotvec([0.0, 0.5, 0.0]).as_matrix(), [4.0, 0.0, 0.0])
    found = locate([keypoints], rig_from_camera[None], landmarks, None)
    half = moved(pose, 0.5 * pose_difference(APART @ pose, pose))
    assert np.abs(pose_difference(found.world_from_rig @ rig_from_camera, half)).max() < 0.004


def test_what_contradicts_itself_widely_is_less_sure() -> None:
    """Two values that are apart by d have a variance of d squared halves, which is half of what is believed."""
    calibration = LandmarkCalibration(position_sigma=0.02, rotation_sigma_deg=1.0, widened=1.2)
    pose = LandmarkPose(np.eye(3), np.zeros(3), np.ones(9, bool), 1e18 * np.eye(6), 99.0, None)
    apart = np.array([0.06, 0.0, 0.0, 0.0, 0.05, 0.0])
    variance = np.diag(calibration.covariance(pose, 0.5, apart))
    np.testing.assert_allclose(variance[:3], 0.5 * ((1.2 * 0.02) ** 2 + 0.06**2 / 3 / 2) / 2, rtol=1e-6)
    np.testing.assert_allclose(variance[3:], 0.5 * ((1.2 * np.radians(1.0)) ** 2 + 0.05**2 / 3 / 2) / 2, rtol=1e-6)


def test_about_a_known_pose_the_pass_is_known() -> None:
    """A prior says which pass it is, and an answer that jumps from one to the mean of both would be worse."""
    landmarks, keypoints, pose = passes()
    prior = PosePrior.of(pose, np.diag([0.01**2] * 3 + [0.005**2] * 3))
    found = locate([keypoints], np.eye(4)[None], landmarks, prior)
    assert found.other is None and away(found, pose) < 0.01


def test_a_map_that_knows_no_errors_of_its_poses_has_one_pass() -> None:
    landmarks, keypoints, pose = passes()
    assert away(located(replace(landmarks, warp=None), keypoints), pose) < 0.004
