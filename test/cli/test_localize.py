"""dimm localize: cameras, several images, trajectories, exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from evo.tools import file_interface
from typer.testing import CliRunner, Result

from dimm_ros.cli.localize import _frames, _stamps
from dimm_ros.cli.main import app
from dimm_ros.data.open import open_recording
from dimm_ros.geometry.camera import Camera
from dimm_ros.localizer import Localizer

CALIBRATION = """image_width: 224
image_height: 168
camera_name: head
camera_matrix: {rows: 3, cols: 3, data: [150.0, 0.0, 111.5, 0.0, 150.0, 83.5, 0.0, 0.0, 1.0]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.0, 0.0, 0.0, 0.0, 0.0]}
"""


def localize(*words: object) -> Result:
    return CliRunner().invoke(app, ["localize", *map(str, words)])


@pytest.fixture(scope="module")
def photos(walk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three mapped images named by their stamps, a depth image, and one of noise; the calibration beside them."""
    folder = tmp_path_factory.mktemp("photos")
    for frame in open_recording(walk).frames[4:16:4]:
        cv2.imwrite(str(folder / f"{frame.stamp_ns}.png"), cv2.cvtColor(frame.load(), cv2.COLOR_RGB2BGR))
    cv2.imwrite(str(folder / "1.depth.png"), np.zeros((4, 4), np.uint16))
    (folder / "camera.yaml").write_text(CALIBRATION)
    (folder / "noise").mkdir()
    cv2.imwrite(
        str(folder / "noise" / "noise.png"), np.random.default_rng(0).integers(0, 255, (168, 224, 3), dtype=np.uint8)
    )
    return folder


def test_a_folder_with_a_camera_file_becomes_json_and_a_trajectory(
    small_map: Path, photos: Path, walk: Path, tmp_path: Path
) -> None:
    done = localize(
        small_map, photos, "--camera", photos / "camera.yaml", "--json", "--tum", tmp_path / "out" / "poses.tum"
    )
    assert done.exit_code == 0, done.output
    told, frames = json.loads(done.stdout), open_recording(walk).frames[4:16:4]
    assert [one["image"] for one in told] == [f"{frame.stamp_ns}.png" for frame in frames] and all(
        one["accepted"] for one in told
    )
    trajectory = file_interface.read_tum_trajectory_file(tmp_path / "out" / "poses.tum")
    np.testing.assert_allclose(trajectory.timestamps, [frame.stamp_ns * 1e-9 for frame in frames])
    np.testing.assert_allclose(trajectory.positions_xyz, [one["translation"] for one in told], atol=1e-8)
    assert (
        max(np.linalg.norm(trajectory.positions_xyz - [frame.world_from_camera[:3, 3] for frame in frames], axis=1))
        < 0.3
    )


def test_a_rejected_image_is_exit_code_3_and_in_no_trajectory(small_map: Path, photos: Path, tmp_path: Path) -> None:
    noise = photos / "noise" / "noise.png"
    one = localize(small_map, noise, "--focal", "150")
    assert one.exit_code == 3 and one.stdout.startswith("rejected: ")
    both = localize(small_map, max(photos.glob("*.png")), noise, "--focal", "150", "--tum", tmp_path / "poses.tum")
    assert both.exit_code == 3 and "noise.png: rejected" in both.stdout and ".png: accepted" in both.stdout
    assert len((tmp_path / "poses.tum").read_text().splitlines()) == 1


def test_the_options_describe_the_camera(small_map: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Camera] = []
    real = Localizer.localize

    def noted(self: Localizer, image: np.ndarray, camera: Camera):
        seen.append(camera)
        return real(self, image, camera)

    monkeypatch.setattr(Localizer, "localize", noted)
    image = max(photos.glob("*.png"))
    plain = Camera(224, 168, 150.0, 150.0, 111.5, 83.5)
    for words, camera in (
        (("--focal", "150"), plain),
        (("--focal", "150", "--cx", "100", "--cy", "80"), replace(plain, cx=100.0, cy=80.0)),
        (("--focal", "150", "--distortion", "-0.1,0.02,0,0.001"), replace(plain, distortion=(-0.1, 0.02, 0.0, 0.001))),
        (
            ("--focal", "150", "--distortion", "0.1,0,0,0,0,0.1,0,0"),
            replace(plain, distortion_model="rational_polynomial", distortion=(0.1, 0.0, 0.0, 0.0, 0.0, 0.1, 0.0, 0.0)),
        ),
        (("--camera", str(photos / "camera.yaml")), replace(plain, distortion=(0.0,) * 5)),
    ):
        assert localize(small_map, image, *words).exit_code in (0, 3)
        assert seen.pop() == camera


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        ([], 2, "--camera FILE, or"),
        (["--focal", "150", "--camera", "camera.yaml"], 2, "--camera FILE, or"),
        (["--focal", "0"], 2, "above 0 pixels"),
        (["--focal", "nan"], 2, "above 0 pixels"),
        (["--camera", "camera.yaml", "--cx", "3"], 2, "go with"),
        (["--focal", "150", "--distortion", "a,b"], 2, "must be numbers"),
        (["--focal", "150", "--distortion", "1,2,3"], 1, "takes 0 or 4 or 5"),
        (["--camera", "large.yaml"], 1, "its camera is 448x336"),
        (["--camera", "words.yaml"], 1, "holds no calibration"),
    ],
)
def test_wrong_cameras(
    words: list[str], code: int, expected: str, small_map: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    Path("large.yaml").write_text(CALIBRATION.replace("224", "448").replace("168", "336"))
    Path("words.yaml").write_text("just words")
    done = CliRunner().invoke(
        app, ["localize", str(small_map), max(photos.glob("*.png")).name, *words], env={"COLUMNS": "200"}
    )
    assert done.exit_code == code and expected in done.stderr, done.output


def test_images_of_one_name_are_told_by_their_folders(tmp_path: Path) -> None:
    camera, paths = Camera(8, 6, 8.0, 8.0, 3.5, 2.5), [tmp_path / place / "0001.png" for place in ("east", "west")]
    for path in paths:
        path.parent.mkdir()
        cv2.imwrite(str(path), np.zeros((6, 8, 3), np.uint8))
    assert [frame.name for frame in _frames(paths[:1], camera)] == ["0001.png"]
    assert [frame.name for frame in _frames(paths, camera)] == [str(path) for path in paths]


def test_stamps_come_from_names_where_all_have_one() -> None:
    assert _stamps(["1305031102.1753", "1760000000123456789"]) == [1305031102_175300000, 1760000000123456789]
    assert _stamps(["1305031102.1753", "photo"]) == [0, round(1e9 / 30)] and _stamps(["frame-000001.color"]) == [0]
