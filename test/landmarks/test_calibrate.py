"""What landmark poses err by beside their own scatter: known errors of the poses come back."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dimm_ros.geometry.poses import make_pose
from dimm_ros.landmarks.calibrate import HeldOut, LandmarkCalibration, calibrate_landmarks, left_out
from dimm_ros.landmarks.store import Landmarks

from .scenes import camera_poses, cloud, keypoints_of, landmarks_of, looks


def calibrated(
    metres: float, degrees: float, frames: int, blunders: int = 0, grows: bool = False
) -> LandmarkCalibration:
    """Of frames whose recorded poses are off by so much in each axis; of some, by a metre.

    Errors of frames may grow with the distance from the views that showed the landmarks; else how these were seen is
    not known.
    """
    rng = np.random.default_rng(0)
    points, descriptors = cloud(rng, 200), looks(rng, 200)
    true = camera_poses(rng, frames)
    keypoints = [keypoints_of(pose, points, descriptors, 0.3, rng) for pose in true]
    landmarks = landmarks_of(points, descriptors)
    far = np.array([np.median(landmarks.strangeness(pose[:3, 3], 0.0, np.arange(200))) for pose in true])
    far = far / np.median(far) if grows else np.ones(frames)
    turns = Rotation.from_rotvec(rng.normal(0, np.radians(degrees), (frames, 3)) * far[:, None]).as_matrix()
    moves = rng.normal(0, metres, (frames, 3)) * far[:, None]
    recorded = np.stack(
        [
            make_pose(turn @ pose[:3, :3], pose[:3, 3] + move)
            for turn, move, pose in zip(turns, moves, true, strict=True)
        ]
    )
    recorded[:blunders, :3, 3] += 1.0
    if not grows:  # lines tell nothing of where they were seen from
        landmarks = Alike(landmarks.kind, **landmarks.arrays())
    half = frames // 2  # what sets of frames say is put together
    return calibrate_landmarks(
        [HeldOut(landmarks, keypoints[part], recorded[part]) for part in (slice(half), slice(half, None))]
    )


class Alike(Landmarks):
    """Landmarks that look the same from everywhere."""

    def strangeness(self, centre: np.ndarray, slack: float, rows: np.ndarray) -> np.ndarray:
        return np.zeros(len(rows))


@pytest.mark.parametrize(("metres", "degrees"), [(0.02, 0.3), (0.005, 1.5)])
def test_known_errors_are_recovered(metres: float, degrees: float) -> None:
    found = calibrated(metres, degrees, 60)
    assert found.frames == 60
    # 1.2 times as large, for the tails; of 180 numbers a standard deviation is known to a twentieth.
    assert found.position_sigma == pytest.approx(1.2 * metres, rel=0.25)
    assert found.rotation_sigma_deg == pytest.approx(1.2 * degrees, rel=0.25)
    # The median length of three such numbers is 1.54 of them.
    assert found.position_error == pytest.approx(1.54 * metres, rel=0.25)
    assert found.rotation_error_deg == pytest.approx(1.54 * degrees, rel=0.25)
    np.testing.assert_allclose(
        np.diag(found.covariance(1e18 * np.eye(6), 0.7)),
        np.repeat([found.position_sigma, np.radians(found.rotation_sigma_deg)], 3) ** 2,
    )


def test_errors_grow_with_the_distance_from_the_mapped_views() -> None:
    found = calibrated(0.02, 0.3, 60, grows=True)
    assert found.strangeness is not None and found.position_sigma == pytest.approx(1.2 * 0.02, rel=0.25)
    near, usual, far = (
        np.sqrt(np.diag(found.covariance(1e18 * np.eye(6), share * found.strangeness)))[[0, 3]]
        for share in (0.01, 1.0, 3.0)
    )
    np.testing.assert_allclose(usual, [found.position_sigma, np.radians(found.rotation_sigma_deg)], rtol=1e-6)
    np.testing.assert_allclose(far, 3 * usual, rtol=1e-6)
    np.testing.assert_allclose(near, 0.3 * usual, rtol=1e-6)  # never nothing
    # which do not tell where they were seen from
    of_lines = np.sqrt(np.diag(found.covariance(1e18 * np.eye(6), None)))[[0, 3]]
    np.testing.assert_allclose(of_lines, usual, rtol=1e-6)


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


def test_lines_err_more_than_the_points_that_they_hide_and_do_not_tell_where_they_were_seen_from() -> None:
    points = calibrated(0.02, 0.3, 60, grows=True)
    lines = points.of_lines()
    assert lines.strangeness is None and (lines.frames, lines.reach) == (points.frames, points.reach)
    near = points.covariance(1e18 * np.eye(6), points.strangeness)
    np.testing.assert_allclose(lines.covariance(1e18 * np.eye(6), None), 1.5**2 * near, rtol=1e-6)
