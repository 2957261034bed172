"""Views synthesised from depth, against the renderer with the camera really moved."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dimm_ros.config import TrainingConfig
from dimm_ros.encoder.patches import PATCH, PatchGrid, fit, patch_grid
from dimm_ros.gallery.render import render
from dimm_ros.gallery.scene import Scene, build_room
from dimm_ros.gallery.trajectory import MOUNTS, trajectory
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import invert, make_pose
from dimm_ros.mapping.augment import View, recorded_view
from dimm_ros.mapping.synthesise import ImageWithDepth, moved_view, random_motion, registered_range

CAMERAS = {
    "pinhole": Camera(320, 240, 200.0, 205.0, 158.0, 121.0),
    "plumb_bob": Camera(320, 240, 200.0, 205.0, 158.0, 121.0, "plumb_bob", (-0.15, 0.03, 0.001, -0.001, 0.0)),
    "equidistant": Camera(320, 240, 130.0, 130.0, 160.0, 119.0, "equidistant", (0.02, -0.005, 0.001, 0.0)),
}
PINHOLE = CAMERAS["pinhole"]
MOTION = make_pose(Rotation.from_euler("YXZ", [6, -4, 8], degrees=True).as_matrix(), np.array([0.12, -0.06, 0.10]))


@pytest.fixture(scope="module")
def room() -> Scene:
    return build_room(seed=3, photographs=False)


@pytest.fixture(scope="module")
def pose() -> np.ndarray:
    return trajectory(4, 1.0, 10.0)[1][5] @ MOUNTS["handheld"]


def _pixels(valid: np.ndarray, grid: PatchGrid) -> np.ndarray:
    return np.repeat(np.repeat(valid.reshape(grid.rows, grid.columns), PATCH, 0), PATCH, 1)


def _moved(
    image: np.ndarray, depth: np.ndarray, camera: Camera, grid: PatchGrid, motion: np.ndarray, zoom: float = 1.0
) -> View:
    return moved_view([ImageWithDepth.of(image, depth, camera, grid)], grid, [motion], zoom)


def _difference(image: np.ndarray, truth: np.ndarray, shown: np.ndarray) -> float:
    return float(np.abs(image.astype(float) - truth)[shown].mean())


@pytest.mark.parametrize("name", CAMERAS)
def test_a_moved_view_is_what_a_moved_camera_sees(name: str, room: Scene, pose: np.ndarray) -> None:
    camera = CAMERAS[name]
    grid = patch_grid(camera, 280)
    image, depth = render(room, camera, pose, with_depth=True)
    zoomed = replace(camera, fx=camera.fx * 1.1, fy=camera.fy * 1.1)
    truth = fit(render(room, zoomed, pose @ MOTION), zoomed, patch_grid(zoomed, 280))
    view = _moved(image, depth, camera, grid, MOTION, zoom=1.1)
    shown = _pixels(view.valid, grid)
    assert 0.7 < shown.mean() <= 1.0
    difference = _difference(view.image, truth, shown)
    assert difference < 5.0
    for factor in (0.85, 1.15):  # two or three centimetres off would show
        off = make_pose(MOTION[:3, :3], factor * MOTION[:3, 3])
        assert _difference(_moved(image, depth, camera, grid, off, zoom=1.1).image, truth, shown) > 1.5 * difference


@pytest.mark.parametrize("name", CAMERAS)
def test_its_rays_and_centre_are_exact(name: str, room: Scene, pose: np.ndarray) -> None:
    """A point on a patch's ray, as seen from the offset centre, projects to the patch's centre in the moved camera."""
    camera = CAMERAS[name]
    grid = patch_grid(camera, 280)
    image, depth = render(room, camera, pose, with_depth=True)
    view = _moved(image, depth, camera, grid, MOTION)
    np.testing.assert_allclose(view.offset, MOTION[:3, 3])
    points = view.offset + 1.7 * view.rays
    pixels, front = grid.camera.project(points @ invert(MOTION)[:3, :3].T + invert(MOTION)[:3, 3])
    centres = (
        np.stack(np.meshgrid(np.arange(grid.columns), np.arange(grid.rows)), axis=-1).reshape(-1, 2) * PATCH
        + (PATCH - 1) / 2
    )
    assert front.all()
    np.testing.assert_allclose(pixels[view.valid], centres[view.valid], atol=0.01)
    np.testing.assert_allclose(view.camera_rays, grid.rays, atol=1e-12)


@pytest.mark.parametrize("name", CAMERAS)
def test_no_motion_is_the_recorded_view(name: str, room: Scene, pose: np.ndarray) -> None:
    camera = CAMERAS[name]
    grid = patch_grid(camera, 280)
    image, depth = render(room, camera, pose, with_depth=True)
    view, recorded = _moved(image, depth, camera, grid, np.eye(4)), recorded_view(image, camera, grid)
    assert view.valid.mean() > 0.97
    assert _difference(view.image, recorded.image, _pixels(view.valid, grid)) < 1.5
    np.testing.assert_allclose(view.rays, recorded.rays, atol=1e-12)
    np.testing.assert_array_equal(view.offset, np.zeros(3))
    np.testing.assert_array_equal(recorded.offset, np.zeros(3))


def test_holes_are_where_the_recorded_camera_saw_nothing(room: Scene, pose: np.ndarray) -> None:
    grid = patch_grid(PINHOLE, 280)
    image, depth = render(room, PINHOLE, pose, with_depth=True)
    motion = make_pose(Rotation.from_euler("Y", 5, degrees=True).as_matrix(), np.array([0.5, 0.0, 0.0]))
    view = _moved(image, depth, PINHOLE, grid, motion)
    # What the recorded camera sees of the surfaces that the moved one sees, from exact depth.
    _, there = render(room, grid.camera, pose @ motion, with_depth=True)
    x, y = np.meshgrid(np.arange(grid.camera.width), np.arange(grid.camera.height))
    rays, _ = grid.camera.bearings(np.stack([x, y], axis=-1).reshape(-1, 2))
    points = rays / rays[:, 2:] * there.reshape(-1, 1) @ motion[:3, :3].T + motion[:3, 3]
    pixels, front = grid.resized.project(points)
    _, first = render(room, grid.resized, pose, with_depth=True)
    inside = front & grid.resized.contains(pixels)
    hit = cv2.remap(first, pixels.astype(np.float32).reshape(*there.shape, 2), None, cv2.INTER_NEAREST).reshape(-1)
    seen = (inside & (np.abs(hit - points[:, 2]) < 0.05 * points[:, 2])).reshape(there.shape)
    share = seen.reshape(grid.rows, PATCH, grid.columns, PATCH).mean(axis=(1, 3)).reshape(-1)
    assert (share < 0.5).sum() > 10 and (share > 0.95).sum() > 100
    assert not view.valid[share < 0.5].any()
    assert view.valid[share > 0.95].mean() > 0.97


def test_pixels_without_depth_are_not_trained_on(room: Scene, pose: np.ndarray) -> None:
    grid = patch_grid(PINHOLE, 280)
    image, depth = render(room, PINHOLE, pose, with_depth=True)
    depth[:, :160] = 0
    view = _moved(image, depth, PINHOLE, grid, np.eye(4))
    valid = view.valid.reshape(grid.rows, grid.columns)
    assert not valid[:, :9].any() and valid[:, 11:].all()
    nothing = _moved(image, np.zeros_like(depth), PINHOLE, grid, MOTION)
    assert not nothing.valid.any() and nothing.image.shape == view.image.shape


def test_depth_of_another_camera_is_registered(room: Scene, pose: np.ndarray) -> None:
    """A depth camera with another lens, beside the colour camera and turned a little."""
    colour, beside = Camera(160, 120, 110.0, 110.0, 80.0, 60.0), Camera(320, 240, 260.0, 262.0, 150.0, 125.0)
    camera_from_depth = make_pose(Rotation.from_euler("Y", 2, degrees=True).as_matrix(), np.array([0.03, 0.0, 0.01]))
    _, depth = render(room, beside, pose @ camera_from_depth, with_depth=True)
    _, truth = render(room, colour, pose, with_depth=True)
    rays, _ = colour.bearings(np.stack(np.meshgrid(np.arange(160), np.arange(120)), axis=-1).reshape(-1, 2))
    along_z = registered_range(depth, beside, colour, camera_from_depth) * rays[:, 2].reshape(truth.shape)
    known = along_z > 0
    assert 0.6 < known.mean() < 1.0
    error = np.abs(along_z - truth)[known] / truth[known]
    assert np.median(error) < 0.01 and np.mean(error < 0.05) > 0.95
    without = registered_range(depth, beside, colour) * rays[:, 2].reshape(truth.shape)
    both = known & (without > 0)
    assert np.abs(without - truth)[both].mean() > 1.5 * np.abs(along_z - truth)[both].mean()


def test_other_images_fill_in_what_the_moved_one_did_not_see(room: Scene, pose: np.ndarray) -> None:
    """A helper beside the recorded camera, darker by a third, shows what the turn brings into view."""
    grid = patch_grid(PINHOLE, 280)
    motion = make_pose(Rotation.from_euler("Y", 15, degrees=True).as_matrix(), np.array([0.1, 0.0, 0.0]))
    helper = make_pose(Rotation.from_euler("Y", 25, degrees=True).as_matrix(), np.array([0.2, 0.05, 0.0]))
    image, depth = render(room, PINHOLE, pose, with_depth=True)
    beside, beside_depth = render(room, PINHOLE, pose @ helper, with_depth=True)
    truth = fit(render(room, PINHOLE, pose @ motion), PINHOLE, grid)
    sources = [
        ImageWithDepth.of(image, depth, PINHOLE, grid),
        ImageWithDepth.of((beside * 0.67).astype(np.uint8), beside_depth, PINHOLE, grid),
    ]
    alone = moved_view(sources[:1], grid, [motion])
    helped = moved_view(sources, grid, [motion, invert(helper) @ motion])
    gained = helped.valid & ~alone.valid
    assert alone.valid.mean() < 0.8 and helped.valid.mean() > 0.9 and helped.valid[alone.valid].mean() > 0.98
    shown = _pixels(gained, grid)
    assert _difference(helped.image, truth, shown) < min(8.0, 0.5 * _difference(alone.image, truth, shown))
    np.testing.assert_array_equal(helped.rays, alone.rays)
    np.testing.assert_array_equal(helped.offset, motion[:3, 3])


def test_random_motions_are_seeded_and_bounded(room: Scene, pose: np.ndarray) -> None:
    image, depth = render(room, PINHOLE, pose, with_depth=True)

    def make(seed: int, depth: np.ndarray = depth, **settings) -> np.ndarray:
        source = ImageWithDepth.of(image, depth, PINHOLE, patch_grid(PINHOLE, 224))
        return random_motion(source, TrainingConfig(**settings), np.random.default_rng(seed))[0]

    np.testing.assert_array_equal(make(1), make(1))
    offsets = np.array([make(seed, max_offset=0.1)[:3, 3] for seed in range(8)])
    lengths, limit = (
        np.linalg.norm(offsets, axis=1),
        0.1 * np.median(ImageWithDepth.of(image, depth, PINHOLE, patch_grid(PINHOLE, 224)).ranges),
    )
    assert lengths.max() <= 1.01 * limit and lengths.max() > 0.5 * limit and len(np.unique(lengths)) == 8
    assert np.abs(offsets.mean(axis=0)).max() < 0.5 * limit
    np.testing.assert_array_equal(make(1, max_offset=0.0)[:3, 3], np.zeros(3))
    near = depth * np.float32(0.1 / depth.min())
    assert max(np.linalg.norm(make(seed, near, max_offset=0.5)[:3, 3]) for seed in range(6)) < np.median(near)
