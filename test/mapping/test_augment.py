"""Virtual rotations: what a turned camera would have seen, with the rays it would have had."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dimm_ros.config import TrainingConfig
from dimm_ros.encoder.patches import fit, patch_grid
from dimm_ros.gallery.render import render
from dimm_ros.gallery.scene import build_room
from dimm_ros.gallery.trajectory import MOUNTS, trajectory
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import make_pose
from dimm_ros.mapping.augment import random_view, recorded_view, turned_view

CAMERAS = {
    "pinhole": Camera(320, 240, 200.0, 205.0, 158.0, 121.0),
    "plumb_bob": Camera(320, 240, 200.0, 205.0, 158.0, 121.0, "plumb_bob", (-0.15, 0.03, 0.001, -0.001, 0.0)),
    "equidistant": Camera(320, 240, 130.0, 130.0, 160.0, 119.0, "equidistant", (0.02, -0.005, 0.001, 0.0)),
}


@pytest.fixture(scope="module")
def pose() -> np.ndarray:
    return trajectory(4, 1.0, 10.0)[1][5] @ MOUNTS["handheld"]


@pytest.mark.parametrize("name", CAMERAS)
def test_a_turned_view_is_what_a_turned_camera_sees(name: str, pose: np.ndarray) -> None:
    """Against the renderer with the camera really turned and zoomed."""
    camera, room = CAMERAS[name], build_room(seed=3, photographs=False)
    grid = patch_grid(camera, 280)
    turn = Rotation.from_euler("YXZ", [9, -6, 12], degrees=True).as_matrix()
    view = turned_view(render(room, camera, pose), camera, grid, turn, zoom=1.1)
    zoomed = replace(camera, fx=camera.fx * 1.1, fy=camera.fy * 1.1)
    expected = fit(render(room, zoomed, pose @ make_pose(turn, np.zeros(3))), zoomed, patch_grid(zoomed, 280))
    shown = np.repeat(np.repeat(view.valid.reshape(grid.rows, grid.columns), 14, 0), 14, 1)
    assert 0.4 < shown.mean() < 1.0
    difference = np.abs(view.image.astype(float) - expected)[shown]
    shifted = np.abs(np.roll(view.image, 2, axis=1).astype(float) - expected)[shown]
    assert difference.mean() < 4.0  # resampling twice blurs fine texture a little
    assert shifted.mean() > 1.5 * difference.mean()  # two pixels off would show


@pytest.mark.parametrize("name", CAMERAS)
def test_its_rays_are_the_same_world_rays(name: str) -> None:
    """A world point on a patch's ray projects to the same recorded pixel, turned or not."""
    camera = CAMERAS[name]
    grid = patch_grid(camera, 280)
    turn = Rotation.from_euler("YXZ", [12, 5, -8], degrees=True).as_matrix()
    view = turned_view(np.zeros((240, 320, 3), np.uint8), camera, grid, turn, zoom=0.9)
    np.testing.assert_allclose(view.rays, view.camera_rays @ turn.T, atol=1e-12)
    pixels, front = camera.project(view.rays[view.valid])
    assert front.all() and camera.contains(pixels).all()
    np.testing.assert_allclose(np.linalg.norm(view.rays, axis=1), 1.0)


def test_no_turn_is_the_recorded_view() -> None:
    camera = CAMERAS["pinhole"]
    grid = patch_grid(camera, 280)
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8), (0, 0), 1.5)
    turned, recorded = turned_view(image, camera, grid, np.eye(3)), recorded_view(image, camera, grid)
    assert turned.valid.all()
    np.testing.assert_allclose(turned.camera_rays, recorded.camera_rays, atol=1e-12)
    assert np.abs(turned.image.astype(int) - recorded.image).max() <= 1


def test_random_views_are_seeded_and_differ() -> None:
    camera = CAMERAS["pinhole"]
    grid = patch_grid(camera, 224)
    image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    one, same, other = (
        random_view(image, camera, grid, TrainingConfig(), np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.image, same.image)
    assert np.abs(one.rays - other.rays).max() > 0.01
