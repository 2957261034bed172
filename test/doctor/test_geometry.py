"""Faults between images and poses, each put into a good recording and named; and a good one not accused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dimm_ros.data.open import open_recording
from dimm_ros.data.recording import Recording
from dimm_ros.doctor.diagnosis import Diagnosis, Hypothesis, RecordingFault, diagnose
from dimm_ros.doctor.epipolar import EpipolarTest
from dimm_ros.doctor.findings import Finding, Severity
from dimm_ros.doctor.geometry import check_geometry, findings_of
from dimm_ros.doctor.hypotheses import AXES, conventions
from dimm_ros.doctor.matching import Matches, match_recording
from dimm_ros.geometry.poses import invert, make_pose

GL = np.diag([1.0, -1.0, -1.0, 1.0])
BODY = make_pose(AXES["body axes (x forward, y left, z up)"][0], np.zeros(3))


@dataclass(frozen=True)
class Matched:
    """A recording and its matches, which faults of poses and intrinsics leave as they are."""

    recording: Recording
    matches: Matches

    def findings(
        self, poses: Callable[[np.ndarray], np.ndarray] = lambda poses: poses, focal: float = 1.0, shift: int = 0
    ) -> dict[str, Finding]:
        """What the doctor says with a fault put in; shift gives every image the pose of so many frames before."""
        given = np.roll(poses(self.recording.poses()), shift, axis=0)
        frames = [
            replace(
                frame,
                world_from_camera=pose,
                camera=replace(frame.camera, fx=frame.camera.fx * focal, fy=frame.camera.fy * focal),
            )
            for frame, pose in zip(self.recording.frames, given, strict=True)
        ]
        recording = replace(self.recording, frames=frames)
        matches = replace(self.matches, cameras={index: frames[index].camera for index in self.matches.cameras})
        test = EpipolarTest(recording, matches)
        return {finding.check: finding for finding in findings_of(diagnose(test), test)}


@pytest.fixture(scope="module")
def gallery(walk: Path) -> Matched:
    recording = open_recording(walk)
    return Matched(recording, match_recording(recording.frames))


@pytest.fixture(scope="module")
def kitchen(shared_data: Path) -> Matched:
    if not (shared_data / "redkitchen").is_dir():
        pytest.skip("no redkitchen in ../shared/data")
    recording = open_recording(shared_data / "redkitchen")
    return Matched(recording, match_recording(recording.frames))


def problems(findings: dict[str, Finding]) -> set[str]:
    return {check for check, finding in findings.items() if finding.severity == Severity.PROBLEM}


def tilted(poses: np.ndarray) -> np.ndarray:
    return poses @ make_pose(Rotation.from_euler("x", 6, degrees=True).as_matrix(), np.zeros(3))


def test_a_good_recording_is_not_accused(gallery: Matched) -> None:
    findings = gallery.findings()
    assert {finding.severity for finding in findings.values()} == {Severity.OK}
    assert set(findings) == {"pose convention", "time of images and poses", "focal length"}
    assert findings["pose convention"].figures["given_px"] < 0.5
    assert findings["focal length"].figures["factor"] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("poses", "name"),
    [
        (invert, "inverted poses"),
        (lambda poses: poses @ GL, "OpenGL axes"),
        (lambda poses: invert(poses @ GL), "inverted poses (camera_from_world) and OpenGL axes"),
        (lambda poses: poses @ invert(BODY), "body axes (x forward, y left, z up)"),
        (lambda poses: np.diag([-1.0, 1, 1, 1]) @ poses @ np.diag([-1.0, 1, 1, 1]), "mirrored images"),
        (lambda poses: poses @ np.diag([-1.0, -1, 1, 1]), "upside down"),
    ],
)
def test_conventions_are_named(gallery: Matched, poses: Callable, name: str) -> None:
    findings = gallery.findings(poses)
    assert problems(findings) == {"pose convention"}
    assert findings["pose convention"].what.startswith(name) or name in findings["pose convention"].what.split(":")[0]
    assert findings["pose convention"].cure


@pytest.mark.parametrize("shift", [5, -3])
def test_poses_of_other_frames(gallery: Matched, shift: int) -> None:
    findings = gallery.findings(shift=shift)
    assert problems(findings) == {"time of images and poses"}
    assert findings["time of images and poses"].figures["frames"] == pytest.approx(shift, abs=0.1)


@pytest.mark.parametrize("factor", [0.8, 1.114, 1.3])
def test_focal_length(gallery: Matched, factor: float) -> None:
    findings = gallery.findings(focal=factor)
    assert problems(findings) == {"focal length"}
    assert findings["focal length"].figures["factor"] * factor == pytest.approx(1.0, abs=0.01)
    assert f"too {'long' if factor > 1 else 'short'}" in findings["focal length"].what


def test_two_faults_at_once(gallery: Matched) -> None:
    findings = gallery.findings(lambda poses: poses @ GL, focal=1.15)
    assert problems(findings) == {"pose convention", "focal length"}
    assert "13 % too long" in findings["focal length"].what or "15 % too long" in findings["focal length"].what


def test_camera_mounted_otherwise(gallery: Matched) -> None:
    findings = gallery.findings(tilted)
    assert problems(findings) == {"mounting of the camera"}
    np.testing.assert_allclose(findings["mounting of the camera"].figures["rotation_vector_deg"], [-6, 0, 0], atol=0.3)


RAW = (-0.3, 0.1, 0.0, 0.0, 0.0)


def with_camera(recording: Recording, **changes) -> Recording:
    return replace(
        recording, frames=[replace(frame, camera=replace(frame.camera, **changes)) for frame in recording.frames]
    )


def taken_through(recording: Recording, distortion: tuple[float, ...]) -> Recording:
    """The recording as a lens would have bent its images, with that lens for camera."""
    frames = []
    for frame in recording.frames:
        lens = replace(frame.camera, distortion=distortion)
        columns, rows = np.meshgrid(np.arange(lens.width), np.arange(lens.height))
        rays, _ = lens.bearings(np.column_stack([columns.ravel(), rows.ravel()]))
        x, y = (
            frame.camera.project(rays)[0].reshape(lens.height, lens.width, 2).astype(np.float32)[..., axis]
            for axis in (0, 1)
        )
        image = cv2.remap(frame.load(), x, y, cv2.INTER_CUBIC)
        frames.append(replace(frame, camera=lens, load=lambda image=image: image))
    return replace(recording, frames=frames)


def test_rectified_images_with_the_raw_lens(gallery: Matched) -> None:
    """As a driver's camera_info has it beside image_rect: K longer than P by 130 / 110, another centre, and D."""
    recording = with_camera(gallery.recording, fx=150 * 130 / 110, fy=150 * 130 / 110, cx=114.5, distortion=RAW)
    findings = {finding.check: finding for finding in check_geometry(recording).findings}
    assert problems(findings) == {"lens"} and findings["lens"].what.startswith("rectified images: no distortion")
    assert findings["lens"].figures["k1"] == 0.0 and findings["lens"].figures["factor"] == pytest.approx(
        110 / 130, abs=0.01
    )
    assert "P of camera_info" in findings["lens"].cure


