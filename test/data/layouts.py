"""Tiny data sets in the published layouts, written from random truth: every convention that a reader could mistake
shows.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from dimm_ros.geometry import poses
from dimm_ros.geometry.camera import Camera

WIDTH, HEIGHT = 32, 24
HOUR = 3600 * 10**9


@dataclass
class Truth:
    """What a reader must find, frame by frame in order of time."""

    world_from_camera: list[np.ndarray]
    cameras: list[Camera]
    stamps_ns: list[int]
    parts: dict[str, list[int]] = field(default_factory=dict)
    depth: list[np.ndarray | None] | None = None
    depth_camera: Camera | None = None


class Draw:
    """Random truth of one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def pose(self) -> np.ndarray:
        return poses.make_pose(Rotation.random(random_state=self.rng).as_matrix(), self.rng.uniform(-5, 5, 3))

    def many(self, count: int) -> list[np.ndarray]:
        return [self.pose() for _ in range(count)]

    def number(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def camera(self, model: str = "plumb_bob", coefficients: int = 0) -> Camera:
        distortion = tuple(float(value) for value in self.rng.uniform(-0.05, 0.05, coefficients))
        return Camera(
            WIDTH,
            HEIGHT,
            self.number(25, 40),
            self.number(25, 40),
            self.number(12, 18),
            self.number(9, 14),
            model,
            distortion,
        )


def colour(index: int) -> np.ndarray:
    """The picture of frame ``index``: its index is its red."""
    return np.full((HEIGHT, WIDTH, 3), [10 + 20 * index, 100, 200], np.uint8)


def write_image(path: Path, index: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), colour(index)[..., ::-1])


def write_depth(path: Path, levels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), levels)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def matrix(values: np.ndarray) -> str:
    return "\n".join(" ".join(repr(float(value)) for value in row) for row in values) + "\n"


def line(values) -> str:
    return " ".join(repr(float(value)) for value in values)


def wxyz(pose: np.ndarray) -> list[float]:
    x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat()
    return [float(w), float(x), float(y), float(z)]


def levels(draw: Draw, shape=(HEIGHT, WIDTH)) -> np.ndarray:
    depth = draw.rng.integers(500, 4000, shape).astype(np.uint16)
    depth[0, 0], depth[0, 1] = 0, 65535
    return depth


def metres(depth: np.ndarray, unit: float) -> np.ndarray:
    return np.where(depth == 65535, 0, depth) * unit


def seven_scenes(folder: Path, draw: Draw) -> Truth:
    camera, depth_camera = draw.camera(), draw.camera()
    truth = Truth(
        draw.many(4),
        [camera] * 4,
        [HOUR, HOUR + round(2e9 / 30), 2 * HOUR, 2 * HOUR + round(2e9 / 30)],
        depth_camera=depth_camera,
    )
    truth.parts, truth.depth = {"train": [2, 3], "val": [0, 1]}, [None, levels(draw), None, None]
    for index, (sequence, number) in enumerate([(1, 0), (1, 2), (2, 0), (2, 2)]):
        stem = folder / f"seq-{sequence:02d}" / f"frame-{number:06d}"
        write_image(Path(f"{stem}.color.png"), index)
        text(Path(f"{stem}.pose.txt"), matrix(truth.world_from_camera[index]))
        if truth.depth[index] is not None:
            write_depth(Path(f"{stem}.depth.png"), truth.depth[index])
    text(folder / "camera-intrinsics.txt", matrix(camera.matrix))
    text(folder / "depth-intrinsics.txt", matrix(depth_camera.matrix))
    text(folder / "TrainSplit.txt", "sequence2\n")
    text(folder / "TestSplit.txt", "sequence1\n")
    truth.depth = [None if depth is None else metres(depth, 1e-3) for depth in truth.depth]
    return truth


