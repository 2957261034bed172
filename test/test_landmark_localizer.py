"""Landmarks and rays together: one image in, one pose that the scene itself fixes."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import dimm_ros.localizer as localizing
import dimm_ros.mapping.landmarks as making
from dimm_ros.atlas import open_map
from dimm_ros.config import AcceptanceConfig, HeadConfig, LandmarkConfig, TrainingConfig
from dimm_ros.data.open import open_recording
from dimm_ros.data.recording import Frame
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.errors import InputError
from dimm_ros.estimate import Estimate
from dimm_ros.gallery.render import render
from dimm_ros.gallery.scene import build_room
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import invert, make_pose, pose_errors
from dimm_ros.landmarks.keypoints import KeypointLevels
from dimm_ros.landmarks.locate import locate
from dimm_ros.landmarks.store import hide_in_lines
from dimm_ros.landmarks.warp import Warp
from dimm_ros.localizer import Localizer
from dimm_ros.mapping.build import build_map
from dimm_ros.mapping.merge import merge_maps
from dimm_ros.mapping.update import update_map
from dimm_ros.scene_map import SceneMap

UNSEEN = "Too few landmarks are where the prediction has them: it is wrong, or they are hidden; localize anew."
SURE = np.diag(np.repeat([0.03, np.radians(1.0)], 3) ** 2)


@pytest.fixture(scope="module")
def localizer(landmark_map: Path, encoder: Encoder) -> Localizer:
    return Localizer(SceneMap.load(landmark_map), encoder)


@pytest.fixture(scope="module")
def frames(other_walk: Path) -> Sequence[Frame]:
    return open_recording(other_walk).frames


def hidden(localizer: Localizer) -> Localizer:
    """The same map with lines."""
    header = localizer.map.header
    told = header.landmarks.model_copy(update={"kind": "lines"})
    lines = hide_in_lines(localizer.map.landmarks, 5)
    return Localizer(
        SceneMap(header.model_copy(update={"landmarks": told}), localizer.map.head, lines), localizer.encoder
    )


def errors(localizer: Localizer, frames: Sequence[Frame]) -> tuple[np.ndarray, list[Estimate]]:
    estimates = [localizer.localize(frame.load(), frame.camera) for frame in frames]
    pairs = zip(estimates, frames, strict=True)
    return np.array(
        [pose_errors(estimate.world_from_camera, frame.world_from_camera) for estimate, frame in pairs]
    ), estimates


@pytest.mark.parametrize("kind", ["points", "lines"])
def test_another_walk_is_found_far_better_than_by_rays_alone(
    localizer: Localizer, small_map: Path, encoder: Encoder, frames: Sequence[Frame], kind: str
) -> None:
    joined, estimates = errors(localizer if kind == "points" else hidden(localizer), frames[::3])
    alone, _ = errors(Localizer(SceneMap.load(small_map), encoder), frames[::3])
    metres, degrees = np.median(joined, axis=0)
    assert metres < 0.08 and degrees < 1.5 and metres < 0.25 * np.median(alone[:, 0])
    for estimate in estimates:
        if estimate.basis == "rays":
            continue
        assert estimate.basis in ("both", "landmarks") and 6 <= estimate.landmarks <= estimate.landmark_matches
        assert estimate.image_landmarks == (estimate.landmarks,) and len(estimate.landmark_pixels) == estimate.landmarks
        assert estimate.landmark_proof > 6 and np.linalg.eigvalsh(estimate.covariance).min() > 0
        assert ((estimate.landmark_pixels > -1) & (estimate.landmark_pixels < [224, 168])).all()
    assert sum(estimate.basis != "rays" for estimate in estimates) >= 3


@pytest.mark.parametrize(
    ("novelty", "enough", "searched"),
    [(0.0, 1, [("coarse", False)]), (0.0, 10**6, [("coarse", False), ("fine", False)]), (0.5, 1, [("fine", True)])],
    ids=["familiar", "too few agree", "unlike"],
)
def test_how_much_is_searched_depends_on_the_view_and_on_what_agrees(
    localizer: Localizer,
    frames: Sequence[Frame],
    monkeypatch: pytest.MonkeyPatch,
    novelty: float,
    enough: int,
    searched: list[tuple[str, bool]],
) -> None:
    calls: list[tuple[str, bool]] = []

    def recorded(keypoints, poses, landmarks, prior, *, everywhere):
        assert prior is not None  # the rays' pose joins each of these
        calls.append(("coarse" if keypoints[0] is levels.coarse else "fine", everywhere))
        return locate(keypoints, poses, landmarks, prior, everywhere=everywhere)

    monkeypatch.setattr(localizing, "_ENOUGH", enough)
    monkeypatch.setattr(localizing, "locate", recorded)
    trusting = Localizer(
        localizer.map, localizer.encoder, acceptance=AcceptanceConfig(novelty_scale=100.0, min_inlier_ratio=0.01)
    )
    for frame in frames[:3]:
        observation, at_base = trusting.observe(frame.load(), frame.camera), np.eye(4)[None]
        assert observation.keypoints.single  # for so small an image; as if it were a larger one:
        coarse = observation.keypoints.coarse
        levels = KeypointLevels(coarse, partial(replace, coarse))
        observation = replace(observation, keypoints=levels)
        rays = trusting.calibrate(trusting.solve([observation], at_base), [observation], at_base)
        rays = replace(rays, world_from_camera=frame.world_from_camera, covariance=SURE, novelty=novelty)
        calls.clear()
        joined = trusting.join_landmarks(rays, [observation], at_base)
        assert joined.basis == "both" and calls == searched
        assert ("fine" in vars(levels)) == (searched[-1][0] == "fine")


def test_a_better_pose_is_not_given_up_for_one_that_fewer_landmarks_prove(
    localizer: Localizer, frames: Sequence[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fine level finds less than the coarse one did; nothing that the rays' pose has no part in is tried then."""
    frame, at_base = frames[0], np.eye(4)[None]
    observation = localizer.observe(frame.load(), frame.camera)
    coarse = observation.keypoints.coarse
    levels = KeypointLevels(coarse, lambda: coarse.strongest(12))
    observation = replace(observation, keypoints=levels)
    trusting = Localizer(
        localizer.map, localizer.encoder, acceptance=AcceptanceConfig(novelty_scale=100.0, min_inlier_ratio=0.01)
    )
    rays = trusting.calibrate(trusting.solve([observation], at_base), [observation], at_base)
    rays = replace(rays, world_from_camera=frame.world_from_camera, covariance=SURE, novelty=0.0)
    monkeypatch.setattr(localizing, "_ENOUGH", 10**6)
    joined = trusting.join_landmarks(rays, [observation], at_base)
    assert "fine" in vars(levels) and joined.landmarks > 12 and joined.basis == "both"


