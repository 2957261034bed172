"""Depth from posed images alone, against the renderer's exact depth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dimm_ros.data.open import open_recording
from dimm_ros.data.recording import Frame, Recording
from dimm_ros.encoder.patches import PATCH, fit, patch_grid
from dimm_ros.errors import DataError
from dimm_ros.gallery.render import render
from dimm_ros.gallery.scene import build_room
from dimm_ros.gallery.trajectory import MOUNTS, trajectory
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import make_pose, rotation_angle_deg
from dimm_ros.mapping.augment import recorded_view
from dimm_ros.mapping.stereo import StereoDepth, _correlation, _mean_of_best, rectified
from dimm_ros.mapping.synthesise import ImageWithDepth, moved_view, registered_range

PINHOLE = Camera(160, 120, 100.0, 102.0, 79.0, 60.5)
FISHEYE = Camera(160, 120, 70.0, 70.0, 80.0, 59.5, "equidistant", (0.02, -0.005, 0.001, 0.0))
ROOM = build_room(seed=3, photographs=False)


def _walk(camera: Camera) -> Recording:
    """30 frames over six seconds, 160x120."""
    stamps, world_from_base = trajectory(4, 5.9, 5.0)
    poses = world_from_base @ MOUNTS["handheld"]
    images = [render(ROOM, camera, pose) for pose in poses]
    frames = [
        Frame(str(stamp), int(stamp), camera, pose, lambda image=image: image)
        for stamp, pose, image in zip(stamps, poses, images, strict=True)
    ]
    return Recording("walk", "walk", frames)


@pytest.fixture(scope="module")
def recording() -> Recording:
    return _walk(PINHOLE)


@pytest.fixture(scope="module")
def stereo(recording: Recording) -> StereoDepth:
    return StereoDepth(recording)


def _true_depth(stereo: StereoDepth, recording: Recording, index: int) -> np.ndarray:
    return render(ROOM, stereo.camera(index), recording.frames[index].world_from_camera, with_depth=True)[1]


def test_the_depth_range_is_the_scenes(stereo: StereoDepth, recording: Recording) -> None:
    assert len(recording.frames) == 30
    depths = np.stack([_true_depth(stereo, recording, index) for index in range(0, 30, 6)])
    low, middle, high = np.percentile(depths, (5, 50, 95))
    assert stereo.near < low < high < stereo.far
    assert 0.7 * middle < stereo.typical < 1.4 * middle
    assert stereo.far / stereo.near < 12


@pytest.mark.parametrize("index", [4, 13, 22])
def test_depth_is_right_where_it_is_confident_and_near_it_elsewhere(
    stereo: StereoDepth, recording: Recording, index: int
) -> None:
    depth, confident = stereo.depth_and_confidence(index)
    truth = _true_depth(stereo, recording, index)
    assert depth.dtype == np.float32 and depth.shape == truth.shape == (120, 160)
    error = np.abs(depth - truth) / truth
    assert confident.mean() > 0.3
    assert np.median(error[confident]) < 0.03 and np.mean(error[confident] < 0.08) > 0.9
    assert np.median(error[depth > 0]) < 0.05
    assert np.mean(depth > 0) > 0.8


def test_a_fish_eye_is_rectified() -> None:
    recording = _walk(FISHEYE)
    stereo = StereoDepth(recording)
    camera = stereo.camera(13)
    assert camera.is_pinhole and 1.2 < camera.width / camera.fx < 2.9
    depth, confident = stereo.depth_and_confidence(13)
    truth = _true_depth(stereo, recording, 13)
    assert np.median(np.abs(depth - truth)[confident] / truth[confident]) < 0.05


def test_rectified_pinholes_are_scaled_alone() -> None:
    assert rectified(PINHOLE, 160) == PINHOLE
    assert rectified(replace(PINHOLE, distortion=(0.0,) * 5), 80) == replace(PINHOLE, distortion=(0.0,) * 5).scaled(
        80, 60
    )


def test_neighbours_look_the_same_way_from_another_place(stereo: StereoDepth, recording: Recording) -> None:
    poses = recording.poses()
    chosen = stereo.neighbours(13)
    assert 3 <= len(chosen) == len(set(chosen)) and 13 not in chosen
    distances = np.linalg.norm(poses[chosen, :3, 3] - poses[13, :3, 3], axis=1)
    assert (distances > 0.01 * stereo.typical).all() and (distances < 0.35 * stereo.typical).all()
    assert (rotation_angle_deg(poses[13, :3, :3], poses[chosen, :3, :3]) <= 25).all()


def test_views_synthesised_from_it_are_near_the_truth(stereo: StereoDepth, recording: Recording) -> None:
    """Against the renderer; with exact depth it is nearer still, with no motion far off."""
    index, motion = 13, make_pose(np.eye(3), np.array([0.15, -0.05, 0.05]))
    grid, frame = patch_grid(PINHOLE, 224), recording.frames[13]
    image, exact = render(ROOM, PINHOLE, frame.world_from_camera, with_depth=True)
    truth = fit(render(ROOM, PINHOLE, frame.world_from_camera @ motion), PINHOLE, grid).astype(float)
    view = moved_view([ImageWithDepth.of(image, stereo.depth(index), stereo.camera(index), grid)], grid, [motion])
    best = moved_view([ImageWithDepth.of(image, exact, PINHOLE, grid)], grid, [motion])
    both = (view.valid & best.valid).reshape(grid.rows, grid.columns)
    assert both.mean() > 0.5
    shown = np.repeat(np.repeat(both, PATCH, 0), PATCH, 1)
    stereo_error, exact_error, still = (
        np.abs(other.image - truth)[shown].mean() for other in (view, best, recorded_view(image, PINHOLE, grid))
    )
    assert exact_error < 1.1 * stereo_error
    assert stereo_error < 0.4 * still


def test_one_frame_alone_and_depth_is_kept(stereo: StereoDepth, recording: Recording) -> None:
    first = stereo.depth(4)
    np.testing.assert_array_equal(first, stereo.depth(4))
    np.testing.assert_allclose(first, stereo.depth_and_confidence(4)[0], rtol=2e-3)
    np.testing.assert_allclose(StereoDepth(recording).depth(4), first)


def test_a_frame_far_from_all_others_has_no_depth(recording: Recording) -> None:
    away = recording.frames[13].world_from_camera.copy()
    away[:3, 3] += 50.0
    stereo = StereoDepth(
        replace(recording, frames=[*recording.frames, replace(recording.frames[13], world_from_camera=away)])
    )
    assert stereo.neighbours(30) == []
    assert not stereo.depth(30).any()


def test_a_camera_that_only_turns_is_refused(recording: Recording) -> None:
    centre = recording.frames[0].world_from_camera[:3, 3]
    still = [
        replace(frame, world_from_camera=make_pose(frame.world_from_camera[:3, :3], centre))
        for frame in recording.frames
    ]
    frames = [replace(frame, load=lambda pose=frame.world_from_camera: render(ROOM, PINHOLE, pose)) for frame in still]
    with pytest.raises(DataError, match="sideways"):
        StereoDepth(replace(recording, frames=frames))


def test_real_images(shared_data) -> None:
    """Against the depth camera of 7-Scenes, which sits a few centimetres aside and whose poses are good to a
    centimetre.
    """
    kitchen = open_recording(shared_data / "redkitchen")
    stereo = StereoDepth(kitchen)
    errors = []
    for index in (20, 224, 360):
        frame, camera = kitchen.frames[index], stereo.camera(index)
        depth, confident = stereo.depth_and_confidence(index)
        truth = registered_range(frame.load_depth(), frame.depth_camera, camera)
        x, y = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
        truth = truth * camera.bearings(np.stack([x, y], axis=-1).reshape(-1, 2))[0][:, 2].reshape(truth.shape)
        known = confident & (truth > 0)
        errors.append(np.median(np.abs(depth - truth)[known] / truth[known]))
        assert known.mean() > 0.3
    assert np.median(errors) < 0.1


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_best_of_several_scores_are_what_sorting_says(count: int) -> None:
    scores = np.random.default_rng(0).normal(size=(5, 7, 4, 3))
    expected = np.sort(scores, axis=0)[-count:].mean(axis=0)
    np.testing.assert_allclose(_mean_of_best(list(scores), count), expected)


def test_correlation_is_that_of_every_window() -> None:
    """Against the definition, window by window; contrast below the camera's noise says little."""
    rng = np.random.default_rng(1)
    image, warped = rng.uniform(0, 255, (9, 11)).astype(np.float32), rng.uniform(0, 255, (9, 11, 2)).astype(np.float32)
    row, column = 4, 6
    one = image[row - 3 : row + 4, column - 3 : column + 4]
    for plane in range(2):
        other = warped[row - 3 : row + 4, column - 3 : column + 4, plane]
        wanted = ((one - one.mean()) * (other - other.mean())).mean() / np.sqrt(
            (one.var() + 1.5**2) * (other.var() + 1.5**2)
        )
        assert _correlation(image, warped)[row, column, plane] == pytest.approx(wanted, abs=1e-3)
