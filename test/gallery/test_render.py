"""Pictures against geometry that the renderer does not use: projection of known points, and views against each
other.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dimm_ros.gallery.render import render
from dimm_ros.gallery.scene import ROOM_SIZE, Rectangle, Scene, build_room
from dimm_ros.gallery.trajectory import camera_mount, trajectory
from dimm_ros.geometry import poses
from dimm_ros.geometry.camera import Camera

CAMERAS = {
    "pinhole": Camera(320, 240, 210, 212, 158.3, 121.4),
    "plumb_bob": Camera(320, 240, 210, 212, 158.3, 121.4, "plumb_bob", (-0.28, 0.07, 0.001, -0.002, 0.0)),
    "rational_polynomial": Camera(
        320, 240, 210, 212, 158.3, 121.4, "rational_polynomial", (0.5, -0.1, 1e-3, 2e-3, 0.02, 0.7, -0.05, 0.03)
    ),
    "fisheye": Camera(320, 240, 110, 111, 158.3, 121.4, "equidistant", (0.02, -0.01, 0.003, 0.0)),
}


def board_of_discs(spots: np.ndarray, radius: int = 40) -> tuple[Scene, np.ndarray]:
    """A white 1.2 x 0.9 m board 1.5 m before the world's origin, black discs on it; outlines (N, 72, 3) of the
    discs.
    """
    texture = np.full((900, 1200, 3), 255, np.uint8)
    for x, y in spots:
        cv2.circle(texture, (int(x), int(y)), radius, (0, 0, 0), -1, cv2.LINE_AA)
    turn = Rotation.from_euler("zyx", [20, -15, 8], degrees=True).as_matrix()
    right, down = turn @ [0, -1.2, 0], turn @ [0, 0, -0.9]
    origin = np.array([1.5, 0, 0]) - (right + down) / 2
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    # texel x spans [x, x + 1]
    texels = spots[:, None] + 0.5 + radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return Scene((Rectangle(origin, right, down, texture),)), origin + texels / [1200, 900] @ np.stack([right, down])


@pytest.mark.parametrize("lens", CAMERAS)
def test_discs_appear_where_their_outlines_project(lens):
    """Centroids of what is dark in the picture against centroids of the projected outlines."""
    camera = CAMERAS[lens]
    # one is missing: no symmetry
    spots = np.stack(np.meshgrid([150, 450, 750, 1050], [150, 450, 750]), axis=-1).reshape(-1, 2)[:-1]
    scene, outlines = board_of_discs(spots)
    world_from_camera = camera_mount((0, 0.1, 0.05), pitch_down_deg=5)
    darkness = 255.0 - render(scene, camera, world_from_camera)[..., 0]
    for outline in outlines:
        pixels, front = camera.project((outline - world_from_camera[:3, 3]) @ world_from_camera[:3, :3])
        assert front.all()
        moments = cv2.moments(pixels.astype(np.float32)[:, None])
        expected = np.array([moments["m10"], moments["m01"]]) / moments["m00"]
        (left, top), (right, bottom) = (
            np.floor(pixels.min(axis=0)).astype(int) - 2,
            np.ceil(pixels.max(axis=0)).astype(int) + 3,
        )
        window = darkness[top:bottom, left:right]
        rows, columns = np.mgrid[top:bottom, left:right]
        centre = np.array([(window * columns).sum(), (window * rows).sum()]) / window.sum()
        assert np.abs(centre - expected).max() < 0.08
        assert window.sum() / 255 == pytest.approx(moments["m00"], rel=0.08)


def test_no_texture_is_mirrored(room):
    """Seen from its front, a texture's right is to the right and its down is below, for every rectangle of the room."""
    camera = CAMERAS["pinhole"]
    for rectangle in room.rectangles:
        middle = rectangle.corners.mean(axis=0)
        forward = -rectangle.normal
        down = rectangle.down / np.linalg.norm(rectangle.down)
        world_from_camera = poses.make_pose(
            np.column_stack([np.cross(down, forward), down, forward]), middle - 0.3 * forward
        )
        pixels, front = camera.project((rectangle.corners - world_from_camera[:3, 3]) @ world_from_camera[:3, :3])
        assert front.all() and pixels[1, 0] > pixels[0, 0] and pixels[3, 1] > pixels[0, 1]


def test_room_is_closed_and_depth_is_exact(room):
    """From the middle, looking level along x, the wall's depth is half the room's length at every pixel that sees
    it.
    """
    camera = CAMERAS["pinhole"]
    image, depth = render(room, camera, camera_mount((-0.3, 0, 2.2), pitch_down_deg=0), with_depth=True)
    assert depth.min() > 0 and image.reshape(-1, 3).max(axis=1).mean() > 40
    wall = np.abs(depth - (ROOM_SIZE[0] / 2 + 0.3)) < 1e-4
    assert wall.mean() > 0.25 and depth.max() < ROOM_SIZE[0] / 2 + 0.3 + 1e-4


