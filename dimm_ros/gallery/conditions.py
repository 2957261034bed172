"""Query images of the gallery as a robot meets them: in low light, blurred by motion, through a fisheye, with people in
the way.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, get_args

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from dimm_ros.data.recording import Frame, Recording
from dimm_ros.gallery.render import render
from dimm_ros.gallery.scene import Scene, with_people
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import make_pose

Condition = Literal["clean", "low_light", "motion_blur", "fisheye", "people"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)

_NOISE = 1.5  # grey levels, as the recorder's
# share of the light that reaches the sensor (after its gain), and how many photons a white pixel counts then
_DARK, _PHOTONS = (0.12, 90.0)
_GAMMA = 2.2
_EXPOSURE_S, _EXPOSURES = 1 / 12, 7  # of a blurred image, and the moments in it that are rendered
_SHAKE_DEG = 45.0  # deg/s of a shaken camera beside its walk
# how many, their distance in metres, and how far off the middle of the image
_PEOPLE, _NEAR, _FAR, _SIDE_DEG = (2, 0.7, 1.6, 24.0)
_FISHEYE_FOV_DEG = 150.0  # across the image


def fisheye(camera: Camera) -> Camera:
    """An equidistant lens of 150 degrees across, with the size of a camera's image."""
    focal = camera.width / np.radians(_FISHEYE_FOV_DEG)
    return Camera(
        camera.width,
        camera.height,
        focal,
        focal,
        (camera.width - 1) / 2,
        (camera.height - 1) / 2,
        "equidistant",
        (-0.01, 0.002, 0.0, 0.0),
    )


def film(
    scene: Scene,
    camera: Camera,
    stamps_ns: np.ndarray,
    world_from_camera: np.ndarray,
    condition: Condition = "clean",
    *,
    every: int = 1,
    seed: int = 0,
) -> Recording:
    """Images of a walk under a condition, rendered when they are loaded.

    Args:
        scene, camera: what is filmed, with what.
        stamps_ns: (N,) times.
        world_from_camera: (N, 4, 4), optical axes; the pose of a blurred image is that of the middle of its exposure.
        every: an image of every so many poses.
        seed: of noise, shaking and people.

    Raises:
        ValueError: no such condition.
    """
    if condition not in CONDITIONS:
        raise ValueError(f"condition must be one of {', '.join(CONDITIONS)}, not {condition!r}")
    lens = fisheye(camera) if condition == "fisheye" else camera
    frames = [
        Frame(
            f"{condition}-{index:06d}",
            int(stamps_ns[index]),
            lens,
            world_from_camera[index],
            partial(_shoot, scene, lens, stamps_ns, world_from_camera, index, condition, seed),
        )
        for index in range(0, len(stamps_ns), every)
    ]
    return Recording(f"gallery-{condition}", f"gallery, {condition.replace('_', ' ')}", frames)


def _shoot(
    scene: Scene, camera: Camera, stamps_ns: np.ndarray, poses: np.ndarray, index: int, condition: Condition, seed: int
) -> np.ndarray:
    rng = np.random.default_rng([seed, index, CONDITIONS.index(condition)])
    if condition == "people":
        scene = with_people(scene, _in_the_way(poses[index], rng), seed=int(rng.integers(1 << 31)))
    if condition == "motion_blur":
        moments = _exposure(stamps_ns, poses, index, rng)
        image = np.mean([render(scene, camera, pose) for pose in moments], axis=0)
    else:
        image = render(scene, camera, poses[index]).astype(np.float64)
    if condition == "low_light":
        image = 255 * (_DARK * rng.poisson(_PHOTONS * (image / 255) ** _GAMMA) / _PHOTONS) ** (1 / _GAMMA)
    image = image + _NOISE * rng.standard_normal(image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _exposure(stamps_ns: np.ndarray, poses: np.ndarray, index: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Poses during the exposure about one moment: the walk's own motion and a shake of the camera."""
    moments = np.clip(
        stamps_ns[index] + 1e9 * _EXPOSURE_S * np.linspace(-0.5, 0.5, _EXPOSURES), stamps_ns[0], stamps_ns[-1]
    )
    seconds, wanted = (stamps_ns - stamps_ns[0]) * 1e-9, (moments - stamps_ns[0]) * 1e-9
    turned = Slerp(seconds, Rotation.from_matrix(poses[:, :3, :3]))(wanted)
    axis = rng.standard_normal(3)
    shake = Rotation.from_rotvec(
        np.radians(_SHAKE_DEG) * (wanted - seconds[index])[:, None] * axis / np.linalg.norm(axis)
    )
    centres = np.column_stack([np.interp(wanted, seconds, poses[:, axis, 3]) for axis in range(3)])
    return [make_pose(rotation, centre) for rotation, centre in zip((turned * shake).as_matrix(), centres, strict=True)]


def _in_the_way(world_from_camera: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N, 2) places on the floor in front of a camera."""
    ahead = np.arctan2(world_from_camera[1, 2], world_from_camera[0, 2]) + np.radians(
        rng.uniform(-_SIDE_DEG, _SIDE_DEG, _PEOPLE)
    )
    distance = rng.uniform(_NEAR, _FAR, _PEOPLE)
    return world_from_camera[:2, 3] + distance[:, None] * np.column_stack([np.cos(ahead), np.sin(ahead)])
