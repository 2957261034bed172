"""Record a walk through a scene as a ROS 2 bag, as a robot's own recorder would have."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

from dimm_ros.data.bag_writer import BASE, MAP, ODOM, BagWriter, new_bag
from dimm_ros.gallery.odometry import drifting_odometry
from dimm_ros.gallery.render import render
from dimm_ros.gallery.scene import Scene
from dimm_ros.geometry import poses
from dimm_ros.geometry.camera import Camera
from dimm_ros.progress import StepCallback

#: A wide lens with some distortion, as robots have.
GALLERY_CAMERA = Camera(640, 480, 420.0, 420.0, 319.5, 239.5, "plumb_bob", (-0.12, 0.02, 0.0004, -0.0003, 0.0))
_BATCH = 16  # pictures rendered ahead of the writer


def record_bag(
    path: str | Path,
    scene: Scene,
    camera: Camera,
    stamps_ns: np.ndarray,
    world_from_base: np.ndarray,
    base_from_camera: np.ndarray,
    *,
    image_every: int = 1,
    storage: Literal["mcap", "sqlite3"] = "mcap",
    compressed: bool = True,
    jpeg_quality: int = 92,
    noise: float = 1.5,
    map_to_odom: bool = True,
    ground_truth_topic: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    workers: int = 2,
    progress: StepCallback | None = None,
) -> Path:
    """Render and write a bag; it appears under its name only when it is complete.

    Topics: the image (``/camera/image_raw``, or with ``/compressed``), ``/camera/camera_info``, ``/tf`` (odom ->
    base_link from drifting odometry, and map -> odom, which makes up for the drift), ``/tf_static`` (base_link ->
    camera_optical_frame), ``/odom``.

    Args:
        path: the bag's folder.
        scene, camera: what is filmed, with what.
        stamps_ns: (N,) times of the transforms and of the odometry.
        world_from_base: (N, 4, 4) true poses; the scene's world is the frame ``map``.
        base_from_camera: (4, 4) extrinsics, optical axes.
        image_every: an image at every so many stamps, so TF may be faster than the camera.
        storage: "mcap" or "sqlite3".
        compressed: JPEG CompressedImage instead of Image (rgb8).
        jpeg_quality: 1 to 100.
        noise: standard deviation of the sensor's noise, grey levels.
        map_to_odom: False leaves map -> odom out, as on a robot that is not localized yet.
        ground_truth_topic: also write the true pose of base_link as PoseStamped.
        seed: of the noise and the odometry's drift.
        overwrite: replace a bag that exists.
        workers: rendering threads.
        progress: called with images written and images in all.

    Raises:
        DataError: the bag exists and may not be replaced, or cannot be written.
        ValueError: stamps that do not increase or do not match the poses.
    """
    stamps = np.asarray(stamps_ns, dtype=np.int64)
    if len(stamps) != len(world_from_base) or len(stamps) < 2 or np.any(np.diff(stamps) <= 0):
        raise ValueError("stamps_ns must increase and have one pose each, at least two")
    path = Path(path)
    with new_bag(
        path,
        storage=storage,
        compressed=compressed,
        jpeg_quality=jpeg_quality,
        ground_truth_topic=ground_truth_topic,
        overwrite=overwrite,
    ) as bag:
        bag.start(int(stamps[0]), base_from_camera)
        _film(
            bag,
            scene,
            camera,
            stamps,
            world_from_base,
            base_from_camera,
            image_every,
            map_to_odom,
            noise,
            seed,
            workers,
            progress,
        )
    return path


def _film(
    bag: BagWriter,
    scene: Scene,
    camera: Camera,
    stamps: np.ndarray,
    world_from_base: np.ndarray,
    base_from_camera: np.ndarray,
    image_every: int,
    map_to_odom: bool,
    noise: float,
    seed: int,
    workers: int,
    progress: StepCallback | None,
) -> None:
    odom_from_base = drifting_odometry(stamps, world_from_base, seed)
    map_from_odom = world_from_base @ poses.invert(odom_from_base)
    twists = _twists(stamps, odom_from_base)
    shots = range(0, len(stamps), image_every)

    def shoot(index: int) -> np.ndarray:
        image = render(scene, camera, world_from_base[index] @ base_from_camera)
        if noise > 0:
            grain = np.random.default_rng([seed, index]).standard_normal(image.shape, dtype=np.float32)
            image = np.clip(np.rint(image + noise * grain), 0, 255).astype(np.uint8)
        return bag.encode(image)

    written = 0
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for first in range(0, len(shots), _BATCH):
            batch = shots[first : first + _BATCH]
            images = dict(zip(batch, pool.map(shoot, batch)))
            for index in range(batch[0], min(batch[-1] + image_every, len(stamps))):
                stamp = int(stamps[index])
                if map_to_odom:
                    bag.transform(stamp, MAP, ODOM, map_from_odom[index])
                bag.transform(stamp, ODOM, BASE, odom_from_base[index])
                bag.odometry(stamp, odom_from_base[index], twists[index])
                bag.ground_truth(stamp, world_from_base[index])
                if index in images:
                    bag.image(stamp, camera, images[index])
                    written += 1
                    if progress is not None:
                        progress(written, len(shots))


def _twists(stamps: np.ndarray, odom_from_base: np.ndarray) -> np.ndarray:
    """(N, 6) linear and angular velocity in the base frame, from one pose to the next; the last is repeated."""
    step = poses.invert(odom_from_base[:-1]) @ odom_from_base[1:]
    angular = Rotation.from_matrix(step[:, :3, :3]).as_rotvec()
    twists = np.hstack([step[:, :3, 3], angular]) / (np.diff(stamps) * 1e-9)[:, None]
    return np.vstack([twists, twists[-1:]])