@pytest.mark.long
def test_raw_images_with_the_rectified_lens(gallery: Matched) -> None:
    bent = taken_through(gallery.recording, RAW)
    assert not problems({finding.check: finding for finding in check_geometry(bent).findings})
    findings = {finding.check: finding for finding in check_geometry(with_camera(bent, distortion=())).findings}
    assert problems(findings) == {"lens"} and findings["lens"].what.startswith("raw images: radial distortion")
    assert findings["lens"].figures["k1"] == pytest.approx(-0.25, abs=0.04)  # of a model without k2
    assert "K and D of camera_info" in findings["lens"].cure


@pytest.mark.parametrize(
    ("final_px", "floor_px", "alarms"),
    [(2.5, 0.3, True), (2.0, 0.4, False), (4.5, 0.8, True), (4.5, 1.0, False), (0.9, 0.1, False), (3.9, 0.6, False)],
)
def test_an_error_far_above_the_features_own_alarms(
    gallery: Matched, final_px: float, floor_px: float, alarms: bool
) -> None:
    test = EpipolarTest(gallery.recording, gallery.matches)
    test.image_size = 640
    diagnosis = Diagnosis(final_px, final_px, floor_px, Hypothesis(conventions()[0]))
    assert ("fit of the poses" in {finding.check for finding in findings_of(diagnosis, test)}) is alarms


def scaled(matched: Matched, factor: float, **changes) -> Recording:
    recording = matched.recording.scaled(factor)
    return replace(recording, frames=[replace(frame, **changes) for frame in recording.frames])


def test_poses_in_metres_or_not(gallery: Matched) -> None:
    seen = {}
    for factor, severity in ((1.0, Severity.OK), (1000.0, Severity.WARNING), (0.01, Severity.WARNING)):
        (scale,) = (finding for finding in check_geometry(scaled(gallery, factor)).findings if finding.check == "scale")
        assert scale.severity == severity and ("dimm convert --scale" in scale.cure) is (factor != 1.0)
        seen[factor] = scale.figures["seen"]
    assert 1.5 < seen[1.0] < 5.0 and seen[1000.0] == pytest.approx(1000 * seen[1.0], rel=1e-6)


@pytest.mark.parametrize(("factor", "severity"), [(1.0, Severity.OK), (20.0, Severity.PROBLEM)])
def test_depth_images_tell_the_unit(gallery: Matched, factor: float, severity: Severity) -> None:
    """Depth that is the gallery's own as far as one number can say it: what is seen there is so far away."""
    away = next(finding for finding in check_geometry(gallery.recording).findings if finding.check == "scale").figures[
        "seen"
    ]
    depth = np.full((84, 112), away, np.float32)
    depth[::2] = 0.0  # where nothing was measured
    (scale,) = (
        finding
        for finding in check_geometry(scaled(gallery, factor, load_depth=lambda: depth)).findings
        if finding.check == "scale"
    )
    assert scale.severity == severity and scale.figures["metres_per_unit"] == pytest.approx(1 / factor, rel=0.25)
    assert ("--scale 0.05" in scale.cure or "--scale 0.04" in scale.cure) is (factor == 20.0)