def in_other_unit(localizer: Localizer, factor: float) -> SceneMap:
    """The map as poses of another unit would have made it."""
    header, landmarks = localizer.map.header, localizer.map.landmarks
    far = landmarks.seen_from * np.float16([1, 1, 1, 1, factor, factor])
    header = header.model_copy(
        update={"origin": tuple(factor * np.array(header.origin)), "radius": factor * header.radius}
    )
    return SceneMap(
        header, localizer.map.head, replace(landmarks, places=landmarks.places * np.float32(factor), seen_from=far)
    )


@pytest.mark.parametrize(("factor", "said"), [(1.0, ""), (1000.0, r"\d{4} m away"), (0.001, r"0\.00\d+ m away")])
def test_a_map_in_another_unit_says_so_when_it_is_opened_and_with_every_rejection(
    localizer: Localizer,
    frames: Sequence[Frame],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    factor: float,
    said: str,
) -> None:
    path = tmp_path / "room.dimm"
    in_other_unit(localizer, factor).save(path)
    strict = AcceptanceConfig(max_rotation_sigma_deg=1e-6)
    for opening in (Localizer.open, open_map):
        caplog.clear()
        opened = opening(str(path))
        messages = [record.getMessage() for record in caplog.records]
        rejected = (
            Localizer(opened.map, opened.encoder, acceptance=strict).localize(frames[0].load(), frames[0].camera).reason
        )
        assert rejected.startswith("The rotation is uncertain") or factor != 1.0
        if not said:
            assert not any("unit" in text or "metres" in text for text in messages) and "--scale" not in rejected
            continue
        words = (
            rf"What this map shows is {said} \(median\), were its poses in metres: make a bag in metres with 'dimm "
            rf"convert --scale'"
        )
        assert [text for text in messages if re.match(rf"Map 'gallery': {words}", text)] and re.search(words, rejected)


