"""The picture of ray residuals: what the network saw lies where it saw it, and no pixel elsewhere changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dimm_ros.data.open import open_recording
from dimm_ros.encoder.patches import PATCH, patch_grid
from dimm_ros.geometry.camera import Camera
from dimm_ros.localizer import Estimate, Localizer
from dimm_ros.pictures.ray_picture import ray_residual_picture, residual_colours
from dimm_ros.scene_map import SceneMap


def estimate_of(residual: np.ndarray | None, accepted: bool = True) -> Estimate:
    return Estimate(
        world_from_camera=np.eye(4),
        covariance=np.eye(6),
        accepted=accepted,
        reason="" if accepted else "No.",
        inliers=3,
        rays=4,
        angle_residual_deg=residual,
    )


def test_colours_go_from_blue_to_red() -> None:
    colours = residual_colours(np.array([0.0, 3.0, 6.0, 60.0, np.nan]), 6.0).astype(int)
    assert colours[0, 2] > colours[0, 0] + 50 and colours[2, 0] > colours[2, 2] + 50
    assert colours[1, 1] > max(colours[1, 0], colours[1, 2])
    np.testing.assert_array_equal(colours[3], colours[2])
    np.testing.assert_array_equal(colours[4], [128, 128, 128])


@pytest.mark.parametrize(
    "size, input_size", [((640, 480), 448), ((480, 640), 336), ((641, 359), 448), ((224, 168), 224)]
)
def test_every_patch_is_drawn_where_the_encoder_saw_it(size, input_size) -> None:
    camera = Camera(*size, 0.8 * size[0], 0.8 * size[0], (size[0] - 1) / 2, (size[1] - 1) / 2)
    grid = patch_grid(camera, input_size)
    image = np.full((size[1], size[0], 3), 100, np.uint8)
    scale = input_size / max(size)
    left, top = grid.resized.cx - grid.camera.cx, grid.resized.cy - grid.camera.cy
    for row, column in ((0, 0), (grid.rows // 2, grid.columns // 2), (grid.rows // 3, grid.columns - 1)):
        residual = np.full((grid.rows, grid.columns), np.nan)
        residual[row, column] = 9.0
        changed = (ray_residual_picture(image, estimate_of(residual)) != image).any(axis=-1)
        changed[-size[1] // 8 :] = False  # the legend
        y, x = np.nonzero(changed)
        expected = (
            np.array([left + column * PATCH, top + row * PATCH, left + (column + 1) * PATCH, top + (row + 1) * PATCH])
            / scale
        )
        np.testing.assert_allclose([x.min(), y.min(), x.max() + 1, y.max() + 1], expected, atol=1.0)


def test_the_image_itself_is_not_written_to() -> None:
    image = np.full((48, 64, 3), 50, np.uint8)
    image.flags.writeable = False
    for residual in (None, np.zeros((12, 16))):
        picture = ray_residual_picture(image, estimate_of(residual, accepted=False))
        assert picture.shape == image.shape and picture.dtype == np.uint8
    assert (image == 50).all() and (picture != 50).any()


def test_world_rays_are_those_the_residuals_were_taken_from(small_map: Path, encoder, walk: Path) -> None:
    frame = open_recording(walk).frames[5]
    localizer = Localizer(SceneMap.load(small_map), encoder)
    estimate = localizer.localize(frame.load(), frame.camera)
    grid = patch_grid(frame.camera, 224)
    direction, moment = np.split(estimate.world_rays, 2, axis=-1)
    rotation, centre = estimate.world_from_camera[:3, :3], estimate.world_from_camera[:3, 3]
    np.testing.assert_allclose(np.linalg.norm(direction, axis=-1), 1.0, atol=1e-5)
    solved = grid.rays.reshape(grid.rows, grid.columns, 3) @ rotation.T
    angle = np.degrees(
        np.arctan2(np.linalg.norm(np.cross(solved, direction), axis=-1), (solved * direction).sum(axis=-1))
    )
    np.testing.assert_allclose(angle, estimate.angle_residual_deg, atol=0.02)
    origin = np.array(localizer.map.header.origin)  # the solver works about it
    distance = np.linalg.norm(np.cross(centre - origin, solved) - (moment - np.cross(origin, direction)), axis=-1)
    np.testing.assert_allclose(distance, estimate.centre_residual, atol=1e-3)
    # the rays pass near the camera
    assert np.median(np.linalg.norm(moment - np.cross(centre, direction), axis=-1)) < 0.3
