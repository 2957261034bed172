"""Images, time, coverage, cameras and bags: each fault made, and found; none found in good recordings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dimm_ros.data.bag_writer import new_bag
from dimm_ros.data.open import open_recording
from dimm_ros.data.recording import Frame, Recording
from dimm_ros.doctor.bag import check_bag
from dimm_ros.doctor.camera import check_camera, check_cameras, field_of_view_deg
from dimm_ros.doctor.coverage import check_coverage
from dimm_ros.doctor.examine import Examination, examine, main_findings
from dimm_ros.doctor.findings import Finding, Severity
from dimm_ros.doctor.images import check_images
from dimm_ros.doctor.report import write_report
from dimm_ros.doctor.timing import check_gaps, check_jumps
from dimm_ros.errors import DataError
from dimm_ros.evaluation.report import new_results
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import make_pose
from dimm_ros.mapping.sources import coverage_of

CAMERA = Camera(64, 48, 60.0, 60.0, 31.5, 23.5)
LOOKING_ALONG_X = Rotation.from_matrix([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
T0 = 1_700_000_000_000_000_000


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(30, 220, (48, 64, 3), dtype=np.uint8)


def drive(count: int = 60, step_m: float = 0.05) -> Recording:
    """A camera that drives along x, up being z."""
    frames = [
        Frame(
            str(place),
            T0 + place * 100_000_000,
            CAMERA,
            make_pose(LOOKING_ALONG_X.as_matrix(), np.array([step_m * place, 0, 1.0])),
            lambda place=place: picture(place),
        )
        for place in range(count)
    ]
    return Recording("drive", "test", frames)


def changed(recording: Recording, changes: dict[int, dict]) -> Recording:
    return replace(
        recording, frames=[replace(frame, **changes.get(place, {})) for place, frame in enumerate(recording.frames)]
    )


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def test_good_images() -> None:
    findings, figures = check_images(drive())
    assert {finding.severity for finding in findings} == {Severity.OK} and len(figures.frame) == 60


def test_blur_exposure_duplicates_and_damage() -> None:
    def broken() -> np.ndarray:
        raise DataError("Image 'x.png' cannot be decoded; it is truncated or not an image.")

    blurred = {
        place: {"load": lambda place=place: cv2.GaussianBlur(picture(place), (0, 0), 3)} for place in (10, 11, 30)
    }
    dark = {
        place: {"load": lambda: np.zeros((48, 64, 3), np.uint8) + np.arange(64, dtype=np.uint8)[:, None] % 4}
        for place in (20, 21, 22, 23)
    }
    repeated = {place: {"load": lambda: picture(40)} for place in (41, 42)}
    findings, figures = check_images(changed(drive(), blurred | dark | repeated | {50: {"load": broken}}))
    found = by_check(findings)
    assert {check for check, finding in found.items() if finding.severity == Severity.PROBLEM} == {"image files"}
    assert "1 of 60" in found["image files"].what and "x.png" in found["image files"].what
    assert {10, 11, 30} <= set(found["blur"].figures["frames"]) <= {10, 11, 30, 20, 21, 22, 23}
    assert found["exposure"].severity == Severity.WARNING and found["exposure"].figures["badly_exposed"] == 4
    assert found["duplicate frames"].severity == Severity.WARNING
    assert 2 <= found["duplicate frames"].figures["same_pictures_while_moving"] <= 5  # the dark ones are alike too
    assert 50 not in figures.frame


def test_a_camera_at_rest_may_repeat_its_picture() -> None:
    at_rest = drive(step_m=0.0)
    findings, _ = check_images(changed(at_rest, {place: {"load": lambda: picture(0)} for place in range(60)}))
    assert by_check(findings)["duplicate frames"].severity == Severity.OK
    twice = changed(drive(), {7: {"stamp_ns": drive().frames[6].stamp_ns}})
    assert "1 stamps occur twice" in by_check(check_images(twice)[0])["duplicate frames"].what


def test_gaps() -> None:
    assert check_gaps(drive()).severity == Severity.OK
    recording = drive()
    missing = replace(recording, frames=[frame for place, frame in enumerate(recording.frames) if not 20 <= place < 26])
    finding = check_gaps(missing)
    assert finding.severity == Severity.WARNING and finding.figures["missing"] == 6 and "after 19" in finding.what
    apart = changed(recording, {place: {"stamp_ns": T0 + 3600 * 10**9 + place * 10**8} for place in range(30, 60)})
    assert check_gaps(apart).severity == Severity.OK  # two sequences


def test_jumps() -> None:
    assert check_jumps(drive()).severity == Severity.OK
    recording = drive()
    moved = {
        place: {"world_from_camera": make_pose(np.eye(3), [0, 0.8, 0]) @ recording.frames[place].world_from_camera}
        for place in range(33, 60)
    }
    finding = check_jumps(changed(recording, moved))
    assert finding.severity == Severity.WARNING and finding.figures["frames"] == [33] and "0.80 m" in finding.what
    turned = {
        place: {
            "world_from_camera": recording.frames[place].world_from_camera
            @ make_pose(Rotation.from_euler("y", 25, degrees=True).as_matrix(), np.zeros(3))
        }
        for place in range(33, 60)
    }
    assert check_jumps(changed(recording, turned)).figures["frames"] == [33]


def test_coverage() -> None:
    findings, coverage = check_coverage(drive())
    assert (
        by_check(findings)["coverage"].severity == Severity.OK and coverage.axes == (0, 1, 2) and coverage.up_sign == 1
    )
    assert by_check(findings)["headings"].figures["cells_seen_both_ways"] == 0
    recording = drive()
    far = {
        place: {"world_from_camera": make_pose(np.eye(3), [1.5, 0, 0]) @ recording.frames[place].world_from_camera}
        for place in range(58, 60)
    }
    finding = by_check(check_coverage(changed(recording, far))[0])["coverage"]
    assert (
        finding.severity == Severity.WARNING and finding.figures["thin_views"] == 2 and "(4.4, 0.0) m" in finding.what
    )
    back = {
        place: {
            "world_from_camera": recording.frames[place].world_from_camera
            @ make_pose(Rotation.from_euler("y", 180, degrees=True).as_matrix(), np.zeros(3))
        }
        for place in range(1, 60, 2)
    }
    assert by_check(check_coverage(changed(recording, back))[0])["headings"].figures["cells_seen_both_ways"] == 1


def test_the_doctor_and_the_map_count_headings_alike() -> None:
    """Views within 22.5 degrees of an axis look into one direction, on either side of it."""
    recording = drive()
    sways = {
        place: {
            "world_from_camera": make_pose(
                Rotation.from_euler("z", 20 * np.sin(place), degrees=True).as_matrix()
                @ recording.frames[0].world_from_camera[:3, :3],
                recording.frames[place].world_from_camera[:3, 3],
            )
        }
        for place in range(60)
    }
    swaying = changed(recording, sways)
    figures = by_check(check_coverage(swaying)[0])["headings"].figures
    assert (
        figures["sectors_in_all"] == figures["sectors_per_cell"] == np.count_nonzero(coverage_of(swaying).headings) == 1
    )


@pytest.mark.parametrize(
    ("step_m", "seen", "words"),
    [
        (0.05, 2.2, ""),
        (0.3, 2.2, "14 % of the distance of what is seen (2.2 m): sparse everywhere"),
        (0.3, 15.0, ""),
        (300.0, 2200.0, "a view each 300 m, 14 % of the distance of what is seen (2200 m): sparse everywhere"),
    ],
)
def test_a_step_is_judged_by_how_far_away_is_what_is_seen(step_m: float, seen: float, words: str) -> None:
    """The camera looks along its path, so its second-nearest view is one step behind or ahead."""
    findings, coverage = check_coverage(drive(step_m=step_m), seen)
    found = by_check(findings)["coverage"]
    assert found.severity == (Severity.WARNING if words else Severity.OK) and words in found.what
    assert coverage.thin.any() == bool(words) and found.figures["limit_m"] == pytest.approx(0.07 * seen)
    assert not words or f"a view each {'0.15' if seen < 3 else '150'} m or less" in found.cure


def test_numbers_that_are_missing_are_no_fault_of_the_network_where_there_are_no_times() -> None:
    missing = replace(drive(), frames=[frame for place, frame in enumerate(drive().frames) if not 20 <= place < 26])
    assert "DDS" in check_gaps(missing).cause
    untimed = check_gaps(replace(missing, timed=False))
    assert (
        untimed.severity == Severity.OK and untimed.what == "54 images without times; 6 of their numbers are not there"
    )
    assert untimed.cause == untimed.cure == ""


def test_main_findings_are_those_of_poses_and_cameras_worst_first(walk: Path, shared_data: Path) -> None:
    assert main_findings(open_recording(walk)) == []
    mirrored = open_recording(walk).scaled(1000.0)
    mirrored = replace(
        mirrored,
        frames=[
            replace(frame, world_from_camera=frame.world_from_camera @ np.diag([1.0, -1.0, -1.0, 1.0]))
            for frame in mirrored.frames
        ],
    )
    found = main_findings(mirrored)
    assert [finding.check for finding in found][:2] == ["pose convention", "scale"] and found[
        0
    ].severity == Severity.PROBLEM
    if (shared_data / "herzjesu").is_dir():
        found = by_check(main_findings(open_recording(shared_data / "herzjesu")))
        assert "sparse everywhere" in found["coverage"].what and "16 % of the distance" in found["coverage"].what


def test_cameras() -> None:
    good = Camera(640, 480, 525, 525, 319.5, 239.5)
    assert check_camera(good) == [] and field_of_view_deg(good) == pytest.approx(62.7, abs=0.2)
    assert check_cameras(drive())[0].severity == Severity.OK
    for camera, check in (
        (Camera(640, 480, 320, 320, 319.5, 239.5), "distortion"),
        (Camera(640, 480, 200, 200, 319.5, 239.5, "equidistant", (0.0,) * 4), "distortion"),
        (Camera(640, 480, 4.2, 4.2, 319.5, 239.5, "plumb_bob", (0.0, 0.0, 0.001, 0.0)), "field of view"),
        (Camera(640, 480, 1050, 1050, 639.5, 479.5), "principal point"),
        (Camera(640, 480, 525, 480, 319.5, 239.5), "pixel aspect"),
    ):
        assert [finding.check for finding in check_camera(camera)] == [check], camera
    assert "2.00 times the size" in check_camera(Camera(640, 480, 1050, 1050, 639.5, 479.5))[0].what


def write_bag(
    path: Path,
    *,
    image_late_s: float = 0.0,
    tf_gap: bool = False,
    parents: tuple[str, ...] = ("odom",),
    camera_clock_s: float = 0.0,
) -> Path:
    """Two seconds of a bag; what is late is stamped earlier than it is recorded."""
    with new_bag(path) as bag:
        bag.start(T0, make_pose(LOOKING_ALONG_X.as_matrix(), np.zeros(3)))
        write = bag._write
        for tick in range(40):
            now = T0 + tick * 50_000_000
            bag._write = lambda topic, stamp, message, now=now: write(topic, now, message)
            if not (tf_gap and 10 <= tick < 30):
                bag.transform(now - 5_000_000, "map", "odom", np.eye(4))
                for parent in parents:
                    bag.transform(now - 5_000_000, parent, "base_link", make_pose(np.eye(3), [0.02 * tick, 0, 0]))
            if tick % 2:
                stamp = now - round((image_late_s + camera_clock_s) * 1e9) - 10_000_000
                bag.image(stamp, CAMERA, bag.encode(picture(tick)))
    return path


@pytest.mark.parametrize(
    ("faults", "check", "severity", "words"),
    [
        ({}, "clocks", Severity.OK, "0.010 s after"),
        ({}, "TF", Severity.OK, "odom -> base_link 20 Hz"),
        ({"image_late_s": 0.3}, "clocks", Severity.WARNING, "0.310 s"),
        ({"image_late_s": -0.09}, "clocks", Severity.WARNING, "0.080 s after they were recorded"),
        ({"camera_clock_s": 1e6}, "clocks", Severity.PROBLEM, "different clocks"),
        ({"tf_gap": True}, "TF gaps", Severity.WARNING, "longest 1.05 s"),
        ({"parents": ("odom", "footprint")}, "TF parents", Severity.PROBLEM, "footprint, odom"),
    ],
)
def test_bag(tmp_path: Path, faults: dict, check: str, severity: Severity, words: str) -> None:
    found = by_check(check_bag(write_bag(tmp_path / "bag", **faults)))
    assert found[check].severity == severity and words in found[check].what
    if not faults:
        assert {finding.severity for finding in found.values()} == {Severity.OK}


def test_a_bag_without_poses_is_examined_as_far_as_it_goes(tmp_path: Path) -> None:
    examination = examine(write_bag(tmp_path / "bag"), map_frame="moon")
    found = by_check(examination.findings)
    assert found["poses"].severity == Severity.PROBLEM and "moon" in found["poses"].what
    assert found["image files"].severity == Severity.OK and examination.coverage is None
    written = write_report(tmp_path, examination)
    assert {path.name for path in written} == {"findings.json", "doctor.png"}


def test_examination_of_a_walk(walk: Path, tmp_path: Path) -> None:
    stages = set()
    examination = examine(walk, progress=lambda stage, done, total: stages.add((stage, done == total)))
    assert isinstance(examination, Examination) and examination.worst < Severity.PROBLEM
    assert {("geometry", True), ("images", True)} <= stages
    found = by_check(examination.findings)
    for check in (
        "pose convention",
        "time of images and poses",
        "focal length",
        "clocks",
        "TF",
        "blur",
        "exposure",
        "intrinsics",
    ):
        assert found[check].severity == Severity.OK, found[check]
    with new_results("run", tmp_path) as folder:
        write_report(folder, examination)
    assert (tmp_path / "latest").resolve() == folder.resolve()
    content = json.loads((folder / "findings.json").read_text())
    assert content["frames"] == len(open_recording(walk).frames) and len(content["findings"]) == len(
        examination.findings
    )
    drawn = cv2.imread(str(folder / "doctor.png"))
    assert drawn.shape[0] > 500 and len(np.unique(drawn.reshape(-1, 3), axis=0)) > 50
    assert not [path for path in folder.iterdir() if ".part" in path.name]