@pytest.mark.parametrize("lens", CAMERAS)
def test_two_views_agree_through_depth(room, lens):
    """Pixels of one view, moved by their depth into another, find the same colours there."""
    camera = CAMERAS[lens]
    first, second = camera_mount((-0.8, 0.5, 1.4), 6), camera_mount((-0.72, 0.58, 1.44), 4, yaw_deg=5)
    image, depth = render(room, camera, first, with_depth=True)
    other, other_depth = render(room, camera, second, with_depth=True)
    y, x = np.mgrid[0 : camera.height, 0 : camera.width]
    rays, valid = camera.bearings(np.column_stack([x.ravel(), y.ravel()]))
    usable = valid & (rays[:, 2] > 0.2) & (depth.ravel() > 0)
    points = rays[usable] / rays[usable, 2:] * depth.ravel()[usable, None]
    moved = poses.invert(second) @ first
    there = points @ moved[:3, :3].T + moved[:3, 3]
    pixels, front = camera.project(there)
    inside = front & camera.contains(pixels) & (there[:, 2] > 0.2)
    maps = np.zeros((len(pixels), 2), np.float32)
    maps[inside] = pixels[inside]
    maps = np.resize(maps, (-(-len(maps) // 64), 64, 2))  # OpenCV wants an image of coordinates
    found_depth, found = (
        cv2.remap(source, maps, None, cv2.INTER_LINEAR).reshape(-1, *source.shape[2:])[: len(pixels)][inside]
        for source in (other_depth, other)
    )
    same = np.abs(found_depth - there[inside, 2]) < 0.01  # else something hides it in the other view
    assert same.mean() > 0.85 and inside.mean() > 0.5
    error = np.abs(found[same].astype(int) - image.reshape(-1, 3)[usable][inside][same])
    assert np.median(error) <= 3 and error.mean() < 11
    shifted = np.abs(np.roll(found, 40, axis=0)[same].astype(int) - image.reshape(-1, 3)[usable][inside][same])
    assert error.mean() < shifted.mean() / 2  # the test can tell


def test_fisheye_sees_beyond_a_right_angle(room):
    wide = Camera(240, 240, 66, 66, 119.5, 119.5, "equidistant", (0.0, 0.0, 0.0, 0.0))  # 104 degrees to every side
    image, depth = render(room, wide, camera_mount((0.5, -0.4, 1.4), 0), with_depth=True)
    assert (image[120, [0, 239]].max(axis=1) > 0).all() and depth[120, 0] < 0 < depth[120, 120]


def test_pixels_without_a_ray_are_black(room):
    # the corners lie beyond its fold
    folded = Camera(320, 240, 150, 150, 159.5, 119.5, "plumb_bob", (-0.5, 0.0, 0.0, 0.0))
    image, depth = render(room, folded, camera_mount((0, 0.8, 1.4)), with_depth=True)
    assert (image[0, 0] == 0).all() and depth[0, 0] == 0 and image[120, 160].max() > 0


def test_edges_are_smooth_and_small_textures_do_not_flicker():
    """A board of fine black and white lines far away is grey, and its border takes values between board and
    background.
    """
    texture = np.zeros((512, 512, 3), np.uint8)
    texture[:, ::2] = 255
    board = Rectangle(np.array([20.0, 4, 4]), np.array([0, -8.0, 0]), np.array([0, 0, -8.0]), texture)
    tilt = poses.make_pose(Rotation.from_euler("x", 7, degrees=True).as_matrix(), np.zeros(3))
    image = render(Scene((board,)), CAMERAS["pinhole"], tilt @ camera_mount((0, 0, 0), 0))
    centre = image[100:140, 140:180, 0].astype(int)
    assert abs(centre.mean() - 127.5) < 3 and centre.std() < 4
    values = np.unique(image[..., 0])
    assert len(values[(values > 20) & (values < 110)]) >= 3


def test_one_seed_is_one_room(room):
    again, other = (build_room.__wrapped__(seed=seed, photographs=False) for seed in (3, 4))  # painted anew
    view = camera_mount((0, 0.8, 1.4))
    image = render(room, CAMERAS["pinhole"], view)
    np.testing.assert_array_equal(render(again, CAMERAS["pinhole"], view), image)
    assert np.abs(render(other, CAMERAS["pinhole"], view).astype(int) - image).mean() > 15


def test_the_walk_meets_no_furniture(room):
    """Along walks of both styles nothing is nearer than 15 cm in front of the camera, and the four walls look
    unlike.
    """
    camera = Camera(80, 60, 55, 55, 39.5, 29.5)
    for style, mount in (("handheld", camera_mount()), ("robot", camera_mount((0.12, 0, 0.95), -2))):
        for pose in trajectory(5, 28, 1, style=style)[1]:
            assert render(room, camera, pose @ mount, with_depth=True)[1].min() > 0.15
    walls = [
        render(room, camera, camera_mount((0, 0, 1.6), 0, yaw_deg=yaw)).reshape(-1, 3).mean(axis=0)
        for yaw in (0, 90, 180, 270)
    ]
    assert min(np.linalg.norm(a - b) for i, a in enumerate(walls) for b in walls[:i]) > 10


def test_photographs_hang_in_the_room():
    pytest.importorskip("skimage", reason="scikit-image, which ships the photographs, is not installed")
    with_photos, without = build_room(seed=3), build_room(seed=3, photographs=False)
    assert any(
        a.texture.shape == b.texture.shape and np.any(a.texture != b.texture)
        for a, b in zip(with_photos.rectangles, without.rectangles)
    )
