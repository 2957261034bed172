"""Landmarks of a real, if small, recording: made, refused where poses are wrong, and absent where there is nothing to
see.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dimm_ros.config import LandmarkConfig
from dimm_ros.data.open import open_recording
from dimm_ros.data.recording import Frame
from dimm_ros.errors import DataError
from dimm_ros.gallery.render import render
from dimm_ros.gallery.scene import build_room
from dimm_ros.geometry.poses import invert, make_pose, pose_errors
from dimm_ros.landmarks.build import MIN_LANDMARKS, BuiltLandmarks, build_landmarks
from dimm_ros.landmarks.keypoints import Sift, find_keypoints
from dimm_ros.landmarks.locate import locate
from dimm_ros.landmarks.store import hide_in_lines

ORIGIN = np.array([1.0, -2.0, 0.5])


@pytest.fixture(scope="module")
def frames(walk: Path) -> list[Frame]:
    """With images that are read once."""
    loaded = [(frame, frame.load()) for frame in open_recording(walk).frames]
    return [replace(frame, load=lambda image=image: image) for frame, image in loaded]


@pytest.fixture(scope="module")
def built(frames: list[Frame]) -> BuiltLandmarks:
    return build_landmarks(frames, ORIGIN, LandmarkConfig())


def test_landmarks_lie_on_what_the_room_is_made_of(built: BuiltLandmarks, frames: list[Frame]) -> None:
    """The room's own depth is the judge: a landmark is where an image that shows it sees a surface."""
    landmarks = built.landmarks
    assert (
        landmarks.kind == "points"
        and len(landmarks) > 300
        and built.images == 24
        and built.note == ""
        and built.seconds > 0
    )
    assert (landmarks.views[:-1] >= landmarks.views[1:]).all() and landmarks.views.min() >= 2
    places, off = landmarks.exact_places + ORIGIN, []
    for frame in frames[::6]:
        _, depth = render(build_room(0), frame.camera, frame.world_from_camera, with_depth=True)
        local = (places - frame.world_from_camera[:3, 3]) @ frame.world_from_camera[:3, :3]
        pixels, front = frame.camera.project(local)
        rows = np.flatnonzero(front & frame.camera.contains(pixels))
        surface = depth[tuple(np.rint(pixels[rows]).astype(int).T[::-1])]
        visible = (surface > 0) & (local[rows, 2] < surface + 0.5)
        off.append(np.abs(local[rows, 2] - surface)[visible])
    assert np.median(np.concatenate(off)) < 0.05


def test_what_it_was_seen_from_is_kept(built: BuiltLandmarks, frames: list[Frame]) -> None:
    """Cameras are where the landmarks were seen from: each is the right way and far enough from some of them."""
    landmarks = built.landmarks
    axis, cosine, near, far = np.split(landmarks.seen_from.astype(float), [3, 4, 5], axis=1)
    np.testing.assert_allclose(np.linalg.norm(axis, axis=1), 1.0, atol=2e-3)
    assert (cosine <= 1.001).all() and (near <= far * 1.001).all() and near.min() > 0.05 and far.max() < 9.0
    for frame in frames[::8]:
        centre = frame.world_from_camera[:3, 3] - ORIGIN
        assert np.isfinite(landmarks.strangeness(centre, 0.0, np.arange(len(landmarks)))).sum() > 50


def test_an_image_that_was_not_used_is_found(built: BuiltLandmarks, other_walk: Path) -> None:
    errors = []
    for frame in open_recording(other_walk).frames[::3]:
        keypoints = find_keypoints(frame.load(), frame.camera, Sift(), 1024, 2500)
        found = locate([keypoints], np.eye(4)[None], built.landmarks, None)
        assert found.proven
        errors.append(pose_errors(make_pose(found.pose.rotation, found.pose.centre + ORIGIN), frame.world_from_camera))
    metres, degrees = np.transpose(errors)
    assert np.median(metres) < 0.05 and metres.max() < 0.15 and np.median(degrees) < 0.6