def test_lines_do_not_tell_the_unit(localizer: Localizer) -> None:
    assert hidden(localizer).doubt == "" and np.isnan(hidden(localizer).map.landmarks.seen_distance)


def test_the_stages_are_timed(localizer: Localizer, frames: Sequence[Frame]) -> None:
    times = localizer.localize(frames[0].load(), frames[0].camera).stage_ms
    assert list(times) == ["prepare", "keypoints", "encode", "head", "solve", "landmarks", "total"]
    assert all(value > 0 for value in times.values())
    tracked = localizer.track(frames[0].load(), frames[0].camera, frames[0].world_from_camera, SURE).stage_ms
    assert list(tracked) == ["keypoints", "landmarks", "total"] and tracked["total"] == pytest.approx(
        sum(list(tracked.values())[:2])
    )


def test_what_is_elsewhere_shows_no_landmarks(localizer: Localizer, frames: Sequence[Frame]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (168, 224, 3), dtype=np.uint8)
    elsewhere = [
        render(build_room(1, photographs=False), frame.camera, frame.world_from_camera) for frame in frames[:6:3]
    ]
    answer = localizer.localize(noise, frames[0].camera)
    assert not answer.accepted and answer.basis == "rays" and answer.landmarks == 0 and answer.reason.endswith(".")
    for image in (noise, *elsewhere):
        # A map of 24 images knows too little for its rays to tell another room with the same furniture; its landmarks
        # do.
        answer = localizer.localize(image, frames[0].camera)
        assert answer.basis == "rays" and answer.landmarks == 0
        tracked = localizer.track(image, frames[0].camera, frames[0].world_from_camera, SURE)
        assert not tracked.accepted and tracked.reason == UNSEEN


def test_a_white_image_is_rejected_without_an_exception(localizer: Localizer, frames: Sequence[Frame]) -> None:
    white = np.full((168, 224, 3), 255, np.uint8)
    assert not localizer.localize(white, frames[0].camera).accepted
    tracked = localizer.track(white, frames[0].camera, frames[0].world_from_camera, SURE)
    assert not tracked.accepted and tracked.reason == UNSEEN
    np.testing.assert_array_equal(tracked.world_from_camera, frames[0].world_from_camera)
    mixed = localizer.localize_rig([white, frames[0].load()], [frames[0].camera] * 2, [np.eye(4)] * 2)
    assert mixed.basis != "rays" and mixed.image_landmarks == (0, mixed.landmarks) and mixed.accepted


def test_tracking_is_nearly_as_good_as_all_of_it(localizer: Localizer, frames: Sequence[Frame]) -> None:
    rng, chosen = np.random.default_rng(1), frames[::2]
    full, _ = errors(localizer, chosen)
    off = []
    for frame in chosen:
        shift, turn = rng.normal(size=(2, 3))
        predicted = frame.world_from_camera.copy()
        predicted[:3, 3] += 0.03 * shift / np.linalg.norm(shift)
        predicted[:3, :3] = (
            Rotation.from_rotvec(np.radians(1.0) * turn / np.linalg.norm(turn)).as_matrix() @ predicted[:3, :3]
        )
        answer = localizer.track(frame.load(), frame.camera, predicted, SURE)
        assert answer.accepted and answer.basis == "landmarks" and answer.rays == 0
        off.append(pose_errors(answer.world_from_camera, frame.world_from_camera))
    metres, degrees = np.median(off, axis=0)
    assert metres < max(1.5 * np.median(full[:, 0]), 0.03) and degrees < 0.6