def test_poses_of_other_frames_without_times(gallery: Matched) -> None:
    test = EpipolarTest(gallery.recording, gallery.matches)
    fault = RecordingFault("time", Hypothesis(conventions()[0], shift_frames=5), 1.0, 0.1, 0.5)
    diagnosis = Diagnosis(9.0, 0.5, 0.3, fault.state, faults=[fault])
    for timed, words in ((True, "stamps"), (False, "pair images and poses anew")):
        (found,) = (
            finding for finding in findings_of(diagnosis, test, timed) if finding.check == "time of images and poses"
        )
        assert words in found.cure and ("stamps" in found.cure + found.cause) is timed and "5.0 frames" in found.what


def test_poses_of_another_recording(gallery: Matched) -> None:
    findings = gallery.findings(lambda poses: poses[np.random.default_rng(0).permutation(len(poses))])
    assert problems(findings) == {"pose convention"}
    assert "no usual mistake" in findings["pose convention"].what
    assert findings["focal length"].severity == Severity.UNKNOWN


def test_motion_without_turning_leaves_the_focal_length_open(gallery: Matched) -> None:
    """Synthetic matches of a camera that drives straight on: every focal length explains them."""
    rng = np.random.default_rng(1)
    camera = gallery.recording.frames[0].camera
    poses = np.tile(np.eye(4), (24, 1, 1))
    poses[:, 2, 3] = 0.1 * np.arange(24)
    points = np.column_stack([rng.uniform(-3, 3, 400), rng.uniform(-2, 2, 400), rng.uniform(4, 9, 400)])
    frames, pair, pixels = [], [], []
    for first in range(0, 18):
        a, b = (camera.project(points - poses[index, :3, 3])[0] for index in (first, first + 5))
        seen = np.flatnonzero(camera.contains(a) & camera.contains(b))[:60]
        pixels.append(np.stack([a[seen], b[seen]]) + rng.normal(0, 0.2, (2, len(seen), 2)))
        pair += [len(frames)] * len(seen)
        frames.append((first, first + 5))
    count = len(frames)
    matches = Matches(
        np.array(frames),
        np.arange(count) // 3,
        np.array(pair),
        np.concatenate(pixels, axis=1),
        dict.fromkeys(range(24), camera),
        np.full(count, 0.2),
        np.full(count, 8.0),
        count,
    )
    recording = replace(
        gallery.recording, frames=[replace(gallery.recording.frames[i], world_from_camera=poses[i]) for i in range(24)]
    )
    test = EpipolarTest(recording, matches)
    findings = {finding.check: finding for finding in findings_of(diagnose(test), test)}
    assert not problems(findings)
    assert findings["focal length"].severity == Severity.UNKNOWN
    assert "hardly turns" in findings["focal length"].cause and "optical axis" in findings["focal length"].cause


def test_a_camera_that_only_turns_or_sees_nothing(gallery: Matched) -> None:
    frame = gallery.recording.frames[0]
    image = frame.load()
    still = [replace(frame, name=str(place), stamp_ns=place * 10**8, load=lambda: image) for place in range(20)]
    findings = check_geometry(replace(gallery.recording, frames=still)).findings
    assert {finding.severity for finding in findings} == {Severity.UNKNOWN} and "only turns" in findings[0].cause
    blank = [replace(one, load=lambda: np.full_like(image, 90)) for one in still]
    findings = check_geometry(replace(gallery.recording, frames=blank)).findings
    assert {finding.severity for finding in findings} == {Severity.UNKNOWN} and "without texture" in findings[0].cause


def test_conventions_are_all_different() -> None:
    found = [(one.form, one.stored_from_optical) for one in conventions()]
    assert len(found) == len(set(found)) == 7 * 48
    assert conventions()[0].plain and conventions()[0].name == "as given"


@pytest.mark.long
def test_redkitchen(kitchen: Matched) -> None:
    fine = kitchen.findings()
    assert {finding.severity for finding in fine.values()} == {Severity.OK}, fine
    long = kitchen.findings(focal=585 / 525)
    assert problems(long) == {"focal length"}
    excess = 100 * (1 / long["focal length"].figures["factor"] - 1)
    assert 10 <= excess <= 15 and f"{excess:.0f} % too long" in long["focal length"].what


@pytest.mark.long
def test_redkitchen_conventions_and_time(kitchen: Matched) -> None:
    for poses, name in ((invert, "inverted poses"), (lambda poses: poses @ GL, "OpenGL axes")):
        findings = kitchen.findings(poses)
        assert problems(findings) == {"pose convention"} and findings["pose convention"].what.startswith(name)
    findings = kitchen.findings(shift=5)
    assert problems(findings) == {"time of images and poses"}
    assert findings["time of images and poses"].figures["frames"] == pytest.approx(5, abs=0.5)
