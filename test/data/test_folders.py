"""7-Scenes and COLMAP folders written here, and the shared data where they are at hand."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from dimm_ros.data.folder import OWN_UNIT
from dimm_ros.data.open import open_recording
from dimm_ros.errors import DataError
from dimm_ros.geometry import poses

SHARED = Path(__file__).parents[3] / "shared" / "data"


def world_from_camera(index: int) -> np.ndarray:
    return poses.make_pose(Rotation.from_rotvec([0.1 * index, 0.2, -0.3]).as_matrix(), np.array([index, 2.0, 3.0]))


def colour(index: int, size=(64, 48)) -> np.ndarray:
    return np.full((size[1], size[0], 3), [index, 100, 200], np.uint8)


def write_frame(folder: Path, number: int, size=(64, 48), pose=None, depth=False) -> None:
    stem = folder / f"frame-{number:06d}"
    cv2.imwrite(f"{stem}.color.png", colour(number, size)[..., ::-1])
    np.savetxt(f"{stem}.pose.txt", world_from_camera(number) if pose is None else pose)
    if depth:
        cv2.imwrite(
            f"{stem}.depth.png",
            np.array([[0, 1500], [65535, 2000]], np.uint16).repeat(size[1] // 2, 0).repeat(size[0] // 2, 1),
        )


@pytest.fixture
def scene(tmp_path) -> Path:
    """Frames 2, 3, 5, 8 of 64x48 with depth, intrinsics and a split of frame numbers."""
    folder = tmp_path / "kitchen"
    folder.mkdir()
    for number in (8, 2, 3, 5):
        write_frame(folder, number, depth=number == 3)
    np.savetxt(folder / "camera-intrinsics.txt", [[60, 0, 31.5], [0, 61, 23.5], [0, 0, 1]])
    np.savetxt(folder / "depth-intrinsics.txt", [[70, 0, 32], [0, 70, 24], [0, 0, 1]])
    (folder / "split.json").write_text(
        json.dumps({"near": {"train": [2, 5, 7], "val": [8, 3]}, "far": {"train": [8], "val": []}})
    )
    return folder


def test_seven_scenes(scene):
    recording = open_recording(scene)
    assert (recording.name, recording.source) == ("kitchen", "7-Scenes folder kitchen")
    assert [frame.name for frame in recording.frames] == [f"frame-{number:06d}" for number in (2, 3, 5, 8)]
    np.testing.assert_allclose(recording.poses(), [world_from_camera(number) for number in (2, 3, 5, 8)], atol=1e-12)
    assert recording.splits["near"] == {"train": [0, 2], "val": [3, 1]}
    assert recording.notes == ("1 frames of split.json are not in the folder or have no valid pose.",)
    frame = recording.frames[1]
    assert (frame.camera.fx, frame.camera.fy, frame.camera.cx, frame.stamp_ns) == (60, 61, 31.5, 100_000_000)
    np.testing.assert_array_equal(frame.load(), colour(3))
    np.testing.assert_allclose(np.unique(frame.load_depth()), [0, 1.5, 2])
    assert (
        frame.depth_camera.fx == 70
        and recording.frames[0].load_depth is None
        and recording.frames[0].depth_camera is None
    )


def test_part_of_a_split(scene):
    part = open_recording(scene, split="near:val")
    assert [frame.name for frame in part.frames] == ["frame-000003", "frame-000008"]
    assert part.name == "kitchen-near-val" and part.splits == {}
    with pytest.raises(
        DataError, match="'kitchen' has no split 'mid:val'; it has near:train, near:val, far:train, far:val"
    ):
        open_recording(scene, split="mid:val")
    with pytest.raises(DataError, match="Split 'far:val' of 'kitchen' holds no frame"):
        open_recording(scene, split="far:val")


def test_split_of_one_name(scene):
    (scene / "split.json").write_text(json.dumps({"train": [2], "val": [3, 5]}))
    assert len(open_recording(scene, split="val").frames) == len(open_recording(scene, split="default:val").frames) == 2
    (scene / "split.json").write_text("[1, 2]")
    with pytest.raises(DataError, match="split.json' cannot be read; it must hold"):
        open_recording(scene)
    (scene / "split.json").unlink()
    with pytest.raises(DataError, match="it has no split.json"):
        open_recording(scene, split="near:train")


@pytest.mark.parametrize(
    "bad",
    [np.full((4, 4), np.nan), np.full((4, 4), -np.inf), np.diag([2.0, 2, 2, 1]), np.diag([1.0, 1, -1, 1]), np.eye(3)],
)
def test_frames_with_bad_poses_are_left_out(scene, bad):
    write_frame(scene, 9, pose=bad)
    recording = open_recording(scene)
    assert len(recording.frames) == 4 and recording.notes[0] == "1 frames without a valid pose were left out."


def test_rounded_rotations_become_exact(scene):
    np.savetxt(scene / "frame-000003.pose.txt", world_from_camera(3).round(3))
    rotation = open_recording(scene).frames[1].world_from_camera[:3, :3]
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-14)


def test_published_scene_of_sequences(tmp_path):
    for sequence in (1, 2):
        (tmp_path / f"seq-{sequence:02d}").mkdir()
        for number in (0, 1):
            write_frame(tmp_path / f"seq-{sequence:02d}", number, size=(640, 480), depth=True)
    (tmp_path / "TrainSplit.txt").write_text("sequence2\n")
    (tmp_path / "TestSplit.txt").write_text("sequence1\n")
    recording = open_recording(tmp_path)
    assert [frame.name for frame in recording.frames] == [f"seq-0{s}/frame-00000{n}" for s in (1, 2) for n in (0, 1)]
    assert np.all(np.diff([frame.stamp_ns for frame in recording.frames]) > 0)
    assert recording.splits == {"official": {"train": [2, 3], "val": [0, 1]}}
    frame = recording.frames[0]
    assert (frame.camera.fx, frame.camera.cx, frame.depth_camera.fx) == (525, 320, 585)
    assert len(open_recording(tmp_path / "seq-02").frames) == 2


def test_seven_scenes_errors(scene):
    (scene / "frame-000003.color.png").write_bytes(b"\x89PNG cut")
    with pytest.raises(DataError, match="frame-000003.color.png' cannot be decoded"):
        open_recording(scene).frames[1].load()
    cv2.imwrite(str(scene / "frame-000005.color.png"), colour(5, (32, 48)))
    with pytest.raises(DataError, match="frame-000005.color.png' is 32x48, but its camera is 64x48"):
        open_recording(scene).frames[2].load()
    (scene / "camera-intrinsics.txt").write_text("60 61 31 23")
    with pytest.raises(DataError, match="must hold a 3x3"):
        open_recording(scene)
    (scene / "camera-intrinsics.txt").unlink()
    with pytest.raises(DataError, match="no camera-intrinsics.txt .* images of 64x48 need"):
        open_recording(scene)


@pytest.mark.parametrize("missing", ["frame-*.pose.txt", "*.*"])
def test_folders_without_frames(scene, missing):
    for path in scene.glob(missing):
        path.unlink()
    with pytest.raises(
        DataError, match="has no image with a valid pose: .* and 4 have no pose" if "pose" in missing else "is empty"
    ):
        open_recording(scene)


def test_not_a_recording(tmp_path):
    with pytest.raises(DataError, match="'.*nowhere' does not exist; give"):
        open_recording(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="holds neither a ROS bag"):
        open_recording(tmp_path)
    with pytest.raises(DataError, match="is not a ROS bag file"):
        open_recording(tmp_path / "notes.txt")


# COLMAP

MODELS = {
    "SIMPLE_PINHOLE": (0, (60, 32.5, 24.5), (60, 60), "plumb_bob", ()),
    "PINHOLE": (1, (60, 61, 32.5, 24.5), (60, 61), "plumb_bob", ()),
    "SIMPLE_RADIAL": (2, (60, 32.5, 24.5, 0.1), (60, 60), "plumb_bob", (0.1, 0, 0, 0)),
    "RADIAL": (3, (60, 32.5, 24.5, 0.1, 0.2), (60, 60), "plumb_bob", (0.1, 0.2, 0, 0)),
    "OPENCV": (4, (60, 61, 32.5, 24.5, 0.1, 0.2, 0.3, 0.4), (60, 61), "plumb_bob", (0.1, 0.2, 0.3, 0.4)),
    "OPENCV_FISHEYE": (5, (60, 61, 32.5, 24.5, 0.1, 0.2, 0.3, 0.4), (60, 61), "equidistant", (0.1, 0.2, 0.3, 0.4)),
    "FULL_OPENCV": (
        6,
        (60, 61, 32.5, 24.5, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
        (60, 61),
        "rational_polynomial",
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    ),
}


def write_colmap(folder: Path, model: str, binary: bool, images=("b.png", "a.png", "sub/c d.png")) -> Path:
    sparse = folder / "sparse" / "0"
    sparse.mkdir(parents=True)
    identifier, parameters = MODELS[model][:2]
    rows = []
    for index, name in enumerate(images):
        camera_from_world = poses.invert(world_from_camera(index))
        translation, (x, y, z, w) = poses.to_quaternion(camera_from_world)
        rows.append(([w, x, y, z, *translation], name))
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), colour(index)[..., ::-1])
    if binary:
        cameras = (
            struct.pack("<Q", 1)
            + struct.pack("<iiQQ", 7, identifier, 64, 48)
            + struct.pack(f"<{len(parameters)}d", *parameters)
        )
        body = struct.pack("<Q", len(rows))
        for index, (numbers, name) in enumerate(rows):
            body += struct.pack("<i7di", index + 1, *numbers, 7) + name.encode() + b"\0"
            body += struct.pack("<Q", index) + struct.pack("<ddq", 1.5, 2.5, -1) * index
        (sparse / "cameras.bin").write_bytes(cameras)
        (sparse / "images.bin").write_bytes(body)
    else:
        (sparse / "cameras.txt").write_text(f"# cameras\n7 {model} 64 48 {' '.join(map(str, parameters))}\n")
        lines = [
            f"{index + 1} {' '.join(map(repr, map(float, numbers)))} 7 {name}\n{'1.5 2.5 -1 ' * index}"
            for index, (numbers, name) in enumerate(rows)
        ]
        (sparse / "images.txt").write_text("# images\n" + "\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_colmap_models(tmp_path, model, binary):
    recording = open_recording(write_colmap(tmp_path / "table", model, binary))
    assert [frame.name for frame in recording.frames] == ["a.png", "b.png", "sub/c d.png"]
    np.testing.assert_allclose(recording.poses(), [world_from_camera(index) for index in (1, 0, 2)], atol=1e-9)
    camera = recording.frames[0].camera
    _, _, focals, distortion_model, distortion = MODELS[model]
    assert ((camera.fx, camera.fy), (camera.cx, camera.cy)) == (focals, (32, 24))  # half a pixel less than COLMAP's
    assert (camera.distortion_model, camera.distortion) == (distortion_model, distortion)
    np.testing.assert_array_equal(recording.frames[2].load(), colour(2))


def test_colmap_images_absent_or_of_another_size(tmp_path):
    folder = write_colmap(tmp_path / "table", "PINHOLE", binary=False)
    (folder / "images" / "b.png").unlink()
    cv2.imwrite(str(folder / "images" / "a.png"), colour(1, (32, 24)))
    recording = open_recording(folder)
    assert recording.notes == ("1 listed images are not in the folder and were left out.", OWN_UNIT)
    camera = recording.frames[0].camera
    assert (camera.width, camera.fx, camera.fy, camera.cx, camera.cy) == (32, 30, 30.5, 15.75, 11.75)
    assert recording.frames[0].load().shape == (24, 32, 3)


def test_exif_orientation_does_not_turn_the_picture(tmp_path):
    folder = write_colmap(tmp_path / "table", "PINHOLE", binary=False, images=("a.jpg",))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colour(0)).save(folder / "images" / "a.jpg", exif=exif)
    assert open_recording(folder).frames[0].load().shape == (48, 64, 3)


def test_colmap_errors(tmp_path):
    folder = write_colmap(tmp_path / "table", "PINHOLE", binary=True)
    data = (folder / "sparse/0/images.bin").read_bytes()
    (folder / "sparse/0/images.bin").write_bytes(data[:100])
    with pytest.raises(DataError, match="images.bin' is not a readable COLMAP file"):
        open_recording(folder)
    (folder / "sparse/0/images.bin").write_bytes(data)
    (folder / "sparse/0/cameras.bin").write_bytes(struct.pack("<QiiQQ", 1, 7, 7, 64, 48))
    with pytest.raises(DataError, match="camera model number 7 is not supported; undistort"):
        open_recording(folder)
    folder = write_colmap(tmp_path / "other", "PINHOLE", binary=False)
    for path in (folder / "images").glob("**/*.png"):
        path.unlink()
    with pytest.raises(DataError, match="None of the 3 images of the model"):
        open_recording(folder)


# shared data


def shared(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip("shared data are not on this machine")
    return SHARED / name


def test_shared_redkitchen():
    folder = shared("redkitchen")
    recording = open_recording(folder)
    assert len(recording.frames) == 720 and recording.notes == ()
    assert {name: (len(parts["train"]), len(parts["val"])) for name, parts in recording.splits.items()} == {
        "near": (510, 150),
        "mid": (435, 210),
        "far": (605, 100),
    }
    numbers = json.loads((folder / "split.json").read_text())["mid"]["val"]
    assert [frame.name for frame in open_recording(folder, split="mid:val").frames] == [
        f"frame-{n:06d}" for n in sorted(numbers)
    ]
    assert (recording.frames[0].camera.fx, recording.frames[0].depth_camera.fx) == (525, 585)


def test_shared_bonsai():
    recording = open_recording(shared("bonsai"))
    assert len(recording.frames) == 255
    camera = recording.frames[0].camera
    assert (camera.cx, camera.cy) == (399.5, 266) and camera.distortion[0] == pytest.approx(-0.00752, abs=1e-5)
    assert recording.frames[0].load().shape == (533, 800, 3)
    # An orbit of a table: the optical axes of an inward-looking camera nearly meet, so poses are inverted the right
    # way.
    axes, centres = recording.poses()[:, :3, 2], recording.poses()[:, :3, 3]
    projectors = np.eye(3) - axes[:, :, None] * axes[:, None]
    middle = np.linalg.solve(projectors.sum(0), (projectors @ centres[:, :, None]).sum(0))[:, 0]
    distances = np.linalg.norm(projectors @ (middle - centres)[:, :, None], axis=1)
    assert np.median(distances) < 0.15 * np.median(np.linalg.norm(centres - middle, axis=1))
    assert np.mean(((middle - centres) * axes).sum(1) > 0) == 1


@pytest.mark.parametrize(("name", "train", "val"), [("herzjesu", 21, 4), ("office_hololens", 300, 45)])
def test_shared_folders_of_one_split(name, train, val):
    recording = open_recording(shared(name))
    assert (len(recording.splits["default"]["train"]), len(recording.splits["default"]["val"])) == (train, val)
