"""Folders as people really have them: turned photographs, several models, repeated stamps, other lens keys, Windows."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from layouts import HEIGHT, WIDTH, colour, write, write_image
from PIL import Image

from dimm_ros.data.folder import OWN_UNIT, camera_of, centred, from_matrix, image_of, listed_file
from dimm_ros.data.image_file import load_rgb
from dimm_ros.data.open import open_recording
from dimm_ros.errors import DataError

SIDEWAYS = 6  # the EXIF orientation of a phone held upright


def picture(width: int = 160, height: int = 120) -> np.ndarray:
    """A blue picture whose upper left quarter is red."""
    result = np.full((height, width, 3), (0, 0, 200), np.uint8)
    result[: height // 2, : width // 2] = 200, 0, 0
    return result


def photograph(path: Path, orientation: int = SIDEWAYS, **size: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(**size)).save(path, exif=exif, quality=95)
    return path


def red(image: np.ndarray) -> np.ndarray:
    """Where a picture is red, as the mean place (x, y) in shares of its size."""
    rows, columns = np.nonzero(image[..., 0] > 100)
    return np.array([columns.mean() / image.shape[1], rows.mean() / image.shape[0]])


def colmap(folder: Path, camera: str, images: dict[str, list[str]]) -> Path:
    """COLMAP models: name of the folder in sparse -> names of its images, the camera of the n-th n units along x."""
    for model, names in images.items():
        place = folder / "sparse" / model
        place.mkdir(parents=True)
        (place / "cameras.txt").write_text(f"1 {camera}\n")
        lines = [f"{number + 1} 1 0 0 0 {-float(number)} 0 0 1 {name}\n" for number, name in enumerate(names)]
        (place / "images.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize(
    ("orientation", "place"),
    [
        (1, (0.25, 0.25)),
        (2, (0.75, 0.25)),
        (3, (0.75, 0.75)),
        (4, (0.25, 0.75)),
        (5, (0.25, 0.25)),
        (6, (0.75, 0.25)),
        (7, (0.75, 0.75)),
        (8, (0.25, 0.75)),
    ],
)
def test_every_exif_orientation_is_shown_as_viewers_do(tmp_path, orientation, place):
    image = load_rgb(photograph(tmp_path / "a.jpg", orientation))
    assert image.shape[:2] == ((160, 120) if orientation > 4 else (120, 160))
    np.testing.assert_allclose(red(image), place, atol=0.02)
    np.testing.assert_array_equal(image.shape, cv2.imread(str(tmp_path / "a.jpg")).shape)  # which turns by itself
    np.testing.assert_allclose(red(image), red(cv2.imread(str(tmp_path / "a.jpg"))[..., ::-1]), atol=1e-6)


def test_a_camera_of_the_picture_as_shown_turns_it(tmp_path):
    folder = colmap(tmp_path / "table", "PINHOLE 120 160 130 130 60 80", {"0": ["a.jpg"]})
    photograph(folder / "images" / "a.jpg")
    (frame,) = open_recording(folder).frames
    camera = frame.camera
    assert (camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy) == (120, 160, 130, 130, 59.5, 79.5)
    assert frame.load().shape == (160, 120, 3)
    np.testing.assert_allclose(red(frame.load()), (0.75, 0.25), atol=0.02)


@pytest.mark.parametrize("size", [(120, 160), (160, 90), (160, 117)])
def test_a_picture_of_another_shape_than_its_camera_is_refused(tmp_path, size):
    folder = colmap(tmp_path / "table", "PINHOLE 160 120 130 130 80 60", {"0": ["a.jpg"]})
    photograph(folder / "images" / "a.jpg", 1, width=size[0], height=size[1])
    with pytest.raises(
        DataError, match=rf"a.jpg': It is {size[0]}x{size[1]}, but its camera is 160x120, another shape"
    ):
        open_recording(folder)


@pytest.mark.parametrize("size", [(80, 60), (53, 40), (55, 41), (320, 240)])
def test_resized_copies_may_round(tmp_path, size):
    folder = colmap(tmp_path / "table", "PINHOLE 160 120 130 130 80 60", {"0": ["a.jpg"]})
    photograph(folder / "images" / "a.jpg", 1, width=size[0], height=size[1])
    camera = open_recording(folder).frames[0].camera
    assert (camera.width, camera.height) == size and camera.fx == pytest.approx(130 * size[0] / 160)


def test_intrinsics_without_a_size_are_of_the_side_that_their_principal_point_fits(tmp_path):
    path = photograph(tmp_path / "a.jpg")
    shown = camera_of(path, lambda size: from_matrix(np.array([[130.0, 0, 58], [0, 130, 81], [0, 0, 1]]), size))
    stored = camera_of(path, lambda size: from_matrix(np.array([[130.0, 0, 81], [0, 130, 58], [0, 0, 1]]), size))
    assert (shown.width, shown.height) == (120, 160) and (stored.width, stored.height) == (160, 120)
    assert camera_of(path, lambda size: centred(130.0, size)).width == 160  # nothing tells: as stored


def test_own_photographs_beside_a_matrix_are_turned(tmp_path):
    folder, truth = write("tum_rgbd", tmp_path)
    (folder / "depth.txt").unlink()
    for path in (folder / "rgb").iterdir():
        photograph(path)
    (folder / "camera-intrinsics.txt").write_text("130 0 60\n0 130 80\n0 0 1\n")
    frame = open_recording(folder).frames[0]
    assert (frame.camera.width, frame.camera.height) == (120, 160) == frame.load().shape[1::-1]


def test_depth_of_another_shape_is_left_out(tmp_path):
    folder, _ = write("tum_rgbd", tmp_path)
    for path in (folder / "depth").iterdir():
        cv2.imwrite(str(path), np.full((WIDTH, HEIGHT), 1000, np.uint16))
    recording = open_recording(folder)
    assert len(recording.frames) == 4 and all(frame.load_depth is None for frame in recording.frames)
    assert recording.notes[0].startswith("4 depth images were left out: another shape than")


def test_the_largest_of_several_models(tmp_path):
    names = {
        "0": ["z.png"],
        "1": [f"{number}.png" for number in range(5)],
        "10": ["y.png", "z.png"],
        "old": ["q.png"] * 9,
    }
    folder = colmap(tmp_path / "table", f"PINHOLE {WIDTH} {HEIGHT} 30 30 16 12", names)
    for name in ("y.png", "z.png", *names["1"]):
        write_image(folder / "images" / name, 0)
    recording = open_recording(folder)
    assert [frame.name for frame in recording.frames] == names["1"]
    assert recording.notes == (
        "Of the models in 'sparse', 1 (5 images) was read and 0 (1 images), 10 (2 images) left out: each has a world "
        "of its own.",
        OWN_UNIT,
    )
    assert [frame.name for frame in open_recording(folder / "sparse" / "10").frames] == ["y.png", "z.png"]


def test_the_images_lie_where_most_of_them_are(tmp_path):
    folder = colmap(tmp_path / "table", f"PINHOLE {WIDTH} {HEIGHT} 30 30 16 12", {"0": ["a.png", "b.png", "c.png"]})
    write_image(folder / "images" / "a.png", 0)
    for name in ("b.png", "c.png"):
        write_image(folder / name, 0)
    assert [frame.name for frame in open_recording(folder).frames] == ["b.png", "c.png"]


def test_repeated_stamps_are_dropped_and_named(tmp_path):
    folder, truth = write("tum_rgbd", tmp_path)
    lines = (folder / "rgb.txt").read_text().splitlines()
    second = lines[4].split()[0]
    (folder / "rgb.txt").write_text("\n".join([*lines, f"{second} {lines[-1].split()[1]}"]) + "\n")
    poses = (folder / "groundtruth.txt").read_text().splitlines()
    (folder / "groundtruth.txt").write_text("\n".join([*poses, f"{second} 9 9 9 0 0 0 1"]) + "\n")
    recording = open_recording(folder)
    assert [frame.stamp_ns for frame in recording.frames] == truth.stamps_ns
    np.testing.assert_allclose(recording.poses(), truth.world_from_camera, atol=1e-9)  # the first of equal ones
    assert recording.notes == (
        f"1 images with the same stamp as another were left out, the first at {second} s.",
        f"1 poses with the same stamp as another were left out, the first at {second} s.",
    )


def test_whole_seconds_leave_one_image_each(tmp_path):
    folder, truth = write("euroc", tmp_path)
    for path in (folder / "mav0/cam0/data.csv", folder / "mav0/state_groundtruth_estimate0/data.csv"):
        path.write_text(path.read_text().replace(str(truth.stamps_ns[1]) + ",", str(truth.stamps_ns[0]) + ","))
    recording = open_recording(folder)
    assert [frame.stamp_ns for frame in recording.frames] == [truth.stamps_ns[0], truth.stamps_ns[2]]
    assert [note[:33] for note in recording.notes] == [
        "1 images with the same stamp as a",
        "1 poses with the same stamp as an",
    ]


@pytest.mark.parametrize(
    ("name", "timed"),
    [
        ("tum_rgbd", True),
        ("euroc", True),
        ("kitti", True),
        ("seven_scenes", False),
        ("nerfstudio", False),
        ("colmap_text", False),
    ],
)
def test_a_recording_says_whether_it_has_times(tmp_path, name, timed):
    assert open_recording(write(name, tmp_path)[0]).timed is timed


def transforms(tmp_path: Path, remove: tuple[str, ...] = (), **changes) -> Path:
    """The folder of ``write`` with another heading of its transforms.json, and no intrinsics of single frames."""
    folder, _ = write("nerfstudio", tmp_path)
    content = json.loads((folder / "transforms.json").read_text())
    for frame in content["frames"]:
        for key in ("fl_x", "fl_y", "cx", "cy", "depth_file_path"):
            frame.pop(key, None)
    content = {key: value for key, value in (content | changes).items() if key not in remove}
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


def test_fisheye_of_instant_ngp(tmp_path):
    lens = {"k1": 0.03, "k2": -0.01, "k3": 0.002, "k4": 0.001, "p1": 0.0, "p2": 0.0}
    recording = open_recording(transforms(tmp_path, ("camera_model",), is_fisheye=True, **lens))
    assert recording.frames[0].camera.distortion_model == "equidistant"
    assert recording.frames[0].camera.distortion == (0.03, -0.01, 0.002, 0.001)
    assert recording.notes == (OWN_UNIT,)


def test_lens_keys_that_are_not_understood_are_named(tmp_path):
    recording = open_recording(transforms(tmp_path, k4=0.01, k5=0.0, k6=0.02, b1=-0.3, aabb_scale=16))
    assert recording.notes == (
        "Keys of transforms.json that are not understood were passed over: b1, k4, k6.",
        OWN_UNIT,
    )
    shutil.rmtree(tmp_path)
    for key in ("latlong", "ftheta_p0"):
        with pytest.raises(DataError, match=f"Camera model {key} of transforms.json is not supported"):
            open_recording(transforms(tmp_path / key, **{key: True}))


@pytest.mark.parametrize(
    ("angles", "focals"),
    [
        ({"camera_angle_x": 0.9}, (16 / math.tan(0.45), 16 / math.tan(0.45))),
        ({"camera_angle_x": 0.9, "camera_angle_y": 0.6}, (16 / math.tan(0.45), 12 / math.tan(0.3))),
        ({"camera_angle_y": 0.6}, (12 / math.tan(0.3), 12 / math.tan(0.3))),
        ({"fl_x": 30.0, "camera_angle_x": 0.9}, (30.0, 30.0)),
    ],
)
def test_angles_of_view_and_names_without_extension(tmp_path, angles, focals):
    lens = ("fl_x", "fl_y", "cx", "cy", "w", "h", "k1", "k2", "p1", "p2", "camera_model")
    folder = transforms(tmp_path, tuple(key for key in lens if key not in angles), **angles)
    path = folder / "transforms.json"
    path.write_text(path.read_text().replace(".png", "").replace('"images/', '"./images/'))
    recording = open_recording(folder)
    assert [frame.name for frame in recording.frames] == [f"images/frame_{number:05d}" for number in (1, 2, 3)]
    camera = recording.frames[0].camera
    assert (camera.fx, camera.fy) == pytest.approx(focals) and (camera.cx, camera.cy, camera.distortion) == (
        15.5,
        11.5,
        (),
    )
    np.testing.assert_array_equal(recording.frames[1].load(), colour(1))
    assert recording.splits == {"official": {"train": [0, 2], "val": [1]}}


def test_no_focal_length_at_all(tmp_path):
    with pytest.raises(
        DataError, match="transforms.json gives no focal length; add fl_x in pixels, or camera_angle_x in radians"
    ):
        open_recording(transforms(tmp_path, ("fl_x", "fl_y")))


@pytest.mark.parametrize("suffix", [".jpg", ".JPG", ".jpeg"])
def test_kitti_as_jpeg(tmp_path, suffix):
    folder, truth = write("kitti", tmp_path)
    for path in (folder / "image_2").iterdir():
        Image.open(path).save(path.with_suffix(suffix), "JPEG", quality=95)
        path.unlink()
    recording = open_recording(folder)
    assert [frame.name for frame in recording.frames] == ["000000", "000001", "000002"]
    np.testing.assert_allclose(recording.frames[2].load(), colour(2), atol=3)
    assert image_of(folder / "image_2" / "9").name == "9.png"


#: Text files of each layout that Windows' editors may have saved.
SAVED = {
    "seven_scenes": ["camera-intrinsics.txt", "seq-01/frame-000000.pose.txt", "TrainSplit.txt"],
    "twelve_scenes": ["info.txt", "split.txt", "data/frame-000000.pose.txt"],
    "indoor6": ["images/image-000000.intrinsics.txt", "images/image-000000.pose.txt", "scene2a_train.txt"],
    "cambridge": ["dataset_train.txt", "dataset_test.txt", "reconstruction.nvm"],
    "ace": ["train/calibration/frame_00000.txt", "train/poses/frame_00000.txt"],
    "map_free": ["poses.txt", "intrinsics.txt"],
    "nerfstudio": ["transforms.json"],
    "colmap_text": [f"sparse/0/{name}.txt" for name in ("cameras", "images", "rigs", "frames")],
    "tum_rgbd": ["rgb.txt", "depth.txt", "groundtruth.txt", "camera-intrinsics.txt"],
    "euroc": ["mav0/cam0/sensor.yaml", "mav0/cam0/data.csv", "mav0/state_groundtruth_estimate0/data.csv"],
    "kitti": ["calib.txt", "times.txt", "../../poses/07.txt"],
}


@pytest.mark.parametrize("name", SAVED)
def test_byte_order_marks(name, tmp_path):
    folder, truth = write(name, tmp_path)
    for file in SAVED[name]:
        (folder / file).write_bytes(b"\xef\xbb\xbf" + (folder / file).read_bytes())
    names = [frame.name for frame in open_recording(write(name, tmp_path / "plain")[0]).frames]
    (folder / "split.json").write_text("\ufeff" + json.dumps({"own": {"train": names[:1]}}), encoding="utf-8")
    recording = open_recording(folder)
    np.testing.assert_allclose(recording.poses(), truth.world_from_camera, atol=1e-9)
    assert [frame.camera.fx for frame in recording.frames] == pytest.approx([camera.fx for camera in truth.cameras])
    assert recording.splits == ({"official": truth.parts} if truth.parts else {}) | {"own": {"train": [0]}}


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("cambridge", ["dataset_train.txt", "dataset_test.txt", "reconstruction.nvm"]),
        ("map_free", ["poses.txt", "intrinsics.txt"]),
        ("nerfstudio", ["transforms.json"]),
        ("colmap_text", ["sparse/0/images.txt"]),
        ("tum_rgbd", ["rgb.txt", "depth.txt"]),
    ],
)
def test_backslashes(name, files, tmp_path):
    folder, truth = write(name, tmp_path)
    names = [frame.name for frame in open_recording(folder).frames]
    for file in files:
        text = (folder / file).read_text()
        for word in ("seq1", "seq2", "seq0", "left", "right", "images", "depths", "rgb", "depth"):
            text = text.replace(f"{word}/", f"{word}\\\\" if file.endswith(".json") else f"{word}\\")
        assert "\\" in text
        (folder / file).write_text(text)
    (folder / "split.json").write_text(json.dumps({"own": {"train": [names[1].replace("/", "\\")]}}))
    recording = open_recording(folder)
    assert [frame.name for frame in recording.frames] == names
    np.testing.assert_allclose(recording.poses(), truth.world_from_camera, atol=1e-9)
    assert [frame.load_depth is None for frame in recording.frames] == [
        depth is None for depth in truth.depth or [None] * len(names)
    ]
    assert recording.splits == ({"official": truth.parts} if truth.parts else {}) | {"own": {"train": [1]}}


@pytest.mark.parametrize(
    ("name", "file", "listed"),
    [
        ("colmap_text", "sparse/0/images.txt", "left/0.png"),
        ("colmap_binary", "sparse/0/images.bin", "left/0.png"),
        ("nerfstudio", "transforms.json", "images/frame_00001.png"),
        ("nerfstudio", "transforms.json", "depths/frame_00003.png"),
        ("cambridge", "dataset_train.txt", "seq1/frame00001.png"),
        ("tum_rgbd", "rgb.txt", "rgb/1305031102.175304000.png"),
        ("euroc", "mav0/cam0/data.csv", ",1403636579763555584.png"),
    ],
)
@pytest.mark.parametrize("up", ["../secret.png", "{}/secret.png", "a/../../secret.png"])
def test_names_that_lead_out_of_the_folder_are_refused(name, file, listed, up, tmp_path):
    folder, _ = write(name, tmp_path)
    write_image(tmp_path / "secret.png", 0)
    outside = up.format(tmp_path)
    outside = f",{outside}" if listed.startswith(",") else outside
    (folder / file).write_bytes((folder / file).read_bytes().replace(listed.encode(), outside.encode()))
    if name == "cambridge":  # the lens of the same image
        lenses = folder / "reconstruction.nvm"
        lenses.write_text(lenses.read_text().replace(listed[:-4], outside[:-4]))
    with pytest.raises(DataError, match="secret.png', which lies outside the folder; move the images into it"):
        open_recording(folder)


def test_a_map_free_name_that_leads_out_of_the_folder_is_refused(tmp_path):
    folder, _ = write("map_free", tmp_path)
    for file in ("poses.txt", "intrinsics.txt"):
        (folder / file).write_text(
            (folder / file).read_text().replace("seq0/frame_00000.jpg", "seq0/../../secret1.png")
        )
    with pytest.raises(DataError, match="secret1.png', which lies outside the folder"):
        open_recording(folder)


def test_listed_files(tmp_path):
    assert listed_file(tmp_path, "a\\b.png") == listed_file(tmp_path, f"{tmp_path}/a/b.png") == tmp_path / "a" / "b.png"
    assert listed_file(Path("."), "a/../b.png") == Path("b.png")
    with pytest.raises(DataError, match="outside"):
        listed_file(Path("."), "../b.png")