def test_answers_err_as_the_recording_errs(frames: list[Frame], built: BuiltLandmarks) -> None:
    """Poses that are each off by centimetres: answers at them go with them, those without the warp do not."""
    true = np.stack([frame.world_from_camera for frame in frames])
    recorded = true.copy()
    recorded[:, :3, 3] += np.random.default_rng(0).normal(0, 0.03, (len(frames), 3))
    erring = [replace(frame, world_from_camera=pose) for frame, pose in zip(frames, recorded, strict=True)]
    landmarks = build_landmarks(erring, ORIGIN, LandmarkConfig()).landmarks
    assert landmarks.warp.sizes[0] > 3 * built.landmarks.warp.sizes[0], (
        landmarks.warp.sizes,
        built.landmarks.warp.sizes,
    )
    errors = []
    for frame, pose in zip(frames[1::3], recorded[1::3], strict=True):
        keypoints = find_keypoints(frame.load(), frame.camera, Sift(), 1024, 2500)
        found = locate([keypoints], np.eye(4)[None], landmarks, None)
        straight = found.pose.centre + ORIGIN - pose[:3, 3]
        bent = found.world_from_rig[:3, 3] + ORIGIN - pose[:3, 3]
        errors.append(np.linalg.norm([straight, bent], axis=1))
    straight, bent = np.median(errors, axis=0)
    assert straight > 0.02 and bent < 0.5 * straight, (straight, bent)


def test_lines_are_the_points_hidden(built: BuiltLandmarks, frames: list[Frame]) -> None:
    made = build_landmarks(frames, ORIGIN, LandmarkConfig(kind="lines"))
    lines = made.landmarks
    # They are judged as the points that they hide, whether PoseLib, which alone finds poses from lines alone, is there
    # or not.
    assert made.calibration == built.calibration and made.calibration.frames > 5
    hidden = hide_in_lines(built.landmarks, LandmarkConfig().seed)
    for name, array in hidden.arrays().items():
        np.testing.assert_array_equal(lines.arrays()[name], array)  # and several threads make the same as any others


def test_at_most_so_many_of_so_many_images(frames: list[Frame]) -> None:
    built = build_landmarks(frames, ORIGIN, LandmarkConfig(most=100, images=12))
    assert built.images == 12 and len(built.landmarks) == 100


def test_poses_in_another_convention_are_told(frames: list[Frame]) -> None:
    inverted = [replace(frame, world_from_camera=invert(frame.world_from_camera)) for frame in frames]
    with pytest.raises(
        DataError, match="poses contradict its images: only \\d+% of what two images share .*run 'dimm doctor'"
    ) as told:
        build_landmarks(inverted, ORIGIN, LandmarkConfig())
    assert "\n" not in str(told.value)


def test_nearly_white_images_give_a_note(frames: list[Frame]) -> None:
    def wall(index: int) -> np.ndarray:
        image = np.full((168, 224, 3), 235, np.uint8)
        image[80:88, 100 + index : 108 + index] = 60
        return image

    white = [replace(frame, load=lambda index=index: wall(index)) for index, frame in enumerate(frames)]
    blank = [replace(frame, load=lambda: np.full((168, 224, 3), 255, np.uint8)) for frame in frames]
    for nothing in (white, blank):
        built = build_landmarks(nothing, ORIGIN, LandmarkConfig())
        assert built.landmarks is None and built.images == 24
        assert re.fullmatch(
            rf"The images show only \d+ landmarks \(at least {MIN_LANDMARKS} are needed\): "
            r".*; the map answers from rays alone\.",
            built.note,
        )


def test_stopping_gives_nothing(frames: list[Frame]) -> None:
    for stage in ("keypoints", "matching", "poses"):
        seen = []

        def progress(name: str, done: int, total: int, stage=stage, seen=seen) -> bool:
            seen.append((name, done, total))
            return name == stage

        assert build_landmarks(frames, ORIGIN, LandmarkConfig(), progress) is None
        name, done, total = seen[-1]
        assert (name, done) == (stage, 1) and total >= 24


def test_progress_counts_every_image_and_pair(frames: list[Frame]) -> None:
    seen: dict[str, list] = {}
    build_landmarks(
        frames[:12],
        ORIGIN,
        LandmarkConfig(),
        lambda name, done, total: bool(seen.setdefault(name, []).append((done, total))),
    )
    assert list(seen) == ["keypoints", "matching", "poses"]
    assert seen["keypoints"] == seen["poses"] == [(done, 12) for done in range(1, 13)]
    assert [done for done, _ in seen["matching"]] == list(range(1, seen["matching"][0][1] + 1))
