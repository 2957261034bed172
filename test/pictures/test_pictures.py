"""Pictures of localized images: what the writers' files hold is what was localized; nothing is left half-written."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from typer.testing import CliRunner

from dimm_ros.cli.main import app
from dimm_ros.data.open import open_recording
from dimm_ros.data.recording import Frame, Recording
from dimm_ros.estimate import Estimate
from dimm_ros.evaluation.metrics import FrameResult
from dimm_ros.evaluation.ray_fields import chosen_frames
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import exp_so3, from_quaternion, make_pose
from dimm_ros.localizer import Localizer
from dimm_ros.pictures.foxglove import TOPICS, foxglove_sink
from dimm_ros.pictures.ray_field import draw_ray_field, rays_of_pose
from dimm_ros.pictures.ray_picture import patch_centres, ray_lines
from dimm_ros.pictures.shown import ShownFrame, ShownRun, frustum

CAMERA = Camera(64, 48, 50.0, 50.0, 31.5, 23.5)
POSE = make_pose(exp_so3(np.array([0.3, -0.2, 0.5])), np.array([1.0, -2.0, 0.5]))
RERUN = pytest.mark.skipif(importlib.util.find_spec("rerun") is None, reason="rerun-sdk is not installed")


def estimate(accepted: bool = True) -> Estimate:
    """Of an image of 3 x 4 patches whose rays are those of POSE, one of them unknown and three of them no inliers."""
    rays = rays_of_pose(CAMERA, (3, 4), POSE)
    residual = np.linspace(0, 5, 12).reshape(3, 4)
    residual[1, 1] = np.nan
    return Estimate(
        world_from_camera=POSE,
        covariance=np.eye(6) * 1e-4,
        accepted=accepted,
        reason="" if accepted else "No.",
        inliers=8,
        rays=11,
        angle_residual_deg=residual,
        world_rays=rays,
        inlier_mask=residual < 4,
    )


def frame(number: int = 0) -> Frame:
    image = np.full((48, 64, 3), 40 * number, np.uint8)
    return Frame(f"frame {number}", 10**9 * (number + 1), CAMERA, POSE, lambda: image)


def run_of(frames: list[Frame]) -> ShownRun:
    return ShownRun.of("a map on data", "hall", frames)


def messages(bag: Path, topic: str) -> list:
    with AnyReader([bag]) as reader:
        chosen = [one for one in reader.connections if one.topic == topic]
        return [reader.deserialize(raw, one.msgtype) for one, _, raw in reader.messages(chosen)]


def xyz(points) -> np.ndarray:
    return np.array([[point.x, point.y, point.z] for point in points])


def test_frustum_ends_where_the_image_does() -> None:
    ends = frustum(CAMERA, POSE, 0.5).reshape(8, 2, 3)
    np.testing.assert_allclose(ends[:4, 0], np.broadcast_to(POSE[:3, 3], (4, 3)))
    local = (ends[:4, 1] - POSE[:3, 3]) @ POSE[:3, :3]
    pixels, front = CAMERA.project(local)
    assert front.all()
    np.testing.assert_allclose(local[:, 2], 0.5)
    np.testing.assert_allclose(pixels, [[-0.5, -0.5], [63.5, -0.5], [63.5, 47.5], [-0.5, 47.5]], atol=1e-9)
    fisheye = Camera(64, 48, 12.0, 12.0, 31.5, 23.5, "equidistant", (0.0, 0.0, 0.0, 0.0))
    assert np.isfinite(frustum(fisheye, POSE)).all()


def test_rays_start_at_the_camera_and_go_through_their_patches() -> None:
    lines, known = ray_lines(estimate(), 0.5)
    assert len(lines) == 11 and not known[5]
    np.testing.assert_allclose(lines[:, 0], np.broadcast_to(POSE[:3, 3], (11, 3)), atol=1e-12)
    pixels, _ = CAMERA.project((lines[:, 1] - POSE[:3, 3]) @ POSE[:3, :3])
    np.testing.assert_allclose(pixels, patch_centres(64, 48, 3, 4)[known], atol=1e-9)


def test_mcap_holds_what_was_localized(tmp_path: Path) -> None:
    frames = [frame(0), frame(1)]
    with foxglove_sink(run_of(frames), tmp_path / "foxglove") as sink:
        sink.add(ShownFrame.of(frames[0], frames[0].load(), estimate()))
        sink.add(ShownFrame.of(frames[1], frames[1].load(), estimate(accepted=False)))
    bag = tmp_path / "foxglove"
    with AnyReader([bag]) as reader:
        assert {one.topic: one.msgtype for one in reader.connections} == TOPICS
    markers = {marker.ns: marker for marker in messages(bag, "/markers")[0].markers}
    assert {marker.header.frame_id for marker in markers.values()} == {"hall"}
    lines, _ = ray_lines(estimate(), 0.5)
    np.testing.assert_allclose(xyz(markers["rays, inliers"].points), lines[:-3].reshape(-1, 3), atol=1e-12)
    assert [len(markers[name].points) for name in ("rays, outliers", "estimated camera", "true camera", "error")] == [
        6,
        16,
        16,
        2,
    ]
    assert len(markers["rays, inliers"].colors) == 16
    (path,), poses = messages(bag, "/estimated_path"), messages(bag, "/pose")
    # the rejected one is in neither
    assert len(path.poses) == len(poses) == 1 and len(messages(bag, "/true_path")[0].poses) == 2
    position, rotation = poses[0].pose.pose.position, poses[0].pose.pose.orientation
    np.testing.assert_allclose(
        from_quaternion(xyz([position])[0], np.array([rotation.x, rotation.y, rotation.z, rotation.w])), POSE, atol=1e-9
    )
    assert [message.data for message in messages(bag, "/error/translation_m")] == pytest.approx([0, 0])
    picture = cv2.imdecode(messages(bag, "/camera/image/compressed")[1].data, cv2.IMREAD_COLOR)
    assert picture.shape == (48, 64, 3) and abs(float(picture.mean()) - 40) < 2


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), foxglove_sink(run_of([frame()]), tmp_path / "foxglove"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@RERUN
def test_rerun_file_is_whole_or_absent(tmp_path: Path) -> None:
    from dimm_ros.pictures.rerun_file import rerun_sink

    with pytest.raises(KeyboardInterrupt), rerun_sink(run_of([frame()]), tmp_path / "broken.rrd"):
        raise KeyboardInterrupt
    with rerun_sink(run_of([frame(0), frame(1)]), tmp_path / "rays.rrd") as sink:
        for number, accepted in enumerate((True, False)):
            sink.add(ShownFrame.of(frame(number), frame(number).load(), estimate(accepted)))
    assert [path.name for path in tmp_path.iterdir()] == ["rays.rrd"]
    content = (tmp_path / "rays.rrd").read_bytes()
    for entity in (
        "world/true_path",
        "world/estimated_path",
        "world/camera/image",
        "world/rays/inliers",
        "world/rays/outliers",
        "figures/error_cm",
    ):
        assert f"/{entity}".encode() in content


def test_without_rerun_one_sentence_says_what_to_install(
    small_map: Path, other_walk: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    result = CliRunner().invoke(
        app, ["eval", str(small_map), str(other_walk), "--rerun", "--results", str(tmp_path / "results")]
    )
    assert result.exit_code == 1 and "pip install rerun-sdk" in result.output.replace("\n", " ")
    assert not (tmp_path / "results").exists()


def test_chosen_frames() -> None:
    def answer(metres: float | None) -> FrameResult:
        return FrameResult("", 0, np.eye(4), None if metres is None else make_pose(np.eye(3), np.array([metres, 0, 0])))

    assert chosen_frames([answer(each) for each in (0.3, None, 0.1, 0.2)]) == {"best": 2, "median": 3, "worst": 0}
    assert chosen_frames([answer(0.1), answer(0.2)]) == {"best": 0, "median": 1}
    assert chosen_frames([answer(None)]) == {}


def test_ray_field_shows_where_rays_are_wrong(tmp_path: Path) -> None:
    image = np.full((48, 64, 3), 200, np.uint8)
    paths = [
        draw_ray_field(tmp_path / f"{name}.png", name, image, CAMERA, estimate(), pose, POSE[:3, 3])
        for name, pose in (
            ("right", POSE),
            ("wrong", POSE @ make_pose(exp_so3(np.array([0, 0.1, 0])), np.zeros(3))),
            ("unknown", None),
        )
    ]
    right, wrong, unknown = (cv2.imread(str(path)).astype(int) for path in paths)
    assert right.shape == wrong.shape == unknown.shape
    part = right.shape[1] * 3 // 4
    assert np.abs(right - wrong)[:, part:].mean() > 5 * np.abs(right - unknown)[:, part:].mean()  # the column of errors


@pytest.mark.long
def test_eval_and_localize_write_pictures(small_map: Path, other_walk: Path, tmp_path: Path) -> None:
    extra = ["--rerun"] if importlib.util.find_spec("rerun") else []
    result = CliRunner().invoke(
        app, ["eval", str(small_map), str(other_walk), "--mcap", *extra, "--results", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    folder = tmp_path / "latest"
    recording: Recording = open_recording(other_walk)
    names = {path.name for path in folder.iterdir()}
    assert {"foxglove", "metrics.json", "trajectory.png"} | ({"rays.rrd"} if extra else set()) <= names
    estimated = np.loadtxt(folder / "estimated.tum", ndmin=2)
    assert ("rays_best.png" in names) == bool(len(estimated))
    transforms = [
        one
        for message in messages(folder / "foxglove", "/tf")
        for one in message.transforms
        if one.child_frame_id == "camera"
    ]
    assert len(transforms) == len(recording.frames)
    poses = {
        one.header.stamp.sec * 10**9 + one.header.stamp.nanosec: xyz([one.transform.translation])[0]
        for one in transforms
    }
    for row in estimated:
        nearest = min(poses, key=lambda stamp: abs(stamp * 1e-9 - row[0]))
        np.testing.assert_allclose(poses[nearest], row[1:4], atol=1e-6)

    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), recording.frames[0].load()[..., ::-1])
    words = [
        "localize",
        str(small_map),
        str(photo),
        "--focal",
        "150",
        "--picture",
        "--mcap",
        "--results",
        str(tmp_path / "one"),
    ]
    result = CliRunner().invoke(app, words)
    assert result.exit_code in (0, 3), result.output  # 3: rejected, and drawn all the same
    assert cv2.imread(str(tmp_path / "one" / "latest" / "rays.png")).shape[2] == 3
    (transform,) = [
        one for message in messages(tmp_path / "one" / "latest" / "foxglove", "/tf") for one in message.transforms
    ]
    expected = Localizer.open(small_map, device="cpu").localize(
        recording.frames[0].load(), Camera(224, 168, 150, 150, 111.5, 83.5)
    )
    np.testing.assert_allclose(xyz([transform.transform.translation])[0], expected.world_from_camera[:3, 3], atol=1e-6)