def twelve_scenes(folder: Path, draw: Draw) -> Truth:
    camera, depth_camera = draw.camera(), draw.camera()
    stamps, parts = [round(n * 1e9 / 30) for n in (0, 1, 3, 4)], {"val": [0, 1], "train": [2, 3]}
    truth = Truth(draw.many(4), [camera] * 4, stamps, parts, depth_camera=depth_camera)
    stored = [levels(draw) for _ in range(4)]
    for index, number in enumerate((0, 1, 3, 4)):
        stem = folder / "data" / f"frame-{number:06d}"
        write_image(Path(f"{stem}.color.jpg"), index)
        write_depth(Path(f"{stem}.depth.png"), stored[index])
        text(Path(f"{stem}.pose.txt"), matrix(truth.world_from_camera[index]))

    def four(camera: Camera) -> str:
        return line(np.block([[camera.matrix, np.zeros((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]]).ravel())

    text(
        folder / "info.txt",
        f"m_versionNumber = 4\nm_sensorName = StructureSensor\nm_colorWidth = {WIDTH}\nm_colorHeight = "
        f"{HEIGHT}\nm_depthWidth = {WIDTH}\n"
        f"m_depthHeight = {HEIGHT}\nm_depthShift = 1000\nm_calibrationColorIntrinsic = {four(camera)} \n"
        f"m_calibrationColorExtrinsic = {line(np.eye(4).ravel())} \nm_calibrationDepthIntrinsic = {four(depth_camera)} "
        "\n"
        f"m_calibrationDepthExtrinsic = {line(np.eye(4).ravel())} \nm_frames.size = 4\n",
    )
    text(folder / "split.txt", "sequence0 [frames=2] [start=0 ; end=1]\nsequence1 [frames=2] [start=3 ; end=4]\n")
    truth.depth = [metres(depth, 1e-3) for depth in stored]
    return truth


def indoor6(folder: Path, draw: Draw) -> Truth:
    numbers = (0, 1, 2, 5)
    truth = Truth(draw.many(4), [], [round(n * 1e9 / 30) for n in numbers], {"train": [0, 3], "tune": [1], "val": [2]})
    for index, number in enumerate(numbers):
        stem = folder / "images" / f"image-{number:06d}"
        f, cx, cy, k = draw.number(25, 40), draw.number(12, 18), draw.number(9, 14), draw.number(-0.05, 0.05)
        truth.cameras.append(Camera(WIDTH, HEIGHT, f, f, cx - 0.5, cy - 0.5, distortion=(k, 0.0, 0.0, 0.0)))
        write_image(Path(f"{stem}.color.jpg"), index)
        text(Path(f"{stem}.pose.txt"), matrix(np.linalg.inv(truth.world_from_camera[index])[:3]))
        text(
            Path(f"{stem}.intrinsics.txt"), f"{WIDTH} {HEIGHT} {f!r} {cx!r} {cy!r} {k!r} session/original_{index}.png\n"
        )
    for part, members in (("train", (0, 5)), ("val", (1,)), ("test", (2,))):
        text(folder / f"{folder.name}_{part}.txt", "".join(f"image-{number:06d}.color.jpg\n" for number in members))
    return truth


def cambridge(folder: Path, draw: Draw) -> Truth:
    truth = Truth(
        draw.many(4), [], [0, round(1e9 / 30), HOUR, HOUR + round(1e9 / 30)], {"train": [0, 1, 3], "val": [2]}
    )
    names = ["seq1/frame00001.png", "seq1/frame00007.png", "seq2/frame00001.png", "seq2/frame00002.png"]
    rows, nvm = [], []
    for index, (name, pose) in enumerate(zip(names, truth.world_from_camera)):
        focal, r = draw.number(25, 40), draw.number(-0.02, 0.02)
        truth.cameras.append(Camera(WIDTH, HEIGHT, focal, focal, 15.5, 11.5, distortion=(-r, 3 * r * r, 0.0, 0.0)))
        write_image(folder / name, index)
        camera_from_world = wxyz(pose[:3, :3].T)
        rows.append(f"{name} {line([*pose[:3, 3], *camera_from_world])}")
        nvm.append(f"{name[:-3]}jpg\t{focal!r} {line([*camera_from_world, *pose[:3, 3]])} {r!r} 0")
    heading = "Visual Landmark Dataset V1\nImageFile, Camera Position [X Y Z W P Q R]\n\n"
    text(folder / "dataset_train.txt", heading + "\n".join(rows[index] for index in truth.parts["train"]) + "\n")
    text(folder / "dataset_test.txt", heading + rows[2] + "\n")
    text(
        folder / "reconstruction.nvm",
        "NVM_V3 \n\n4\n" + "\n".join(reversed(nvm)) + "\n\n1\n0.1 0.2 0.3 255 0 0 1 0 7 1.5 2.5\n",
    )
    return truth


def ace(folder: Path, draw: Draw) -> Truth:
    truth = Truth(
        draw.many(4), [], [0, round(1e9 / 30), HOUR, HOUR + round(1e9 / 30)], {"train": [0, 1], "val": [2, 3]}
    )
    for index in range(4):
        place, stem = folder / ("train" if index < 2 else "test"), f"frame_{index:05d}"
        write_image(place / "rgb" / f"{stem}.jpg", index)
        text(place / "poses" / f"{stem}.txt", matrix(truth.world_from_camera[index]))
        if index % 2:
            truth.cameras.append(draw.camera())
            text(place / "calibration" / f"{stem}.txt", matrix(truth.cameras[-1].matrix))
        else:
            focal = draw.number(25, 40)
            truth.cameras.append(Camera(WIDTH, HEIGHT, focal, focal, 15.5, 11.5))
            text(place / "calibration" / f"{stem}.txt", f"{focal!r}\n")
    return truth


def map_free(folder: Path, draw: Draw) -> Truth:
    numbers = [(0, 0), (0, 3), (1, 0), (1, 5)]
    truth = Truth(
        draw.many(4), [], [s * HOUR + round(n * 1e9 / 30) for s, n in numbers], {"train": [0, 1], "val": [2, 3]}
    )
    rows, lenses = [], []
    for index, (sequence, number) in enumerate(numbers):
        name = f"seq{sequence}/frame_{number:05d}.jpg"
        write_image(folder / name, index)
        camera_from_world = np.linalg.inv(truth.world_from_camera[index])
        camera = draw.camera()
        truth.cameras.append(camera)
        rows.append(f"{name} {line([*wxyz(camera_from_world), *camera_from_world[:3, 3]])}")
        lenses.append(f"{name} {line([camera.fx, camera.fy, camera.cx, camera.cy])} {WIDTH} {HEIGHT}")
    write_image(folder / "seq1/frame_00009.jpg", 9)
    rows.append("seq1/frame_00009.jpg 0 0 0 0 0 0 0")  # as withheld poses are written
    lenses.append(f"seq1/frame_00009.jpg 1 1 1 1 {WIDTH} {HEIGHT}")
    text(folder / "poses.txt", "# name qw qx qy qz tx ty tz\n" + "\n".join(rows) + "\n")
    text(folder / "intrinsics.txt", "\n".join(lenses) + "\n")
    return truth


def nerfstudio(folder: Path, draw: Draw) -> Truth:
    shared, own = draw.camera("plumb_bob", 4), draw.camera()
    truth = Truth(
        draw.many(3),
        [],
        [round(n * 1e9 / 30) for n in range(3)],
        {"train": [0, 2], "val": [1]},
        [None, None, levels(draw, (12, 16))],
    )
    lens = {"fl_x": shared.fx, "fl_y": shared.fy, "cx": shared.cx + 0.5, "cy": shared.cy + 0.5, "w": WIDTH, "h": HEIGHT}
    lens |= dict(zip(("k1", "k2", "p1", "p2"), shared.distortion))
    truth.cameras = [
        Camera(WIDTH, HEIGHT, shared.fx, shared.fy, shared.cx, shared.cy, distortion=(*shared.distortion, 0.0))
        for _ in range(2)
    ]
    truth.cameras.append(Camera(WIDTH, HEIGHT, own.fx, own.fy, own.cx, own.cy, distortion=(*shared.distortion, 0.0)))
    frames = []
    for index, pose in enumerate(truth.world_from_camera):
        write_image(folder / f"images/frame_{index + 1:05d}.png", index)
        right, down, ahead, centre = pose[:3].T
        frames.append(
            {
                "file_path": f"images/frame_{index + 1:05d}.png",
                "transform_matrix": [*np.column_stack([right, -down, -ahead, centre]).tolist(), [0, 0, 0, 1]],
            }
        )
    frames[2] |= {
        "fl_x": own.fx,
        "fl_y": own.fy,
        "cx": own.cx + 0.5,
        "cy": own.cy + 0.5,
        "depth_file_path": "depths/frame_00003.png",
    }
    write_depth(folder / "depths/frame_00003.png", truth.depth[2])
    truth.depth[2], truth.depth_camera = metres(truth.depth[2], 1e-3), truth.cameras[2].scaled(16, 12)
    content = {"camera_model": "OPENCV", **lens, "frames": frames[::-1]}
    content |= {
        "train_filenames": ["images/frame_00001.png", "images/frame_00003.png"],
        "val_filenames": ["images/frame_00002.png"],
    }
    text(folder / "transforms.json", json.dumps(content))
    return truth


def tum_rgbd(folder: Path, draw: Draw) -> Truth:
    """The camera stands at 100 Hz poses of which one lies exactly at each image."""
    start = 1305031102_175304000
    stamps = [start + 40_000_000 * index for index in range(4)]
    truth = Truth(draw.many(4), [draw.camera()] * 4, stamps, depth=[levels(draw) for _ in range(4)])
    truth.depth_camera = truth.cameras[0]

    def seconds(stamp: int) -> str:
        return f"{stamp // 10**9}.{stamp % 10**9:09d}"

    rgb, depth, poses_ = [], [], []
    for index, stamp in enumerate(stamps):
        write_image(folder / "rgb" / f"{seconds(stamp)}.png", index)
        write_depth(folder / "depth" / f"{seconds(stamp + 9_000_000)}.png", truth.depth[index])
        rgb.append(f"{seconds(stamp)} rgb/{seconds(stamp)}.png")
        depth.append(f"{seconds(stamp + 9_000_000)} depth/{seconds(stamp + 9_000_000)}.png")
        w, *xyz = wxyz(truth.world_from_camera[index])
        poses_.append(f"{seconds(stamp)} {line([*truth.world_from_camera[index][:3, 3], *xyz, w])}")
    text(folder / "rgb.txt", "# color images\n# file: 'x.bag'\n# timestamp filename\n" + "\n".join(rgb) + "\n")
    text(folder / "depth.txt", "# depth maps\n" + "\n".join(depth) + "\n")
    text(folder / "groundtruth.txt", "# timestamp tx ty tz qx qy qz qw\n" + "\n".join(poses_) + "\n")
    text(folder / "camera-intrinsics.txt", matrix(truth.cameras[0].matrix))
    truth.depth = [metres(values, 1 / 5000) for values in truth.depth]
    return truth


def euroc(folder: Path, draw: Draw) -> Truth:
    stamps = [1403636579763555584 + 50_000_000 * index for index in range(3)]
    camera = draw.camera("plumb_bob", 4)
    body_from_camera, body_from_sensor = draw.pose(), draw.pose()
    world_from_sensor = draw.many(3)
    truth = Truth(
        [pose @ np.linalg.inv(body_from_sensor) @ body_from_camera for pose in world_from_sensor], [camera] * 3, stamps
    )
    root = folder / "mav0"
    listing, rows = (
        ["#timestamp [ns],filename"],
        ["#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z []"],
    )
    for index, stamp in enumerate(stamps):
        write_image(root / "cam0" / "data" / f"{stamp}.png", index)
        listing.append(f"{stamp},{stamp}.png")
        pose = world_from_sensor[index]
        rows.append(",".join([str(stamp), *(repr(float(v)) for v in (*pose[:3, 3], *wxyz(pose))), *["0.0"] * 9]))
    text(root / "cam0" / "data.csv", "\r\n".join(listing) + "\r\n")
    text(root / "state_groundtruth_estimate0" / "data.csv", "\n".join(rows) + "\n")

    def transform(pose: np.ndarray) -> str:
        return (
            "T_BS:\n  cols: 4\n  rows: 4\n  data: ["
            + ",\n         ".join(", ".join(repr(float(v)) for v in row) for row in pose)
            + "]\n"
        )

    text(
        root / "cam0" / "sensor.yaml",
        "# General sensor definitions.\nsensor_type: camera\ncomment: VI-Sensor cam0 (MT9M034)\n\n"
        + transform(body_from_camera)
        + f"\nrate_hz: 20\nresolution: [{WIDTH}, {HEIGHT}]\ncamera_model: pinhole\n"
        + f"intrinsics: [{camera.fx!r}, {camera.fy!r}, {camera.cx!r}, {camera.cy!r}] #fu, fv, cu, cv\n"
        + "distortion_model: radial-tangential\n"
        + f"distortion_coefficients: {list(camera.distortion)}\n",
    )
    text(
        root / "state_groundtruth_estimate0" / "sensor.yaml",
        "sensor_type: visual-inertial\n" + transform(body_from_sensor),
    )
    return truth


def kitti(folder: Path, draw: Draw) -> Truth:
    """``folder`` is dataset/sequences/NN."""
    camera, offset = draw.camera(), draw.rng.uniform(-0.5, 0.5, 3)
    two_from_zero = np.eye(4)
    two_from_zero[:3, 3] = offset
    world_from_zero = draw.many(3)
    truth = Truth(
        [pose @ np.linalg.inv(two_from_zero) for pose in world_from_zero], [camera] * 3, [0, 103_735_900, 207_339_300]
    )
    for index in range(3):
        write_image(folder / "image_2" / f"{index:06d}.png", index)
    text(
        folder.parent.parent / "poses" / f"{folder.name}.txt",
        "".join(line(pose[:3].ravel()) + "\n" for pose in world_from_zero),
    )
    text(folder / "times.txt", "0.000000e+00\n1.037359e-01\n2.073393e-01\n")
    projection = camera.matrix @ np.hstack([np.eye(3), offset[:, None]])
    text(
        folder / "calib.txt",
        f"P0: {line(np.eye(3, 4).ravel())}\nP1: {line(np.eye(3, 4).ravel())}\nP2: {line(projection.ravel())}\n",
    )
    return truth


def colmap_rig(folder: Path, draw: Draw, binary: bool) -> Truth:
    """Two cameras on a rig, two frames; the poses in images.* are wrong, as COLMAP itself does not read them beside
    frames.*.
    """
    cameras = [draw.camera("plumb_bob", 4), draw.camera("equidistant", 4)]
    right_from_rig = draw.pose()
    rig_from_world = draw.many(2)
    names = ["left/0.png", "left/1.png", "right/0.png", "right/1.png"]
    camera_from_world = [*rig_from_world, *(right_from_rig @ pose for pose in rig_from_world)]
    truth = Truth(
        [np.linalg.inv(pose) for pose in camera_from_world],
        [cameras[0]] * 2 + [cameras[1]] * 2,
        [round(n * 1e9 / 30) for n in range(4)],
    )
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    for index, name in enumerate(names):
        write_image(folder / "images" / name, index)
    lenses = [[c.fx, c.fy, c.cx + 0.5, c.cy + 0.5, *c.distortion] for c in cameras]
    wrong = [1.0, 0.0, 0.0, 0.0, 9.0, 9.0, 9.0]
    right = [*wxyz(right_from_rig), *right_from_rig[:3, 3]]
    rig = [[*wxyz(pose), *pose[:3, 3]] for pose in rig_from_world]
    images_of = [(11, 13), (12, 14)]  # of each frame: left, right
    if binary:
        (model / "cameras.bin").write_bytes(
            struct.pack("<Q", 2)
            + b"".join(struct.pack("<iiQQ8d", 3 + n, 4 + n, WIDTH, HEIGHT, *lens) for n, lens in enumerate(lenses))
        )
        (model / "images.bin").write_bytes(
            struct.pack("<Q", 4)
            + b"".join(
                struct.pack("<I7dI", 11 + n, *wrong, 3 + n // 2)
                + name.encode()
                + b"\0"
                + struct.pack("<QddQ", 1, 1.5, 2.5, 2**64 - 1)
                for n, name in enumerate(names)
            )
        )
        (model / "rigs.bin").write_bytes(struct.pack("<QIIiI", 1, 7, 2, 0, 3) + struct.pack("<iIB7d", 0, 4, 1, *right))
        (model / "frames.bin").write_bytes(
            struct.pack("<Q", 2)
            + b"".join(
                struct.pack("<II7dI", 21 + n, 7, *pose, 2)
                + struct.pack("<iIQiIQ", 0, 3, images_of[n][0], 0, 4, images_of[n][1])
                for n, pose in enumerate(rig)
            )
        )
    else:
        text(
            model / "cameras.txt",
            "".join(
                f"{3 + n} {kind} {WIDTH} {HEIGHT} {line(lens)}\n"
                for n, (kind, lens) in enumerate(zip(("OPENCV", "OPENCV_FISHEYE"), lenses))
            ),
        )
        text(
            model / "images.txt",
            "".join(f"{11 + n} {line(wrong)} {3 + n // 2} {name}\n1.5 2.5 -1\n" for n, name in enumerate(names)),
        )
        text(model / "rigs.txt", f"# Rig calib list\n7 2 CAMERA 3 CAMERA 4 1 {line(right)}\n")
        text(
            model / "frames.txt",
            "# Frame list\n"
            + "".join(
                f"{21 + n} 7 {line(pose)} 2 CAMERA 3 {images_of[n][0]} CAMERA 4 {images_of[n][1]}\n"
                for n, pose in enumerate(rig)
            ),
        )
    return truth


#: Name -> (folder below a temporary one, what writes it).
LAYOUTS: dict[str, tuple[str, Callable[[Path, Draw], Truth]]] = {
    "seven_scenes": ("chess", seven_scenes),
    "twelve_scenes": ("apt1/kitchen", twelve_scenes),
    "indoor6": ("scene2a", indoor6),
    "cambridge": ("KingsCollege", cambridge),
    "ace": ("wayspots_bears", ace),
    "map_free": ("s00460", map_free),
    "nerfstudio": ("poster", nerfstudio),
    "colmap_text": ("rig", lambda folder, draw: colmap_rig(folder, draw, binary=False)),
    "colmap_binary": ("rig", lambda folder, draw: colmap_rig(folder, draw, binary=True)),
    "tum_rgbd": ("own_sequence", tum_rgbd),
    "euroc": ("MH_01_easy", euroc),
    "kitti": ("dataset/sequences/07", kitti),
}


def write(name: str, root: Path, seed: int = 0) -> tuple[Path, Truth]:
    """Write a layout below a folder; returns its path and the truth."""
    below, writer = LAYOUTS[name]
    folder = root / below
    folder.mkdir(parents=True)
    return folder, writer(folder, Draw(seed))