def moved(frame: Frame, metres: float, degrees: float) -> np.ndarray:
    """A camera's pose after it has moved to its right and turned about its vertical axis."""
    turn = Rotation.from_euler("y", degrees, degrees=True).as_matrix()
    return frame.world_from_camera @ make_pose(turn, [metres, 0.0, 0.0])


def test_landmarks_are_followed_through_some_images_and_then_found_anew(
    localizer: Localizer, frames: Sequence[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each image is predicted to be where the one before was, 6 mm and 0.3 degrees beside the truth."""
    detected = []
    detect = localizer._detector.detect
    monkeypatch.setattr(localizer._detector, "detect", lambda *given: detected.append(given) or detect(*given))
    pose, before, off = frames[0].world_from_camera, None, []
    for step in range(14):
        truth = moved(frames[0], 0.006 * step, 0.3 * step)
        image = render(build_room(), frames[0].camera, truth)
        before = localizer.track(image, frames[0].camera, pose, SURE, before)
        assert before.accepted and before.basis == "landmarks"
        pose = before.world_from_camera
        off.append(pose_errors(pose, truth))
    assert len(detected) == 2  # the first image, and the one after ten that were followed
    found, followed = np.array(off)[[0, 11]], np.delete(np.array(off), [0, 11], axis=0)
    assert np.median(followed[:, 0]) < max(1.5 * found[:, 0].max(), 0.02) and followed[:, 1].max() < 1.5


def test_followed_landmarks_are_bent_to_the_recording(localizer: Localizer, frames: Sequence[Frame]) -> None:
    """All recorded poses turned by two degrees: so are predictions and answers, and the flow starts where it should."""
    known, turn = localizer.map.landmarks, Rotation.from_euler("z", 2.0, degrees=True).as_matrix()
    straight = frames[0].world_from_camera.copy()
    straight[:3, 3] -= localizer.map.header.origin
    recorded = make_pose(turn @ straight[:3, :3], straight[:3, 3])
    warp = Warp.of([straight] * 20, [recorded] * 20, known.seen_distance)
    bent = Localizer(SceneMap(localizer.map.header, localizer.map.head, replace(known, warp=warp)), localizer.encoder)
    expected = make_pose(turn @ straight[:3, :3], frames[0].world_from_camera[:3, 3])
    first = bent.track(frames[0].load(), frames[0].camera, expected, SURE)
    second = bent.track(frames[0].load(), frames[0].camera, expected, SURE, first)
    for answer in (first, second):
        assert answer.accepted
        metres, degrees = pose_errors(answer.world_from_camera, expected)
        assert metres < 0.05 and degrees < 1.0
    assert (first.followed.chain, second.followed.chain) == (0, 1)
    # Nothing moved: neither did what was followed.
    assert pose_errors(first.world_from_camera, second.world_from_camera)[0] < 0.02
    # Indices of another map's landmarks are not those of this one.
    other = localizer.track(frames[0].load(), frames[0].camera, frames[0].world_from_camera, SURE, second)
    assert other.followed.chain == 0


@pytest.mark.parametrize("kind", ["points", "lines"])
def test_what_was_followed_into_an_image_of_elsewhere_is_not_believed(
    localizer: Localizer, frames: Sequence[Frame], kind: str
) -> None:
    """Noise, a white wall, and the view of a robot that was carried away."""
    chosen, pose = localizer if kind == "points" else hidden(localizer), frames[0].world_from_camera
    here = frames[0].load()
    before = chosen.track(here, frames[0].camera, pose, SURE)
    assert before.accepted and chosen.track(here, frames[0].camera, pose, SURE, before).accepted
    noise = np.random.default_rng(0).integers(0, 256, here.shape, dtype=np.uint8)
    away = render(build_room(), frames[0].camera, moved(frames[0], 0.5, 150.0))
    for image in (noise, np.full_like(here, 255), away):
        answer = chosen.track(image, frames[0].camera, pose, SURE, before)
        assert not answer.accepted and answer.reason == UNSEEN and answer.followed is None


def test_an_image_of_another_size_follows_nothing(localizer: Localizer, frames: Sequence[Frame]) -> None:
    """A driver that was told to crop: landmarks are found anew."""
    frame = frames[0]
    before = localizer.track(frame.load(), frame.camera, frame.world_from_camera, SURE)
    camera = replace(frame.camera, height=frame.camera.height - 40)
    answer = localizer.track(frame.load()[:-40], camera, frame.world_from_camera, SURE, before)
    assert answer.accepted and answer.followed.chain == 0


def test_a_prediction_elsewhere_is_rejected(localizer: Localizer, frames: Sequence[Frame]) -> None:
    frame = frames[0]
    turned = (
        make_pose(Rotation.from_euler("z", 120, degrees=True).as_matrix(), [0.0, 0.0, 0.0]) @ frame.world_from_camera
    )
    answer = localizer.track(frame.load(), frame.camera, turned, SURE)
    assert not answer.accepted and answer.reason == UNSEEN and answer.landmarks == 0
    np.testing.assert_array_equal(answer.world_from_camera, turned)
    np.testing.assert_array_equal(answer.covariance, SURE)


def test_what_cannot_be_tracked_is_said(
    localizer: Localizer, small_map: Path, encoder: Encoder, frames: Sequence[Frame]
) -> None:
    image, camera, pose = frames[0].load(), frames[0].camera, frames[0].world_from_camera
    with pytest.raises(InputError, match="has no landmarks to track; build it with --landmarks points or lines"):
        Localizer(SceneMap.load(small_map), encoder).track(image, camera, pose, SURE)
    with pytest.raises(InputError, match="is not a rigid"):
        localizer.track(image, camera, 2 * pose, SURE)
    for covariance in (np.zeros((6, 6)), np.eye(3), np.full((6, 6), np.nan), -np.eye(6)):
        with pytest.raises(InputError, match="The prediction's covariance is not a finite, positive definite"):
            localizer.track(image, camera, pose, covariance)
    with pytest.raises(InputError, match="224x168 but camera_info says 640x480"):
        localizer.track(image, Camera(640, 480, 525, 525, 320, 240), pose, SURE)


def test_a_rig_of_two_cameras_and_another_lens(localizer: Localizer, frames: Sequence[Frame]) -> None:
    """One camera as mapped, one a fisheye that looks aside from elsewhere on the base: the base's pose comes from
    both.
    """
    lens = Camera(224, 168, 105.0, 105.0, 111.5, 83.5, "equidistant", (-0.01, 0.002, 0.0, 0.0))
    aside = make_pose(Rotation.from_euler("y", 20, degrees=True).as_matrix(), [0.25, 0.0, 0.1])
    base_from_cameras = [make_pose(np.eye(3), [-0.2, 0.05, 0.0]), aside]
    off = []
    for frame in frames[::4]:
        world_from_base = frame.world_from_camera @ invert(base_from_cameras[0])
        fisheye = render(build_room(0), lens, world_from_base @ aside)
        answer = localizer.localize_rig([frame.load(), fisheye], [frame.camera, lens], base_from_cameras)
        assert answer.accepted and answer.basis != "rays"
        assert sum(answer.image_landmarks) == answer.landmarks and min(answer.image_landmarks) >= 6
        off.append(pose_errors(answer.world_from_camera, world_from_base))
    assert np.median(off, axis=0)[0] < 0.06 and np.median(off, axis=0)[1] < 0.8


def test_the_pose_is_in_the_maps_frame(localizer: Localizer, frames: Sequence[Frame]) -> None:
    """A map whose origin is elsewhere answers elsewhere: landmarks are about the origin."""
    shift, header = np.array([30.0, -20.0, 3.0]), localizer.map.header
    moved = header.model_copy(update={"origin": tuple(np.add(header.origin, shift))})
    there = Localizer(SceneMap(moved, localizer.map.head, localizer.map.landmarks), localizer.encoder)
    one, other = (each.localize(frames[3].load(), frames[3].camera) for each in (localizer, there))
    np.testing.assert_allclose(other.world_from_camera[:3, 3], one.world_from_camera[:3, 3] + shift, atol=1e-6)


@pytest.mark.parametrize("kind", ["points", "lines"])
def test_update_keeps_one_landmark_of_each(
    localizer: Localizer,
    other_walk: Path,
    encoder: Encoder,
    frames: Sequence[Frame],
    tmp_path: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "poselib", None)  # which lines without a trusted prior would use
    path = tmp_path / "room.dimm"
    (localizer if kind == "points" else hidden(localizer)).map.save(path)
    before = SceneMap.load(path)
    update_map(path, [open_recording(other_walk)], encoder, training=before.header.training.changed(steps=20))
    after = SceneMap.load(path)
    assert after.header.landmarks.kind == after.landmarks.kind == kind and after.header.landmarks.count == len(
        after.landmarks
    )
    assert after.header.landmarks.images == 34 and after.header.origin == before.header.origin
    for name, array in before.landmarks.arrays().items():  # the old ones stay as they were
        np.testing.assert_array_equal(after.landmarks.arrays()[name][: len(before.landmarks)], array)
    added = making.build_landmarks(frames, np.array(before.header.origin), LandmarkConfig()).landmarks
    assert 0 < len(after.landmarks) - len(before.landmarks) < len(added)
    joined, _ = errors(Localizer(after, encoder), frames[::3])
    assert np.median(joined[:, 0]) < 0.06


def test_merge_keeps_one_landmark_of_each(
    landmark_map: Path, other_map: Path, other_walk: Path, encoder: Encoder, frames: Sequence[Frame], tmp_path: Path
) -> None:
    one, other = SceneMap.load(landmark_map), SceneMap.load(other_map)
    merged = SceneMap.load(merge_maps([landmark_map, other_map], tmp_path / "floor.dimm"))
    assert merged.header.landmarks.count == len(merged.landmarks) and merged.header.landmarks.images == 34
    assert (
        max(len(one.landmarks), len(other.landmarks))
        < len(merged.landmarks)
        < len(one.landmarks) + len(other.landmarks)
    )
    # About the merged map's origin the first map's are where they were.
    np.testing.assert_allclose(
        merged.landmarks.exact_places[: len(one.landmarks)] + merged.header.origin,
        one.landmarks.exact_places + one.header.origin,
        atol=1e-5,
    )
    joined, _ = errors(Localizer(merged, encoder), frames[::3])
    assert np.median(joined[:, 0]) < 0.06


def test_a_map_that_was_stopped_does_not_look_for_keypoints_again(
    walk: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording, path = open_recording(walk), tmp_path / "room.dimm"
    recording = replace(recording, frames=recording.frames[:12])
    how = {"head": HeadConfig(mappers=1, width=32, depth=1), "training": TrainingConfig(steps=5, batch=64, passes=1)}
    stopped = build_map(recording, path, encoder, **how, progress=lambda stage, *_: stage == "features")
    assert not stopped.complete and stopped.path is None

    def never(*_: object) -> None:
        raise AssertionError("landmarks were made again")

    monkeypatch.setattr(making, "build_landmarks", never)
    poses = recording.poses()
    poses[4, 0, 3] += 0.01
    moved = [replace(frame, world_from_camera=pose) for frame, pose in zip(recording.frames, poses, strict=True)]
    before = tmp_path / "before"
    shutil.copytree(tmp_path / "room.dimm.work", before)
    with pytest.raises(AssertionError, match="made again"):
        build_map(replace(recording, frames=moved), path, encoder, **how)
    shutil.rmtree(tmp_path / "room.dimm.work", ignore_errors=True)
    shutil.copytree(before, tmp_path / "room.dimm.work")
    assert build_map(recording, path, encoder, **how).complete
    assert len(SceneMap.load(path).landmarks) > 50
