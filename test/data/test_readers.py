"""Every published layout, written here, read back; and one sentence for what is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from layouts import LAYOUTS, colour, write

from dimm_ros.data import open as opening
from dimm_ros.data.folder import OWN_UNIT
from dimm_ros.data.open import open_recording
from dimm_ros.errors import DataError


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(name, tmp_path):
    folder, truth = write(name, tmp_path, seed=3)
    recording = open_recording(folder)
    assert recording.name == folder.name and str(tmp_path) not in recording.source
    assert [frame.stamp_ns for frame in recording.frames] == truth.stamps_ns
    np.testing.assert_allclose(recording.poses(), truth.world_from_camera, atol=1e-9)
    assert recording.splits == ({"official": truth.parts} if truth.parts else {})
    assert len({frame.name for frame in recording.frames}) == len(recording.frames)
    for index, (frame, camera) in enumerate(zip(recording.frames, truth.cameras, strict=True)):
        assert (frame.camera.width, frame.camera.height, frame.camera.distortion_model) == (
            camera.width,
            camera.height,
            camera.distortion_model,
        )
        np.testing.assert_allclose(
            [frame.camera.fx, frame.camera.fy, frame.camera.cx, frame.camera.cy, *frame.camera.distortion],
            [camera.fx, camera.fy, camera.cx, camera.cy, *camera.distortion],
            atol=1e-9,
        )
        np.testing.assert_allclose(frame.load(), colour(index), atol=3)  # JPEG
        depth = None if truth.depth is None else truth.depth[index]
        assert (frame.load_depth is None) == (frame.depth_camera is None) == (depth is None)
        assert len(frame.files) == (1 if depth is None else 2) and all(file.is_file() for file in frame.files)
        if depth is not None:
            np.testing.assert_allclose(frame.load_depth(), depth, atol=1e-6)
            assert (frame.depth_camera.fx, frame.depth_camera.cy) == pytest.approx(
                (truth.depth_camera.fx, truth.depth_camera.cy)
            )


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_told_by_one_reader(name, tmp_path):
    folder, _ = write(name, tmp_path)
    assert [layout.name for layout in opening.LAYOUTS if layout.fits(folder)] == [
        open_recording(folder).source.rpartition(" folder")[0]
    ]


@pytest.mark.parametrize(
    ("name", "missing", "words"),
    [
        ("twelve_scenes", "info.txt", "looks like 12-Scenes, but info.txt is missing"),
        (
            "indoor6",
            "images/image-000001.intrinsics.txt",
            "image-000001.intrinsics.txt' is not a readable Indoor-6 file .No such file",
        ),
        ("cambridge", "reconstruction.nvm", "looks like Cambridge Landmarks, but reconstruction.nvm is missing"),
        ("ace", "test/poses", "looks like Wayspots .ACE., but test/poses is missing"),
        (
            "ace",
            "train/rgb/frame_00001.jpg",
            "1 files in rgb, 2 in poses and 2 in calibration; each image needs one of each",
        ),
        ("map_free", "intrinsics.txt", "looks like Map-free, but intrinsics.txt is missing"),
        ("tum_rgbd", "groundtruth.txt", "looks like TUM RGB-D, but groundtruth.txt is missing"),
        ("tum_rgbd", "camera-intrinsics.txt", "does not tell which camera of TUM it is .freiburg1, 2 or 3."),
        ("euroc", "mav0/cam0/sensor.yaml", "looks like EuRoC, but cam0/sensor.yaml is missing"),
        ("euroc", "mav0/state_groundtruth_estimate0", "but state_groundtruth_estimate0/data.csv is missing"),
        ("kitti", "../../poses/07.txt", "but ../../poses/07.txt is missing; unpack data_odometry_poses"),
        ("kitti", "times.txt", "looks like KITTI odometry, but times.txt is missing"),
    ],
)
def test_what_is_missing_is_named(name, missing, words, tmp_path):
    folder, _ = write(name, tmp_path)
    path = folder / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DataError, match=words):
        open_recording(folder)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("twelve_scenes", "info.txt"),
        ("twelve_scenes", "split.txt"),
        ("indoor6", "images/image-000001.intrinsics.txt"),
        ("cambridge", "dataset_test.txt"),
        ("cambridge", "reconstruction.nvm"),
        ("ace", "train/calibration/frame_00000.txt"),
        ("map_free", "poses.txt"),
        ("map_free", "intrinsics.txt"),
        ("nerfstudio", "transforms.json"),
        ("colmap_text", "sparse/0/frames.txt"),
        ("colmap_text", "sparse/0/rigs.txt"),
        ("colmap_binary", "sparse/0/frames.bin"),
        ("colmap_binary", "sparse/0/rigs.bin"),
        ("tum_rgbd", "rgb.txt"),
        ("tum_rgbd", "groundtruth.txt"),
        ("euroc", "mav0/cam0/sensor.yaml"),
        ("euroc", "mav0/cam0/data.csv"),
        ("kitti", "calib.txt"),
        ("kitti", "times.txt"),
    ],
)
@pytest.mark.parametrize("damage", [b"\xff\xfe nonsense", b"1 a b\n\n\nc d e\n"])
def test_damaged_files_are_named(name, file, damage, tmp_path):
    folder, _ = write(name, tmp_path)
    (folder / file).write_bytes(damage)
    with pytest.raises(DataError, match=rf"{Path(file).name}' is not a readable .* file"):
        open_recording(folder)


def test_images_without_a_pose_or_a_file_are_left_out(tmp_path):
    folder, _ = write("indoor6", tmp_path)
    (folder / "images" / "image-000001.pose.txt").write_text("nan " * 12)
    assert open_recording(folder).notes[0] == "1 frames without a valid pose were left out."
    folder, _ = write("map_free", tmp_path)
    (folder / "seq0" / "frame_00003.jpg").unlink()
    recording = open_recording(folder)
    assert recording.splits == {"official": {"train": [0], "val": [1, 2]}}
    assert recording.notes == (
        "1 listed images are not in the folder and were left out.",
        "1 frames without a valid pose were left out.",
    )
    for path in folder.glob("seq*/*.jpg"):
        path.unlink()
    with pytest.raises(
        DataError, match="Map-free. has no image with a valid pose: 5 of its images are not in the folder"
    ):
        open_recording(folder)


def test_indoor6_never_opens_a_pickle(tmp_path):
    folder, _ = write("indoor6", tmp_path)
    for path in folder.glob("*.txt"):
        path.unlink()
    (folder / "train_test_val.pkl").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    recording = open_recording(folder)
    assert (
        recording.splits == {}
        and "a pickle may run any code" in recording.notes[0]
        and "*_test.txt" in recording.notes[0]
    )


def test_cambridge_lens_inverts_that_of_visualsfm(tmp_path):
    folder, _ = write("cambridge", tmp_path)
    for frame in open_recording(folder).frames:
        r = -frame.camera.distortion[0]
        points = np.array([[0.4, 0.3, 1.0], [-0.5, 0.1, 1.0], [0.1, -0.4, 1.0]])
        pixels, _ = frame.camera.project(points)
        measured = (pixels - [frame.camera.cx, frame.camera.cy]) / frame.camera.fx
        np.testing.assert_allclose(measured * (1 + r * (measured**2).sum(1, keepdims=True)), points[:, :2], atol=2e-5)


def test_cambridge_leaves_out_lost_and_unknown_images(tmp_path):
    folder, _ = write("cambridge", tmp_path)
    lines = (folder / "dataset_train.txt").read_text().splitlines()
    name, _, *rest = lines[3].split()
    (folder / "dataset_train.txt").write_text(
        "\n".join([*lines[:3], " ".join([name, "20000.0", *rest]), *lines[4:], "seq9/a.png 0 0 0 1 0 0 0"])
    )
    recording = open_recording(folder)
    assert len(recording.frames) == 3
    assert recording.notes == (
        "1 frames without a valid pose were left out.",
        "1 images without a focal length in reconstruction.nvm were left out.",
    )


def test_tum_poses_are_interpolated_but_not_over_gaps(tmp_path):
    folder, truth = write("tum_rgbd", tmp_path)
    rows = [row for row in (folder / "groundtruth.txt").read_text().splitlines() if not row.startswith("#")]
    first, last = (row.split() for row in (rows[0], rows[3]))
    # 80 ms apart: the image between them is interpolated
    (folder / "groundtruth.txt").write_text(f"{rows[0]}\n{rows[2]}\n")
    assert [frame.stamp_ns for frame in open_recording(folder).frames] == truth.stamps_ns[:3]
    (folder / "groundtruth.txt").write_text(f"{' '.join(first)}\n{' '.join(last)}\n")  # 120 ms apart
    assert [frame.stamp_ns for frame in open_recording(folder).frames] == [truth.stamps_ns[0], truth.stamps_ns[3]]


def test_tum_camera_is_told_by_the_folder(tmp_path):
    folder, _ = write("tum_rgbd", tmp_path)
    (folder / "camera-intrinsics.txt").unlink()
    for name, focal in (
        ("rgbd_dataset_freiburg1_desk", 517.306408),
        ("fr2_xyz", 520.908620),
        ("rgbd_dataset_freiburg3_office", 535.4),
    ):
        folder = folder.rename(tmp_path / name)
        assert open_recording(folder).frames[0].camera.fx == focal


def test_nerfstudio_fisheye_downscaled_copies_and_test_images(tmp_path):
    folder, truth = write("nerfstudio", tmp_path)
    content = json.loads((folder / "transforms.json").read_text())
    content |= {
        "camera_model": "OPENCV_FISHEYE",
        "k3": 0.01,
        "k4": 0.02,
        "w": 64,
        "h": 48,
        "test_filenames": ["images/frame_00003.png"],
    }
    (folder / "transforms.json").write_text(json.dumps(content))
    recording = open_recording(folder / "transforms.json")
    camera = recording.frames[0].camera
    assert (camera.width, camera.fx, camera.cx) == (
        32,
        truth.cameras[0].fx / 2,
        pytest.approx((truth.cameras[0].cx + 0.5) / 2 - 0.5),
    )
    assert camera.distortion_model == "equidistant" and camera.distortion[2:] == (0.01, 0.02)
    assert recording.splits["official"] == {"train": [0], "tune": [1], "val": [2]}
    (folder / "transforms.json").write_text(json.dumps(content | {"camera_model": "EQUIRECTANGULAR"}))
    with pytest.raises(DataError, match="Camera model EQUIRECTANGULAR"):
        open_recording(folder)


def test_colmap_without_frames_takes_the_poses_of_images(tmp_path):
    folder, _ = write("colmap_text", tmp_path)
    (folder / "sparse/0/frames.txt").unlink()
    np.testing.assert_allclose(open_recording(folder).poses()[:, :3, 3], -9.0)


def test_wrong_folder_names_the_layouts_and_the_right_one(tmp_path):
    folder, _ = write("kitti", tmp_path)
    with pytest.raises(
        DataError,
        match=r"neither a ROS bag .* nor any of .*mav0/cam0 .EuRoC., calib.txt with image_2 .KITTI odometry.; "
        "its folder 'sequences/07' is KITTI odometry: give that",
    ):
        open_recording(tmp_path / "dataset")
    with pytest.raises(DataError, match="the folder '07' around it is KITTI odometry: give that"):
        open_recording(folder / "image_2")


def test_split_file_beside_any_folder(tmp_path):
    folder, _ = write("colmap_text", tmp_path)
    (folder / "split.json").write_text(
        json.dumps({"own": {"train": ["left/0.png", "left/1.png"], "val": ["right/1.png", "gone.png"]}})
    )
    recording = open_recording(folder)
    assert recording.splits == {"own": {"train": [0, 1], "val": [3]}}
    assert recording.notes == (OWN_UNIT, "1 frames of split.json are not in the folder or have no valid pose.")
    assert [frame.name for frame in open_recording(folder, split="own:val").frames] == ["right/1.png"]
    (folder / "split.json").write_text(json.dumps({"train": [0]}))
    with pytest.raises(DataError, match="those in the frames' names are not unique; list the names"):
        open_recording(folder)
    folder, _ = write("twelve_scenes", tmp_path)
    (folder / "split.json").write_text(json.dumps({"near": {"train": [3, 4], "val": ["frame-000001"]}}))
    recording = open_recording(folder)
    assert recording.splits == {"official": {"val": [0, 1], "train": [2, 3]}, "near": {"train": [2, 3], "val": [1]}}
